"""Every setting as one table: dimensions, temperatures, weights and all the rest, generated from the config classes.

A referee asked for one table that names every dimension, temperature and fusion weight; written by hand it would be wrong
within a week. No I/O. Source: paper.md, "What a referee asked for".
"""

from typing import Any, Final, NamedTuple

import annotated_types
from pydantic.fields import FieldInfo

from sigma_core.config import Section, SigmaConfig

_BOUNDS: Final = ((annotated_types.Ge, "ge", ">="), (annotated_types.Gt, "gt", ">"),
                  (annotated_types.Le, "le", "<="), (annotated_types.Lt, "lt", "<"))  # fmt: skip


class Setting(NamedTuple):
    """One setting. `bounds` is empty where any value of its type goes."""

    key: str
    value: Any
    bounds: str
    meaning: str


def settings_of(config: SigmaConfig) -> list[Setting]:
    """Every setting of the config in the order of its classes, by `section.key`, with the value it has there."""
    out = []
    for section in type(config).model_fields:
        values = getattr(config, section)
        if not isinstance(values, Section):
            continue
        for name, field in type(values).model_fields.items():
            out.append(
                Setting(f"{section}.{name}", getattr(values, name), _bounds(field), field.description or "")
            )
    return out


def config_table(config: SigmaConfig) -> str:
    """The settings as a Markdown table, a row a setting; ends with a line break."""
    lines = [
        f"Settings of profile `{config.profile}`.",
        "",
        "| setting | value | bounds | meaning |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| `{s.key}` | {_cell(_shown(s.value))} | {s.bounds} | {_cell(s.meaning)} |"
        for s in settings_of(config)
    ]
    return "\n".join(lines) + "\n"


def _bounds(field: FieldInfo) -> str:
    parts = [
        f"{sign} {getattr(rule, name):g}"
        for kind, name, sign in _BOUNDS
        for rule in field.metadata
        if isinstance(rule, kind)
    ]
    return ", ".join(parts)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {entry}" for key, entry in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "none" if value is None or value == "" else str(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
