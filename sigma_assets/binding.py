"""How a root gets bound: `root.json`, written once, read by every verb, so that the others need only `--root`.

Holds how a binding is resolved from a request, and what of the source is remembered; what it is and how it is read is
`sigma_core/root_file.py`. Opens a source, makes nothing.
Source: architecture.md, rule 8; our choice.
"""

import json
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Final

import polars as pl

from sigma_assets.pretrained_weights import weight_parts
from sigma_core import columns as c
from sigma_core.artifacts import digest_arrays, digest_frame, digest_json, write_json
from sigma_core.config import ConfigError, DataConfig, SigmaConfig, load_config, profile_config
from sigma_core.data.offers import offers_of
from sigma_core.data.sources import Source, open_source
from sigma_core.devices import check_device
from sigma_core.grounding.chat import ChatError, check_chat
from sigma_core.pretrained import HUB_NAMES, PretrainedError, find_pretrained
from sigma_core.root_file import ROOT_FILE, Binding, RootError, read_binding

__all__ = [
    "ROOT_FILE",
    "Binding",
    "Request",
    "RootError",
    "bind",
    "event_day_digests",
    "read_binding",
    "resolve",
    "save",
]

DEFAULT_SOURCE: Final = "complete_journey"
DEFAULT_PROFILE: Final = "demo"
CHANGING: Final = frozenset({"tabular"})  # sources whose event files a user edits
SOURCE_PARTS: Final = ("events", "products", "users", "id_vectors", "image_vectors", "offers")


@dataclass(frozen=True)
class Request:
    """What the caller of `bind` wants; None: whatever the root is bound to, or the default for a new root."""

    source: str | None = None
    path: Path | None = None
    profile: str | None = None
    config_file: Path | None = None
    settings: tuple[str, ...] = ()


def bind(root: Path, request: Request) -> tuple[Binding, list[str]]:
    """`resolve`, and write the result to `root.json`."""
    binding, notes = resolve(root, request)
    save(root, binding)
    return binding, notes


def resolve(root: Path, request: Request) -> tuple[Binding, list[str]]:
    """The binding of a new root, or of an existing one checked against `request`; and notes for the user. Writes nothing.

    `--config` replaces the root's settings, `--set` changes single ones. A source whose content changed is noted and read
    again.

    Raises:
        RootError: the root is bound to another source, path or profile; the message names both.
        ConfigError: a setting is wrong, or names a model or device that this machine lacks.
    """
    old = read_binding(root) if (root / ROOT_FILE).exists() else None
    wanted_path = str(request.path.resolve()) if request.path else None
    if old:
        _refuse_other(root, old, request, wanted_path)
    profile = request.profile or (old.profile if old else DEFAULT_PROFILE)
    kept = old.settings if old and not request.config_file else ()
    config = load_config(profile, request.config_file, (*kept, *request.settings))
    _need_here(config, old.config() if old else None)
    name, path = (old.source, old.path) if old else (request.source or DEFAULT_SOURCE, wanted_path)
    data = _data_of(open_source(name, Path(path) if path else None), old)
    own = {part: digest for part, digest in data["parts"].items() if not part.startswith("backbone/")}
    data["parts"] = own | weight_parts(config, old.parts if old else {})
    binding = Binding(source=name, path=path, profile=profile, settings=_differences(config, profile), **data)
    return binding, _notes(root, old, binding) if old else _first_notes(binding)


def _need_here(config: SigmaConfig, before: SigmaConfig | None) -> None:
    """Refuses new names of models and devices that this machine lacks: a step would find out after hours.

    A root that is bound to them already may go on with what it holds.
    """

    def is_new(section: str, key: str) -> bool:
        asked = getattr(getattr(config, section), key)
        return before is None or asked != getattr(getattr(before, section), key)

    for section in ("model", "grounding"):
        name = getattr(config, section).backbone
        if is_new(section, "backbone"):
            try:
                find_pretrained("minilm" if name == "mini" else name)  # whose words mini reads
                if name not in ("mini", "minilm"):
                    _check_fits(section, name, config)
            except (PretrainedError, ValueError) as error:
                raise ConfigError(f"setting {section}.backbone: {error}") from error
    if config.grounding.annotator != "off" and is_new("grounding", "annotator"):
        try:
            check_chat(config.grounding)
        except (PretrainedError, ChatError) as error:
            raise ConfigError(f"setting grounding.annotator: {error}") from error
    if is_new("runtime", "device"):
        check_device(config.runtime.device)


