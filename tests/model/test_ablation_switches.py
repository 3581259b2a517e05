"""Every switch of the ablation takes out what it names and leaves probabilities that sum to one."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.generation.recommender import Ask, ItemTable, Searched
from sigma_core.generation.subset_search import prefix_bounds
from sigma_core.instruction.collate import Request
from sigma_core.model.fusion import ItemStreams, ProjectAndFuse
from sigma_core.model.sigma import item_keys
from sigma_core.training.adapters import _array
from tests.model_world import TinyWorld, tiny_user, tiny_world

SWITCHES = ("pointer", "words", "prior", "affinity", "item_vectors")


def without(*names: str, depth: int = 1, **changed: object) -> TinyWorld:
    world = tiny_world(depth, num_prefixes=125)
    world.model.config = world.model.config.model_copy(update=dict.fromkeys(names, False) | changed)
    return world


def searched(world: TinyWorld, focus: str = "soda") -> Searched:
    asks = [[Ask(Request("x y", focus))]]
    return world.recommender.search([tiny_user("u", 3)], asks, world.focus)[0]


def scores(world: TinyWorld, focus: str = "soda") -> dict[int, float]:
    ranked = world.recommender.rank([tiny_user("u", 3)], [[Ask(Request("x y", focus))]], world.focus, 999)[0]
    return {r.row: r.score for r in ranked}


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("names", [*((s,) for s in SWITCHES), SWITCHES])
def test_what_is_left_is_a_distribution_over_all_items_and_another_one(
    names: tuple[str, ...], depth: int
) -> None:
    found = scores(without(*names, depth=depth))
    assert len(found) == 23
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-4)
    assert found != scores(without(depth=depth))


def test_without_pointer_nothing_is_copied() -> None:
    assert searched(without()).beams.share_RKJ.sum() > 0
    assert searched(without("pointer")).beams.share_RKJ.sum() == 0


def test_without_words_no_item_is_compared_with_the_request() -> None:
    found = searched(without("words"))
    assert found.focus is None
    assert found.beams.focus_RK.sum() == 0


def test_without_prior_what_is_bought_changes_nothing_but_the_pointer() -> None:
    def ranked(popular: float, *names: str) -> dict[int, float]:
        world = without(*names)
        table = world.table
        more = table.activity._replace(
            item_UNS=table.activity.item_UNS + popular, prefix_UKS=table.activity.prefix_UKS * popular
        )
        world.recommender.items = dataclasses.replace(table, activity=more)
        return scores(world)

    assert ranked(1.0, "prior", "pointer") == ranked(5.0, "prior", "pointer")
    assert ranked(1.0, "pointer") != ranked(5.0, "pointer")


def test_without_item_vectors_they_are_not_read() -> None:
    def ranked(shift: float, *names: str) -> dict[int, float]:
        world = without(*names)
        tensors = world.table.tensors
        moved = tensors._replace(vectors_NE=tensors.vectors_NE.roll(int(shift), 0))
        world.recommender.items = ItemTable(moved, world.table.activity)
        return scores(world)

    assert ranked(0, "item_vectors") == ranked(7, "item_vectors")
    assert ranked(0) != ranked(7)


# -------------------------------------------------------------------------------------- free parts
def streams(names: list[str]) -> ItemStreams:
    none = torch.zeros(len(names), dtype=torch.bool)
    size = len(names)
    text = torch.ones(size, 6)
    return ItemStreams(text, torch.zeros(size, 4), none, torch.zeros(size, 0), none, item_keys(names))


def fusion() -> ProjectAndFuse:
    torch.manual_seed(0)
    made = ProjectAndFuse(6, 4, 0, hidden=8, item_dim=3, drop=0.5, num_free=2).eval()
    made.set_free_items(item_keys(["tea", "soda"]))
    return made


def test_a_free_part_belongs_to_its_item_and_a_new_item_has_none() -> None:
    made = fusion()
    before = made(streams(["soda", "new"]))
    torch.testing.assert_close(before[0], before[1])
    with torch.no_grad():
        assert made.free is not None
        made.free.copy_(torch.tensor([[3.0, 0, 0], [0, 3.0, 0]]))
    tea, soda, new = made(streams(["tea", "soda", "new"]))
    torch.testing.assert_close(new, before[1])
    assert (tea - soda).abs().max() > 0.1
    torch.testing.assert_close(made(streams(["tea", "soda"])._replace(key_N=None))[0], before[1])


def test_free_parts_may_be_hidden_in_training_like_any_stream() -> None:
    made = fusion().train()
    with torch.no_grad():
        assert made.free is not None
        made.free.fill_(5.0)
    rows = made(streams(["tea"] * 200))
    assert 1 < len(torch.unique(rows.detach().round(decimals=3), dim=0)) <= 2


def test_keys_survive_an_artifact_bit_by_bit() -> None:
    keys = item_keys([f"item {n}" for n in range(50)])
    assert (torch.from_numpy(_array(keys)) == keys).all()
    assert len(torch.unique(keys)) == 50


def test_as_many_items_as_free_parts_are_needed() -> None:
    with pytest.raises(ValueError, match="3 items arrived for 2 free parts"):
        fusion().set_free_items(item_keys(["a", "b", "c"]))


# ------------------------------------------------------------------------------------ prefix search
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 4), st.integers(1, 12))
def test_bounds_of_a_prefix_are_those_of_a_search_one_by_one(seed: int, depth: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    table = np.unique(rng.integers(0, 4, (rows, 4)), axis=0)[:, :depth]
    wanted = rng.integers(0, 5, (3, 2, depth))
    start, end = prefix_bounds(torch.from_numpy(table), torch.from_numpy(wanted))
    for i, j in np.ndindex(3, 2):
        same = np.flatnonzero((table == wanted[i, j]).all(axis=1))
        assert list(range(int(start[i, j]), int(end[i, j]))) == same.tolist()
