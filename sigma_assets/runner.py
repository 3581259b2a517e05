"""Runs steps: sources in bulk, everything else one partition a Dagster run, in one process and in order.

A step that is fresh is left alone: complete, made by this code under these settings from inputs that are still the same. It
decides nothing about dates (`planner.py`) and prints through a `Reporter`. Source: architecture.md, "Traps".
"""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from sigma_assets.alert_sources import after_run
from sigma_assets.planner import Step
from sigma_assets.progress import Reporter, show_on
from sigma_assets.refits import REPUBLISHED, refusal_of
from sigma_assets.stages import SOURCES
from sigma_assets.tables import size_of
from sigma_assets.world import World, options_digest


class StepError(RuntimeError):
    """A step failed; the message names it and says why."""


class RefitRefusedError(StepError):
    """The gate refused a month's refit, and the former one may stand in for it."""

    def __init__(self, step: Step, why: str) -> None:
        super().__init__(f"{step}: {why}")
        self.step = step


@dataclass(frozen=True)
class Done:
    """What became of a step. `seconds` is 0 for a fresh one."""

    step: Step
    seconds: float
    is_fresh: bool


@dataclass
class Runner:
    """Executes steps of one root.

    Attributes:
        world: the root.
        instance: its Dagster instance.
        reporter: where progress goes.
        verbose: also print fresh steps and Dagster's own log.
        done: what became of each step so far, in order.
        num_republished: refits that were refused, so that the former one was published in their place.
    """

    world: World
    instance: dg.DagsterInstance
    reporter: Reporter
    verbose: bool = False
    done: list[Done] = field(default_factory=list)
    num_republished: int = 0

    @cached_property
    def _job(self) -> Any:
        """All assets as one job. Loaded when the first stale step needs it: a run of nothing stays cheap."""
        from sigma_assets.definitions import build_definitions

        definitions = build_definitions(root=self.world.root, eval_horizon=self.world.span.eval_horizon)
        return definitions.resolve_implicit_global_asset_job_def()

    def run(self, steps: Sequence[Step], options: dict[str, dict[str, Any]] | None = None) -> list[Done]:
        """Run the steps in the given order; `options` holds the run config of assets by name.

        Where the gate refuses a month's refit, the former one is published in its place, and steps that had read the refused one
        are run again.

        Raises:
            StepError: a step failed; the ones before it are on disk, none after it has run.
        """
        before = len(self.done)
        try:
            return self._run(steps, options)
        except RefitRefusedError as refused:
            self.reporter.line(f"warning: {refused}")
            self._republish(refused.step.partition)
            del self.done[before:]
            return self._run(steps, options)

    def _republish(self, month: str) -> None:
        """Publish the former refit as that of a refused month; its assets find the refusal."""
        self.run_singly([Step(asset, month) for asset in REPUBLISHED])
        self.num_republished += 1

    def _run(self, steps: Sequence[Step], options: dict[str, dict[str, Any]] | None) -> list[Done]:
        show_on(self.reporter)
        try:
            for asset in SOURCES:
                self._run_source(asset, [step for step in steps if step.asset == asset])
            derived = [step for step in steps if step.asset not in SOURCES]
            for number, step in enumerate(derived, start=1):
                self._run_step(step, f"[{number:>3}/{len(derived)}]", (options or {}).get(step.asset, {}))
        finally:
            show_on(None)
        return self.done

    def run_singly(self, steps: Sequence[Step]) -> list[Done]:
        """Run the steps in the given order, sources too, each stale one as a Dagster run of its own asset.

        Raises:
            StepError: as `run`.
        """
        show_on(self.reporter)
        try:
            for number, step in enumerate(steps, start=1):
                self._run_step(step, f"[{number}/{len(steps)}]", {})
        finally:
            show_on(None)
        return self.done

    def run_together(self, steps: Sequence[Step]) -> list[Done]:
        """Run steps of one partition, each reading the one before: from the first stale one on, as one Dagster run.

        Raises:
            StepError: as `run`.
        """
        for position, step in enumerate(steps):
            if self.world.why_stale(step.stage, step.partition, "") is None:
                self.done.append(Done(step, 0.0, True))
                continue
            self._run_at_once(steps[position:])
            break
        return self.done

    def _run_at_once(self, steps: Sequence[Step]) -> None:
        show_on(self.reporter)
        self.reporter.start(f"{' -> '.join(step.asset for step in steps)} {steps[0].partition}")
        try:
            run_id = self._execute(steps, {})
        finally:
            show_on(None)
        spans = {
            one.step_key: (one.start_time, one.end_time) for one in self.instance.get_run_step_stats(run_id)
        }
        for step in steps:
            began, ended = spans.get(step.asset, (None, None))
            self.done.append(Done(step, (ended or 0.0) - (began or 0.0), False))
        self.reporter.end(size_of(self.world, list(steps)))

    def metadata(self, step: Step) -> dict[str, Any]:
        """What Dagster shows beside the newest materialization of the step, as plain values."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(step.asset), asset_partitions=[step.partition]), limit=1
        ).records
        newest = records[0].asset_materialization if records else None
        return {key: value.value for key, value in newest.metadata.items()} if newest else {}

    def _run_source(self, asset: str, steps: Sequence[Step]) -> None:
        stale = [step for step in steps if self.world.why_stale(step.stage, step.partition)]
        self.done += [Done(step, 0.0, True) for step in steps if step not in stale]
        if not stale:
            return
        from sigma_assets.ingest import EVENTS, ingest
        from sigma_assets.intake import intake_of

        self.reporter.start(f"[sources] {_named(asset, [step.partition for step in stale])}")
        started = time.monotonic()
        refused = ingest(
            self.instance, self.world, asset, [step.partition for step in stale], self.reporter.advance
        )
        seconds = (time.monotonic() - started) / len(stale)
        self.done += [Done(step, seconds, False) for step in stale if step.partition not in refused]
        self.reporter.end(f"{len(stale) - len(refused)} partitions")
        if asset == EVENTS and (line := intake_of(self.world).report_line()):
            self.reporter.line(f"note: {line}")
        for partition in refused:
            self.reporter.line(f"warning: {self.world.failure(asset, partition)}")

    def _run_step(self, step: Step, number: str, options: dict[str, Any]) -> None:
        reason = self.world.why_stale(step.stage, step.partition, options_digest(options))
        if reason is None:
            self.done.append(Done(step, 0.0, True))
            if self.verbose:
                self.reporter.line(f"{number} {step.asset:<22} {step.partition}  fresh")
            return
        self.reporter.start(f"{number} {step.asset:<22} {step.partition}")
        started = time.monotonic()
        self._execute([step], {step.asset: options} if options else {})
        self.done.append(Done(step, time.monotonic() - started, False))
        self.reporter.end(f"{size_of(self.world, [step])}{f'  ({reason})' if reason != 'missing' else ''}")

    def _execute(self, steps: Sequence[Step], options: dict[str, dict[str, Any]]) -> str:
        """One Dagster run of steps of the same partition; returns its id."""
        step = steps[0]
        config: dict[str, Any] = {
            "loggers": {"console": {"config": {"log_level": "INFO" if self.verbose else "CRITICAL"}}}
        }
        if options:
            config["ops"] = {asset: {"config": given} for asset, given in options.items()}
        run_id = str(uuid.uuid4())
        try:
            self._job.execute_in_process(
                run_config=config,
                instance=self.instance,
                partition_key=step.partition,
                asset_selection=[dg.AssetKey(one.asset) for one in steps],
                run_id=run_id,
            )
        except DagsterExecutionInterruptedError:  # Dagster's own name for Ctrl-C and SIGTERM within a run
            self.reporter.end("stopped")
            raise KeyboardInterrupt from None
        except Exception as error:
            self.reporter.end("FAILED")
            after_run(self.world.root, self.instance, run_id)
            if step.asset == REPUBLISHED[-1] and refusal_of(self.world, step.partition):
                raise RefitRefusedError(step, _root_cause(error)) from error
            raise StepError(f"{self._failed(steps, run_id)}: {_root_cause(error)}") from error
        after_run(self.world.root, self.instance, run_id)
        return run_id

    def _failed(self, steps: Sequence[Step], run_id: str) -> Step:
        """The step at which a run ended; the first one where Dagster has no record of it."""
        if len(steps) == 1:
            return steps[0]
        stats = self.instance.get_run_step_stats(run_id)
        failed = {one.step_key for one in stats if one.status and one.status.value == "FAILURE"}
        return next((step for step in steps if step.asset in failed), steps[0])


def _named(asset: str, partitions: Sequence[str]) -> str:
    if len(partitions) == 1:
        return f"{asset:<22} {partitions[0]}"
    return f"{asset:<22} {partitions[0]} .. {partitions[-1]}"


def _root_cause(error: BaseException) -> str:
    """The innermost message of a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, dg.Failure) and error.description:
        return error.description
    return f"{type(error).__name__}: {error}" if not str(error) or isinstance(error, KeyError) else str(error)
