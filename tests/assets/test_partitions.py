from datetime import date

import pytest

from sigma_assets.partitions import calendar_of
from sigma_assets.periods import MAX_EDGE, SELECT, Span, as_date
from sigma_assets.stages import STAGES

SPANS = {
    "complete_journey": Span(date(2017, 1, 1), date(2018, 1, 1)),
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
