"""What a word of a text is, in any script. Shared by names, typed wishes and word matching; no stop words, no plurals. Our choice."""

import re
import unicodedata
from typing import Final

_ASCII_WORD: Final = re.compile(r"[a-z0-9]+")
_SIGNS: Final = str.maketrans({"™": " ", "℠": " "})  # NFKC would glue letters to the brand before them


def text_words(text: str) -> list[str]:
    """Words and numbers in their order, casefolded: runs of letters, digits and the marks that belong to them.

    Texts that look alike give the same words, whatever code points spell them (NFKC).

    >>> text_words("Ben & Jerry's, 2x")
    ['ben', 'jerry', 's', '2x']
    >>> text_words("Кофе 100 г")
    ['кофе', '100', 'г']
    """
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    folded = unicodedata.normalize("NFKC", text.translate(_SIGNS)).casefold()
    runs = "".join(sign if _belongs(sign) else " " for sign in folded).split()
    return [run for run in runs if any(map(str.isalnum, run))]


def _belongs(sign: str) -> bool:
    return sign.isalnum() or unicodedata.category(sign).startswith("M")
