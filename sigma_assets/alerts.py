"""Alerts: one for each check that failed or warned and each run that failed, kept in `<root>/alerts.jsonl` until delivered.

The file is a log of what happened to alerts (raised, repeated, delivered, undelivered, refused, resolved); what is open or
waiting follows from it, so an alert survives a dead sink and a dead process. A new alert that finds at least `COMPACT_LINES`
lines, half of them of no use any more (repetitions, failed deliveries, alerts that are over and older than `GIVE_UP_DAYS`),
writes the file anew without those. How a sink talks is `alert_sinks.py`, where alerts come from is `alert_sources.py`. Our choice.
"""

import fcntl
import json
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol

from sigma_core.artifacts import write_bytes

LOG: Final = "alerts.jsonl"
ATTEMPTS: Final = 3  # in one delivery; the next delivery tries again
BACKOFF_SECONDS: Final = 0.5  # doubled after every attempt
GIVE_UP_DAYS: Final = 7  # older undelivered alerts stay in the file and are not sent any more

COMPACT_LINES: Final = 2000
_OF_NO_USE: Final = ("repeated", "undelivered")  # told for whoever reads the log; no state follows from them

_LOGGER: Final = logging.getLogger("sigma.alerts")

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
    """A sink did not take an alert.

    Attributes:
        is_final: it refuses this alert for good and may take another: it is not sent again, the next one is.
        is_setup: it refuses every alert until its address or login is corrected: not tried again at once, and all wait.
    """

    def __init__(self, message: str, *, is_final: bool = False, is_setup: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final
        self.is_setup = is_setup


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
            self._compact()
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
        """Send what each sink has not taken yet, oldest first; returns how many alerts wait on.

        A sink that fails `ATTEMPTS` times is left until the next delivery, so that a dead one costs seconds, not hours. An alert
        that a sink refuses for good is recorded as refused, waits no more and holds up no other. Whatever a sink raises stays here.
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
            failed = _try(sink, alert, sleep)
            outcome = {"id": alert.id, "sink": sink.name, "at": _now()}
            if failed is None:
                self._append({"event": "delivered", **outcome})
            elif failed.is_final:
                self._append({"event": "refused", **outcome, "error": str(failed)})
                _LOGGER.error("%s refuses alert %s (%s): %s", sink.name, alert.id, alert.headline(), failed)
            else:
                self._append({"event": "undelivered", **outcome, "error": str(failed)})
                return {one.id for one in waiting[number:]}
        return set()

    # ------------------------------------------------------------------------------------- reading
    def alerts(self) -> list[Alert]:
        """Every alert in the log, oldest first."""
        return [_alert(event) for event in self._events() if event["event"] == "raised"]

    def waiting(self, sink: str) -> list[Alert]:
        """Alerts that the sink has neither taken nor refused for good, oldest first, of the last `GIVE_UP_DAYS` days."""
        over = {"delivered", "refused"}
        taken = {e["id"] for e in self._events() if e["event"] in over and e.get("sink") == sink}
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
        for line in self.path.read_text(errors="replace").splitlines():
            try:
                event = json.loads(line)
            except json.JSONDecodeError:  # the last line of a process that was killed while writing
                continue
            if isinstance(event, dict) and {"event", "id"} <= event.keys():  # else no line of ours
                yield event

    def _compact(self) -> None:
        """Write the file without what is of no use, once that is half of many lines. Call while holding it alone."""
        events = list(self._events())
        if len(events) < COMPACT_LINES:
            return
        is_open, given_up = set(self._open().values()), datetime.now(UTC) - timedelta(days=GIVE_UP_DAYS)
        kept_ids = is_open | {
            alert.id for alert in self.alerts() if datetime.fromisoformat(alert.at) > given_up
        }
        kept = [e for e in events if e["id"] in kept_ids and e["event"] not in _OF_NO_USE]
        if 2 * len(kept) <= len(events):
            write_bytes(self.path, b"".join(map(_line, kept)))

    def _append(self, event: dict[str, Any]) -> None:
        with self._appending() as append:
            append(event)

    @contextmanager
    def _appending(self) -> Iterator[Callable[[dict[str, Any]], None]]:
        """Hold the file alone; every call of what is yielded adds one whole line."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opened:
            handle = opened.enter_context(self.path.open("a+b"))
            fcntl.flock(handle, fcntl.LOCK_EX)
            while not _is_in_place(handle, self.path):  # written anew while this process waited for its turn
                opened.close()
                handle = opened.enter_context(self.path.open("a+b"))
                fcntl.flock(handle, fcntl.LOCK_EX)
            handle.seek(0, os.SEEK_END)
            if handle.tell():
                handle.seek(-1, os.SEEK_END)
                if handle.read(1) != b"\n":
                    handle.write(b"\n")

            def append(event: dict[str, Any]) -> None:
                handle.write(_line(event))
                handle.flush()

            yield append


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, sort_keys=True, default=str).encode() + b"\n"


def _is_in_place(handle: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _try(sink: Sink, alert: Alert, sleep: Callable[[float], None]) -> DeliveryError | None:
    """Send with backoff; returns the last error, None when it was taken."""
    failed = None
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(BACKOFF_SECONDS * 2 ** (attempt - 1))
        try:
            sink.send(alert)
        except DeliveryError as error:
            failed = error
        except Exception as error:  # an alert never fails what it is about
            _LOGGER.exception("sink %s broke at alert %s", sink.name, alert.id)
            failed = DeliveryError(f"the sink broke: {type(error).__name__}", is_final=True)
        else:
            return None
        if failed.is_final or failed.is_setup:
            break
    return failed


def _alert(event: dict[str, Any]) -> Alert:
    values = dict(event["alert"])
    return Alert(**{**values, "examples": tuple(values["examples"])})


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
