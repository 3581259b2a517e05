"""What assets are given besides their inputs: settings, source, tracker, progress, and vectors already encoded.

One resource, bound to a root. It opens things and computes nothing. Our choice.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import dagster as dg
from pydantic import PrivateAttr

from sigma_assets.io_manager import load
from sigma_assets.periods import as_date, day_key, month_key
from sigma_assets.progress import progress_callback
from sigma_assets.stages import STAGES
from sigma_assets.tracking import NullRun, open_tracker, tracking_mode
from sigma_assets.world import World
from sigma_core.config import SigmaConfig
from sigma_core.data.sources import Source, Vectors
from sigma_core.grounding.embed import ItemEmbeddings, TextEncoder
from sigma_core.grounding.text_cache import RememberingEncoder
from sigma_core.row_memory import RowMemory
from sigma_core.tracking import Progress
from sigma_core.versions import git_commit

VECTORS: Final = ".vectors"
"""The memory of encoded texts, coded vectors and drawn pictures; may be deleted at any time."""
ABLATIONS: Final = (
    ".ablations"  # arms of monthly ablations, so that a stopped one goes on; may be deleted too
)
BEAMS: Final = ".beams"  # what step 1 found for the lists of the newest days; may be deleted too


class SigmaResource(dg.ConfigurableResource):
    """A root, opened for one run. `tracking` is W&B's mode where the environment names none."""

    root: str
    eval_horizon: int | None = None
    tracking: str = "offline"
    _world: World | None = PrivateAttr(default=None)

    @property
    def world(self) -> World:
        """The root's world, opened when first needed."""
        if self._world is None:
            self._world = World.open(Path(self.root), self.eval_horizon)
        return self._world

    @property
    def config(self) -> SigmaConfig:
        """All settings of the root."""
        return self.world.config

    @property
    def source(self) -> Source:
        """The root's data source."""
        return self.world.source

    def images(self) -> Vectors | None:
        """The source's image vectors, where it has any."""
        return self.source.image_vectors()

    def progress(self, context: dg.AssetExecutionContext) -> Progress:
        """The callback for a long core call: the terminal's bar, or this run's log."""
        return progress_callback(context.log.info)

    @contextmanager
    def tracker(self, context: dg.AssetExecutionContext) -> Iterator[NullRun]:
        """A run of one training or evaluation; closed at the end of the block, as failed when the block raised."""
        asset, partition = context.asset_key.path[-1], context.partition_key
        config = {
            "asset": asset,
            "partition": partition,
            "dagster_run_id": context.run.run_id,
            "profile": self.world.binding.profile,
            "code_version": self.world.code_versions[asset],
            "git_commit": git_commit(),
            "inputs": self.world.lineage(STAGES[asset], partition),
            "settings": self.config.model_dump(mode="json"),
        }
        mode, folder = tracking_mode(self.tracking), Path(self.root) / "wandb"
        run = open_tracker(mode, folder, name=f"{asset}/{partition}", group=partition, config=config)
        if run.url:
            context.log.info(f"W&B run: {run.url}")
        try:
            yield run
        except BaseException:
            run.fail()
            raise
        finally:
            run.close()

    def remembering(self, encoder: TextEncoder) -> RememberingEncoder:
        """The encoder with the root's memory of texts, so that no step encodes what another one did."""
        return RememberingEncoder(encoder, Path(self.root) / VECTORS)

    def memory(self, kind: str, digest: str) -> RowMemory:
        """Rows that something of this digest has made before."""
        return RowMemory(Path(self.root) / VECTORS / f"{kind}-{digest}")

    @property
    def pictures(self) -> Path:
        """The folder of pictures that need not be drawn again."""
        return Path(self.root) / VECTORS / "pictures"

    def beams(self, day: str) -> Path:
        """The file of what step 1 found for the day's lists."""
        return Path(self.root) / BEAMS / f"{day}.safetensors"

    def ablations(self, month: str) -> Path:
        """The folder of the month's arms."""
        return Path(self.root) / ABLATIONS / month

    def former(self, asset: str, day: str) -> tuple[str, Any] | None:
        """The partition that `day` replaces, or else the one of the day before, with its key; None when neither is there."""
        yesterday = day_key(as_date(day) - timedelta(days=1))
        for key in (day, yesterday):
            if self.world.manifest(asset, key):
                return key, load(self.world, asset, key)
        return None

    def before(self, asset: str, month: str) -> tuple[str, Any] | None:
        """The partition of the month before `month`, with its key; None when it is not there. It is no input: no lineage."""
        key = month_key(as_date(month) - timedelta(days=1))
        return (key, load(self.world, asset, key)) if self.world.manifest(asset, key) else None

    def known_vectors(self, day: str) -> list[ItemEmbeddings]:
        """Vectors of the day's month that are on disk: the refit's and the newest day's up to `day`.

        A vector depends on its text and encoder alone, so what is found here changes the cost of a step, never its result;
        it is no input and has no lineage.
        """
        month = month_key(as_date(day))
        found = []
        if self.world.manifest("refit_item_embeddings", month):
            found.append(load(self.world, "refit_item_embeddings", month))
        there = self.world.store.partitions("item_embeddings")
        earlier = [k for k in there if month <= k <= day and self.world.manifest("item_embeddings", k)]
        if earlier:
            found.append(load(self.world, "item_embeddings", earlier[-1]))
        return found
