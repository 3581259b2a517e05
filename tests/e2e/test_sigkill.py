"""A run that is killed and started again ends where an undisturbed one does."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from sigma_core.artifacts import ArtifactStore
from tests.e2e.slice import COMMAND, ENVIRONMENT, digests, materialize_arguments, sigma

pytestmark = pytest.mark.e2e


def kill_after(line: str, root: Path, data: Path) -> None:
    """Start materializing and SIGKILL the process as soon as it has printed a line with `line`."""
    command = [*COMMAND, *materialize_arguments(root, data)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT
    ) as process:
        assert process.stderr
        for printed in process.stderr:
            if line in printed:
                os.kill(process.pid, signal.SIGKILL)
                break
        process.stderr.read()
        assert process.wait() == -signal.SIGKILL, f"it ended before it printed {line!r}"


def test_killed_twice_it_ends_with_the_same_artifacts(
    made: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    kill_after("interaction_events", root, data)  # between two sources
    assert ArtifactStore(root).partitions("interaction_events")
    kill_after("codebooks", root, data)  # in the middle of a Dagster run
    half = digests(root)
    assert f"sigma_base/{'2024-10-01'}" not in half
    done = sigma(*materialize_arguments(root, data))
    assert digests(root) == digests(made[0])
    assert any(line.startswith("codebooks") and "fresh" in line for line in done.stdout.splitlines())
    assert not [path for pattern in ("*/.*.tmp", "*/.*.old") for path in root.glob(pattern)]
