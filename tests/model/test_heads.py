"""What a request's words say of texts: matches of different scales, one answer; and what a history says of prefixes."""

import pytest
import torch

from sigma_core.config import ModelConfig
from sigma_core.data.item_activity import NUM_ACTIVITY_STATS
from sigma_core.instruction.collate import NUM_STATS
from sigma_core.model.heads import BEST_PREFIXES, ENOUGH, Focus, Memory, fit_of, match_range
from sigma_core.model.sigma import ModelShape, SigmaModel


def focus(low: float, high: float, present: bool = True) -> Focus:
    """One request whose matches run from `low` to `high`; its vectors do not matter here."""
    one = torch.zeros(1, 1, 1, 2)
    return Focus(one, torch.tensor([[[present]]]), torch.zeros(1, 1, 2), torch.tensor([[[low, high]]]))


def test_what_matches_as_well_as_the_best_fits_and_the_typical_does_not() -> None:
    found = focus(0.2, 0.6).fit(torch.tensor([[[0.2, 0.2 + ENOUGH * 0.4, 0.6, 0.9]]])).exp()[0, 0]
    assert found[0] < 1e-6
    assert found[1].item() == pytest.approx(0.5, abs=1e-4)
    assert found[2] > 0.8
    assert 0.99 < found[3] <= 1


def test_words_that_are_near_to_everything_are_judged_by_their_own_scale() -> None:
    match = torch.tensor([[[0.1, 0.3, 0.5]]])
    torch.testing.assert_close(
        focus(0.1, 0.5).fit(match), focus(0.5, 0.9).fit(match + 0.4), atol=1e-4, rtol=1e-4
    )
    torch.testing.assert_close(
        focus(0.1, 0.5).fit(match), focus(0.2, 1.0).fit(match * 2), atol=1e-4, rtol=1e-4
    )


def test_a_request_without_words_is_fitted_by_everything() -> None:
    assert focus(0.0, 0.0, present=False).fit(torch.tensor([[[0.0, 1.0]]])).tolist() == [[[0.0, 0.0]]]


def test_a_catalogue_in_which_all_match_alike_divides_by_no_zero() -> None:
    assert fit_of(torch.tensor([[0.3]]), match_range(torch.full((1, 9), 0.3))).isfinite().all()


def test_range_is_the_median_prefix_and_the_mean_of_the_best() -> None:
    match = torch.arange(21, dtype=torch.float32)[None]
    expected = [[10.0, sum(range(21 - BEST_PREFIXES, 21)) / BEST_PREFIXES]]
    assert match_range(match).tolist() == expected
    assert match_range(match[:, :1]).tolist() == [[0.0, 0.0]]


def test_requests_start_with_a_fit_taken_whole_and_half_the_match_it_replaced() -> None:
    """The start that did best on 2017-06-26; a merge once left the fit at a half, which nothing had measured."""
    config = ModelConfig(hidden_dim=16, num_layers=1, num_heads=2, item_dim=6, fusion_hidden=12)
    model = SigmaModel(config, ModelShape(8, 4, 0, 1, 5, lexical_dim=7, match_dim=8))
    state = torch.zeros(1, 16)
    assert model.fit_gain(state).tolist() == [[1.0, 1.0, 1.0]]
    assert model.focus_gain(state).tolist() == [[15.0, 10.0, 15.0, 1.0, 15.0]]


def test_what_a_user_bought_under_each_prefix_is_summed_over_its_items() -> None:
    """Two items under code 1 with decayed counts 2 and 1, one under code 0 with 3; what is padded counts nothing."""
    prefixes = torch.tensor([[[1, 4], [0, 2], [1, 3], [-1, -1]]])
    stats = torch.zeros(1, 4, NUM_STATS + NUM_ACTIVITY_STATS)
    stats[0, :, 2] = torch.tensor([2.0, 3.0, 1.0, 9.0]).log()
    nothing = torch.zeros(1, 4, 0)
    valid = torch.tensor([[True, True, True, False]])
    memory = Memory(nothing, nothing, nothing, stats, prefixes, torch.zeros(1, 4).long(), valid, valid)
    much, many = memory.bought_under(3)[0]
    torch.testing.assert_close(much, torch.tensor([3.0, 3.0, 0.0]).log1p())
    torch.testing.assert_close(many, torch.tensor([1.0, 2.0, 0.0]).log1p())
