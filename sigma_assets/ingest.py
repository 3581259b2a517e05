"""Bulk ingestion: all missing days of a source asset in one process, one artifact and one Dagster event a partition.

The same core calls and the same artifacts as the assets of `assets/sources.py` (a test compares them); only the cost differs:
the source is read once, and rows of many days are validated in one go. Source: architecture.md, "Traps" (ranges).
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final

import dagster as dg
import polars as pl

from sigma_assets.alert_sources import after_ingestion
from sigma_assets.checks.contract import CHECK, CheckOutcome, check_results, failed_errors, validate_range
from sigma_assets.checks.drift import drift_results
from sigma_assets.checks.semantic import facts
from sigma_assets.instance import one_transaction, report_checks, report_partitions
from sigma_assets.intake import Intake, intake_of
from sigma_assets.io_manager import load, write
from sigma_assets.masters import digest_on
from sigma_assets.periods import as_date, day_key, month_span
from sigma_assets.publish import audit, metadata_of, refusal
from sigma_assets.stages import STAGES
from sigma_assets.window import readable
from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.contracts import contract_names, load_contract
from sigma_core.data.events import InteractionEvents
from sigma_core.data.users import build_user_profiles

EVENTS: Final = "interaction_events"  # the asset that shows what the source says of itself
Audited = Iterator[tuple[str, Any, list[CheckOutcome]]]
"""(partition, value, outcomes of its contract), one partition at a time."""

Advance = Callable[[int, int, str], None]


def ingest(
    instance: dg.DagsterInstance, world: World, asset: str, partitions: Sequence[str], advance: Advance
) -> list[str]:
    """Make, audit, write and report the partitions of a source asset; returns those that broke their contract.

    A refused partition is not written; its failed checks are reported and remembered, so that a same-day reader refuses it.
    What was made before an error or Ctrl-C is reported too.

    Raises:
        ArtifactError: an input is missing or failed.
    """
    contract = load_contract(asset) if asset in contract_names() else None
    results: dict[str, Sequence[dg.AssetCheckResult]] = {}
    metadata: dict[str, dict[str, Any]] = {}
    refused = []
    about_source = intake_of(world).report_metadata() if asset == EVENTS else {}
    try:
        for done, (partition, value, outcomes) in enumerate(_MAKERS[asset](world, partitions), start=1):
            checks = check_results(contract, outcomes) if contract else []
            if broken := failed_errors(outcomes):
                world.mark_failure(asset, partition, refusal(asset, partition, broken))
                refused.append(partition)
            else:
                checks += drift_results(world, asset, partition, value)
                write(world, asset, partition, value)
                metadata[partition] = metadata_of(asset, value, with_plot=False) | about_source
            results[partition] = checks
            advance(done, len(partitions), partition)
    finally:
        with one_transaction(instance):
            report_partitions(instance, world, asset, list(metadata), metadata)
            report_checks(instance, asset, results, blocking=(CHECK,))
        after_ingestion(world.root, asset, results)
    return refused


def _events(world: World, partitions: Sequence[str]) -> Audited:
    intake = intake_of(world)
    days = [as_date(key) for key in partitions]
    values = intake.days(days)
    outcomes: dict[str, list[CheckOutcome]] = {key: [] for key in partitions}
    if "interaction_events" in contract_names():
        together = InteractionEvents(
            pl.concat([value.frame for value in values.values()]),
            pl.concat([value.quarantine for value in values.values() if value.quarantine is not None]),
        )
        tables = facts("interaction_events", together, **intake.event_inputs(days))
        outcomes = validate_range(load_contract("interaction_events"), tables, c.EVENT_DATE, days)
    for day, key in zip(days, partitions, strict=True):
        yield key, values[day], outcomes[key]


def _history(world: World, partitions: Sequence[str]) -> Audited:
    for key in partitions:
        first, last = month_span(as_date(key), world.span)
        value = InteractionEvents(_accepted(world, [key], "interaction_history"))
        yield key, value, audit("interaction_history", value, first=first, last=last)


def _catalogs(world: World, partitions: Sequence[str]) -> Audited:
    intake = intake_of(world)
    events = _accepted(world, partitions, "item_catalog")
    same_master = groupby(map(as_date, partitions), key=lambda day: digest_on(world.binding, day))
    for days in [list(group) for _, group in same_master]:
        # Later events may name items that this master does not know yet.
        builder = intake.catalog_builder(world, events.filter(pl.col(c.EVENT_DATE) <= max(days)), days[0])
        for day in days:
            value = builder.day(day)
            yield day_key(day), value, audit("item_catalog", value, **intake.catalog_inputs(day))


def _profiles(world: World, partitions: Sequence[str]) -> Audited:
    intake: Intake = intake_of(world)
    events = _accepted(world, partitions, "user_profiles")
    for key in partitions:
        day = as_date(key)
        value = build_user_profiles(intake.users, events, day)
        yield key, value, audit("user_profiles", value, day=day)


def _accepted(world: World, partitions: Sequence[str], asset: str) -> pl.DataFrame:
    """Events of every day that the partitions read and that was accepted, in the order in which files would give them."""
    days: set[str] = set()
    for key in partitions:
        for read in STAGES[asset].reads.values():
            present, _ = readable(world, read, key)
            for one in present:
                days |= {one} if read.asset == "interaction_events" else _days_of(world, one)
    if world.binding.masters:  # since then the source may be cleaned otherwise than it was when a day came in
        kept = [load(world, "interaction_events", day).frame for day in sorted(days)]
        return pl.concat(kept) if kept else intake_of(world).events.clear()
    wanted = pl.Series([as_date(day) for day in days], dtype=pl.Date)
    return intake_of(world).events.filter(pl.col(c.EVENT_DATE).is_in(wanted.implode()))


def _days_of(world: World, month: str) -> set[str]:
    lineage = world.store.manifest("interaction_history", month)["lineage"]
    return {key.partition("/")[2] for key in lineage if key.startswith("interaction_events/")}


_MAKERS: Final[dict[str, Callable[[World, Sequence[str]], Audited]]] = {
    "interaction_events": _events,
    "interaction_history": _history,
    "item_catalog": _catalogs,
    "user_profiles": _profiles,
}
