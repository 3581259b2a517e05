"""SIGKILL in every asset: what was there stays, no slot stays taken, and the next process goes on."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sigma_assets.commands import runner_of
from sigma_assets.instance import open_instance
from sigma_assets.stages import STAGES, TRAINING
from sigma_assets.world import World
from tests.assets.roots import Quiet
from tests.e2e.slice import ENVIRONMENT, digests

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

KILLER = """
import json, os, signal, sys
from pathlib import Path
import dagster, great_expectations, peft, torch, transformers
from sigma_assets.commands import runner_of
from sigma_assets.definitions import build_definitions
from sigma_assets.locking import root_lock
from sigma_assets.planner import Step
from sigma_assets.stages import STAGES
from sigma_assets.world import World
import sigma_assets.progress as progress, sigma_assets.runner
from tests.assets.roots import Quiet

root, steps, ended = Path(sys.argv[1]), json.loads(sys.argv[2]), []

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

for asset, partition in steps:
    pid = os.fork()  # nothing was computed before: no library has a thread yet
    if pid:
        ended.append([asset, os.waitpid(pid, 0)[1]])
        continue
    signal.alarm(120)  # a slot that stayed taken would be waited for
    torch.set_num_threads(1)
    made = STAGES[asset].artifact_type()
    whole = made.save
    made.save = lambda self, directory: (whole(self, directory), die())
    Quiet.advance = die
    with root_lock(root, "materialize"), runner_of(World.open(root), Quiet(), verbose=False) as runner:
        sigma_assets.runner.show_on(runner.reporter)
        runner._execute([Step(asset, partition)], {})
    os._exit(0)
print(json.dumps(ended))
"""


def test_a_kill_in_any_asset_costs_nothing_that_was_there(made: tuple[Path, str], tmp_path: Path) -> None:
    """In the middle of the work where an asset tells its progress, else between its files and its manifest."""
    root = tmp_path / "root"
    shutil.copytree(made[0], root)
    before, store = digests(root), World.open(root).store
    steps = [(name, store.partitions(name)[-1]) for name in STAGES if store.partitions(name)]
    assert len(steps) == len(STAGES) - 2, "all but the reports"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", KILLER, str(root), json.dumps(steps)],
        capture_output=True,
        text=True,
        check=False,
        env=ENVIRONMENT,
        timeout=1500,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == [[name, signal.SIGKILL] for name, _ in steps]
    assert digests(root) == before
    world = World.open(root)
    with runner_of(world, Quiet(), verbose=False):
        pass
    assert not [path for pattern in ("*/.*.tmp", "*/.*.old") for path in root.glob(pattern)]
    assert [f"{name}[{key}]" for name, key in steps if world.why_stale(STAGES[name], key)] == []
    with open_instance(root) as instance:
        assert instance.event_log_storage.get_concurrency_info(TRAINING).active_slot_count == 0
