import subprocess
import sys
from pathlib import Path

import pytest

from sigma_assets.locking import LockedError, root_lock

HOLD = "import sys; from pathlib import Path; from sigma_assets.locking import root_lock\nwith root_lock(Path(sys.argv[1]), 'materialize'):\n print('held', flush=True); sys.stdin.read()"


def test_a_second_process_learns_who_holds_the_root(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(LockedError, match=f"sigma materialize.*process {holder.pid}"),
            root_lock(tmp_path, "ui"),
        ):
            pass
        holder.kill()  # SIGKILL: the lock goes with the process
        holder.wait()
        with root_lock(tmp_path, "ui"):
            pass


def test_the_lock_is_free_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with root_lock(tmp_path / "new", "evaluate"):
            pass
