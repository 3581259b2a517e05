"""Offers: what a day may know of them, the words that name one, whom they were sent to."""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.data.offers import (
    OFFERED_SCHEMA,
    SENT_SCHEMA,
    Offers,
    offer_label,
    offer_words,
    offers_of,
    offers_sent,
)
from sigma_core.data.sources import SourceError, open_source
from tests.toy_world import TOY_DAY, toy_catalog, toy_offers, toy_source, write_tabular

DAY = timedelta(days=1)


def test_only_offers_that_started_by_the_day_and_hold_after_it_are_known():
    offers = toy_offers()
    known = offers.known_on(TOY_DAY)
    assert set(known.sent[c.OFFER_ID]) == {
        "ice",
        "baby",
    }  # "later" starts the day after, "over" ends on the day
    assert set(known.items[c.OFFER_ID]) == {"ice", "baby"}
    assert "later" in set(offers.known_on(TOY_DAY + DAY).sent[c.OFFER_ID])
    assert "over" in set(offers.known_on(TOY_DAY - DAY).sent[c.OFFER_ID])


def test_an_offer_is_named_by_the_types_it_is_most_about():
    words = offer_words(toy_offers(), toy_catalog().frame)
    assert words["ice"] == ("premium ice cream",)
    assert words["baby"] == ("baby diapers", "baby wipes")
    # one of two diapers (2 lines + 1 of 7 in all) weighs 9/7, the only wipes (1 + 1 of 2) weigh 4/2
    half = Offers(toy_offers().sent, pl.DataFrame({c.OFFER_ID: "x", c.ITEM_ID: ["dia_b", "dia_c"]}))
    assert offer_words(half, toy_catalog().frame)["x"] == ("baby wipes", "baby diapers")
    assert "gone" not in offer_words(
        Offers(toy_offers().sent, pl.DataFrame({c.OFFER_ID: ["gone"], c.ITEM_ID: ["ice_c"]})),
        toy_catalog().frame,
    )


def test_a_users_offers_are_told_newest_first():
    assert offers_sent(toy_offers())["u1"] == ("later", "baby", "ice", "over")


def test_a_label_is_one_word():
    assert offer_label("spring sale 17") == "offer-spring-sale-17"


def test_a_source_without_offers_has_none():
    class Bare:
        pass

    nothing = offers_of(Bare())  # type: ignore[arg-type]
    assert (nothing.sent.height, nothing.items.height) == (0, 0)
    assert offers_of(toy_source()).sent.height > 0


@pytest.mark.data
def test_the_campaigns_of_complete_journey():
    offers = offers_of(open_source("complete_journey", None))
    assert dict(offers.sent.schema) == SENT_SCHEMA
    assert dict(offers.items.schema) == OFFERED_SCHEMA
    assert offers.sent.height == 6589
    assert set(offers.known_on(date(2017, 10, 23)).sent[c.OFFER_ID]) == {"14", "15", "16", "17"}


def tabular(folder: Path, sent: str | None, items: str | None) -> Offers:
    write_tabular(replace(toy_source(), offered=Offers.nothing()), folder)
    for name, text in (("offers.csv", sent), ("offer_items.csv", items)):
        if text is not None:
            (folder / name).write_text(text)
    return offers_of(open_source("tabular", folder))


SENT = (
    "offer_id,user_id,starts_on,ends_on\nspring,u1,2024-03-01,2024-03-20\nspring,u1,2024-03-01,2024-03-20\n"
)


def test_offers_of_your_own_files(tmp_path: Path) -> None:
    offers = tabular(tmp_path, SENT, "offer_id,item_id\nspring,ice_a\n")
    assert offers.sent.rows() == [("spring", "u1", date(2024, 3, 1), date(2024, 3, 20))]
    assert offers.items.rows() == [("spring", "ice_a")]
    assert tabular(tmp_path / "none", None, None).sent.height == 0


@pytest.mark.parametrize(
    ("sent", "items", "said"),
    [
        (SENT, None, "go together"),
        (
            SENT.replace("2024-03-20", "soon"),
            "offer_id,item_id\nspring,ice_a\n",
            "row 0: 'soon' arrived; a day",
        ),
        (SENT, "offer_id,item_id\nspring,\n", "an id is needed"),
        (SENT, "offer_id\nspring\n", "column item_id is missing"),
    ],
)
def test_offers_that_cannot_be_read_are_refused(
    tmp_path: Path, sent: str, items: str | None, said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        tabular(tmp_path, sent, items)
