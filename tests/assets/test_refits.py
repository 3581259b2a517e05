"""Refusals on disk: which one counts, until what changes, and what stands in for a refused refit."""

from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from sigma_assets.definitions import build_definitions
from sigma_assets.refits import REFITS, REPUBLISHED, refusal_of, refusals, refuse, republished_lineage
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactError
from tests.assets.roots import small_world

FORMER, MONTH = "2024-09-01", "2024-10-01"


class Kept:
    """An artifact of no content but its digest."""

    def __init__(self, said: str) -> None:
        self.said = said

    def save(self, directory: Path) -> None:
        (directory / "said").write_text(self.said)

    def digest(self) -> str:
        return self.said

    def summary(self) -> dict[str, str]:
        return {}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A former refit is there; October's was refused."""
    made = small_world(tmp_path)
    for asset in REPUBLISHED:
        made.store.write(asset, FORMER, Kept(f"{asset} of September"))  # type: ignore[arg-type]
    refuse(made, MONTH, FORMER, "a base", "it lost")
    return made


def test_a_refused_month_is_made_from_the_former_refit(world: World) -> None:
    refusal = refusal_of(world, MONTH)
    assert refusal is not None
    assert (refusal.former, refusal.base, refusal.reason) == (FORMER, "a base", "it lost")
    for asset in REPUBLISHED:
        assert republished_lineage(world, asset, MONTH) == {
            f"republished/{asset}/{FORMER}": f"{asset} of September"
        }
        assert republished_lineage(world, asset, FORMER) == {}
    assert republished_lineage(world, "relevance_pairs", MONTH) == {}
    assert f"republished/codebooks/{FORMER}" in world.lineage(STAGES["codebooks"], MONTH), (
        "so it is stale by itself"
    )


def test_other_data_or_settings_or_no_former_refit_end_a_refusal(world: World) -> None:
    def again(**changed: str) -> World:
        return World(world.root, replace(world.binding, **changed))

    assert refusal_of(again(), MONTH) is not None
    settings = (*world.binding.settings, "promotion.margin_share=0.1")
    assert refusal_of(again(settings=settings), MONTH) is None  # type: ignore[arg-type]
    settings = (*world.binding.settings, "training.base_steps=13")
    assert refusal_of(again(settings=settings), MONTH) is None  # type: ignore[arg-type]
    settings = (*world.binding.settings, "serving.batch_users=9")
    assert refusal_of(again(settings=settings), MONTH) is not None, "no part of a refit"  # type: ignore[arg-type]
    world.store.write("interaction_history", FORMER, Kept("a late event"))  # type: ignore[arg-type]
    assert refusal_of(again(), MONTH) is None
    refuse(world, MONTH, FORMER, "another base", "it lost again")
    assert refusal_of(again(), MONTH) is not None
    world.mark_failure("codebooks", FORMER, "broken")
    assert refusal_of(again(), MONTH) is None, "nothing can stand in for it"


def test_the_sensor_asks_once_a_refusal_for_what_days_read_of_a_refit(world: World) -> None:
    def tick() -> list[dg.RunRequest]:
        definitions = build_definitions(root=world.root).get_repository_def()
        with dg.instance_for_test() as instance:
            context = dg.build_sensor_context(instance=instance, repository_def=definitions)
            data = definitions.get_sensor_def("republish_refused_refit").evaluate_tick(context)
        return list(data.run_requests or [])

    (request,) = tick()
    assert request.partition_key == MONTH
    assert [key.path[-1] for key in request.asset_selection or ()] == list(REPUBLISHED)
    assert request.run_key == f"{MONTH}-{refusals(world.root)[0].at}"
    for asset in REPUBLISHED:
        made = World.open(world.root)
        lineage = made.lineage(STAGES[asset], MONTH)
        extra = {"code_version": made.code_versions[asset], "options": ""}
        made.store.write(asset, MONTH, Kept(f"{asset} of September"), lineage=lineage, extra=extra)  # type: ignore[arg-type]
    assert not tick(), "it is published"


def test_a_line_that_is_no_refusal_is_named(world: World) -> None:
    assert len(refusals(world.root)) == 1
    with (world.root / REFITS).open("a") as file:
        file.write("{}\n")
    with pytest.raises(ArtifactError, match=r"refits.jsonl, line 2 is no refusal"):
        refusals(world.root)
