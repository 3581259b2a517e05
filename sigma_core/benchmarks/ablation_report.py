"""The report of an ablation: arms by task and metric with intervals, paired differences to what each is compared with.

Puts numbers together; Markdown and plots are `ablation_text.py` and `ablation_plots.py`. Source: issue 3, "Proof".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sigma_core.benchmarks.arm_scores import (
    CALIBRATION,
    COVERAGE,
    ROWS,
    Calibration,
    Sums,
    compare_calibration,
    differences,
    intervals,
    list_sums,
    mean_coverage,
    mean_sums,
    rounded,
)
from sigma_core.benchmarks.arms import ARMS, OPEN, PAPER_RATIOS, SIGMA, Arm
from sigma_core.evaluation.protocol import DayJudge
from sigma_core.evaluation.significance import holm

ROW_METRIC = "recall@20"


@dataclass(frozen=True)
class ArmResult:
    """One arm under one seed: lists by task, as rows [R, 20] and probabilities [R, 20], and figures of its training."""

    arm: Arm
    seed: int
    figures: dict[str, Any]
    lists: dict[str, tuple[np.ndarray, np.ndarray]]


class _Judged:
    """An arm's sums on one task, over its seeds."""

    def __init__(self, judge: DayJudge, task: str, results: Sequence[ArmResult]) -> None:
        plan = judge.plan.tasks[task]
        self.sums: Sums = mean_sums([list_sums(judge, plan, r.lists[task][0]) for r in results])
        self.calibration = [Calibration(plan, *r.lists[task]) for r in results]
        self.coverage = mean_coverage([r.lists[task][0] for r in results], judge.num_items)


def ablation_values(
    judge: DayJudge,
    results: Mapping[str, Sequence[ArmResult]],
    skipped: Mapping[str, str],
    frontier: Mapping[str, Any],
) -> dict[str, Any]:
    """The JSON value: `arms` and `differences` {arm: {task: {metric: {mean, low, high}}}}, `rows`, `ratios` and the rest.

    A difference is that of the arm's reference (`compared_with`) minus the arm, over the seeds both have: above 0, the
    reference is better. Its `p` is that of the pair alone, `p_holm` corrected over all arms and tasks of the metric.
    """
    samples, seed = judge.settings.bootstrap_samples, judge.config.runtime.seed
    arms: dict[str, Any] = {}
    against: dict[str, Any] = {}
    parts: dict[str, Any] = {}
    for name, runs in results.items():
        arms[name], against[name], parts[name] = {}, {}, {}
        reference = runs[0].arm.reference
        other = _same_seeds(results[reference], runs)
        for task in runs[0].lists:
            if not judge.plan.tasks[task].requests:
                continue
            mine = _Judged(judge, task, runs)
            arms[name][task] = {
                **intervals(mine.sums["all"], samples, seed),
                COVERAGE: mine.coverage,
                CALIBRATION: compare_calibration(mine.calibration, None, samples, seed),
            }
            parts[name][task] = {
                row: intervals({ROW_METRIC: mine.sums[row][ROW_METRIC]}, samples, seed)[ROW_METRIC]
                for row in ROWS[1:]
            }
            if name != reference:
                theirs = _Judged(judge, task, other)
                against[name][task] = {
                    **differences(theirs.sums["all"], mine.sums["all"], samples, seed),
                    CALIBRATION: compare_calibration(theirs.calibration, mine.calibration, samples, seed),
                    "rows": {
                        row: differences(
                            {ROW_METRIC: theirs.sums[row][ROW_METRIC]},
                            {ROW_METRIC: mine.sums[row][ROW_METRIC]},
                            samples,
                            seed,
                        )[ROW_METRIC]
                        for row in ROWS[1:]
                    },
                }
    _correct(against)
    tasks = {t: p for t, p in judge.plan.tasks.items() if p.requests}
    return rounded(
        {
            "arms": arms,
            "differences": {name: value for name, value in against.items() if value},
            "rows": parts,
            "ratios": _ratios(arms),
            "instruction_lift": _lift(against),
            "frontier": dict(frontier),
            "titles": {name: runs[0].arm.title for name, runs in results.items()},
            "compared_with": {name: runs[0].arm.reference for name, runs in results.items()},
            "training": {
                name: [{"seed": r.seed, **r.figures} for r in runs] for name, runs in results.items()
            },
            "skipped": dict(skipped),
            "tasks": {
                t: {
                    "targets": len(p.targets.rows),
                    "households": len(p.user_ids),
                    "underpowered": len(p.targets.rows) < judge.settings.min_targets
                    or len(p.user_ids) < judge.settings.min_users,
                }
                for t, p in tasks.items()
            },
        }
    )


def _correct(against: Mapping[str, Any]) -> None:
    """Add `p_holm` to every difference that has a p, in place: a family a metric, and one a part of the targets."""
    families: dict[str, dict[str, dict[str, float | None]]] = {}
    for arm, by_task in against.items():
        for task, metrics in by_task.items():
            cells = {name: cell for name, cell in metrics.items() if name != "rows"}
            cells |= {f"{ROW_METRIC}, {row}": cell for row, cell in metrics["rows"].items()}
            for name, cell in cells.items():
                families.setdefault(name, {})[f"{arm}|{task}"] = cell
    for family in families.values():
        known = {key: p for key, cell in family.items() if (p := cell.get("p")) is not None}
        for key, p in holm(known).items():
            family[key]["p_holm"] = p


def _same_seeds(reference: Sequence[ArmResult], runs: Sequence[ArmResult]) -> list[ArmResult]:
    seeds = {run.seed for run in runs}
    return [run for run in reference if run.seed in seeds]


def _ratios(arms: Mapping[str, Any]) -> dict[str, Any]:
    """SIGMA over each headline arm at recall@20, by task, beside the paper's ratio at HR@20."""
    out = {}
    for name, paper in PAPER_RATIOS.items():
        if name in arms:
            ours = {
                task: arms[SIGMA][task][ROW_METRIC]["mean"] / value
                for task, metrics in arms[name].items()
                if (value := metrics[ROW_METRIC]["mean"])
            }
            out[name] = {"paper": paper, "ours": ours}
    return out


def _lift(against: Mapping[str, Any]) -> dict[str, Any]:
    """recall@20 that the right wording adds, by arm of other words and task; no history filter on either side."""
    worded = [name for name, arm in ARMS.items() if arm.reference == OPEN and name in against]
    return {name: {t: m[ROW_METRIC] for t, m in against[name].items()} for name in worded}
