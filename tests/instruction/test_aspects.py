"""What the words of a request stand for."""

from sigma_core.data.calendar import load_themes
from sigma_core.instruction.aspects import MAX_ASPECTS, aspects_of


def test_a_phrase_is_itself() -> None:
    assert aspects_of("ice cream") == ("ice cream",)
    assert aspects_of("") == ()


def test_a_holiday_is_its_name_and_what_people_buy_for_it() -> None:
    assert aspects_of("halloween")[0] == "halloween"
    assert aspects_of("Halloween")[1:] == tuple(load_themes()["Halloween"])
    assert all(len(aspects_of(name)) <= MAX_ASPECTS for name in load_themes())


def test_a_season_is_what_is_ramping_up() -> None:
    assert aspects_of("autumn: canned pumpkin, soup") == ("canned pumpkin", "soup")
    assert aspects_of("autumn") == ("autumn",)


def test_a_typed_sentence_with_a_colon_is_no_season() -> None:
    assert aspects_of("for the party: cake, candles") == ("for the party: cake, candles",)
