"""The one IO manager: values of `<root>/<asset>/<partition>/` in, values out, with lineage; assets never see a path.

It verifies types, refuses an input whose last run failed a check, lets a window miss a few partitions, and writes each
value whole or not at all with the digests of what was loaded for it. It formats nothing: `Artifact.save/load` do.
Source: architecture.md, rules 2 and 4.
"""

from collections import OrderedDict
from pathlib import Path
from typing import Any, Final

import dagster as dg
from pydantic import PrivateAttr

from sigma_assets.checks.drift import PROFILE, profile_of
from sigma_assets.stages import STAGES, Read
from sigma_assets.window import Window, readable
from sigma_assets.world import World, options_digest

WINDOW_KEY: Final = "window"  # metadata of an input: the name of its window
_KEPT_LIMIT: Final = 48  # artifacts kept in memory: a few years of monthly rollups and one refit


class SigmaIOManager(dg.ConfigurableIOManager):
    """Reads and writes artifacts under `root`."""

    root: str
    eval_horizon: int | None = None
    _world: World | None = PrivateAttr(default=None)
    _loaded: dict[str, dict[str, str]] = PrivateAttr(default_factory=dict)

    @property
    def world(self) -> World:
        """The root's world, opened when first needed."""
        if self._world is None:
            self._world = World.open(Path(self.root), self.eval_horizon)
        return self._world

    # ------------------------------------------------------------------------------------- writing
    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the value with its lineage and code version; a former failure of the partition is forgotten."""
        name, partition = context.asset_key.path[-1], context.partition_key
        write(self.world, name, partition, obj, context.step_context.op_config, self._lineage(context))

    def _lineage(self, context: dg.OutputContext) -> dict[str, str] | None:
        step = f"{context.run_id}/{context.step_key}"
        loaded = self._loaded.pop(step, None)
        if loaded is None:
            return None
        return loaded | self.world.source_lineage(STAGES[context.asset_key.path[-1]], context.partition_key)

    # ------------------------------------------------------------------------------------- reading
    def load_input(self, context: dg.InputContext) -> Any:
        """The input's value, or a `Window` of values where the step reads many partitions.

        Raises:
            ArtifactError: a needed partition is missing or failed its check; the message says what to materialize.
        """
        read = Read(context.asset_key.path[-1], str((context.definition_metadata or {})[WINDOW_KEY]))
        world = self.world
        step = self._loaded.setdefault(f"{context.step_context.run_id}/{context.step_context.step.key}", {})
        present, missing = readable(world, read, context.partition_key)
        if missing:
            context.log.warning(f"{read.asset}: going on without {len(missing)}: {', '.join(missing)}")
        values = {}
        for key in present:
            step[f"{read.asset}/{key}"] = world.store.manifest(read.asset, key)["digest"]
            values[key] = load(world, read.asset, key)
        return Window(values, missing) if read.is_window else values[present[0]]


# ------------------------------------------------------------------------------- shared with ingestion
_kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
_newest: dict[str, tuple[tuple[str, str], Any]] = {}  # by asset: what this process wrote last


def load(world: World, asset: str, partition: str) -> Any:
    """The artifact of a partition, to be treated as frozen: readers within the process share one copy of what stages marked
    `keep` hold, and of what stages marked `share_written` wrote last, as long as that is what lies on disk.
    """
    stage = STAGES[asset]
    if not (stage.keep or stage.share_written):
        return world.store.read(stage.artifact_type(), asset, partition)
    key = (str(world.store.path(asset, partition)), world.store.manifest(asset, partition)["digest"])
    written, value = _newest.get(asset, (None, None))
    if written == key:
        return value
    if not stage.keep:
        return world.store.read(stage.artifact_type(), asset, partition)
    if key not in _kept:
        _kept[key] = world.store.read(stage.artifact_type(), asset, partition)
        while len(_kept) > _KEPT_LIMIT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def write(
    world: World,
    asset: str,
    partition: str,
    value: Any,
    options: dict[str, Any] | None = None,
    lineage: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Write a partition atomically with its lineage and code version; returns the manifest.

    Raises:
        TypeError: the value is not of the stage's type.
    """
    stage = STAGES[asset]
    if not isinstance(value, stage.artifact_type()):
        raise TypeError(f"{asset} holds {stage.artifact}, {type(value).__name__} arrived.")
    manifest = world.store.write(
        asset,
        partition,
        value,
        lineage=world.lineage(stage, partition) if lineage is None else lineage,
        extra={
            "code_version": world.code_versions[asset],
            "options": options_digest(options),
            PROFILE: profile_of(asset, value),
        },
    )
    world.clear_failure(asset, partition)
    if stage.share_written:
        _newest[asset] = ((str(world.store.path(asset, partition)), manifest["digest"]), value)
    return manifest
