"""Amazon Reviews of 2014, 2018 or 2023: review files and metadata files of JSON lines, plain or gzip, in one folder.

Files whose name starts with `meta` are metadata, all other *.json, *.jsonl (and .gz) are reviews; both are read line by line, and of a
review only ids and time are kept. A review is the positive interaction, whatever its stars. The three formats differ in names, in
price (number, "$5.99", missing), in categories (paths, one path, path or main category), in time (seconds, milliseconds) and in
that 2014 metadata are Python literals. `amazon.yaml` in the folder may say `k_core: 5`: users and items with fewer
reviews are left out, again and again until none is left, and so are reviews of items that the metadata lack; `report()` counts
what was dropped. The data are the user's own download.
"""

import gzip
import json
import logging
import zlib
from ast import literal_eval
from collections import Counter
from collections.abc import Iterator
from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl
import yaml

from sigma_core import columns as c
from sigma_core.data.cores import core_pairs
from sigma_core.data.sources.amazon_text import brand_of, category_path, plain_text, price_of, title_of
from sigma_core.data.sources.base import (
    SourceError,
    Vectors,
    event_dates,
    need_folder,
    product_master,
    raw_events,
)
from sigma_core.yaml_files import parse_yaml

SUFFIXES: Final = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
SETTINGS: Final = "amazon.yaml"
META: Final = "meta"
CHUNK: Final = 200_000  # rows held as Python objects at a time
LATEST_SECONDS: Final = 10**11  # a larger timestamp is in milliseconds
PRICE: Final = "meta_price"
CORE_RULE: Final = 2  # raise it when another core comes out of the same files
_log = logging.getLogger(__name__)


class Review(NamedTuple):
    """What is kept of a line; a part that is missing or unreadable is None."""

    user: str | None
    item: str | None
    seconds: float | None


