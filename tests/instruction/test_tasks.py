"""Tasks are rows, wordings are files; the rendered text is a snapshot, so that a changed wording shows in review."""

import json
from pathlib import Path

import pytest

from sigma_core.config import TrainingConfig
from sigma_core.instruction import requests as rq
from sigma_core.instruction.requests import DayWords, focus_of, slots_of
from sigma_core.instruction.tasks import (
    TASKS,
    TaskError,
    general_tasks,
    listed,
    render,
    task_named,
    told_tasks,
)

SLOTS = {
    "phrase": "taco night",
    "category": "breakfast cereal",
    "season": "autumn",
    "ramping": ["halloween pumpkins", "soup", "seasonal candy"],
    "holiday": "Halloween",
    "trend": "trending",
    "rising": ["candy corn", "soup", "pumpkins"],
    "campaign": "offer-17",
    "offers": ["frozen pizza", "yogurt", "dry cereal"],
}
ONE_WORD = {
    "phrase": "soda",
    "category": "soup",
    "season": "autumn",
    "ramping": ["soup"],
    "holiday": "Easter",
    "trend": "trending",
    "rising": ["soup"],
    "campaign": "offer-17",
    "offers": ["yogurt"],
}
SNAPSHOT = Path(__file__).parent / "wordings.json"


def test_there_are_the_seven_tasks_of_the_paper_and_two_of_ours():
    paper = ["just_for_you", "query", "category", "longtail", "discover", "season", "holiday"]
    assert list(TASKS) == [*paper, "trending", "campaign"]
    assert general_tasks() == ("just_for_you", "longtail", "discover")
    assert all(name in told_tasks() for name in TASKS)


def test_every_part_of_a_row_names_something_that_exists():
    assert {task.focus for task in TASKS.values() if task.focus} == set(rq.SLOTS)
    assert TrainingConfig().task_weights.keys() == TASKS.keys()
    words = DayWords("autumn", ("soup",), "Easter", ("soup",), {"17": ("soup",)})
    for task in TASKS.values():
        slots = slots_of(task, "17", words)
        assert not task.listed or slots[task.listed] == ["soup"]
        assert isinstance(focus_of(task, slots), str)


def test_rendered_wordings_are_those_of_the_snapshot():
    rendered = {name: [render(name, w, SLOTS) for w in range(len(t.wordings()))] for name, t in TASKS.items()}
    assert rendered == json.loads(SNAPSHOT.read_text()), (
        f"a wording changed; if on purpose, update {SNAPSHOT.name}"
    )


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_the_last_two_wordings_are_held_out(task):
    count = len(task.wordings())
    assert count >= 6
    assert len(set(task.wordings())) == count
    assert task.held_out_wordings() == (count - 2, count - 1)
    assert task.seen_wordings() == tuple(range(count - 2))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_wordings_are_short_and_name_the_focus(task):
    for wording in range(len(task.wordings())):
        text = render(task, wording, ONE_WORD)
        assert len(text.split()) <= 18, text
        named = [str(ONE_WORD[task.focus]).lower(), *ONE_WORD.get(task.listed, ())] if task.focus else [""]
        assert any(name in text.lower() for name in named), text


def test_a_season_without_ramping_types_reads_well():
    slots = {"season": "winter", "ramping": []}
    assert render("season", 0, slots) == "It is winter. Suggest what fits the season."
    assert render("season", 6, slots) == "Winter is here. Which seasonal items suit this person?"


def test_names_in_a_row():
    assert [listed("a"), listed("ab"), listed("abc")] == ["a", "a and b", "a, b and c"]


def test_unknown_task_names_the_nearest():
    with pytest.raises(TaskError, match="Did you mean 'holiday'"):
        task_named("holidays")


def test_unknown_wording_and_missing_slot_are_refused():
    with pytest.raises(TaskError, match=r"wordings 0\.\.7, arrived 8"):
        render("query", 8, SLOTS)
    with pytest.raises(TaskError, match="phrase"):
        render("query", 0, {})