def _check_fits(section: str, name: str, config: SigmaConfig) -> None:
    from sigma_core.pretrained_checks import check_backbone, check_text_model

    if section == "grounding":
        check_text_model(config.grounding)
    elif name not in HUB_NAMES:  # those are known to fit, and SmolLM2's GGUF takes its time to read
        check_backbone(config.model)


def save(root: Path, binding: Binding) -> None:
    """Write `root.json` unless it says the same already. Hold the root's lock."""
    if not (root / ROOT_FILE).exists() or read_binding(root) != binding:
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / ROOT_FILE, binding.as_json(binding.config()))


def _data_of(source: Source, old: Binding | None) -> dict[str, Any]:
    """Dates, fingerprint, parts and updates of a source; read only when its fingerprint is not the one the root knows."""
    fingerprint = source.fingerprint()
    known = {"masters": old.masters} if old else {}
    if old and old.fingerprint == fingerprint:
        same = {"start": old.start, "end": old.end, "parts": old.parts, "event_days": old.event_days}
        return known | same | {"fingerprint": fingerprint}
    start, end = source.date_range()
    products = digest_frame(source.products())
    if old and old.masters and products == old.masters[max(old.masters)]:
        products = old.parts["products"]  # an update took this change in; the days before it keep theirs
    parts = {
        "events": fingerprint,
        "products": products,
        "users": digest_frame(source.users()),
    }
    for name, vectors in (("id_vectors", source.id_vectors()), ("image_vectors", source.image_vectors())):
        if vectors is not None:
            parts[name] = digest_json([list(vectors[0]), digest_arrays({"vectors": vectors[1]})])
    offers = offers_of(source)
    if offers.sent.height:
        parts["offers"] = digest_json([digest_frame(offers.sent), digest_frame(offers.items)])
    event_days = event_day_digests(source.events(), start, end) if source.name in CHANGING else {}
    return known | {
        "start": start,
        "end": end,
        "fingerprint": fingerprint,
        "parts": parts,
        "event_days": event_days,
    }


def event_day_digests(events: pl.DataFrame, start: date, end: date) -> dict[str, str]:
    """Digest of each day's raw rows, without their places in the file; rows without a day of the data count on the first."""
    day = pl.col(c.EVENT_TIME).dt.date()
    inside = day.is_between(start, end).fill_null(False)
    rows = events.select(pl.exclude(c.SOURCE_ROW), pl.when(inside).then(day).otherwise(start).alias("_day"))
    by_day = rows.sort("_day", maintain_order=True).partition_by("_day", as_dict=True, include_key=False)
    return {str(key): digest_frame(frame) for (key,), frame in by_day.items()}


def _first_notes(binding: Binding) -> list[str]:
    """What a new root takes for granted and its data may not have."""
    country = binding.config().data.country
    if binding.source != "tabular" or country != DataConfig().country:
        return []
    return [f"holidays and seasons are those of {country}; elsewhere: --set data.country=DE, for example."]


def _notes(root: Path, old: Binding, new: Binding) -> list[str]:
    notes = []
    if old.fingerprint != new.fingerprint:
        notes.append(f"the data of source {new.source} changed since {root} was made; they are read again.")
    if old.settings != new.settings:
        changed = ", ".join(sorted(set(old.settings) ^ set(new.settings)))
        notes.append(f"settings of {root} changed ({changed}); the steps that depend on them are made again.")
    return notes


def _refuse_other(root: Path, old: Binding, request: Request, wanted_path: str | None) -> None:
    pairs = (
        ("source", old.source, request.source),
        ("path", old.path, wanted_path),
        ("profile", old.profile, request.profile),
    )
    for what, bound, arrived in pairs:
        if arrived is not None and arrived != bound:
            raise RootError(
                f"{root} is bound to {what} {bound or 'none'}, {what} {arrived} arrived. "
                "Use another --root for it, or leave the option out."
            )


def _differences(config: SigmaConfig, profile: str) -> tuple[str, ...]:
    """`section.key=JSON` of every setting that is not the profile's."""
    mine, base = config.model_dump(mode="json"), profile_config(profile).model_dump(mode="json")
    return tuple(
        f"{section}.{key}={json.dumps(value, sort_keys=True)}"
        for section, values in sorted(mine.items())
        if isinstance(values, dict)
        for key, value in sorted(values.items())
        if base[section][key] != value
    )
