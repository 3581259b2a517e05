"""Every verb of `sigma benchmark` through the command line on the tiny root: fixed keys, kinds of values, a page beside."""

import json
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from typer.testing import CliRunner

from sigma_assets.cli import app
from sigma_core import columns as c
from sigma_core.artifacts import ArtifactStore
from sigma_core.data.events import InteractionEvents, clean_events
from sigma_core.data.sources import open_source
from tests.e2e.slice import DAY

pytestmark = pytest.mark.e2e
ONE_THREAD = ("--threads", "1")
CPU = (*ONE_THREAD, "--clock", "cpu")


@pytest.fixture(scope="module")
def root(made: tuple[Path, str], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny root that also holds the events of the days after, as `sigma evaluate` leaves it."""
    copy = tmp_path_factory.mktemp("benchmarks") / "root"
    shutil.copytree(made[0], copy)
    source, store = open_source("tabular", data), ArtifactStore(copy)
    events, _ = clean_events(source.events(), source.products()[c.ITEM_ID])
    for after in range(1, 8):
        day = DAY + timedelta(days=after)
        table = InteractionEvents(events.filter(pl.col(c.EVENT_DATE) == day))
        store.write("interaction_events", day.isoformat(), table)
    return copy


def ran(tmp_path: Path, verb: str, *arguments: str) -> tuple[dict[str, Any], str]:
    """The record and the page that a verb leaves."""
    out = tmp_path / f"{verb}.json"
    done = CliRunner().invoke(app, ["benchmark", verb, "--out", str(out), *arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    record, page = json.loads(out.read_text()), out.with_suffix(".html").read_text()
    made = record["benchmark"]
    assert made["verb"] == verb
    assert made["versions"]["sigma"]
    assert not [value for value in made["data"].values() if "/" in value], "digests, no paths"
    assert "<h1>sigma benchmark" in page
    assert "http" not in page.replace(made["command"], "")
    return record, page


def numbers(record: dict[str, Any], *keys: str) -> list[float]:
    """The values of fixed keys: numbers above 0."""
    found = [record[key] for key in keys]
    assert all(isinstance(value, int | float) and value > 0 for value in found), dict(
        zip(keys, found, strict=True)
    )
    return found


def test_generation_names_its_ratios_and_recall(root: Path, tmp_path: Path) -> None:
    sizes = ("--catalogs", "60", "--batches", "1,64", "--prefixes", "20", "--history", "3", "--rounds", "1")
    record, _ = ran(tmp_path, "generation", *sizes, "--root", str(root), *CPU)
    numbers(
        record,
        "ratio_batch_1",
        "ratio_batch_64",
        "ratio_own_beam_batch_64",
        "ratio_own_beam_short_batch_64",
        "over_floor_batch_64",
    )
    found = {row["prefixes"]: row for row in record["recall"]}
    (whole,) = [row for row in record["recall"] if row["exhaustive"]]
    assert 20 in found
    assert whole["of_exhaustive_list"] == 1.0
    assert all(0 < row["recall@20"] <= 1 and row["users"] > 0 for row in record["recall"])
    assert f"user_to_item_index/{DAY}" in record["benchmark"]["data"]


def test_subset_search_says_which_side_was_fastest(tmp_path: Path) -> None:
    record, _ = ran(tmp_path, "subset-search", "--items", "400", "--group-size", "20", "--rounds", "1", *CPU)
    assert set(record["fastest"]) == {"400_batch_1", "400_batch_64"}
    assert set(record["fastest"].values()) <= {row["side"] for row in record["rows"]}


@pytest.mark.parametrize("year", [(), ("--year",)], ids=["days of the root", "a year of the source"])
def test_both_sides_of_shards_make_the_same_examples(
    root: Path, tmp_path: Path, year: tuple[str, ...]
) -> None:
    record, _ = ran(tmp_path, "shards", "--root", str(root), "--days", "1", *year, *CPU)
    numbers(record, "ratio", "sorting_seconds")
    ours, loop = record["rows"]
    assert ours["examples"] == loop["examples"] > 0
    assert set(record["year_seconds"]) == {"polars builder", "Python loop"}
    read = set(record["benchmark"]["data"])
    assert any(name.startswith("source tabular" if year else "interaction_events, ") for name in read)


def test_training_compares_tokens_a_second(root: Path, tmp_path: Path) -> None:
    record, _ = ran(tmp_path, "training", "--root", str(root), "--steps", "1", *CPU)
    numbers(record, "ratio")
    ours, padded = record["rows"]
    assert ours["useful_share"] > padded["useful_share"] > 0
    assert record["benchmark"]["data"][f"sigma_base/{DAY.replace(day=1)}"]


def test_scaling_measures_stages_and_says_what_it_leaves_out(root: Path, tmp_path: Path) -> None:
    small = ("--scales", "1,2", "--base", "1", "--days", "60", "--rounds", "1")
    record, page = ran(tmp_path, "scaling", "--root", str(root), *small, *CPU)
    stages = {"item_id_embeddings", "codebooks", "item_embeddings", "semantic_id_map", "user_to_item_index"}
    assert stages <= record["exponents"].keys()
    assert not record["exponents"].keys() & record["not_measured"].keys()
    assert {"sigma_base", "lora_checkpoint", "promoted_model", "eval_report"} <= record["not_measured"].keys()
    assert "32 users" in record["notes"]["user_to_item_index"]
    size = {(row["stage"], row["scale"]): row["size"] for row in record["rows"]}
    assert size["codebooks", 2] == 2 * size["codebooks", 1]
    assert record["benchmark"]["settings"]["threads"] == 1
    assert f"codebooks: {record['exponents']['codebooks']:.2f}</text>" in page
    assert "<polyline" in page


def test_diagnosis_draws_its_reliability(root: Path, tmp_path: Path) -> None:
    record, page = ran(tmp_path, "diagnosis", "--root", str(root), "--users", "10", *ONE_THREAD)
    numbers(record, "recall@20", "expected_calibration_error", "users")
    assert [row["segment"] for row in record["segments"]] == ["head", "torso", "tail", "cold"]
    assert len(record["reliability"]) == 10
    assert f"a listed item: {record['expected_calibration_error']:.4f}" in page
    assert "<polyline" in page
    assert "interaction_events, 7 partitions" in record["benchmark"]["data"]


def test_diagnosis_without_a_later_purchase_says_what_to_do(made: tuple[Path, str]) -> None:
    done = CliRunner().invoke(app, ["benchmark", "diagnosis", "--root", str(made[0]), *ONE_THREAD])
    assert done.exit_code
    assert f"run `sigma evaluate --as-of {DAY}" in str(done.exception)


def test_catalog_update_names_ratio_floor_and_moved_ids(made: tuple[Path, str], tmp_path: Path) -> None:
    record, _ = ran(
        tmp_path,
        "catalog-update",
        "--root",
        str(made[0]),
        "--date",
        DAY.isoformat(),
        "--share",
        "0.05",
        "--repeats",
        "1",
    )
    numbers(record, "ratio", "over_floor", "full_refit_seconds", "new_items")
    assert record["sids_changed"] == 0
    assert record["new_items"] == record["new_items_in_index"] == 4
    assert (record["aged_30"], record["aged_90"]) == (None, None)


def test_orchestration_names_what_it_limits(made: tuple[Path, str], tmp_path: Path) -> None:
    day = ("--date", DAY.isoformat(), "--repeats", "1")
    record, _ = ran(tmp_path, "orchestration", "--root", str(made[0]), *day)
    assert all(isinstance(record[name], float) for name in record["limits"])


def test_ablation_shows_its_arms_and_holds_its_plots(made: tuple[Path, str], tmp_path: Path) -> None:
    arms = (
        "--as-of",
        DAY.isoformat(),
        "--arms",
        "no_history",
        "--seeds",
        "0",
        "--steps",
        "2",
        "--users",
        "10",
    )
    record, page = ran(tmp_path, "ablation", "--root", str(made[0]), *arms, *ONE_THREAD)
    assert set(record["arms"]) == {"sigma", "no_history"}
    mean = record["differences"]["no_history"]["just_for_you"]["recall@20"]["mean"]
    assert f"{mean:+.4f}" in page
    assert page.count('src="data:image/png;base64,') == 2
    assert (tmp_path / "ablation.md").exists()
    assert (tmp_path / "ablation_frontier.png").read_bytes().startswith(b"\x89PNG")


def test_backtest_shows_the_strongest_opponent_and_holds_its_plot(root: Path, tmp_path: Path) -> None:
    (tmp_path / "roots").mkdir()
    (tmp_path / "roots" / DAY.isoformat()).symlink_to(root)
    dates = (
        "--dates",
        DAY.isoformat(),
        "--roots",
        str(tmp_path / "roots"),
        "--users",
        "10",
        "--lift-users",
        "5",
    )
    record, page = ran(tmp_path, "backtest", *dates, *ONE_THREAD)
    task = record["pooled"]["all"]["tasks"]["just_for_you"]
    assert task["strongest"] in task["differences"]
    assert f'<td class="text">{task["strongest"]}</td>' in page
    assert page.count('src="data:image/png;base64,') == 1
    assert (tmp_path / "backtest.md").exists()


def test_leave_one_out_records_its_threads(tmp_path: Path) -> None:
    folder = tmp_path / "ring"
    folder.mkdir()
    lines = [" ".join([f"u{u}", *(f"i{(u + k) % 12}" for k in range(5))]) for u in range(30)]
    (folder / "sequences.txt").write_text("\n".join(lines) + "\n")
    titles = [json.dumps({"item_id": f"i{i}", "title": f"thing {i}", "categories": ["c"]}) for i in range(12)]
    (folder / "items.jsonl").write_text("\n".join(titles) + "\n")
    asked = ("--data", str(folder), "--seeds", "0", "--models", "ease,item_knn", "--protocols", "strict")
    record, _ = ran(tmp_path, "leave-one-out", *asked)
    assert set(record["models"]) == {"ease", "item_knn"}
    assert record["benchmark"]["settings"]["threads"] >= 1
