"""Drift of a day's table against the days before it: how a table looks in a few figures, and which of them moved.

A profile is small and stored beside the artifact, so that comparing reads no table. What moved is a warning or an error by the
limits of the table's contract; it never keeps a partition from being written. Our choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import median
from typing import Any, Final

import polars as pl

from sigma_core import columns as c
from sigma_core.contracts import DriftLimits

Profile = dict[str, Any]
QUANTILES: Final = (0.1, 0.5, 0.9)
_REFUSED: Final = ("unknown_item", "duplicate")
_NO_TIME: Final = ("bad_time", "future_time")
_FLOOR: Final = 1e-4  # share of a category that is not there, so that its logarithm is


@dataclass(frozen=True)
class Moved:
    """One figure and how far it lies from the days before. `level` is ok, WARN or ERROR."""

    figure: str
    now: float
    usual: float
    distance: float
    level: str

    def said(self) -> str:
        """One line."""
        return f"{self.figure}: {self.now:,.4g}, usually {self.usual:,.4g} (off by {self.distance:,.2f})"


def profile(frame: pl.DataFrame, quarantine: pl.DataFrame | None = None) -> Profile:
    """The figures of a table that `moved` compares; JSON values only.

    rows; share of nulls of each column; quantiles of PRICE and shares of CATEGORY where the table has them; and of all rows
    that arrived, the share refused as unknown item or duplicate.
    """
    found: Profile = {"rows": frame.height}
    if frame.height:
        nulls = frame.select(pl.all().null_count() / frame.height).row(0)
        found["nulls"] = dict(zip(frame.columns, nulls, strict=True))
    if c.PRICE in frame.columns and frame[c.PRICE].count():
        found["price"] = [frame[c.PRICE].quantile(q, "linear") for q in QUANTILES]
    if c.CATEGORY in frame.columns and frame.height:
        counts = frame.group_by(pl.col(c.CATEGORY).fill_null("")).len().sort(c.CATEGORY)
        found["mix"] = {name: count / frame.height for name, count in counts.iter_rows()}
    if quarantine is not None and (arrived := frame.height + quarantine.height):
        reasons = quarantine[c.REASON]
        found["refused"] = {reason: (reasons == reason).sum() / arrived for reason in _REFUSED}
    return found


def moved(now: Profile, before: Sequence[Profile], limits: DriftLimits) -> list[Moved]:
    """Every figure against the median of the profiles before (`mix`: their mean); nothing with fewer than `min_days` of them."""
    if len(before) < limits.min_days:
        return []
    found = [_ratio("rows", now["rows"], [one["rows"] for one in before], limits.rows_ratio)]
    for column, share in now.get("nulls", {}).items():
        usual = [one["nulls"][column] for one in before if column in one.get("nulls", {})]
        found += _shift(f"nulls of {column}", share, usual, limits.null_share)
    for reason, share in now.get("refused", {}).items():
        usual = [one["refused"][reason] for one in before if "refused" in one]
        found += _shift(f"refused as {reason}", share, usual, limits.refused_share)
    for position, quantile in enumerate(QUANTILES):
        usual = [one["price"][position] for one in before if "price" in one]
        if usual and "price" in now:
            found.append(
                _ratio(f"price quantile {quantile}", now["price"][position], usual, limits.price_ratio)
            )
    if "mix" in now and (mixes := [one["mix"] for one in before if "mix" in one]):
        names = sorted({name for mix in mixes for name in mix})
        usual_mix = {name: sum(mix.get(name, 0.0) for mix in mixes) / len(mixes) for name in names}
        distance = psi(usual_mix, now["mix"])
        found.append(
            Moved("mix of categories (PSI)", distance, 0.0, distance, _level(distance, limits.mix_psi))
        )
    return found


def more_without_time(now: Mapping[str, int], former: Mapping[str, int]) -> list[Moved]:
    """Rows without a usable time, from the counts of refused rows by reason, against the former version of the same partition.

    More of them are a warning. They are rows of no day and all lie with the first one, so that comparing days cannot show them.
    """
    mine, theirs = (sum(counts.get(reason, 0) for reason in _NO_TIME) for counts in (now, former))
    if not mine and not theirs:
        return []
    level = "WARN" if mine > theirs else "ok"
    return [Moved("rows without a usable time", mine, theirs, max(mine - theirs, 0), level)]


def psi(usual: dict[str, float], now: dict[str, float]) -> float:
    """Population stability index of two distributions over names: sum of (q - p) ln(q / p); 0 for equal ones.

    By convention .1 is a small change and .25 a large one.
    """
    total = 0.0
    for name in usual.keys() | now.keys():
        p, q = max(usual.get(name, 0.0), _FLOOR), max(now.get(name, 0.0), _FLOOR)
        total += (q - p) * log(q / p)
    return total


def _ratio(figure: str, now: float, before: Sequence[float], limits: tuple[float, float]) -> Moved:
    usual = float(median(before))
    high, low = max(now, usual), min(now, usual)
    distance = 1.0 if high == low else (high / low if low > 0 else float("inf"))
    return Moved(figure, float(now), usual, distance, _level(distance, limits))


def _shift(figure: str, now: float, before: Sequence[float], limits: tuple[float, float]) -> list[Moved]:
    if not before:
        return []
    usual = float(median(before))
    distance = abs(now - usual)
    return [Moved(figure, float(now), usual, distance, _level(distance, limits))]


def _level(distance: float, limits: tuple[float, float]) -> str:
    return "ERROR" if distance > limits[1] else "WARN" if distance > limits[0] else "ok"
