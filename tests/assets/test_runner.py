import signal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sigma_assets.instance import open_instance
from sigma_assets.intake import Intake
from sigma_assets.planner import Step
from sigma_assets.runner import Runner, StepError
from tests.assets.roots import Quiet, small_world

STEP = Step("item_embeddings", "2024-10-20")


def raising(error: BaseException | None) -> Any:
    """An `item_embeddings` input that raises; None: that sends this process SIGTERM."""

    def load(*_: object) -> object:
        if error is None:
            signal.raise_signal(signal.SIGTERM)
            raise AssertionError("the signal was not delivered")
        raise error

    return load


def test_an_interrupted_run_stops_and_is_no_failure_of_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sigma_assets.io_manager.readable", raising(None))
    world = small_world(tmp_path)
    with open_instance(world.root) as instance, pytest.raises(KeyboardInterrupt):
        Runner(world, instance, Quiet()).run([STEP])
    with open_instance(world.root) as instance:
        assert {run.status for run in instance.get_runs()} <= {
            dg.DagsterRunStatus.CANCELED,
            dg.DagsterRunStatus.FAILURE,
        }


@pytest.mark.parametrize(
    ("error", "said"), [(KeyError("loss"), "KeyError: 'loss'"), (ValueError("too few"), "too few")]
)
def test_what_a_step_raises_becomes_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    monkeypatch.setattr("sigma_assets.io_manager.readable", raising(error))
    world = small_world(tmp_path)
    with open_instance(world.root) as instance, pytest.raises(StepError) as failed:
        Runner(world, instance, Quiet()).run([STEP])
    assert str(failed.value) == f"{STEP}: {said}"


def test_the_source_is_read_once_a_process(tmp_path: Path) -> None:
    from sigma_assets.intake import intake_of

    world = small_world(tmp_path)
    first = intake_of(world)
    assert isinstance(first, Intake)
    assert intake_of(world) is first
