"""Stage (d), serving: the item index of a day and every user's precomputed list.

Source: paper, three-step item generation and nearline user-to-item serving.
"""

from dataclasses import asdict

import dagster as dg

from sigma_assets.intake import intake_of
from sigma_assets.periods import as_date
from sigma_assets.plots import inline_png
from sigma_assets.promotion_orders import need_not_taken_back
from sigma_assets.publish import Published, publish
from sigma_assets.resources import SigmaResource
from sigma_assets.window import Window, frames_of
from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.users import UserProfiles
from sigma_core.grounding.embed import ItemEmbeddings
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.serving.item_index import ItemIndex, build_item_index
from sigma_core.serving.promoted import PromotedModel
from sigma_core.tokenization.item_features import assemble
from sigma_core.tokenization.semantic_ids import SemanticIdMap
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase


def item_index(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    base: SigmaBase,
    checkpoint: LoraCheckpoint,
    semantic_ids: SemanticIdMap,
    embeddings: ItemEmbeddings,
    id_embeddings: ItemIdEmbeddings,
) -> Published:
    """Fused unique vectors of the whole catalog, sorted by prefix, with the offsets of each prefix."""
    from sigma_core.model.fusion_figure import fusion_png

    features = assemble(embeddings.item_ids, embeddings, id_embeddings, semantic_ids, sigma.images())
    index = build_item_index(base, checkpoint, features)
    png = fusion_png(base.build_fusion(), features, sigma.pictures)
    picture = inline_png(png, "two items through the fusion")
    shown = {"plot": dg.MetadataValue.md(picture)}
    yield from publish(context, sigma, index, metadata=shown, item_ids=features.item_ids)


def user_to_item_index(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    base: SigmaBase,
    promoted: PromotedModel,
    index: ItemIndex,
    catalog: ItemCatalog,
    profiles: UserProfiles,
    encoder: GroundedEncoder,
    history: Window,
    recent: Window,
) -> Published:
    """Every user's list by the promoted model, and the contexts `sigma recommend` answers live requests from."""
    need_not_taken_back(sigma.world, context.partition_key)
    from sigma_core.data.purchases import Purchases
    from sigma_core.data.typical_prices import typical_prices
    from sigma_core.instruction.contexts import build_contexts, owned_lists
    from sigma_core.instruction.requests import day_words
    from sigma_core.serving.user_to_item import build_user_to_item_index

    day, events, data = as_date(context.partition_key), frames_of(history, recent), sigma.config.data
    purchases = Purchases.of(events)
    contexts = build_contexts(purchases, catalog, profiles, day, sigma.config.instruction)
    owned = owned_lists(purchases, catalog, day, sigma.config.instruction)
    offers = intake_of(sigma.world).offers
    words = asdict(day_words(purchases, catalog, day, data.horizon_days, data.country, offers))
    prices = typical_prices(events, day, data.catalog_window_days)
    lists, work = build_user_to_item_index(
        base, promoted.checkpoint, index, catalog, contexts, owned, encoder, sigma.config, sigma.progress(context),
        words, prices, sigma.beams(context.partition_key),
    )  # fmt: skip
    yield from publish(
        context, sigma, lists, metadata=dict(work), item_ids=index.item_ids, user_ids=contexts[c.USER_ID]
    )
