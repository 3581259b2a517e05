"""A synthetic catalog, users and random weights of any size, for measuring how fast answers are made.

Speed depends on sizes, not on what weights say; recall is measured on a trained root instead (`generation.py`). The same items
carry our prefix (one code) and the four codes a generative peer spells. Our choice.

Shape legend: N items, G prefixes, S statistics.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch

from sigma_core.config import GenerationConfig, ModelConfig
from sigma_core.data.item_activity import NUM_ACTIVITY_STATS
from sigma_core.generation.recommender import ItemTable, Recommender
from sigma_core.instruction.collate import Collator, UserContext
from sigma_core.model.backbone import is_mini, lexical_width
from sigma_core.model.heads import ItemTensors, activity_tensors
from sigma_core.model.sigma import ModelShape, SigmaModel

WORDS: Final = 2048  # distinct word ids of the synthetic prompts
TEXT_DIM: Final = 128
CODEBOOK: Final = 1024  # of our prefix: the default profile's
PEER_CODEBOOK: Final = 256  # of each of the peers' four levels
PEER_LEVELS: Final = 4
MIN_GROUP: Final = 8  # items a prefix holds at least, on average
PROFILE: Final = "age group 45 to 54 income 50 to 74 thousand two adults with kids"
INSTRUCTION: Final = "recommend what this household buys in the coming week"


class CountedWords:
    """Numbers the words it meets, below `WORDS`: a tokenizer that costs next to nothing on either side."""

    def __init__(self) -> None:
        self._known: dict[str, np.ndarray] = {}

    def ids(self, text: str) -> np.ndarray:
        """A number a word, int64."""
        if text not in self._known:
            self._known[text] = np.asarray([sum(map(ord, word)) % WORDS for word in text.split()])
        return self._known[text]


@dataclass(frozen=True)
class GenerationWorld:
    """Everything both sides answer from.

    Attributes:
        recommender: ours, three steps.
        users: with `history` items each.
        codes_N4: the peers' four codes of every item, distinct rows.
        words: of both prompts.
    """

    recommender: Recommender
    users: list[UserContext]
    codes_N4: np.ndarray
    words: CountedWords


def generation_world(
    items: int, history: int, users: int, *, backbone: str = "mini", num_prefixes: int = 20, seed: int = 17
) -> GenerationWorld:
    """Random items under balanced prefixes, users with `history` recent purchases and no favourites."""
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    config = ModelConfig(backbone=backbone)
    codes = min(CODEBOOK, max(2, items // MIN_GROUP))
    model = SigmaModel(config, ModelShape(TEXT_DIM, 64, 0, 1, codes, lexical_width(config), TEXT_DIM))
    with torch.no_grad():  # untrained logits are flat; spread them so that beams differ from user to user
        model.prefix_tokens.free.normal_()
    prefixes = np.sort(rng.integers(0, codes, items))[:, None]
    unit = torch.nn.functional.normalize
    tensors = ItemTensors(
        unit(torch.randn(items, config.item_dim), dim=-1),
        unit(torch.randn(items, TEXT_DIM), dim=-1),
        torch.as_tensor(prefixes),
    )
    counts = rng.poisson(3.0, (1, items, NUM_ACTIVITY_STATS)).astype(np.float32)
    activity = activity_tensors(counts, prefixes[:, 0], codes, torch.device("cpu"))
    words = CountedWords()
    lexical = torch.randn(WORDS, lexical_width(config)) * (1.0 if is_mini(config) else 0.1)
    recommender = Recommender(
        model, ItemTable(tensors, activity), Collator(words, prefixes, codes, history), lexical,
        GenerationConfig(num_prefixes=num_prefixes), apf_temperature=0.02, typical_sigma=0.05,
    )  # fmt: skip
    people = [_user(str(number), items, history, rng) for number in range(users)]
    return GenerationWorld(recommender, people, _peer_codes(items, rng), words)


def _user(name: str, items: int, history: int, rng: np.random.Generator) -> UserContext:
    rows = rng.choice(items, history, replace=False)
    none = np.zeros((0, 4), dtype=np.float32)
    stats = rng.uniform(0, 5, (history, 4)).astype(np.float32)
    return UserContext(name, PROFILE, rows, stats, rows[:0], none)


def _peer_codes(items: int, rng: np.random.Generator) -> np.ndarray:
    """Distinct rows of four codes."""
    found = np.zeros(0, dtype=np.int64)
    while len(found) < items:
        found = np.unique(np.concatenate((found, rng.integers(0, PEER_CODEBOOK**PEER_LEVELS, 2 * items))))
    found = rng.permutation(found)[:items]
    return np.stack([found // PEER_CODEBOOK**level % PEER_CODEBOOK for level in range(PEER_LEVELS)][::-1], 1)
