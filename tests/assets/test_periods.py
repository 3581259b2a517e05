from dataclasses import replace
from datetime import date, timedelta

import pytest

from sigma_assets.periods import SELECT, Span, as_date, months, next_month, refit_cut, shard_days
from sigma_assets.stages import STAGES

SPAN = Span(date(2017, 1, 1), date(2018, 1, 1))


def test_history_of_a_day_is_whole_months_and_then_single_days() -> None:
    day = date(2017, 10, 23)
    assert SELECT["months_before"](day, SPAN)[-2:] == ["2017-08-01", "2017-09-01"]
    recent = SELECT["recent_days"](day, SPAN)
    assert (recent[0], recent[-1], len(recent)) == ("2017-10-01", "2017-10-23", 23)


def test_on_the_first_of_a_month_the_month_before_still_comes_by_days() -> None:
    day = date(2017, 10, 1)
    assert SELECT["months_before"](day, SPAN)[-1] == "2017-08-01"
    assert SELECT["recent_days"](day, SPAN)[0] == "2017-09-01"


@pytest.mark.parametrize("start", [date(2017, 1, 1), date(2016, 12, 20)])
def test_every_day_up_to_d_is_read_exactly_once(start: date) -> None:
    span = Span(start, date(2018, 1, 1))
    for number in range(0, 366, 5):
        day = date(2017, 1, 1) + timedelta(days=number)
        read = list(SELECT["recent_days"](day, span))
        for month in SELECT["months_before"](day, span):
            read += SELECT["days_of_month"](as_date(month), span)
        expected = [(start + timedelta(days=n)).isoformat() for n in range((day - start).days + 1)]
        assert sorted(read) == expected


def test_a_day_never_reads_its_own_months_rollup() -> None:
    for number in range(31, 365):
        day = date(2017, 1, 1) + timedelta(days=number)
        assert f"{day:%Y-%m}-01" not in SELECT["months_before"](day, SPAN)


def test_a_refit_reads_days_before_its_month_only() -> None:
    month = date(2017, 10, 1)
    assert SELECT["id_months"](month, SPAN) == ["2017-06-01", "2017-07-01", "2017-08-01", "2017-09-01"]
    shards = SELECT["base_shards"](month, SPAN)
    assert min(shards) >= "2017-07-01"
    assert max(shards) <= "2017-09-23"


@pytest.mark.parametrize(("holdout", "cut"), [(7, "2017-09-23"), (0, "2017-09-30")])
def test_a_refit_leaves_out_the_last_days_before_its_month(holdout: int, cut: str) -> None:
    month, span = date(2017, 10, 1), replace(SPAN, refit_holdout=holdout)
    assert refit_cut(month, span).isoformat() == cut
    assert SELECT["refit_cut"](month, span) == [cut], "its catalog"
    assert max(SELECT["base_shards"](month, span)) <= cut, "no target lies after a shard's day"


def test_a_refit_of_the_month_after_the_data_finds_all_it_reads() -> None:
    month, span = date(2017, 12, 1), replace(SPAN, end=date(2017, 11, 30))
    for stage in STAGES.values():
        if stage.cadence == "month" and stage.group != "sources" and not stage.on_demand:
            for read in stage.reads.values():
                keys = SELECT[read.window](month, span)
                assert keys == SELECT[read.window](month, SPAN), "as when the month is over"
                assert keys, (stage.name, read)
    assert SELECT["same_month"](month, replace(SPAN, end=date(2017, 11, 29))) == []


def test_a_month_that_is_judged_reads_its_first_days_and_what_its_models_learn_from() -> None:
    month = date(2017, 10, 1)
    assert SELECT["first_catalogs"](month, SPAN) == ["2017-09-23", "2017-09-30", "2017-10-01"]
    assert SELECT["first_catalogs"](month, replace(SPAN, refit_holdout=0)) == ["2017-09-30", "2017-10-01"]
    days = SELECT["first_days"](month, SPAN)
    assert (days[0], days[-1], len(days)) == ("2017-10-01", "2017-10-08", 8)
    assert SELECT["all_months_before"](month, SPAN)[-1] == "2017-09-01"
    shards = SELECT["first_shards"](month, SPAN)
    assert set(shards) == {*SELECT["base_shards"](month, SPAN), *SELECT["lora_shards"](month, SPAN)}
    assert "2017-09-23" < max(shards) < "2017-10-01", (
        "the adapter learns from the days that the base leaves out"
    )


def test_shards_come_every_third_day_and_never_with_a_cut_before_the_data() -> None:
    keys = shard_days(date(2017, 1, 1), date(2017, 1, 31), SPAN)
    assert all(as_date(key).toordinal() % 3 == 0 for key in keys)
    assert keys[0] >= "2017-01-08"
    assert len(keys) == 8


def test_a_window_stops_where_the_data_stop() -> None:
    assert SELECT["recent_and_next_days"](date(2017, 12, 30), SPAN)[-1] == "2018-01-01"
    assert SELECT["day_before"](date(2017, 1, 1), SPAN) == []
    assert months(date(2017, 11, 5), date(2019, 1, 1), SPAN) == ["2017-11-01", "2017-12-01", "2018-01-01"]
    assert next_month(date(2017, 12, 31)) == date(2018, 1, 1)
