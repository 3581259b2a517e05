"""An explanation is the list taken apart: its products are the scores, its parts sum to what was searched."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sigma_core.generation.explain import explain, nearest_history, with_settings
from sigma_core.generation.recommender import Ask
from sigma_core.instruction.collate import Request
from tests.model_world import tiny_user, tiny_world


def test_the_parts_multiply_to_the_scores_of_the_list() -> None:
    world = tiny_world(2, num_prefixes=4)
    user, request = tiny_user("u", 3), Request("x y", "soda")
    eligible = torch.ones(1, len(world.table.tensors.vectors_NE), dtype=torch.bool)
    eligible[0, :3] = False
    with torch.inference_mode():
        found = world.recommender.beam([user], [[request]], world.focus, eligible)
        (why,) = explain(world.recommender, found, eligible)
    ranked = world.recommender.rank([user], [[Ask(request, np.arange(3))]], world.focus, 1000)[0]
    scores = {row: score for part in why.parts for row, _, score in part.items}
    assert scores == {r.row: pytest.approx(r.score) for r in ranked}
    for part in why.parts:
        assert sum(inside for _, inside, _ in part.items) == pytest.approx(1.0, abs=1e-4)
        assert all(score == pytest.approx(part.probability * inside) for _, inside, score in part.items)
    assert [part.probability for part in why.parts] == sorted(
        (p.probability for p in why.parts), reverse=True
    )
    assert why.sigma > 0
    assert why.sharpness > 0


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_shares_of_a_whole_prefix_sum_to_one_whatever_the_catalog_says_of_its_items(weight: float) -> None:
    world = tiny_world(2, num_prefixes=4, items_per_prefix=23)
    world.recommender.catalog_weight = weight
    eligible = torch.ones(1, len(world.table.tensors.vectors_NE), dtype=torch.bool)
    with torch.inference_mode():
        found = world.recommender.beam([tiny_user("u", 3)], [[Request("x y", "soda")]], world.focus, eligible)
        (why,) = explain(world.recommender, found, eligible)
    assert [sum(share for _, share, _ in part.items) for part in why.parts] == pytest.approx(
        [1.0] * 4, abs=1e-4
    )
    rows = [(part.probability * share, score) for part in why.parts for _, share, score in part.items]
    assert sum(score for _, score in rows) == pytest.approx(sum(product for product, _ in rows), rel=1e-4)
    is_product = all(score == pytest.approx(product, rel=1e-4) for product, score in rows)
    assert is_product == (weight == 0.0)


def test_settings_change_a_copy_only() -> None:
    world = tiny_world(1, num_prefixes=4)
    own = world.recommender
    flat = with_settings(own, 2, 1, temperature=5.0)
    assert (own.config.num_prefixes, own.apf_temperature) == (4, 0.02)
    assert (flat.config.num_prefixes, flat.config.items_per_prefix) == (2, 1)
    ask = [[Ask(Request("x y"))]]
    assert len(flat.rank([tiny_user("u", 3)], ask, {}, 1000)[0]) == 2
    assert flat.items is own.items


def test_a_higher_temperature_flattens_the_distribution_inside_a_prefix() -> None:
    world = tiny_world(1, num_prefixes=2)
    eligible = torch.ones(1, len(world.table.tensors.vectors_NE), dtype=torch.bool)

    def largest(temperature: float) -> float:
        other = with_settings(world.recommender, temperature=temperature)
        with torch.inference_mode():
            found = other.beam([tiny_user("u", 3)], [[Request("x y")]], world.focus, eligible)
            (why,) = explain(other, found, eligible)
        return why.parts[0].items[0][1]

    assert largest(10.0) < largest(1.0) < largest(0.2)


def test_the_nearest_of_the_history_is_another_item() -> None:
    """v~ of rows 0 and 1 are 60 degrees apart, row 2 is opposite to row 0: cosines .5 and -1."""
    vectors = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5], [-1.0, 0.0]])
    world = SimpleNamespace(items=SimpleNamespace(tensors=SimpleNamespace(vectors_NE=vectors)))
    found = nearest_history(world, [0, 1, 2], [0, 1, 1])
    assert {row: near for row, (near, _) in found.items()} == {0: 1, 1: 0, 2: 1}
    assert found[0][1] == pytest.approx(0.5)
    assert nearest_history(world, [0], [0]) == nearest_history(world, [0], []) == {}
