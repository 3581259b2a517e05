"""`sigma benchmark serving`: a served root under load, nearline under `kill -9`, and updates with cached states.

Starts its own `sigma serve` and `sigma nearline` over a shadow of the root (links to its artifacts, a live store of its own), so
that the root itself is never written. What is measured is in `sigma_core/benchmarks/serving_*.py`. Our choice.
"""

import asyncio
import json
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from sigma_core.artifacts import ArtifactStore
from sigma_core.benchmarks.record import Stopwatch, benchmark_record, text_table
from sigma_core.benchmarks.serving_load import Call, clients, send_malformed, slope_per_hour, steady
from sigma_core.serving.live_store import LiveStore

Told = Callable[[str], None]
CLIENTS = 20
LIMITS = ("http.rate_per_minute=10000000", "http.rate_burst=1000000")
LENGTHS = (50, 100)


@dataclass(frozen=True)
class ServingOptions:
    """How much is measured."""

    root: Path
    repeats: int = 8
    steps: int = 12
    batch: int = 32
    users: int = 200
    soak_minutes: float = 0.0
    malformed: int = 0
    kills: int = 0
    seed: int = 17
    threads: int | None = None


def run_serving(options: ServingOptions, told: Told) -> tuple[dict[str, Any], str]:
    """The record of the run and its table. Every ratio is of two sides measured in this run.

    Raises:
        RequestError: the root cannot be served.
    """
    from sigma_core.benchmarks.serving_incremental import measure_incremental
    from sigma_core.serving.holder import load_live_day

    watch = Stopwatch()
    told("loading")
    live = load_live_day(options.root)
    if options.threads:
        import torch

        torch.set_num_threads(options.threads)  # of this process; the server has the root's
    results: dict[str, Any] = {}
    told(f"incremental updates, histories of {' and '.join(map(str, LENGTHS))}")
    results |= measure_incremental(
        live, LENGTHS, steps=options.steps, batch=options.batch, repeats=options.repeats, seed=options.seed
    )
    with tempfile.TemporaryDirectory() as folder:
        shadow = shadow_root(options.root, Path(folder) / "served")
        users = live.user_ids[: options.users]
        results["u2i_point_read"] = _point_reads(live, LiveStore.of_root(shadow), users)
        items, day = live.item_ids, live.loaded.day
        del live
        with server(shadow, told) as (port, pid):
            results |= asyncio.run(_over_http(port, pid, users, items, day, options, told))
        if options.kills:
            results["nearline_kills"] = _kills(Path(folder), options, users, items, day, told)
    store = ArtifactStore(options.root)
    name = "user_to_item_index"
    digest = {name: str(store.manifest(name, store.partitions(name)[-1])["digest"])}
    settings = {
        key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()
    }
    record = benchmark_record(
        "serving", results, settings=settings, data=digest, seeds=[options.seed], seconds=watch.seconds()
    )
    return record, _table(results)


def shadow_root(root: Path, folder: Path) -> Path:
    """A root with the same artifacts and no live data of its own yet."""
    folder.mkdir(parents=True)
    for entry in sorted(root.resolve().iterdir()):
        if entry.name != "live" and not entry.name.startswith("."):
            (folder / entry.name).symlink_to(entry)
    return folder


@contextmanager
def server(root: Path, told: Told) -> Iterator[tuple[int, int]]:
    """`sigma serve` on a free port of this machine: (port, pid); ended with the block.

    Raises:
        RuntimeError: it did not come up.
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    settings = [part for limit in LIMITS for part in ("--set", limit)]
    command = [
        sys.executable,
        "-m",
        "sigma_assets.cli",
        "serve",
        "--root",
        str(root),
        "--port",
        str(port),
        *settings,
    ]
    told(f"starting sigma serve on port {port}")
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdout=errors, stderr=errors)
        try:
            while not _answers(port):
                if process.poll() is not None:
                    errors.seek(0)
                    raise RuntimeError(f"sigma serve ended: {errors.read().decode()[-500:]}")
                time.sleep(0.5)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait(30)


def _answers(port: int) -> bool:
    try:
        return asyncio.run(clients(port, [Call("/readyz")], 1)).statuses["200"] == 1
    except OSError:
        return False


def _point_reads(live: Any, store: LiveStore, users: list[str]) -> dict[str, float]:
    """Milliseconds of reading one user's list from the store."""
    live.load_into(store)
    task, times = live.config.serving.u2i_tasks[0], []
    for user in users * 5:
        start = time.perf_counter()
        store.list_of(user, task)
        times.append(time.perf_counter() - start)
    return {f"p{q}_ms": round(1000 * float(np.quantile(times, q / 100)), 4) for q in (50, 95, 99)}


