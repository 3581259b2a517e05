"""The smallest artifacts that keep their contracts, with the inputs their facts ask for. Six items, four users, one day."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.data.item_activity import ACTIVITY_SCHEMA
from sigma_core.instruction.contexts import CONTEXT_SCHEMA
from sigma_core.instruction.tasks import TASKS

DAY = date(2017, 10, 23)
CUT = DAY - timedelta(days=7)
ITEMS = ["a", "b", "c", "d", "e", "f"]
USERS = ["u1", "u2", "u3", "u4"]
MODELS = ("sigma", "popularity", "personal_frequency", "personal_decayed", "item_knn")

Case = tuple[Any, dict[str, Any]]  # the artifact, and the other inputs of its facts


def events(day: date = DAY, first_row: int = 0) -> pl.DataFrame:
    """A line a user: u1 buys a, u2 b, u3 c, u4 d."""
    n = len(USERS)
    return pl.DataFrame(
        {
            c.USER_ID: USERS,
            c.ITEM_ID: ITEMS[:n],
            c.EVENT_TIME: [datetime(day.year, day.month, day.day, 9 + i) for i in range(n)],
            c.EVENT_DATE: [day] * n,
            c.EVENT_TYPE: ["purchase"] * n,
            c.SESSION_ID: [f"s{i}" for i in range(n)],
            c.QUANTITY: [1.0, 2.0, 1.0, 1.0],
            c.PRICE: [2.5, 1.0, None, 4.0],
            c.QUERY_TEXT: pl.Series([None] * n, dtype=pl.String),
            c.SOURCE_ROW: range(first_row, first_row + n),
        },
        schema_overrides={c.EVENT_TIME: pl.Datetime("us"), c.SOURCE_ROW: pl.Int64},
    )


def refused(day: date = DAY, rows: int = 0) -> pl.DataFrame:
    """Quarantined lines of the day."""
    return pl.DataFrame(
        {c.EVENT_DATE: [day] * rows, c.REASON: ["null_user"] * rows},
        schema={c.EVENT_DATE: pl.Date, c.REASON: pl.String},
    )


def unit_vectors(rows: int, width: int = 4) -> np.ndarray:
    """float32 [rows, width], each of length 1, all different."""
    vectors = np.random.default_rng(0).normal(size=(rows, width))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def _interaction_events() -> Case:
    return SimpleNamespace(frame=events(), quarantine=refused()), {"days": [DAY], "known_items": ITEMS}


def _interaction_history() -> Case:
    first, last = date(2017, 10, 1), date(2017, 10, 31)
    days = [first + timedelta(days=i) for i in range(31)]
    frame = pl.concat([events(day, 4 * i) for i, day in enumerate(days)])
    return SimpleNamespace(frame=frame), {"first": first, "last": last}


def _item_catalog() -> Case:
    items = [f"i{n:03}" for n in range(50)]
    frame = pl.DataFrame({c.ITEM_ID: items}).with_columns(
        *(
            pl.format("{} {}", pl.lit(name), c.ITEM_ID).alias(name)
            for name in (c.TITLE, c.TEXT, c.LAUNCH_TEXT)
        ),
        *(pl.lit("x").alias(n) for n in (c.TEXT_GROUP, c.ITEM_TYPE, c.CATEGORY, c.DEPARTMENT)),
        *(pl.lit("x").alias(n) for n in (c.BRAND, c.MAKER, c.SIZE, c.PRICE_BAND)),
        pl.lit(DAY - timedelta(days=3), pl.Date).alias(c.LAUNCHED_ON),
        pl.lit(True).alias(c.IS_NEW),
        pl.lit(False).alias(c.IS_TAIL),
        pl.lit(2, pl.Int64).alias(c.NUM_BUYERS_56D),
        pl.lit(4, pl.Int64).alias(c.NUM_EVENTS_56D),
        pl.lit(3, pl.Int64).alias(c.NUM_EVENTS_28D),
        pl.lit(3, pl.Int64).alias(c.NUM_EVENTS_14D),
    )
    return SimpleNamespace(frame=frame), {"day": DAY, "known_items": items}


def _user_profiles() -> Case:
    frame = pl.DataFrame(
        {
            c.USER_ID: USERS,
            c.PROFILE_TEXT: ["age 35-44", "", "", "kids"],
            c.FIRST_SEEN: [CUT, CUT, DAY, DAY],
            c.NUM_EVENTS: [3, 2, 1, 1],
        },
        schema_overrides={c.NUM_EVENTS: pl.Int64},
    )
    return SimpleNamespace(frame=frame), {"day": DAY}


def _relevance_pairs() -> Case:
    rows = [("collaborative", f"text {x}", x, y, 1.0, False) for x in "abc" for y in "def"]
    rows += [("search", "ice cream", None, "a", 2.0, True), ("knowledge", "Halloween", None, "b", 1.0, False)]
    names = (c.VIEW, c.ANCHOR_TEXT, c.ANCHOR_ITEM_ID, c.POSITIVE_ITEM_ID, c.WEIGHT, c.IS_PSEUDO)
    return SimpleNamespace(frame=pl.DataFrame(rows, schema=names, orient="row")), {"item_ids": ITEMS}


def _item_id_embeddings() -> Case:
    others = SimpleNamespace(vectors_FNW=np.stack([unit_vectors(6)] * 2))
    return SimpleNamespace(item_ids=list(ITEMS), vectors=unit_vectors(6), out_of_fold=others), {}


def _embeddings() -> Case:
    hashes = [f"hash of {i}" for i in ITEMS]
    value = SimpleNamespace(item_ids=list(ITEMS), text_hashes=hashes, vectors=unit_vectors(6))
    return value, {"item_ids": ITEMS}


class Encoder:
    """Encodes a text as the unit vector of its length."""

    text_dim = 4

    def encode(self, texts: list[str]) -> np.ndarray:
        rows = np.stack([np.array([len(text), 1.0, 0.0, 0.0]) for text in texts])
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _grounded_encoder() -> Case:
    return Encoder(), {"probe_texts": ["tea", "soda", "bread"], "loss_before": 2.0, "loss_after": 1.0}


def codebooks() -> SimpleNamespace:
    """Two levels of two codes; items a to e were there at the refit."""
    codes = np.array([[0, 0], [0, 1], [1, 0], [1, 1], [0, 0]], dtype=np.int32)
    return SimpleNamespace(
        codebooks=np.ones((2, 2, 4), np.float32), item_ids=ITEMS[:5], codes=codes, prefix_length=1, health={}
    )


def _codebooks() -> Case:
    return codebooks(), {"item_ids": ITEMS[:5]}


def _semantic_id_map() -> Case:
    codes = [*codebooks().codes.tolist(), [1, 1]]
    frame = pl.DataFrame(
        {
            c.ITEM_ID: ITEMS,
            c.CODES: codes,
            c.PREFIX: [x[:1] for x in codes],
            c.CODE_SOURCE: ["refit"] * 5 + ["launch"],
        },
        schema_overrides={c.CODES: pl.List(pl.Int32), c.PREFIX: pl.List(pl.Int32)},
    )
    return SimpleNamespace(frame=frame), {"item_ids": ITEMS, "codebooks": codebooks()}


def _sft_shards() -> Case:
    recent, favorites = [["a", "b"], ["c"], [], ["d"]], [["a"], ["c"], [], []]
    contexts = pl.DataFrame(
        {
            c.USER_ID: USERS,
            c.CUT_DATE: [CUT] * 4,
            c.PROFILE_TEXT: [""] * 4,
            c.RECENT_ITEMS: recent,
            c.RECENT_AGES: [[0, 3], [1], [], [9]],
            **{
                n: [[1] * len(x) for x in recent]
                for n in (c.RECENT_COUNTS, c.RECENT_DECAYED, c.RECENT_DECAYED_FAST)
            },
            c.FAVORITE_ITEMS: favorites,
            c.FAVORITE_COUNTS: [[3], [1], [], []],
            c.FAVORITE_AGES: [[0], [1], [], []],
            **{n: [[1] * len(x) for x in favorites] for n in (c.FAVORITE_DECAYED, c.FAVORITE_DECAYED_FAST)},
        },
        schema=CONTEXT_SCHEMA,
    )
    examples = pl.DataFrame(
        {
            c.USER_ID: ["u1", "u1", "u2"],
            c.CUT_DATE: [CUT] * 3,
            c.TARGET_END: [DAY] * 3,
            c.TASK: ["just_for_you", "query", "just_for_you"],
            c.WORDING: [0, 1, 2],
            c.SLOTS: ["{}", '{"phrase": "soda"}', "{}"],
            c.FOCUS_TEXT: ["", "soda", ""],
            c.TARGETS: [["a"], ["a"], ["b"]],
        },
        schema_overrides={c.WORDING: pl.Int32},
    )
    inputs = {"day": DAY, "horizon": 7, "item_ids": ITEMS, "events": events()}
    activity = pl.DataFrame(
        {
            c.ITEM_ID: ITEMS,
            c.NUM_EVENTS_56D: [9, 4, 4, 2, 1, 0],
            c.NUM_EVENTS_14D: [3, 4, 0, 1, 0, 0],
            c.IS_NEW: [False] * 5 + [True],
            c.IS_TAIL: [False] * 4 + [True] * 2,
        },
        schema=ACTIVITY_SCHEMA,
    )
    return SimpleNamespace(contexts=contexts, examples=examples, activity=activity), inputs


def _checkpoint() -> Case:
    tensors = {"lora_a": np.ones((2, 3), np.float32), "lora_b": np.zeros((3, 2), np.float32)}
    return tensors, {"base_compatible": True, "beams_valid": 1.0, "probe_loss": 2.0, "base_loss": 2.5}


def _promoted_model() -> Case:
    base = SimpleNamespace(digest=lambda: "base", bound_to="here")
    checkpoint = SimpleNamespace(
        tensors=_checkpoint()[0], digest=lambda: "adapter", base_digest="base", bound_to="here"
    )
    model = SimpleNamespace(day=str(CUT), checkpoint="adapter", base="base")
    pointer = SimpleNamespace(as_of=str(DAY), since=str(CUT), outcome="kept", reason="why", model=model)
    return SimpleNamespace(pointer=pointer, checkpoint=checkpoint), {"day": str(DAY), "base": base}


def _item_index() -> Case:
    prefixes = np.array([[0], [0], [0], [1], [1], [1]], dtype=np.int32)
    offsets = np.array([0, 3, 6])
    value = SimpleNamespace(
        item_ids=list("abecdf"), vectors=unit_vectors(6), prefixes=prefixes, offsets=offsets
    )
    return value, {"item_ids": ITEMS}


def _user_to_item_index() -> Case:
    rows = [
        (user, "just_for_you", rank, item, 1.0 / rank, [0], 0.5)
        for user in USERS
        for rank, item in ((1, "a"), (2, "b"))
    ]
    schema = {
        c.USER_ID: pl.String,
        c.TASK: pl.String,
        c.RANK: pl.Int32,
        c.ITEM_ID: pl.String,
        c.SCORE: pl.Float64,
        c.PREFIX: pl.List(pl.Int32),
        c.PREFIX_PROBABILITY: pl.Float64,
    }
    frame = pl.DataFrame(rows, schema=schema, orient="row")
    return SimpleNamespace(frame=frame), {"item_ids": ITEMS, "user_ids": USERS}


def _eval_report() -> Case:
    scores: dict[str, Any] = {"recall@20": 0.2, "ndcg@10": 0.1}
    tasks: dict[str, Any] = {
        task: {
            "num_targets": 300,
            "num_households": 120,
            "underpowered": False,
            "models": {model: dict(scores) for model in MODELS},
        }
        for task in TASKS
    }
    return {"catalog": {"items": 6, "targets": 300, "targets_outside": 2}, "tasks": tasks}, {}


def _ablation_report() -> Case:
    arms = ("sigma", "gr_sid", "gr_id", "no_grounding")
    found = {"recall@20": {"mean": 0.2, "low": 0.1, "high": 0.3}}
    value = {
        "settings": {"arms": ["headline"]},
        "seeds": [0, 1],
        "arms": {arm: {task: dict(found) for task in TASKS} for arm in arms},
        "skipped": {"no_apf": "this release has no setting generation.sharpness_range"},
        "tasks": {task: {"targets": 300} for task in TASKS},
    }
    return value, {}


VALID: dict[str, Callable[[], Case]] = {
    "interaction_events": _interaction_events,
    "interaction_history": _interaction_history,
    "item_catalog": _item_catalog,
    "user_profiles": _user_profiles,
    "relevance_pairs": _relevance_pairs,
    "item_id_embeddings": _item_id_embeddings,
    "grounded_encoder": _grounded_encoder,
    "refit_item_embeddings": _embeddings,
    "item_embeddings": _embeddings,
    "codebooks": _codebooks,
    "semantic_id_map": _semantic_id_map,
    "sft_shards": _sft_shards,
    "sigma_base": _checkpoint,
    "lora_checkpoint": _checkpoint,
    "promoted_model": _promoted_model,
    "item_index": _item_index,
    "user_to_item_index": _user_to_item_index,
    "eval_report": _eval_report,
    "ablation_report": _ablation_report,
}
