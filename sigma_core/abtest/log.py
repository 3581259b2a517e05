"""The log of an A/B test: three tables that a replay or a real platform fills, and reading and writing them.

Holds the form of the tables only. What they must obey is `data_contracts/logged/abtest_log.yaml`; what follows from them is
`analysis.py`. Our choice; the paper reports online tests and publishes no log.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import digest_bytes, digest_frame

ARM: Final = "arm"
EXPERIMENT: Final = "experiment"
CONTROL: Final = "control"
CANDIDATE: Final = "candidate"
ARMS: Final = (CONTROL, CANDIDATE)

SCHEMAS: Final[dict[str, dict[str, Any]]] = {
    "assignment": {EXPERIMENT: pl.String, c.USER_ID: pl.String, ARM: pl.String},
    "exposure": {
        EXPERIMENT: pl.String, c.USER_ID: pl.String, ARM: pl.String, "shown_on": pl.Date, c.RANK: pl.Int32,
        c.ITEM_ID: pl.String, c.CATEGORY: pl.String,
    },
    "outcome": {
        EXPERIMENT: pl.String, c.USER_ID: pl.String, "shown_on": pl.Date, c.ITEM_ID: pl.String, "events": pl.Int32,
    },
}  # fmt: skip


@dataclass(frozen=True)
class AbLog:
    """Who was assigned, what they were shown, what they took in the days after.

    Attributes:
        assignment: a row a user of an experiment. `arm` is control or candidate.
        exposure: a row a shown item; `shown_on` is the day after which outcomes count.
        outcome: a row an item that a user took within the horizon after `shown_on`, shown or not.
    """

    assignment: pl.DataFrame
    exposure: pl.DataFrame
    outcome: pl.DataFrame

    def __post_init__(self) -> None:
        for name, schema in SCHEMAS.items():
            found = dict(getattr(self, name).schema)
            if found != schema:
                raise ValueError(f"table {name}: needed columns {schema}, arrived {found}.")

    def tables(self) -> dict[str, pl.DataFrame]:
        """The frames by name."""
        return {name: getattr(self, name) for name in SCHEMAS}

    def of(self, experiment: str | None = None) -> Self:
        """The rows of one experiment; with None, the log itself, which must be of one.

        Raises:
            ValueError: there is no such experiment, or there are several and none was named; the message counts each.
        """
        names = pl.concat([frame[EXPERIMENT] for frame in self.tables().values()]).fill_null("(no name)")
        users = dict(self.assignment.group_by(pl.col(EXPERIMENT).fill_null("(no name)")).len().iter_rows())
        found = {name: users.get(name, 0) for name in names.unique().sort()}
        said = ", ".join(f"{name} ({count} users assigned)" for name, count in found.items()) or "none"
        if experiment is None:
            if len(found) > 1:
                raise ValueError(
                    f"the log holds {len(found)} experiments: {said}. A user may be in another arm of each, so they cannot "
                    "be read as one; needed one of them (--experiment NAME)."
                )
            return self
        if experiment not in found:
            raise ValueError(f"the log has no experiment {experiment!r}; it holds {said}.")
        kept = {name: frame.filter(pl.col(EXPERIMENT) == experiment) for name, frame in self.tables().items()}
        return type(self)(**kept)

    def digest(self) -> str:
        """Digest of the three tables."""
        return digest_bytes(*(digest_frame(frame).encode() for frame in self.tables().values()))

    def save(self, folder: Path) -> None:
        """Write `assignment.parquet`, `exposure.parquet`, `outcome.parquet`, each whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in self.tables().items():
            tmp = folder / f".{name}.tmp"
            frame.write_parquet(tmp)
            tmp.replace(folder / f"{name}.parquet")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read back what `save`, or a platform, wrote; columns beyond the schema are left out.

        Raises:
            ValueError: a table or a column is missing, or of another type.
        """
        frames = {}
        for name, schema in SCHEMAS.items():
            path = folder / f"{name}.parquet"
            if not path.exists():
                raise ValueError(f"{path} is missing; a log is {', '.join(f'{n}.parquet' for n in SCHEMAS)}.")
            frame = pl.read_parquet(path)
            if missing := [column for column in schema if column not in frame.columns]:
                raise ValueError(f"{path} lacks {', '.join(missing)}; it has {', '.join(frame.columns)}.")
            frames[name] = frame.select(list(schema))
        return cls(**frames)