async def _over_http(
    port: int, pid: int, users: list[str], items: list[str], day: Any, options: ServingOptions, told: Told
) -> dict[str, Any]:
    def prepared(user: str) -> Call:
        return Call(f"/v1/users/{user}/recommendations?n=20")

    def wish(user: str) -> Call:
        return Call.post("/v1/recommend", {"user_id": user, "deadline_ms": 30_000})

    out: dict[str, Any] = {}
    told("prepared lists (U2I)")
    await clients(port, [prepared(user) for user in users], 8)
    out["u2i_api"] = (await clients(port, [prepared(user) for user in users * 20], 8)).report()
    told(f"generated answers, {CLIENTS} clients, cold then warm; then one client at a time")
    cold = await clients(port, [wish(user) for user in users], CLIENTS)
    warm = await clients(port, [wish(user) for user in users * 2], CLIENTS)
    alone = await clients(port, [wish(user) for user in users[:60]], 1)
    out |= {
        "generated_cold": cold.report(),
        "generated_warm": warm.report(),
        "generated_alone": alone.report(),
    }
    out["generated_throughput_ratio"] = round(
        out["generated_warm"]["per_second"] / max(out["generated_alone"]["per_second"], 1e-9), 2
    )
    if options.malformed:
        told(f"{options.malformed} malformed requests")
        load = await send_malformed(port, options.malformed, options.seed)
        found = load.report()
        found["server_errors"] = sum(n for status, n in load.statuses.items() if status.startswith("5"))
        found["alive_after"] = (await clients(port, [Call("/healthz")], 1)).statuses["200"] == 1
        out["malformed"] = found
    if options.soak_minutes:
        out["soak"] = await _soak(port, pid, users, items, day, options, told)
    return out


async def _soak(
    port: int, pid: int, users: list[str], items: list[str], day: Any, options: ServingOptions, told: Told
) -> dict[str, Any]:
    """Mixed load at 80 % of what the server took at most just before."""

    def mixed(rng: random.Random) -> Call:
        user, kind = rng.choice(users), rng.random()
        if kind < 0.80:
            return Call(f"/v1/users/{user}/recommendations?n=20")
        if kind < 0.95:
            return Call.post("/v1/recommend", {"user_id": user, "n": 20, "deadline_ms": 30_000})
        return Call.post("/v1/events", {"events": [_event(rng, [user], items, day)]})

    rng = random.Random(options.seed)
    most = await clients(port, [mixed(rng) for _ in range(max(10 * len(users), 200))], CLIENTS)
    capacity = most.report()["per_second"]
    told(f"soak: {options.soak_minutes} minutes at 80 % of {capacity} requests a second")
    load, memory = await steady(port, mixed, 0.8 * capacity, 60 * options.soak_minutes, pid, options.seed)
    good = ("200", "202")
    return load.report() | {
        "capacity_per_second": capacity,
        "errors": sum(n for status, n in load.statuses.items() if status not in good),
        "memory_first_mib": round(memory[0][1], 1),
        "memory_last_mib": round(memory[-1][1], 1),
        "memory_slope_mib_per_hour": slope_per_hour(memory),
    }


def _event(rng: random.Random, users: list[str], items: list[str], day: Any) -> dict[str, Any]:
    """A purchase of the two days after the served one."""
    moment = datetime.combine(day + timedelta(days=1), datetime.min.time())
    moment += timedelta(seconds=rng.randrange(2 * 86_400))
    return {"user_id": rng.choice(users), "item_id": rng.choice(items), "event_time": moment.isoformat()}


