"""The bootstrap against cases whose answer is known, and Holm against a worked example."""

import numpy as np
import pytest

from sigma_core.evaluation.metrics import Ratio
from sigma_core.evaluation.significance import holm, paired_differences


def ratio(num, den=None):
    num = np.asarray(num, float)
    return Ratio(num, np.ones_like(num) if den is None else np.asarray(den, float))


def compare(left, right, samples=2000, seed=3):
    return paired_differences([left], [right], samples=samples, seed=seed)[0]


def test_equal_rankers_do_not_differ():
    some = ratio([0, 1, 1, 0, 1])
    assert compare(some, some) == (0.0, 0.0, 0.0, 1.0)


def test_the_same_advantage_for_everyone_has_no_spread():
    found = compare(ratio(np.ones(50)), ratio(np.zeros(50)))
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    assert found.p < 0.01


def test_the_interval_of_a_mean_has_the_width_of_its_standard_error():
    rng = np.random.default_rng(0)
    left, right = rng.normal(0.3, 1, 400), np.zeros(400)
    found = compare(ratio(left), ratio(right))
    error = left.std() / np.sqrt(400)
    assert found.value == pytest.approx(left.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 10, 200)
    gain = rng.normal(0.1, 0.1, 200)
    found = compare(ratio(shared + gain), ratio(shared))
    assert 0 < found.low < found.value < found.high < 0.2


def test_recall_is_resampled_as_a_ratio_of_sums():
    found = compare(ratio([10, 0], [10, 1]), ratio([0, 0], [10, 1]))
    assert found.value == 10 / 11
    assert (found.low, found.high) == (0.0, 1.0)  # a resample may draw only the second or only the first user


def test_no_difference_is_seldom_significant():
    rng = np.random.default_rng(2)
    p = [compare(ratio(rng.normal(0, 1, 100)), ratio(np.zeros(100)), samples=300).p for _ in range(200)]
    assert np.mean(np.array(p) < 0.05) < 0.1


def test_many_users_are_resampled_in_blocks_and_the_answer_depends_on_the_seed_only():
    rng = np.random.default_rng(4)
    left, right = ratio(rng.random(30_000)), ratio(rng.random(30_000))
    assert compare(left, right, samples=150) == compare(left, right, samples=150)
    assert compare(left, right, samples=20) != compare(left, right, samples=20, seed=9)


def test_users_without_requests_change_nothing():
    rng = np.random.default_rng(5)
    num = rng.random(40)
    padded = Ratio(np.concatenate([num, np.zeros(60)]), np.concatenate([np.ones(40), np.zeros(60)]))
    nothing = Ratio(np.zeros(100), padded.den)
    assert compare(padded, nothing) == compare(ratio(num), ratio(np.zeros(40)))


def test_holm_multiplies_by_what_is_left_and_never_falls():
    adjusted = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert adjusted == pytest.approx({"d": 4 * 0.005, "a": 3 * 0.01, "c": 2 * 0.03, "b": 0.06})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({"a": 0.8, "b": 0.9}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_sides_of_different_size_are_refused():
    with pytest.raises(ValueError, match="2 users on the left, 3"):
        compare(ratio([1, 0]), ratio([1, 0, 0]))
    with pytest.raises(ValueError, match="one to one"):
        paired_differences([ratio([1])], [], samples=100, seed=0)
