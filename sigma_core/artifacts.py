"""Artifacts on disk: what one is, how it is written so that a reader never sees half of it, and how it is found again.

Holds the `Artifact` protocol, the atomic directory write (manifest last, then one rename), and
`ArtifactStore`, which owns `<root>/<asset>/<partition>/`. It knows no asset, no model and no Dagster.
Our choice; the paper is silent.
"""

import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import polars as pl
from pydantic import TypeAdapter, ValidationError

from sigma_core.damage import UNREADABLE, is_damage
from sigma_core.digests import digest_arrays as digest_arrays
from sigma_core.digests import digest_bytes as digest_bytes
from sigma_core.digests import digest_frame as digest_frame
from sigma_core.digests import digest_json as digest_json

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
_MANIFEST_KEYS = ("artifact", "digest", "lineage", "summary")
_PUBLISH_TRIES = 100
_READ_TRIES = 5
_GAP_SECONDS = 0.05
TABLE = "table.parquet"

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T", bound="Artifact")
D = TypeVar("D", bound="DataclassInstance")


class ArtifactError(RuntimeError):
    """An artifact is missing, incomplete, corrupt or bound to other artifacts than the reader's."""


class DamagedError(ArtifactError):
    """Files of an artifact are not what was written: cut short, overwritten or deleted by hand."""


@runtime_checkable
class Artifact(Protocol):
    """A typed value that lives in one directory. `digest` covers canonical content: no times, paths or versions."""

    def save(self, directory: Path) -> None:
        """Write the content (not the manifest) into an existing empty directory."""

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote."""

    def digest(self) -> str:
        """Hex digest of the content: equal content, equal digest, on any day and path."""

    def summary(self) -> dict[str, Any]:
        """Counts and figures worth showing beside the artifact (JSON values only)."""


# ---------------------------------------------------------------------------------- atomic writing
def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader sees the old one or the whole new one."""
    tmp = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with tmp.open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
        tmp.replace(path)
    except OSError as error:
        raise _named(error, path) from error
    finally:
        tmp.unlink(missing_ok=True)  # only there when the disk was full or the process was stopped


def write_json(path: Path, value: Any) -> None:
    """Write JSON, as `write_bytes` does."""
    write_bytes(path, json.dumps(value, indent=1, sort_keys=True, default=str).encode())


