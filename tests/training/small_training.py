"""All that a training reads, made in a second: a shard of the small world, random item features, an encoder by hash."""

from collections.abc import Sequence
from datetime import timedelta
from functools import lru_cache
from typing import Any

import numpy as np

from sigma_core import columns as c
from sigma_core.artifacts import digest_bytes
from sigma_core.config import SigmaConfig, profile_config
from sigma_core.instruction.shards import SftShard, build_shard
from sigma_core.tokenization.codebooks import Codebooks
from sigma_core.tokenization.item_features import ItemFeatures
from tests.instruction.small_world import CONFIG, CUT, small_catalog, small_events, small_profiles
from tests.no_lexical import MeaningAlone

TEXT_DIM, ID_DIM, CODES, LEVELS = 16, 6, 5, 2


class HashEncoder(MeaningAlone):
    """A unit vector of each text, from its hash."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        seeds = [int(digest_bytes(text.encode()), 16) % 2**32 for text in texts]
        rows = np.array(
            [np.random.default_rng(seed).normal(size=TEXT_DIM) for seed in seeds], dtype=np.float32
        )
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def digest(self) -> str:
        return "by hash"


def training_config(backbone: str, **training: Any) -> SigmaConfig:
    """The toy profile over the small world's data settings, one thread."""
    return profile_config(
        "toy",
        {
            "runtime": {"threads": 1},
            "data": CONFIG.data.model_dump(),
            "model": {"backbone": backbone},
            "training": {"lora_rank": 2, "lora_alpha": 4, **training},
        },
    )


@lru_cache(maxsize=1)
def small_shards() -> tuple[SftShard, ...]:
    """One shard of two dozen users."""
    return (build_shard(CUT + timedelta(days=7), small_events(), small_catalog(), small_profiles(), CONFIG),)


@lru_cache(maxsize=1)
def two_shards() -> tuple[SftShard, ...]:
    """That shard and the one of a fortnight before, when the items had been bought less often."""
    before = CUT - timedelta(days=14)
    given = small_events(), small_catalog(before), small_profiles(before), CONFIG
    return (build_shard(before + timedelta(days=7), *given), *small_shards())


def small_features(prefix_length: int = 1) -> tuple[ItemFeatures, Codebooks]:
    """Random features of the small catalog and codebooks that fit them, with levels enough for the prefix."""
    levels = max(LEVELS, prefix_length)
    rng = np.random.default_rng(0)
    ids = sorted(small_catalog().frame[c.ITEM_ID].to_list())
    codes = rng.integers(0, CODES, (len(ids), levels)).astype(np.int32)
    catalog = dict(small_catalog().frame.select(c.ITEM_ID, c.TEXT).iter_rows())
    features = ItemFeatures(
        item_ids=ids,
        text=HashEncoder().encode([catalog[item] for item in ids]),
        id=rng.normal(size=(len(ids), ID_DIM)).astype(np.float32),
        image=None,
        has_id=rng.random(len(ids)) < 0.8,
        has_image=np.zeros(len(ids), dtype=bool),
        prefix=codes[:, :prefix_length],
        lexical=np.zeros((len(ids), 0), dtype=np.float32),
        texts=[catalog[item] for item in ids],
    )
    entries = rng.normal(size=(levels, CODES, TEXT_DIM)) / 4
    return features, Codebooks(
        entries, ids, codes, prefix_length=prefix_length, beam=2, encoder_digest=HashEncoder().digest()
    )
