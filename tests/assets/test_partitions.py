from datetime import UTC, date, datetime, timedelta

import pytest

from sigma_assets.partitions import calendar_of
from sigma_assets.periods import MAX_EDGE, SELECT, Span, as_date, day_key, month_key
from sigma_assets.stages import STAGES

SPANS = {
    "complete_journey": Span(date(2017, 1, 1), date(2018, 1, 1)),
    "ends_with_a_month": Span(date(2017, 1, 15), date(2017, 11, 30)),
    "odd": Span(
        date(2016, 1, 20),
        date(2018, 3, 9),
        horizon=5,
        eval_horizon=14,
        base_window=99,
        lora_window=40,
        id_window=60,
    ),
}
EDGES = sorted(
    {
        (stage.cadence, STAGES[read.asset].cadence, read.window)
        for stage in STAGES.values()
        for read in stage.reads.values()
    }
)


@pytest.mark.parametrize("name", SPANS)
@pytest.mark.parametrize(("down", "up", "window"), EDGES)
def test_a_mapping_covers_what_is_read_and_stays_narrow(name: str, down: str, up: str, window: str) -> None:
    span = SPANS[name]
    calendar = calendar_of(span)
    definitions = {"day": calendar.daily, "month": calendar.monthly}
    keys = definitions[down].get_partition_keys()
    step = 1 if down == "month" else 9
    for key in [*keys[::step], keys[-1], keys[30 if down == "day" else 1]]:
        mapped = calendar.mappings[window].get_upstream_mapped_partitions_result_for_partitions(
            definitions[down].subset_with_partition_keys([key]), definitions[down], definitions[up]
        )
        upstream = set(mapped.partitions_subset.get_partition_keys())
        assert set(SELECT[window](as_date(key), span)) <= upstream, (window, key)
        assert len(upstream) <= MAX_EDGE


def test_partitions_are_the_roots_dates() -> None:
    calendar = calendar_of(SPANS["odd"])
    assert calendar.daily.get_partition_keys()[0] == "2016-01-20"
    assert calendar.daily.get_partition_keys()[-1] == "2018-03-09"
    assert calendar.monthly.get_partition_keys()[0] == "2016-01-01"
    assert calendar.monthly.get_partition_keys()[-1] == "2018-03-01"


@pytest.mark.parametrize("ago", [1, 0, -1])
def test_a_live_root_has_the_running_day_and_month(ago: int) -> None:
    """Dagster alone has no period before it is over. A day ahead: a source whose clock is east of UTC."""
    end = datetime.now(UTC).date() - timedelta(days=ago)
    calendar = calendar_of(Span(end - timedelta(days=40), end))
    assert calendar.daily.get_partition_keys()[-1] == day_key(end)
    assert calendar.monthly.has_partition_key(month_key(end))
    mapped = calendar.mappings["own_month"].get_upstream_mapped_partitions_result_for_partitions(
        calendar.daily.subset_with_partition_keys([day_key(end)]), calendar.daily, calendar.monthly
    )
    assert set(mapped.partitions_subset.get_partition_keys()) == {month_key(end)}


def test_a_calendar_that_grows_stays_the_same_to_dagster() -> None:
    """Another end would be another calendar, and conditions would forget what waits: each morning, in a live root."""
    today = datetime.now(UTC).date()
    spans = [Span(today - timedelta(days=60), today - timedelta(days=ago)) for ago in (2, 1)]
    before, after = (calendar_of(span, grows=True) for span in spans)
    assert (before.daily, before.monthly) == (after.daily, after.monthly)
    assert calendar_of(spans[0]).daily != calendar_of(spans[1]).daily
    assert after.daily.has_partition_key(day_key(today + timedelta(days=1)))
    assert after.monthly.has_partition_key(month_key(today))


@pytest.mark.parametrize(("end", "newest"), [(30, "2017-12-01"), (29, "2017-11-01")])
def test_the_month_after_the_data_is_there_only_when_its_refit_can_be_made(end: int, newest: str) -> None:
    calendar = calendar_of(Span(date(2017, 1, 1), date(2017, 11, end)))
    assert calendar.monthly.get_partition_keys()[-1] == newest
    assert calendar.daily.get_partition_keys()[-1] == f"2017-11-{end}"
