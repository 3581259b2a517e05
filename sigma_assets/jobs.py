"""Jobs for the UI: the refit of a month, the run of a day, and the catalog update of a day.

`sigma materialize` needs none of them: it runs one partition of one asset at a time, in order.
"""

from typing import Any, Final

import dagster as dg

from sigma_assets.catalog_update import CATALOG_UPDATE

REFIT: Final = (
    "item_id_embeddings",
    "relevance_pairs",
    "grounded_encoder",
    "refit_item_embeddings",
    "codebooks",
    "sigma_base",
)
DAY: Final = (
    "item_embeddings",
    "semantic_id_map",
    "lora_checkpoint",
    "item_index",
    "user_to_item_index",
)


def all_jobs() -> list[Any]:
    """Every job, each over partitions of one cadence."""
    return [
        dg.define_asset_job(
            "refit_month", selection=list(REFIT), description="Everything that changes once a month."
        ),
        dg.define_asset_job(
            "run_day", selection=list(DAY), description="Checkpoint, indexes and lists of a day."
        ),
        dg.define_asset_job(
            "update_catalog",
            selection=list(CATALOG_UPDATE),
            description="What a changed catalog of a day needs.",
        ),
    ]
