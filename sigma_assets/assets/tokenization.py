"""Stage (b), tokenization: codebooks of the month, and vectors and semantic IDs of a day's catalog.

A catalog update costs the encoding of new texts and nothing else. Source: paper, section on hybrid item tokenization.
"""

import dagster as dg

from sigma_assets.changes import moved_ids
from sigma_assets.features import launch_vectors
from sigma_assets.publish import Published, publish
from sigma_assets.resources import SigmaResource
from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.devices import training_device
from sigma_core.grounding.embed import ItemEmbeddings, embed_items
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.row_memory import remembered
from sigma_core.tokenization.codebooks import Codebooks, fit_codebooks
from sigma_core.tokenization.refit_drift import is_comparable, keep_numbering, refit_drift
from sigma_core.tokenization.semantic_ids import build_semantic_id_map


def codebooks(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    embeddings: ItemEmbeddings,
    id_embeddings: ItemIdEmbeddings,
    catalog: ItemCatalog,
) -> Published:
    """Residual codebooks fitted on the refit's vectors, and the codes of the refit's items; pinned for the month.

    Where the previous month's are on disk, numbers are kept like theirs and the share of items that moved is told.
    """
    runtime = sigma.config.runtime
    with sigma.tracker(context) as tracker:
        fitted = fit_codebooks(
            embeddings,
            sigma.config.tokenization,
            runtime.seed,
            runtime.threads,
            id_embeddings=id_embeddings,
            categories=catalog.frame.sort(c.ITEM_ID)[c.CATEGORY].to_list(),
        )
        before = sigma.before("codebooks", context.partition_key)
        if before is not None:
            fitted = _compared(before, fitted, keep=sigma.config.tokenization.keep_numbering)
        yield from publish(context, sigma, fitted, run=tracker, item_ids=embeddings.item_ids)


def _compared(before: tuple[str, Codebooks], fitted: Codebooks, *, keep: bool) -> Codebooks:
    """`fitted`, numbered like the previous month's where asked and possible, with the comparison among its health figures."""
    month, previous = before
    unmatched = refit_drift(previous, fitted)["prefix_changed_share"]
    if keep and is_comparable(previous, fitted):
        fitted = keep_numbering(previous, fitted)
    told = {"compared_with": month, "prefix_changed_share_unmatched": unmatched}
    fitted.health |= refit_drift(previous, fitted) | told
    return fitted


def item_embeddings(
    context: dg.AssetExecutionContext, sigma: SigmaResource, catalog: ItemCatalog, encoder: GroundedEncoder
) -> Published:
    """Grounded vectors v_text of a day's catalog; a text that was encoded before is looked up."""
    items, known = catalog.frame, sigma.known_vectors(context.partition_key)
    ids, texts = items[c.ITEM_ID].to_list(), items[c.TEXT].to_list()
    remembering = sigma.remembering(encoder.to(training_device(sigma.config.runtime)))
    vectors, _ = embed_items(ids, texts, remembering, known, sigma.progress(context))
    context.log.info(f"{remembering.num_encoded} texts encoded for {items.height} items")
    counts = {"texts_encoded": remembering.num_encoded, "texts_recalled": remembering.num_recalled}
    yield from publish(context, sigma, vectors, metadata=counts, item_ids=items[c.ITEM_ID])


def semantic_id_map(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    catalog: ItemCatalog,
    embeddings: ItemEmbeddings,
    codebooks: Codebooks,
    encoder: GroundedEncoder,
) -> Published:
    """Semantic ID of every item of a day: refit items keep theirs, later ones are coded from their first text."""
    known = [embeddings, *sigma.known_vectors(context.partition_key)]
    remembering = sigma.remembering(encoder)
    launched = launch_vectors(catalog, codebooks, remembering, known)
    encode = remembered(codebooks.encode, sigma.memory("codes", codebooks.digest()))
    ids = build_semantic_id_map(catalog, codebooks, launched, encode)
    moves = {"texts_encoded": remembering.num_encoded} | moved_ids(sigma, context.partition_key, ids)
    yield from publish(
        context, sigma, ids, metadata=moves, item_ids=catalog.frame[c.ITEM_ID], codebooks=codebooks
    )
