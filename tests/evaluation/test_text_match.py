"""BM25 against its formula, and the words it sees."""

from math import log

import numpy as np
import pytest

from sigma_core.evaluation.text_match import K1, B, Bm25, CosineMatch, words_of

TEXTS = ["ice cream, premium", "cola, soft drink", "ice pops", "cola, soft drink"]


def test_words_lose_case_stop_words_and_plural():
    assert words_of("Snacks for the Berries, glass 12 oz") == ["snack", "berry", "glass", "12", "oz"]


def test_the_score_is_the_formula():
    idf = log(1 + (4 - 2 + 0.5) / (2 + 0.5))  # "ice" is in 2 of 4 texts
    mean = (3 + 3 + 2 + 3) / 4
    first = idf * (K1 + 1) / (1 + K1 * (1 - B + B * 3 / mean))
    third = idf * (K1 + 1) / (1 + K1 * (1 - B + B * 2 / mean))
    assert Bm25(TEXTS).scores("ice").tolist() == pytest.approx([first, 0, third, 0])


def test_shared_texts_score_the_same_and_rare_words_count_more():
    bm25 = Bm25(TEXTS)
    scores = bm25.scores("cola or premium")
    assert scores[1] == scores[3] > 0
    assert bm25.scores("premium")[0] > bm25.scores("ice")[0]


def test_unknown_words_match_nothing():
    assert not Bm25(TEXTS).scores("nappies").any()
    assert not Bm25(TEXTS).scores("").any()


def test_cosine_encodes_each_text_once():
    seen = []

    def encode(texts):
        seen.extend(texts)
        return np.array([[1.0, 0.0] if "ice" in text else [0.0, 1.0] for text in texts], np.float32)

    match = CosineMatch(TEXTS, encode)
    assert match.scores("ice lolly").tolist() == [1, 0, 1, 0]
    assert seen == [*dict.fromkeys(TEXTS), "ice lolly"]