def read_json(path: Path, remedy: str | None = None) -> Any:
    """Parse a JSON file; a broken one is an `ArtifactError` that names it and says what to do (`remedy`, if given)."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise ArtifactError(f"{path} does not exist.") from error
    except PermissionError as error:
        raise ArtifactError(f"{path} may not be read by this user; give the right to read it.") from error
    except OSError as error:  # a folder in its place, a disk that fails
        if not is_damage(error):  # open files ran out: nobody may make it again for that
            raise ArtifactError(f"{path} cannot be read now ({error.strerror}).") from error
        raise DamagedError(f"{path} cannot be read ({error.strerror}); {remedy or _remedy(path)}.") from error
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8
        raise DamagedError(f"{path} is not valid JSON ({error}); {remedy or _remedy(path)}.") from error


def read_object(path: Path, keys: Sequence[str], remedy: str | None = None) -> dict[str, Any]:
    """The JSON object in a file, with at least these keys; anything else is an error, as `read_json` has it."""
    values = read_json(path, remedy)
    if not isinstance(values, dict):
        raise DamagedError(f"{path} is no JSON object; {remedy or _remedy(path)}.")
    if lost := [key for key in keys if key not in values]:
        raise DamagedError(f"{path} lacks {', '.join(lost)}; {remedy or _remedy(path)}.")
    return values


def read_dataclass(cls: type[D], path: Path, remedy: str | None = None) -> D:
    """The dataclass whose fields a JSON object holds, types checked; keys it does not know are passed over.

    Raises:
        ArtifactError: there is no file.
        DamagedError: a field is missing or of another type, or the file is no JSON object.
    """
    needed = [f.name for f in fields(cls) if f.default is MISSING and f.default_factory is MISSING]
    values = read_object(path, needed, remedy)
    try:
        return TypeAdapter(cls).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedError(
            f"{path}: {where} is wrong ({first['msg']}); {remedy or _remedy(path)}."
        ) from error


def _remedy(path: Path) -> str:
    """What to do about a broken file: an artifact is made again as a whole, of all else only the file is given up."""
    folder = next((parent for parent in path.parents[:3] if (parent / MANIFEST).exists()), None)
    return f"delete {folder} and materialize again" if folder else "delete it and run the same command again"


def write_artifact(
    artifact: Artifact,
    directory: Path,
    *,
    lineage: Mapping[str, str] | None = None,
    compatibility: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `artifact` to `directory` so that it is there whole or not at all; returns the manifest.

    The content goes to a sibling temporary directory and onto the disk, the manifest is written last, then one rename publishes it.
    A former version is moved aside before the rename and removed after it; killed in between, `ArtifactStore.sweep` puts one back.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    tmp = directory.with_name(f".{directory.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    tmp.mkdir()
    try:
        artifact.save(tmp)
        manifest: dict[str, Any] = {
            "artifact": type(artifact).__name__,
            "schema_version": SCHEMA_VERSION,
            "digest": artifact.digest(),
            "lineage": dict(sorted((lineage or {}).items())),
            "compatibility": dict(sorted((compatibility or {}).items())),
            "summary": artifact.summary(),
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **(extra or {}),
        }
        for path in tmp.rglob("*"):  # on the disk before the manifest says that they are whole
            if path.is_file():
                sync(path)
        write_json(tmp / MANIFEST, manifest)
        publish(tmp, directory)
    except OSError as error:
        raise _named(error, directory) from error
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    return manifest


def publish(tmp: Path, directory: Path) -> None:
    """Put the finished directory `tmp` in the place of `directory` by renames; of two writers at once the later one stays."""
    for _ in range(_PUBLISH_TRIES):
        old = directory.with_name(f".{directory.name}.{uuid.uuid4().hex[:8]}.old")
        with suppress(FileNotFoundError):  # nothing there, or another writer has just moved it aside
            directory.rename(old)
        is_there = False
        try:
            tmp.rename(directory)
            is_there = True
        except OSError as error:
            if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
                raise
            continue  # another writer was quicker: its version is moved aside next
        finally:
            if not (is_there or directory.exists()):  # the disk refused, or Ctrl-C in between
                with suppress(OSError):
                    old.rename(directory)
            if is_there or directory.exists():  # else the former version stays where `sweep` finds it
                shutil.rmtree(old, ignore_errors=True)
        sync(directory.parent)
        return
    raise ArtifactError(
        f"{directory} is being written by other processes without end; let one of them finish."
    )


def _named(error: OSError, path: Path) -> OSError:
    """The error with the place that was to be written in its message; libraries leave it out, or name a temporary one."""
    return type(error)(error.errno, error.strerror or str(error), str(path)) if error.errno else error


def sync(path: Path) -> None:
    """Wait until the file's content, or the folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _version(directory: Path) -> tuple[int, int] | None:
    """What tells a written artifact from the one that takes its place; None while there is none."""
    try:
        found = (directory / MANIFEST).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _settled(directory: Path) -> tuple[int, int] | None:
    """Its version; between the two renames of `publish` there is none, so that it is looked for once more."""
    found = _version(directory)
    if found is None and any(directory.parent.glob(f".{directory.name}.*.old")):
        time.sleep(_GAP_SECONDS)
        return _version(directory)
    return found


def _loaded(cls: type[T], directory: Path) -> T:
    """See `ArtifactStore.read`; errors that say what to do themselves stay as they are."""
    kind = read_manifest(directory)["artifact"]
    if kind != cls.__name__:
        raise ArtifactError(f"{directory} holds a {kind}, a {cls.__name__} was needed.")
    try:
        return cls.load(directory)
    except UNREADABLE as error:
        if type(error).__module__.startswith("sigma_"):
            raise
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        if not is_damage(error):
            raise ArtifactError(
                f"{directory} could not be read ({reason}) and may be whole: look at memory, open files, rights."
            ) from error
        raise DamagedError(f"{directory} is damaged ({reason}); delete it and materialize again.") from error


def read_manifest(directory: Path) -> dict[str, Any]:
    """The manifest of a complete artifact.

    Raises:
        ArtifactError: no manifest (never written, or killed half way), or a newer schema than this code reads.
    """
    path = directory / MANIFEST
    if not path.exists():
        raise ArtifactError(f"{directory} holds no complete artifact (no {MANIFEST}). Materialize it first.")
    manifest = read_object(path, _MANIFEST_KEYS)
    if not isinstance(schema := manifest.get("schema_version", 0), int):
        raise DamagedError(f"{path}: schema_version is no number; {_remedy(path)}.")
    if schema > SCHEMA_VERSION:
        raise ArtifactError(
            f"{directory} was written with schema {schema}, this code reads up to "
            f"{SCHEMA_VERSION}. Use the newer release, or another --root."
        )
    return manifest


