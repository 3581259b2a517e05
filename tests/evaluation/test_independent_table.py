"""The opponents on the real data against figures computed independently (the table of tasks.md)."""

from datetime import date

import numpy as np
import pytest

from sigma_core import columns as c
from sigma_core.config import SigmaConfig
from sigma_core.data.catalog import CatalogBuilder
from sigma_core.data.events import clean_events
from sigma_core.data.sources.complete_journey import CompleteJourney
from sigma_core.data.splits import history_until
from sigma_core.evaluation.baselines import build_baselines
from sigma_core.evaluation.metrics import ceiling, target_ranks, target_sets
from sigma_core.evaluation.requests import EvalRequest
from tests.evaluation.toy_evaluation import NOTHING
from tests.toy_world import targets_of

pytestmark = pytest.mark.data

TABLE = {  # items, new, targets, households, repeats, ceiling@20, popularity, frequency, decayed, cold
    date(2017, 4, 8): (19_561, 1_401, 25_856, 1_321, 0.38, 0.6433, 0.0731, 0.1586, 0.1540, 246),
    date(2017, 10, 23): (20_512, 2_766, 23_230, 1_289, 0.51, 0.6672, 0.0642, 0.1661, 0.1745, 531),
}


@pytest.fixture(scope="module")
def journey():
    source = CompleteJourney()
    products = source.products()
    events, _ = clean_events(source.events(), products[c.ITEM_ID])
    return events, CatalogBuilder(events, products, SigmaConfig().data, source.date_range()[0])


@pytest.mark.parametrize("day", TABLE)
def test_the_baselines_agree_with_the_independent_table(journey, day):
    events, builder = journey
    catalog = builder.day(day)
    pairs = targets_of(events, catalog, day, 7)[0].join(
        catalog.frame.with_row_index("row").select("row", c.ITEM_ID, c.IS_NEW), on=c.ITEM_ID
    )
    past = history_until(events, day)
    by_user = pairs.sort(c.USER_ID, "row").group_by(c.USER_ID, maintain_order=True).agg("row")
    asked = [
        EvalRequest(user, "just_for_you", "", "", {}, NOTHING, np.array(rows, np.int32))
        for user, rows in by_user.iter_rows()
    ]
    targets = target_sets([r.targets for r in asked])
    repeats = pairs.join(past.select(c.USER_ID, c.ITEM_ID).unique(), on=[c.USER_ID, c.ITEM_ID], how="semi")
    found = build_baselines(catalog.frame, past, day, themes={})
    recall = {
        name: (target_ranks(found[name].rank(asked), targets) < 20).mean()
        for name in ("popularity", "personal_frequency", "personal_decayed", "personal_decayed_filled")
    }
    items, new, num_targets, households, repeat, top, popularity, frequency, decayed, cold = TABLE[day]
    assert (catalog.frame.height, catalog.frame[c.IS_NEW].sum()) == (items, new)
    assert (len(targets.rows), len(asked), pairs[c.IS_NEW].sum()) == (num_targets, households, cold)
    assert repeats.height / pairs.height == pytest.approx(repeat, abs=0.006)
    assert ceiling(targets) == pytest.approx(top, abs=0.0001)
    assert recall["popularity"] == pytest.approx(popularity, abs=0.0005)
    assert recall["personal_frequency"] == pytest.approx(frequency, abs=0.0005)
    assert recall["personal_decayed"] == pytest.approx(decayed, abs=0.0005)
    assert recall["personal_decayed_filled"] >= recall["personal_decayed"]
