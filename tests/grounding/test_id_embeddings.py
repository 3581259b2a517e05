"""Claims about the ALS teacher: window, width, determinism, and that it finds two obvious clusters."""

from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.config import GroundingConfig
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings, fit_id_embeddings

CONFIG = GroundingConfig(id_dim=2, id_window_days=10, id_iterations=8)
LAST = date(2017, 3, 31)


def events(*rows: tuple[str, str, int]) -> pl.DataFrame:
    """Rows (user, item, days before LAST)."""
    days = [LAST - timedelta(days=age) for _, _, age in rows]
    return pl.DataFrame(
        {
            c.USER_ID: [row[0] for row in rows],
            c.ITEM_ID: [row[1] for row in rows],
            c.EVENT_DATE: days,
            c.EVENT_TIME: [datetime(d.year, d.month, d.day, 12) for d in days],
        }
    )


def two_worlds() -> pl.DataFrame:
    rows = []
    for user in range(12):
        world = user % 2
        rows += [(f"u{user}", f"w{world}i{item}", item % 5) for item in range(6) if (user + item) % 3]
    return events(*rows)


def test_items_bought_by_the_same_users_point_the_same_way() -> None:
    got = fit_id_embeddings(two_worlds(), CONFIG, seed=1, threads=1)
    assert got.item_ids == sorted(got.item_ids)
    assert got.vectors.shape == (12, 3)
    factors = got.factors / np.linalg.norm(got.factors, axis=1, keepdims=True)
    cosine = factors @ factors.T
    assert cosine[:6, :6].min() > cosine[:6, 6:].max()
    assert np.linalg.norm(got.factors, axis=1).mean() == pytest.approx(1.0, abs=1e-5)


def test_the_last_column_is_the_standardized_log_count() -> None:
    rows = [("u1", "a", 0), ("u2", "a", 1), ("u1", "b", 0), ("u2", "b", 1), ("u1", "b", 2), ("u2", "b", 2)]
    got = fit_id_embeddings(events(*rows), CONFIG, seed=1, threads=1)
    assert got.vectors[:, -1].tolist() == pytest.approx(
        [-1.0, 1.0], abs=1e-6
    )  # two values: mean -+ one deviation
    assert got.num_events == 6


def test_days_outside_the_window_and_items_of_one_user_do_not_count() -> None:
    inside = [("u1", "a", 9), ("u2", "a", 0), ("u1", "b", 0), ("u2", "b", 3)]
    outside = [("u1", "old", 10), ("u2", "old", 10), ("u1", "lonely", 0), ("u1", "lonely", 1)]
    got = fit_id_embeddings(events(*inside, *outside), CONFIG, seed=1, threads=1)
    assert got.item_ids == ["a", "b"]
    earlier = fit_id_embeddings(
        events(*inside, *outside), CONFIG, seed=1, threads=1, as_of=LAST - timedelta(days=9)
    )
    assert earlier.item_ids == ["old"]  # the window ends 9 days before: only `old` has two users then


def test_threads_and_row_order_change_no_bit() -> None:
    rows = two_worlds()
    want = fit_id_embeddings(rows, CONFIG, seed=1, threads=1).digest()
    assert (
        fit_id_embeddings(rows.sample(fraction=1.0, shuffle=True, seed=3), CONFIG, seed=1, threads=2).digest()
        == want
    )
    assert fit_id_embeddings(rows, CONFIG, seed=2, threads=1).digest() != want


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    got = fit_id_embeddings(two_worlds(), CONFIG, seed=1, threads=1)
    got.save(tmp_path)
    again = ItemIdEmbeddings.load(tmp_path)
    assert again.digest() == got.digest()
    assert again.summary() == got.summary()


def test_nothing_to_learn_from_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"widen grounding\.id_window_days"):
        fit_id_embeddings(events(("u1", "a", 0)), CONFIG, seed=1, threads=1)
    with pytest.raises(ValueError, match="no events"):
        fit_id_embeddings(events(), CONFIG, seed=1, threads=1)
