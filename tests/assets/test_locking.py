import os
import subprocess
import sys
from pathlib import Path

import pytest

from sigma_assets.locking import WORKS_FOR_UI, LockedError, order_lock, root_lock, share_of_ui

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


def test_a_lock_file_of_something_else_is_a_lock_all_the_same(tmp_path: Path) -> None:
    with root_lock(tmp_path, "ui"):
        for text in ("[]", "{}", "null", "half of {"):
            (tmp_path / ".lock").write_text(text)
            with pytest.raises(LockedError, match="in use by another process"), root_lock(tmp_path, "prune"):
                pass


def test_the_lock_is_free_after_the_block(tmp_path: Path) -> None:
    for _ in range(2):
        with root_lock(tmp_path / "new", "evaluate"):
            pass


def test_an_order_goes_beside_an_open_ui_and_beside_nothing_else(tmp_path: Path) -> None:
    with order_lock(tmp_path, "rollback") as alone:
        assert alone
        with pytest.raises(LockedError, match="sigma rollback"), root_lock(tmp_path, "ui"):
            pass
    with root_lock(tmp_path, "ui") as ui:
        with pytest.raises(LockedError, match="sigma ui"), order_lock(tmp_path, "rollback"):
            pass  # it is just starting
        ui.let_orders_in()
        with order_lock(tmp_path, "rollback") as alone:
            assert not alone
            with pytest.raises(LockedError, match="sigma rollback"), order_lock(tmp_path, "promote"):
                pass
        with pytest.raises(LockedError, match="Close it first"), root_lock(tmp_path, "materialize"):
            pass
    with (
        root_lock(tmp_path, "materialize"),
        pytest.raises(LockedError, match="sigma materialize"),
        order_lock(tmp_path, "rollback"),
    ):
        pass


def test_a_materialization_waits_for_an_order_given_beside_a_ui_that_has_ended(tmp_path: Path) -> None:
    with root_lock(tmp_path, "ui") as ui:
        ui.let_orders_in()
        order = order_lock(tmp_path, "rollback")
        order.__enter__()
    with pytest.raises(LockedError, match="sigma rollback"), root_lock(tmp_path, "materialize"):
        pass
    order.__exit__(None, None, None)
    with root_lock(tmp_path, "materialize"):
        pass


RUN = "import sys; from pathlib import Path; from sigma_assets.locking import share_of_ui\nshare_of_ui(Path(sys.argv[1])); print('works', flush=True); sys.stdin.read()"


def test_a_run_that_outlives_the_ui_keeps_the_root_locked(tmp_path: Path) -> None:
    """It inherits no descriptor: Dagster closes them all."""
    command = [sys.executable, "-c", RUN, str(tmp_path)]
    with root_lock(tmp_path, "ui") as ui:
        ui.let_orders_in()
        run = subprocess.Popen(
            command,
            env={**os.environ, WORKS_FOR_UI: "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert run.stdout
        assert run.stdout.readline() == "works\n"
    with run:
        with pytest.raises(LockedError, match="a run of `sigma ui`"), root_lock(tmp_path, "materialize"):
            pass
        with order_lock(tmp_path, "rollback") as alone:
            assert not alone, "its files and its record stay as they are"
        run.kill()
    with root_lock(tmp_path, "materialize"):
        pass


def test_nothing_joins_a_ui_that_has_ended_while_a_verb_is_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WORKS_FOR_UI, "1")
    with root_lock(tmp_path, "materialize"), pytest.raises(LockedError, match="sigma materialize"):
        share_of_ui(tmp_path)
    monkeypatch.delenv(WORKS_FOR_UI)
    share_of_ui(tmp_path)
    with root_lock(tmp_path, "materialize"):
        pass  # a process that the UI did not start shares nothing
