"""Three-step generation: beams that exist, equality with exhaustive scoring, filters, batch = single."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sigma_core.generation import recommender
from sigma_core.generation.prefix_beam import AllowedPrefixes
from sigma_core.generation.recommender import Ask, Recommendation
from sigma_core.instruction.collate import Request
from tests.model_world import CODES, TinyWorld, tiny_user, tiny_world


def ask(text: str = "surprise me", focus: str = "", exclude: list[int] | None = None) -> Ask:
    return Ask(Request(text, focus), None if exclude is None else np.array(exclude))


def scores(world: TinyWorld, user_seed: int, request: Ask) -> dict[int, float]:
    ranked = world.recommender.rank([tiny_user("u", user_seed)], [[request]], world.focus, 1000)[0]
    return {r.row: r.score for r in ranked}


def told(lists: list[list[Recommendation]]) -> list[list[Recommendation]]:
    """Without what is less likely than the rounding of 1 - P(copied): float32 does not order it."""
    return [[r for r in ranked if r.score > 1e-6] for ranked in lists]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 4), st.integers(1, 6))
def test_a_beam_yields_only_prefixes_that_some_item_has(seed: int, depth: int, width: int) -> None:
    world = tiny_world(depth, seed=seed, num_prefixes=width)
    existing = {tuple(p) for p in world.table.tensors.prefixes_NP.tolist()}
    ranked = world.recommender.rank([tiny_user("u", seed)], [[ask()]], world.focus, 1000)[0]
    assert ranked
    assert {r.prefix for r in ranked} <= existing
    assert all(tuple(world.table.tensors.prefixes_NP[r.row].tolist()) == r.prefix for r in ranked)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_full_width_scores_every_item_and_sums_to_one(seed: int, depth: int) -> None:
    world = tiny_world(depth, seed=seed, num_prefixes=CODES**3)
    found = scores(world, seed, ask(focus="soda"))
    assert len(found) == len(world.table.tensors.vectors_NE)
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-4)


def greedy(probability: dict[tuple[int, ...], float], width: int) -> set[tuple[int, ...]]:
    """What a beam of this width keeps, from the probabilities of all prefixes: at each level the likeliest beginnings."""
    kept: set[tuple[int, ...]] = {()}
    for level in range(1, len(next(iter(probability))) + 1):
        mass: dict[tuple[int, ...], float] = {}
        for prefix, value in probability.items():
            if prefix[: level - 1] in kept:
                mass[prefix[:level]] = mass.get(prefix[:level], 0.0) + value
        kept = set(sorted(mass, key=mass.__getitem__)[-width:])
    return kept


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_a_narrow_beam_keeps_the_likeliest_beginnings_and_their_items_their_scores(depth: int) -> None:
    """Deeper than one level sigma may be of other top beams than the exhaustive search's: at one sharpness there."""
    settings = {"sharpness_range": 1e6 if depth == 1 else 1.0}
    user, asked = [tiny_user("u", 5)], [[ask()]]
    wide, small = (tiny_world(depth, num_prefixes=n, **settings) for n in (CODES**3, 3))
    full, narrow = (world.recommender.rank(user, asked, world.focus, 1000)[0] for world in (wide, small))
    assert 0 < len(narrow) < len(full)
    assert {r.prefix for r in narrow} == greedy({r.prefix: r.prefix_probability for r in full}, 3)
    score = {r.row: r.score for r in full}
    assert {r.row: r.score for r in narrow} == pytest.approx({r.row: score[r.row] for r in narrow}, rel=1e-3)
    kept = [r.row for r in full if r.row in {found.row for found in narrow}]
    assert [r.row for r in narrow] == kept


def test_excluded_items_never_return_and_their_prefix_dies_with_them() -> None:
    world = tiny_world(1, num_prefixes=5)
    first_group = (
        (world.table.tensors.prefixes_NP[:, 0] == world.table.tensors.prefixes_NP[0, 0])
        .nonzero()
        .flatten()
        .tolist()
    )
    ranked = world.recommender.rank([tiny_user("u", 1)], [[ask(exclude=first_group)]], world.focus, 1000)[0]
    assert not {r.row for r in ranked} & set(first_group)
    assert tuple(world.table.tensors.prefixes_NP[0].tolist()) not in {r.prefix for r in ranked}
    assert sum(r.score for r in ranked) == pytest.approx(1.0, abs=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.lists(st.integers(0, 22), max_size=15))
def test_a_filter_leaves_the_odds_of_what_it_leaves(seed: int, depth: int, out: list[int]) -> None:
    """Nobody inherits the probability of what may not be returned, neither in its prefix nor from the history: what is left is
    ordered as without the filter. At one sharpness: APF's sigma is that of the prefixes that may answer."""
    world = tiny_world(depth, seed=seed, num_prefixes=CODES**3, sharpness_range=1.0)
    free, confined = scores(world, seed, ask()), scores(world, seed, ask(exclude=sorted(set(out))))
    assert confined.keys() == free.keys() - set(out)
    whole = sum(confined.values()) / sum(free[row] for row in confined)
    assert confined == pytest.approx({row: whole * free[row] for row in confined}, rel=2e-3, abs=1e-7)


