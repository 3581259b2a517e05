"""The job `nearline_refresh` and its sensor: event files that are dropped into a root refresh their users' lists.

What it does is `sigma nearline`; files may grow, and each event is taken in once, so that a run that is killed or repeated does
no harm. Source: paper, nearline serving.
"""

from pathlib import Path
from typing import Final

import dagster as dg

from sigma_core.artifacts import digest_json
from sigma_core.serving.event_files import LINES, PARQUET

EVENTS: Final = "inbox/events"
NEARLINE: Final = "nearline_refresh"
FILES_TAG: Final = "sigma/events"  # of a run: digest of the files that it was asked for
MAX_TRIES: Final = 4
SUFFIXES: Final = frozenset({*LINES, PARQUET})


def nearline_job(root: Path) -> dg.JobDefinition:
    """Takes in what is new in `<root>/inbox/events` and brings the lists of its users up to date."""

    @dg.op(name="take_events_in", description="Read new events, refresh the users they belong to.")
    def take_events_in(context: dg.OpExecutionContext) -> None:
        from sigma_assets.commands import follow_events

        said: list[str] = []

        def tell(line: str) -> None:
            said.append(line)
            context.log.info(line)

        follow_events(root, root / EVENTS, tell, follow=False)
        context.add_output_metadata({"result": said[-1]})

    @dg.job(
        name=NEARLINE,
        description="New events of the inbox, and fresh lists for the users they belong to. Trains nothing.",
        tags={"sigma/job": NEARLINE, "dagster/priority": "10"},  # before whatever else waits in the queue
        executor_def=dg.in_process_executor,
    )
    def refresh() -> None:
        take_events_in()

    return refresh


def nearline_sensor(root: Path) -> dg.SensorDefinition:
    """Runs `nearline_refresh` whenever a file of `<root>/inbox/events` is new or has grown; stopped by default.

    A run that failed is asked for again, at most `MAX_TRIES` times for the same files.
    """

    @dg.sensor(name=NEARLINE, job_name=NEARLINE, minimum_interval_seconds=30)
    def watch(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        folder = root / EVENTS
        files = sorted(folder.glob("[!.]*")) if folder.is_dir() else []
        state = [
            [path.name, path.stat().st_size, path.stat().st_mtime_ns]
            for path in files
            if path.suffix in SUFFIXES
        ]
        if not state:
            return dg.SkipReason(f"no event file in {folder}; put .jsonl or .parquet files there")
        digest = digest_json(state)
        if digest != context.cursor:
            return dg.SensorResult(run_requests=[_run(digest, digest)], cursor=digest)
        tries = context.instance.get_runs(dg.RunsFilter(job_name=NEARLINE, tags={FILES_TAG: digest}))
        if not tries or tries[0].status != dg.DagsterRunStatus.FAILURE:  # the newest comes first
            return dg.SkipReason("nothing new")
        if len(tries) >= MAX_TRIES:
            return dg.SkipReason(
                f"taking these files in failed {len(tries)} times; see the runs of {NEARLINE}, mend the cause and launch it"
            )
        return dg.SensorResult(run_requests=[_run(f"{digest}-{len(tries)}", digest)], cursor=digest)

    return watch


def _run(key: str, digest: str) -> dg.RunRequest:
    return dg.RunRequest(run_key=key, tags={FILES_TAG: digest})
