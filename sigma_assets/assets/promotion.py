"""Promotion: which adapter serves a day, decided by the quality gate or by hand.

Source: our choice; the rule is `sigma_core/evaluation/promotion.py`, what it is told `sigma_assets/promotion.py`.
"""

import dagster as dg

from sigma_assets.comparing import Refit
from sigma_assets.promotion import Gate, decision_table, gate_result
from sigma_assets.publish import Published, publish
from sigma_assets.resources import SigmaResource
from sigma_assets.window import Window
from sigma_core.data.catalog import ItemCatalog
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.tokenization.codebooks import Codebooks
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase


def promoted_model(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    base: SigmaBase,
    checkpoint: LoraCheckpoint,
    shards: Window,
    catalog: ItemCatalog,
    id_embeddings: ItemIdEmbeddings,
    codebooks: Codebooks,
    encoder: GroundedEncoder,
) -> Published:
    """Which adapter serves the day, since when and why: the day's own if it passes the quality gate, else the former one."""
    refit = Refit(base, codebooks, encoder, id_embeddings)
    value = Gate(context, sigma, refit, checkpoint, shards, catalog).decide()
    shown = {"decision": dg.MetadataValue.md(decision_table(value))}
    with sigma.tracker(context) as tracker:
        yield from publish(
            context,
            sigma,
            value,
            metadata=shown,
            checks=[gate_result(value)],
            run=tracker,
            day=context.partition_key,
            base=base,
        )
