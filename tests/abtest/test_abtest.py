"""Who is in which arm, what a log says by hand, that equal policies differ by chance only, and that a broken log is refused."""

import math
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sigma_assets.abtest import check_log
from sigma_assets.checks.contract import failed_errors
from sigma_core import columns as c
from sigma_core.abtest.analysis import (
    analyse,
    check_plan,
    estimate,
    report_text,
    required_users,
    sample_ratio,
    user_sums,
)
from sigma_core.abtest.log import CANDIDATE, CONTROL, SCHEMAS, AbLog
from sigma_core.abtest.replay import assign, replay

DAY = date(2024, 3, 5)
CATALOG = pl.DataFrame({c.ITEM_ID: ["a", "b", "x", "y"], c.CATEGORY: ["tea", "tea", "soap", None]})


def lists(users: list[str], items: list[str]) -> pl.DataFrame:
    rows = [(user, rank, item) for user in users for rank, item in enumerate(items, start=1)]
    return pl.DataFrame(
        rows, schema={c.USER_ID: pl.String, c.RANK: pl.Int32, c.ITEM_ID: pl.String}, orient="row"
    )


def events(rows: list[tuple[str, str, int]]) -> pl.DataFrame:
    full = [(user, item, DAY + timedelta(days=after), "purchase") for user, item, after in rows]
    schema = {c.USER_ID: pl.String, c.ITEM_ID: pl.String, c.EVENT_DATE: pl.Date, c.EVENT_TYPE: pl.String}
    return pl.DataFrame(full, schema=schema, orient="row")


def small() -> AbLog:
    """Control shows a, b; the candidate x, y. Everybody takes a tomorrow, and y when it is too late."""
    users = [f"u{n}" for n in range(40)]
    both = lists(users, ["a", "b"]), lists(users[:39], ["x", "y"])  # u39 has no list of the candidate
    taken = events([(user, item, after) for user in users for item, after in (("a", 1), ("y", 9), ("b", 0))])
    return replay({DAY: both}, {DAY: CATALOG}, taken, experiment="t", share=0.5, top_n=2, horizon_days=7)


def test_a_user_stays_in_one_arm_and_experiments_split_independently() -> None:
    users = pl.Series([f"u{n}" for n in range(4000)])
    one, again = assign(users, "one"), assign(users.shuffle(1), "one")
    assert one.equals(again)
    other = assign(users, "two")
    candidate = [(frame["arm"] == CANDIDATE).to_numpy() for frame in (one, other)]
    assert 0.47 < candidate[0].mean() < 0.53
    assert 0.22 < (candidate[0] & candidate[1]).mean() < 0.28
    assert 0.17 < (assign(users, "three", 0.2)["arm"] == CANDIDATE).mean() < 0.23
    with pytest.raises(ValueError, match="between 0 and 1"):
        assign(users, "x", 1.0)


def test_a_replay_by_hand() -> None:
    log = small()
    assert log.assignment.height == 39
    assert set(log.outcome[c.ITEM_ID]) == {"a"}  # b was before, y after the horizon
    report = analyse(log)
    hits, breadth = report["metrics"]["hit_rate"], report["metrics"]["categories_shown"]
    assert (hits["control"], hits["candidate"], hits["lift"]) == (1.0, 0.0, -1.0)
    assert report["metrics"]["conversion"]["control"] == 0.5
    assert report["metrics"]["categories_taken"]["control"] == 1.0
    assert (breadth["control"], breadth["candidate"]) == (
        1.0,
        1.0,
    )  # tea twice; soap, and one without a category
    assert sum(report["users"][arm]["assigned"] for arm in (CONTROL, CANDIDATE)) == 39
    assert user_sums(log)["lists"].to_list() == [1] * 39
    assert report_text(report, "A REPLAY").startswith("A REPLAY")


def test_estimates_by_hand() -> None:
    # ratio 4/4; lines (2 - 1) / 2 and (2 - 3) / 2, so the variance of a user is 0.5
    found = estimate(np.array([2.0, 2.0]), np.array([1.0, 3.0]))
    assert found.value == 1.0
    assert found.user_variance == pytest.approx(0.5)
    assert found.variance == pytest.approx(0.25)
    assert math.isnan(estimate(np.zeros(2), np.zeros(2)).value)
    # a share of 10 % and a lift of 10 %: (1.96 + 0.84)^2 * 2 * p (1 - p) / 0.01^2 an arm
    coin = estimate(np.array([1.0] * 100 + [0.0] * 900), np.ones(1000))
    needed = required_users(coin, 0.1, 0.5, 0.95, 0.8)
    assert needed == pytest.approx(2 * 7.849 * 2 * 0.09 / 0.01**2, rel=0.01)


@pytest.mark.parametrize(
    ("share", "detect"), [(0.0, 0.05), (1.0, 0.05), (0.5, 0.0), (0.5, -1.0), (0.5, math.nan), (0.5, math.inf)]
)
def test_a_test_that_cannot_be_planned_is_refused(share: float, detect: float) -> None:
    check_plan(0.5, 0.05)
    with pytest.raises(ValueError, match="needed a number"):
        analyse(small(), share=share, detect=detect)


