"""Which types answer a phrase: the rule syntax, the file itself, and what happens where the file says nothing."""

import polars as pl
import pytest

from sigma_core import columns as c
from sigma_core.config import DataConfig
from sigma_core.instruction.phrases import (
    Phrase,
    PhraseBook,
    PhraseError,
    answering_items,
    load_phrases,
    name_keys,
    parse_rule,
    phrase_table,
)
from tests.toy_world import toy_catalog


def answers(rule: str, category: str, item_type: str) -> bool:
    return parse_rule(rule).holds(name_keys(category), name_keys(item_type))


def frame(rows):
    columns = {c.ITEM_ID: pl.String, c.CATEGORY: pl.String, c.ITEM_TYPE: pl.String}
    return pl.DataFrame([(str(n), *row) for n, row in enumerate(rows)], schema=columns, orient="row")


@pytest.mark.parametrize(
    ("rule", "category", "item_type", "expected"),
    [
        ("/ soda", "soft drinks", "soda cans", True),  # a stem of a word
        ("/ ham", "bread", "hamburger buns", True),
        ("/ =ham", "bread", "hamburger buns", False),  # the whole word only
        ("/ =ham", "deli meats", "deli ham", True),
        ("/ potatoes -sweet", "potatoes", "sweet potatoes", False),  # forbidden
        ("/ chips|pretzels", "snacks", "pretzels", True),  # either
        ("frozen / potatoes", "potatoes", "frozen potatoes", False),  # left of the slash: the category
        ("frozen potatoes", "potatoes", "frozen fries", True),  # no slash: both together
        ("bacon /", "bacon", "economy", True),
    ],
)
def test_rules(rule, category, item_type, expected):
    assert answers(rule, category, item_type) is expected


@pytest.mark.parametrize("rule", ["a / b / c", "", "-a / -b"])
def test_a_rule_needs_a_word_and_one_slash(rule):
    with pytest.raises(PhraseError, match="category words / type words"):
        parse_rule(rule)


def test_a_phrase_is_never_exactly_the_types_own_name():
    book = PhraseBook([Phrase("cat food", (parse_rule("/ cat food"),), is_held_out=False)])
    assert book.answered("pets", "canned cat food") == book.phrases
    assert book.answered("pets", "Cat Food") == ()
    assert book.answered("cat", "food") == ()


def test_half_of_the_phrases_are_held_out():
    for book, least in zip(load_phrases(), (140, 15), strict=True):
        held_out = sum(p.is_held_out for p in book.phrases)
        assert len(book.phrases) >= least
        assert 0.45 <= held_out / len(book.phrases) <= 0.55
        assert len({p.text for p in book.phrases}) == len(book.phrases)


def test_toy_types_answer_nappies_and_ice_cream():
    table = phrase_table(toy_catalog().frame)
    found = set(table.select(c.PHRASE, c.ITEM_TYPE).iter_rows())
    assert {
        ("nappies", "baby diapers"),
        ("nappies", "baby wipes"),
        ("ice cream", "premium ice cream"),
    } <= found
    assert not table[c.IS_PSEUDO].any()


def test_answering_items_keeps_the_splits_apart():
    train, test = (answering_items(toy_catalog().frame, split) for split in ("train", "test"))
    assert train["nappies"] == ["dia_a", "dia_b", "dia_c"]
    assert train["ice cream"] == ["ice_a", "ice_b"]
    assert not set(train) & set(test)


def test_films_are_asked_for_by_genre_and_marked_pseudo():
    films = frame([("Comedy", "Comedy Romance"), ("Thriller", "Thriller"), (None, None)])
    table = phrase_table(films)
    assert table[c.IS_PSEUDO].all()
    asked = {item_type: set(rows[c.PHRASE]) for (item_type,), rows in table.group_by(c.ITEM_TYPE)}
    assert {"something funny", "a love story"} <= asked["Comedy Romance"]
    assert asked["Thriller"] == {"something with suspense", "edge of the seat"}


def test_anything_else_is_asked_for_by_its_noun():
    table = phrase_table(
        frame([("audio", "wireless headphones"), ("audio", "studio headphones"), (None, "gadget")])
    )
    assert table.select(c.PHRASE, c.ITEM_TYPE).rows() == [
        ("headphones", "studio headphones"),
        ("headphones", "wireless headphones"),
        ("some gadget", "gadget"),
    ]
    assert table[c.IS_PSEUDO].all()
    assert table.filter(pl.col(c.PHRASE) == "headphones")[c.IS_HELD_OUT_PHRASE].n_unique() == 1


def test_a_catalog_without_items_has_no_phrases():
    assert phrase_table(frame([])).height == 0


@pytest.mark.data
def test_every_phrase_finds_items_in_the_real_catalog():
    from sigma_core.data.sources import open_source

    source = open_source("complete_journey", None)
    sold = source.events().group_by(c.ITEM_ID).len().filter(pl.col("len") >= DataConfig().min_buyers)
    items = source.products().join(sold, on=c.ITEM_ID)
    table = phrase_table(items)
    answered = items.join(table, on=[c.CATEGORY, c.ITEM_TYPE])
    sizes = dict(answered.group_by(c.PHRASE).agg(pl.col(c.ITEM_ID).n_unique()).iter_rows())
    missing = [p.text for p in load_phrases()[0].phrases if sizes.get(p.text, 0) < 5]
    assert not missing, f"phrases that answer for fewer than 5 items: {missing}"
    covered = items.join(table, on=[c.CATEGORY, c.ITEM_TYPE], how="semi")["len"].sum()
    assert covered > 0.85 * items["len"].sum()
    trained = table.filter(~pl.col(c.IS_HELD_OUT_PHRASE))
    only_test = items.join(table, on=[c.CATEGORY, c.ITEM_TYPE], how="semi").join(
        trained, on=[c.CATEGORY, c.ITEM_TYPE], how="anti"
    )
    assert only_test["len"].sum() > 0.1 * items["len"].sum(), "types that only unseen phrases answer for"


def test_nouns_of_a_catalog_in_another_script_are_its_phrases():
    table = phrase_table(frame([("напитки", "растворимый кофе"), ("напитки", "чёрный чай")]))
    assert table[c.PHRASE].to_list() == ["кофе", "чай"]
