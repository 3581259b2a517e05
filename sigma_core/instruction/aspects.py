"""What the words of a request stand for: one thing, or several at once.

"soda" is one thing. A holiday is its name and what people buy for it; a season's request names what is ramping up. Each
aspect gets a grounded vector of its own, because no single vector lies near both charcoal and watermelon. Holds the
reading of focus texts only. Source: our choice; the paper's world knowledge view pairs holidays with items.
"""

from functools import lru_cache
from typing import Final

from sigma_core.data.calendar import load_themes

MAX_ASPECTS: Final = 16
HEAD: Final = ": "  # between a season and what is ramping up in it
LISTED: Final = ", "


@lru_cache(maxsize=4096)
def aspects_of(focus: str) -> tuple[str, ...]:
    """The texts to encode for a focus text, the name first, at most `MAX_ASPECTS`; () for an empty one.

    "Halloween" gives the name and its theme words (holiday_themes.yaml), "autumn: soup, pumpkins" gives "soup" and "pumpkins".
    """
    if not focus:
        return ()
    themes = _themes().get(focus.casefold(), ())
    head, separator, listed = focus.partition(HEAD)
    if separator and " " not in head:
        return tuple(listed.split(LISTED)[:MAX_ASPECTS])
    return (focus, *themes)[:MAX_ASPECTS]


@lru_cache(maxsize=1)
def _themes() -> dict[str, tuple[str, ...]]:
    return {name.casefold(): tuple(words) for name, words in load_themes().items()}
