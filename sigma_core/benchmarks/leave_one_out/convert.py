"""From any source to the benchmark's folder: `sequences.txt`, `items.jsonl`, and `meta.json`, which says how they came about.

Knows sources and the folder's form, no model and no metric. The public protocol: taken items only, k-core, oldest first. What it
leaves open is our choice and in `meta.json`: an item counts where the user first took it, and what to do with equal times (Amazon
of 2014 dates by day, so the held-out items of many users are a matter of the file's order).
"""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import digest_json, publish, write_json
from sigma_core.benchmarks.leave_one_out.data import LEAST_LENGTH, load_sequences
from sigma_core.data.cores import core_pairs
from sigma_core.data.events import clean_events, positive_events
from sigma_core.data.item_text import BASE_TITLE, add_base_words
from sigma_core.data.sources import Source
from sigma_core.data.sources.base import report_of

Ties = Literal["file", "shuffled"]
TIES: Final[tuple[Ties, ...]] = ("file", "shuffled")
RULES: Final = {
    "items": "purchases and ratings of known items; of a user's several with one item the first",
    "order": "by time",
    "core": f"users of k_core items and at least {LEAST_LENGTH}, items of k_core users, until nothing changes",
    "title": "the source's, else the words it has of the item",
    "categories": "department, category and type, where the source has them",
}


def write_sequences(
    source: Source,
    out: Path,
    *,
    path: Path | None = None,
    k_core: int = 5,
    ties: Ties = "file",
    seed: int = 0,
) -> dict[str, Any]:
    """Write the folder `out`, whole or not at all, and return what its meta.json says.

    Lines are in order of user id and of item id. With `ties` "file" events of equal time stay as the source has them; "shuffled"
    draws their order from `seed`, whatever the order of the source.

    Args:
        source: read whole.
        out: a folder that is not there yet, or empty.
        path: the source's folder, to say which files it was; None for an embedded source.
        k_core: 1 keeps everyone with enough items to be tested.

    Raises:
        ValueError: `out` holds something, a setting is out of bounds, an id holds a blank, or nothing is left.
    """
    if k_core < 1 or ties not in TIES:
        raise ValueError(
            f"k_core {k_core} and ties {ties!r} arrived; needed a k_core of 1 or more and {' or '.join(TIES)}."
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there and not an empty folder; remove it, or give another --out.")
    products = source.products()
    raw = source.events()
    accepted, refused = clean_events(raw, products[c.ITEM_ID])
    taken = positive_events(accepted)
    once = _ordered(taken, ties, seed).unique([c.USER_ID, c.ITEM_ID], keep="first", maintain_order=True)
    pairs = core_pairs(
        once.select(c.USER_ID, c.ITEM_ID), user_least=max(k_core, LEAST_LENGTH), item_least=k_core
    )
    if pairs.is_empty():
        raise ValueError(
            f"source {source.name}: of {once.height:,} pairs of user and item none is left with --k-core {k_core} and "
            f"{LEAST_LENGTH} items a user; lower --k-core, or give more data."
        )
    kept = once.join(pairs, on=[c.USER_ID, c.ITEM_ID], how="semi", maintain_order="left")
    users = kept.group_by(c.USER_ID).agg(c.ITEM_ID, pl.col(c.EVENT_TIME).tail(2)).sort(c.USER_ID)
    items = add_base_words(products.filter(pl.col(c.ITEM_ID).is_in(kept[c.ITEM_ID].unique().implode())))
    items = items.sort(c.ITEM_ID)
    for name, ids in (("user", users[c.USER_ID]), ("item", items[c.ITEM_ID])):
        _need_words(name, ids)
    reasons = refused[c.REASON].value_counts().sort(c.REASON)
    files = {} if path is None else _file_digests(path)
    meta: dict[str, Any] = {
        "source": source.name,
        "path_digest": digest_json(files) if files else source.fingerprint(),
        "files": files,
        "k_core": k_core,
        "ties": ties,
        "seed": seed if ties == "shuffled" else None,
        "rules": RULES,
        "counts": {
            "events": raw.height,
            "refused": dict(reasons.iter_rows()),
            "not_taken": accepted.height - taken.height,
            "repeated": taken.height - once.height,
            "outside_core": once.height - kept.height,
            "interactions": kept.height,
            "users": users.height,
            "items": items.height,
        },
        "source_report": report_of(source),
        "last_two_tie_share": users.select((pl.col(c.EVENT_TIME).list.n_unique() == 1).mean()).item(),
    }
    _write(out, users, items, meta)
    return meta


def _ordered(taken: pl.DataFrame, ties: Ties, seed: int) -> pl.DataFrame:
    """Events by time, equal times as in the source or as drawn."""
    if ties == "file":
        return taken.sort(c.EVENT_TIME, c.SOURCE_ROW)
    canonical = taken.sort(c.USER_ID, c.ITEM_ID, c.EVENT_TIME)  # rows equal in all three are interchangeable
    place = pl.Series("_place", np.random.default_rng(seed).permutation(taken.height))
    return canonical.with_columns(place).sort(c.EVENT_TIME, "_place").drop("_place")


def _need_words(name: str, ids: pl.Series) -> None:
    broken = next((one for one in ids if len(one.split()) != 1), None)
    if broken is not None:
        raise ValueError(
            f"{name} id {broken!r} holds a blank; sequences.txt separates ids by blanks, so rename such ids in the source first."
        )


def _file_digests(folder: Path) -> dict[str, str]:
    """Digest of each file of the source's folder, by name."""
    found = {}
    for file in sorted(f for f in folder.iterdir() if f.is_file()):
        with file.open("rb") as handle:
            found[file.name] = hashlib.file_digest(handle, "sha256").hexdigest()
    return found


def _write(out: Path, users: pl.DataFrame, items: pl.DataFrame, meta: dict[str, Any]) -> None:
    """Publish the folder; the benchmark's own reader has read it before, and its digest joins `meta`."""
    out.parent.mkdir(parents=True, exist_ok=True)
    tmp = out.with_name(f".{out.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    tmp.mkdir()
    try:
        lines = (" ".join([user, *taken]) for user, taken in users.select(c.USER_ID, c.ITEM_ID).iter_rows())
        _write_lines(tmp / "sequences.txt", lines)
        names = (c.ITEM_ID, BASE_TITLE, c.DEPARTMENT, c.CATEGORY, c.ITEM_TYPE)
        _write_lines(tmp / "items.jsonl", (_item_line(*row) for row in items.select(names).iter_rows()))
        meta["digest"] = load_sequences(tmp).digest
        write_json(tmp / "meta.json", meta)
        publish(tmp, out)
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


def _item_line(item_id: str, title: str, *labels: str | None) -> str:
    categories = list(dict.fromkeys(label for label in labels if label))
    return json.dumps({"item_id": item_id, "title": title, "categories": categories})


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)
