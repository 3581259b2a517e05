"""MovieLens: an unpacked ml-100k or ml-1m folder. A rating is the positive interaction, whatever its stars.

The two formats differ in file names, separators and codes; both are read into one shape. Titles keep their year, the
genres are the item's type, the first genre its category; a movie has no price. GroupLens forbids redistribution, so
the folder is the user's own download.
"""

from datetime import date
from hashlib import blake2b
from pathlib import Path
from typing import Final

import polars as pl

from sigma_core import columns as c
from sigma_core.data.sources.base import (
    SourceError,
    Vectors,
    event_dates,
    need_folder,
    product_master,
    raw_events,
)

_SMALL: Final = ("u.data", "u.item", "u.user", "u.genre")
_LARGE: Final = ("ratings.dat", "movies.dat", "users.dat")
_AGE_GROUPS: Final = {  # ml-1m's codes, from its README
    "1": "under 18", "18": "18 to 24", "25": "25 to 34", "35": "35 to 44", "45": "45 to 49", "50": "50 to 55",
    "56": "56 or more",
}  # fmt: skip
_OCCUPATIONS: Final = (  # ml-1m's codes 0 to 20, from its README
    None, "academic or educator", "artist", "clerical or admin", "college or grad student", "customer service",
    "doctor or health care", "executive or manager", "farmer", "homemaker", "school student", "lawyer", "programmer",
    "retired", "sales or marketing", "scientist", "self-employed", "technician or engineer", "tradesman or craftsman",
    "unemployed", "writer",
)  # fmt: skip
_GENDERS: Final = {"M": "man", "F": "woman"}


class MovieLens:
    """A MovieLens folder; construction tells the two formats apart and reads nothing.

    Raises:
        SourceError: no folder, or one that is neither format whole.
    """

    name = "movielens"

    def __init__(self, path: Path | None) -> None:
        self._folder = need_folder(path, self.name, "ml-100k's u.data or ml-1m's ratings.dat")
        here = {file.name for file in self._folder.iterdir()}
        self._files = _SMALL if "u.data" in here else _LARGE
        missing = [name for name in self._files if name not in here]
        if missing:
            raise SourceError(
                f"{self._folder} lacks {', '.join(missing)}; needed are {', '.join(_SMALL)} (ml-100k) or "
                f"{', '.join(_LARGE)} (ml-1m)."
            )
        self._is_small = self._files is _SMALL
        self._raw: pl.DataFrame | None = None

    def events(self) -> pl.DataFrame:
        """One row a rating, EVENT_TYPE "rating", quantity 1; a time that is no whole number of seconds is null."""
        if self._raw is None:
            rows = self._fields(self._files[0], "\t" if self._is_small else "::", 4)
            seconds = rows["f3"].cast(pl.Int64, strict=False)
            self._raw = raw_events(
                pl.DataFrame(
                    {
                        c.USER_ID: rows["f0"].replace("", None),
                        c.ITEM_ID: rows["f1"].replace("", None),
                        c.EVENT_TIME: pl.Series(seconds * 1_000_000).cast(pl.Datetime("us")),
                    }
                ).with_columns(
                    pl.lit("rating").alias(c.EVENT_TYPE),
                    pl.lit(1.0).alias(c.QUANTITY),
                )
            )
        return self._raw

    def products(self) -> pl.DataFrame:
        """Movies: TITLE with its year, ITEM_TYPE = its genres, CATEGORY = the first of them."""
        movies = self._small_movies() if self._is_small else self._large_movies()
        genres = pl.col("genres").list
        return product_master(
            movies.select(
                pl.col("f0").alias(c.ITEM_ID),
                pl.col("f1").alias(c.TITLE),
                pl.when(genres.len() > 0).then(genres.join(" ")).alias(c.ITEM_TYPE),
                genres.get(0, null_on_oob=True).alias(c.CATEGORY),
                pl.lit("movies").alias(c.DEPARTMENT),
            )
        ).sort(c.ITEM_ID)

    def users(self) -> pl.DataFrame:
        """Age, gender and occupation in words."""
        rows = self._fields(self._files[2], "|" if self._is_small else "::", 5)
        gender = pl.col("f2" if self._is_small else "f1").replace_strict(_GENDERS, default=None)
        if self._is_small:
            age = pl.lit("aged ") + pl.col("f1")
            work = pl.col("f3").replace({"none": None, "other": None})
        else:
            codes = {str(i): name for i, name in enumerate(_OCCUPATIONS)}
            age = pl.lit("aged ") + pl.col("f2").replace_strict(_AGE_GROUPS, default=None)
            work = pl.col("f3").replace_strict(codes, default=None, return_dtype=pl.String)
        return rows.select(
            pl.col("f0").alias(c.USER_ID), age.alias("age"), gender.alias("gender"), work.alias("occupation")
        )

    def date_range(self) -> tuple[date, date]:
        """First and last day with a rating."""
        return event_dates(self.events(), str(self._folder / self._files[0]))

    def fingerprint(self) -> str:
        """Digest of the bytes of the files that are read."""
        digest = blake2b(digest_size=16)
        for name in self._files:
            digest.update((self._folder / name).read_bytes())
        return digest.hexdigest()

    def id_vectors(self) -> Vectors | None:
        """None: the data has none."""
        return None

    def image_vectors(self) -> Vectors | None:
        """None: the data has none."""
        return None

    def _small_movies(self) -> pl.DataFrame:
        """ml-100k: a 0/1 column for each genre, whose names are in u.genre."""
        names = [line.split("|")[0] for line in self._lines("u.genre") if line.strip()]
        rows = self._fields("u.item", "|", 5 + len(names))
        flags = [
            pl.when(pl.col(f"f{5 + i}") == "1").then(pl.lit(_genre(name)))
            for i, name in enumerate(names)
            if name != "unknown"
        ]
        return rows.with_columns(pl.concat_list(flags).list.drop_nulls().alias("genres"))

    def _large_movies(self) -> pl.DataFrame:
        """ml-1m: genre names in one field, joined by a bar."""
        rows = self._fields("movies.dat", "::", 3)
        genres = [[_genre(name) for name in text.split("|") if name] for text in rows["f2"]]
        return rows.with_columns(pl.Series("genres", genres, pl.List(pl.String)))

    def _lines(self, name: str) -> list[str]:
        return (self._folder / name).read_text(encoding="latin-1").splitlines()

    def _fields(self, name: str, separator: str, width: int) -> pl.DataFrame:
        """The file as text columns f0, f1, ...

        Raises:
            SourceError: a line has another number of fields.
        """
        text = pl.Series("line", self._lines(name), pl.String)
        text = text.filter(text.str.len_chars() > 0)
        count = text.str.count_matches(separator, literal=True) + 1
        wrong = (count != width).arg_max()
        if text.len() == 0 or (wrong is not None and count[wrong] != width):
            arrived = (
                f"line {wrong + 1} has {count[wrong]} fields"
                if text.len() and wrong is not None
                else "no line"
            )
            raise SourceError(
                f"{self._folder / name}: {arrived}; {width} fields separated by {separator!r} are needed."
            )
        parts = text.str.split(separator).list.to_struct(fields=[f"f{i}" for i in range(width)])
        return parts.struct.unnest()


def _genre(name: str) -> str:
    return name.lower().replace("children's", "children").replace("film-noir", "film noir")
