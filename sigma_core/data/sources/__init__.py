"""Data sources by name. One shape for all: `base.Source`."""

from pathlib import Path
from typing import Final

from sigma_core.data.sources.base import Source, SourceError, Vectors

SOURCES: Final = ("complete_journey", "movielens", "amazon", "tabular")


def open_source(name: str, path: Path | None = None) -> Source:
    """The source called `name`; `path` is its folder, for the sources that have one.

    Raises:
        SourceError: unknown name, a missing folder or file, or a path given to the embedded source.
    """
    if name == "complete_journey":
        from sigma_core.data.sources.complete_journey import CompleteJourney

        if path is not None:
            raise SourceError(
                f"source complete_journey comes in a package and takes no --path (arrived {path})."
            )
        return CompleteJourney()
    if name == "movielens":
        from sigma_core.data.sources.movielens import MovieLens

        return MovieLens(path)
    if name == "amazon":
        from sigma_core.data.sources.amazon import Amazon

        return Amazon(path)
    if name == "tabular":
        from sigma_core.data.sources.tabular import Tabular

        return Tabular(path)
    raise SourceError(f"unknown source {name!r}; there are {', '.join(SOURCES)}.")


__all__ = ["SOURCES", "Source", "SourceError", "Vectors", "open_source"]
