"""`sigma benchmark orchestration`: what the pipeline around the models costs.

Seconds of a rerun in which nothing changed, of Dagster around a step, of the data contracts on a day and on a year of events,
and of loading the code location. Measured on a copy of a root; every figure is the median of the repeats. Our choice.
"""

import statistics
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from sigma_assets.benchmarks.roots import Spent, copy_of, fresh_world, silent, spent
from sigma_assets.io_manager import load, write
from sigma_assets.periods import SELECT, as_date, day_key
from sigma_assets.planner import Step
from sigma_assets.window import Window
from sigma_assets.world import World
from sigma_core.benchmarks.record import Stopwatch, benchmark_record

if TYPE_CHECKING:
    from sigma_assets.runner import Runner

LIMITS: Final = {
    "no_change_seconds": 10.0,
    "layer_overhead_seconds": 0.5,
    "gx_day_seconds": 1.0,
    "gx_year_seconds": 3.0,
    "code_location_seconds": 4.0,
}
"""What each figure should stay below."""

TIMED: Final = ("item_embeddings", "semantic_id_map", "user_profiles")
"""Steps of a day that take little themselves, so that what lies around them shows."""

LOADING: Final = """
import os, sys, time
began = time.perf_counter()
from pathlib import Path
from sigma_assets.definitions import build_definitions
build_definitions(root=Path(sys.argv[1])).get_repository_def()
print(time.perf_counter() - began, sum(os.times()[:2]))
"""


def run(root: Path, day: date, repeats: int) -> dict[str, Any]:
    """The record of the benchmark, measured on a copy of `root`.

    Raises:
        PlanError: the day is not materialized, or not fresh.
    """
    watch = Stopwatch()
    world = fresh_world(root, day)
    with copy_of(root) as copy:
        results: dict[str, Any] = _median("no_change", lambda: _no_change(copy, day), repeats)
        results |= _median("code_location", lambda: _code_location(copy), repeats)
        results |= _gx(World.open(copy), day, repeats)
        results |= _overhead(copy, day, repeats)
    results["limits"] = LIMITS
    return benchmark_record(
        "orchestration",
        results,
        settings={"repeats": repeats, "day": day.isoformat(), "profile": world.binding.profile},
        data={"root": world.binding.fingerprint},
        seeds=[],
        seconds=watch.seconds(),
    )


def _median(name: str, measure: Callable[[], Spent], repeats: int) -> dict[str, float]:
    """Medians under `<name>_seconds` and `<name>_cpu_seconds`."""
    found = [measure() for _ in range(repeats)]
    return {
        f"{name}_seconds": statistics.median(one.wall for one in found),
        f"{name}_cpu_seconds": statistics.median(one.cpu for one in found),
    }


def _no_change(copy: Path, day: date) -> Spent:
    command = [sys.executable, "-m", "sigma_assets.cli", "materialize", "--root", str(copy)]
    return spent(
        lambda: subprocess.run(
            [*command, "--as-of", day.isoformat()],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    )


def _code_location(copy: Path) -> Spent:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOADING, str(copy)], check=True, capture_output=True, text=True
    )
    return Spent(*map(float, done.stdout.split()))


# ----------------------------------------------------------------------------------------- contracts
def _gx(world: World, day: date, repeats: int) -> dict[str, float]:
    """Seconds of judging a day and a year of events against their contract; GX is imported before."""
    from sigma_assets.checks.contract import validate, validate_range
    from sigma_assets.checks.semantic import facts
    from sigma_assets.intake import intake_of
    from sigma_core import columns as c
    from sigma_core.contracts import load_contract
    from sigma_core.data.events import InteractionEvents

    intake, contract = intake_of(world), load_contract("interaction_events")
    days = [date.fromordinal(n) for n in range(world.span.start.toordinal(), world.span.end.toordinal() + 1)]
    one = facts("interaction_events", intake.days([day])[day], **intake.event_inputs([day]))
    values = intake.days(days)
    import polars as pl

    together = InteractionEvents(
        pl.concat([value.frame for value in values.values()]),
        pl.concat([value.quarantine for value in values.values() if value.quarantine is not None]),
    )
    year = facts("interaction_events", together, **intake.event_inputs(days))
    validate(contract, one)  # imports GX
    return {
        **_median("gx_day", lambda: spent(lambda: validate(contract, one)), repeats),
        **_median(
            "gx_year", lambda: spent(lambda: validate_range(contract, year, c.EVENT_DATE, days)), repeats
        ),
        "gx_year_rows": together.frame.height,
    }


# ------------------------------------------------------------------------------------- Dagster's share
def _overhead(copy: Path, day: date, repeats: int) -> dict[str, Any]:
    """Seconds that Dagster adds to a step: the step as a run, minus the same step called directly."""
    from sigma_assets.commands import runner_of

    out: dict[str, Any] = {}
    with runner_of(World.open(copy), silent(), verbose=False) as runner:
        for asset in TIMED:
            step = Step(asset, day_key(day))
            _as_run(runner, step), _directly(runner.world, step)  # warm
            pairs = [(_as_run(runner, step), _directly(runner.world, step)) for _ in range(repeats)]
            out[asset] = {
                "seconds": statistics.median(run.wall - direct.wall for run, direct in pairs),
                "cpu_seconds": statistics.median(run.cpu - direct.cpu for run, direct in pairs),
            }
    return {
        "layer_overhead_seconds": max(one["seconds"] for one in out.values()),
        "layer_overhead_cpu_seconds": max(one["cpu_seconds"] for one in out.values()),
        "layer_overhead_by_step": out,
    }


def _as_run(runner: "Runner", step: Step) -> Spent:
    runner.world.mark_failure(step.asset, step.partition, "made again to be timed")
    return spent(lambda: runner.run_singly([step]))


def _directly(world: World, step: Step) -> Spent:
    """What the step takes without Dagster: inputs, body with its contract, and the write."""
    from sigma_assets.definitions import MODULES
    from sigma_assets.resources import SigmaResource

    body = getattr(MODULES[step.stage.group], step.asset)
    sigma = SigmaResource(root=str(world.root))
    context = SimpleNamespace(
        asset_key=SimpleNamespace(path=[step.asset]),
        partition_key=step.partition,
        run_id="",
        log=SimpleNamespace(info=_nothing, warning=_nothing),
    )

    def call() -> None:
        inputs: dict[str, Any] = {}
        for name, read in step.stage.reads.items():
            keys = SELECT[read.window](as_date(step.partition), world.span)
            values = {key: load(world, read.asset, key) for key in keys if world.manifest(read.asset, key)}
            inputs[name] = Window(values) if read.is_window else values[keys[0]]
        output = next(iter(body(context, sigma, **inputs)))
        write(world, step.asset, step.partition, output.value)

    return spent(call)


def _nothing(*_: Any) -> None:
    pass
