"""The decoder's own forward pass answers what the transformers model answers; slices and gathered rows find the same."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.generation import recommender, subset_search
from sigma_core.generation.fusion import Copies, in_prefix_log_probs, top_in_prefix, top_of_rows
from sigma_core.generation.recommender import Ask
from sigma_core.generation.subset_search import PrefixRanges, search_groups
from sigma_core.instruction.collate import Request
from sigma_core.model import decoder
from tests.model_world import tiny_user, tiny_world

ASKS = {
    "one request each": [["x y"], ["soda please"], ["tea"]],
    "several, unevenly": [["x y", "soda please now"], ["tea"], ["q", "r s", "t"]],
}


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("kind", ASKS)
@pytest.mark.parametrize("tokens", [1, 2048])  # a row at a time, all rows at once
def test_the_fast_pass_finds_the_beams_of_the_transformers_model(
    monkeypatch: pytest.MonkeyPatch, depth: int, kind: str, tokens: int
) -> None:
    monkeypatch.setattr(decoder, "TOKENS_AT_A_TIME", tokens)
    world = tiny_world(depth, num_prefixes=4)
    users = [tiny_user("a", 1, 1, 1), tiny_user("b", 2, 3, 6), tiny_user("c", 3, 0, 0)]
    requests = [[Request(text, "soda" if "soda" in text else "") for text in mine] for mine in ASKS[kind]]
    eligible = torch.ones(sum(map(len, requests)), 23, dtype=torch.bool)
    eligible[0, :9] = False
    with torch.inference_mode():
        fast = world.recommender.beam(users, requests, world.focus, eligible).beams
        monkeypatch.setattr(recommender, "is_known", lambda backbone: False)
        slow = world.recommender.beam(users, requests, world.focus, eligible).beams
    likely = slow.log_prob_RK > -10
    assert likely.any()
    assert torch.equal(fast.prefix_RKP[likely], slow.prefix_RKP[likely])
    torch.testing.assert_close(fast.log_prob_RK[likely], slow.log_prob_RK[likely], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(fast.query_RKE[likely], slow.query_RKE[likely], atol=1e-3, rtol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9))
def test_slices_and_gathered_rows_give_the_same_cosines(seed: int, groups: int) -> None:
    rng = np.random.default_rng(seed)
    prefixes = torch.as_tensor(np.sort(rng.integers(0, groups, 40))[:, None])
    ranges = PrefixRanges.of_sorted(prefixes)
    items, query = torch.randn(40, 6), torch.randn(15, 6)
    group = torch.as_tensor(rng.integers(-1, len(ranges.length_Q), 15))
    found = search_groups(query, group, items, ranges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subset_search, "SMALL_SEARCH", 0)
        sliced = search_groups(query, group, items, ranges)
    assert torch.equal(found.start_X, sliced.start_X)
    torch.testing.assert_close(found.cosine_XG, sliced.cosine_XG)
    everything, width = query @ items.T, found.cosine_XG.shape[1]
    rows = found.rows(torch.arange(width), 40)
    length = torch.where(group >= 0, ranges.length_Q[group.clamp_min(0)], 0)
    expected = everything.gather(1, rows).masked_fill(torch.arange(width) >= length[:, None], -torch.inf)
    torch.testing.assert_close(found.cosine_XG, expected, atol=1e-5, rtol=1e-5)


def test_without_a_filter_nothing_is_kept_per_item() -> None:
    world = tiny_world(1)
    for asks in ([Ask(Request("x"))], [Ask(Request("x")), Ask(Request("y"))]):
        free = world.recommender._eligible(asks)
        assert free.shape == (len(asks), 23)
        assert free.untyped_storage().nbytes() == 1
        assert recommender._is_one_value(free)
    filtered = world.recommender._eligible([Ask(Request("x"), np.array([3]))])
    assert not recommender._is_one_value(filtered)
    some = world.recommender._eligible([Ask(Request("x"), np.array([3])), Ask(Request("y"))])
    assert some.sum().item() == 45
    assert not some[0, 3]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8), st.integers(1, 10))
def test_the_top_of_a_prefix_is_that_of_the_whole_distribution(seed: int, width: int, kept: int) -> None:
    """Mixing only the copied items and normalising only what is kept is the full formula, then topk."""
    rng = np.random.default_rng(seed)
    cosine = torch.as_tensor(rng.normal(size=(5, width)))
    valid = torch.as_tensor(np.arange(width) < rng.integers(0, width + 1, 5)[:, None])
    copied = (
        torch.as_tensor(rng.dirichlet(np.ones(width + 1), 5)[:, :width] * (rng.random((5, width)) < 0.4))
        * valid
    )
    whole = in_prefix_log_probs(cosine, valid, torch.full((5,), 3.0), copied_XG=copied)
    row, slot = copied.nonzero(as_tuple=True)
    logits = (cosine * 3.0).masked_fill(~valid, -torch.inf)
    value, place = top_in_prefix(logits, Copies(row, slot, copied[row, slot], 1 - copied.sum(dim=1)), kept)
    expected = whole.topk(min(kept, width), dim=1).values
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(whole.gather(1, place), expected, atol=1e-6, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 150), st.integers(1, 4))
def test_the_largest_of_long_rows_are_found_among_few_blocks(seed: int, width: int, kept: int) -> None:
    rng = np.random.default_rng(seed)
    values = torch.as_tensor(rng.permuted(np.tile(np.arange(width, dtype=float), (3, 1)), axis=1))
    values[2, rng.integers(0, width) :] = -torch.inf
    best, slot = top_of_rows(values, kept)
    assert torch.equal(best, values.topk(min(kept, width), dim=1).values)
    assert torch.equal(values.gather(1, slot), best)


def test_prefix_tokens_are_made_again_when_a_weight_changes() -> None:
    tokens = tiny_world(1).model.prefix_tokens
    with torch.no_grad():
        first = tokens()
        assert tokens() is first
        tokens.free.add_(1.0)
        torch.testing.assert_close(tokens(), first + 1.0)
    assert tokens().requires_grad
