"""One item of a text group, by hand, and as a walk over all rows would give it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.serving import text_groups
from sigma_core.serving.text_groups import TextGroups


class Counted(np.ndarray):
    """An order that counts the rows it is asked for."""

    asked = 0

    def __getitem__(self, key: object) -> np.ndarray:  # type: ignore[override]
        found = np.asarray(self)[key]
        Counted.asked += len(found)
        return found


def test_the_first_of_each_group_that_may_be_listed() -> None:
    groups = TextGroups(list("aabbcd"))
    order = np.array([1, 0, 2, 3, 4, 5])
    assert groups.first(order, 9) == [1, 2, 4, 5]
    assert groups.first(order, 2) == [1, 2]
    eligible = np.array([True, False, False, True, True, True])
    assert groups.first(order, 9, eligible) == [0, 3, 4, 5]
    assert groups.first(order, 9, eligible, listed=[2, 5]) == [0, 4]
    assert groups.first(order, 0) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 8))
def test_blocks_change_nothing(names: list[int], n: int) -> None:
    order = np.random.default_rng(len(names) + n).permutation(len(names))
    eligible = np.random.default_rng(n).random(len(names)) < 0.6
    want: dict[int, int] = {}
    for row in order.tolist():
        if eligible[row]:
            want.setdefault(names[row], row)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_groups, "_FIRST_BLOCK", 1)
        assert TextGroups([str(name) for name in names]).first(order, n, eligible) == list(want.values())[:n]


def test_no_more_rows_are_looked_at_than_the_list_takes() -> None:
    groups = TextGroups([str(n) for n in range(100_000)])
    Counted.asked = 0
    assert groups.first(np.arange(100_000).view(Counted), 10) == list(range(10))
    assert Counted.asked < 1000


def test_many_that_read_the_same_leave_no_list_short() -> None:
    """The best 500 rows are of one group: a list of three goes on to the next groups."""
    groups = TextGroups(["same"] * 500 + ["b", "b", "c", "d"])
    score = -np.arange(504, dtype=np.float64)
    assert groups.best(score, 3) == [0, 500, 502]
    assert groups.best(score, 9) == [0, 500, 502, 503], "no more than there are"
    score[502] = -np.inf
    assert groups.best(score, 9) == [0, 500, 503]
    assert groups.best(np.zeros(504), 2) == [0, 500], "ties by row"
