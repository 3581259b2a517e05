"""Hand-checked health figures."""

import numpy as np

from sigma_core.config import TokenizationConfig
from sigma_core.tokenization.health import codebook_health


def test_figures_of_six_items_by_hand() -> None:
    codes = np.array([[0, 0], [0, 0], [0, 1], [0, 2], [1, 0], [1, 0]])
    vectors = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [3.0, 0.0], [4.0, 0.0]])
    config = TokenizationConfig(num_levels=2, codebook_size=4, prefix_length=1)
    got = codebook_health(codes, config, vectors, vectors + [0.0, 0.5], ["a", "a", "b", None, "c", "c"])
    assert got["usage"] == [2 / 4, 3 / 4]
    assert got["dead_codes"] == [2, 1]
    assert got["collision_rate"] == round(4 / 6, 4)  # rows 0+1 and 4+5
    assert got["distinct_collision_rate"] == round(2 / 5, 4)  # rows 0 and 1 are one vector
    assert got["largest_group_ratio"] == round(4 / 3, 3)
    assert got["reconstruction_mse"] == 0.25
    assert got["prefix_purity"] == round((2 + 2) / 6, 4)
    assert got["entropy_bits"][0] == round(-(4 / 6 * np.log2(4 / 6) + 2 / 6 * np.log2(2 / 6)), 3)


def test_the_largest_group_is_one_of_the_prefix_that_is_used() -> None:
    """Two codes long: groups of 2, 1, 1 and 2 items, mean 1.5."""
    codes = np.array([[0, 0], [0, 0], [0, 1], [0, 2], [1, 0], [1, 0]])
    config = TokenizationConfig(num_levels=2, codebook_size=4, prefix_length=2)
    got = codebook_health(codes, config, np.eye(6), np.eye(6), None)
    assert (got["prefix_groups"], got["largest_group"]) == (4, 2)
    assert got["largest_group_ratio"] == round(2 / 1.5, 3)
