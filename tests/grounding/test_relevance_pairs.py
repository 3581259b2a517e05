"""Claims about the views on a shop of a few items."""

from datetime import date, timedelta

import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.config import GroundingConfig
from sigma_core.data.complements import load_complements
from sigma_core.grounding.relevance_pairs import VIEWS, build_relevance_pairs, text_answers
from sigma_core.grounding.views import base, knowledge

LAST = date(2017, 3, 31)
CONFIG = GroundingConfig(pairs_per_view=50)


class Catalog:
    """Stands in for ItemCatalog: only its frame is read."""

    def __init__(self, *rows: tuple[str, str, str, str]) -> None:
        self.frame = pl.DataFrame(
            {
                c.ITEM_ID: [row[0] for row in rows],
                c.TEXT: [row[1] for row in rows],
                c.ITEM_TYPE: [row[2] for row in rows],
                c.CATEGORY: [row[3] for row in rows],
                c.NUM_EVENTS_56D: [10] * len(rows),
            }
        )


SHOP = Catalog(
    ("i1", "hot dogs, beef", "hot dogs", "meat"),
    ("i2", "hot dog buns, white", "hot dog buns", "bread"),
    ("i3", "pumpkin candy", "candy", "sweets"),
    ("i4", "chocolate bar", "chocolate", "sweets"),
    ("i5", "candle", "candles", "home"),
)


def events(*rows: tuple[str, str, str, int, str | None]) -> pl.DataFrame:
    """Rows (user, item, session, days before LAST, query)."""
    return pl.DataFrame(
        {
            c.USER_ID: [row[0] for row in rows],
            c.ITEM_ID: [row[1] for row in rows],
            c.SESSION_ID: [row[2] for row in rows],
            c.EVENT_DATE: [LAST - timedelta(days=row[3]) for row in rows],
            c.QUERY_TEXT: [row[4] for row in rows],
        },
        schema_overrides={c.QUERY_TEXT: pl.String, c.EVENT_DATE: pl.Date},
    )


def grill_parties() -> pl.DataFrame:
    rows = []
    for user in range(4):
        rows += [(f"u{user}", item, f"s{user}", user, None) for item in ("i1", "i2")]
        rows += [
            (f"u{user}", item, f"t{user}{item}", 20 + 8 * user + place, None)
            for place, item in enumerate(["i3", "i5"])
        ]
        rows += [(f"u{user}", "i4", f"v{user}", 60, None)]
    return events(*rows)


def build(
    shop: Catalog = SHOP,
    rows: pl.DataFrame | None = None,
    config: GroundingConfig = CONFIG,
    **words: dict[str, list[str]],
) -> pl.DataFrame:
    rows = grill_parties() if rows is None else rows
    return build_relevance_pairs(
        rows, shop, words.get("themes", {}), words.get("phrases", {}), config, 17,
        complements=words.get("complements"),
    ).frame  # fmt: skip


def of(frame: pl.DataFrame, view: str) -> pl.DataFrame:
    return frame.filter(pl.col(c.VIEW) == view)


def test_items_of_one_basket_are_a_collaborative_pair() -> None:
    got = of(build(), "collaborative")
    assert got.select(c.ANCHOR_ITEM_ID, c.POSITIVE_ITEM_ID).rows()[0] == ("i1", "i2")
    assert got[c.ANCHOR_TEXT][0] == "hot dogs, beef"
    assert not got[c.IS_PSEUDO].any()
    assert (got[c.WEIGHT] > 0).all()


def test_one_household_alone_makes_no_pair() -> None:
    habit = [("u1", item, f"s{day}", day, None) for day in range(6) for item in ("i1", "i2")]
    others = [(f"u{user}", "i5", f"t{user}", 40, None) for user in range(2, 9)]
    assert of(build(rows=events(*habit, *others)), "collaborative").height == 0


def test_purchases_of_different_weeks_and_baskets_make_no_pair() -> None:
    far = [
        (f"u{user}", item, f"s{user}{item}", age, None)
        for user in range(5)
        for item, age in (("i1", 0), ("i2", 30))
    ]
    assert of(build(rows=events(*far)), "collaborative").height == 0


