"""A tiny random model over a handful of items, for tests of heads, search and artifacts. Nothing here is trained."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from sigma_core.config import GenerationConfig, ModelConfig
from sigma_core.generation.recommender import Ask, ItemTable, Recommender
from sigma_core.instruction.collate import Collator, Request, UserContext
from sigma_core.model.heads import ItemTensors, activity_tensors
from sigma_core.model.sigma import ModelShape, SigmaModel

CODES = 5
TEXT_DIM = 8


class FakeWords:
    """Two ids a word, from its letters."""

    def ids(self, text: str) -> np.ndarray:
        return np.array([ord(letter) % 11 for word in text.split() for letter in word[:2]], dtype=np.int64)


@dataclass
class TinyWorld:
    """A recommender with its parts."""

    model: SigmaModel
    table: ItemTable
    collator: Collator
    recommender: Recommender
    focus: dict[str, np.ndarray]


def tiny_world(
    prefix_length: int = 1, num_items: int = 23, seed: int = 0, backbone: str = "mini", **generation: object
) -> TinyWorld:
    """Random weights, random items, prefixes of `prefix_length` codes out of five; `backbone` may be a model folder."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    config = ModelConfig(
        backbone=backbone, hidden_dim=16, num_layers=2, num_heads=2, item_dim=6, fusion_hidden=12
    )
    shape = ModelShape(TEXT_DIM, 4, 0, prefix_length, CODES, lexical_dim=7, match_dim=TEXT_DIM)
    model = SigmaModel(config, shape)
    with torch.no_grad():  # random weights are too even to tell beams apart
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(2.0)
        model.prefix_tokens.free.normal_()
    prefixes = rng.integers(0, CODES, (num_items, prefix_length))
    prefixes = prefixes[np.lexsort(prefixes.T[::-1])]
    vectors = torch.nn.functional.normalize(torch.randn(num_items, config.item_dim), dim=-1)
    text = torch.nn.functional.normalize(torch.randn(num_items, TEXT_DIM), dim=-1)
    counts = rng.integers(0, 9, (1, num_items, 4)).astype(np.float32)
    table = ItemTable(
        ItemTensors(vectors, text, torch.as_tensor(prefixes)),
        activity_tensors(counts, prefixes[:, 0], CODES, torch.device("cpu")),
        torch.arange(num_items) // 2,
    )
    lexical_width = 7 if backbone == "mini" else model.backbone.config.hidden_size
    collator = Collator(FakeWords(), prefixes, CODES, prompt_favorites=4)
    settings = GenerationConfig.model_validate(
        {"num_prefixes": 3, "items_per_prefix": 50, "sigma_top": 3} | generation
    )
    recommender = Recommender(
        model,
        table,
        collator,
        torch.randn(11, lexical_width),
        settings,
        apf_temperature=0.02,
        typical_sigma=0.05,
    )
    focus = {
        "soda": rng.normal(size=TEXT_DIM).astype(np.float32),
        "tea": rng.normal(size=TEXT_DIM).astype(np.float32),
    }
    return TinyWorld(model.eval(), table, collator, recommender, focus)


def tiny_user(name: str, seed: int, recents: int = 2, favorites: int = 3, num_items: int = 23) -> UserContext:
    """A user with random history."""
    rng = np.random.default_rng(seed)

    def stats(count: int) -> np.ndarray:
        return rng.uniform(0, 5, (count, 4)).astype(np.float32)

    rows = rng.permutation(num_items)
    return UserContext(
        name,
        "age forty",
        rows[:recents],
        stats(recents),
        rows[recents : recents + favorites],
        stats(favorites),
    )


def assert_batch_is_as_each_alone(world: TinyWorld, users: list[UserContext], texts: list[list[str]]) -> None:
    """The lists of all users' requests asked at once are those of each asked alone."""
    asks = [[Ask(Request(text)) for text in mine] for mine in texts]
    together = world.recommender.rank(users, asks, world.focus, 9)
    alone = [
        world.recommender.rank([user], [[one]], world.focus, 9)[0]
        for user, mine in zip(users, asks, strict=True)
        for one in mine
    ]
    for batched, single in zip(together, alone, strict=True):
        assert [r.row for r in batched] == [r.row for r in single]
        assert [r.score for r in batched] == pytest.approx([r.score for r in single], rel=1e-3)
