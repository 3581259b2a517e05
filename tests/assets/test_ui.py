import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from sigma_assets.ui import what_to_click
from tests.assets.roots import small_world


def test_it_says_where_and_what_to_click(tmp_path: Path) -> None:
    said = what_to_click(small_world(tmp_path), 3123)
    assert "http://127.0.0.1:3123" in said
    assert "no day yet" in said


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
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0
    assert not _answers(f"http://127.0.0.1:{port}/server_info", seconds=0)


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
