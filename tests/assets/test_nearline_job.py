"""Event files that are dropped into a root become one run each time they are new."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sigma_assets.definitions import build_definitions
from sigma_assets.nearline_job import EVENTS, MAX_TRIES, NEARLINE, nearline_job, nearline_sensor
from tests.assets.roots import small_world


def tick(root: Path, cursor: str | None) -> tuple[list[dg.RunRequest], str, str | None]:
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, cursor=cursor, definitions=dg.Definitions())
        data = nearline_sensor(root).evaluate_tick(context)
    return list(data.run_requests or []), str(data.skip_message), data.cursor


def test_a_new_or_grown_file_is_one_run_and_nothing_else_is(tmp_path: Path) -> None:
    root = tmp_path
    assert "no event file" in tick(root, None)[1]
    inbox = root / EVENTS
    inbox.mkdir(parents=True)
    (inbox / "README.txt").write_text("not events")
    assert "no event file" in tick(root, None)[1]
    (inbox / "today.jsonl").write_text("{}\n")
    asked, _, cursor = tick(root, None)
    assert len(asked) == 1
    asked_again, said, cursor = tick(root, cursor)
    assert (asked_again, said) == ([], "nothing new")
    with (inbox / "today.jsonl").open("a") as file:
        file.write("{}\n")
    (grown,), _, _ = tick(root, cursor)
    assert grown.run_key != asked[0].run_key


def test_a_run_that_failed_is_asked_for_again_a_few_times(tmp_path: Path) -> None:
    (tmp_path / EVENTS).mkdir(parents=True)
    (tmp_path / EVENTS / "today.jsonl").write_text("{}\n")
    job, keys = nearline_job(tmp_path), set()
    cursor: str | None = None
    with dg.DagsterInstance.ephemeral() as instance:

        def look() -> Any:
            context = dg.build_sensor_context(instance, cursor=cursor, definitions=dg.Definitions())
            return nearline_sensor(tmp_path).evaluate_tick(context)

        for _ in range(MAX_TRIES):
            data = look()
            (asked,) = data.run_requests or []
            keys.add(asked.run_key)
            cursor = data.cursor
            run = instance.create_run_for_job(job, tags=asked.tags)
            assert "nothing new" in str(look().skip_message), "not while it is under way"
            instance.report_run_failed(run)
        assert len(keys) == MAX_TRIES, "Dagster runs a key once"
        assert f"failed {MAX_TRIES} times" in str(look().skip_message)


def test_the_job_takes_in_what_the_command_line_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[Path, Path, bool]] = []

    def follow(root: Path, events: Path, told, *, follow: bool) -> None:
        called.append((root, events, follow))
        told("3 new events, 0 known, 0 refused; 2 users refreshed")

    monkeypatch.setattr("sigma_assets.commands.follow_events", follow)
    result = nearline_job(tmp_path).execute_in_process()
    assert result.success
    assert called == [(tmp_path, tmp_path / EVENTS, False)]


def test_the_job_is_where_an_operator_looks(tmp_path: Path) -> None:
    repository = build_definitions(root=small_world(tmp_path).root).get_repository_def()
    assert len(repository.get_job(NEARLINE).description or "") > 20
    assert repository.get_sensor_def(NEARLINE).default_status == dg.DefaultSensorStatus.STOPPED
