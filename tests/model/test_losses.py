"""Losses against closed forms and a float64 reference."""

import math

import numpy as np
import pytest
import torch

from sigma_core.model.losses import (
    Copied,
    PrefixGroups,
    catalog_nll,
    each_group_products,
    group_products,
    in_prefix_info_nce,
    prefix_nll,
    sampled_catalog_nll,
)


def test_groups_list_every_item_once() -> None:
    groups = PrefixGroups.build(torch.tensor([1, 0, 1, 2, 1]))
    assert groups.members_CG[1][groups.valid_CG[1]].tolist() == [0, 2, 4]
    assert groups.valid_CG.sum() == 5
    assert groups.members_CG[groups.group_of_N, groups.slot_of_N].tolist() == [0, 1, 2, 3, 4]


def test_uniform_prefixes_cost_the_log_of_their_number() -> None:
    log_probs = torch.full((2, 4), math.log(0.25))
    loss = prefix_nll(
        log_probs, torch.tensor([0, 1, 1]), torch.tensor([0, 3, 2]), torch.tensor([1.0, 2.0, 5.0])
    )
    assert loss.item() == pytest.approx(math.log(4))


def test_equal_items_cost_the_log_of_the_group_not_of_the_catalogue() -> None:
    items = torch.nn.functional.normalize(torch.ones(5, 3), dim=-1)
    groups = PrefixGroups.build(torch.tensor([0, 0, 0, 1, 1]))
    query = items[:1]
    args = (torch.tensor([0]), torch.tensor([1]))
    logits = group_products(query * 10, torch.tensor([0]), items, groups)
    inside = in_prefix_info_nce(logits, torch.tensor([0]), groups, *args)
    assert inside.item() == pytest.approx(math.log(3), abs=1e-5)
    assert catalog_nll(query, items, *args, tau=0.1).item() == pytest.approx(math.log(5), abs=1e-5)


def test_several_queries_of_a_leaf_keep_one_copy_of_its_items() -> None:
    """Products as one by one; the backward pass holds the gathered items once, not once a query."""
    groups, items = PrefixGroups.build(torch.tensor([0, 1, 0])), torch.eye(3)
    leaves, held = torch.tensor([1, 0]), set()

    def seen(tensor: torch.Tensor) -> torch.Tensor:
        held.add((tensor.data_ptr(), tensor.numel()))
        return tensor

    queries = [torch.full((2, 3), float(n), requires_grad=True) * torch.arange(1.0, 4.0) for n in (1, 2, 3)]
    with torch.autograd.graph.saved_tensors_hooks(seen, lambda tensor: tensor):
        found = list(each_group_products(queries, leaves, items, groups))
    assert len([size for _, size in held if size == 2 * 2 * 3]) == 1
    for n, product in zip((1, 2, 3), found, strict=True):
        torch.testing.assert_close(product[1], torch.tensor([1.0, 3.0]) * n)
        assert product[0, 0] == 2 * n


def test_a_sampled_catalogue_has_the_sum_of_the_whole_one_on_average() -> None:
    """Each item drawn as often as its chance says: exactly the whole sum; the target among the draws counts once, as itself."""
    generator = torch.Generator().manual_seed(2)
    items = torch.nn.functional.normalize(torch.randn(4, 3, generator=generator, dtype=torch.float64), dim=-1)
    query = torch.nn.functional.normalize(torch.randn(2, 3, generator=generator, dtype=torch.float64), dim=-1)
    chance = torch.tensor([0.5, 0.25, 0.125, 0.125], dtype=torch.float64)
    drawn = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])
    targets = torch.tensor([0, 1]), torch.tensor([2, 0])
    exact = catalog_nll(query, items, *targets, 0.2)
    assert sampled_catalog_nll(query, items, *targets, 0.2, drawn, chance).item() == pytest.approx(
        exact.item()
    )


def test_in_prefix_info_nce_equals_the_float64_reference() -> None:
    rng = np.random.default_rng(3)
    unit = rng.normal(size=(12, 4))
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    group = np.array([0, 1, 2, 0, 1, 0, 2, 2, 0, 1, 1, 0])
    query = rng.normal(size=(5, 4))
    query /= np.linalg.norm(query, axis=1, keepdims=True)
    leaf_group = np.array([2, 0, 0, 1, 2])
    leaf, item = np.array([0, 1, 1, 2, 3, 4]), np.array([6, 0, 8, 11, 4, 2])
    expected = []
    for one, target in zip(leaf, item, strict=True):
        members = np.flatnonzero(group == leaf_group[one])
        logits = unit[members] @ query[one] / 0.07
        expected.append(np.log(np.exp(logits).sum()) - logits[members.tolist().index(target)])
    groups, leaf_groups = PrefixGroups.build(torch.tensor(group)), torch.tensor(leaf_group)
    logits = group_products(torch.tensor(query) / 0.07, leaf_groups, torch.tensor(unit), groups)
    got = in_prefix_info_nce(logits, leaf_groups, groups, torch.tensor(leaf), torch.tensor(item))
    assert got.item() == pytest.approx(np.mean(expected), rel=1e-9)


def test_a_prior_counts_within_the_group_only() -> None:
    """Two equal items of one group, prior log 3 for the first: it is three times as likely."""
    groups = PrefixGroups.build(torch.tensor([0, 0, 1]))
    logits = torch.tensor([[math.log(3.0), 0.0]])
    loss = in_prefix_info_nce(logits, torch.tensor([0]), groups, torch.tensor([0]), torch.tensor([0]))
    assert loss.item() == pytest.approx(-math.log(3 / 4), abs=1e-6)


def test_what_a_pointer_explains_is_mixed_with_the_softmax() -> None:
    """A pointer holds .6 of P(c), all of it on item 1 of 4 equal ones: P = .4 / 4 + .6 there, .4 / 4 elsewhere."""
    groups = PrefixGroups.build(torch.tensor([0, 0, 0, 0]))
    for item, share, expected in ((1, 0.6, 0.7), (2, 0.0, 0.1)):
        copied = Copied(torch.tensor([0.4]), torch.tensor([share]))
        loss = in_prefix_info_nce(
            torch.zeros(1, 4), torch.tensor([0]), groups, torch.tensor([0]), torch.tensor([item]), copied
        )
        assert loss.item() == pytest.approx(-math.log(expected), abs=1e-5)
