"""SASRec as an opponent of a day: what it is trained on, and that it learns who buys what after what."""

from datetime import date, timedelta

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.benchmarks import sequence_opponent
from sigma_core.benchmarks.sequence_opponent import SasrecScores, purchase_sequences, sasrec_of, windows_of
from sigma_core.evaluation.user_scores import PurchaseHistory

DAY = date(2017, 3, 1)
ITEMS = pl.Series(["apple", "bread", "cheese", "dates"])


def purchases(*rows: tuple[str, int, str]) -> pl.DataFrame:
    """Rows of user, days before `DAY`, item."""
    days = [DAY - timedelta(days=ago) for _, ago, _ in rows]
    return pl.DataFrame(
        {
            c.USER_ID: [row[0] for row in rows],
            c.ITEM_ID: [row[2] for row in rows],
            c.EVENT_DATE: pl.Series(days, dtype=pl.Date),
        }
    )


def test_purchases_become_sequences_of_catalog_rows_oldest_first() -> None:
    events = purchases(
        ("b", 3, "bread"), ("a", 9, "dates"), ("b", 7, "apple"), ("b", 3, "bread"), ("b", 1, "bread"), ("b", 2, "unknown")
    )  # fmt: skip
    history = PurchaseHistory(events, ITEMS, DAY, 120.0)
    found = purchase_sequences(events, ITEMS, history)
    assert [sequence.tolist() for sequence in found] == [
        [3],
        [0, 1, 1],
        [],
    ]  # twice a day is once; of nobody nothing


def test_the_order_within_a_basket_is_no_order_of_ids_and_always_the_same() -> None:
    ids = [f"{i:02d}" for i in range(40)]
    items = pl.Series(ids)
    events = purchases(*(("a", 1, item) for item in ids))
    history = PurchaseHistory(events, items, DAY, 120.0)
    first = purchase_sequences(events, items, history)[0].tolist()
    assert sorted(first) == list(range(40)) != first
    assert (
        purchase_sequences(events.sample(fraction=1.0, shuffle=True, seed=3), items, history)[0].tolist()
        == first
    )


def test_every_purchase_but_the_first_is_predicted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence_opponent, "NEWEST", 7)
    monkeypatch.setattr(
        sequence_opponent, "TRAINING", sequence_opponent.TRAINING.model_copy(update={"max_length": 3})
    )
    for length in range(12):
        cut = windows_of(np.arange(length))
        predicted = sorted(int(item) for window in cut for item in window[1:])
        assert predicted == list(range(max(1, length - 7), length))
        assert all(len(window) <= 4 for window in cut)


def test_it_learns_what_follows_what_and_leaves_the_shared_generator_alone() -> None:
    import torch

    rows = [(f"u{u:02d}", 30 - t, ITEMS[(u + t) % 4]) for u in range(40) for t in range(12)]
    events = purchases(*rows, ("v", 40, "unknown"))
    history = PurchaseHistory(events, ITEMS, DAY, 120.0)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    scores = sasrec_of(events, ITEMS, 0, lambda line: None, epochs=60)(history)
    users = history.rows_of(["u00", "u01", "v"])
    block = scores.block(users)
    assert torch.equal(torch.rand(1), expected)
    assert block.shape == (3, 4)
    assert block.dtype == np.float32
    assert block[:2].argmax(axis=1).tolist() == [(0 + 12) % 4, (1 + 12) % 4]
    np.testing.assert_allclose(block[:2].sum(axis=1), 1, rtol=1e-5)
    assert not block[2].any()  # bought nothing of the catalog


def test_scores_of_another_version_of_the_code_have_another_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sequence_opponent.recipe()
    monkeypatch.setattr(sequence_opponent, "VERSION", sequence_opponent.VERSION + 1)
    assert sequence_opponent.recipe() != before


def test_without_any_sequence_all_scores_are_nought() -> None:
    scores = SasrecScores([np.zeros(0, np.int64), np.zeros(0, np.int64)], 4, 0, lambda line: None)
    assert not scores.block(np.array([0, 1], np.int32)).any()