def test_sessions_that_every_user_counts_from_one_are_not_one_basket() -> None:
    """Nobody takes i1 and i2 in one visit or week, but visit 1 of one is called as visit 1 of another."""
    far = [
        (f"u{user}", item, str((user + later) % 3), 30 * later, None)
        for user in range(6)
        for later, item in enumerate(("i1", "i2"))
    ]
    others = [(f"v{user}", "i5", f"v{user}", 60, None) for user in range(40)]
    assert of(build(rows=events(*far, *others)), "collaborative").height == 0


def test_without_queries_phrases_and_names_stand_in_and_are_marked() -> None:
    got = of(build(phrases={"cookout": ["i1", "i2"]}), "search")
    assert got[c.IS_PSEUDO].all()
    assert got.filter(pl.col(c.ANCHOR_TEXT) == "cookout")[c.POSITIVE_ITEM_ID].to_list() == ["i1", "i2"]
    assert set(got.filter(pl.col(c.ANCHOR_TEXT) == "sweets")[c.POSITIVE_ITEM_ID]) == {"i3", "i4"}
    assert got[c.ANCHOR_ITEM_ID].null_count() == got.height


def test_real_queries_replace_the_made_up_ones() -> None:
    rows = events(
        ("u1", "i1", "s1", 0, " Sausages "), ("u2", "i5", "s2", 0, None), ("u2", "ghost", "s2", 0, "gone")
    )
    got = of(build(rows=rows, phrases={"cookout": ["i1"]}), "search")
    assert got.select(c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID, c.IS_PSEUDO).rows() == [("sausages", "i1", False)]


def test_holidays_find_items_of_their_themes_and_siblings_share_a_category() -> None:
    themes = {"Halloween": ["candy", "pumpkin"], "Fourth": ["hot dog"]}
    got = of(build(themes=themes, complements={"hot dogs": ["hot dog buns"]}), "knowledge")
    themed = got.filter(pl.col(c.ANCHOR_ITEM_ID).is_null())
    assert set(themed.select(c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID).rows()) == {
        ("Halloween", "i3"), ("Halloween candy", "i3"), ("Halloween pumpkin", "i3"),
        ("Fourth", "i1"), ("Fourth", "i2"), ("Fourth hot dog", "i1"), ("Fourth hot dog", "i2"),
    }  # fmt: skip
    siblings = got.filter(pl.col(c.ANCHOR_ITEM_ID).is_not_null())
    pairs = set(siblings.select(c.ANCHOR_ITEM_ID, c.POSITIVE_ITEM_ID).rows())
    assert pairs == {("i3", "i4"), ("i4", "i3"), ("i1", "i2")}  # buns complement hot dogs


def test_what_complements_an_item_is_of_another_category() -> None:
    shop = Catalog(
        ("i1", "corn tortilla chips", "tortilla chips", "snacks"),
        ("i2", "salsa, mild", "dips", "sauces"),
        ("i3", "salsa, hot", "dips", "sauces"),
        ("i4", "candle", "candles", "home"),
    )
    found = knowledge._complements(shop.frame, {"tortilla chips": ["salsa"], "candle": ["unicorn"]}, 1)
    assert found[c.ANCHOR_ITEM_ID].to_list() == ["i1"]
    assert found[c.POSITIVE_ITEM_ID][0] in {"i2", "i3"}
    assert knowledge._complements(shop.frame, {}, 1).schema == found.schema


def test_the_written_complements_are_words_and_no_thing_is_its_own() -> None:
    for used, others in load_complements().items():
        assert others
        assert used not in others
        assert all(word == word.lower().strip() for word in (used, *others))


def test_a_phrase_that_evaluation_asks_with_is_no_anchor_even_where_it_names_a_category() -> None:
    def anchors(held_out: frozenset[str]) -> set[str]:
        found = build_relevance_pairs(grill_parties(), SHOP, {}, {}, CONFIG, 17, held_out=held_out).frame
        return set(of(found, "search")[c.ANCHOR_TEXT])

    assert anchors(frozenset()) - anchors(frozenset({"sweets"})) == {"sweets"}


