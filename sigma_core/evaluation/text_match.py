"""How well a phrase matches item texts: BM25 over words, cosine over an encoder's vectors.

The opponents of the tasks that name something ("soda", "Halloween"). BM25 is the textbook formula (k1 1.2, b 0.75,
idf never negative), written out because no installed library has it. Texts that several items share are scored once.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from sigma_core.grounding.lexical import words_of

# Shape legend: N texts, U distinct texts, V words.
Scores = npt.NDArray[np.float32]
Encode: TypeAlias = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Texts to unit vectors, float32 [len(texts), dim]."""

K1: Final = 1.2
B: Final = 0.75


class Bm25:
    """BM25 scores of one set of texts for any phrase.

    score(q, d) = sum over words w of q: idf(w) * tf * (K1 + 1) / (tf + K1 * (1 - B + B * |d| / mean |d|)),
    idf(w) = ln(1 + (N - df + 0.5) / (df + 0.5)), tf = how often w is in d.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        self._text_of = np.array([distinct[text] for text in texts], np.int64)  # [N] -> U
        counters = [Counter(words_of(text)) for text in distinct]
        self._vocabulary = {w: i for i, w in enumerate(sorted({w for counter in counters for w in counter}))}
        size = np.array([sum(counter.values()) for counter in counters], np.float64)
        row = np.repeat(np.arange(len(counters)), [len(counter) for counter in counters])
        column = np.array([self._vocabulary[w] for counter in counters for w in counter], np.int64)
        tf = np.array([n for counter in counters for n in counter.values()], np.float64)
        copies = np.bincount(self._text_of, minlength=len(counters)).astype(np.float64)
        df = np.bincount(column, weights=copies[row], minlength=len(self._vocabulary))
        idf = np.log1p((len(texts) - df + 0.5) / (df + 0.5))
        mean = float((size * copies).sum() / max(copies.sum(), 1)) or 1.0
        value = idf[column] * tf * (K1 + 1) / (tf + K1 * (1 - B + B * size[row] / mean))
        shape = (len(counters), len(self._vocabulary))
        self._weights = sparse.csc_matrix((value.astype(np.float32), (row, column)), shape)

    def scores(self, phrase: str) -> Scores:
        """BM25 of every text, float32 [N]; 0 where no word matches. A word said twice counts twice."""
        known = [self._vocabulary[word] for word in words_of(phrase) if word in self._vocabulary]
        if not known:
            return np.zeros(len(self._text_of), np.float32)
        total = np.asarray(self._weights[:, known].sum(axis=1), np.float32).ravel()
        return total[self._text_of]


class CosineMatch:
    """Cosine of phrases with texts; every distinct text and phrase is encoded once.

    Attributes:
        text_of: int64 [N], the distinct text of each.
        vectors: of the distinct texts, unit rows, [U, dim].
    """

    def __init__(self, texts: Sequence[str], encode: Encode) -> None:
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        self.text_of = np.array([distinct[text] for text in texts], np.int64)
        self.vectors = encode(list(distinct))  # [U, dim]
        self._encode = encode

    def scores(self, phrase: str) -> Scores:
        """Cosine of every text with the phrase, float32 [N]."""
        cosine = np.asarray(self.vectors @ self._encode([phrase])[0], np.float32)
        return cosine[self.text_of]
