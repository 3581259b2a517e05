"""What stands before a place in a typed text, and whether it negates: shared by the readers of prices and of names.

Holds English words and no reading of its own. Our choice.
"""

import re
from typing import Final

LOOK_BACK: Final = 80  # characters; what stands further away says nothing of a phrase
REACH: Final = 6  # words before a phrase among which a negation may be meant for it
_TOKEN: Final = re.compile(r"[^\s.,;:!?()]+")
_BREAK: Final = re.compile(r"[.,:](?!\d)|[;!?()\n、，。；：！？]")
_NEGATION: Final = re.compile(
    r"no|not|nothing|none|never|nor|neither|cannot|\w+n['’`]t"
    r"|(?:do|does|did|is|are|was|were|ca|wo|could|should|would|have|has|had|must|need|ai)nt",
    re.I,
)
SENTENCE_START: Final = re.compile(r"(?:^|[.!?])\s*$")
ASKED_BACK: Final = re.compile(r"\s*\?")
REFUSED: Final = re.compile(  # what is said of a phrase turns it down: "is too cheap", "won't do", "makes me sad"
    r"\s+(?:(?:is|are|was|were|do|does|wo|ca|could|would|will|should)n['’`]?t"
    r"|(?:is|are|will|would|seems?|feels?|sounds?|looks?|tastes?)(?:\s+(?:be|just|way|far|really|simply|always|so|a|an|the|bit|like))*"
    r"\s+(?:too|not|never|no|hardly|bad|sad|boring|awful|terrible|worse|worst|wrong|hard|impossible|pointless|incomplete|problem|shame"
    r"|issue|pity|junk|rubbish|cheap|better\s+than|as|left)(?!\s+(?:easy|(?:easy\s+)?to\s+(?:find|get)))"
    r"|i\s+(?:won['’]?t|don['’]?t|can['’]?t|(?:will\s+)?(?:skip|pass))|no\s+(?:thanks?|way|go))\b"
    r"|\s*\?\s*(?:no|nope|never|too)\b",
    re.I,
)


def word_set(words: str) -> frozenset[str]:
    """The words of a line."""
    return frozenset(words.split())


def clause_before(text: str, end: int) -> list[re.Match[str]]:
    """The words between the last stop, comma or "but" and `end`, in order."""
    first = text.find(" ", end - LOOK_BACK, end) if end > LOOK_BACK else 0
    start = max((stop.end() for stop in _BREAK.finditer(text, max(first, 0), end)), default=max(first, 0))
    words = list(_TOKEN.finditer(text, start, end))
    for place in range(len(words) - 1, -1, -1):
        whole = place and words[place - 1].group().lower() in ("anything", "everything", "nothing")
        if words[place].group().lower() == "but" and not whole:
            return words[place + 1 :]
    return words


def lower_words(words: list[re.Match[str]]) -> list[str]:
    """The words as they are compared: lower case, with a straight apostrophe."""
    said = " ".join(word.group() for word in words).lower()
    return said.replace("’", "'").replace("`", "'").split(" ") if said else []


def is_negation(word: str) -> bool:
    """Whether the word turns what follows into its opposite: "not", "nothing", "don't", "cant"."""
    return _NEGATION.fullmatch(word) is not None


def asks_why(words: list[str]) -> bool:
    """Whether a clause asks for a reason; it wishes nothing then."""
    return "why" in words or "how come" in " ".join(words)
