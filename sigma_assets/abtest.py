"""`sigma abtest`: two roots' prepared lists and held-out events in, a checked log and its report out.

Reads artifacts and writes where it is told; what is computed is in `sigma_core/abtest/`. Our choice.
"""

from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from sigma_core import columns as c
from sigma_core.abtest.analysis import analyse, check_plan, report_text, with_assigned
from sigma_core.abtest.log import AbLog
from sigma_core.abtest.replay import replay
from sigma_core.artifacts import TABLE, ArtifactStore, write_json
from sigma_core.config import parse_date
from sigma_core.contracts import CONTRACTS, bundled_path, read_contract
from sigma_core.root_file import ROOT_FILE, read_binding

if TYPE_CHECKING:
    from sigma_assets.checks.contract import CheckOutcome

U2I: Final = "user_to_item_index"
KIND: Final = {True: "A REPLAY of held-out purchases, not an online result.", False: "A log as it was given."}


class AbTestError(ValueError):
    """The policies or the log cannot be compared; the message says what to do."""


@dataclass(frozen=True)
class Replayed:
    """What `simulate` was asked."""

    control: str
    candidate: str
    experiment: str
    task: str
    top_n: int
    share: float
    detect: float


@dataclass(frozen=True)
class _Policy:
    """Whose lists: a root, and a fixed day of it if one was named."""

    root: Path
    day: date | None

    @classmethod
    def parse(cls, text: str) -> "_Policy":
        root, _, day = text.partition("@")
        if not (Path(root) / ROOT_FILE).exists():
            raise AbTestError(f"{root} holds no artifacts; needed ROOT or ROOT@DAY of a materialized root.")
        read_binding(Path(root))  # refuses a damaged root, or one of another release
        return cls(Path(root), parse_date(day) if day else None)

    def days(self) -> set[date]:
        return {parse_date(day) for day in ArtifactStore(self.root).partitions(U2I)}

    def lists(self, day: date, task: str) -> pl.DataFrame:
        path = ArtifactStore(self.root).path(U2I, (self.day or day).isoformat()) / TABLE
        if not path.exists():
            raise AbTestError(
                f"{self.root} has no {U2I} of {self.day or day}; there are {sorted(map(str, self.days()))}."
            )
        frame = pl.read_parquet(path).filter(pl.col(c.TASK) == task)
        if frame.is_empty():
            raise AbTestError(
                f"{path} holds no lists of task {task!r}; serving.u2i_tasks says which are made."
            )
        return frame.select(c.USER_ID, c.RANK, c.ITEM_ID)


def simulate_replay(asked: Replayed, log_folder: Path | None, out: Path | None) -> str:
    """Replay, check, report; returns what to print.

    Raises:
        AbTestError: no day can be replayed, or the log breaks its contract.
        ValueError: share or detect is out of bounds.
    """
    check_plan(asked.share, asked.detect)
    control, candidate = _Policy.parse(asked.control), _Policy.parse(asked.candidate)
    horizon = read_binding(control.root).config().data.horizon_days
    days, events = _days(control, candidate, horizon)
    store = ArtifactStore(control.root)
    lists = {day: (control.lists(day, asked.task), candidate.lists(day, asked.task)) for day in days}
    catalogs = {day: pl.read_parquet(store.path("item_catalog", day.isoformat()) / TABLE) for day in days}
    log = replay(
        lists, catalogs, events, experiment=asked.experiment, share=asked.share, top_n=asked.top_n,
        horizon_days=horizon,
    )  # fmt: skip
    settings = asdict(asked) | {"days": [day.isoformat() for day in days], "horizon_days": horizon}
    title = f"{KIND[True]} Days {', '.join(settings['days'])}, {horizon} days after each, top {asked.top_n}."
    return _report(log, log_folder, out, asked.share, asked.detect, {"replay": True, **settings}, title)


def analyse_log(
    folder: Path, share: float, detect: float, out: Path | None, experiment: str | None = None
) -> str:
    """Check a given log, or one experiment of it, and report it; returns what to print.

    Raises:
        AbTestError: the log breaks its contract.
        ValueError: a table or column is missing, share or detect is out of bounds, the experiment is not in the log, or there
            are several and none was named.
    """
    check_plan(share, detect)
    log = AbLog.load(folder).of(experiment)
    asked = {"replay": False, "log": str(folder), "experiment": experiment}
    return _report(log, None, out, share, detect, asked, KIND[False])


def check_log(log: AbLog) -> "list[CheckOutcome]":
    """Outcomes of the contract `abtest_log` on the three tables."""
    from sigma_assets.checks.contract import validate

    contract = read_contract(bundled_path(CONTRACTS) / "logged" / "abtest_log.yaml")
    return validate(contract, log.tables() | {"exposure": with_assigned(log)})


def _report(
    log: AbLog,
    folder: Path | None,
    out: Path | None,
    share: float,
    detect: float,
    asked: dict[str, Any],
    title: str,
) -> str:
    from sigma_assets.checks.contract import failed_errors

    if broken := failed_errors(check_log(log)):
        raise AbTestError(f"the log breaks its contract: {'; '.join(one.description for one in broken[:3])}.")
    report = analyse(log, share=share, detect=detect)
    said = report_text(report, title)
    if folder is not None:
        log.save(folder)
        said += f"written: {folder}\n"
    if out is not None:
        write_json(out, {"abtest": asked | {"log_digest": log.digest()}, **report})
        said += f"written: {out}\n"
    return said


def _days(control: _Policy, candidate: _Policy, horizon: int) -> tuple[list[date], pl.DataFrame]:
    """Days that can be replayed, one a horizon so that no purchase counts twice, and the held-out events."""
    store = ArtifactStore(control.root)
    known = {parse_date(day) for day in store.partitions("interaction_events")}
    fixed = [day for day in (control.day, candidate.day) if day is not None]
    served = [policy.days() for policy in (control, candidate) if policy.day is None]
    days = sorted(set.intersection(*served) if served else {max(fixed)})
    usable: list[date] = []
    for day in days:
        later = fixed and max(fixed) > day
        held_out = {day + timedelta(days=n) for n in range(1, horizon + 1)} <= known
        if not later and held_out and (not usable or (day - usable[-1]).days >= horizon):
            usable.append(day)
    if not usable:
        raise AbTestError(
            f"no day has lists of both policies and {horizon} days of events after it (lists: {[str(d) for d in days]}; "
            f"events until {max(known, default='-')}). Run `sigma evaluate` for the day in {control.root}."
        )
    wanted = sorted({day + timedelta(days=n) for day in usable for n in range(1, horizon + 1)})
    files = [store.path("interaction_events", day.isoformat()) / TABLE for day in wanted]
    columns = (c.USER_ID, c.ITEM_ID, c.EVENT_DATE, c.EVENT_TYPE)
    return usable, pl.scan_parquet(files).select(columns).collect()
