"""Benchmarks of the pipeline: what they measure on, and that a root they were asked about stays as it is."""

import time
from pathlib import Path

import polars as pl
import pytest

from sigma_assets.benchmarks.catalog_update import _over_floor, _results, new_items
from sigma_assets.benchmarks.orchestration import run as orchestration
from sigma_assets.benchmarks.roots import Spent, copy_of, recorded_seconds, spent
from sigma_assets.instance import open_instance
from sigma_assets.planner import PlanError, Step
from sigma_assets.runner import Runner
from sigma_core import columns as c
from tests.assets.roots import SMALL_DAY, Quiet, small_world
from tests.toy_world import small_source


def test_new_items_are_real_ones_under_ids_and_makers_nobody_has() -> None:
    products = small_source(num_users=5, num_items=40, days=20).products()
    listed = products[c.ITEM_ID].to_list()[:30]
    made = new_items(products, listed, 5, seed=3)
    assert made.height == made[c.ITEM_ID].n_unique() == made[c.MAKER].n_unique() == 5
    assert made.columns == products.columns
    assert not set(made[c.ITEM_ID]) & set(products[c.ITEM_ID])
    assert not set(made[c.MAKER]) & set(products[c.MAKER].drop_nulls())
    assert made.equals(new_items(products, listed[::-1], 5, seed=3)), "the seed decides, not the order"
    assert not made.equals(new_items(products, listed, 5, seed=4))


def test_a_copy_of_a_root_can_be_changed_and_goes_away(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    step = Step("interaction_events", "2024-10-20")
    with open_instance(world.root) as instance:
        Runner(world, instance, Quiet()).run_singly([step])
        (seconds,) = recorded_seconds(instance, [step, Step("item_catalog", "2024-10-20")]).values()
        assert seconds > 0
    before = world.store.manifest(step.asset, step.partition)
    with copy_of(world.root) as copy:
        from sigma_assets.world import World

        other = World.open(copy)
        events = other.store.read(step.stage.artifact_type(), step.asset, step.partition)
        other.store.write(step.asset, step.partition, type(events)(events.frame.head(1)))
        assert other.store.manifest(step.asset, step.partition)["digest"] != before["digest"]
    assert world.store.manifest(step.asset, step.partition) == before
    assert pl.read_parquet(world.store.path(step.asset, step.partition) / "table.parquet").height > 1
    assert not list(tmp_path.glob(".benchmark-*"))


def test_waiting_costs_no_processor_time() -> None:
    found = spent(lambda: time.sleep(0.2))
    assert found.wall >= 0.2
    assert found.cpu < found.wall


def test_each_round_is_judged_by_its_own_floor() -> None:
    def one(update: float, encode: float) -> dict[str, float]:
        return {"without_u2i_seconds": update, "floor_encode_seconds": encode, "floor_write_seconds": 1.0}

    assert _over_floor([one(4.0, 1.0), one(9.0, 2.0), one(30.0, 9.0)], "") == 3.0


def test_a_day_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=f"sigma materialize --as-of {SMALL_DAY.replace(day=20)}"):
        orchestration(small_world(tmp_path).root, SMALL_DAY.replace(day=20), 1)


@pytest.mark.parametrize(("refit_cpu", "ratio"), [(None, None), (40.0, 0.5)])
def test_processor_seconds_are_divided_by_processor_seconds_or_not_at_all(
    refit_cpu: float | None, ratio: float | None
) -> None:
    names = ("without_u2i", "floor_encode", "floor_write")
    one = {f"{name}{kind}_seconds": 1.0 for name in names for kind in ("", "_cpu")}
    found = _results(
        {"a step": 100.0}, refit_cpu, [{**one, "sids_changed": 0, "stale_elsewhere": 0}], Spent(10.0, 20.0)
    )
    assert (found["ratio"], found["ratio_of_cpu_seconds"]) == (0.1, ratio)
