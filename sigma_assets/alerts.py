"""Alerts: one for each check that failed or warned and each run that failed, kept in `<root>/alerts.jsonl` until delivered.

The file is a log of what happened to alerts (raised, repeated, delivered, undelivered, resolved) and is only ever appended to;
what is open or waiting follows from it, so an alert survives a dead sink and a dead process. How a sink talks is
`alert_sinks.py`, where alerts come from is `alert_sources.py`. Our choice.
"""

import fcntl
import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal, Protocol

LOG: Final = "alerts.jsonl"
ATTEMPTS: Final = 3  # in one delivery; the next delivery tries again
BACKOFF_SECONDS: Final = 0.5  # doubled after every attempt
GIVE_UP_DAYS: Final = 7  # older undelivered alerts stay in the file and are not sent any more

Severity = Literal["ERROR", "WARN"]


@dataclass(frozen=True)
class Alert:
    """One thing that somebody has to know.

    Attributes:
        kind: check_failed, check_warning, run_failed, file_refused or freshness_missed.
        what: one line: what happened.
        severity: ERROR stops what depends on it, WARN does not.
        asset, partition: where.
        check: name of the check; "" for a run.
        run_id, link: the run, and where to see it.
        examples: failing rows or figures, a line each.
        to_do: what to do about it.
        owner: whose it is.
        id: of this alert; at: when it was raised (UTC, ISO).
    """

    kind: str
    what: str
    severity: Severity
    asset: str
    partition: str
    check: str = ""
    run_id: str = ""
    link: str = ""
    examples: tuple[str, ...] = ()
    to_do: str = ""
    owner: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def key(self) -> str:
        """What two alerts about the same thing share: (check or kind, asset, partition)."""
        return f"{self.check or self.kind}/{self.asset}/{self.partition}"

    def headline(self) -> str:
        """How bad, and where, in one line."""
        what = self.check or self.kind.replace("_", " ")
        return f"{self.severity} {self.asset}[{self.partition}] {what}"

    def text(self) -> str:
        """The whole alert as plain text."""
        rows = [self.headline(), self.what]
        rows += [f"  example: {example}" for example in self.examples]
        rows += [f"to do: {self.to_do}"] if self.to_do else []
        rows += [f"owner: {self.owner}"] if self.owner else []
        return "\n".join(rows + ([f"run: {self.link}"] if self.link else []))


class DeliveryError(RuntimeError):
    """A sink did not take an alert. `is_final`: the same attempt again would fail again."""

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class Sink(Protocol):
    """Somewhere alerts go."""

    @property
    def name(self) -> str:
        """What the log of alerts calls it."""

    def send(self, alert: Alert) -> None:
        """Hand the alert over; `DeliveryError` when it was not taken."""


class AlertLog:
    """The alerts of a root."""

    def __init__(self, root: Path) -> None:
        self.path = root / LOG

    # ------------------------------------------------------------------------------------- writing
    def raise_alert(self, alert: Alert) -> bool:
        """Record the alert; False when the same thing is open already (then only its repetition is recorded)."""
        with self._appending() as append:
            known = self._open()
            if alert.key in known:
                append({"event": "repeated", "id": known[alert.key], "at": alert.at, "run_id": alert.run_id})
                return False
            append({"event": "raised", "id": alert.id, "key": alert.key, "alert": asdict(alert)})
            return True

    def resolve(self, keys: Iterable[str]) -> int:
        """Record that what the open alerts of these keys were about is over; returns how many were open."""
        if not self.path.exists():
            return 0
        with self._appending() as append:
            known = self._open()
            over = [key for key in keys if key in known]
            for key in over:
                append({"event": "resolved", "id": known[key], "key": key, "at": _now()})
            return len(over)

    def deliver(self, sinks: Sequence[Sink], sleep: Callable[[float], None] = time.sleep) -> int:
        """Send what each sink has not taken yet, oldest first; returns how many alerts stay undelivered.

        A sink that fails `ATTEMPTS` times is left until the next delivery, so that a dead one costs seconds, not hours.
        One process delivers at a time; a second one returns at once.
        """
        if not self.path.exists():
            return 0
        with (self.path.parent / f".{LOG}.delivery").open("a") as turn:
            try:
                fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return len({alert.id for sink in sinks for alert in self.waiting(sink.name)})
            left: set[str] = set()
            for sink in sinks:
                left |= self._deliver_to(sink, sleep)
            return len(left)

    def _deliver_to(self, sink: Sink, sleep: Callable[[float], None]) -> set[str]:
        waiting = self.waiting(sink.name)
        for number, alert in enumerate(waiting):
            error = _try(sink, alert, sleep)
            self._append(
                {"event": "undelivered", "id": alert.id, "sink": sink.name, "at": _now(), "error": error}
                if error
                else {"event": "delivered", "id": alert.id, "sink": sink.name, "at": _now()}
            )
            if error:
                return {one.id for one in waiting[number:]}
        return set()

    # ------------------------------------------------------------------------------------- reading
    def alerts(self) -> list[Alert]:
        """Every alert ever raised, oldest first."""
        return [_alert(event) for event in self._events() if event["event"] == "raised"]

    def waiting(self, sink: str) -> list[Alert]:
        """Alerts that the sink has not taken, oldest first, of the last `GIVE_UP_DAYS` days."""
        taken = {e["id"] for e in self._events() if e["event"] == "delivered" and e["sink"] == sink}
        now = datetime.now(UTC)
        return [
            alert
            for alert in self.alerts()
            if alert.id not in taken and (now - datetime.fromisoformat(alert.at)).days < GIVE_UP_DAYS
        ]

    def open_keys(self) -> list[str]:
        """Keys of what is not over, oldest first."""
        return list(self._open())

    def _open(self) -> dict[str, str]:
        """Key -> id of every open alert."""
        known: dict[str, str] = {}
        for event in self._events():
            if event["event"] == "raised":
                known[event["key"]] = event["id"]
            elif event["event"] == "resolved":
                known.pop(event["key"], None)
        return known

    def _events(self) -> Iterator[dict[str, Any]]:
        if not self.path.exists():
            return
        for line in self.path.read_text().splitlines():
            try:
                yield json.loads(line)
            except json.JSONDecodeError:  # the last line of a process that was killed while writing
                continue

    def _append(self, event: dict[str, Any]) -> None:
        with self._appending() as append:
            append(event)

    @contextmanager
    def _appending(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Hold the file alone; every call of what is yielded adds one whole line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            handle.seek(0, os.SEEK_END)
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                if handle.read(1) != b"\n":
                    handle.write(b"\n")

            def append(event: dict[str, Any]) -> None:
                handle.write(json.dumps(event, sort_keys=True, default=str).encode() + b"\n")
                handle.flush()

            yield append


def _try(sink: Sink, alert: Alert, sleep: Callable[[float], None]) -> str:
    """Send with backoff; returns the last error, "" when it was taken."""
    error = ""
    for attempt in range(ATTEMPTS):
        try:
            sink.send(alert)
        except DeliveryError as failed:
            error = str(failed)
            if failed.is_final:
                break
            if attempt + 1 < ATTEMPTS:
                sleep(BACKOFF_SECONDS * 2**attempt)
        else:
            return ""
    return error


def _alert(event: dict[str, Any]) -> Alert:
    values = dict(event["alert"])
    return Alert(**{**values, "examples": tuple(values["examples"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
