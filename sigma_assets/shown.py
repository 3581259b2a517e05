"""Answers for people on a terminal, beyond the plain list: the three steps behind it. Formats; computes nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

from sigma_core import columns as c

if TYPE_CHECKING:
    from sigma_core.serving.runtime import Answered

MOST_PREFIXES: Final = 8
_WIDTH: Final = 48


def stocked(path: Path) -> frozenset[str]:
    """Item ids of a file, one a line; blank lines do not count.

    Raises:
        RequestError: the file is not there or not text.
    """
    from sigma_core.serving.runtime import RequestError

    try:
        return frozenset(
            line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()
        )
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(
            f"--stock {path}: a text file with an item id a line is needed ({error})."
        ) from error


def shown_explanation(answered: "Answered") -> str:
    """Prefixes with their likeliest members, then each listed item's share inside its prefix and its nearest history item."""
    why = answered.explanation or {}
    prefixes = why["prefixes"]
    lines = [
        f"\nthe model read: {answered.instruction!r}",
        f"sigma {why['sigma']:.4f}, sharpness {why['sharpness']:.2f}; {len(prefixes)} prefixes searched, "
        f"{why['covered']:.3f} of the probability",
    ]
    for part in prefixes[:MOST_PREFIXES]:
        name = "-".join(map(str, part[c.PREFIX]))
        lines.append(f"  prefix {name} ({part['probability']:.3f})")
        lines += [
            f"      {item['item_probability']:.3f}  {_short(item[c.TITLE])}" for item in part["items"][:3]
        ]
    lines.append("  each item: probability in its prefix, and the item of the history nearest to it (cosine)")
    for rank, item in enumerate(why["items"], start=1):
        near = item["nearest_history"]
        told = f"{_short(near)} ({item['nearest_cosine']:.2f})" if near else "no history"
        lines.append(f"  {rank:>3}  {item['item_probability']:.3f}  {told}")
    return "\n".join(lines) + "\n"


def _short(title: str) -> str:
    return title if len(title) <= _WIDTH else title[: _WIDTH - 3] + "..."
