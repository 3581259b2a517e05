"""Assert on what `make demo` wrote: python .ci/assert_demo.py [ROOT]. Prints a line a claim; exits 1 at the first broken one.

Reads the JSON and Parquet files below ROOT and calls the installed `sigma`, as a user would; it imports none of our code.
"""

import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DAY = "2017-10-23"
TASKS = ("just_for_you", "query", "category", "longtail", "discover", "season", "holiday",
         "trending", "campaign")  # fmt: skip
MODELS = ("sigma", "popularity", "personal_frequency", "personal_decayed", "item_knn")
METRICS = (
    "recall@1", "recall@5", "recall@10", "recall@20", "macro_recall@20", "any_hit@20", "group_recall@20", "ndcg@10",
    "ndcg@20", "coverage@20",
)  # fmt: skip
DAILY = (
    "interaction_events", "item_catalog", "user_profiles", "item_embeddings", "semantic_id_map", "lora_checkpoint",
    "promoted_model", "item_index", "user_to_item_index", "eval_report",
)  # fmt: skip
MONTHLY = (
    "interaction_history", "item_id_embeddings", "relevance_pairs", "grounded_encoder", "refit_item_embeddings",
    "codebooks", "sigma_base",
)  # fmt: skip
KEYS = {"rank", "item_id", "title", "score", "prefix", "prefix_probability"}
SIGMA = Path(sys.executable).with_name("sigma")
MAX_RERUN_SECONDS = 40  # the target is 20; twice that here, because CI machines are noisy
MAX_RECOMMEND_SECONDS = 16  # the target is 8; likewise


def claim(holds: bool, said: str) -> None:
    """Print the claim; end the program when it does not hold."""
    print(f"{'ok  ' if holds else 'FAIL'} {said}", flush=True)
    if not holds:
        sys.exit(1)


def sigma(*args: str) -> tuple[str, float]:
    """Standard output and seconds of a `sigma` call that must succeed."""
    start = time.monotonic()
    done = subprocess.run([str(SIGMA), *args], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    said = f"sigma {' '.join(args)}: exit {done.returncode} after {seconds:.1f} s"
    claim(done.returncode == 0, said if done.returncode == 0 else f"{said}\n{done.stderr[-3000:]}")
    return done.stdout, seconds


def figures(value: Any) -> Iterator[float]:
    """Every number of a JSON value."""
    if isinstance(value, dict):
        for part in value.values():
            yield from figures(part)
    elif isinstance(value, list):
        for part in value:
            yield from figures(part)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


def check_artifacts(root: Path) -> None:
    """Every asset of the walk has a complete partition, and nothing half written lies about."""
    for asset in DAILY:
        claim((root / asset / DAY / "manifest.json").exists(), f"{asset}[{DAY}] is complete")
    for asset in (*MONTHLY, "sft_shards"):
        found = sorted(path.parent.name for path in (root / asset).glob("*/manifest.json"))
        claim(bool(found), f"{asset} has {len(found)} partitions, the last {found[-1] if found else '-'}")
    half = [str(path) for pattern in ("*/.*.tmp", "*/.*.old") for path in root.glob(pattern)]
    claim(not half, f"nothing half written: {half[:3]}")


def check_report(root: Path) -> None:
    """The report is whole: nine tasks, all models, all metrics, no NaN, and SIGMA above chance."""
    path = root / "eval_report" / DAY / "report.json"
    claim(path.exists(), f"{path} exists")
    report = json.loads(path.read_text())
    claim(report["as_of"] == DAY and report["horizon_days"] == 7, f"it is of {DAY} and looks 7 days ahead")
    claim(set(TASKS) <= set(report["tasks"]), f"all nine tasks are reported: {sorted(report['tasks'])}")
    claim(all(math.isfinite(x) for x in figures(report)), "every figure is finite, undefined ones are null")
    for name in TASKS:
        task = report["tasks"][name]
        lacking = [model for model in MODELS if model not in task["models"]] if task["num_targets"] else []
        claim(not lacking, f"{name}: {task['num_targets']} targets, all models ({len(task['models'])})")
        short = [
            m for m, scores in task["models"].items() for metric in METRICS if scores and metric not in scores
        ]
        claim(not short, f"{name}: all {len(METRICS)} metrics")
    recall = {m: s["recall@20"] for m, s in report["tasks"]["just_for_you"]["models"].items() if m in MODELS}
    claim(recall["sigma"] > recall["popularity"], f"just_for_you recall@20: {recall}")
    catalog = report["catalog"]
    claim(catalog["items"] == 20_512, f"the catalog of {DAY} has tasks.md's 20,512 items: {catalog}")


def check_recommendations(root: Path) -> None:
    """`sigma recommend --json` speaks JSON only, keeps its form, and lists ten distinct items of the catalog."""
    import polars as pl

    user = pl.read_parquet(root / "user_to_item_index" / DAY / "table.parquet")["user_id"].min()
    known = set(pl.read_parquet(root / "item_catalog" / DAY / "table.parquet")["item_id"])
    for extra in (
        (),
        ("--task", "holiday"),
        ("--task", "query", "--query", "ice cream"),
        ("--task", "discover"),
    ):
        out, seconds = sigma("recommend", "--root", str(root), "--user", str(user), "--json", *extra)
        rows = json.loads(out)
        ids = [row["item_id"] for row in rows]
        claim(all(set(row) >= KEYS for row in rows), f"keys {sorted(KEYS)}")
        claim([row["rank"] for row in rows] == list(range(1, 11)), "ten rows, ranks from 1")
        claim(
            len(set(ids)) == 10 and set(ids) <= known,
            f"ten distinct items of the catalog, first {rows[0]['title']!r}",
        )
        claim(seconds < MAX_RECOMMEND_SECONDS, f"under {MAX_RECOMMEND_SECONDS} s")


def check_rerun(root: Path) -> None:
    """A second materialization finds everything fresh."""
    before = {path: path.stat().st_mtime_ns for path in root.glob("*/*/manifest.json")}
    out, seconds = sigma("materialize", "--root", str(root), "--as-of", DAY)
    after = {path: path.stat().st_mtime_ns for path in root.glob("*/*/manifest.json")}
    claim(before == after, f"rerun wrote nothing ({len(before)} artifacts untouched)")
    claim("fresh" in out, "the closing table says fresh")
    claim(seconds < MAX_RERUN_SECONDS, f"under {MAX_RERUN_SECONDS} s")


def main() -> None:
    """Run all checks on the root given (default var)."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "var")
    for check in (check_artifacts, check_report, check_recommendations, check_rerun):
        start = time.monotonic()
        check(root)
        print(f"     {check.__name__}: {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
