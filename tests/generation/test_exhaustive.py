"""The three steps at full width against scoring every item one by one, from the formulas: one uncached pass, then float64 sums of
the layers' outputs; no search, no beam, and none of the heads' own functions.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from sigma_core.generation.recommender import Ask
from sigma_core.instruction.collate import Request, UserContext
from sigma_core.model.heads import Focus, Pointer, Slots, fit_of
from sigma_core.model.sigma import TensorBatch
from tests.model_world import CODES, TEXT_DIM, TinyWorld, tiny_user, tiny_world

Prefix = tuple[int, ...]


def told_apart(world: TinyWorld, seed: int) -> TinyWorld:
    """The world with gains that states move, prefixes that words tell apart (at the start neither is), and words so soft that
    more than one item answers them."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in world.model.named_parameters():
            if name.endswith(("gain.weight", "activity.weight", "gate.weight", "linear.weight")):
                parameter.normal_(std=0.05)
        world.model.prefix_match.normal_(std=0.5)
        world.model.fit_gain.gain.fill_(0.2)
    world.focus = {text: vector / 10 for text, vector in world.focus.items()}
    return world


class OneRequest:
    """P(v | T) of every eligible item for one user and one request, by the formulas."""

    def __init__(self, world: TinyWorld, user: UserContext, request: Request, excluded: set[int]) -> None:
        self.world, self.items = world, world.table.tensors
        self.model = copy.deepcopy(world.model).double()
        self.codes = [tuple(codes) for codes in self.items.prefixes_NP.tolist()]
        self.eligible = [row for row in range(len(self.codes)) if row not in excluded]
        self.leaves: tuple[Prefix, ...] = tuple(sorted({self.codes[row] for row in self.eligible}))
        tree = world.collator([user], [[Request(request.instruction, request.focus, self.leaves)]])
        about = [world.focus[text] for text in tree.focus_texts]
        words = torch.from_numpy(np.array(about, dtype=np.float32).reshape(-1, TEXT_DIM))
        self.batch = batch = TensorBatch(tree, words, torch.device("cpu"))
        read = world.model.read(batch, self.items.vectors_NE, world.recommender.lexical)[0]
        self.start = read[batch.request_start_R[0]].double()
        self.after = read[batch.leaf_positions_MP1].double()  # (leaves, P + 1): after each code, and at <q>
        one = Slots(torch.zeros(1, dtype=torch.long), 1)
        self.focus: Focus | None = world.model.focus(
            batch, batch.request_focus_RV, one, self.start[None].float()
        )
        self.words = words[0] if self.focus is not None else None
        # the history
        rows, roles, stats = user.history()
        self.rows = rows.tolist()
        model, own = self.model, torch.from_numpy(stats).double()
        self.vectors = self.items.vectors_NE[rows].double()
        self.hidden = model.item_project(self.vectors) + model.roles[roles] + model.stats_project(own)
        self.stats = torch.cat((own, world.table.activity.item_UNS[0, rows].double()), dim=1)

    def match(self, texts: Tensor) -> tuple[Tensor, Tensor]:
        """Match of texts with the words, and whether they fit."""
        assert self.focus is not None
        assert self.words is not None
        found = texts @ self.words
        return found.double(), fit_of(found, self.focus.range_BQ2[0, 0]).double()

    def pointer(self, part: Pointer, state: Tensor) -> Tensor:
        content = part.key(self.hidden) @ part.query(state) / len(state) ** 0.5
        return content + part.features(self.stats) @ part.weights(state) + self.stats @ part.linear(state)

    def level(self, level: int, prefix: Prefix, state: Tensor) -> tuple[Tensor, Tensor]:
        """P(code) that is generated (K,), and what is copied of each item of the history (J,), after `prefix[:level]`."""
        model = self.model
        logits = model.prefix_tokens()[level] @ model.prefix_head(state)
        logits = logits * model.prefix_gain(state) / len(state) ** 0.5 + model.prefix_bias[level]
        pointed, gate = self.pointer(model.pointer, state), model.copy_gate(state)
        if self.focus is not None:
            gain, fit = model.focus_gain(state), model.fit_gain(state)
            mine, fits = self.match(self.items.text_NT[self.rows])
            pointed = pointed + gain[2] * mine + fit[2] * fits
            if level == 0:
                match, fits = self.match(self.world.model.prefix_match)
                logits = logits + gain[0] * match + fit[0] * fits
                gate = gate + gain[4] * (mine.max() - match.max() if self.rows else 0.0)
        if level == 0:
            sold = self.world.table.activity.prefix_UKS[0].double()
            logits = logits + sold @ model.prefix_activity(state)
            first = [self.codes[row][0] for row in self.rows]
            for code in range(CODES):
                here = [j for j, other in enumerate(first) if other == code]
                bought = torch.stack((self.stats[here, 2].exp().sum(), torch.tensor(float(len(here)))))
                logits[code] += model.affinity_gain(state) @ bought.log1p()
        goes_on = torch.tensor(
            [self.codes[row][:level] == prefix[:level] for row in self.rows], dtype=torch.bool
        )
        if not goes_on.any():
            return logits.softmax(dim=0), torch.zeros(len(self.rows)).double()
        weights = pointed.masked_fill(~goes_on, -torch.inf).softmax(dim=0)
        return (1 - gate.sigmoid()) * logits.softmax(dim=0), gate.sigmoid() * weights

    def copied_under(self, copied: Tensor, level: int) -> Tensor:
        """What is copied of each code (K,)."""
        at = torch.tensor([self.codes[row][level] for row in self.rows], dtype=torch.long)
        return torch.zeros(CODES).double().index_add_(0, at, copied)

    def inside(self, number: int, members: list[int], sharpness: float) -> Tensor:
        """P(v | c) of all members of a prefix, as if none were copied."""
        model, state = self.model, self.after[number, -1]
        query, gain = model.item_head(state), model.neighbor_gain(state)
        if self.rows:
            same = torch.tensor([self.codes[row] == self.leaves[number] for row in self.rows])
            query = query + gain[0] * (
                (self.pointer(model.neighbor, state) + gain[1] * same).softmax(dim=0) @ self.vectors
            )
        words = torch.zeros(1).double()
        if self.focus is not None:
            strength, fit = model.focus_gain(state), model.fit_gain(state)
            query = query + strength[3] * self.focus.item_BQE[0, 0]
            match, fits = self.match(self.items.text_NT[members])
            words = strength[1] * match + fit[1] * fits
        cosine = self.items.vectors_NE[members].double() @ query / query.norm()
        sold = self.world.table.activity.item_UNS[0, members].double()
        return (cosine * sharpness + sold @ model.item_activity(state) + words).softmax(dim=0)

    def answer(self) -> dict[int, float]:
        settings, recommender = self.world.recommender.config, self.world.recommender
        depth, existing = self.model.shape.prefix_length, set(self.codes)
        may = torch.tensor([row in self.eligible for row in self.rows], dtype=torch.bool)
        generated, copied = {}, {}
        for number, prefix in enumerate(self.leaves):
            before = torch.ones(()).double()
            for level in range(depth):
                state = self.start if level == 0 else self.after[number, level - 1]
                made, taken = self.level(level, prefix, state)
                whole = made + self.copied_under(taken, level)
                among = (
                    existing if level else self.leaves
                )  # first codes without an eligible item are left out
                norm = whole[list({other[level] for other in among if other[:level] == prefix[:level]})].sum()
                if level < depth - 1:
                    before = before * whole[prefix[level]] / norm
            here = torch.tensor([self.codes[row] == prefix for row in self.rows], dtype=torch.bool) & may
            generated[prefix], copied[prefix] = before * made[prefix[-1]] / norm, before * taken * here / norm
        mass = np.array([float(generated[prefix] + copied[prefix].sum()) for prefix in self.leaves])
        best = np.sort(mass)[::-1][: settings.sigma_top]
        sigma = max(np.pad(best, (0, settings.sigma_top - len(best))).std(), settings.sigma_floor)
        typical, bound = recommender.typical_sigma, settings.sharpness_range
        sharpness = np.clip(sigma / typical, 1 / bound, bound) * typical / recommender.apf_temperature
        out: dict[int, float] = {}
        for number, prefix in enumerate(self.leaves):
            members = [row for row, codes in enumerate(self.codes) if codes == prefix]
            of = generated[prefix] * self.inside(number, members, sharpness)
            out |= dict(zip(members, of.tolist(), strict=True))
            for row, value in zip(self.rows, copied[prefix].tolist(), strict=True):
                if value:
                    out[row] += value  # a prefix the pointer chose is answered by the pointer's own item
        return {row: out[row] for row in self.eligible}


@pytest.mark.parametrize("history", [0, 5])
@pytest.mark.parametrize("about", ["", "soda"])
@pytest.mark.parametrize(("depth", "seed"), [(1, 0), (2, 1), (3, 2), (4, 3)])
def test_full_width_and_full_subsets_are_exhaustive_scoring(
    depth: int, seed: int, about: str, history: int
) -> None:
    world = told_apart(tiny_world(depth, seed=seed, num_prefixes=23, items_per_prefix=23), seed)
    user = tiny_user("u", 3, min(history, 2), max(history - 2, 0))
    excluded = {1, 5, 22, *user.recent_rows[:1].tolist()}
    request = Request("x y", about)
    asked = [[Ask(request, np.array(sorted(excluded)))]]
    ranked = world.recommender.rank([user], asked, world.focus, 1000)[0]
    with torch.inference_mode():
        expected = OneRequest(world, user, request, excluded).answer()
    assert {r.row: r.score for r in ranked} == pytest.approx(expected, rel=2e-3, abs=1e-9)
    assert sum(expected.values()) < 1.0 + 1e-6  # what the filter took is nobody's
    assert expected[ranked[0].row] == pytest.approx(max(expected.values()), rel=2e-3)
