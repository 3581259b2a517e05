"""Dagster's UI in a real browser: one partition made through GraphQL, the graph and an asset page opened and photographed."""

import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest

from tests.assets.roots import small_world
from tests.assets.test_ui import _answers, _launch

pytestmark = pytest.mark.ui
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DAY = "2024-10-20"
GRAPH = "/asset-groups"
ASSET = "/assets/interaction_events?view=overview"


def picture(url: str, path: Path, width: int = 1600, height: int = 1000) -> bytes:
    """A screenshot of a page."""
    command = [
        str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-device-scale-factor=1",
        f"--window-size={width},{height}", "--virtual-time-budget=30000", f"--screenshot={path}",
        f"--user-data-dir={path.parent / 'profile'}", url,
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return path.read_bytes()


def colours(png: bytes) -> int:
    """Different rows of a picture: a blank page has one."""
    data, at, rows = b"", 8, set()
    width = 0
    while at < len(png):
        size, kind = struct.unpack(">I4s", png[at : at + 8])
        if kind == b"IHDR":
            width = struct.unpack(">I", png[at + 8 : at + 12])[0]
        if kind == b"IDAT":
            data += png[at + 8 : at + 8 + size]
        at += 12 + size
    raw = zlib.decompress(data)
    stride = len(raw) // max(1, len(raw) // (width * 4 + 1)) if width else 1
    for start in range(0, len(raw), stride):
        rows.add(raw[start + 1 : start + stride])
    return len(rows)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install --no-install-recommends chromium")
def test_the_graph_and_an_asset_page_can_be_looked_at(tmp_path: Path) -> None:
    """Where SIGMA_PICTURES names a folder the screenshots are kept there; SIGMA_PICTURES_ROOT takes another root."""
    given = os.environ.get("SIGMA_PICTURES_ROOT")
    root = Path(given) if given else small_world(tmp_path).root
    folder = Path(os.environ.get("SIGMA_PICTURES", str(tmp_path)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "sigma_assets.cli", "ui", "--root", str(root), "--port", str(port)]
    with subprocess.Popen(command, env={**os.environ, "PYTHONPATH": "."}) as process:
        try:
            assert _answers(f"{url}/server_info", seconds=180)
            if not given:
                _launch(f"{url}/graphql", "interaction_events", DAY)
                made = root / "interaction_events" / DAY / "manifest.json"
                until = time.monotonic() + 240
                while not made.exists() and time.monotonic() < until:
                    time.sleep(0.5)
                assert made.exists(), "the partition was made"
            asset = ASSET if not given else "/assets/lora_checkpoint?view=overview"
            for name, page in (("dagster-graph", GRAPH), ("dagster-asset", asset)):
                png = picture(url + page, folder / f"{name}.png")
                assert colours(png) > 50, f"{name} is blank"
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(120)
