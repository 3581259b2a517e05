"""The toy world as a day to be judged: rows of its catalog, its requests written by hand.

Rows of the catalog of TOY_DAY: 0 dia_a, 1 dia_b, 2 dia_c, 3 ice_a, 4 ice_b. Event lines up to that day:

            dia_a  dia_b  dia_c  ice_a  ice_b
    u1                             2      2
    u2                             1      1
    u3        1      1      1
    u4        2      1
    all       3      2      1      3      3       so ties are broken in the order 0 3 4 1 2

ice_b of u1 is the fresher (days 1 and 5, ice_a days 1 and 3), so decayed counts put it first.
"""

import json

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.config import SigmaConfig, profile_config
from sigma_core.data.splits import history_until
from sigma_core.evaluation.protocol import EvalDay
from sigma_core.evaluation.requests import EvalRequest
from sigma_core.evaluation.user_scores import PurchaseHistory
from sigma_core.instruction.examples import ExampleSet
from tests.toy_world import TOY_DAY, toy_catalog, toy_events

DIA_A, DIA_B, DIA_C, ICE_A, ICE_B = range(5)
TIE_ORDER = [DIA_A, ICE_A, ICE_B, DIA_B, DIA_C]
NOTHING = np.empty(0, np.int32)
CONFIG: SigmaConfig = profile_config(
    "toy", {"evaluation": {"min_targets": 1, "min_users": 1, "sample_users": None, "bootstrap_samples": 100}}
)

ROWS = [  # user, task, slots, focus, targets
    ("u1", "just_for_you", {}, "", ["dia_b", "ice_a"]),
    ("u3", "just_for_you", {}, "", ["dia_a"]),
    ("u4", "just_for_you", {}, "", ["dia_c"]),
    ("u1", "query", {"phrase": "frozen treat", "is_held_out_phrase": True}, "frozen treat", ["ice_a"]),
    ("u1", "query", {"phrase": "diapers", "is_held_out_phrase": False}, "diapers", ["dia_b"]),
    ("u1", "category", {"category": "ice cream"}, "ice cream", ["ice_a"]),
    ("u4", "longtail", {}, "", ["dia_c"]),
    ("u1", "discover", {}, "", ["dia_b"]),
    ("u4", "discover", {}, "", ["dia_c"]),
    ("u1", "holiday", {"holiday": "Halloween"}, "Halloween", ["ice_a"]),
]  # season: undefined


def examples() -> ExampleSet:
    frame = pl.DataFrame(
        [
            {
                c.USER_ID: user,
                c.TASK: task,
                c.WORDING: 0,
                c.SLOTS: json.dumps(slots),
                c.FOCUS_TEXT: focus,
                c.TARGETS: targets,
            }
            for user, task, slots, focus, targets in ROWS
        ],
        schema_overrides={c.WORDING: pl.Int32},
    )
    return ExampleSet(pl.DataFrame(), frame, {"targets_outside_catalog": 1})


def history() -> pl.DataFrame:
    return history_until(toy_events(), TOY_DAY)


def taken() -> PurchaseHistory:
    return PurchaseHistory(history(), toy_catalog().frame[c.ITEM_ID], TOY_DAY, 120.0)


def eval_day() -> EvalDay:
    return EvalDay(TOY_DAY, toy_catalog().frame, history(), examples())


def request(user="u1", task="just_for_you", focus="", exclude=(), slots=None, targets=()):
    return EvalRequest(
        user, task, "", focus, slots or {}, np.array(exclude, np.int32), np.array(targets, np.int32)
    )


def listed(lists) -> list[list[int]]:
    """Lists without their padding."""
    return [[int(row) for row in rows if row >= 0] for rows in lists]


def fake_encode(texts):
    """Unit vectors along two axes: cold things and all others."""
    cold = ("ice", "frozen", "Halloween")
    return np.array([[1.0, 0.0] if any(w in t for w in cold) else [0.0, 1.0] for t in texts], np.float32)
