"""What automation asks for where a step reads windows: what its readers accept, of the days that anyone reads, and no more."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from sigma_assets.binding import ROOT_FILE
from sigma_assets.definitions import build_definitions
from sigma_assets.periods import SELECT, Span, as_date, days
from sigma_assets.world import World
from sigma_core.artifacts import read_json, write_json
from tests.assets.roots import small_world
from tests.assets.test_definitions import report
from tests.assets.test_promoting import adapter

MONTH = "2024-10-01"
CUT, SHARD = "2024-10-13", "2024-10-20"  # a shard every seventh day, of a catalog seven days old


@dataclass
class Root:
    """A root and its Dagster instance, in step."""

    world: World
    instance: dg.DagsterInstance
    definitions: dg.Definitions = field(init=False)
    cursor: object = None

    def __post_init__(self) -> None:
        self.load()

    def load(self) -> None:
        """Have Dagster load the code location, with the calendar of the root as it is now."""
        self.definitions = build_definitions(root=self.world.root)

    def make(self, asset: str, keys: Iterable[str]) -> None:
        """Partitions that lie in the root and that Dagster knows, with a passed check."""
        for key in keys:
            self.world.store.write(asset, key, adapter(0))
            report(self.instance, asset, key)

    def asked(self, asset: str) -> list[str]:
        """Partitions of an asset that a tick asks for."""
        result = dg.evaluate_automation_conditions(
            defs=self.definitions,
            instance=self.instance,
            cursor=self.cursor,  # type: ignore[arg-type]
        )
        self.cursor = result.cursor
        return sorted(str(key) for key in result.get_requested_partitions(dg.AssetKey(asset)) or ())

    def end(self, day: str) -> None:
        """The source ends on a day."""
        file = self.world.root / ROOT_FILE
        write_json(file, read_json(file) | {"end": day})
        self.load()
        self.asked("eval_report")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Root]:
    """Events of October up to the 20th but for one day, and the rollup of September."""
    world = small_world(tmp_path)
    with dg.instance_for_test() as instance:
        made = Root(world, instance)
        assert made.asked("sft_shards") == []  # what is there at the first tick counts as handled
        made.make("interaction_history", ["2024-09-01"])
        made.make("interaction_events", set(october(1, 20, world.span)) - {"2024-10-05"})
        yield made


def october(first: int, last: int, span: Span) -> list[str]:
    return days(as_date(f"2024-10-{first:02d}"), as_date(f"2024-10-{last:02d}"), span)


def test_a_window_that_lacks_days_is_asked_for_if_its_reader_would_take_it(root: Root) -> None:
    root.make("item_catalog", [CUT])
    root.make("user_profiles", [CUT])
    root.world.mark_failure("interaction_events", "2024-10-06", "a check")
    assert root.asked("sft_shards") == [], "two of 20 days are missing"
    root.world.clear_failure("interaction_events", "2024-10-06")
    assert root.asked("sft_shards") == [SHARD], "one of 20, a twentieth"


def test_shards_are_asked_for_on_the_days_that_a_training_reads(root: Root) -> None:
    root.make("interaction_events", ["2024-10-05"])
    root.make("item_catalog", october(1, 20, root.world.span))
    root.make("user_profiles", october(1, 20, root.world.span))
    read = SELECT["lora_shards"](as_date("2024-10-21"), root.world.span)
    assert root.asked("sft_shards") == [key for key in read if key >= "2024-10-08"] == ["2024-10-13", SHARD]


def test_a_refit_waits_for_the_one_catalog_it_reads(root: Root) -> None:
    assert root.asked("relevance_pairs") == []
    (cut,) = SELECT["refit_cut"](as_date(MONTH), root.world.span)
    root.make("item_catalog", [cut])
    assert root.asked("relevance_pairs") == [MONTH], "not for those of all September"


def test_a_training_waits_for_a_shard(root: Root) -> None:
    for asset in (
        "sigma_base",
        "refit_item_embeddings",
        "item_id_embeddings",
        "codebooks",
        "grounded_encoder",
    ):
        root.make(asset, [MONTH])
    root.make("item_catalog", ["2024-10-19"])
    assert root.asked("lora_checkpoint") == []
    root.make("sft_shards", [CUT])
    assert root.asked("lora_checkpoint") == ["2024-10-20"]


def test_a_report_is_asked_for_once_the_days_that_judge_it_are_over(root: Root) -> None:
    """On a growing root: the calendar has no day after the newest, so none is missing to Dagster."""
    root.end("2024-10-20")
    root.make("interaction_events", ["2024-10-05"])
    root.make("sigma_base", [MONTH])
    root.make("grounded_encoder", [MONTH])
    for asset in ("lora_checkpoint", "item_index", "item_catalog", "user_profiles"):
        root.make(asset, ["2024-10-14", "2024-10-20"])
    assert root.asked("eval_report") == [], "the 14th is judged by the days up to the 21st"
    root.end("2024-10-21")
    root.make("interaction_events", ["2024-10-21"])
    assert root.asked("eval_report") == ["2024-10-14"]
