"""The protocol: every ranker answers the same requests over the whole catalog of the day, and is judged on what came.

Full ranking, one history filter for all, users as the unit of chance. Holds the walk from requests to the numbers of a
report; definitions are in `metrics.py` and `significance.py`, opponents in `baselines.py`. Source: tasks.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl

from sigma_core import columns as c
from sigma_core.config import EvaluationConfig, SigmaConfig
from sigma_core.evaluation.baselines import HALF_LIFE_DAYS, Baseline
from sigma_core.evaluation.diagnosis import calibration_of, segments_of, segments_of_models
from sigma_core.evaluation.filtered_plans import filtered_plans
from sigma_core.evaluation.metrics import (
    METRICS,
    RATIO_METRICS,
    BoolArray,
    ItemFacts,
    Outcome,
    Ratio,
    ceiling,
    contains,
    household_sums,
    item_facts,
    metric_values,
    outcome_of,
    target_sets,
)
from sigma_core.evaluation.report import EvalReport, undefined_task
from sigma_core.evaluation.report_examples import examples_of
from sigma_core.evaluation.request_plan import PLAIN, RequestPlan, TaskPlan, choose_users, plan_requests
from sigma_core.evaluation.requests import SIGMA, EvalRequest, IntArray, Ranker, Scored, check_lists
from sigma_core.evaluation.significance import Difference, holm, nothing_like, paired_differences
from sigma_core.evaluation.user_scores import PurchaseHistory
from sigma_core.instruction.examples import ExampleSet
from sigma_core.tracking import Progress, no_progress

UNSEEN_PHRASE: Final = (
    "unseen_phrase"  # the row of a query's targets whose phrase was held out of all training
)
OUTSIDE: Final = "targets_outside_catalog"  # key of ExampleSet.dropped
SETTINGS: Final = frozenset({"profile", "data", "generation", "evaluation", "instruction"})  # of the report


@dataclass(frozen=True)
class EvalDay:
    """What a report is made from.

    Attributes:
        as_of: the day that is judged; rankers know nothing later.
        catalog: ItemCatalog frame of that day, sorted by ITEM_ID.
        history: purchases (`history_until(events, as_of)`).
        examples: `build_examples(as_of, ..., split="test", users=None)`: its targets, and how many fell outside.
        data: digest of each thing the report is made from, by name; the report repeats it.
    """

    as_of: date
    catalog: pl.DataFrame
    history: pl.DataFrame
    examples: ExampleSet
    data: Mapping[str, str] = field(default_factory=dict)


def evaluate_day(
    day: EvalDay,
    sigma: Ranker,
    baselines: Mapping[str, Baseline],
    config: SigmaConfig,
    progress: Progress = no_progress,
) -> EvalReport:
    """SIGMA beside every baseline on every task of one day.

    Args:
        day: inputs and targets.
        sigma: called once, with every distinct request, a user's requests together.
        baselines: of `build_baselines`; each is called once, with the requests of its tasks.
        config: samples, thresholds, seed and horizon.
        progress: told before each ranker starts.

    Raises:
        ValueError: a ranker broke its contract (`requests.check_lists`), or the history holds a later day.
    """
    judge = DayJudge(day, config)
    return report_of(judge, day_lists(judge, sigma, baselines, progress), baselines, progress)


@dataclass(frozen=True)
class DayLists:
    """What every ranker answered on the day.

    Attributes:
        answers: SIGMA's list for each of `plan.asked`.
        tasks: task -> ranker -> lists of the task's requests, SIGMA among them.
        filtered: the same for `filtered_plans`.
        scores: probability of each item of `answers`; None when SIGMA is a ranker that has none (`requests.Scored`).
    """

    answers: IntArray
    tasks: dict[str, dict[str, IntArray]]
    filtered: dict[str, dict[str, IntArray]]
    scores: npt.NDArray[np.float32] | None = None


def day_lists(
    judge: "DayJudge", sigma: Ranker, baselines: Mapping[str, Baseline], progress: Progress = no_progress
) -> DayLists:
    """Ask everyone; arguments and errors as in `evaluate_day`."""
    plans, total = judge.filtered, len(baselines) + 2
    asked = judge.plan.asked + [request for plan in plans.values() for request in plan.requests]
    progress(0, total, f"{SIGMA}: {len(asked)} requests")
    rows, scores = sigma.scored(asked) if isinstance(sigma, Scored) else (sigma(asked), None)
    found = judge.check(rows, asked, SIGMA)
    answers, start = found[: len(judge.plan.asked)], len(judge.plan.asked)
    tasks = {name: {SIGMA: answers[plan.asked]} for name, plan in judge.plan.tasks.items()}
    filtered = {}
    for name, plan in plans.items():
        filtered[name] = {SIGMA: found[start : start + len(plan.requests)]}
        start += len(plan.requests)
    for done, (baseline_name, baseline) in enumerate(baselines.items(), start=1):
        progress(done, total, baseline_name)
        for where, those in ((tasks, judge.plan.tasks), (filtered, plans)):
            for name, block in judge.ask(baseline_name, baseline, those).items():
                where[name][baseline_name] = block
    return DayLists(answers, tasks, filtered, None if scores is None else scores[: len(answers)])


def report_of(
    judge: "DayJudge",
    lists: DayLists,
    baselines: Mapping[str, Baseline],
    progress: Progress = no_progress,
) -> EvalReport:
    """The report on what everyone answered."""
    total = len(baselines) + 2
    progress(total - 1, total, "intervals")
    compared = {name for name, baseline in baselines.items() if not baseline.is_oracle}

    def judged(plan: TaskPlan, blocks: Mapping[str, IntArray]) -> dict[str, Any] | None:
        return _judge_task(plan, blocks, lists.answers, judge, compared & blocks.keys())

    results = {name: judged(plan, lists.tasks[name]) for name, plan in judge.plan.tasks.items()}
    tasks = {name: result or _undefined(name, baselines) for name, result in results.items()}
    correct_p_values(tasks)
    filtered = {
        name: result
        for name, plan in judge.filtered.items()
        if (result := judged(plan, lists.filtered[name])) is not None
    }
    correct_p_values(filtered)
    progress(total, total, "done")
    plain = judge.plan.tasks[PLAIN]
    curve = None
    if lists.scores is not None:
        curve = calibration_of(lists.answers[plain.asked], lists.scores[plain.asked], plain.targets)
    more = {"calibration": curve, "examples": examples_of(judge, lists)}
    return EvalReport(judge.report(tasks, filtered) | more)


def _undefined(task: str, baselines: Mapping[str, Baseline]) -> dict[str, Any]:
    playing = [name for name, baseline in baselines.items() if baseline.plays(task)]
    opponents = [name for name in playing if not baselines[name].is_oracle]
    return undefined_task(task == PLAIN, [SIGMA, *playing], opponents)


def correct_p_values(tasks: Mapping[str, dict[str, Any]]) -> None:
    """Replace each metric's p-values by Holm's over all tasks and baselines, in place; undefined ones stay None."""
    for metric in RATIO_METRICS:
        family = {
            f"{task}/{baseline}": values[metric]
            for task, result in tasks.items()
            for baseline, values in result["p_values"].items()
            if values[metric] is not None
        }
        for key, p in holm(family).items():
            task, baseline = key.split("/", 1)
            tasks[task]["p_values"][baseline][metric] = p


class DayJudge:
    """What is the same for all tasks of the day."""

    def __init__(self, day: EvalDay, config: SigmaConfig) -> None:
        self.day = day
        self.config = config
        self.facts: ItemFacts = item_facts(day.catalog)
        self.num_items = day.catalog.height
        self.segment = segments_of(day.catalog)
        self._is_new = day.catalog[c.IS_NEW].to_numpy()
        self._history = PurchaseHistory(day.history, day.catalog[c.ITEM_ID], day.as_of, HALF_LIFE_DAYS)
        self._owned = self._history.owned_keys()
        everyone = day.examples.examples[c.USER_ID].unique().to_list()
        settings, seed = config.evaluation, config.runtime.seed
        self.users = choose_users(everyone, settings.sample_users, seed)
        self.lift_users = choose_users(self.users, settings.lift_users, seed)
        self.plan: RequestPlan = plan_requests(
            day.examples.examples,
            day.catalog,
            self._history,
            users=self.users,
            lift_users=self.lift_users,
            seed=seed,
        )
        self.filtered = filtered_plans(self.plan, day.catalog, frozenset(self.lift_users))

    @property
    def settings(self) -> EvaluationConfig:
        """Samples and thresholds of the evaluation."""
        return self.config.evaluation

    def check(self, lists: IntArray, requests: list[EvalRequest], name: str) -> IntArray:
        """The lists as they came, once they keep the contract (`check_lists`)."""
        check_lists(lists, requests, self.num_items, name)
        return lists

    def ask(self, name: str, baseline: Baseline, among: Mapping[str, TaskPlan]) -> dict[str, IntArray]:
        """The baseline's lists for each of the plans it takes part in, all asked at once."""
        plans = {task: plan for task, plan in among.items() if baseline.plays(task)}
        requests = [request for plan in plans.values() for request in plan.requests]
        if not requests:
            return {}
        lists = self.check(baseline.rank(requests), requests, name)
        ends = np.cumsum([len(plan.requests) for plan in plans.values()])
        return dict(zip(plans, np.split(lists, ends[:-1]), strict=True))

    def rows(self, plan: TaskPlan) -> dict[str, BoolArray]:
        """Which targets [T] are repeats, which the household never took, which were launched lately; of queries also those
        that were asked for by a phrase SIGMA never trained on.
        """
        rows = self._history.rows_of([request.user_id for request in plan.requests]).astype(np.int64)
        wanted = rows[plan.targets.requests()] * self.num_items + plan.targets.rows
        repeat = contains(self._owned, wanted)
        out = {"repeat": repeat, "new": ~repeat, "cold": self._is_new[plan.targets.rows]}
        if any(c.IS_HELD_OUT_PHRASE in request.slots for request in plan.requests):
            unseen = np.array([bool(request.slots.get(c.IS_HELD_OUT_PHRASE)) for request in plan.requests])
            out[UNSEEN_PHRASE] = unseen[plan.targets.requests()]
        return out

    def report(self, tasks: dict[str, dict[str, Any]], filtered: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """The report's JSON value."""
        examples = self.day.examples
        inside = examples.examples.filter(pl.col(c.TASK) == PLAIN)[c.TARGETS].list.len().sum()
        return {
            "as_of": self.day.as_of.isoformat(),
            "horizon_days": self.config.data.horizon_days,
            "tasks": tasks,
            "filtered": filtered,
            "catalog": {
                "items": self.num_items,
                "targets": int(inside),
                "targets_outside": int(examples.dropped.get(OUTSIDE, 0)),
            },
            "settings": {
                **self.config.model_dump(mode="json", include=set(SETTINGS)),
                "seed": self.config.runtime.seed,
            },
            "data": dict(self.day.data),
            "details": {
                "households": len(self.users),
                "households_sampled": self.settings.sample_users is not None,
                "lift_households": len(self.lift_users),
                "bootstrap_samples": self.settings.bootstrap_samples,
                "requests": {name: len(plan.requests) for name, plan in self.plan.tasks.items()},
                "row_targets": {
                    name: {row: int(mask.sum()) for row, mask in self.rows(plan).items()}
                    for name, plan in self.plan.tasks.items()
                },
            },
        }


def _judge_task(
    plan: TaskPlan, lists: Mapping[str, IntArray], answers: IntArray, judge: DayJudge, compared: set[str]
) -> dict[str, Any] | None:
    """One task's part of the report, p-values not corrected yet; None when the task has no target."""
    if not plan.requests:
        return None
    num_users, num_targets = len(plan.user_ids), len(plan.targets.rows)
    outcomes = {name: outcome_of(block, plan.targets, judge.facts) for name, block in lists.items()}
    sums = {name: household_sums(o, plan.targets, plan.users, num_users) for name, o in outcomes.items()}
    settings = judge.settings
    opponents = [name for name in lists if name in compared]
    differences, own = _differences(sums, opponents, judge.config)
    return {
        "num_targets": num_targets,
        "num_households": num_users,
        "underpowered": num_targets < settings.min_targets or num_users < settings.min_users,
        "ceiling@20": ceiling(plan.targets),
        "models": {name: metric_values(sums[name], lists[name], judge.num_items) for name in lists},
        "model_intervals": {name: _by_metric(own[name], lambda d: [d.low, d.high]) for name in lists},
        "intervals": {name: _by_metric(differences[name], lambda d: [d.low, d.high]) for name in opponents},
        "p_values": {name: _by_metric(differences[name], lambda d: d.p) for name in opponents},
        "instruction_lift": _lift(plan, answers, judge),
        "rows": {row: _row(plan, outcomes, mask, judge.num_items) for row, mask in judge.rows(plan).items()},
        "segments": segments_of_models(lists, plan.targets, judge.segment),
    }


def _by_metric(differences: Mapping[str, Difference], part: Callable[[Difference], Any]) -> dict[str, Any]:
    """One part of each metric's difference; None for a metric without one (coverage is no mean over users)."""
    return {metric: part(differences[metric]) if metric in differences else None for metric in METRICS}


def _differences(
    sums: Mapping[str, dict[str, Ratio]], opponents: list[str], config: SigmaConfig
) -> tuple[dict[str, dict[str, Difference]], dict[str, dict[str, Difference]]]:
    """SIGMA minus each opponent, and every model's own value, by metric, all on the same resampled users."""
    against = [(name, metric) for name in opponents for metric in RATIO_METRICS]
    alone = [(name, metric) for name in sums for metric in RATIO_METRICS]
    values = [sums[name][metric] for name, metric in alone]
    found = paired_differences(
        [sums[SIGMA][metric] for _, metric in against] + values,
        [sums[name][metric] for name, metric in against] + [nothing_like(value) for value in values],
        samples=config.evaluation.bootstrap_samples,
        seed=config.runtime.seed,
    )

    def by_name(pairs: list[tuple[str, str]], part: list[Difference]) -> dict[str, dict[str, Difference]]:
        out: dict[str, dict[str, Difference]] = {name: {} for name, _ in pairs}
        for (name, metric), difference in zip(pairs, part, strict=True):
            out[name][metric] = difference
        return out

    return by_name(against, found[: len(against)]), by_name(alone, found[len(against) :])


def _row(
    plan: TaskPlan, outcomes: Mapping[str, Outcome], keep: npt.NDArray[np.bool_], num_items: int
) -> dict[str, dict[str, float | None]]:
    """Every model's metrics on some of the targets only; the lists stay what they were."""
    asked = plan.targets.keep(keep).counts() > 0
    out = {}
    for name, outcome in outcomes.items():
        sums = household_sums(outcome, plan.targets, plan.users, len(plan.user_ids), keep)
        out[name] = metric_values(sums, outcome.lists[asked], num_items)
    return out


def _lift(plan: TaskPlan, answers: IntArray, judge: DayJudge) -> dict[str, dict[str, float | None]] | None:
    """recall@20 of the right wording, seen and unseen, minus that of the just-for-you wording: same targets, no filter."""
    if plan.requests[0].task == PLAIN:
        return None
    if not len(plan.lifted):
        return {kind: {"value": None, "low": None, "high": None} for kind in ("seen", "unseen")}
    requests = [plan.requests[i] for i in plan.lifted]
    targets = target_sets([request.targets for request in requests])
    users = plan.users[plan.lifted]

    def recall(asked: npt.NDArray[np.int64]) -> Ratio:
        outcome = outcome_of(answers[asked], targets, judge.facts)
        return household_sums(outcome, targets, users, len(plan.user_ids))["recall@20"]

    plain = recall(plan.plain)
    found = paired_differences(
        [recall(plan.right), recall(plan.unseen)],
        [plain, plain],
        samples=judge.settings.bootstrap_samples,
        seed=judge.config.runtime.seed,
    )
    return {
        kind: {"value": d.value, "low": d.low, "high": d.high}
        for kind, d in zip(("seen", "unseen"), found, strict=True)
    }
