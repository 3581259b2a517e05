"""The three steps at full width against scoring every item one by one: one uncached pass, float64 sums, no search, no beam."""

import numpy as np
import pytest
import torch

from sigma_core.generation.recommender import Ask
from sigma_core.instruction.collate import Request
from sigma_core.model.heads import Slots
from sigma_core.model.sigma import TensorBatch
from tests.model_world import TEXT_DIM, TinyWorld, tiny_user, tiny_world


def exhaustive(world: TinyWorld, excluded: set[int], about: str = "") -> dict[int, float]:
    """P(v | T) of every eligible item, for a user without history and a request that is about something, or nothing."""
    model, items, activity = world.model, world.table.tensors, world.table.activity
    settings, depth = world.recommender.config, world.model.shape.prefix_length
    eligible = [row for row in range(len(items.vectors_NE)) if row not in excluded]
    prefix_of = {row: tuple(prefix) for row, prefix in enumerate(items.prefixes_NP.tolist())}
    existing = set(prefix_of.values())
    leaves = tuple(sorted({prefix_of[row] for row in eligible}))
    tree = world.collator([tiny_user("u", 3, 0, 0)], [[Request("x y", about, leaves)]])
    told = np.array([world.focus[text] for text in tree.focus_texts], dtype=np.float32).reshape(-1, TEXT_DIM)
    batch = TensorBatch(tree, torch.from_numpy(told), torch.device("cpu"))
    states = model.read(batch, items.vectors_NE, world.recommender.lexical)[0]
    memory = model.memory(batch, items, activity.item_UNS, torch.zeros(1, dtype=torch.long))
    start = states[batch.request_start_R[0]][None]
    focus = model.focus(batch, batch.request_focus_RV, Slots(torch.zeros(1, dtype=torch.long), 1), start)
    log_prob = np.zeros(len(leaves))
    for number, prefix in enumerate(leaves):
        for level in range(depth):
            at = batch.request_start_R[0] if level == 0 else batch.leaf_positions_MP1[number, level - 1]
            so_far = torch.tensor(prefix[:level], dtype=torch.long)[None, None]
            scores = model.prefix_scores(
                states[at][None, None], memory, level, so_far, focus, activity.prefix_UKS[:1]
            )
            row = scores.log_prob_BQK[0, 0].double().numpy()
            among = existing if level else leaves  # first codes without an eligible item are left out
            open_codes = {other[level] for other in among if other[:level] == prefix[:level]}
            log_prob[number] += row[prefix[level]] - np.log(np.exp(row[list(open_codes)]).sum())
    best = np.sort(np.exp(log_prob))[::-1][: settings.sigma_top]
    sigma = max(np.pad(best, (0, settings.sigma_top - len(best))).std(), settings.sigma_floor)
    typical, bound = world.recommender.typical_sigma, settings.sharpness_range
    sharpness = np.clip(sigma / typical, 1 / bound, bound) * typical / world.recommender.apf_temperature
    out = {}
    for number, prefix in enumerate(leaves):
        at = batch.leaf_positions_MP1[number, -1]
        ranking = model.item_scores(states[at][None, None], memory, torch.tensor(prefix)[None, None], focus)
        mine = [row for row in prefix_of if prefix_of[row] == prefix]
        cosine = (items.vectors_NE[mine] @ ranking.query_BQE[0, 0]).double().numpy()
        prior = (activity.item_UNS[0, mine] @ ranking.activity_BQS[0, 0]).double().numpy()
        words = np.zeros(len(mine))
        if focus is not None:
            match = focus.match(items.text_NT[mine])
            words = (
                (ranking.focus_BQ[..., None] * match + ranking.fit_BQ[..., None] * focus.fit(match))
                .double()
                .numpy()[0, 0]
            )
        logits = cosine * sharpness + prior + words
        weight = np.exp(logits - logits.max())  # words that nothing fits leave nothing above zero
        out |= dict(zip(mine, np.exp(log_prob[number]) * weight / weight.sum(), strict=True))
    return {row: out[row] for row in eligible}


@pytest.mark.parametrize("about", ["", "soda"])
@pytest.mark.parametrize(("depth", "seed"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_full_width_and_full_subsets_are_exhaustive_scoring(depth: int, seed: int, about: str) -> None:
    world = tiny_world(depth, seed=seed, num_prefixes=23, items_per_prefix=23)
    excluded = {1, 5, 22}
    asked = [[Ask(Request("x y", about), np.array(sorted(excluded)))]]
    ranked = world.recommender.rank([tiny_user("u", 3, 0, 0)], asked, world.focus, 1000)[0]
    with torch.inference_mode():
        expected = exhaustive(world, excluded, about)
    assert {r.row: r.score for r in ranked} == pytest.approx(expected, rel=2e-3)
    assert sum(expected.values()) < 1.0  # what the filter took is nobody's
    assert expected[ranked[0].row] == pytest.approx(max(expected.values()), rel=2e-3)
