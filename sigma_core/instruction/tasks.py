"""The tasks, the paper's seven and two of ours: one frozen row each, and the wordings in which each is asked.

Everything of a task stands in its row; config, CLI, HTTP API, shards, opponents and reports read the table. Rows name
rules that exist: which purchases answer (`labels.RULES`), what a request names (`requests.SLOTS`), what opponents are told
(`task_pools.TaskPools`). A new task over those is a row here and a template; model and generation never see a task.
Source: paper, multi-task supervised fine-tuning (the seven tasks); definitions in tasks.md; wordings are our choice.
"""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

import jinja2

TEMPLATES: Final = Path(__file__).parent / "templates"
SEPARATOR: Final = "---"  # a line of its own between two wordings
NUM_HELD_OUT: Final = 2  # the last wordings of a template are never trained on
MIN_WORDINGS: Final = 6


class TaskError(ValueError):
    """A task, category, wording or slot is unknown or missing."""


@dataclass(frozen=True)
class Task:
    """One row of the task table.

    Attributes:
        name: how configs, reports and the CLI call it.
        template: file under `templates/`.
        rule: which rule of `labels.RULES` decides its targets.
        focus: the slot that names what the request is about; "" for a general request.
        listed: the slot of several names that follow the focus ("autumn: soup, pumpkins"); "" for none.
        pool: what the request tells an opponent, a key of `task_pools.TaskPools.informed`.
        preset: settings of the three steps where a request leaves them open: num_prefixes, prefix_mass, items_per_prefix;
            none of ours needs one so far. With `exclude_history` all that serving knows of a task.
        has_many: a user has several requests of it (phrases, categories, offers), which are capped by hash.
        exclude_history: what evaluation takes out of everyone's lists: none | items (bought before) | texts (items of
            a text group bought before, and with them the items).
        description: one line for `sigma recommend --help` and reports.
    """

    name: str
    template: str
    rule: str
    focus: str
    exclude_history: Literal["none", "items", "texts"]
    description: str
    pool: str = "all"
    listed: str = ""
    has_many: bool = False
    preset: Mapping[str, Any] = field(default_factory=dict)

    def wordings(self) -> tuple[str, ...]:
        """All wordings of the template, unrendered, in file order."""
        return _wordings(self.template)

    def seen_wordings(self) -> tuple[int, ...]:
        """Indices of the wordings that training may use: all but the last two."""
        return tuple(range(len(self.wordings()) - NUM_HELD_OUT))

    def held_out_wordings(self) -> tuple[int, ...]:
        """Indices of the wordings that training never sees: the last two."""
        count = len(self.wordings())
        return tuple(range(count - NUM_HELD_OUT, count))


TASKS: Final[dict[str, Task]] = {
    task.name: task
    for task in (
        Task("just_for_you", "just_for_you.jinja", "all", "", "none", "what they will take next"),
        Task("query", "query.jinja", "query", "phrase", "none", "a shopper's phrase, such as 'taco night'", "query",
             has_many=True),
        Task("category", "category.jinja", "category", "category", "none", "a named category", "category",
             has_many=True),
        Task("longtail", "longtail.jinja", "longtail", "", "items", "something few people know", "tail"),
        Task("discover", "discover.jinja", "discover", "", "texts", "something new to this user"),
        Task("season", "season.jinja", "season", "season", "none", "what the season brings", "season", "ramping"),
        Task("holiday", "holiday.jinja", "holiday", "holiday", "none", "what a coming holiday needs", "holiday"),
        Task("trending", "trending.jinja", "rising", "trend", "none", "what more and more people take", "rising",
             "rising"),
        Task("campaign", "campaign.jinja", "offered", "campaign", "none", "what a coupon or offer sent to them is for",
             "offer", "offers", has_many=True),
    )
}  # fmt: skip


def general_tasks() -> tuple[str, ...]:
    """Names of the tasks that need no word from the user or the day: those that lists can be made ahead for."""
    return tuple(name for name, task in TASKS.items() if not task.focus)


def check_general(tasks: Sequence[str]) -> None:
    """`TaskError` when lists cannot be made ahead for one of the tasks."""
    if wrong := [task for task in tasks if task not in general_tasks()]:
        raise TaskError(f"{', '.join(wrong)}: lists made ahead can be for {', '.join(general_tasks())} only")


def told_tasks() -> str:
    """Every task with its line, for `--help` and the HTTP schema."""
    return "; ".join(f"{task.name}: {task.description}" for task in TASKS.values())


def task_named(name: str) -> Task:
    """The task of that name; an unknown one is a `TaskError` that names the nearest and all."""
    if name in TASKS:
        return TASKS[name]
    near = difflib.get_close_matches(name, TASKS, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise TaskError(f"unknown task {name!r}.{hint} There are {', '.join(TASKS)}.")


def render(task: str | Task, wording: int, slots: Mapping[str, Any]) -> str:
    """The instruction text of one request.

    Raises:
        TaskError: no such task or wording, or a slot that the wording names is missing.
    """
    row = task_named(task) if isinstance(task, str) else task
    templates = _compiled(row.template)
    if not 0 <= wording < len(templates):
        raise TaskError(f"task {row.name} has wordings 0..{len(templates) - 1}, arrived {wording}.")
    try:
        return templates[wording].render(slots)
    except jinja2.UndefinedError as error:
        raise TaskError(
            f"task {row.name}, wording {wording}: {error}; slots arrived: {sorted(slots)}."
        ) from error


def listed(names: Sequence[str]) -> str:
    """The names in a row, as in "a, b and c"; the templates' filter for a list. `names` must not be empty."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


_ENVIRONMENT: Final = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701 plain text
_ENVIRONMENT.filters["listed"] = listed


@lru_cache(maxsize=64)
def _wordings(template: str) -> tuple[str, ...]:
    parts = (TEMPLATES / template).read_text().split(f"\n{SEPARATOR}\n")
    wordings = tuple(part.strip() for part in parts)
    if len(wordings) < MIN_WORDINGS or not all(wordings):
        raise TaskError(
            f"{template} needs {MIN_WORDINGS} or more wordings, none empty; it has {len(wordings)}."
        )
    return wordings


@lru_cache(maxsize=64)
def _compiled(template: str) -> tuple[jinja2.Template, ...]:
    return tuple(_ENVIRONMENT.from_string(wording) for wording in _wordings(template))
