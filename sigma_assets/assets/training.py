"""Stage (c), model side: the month's base model and the day's LoRA checkpoint.

Source: paper, multi-task supervised fine-tuning; paper.md (fusion, losses, LoRA).
"""

import dagster as dg

from sigma_assets.comparing import Refit
from sigma_assets.features import catalog_features, refit_features
from sigma_assets.publish import Published, publish
from sigma_assets.refit_gate import RefitGate, refit_result, refused_by
from sigma_assets.resources import SigmaResource
from sigma_assets.window import Window
from sigma_core.data.catalog import ItemCatalog
from sigma_core.grounding.embed import ItemEmbeddings
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.repeatable import repeatable
from sigma_core.tokenization.codebooks import Codebooks
from sigma_core.training.checkpoint import SigmaBase


def sigma_base(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    shards: Window,
    embeddings: ItemEmbeddings,
    id_embeddings: ItemIdEmbeddings,
    codebooks: Codebooks,
    encoder: GroundedEncoder,
    catalog: ItemCatalog,
) -> Published:
    """Backbone, prefix tokens, fusion and heads, trained on the shards of the window before the month.

    Judged on the days that the refit left out; a refused one is not written, and the former month's refit goes on.
    """
    from sigma_core.training.sft import train_base

    features = refit_features(catalog, embeddings, id_embeddings, codebooks, sigma.images())
    with sigma.tracker(context) as tracker:
        with repeatable(sigma.config.runtime.deterministic):
            base = train_base(
                list(shards.values()),
                features,
                codebooks,
                encoder,
                sigma.config,
                tracker,
                sigma.progress(context),
            )
        refit = Refit(base, codebooks, encoder, id_embeddings)
        verdict = RefitGate(context, sigma, refit, features, catalog).decide()
        yield from publish(
            context, sigma, base, run=tracker, checks=[refit_result(verdict)], refused=refused_by(verdict), **base.facts()
        )  # fmt: skip


def lora_checkpoint(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    base: SigmaBase,
    shards: Window,
    catalog: ItemCatalog,
    embeddings: ItemEmbeddings,
    id_embeddings: ItemIdEmbeddings,
    codebooks: Codebooks,
    encoder: GroundedEncoder,
) -> Published:
    """The day's LoRA adapter and heads on top of the base, trained on the shards of the days before."""
    from sigma_core.training.lora import train_lora

    known = [embeddings, *sigma.known_vectors(context.partition_key)]
    remembering = sigma.remembering(encoder)
    features = catalog_features(catalog, id_embeddings, codebooks, remembering, known, sigma.images())
    with sigma.tracker(context) as tracker:
        with repeatable(sigma.config.runtime.deterministic):
            checkpoint = train_lora(
                base,
                list(shards.values()),
                features,
                codebooks,
                encoder,
                sigma.config,
                tracker,
                sigma.progress(context),
            )
        yield from publish(context, sigma, checkpoint, run=tracker, **checkpoint.facts())
