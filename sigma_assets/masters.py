"""Product masters of a root as files: `<root>/product_masters/<digest>.parquet`, dated by `root.json`.

Stores and finds them; what they mean is `sigma_core/data/masters.py`. Our choice.
"""

from dataclasses import replace
from datetime import date
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Final

import polars as pl

from sigma_assets.binding import ROOT_FILE, Binding, RootError, read_binding, save
from sigma_assets.periods import day_key
from sigma_core import columns as c
from sigma_core.artifacts import digest_frame, digest_json, write_bytes
from sigma_core.data.masters import Listing, listing_of
from sigma_core.data.sources.base import (
    PRODUCT_COLUMNS,
    SourceError,
    product_master,
    read_table,
    told_columns,
)

FOLDER: Final = "product_masters"


def remember_first(root: Path, binding: Binding) -> None:
    """Keep the root's first master, so that a source whose files change later does not take it along.

    Nothing happens when it is kept already, or when the source has moved on.
    """
    digest = binding.parts["products"]
    if not _file(root, digest).exists():
        products = binding.open_source().products()
        if digest_frame(products) == digest:
            _store(root, products)


def add_master(root: Path, binding: Binding, day: date, products: pl.DataFrame) -> tuple[Binding, bool]:
    """The binding in which `products` is the master from `day` on, written to `root.json`; and whether that is news.

    Hold the root's lock. An update of the same day is replaced; the one before stays on disk. A master equal to the one
    before it changes nothing.

    Raises:
        RootError: the root's first master is not kept and the source has none of that content any more.
        SourceError: no product is left.
    """
    if products.is_empty():
        raise SourceError(f"the new catalog of {day} holds no item; nothing could be recommended.")
    remember_first(root, binding)
    if not _file(root, binding.parts["products"]).exists():
        raise RootError(
            f"the first product master of {root} is lost: the source changed before an update could keep it. "
            "Put the old items back, run `sigma materialize` once, then update."
        )
    digest = digest_frame(products)
    before = binding.master_on(day)
    if before == digest:
        return binding, False
    _store(root, products)
    kept = {key: value for key, value in binding.masters.items() if key != day_key(day)}
    new = replace(binding, masters=dict(sorted({**kept, day_key(day): digest}.items())))
    save(root, new)
    return new, True


def listing_on(root: Path, binding: Binding, day: date) -> Listing | None:
    """The listing of a day; None where no update reaches it, so that the source's own master counts."""
    dated = [(date.fromisoformat(key), digest) for key, digest in binding.masters.items()]
    by_then = tuple((since, digest) for since, digest in dated if since <= day)
    return _listing(root, binding.parts["products"], by_then) if by_then else None


@lru_cache(maxsize=4)  # masters are named by their content; a step asks for its day's several times
def _listing(root: Path, first: str, updates: tuple[tuple[date, str], ...]) -> Listing:
    masters = [(since, _read(root, digest)) for since, digest in updates]
    return listing_of(_read(root, first), masters, date.max)


def digest_on(binding: Binding, day: date) -> str:
    """Changes exactly when the listing of the day does."""
    dated = {key: digest for key, digest in binding.masters.items() if date.fromisoformat(key) <= day}
    first = binding.parts["products"]
    return digest_json([first, dated]) if dated else first


def read_catalog_file(path: Path) -> pl.DataFrame:
    """The product master in a Parquet or CSV file: `item_id`, and any of title, item_type, category, ... as in `items.*`.

    Raises:
        SourceError: not readable, no `item_id`, no words, or an item twice; the message says which.
    """
    frame = read_table(path)
    words = [name for name in PRODUCT_COLUMNS if name in frame.columns]
    if c.ITEM_ID not in frame.columns or not words:
        raise SourceError(
            f"{path} has the columns {told_columns(frame)}; {c.ITEM_ID} and at least one of "
            f"{', '.join(PRODUCT_COLUMNS)} are needed."
        )
    items = product_master(frame).sort(c.ITEM_ID)
    if wrong := items.filter(pl.col(c.ITEM_ID).is_null() | pl.col(c.ITEM_ID).is_duplicated()).height:
        raise SourceError(f"{path}: {wrong} rows without an {c.ITEM_ID} or with one that comes twice.")
    return items


def firsts_of(root: Path, binding: Binding) -> list[str]:
    """Digests of what may have been the root's first master at some time, the present one first."""
    now = binding.parts["products"]
    return [now, *(path.stem for path in sorted((root / FOLDER).glob("[!.]*.parquet")) if path.stem != now)]


def current_master(root: Path, binding: Binding, day: date) -> pl.DataFrame:
    """The master that counts on a day."""
    listing = listing_on(root, binding, day)
    if listing is not None:
        return listing.items
    path = _file(root, binding.parts["products"])
    return _table(path) if path.exists() else binding.open_source().products()


def known_items_of(root: Path) -> pl.Series | None:
    """Ids of every product master of the root; None where nothing was materialized yet."""
    if not (root / ROOT_FILE).exists():
        return None
    binding = read_binding(root)
    listing = listing_on(root, binding, date.max)
    return (listing.first_words if listing else current_master(root, binding, date.min))[c.ITEM_ID]


def _file(root: Path, digest: str) -> Path:
    return root / FOLDER / f"{digest}.parquet"


def _read(root: Path, digest: str) -> pl.DataFrame:
    path = _file(root, digest)
    if not path.exists():
        raise RootError(f"{path} is missing, though root.json names it; put it back from a backup.")
    return _table(path)


def _table(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RootError(f"{path} is damaged ({reason}); put it back from a backup.") from error


def _store(root: Path, products: pl.DataFrame) -> None:
    """Keep a master; it is on the disk when this returns, for `root.json` will name it."""
    path, buffer = _file(root, digest_frame(products)), BytesIO()
    path.parent.mkdir(parents=True, exist_ok=True)
    products.write_parquet(buffer)
    write_bytes(path, buffer.getvalue())