class Amazon:
    """A folder of Amazon reviews; construction looks at file names and reads the settings only.

    Raises:
        SourceError: no folder, no review file, no metadata file, or settings that are not understood.
    """

    name = "amazon"

    def __init__(self, path: Path | None) -> None:
        self._folder = need_folder(path, self.name, "review files and meta* files of JSON lines")
        files = sorted(f for f in self._folder.iterdir() if f.name.endswith(SUFFIXES))
        self._meta = [f for f in files if f.name.lower().startswith(META)]
        self._reviews = [f for f in files if f not in self._meta]
        if not self._reviews or not self._meta:
            here = ", ".join(sorted(f.name for f in self._folder.iterdir())) or "nothing"
            raise SourceError(
                f"{self._folder} holds {here}; needed are review files (such as reviews_Beauty_5.json.gz, Beauty.jsonl) and "
                "metadata (a name that starts with meta, such as meta_Beauty.json.gz)."
            )
        self._k_core = _k_core(self._folder / SETTINGS)
        self._raw: pl.DataFrame | None = None
        self._products: pl.DataFrame | None = None
        self._counts: Counter[str] = Counter()

    def events(self) -> pl.DataFrame:
        """One row a review, EVENT_TYPE "rating", quantity 1, the item's listed price; an unreadable line has no ids.

        With k_core, rows outside the core are left out; SOURCE_ROW is the line's number in the files, in order of their names.
        """
        if self._raw is None:
            rows = pl.concat(list(self._chunks()))
            priced = rows.join(
                self._master().select(c.ITEM_ID, PRICE), on=c.ITEM_ID, how="left", maintain_order="left"
            )
            raw = raw_events(
                priced.rename({PRICE: c.PRICE}).with_columns(
                    pl.lit("rating").alias(c.EVENT_TYPE), pl.lit(1.0).alias(c.QUANTITY)
                )
            )
            self._raw = self._core(raw)
        return self._raw

    def products(self) -> pl.DataFrame:
        """Items: their title (without one, the first words of the description), type, category, department and brand."""
        return product_master(self._master()).sort(c.ITEM_ID)

    def users(self) -> pl.DataFrame:
        """No rows: reviewers have no profile."""
        return pl.DataFrame(schema={c.USER_ID: pl.String})

    def date_range(self) -> tuple[date, date]:
        """First and last day with a review."""
        return event_dates(self.events(), str(self._folder))

    def fingerprint(self) -> str:
        """Digest of names, sizes and times of the files, and of the settings: the files are gigabytes."""
        core = f"k_core {self._k_core}"
        if self._k_core > 1:
            core += f", rule {CORE_RULE}"
        digest = blake2b(core.encode(), digest_size=16)
        for file in [*self._reviews, *self._meta]:
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns};".encode())
        return digest.hexdigest()

    def id_vectors(self) -> Vectors | None:
        """None: the data has none."""
        return None

    def image_vectors(self) -> Vectors | None:
        """None: images are links, and nothing is downloaded."""
        return None

    def report(self) -> dict[str, int]:
        """Lines read and what became of them, by reason.

        Left out here are `reviews_outside_core`, and with k_core `reviews_of_unknown_items`; what lacks a part goes on to quarantine.
        """
        self.events()
        return dict(sorted(self._counts.items()))

    def _chunks(self) -> Iterator[pl.DataFrame]:
        """Reviews as USER_ID, ITEM_ID, EVENT_TIME, in chunks."""
        reviews: list[Review] = []
        for file in self._reviews:
            for values in self._lines(file):
                reviews.append(_review(values))
                self._counts["review_lines"] += 1
                if len(reviews) == CHUNK:
                    yield self._frame(reviews)
                    reviews = []
        yield self._frame(reviews)

    def _frame(self, reviews: list[Review]) -> pl.DataFrame:
        users, items, seconds = zip(*reviews, strict=True) if reviews else ((), (), ())
        frame = pl.DataFrame(
            {c.USER_ID: users, c.ITEM_ID: items, "seconds": seconds},
            schema={c.USER_ID: pl.String, c.ITEM_ID: pl.String, "seconds": pl.Float64},
        )
        for name, column in (("no_user", c.USER_ID), ("no_item", c.ITEM_ID), ("no_time", "seconds")):
            self._counts[name] += frame[column].null_count()
        micros = (pl.col("seconds") * 1e6).round().cast(pl.Int64, strict=False).cast(pl.Datetime("us"))
        return frame.select(c.USER_ID, c.ITEM_ID, micros.alias(c.EVENT_TIME))

    def _lines(self, file: Path) -> Iterator[dict[str, Any]]:
        """Every line as a dict; one that cannot be read is empty.

        Raises:
            SourceError: the file is no gzip, or no line of it can be read.
        """
        read = good = 0
        try:
            with (
                gzip.open(file, "rt", encoding="utf-8")
                if file.suffix == ".gz"
                else file.open(encoding="utf-8") as lines
            ):
                for line in lines:
                    if line.strip():
                        read += 1
                        values = _parsed(line)
                        good += bool(values)
                        self._counts["unreadable_lines"] += not values
                        yield values
        except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
            raise SourceError(f"{file} cannot be read after line {read}: {error}") from error
        if read and not good:
            raise SourceError(f"{file}: none of its {read} lines is a JSON object; JSON lines are needed.")

    def _master(self) -> pl.DataFrame:
        """The product columns and `PRICE`, one row an item; the first line of an item counts."""
        if self._products is None:
            rows: dict[str, tuple[Any, ...]] = {}
            for file in self._meta:
                for values in self._lines(file):
                    item = _text(values.get("parent_asin")) or _text(values.get("asin"))
                    self._counts["metadata_lines"] += 1
                    if item is None:
                        self._counts["metadata_without_item"] += 1
                    elif item in rows:
                        self._counts["metadata_repeated"] += 1
                    else:
                        rows[item] = _product(values)
            names = (c.TITLE, c.ITEM_TYPE, c.CATEGORY, c.DEPARTMENT, c.BRAND)
            schema = {c.ITEM_ID: pl.String, **dict.fromkeys(names, pl.String), PRICE: pl.Float64}
            self._products = pl.DataFrame([(i, *row) for i, row in rows.items()], schema=schema, orient="row")
            self._counts["items"] = len(rows)
        return self._products

    def _core(self, raw: pl.DataFrame) -> pl.DataFrame:
        """`raw` without the reviews that are whole but outside the k-core, which counts whole reviews of known items alone.

        Reviews of unknown items are left out too: they can be in no core. Rows that lack a part stay, for quarantine.
        """
        unknown = ~raw[c.ITEM_ID].is_in(self._master()[c.ITEM_ID].implode()).fill_null(True)
        self._counts["reviews_of_unknown_items"] = int(unknown.sum())
        if self._k_core <= 1:
            return raw
        broken = pl.any_horizontal(pl.col(c.USER_ID, c.ITEM_ID, c.EVENT_TIME).is_null())
        known = raw.filter(~unknown)
        whole = known.filter(~broken).select(c.USER_ID, c.ITEM_ID).unique(maintain_order=True)
        pairs = core_pairs(whole, user_least=self._k_core, item_least=self._k_core)
        for name, label in ((c.USER_ID, "users_outside_core"), (c.ITEM_ID, "items_outside_core")):
            self._counts[label] = whole[name].n_unique() - pairs[name].n_unique()
        inside = pairs.with_columns(pl.lit(True).alias("inside"))
        marked = known.join(inside, on=[c.USER_ID, c.ITEM_ID], how="left", maintain_order="left")
        kept = marked.filter(pl.col("inside").fill_null(False) | broken).drop("inside")
        self._counts["reviews_outside_core"] = known.height - kept.height
        if pairs.is_empty():
            raise SourceError(
                f"{self._folder}: no review is left with k_core {self._k_core}; lower it in {SETTINGS}."
            )
        _log.info("%s: k_core %d left %d of %d reviews", self._folder, self._k_core, kept.height, raw.height)
        return kept


