"""What must survive: a full disk, half a partition, a corrupt manifest, two writers at once."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import polars as pl
import pytest

from sigma_assets import io_manager, ledger, masters
from sigma_assets.alerts import AlertLog
from sigma_assets.binding import RootError
from sigma_assets.instance import open_instance, reconcile
from sigma_assets.planner import Step
from sigma_assets.runner import Runner, StepError
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core import artifacts
from sigma_core import columns as c
from sigma_core.artifacts import (
    MANIFEST,
    ArtifactError,
    ArtifactStore,
    DamagedError,
    read_manifest,
    write_artifact,
    write_json,
)
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.events import InteractionEvents
from tests.assets.roots import Quiet, small_world
from tests.toy_world import toy_catalog, toy_events

DAYS = ("2024-10-19", "2024-10-20")
STEPS = [Step("interaction_events", day) for day in DAYS]


@contextmanager
def runner_of(world: World) -> Iterator[Runner]:
    with open_instance(world.root) as instance:
        yield Runner(world, instance, Quiet())


def leftovers(root: Path) -> list[Path]:
    return [path for pattern in ("*/.*.tmp", "*/.*.old", ".*.tmp") for path in root.glob(pattern)]


# -------------------------------------------------------------------------------------- a full disk
def test_a_disk_that_fills_up_leaves_the_former_partition_and_no_rest(tmp_path: Path) -> None:
    """A real limit: no file of the child may grow beyond 2,000 bytes."""
    store = ArtifactStore(tmp_path)
    store.write("interaction_events", "2024-03-01", InteractionEvents(toy_events().head(1)))
    before = store.manifest("interaction_events", "2024-03-01")
    code = (
        "import sys; from pathlib import Path; import polars as pl; from tests.toy_world import toy_events\n"
        "from sigma_core.artifacts import ArtifactStore; from sigma_core.data.events import InteractionEvents\n"
        "big = pl.concat([toy_events()] * 500)\n"
        "ArtifactStore(Path(sys.argv[1])).write('interaction_events', '2024-03-01', InteractionEvents(big))"
    )

    def small_disk() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    done = subprocess.run(
        [sys.executable, "-B", "-c", code, str(tmp_path)],
        preexec_fn=small_disk,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert store.manifest("interaction_events", "2024-03-01") == before
    assert store.read(InteractionEvents, "interaction_events", "2024-03-01").frame.height == 1
    assert leftovers(tmp_path) == []


def test_a_step_on_a_full_disk_fails_in_one_line_with_an_alert_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = small_world(tmp_path)
    whole = InteractionEvents.save

    def full(self: InteractionEvents, directory: Path) -> None:
        whole(self, directory)
        raise OSError(errno.ENOSPC, "No space left on device")

    with runner_of(world) as runner:
        monkeypatch.setattr(InteractionEvents, "save", full)
        with pytest.raises(StepError, match="No space left on device"):
            runner.run_singly(STEPS[:1])
        assert world.store.partitions("interaction_events") == []
        assert leftovers(world.root) == []
        assert [alert.kind for alert in AlertLog(world.root).alerts()] == ["run_failed"]
        monkeypatch.undo()
        assert [one.is_fresh for one in runner.run_singly(STEPS[:1])] == [False]
    assert AlertLog(world.root).open_keys() == [], "it is over"


def test_alerts_that_cannot_be_kept_fail_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = small_world(tmp_path)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(AlertLog, "resolve", full)
    with runner_of(world) as runner:
        assert [one.is_fresh for one in runner.run_singly(STEPS[:1])] == [False]
    assert "could not be kept" in caplog.text


def test_json_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "a.json", {"a": 1})

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "a.json", {"a": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == '{\n "a": 1\n}'


# ------------------------------------------------------------------------------- damage on the disk
@pytest.mark.parametrize("content", ["", '{"artifact": "Inter', "[]", "{}", "\udcff"])
def test_a_corrupt_manifest_costs_its_own_partition_alone(tmp_path: Path, content: str) -> None:
    world = small_world(tmp_path)
    with runner_of(world) as runner:
        runner.run(STEPS)
    manifest = world.store.path("interaction_events", DAYS[0]) / MANIFEST
    digest = world.store.manifest("interaction_events", DAYS[0])["digest"]
    manifest.write_bytes(content.encode(errors="surrogateescape"))
    world = World.open(world.root)
    assert world.why_stale(STAGES["interaction_events"], DAYS[0]) == "missing"
    with runner_of(world) as runner:
        assert reconcile(runner.instance, world) == 0
        done = runner.run(STEPS)
        assert sorted((one.step.partition, one.is_fresh) for one in done) == [
            (DAYS[0], False),
            (DAYS[1], True),
        ]
    assert world.store.manifest("interaction_events", DAYS[0])["digest"] == digest


def test_half_a_partition_is_no_partition(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    half = world.store.path("interaction_events", DAYS[0])
    half.mkdir(parents=True)
    (half / "table.parquet").write_bytes(b"PAR1 half of it")
    assert world.store.partitions("interaction_events") == []
    with runner_of(world) as runner:
        runner.run(STEPS[:1])
    assert world.store.read(InteractionEvents, "interaction_events", DAYS[0]).frame.height > 0


@pytest.mark.parametrize("how", ["cut", "gone"])
def test_a_table_cut_short_is_named_with_the_remedy(tmp_path: Path, how: str) -> None:
    store = ArtifactStore(tmp_path)
    store.write("interaction_events", DAYS[0], InteractionEvents(toy_events()))
    table = store.path("interaction_events", DAYS[0]) / "table.parquet"
    table.unlink() if how == "gone" else table.write_bytes(table.read_bytes()[:50])
    with pytest.raises(DamagedError, match=r"is damaged .* delete it and materialize again"):
        store.read(InteractionEvents, "interaction_events", DAYS[0])


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files"),
        pl.exceptions.ComputeError("Too many open files (os error 24)"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_what_the_machine_lacks_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Nobody is told to delete a whole artifact, and no partition is made again for it."""

    def lacking(*_: object) -> None:
        raise error

    store = ArtifactStore(tmp_path)
    store.write("interaction_events", DAYS[0], InteractionEvents(toy_events()))
    monkeypatch.setattr(InteractionEvents, "load", lacking)
    with pytest.raises(ArtifactError, match="may be whole") as told:
        store.read(InteractionEvents, "interaction_events", DAYS[0])
    assert not isinstance(told.value, DamagedError)
    if isinstance(error, OSError):
        monkeypatch.setattr(Path, "read_text", lacking)
        with pytest.raises(ArtifactError, match="Too many open files") as told:
            read_manifest(store.path("interaction_events", DAYS[0]))
        assert not isinstance(told.value, DamagedError)


