"""The gate on a real root: a broken adapter is kept out with an alert, hands overrule it, serving follows without a restart."""

import json
import shutil
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest

from sigma_assets.alerts import AlertLog
from sigma_assets.binding import Request
from sigma_assets.checks.gate import GATE
from sigma_assets.commands import materialize, runner_of
from sigma_assets.planner import PlanError, Step, plan
from sigma_assets.promoting import history, promote, rollback
from sigma_assets.promotion_orders import PROMOTED, orders
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactStore
from sigma_core.serving.holder import Holder, load_live_day
from sigma_core.serving.promoted import Pointer, PromotedModel
from sigma_core.serving.user_to_item import UserToItemIndex
from sigma_core.training.checkpoint import LoraCheckpoint
from tests.assets.roots import Quiet
from tests.e2e.slice import DAY

pytestmark = pytest.mark.e2e
D = DAY.isoformat()
NEXT = DAY + timedelta(days=1)


def changed(checkpoint: LoraCheckpoint, edit: Callable[[str, np.ndarray], np.ndarray]) -> LoraCheckpoint:
    """Another adapter that says of itself that it is as good: its contract, which reads what training said, lets it pass."""
    tensors = {name: edit(name, array).astype(np.float32) for name, array in checkpoint.tensors.items()}
    return LoraCheckpoint(**{**vars(checkpoint), "tensors": tensors})


def nudged(checkpoint: LoraCheckpoint) -> LoraCheckpoint:
    """The same model for all purposes, with another digest."""
    return changed(checkpoint, lambda _, array: array + 1e-7)


def broken(checkpoint: LoraCheckpoint) -> LoraCheckpoint:
    """Heads that prefer what the good one avoids."""
    return changed(checkpoint, lambda name, array: array if ".lora_" in name else -8 * array)


@pytest.fixture
def root(made: tuple[Path, str], tmp_path: Path) -> Path:
    shutil.copytree(made[0], tmp_path / "root")
    return tmp_path / "root"


def train_as(monkeypatch: pytest.MonkeyPatch, checkpoint: LoraCheckpoint) -> None:
    """Let every training of the test end with this adapter."""
    monkeypatch.setattr("sigma_core.training.lora.train_lora", lambda *_: checkpoint)


def make(root: Path, day: date, *settings: str, told: Quiet | None = None) -> Pointer:
    materialize(root, day, Request(settings=settings), told or Quiet())
    return Pointer.read(ArtifactStore(root).path(PROMOTED, day.isoformat()))


