"""Which steps of many days run, which are left out, and why: the order of things, without computing any of them."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from sigma_assets.backfill import DayMade, _make, _unreadable, backfill, summary_lines
from sigma_assets.binding import Request
from sigma_assets.periods import Span
from sigma_assets.planner import PlanError, Step, inputs_of, plan_day
from sigma_assets.runner import Done, StepError
from sigma_assets.stages import SOURCES, STAGES, Stage
from tests.assets.roots import Quiet, small_world

FIRST = date(2024, 10, 19)
BAD = Step("interaction_events", "2024-10-21")


@dataclass
class Books:
    """A world that only knows what is there and what failed."""

    span: Span
    root: Path = Path("root")
    there: set[Step] = field(default_factory=set)
    failures: dict[Step, str] = field(default_factory=dict)

    def manifest(self, asset: str, key: str) -> dict[str, Any] | None:
        return {"digest": ""} if Step(asset, key) in self.there else None

    def failure(self, asset: str, key: str) -> str | None:
        return self.failures.get(Step(asset, key))

    def why_stale(self, stage: Stage, key: str) -> str | None:
        return None if Step(stage.name, key) in self.there else "missing"


@dataclass
class Clerk:
    """A runner that writes down what it was asked for; steps of `broken` fail as real ones do."""

    world: Books
    broken: set[Step]
    reporter: Quiet = field(default_factory=Quiet)
    done: list[Done] = field(default_factory=list)
    tried: Counter[Step] = field(default_factory=Counter)
    num_republished: int = 0

    def run(self, steps: list[Step]) -> list[Done]:
        for step in steps:
            if step in self.world.there:
                self.done.append(Done(step, 0.0, True))
                continue
            self.tried[step] += 1
            if step.asset in SOURCES:
                assert _unreadable(self.world, step, {}) == "", "bulk ingestion would stop at it"  # type: ignore[arg-type]
            if step in self.broken and step.asset in SOURCES:
                self.world.failures[step] = f"{step} breaks its contract"
                continue
            if step in self.broken:
                raise StepError(f"{step}: it would not")
            self.world.failures.pop(step, None)
            self.world.there.add(step)
            self.done.append(Done(step, 1.0, False))
        return self.done


def days_of(books: Books, broken: set[Step], number: int = 5) -> tuple[list[DayMade], Clerk]:
    clerk, failed = Clerk(books, broken), dict[Step, str]()
    days = [FIRST + timedelta(days=n) for n in range(number)]
    made = [_make(clerk, day, plan_day(day, books.span), failed) for day in days]  # type: ignore[arg-type]
    return made, clerk


@pytest.fixture
def books(tmp_path: Path) -> Books:
    return Books(small_world(tmp_path).span)


def test_a_bad_day_stops_its_follower_alone_and_is_made_once_it_is_mended(books: Books) -> None:
    made, _ = days_of(books, {BAD})
    assert [bool(one.problems) for one in made] == [False, False, True, True, False]
    assert "interaction_events[2024-10-21] breaks its contract" in made[2].problems[0]
    assert "interaction_events[2024-10-21]" in made[3].problems[0], "it needs the catalog of the day before"
    lines = summary_lines(made)
    assert "NOT MADE" in lines[2]
    assert lines[-1].startswith("2 of 5 days could not be made")
    good = set(books.there)

    again, clerk = days_of(books, set())
    assert not [one for one in again if one.problems]
    assert not good & set(clerk.tried), "what is good is not made again"
    assert BAD in clerk.tried
    assert [one.made for one in days_of(books, set())[0]] == [0] * 5
    assert summary_lines(again)[-1] == "all 5 days are there"


def test_a_refit_that_fails_is_tried_once_and_named_by_every_day(books: Books) -> None:
    base = Step("sigma_base", "2024-10-01")
    made, clerk = days_of(books, {base})
    assert clerk.tried[base] == 1
    assert all(any("sigma_base[2024-10-01]: it would not" in why for why in one.problems) for one in made)
    assert not [step for step in clerk.tried if step.asset in {"lora_checkpoint", "user_to_item_index"}]


def test_a_shard_that_fails_is_one_sample_less(books: Books) -> None:
    (shard, *_) = [
        s for s in plan_day(FIRST, books.span) if s.asset == "sft_shards" and s.partition > "2024-10-01"
    ]
    made, clerk = days_of(books, {shard}, 1)
    assert clerk.tried[shard] == 1
    assert made[0].problems == []


@pytest.mark.parametrize("day", [date(2017, 9, 30), date(2017, 10, 1), date(2017, 10, 31), date(2017, 11, 1)])
def test_no_day_reads_the_refit_of_another_month(day: date) -> None:
    span = Span(date(2017, 1, 1), date(2018, 1, 1))
    monthly = {name for name, stage in STAGES.items() if stage.cadence == "month"} - {"interaction_history"}
    read = {
        step
        for name in (
            "item_embeddings",
            "semantic_id_map",
            "lora_checkpoint",
            "item_index",
            "user_to_item_index",
        )
        for step in inputs_of(Step(name, day.isoformat()), span)
        if step.asset in monthly
    }
    assert {step.partition for step in read} == {day.replace(day=1).isoformat()}


def test_a_range_that_cannot_be_made_runs_nothing(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with pytest.raises(PlanError, match=f"--from 2024-10-21 is after --to {FIRST}"):
        backfill(world.root, date(2024, 10, 21), FIRST, Request(), Quiet())
    with pytest.raises(PlanError, match="outside the data"):
        backfill(world.root, FIRST, date(2030, 1, 1), Request(), Quiet())
    assert not (world.root / "interaction_events").exists()
