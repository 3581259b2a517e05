"""What an event of type `view` does: items learn from it what goes together, and nothing else knows of it."""

from datetime import timedelta

import polars as pl

from sigma_core import columns as c
from sigma_core.config import GroundingConfig
from sigma_core.data.catalog import CatalogBuilder
from sigma_core.data.users import build_user_profiles
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings, fit_id_embeddings
from sigma_core.grounding.relevance_pairs import RelevancePairs, build_relevance_pairs
from sigma_core.instruction.shards import SftShard, build_shard
from tests.instruction.small_world import CONFIG, CUT, small_catalog, small_events, small_profiles
from tests.toy_world import SMALL_CONFIG, SMALL_START, small_source

GROUNDING = GroundingConfig(
    id_dim=4, id_iterations=3, id_folds=1, view_weights={"collaborative": 0.5, "search": 0.5}
)


def typed(events: pl.DataFrame, kind: str) -> pl.DataFrame:
    return events.with_columns(pl.lit(kind).alias(c.EVENT_TYPE))


def v_id(events: pl.DataFrame) -> ItemIdEmbeddings:
    return fit_id_embeddings(events, GROUNDING, seed=1, threads=1)


def pairs(events: pl.DataFrame) -> RelevancePairs:
    return build_relevance_pairs(events, small_catalog(), {}, {}, GROUNDING, 17)


def shard(events: pl.DataFrame) -> SftShard:
    return build_shard(CUT + timedelta(days=7), events, small_catalog(), small_profiles(), CONFIG)


def looked_at() -> pl.DataFrame:
    """The world's users looking, at the times they bought, at what their neighbour in the table bought."""
    return typed(small_events(), "view").with_columns(pl.col(c.ITEM_ID).reverse())


def test_for_v_id_and_pairs_a_view_is_as_good_as_a_purchase() -> None:
    events = small_events().with_columns(pl.lit("cold drinks").alias(c.QUERY_TEXT))
    for made in (v_id, pairs):
        assert made(typed(events, "view")).digest() == made(typed(events, "purchase")).digest()
        assert made(pl.concat([events, typed(events, "view").reverse()])).digest() != made(events).digest()
    assert {"collaborative", "search"} == set(pairs(typed(events, "view")).frame[c.VIEW])


def test_for_histories_targets_counts_and_profiles_a_view_has_not_happened() -> None:
    with_views = pl.concat([small_events(), looked_at()])
    assert shard(with_views).digest() == shard(small_events()).digest()
    products, users = small_source().products(), small_source().users()
    catalog = CatalogBuilder(with_views, products, SMALL_CONFIG, SMALL_START).day(CUT)
    assert catalog.frame.equals(small_catalog().frame)
    assert build_user_profiles(users, with_views, CUT).frame.equals(small_profiles().frame)
