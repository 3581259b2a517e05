"""`sigma catalog-update`: put a new product master in place from a day on, and make again exactly what that touches.

Five steps of the day run: catalog, vectors, semantic IDs, item index, lists. Pairs, encoder, codebooks, shards and checkpoints
stay as they are, and stay fresh. Source: architecture.md, "Partial rerun after a catalog update".
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from sigma_assets.binding import Binding, read_binding, save
from sigma_assets.locking import root_lock
from sigma_assets.masters import add_master, current_master, read_catalog_file
from sigma_assets.periods import day_key
from sigma_assets.planner import PlanError, Step
from sigma_assets.progress import Reporter
from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.artifacts import write_bytes
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.catalog_diff import CatalogDiff, catalog_diff
from sigma_core.data.sources.base import SourceError

if TYPE_CHECKING:
    from sigma_assets.runner import Done

CATALOG_UPDATE: Final = (
    "item_catalog",
    "item_embeddings",
    "semantic_id_map",
    "item_index",
    "user_to_item_index",
)
"""The steps of a catalog update, in order."""

MAX_DELISTED: Final = 0.2  # more of the catalog gone at once is more likely half a file than a decision
NEEDED: Final = ("lora_checkpoint", "promoted_model", "user_profiles")
"""What must be there of the day already: an update trains nothing."""


@dataclass(frozen=True)
class CatalogUpdate:
    """What an update did.

    Attributes:
        done: what became of each step.
        diff: against the day's former catalog, else the one of the day before; None where neither was there.
        texts_encoded: texts that went through the encoder.
    """

    done: list["Done"]
    diff: CatalogDiff | None
    texts_encoded: int


def catalog_update(
    root: Path,
    day: date,
    path: Path | None,
    reporter: Reporter,
    *,
    max_delisted: float = MAX_DELISTED,
    verbose: bool = False,
    steps: Sequence[str] = CATALOG_UPDATE,
) -> tuple[World, CatalogUpdate]:
    """Make `path` (None: the items of the source, read again) the product master from `day` on, and rerun what reads it.

    `steps` may leave out the last ones of `CATALOG_UPDATE`.

    Raises:
        SourceError: the file is no catalog, or leaves out a larger share of the day's items than `max_delisted`.
        PlanError: the day has no checkpoint to serve the catalog with.
        RootError, LockedError, StepError: see their classes.
    """
    products = read_catalog_file(path) if path else None
    with root_lock(root, "catalog-update"):
        binding = read_binding(root)
        need_the_day(World(root, binding), day)
        if products is None:
            products = binding.open_source().products()
        before = former_catalog(World(root, binding), day)
        refuse_half_files(before, products, max_delisted)
        world = accept_master(root, binding, day, products, reporter)
        from sigma_assets.commands import runner_of
        from sigma_assets.runner import StepError

        with runner_of(world, reporter, verbose=verbose) as runner:
            wanted = [Step(asset, day_key(day)) for asset in steps]
            try:
                done = runner.run_singly(wanted[:1])
            except StepError:
                key = day_key(day)
                take_back(root, day, world.binding.masters.get(key, ""), binding.masters.get(key, ""))
                raise
            done = runner.run_together(wanted[1:])
            encoded = sum(
                int(runner.metadata(one.step).get("texts_encoded", 0)) for one in done if not one.is_fresh
            )
        after = world.store.read(ItemCatalog, "item_catalog", day_key(day))
        listing = world.listing(day)
        listed = set(listing.items[c.ITEM_ID]) if listing else None
        diff = catalog_diff(before, after, day, listed) if before else None
        return world, CatalogUpdate(done, diff, encoded)


def accept_master(
    root: Path, binding: Binding, day: date, products: pl.DataFrame, reporter: Reporter | None = None
) -> World:
    """The world in which `products` count from `day` on; notes for the user where they are no news."""
    binding, is_news = add_master(root, binding, day, products)
    if not is_news and reporter:
        reporter.line("note: the product master is the one that counts already")
    return World(root, binding)


def take_back(root: Path, day: date, given: str, former: str) -> bool:
    """Put the day's `former` master (its digest; "" for none) back in the place of `given`, which made no acceptable catalog.

    The day's catalog still stands. Returns False, and changes nothing, where `given` is no longer the day's master.
    """
    binding, key = read_binding(root), day_key(day)
    if binding.masters.get(key, "") != given:
        return False
    kept = {one: digest for one, digest in binding.masters.items() if one != key}
    save(root, replace(binding, masters=dict(sorted((kept | ({key: former} if former else {})).items()))))
    world = World.open(root)
    if world.manifest("item_catalog", key):
        world.clear_failure("item_catalog", key)
    return True


def export_catalog(root: Path, day: date, path: Path) -> int:
    """Write the product master that counts on a day as Parquet or CSV, to be edited and given back; returns its rows.

    Raises:
        PlanError: the file name ends otherwise, or the day is outside the data.
    """
    if path.suffix not in {".parquet", ".csv"}:
        raise PlanError(f"{path}: a name that ends in .parquet or .csv is needed.")
    binding = read_binding(root)
    if not binding.start <= day <= binding.end:
        raise PlanError(
            f"--date {day} is outside the data of {root}, which has {binding.start} to {binding.end}."
        )
    products, buffer = current_master(root, binding, day), BytesIO()
    products.write_parquet(buffer) if path.suffix == ".parquet" else products.write_csv(buffer)
    write_bytes(path, buffer.getvalue())
    return products.height


def need_the_day(world: World, day: date) -> None:
    """An update serves what is there already.

    Raises:
        PlanError: the day is not materialized.
    """
    missing = [asset for asset in NEEDED if not world.manifest(asset, day_key(day))]
    if missing:
        days: list[Any] = world.store.partitions("lora_checkpoint")
        there = f"There are {', '.join(days[-5:])}" if days else "No day is"
        raise PlanError(
            f"{day} has no {' and no '.join(missing)} in {world.root}. {there} materialized. An update serves a changed "
            f"catalog with the checkpoint of its day: run `sigma materialize --as-of {day} --root {world.root}` first."
        )


def refuse_half_files(before: ItemCatalog | None, products: pl.DataFrame, max_delisted: float) -> None:
    """Keep a file that holds only some items from emptying the shop.

    Raises:
        SourceError: too many items of the catalog are not in `products`.
    """
    if before is None:
        return
    gone = before.frame.join(products, on=c.ITEM_ID, how="anti")[c.ITEM_ID].sort().to_list()
    if len(gone) > max_delisted * before.frame.height:
        raise SourceError(
            f"the new catalog leaves out {len(gone):,} of the {before.frame.height:,} items there are (first: {gone[:3]}), "
            f"and would delist them; at most {max_delisted:.0%} may go at once. Give the whole catalog, or raise "
            "--max-delisted if that is meant."
        )


def former_catalog(world: World, day: date) -> ItemCatalog | None:
    """The catalog of the day as it is, else of the day before; None when there is neither."""
    for key in (day_key(day), day_key(date.fromordinal(day.toordinal() - 1))):
        if world.manifest("item_catalog", key):
            return world.store.read(ItemCatalog, "item_catalog", key)
    return None
