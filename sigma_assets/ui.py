"""`sigma ui`: Dagster's UI and daemon on the artifacts of one root, on this machine only.

The root's lock is held until the last of it has ended, so that nothing else writes there but an order (`sigma rollback`,
`sigma promote`); reading (`sigma recommend`) needs no lock. Runs, which may outlive the rest, hold a share of it themselves
(`locking.share_of_ui`).
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import date
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from sigma_assets.binding import RootError, read_binding
from sigma_assets.locking import UI, WORKS_FOR_UI, root_lock
from sigma_assets.world import World

HOST: Final = "127.0.0.1"
LOCATION: Final = "sigma_assets.definitions"
_STOP_SECONDS: Final = 60
_LOOK_SECONDS: Final = 10
_GROUP_SECONDS: Final = 0.1
_SOURCE_SECONDS: Final = "600"  # `follow_source` reads a source whole
_RELOAD: Final = (
    "mutation($name: String!) { reloadRepositoryLocation(repositoryLocationName: $name) { __typename } }"
)
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_STOPPED_BY: Final = (signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed


def run_ui(root: Path, port: int) -> int:
    """Run `dagster dev` until it ends, Ctrl-C, or its terminal is closed; returns its exit code.

    Raises:
        RootError: nothing is materialized in the root, or dagster-webserver is not installed.
        LockedError: another process is writing to the root.
    """
    if find_spec("dagster_webserver") is None:
        raise RootError('the UI needs dagster-webserver: pip install -c requirements.lock -e ".[ui]"')
    with root_lock(root, UI) as lock:
        world = World.open(root)
        from sigma_assets.instance import bury_dead_runs, open_instance, prepare_home, reconcile

        home = prepare_home(root)
        with open_instance(root) as instance:
            bury_dead_runs(instance)
            reconcile(instance, world)
        sys.stderr.write(what_to_click(world, port))
        environment = environment_of(root, home, port)
        command = [
            sys.executable,
            "-m",
            "dagster",
            "dev",
            "-m",
            LOCATION,
            "-h",
            HOST,
            "-p",
            str(port),
        ]
        lock.let_orders_in()
        return run_until_stopped(command, environment, lock.descriptor, reloading(root, port))


def environment_of(root: Path, home: Path, port: int) -> dict[str, str]:
    """What Dagster's processes find in their environment. Links of alerts lead to this UI unless SIGMA_UI_URL says otherwise."""
    from sigma_assets.alert_sources import UI_VARIABLE

    return {
        "DAGSTER_SENSOR_GRPC_TIMEOUT_SECONDS": _SOURCE_SECONDS,
        UI_VARIABLE: f"http://{HOST}:{port}",
        **os.environ,
        "SIGMA_ROOT": str(root.resolve()),
        "DAGSTER_HOME": str(home),
        WORKS_FOR_UI: "1",
    }


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


def reloading(root: Path, port: int) -> Callable[[], None]:
    """What to do now and then while the UI runs: have Dagster load the calendar again when `root.json` reaches further."""
    known = _dates(root)

    def look() -> None:
        nonlocal known
        if (now := _dates(root)) != known and _reload(port):
            known = now

    return look


def _dates(root: Path) -> tuple[date, date]:
    binding = read_binding(root)
    return binding.start, binding.end


def _reload(port: int) -> bool:
    """Ask the webserver to load the code location anew; returns whether it did."""
    body = json.dumps({"query": _RELOAD, "variables": {"name": LOCATION}}).encode()
    connection = HTTPConnection(HOST, port, timeout=_STOP_SECONDS)
    try:
        connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
        data = json.loads(connection.getresponse().read()).get("data") or {}
    except (OSError, ValueError, HTTPException):  # not up yet, or busy: asked again at the next look
        return False
    finally:
        connection.close()
    return bool(data.get("reloadRepositoryLocation", {}).get("__typename") == "WorkspaceLocationEntry")


def end_group(leader: subprocess.Popen[bytes], patience: float = _STOP_SECONDS) -> None:
    """End the process group that `leader` was started as: asked first, and after `patience` seconds, or Ctrl-C, made to.

    The group is the leader's alone, so nothing else is touched.
    """
    until = time.monotonic() + patience
    with suppress(ProcessLookupError):  # none is left
        try:
            os.killpg(leader.pid, signal.SIGTERM)
            while time.monotonic() < until:
                leader.poll()
                with suppress(ChildProcessError):  # the dead count as members until somebody asks for them
                    os.waitpid(-leader.pid, os.WNOHANG)
                os.killpg(leader.pid, 0)
                time.sleep(_GROUP_SECONDS)
        except KeyboardInterrupt:
            sys.stderr.write("\nending it at once\n")
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def run_until_stopped(
    command: list[str], environment: dict[str, str], lock: int, look: Callable[[], None] = lambda: None
) -> int:
    """Run a command as a process group of its own; on Ctrl-C, SIGTERM or SIGHUP end all of it, gently first.

    Every few seconds `look` is called. When this returns, no process of the group is left: Dagster does not wait for its code
    server, and a run goes on in there.

    The child inherits the descriptor `lock`, and on Linux it is asked to end when this process is killed.
    """

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    heard = [one for one in _STOPPED_BY if signal.getsignal(one) != signal.SIG_IGN]  # `nohup` ignores SIGHUP
    former = {one: signal.signal(one, stop) for one in heard}
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # not every init asks for orphans

    def end_with_parent() -> None:
        if libc:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    process = subprocess.Popen(
        command, env=environment, start_new_session=True, pass_fds=(lock,), preexec_fn=end_with_parent
    )
    try:
        while True:
            try:
                return process.wait(_LOOK_SECONDS)
            except subprocess.TimeoutExpired:
                look()
    except KeyboardInterrupt:
        for one in heard:
            signal.signal(one, signal.SIG_IGN)  # a closed terminal may send both; one is enough
        return 0
    finally:
        end_group(process)
        for one, handler in former.items():
            signal.signal(one, handler)
