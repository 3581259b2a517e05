"""A root: the folder that holds all artifacts of one source, path and profile, and what binds it.

`root.json` is written once and read by every verb, so that the others need only `--root`. `World` puts together what a step
needs (store, settings, dates, source) and knows the lineage and code version a partition should have. No Dagster here.
Source: architecture.md, rule 8; our choice.
"""

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from sigma_assets.periods import SELECT, Span, as_date
from sigma_assets.stages import STAGES, Stage
from sigma_core.artifacts import MANIFEST, ArtifactStore, digest_json, read_json, read_manifest, write_json
from sigma_core.config import SigmaConfig, load_config, profile_config
from sigma_core.data.sources import Source, open_source

ROOT_FILE: Final = "root.json"
ROOT_SCHEMA: Final = 1
DEFAULT_SOURCE: Final = "complete_journey"
DEFAULT_PROFILE: Final = "demo"
SOURCE_INPUT: Final = "source"  # key of the source's fingerprint in a lineage


class RootError(ValueError):
    """A root does not exist, is bound to something else, or is of a newer release."""


@dataclass(frozen=True)
class Binding:
    """What a root is bound to, as in its `root.json`.

    `settings` are the differences to the profile, as `section.key=value`; they may change (then the steps that depend on
    them are made again), source, path and profile may not.
    """

    source: str
    path: str | None
    profile: str
    settings: tuple[str, ...]
    start: date
    end: date
    fingerprint: str

    def as_json(self, config: SigmaConfig) -> dict[str, Any]:
        """The content of `root.json`."""
        return {
            "schema_version": ROOT_SCHEMA,
            "source": self.source,
            "path": self.path,
            "profile": self.profile,
            "settings": list(self.settings),
            "config_digest": config.digest(),
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "fingerprint": self.fingerprint,
            "bound_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def config(self) -> SigmaConfig:
        """The profile with the root's own settings."""
        return load_config(self.profile, None, self.settings)

    def open_source(self) -> Source:
        """The source this root is bound to."""
        return open_source(self.source, Path(self.path) if self.path else None)


def read_binding(root: Path) -> Binding:
    """The binding of an existing root.

    Raises:
        RootError: nothing was ever materialized there, or a newer release wrote it.
    """
    if not (root / ROOT_FILE).exists():
        raise RootError(
            f"{root} holds no artifacts yet. Run `sigma materialize --as-of DATE --root {root}` first."
        )
    values = read_json(root / ROOT_FILE)
    if values["schema_version"] > ROOT_SCHEMA:
        raise RootError(
            f"{root} was made with root schema {values['schema_version']}, this release reads up to {ROOT_SCHEMA}. "
            "Use the newer release, or another --root."
        )
    return Binding(
        source=values["source"],
        path=values["path"],
        profile=values["profile"],
        settings=tuple(values["settings"]),
        start=date.fromisoformat(values["start"]),
        end=date.fromisoformat(values["end"]),
        fingerprint=values["fingerprint"],
    )


@dataclass(frozen=True)
class Request:
    """What the caller of `bind` wants; None: whatever the root is bound to, or the default for a new root."""

    source: str | None = None
    path: Path | None = None
    profile: str | None = None
    config_file: Path | None = None
    settings: tuple[str, ...] = ()


def bind(root: Path, request: Request) -> tuple[Binding, list[str]]:
    """Bind a new root, or check an existing one against `request`; returns the binding and notes for the user.

    `--config` replaces the root's settings, `--set` changes single ones. A source whose content changed is noted and read
    again. Hold the root's lock when calling.

    Raises:
        RootError: the root is bound to another source, path or profile; the message names both.
    """
    old = read_binding(root) if (root / ROOT_FILE).exists() else None
    wanted_path = str(request.path.resolve()) if request.path else None
    if old:
        _refuse_other(root, old, request, wanted_path)
    profile = request.profile or (old.profile if old else DEFAULT_PROFILE)
    kept = old.settings if old and not request.config_file else ()
    config = load_config(profile, request.config_file, (*kept, *request.settings))
    name, path = (old.source, old.path) if old else (request.source or DEFAULT_SOURCE, wanted_path)
    source = open_source(name, Path(path) if path else None)
    fingerprint = source.fingerprint()
    unchanged = old is not None and old.fingerprint == fingerprint
    start, end = (old.start, old.end) if old and unchanged else source.date_range()
    binding = Binding(name, path, profile, _differences(config, profile), start, end, fingerprint)
    notes = []
    if old and not unchanged:
        notes.append(f"the data of source {name} changed since {root} was made; it is read again.")
    if old and old.settings != binding.settings:
        changed = sorted(set(old.settings) ^ set(binding.settings))
        notes.append(
            f"settings of {root} changed ({', '.join(changed)}); the steps that depend on them are made again."
        )
    if binding != old:
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / ROOT_FILE, binding.as_json(config))
    return binding, notes


