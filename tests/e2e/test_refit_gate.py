"""A month's refit on a real root: judged on the days it left out, refused and replaced by the former one, trained anew later."""

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from sigma_assets.alerts import AlertLog
from sigma_assets.binding import Request
from sigma_assets.checks.gate import REFIT_GATE
from sigma_assets.commands import materialize
from sigma_assets.promotion_orders import PROMOTED
from sigma_assets.refits import REPUBLISHED, refusal_of, refusals
from sigma_assets.runner import Done
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactStore
from sigma_core.serving.promoted import Pointer
from sigma_core.serving.runtime import load_recommender
from sigma_core.training import sft
from sigma_core.training.checkpoint import SigmaBase, is_head
from tests.assets.roots import Quiet
from tests.e2e.slice import DAY

pytestmark = [pytest.mark.e2e, pytest.mark.slow]
FORMER, MONTH, FIRST = "2024-10-01", "2024-11-01", date(2024, 11, 1)
LEFT_OUT = ("promotion.refit_holdout_days=3",)  # the cut is DAY, which is served
JUDGED = ("promotion.min_targets=5", "promotion.min_households=3")


@pytest.fixture
def root(made: tuple[Path, str], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "root")
    return tmp_path / "root"


def of_refit(root: Path, month: str) -> dict[str, str]:
    return {asset: ArtifactStore(root).manifest(asset, month)["digest"] for asset in REPUBLISHED}


def make(root: Path, *settings: str) -> tuple[list[Done], list[str]]:
    told = Quiet()
    done = materialize(root, FIRST, Request(settings=(*LEFT_OUT, *JUDGED, *settings)), told)[1]
    return [one for one in done if not one.is_fresh], told.lines


def test_a_refused_refit_gives_way_to_the_former_one_until_something_changes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, trained = sft.train_base, []

    def spoiled(*given: object) -> SigmaBase:
        """Heads that prefer what the good ones avoid; what training said of itself stays as good."""
        base = train(*given)  # type: ignore[arg-type]
        trained.append(given[0])
        tensors = {n: (-8 * a if is_head(n) else a).astype(np.float32) for n, a in base.tensors.items()}
        return replace(base, tensors=tensors)

    monkeypatch.setattr(sft, "train_base", spoiled)
    former = of_refit(root, FORMER)
    made, lines = make(root)

    assert len(trained) == 1
    world = World.open(root)
    shards = [key for asset, key in world.inputs(STAGES["sigma_base"], MONTH) if asset == "sft_shards"]
    assert max(shards) <= DAY.isoformat(), "nothing of the days it is judged on"
    (refusal,) = refusals(root)
    assert (refusal.month, refusal.former) == (MONTH, FORMER)
    assert "recall@20" in refusal.reason
    assert any(line.startswith("warning: sigma_base") and refusal.reason in line for line in lines)
    assert of_refit(root, MONTH) == former, "the former artifacts, under the new month"
    for asset in REPUBLISHED:
        lineage = world.store.manifest(asset, MONTH)["lineage"]
        assert lineage[f"republished/{asset}/{FORMER}"] == former[asset]
        assert world.why_stale(STAGES[asset], MONTH) is None
    (alert,) = [a for a in AlertLog(root).alerts() if (a.check, a.partition) == (REFIT_GATE, MONTH)]
    assert (alert.severity, alert.asset) == ("ERROR", "sigma_base")
    assert refusal.reason in alert.what
    assert alert.examples
    assert "trains nothing" in alert.to_do

    pointer = Pointer.read(world.store.path(PROMOTED, FIRST.isoformat()))
    assert pointer.model.base == former["sigma_base"], "the day's own adapter, on the former refit"
    assert load_recommender(root, FIRST.isoformat()).recommend("user001", top_n=3)
    assert {one.step.asset for one in made} >= {"item_embeddings", "semantic_id_map", "user_to_item_index"}
    assert make(root)[0] == [], "and nothing is trained twice"

    monkeypatch.setattr(sft, "train_base", train)
    make(root, "promotion.margin_floor=1.0")  # other limits: trained and judged again
    assert refusal_of(World.open(root), MONTH) is None
    now = of_refit(root, MONTH)
    assert not set(now.values()) & set(former.values())
    assert f"{REFIT_GATE}/sigma_base/{MONTH}" not in AlertLog(root).open_keys()
