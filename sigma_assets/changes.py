"""What a catalog update did, as metadata of its materializations: the diff of the catalog, and semantic IDs that moved.

Reads the former partition before it is replaced; decides nothing. Source: the table is ours.
"""

from typing import Any

import dagster as dg
import polars as pl

from sigma_assets.periods import as_date, month_key
from sigma_assets.resources import SigmaResource
from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.catalog_diff import catalog_diff
from sigma_core.tokenization.semantic_ids import SemanticIdMap


def changes_of(sigma: SigmaResource, partition: str, catalog: ItemCatalog) -> dict[str, Any]:
    """The diff to the partition's former catalog, else to the day before; nothing where neither is there."""
    if (former := sigma.former("item_catalog", partition)) is None:
        return {}
    key, before = former
    listing = sigma.world.listing(as_date(partition))
    listed = set(listing.items[c.ITEM_ID]) if listing else None
    diff = catalog_diff(before, catalog, as_date(partition), listed)
    return {
        "compared_with": "the former catalog of the day" if key == partition else f"the catalog of {key}",
        "changes": dg.MetadataValue.md(diff.table()),
        **{f"items_{kind}": count for kind, count in diff.counts().items()},
    }


def moved_ids(sigma: SigmaResource, partition: str, ids: SemanticIdMap) -> dict[str, Any]:
    """How many items have another semantic ID than before within the month: none, unless something is wrong."""
    former = sigma.former("semantic_id_map", partition)
    if former is None or month_key(as_date(former[0])) != month_key(as_date(partition)):
        return {}
    old = former[1].frame.select(c.ITEM_ID, pl.col(c.CODES).alias("_before"))
    both = ids.frame.join(old, on=c.ITEM_ID)
    moved = both.filter(pl.col(c.CODES) != pl.col("_before")).height
    return {
        "semantic_ids_kept": both.height - moved,
        "semantic_ids_moved": moved,
        "semantic_ids_rule": "an item keeps its ID until the next month's refit, whatever becomes of its words",
    }
