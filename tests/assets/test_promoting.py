"""Pointers on disk: what they hold, which one came before, and which adapter a rollback goes back to."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import numpy as np
import pytest
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from sigma_assets import promoting
from sigma_assets.assets.serving import user_to_item_index
from sigma_assets.definitions import build_definitions
from sigma_assets.instance import bury_dead_runs, open_instance
from sigma_assets.planner import PlanError
from sigma_assets.promoting import LISTS, _previous, find_model, history, need_no_run_at, rollback
from sigma_assets.promotion import former_pointer, model_by_digest
from sigma_assets.promotion_orders import (
    PROMOTED,
    barred,
    decision_lineage,
    give_order,
    need_not_taken_back,
    order_for,
    orders,
    why_kept,
)
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactError
from sigma_core.evaluation.promotion import ModelName
from sigma_core.serving.promoted import Pointer, PromotedModel
from sigma_core.training.checkpoint import LoraCheckpoint
from tests.assets.roots import Quiet, small_world

DAYS = ("2024-10-25", "2024-10-26", "2024-10-27")


def adapter(number: int) -> LoraCheckpoint:
    tensors = {"layer.lora_A.weight": np.full((2, 2), number, np.float32)}
    return LoraCheckpoint(tensors, "here", 0.1, 0.1, base_digest="base", adapter_config={"r": 2})


def name(day: str, number: int) -> ModelName:
    return ModelName(day, "2024-10-01", adapter(number).digest(), "base", "codebooks", "encoder", "recipe")


def promoted(number: int, outcome: str = "promoted") -> PromotedModel:
    day = DAYS[number]
    replaced = name(DAYS[number - 1], number - 1) if number else None
    return PromotedModel(Pointer(day, name(day, number), day, outcome, "why", replaced), adapter(number))


def origin_of(job: str) -> RemoteJobOrigin:
    target = LoadableTargetOrigin(module_name="sigma_assets.definitions")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, "sigma")
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Three days, each served by its own adapter."""
    made = small_world(tmp_path)
    for number, day in enumerate(DAYS):
        made.store.write(PROMOTED, day, promoted(number))
    return made


def test_what_was_written_is_read_back_with_its_adapter(world: World) -> None:
    read = world.store.read(PromotedModel, PROMOTED, DAYS[1])
    assert read.pointer == promoted(1).pointer
    assert read.checkpoint.digest() == adapter(1).digest() == read.pointer.model.checkpoint
    assert read.summary()["replaced"] == DAYS[0]


def test_its_digest_is_that_of_what_serves_whatever_the_day_and_the_reason() -> None:
    one = promoted(1)
    other = replace(one.pointer, as_of=DAYS[2], outcome="kept", reason="another", evidence={"rule": "first"})
    assert PromotedModel(other, one.checkpoint).digest() == one.digest()
    assert promoted(2).digest() != one.digest()


def test_the_former_pointer_is_the_newest_of_an_earlier_day(world: World) -> None:
    assert former_pointer(world, DAYS[0]) is None
    assert former_pointer(world, DAYS[2]) == promoted(1).pointer
    assert former_pointer(world, "2024-11-05") == promoted(2).pointer


def test_a_promoted_adapter_is_found_by_digest_after_its_checkpoint_is_gone(world: World) -> None:
    assert model_by_digest(world, DAYS[0], adapter(0).digest()).digest() == adapter(0).digest()
    assert find_model(world, DAYS[0]) == (DAYS[0], adapter(0).digest(), "base")
    with pytest.raises(ArtifactError, match=r"is in .* no more"):
        model_by_digest(world, DAYS[0], "gone")
    with pytest.raises(PlanError, match="no adapter of 2024-10-01"):
        find_model(world, "2024-10-01")


def test_going_back_twice_goes_back_two_adapters_and_not_to_what_was_taken_back(world: World) -> None:
    day, now = DAYS[2], promoted(2).pointer
    first = _previous(world, day, now)
    assert first[0] == DAYS[1]
    give_order(world.root, "rollback", day, first[:2], now.model.checkpoint, "soap")
    held = replace(now, model=name(DAYS[1], 1), replaced=now.model, outcome="by_hand", held="soap")
    world.store.write(PROMOTED, day, PromotedModel(held, adapter(1)))
    second = _previous(world, day, held)
    assert second[0] == DAYS[0]
    give_order(world.root, "rollback", day, second[:2], held.model.checkpoint, "soap again")
    last = replace(held, model=name(DAYS[0], 0), replaced=held.model)
    with pytest.raises(PlanError, match="replaced none that could serve again"):
        _previous(world, day, last)
    assert [(pointer.as_of, order is not None) for pointer, order in history(world)] == [
        (DAYS[0], False),
        (DAYS[1], False),
        (DAYS[2], True),
    ]


def decide(world: World, day: str) -> None:
    """The pointer of a day as its newest order has it."""
    order, now = order_for(world.root, day), Pointer.read(world.store.path(PROMOTED, day))
    assert order is not None
    model = name(order.model_day, DAYS.index(order.model_day))
    pointer = replace(now, model=model, replaced=now.model, outcome="by_hand", held=order.reason)
    value = PromotedModel(pointer, adapter(DAYS.index(order.model_day)))
    world.store.write(PROMOTED, day, value, lineage=decision_lineage(world, day))


def make_lists(world: World, day: str) -> None:
    """Something that was made from the day's pointer as it is."""
    lineage = {f"{PROMOTED}/{day}": world.store.manifest(PROMOTED, day)["digest"]}
    world.store.write(LISTS, day, promoted(0), lineage=lineage)