def test_a_reader_between_the_two_renames_of_a_writer_waits_for_the_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore(tmp_path)
    store.write("interaction_events", DAYS[0], InteractionEvents(toy_events()))
    folder = store.path("interaction_events", DAYS[0])
    aside = folder.with_name(f".{folder.name}.0a0a0a0a.old")
    folder.rename(aside)
    monkeypatch.setattr(artifacts.time, "sleep", lambda _: aside.rename(folder))
    value = store.read(InteractionEvents, "interaction_events", DAYS[0])
    assert value.frame.height == toy_events().height


# --------------------------------------------------------------------------------- two writers at once
WRITER = """
import sys
from pathlib import Path
import polars as pl
from sigma_core import columns as c
from sigma_core.artifacts import ArtifactStore
from sigma_core.data.events import InteractionEvents
from tests.toy_world import toy_events
value = InteractionEvents(toy_events().with_columns(pl.lit(sys.argv[2]).alias(c.USER_ID)))
print("ready", flush=True); sys.stdin.readline()
for _ in range(60):
    ArtifactStore(Path(sys.argv[1])).write("interaction_events", "2024-03-01", value)
"""


def test_two_runs_on_one_partition_leave_one_whole_version(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("first", "second")
    ]
    for writer in writers:
        assert writer.stdout
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        assert writer.stdin
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors[-1500:]
    store = ArtifactStore(tmp_path)
    value = store.read(InteractionEvents, "interaction_events", "2024-03-01")
    assert value.digest() == store.manifest("interaction_events", "2024-03-01")["digest"]
    assert value.frame[c.USER_ID].n_unique() == 1
    assert leftovers(tmp_path) == []