class TableArtifact:
    """An artifact that is one polars frame (and, where rows were refused, a second one with the reasons).

    Subclasses name their columns in `schema`; construction refuses a frame that lacks one or types it otherwise.
    """

    schema: ClassVar[dict[str, Any]] = {}

    def __init__(self, frame: pl.DataFrame, quarantine: pl.DataFrame | None = None) -> None:
        wrong = {c: (t, frame.schema.get(c)) for c, t in self.schema.items() if frame.schema.get(c) != t}
        if wrong:
            detail = "; ".join(f"{c}: needed {want}, arrived {got}" for c, (want, got) in wrong.items())
            raise ValueError(f"{type(self).__name__}: {detail}.")
        self.frame = frame
        self.quarantine = quarantine

    def save(self, directory: Path) -> None:
        """Write `table.parquet`, and `quarantine.parquet` where there is one."""
        self.frame.write_parquet(directory / TABLE)
        if self.quarantine is not None:
            self.quarantine.write_parquet(directory / "quarantine.parquet")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote."""
        refused = directory / "quarantine.parquet"
        return cls(pl.read_parquet(directory / TABLE), pl.read_parquet(refused) if refused.exists() else None)

    def digest(self) -> str:
        """Digest of the rows in their order, and of the quarantined ones."""
        refused = "" if self.quarantine is None else digest_frame(self.quarantine)
        return digest_bytes(digest_frame(self.frame).encode(), refused.encode())

    def summary(self) -> dict[str, Any]:
        """Row counts; quarantined rows by reason."""
        out: dict[str, Any] = {"rows": self.frame.height}
        if self.quarantine is not None:
            counts = self.quarantine.group_by("reason").len().sort("reason")
            out["quarantined"] = self.quarantine.height
            out["quarantined_by_reason"] = dict(counts.iter_rows())
        return out


# ------------------------------------------------------------------------------------------- store
class ArtifactStore:
    """Artifacts under one root: `<root>/<asset>/<partition>/` (`<root>/<asset>/` for an unpartitioned one)."""

    def __init__(self, root: Path) -> None:
        self.root = Path(root)

    def path(self, asset: str, partition: str | None = None) -> Path:
        """Where the artifact lives, whether or not it exists."""
        return self.root / asset / partition if partition else self.root / asset

    def exists(self, asset: str, partition: str | None = None) -> bool:
        """True when a complete artifact is there."""
        return (self.path(asset, partition) / MANIFEST).exists()

    def partitions(self, asset: str) -> list[str]:
        """Complete partitions of the asset, sorted."""
        base = self.root / asset
        if not base.is_dir():
            return []
        return sorted(
            p.name for p in base.iterdir() if not p.name.startswith(".") and (p / MANIFEST).exists()
        )

    def manifest(self, asset: str, partition: str | None = None) -> dict[str, Any]:
        """The artifact's manifest; `ArtifactError` when there is none."""
        return read_manifest(self.path(asset, partition))

    def write(self, asset: str, partition: str | None, artifact: Artifact, **binding: Any) -> dict[str, Any]:
        """Write atomically; `binding` goes to `write_artifact`. Returns the manifest."""
        return write_artifact(artifact, self.path(asset, partition), **binding)

    def read(self, cls: type[T], asset: str, partition: str | None = None) -> T:
        """Load a complete artifact as `cls`; one that is replaced meanwhile is read again, so that no value mixes two versions.

        Raises:
            ArtifactError: it is not there, holds another kind of artifact, or memory, open files or rights do not suffice.
            DamagedError: its files are not what was written.
        """
        directory = self.path(asset, partition)
        for _ in range(_READ_TRIES):
            version = _settled(directory)
            failed: Exception | None = None
            try:
                value = _loaded(cls, directory)
            except UNREADABLE as error:
                failed = error
            if _version(directory) != version:
                continue  # replaced meanwhile: some files may be of the former version, some of the new one
            if failed is not None:
                raise failed
            return value
        raise ArtifactError(f"{directory} is being replaced without end by another process; let it finish.")

    def remove(self, asset: str, partition: str) -> None:
        """Take a complete artifact away: no reader, and no `sweep` after a kill, sees half of it."""
        directory = self.path(asset, partition)
        gone = directory.with_name(f".{directory.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
        directory.rename(gone)
        (gone / MANIFEST).unlink()  # from here on it is not put back
        shutil.rmtree(gone)

    def sweep(self) -> Iterator[Path]:
        """Remove what killed writers left behind; yields what was removed. Call only while holding the root's lock.

        First, an artifact that was being replaced is put back in its place: the new version where it was whole, else the former.
        """
        for suffix, parts in ((".tmp", 3), (".old", 2)):
            there = [path for pattern in ("*/.*", ".*") for path in self.root.glob(pattern + suffix)]
            whole = [path for path in there if (path / MANIFEST).exists()]
            for path in sorted(whole, key=lambda path: (path / MANIFEST).stat().st_mtime_ns, reverse=True):
                place = path.with_name(path.name.rsplit(".", parts)[0].removeprefix("."))
                if not place.exists():
                    path.rename(place)
        for pattern in ("*/.*.tmp", "*/.*.old", ".*.tmp", ".*.old"):
            for path in self.root.glob(pattern):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
                yield path