def _refuse_other(root: Path, old: Binding, request: Request, wanted_path: str | None) -> None:
    pairs = (
        ("source", old.source, request.source),
        ("path", old.path, wanted_path),
        ("profile", old.profile, request.profile),
    )
    for what, bound, arrived in pairs:
        if arrived is not None and arrived != bound:
            raise RootError(
                f"{root} is bound to {what} {bound or 'none'}, {what} {arrived} arrived. "
                "Use another --root for it, or leave the option out."
            )


def _differences(config: SigmaConfig, profile: str) -> tuple[str, ...]:
    """`section.key=JSON` of every setting that is not the profile's."""
    mine, base = config.model_dump(mode="json"), profile_config(profile).model_dump(mode="json")
    return tuple(
        f"{section}.{key}={json.dumps(value, sort_keys=True)}"
        for section, values in sorted(mine.items())
        if isinstance(values, dict)
        for key, value in sorted(values.items())
        if base[section][key] != value
    )


class World:
    """One root, opened: store, settings, dates, and what each partition should have been made from."""

    def __init__(self, root: Path, binding: Binding, eval_horizon: int | None = None) -> None:
        self.root = root
        self.binding = binding
        self.store = ArtifactStore(root)
        self.config = binding.config()
        self._manifests: dict[Path, tuple[int, dict[str, Any]]] = {}
        config = self.config
        self.span = Span(
            start=binding.start,
            end=binding.end,
            horizon=config.data.horizon_days,
            eval_horizon=eval_horizon or config.data.horizon_days,
            shard_stride=config.instruction.shard_stride_days,
            base_window=config.training.base_window_days,
            lora_window=config.training.lora_window_days,
            id_window=config.grounding.id_window_days,
        )

    @classmethod
    def open(cls, root: Path, eval_horizon: int | None = None) -> "World":
        """The world of an existing root; `RootError` when there is none."""
        return cls(root, read_binding(root), eval_horizon)

    @cached_property
    def source(self) -> Source:
        """The source, opened once; a source reads its files when asked for them."""
        return self.binding.open_source()

    @cached_property
    def code_versions(self) -> dict[str, str]:
        """Code version of every stage under this root's settings."""
        return {name: stage.code_version(self.config) for name, stage in STAGES.items()}

    def inputs(self, stage: Stage, partition: str) -> list[tuple[str, str]]:
        """(asset, partition) of everything the step reads, in the order of its parameters."""
        day = as_date(partition)
        return [
            (read.asset, key) for read in stage.reads.values() for key in SELECT[read.window](day, self.span)
        ]

    def lineage(self, stage: Stage, partition: str) -> dict[str, str]:
        """Digest of every input that exists now, by `asset/partition`; of the source too where the stage reads it."""
        found = {SOURCE_INPUT: self.binding.fingerprint} if stage.reads_source else {}
        for asset, key in self.inputs(stage, partition):
            if (manifest := self.manifest(asset, key)) is not None and not self.failure(asset, key):
                found[f"{asset}/{key}"] = manifest["digest"]
        return found

    def manifest(self, asset: str, partition: str) -> dict[str, Any] | None:
        """The manifest of a complete partition, else None. Parsed once for each version on disk."""
        path = self.store.path(asset, partition)
        try:
            written = (path / MANIFEST).stat().st_mtime_ns
        except FileNotFoundError:
            return None
        if path not in self._manifests or self._manifests[path][0] != written:
            self._manifests[path] = (written, read_manifest(path))
        return self._manifests[path][1]

    def why_stale(self, stage: Stage, partition: str, options: str = "") -> str | None:
        """Why a partition has to be made, in words; None when it is fresh.

        Fresh: complete, made by the same code under the same settings and `options` (digest of the run's own config), from
        inputs with the digests they have now, and not failed since.
        """
        manifest = self.manifest(stage.name, partition)
        if manifest is None:
            return "missing"
        if self.failure(stage.name, partition) is not None:
            return "its last run failed a check"
        if manifest.get("code_version") != self.code_versions[stage.name]:
            return "settings or code changed"
        if manifest.get("options", "") != options:
            return "options changed"
        if manifest["lineage"] != self.lineage(stage, partition):
            return "an input changed"
        return None

    # ------------------------------------------------------------------------------ failed checks
    def _failure_file(self, asset: str, partition: str) -> Path:
        return self.root / ".failed" / asset / f"{partition}.json"

    def failure(self, asset: str, partition: str) -> str | None:
        """Which check the partition's last run failed, in words; None when it passed or never ran."""
        path = self._failure_file(asset, partition)
        return str(read_json(path)["message"]) if path.exists() else None

    def mark_failure(self, asset: str, partition: str, message: str) -> None:
        """Remember that the newest run of the partition failed, beside (never inside) the artifacts."""
        path = self._failure_file(asset, partition)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"message": message, "at": datetime.now(UTC).isoformat(timespec="seconds")})

    def clear_failure(self, asset: str, partition: str) -> None:
        """Forget the failure: the partition was written."""
        self._failure_file(asset, partition).unlink(missing_ok=True)


def options_digest(options: dict[str, Any] | None) -> str:
    """Digest of the options that were given to a run; "" for none."""
    given = {key: value for key, value in (options or {}).items() if value is not None}
    return digest_json(given)[:12] if given else ""
