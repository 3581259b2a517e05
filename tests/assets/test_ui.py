import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from sigma_assets.alerts import AlertLog
from sigma_assets.growing import FOLLOW
from sigma_assets.instance import open_instance
from sigma_assets.locking import RUNS_FILE, LockedError, root_lock
from sigma_assets.periods import as_date
from sigma_assets.ui import LOCATION, end_group, environment_of, what_to_click
from tests.assets.roots import small_world, with_broken_day
from tests.assets.test_alerts import Web
from tests.assets.test_growing import NEXT, source_until
from tests.toy_world import small_source, write_tabular


def test_it_says_where_and_what_to_click(tmp_path: Path) -> None:
    said = what_to_click(small_world(tmp_path), 3123)
    assert "http://127.0.0.1:3123" in said
    assert "no day yet" in said


def test_links_of_alerts_lead_to_this_ui(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGMA_UI_URL", raising=False)
    assert environment_of(tmp_path, tmp_path, 3123)["SIGMA_UI_URL"] == "http://127.0.0.1:3123"
    monkeypatch.setenv("SIGMA_UI_URL", "https://dagster.example.org")
    assert environment_of(tmp_path, tmp_path, 3123)["SIGMA_UI_URL"] == "https://dagster.example.org"


STAND_IN = """
import os, sys
from pathlib import Path
from sigma_assets.locking import root_lock
from sigma_assets.ui import run_until_stopped
child = "import time; print('here', flush=True); time.sleep(60)"
with root_lock(Path(sys.argv[1]), "ui") as lock:
    run_until_stopped([sys.executable, "-c", child], dict(os.environ), lock.descriptor)
"""


@pytest.mark.parametrize("sent", [signal.SIGHUP, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_it_its_child_ends_too_and_the_root_is_locked_until_then(
    tmp_path: Path, sent: signal.Signals
) -> None:
    if sent == signal.SIGKILL and sys.platform != "linux":
        pytest.skip("only Linux tells a child that its parent was killed")
    command = [sys.executable, "-c", STAND_IN, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as ui:
        assert ui.stdout
        assert ui.stdout.readline() == "here\n"
        with pytest.raises(LockedError), root_lock(tmp_path, "materialize"):
            pass
        ui.send_signal(sent)
        assert ui.stdout.read() == "", "the pipe ends when the child has"
        ui.wait()
    with root_lock(tmp_path, "materialize"):
        pass


def test_a_child_that_outlives_it_keeps_the_root_locked(tmp_path: Path) -> None:
    with root_lock(tmp_path, "ui") as lock:
        child = subprocess.Popen(["sleep", "60"], pass_fds=(lock.descriptor,))
    with child:
        with pytest.raises(LockedError), root_lock(tmp_path, "materialize"):
            pass
        child.kill()
    with root_lock(tmp_path, "materialize"):
        pass


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked after does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return found.stdout.strip()[:1] not in ("", "Z")


LEAVES_ONE_BEHIND = """
import os, sys
from sigma_assets.ui import run_until_stopped
with open(os.devnull) as lock:
    run_until_stopped(["sh", "-c", "sleep 60 & echo $!"], dict(os.environ), lock.fileno())
"""


def test_what_its_child_left_behind_has_ended_too(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LEAVES_ONE_BEHIND], capture_output=True, text=True, check=True
    )
    assert not is_alive(int(ran.stdout))


def test_what_does_not_listen_is_made_to_end() -> None:
    deaf = "trap '' TERM; sleep 60 & echo here; while :; do wait; done"
    with subprocess.Popen(["sh", "-c", deaf], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout
        process.stdout.readline()
        end_group(process, patience=0.2)
        assert process.stdout.read() == b"", "the pipe ends when both have"
    assert process.returncode == -signal.SIGKILL


@pytest.mark.ui
def test_the_ui_comes_up_holds_the_root_and_goes_away_whole(tmp_path: Path) -> None:
    root = small_world(tmp_path).root
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sigma_assets.cli", "ui", "--root", str(root), "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "."}) as process:
        try:
            assert _answers(f"http://127.0.0.1:{port}/server_info", seconds=90)
            refused = subprocess.run(
                [*command[:3], "materialize", "--root", str(root), "--as-of", "2024-10-20"],
                capture_output=True,
                text=True,
                check=False,
            )
            assert "sigma ui" in refused.stderr
            with (root / RUNS_FILE).open() as runs, pytest.raises(BlockingIOError):
                fcntl.flock(runs, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the code server holds its own share
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
    assert not _answers(f"http://127.0.0.1:{port}/server_info", seconds=0)


LAUNCH = """mutation($run: ExecutionParams!) { launchPipelineExecution(executionParams: $run) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


@pytest.mark.ui
def test_a_failed_check_of_the_daemons_run_becomes_an_alert(tmp_path: Path) -> None:
    """From a run launched as the UI does, through the daemon's sensors, to a webhook on loopback."""
    day = "2024-09-20"
    source = with_broken_day(small_source(num_users=20, num_items=40, days=45), as_date(day))
    root, web = small_world(tmp_path, source).root, Web()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": ".",
        "SIGMA_ALERT_SINKS": "webhook",
        "SIGMA_ALERT_WEBHOOK_URL": web.sink.url,
        "SIGMA_UI_URL": f"http://127.0.0.1:{port}",
    }
    command = [sys.executable, "-m", "sigma_assets.cli", "ui", "--root", str(root), "--port", str(port)]
    with subprocess.Popen(command, env=environment) as process:
        try:
            assert _answers(f"http://127.0.0.1:{port}/server_info", seconds=120)
            run = _launch(f"http://127.0.0.1:{port}/graphql", "interaction_events", day)
            until = time.monotonic() + 180
            while not web.got and time.monotonic() < until:
                time.sleep(0.5)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(90)
            web.server.shutdown()
    said = {message["text"]: message["blocks"][1]["text"]["text"] for message in web.got}
    assert f"/runs/{run}" in said[f"ERROR interaction_events[{day}] contract"]
    assert {alert.run_id for alert in AlertLog(root).alerts()} == {run}
    with open_instance(root) as instance:
        checks = instance.all_logs(run, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION)
    raised = datetime.fromisoformat(AlertLog(root).alerts()[0].at).timestamp()
    print(f"the alert was raised {raised - checks[0].timestamp:.0f} s after its check")


START = """mutation($sensor: SensorSelector!) { startSensor(sensorSelector: $sensor) { __typename } }"""


@pytest.mark.ui
def test_a_source_that_grows_under_an_open_ui_is_ingested(tmp_path: Path) -> None:
    """The sensor binds the new day, the UI has the calendar loaded again, and the daemon runs `ingest_day` for it."""
    world = small_world(tmp_path, source_until(45))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "sigma_assets.cli", "ui", "--root", str(world.root), "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "."}) as process:
        try:
            assert _answers(f"http://127.0.0.1:{port}/server_info", seconds=120)
            sensor = {
                "repositoryLocationName": LOCATION,
                "repositoryName": "__repository__",
                "sensorName": FOLLOW,
            }
            started = _ask(f"http://127.0.0.1:{port}/graphql", START, {"sensor": sensor})
            assert started["startSensor"]["__typename"] == "Sensor", started
            write_tabular(source_until(46), tmp_path / "data")
            until = time.monotonic() + 300
            while not world.manifest("interaction_events", NEXT[0]) and time.monotonic() < until:
                time.sleep(1)
        finally:
            process.send_signal(signal.SIGHUP)
            assert process.wait(90) == 0
    assert world.manifest("interaction_events", NEXT[0])


def _launch(url: str, asset: str, day: str) -> str:
    """Launch one partition of one asset through GraphQL; returns the run's id."""
    selector = {
        "repositoryLocationName": "sigma_assets.definitions",
        "repositoryName": "__repository__",
        "jobName": "__ASSET_JOB",
        "assetSelection": [{"path": [asset]}],
        "assetCheckSelection": [
            {"assetKey": {"path": [asset]}, "name": name}
            for name in ("contract", "contract_warnings", "drift")
        ],
    }
    tags = [{"key": "dagster/partition", "value": day}]
    run = {"selector": selector, "mode": "default", "executionMetadata": {"tags": tags}}
    launched = _ask(url, LAUNCH, {"run": run})["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched
    return str(launched["run"]["runId"])


def _ask(url: str, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    body = json.dumps({"query": query, "variables": variables}).encode()
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.loads(answer.read())["data"])


def _answers(url: str, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(url, timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            if time.monotonic() > until:
                return False
            time.sleep(0.5)