@pytest.mark.parametrize("to", ["previous", DAYS[1]])
@pytest.mark.parametrize("steps", [(), (decide,)], ids=["after the order", "after the pointer"])
def test_a_rollback_that_was_killed_is_finished_by_the_same_command_and_bars_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch, steps: tuple, to: str
) -> None:
    day, reporter = DAYS[2], Quiet()
    make_lists(world, day)
    monkeypatch.setattr(promoting, "_need_fit", lambda *_: None)

    def killed(of: World, day: str, *_: object, **__: object) -> list:
        for step in steps:
            step(of, day)
        raise KeyboardInterrupt

    def whole(of: World, day: str, *_: object, **__: object) -> list:
        decide(of, day)
        make_lists(of, day)
        return []

    monkeypatch.setattr(promoting, "_remake", killed)
    with pytest.raises(KeyboardInterrupt):
        rollback(world.root, to, "soap", reporter)
    monkeypatch.setattr(promoting, "_remake", whole)
    _, again = rollback(world.root, to, "soap", reporter)
    assert again.order == orders(world.root)[0]
    assert again.order.model_day == DAYS[1]
    assert list(barred(world.root)) == [adapter(2).digest()]
    assert "finishing the rollback" in reporter.lines[0]
    _, further = rollback(world.root, "previous", "soap again", reporter)
    assert further.order.model_day == DAYS[0], "a finished one is no more in the way"
    assert len(orders(world.root)) == 2


def taken_back(world: World) -> None:
    """The second day serves, the third is decided to go on with its adapter, and a rollback bars that one."""
    pointer = replace(promoted(1).pointer, as_of=DAYS[2], outcome="kept")
    for day, value in ((DAYS[1], promoted(1)), (DAYS[2], PromotedModel(pointer, adapter(1)))):
        world.store.write(
            PROMOTED,
            day,
            value,
            lineage=world.lineage(STAGES[PROMOTED], day),
            extra={"code_version": world.code_versions[PROMOTED]},
        )
    make_lists(world, DAYS[1])


def test_a_rollback_reaches_a_later_day_that_is_decided_and_not_served_yet(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_back(world)
    stage, reporter = STAGES[PROMOTED], Quiet()
    assert [world.why_stale(stage, day) for day in DAYS[1:]] == [None, None]
    monkeypatch.setattr(promoting, "_need_fit", lambda *_: None)
    monkeypatch.setattr(promoting, "_remake", lambda of, day, *_, **__: decide(of, day))
    rollback(world.root, "previous", "soap", reporter)
    assert [DAYS[2] in line for line in reporter.lines] == [True]
    again = World.open(world.root)
    assert again.why_stale(stage, DAYS[2]) == f"the adapter of {DAYS[1]} was rolled back since: soap"
    context: Any = SimpleNamespace(partition_key=DAYS[2])
    sigma: Any = SimpleNamespace(world=again)
    inputs: list[Any] = [None] * 8
    with pytest.raises(ArtifactError, match=f"promoted_model of {DAYS[2]} may not serve"):
        next(user_to_item_index(context, sigma, *inputs))
    need_not_taken_back(again, DAYS[1])
    give_order(world.root, "promote", DAYS[2], (DAYS[0], adapter(0).digest()), "", "by hand")
    need_not_taken_back(again, DAYS[2])


def test_days_before_a_rollback_stay_what_they_were_and_hand_nothing_barred_on(world: World) -> None:
    give_order(world.root, "rollback", DAYS[2], (DAYS[0], adapter(0).digest()), adapter(1).digest(), "soap")
    need_not_taken_back(world, DAYS[1])
    assert former_pointer(world, DAYS[2]) == promoted(0).pointer
    give_order(world.root, "promote", DAYS[2], (DAYS[1], adapter(1).digest()), "", "was the catalog")
    assert former_pointer(world, DAYS[2]) == promoted(1).pointer


def test_only_a_kept_day_says_why(world: World) -> None:
    assert why_kept(world, DAYS[1]) == ""
    assert why_kept(world, "2024-11-05") == ""
    world.store.write(PROMOTED, DAYS[1], promoted(1, "kept"))
    assert why_kept(world, DAYS[1]) == "why"


def test_an_order_beside_the_ui_waits_for_a_run_that_would_write_over_it(world: World) -> None:
    """Runs that the UI launched have an origin; one without is what a killed order left."""
    started, day = dg.DagsterRunStatus.STARTED, {"dagster/partition": DAYS[2]}
    with open_instance(world.root) as instance:
        repository = build_definitions(root=world.root).get_repository_def()

        def launched(job: str, tags: dict[str, str], origin: Any) -> dg.DagsterRun:
            return instance.create_run_for_job(
                repository.get_job(job), status=started, tags=tags, remote_job_origin=origin
            )

        mine = launched("daily_refresh", day, None)
        need_no_run_at(world.root, DAYS[2])
        assert bury_dead_runs(instance, beside_ui=True) == [mine.run_id]
        origin = origin_of("daily_refresh")
        launched("ingest_day", day, origin)
        need_no_run_at(world.root, DAYS[2])
        running = launched("daily_refresh", day, origin)
        need_no_run_at(world.root, "2024-10-28")
        for ordered in DAYS[1:]:
            with pytest.raises(
                PlanError, match=f"run {running.run_id[:8]} .daily_refresh. is making {DAYS[2]}"
            ):
                need_no_run_at(world.root, ordered)
        assert bury_dead_runs(instance, beside_ui=True) == []
        assert len(bury_dead_runs(instance)) == 2