@pytest.mark.parametrize("depth", [1, 2])
def test_a_batch_answers_what_single_requests_answer(depth: int) -> None:
    world = tiny_world(depth, num_prefixes=4)
    users = [tiny_user("a", 1, 1, 1), tiny_user("b", 2, 3, 6), tiny_user("c", 3, 0, 0)]
    asks = [
        [ask("x y"), ask("soda please now", "soda")],
        [ask("tea", "tea", [0, 1])],
        [ask("q"), ask("r s"), ask("t")],
    ]
    together = world.recommender.rank(users, asks, world.focus, 9)
    alone = [
        world.recommender.rank([user], [[one]], world.focus, 9)[0]
        for user, mine in zip(users, asks, strict=True)
        for one in mine
    ]
    for batched, single in zip(told(together), told(alone), strict=True):
        assert [r.row for r in batched] == [r.row for r in single]
        assert [r.score for r in batched] == pytest.approx([r.score for r in single], rel=1e-4)


def test_items_per_prefix_changes_no_score() -> None:
    wide = scores(tiny_world(1, items_per_prefix=50), 3, ask())
    few = scores(tiny_world(1, items_per_prefix=2), 3, ask())
    assert len(few) < len(wide)
    assert all(score == pytest.approx(wide[row], rel=1e-6) for row, score in few.items())


@pytest.mark.parametrize("depth", [1, 2])
def test_the_catalogue_wide_score_multiplies_what_apf_says(depth: int) -> None:
    """Ratio of two items' fused scores: that of their APF scores times that of their catalogue-wide ones, to the weight; whatever
    M is, and only among what the filter leaves."""
    world = tiny_world(depth, num_prefixes=CODES**3, items_per_prefix=23)
    asked, user, out = ask(focus="soda", exclude=[2, 3]), [tiny_user("u", 4)], [2, 3]
    plain = scores(world, 4, asked)
    world.recommender.catalog_weight = 0.5
    fused = scores(world, 4, asked)
    found, _ = world.recommender.search(user, [[asked]], world.focus)
    beam = {tuple(p): k for k, p in enumerate(found.beams.prefix_RKP[0].tolist())}
    items = world.table.tensors
    logits = found.beams.query_RKE[0] @ items.vectors_NE.T / world.model.config.temperature
    of = {row: logits[beam[tuple(items.prefixes_NP[row].tolist())]] for row in plain}
    catalog = {row: (line[row] - line.logsumexp(dim=0)).exp().item() for row, line in of.items()}
    expected = {row: plain[row] * catalog[row] ** 0.5 for row in plain}
    whole = sum(plain.values()) / sum(expected.values())
    assert fused == pytest.approx({row: value * whole for row, value in expected.items()}, rel=1e-3, abs=1e-7)
    assert not set(out) & set(fused)
    few = tiny_world(depth, num_prefixes=CODES**3, items_per_prefix=1)
    few.recommender.catalog_weight = 0.5
    for row, score in scores(few, 4, asked).items():
        assert score == pytest.approx(fused[row], rel=1e-3, abs=1e-7)


def test_the_catalogue_wide_score_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    world = tiny_world(1, num_prefixes=5, items_per_prefix=4)
    world.recommender.catalog_weight = 0.5
    whole = scores(world, 4, ask(focus="soda"))
    monkeypatch.setattr("sigma_core.generation.recommender._BLOCK", 50)  # two rows of 23 items at a time
    assert scores(world, 4, ask(focus="soda")) == pytest.approx(whole, rel=1e-5)


