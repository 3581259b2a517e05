"""Cross-fitted v_ID: collaborative vectors that a user's own purchases had next to no part in.

v_ID of an item is made of its buyers. Few bought most items, so before the refit a user's coming purchase is known to the very vector
that shall predict it, and a model trained on such vectors trusts them more than it may of what nobody has bought yet. Users are
therefore cut into folds, and each fold trains on the item factors that all other users make. Only the last half-step of ALS is
solved again, with the users' factors as they are, so that all folds lie in one space with v_ID itself; what other users' factors
know of the fold stays (docs/experiments.md: a twelfth; whole runs without the fold keep none, lie farther from v_ID, and
ranked worse in the one training tried). Not mended either: texts are encoded, and prefixes cut, with everyone's v_ID as a teacher; vectors that a user brings
along cannot be folded. Source: our choice (cross-fitting, as for target statistics); the paper takes v_ID from an online ranker.

Shape legend: F folds, N items, D factors, W = D + 1 columns of v_ID, U users.
"""

from dataclasses import dataclass
from datetime import date
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix

EVERYONE: Final = -1  # the fold of whom vectors cannot know: all users' purchases make them


def fold_of(user_id: str, folds: int) -> int:
    """The fold of a user, 0 to `folds` - 1, the same on every machine."""
    return int.from_bytes(blake2b(user_id.encode(), digest_size=4).digest(), "little") % folds


@dataclass(frozen=True)
class CrossFitted:
    """v_ID of N items, once without each fold of users.

    Attributes:
        vectors_FNW: float32; zero rows where nothing is known.
        known_FN: bool; whether enough users outside the fold bought the item.
        until: the last day that v_ID looks at: what was bought later, it cannot know.
    """

    vectors_FNW: np.ndarray
    known_FN: np.ndarray
    until: date

    @property
    def folds(self) -> int:
        """How many folds there are."""
        return len(self.vectors_FNW)

    def fold(self, user_id: str, cut: date) -> int:
        """Whose vectors train a user's purchases after `cut`; `EVERYONE` where the cut is not before `until`."""
        return EVERYONE if cut >= self.until else fold_of(user_id, self.folds)


@dataclass(frozen=True)
class FoldedIds:
    """Cross-fitted v_ID of a catalog's items.

    Attributes:
        out_of_fold: of the items that have a v_ID.
        row_N: int64, where each item of the catalog stands there; -1 for those that do not.
    """

    out_of_fold: CrossFitted
    row_N: np.ndarray

    def of(self, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """v_ID (N, W) without a fold of users, and whether each item has one, bool (N,); zero rows where not."""
        known = self.out_of_fold.known_FN[fold, self.row_N] & (self.row_N >= 0)
        return self.out_of_fold.vectors_FNW[fold, self.row_N] * known[:, None], known


def item_factors(
    confidence_UN: "csc_matrix", user_factors_UD: np.ndarray, regularization: float
) -> np.ndarray:
    """float64 [N, D]: the item half-step of implicit-feedback ALS, exactly: (X'X + X'(C - I)X + reg I)^-1 X'c of each item.

    `confidence_UN` holds c of the pairs that were seen, and every row counts as a user. An item of nobody is zero.
    """
    from threadpoolctl import threadpool_limits

    users_UD = user_factors_UD.astype(np.float64)
    width = users_UD.shape[1]
    out = np.zeros((confidence_UN.shape[1], width))
    starts, buyers, confidence = confidence_UN.indptr, confidence_UN.indices, confidence_UN.data
    with threadpool_limits(1, user_api="blas"):  # sums in one order, whatever the threads
        base = users_UD.T @ users_UD + regularization * np.eye(width)
        for item, (start, end) in enumerate(pairwise(starts.tolist())):
            if start < end:
                x, weight = users_UD[buyers[start:end]], confidence[start:end].astype(np.float64)
                out[item] = np.linalg.solve(base + (x * (weight - 1)[:, None]).T @ x, x.T @ weight)
    return out
