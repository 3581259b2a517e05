"""A refit that only renamed its clusters is renamed back; what really moved is counted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.tokenization.codebooks import Codebooks
from sigma_core.tokenization.refit_drift import is_comparable, keep_numbering, refit_drift

SIZE, LEVELS, WIDTH = 6, 2, 3


def books(codes: np.ndarray, first: int = 0, prefix_length: int = 1, seed: int = 0) -> Codebooks:
    tensor = np.random.default_rng(seed).normal(size=(LEVELS, SIZE, WIDTH)).astype(np.float32)
    ids = [f"i{first + row:03d}" for row in range(len(codes))]
    return Codebooks(tensor, ids, codes, prefix_length=prefix_length, beam=2, encoder_digest="e")


def renamed(fitted: Codebooks, seed: int) -> Codebooks:
    """The same clusters under other numbers."""
    rng = np.random.default_rng(seed)
    tensor, codes = fitted.codebooks.copy(), fitted.codes.copy()
    for level in range(LEVELS):
        number = rng.permutation(SIZE)
        tensor[level, number] = fitted.codebooks[level]
        codes[:, level] = number[fitted.codes[:, level]]
    return Codebooks(tensor, fitted.item_ids, codes, prefix_length=1, beam=2, encoder_digest="e")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_a_renamed_refit_gets_its_numbers_back_and_means_the_same(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = books(np.stack([rng.permutation(np.arange(60) % SIZE) for _ in range(LEVELS)], axis=1))
    after = renamed(before, seed + 1)
    kept = keep_numbering(before, after)
    assert (kept.codes == before.codes).all()
    assert np.array_equal(kept.codebooks, before.codebooks)
    assert refit_drift(before, kept)["prefix_changed_share"] == 0.0
    assert np.array_equal(kept.reconstruct(kept.codes), after.reconstruct(after.codes))
    new = rng.normal(size=(9, WIDTH)).astype(np.float32)
    assert np.array_equal(kept.reconstruct(kept.encode(new)), after.reconstruct(after.encode(new)))


def test_matching_with_itself_changes_nothing_and_dead_codes_keep_their_place() -> None:
    before = books(np.array([[0, 1], [0, 1], [3, 2]]))
    assert keep_numbering(before, before).digest() == before.digest()


def test_what_really_moved_is_counted_by_hand() -> None:
    before = books(np.array([[0, 0], [0, 1], [1, 2], [1, 3]]))  # i000 .. i003
    after = books(np.array([[5, 1], [4, 2], [4, 3], [4, 0]]), first=1)  # i001 .. i004
    kept = keep_numbering(before, after)
    assert kept.codes[:, 0].tolist() == [0, 1, 1, 1]  # 5 was 0, 4 was 1
    assert kept.codes[:3, 1].tolist() == [1, 2, 3]
    assert refit_drift(before, after) == {
        "common_items": 3, "new_items": 1, "gone_items": 1, "prefix_changed_share": 1.0, "code_changed_share": [1.0, 0.0]
    }  # fmt: skip
    split = books(np.array([[0, 0], [2, 1], [1, 2], [1, 3]]))
    assert refit_drift(before, keep_numbering(before, split))["prefix_changed_share"] == 0.25


def test_refits_of_another_shape_are_not_matched() -> None:
    before, after = books(np.array([[0, 0]])), books(np.array([[0, 0]]), prefix_length=2)
    assert not is_comparable(before, after)
    assert not is_comparable(before, books(np.array([[0, 0]]), first=7))  # no item in common
    with pytest.raises(ValueError, match="keep_numbering=false"):
        keep_numbering(before, after)