def test_an_artifact_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = InteractionEvents(toy_events()), InteractionEvents(toy_events().head(2))
    write_artifact(old, tmp_path / "a")
    move = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp") and self.is_dir():
            raise PermissionError(errno.EACCES, "Permission denied")
        return move(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises((PermissionError, ArtifactError)):
        write_artifact(new, tmp_path / "a")
    assert pl.read_parquet(tmp_path / "a" / "table.parquet").height == toy_events().height


def test_a_writer_killed_between_its_renames_loses_neither_version(tmp_path: Path) -> None:
    store, whole = ArtifactStore(tmp_path), toy_events()
    for place, has_new in (("a", True), ("b", False), ("c", True)):
        store.write("interaction_events", place, InteractionEvents(whole.head(1)))
        folder = store.path("interaction_events", place)
        if place != "c":
            folder.rename(folder.with_name(f".{place}.0a0a0a0a.old"))
        tmp = folder.with_name(f".{place}.17.0b0b0b0b.tmp")
        write_artifact(InteractionEvents(whole), tmp)
        if not has_new:
            (tmp / "manifest.json").unlink()
    list(store.sweep())
    heights = {p: store.read(InteractionEvents, "interaction_events", p).frame.height for p in "abc"}
    assert heights == {"a": whole.height, "b": 1, "c": 1}, "new, former, never moved aside"
    assert leftovers(tmp_path) == []


def test_an_artifacts_files_are_on_the_disk_before_its_manifest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    def sync(descriptor: int) -> None:
        order.append(Path(f"/proc/self/fd/{descriptor}").readlink().name.split(".")[-1])

    monkeypatch.setattr(os, "fsync", sync)
    write_artifact(InteractionEvents(toy_events()), tmp_path / "place" / "a")
    assert order == ["parquet", "tmp", "place"]  # the table, the manifest under its first name, the folder


def test_what_a_process_wrote_is_shared_as_long_as_it_lies_on_disk(tmp_path: Path) -> None:
    world, catalog = small_world(tmp_path), toy_catalog()
    io_manager.write(world, "item_catalog", DAYS[0], catalog, lineage={})
    assert io_manager.load(world, "item_catalog", DAYS[0]) is catalog
    other = ItemCatalog(catalog.frame.head(1))
    world.store.write("item_catalog", DAYS[0], other)  # another process
    assert io_manager.load(world, "item_catalog", DAYS[0]).frame.equals(other.frame)


class TwoFiles:
    """An artifact of two files that say the same; `between` is called after the first one was read."""

    between: ClassVar[list[Callable[[], None]]] = []

    def __init__(self, *said: str) -> None:
        self.said = said

    def save(self, directory: Path) -> None:
        for name in "ab":
            (directory / name).write_text(self.said[0])

    @classmethod
    def load(cls, directory: Path) -> "TwoFiles":
        first = (directory / "a").read_text()
        if cls.between:
            cls.between.pop()()
        return cls(first, (directory / "b").read_text())

    def digest(self) -> str:
        return self.said[0]

    def summary(self) -> dict[str, str]:
        return {}


def test_a_value_is_never_made_of_two_versions(tmp_path: Path) -> None:
    """A rollback publishes lists while a server reads them: some files old, some new, or gone with the old folder."""
    store = ArtifactStore(tmp_path)
    store.write("lists", "2024-03-01", TwoFiles("old"))
    TwoFiles.between[:] = [lambda: store.write("lists", "2024-03-01", TwoFiles("new"))]
    assert store.read(TwoFiles, "lists", "2024-03-01").said == ("new", "new")


def test_a_folder_in_the_place_of_a_manifest_costs_its_own_partition(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    (world.store.path("interaction_events", DAYS[0]) / MANIFEST).mkdir(parents=True)
    (world.root / "interaction_events" / DAYS[1]).write_text("a file")
    assert [world.why_stale(STAGES["interaction_events"], day) for day in DAYS] == ["missing", "missing"]


@pytest.mark.parametrize("table", [pl.DataFrame({"a": [1]}), pl.DataFrame()])
def test_a_table_of_other_columns_is_named_with_the_remedy(tmp_path: Path, table: pl.DataFrame) -> None:
    store = ArtifactStore(tmp_path)
    store.write("interaction_events", DAYS[0], InteractionEvents(toy_events()))
    table.write_parquet(store.path("interaction_events", DAYS[0]) / "table.parquet")
    with pytest.raises(DamagedError, match=rf"{DAYS[0]} is damaged .* delete it and materialize again"):
        store.read(InteractionEvents, "interaction_events", DAYS[0])


def test_an_error_of_writing_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: .*a.json"):
        write_json(tmp_path / "a.json", {})
    with pytest.raises(OSError, match=r"No space left on device: .*events"):
        write_artifact(InteractionEvents(toy_events()), tmp_path / "events")


def test_an_entry_that_the_disk_takes_half_of_is_not_in_the_ledger(tmp_path: Path) -> None:
    """A real limit: the file of the child may grow by 10 bytes; closing it must not write the rest of a buffer."""
    path = tmp_path / "orders.jsonl"
    ledger.append(path, {"a": 1})
    code = (
        "import resource, signal, sys; from pathlib import Path; from sigma_assets.ledger import append\n"
        "path = Path(sys.argv[1]); most = path.stat().st_size + 10\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))\n"
        "append(path, {'b': 'x' * 60})\n"
    )
    child = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)
    assert "File too large" in child.stderr
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_damaged_product_master_is_named_and_one_that_is_named_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = small_world(tmp_path)
    order: list[str] = []
    sync = os.fsync
    monkeypatch.setattr(
        os, "fsync", lambda at: (order.append(Path(f"/proc/self/fd/{at}").readlink().name), sync(at))[1]
    )
    masters.remember_first(world.root, world.binding)
    assert ".parquet." in order[0]
    (file,) = (world.root / masters.FOLDER).iterdir()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RootError, match=rf"{file.name} is damaged .* put it back from a backup"):
        masters.current_master(world.root, world.binding, world.binding.start)
