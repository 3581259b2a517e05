"""Ablation and backtest on the tiny root: arms train, are cached and gathered; a date is judged, kept and pooled."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sigma_assets.benchmarks.ablation import AblationOptions, cache_folder, run
from sigma_assets.benchmarks.arm_training import NothingToTrainError, grounding_of, shards_of, with_prefix
from sigma_assets.benchmarks.backtest import BacktestOptions
from sigma_assets.benchmarks.backtest import run as backtest
from sigma_assets.benchmarks.materials import load_materials
from sigma_assets.benchmarks.roots import copy_of
from sigma_assets.binding import Request
from sigma_assets.cli_benchmark_proof import _write_report
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactError, ArtifactStore
from sigma_core.benchmarks.arms import ARMS as TABLE
from sigma_core.benchmarks.arms import FULL_ID, WHOLE_CATALOG
from sigma_core.tracking import no_progress
from tests.assets.roots import Quiet
from tests.e2e.slice import DAY

ARMS = (
    "gr_sid",
    "gr_id",
    "no_folds",
    "free_items",
    "only_longtail",
    "only_season",
    "constant_sigma",
    "no_history",
    "wrong_words",
)
OPTIONS = AblationOptions(arms=ARMS, seeds=(0,), steps=3, users=20, threads=1)


@pytest.fixture(scope="module")
def ablated(made: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory):
    out = tmp_path_factory.mktemp("proof") / "ablation.json"
    return out, run(made[0], DAY, out, OPTIONS, Quiet())


def test_every_arm_has_its_numbers_and_its_difference_to_what_it_is_compared_with(ablated) -> None:
    _, record = ablated
    assert record["arms"].keys() == {"sigma", "open", *ARMS} - {"only_season"}
    assert "season" in record["skipped"]["only_season"]
    assert record["compared_with"]["wrong_words"] == "open"
    assert list(record["arms"]["only_longtail"]) == ["longtail"]
    for name, by_task in record["differences"].items():
        for task, metrics in by_task.items():
            reference = record["arms"][record["compared_with"][name]][task]["recall@20"]["mean"]
            gap = reference - record["arms"][name][task]["recall@20"]["mean"]
            assert metrics["recall@20"]["mean"] == pytest.approx(gap, abs=1e-5)
    assert record["frontier"].keys() == record["tasks"].keys()
    values = {key: value for key, value in record.items() if key != "benchmark"}
    assert json.loads(json.dumps(values)) == values


def test_a_second_run_trains_nothing_and_says_the_same(made, ablated) -> None:
    out, record = ablated
    before = {path: path.stat().st_mtime_ns for path in cache_folder(out).rglob("*") if path.is_file()}
    reporter = Quiet()
    again = run(made[0], DAY, out, OPTIONS, reporter)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert sum("cached" in line for line in reporter.lines) == len(record["arms"])
    assert {k: v for k, v in again.items() if k != "benchmark"} == {
        k: v for k, v in record.items() if k != "benchmark"
    }


def test_a_killed_run_goes_on_with_the_model_it_had(made, ablated) -> None:
    out, record = ablated
    (cache_folder(out) / "gr_id-0.json").unlink()  # killed after the training, before the result
    models = {
        path: path.stat().st_mtime_ns for path in (cache_folder(out) / "models").rglob("*") if path.is_file()
    }
    again = run(made[0], DAY, out, replace(OPTIONS, arms=("gr_id",)), Quiet())
    assert {path: path.stat().st_mtime_ns for path in models} == models
    assert again["arms"]["gr_id"] == record["arms"]["gr_id"]


def test_what_another_version_of_the_code_made_is_made_again(made, ablated, tmp_path, monkeypatch) -> None:
    shutil.copytree(cache_folder(ablated[0]), cache_folder(tmp_path / "ablation.json"))
    models = tmp_path / "ablation.arms" / "models"
    before = {path.name for path in models.glob("adapter/*")}
    monkeypatch.setitem(STAGES, "lora_checkpoint", replace(STAGES["lora_checkpoint"], version="next"))
    reporter = Quiet()
    run(made[0], DAY, tmp_path / "ablation.json", replace(OPTIONS, arms=("sigma",)), reporter)
    assert not [line for line in reporter.lines if "cached" in line]
    assert len({path.name for path in models.glob("adapter/*")} - before) == 1


def test_groundings_of_other_days_and_settings_lie_beside_each_other(made, tmp_path: Path) -> None:
    store, one = ArtifactStore(tmp_path), load_materials(made[0], DAY)
    arm = TABLE["no_kd"]
    first = grounding_of(arm, one, store, no_progress)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    same = grounding_of(arm, one, store, no_progress)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == times
    assert same.codebooks.digest() == first.codebooks.digest()

    day = grounding_of(arm, replace(one, catalog=one.refit_catalog), store, no_progress)
    assert day.encoder.digest() == first.encoder.digest(), "of the same month"
    assert set(day.known[1].item_ids) == set(one.refit_catalog.frame["item_id"])
    assert [len(store.partitions(kind)) for kind in ("encoder", "vectors", "codebooks")] == [1, 3, 1]

    month = grounding_of(arm, replace(one, refit_catalog=one.catalog), store, no_progress)
    assert set(month.codebooks.item_ids) == set(one.catalog.frame["item_id"])
    warmer = one.config.model_copy(
        update={"grounding": one.config.grounding.model_copy(update={"learning_rate": 0.01})}
    )
    other = grounding_of(arm, replace(one, config=warmer), store, no_progress)
    assert other.encoder.digest() != first.encoder.digest()
    assert [len(store.partitions(kind)) for kind in ("encoder", "codebooks")] == [3, 3]


def test_the_report_has_text_and_pictures(ablated) -> None:
    out, record = ablated
    _write_report(out, record)
    text = out.with_suffix(".md").read_text()
    assert "All seeds share one grounding (seed 17)" in text
    assert "| gr_sid | sigma |" in text
    assert out.with_name("ablation_frontier.png").stat().st_size > 1000
    assert out.with_name("ablation_differences.png").stat().st_size > 1000


def test_codebooks_change_their_prefix_and_no_code(made) -> None:
    materials = load_materials(made[0], DAY)
    own, refit = materials.grounding.codebooks, materials.grounding.refit
    full = with_prefix(own, refit, FULL_ID)
    assert full.prefix_length == own.num_levels
    assert (full.codes == own.codes).all()
    whole = with_prefix(own, refit, WHOLE_CATALOG)
    assert np.unique(whole.codes).tolist() == [0]
    assert whole.encode(refit.vectors[:3]).tolist() == [[0], [0], [0]]
    with pytest.raises(NothingToTrainError, match="prefix length 9"):
        with_prefix(own, refit, 9)
    with pytest.raises(NothingToTrainError, match="no shard has an example of gardening"):
        shards_of("gardening", materials)


def test_a_date_is_judged_once_and_pooled(made, tmp_path: Path) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    (roots / DAY.isoformat()).symlink_to(made[0])
    options = BacktestOptions((DAY,), Request(), users=20, lift_users=20, threads=1)
    record = backtest(roots, tmp_path / "b.json", options, Quiet())
    task = record["dates"][DAY.isoformat()]["just_for_you"]
    assert {"sigma", "ease", "tifu_knn", "personal_decayed"} <= task["models"].keys()
    assert record["pooled"]["all"]["tasks"]["just_for_you"]["models"] == task["models"]
    assert "cold, confined" in record["dates"][DAY.isoformat()]
    reporter = Quiet()
    again = backtest(roots, tmp_path / "b.json", options, reporter)
    assert reporter.lines == [f"{DAY}: cached"]
    assert again["dates"] == record["dates"]
    with_sasrec = backtest(roots, tmp_path / "b.json", replace(options, sasrec=True), Quiet())
    found = with_sasrec["dates"][DAY.isoformat()]["just_for_you"]["models"]
    assert found.keys() - {"sasrec_ce"} == task["models"].keys()
    assert found["sigma"] == task["models"]["sigma"]


def test_a_root_of_other_code_is_refused_or_named(made, tmp_path: Path, monkeypatch) -> None:
    roots, key = tmp_path / "roots", DAY.isoformat()
    roots.mkdir()
    (roots / key).symlink_to(made[0])
    asked = Request(profile="toy", settings=("evaluation.min_targets=1",))
    options = BacktestOptions((DAY,), asked, users=5, lift_users=5, threads=1)
    for name in ("lora_checkpoint", "codebooks"):
        monkeypatch.setitem(STAGES, name, replace(STAGES[name], version="next"))
    with pytest.raises(ArtifactError, match=r"2 of .*code changed\)\. Run `sigma materialize.*--stale-ok"):
        backtest(roots, tmp_path / "b.json", options, Quiet())
    with pytest.raises(ArtifactError, match=r"1 of .*first: codebooks\[2024-10-01\].*--stale-ok"):
        load_materials(made[0], DAY)
    assert load_materials(made[0], DAY, stale_ok=True).stale == ("codebooks[2024-10-01]",)
    record = backtest(roots, tmp_path / "b.json", replace(options, stale_ok=True), Quiet())
    settings = record["benchmark"]["settings"]
    used = settings["roots"][key]
    assert used["stale"] == ["codebooks[2024-10-01]", f"lora_checkpoint[{key}]"]
    assert "evaluation.min_targets=20" in used["settings"], "the root's own, not what was asked for new ones"
    assert (used["profile"], used["made_now"], settings["max_requests_per_task"]) == ("toy", False, 3)


def test_what_failed_its_check_is_not_measured(made) -> None:
    with copy_of(made[0]) as root:
        World.open(root).mark_failure("codebooks", "2024-10-01", "too few codes")
        with pytest.raises(ArtifactError, match="failed a check: too few codes"):
            load_materials(root, DAY)


def test_a_day_that_is_not_there_is_named(made) -> None:
    with pytest.raises(ArtifactError, match=r"is not in .* Run `sigma materialize"):
        load_materials(made[0], DAY.replace(day=20))
