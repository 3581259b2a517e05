"""The monthly ablation as an asset: made when asked for, by its job's selection, with figures, pictures and links; then fresh."""

import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver
from dagster._core.loader import LoadingContextForTest

from sigma_assets.benchmarks.ablation import AblationOptions, run
from sigma_assets.commands import ablate
from sigma_assets.definitions import build_definitions
from sigma_assets.instance import open_instance
from sigma_assets.planner import PlanError
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.benchmarks.arms import HEADLINE
from tests.assets.roots import Quiet
from tests.e2e.slice import DAY

pytestmark = pytest.mark.e2e
MONTH = DAY.replace(day=1)
STAGE = STAGES["ablation_report"]


@pytest.fixture(scope="module")
def root(made: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("ablation") / "root"
    shutil.copytree(made[0], copy)
    ablate(copy, DAY, Quiet())
    return copy


def test_it_holds_every_headline_arm_with_intervals_and_its_pages(root: Path) -> None:
    folder = root / "ablation_report" / MONTH.isoformat()
    values = json.loads((folder / "ablation.json").read_text())
    assert (values["dates"], values["seeds"]) == ([MONTH.isoformat()], [0])
    assert set(values["arms"]) == set(HEADLINE)
    for tasks in values["arms"].values():
        assert set(tasks["just_for_you"]["recall@20"]) >= {"mean", "low", "high"}
    assert values["settings"]["steps"] == 3
    assert "seconds" not in (folder / "ablation.json").read_text(), "equal content, equal digest"
    assert "| gr_sid | sigma |" in (folder / "ablation.md").read_text()
    for picture in ("differences.png", "frontier.png"):
        assert (folder / picture).stat().st_size > 1000
        assert picture in (folder / "ablation.md").read_text()


def test_dagster_shows_the_figures_the_links_and_the_checks(root: Path) -> None:
    with open_instance(root) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("ablation_report"))
        assert event
        assert event.asset_materialization
        metadata = event.asset_materialization.metadata
        graph = build_definitions(root=root).resolve_asset_graph()
        resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
        assert not resolver.get_stale_causes(dg.AssetKey("ablation_report"), MONTH.isoformat())
    assert Path(str(metadata["report"].value)).read_text().startswith("# Ablation of 2024-10-01")
    assert {"json", "differences", "frontier", "plot", "recall@20", "seeds", "dates"} <= set(metadata)
    assert graph.get(dg.AssetCheckKey(dg.AssetKey("ablation_report"), "contract")).blocking
    manifest = World.open(root).manifest("ablation_report", MONTH.isoformat())
    assert manifest
    assert f"codebooks/{MONTH}" in manifest["lineage"]
    assert (
        max(key for key in manifest["lineage"] if key.startswith("item_catalog")) == f"item_catalog/{MONTH}"
    )


def test_the_same_question_is_not_asked_twice_and_a_deleted_report_trains_nothing(root: Path) -> None:
    folder = root / "ablation_report" / MONTH.isoformat()
    written = (folder / "manifest.json").stat().st_mtime_ns
    before = ablate(root, DAY, Quiet())[1]
    assert (folder / "manifest.json").stat().st_mtime_ns == written
    shutil.rmtree(folder)
    models = {p: p.stat().st_mtime_ns for p in (root / ".ablations").rglob("*") if p.is_file()}
    assert ablate(root, DAY, Quiet())[1] == before
    assert {p: p.stat().st_mtime_ns for p in models} == models
    assert World.open(root).why_stale(STAGE, MONTH.isoformat()) is None


def test_the_benchmark_finds_the_same_of_that_day(root: Path, tmp_path: Path) -> None:
    """Both read the day in their own way, train anew, and agree."""
    options = AblationOptions(("gr_id",), (0,), steps=3, users=20)
    record = run(root, MONTH, tmp_path / "a.json", options, Quiet())
    values = json.loads((root / "ablation_report" / MONTH.isoformat() / "ablation.json").read_text())
    for arm in ("sigma", "gr_id"):
        assert record["arms"][arm] == values["arms"][arm]
    assert uncorrected(record["differences"]["gr_id"]) == uncorrected(values["differences"]["gr_id"])


def uncorrected(values: Any) -> Any:
    """Differences without what is corrected by the number of arms beside them, which is not the same here."""
    if isinstance(values, dict):
        return {name: uncorrected(value) for name, value in values.items() if name != "p_holm"}
    return values


def test_a_month_that_cannot_be_judged_is_refused_before_anything_runs(root: Path) -> None:
    with pytest.raises(PlanError, match="the source ends"):
        ablate(root, DAY.replace(month=12), Quiet())
