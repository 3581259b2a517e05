"""Claims about the prefix tree: it lists the prefixes that exist, and no other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sigma_core.tokenization.prefix_tree import PrefixTree

PREFIXES = st.tuples(st.integers(1, 30), st.integers(1, 3)).flatmap(
    lambda shape: arrays(np.int32, shape, elements=st.integers(0, 4))
)


def test_four_rows_by_hand() -> None:
    tree = PrefixTree.from_prefixes(np.array([[2, 0], [0, 1], [2, 0], [0, 0]]), codebook_size=3)
    assert tree.prefixes.tolist() == [[0, 0], [0, 1], [2, 0]]
    assert tree.group_of_row.tolist() == [2, 1, 2, 0]
    assert tree.order.tolist() == [3, 1, 0, 2]
    assert tree.offsets.tolist() == [0, 1, 2, 4]
    assert tree.children[0].tolist() == [[0, -1, 1]]
    assert tree.children[1].tolist() == [[0, 1, -1], [2, -1, -1]]
    assert tree.child_mask(0).tolist() == [[True, False, True]]
    assert tree.rows(2).tolist() == [0, 2]


@given(PREFIXES)
def test_walking_the_tree_reaches_exactly_the_existing_prefixes(prefixes: np.ndarray) -> None:
    tree = PrefixTree.from_prefixes(prefixes, codebook_size=5)
    reached: list[tuple[tuple[int, ...], int]] = [((), 0)]
    for depth in range(tree.prefix_length):
        mask = tree.child_mask(depth)
        reached = [
            ((*codes, int(code)), int(tree.children[depth][node, code]))
            for codes, node in reached
            for code in np.flatnonzero(mask[node])
        ]
    assert sorted(codes for codes, _ in reached) == sorted({tuple(row) for row in prefixes.tolist()})
    assert all(tuple(tree.prefixes[group].tolist()) == codes for codes, group in reached)


@given(PREFIXES)
def test_groups_partition_the_rows(prefixes: np.ndarray) -> None:
    tree = PrefixTree.from_prefixes(prefixes, codebook_size=5)
    assert sorted(tree.order.tolist()) == list(range(len(prefixes)))
    for group in range(tree.num_groups):
        assert (prefixes[tree.rows(group)] == tree.prefixes[group]).all()
    assert (tree.groups_of(prefixes) == tree.group_of_row).all()


def test_a_prefix_nobody_has_is_in_no_group() -> None:
    tree = PrefixTree.from_prefixes(np.array([[0, 1], [1, 1]]), codebook_size=2)
    assert tree.groups_of(np.array([[0, 0], [1, 1], [5, 1], [-1, 1]])).tolist() == [-1, 1, -1, -1]


def test_a_code_outside_the_codebook_is_refused() -> None:
    with pytest.raises(ValueError, match="a codebook of 4 entries allows 0 to 3"):
        PrefixTree.from_prefixes(np.array([[0], [4]]), codebook_size=4)
    with pytest.raises(ValueError, match="shape"):
        PrefixTree.from_prefixes(np.array([0, 1]), codebook_size=4)