def test_nor_is_it_one_where_users_typed_it() -> None:
    rows = grill_parties().with_columns(pl.lit(" Cookout").alias(c.QUERY_TEXT))
    known = build_relevance_pairs(rows, SHOP, {}, {}, CONFIG, 17).frame
    held = build_relevance_pairs(rows, SHOP, {}, {}, CONFIG, 17, held_out=frozenset({"cookout"})).frame
    assert "cookout" in set(of(known, "search")[c.ANCHOR_TEXT])
    assert "cookout" not in set(of(held, "search")[c.ANCHOR_TEXT])


@pytest.mark.parametrize(("word", "text", "found"), [
    ("ham", "glazed ham, deli", True), ("ham", "hamburger buns", False), ("candy", "candle", False),
    ("egg", "large eggs", True), ("radish", "radishes", True), ("Egg", "egg", True), ("7.5 oz", "7x5 oz", False),
])  # fmt: skip
def test_a_theme_word_matches_whole_words(word: str, text: str, found: bool) -> None:
    assert pl.Series([text]).str.contains(knowledge.theme_pattern(word)).item() == found


def test_no_view_exceeds_its_limit_and_row_order_is_of_no_account() -> None:
    config = GroundingConfig(pairs_per_view=3)
    words = {"themes": {"Halloween": ["candy"]}, "phrases": {"cookout": ["i1", "i2"]}}
    want = build(config=config, **words)
    assert want.group_by(c.VIEW).len()["len"].max() <= 3
    shuffled = grill_parties().sample(fraction=1.0, shuffle=True, seed=4)
    assert build(config=config, rows=shuffled, **words).equals(want)


def test_a_view_can_be_left_out_and_an_unknown_one_is_refused() -> None:
    got = build(config=GroundingConfig(view_weights={"search": 1.0, "knowledge": 0.0}))
    assert got[c.VIEW].unique().to_list() == ["search"]
    with pytest.raises(ValueError, match=r"unknown views \['smell'\]"):
        build(config=GroundingConfig(view_weights={"smell": 1.0}))


def test_a_view_is_one_function_and_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = pl.DataFrame(
        {c.ANCHOR_TEXT: ["a"], c.ANCHOR_ITEM_ID: ["i1"], c.POSITIVE_ITEM_ID: ["i2"], c.WEIGHT: [1.0]}
    )
    monkeypatch.setitem(VIEWS, "smell", lambda inputs: base.as_pairs(looks, "smell", is_pseudo=False))
    assert build(config=GroundingConfig(view_weights={"smell": 1.0}))[c.VIEW].to_list() == ["smell"]


def test_an_empty_history_still_gives_the_other_views() -> None:
    got = build(rows=events())
    assert set(got[c.VIEW]) == {"search", "knowledge"}


def test_heavier_rows_are_drawn_more_often() -> None:
    rows = pl.DataFrame({"x": range(1000), c.WEIGHT: [1.0] * 500 + [9.0] * 500})
    drawn = base.sample_weighted(rows, 100, seed=1)
    assert drawn.height == 100
    assert drawn["x"].is_sorted()
    assert (drawn["x"] >= 500).sum() > 75
    assert base.cap_per(rows.with_columns(g=pl.col("x") % 10), "g", 3, seed=1).height == 30


def test_all_answers_of_a_text_are_told_drawn_or_not() -> None:
    found = text_answers(
        SHOP.frame, {"Halloween": ["candy", "pumpkin"]}, {"movie night": ["i3", "i4", "gone"]}
    )
    told = {text: sorted(rows[c.POSITIVE_ITEM_ID]) for (text,), rows in found.group_by(c.ANCHOR_TEXT)}
    assert told["movie night"] == told["sweets"] == ["i3", "i4"]
    assert told["candy"] == told["Halloween"] == told["Halloween pumpkin"] == ["i3"]
    assert found.height == found.unique().height
