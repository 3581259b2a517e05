"""`sigma ui`: Dagster's UI and daemon on the artifacts of one root, on this machine only.

The root's lock is held while it runs, so that nothing else writes there; reading (`sigma recommend`) needs no lock.
"""

import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sigma_assets.binding import RootError
from sigma_assets.locking import root_lock
from sigma_assets.world import World

HOST: Final = "127.0.0.1"
_STOP_SECONDS: Final = 60


def run_ui(root: Path, port: int) -> int:
    """Run `dagster dev` until it ends or Ctrl-C; returns its exit code.

    Raises:
        RootError: nothing is materialized in the root, or dagster-webserver is not installed.
        LockedError: another process is writing to the root.
    """
    if find_spec("dagster_webserver") is None:
        raise RootError('the UI needs dagster-webserver: pip install -c requirements.lock -e ".[ui]"')
    with root_lock(root, "ui"):
        world = World.open(root)
        from sigma_assets.instance import bury_dead_runs, open_instance, prepare_home, reconcile

        home = prepare_home(root)
        with open_instance(root) as instance:
            bury_dead_runs(instance)
            reconcile(instance, world)
        sys.stderr.write(what_to_click(world, port))
        environment = {**os.environ, "SIGMA_ROOT": str(root.resolve()), "DAGSTER_HOME": str(home)}
        command = [
            sys.executable,
            "-m",
            "dagster",
            "dev",
            "-m",
            "sigma_assets.definitions",
            "-h",
            HOST,
            "-p",
            str(port),
        ]
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        return _wait(process)


def what_to_click(world: World, port: int) -> str:
    """What there is to see, in a few lines."""
    days = world.store.partitions("user_to_item_index")
    newest = days[-1] if days else "no day yet"
    return (
        f"Dagster UI of {world.root}: http://{HOST}:{port} (Ctrl-C ends it)\n"
        "  Assets > Global asset lineage   the walk from events to lists, by stage\n"
        f"  Catalog > lora_checkpoint       partition {newest}: figures, plot, lineage, checks\n"
        "  Catalog > eval_report           SIGMA beside its opponents; `page` of its metadata is the report to open\n"
        "  Runs                            every step that `sigma materialize` ran\n"
    )


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for the process group; on Ctrl-C or SIGTERM end all of it, gently first."""

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        return process.wait()
    except KeyboardInterrupt:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        return 0
