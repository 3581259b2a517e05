"""The training shard of a day: contexts and examples whose target window ends on that day.

Items are named by item_id, never by token: a new codebook invalidates no shard (decision 1 of paper.md). Batches are
made from shards elsewhere. Source: paper, multi-task supervised fine-tuning.
"""

from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final, Self

import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import digest_bytes, digest_frame, digest_json, read_json, write_json
from sigma_core.config import SigmaConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.item_activity import ACTIVITY_SCHEMA, activity_of
from sigma_core.data.offers import Offers
from sigma_core.data.purchases import Events, Purchases
from sigma_core.data.users import UserProfiles
from sigma_core.instruction.contexts import CONTEXT_SCHEMA, history_users
from sigma_core.instruction.examples import EXAMPLE_SCHEMA, build_examples, catalog_targets
from sigma_core.instruction.hashing import stable_hash
from sigma_core.instruction.tasks import TASKS

CONTEXTS_FILE: Final = "contexts.parquet"
EXAMPLES_FILE: Final = "examples.parquet"
ACTIVITY_FILE: Final = "activity.parquet"
DROPPED_FILE: Final = "dropped.json"


@dataclass(frozen=True)
class SftShard:
    """Examples of one day: every input ends at the cut, every target lies in (cut, day].

    Attributes:
        contexts: frame of `CONTEXT_SCHEMA`, one row a user, sorted.
        examples: frame of `EXAMPLE_SCHEMA`, one row a request, sorted; every user has a context.
        activity: frame of `ACTIVITY_SCHEMA`, one row an item of the catalog of the cut: how much it was bought by then.
        dropped: what was left out, by reason.
    """

    contexts: pl.DataFrame
    examples: pl.DataFrame
    activity: pl.DataFrame
    dropped: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames = (self.contexts, self.examples, self.activity)
        for frame, schema in zip(frames, (CONTEXT_SCHEMA, EXAMPLE_SCHEMA, ACTIVITY_SCHEMA), strict=True):
            if dict(frame.schema) != schema:
                raise ValueError(f"SftShard: needed columns {schema}, arrived {dict(frame.schema)}.")

    def save(self, directory: Path) -> None:
        """Write `contexts.parquet`, `examples.parquet`, `activity.parquet` and `dropped.json`."""
        self.contexts.write_parquet(directory / CONTEXTS_FILE)
        self.examples.write_parquet(directory / EXAMPLES_FILE)
        self.activity.write_parquet(directory / ACTIVITY_FILE)
        write_json(directory / DROPPED_FILE, self.dropped)

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote."""
        return cls(
            pl.read_parquet(directory / CONTEXTS_FILE),
            pl.read_parquet(directory / EXAMPLES_FILE),
            pl.read_parquet(directory / ACTIVITY_FILE),
            read_json(directory / DROPPED_FILE),
        )

    def digest(self) -> str:
        """Digest of the frames and of the counts of what was dropped."""
        frames = map(digest_frame, (self.contexts, self.examples, self.activity))
        return digest_bytes(*(part.encode() for part in (*frames, digest_json(self.dropped))))

    def summary(self) -> dict[str, Any]:
        """Users, examples and targets, in all and per task (0 for an undefined one), and what was dropped."""
        counts = self.examples.group_by(c.TASK).agg(
            pl.len(), pl.col(c.TARGETS).list.len().sum().alias("targets")
        )
        per_task = {task: (rows, targets) for task, rows, targets in counts.iter_rows()}
        return {
            "users": self.contexts.height,
            "examples": self.examples.height,
            "targets": sum(targets for _, targets in per_task.values()),
            "examples_by_task": {task: per_task.get(task, (0, 0))[0] for task in TASKS},
            "targets_by_task": {task: per_task.get(task, (0, 0))[1] for task in TASKS},
            "dropped": dict(sorted(self.dropped.items())),
        }


def build_shard(
    day: date,
    events: Events,
    catalog: ItemCatalog,
    profiles: UserProfiles,
    config: SigmaConfig,
    *,
    item_types: pl.DataFrame | None = None,
    offers: Offers | None = None,
) -> SftShard:
    """The shard of `day`: cut = day - horizon, targets in (cut, day].

    Holds `users_per_shard` users, chosen by hash of user and day among those with a target and some history in the
    catalog. A day too early for both gives a shard without rows.

    Args:
        day: last day of the target window.
        events: accepted events from the start of the data, or for many days their `Purchases`; days after `day` are not looked at.
        catalog: catalog of the cut.
        profiles: profiles of the cut.
        item_types, offers: as in `build_examples`.
    """
    cut = day - timedelta(days=config.data.horizon_days)
    past = Purchases.of(
        events if isinstance(events, Purchases) else events.filter(pl.col(c.EVENT_DATE) <= day)
    )
    targets, _ = catalog_targets(past, catalog, cut, config.data.horizon_days)
    with_target = targets[c.USER_ID].unique()
    eligible = (
        history_users(past, catalog, cut).to_frame().filter(pl.col(c.USER_ID).is_in(with_target.implode()))
    )
    order = stable_hash(eligible, (c.USER_ID,), f"{config.runtime.seed}:{day}:users")
    chosen = (
        eligible.with_columns(order)
        .sort(order.name)
        .head(config.instruction.users_per_shard)[c.USER_ID]
        .sort()
    )
    built = build_examples(
        cut,
        past,
        catalog,
        profiles,
        config,
        users=chosen.to_list(),
        split="train",
        max_requests=config.instruction.max_requests_per_task,
        item_types=item_types,
        offers=offers,
    )
    dropped = built.dropped | {"users_over_limit": eligible.height - len(chosen)}
    return SftShard(built.contexts, built.examples, activity_of(catalog.frame), dropped)
