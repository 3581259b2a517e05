"""Stage (c), data side: dated instruction examples whose answers are known by the day of the shard.

Source: paper, multi-task supervised fine-tuning; tasks.md (definitions).
"""

from datetime import timedelta

import dagster as dg
import polars as pl

from sigma_assets.intake import intake_of, item_types_of
from sigma_assets.periods import as_date
from sigma_assets.publish import Published, publish
from sigma_assets.resources import SigmaResource
from sigma_assets.window import Window, frames_of
from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.users import UserProfiles


def sft_shards(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    history: Window,
    recent: Window,
    catalog: ItemCatalog,
    profiles: UserProfiles,
) -> Published:
    """Examples of all tasks for a sample of users, cut `horizon_days` before the day; items by id."""
    from sigma_core.instruction.shards import build_shard

    day, events = as_date(context.partition_key), frames_of(history, recent)
    types, horizon = item_types_of(sigma.world, day - timedelta(days=1)), sigma.world.span.horizon
    offers = intake_of(sigma.world).offers
    shard = build_shard(day, events, catalog, profiles, sigma.config, item_types=types, offers=offers)
    window = events.filter(pl.col(c.EVENT_DATE) > day - timedelta(days=horizon))
    known = catalog.frame[c.ITEM_ID]
    yield from publish(context, sigma, shard, day=day, horizon=horizon, item_ids=known, events=window)
