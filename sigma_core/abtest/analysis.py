"""What an A/B log says: lifts with intervals, whether the split is as planned, how many users a test needs.

Users are the unit: a user's shown lists and purchases are summed first, metrics are ratios of such sums, their variance is that
of the linearised ratio (delta method). Knows nothing of how the log came about. Source: Deng, Knoblich and Lu 2018 (delta
method); our choice.

Shape legend: U users of an arm.
"""

import math
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.abtest.log import ARM, CANDIDATE, CONTROL, EXPERIMENT, AbLog

METRICS: Final = {
    "hit_rate": "share of shown lists with an item that was taken in the days after",
    "conversion": "share of shown items that were taken in the days after",
    "items_taken": "shown items taken, a list",
    "categories_taken": "categories of shown items that were taken, a list",
    "categories_shown": "categories of the shown items, a list",
}
ASSIGNED_ARM: Final = "assigned_arm"
SRM_ALPHA: Final = 0.001  # below it the split is not the planned one, and nothing else may be read


class Estimate(NamedTuple):
    """A ratio of sums over users, and the variance of that ratio."""

    value: float
    variance: float
    users: int
    user_variance: float  # of one user's linearised value: what sample sizes are computed from


def estimate(num_U: np.ndarray, den_U: np.ndarray) -> Estimate:
    """sum(num) / sum(den) with its delta-method variance; NaN when nobody has a denominator."""
    count, total = len(den_U), float(den_U.sum())
    if not total:
        return Estimate(math.nan, math.nan, count, math.nan)
    ratio = float(num_U.sum()) / total
    line = (num_U - ratio * den_U) / (total / count)
    spread = float(line.var(ddof=1)) if count > 1 else math.nan
    return Estimate(ratio, spread / count, count, spread)


def user_sums(log: AbLog) -> pl.DataFrame:
    """One row an assigned user: `arm`, lists and items shown, and the sums behind each metric; zeros for the unexposed.

    Raises:
        ValueError: the log is of several experiments, or shows users lists of an arm that is not theirs.
    """
    _refuse_other_arms(log.of())
    keys = (c.USER_ID, "shown_on", c.ITEM_ID)
    taken = log.outcome.select(keys).unique().with_columns(pl.lit(True).alias("taken"))
    shown = log.exposure.join(taken, on=keys, how="left").with_columns(pl.col("taken").fill_null(False))
    category = pl.col(c.CATEGORY)
    lists = shown.group_by(c.USER_ID, "shown_on").agg(
        pl.len().alias("shown"),
        pl.col("taken").sum().alias("items_taken"),
        pl.col("taken").any().cast(pl.Int64).alias("hits"),
        category.filter(pl.col("taken")).drop_nulls().n_unique().alias("categories_taken"),
        category.drop_nulls().n_unique().alias("categories_shown"),
    )
    sums = lists.group_by(c.USER_ID).agg(
        pl.len().alias("lists"), pl.exclude(c.USER_ID, "shown_on").cast(pl.Float64).sum()
    )
    joined = log.assignment.select(c.USER_ID, ARM).join(sums, on=c.USER_ID, how="left")
    return joined.fill_null(0).sort(c.USER_ID)


def with_assigned(log: AbLog) -> pl.DataFrame:
    """Table `exposure` with `assigned_arm`: the arm of the row's user, "none" for a user who was assigned to none."""
    arms = log.assignment.select(EXPERIMENT, c.USER_ID, pl.col(ARM).alias(ASSIGNED_ARM))
    arms = arms.unique((EXPERIMENT, c.USER_ID), keep="first", maintain_order=True)
    joined = log.exposure.join(arms, on=(EXPERIMENT, c.USER_ID), how="left", maintain_order="left")
    return joined.with_columns(pl.col(ASSIGNED_ARM).fill_null("none"))


def _refuse_other_arms(log: AbLog) -> None:
    shown = with_assigned(log)
    wrong = shown.filter(pl.col(ARM).fill_null("") != pl.col(ASSIGNED_ARM))
    if wrong.height:
        counts = wrong.group_by(ARM, ASSIGNED_ARM).len().sort(ARM, ASSIGNED_ARM).iter_rows()
        raise ValueError(
            f"{wrong.height} of {shown.height} shown items, of {wrong[c.USER_ID].n_unique()} users, are of an arm that is not "
            f"their user's: {', '.join(f'{n} of {arm} for {own}' for arm, own, n in counts)}. Needed every exposure in the arm "
            "that `assignment` gives the user; mend the log, or leave such users out of all three tables."
        )


_PARTS: Final = {
    "hit_rate": ("hits", "lists"),
    "conversion": ("items_taken", "shown"),
    "items_taken": ("items_taken", "lists"),
    "categories_taken": ("categories_taken", "lists"),
    "categories_shown": ("categories_shown", "lists"),
}


