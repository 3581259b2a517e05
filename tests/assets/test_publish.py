from functools import partial
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from sigma_assets.assets import sources
from sigma_assets.definitions import build_definitions
from sigma_assets.instance import open_instance
from sigma_assets.intake import Intake
from sigma_assets.io_manager import load, write
from sigma_assets.publish import legible, publish
from sigma_assets.stages import STAGES, Read
from sigma_assets.tracking import NullRun
from sigma_assets.window import Window, frames_of, readable
from sigma_core import columns as c
from sigma_core.artifacts import ArtifactError, ArtifactStore
from sigma_core.data.events import InteractionEvents
from tests.assets.roots import small_world
from tests.toy_world import toy_catalog

DAY = "2024-09-12"


def no_events() -> InteractionEvents:
    return InteractionEvents(pl.DataFrame(schema=InteractionEvents.schema))


def test_a_broken_contract_writes_nothing_and_records_the_check(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = small_world(tmp_path)
    whole = Intake.day

    def repeated(self: Intake, day: object) -> InteractionEvents:
        value = whole(self, day)  # type: ignore[arg-type]
        return InteractionEvents(pl.concat([value.frame, value.frame]), value.quarantine)

    monkeypatch.setattr(Intake, "day", repeated)
    job = build_definitions(root=world.root).resolve_implicit_global_asset_job_def()
    key = dg.AssetKey("interaction_events")
    with open_instance(world.root) as instance:
        result = job.execute_in_process(
            partition_key=DAY, asset_selection=[key], instance=instance, raise_on_error=False
        )
        assert not result.success
        assert [e.check_name for e in result.get_asset_check_evaluations() if not e.passed] == ["contract"]
        assert instance.get_materialized_partitions(key) == set()
    assert not (world.root / "interaction_events").exists()
    assert "source_row_unique" in str(world.failure("interaction_events", DAY))
    with pytest.raises(ArtifactError, match="source_row_unique"):
        readable(world, Read("interaction_events", "same_day"), DAY)


def test_a_good_output_carries_version_metadata_and_passing_checks(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.mark_failure("interaction_events", DAY, "yesterday's failure")
    job = build_definitions(root=world.root).resolve_implicit_global_asset_job_def()
    with open_instance(world.root) as instance:
        result = job.execute_in_process(
            partition_key=DAY, asset_selection=[dg.AssetKey("interaction_events")], instance=instance
        )
        (event,) = result.get_asset_materialization_events()
        tags = event.materialization.tags or {}
        assert tags["dagster/data_version"] == world.store.manifest("interaction_events", DAY)["digest"]
        assert tags["dagster/code_version"] == world.code_versions["interaction_events"]
        assert event.materialization.metadata["quarantined"].value == 0
    assert all(e.passed for e in result.get_asset_check_evaluations())
    assert world.failure("interaction_events", DAY) is None


def test_what_a_tracker_gets_is_written_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there: list[bool] = []

    class Kept(NullRun):
        url = "somewhere"

    def record(_run: object, store: ArtifactStore, asset: str, partition: str, _value: object) -> None:
        there.append(store.exists(asset, partition))

    world = small_world(tmp_path)
    monkeypatch.setattr("sigma_assets.publish.record", record)
    monkeypatch.setattr(sources, "publish", partial(publish, run=Kept()))
    job = build_definitions(root=world.root).resolve_implicit_global_asset_job_def()
    with open_instance(world.root) as instance:
        made = job.execute_in_process(
            partition_key=DAY, asset_selection=[dg.AssetKey("interaction_events")], instance=instance
        )
    (event,) = made.get_asset_materialization_events()
    assert event.materialization.metadata["wandb"].value == "somewhere"
    assert there == [True]


def test_only_the_stages_own_type_is_written_and_read(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    with pytest.raises(TypeError, match="InteractionEvents, ItemCatalog arrived"):
        write(world, "interaction_events", DAY, toy_catalog())
    world.store.write("item_catalog", DAY, no_events())
    with pytest.raises(ArtifactError, match="holds a InteractionEvents, a ItemCatalog was needed"):
        load(world, "item_catalog", DAY)


def test_a_kept_artifact_is_loaded_once_and_anew_when_it_changed(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    assert STAGES["interaction_history"].keep
    write(world, "interaction_history", "2024-09-01", no_events())
    first = load(world, "interaction_history", "2024-09-01")
    assert load(world, "interaction_history", "2024-09-01") is first
    row = pl.DataFrame({c.USER_ID: ["u"], c.ITEM_ID: ["i"]}, schema_overrides=InteractionEvents.schema)
    other = row.select(
        pl.col(n) if n in row.columns else pl.lit(None, t).alias(n)
        for n, t in InteractionEvents.schema.items()
    )
    write(world, "interaction_history", "2024-09-01", InteractionEvents(other))
    assert load(world, "interaction_history", "2024-09-01").frame.height == 1


def test_a_window_may_miss_a_twentieth_but_never_its_own_day(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    read = Read("interaction_events", "recent_days")
    days = [f"2024-10-{n:02d}" for n in range(1, 22)]
    for day in days:
        write(world, "interaction_events", day, no_events())
    assert readable(world, read, "2024-10-21") == (days, [])
    world.mark_failure("interaction_events", "2024-10-05", "checks")
    assert readable(world, read, "2024-10-21")[1] == ["2024-10-05"]  # 1 of 21
    with pytest.raises(ArtifactError, match="2 of 22 partitions missing"):
        readable(world, read, "2024-10-22")
    world.clear_failure("interaction_events", "2024-10-05")
    with pytest.raises(ArtifactError, match="1 of 22 partitions missing: 2024-10-22"):
        readable(world, read, "2024-10-22")  # only the reader's own day


def test_shards_are_samples_any_of_them_will_do(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    read = Read("sft_shards", "lora_shards")
    with pytest.raises(ArtifactError, match="sft_shards"):
        readable(world, read, "2024-10-22")
    present, missing = [], []
    from sigma_assets.periods import SELECT, as_date

    first, *rest = SELECT[read.window](as_date("2024-10-22"), world.span)
    world.store.write("sft_shards", first, no_events())
    present, missing = readable(world, read, "2024-10-22")
    assert (present, missing) == ([first], rest)


def test_windows_hand_over_their_days_in_order() -> None:
    later, earlier = no_events(), no_events()
    window = Window({"2024-10-02": later, "2024-10-01": earlier}, missing=["2024-10-03"])
    assert list(window) == ["2024-10-01", "2024-10-02"]
    assert frames_of(window).height == 0
    with pytest.raises(ArtifactError, match="no day of events"):
        frames_of(Window({}))  # a month whose first day is still to come


def test_month_ends_of_the_data_count_only_their_own_days(tmp_path: Path) -> None:
    from datetime import date

    from sigma_assets.periods import month_span

    world = small_world(tmp_path)
    assert month_span(date(2024, 9, 1), world.span) == (date(2024, 9, 9), date(2024, 9, 30))
    assert sources.interaction_history.__doc__


def test_figures_are_shown_with_six_digits_and_an_empty_text_says_so() -> None:
    """The artifact keeps all digits; a count and a flag stay what they are."""
    assert [legible(x) for x in (5.756534361839295, 0.0019909890161620247, 12345678, True, "", "a")] == [
        5.75653, 0.00199099, 12345678, True, "none", "a",
    ]  # fmt: skip
    assert legible(12345678.9) == 12345679.0, "digits before the point stay"
    assert legible(float("inf")) == float("inf")
