"""The record of a benchmark: results beside versions, seeds, data digests, machine and settings, and its plain table.

Holds what all verbs share; no verb and no model. Times in a record are comparable inside that record only.
Our choice.
"""

import json
import os
import platform
import resource
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from sigma_core.artifacts import ArtifactStore, digest_json, write_json
from sigma_core.root_file import read_binding
from sigma_core.versions import sigma_version

LIBRARIES: Final = ("torch", "numpy", "polars", "faiss-cpu", "transformers", "peft", "dagster")
KIB: Final = 1024


class Stopwatch:
    """Wall seconds since it was made, and the peak memory of the process in MiB."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    def seconds(self) -> float:
        """Seconds since the stopwatch was made."""
        return time.perf_counter() - self._start

    @staticmethod
    def peak_mib() -> float:
        """The most memory this process ever held, in MiB."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / KIB if sys.platform != "darwin" else peak / KIB**2


def benchmark_record(
    verb: str,
    results: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
    data: Mapping[str, str],
    seeds: Sequence[int],
    seconds: float,
) -> dict[str, Any]:
    """The JSON of one run. Keys of `results` stand at the top level, beside `benchmark`, which says how they were made.

    Args:
        verb: name of the benchmark on the command line.
        results: what was measured, JSON values only; must not hold the key `benchmark`.
        settings: every number that could change the results.
        data: name of each input -> digest of its content.
        seeds: seeds of the repeats, in the order of the lists in `results`.
        seconds: wall time of the whole run.
    """
    if "benchmark" in results:
        raise ValueError("results must not hold the key 'benchmark': the record uses it.")
    made = {
        "verb": verb,
        "command": " ".join(["sigma", *sys.argv[1:]]),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "seeds": list(seeds),
        "settings": dict(settings),
        "data": dict(data),
        "versions": {**sigma_version(), "python": platform.python_version(), **_versions()},
        "machine": {"cpu_count": os.cpu_count(), "cpu": _cpu(), "system": platform.platform(terse=True)},
        "peak_mib": round(Stopwatch.peak_mib(), 1),
    }
    return {"benchmark": made, **results}


def save_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record as JSON, atomically; its folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, json.loads(json.dumps(record)))


def artifact_digests(root: Path, read: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Digest of each artifact that was read (asset -> partitions), for the `data` of a record.

    One partition stands under `asset/partition`; several under `asset, N partitions`, with one digest of all of theirs.
    """
    store, out = ArtifactStore(root), {}
    for asset, keys in read.items():
        found = {key: str(store.manifest(asset, key)["digest"]) for key in keys}
        if len(found) == 1:
            out[f"{asset}/{next(iter(found))}"] = next(iter(found.values()))
        elif found:
            out[f"{asset}, {len(found)} partitions"] = digest_json(found)
    return out


def answering_digests(root: Path, day: str) -> dict[str, str]:
    """Digests of what `load_recommender` reads of a day."""
    month = [f"{day[:7]}-01"]
    daily = ("item_catalog", "promoted_model", "item_index", "user_to_item_index")
    return artifact_digests(
        root, {"grounded_encoder": month, "sigma_base": month, **{asset: [day] for asset in daily}}
    )


def source_fingerprint(root: Path) -> dict[str, str]:
    """What the root knows of its source's content, under the source's name."""
    binding = read_binding(root)
    return {f"source {binding.source}": binding.fingerprint}


def text_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Rows under a header in aligned columns; the first column is left-aligned, floats get four digits."""
    shown = [[_cell(value) for value in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in shown) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-" if value is None else str(value)


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