def test_sample_ratio_mismatch() -> None:
    assert sample_ratio(500, 500, 0.5)["p"] == 1.0
    off = sample_ratio(1000, 1100, 0.5)
    assert off["chi2"] == pytest.approx(100**2 / 2100)
    assert off["p"] == pytest.approx(0.0291, abs=1e-4)
    assert not off["mismatch"]
    assert sample_ratio(1000, 1300, 0.5)["mismatch"]
    assert not sample_ratio(800, 200, 0.2)["mismatch"]


def test_two_experiments_are_never_read_as_one() -> None:
    one, other = small(), small()
    named = {n: frame.with_columns(experiment=pl.lit("u")) for n, frame in other.tables().items()}
    both = AbLog(**{n: pl.concat([frame, named[n]]) for n, frame in one.tables().items()})
    with pytest.raises(ValueError, match=r"2 experiments: t \(39 users assigned\), u \(39 users assigned\)"):
        analyse(both)
    assert analyse(both.of("t")) == analyse(one)
    with pytest.raises(ValueError, match="no experiment 'v'; it holds t "):
        both.of("v")
    stray = one.exposure.with_columns(experiment=pl.lit("u"))
    with pytest.raises(ValueError, match=r"2 experiments: t \(39 users assigned\), u \(0 users assigned\)"):
        analyse(AbLog(one.assignment, stray, one.outcome))


def test_lists_of_another_arm_and_of_nobody_are_refused_with_counts() -> None:
    log = small()
    swapped = log.exposure.with_columns(arm=pl.lit(CONTROL))
    wrong = (log.exposure["arm"] == CANDIDATE).sum()
    with pytest.raises(ValueError, match=f"{wrong} of 78 .*{wrong} of control for candidate"):
        analyse(AbLog(log.assignment, swapped, log.outcome))
    with pytest.raises(ValueError, match="for none"):
        analyse(AbLog(log.assignment.head(3), log.exposure, log.outcome))


def test_the_terminal_says_when_the_users_who_were_shown_lists_are_not_split_as_planned() -> None:
    report = analyse(small())
    assert "MISMATCH" not in report_text(report, "x")
    for part in ("assigned", "exposed"):
        off = report["sample_ratio"] | {part: sample_ratio(1000, 1300, 0.5)}
        said = report_text(report | {"sample_ratio": off}, "x")
        assert f"{part} users: chi-square 39.13, p 0.000: MISMATCH" in said
        assert "read nothing below" in said


def test_equal_policies_differ_by_chance_only() -> None:
    """A/A: over 200 splits of the same lists the 95 % interval misses zero about ten times."""
    rng = np.random.default_rng(3)
    users = [f"u{n}" for n in range(300)]
    same = lists(users, ["a", "b"])
    taken = events([(user, "a", 1) for user in users if rng.random() < 0.3])
    wrong = 0
    for n in range(200):
        log = replay(
            {DAY: (same, same)}, {DAY: CATALOG}, taken, experiment=str(n), share=0.5, top_n=2, horizon_days=7
        )
        found = analyse(log)["metrics"]["hit_rate"]
        wrong += not found["difference_low"] <= 0 <= found["difference_high"]
    assert 2 <= wrong <= 20


def test_a_log_keeps_its_contract_and_survives_a_file(tmp_path: Path) -> None:
    log = small()
    assert not failed_errors(check_log(log))
    log.save(tmp_path)
    assert AbLog.load(tmp_path).digest() == log.digest()
    (tmp_path / "outcome.parquet").unlink()
    with pytest.raises(ValueError, match=r"outcome\.parquet is missing"):
        AbLog.load(tmp_path)


def twice(frame: pl.DataFrame) -> pl.DataFrame:
    return pl.concat([frame, frame.head(1)])


def changed(column: str, value: object):  # type: ignore[no-untyped-def]
    return lambda frame: frame.with_columns(pl.lit(value).cast(frame.schema[column]).alias(column))


@pytest.mark.parametrize(
    ("table", "breaks", "damage"),
    [
        ("assignment", "some_users", lambda frame: frame.clear()),
        ("assignment", "one_arm", twice),
        ("assignment", "user_named", changed(c.USER_ID, None)),
        ("assignment", "arm_named", changed("arm", None)),
        ("assignment", "arm_known", changed("arm", "other")),
        ("exposure", "some_shown", lambda frame: frame.clear()),
        ("exposure", "one_list_a_day", twice),
        ("exposure", "item_named", changed(c.ITEM_ID, None)),
        ("exposure", "rank_from_one", changed(c.RANK, 0)),
        ("exposure", "arm_known", changed("arm", "other")),
        ("exposure", "own_arm", changed("arm", "control")),
        ("assignment", "test_named", changed("experiment", None)),
        ("outcome", "counted_once", twice),
        ("outcome", "taken", changed("events", 0)),
    ],
)
def test_a_broken_log_is_told(table: str, breaks: str, damage) -> None:  # type: ignore[no-untyped-def]
    tables = small().tables()
    broken = AbLog(**tables | {table: damage(tables[table])})
    assert any(one.id == f"{table}.{breaks}" for one in failed_errors(check_log(broken)))
    assert set(SCHEMAS) == set(tables)
