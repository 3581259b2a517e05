"""Claims about cross-fitted v_ID: one space, no part of one's own purchases, and only before the refit."""

from datetime import date
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csc_matrix

from sigma_core.grounding.cross_fitting import EVERYONE, CrossFitted, FoldedIds, fold_of, item_factors
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings, fit_id_embeddings
from tests.grounding.test_id_embeddings import CONFIG, LAST, events, two_worlds

FOLDS = 4


def test_a_fold_is_a_number_of_the_user_alone() -> None:
    assert [fold_of(f"u{n}", FOLDS) for n in range(6)] == [2, 0, 3, 0, 3, 1]
    sizes = np.bincount([fold_of(str(n), FOLDS) for n in range(4000)], minlength=FOLDS)
    assert sizes.min() > 900


def known_halves(vectors: np.ndarray, baskets: np.ndarray) -> float:
    """Chance that one half of a user's purchases is nearer to their other half than to a stranger's: .5 where vectors know nothing."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    found = []
    for user, basket in enumerate(baskets):
        half = len(basket) // 2
        profile = unit[basket[:half]].mean(axis=0)
        mine, theirs = unit[basket[half:]] @ profile, unit[baskets[user - 1]] @ profile
        found.append((mine[:, None] > theirs).mean())
    return float(np.mean(found))


def test_a_fold_knows_far_less_of_its_users_purchases_than_v_id() -> None:
    """Purchases by dice: there is nothing to learn, so whatever a vector tells of a basket it has from that basket."""
    rng = np.random.default_rng(5)
    baskets = np.stack([rng.choice(400, 12, replace=False) for _ in range(400)])
    users = [f"u{n}" for n in range(400)]
    rows = [(user, f"i{item:03d}", 0) for user, basket in zip(users, baskets, strict=True) for item in basket]
    config = CONFIG.model_copy(update={"id_dim": 32, "id_iterations": 15})
    got = fit_id_embeddings(events(*rows), config, seed=1, threads=1)
    assert got.out_of_fold is not None
    assert got.item_ids == [f"i{n:03d}" for n in range(400)]
    fold = np.array([fold_of(user, FOLDS) for user in users])
    for number in range(FOLDS):
        mine = baskets[fold == number]
        everyone = known_halves(got.factors, mine)
        without = known_halves(got.out_of_fold.vectors_FNW[number, :, :-1], mine)
        assert everyone > 0.9
        assert (
            without < everyone - 0.15
        )  # on noise other users' factors know the most; on real baskets a twelfth is left


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_item_factors_solve_the_half_step(seed: int) -> None:
    """The gradient of the ALS objective is zero there, written out item by item and user by user."""
    rng = np.random.default_rng(seed)
    users, confidence = rng.normal(size=(7, 3)), rng.uniform(1, 5, (7, 4)) * (rng.random((7, 4)) < 0.6)
    found = item_factors(csc_matrix(confidence), users, 0.1)
    for item in range(4):
        if not confidence[:, item].any():
            assert not found[item].any()
            continue
        gradient = 0.1 * found[item]
        for user in range(7):
            weight = confidence[user, item] or 1.0
            wanted = 1.0 if confidence[user, item] else 0.0
            gradient = gradient + weight * (users[user] @ found[item] - wanted) * users[user]
        np.testing.assert_allclose(gradient, 0, atol=1e-8)


def test_all_folds_lie_in_the_space_of_v_id() -> None:
    got = fit_id_embeddings(two_worlds(), CONFIG, seed=1, threads=1)
    assert got.out_of_fold is not None
    assert got.out_of_fold.folds == CONFIG.id_folds == FOLDS
    assert got.out_of_fold.until == LAST
    known = got.out_of_fold.known_FN
    cosine = (got.out_of_fold.vectors_FNW[..., :2] * got.factors).sum(axis=2) / (
        np.linalg.norm(got.out_of_fold.vectors_FNW[..., :2], axis=2) * np.linalg.norm(got.factors, axis=1)
        + 1e-12
    )
    assert known.mean() > 0.5
    assert cosine[known].min() > 0.9  # two clusters: nobody is needed to tell them apart
    assert not got.out_of_fold.vectors_FNW[~known].any()


def test_an_item_that_only_the_fold_bought_is_unknown_to_it() -> None:
    mine = next(f"u{n}" for n in range(99) if fold_of(f"u{n}", FOLDS) == 2)
    also = next(f"v{n}" for n in range(99) if fold_of(f"v{n}", FOLDS) == 2)
    rows = [
        ("a", "common", 0),
        ("b", "common", 1),
        ("c", "common", 1),
        ("d", "common", 1),
        (mine, "common", 2),
    ]
    got = fit_id_embeddings(events(*rows, (mine, "rare", 0), (also, "rare", 1)), CONFIG, seed=1, threads=1)
    assert got.out_of_fold is not None
    rare = got.item_ids.index("rare")  # two users, so that one outside the fold is one too few
    assert [bool(known) for known in got.out_of_fold.known_FN[:, rare]] == [True, True, False, True]


def test_folds_can_be_off_and_survive_a_save(tmp_path: Path) -> None:
    plain = fit_id_embeddings(two_worlds(), CONFIG.model_copy(update={"id_folds": 0}), seed=1, threads=1)
    folded = fit_id_embeddings(two_worlds(), CONFIG, seed=1, threads=1)
    assert plain.out_of_fold is None
    np.testing.assert_array_equal(plain.vectors, folded.vectors)
    assert plain.digest() != folded.digest()
    folded.save(tmp_path)
    back = ItemIdEmbeddings.load(tmp_path)
    assert back.digest() == folded.digest()
    assert back.summary() == folded.summary()
    assert back.out_of_fold is not None
    assert back.out_of_fold.until == LAST


@pytest.mark.parametrize(("cut", "is_everyone"), [(date(2017, 3, 30), False), (LAST, True)])
def test_what_was_bought_after_the_refit_v_id_cannot_know(cut: date, is_everyone: bool) -> None:
    others = CrossFitted(np.zeros((FOLDS, 1, 3), dtype=np.float32), np.ones((FOLDS, 1), dtype=bool), LAST)
    assert (others.fold("u1", cut) == EVERYONE) == is_everyone


def test_rows_of_a_catalog() -> None:
    vectors = np.arange(12, dtype=np.float32).reshape(2, 2, 3) + 1
    folded = FoldedIds(
        CrossFitted(vectors, np.array([[True, False], [True, True]]), LAST), np.array([1, -1, 0])
    )
    first, known = folded.of(0)
    assert known.tolist() == [False, False, True]
    assert first.tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 3]]
    assert folded.of(1)[0].tolist() == [[10, 11, 12], [0, 0, 0], [7, 8, 9]]