# ------------------------------------------------------------------------------------------ kill -9
def _kills(
    folder: Path, options: ServingOptions, users: list[str], items: list[str], day: Any, told: Told
) -> dict[str, Any]:
    """Nearline killed at random moments and started again, against an undisturbed run over the same events.

    The event file grows before every start, so that each kill meets work: half of them fall before its events are stored, half
    while lists are refreshed. A run that finished before its moment is no kill: the next one gets the moment earlier.
    """
    rng, tries = random.Random(options.seed), 3 * options.kills
    rows = [json.dumps(_event(rng, users, items, day)) + "\n" for _ in range(max(10 * len(users), tries))]
    events, growing = folder / "events.jsonl", folder / "growing.jsonl"
    events.write_text("".join(rows))
    calm, disturbed = (shadow_root(options.root, folder / name) for name in ("calm", "disturbed"))
    first, whole = _run_nearline(events, calm, None)
    places: set[tuple[int, ...]] = set()
    landed = finished = 0
    rest = whole - first  # of the undisturbed run; a killed one has fewer events, and may be done sooner
    for number, share in enumerate(np.array_split(np.array(rows), tries)):
        with growing.open("a") as file:
            file.writelines(share.tolist())
        if landed == options.kills:
            continue
        stored = number % 2 == 1
        moment = rng.uniform(0.0, rest) if stored else rng.uniform(0.5, 1.0) * first
        told_first, ended = _run_nearline(growing, disturbed, (stored, moment))
        landed += ended < 0
        finished += ended >= 0
        if stored and ended >= 0:
            rest = min(rest, ended - told_first)
        counts = LiveStore.of_root(disturbed).counts()
        places.add((counts["events"], counts["users"], counts["due"]))
        told(f"kill {landed} of {options.kills}: {counts['events']} events, {counts['due']} users due")
    _run_nearline(growing, disturbed, None)
    one, other = LiveStore.of_root(calm), LiveStore.of_root(disturbed)
    apart = max(
        (_apart(one.list_of(u, "just_for_you"), other.list_of(u, "just_for_you")) for u in users), default=0.0
    )
    return {
        "kills": landed,
        "runs_that_finished_first": finished,
        "distinct_places": len(places),
        "u2i_equal": one.counts() == other.counts() and apart <= 1e-4,
        "max_score_difference": apart,
    }


def _run_nearline(events: Path, root: Path, kill: tuple[bool, float] | None) -> tuple[float, float]:
    """Seconds until its first line (events are stored) and its end; the end is -1 when it was killed.

    `kill` is (whether to wait for that line, seconds to wait then).

    Raises:
        RuntimeError: it failed by itself.
    """
    start = time.perf_counter()
    command = _nearline(events, root)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        first = 0.0
        if kill is None or kill[0]:
            process.stdout.readline()
            first = time.perf_counter() - start
        try:
            if kill is not None:
                process.wait(kill[1])
            process.communicate()
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return first, -1.0
    if process.returncode:
        raise RuntimeError(f"sigma nearline ended with {process.returncode} on {root}.")
    return first, time.perf_counter() - start


def _nearline(events: Path, root: Path) -> list[str]:
    return [
        sys.executable,
        "-m",
        "sigma_assets.cli",
        "nearline",
        "--events",
        str(events),
        "--root",
        str(root),
    ]


def _apart(one: Any, other: Any) -> float:
    """The largest difference of a score; infinite when the lists name other items."""
    left, right = (row.value if row else [] for row in (one, other))
    if [row[0] for row in left] != [row[0] for row in right]:
        return float("inf")
    return max((abs(a[1] - b[1]) for a, b in zip(left, right, strict=True)), default=0.0)


def _table(results: dict[str, Any]) -> str:
    rows: list[tuple[Any, ...]] = []
    for length in LENGTHS:
        for size, found in results[str(length)].items():
            rows.append((f"update, history {length}, {size}, cached p50 / p95 ms", found["incremental_update_ms"],
                         found["incremental_update_p95_ms"]))  # fmt: skip
            rows.append(("  times faster than recomputation: state, whole list", found["update_ratio"],
                         found["refresh_ratio"]))  # fmt: skip
    read = results["u2i_point_read"]
    rows.append(("U2I point read, p50 / p99 ms", read["p50_ms"], read["p99_ms"]))
    for name in ("u2i_api", "generated_cold", "generated_warm", "generated_alone", "malformed", "soak"):
        if found := results.get(name):
            rows.append((f"{name}, p95 / p99 ms", found["p95_ms"], found["p99_ms"]))
            rows.append((f"{name}, requests a second", found["per_second"], ""))
    rows.append(("generated, 20 clients against one: throughput", results["generated_throughput_ratio"], ""))
    if found := results.get("malformed"):
        rows.append(("malformed, 5xx / alive after", found["server_errors"], found["alive_after"]))
    if found := results.get("soak"):
        rows.append(("soak, errors / MiB an hour", found["errors"], found["memory_slope_mib_per_hour"]))
    if found := results.get("nearline_kills"):
        rows.append(("kill -9 of nearline, U2I equal", found["kills"], found["u2i_equal"]))
    return text_table(("figure", "", " "), rows)
