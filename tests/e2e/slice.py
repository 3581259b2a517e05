"""One tiny root, made by the real command line, shared by the tests of this folder; and how to call that command line."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

from sigma_assets.stages import STAGES
from sigma_core.artifacts import ArtifactStore
from tests.toy_world import small_source, write_tabular

DAY = date(2024, 10, 28)
SETTINGS = (
    "data.left_censored_days=14",
    "data.min_category_items=5",
    "evaluation.min_targets=20",
    "evaluation.min_users=5",
)
COMMAND = (sys.executable, "-m", "sigma_assets.cli")
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "WANDB_MODE": "disabled"}


def write_data(folder: Path) -> Path:
    return write_tabular(small_source(), folder)


def materialize_arguments(root: Path, data: Path) -> list[str]:
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    return [
        *(
            "materialize",
            "--root",
            str(root),
            "--as-of",
            DAY.isoformat(),
            "--source",
            "tabular",
            "--path",
            str(data),
        ),
        *("--profile", "toy", "--threads", "1", *settings),
    ]


def sigma(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Call the command line; it must end with `code`."""
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, check=False, env=ENVIRONMENT
    )
    assert done.returncode == code, (
        f"{arguments}: exit {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    )
    return done


def digests(root: Path) -> dict[str, str]:
    """Digest of every complete partition of the root."""
    store = ArtifactStore(root)
    return {
        f"{asset}/{key}": store.manifest(asset, key)["digest"]
        for asset in STAGES
        for key in store.partitions(asset)
    }
