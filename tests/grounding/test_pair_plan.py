"""Claims about the plan of a training: what is held out, what fits into the pool, what counts as known."""

import numpy as np
import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.config import GroundingConfig
from sigma_core.grounding.pair_plan import plan_pairs
from sigma_core.grounding.retrieval import held_out_recall
from sigma_core.grounding.views.base import PAIR_SCHEMA

ITEMS = pl.DataFrame(
    {c.ITEM_ID: [f"i{n:02d}" for n in range(40)], c.TEXT: [f"text {n // 2}" for n in range(40)]}
)


def pairs(*rows: tuple[str, str, str | None, str]) -> pl.DataFrame:
    """Rows (view, anchor text, anchor item, positive item)."""
    return pl.DataFrame([(*row, 1.0, False) for row in rows], schema=PAIR_SCHEMA, orient="row")


def many() -> pl.DataFrame:
    rows: list[tuple[str, str, str | None, str]] = []
    for n in range(36):
        rows.append(("collaborative", f"text {n // 2}", f"i{n:02d}", f"i{n + 3:02d}"))
        rows += [("search", f"query {n}", None, f"i{n + k:02d}") for k in range(3)]
    return pairs(*rows)


def plan(frame: pl.DataFrame, **settings: float):
    ids = {f"i{n:02d}": n for n in range(20)}
    return plan_pairs(frame, ITEMS, ids, GroundingConfig(**settings), seed=3)


def test_a_held_out_query_is_never_trained_on_and_item_pairs_are_held_out_both_ways() -> None:
    both_ways = pl.concat(
        [
            many(),
            pairs(
                *[("collaborative", f"text {(n + 3) // 2}", f"i{n + 3:02d}", f"i{n:02d}") for n in range(36)]
            ),
        ]
    )
    got = plan(both_ways, holdout_share=0.4)
    trained = set(got.train["search"].anchor.tolist())
    held = set(got.held_out["search"].anchor.tolist())
    assert held
    assert trained
    assert not trained & held
    train, kept = (
        {frozenset(pair) for pair in zip(rows.anchor.tolist(), rows.positive.tolist(), strict=True)}
        for rows in (got.train["collaborative"], got.held_out["collaborative"])
    )
    assert kept
    assert not train & kept


def test_positions_and_teacher_rows_are_those_of_the_pair() -> None:
    got = plan(
        pairs(("collaborative", "text 1", "i03", "i31"), ("search", "a query", None, "i07")),
        holdout_share=0.0,
    )
    rows = got.train["collaborative"]
    assert (got.texts[rows.anchor[0]], got.texts[rows.positive[0]]) == ("text 1", "text 15")
    assert (rows.anchor_id[0], rows.positive_id[0]) == (3, -1)  # i31 has no v_ID
    query = got.train["search"]
    assert (query.anchor_id[0], query.positive_id[0]) == (-1, 7)
    assert [text for text, item in zip(got.texts, got.item_texts, strict=True) if not item] == ["a query"]


def test_the_pool_is_bounded_and_every_pair_of_it_lies_inside() -> None:
    got = plan(many(), max_texts=20)
    assert len(got.texts) <= 20
    assert len(set(got.texts)) == len(got.texts)
    for rows in (*got.train.values(), *got.held_out.values()):
        assert all(0 <= n < len(got.texts) for n in [*rows.anchor, *rows.positive])
    assert all(len(rows) for rows in got.train.values())


def test_known_is_symmetric_and_includes_the_text_itself() -> None:
    got = plan(pairs(("search", "q", None, "i00"), ("search", "r", None, "i02")), holdout_share=0.0)
    q, r, first, second = (got.texts.index(text) for text in ("q", "r", "text 0", "text 1"))
    want = {(q, first), (first, q), (r, second), (second, r), *((n, n) for n in range(4))}
    grid = got.is_known(np.arange(4)[:, None], np.arange(4)[None, :])
    assert {(int(a), int(b)) for a, b in np.argwhere(grid)} == want


def test_pairs_of_one_text_and_strangers_are_dropped() -> None:
    with pytest.raises(ValueError, match="none of the 2 relevance pairs"):
        plan(pairs(("collaborative", "text 0", "i00", "i01"), ("search", "q", None, "ghost")))


def test_recall_by_hand() -> None:
    # 25 candidates on a circle in order; the query stands at place 0, its held-out answers at places 19 and 22.
    items = pl.DataFrame(
        {c.ITEM_ID: [f"i{n:02d}" for n in range(25)], c.TEXT: [f"t{n:02d}" for n in range(25)]}
    )
    rows = pairs(
        ("search", "q", None, "i19"),
        ("search", "q", None, "i22"),
        *[("collaborative", f"t{n:02d}", f"i{n:02d}", f"i{n + 1:02d}") for n in range(24)],
    )
    config = GroundingConfig(holdout_share=0.999999)
    got = plan_pairs(rows, items, {}, config, seed=1)
    angle = np.array([0.0 if text == "q" else 0.1 * (1 + int(text[1:])) for text in got.texts])
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # 19 candidates stand before i19: a hit. 21 before i22, one of them (i19) known and left out: 21 ahead, a miss.
    assert held_out_recall(got, vectors)["search"] == 1 / 2
    assert [held_out_recall(got, vectors, cutoff)["search"] for cutoff in (19, 22)] == [0, 1]


def test_an_answer_that_was_not_drawn_is_known_where_both_texts_are_in_the_pool() -> None:
    frame = pairs(("search", "q", None, "i00"), ("search", "r", None, "i02"))
    answers = pl.DataFrame({c.ANCHOR_TEXT: ["q", "q", "s"], c.POSITIVE_ITEM_ID: ["i02", "i30", "i00"]})
    without = plan_pairs(frame, ITEMS, {}, GroundingConfig(holdout_share=0.0), seed=3)
    got = plan_pairs(frame, ITEMS, {}, GroundingConfig(holdout_share=0.0), seed=3, answers=answers)
    assert got.texts == without.texts
    q, r, first, second = (np.int64(got.texts.index(text)) for text in ("q", "r", "text 0", "text 1"))
    assert not without.is_known(q, second)
    assert got.is_known(q, second)
    assert got.is_known(second, q)
    assert not got.is_known(r, first)
    assert len(got.known) == len(without.known) + 2
