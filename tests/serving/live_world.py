"""A served day over the tiny random model: 23 items, three users, prepared lists, a fake encoder. Ready in a second."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.config import SigmaConfig, profile_config
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.typical_prices import PRICES_SCHEMA
from sigma_core.instruction.collate import encode_contexts
from sigma_core.instruction.contexts import CONTEXT_SCHEMA
from sigma_core.serving.holder import Holder
from sigma_core.serving.item_index import ItemIndex
from sigma_core.serving.live import LiveDay
from sigma_core.serving.runtime import LoadedRecommender
from sigma_core.serving.user_to_item import U2I_SCHEMA, UserToItemIndex
from tests.model_world import TEXT_DIM, tiny_world
from tests.no_lexical import MeaningAlone

DAY = date(2024, 10, 28)
NUM_ITEMS = 23
ITEMS = [f"i{n:02}" for n in range(NUM_ITEMS)]
CATEGORIES = ("coffee", "soft drinks", "candy")
USERS = ("u0", "u1", "u2")


class FakeEncoder(MeaningAlone):
    """A vector a text, from its letters; counts how often it is called."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        rows = [np.random.default_rng(sum(text.encode())).normal(size=TEXT_DIM) for text in texts]
        out = np.asarray(rows, dtype=np.float32).reshape(-1, TEXT_DIM)
        return out / np.linalg.norm(out, axis=1, keepdims=True)


def catalog() -> ItemCatalog:
    """Item n was sold 100 - n times; items 2n and 2n + 1 read the same; the last three are new."""
    n = np.arange(NUM_ITEMS)
    values: dict[str, Any] = {
        c.ITEM_ID: ITEMS,
        c.TITLE: [f"Title {k // 2}" for k in n],
        c.TEXT: [f"text {k}" for k in n],
        c.LAUNCH_TEXT: [f"text {k}" for k in n],
        c.TEXT_GROUP: [f"group {k // 2}" for k in n],
        c.ITEM_TYPE: ["type"] * NUM_ITEMS,
        c.CATEGORY: [CATEGORIES[k % 3] for k in n],
        c.DEPARTMENT: ["grocery"] * NUM_ITEMS,
        c.BRAND: ["private brand" if k % 2 else "national brand" for k in n],
        c.MAKER: [None] * NUM_ITEMS,
        c.SIZE: [None] * NUM_ITEMS,
        c.PRICE_BAND: [{0: None, 2: "budget"}.get(k, "mid") for k in range(NUM_ITEMS)],
        c.LAUNCHED_ON: [None] * NUM_ITEMS,
        c.IS_NEW: list(n >= NUM_ITEMS - 3),
        c.IS_TAIL: [False] * NUM_ITEMS,
        **{
            name: list(100 - n)
            for name in (c.NUM_BUYERS_56D, c.NUM_EVENTS_56D, c.NUM_EVENTS_28D, c.NUM_EVENTS_14D)
        },
    }
    return ItemCatalog(pl.DataFrame(values, schema=ItemCatalog.schema))


def contexts() -> pl.DataFrame:
    """u0 took i00 and i01, u1 took i02; u2 nothing."""
    taken = {"u0": ["i00", "i01"], "u1": ["i02"], "u2": []}
    rows = []
    for user, items in taken.items():
        size = len(items)
        lists = [items, [1] * size, [2] * size, [1.0] * size, [0.5] * size]
        rows.append(
            (
                user,
                DAY,
                f"profile of {user}",
                *lists,
                items,
                [2] * size,
                [1] * size,
                [1.0] * size,
                [0.5] * size,
            )
        )
    return pl.DataFrame(rows, schema=CONTEXT_SCHEMA, orient="row")


def lists() -> UserToItemIndex:
    """u0's prepared list: i05, i04, i03. Item n costs n dollars; what the last three cost is not known."""
    rows = [("u0", "just_for_you", rank, f"i{8 - rank - 2:02}", 0.1 / rank, [1], 0.5) for rank in (1, 2, 3)]
    owned = pl.DataFrame(
        {c.USER_ID: ["u0", "u1"], c.OWNED_ITEMS: [["i00", "i01"], ["i02"]]},
        schema={c.USER_ID: pl.String, c.OWNED_ITEMS: pl.List(pl.String)},
    )
    words = {"season": "autumn", "ramping": ["candy"], "holiday": "Halloween"}
    lists = pl.DataFrame(rows, schema=U2I_SCHEMA, orient="row")
    prices = pl.DataFrame(
        [(item, float(n)) for n, item in enumerate(ITEMS[:20])], schema=PRICES_SCHEMA, orient="row"
    )
    return UserToItemIndex(lists, contexts(), owned, words, prices)


def config() -> SigmaConfig:
    return profile_config("toy")


def live_day(model: str = "model-1", day: date = DAY) -> LiveDay:
    world = tiny_world(1, NUM_ITEMS)
    index = ItemIndex(ITEMS, *(part.numpy() for part in world.table.tensors), "bound", 0)
    rows = {item: row for row, item in enumerate(ITEMS)}
    engine = SimpleNamespace(
        index=index,
        rows=rows,
        config=config(),
        recommender=world.recommender,
        encoder=FakeEncoder(),
        contexts=lambda frame: encode_contexts(frame, rows),
    )
    loaded = LoadedRecommender(day, cast(Any, engine), catalog(), lists(), "US")
    return LiveDay(loaded, FakeEncoder().encode([f"text {n}" for n in range(NUM_ITEMS)]), model)


def holder(live: LiveDay | None = None, root: Path = Path("nowhere")) -> Holder:
    return Holder(root, live or live_day())