def test_a_shown_list_holds_one_item_of_a_text_group() -> None:
    world = tiny_world(1, num_prefixes=5)
    shown = world.recommender.rank([tiny_user("u", 1)], [[ask()]], world.focus, 8, collapse=True)[0]
    groups = [r.row // 2 for r in shown]
    assert len(groups) == len(set(groups)) == 8


def test_a_collapsed_list_is_as_long_as_there_are_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many of the best items share one group: the candidates behind those that are read first count too."""
    world = tiny_world(1, num_prefixes=CODES**3, items_per_prefix=23)
    asked = [tiny_user("u", 1)], [[ask()]], world.focus, 8, True
    whole = world.recommender.rank(*asked)[0]
    monkeypatch.setattr(recommender, "SPARE", -31)  # one candidate at first
    assert world.recommender.rank(*asked)[0] == whole
    assert len(whole) == 8


def test_lists_are_ranked_and_probabilities_are_finite() -> None:
    world = tiny_world(2)
    ranked = world.recommender.rank([tiny_user("u", 9)], [[ask()]], world.focus, 10)[0]
    values = [r.score for r in ranked]
    assert values == sorted(values, reverse=True)
    assert all(math.isfinite(v) and 0 <= v <= 1 for v in values)


def test_the_states_of_a_leaf_are_those_of_the_training_pass() -> None:
    """L_InfoNCE reads the state at <q>: the query built by the beam's cached pass equals the one of a full pass."""
    world = tiny_world(2, num_prefixes=3)
    from sigma_core.model.heads import Slots
    from sigma_core.model.sigma import TensorBatch

    user = tiny_user("u", 4)
    eligible = torch.ones(1, len(world.table.tensors.vectors_NE), dtype=torch.bool)
    with torch.inference_mode():
        beams = world.recommender.beam([user], [[Request("x y", "soda")]], world.focus, eligible).beams
        leaves = tuple(tuple(p) for p in beams.prefix_RKP[0].tolist())
        tree = world.collator([user], [[Request("x y", "soda", leaves)]])
        batch = TensorBatch(tree, torch.tensor(world.focus["soda"])[None], torch.device("cpu"))
        states = world.model.read(batch, world.table.tensors.vectors_NE, world.recommender.lexical)
        memory = world.model.memory(
            batch,
            world.table.tensors,
            world.table.activity.item_UNS,
            torch.zeros(1, dtype=torch.long),
        )
        slots = Slots(torch.zeros(len(leaves), dtype=torch.long), 1)
        start = states[0, batch.request_start_R][batch.leaf_request_M]
        focus = world.model.focus(batch, batch.request_focus_RV[batch.leaf_request_M], slots, start)
        at_query = slots.pad(states[0, batch.leaf_positions_MP1[:, -1]])
        query = world.model.item_scores(at_query, memory, slots.pad(batch.leaf_prefix_MP), focus).query_BQE
    torch.testing.assert_close(query, beams.query_RKE, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_mass_of_one_is_the_fixed_number_of_prefixes(depth: int) -> None:
    fixed, mass = tiny_world(depth, num_prefixes=4), tiny_world(depth, num_prefixes=4, prefix_mass=1.0)
    assert scores(fixed, 3, ask(focus="soda")) == scores(mass, 3, ask(focus="soda"))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.05, 0.99), st.integers(1, 3))
def test_prefixes_by_mass_are_the_fewest_that_reach_it_and_keep_their_scores(
    seed: int, mass: float, depth: int
) -> None:
    full = tiny_world(depth, seed=seed, num_prefixes=8)
    some = tiny_world(depth, seed=seed, num_prefixes=8, prefix_mass=mass)
    user, asked = tiny_user("u", seed), [[ask()]]
    all_found = full.recommender.rank([user], asked, full.focus, 1000)[0]
    found = some.recommender.rank([user], asked, some.focus, 1000)[0]
    beams = {r.prefix: r.prefix_probability for r in all_found}
    kept = {r.prefix: r.prefix_probability for r in found}
    assert sum(kept.values()) >= min(mass, sum(beams.values())) - 1e-5
    assert sum(kept.values()) - min(kept.values()) < mass + 1e-5  # without the last one it was not reached
    assert min(kept.values()) >= max((p for code, p in beams.items() if code not in kept), default=0.0) - 1e-6
    every = {r.row: r.score for r in all_found}
    assert {r.row: pytest.approx(every[r.row], rel=1e-5) for r in found} == {r.row: r.score for r in found}


@pytest.mark.parametrize("depth", [2, 4])
def test_masks_fail_closed(depth: int) -> None:
    """A code below a prefix that nobody has is open nowhere; a request without an eligible item gets an empty list."""
    world = tiny_world(depth, num_prefixes=6)
    rows = world.recommender.ranges.rows_QP
    nothing = AllowedPrefixes(rows, torch.zeros(1, len(rows), dtype=torch.bool))
    assert not nothing.codes(0, torch.zeros(1, 1, 0, dtype=torch.long), CODES).any()
    everything = AllowedPrefixes(rows, torch.ones(1, len(rows), dtype=torch.bool))
    taken = {tuple(row) for row in rows[:, :1].tolist()}
    open_codes = everything.codes(0, torch.zeros(1, 1, 0, dtype=torch.long), CODES)[0, 0]
    assert {(code,) for code in open_codes.nonzero().flatten().tolist()} == taken
    absent = torch.full((1, 1, depth - 1), CODES + 3)
    assert not everything.codes(depth - 1, absent, CODES).any()
    every = list(range(len(world.table.tensors.vectors_NE)))
    assert world.recommender.rank([tiny_user("u", 1)], [[ask(exclude=every)]], world.focus, 10) == [[]]
