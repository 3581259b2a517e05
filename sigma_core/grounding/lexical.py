"""Lexical vectors: which rare words a text says, hashed into a few hundred numbers, so that words can match word for word.

A dense encoder knows that cola answers "soda"; it is less sure than a word index that "checkout candy" is checkout candy. What
a request is about is compared with items by both: cosine of v_text plus a weighted cosine of these (hybrid retrieval).
Measured on 2017-06-26: of the weight that categories put on items, .77 fell inside them by v_text alone,
.95 by both (cosines times 30, popularity as prior; words not hashed yet in that measurement).
Rows are hashed (feature hashing, Weinberger et al. 2009), but a word that no text of the refit said is known as such, by its 64-bit
hash, and each word stands in `SPREAD` places of a row (sparse random projection, Kane and Nelson 2014), so that two words never share more
than a few: with one place a word "red" fell on "miscellaneous", and "red lipstick" found miscellaneous items. Our choice.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np

from sigma_core.text_words import text_words

SPREAD: Final = 8  # places of a word
SEARCH_LITERAL: Final = 0.4  # of the words' weight where a text alone is asked; requests begin there too
_STOP: Final = frozenset(
    ("a", "an", "and", "at", "for", "from", "i", "in", "is", "it", "me", "my", "of", "on", "or", "some", "that", "the",
     "this", "to", "want", "with", "you")
)  # fmt: skip


def words_of(text: str) -> list[str]:
    """Lower-case words without stop words; a plural s is cut, so that "chips" finds "chip".

    >>> words_of("Snacks for the berries, glass")
    ['snack', 'berry', 'glass']
    """
    out = []
    for word in text_words(text):
        if word in _STOP:
            continue
        if len(word) > 4 and word.endswith("ies"):
            word = word[:-3] + "y"
        elif len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
            word = word[:-1]
        out.append(word)
    return out


@lru_cache(maxsize=1 << 16)
def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big")


@lru_cache(maxsize=1 << 16)
def _places(word: str, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a word stands in a row, and with which signs: int64 and float32 [SPREAD], the vector of norm 1 but for collisions."""
    digest = hashlib.blake2b(word.encode(), digest_size=4 * SPREAD, person=b"places").digest()
    numbers = np.frombuffer(digest, dtype="<u4").astype(np.int64)
    signs = np.where(numbers & 1, 1.0, -1.0).astype(np.float32)
    return (numbers >> 1) % width, signs / np.float32(np.sqrt(SPREAD))


class LexicalHash:
    """Texts to hashed bags of words.

    Attributes:
        words: uint64 [words], sorted: hashes of the words that texts said.
        idf: float32 [words]: log(texts / texts that say the word).
        width: of a row; 0 turns lexical matching off.
        weight: of the lexical cosine beside the dense one, which has weight 1.
    """

    def __init__(self, words: np.ndarray, idf: np.ndarray, width: int, weight: float) -> None:
        self.words = np.ascontiguousarray(words, dtype=np.uint64)
        self.idf = np.ascontiguousarray(idf, dtype=np.float32)
        self._idf_of = dict(zip(self.words.tolist(), self.idf, strict=True))
        self.width, self.weight = int(width), float(weight)

    @classmethod
    def fit(cls, texts: Sequence[str], width: int, weight: float) -> "LexicalHash":
        """Word frequencies of the distinct `texts`."""
        distinct = sorted(set(texts))
        said = Counter(number for text in distinct for number in {_hash(word) for word in words_of(text)})
        words = np.array(sorted(said), dtype=np.uint64)
        idf = np.log(
            (len(distinct) + 1) / np.array([said[number] for number in sorted(said)], dtype=np.float64)
        )
        return cls(words, idf, width, weight)

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """float32 [len(texts), width]: rows of norm sqrt(weight), so that the dot product of two is weight x cosine; a row of
        zeros where no word is known. A row depends on its text alone.
        """
        out = np.zeros((len(texts), self.width), dtype=np.float32)
        if not self.width:
            return out
        known: dict[str, np.ndarray] = {}
        for row, text in enumerate(texts):
            if text not in known:
                known[text] = self._row(text)
            out[row] = known[text]
        return out

    def _row(self, text: str) -> np.ndarray:
        row = np.zeros(self.width, dtype=np.float32)
        for word in sorted(set(words_of(text))):
            idf = self._idf_of.get(_hash(word))
            if idf is not None:
                place, sign = _places(word, self.width)
                np.add.at(row, place, sign * idf)
        norm = float(np.linalg.norm(row))
        return row * np.float32(np.sqrt(self.weight) / norm) if norm > 0 else row

    def settings(self) -> dict[str, Any]:
        """What, beside `arrays`, decides a row."""
        return {"width": self.width, "weight": self.weight}

    def arrays(self) -> dict[str, np.ndarray]:
        """The words and their weights, by name."""
        return {"words": self.words, "idf": self.idf}


def for_search(vectors: np.ndarray, text_dim: int) -> np.ndarray:
    """Match vectors [..., text_dim + W] as a plain search asks with them: words count `SEARCH_LITERAL` of what they could."""
    return np.concatenate((vectors[..., :text_dim], SEARCH_LITERAL * vectors[..., text_dim:]), axis=-1)


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    """The rows at length 1; a row of zeros stays one."""
    size = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(vectors / np.where(size > 0, size, 1.0), dtype=np.float32)


def no_lexical() -> LexicalHash:
    """Lexical matching turned off: rows of width 0."""
    return LexicalHash(np.zeros(0, dtype=np.uint64), np.zeros(0, dtype=np.float32), 0, 0.0)
