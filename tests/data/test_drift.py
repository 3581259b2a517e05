from math import log

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sigma_core import columns as c
from sigma_core.contracts import DriftLimits
from sigma_core.data.drift import Profile, more_without_time, moved, profile, psi

LIMITS = DriftLimits(
    min_days=2,
    rows_ratio=(2, 5),
    null_share=(0.1, 0.3),
    price_ratio=(1.5, 3),
    refused_share=(0.05, 0.2),
    mix_psi=(0.1, 0.25),
)


def day(rows: int = 100, price: float = 2.0, nulls: int = 0, refused: int = 0, tea: float = 0.5) -> Profile:
    num_tea = round(rows * tea)
    frame = pl.DataFrame(
        {
            c.PRICE: [price] * rows,
            c.CATEGORY: ["tea"] * num_tea + ["milk"] * (rows - num_tea),
            c.QUERY_TEXT: [None] * nulls + ["x"] * (rows - nulls),
        }
    )
    return profile(frame, pl.DataFrame({c.REASON: ["unknown_item"] * refused}, schema={c.REASON: pl.String}))


def levels(now: Profile, before: list[Profile] | None = None) -> dict[str, str]:
    found = moved(now, [day(), day(), day()] if before is None else before, LIMITS)
    return {one.figure: one.level for one in found if one.level != "ok"}


def test_a_profile_is_a_few_figures() -> None:
    found = day(rows=10, nulls=2, refused=10, tea=0.2)
    assert found["rows"] == 10
    assert found["nulls"] == {c.PRICE: 0, c.CATEGORY: 0, c.QUERY_TEXT: 0.2}
    assert found["price"] == [2, 2, 2]
    assert found["mix"] == {"milk": 0.8, "tea": 0.2}
    assert found["refused"] == {"unknown_item": 0.5, "duplicate": 0}
    assert profile(pl.DataFrame({c.PRICE: []}, schema={c.PRICE: pl.Float64})) == {"rows": 0}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (day(), {}),
        (day(rows=210), {"rows": "WARN"}),
        (day(rows=16), {"rows": "ERROR"}),
        (day(nulls=11), {f"nulls of {c.QUERY_TEXT}": "WARN"}),
        (day(nulls=31), {f"nulls of {c.QUERY_TEXT}": "ERROR"}),
        (day(price=3.2), {f"price quantile {q}": "WARN" for q in (0.1, 0.5, 0.9)}),
        (day(refused=10), {"refused as unknown_item": "WARN"}),
        (day(tea=0.3), {"mix of categories (PSI)": "WARN"}),
        (day(tea=0.1), {"mix of categories (PSI)": "ERROR"}),
    ],
)
def test_what_moved_is_named_with_its_level(now: Profile, expected: dict[str, str]) -> None:
    assert levels(now) == expected


def test_a_closed_day_is_an_error_of_its_rows_alone() -> None:
    assert levels(profile(pl.DataFrame({c.PRICE: []}, schema={c.PRICE: pl.Float64}))) == {"rows": "ERROR"}


def test_too_few_days_say_nothing() -> None:
    assert moved(day(rows=1), [day()], LIMITS) == []


@pytest.mark.parametrize(
    ("now", "former", "level"),
    [
        ({"bad_time": 3, "future_time": 1}, {"bad_time": 3}, "WARN"),
        ({"bad_time": 3}, {"bad_time": 2, "future_time": 1}, "ok"),
        ({"bad_time": 1, "duplicate": 9}, {"bad_time": 2}, "ok"),
    ],
)
def test_more_rows_without_a_time_than_before_are_a_warning(
    now: dict[str, int], former: dict[str, int], level: str
) -> None:
    assert [one.level for one in more_without_time(now, former)] == [level]


def test_tables_without_such_rows_have_no_such_figure() -> None:
    assert more_without_time({"duplicate": 3}, {}) == []


def test_psi_by_hand() -> None:
    assert psi({"a": 0.5, "b": 0.5}, {"a": 0.5, "b": 0.5}) == 0
    expected = 0.25 * log(0.75 / 0.5) + -0.25 * log(0.25 / 0.5)
    assert psi({"a": 0.5, "b": 0.5}, {"a": 0.75, "b": 0.25}) == pytest.approx(expected)


@given(
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)),
    st.dictionaries(st.sampled_from("abc"), st.floats(0, 1)),
)
def test_psi_is_symmetric_and_never_negative(p: dict[str, float], q: dict[str, float]) -> None:
    assert psi(p, q) >= 0
    assert psi(p, q) == pytest.approx(psi(q, p))
