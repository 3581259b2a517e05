"""A root, opened: what a step needs (store, settings, dates, source), and what each partition should have been made from.

`World` knows the lineage and code version that a partition should have, and so whether it is fresh; and which partitions failed
their checks. No Dagster here. Source: architecture.md, rules 4, 5 and 8; our choice.
"""

from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from sigma_assets.binding import Binding, read_binding
from sigma_assets.masters import digest_on, listing_on
from sigma_assets.periods import SELECT, Span, as_date
from sigma_assets.pretrained_weights import weights_changed
from sigma_assets.promotion_orders import PROMOTED, decision_lineage, taken_back_since
from sigma_assets.refits import republished_lineage
from sigma_assets.stages import STAGES, Stage
from sigma_core.artifacts import (
    MANIFEST,
    ArtifactStore,
    DamagedError,
    digest_json,
    read_manifest,
    read_object,
    write_json,
)
from sigma_core.data.masters import Listing
from sigma_core.data.sources import Source


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
            refit_holdout=config.promotion.refit_holdout_days,
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

    def source_lineage(self, stage: Stage, partition: str) -> dict[str, str]:
        """Digest of every part of the source that the step reads and the source has, as it is on the step's day.

        For a promotion also what else it was decided on (`promotion_orders.decision_lineage`); for an artifact of a refused
        refit the former month's that stands in its place (`refits.republished_lineage`).
        """
        parts, binding = dict(self.binding.parts), self.binding
        parts["products"] = digest_on(binding, self.master_day(stage, partition))
        if binding.event_days:
            parts["events"] = event_digest(binding.event_days.get(partition, ""), binding.parts["products"])
        found = {f"source/{part}": parts[part] for part in stage.source_parts if part in parts}
        if stage.name == PROMOTED:
            return found | decision_lineage(self, partition)
        return found | republished_lineage(self, stage.name, partition)

    def master_day(self, stage: Stage, partition: str) -> date:
        """The day whose product master the step reads."""
        return as_date(partition) - timedelta(days=stage.master_lag_days)

    def listing(self, day: date) -> Listing | None:
        """What catalog updates made of the product master by a day; None before the first one."""
        return listing_on(self.root, self.binding, day)

    def lineage(self, stage: Stage, partition: str) -> dict[str, str]:
        """Digest of every input that exists now, by `asset/partition`; of parts of the source too."""
        found = self.source_lineage(stage, partition)
        for asset, key in self.inputs(stage, partition):
            if (manifest := self.manifest(asset, key)) is not None and not self.failure(asset, key):
                found[f"{asset}/{key}"] = manifest["digest"]
        return found

    def manifest(self, asset: str, partition: str) -> dict[str, Any] | None:
        """The manifest of a complete partition, else None; a damaged one counts as missing, so that it is made again.

        Parsed once for each version on disk.
        """
        path = self.store.path(asset, partition)
        try:
            written = (path / MANIFEST).stat().st_mtime_ns
        except (FileNotFoundError, NotADirectoryError):
            return None
        if path not in self._manifests or self._manifests[path][0] != written:
            try:
                self._manifests[path] = (written, read_manifest(path))
            except DamagedError:
                return None
        return self._manifests[path][1]

    def why_stale(self, stage: Stage, partition: str, options: str = "") -> str | None:
        """Why a partition has to be made, in words; None when it is fresh.

        Fresh: complete, made by the same code under the same settings and `options` (digest of the run's own config), from
        inputs with the digests they have now, on the pre-trained weights that are there now, and not failed since. A pointer to an adapter that was rolled back is stale too.
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
        if weights_changed(self.binding.parts, stage.name, self.store.path(stage.name, partition)):
            return "the pre-trained weights it was trained on changed"
        return (taken_back_since(self, partition) or None) if stage.name == PROMOTED else None

    # ------------------------------------------------------------------------------ failed checks
    def _failure_file(self, asset: str, partition: str) -> Path:
        return self.root / ".failed" / asset / f"{partition}.json"

    def failure(self, asset: str, partition: str) -> str | None:
        """Which check the partition's last run failed, in words; None when it passed or never ran."""
        path = self._failure_file(asset, partition)
        return str(read_object(path, ["message"])["message"]) if path.exists() else None

    def mark_failure(self, asset: str, partition: str, message: str) -> None:
        """Remember that the newest run of the partition failed, beside (never inside) the artifacts."""
        path = self._failure_file(asset, partition)
        path.parent.mkdir(parents=True, exist_ok=True)
        mark = {"message": message, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        write_json(path, mark | {"events": self.binding.event_days.get(partition, "")})

    def failed_events(self, asset: str, partition: str) -> str:
        """Digest of the raw events of the partition's day when its last run failed; "" where the mark tells none."""
        path = self._failure_file(asset, partition)
        return str(read_object(path, []).get("events", "")) if path.exists() else ""

    def clear_failure(self, asset: str, partition: str) -> None:
        """Forget the failure: the partition was written."""
        self._failure_file(asset, partition).unlink(missing_ok=True)


def event_digest(day_digest: str, products: str) -> str:
    """What a day's accepted events are made from: its raw rows, and the product master that says which items are known."""
    return digest_json([day_digest, products])


def options_digest(options: dict[str, Any] | None) -> str:
    """Digest of the options that were given to a run; "" for none."""
    given = {key: value for key, value in (options or {}).items() if value is not None}
    return digest_json(given)[:12] if given else ""