def _k_core(file: Path) -> int:
    if not file.exists():
        return 1
    try:
        values = parse_yaml(file.read_text()) or {}
    except yaml.YAMLError as error:
        raise SourceError(f"{file} is no YAML: {error}") from error
    k_core = values.get("k_core", 1) if isinstance(values, dict) else None
    if not isinstance(values, dict) or set(values) - {"k_core"} or not isinstance(k_core, int) or k_core < 1:
        raise SourceError(f"{file}: arrived {values!r}; needed only k_core, a whole number of at least 1.")
    return k_core


def _parsed(line: str) -> dict[str, Any]:
    """The line's object; {} when it is none. 2014 metadata are Python literals (never run, only read)."""
    try:
        values = json.loads(line)
    except RecursionError:
        return {}
    except ValueError:
        try:
            values = literal_eval(line.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return {}
    return values if isinstance(values, dict) else {}


def _review(values: dict[str, Any]) -> Review:
    user = _text(values.get("user_id")) or _text(values.get("reviewerID"))
    item = _text(values.get("parent_asin")) or _text(values.get("asin"))
    time = values.get("timestamp", values.get("sort_timestamp", values.get("unixReviewTime")))
    try:
        seconds = float(time)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return Review(user, item, None)
    seconds = seconds / 1000 if seconds > LATEST_SECONDS else seconds
    return Review(user, item, seconds if 0 <= seconds <= LATEST_SECONDS else None)


def _product(values: dict[str, Any]) -> tuple[Any, ...]:
    path = category_path(values)
    return (
        title_of(values),
        path[-1] if len(path) > 1 else None,
        path[1] if len(path) > 2 else None,
        path[0] if path else None,
        brand_of(values),
        price_of(values.get("price")),
    )


def _text(value: Any) -> str | None:
    return plain_text(value) or None if isinstance(value, str) else None
