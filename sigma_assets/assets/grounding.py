"""Stage (a), grounding: the collaborative teacher, relevance pairs, the text encoder and its vectors of the refit.

All monthly, from the days before the month. Source: paper, section on multi-view grounding; architecture.md, "One walk".
"""

import dagster as dg

from sigma_assets.features import own_id_embeddings
from sigma_assets.known_answers import known_answers
from sigma_assets.periods import as_date, refit_cut
from sigma_assets.publish import Published, publish
from sigma_assets.resources import SigmaResource
from sigma_assets.window import Window, frames_of
from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.devices import training_device
from sigma_core.grounding.embed import embed_items
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings, fit_id_embeddings
from sigma_core.grounding.relevance_pairs import RelevancePairs
from sigma_core.repeatable import repeatable

ANNOTATION_CACHE = ".annotations"  # inside the root: answers of the annotator, by content


def item_id_embeddings(context: dg.AssetExecutionContext, sigma: SigmaResource, history: Window) -> Published:
    """Frozen collaborative vectors v_ID: ALS over the window before the month, or the source's own vectors."""
    runtime, last = sigma.config.runtime, refit_cut(as_date(context.partition_key), sigma.world.span)
    events, own = frames_of(history, until=last), sigma.source.id_vectors()
    if own is not None:
        value = own_id_embeddings(own, events)
    else:
        value = fit_id_embeddings(events, sigma.config.grounding, runtime.seed, runtime.threads, as_of=last)
    yield from publish(context, sigma, value)


def relevance_pairs(
    context: dg.AssetExecutionContext, sigma: SigmaResource, history: Window, catalog: ItemCatalog
) -> Published:
    """Pairs of texts and items that belong together: bought together, searched for, known to go together."""
    from sigma_core.data.calendar import load_themes
    from sigma_core.data.complements import load_complements
    from sigma_core.grounding.relevance_pairs import build_relevance_pairs
    from sigma_core.instruction.phrases import answering_items

    phrases = answering_items(catalog.frame, "train")
    held_out = frozenset(answering_items(catalog.frame, "test"))
    events = frames_of(history, until=refit_cut(as_date(context.partition_key), sigma.world.span))
    pairs = build_relevance_pairs(
        events, catalog, load_themes(), phrases, sigma.config.grounding, sigma.config.runtime.seed,
        sigma.images(), annotations(context, sigma, catalog), load_complements(), held_out,
    )  # fmt: skip
    yield from publish(context, sigma, pairs, item_ids=catalog.frame[c.ITEM_ID])


def annotations(
    context: dg.AssetExecutionContext, sigma: SigmaResource, catalog: ItemCatalog
) -> dict[str, list[str]]:
    """The annotator's phrases for the catalog; none where it is off."""
    from sigma_core.grounding.annotator import annotate
    from sigma_core.grounding.chat import open_chat
    from sigma_core.instruction.phrases import answering_items

    if (chat := open_chat(sigma.config.grounding)) is None:
        return {}
    held_out, cache = answering_items(catalog.frame, "test"), sigma.world.root / ANNOTATION_CACHE
    found = annotate(
        catalog.frame, chat, sigma.config.grounding, cache, held_out, progress=sigma.progress(context)
    )
    context.log.info(f"annotator: {found.figures}")
    return found.items


def grounded_encoder(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    pairs: RelevancePairs,
    id_embeddings: ItemIdEmbeddings,
    catalog: ItemCatalog,
) -> Published:
    """MiniLM with LoRA, trained with InfoNCE on the pairs and with similarity KL towards v_ID."""
    from sigma_core.grounding.train import train_grounded_encoder

    seed = sigma.config.runtime.seed
    answers = known_answers(catalog)
    with sigma.tracker(context) as tracker:
        with repeatable(sigma.config.runtime.deterministic):
            encoder = train_grounded_encoder(
                pairs, catalog, id_embeddings, sigma.config.grounding, seed, tracker, sigma.progress(context), answers,
                training_device(sigma.config.runtime),
            )  # fmt: skip
        probe = catalog.frame[c.TEXT].unique().sort().head(16).to_list()
        losses = {
            "loss_before": encoder.figures["lora_contrastive_first"],
            "loss_after": encoder.figures["lora_contrastive_last"],
        }
        yield from publish(context, sigma, encoder, run=tracker, probe_texts=probe, **losses)


def refit_item_embeddings(
    context: dg.AssetExecutionContext, sigma: SigmaResource, catalog: ItemCatalog, encoder: GroundedEncoder
) -> Published:
    """Grounded vectors of the catalog of the last day that the refit learns from: what codebooks are fitted on."""
    items = catalog.frame
    ids, texts = items[c.ITEM_ID].to_list(), items[c.TEXT].to_list()
    encoder.to(training_device(sigma.config.runtime))
    vectors, encoded = embed_items(ids, texts, encoder, progress=sigma.progress(context))
    context.log.info(f"{encoded} texts encoded for {items.height} items")
    yield from publish(context, sigma, vectors, item_ids=items[c.ITEM_ID])
