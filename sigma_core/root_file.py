"""`root.json`: what a root is bound to, read and checked in one place for every verb.

Holds the binding, its reader and its errors. How a root gets bound, and to what, is `sigma_assets/binding.py`. Makes nothing.
Source: architecture.md, rule 8; our choice.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Final

from sigma_core.artifacts import MANIFEST, DamagedError, read_dataclass, read_object
from sigma_core.config import SigmaConfig, load_config
from sigma_core.data.sources import Source, open_source

ROOT_FILE: Final = "root.json"
ROOT_SCHEMA: Final = 1


class RootError(ValueError):
    """A root does not exist, is bound to something else, or is of another release."""


@dataclass(frozen=True)
class Binding:
    """What a root is bound to, as in its `root.json`.

    Source, path and profile never change; settings and data may, and then the steps that depend on them are made again.

    Attributes:
        settings: the differences to the profile, as `section.key=value`.
        start, end: first and last day of the data.
        fingerprint: of the whole source.
        parts: digest of each part of the source that stages read singly (`SOURCE_PARTS`), so that a source that only grew by
            some days leaves trainings alone; a part that the source does not have is missing. And `backbone/SECTION`: of the
            weights of a pre-trained model that artifacts only refer to.
        masters: day -> digest of the product master that a catalog update put in place from that day on, oldest first;
            before them `parts["products"]` counts.
        event_days: day -> digest of its raw events, so that a corrected file makes only the days it touches again; empty
            where the source's events are one immutable whole.
    """

    source: str
    path: str | None
    profile: str
    settings: tuple[str, ...]
    start: date
    end: date
    fingerprint: str
    parts: dict[str, str]
    masters: dict[str, str] = field(default_factory=dict)
    event_days: dict[str, str] = field(default_factory=dict)

    def master_on(self, day: date) -> str:
        """Digest of the product master that counts on a day."""
        since = [key for key in self.masters if date.fromisoformat(key) <= day]
        return self.masters[max(since)] if since else self.parts["products"]

    def as_json(self, config: SigmaConfig) -> dict[str, Any]:
        """The content of `root.json`."""
        return {
            "schema_version": ROOT_SCHEMA,
            "source": self.source,
            "path": self.path,
            "profile": self.profile,
            "settings": list(self.settings),
            "config_digest": config.digest(),
            "start": self.start.isoformat(),
            "end": self.end.isoformat(),
            "fingerprint": self.fingerprint,
            "parts": self.parts,
            "masters": self.masters,
            "event_days": self.event_days,
            "bound_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def config(self, settings: tuple[str, ...] = ()) -> SigmaConfig:
        """The profile with the root's own settings, and `settings` over them."""
        return load_config(self.profile, None, (*self.settings, *settings))

    def open_source(self) -> Source:
        """The source this root is bound to."""
        return open_source(self.source, Path(self.path) if self.path else None)


def read_binding(root: Path) -> Binding:
    """The binding of an existing root.

    Raises:
        RootError: nothing was ever materialized there, or another release wrote it.
        DamagedError: its `root.json` is not what was written.
    """
    path, remedy = root / ROOT_FILE, _remedy(root)
    if not path.exists():
        if any(root.glob(f"*/*/{MANIFEST}")):
            raise DamagedError(f"{path} is missing; {remedy}.")
        raise RootError(
            f"{root} holds no artifacts yet. Run `sigma materialize --as-of DATE --root {root}` first."
        )
    schema = read_object(path, ["schema_version"], remedy)["schema_version"]
    if schema != ROOT_SCHEMA:
        raise RootError(
            f"{root} was made with root schema {schema!r}, this release reads {ROOT_SCHEMA}. "
            "Use the release that made it, or another --root."
        )
    found = read_dataclass(Binding, path, remedy)
    if "products" not in found.parts:
        raise DamagedError(f"{path}: parts lacks products; {remedy}.")
    return replace(found, masters=dict(sorted(found.masters.items())))


def _remedy(root: Path) -> str:
    return (
        f"the artifacts beside it are untouched. Put {ROOT_FILE} back from a backup; or, with no {ROOT_FILE} there, run "
        f"`sigma materialize --as-of DATE --root {root}` with the --source, --path, --profile and settings of before, "
        "which writes it anew (catalog updates have to be given again)"
    )
