"""The synthetic world of `toy_world.small_source`, cut a week before Halloween; built once for the tests here."""

from datetime import date
from functools import lru_cache

import polars as pl

from sigma_core import columns as c
from sigma_core.config import InstructionConfig, SigmaConfig
from sigma_core.data.catalog import CatalogBuilder, ItemCatalog
from sigma_core.data.events import clean_events
from sigma_core.data.users import UserProfiles, build_user_profiles
from tests.toy_world import SMALL_CONFIG, SMALL_START, small_source

CUT = date(2024, 10, 24)  # targets 25 to 31 October; Halloween is the last of them
CONFIG = SigmaConfig(data=SMALL_CONFIG, instruction=InstructionConfig(users_per_shard=24, max_targets=4))


@lru_cache(maxsize=1)
def small_events() -> pl.DataFrame:
    """Accepted events of all 60 days."""
    source = small_source()
    return clean_events(source.events(), source.products()[c.ITEM_ID])[0]


@lru_cache(maxsize=4)
def small_catalog(day: date = CUT) -> ItemCatalog:
    """The catalog of a day."""
    return CatalogBuilder(small_events(), small_source().products(), SMALL_CONFIG, SMALL_START).day(day)


@lru_cache(maxsize=4)
def small_profiles(day: date = CUT) -> UserProfiles:
    """The profiles of a day."""
    return build_user_profiles(small_source().users(), small_events(), day)