def analyse(
    log: AbLog, *, share: float = 0.5, level: float = 0.95, power: float = 0.8, detect: float = 0.05
) -> dict[str, Any]:
    """The report of a log: JSON values only; None where something is not defined.

    Args:
        log: the tables.
        share: planned share of users in the candidate arm.
        level: of the intervals, and 1 - level the significance that sample sizes are for.
        power: chance that a test of the required size finds the lift.
        detect: relative lift that a test should find.

    Raises:
        ValueError: `share` or `detect` is out of bounds, or the log is refused by `user_sums`.
    """
    check_plan(share, detect)
    sums = user_sums(log)
    arms = {arm: sums.filter(pl.col(ARM) == arm) for arm in (CONTROL, CANDIDATE)}
    exposed = {arm: frame.filter(pl.col("lists") > 0) for arm, frame in arms.items()}
    counts = {arm: {"assigned": arms[arm].height, "exposed": exposed[arm].height} for arm in arms}
    metrics = {}
    for name, (num, den) in _PARTS.items():
        both = {
            arm: estimate(frame[num].to_numpy().astype(float), frame[den].to_numpy().astype(float))
            for arm, frame in exposed.items()
        }
        metrics[name] = _compared(both[CONTROL], both[CANDIDATE], share, level, power, detect)
    return {
        "users": counts,
        "sample_ratio": {
            part: sample_ratio(counts[CONTROL][part], counts[CANDIDATE][part], share)
            for part in ("assigned", "exposed")
        },
        "metrics": metrics,
        "settings": {"share": share, "level": level, "power": power, "detect": detect},
    }


def check_plan(share: float, detect: float) -> None:
    """See that a test can be planned with these numbers.

    Raises:
        ValueError: `share` is not between 0 and 1, or `detect` is not above 0 and finite.
    """
    if not 0 < share < 1:
        raise ValueError(f"the candidate's share is {share}; needed a number between 0 and 1.")
    if not 0 < detect < math.inf:
        raise ValueError(f"the lift to detect is {detect}; needed a number above 0, such as 0.05 for 5 %.")


def sample_ratio(control: int, candidate: int, share: float) -> dict[str, Any]:
    """Chi-square test (1 degree of freedom) of the arms' sizes against the planned share; `mismatch` below `SRM_ALPHA`."""
    total = control + candidate
    if not total:
        return {"chi2": None, "p": None, "mismatch": False}
    want = total * share
    chi2 = (candidate - want) ** 2 / want + (control - (total - want)) ** 2 / (total - want)
    p = math.erfc(math.sqrt(chi2 / 2))
    return {"chi2": chi2, "p": p, "mismatch": p < SRM_ALPHA}


def required_users(control: Estimate, detect: float, share: float, level: float, power: float) -> int | None:
    """Users of both arms together that find a relative lift of `detect` with the given power (two-sided z-test)."""
    change = abs(control.value) * detect
    if not change or not math.isfinite(change) or not math.isfinite(control.user_variance):
        return None
    z = _quantile(0.5 + level / 2) + _quantile(power)
    return math.ceil(z**2 * control.user_variance * (1 / share + 1 / (1 - share)) / change**2)


def _compared(
    control: Estimate, candidate: Estimate, share: float, level: float, power: float, detect: float
) -> dict[str, Any]:
    difference = candidate.value - control.value
    error = math.sqrt(control.variance + candidate.variance)
    z = _quantile(0.5 + level / 2)
    lift = low = high = None
    if control.value:
        ratio = candidate.value / control.value
        lift = ratio - 1
        spread = z * math.sqrt(candidate.variance + ratio**2 * control.variance) / abs(control.value)
        low, high = lift - spread, lift + spread
    values: Mapping[str, float | None] = {
        "control": control.value,
        "candidate": candidate.value,
        "difference": difference,
        "difference_low": difference - z * error,
        "difference_high": difference + z * error,
        "lift": lift,
        "lift_low": low,
        "lift_high": high,
        "p": math.erfc(abs(difference) / error / math.sqrt(2)) if error else None,
    }
    known = {k: v if v is not None and math.isfinite(v) else None for k, v in values.items()}
    return known | {"required_users": required_users(control, detect, share, level, power)}


def _quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def report_text(report: Mapping[str, Any], title: str) -> str:
    """The report for a terminal."""
    from sigma_core.benchmarks.record import text_table

    users = report["users"]
    lines = [title, ""]
    lines += [
        f"{arm}: {n['assigned']} users assigned, {n['exposed']} shown a list" for arm, n in users.items()
    ]
    known = {part: ratio for part, ratio in report["sample_ratio"].items() if ratio["p"] is not None}
    for part, ratio in known.items():
        said = "MISMATCH" if ratio["mismatch"] else "as planned"
        lines.append(
            f"sample ratio, {part} users: chi-square {ratio['chi2']:.2f}, p {ratio['p']:.3f}: {said}"
        )
    if any(ratio["mismatch"] for ratio in known.values()):
        lines.append(
            "MISMATCH: the split is not the planned one, read nothing below (metrics are of users shown a list)"
        )
    level = f"{report['settings']['level']:.0%}"
    header = ("metric", "control", "candidate", "lift", f"{level} from", "to", "p", "users needed")
    keys = ("control", "candidate", "lift", "lift_low", "lift_high", "p", "required_users")
    rows = [(name, *(found[key] for key in keys)) for name, found in report["metrics"].items()]
    needed = f"users needed: both arms, to find a lift of {report['settings']['detect']:.0%}"
    return "\n".join(
        [*lines, "", text_table(header, rows), f"{needed} with power {report['settings']['power']}\n"]
    )