def test_a_broken_adapter_is_kept_out_and_hands_overrule_the_gate(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(root)
    first = store.read(PromotedModel, PROMOTED, D)
    assert (first.pointer.outcome, first.pointer.evidence["rule"], first.pointer.replaced) == (
        "promoted",
        "first",
        None,
    )
    assert first.checkpoint.digest() == store.manifest("lora_checkpoint", D)["digest"]
    live = load_live_day(root)
    holder = Holder(root, live)

    train_as(monkeypatch, broken(first.checkpoint))
    told = Quiet()
    kept = make(root, NEXT, told=told)
    key = NEXT.isoformat()
    assert f"warning: {kept.reason}" in told.lines
    assert (kept.outcome, kept.model, kept.since, kept.as_of) == ("kept", first.pointer.model, D, key)
    assert "probe loss" in kept.reason
    lists = store.read(UserToItemIndex, "user_to_item_index", key).frame
    assert not lists.is_empty(), "the day is served, by the former model"
    alerts = [a for a in AlertLog(root).alerts() if (a.check, a.partition) == (GATE, key)]
    assert len(alerts) == 1
    assert alerts[0].severity == "WARN"
    assert "probe loss" in alerts[0].what
    assert f"sigma promote --as-of {key}" in alerts[0].to_do
    assert any("probe_loss" in example for example in alerts[0].examples)

    assert holder.refresh(), "the new day"
    digest = holder.live.model
    world, ordered = promote(root, key, "it looks right to me", Quiet())
    assert [one.step.asset for one in ordered.done if not one.is_fresh] == [PROMOTED, "user_to_item_index"]
    now = Pointer.read(store.path(PROMOTED, key))
    assert (now.outcome, now.model.day, now.replaced) == ("by_hand", key, kept.model)
    assert not store.read(UserToItemIndex, "user_to_item_index", key).frame.equals(lists)
    assert holder.refresh(), "serving follows"
    assert holder.live.model != digest
    assert f"{GATE}/{PROMOTED}/{key}" not in AlertLog(root).open_keys()

    rollback(root, "previous", "lists full of soap", Quiet())
    back = Pointer.read(store.path(PROMOTED, key))
    assert (back.outcome, back.model, back.held) == ("by_hand", kept.model, "lists full of soap")
    assert store.read(UserToItemIndex, "user_to_item_index", key).frame.equals(lists)
    assert holder.refresh()
    assert holder.live.model == digest, "exactly what was served before"
    with runner_of(world, Quiet(), verbose=False) as runner:
        shown = runner.metadata(Step(PROMOTED, key))
    assert (shown["outcome"], shown["model_day"], shown["held"]) == ("by_hand", D, "lists full of soap")
    assert [order.kind for order in orders(root)] == ["promote", "rollback"]
    with pytest.raises(PlanError, match="replaced none that could serve again"):
        rollback(root, "previous", "once more", Quiet())

    assert make(root, NEXT).model == kept.model, "the same day again: the order still counts"
    train_as(monkeypatch, broken(first.checkpoint))  # what was taken back comes again the day after
    after = make(root, NEXT + timedelta(days=1))
    assert (after.outcome, after.model, after.held) == ("kept", kept.model, "lists full of soap")
    assert "rolled back by hand: lists full of soap" in after.reason
    past = [(pointer.as_of, pointer.outcome) for pointer, _ in history(World.open(root))]
    assert past == [(D, "promoted"), (key, "by_hand"), (after.as_of, "kept")]


def test_a_week_old_adapter_of_the_recipe_decides_on_the_days_since(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = ArtifactStore(root).read(PromotedModel, PROMOTED, D)
    easy = ("promotion.min_targets=5", "promotion.min_households=3", "promotion.sample_households=20")
    train_as(monkeypatch, nudged(first.checkpoint))
    alone = make(root, NEXT, *easy)
    week_ago = (NEXT - timedelta(days=7)).isoformat()
    assert alone.outcome == "kept"
    assert f"the adapter of {week_ago}, by which this one is judged, is not there" in alone.reason

    def challenge(checkpoint: LoraCheckpoint) -> Pointer:
        world = World.open(root)
        train_as(monkeypatch, checkpoint)
        shutil.rmtree(world.store.path("lora_checkpoint", week_ago), ignore_errors=True)
        targets = [Step(name, week_ago) for name in ("lora_checkpoint", "user_profiles", "item_catalog")]
        with runner_of(world, Quiet(), verbose=False) as runner:
            runner.run(plan(targets, world.span))
        train_as(monkeypatch, nudged(first.checkpoint))
        return make(root, NEXT)

    good = challenge(changed(first.checkpoint, lambda _, array: array + 2e-7))
    assert (good.outcome, good.evidence["rule"], good.model.day) == (
        "promoted",
        "comparison",
        NEXT.isoformat(),
    )
    tasks = good.evidence["compared"]["tasks"]
    assert good.evidence["compared"]["challenger"] == week_ago
    assert tasks["just_for_you"]["num_targets"] > 5
    assert abs(tasks["just_for_you"]["upper"]) < 0.05
    assert good.replaced == first.pointer.model

    bad = challenge(broken(first.checkpoint))
    assert bad.outcome == "kept", "D's own adapter is fine, its recipe is not"
    assert "just_for_you: recall@20" in bad.reason
    names = {finding["name"]: finding["holds"] for finding in bad.evidence["findings"]}
    assert (names["probe_loss"], names["task/just_for_you"], names["fairness"]) == (True, False, None)


def test_an_order_that_cannot_be_kept_is_refused_and_not_recorded(root: Path) -> None:
    for wrong, needle in (
        (lambda: rollback(root, "previous", "why", Quiet()), "replaced none that could serve again"),
        (lambda: rollback(root, "2024-10-01", "why", Quiet()), "no adapter of 2024-10-01"),
        (lambda: rollback(root, D, "why", Quiet()), "is the one that serves"),
        (lambda: promote(root, "2024-10-01", "why", Quiet()), "has no lora_checkpoint"),
        (lambda: promote(root, D, " ", Quiet()), "--reason is empty"),
    ):
        with pytest.raises(PlanError, match=needle):
            wrong()
    assert orders(root) == []
    assert json.loads((ArtifactStore(root).path(PROMOTED, D) / "pointer.json").read_text())["as_of"] == D
