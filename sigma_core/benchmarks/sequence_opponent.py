"""SASRec with the full cross-entropy as an opponent of a judged day: trained on what was bought up to the day, asked like any other.

Holds how purchases become sequences and the scores of the trained network; network, loss and trainer are those of the
leave-one-out benchmark. It takes an hour, so only `sigma benchmark backtest` asks it, and when told to. Settings are that
benchmark's, with longer histories; the number of epochs is our choice: an epoch of a year of the default data is five minutes on
one core. Sources: Kang and McAuley, "Self-attentive Sequential Recommendation" (2018), with the exact softmax of later work;
tasks.md names it among the opponents of just_for_you.
"""

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import torch

from sigma_core import columns as c
from sigma_core.benchmarks.leave_one_out.data import IntArray
from sigma_core.benchmarks.leave_one_out.models import code_versions
from sigma_core.benchmarks.leave_one_out.networks import CatalogModel
from sigma_core.benchmarks.leave_one_out.settings import Training, TrunkShape
from sigma_core.benchmarks.leave_one_out.trainer import fit, scorer
from sigma_core.evaluation.requests import IntArray as Rows
from sigma_core.evaluation.user_scores import PurchaseHistory, ScoreBlock
from sigma_core.instruction.hashing import stable_hash

if TYPE_CHECKING:
    from sigma_core.benchmarks.leave_one_out.ranks import Score

# Shape legend: H users of the history (the last row is that of nobody), N items, B users of a block.
TRAINING: Final = Training(max_length=100)
TRUNK: Final = TrunkShape()
EPOCHS: Final = 10
VERSION: Final = 1  # raise it when this code scores otherwise; network, loss and trainer have their own
NEWEST: Final = 400  # purchases of a user that are trained on, at most

Report = Callable[[str], None]


def recipe() -> dict[str, Any]:
    """The settings that decide the scores beside data and seed, and the version of the code."""
    return {
        "version": [VERSION, code_versions("sasrec_ce")], "training": TRAINING.model_dump(), "trunk": TRUNK.model_dump(), "epochs": EPOCHS,
        "newest": NEWEST,
    }  # fmt: skip


class SasrecScores:
    """Probabilities of the next purchase; items that somebody has are not left out.

    The network is trained when scores are first asked for.

    Args:
        sequences: [H + 1] catalog rows that each user of the history bought, oldest first; the last, nobody's, is empty.
        num_items: N.
        seed: of initial weights, dropout and order.
        epochs: passes over the sequences.
        report: is told a line an epoch.
    """

    def __init__(
        self, sequences: list[IntArray], num_items: int, seed: int, report: Report, epochs: int = EPOCHS
    ) -> None:
        self._sequences, self._num_items = sequences, num_items
        self._seed, self._report, self._epochs = seed, report, epochs

    @cached_property
    def _score(self) -> "Score":
        windows = [window for sequence in self._sequences for window in windows_of(sequence)]
        if not windows:
            return lambda histories: np.zeros((len(histories), self._num_items), np.float32)
        with torch.random.fork_rng():  # `fit` seeds the generator that all of torch shares
            fitted = fit(
                self._network, windows, TRAINING, seed=self._seed, epochs=self._epochs, report=self._report
            )
        return scorer(fitted.network, TRAINING.max_length)

    def _network(self) -> Any:
        start = torch.randn(self._num_items, TRUNK.width) * TRUNK.width**-0.5
        return CatalogModel(start, TRUNK, TRAINING.max_length, cosine=False)

    def block(self, users: Rows) -> ScoreBlock:
        """Probability of each item as the users' next purchase, float32 [B, N]; 0 for who has bought nothing."""
        out = np.zeros((len(users), self._num_items), np.float32)
        asked = [i for i, user in enumerate(users) if len(self._sequences[user])]
        if asked:
            out[asked] = np.exp(self._score([self._sequences[users[i]] for i in asked]))
        return out


def windows_of(sequence: IntArray) -> list[IntArray]:
    """The newest `NEWEST` purchases, cut from the end into windows that every purchase but the first is predicted in once."""
    kept, length = sequence[-NEWEST - 1 :], TRAINING.max_length
    ends = range(len(kept), 1, -length)
    return [kept[max(0, end - length - 1) : end] for end in ends]


def purchase_sequences(events: pl.DataFrame, item_ids: pl.Series, history: PurchaseHistory) -> list[IntArray]:
    """Catalog rows that each user of `history` bought, oldest first, int64 arrays [H + 1].

    A day is a basket; within one an item counts once, and the order is a hash's, since the order of lines says nothing.
    """
    catalog = pl.DataFrame({c.ITEM_ID: item_ids}).with_row_index("item")
    lines = events.select(c.USER_ID, c.EVENT_DATE, c.ITEM_ID).unique().join(catalog, on=c.ITEM_ID)
    mixed = stable_hash(lines, (c.USER_ID, c.EVENT_DATE, c.ITEM_ID), "order within a basket")
    lines = lines.with_columns(mixed.alias("order")).sort(c.USER_ID, c.EVENT_DATE, "order", c.ITEM_ID)
    bought = lines.group_by(c.USER_ID, maintain_order=True).agg("item")
    out = [np.zeros(0, np.int64) for _ in range(history.counts.shape[0])]
    for row, items in zip(history.rows_of(bought[c.USER_ID].to_list()), bought["item"], strict=True):
        out[row] = items.to_numpy().astype(np.int64)
    return out


def sasrec_of(
    events: pl.DataFrame, item_ids: pl.Series, seed: int, report: Report, epochs: int = EPOCHS
) -> Callable[[PurchaseHistory], SasrecScores]:
    """What `build_baselines` takes as `sequence`: SASRec over the purchases up to the day, `events`, and the day's catalog."""

    def scores(history: PurchaseHistory) -> SasrecScores:
        sequences = purchase_sequences(events, item_ids, history)
        return SasrecScores(sequences, len(item_ids), seed, report, epochs)

    return scores
