"""`walks.py` in a process of its own: a device that torch was told of stays, and other tests must not find it."""

import os
import subprocess
import sys
from pathlib import Path

WALKS = Path(__file__).with_name("walks.py")


def test_what_trains_and_answers_keeps_to_its_device() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", str(WALKS)],
        capture_output=True,
        text=True,
        check=False,
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "passed" in done.stdout
