"""With a filter, prefixes are searched for what they may still give; probabilities and their order stay what they are."""

import numpy as np
import pytest
import torch

from sigma_core.generation.prefix_beam import AllowedPrefixes, _best
from sigma_core.generation.recommender import Ask
from sigma_core.generation.subset_search import PrefixRanges
from sigma_core.instruction.collate import Request
from tests.model_world import CODES, tiny_user, tiny_world

PREFIXES = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 0], [1, 0]])
BOUGHT = torch.tensor([[3.0, 1.0, 4.0, 1.0, 3.0]])


def test_reach_is_the_share_of_purchases_that_is_left() -> None:
    ranges = PrefixRanges.of_sorted(PREFIXES)
    group = torch.tensor([0, 0, 1, 2, 2])
    eligible = torch.tensor([[False, True, True, True, True], [True, True, True, False, False]])
    allowed = AllowedPrefixes.of(ranges, group, eligible, BOUGHT, torch.zeros(2, dtype=torch.long))
    assert allowed.mask_RQ.tolist() == [[True, True, True], [True, True, False]]
    none = torch.zeros(2, 1, 0, dtype=torch.long)
    first = allowed.reach(0, none, 2)
    torch.testing.assert_close(first[0, 0], torch.tensor([5 / 8, 1.0]))
    assert first[1, 0, 0] == 1
    assert first[1, 0, 1] < 1e-9
    second = allowed.reach(1, torch.zeros(2, 1, 1, dtype=torch.long), 2)
    torch.testing.assert_close(second[0, 0], torch.tensor([1 / 4, 1.0]))
    assert AllowedPrefixes.all_of(ranges.rows_QP, 2).reach(0, none, 2) is None


@pytest.mark.parametrize("left", [[], [1], [0, 3], [2, 3, 4], [0, 1, 2, 3, 4]])
def test_few_items_left_are_counted_as_many_are(left: list[int]) -> None:
    """However few a request may have: a prefix is open where one is left, and keeps what is bought of those."""
    group = torch.tensor([0, 0, 1, 2, 2])
    eligible = torch.zeros(2, 5, dtype=torch.bool)
    eligible[0, left] = True
    eligible[1, 4] = True
    allowed = AllowedPrefixes.of(
        PrefixRanges.of_sorted(PREFIXES), group, eligible, BOUGHT, torch.zeros(2, dtype=torch.long)
    )
    kept = [sum(BOUGHT[0, item].item() for item in left if group[item] == prefix) for prefix in range(3)]
    assert allowed.open_RQ is not None
    assert allowed.open_RQ.tolist() == [kept, [0.0, 0.0, 3.0]]
    assert allowed.mask_RQ.tolist() == [[some > 0 for some in kept], [False, False, True]]


@pytest.mark.parametrize(
    ("width", "surest", "chosen"),
    [(1, 0, [2]), (1, 1, [0]), (2, 1, [0, 2]), (2, 0, [1, 2]), (3, 0, [0, 1, 2]), (9, 9, [0, 1, 2])],
)
def test_the_surest_come_along_and_the_rest_is_chosen_by_worth(
    width: int, surest: int, chosen: list[int]
) -> None:
    """P(c) .5, .3 and .2, of which .01, .1 and all may be had: worth .005, .03 and .2."""
    total = torch.tensor([[0.5, 0.3, 0.2]]).log()
    reach = torch.tensor([[0.01, 0.1, 1.0]])
    score, place = _best(total, reach, width, surest)
    assert place.tolist() == [chosen]  # in order of P(c)
    torch.testing.assert_close(score, total[:, chosen])


def test_a_closed_prefix_is_never_among_the_surest() -> None:
    total = torch.tensor([[-torch.inf, -1.0, -torch.inf]])
    score, place = _best(total, torch.ones(1, 3), 1, 3)
    assert (place.item(), score.item()) == (1, -1.0)


@pytest.mark.parametrize("seed", range(6))
def test_a_narrow_search_under_a_filter_keeps_scores_and_filter(seed: int) -> None:
    """A random half of the items is left; three prefixes are searched, two of them the surest."""
    narrow = tiny_world(1, seed=seed, num_prefixes=3, sigma_top=2, items_per_prefix=23)
    whole = tiny_world(1, seed=seed, num_prefixes=CODES, sigma_top=2, items_per_prefix=23)
    excluded = np.flatnonzero(np.random.default_rng(seed).random(23) < 0.5)
    asked = [tiny_user("u", seed)], [[Ask(Request("x"), excluded)]], narrow.focus, 100
    every = {r.row: r.score for r in whole.recommender.rank(*asked)[0]}
    few = narrow.recommender.rank(*asked)[0]
    assert not set(excluded) & {r.row for r in few}
    assert {r.row: pytest.approx(every[r.row], rel=1e-3) for r in few} == {r.row: r.score for r in few}
    by_prefix = {r.prefix: r.prefix_probability for r in few}
    likeliest = sorted({r.prefix_probability for r in whole.recommender.rank(*asked)[0]}, reverse=True)
    assert len(by_prefix) <= 3
    assert likeliest[0] == pytest.approx(max(by_prefix.values()), rel=1e-3)
