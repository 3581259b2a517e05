"""One item of a text group: the first of an order, the best of a score, without a look at more rows than that takes.

Holds rows and groups alone; what an order or a score means is its caller's business. Our choice.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

_FIRST_BLOCK: Final = 256  # rows looked at first; each further block is as many as all before

# Shape legend: N rows of the index.


class TextGroups:
    """Which rows read the same.

    Attributes:
        number_N: int64, equal for rows of one text group.
    """

    def __init__(self, groups: Sequence[str]) -> None:
        """Number the groups of the rows, aligned with `groups`."""
        self.number_N = np.unique(np.asarray(groups), return_inverse=True)[1].reshape(-1)

    def first(
        self,
        order: np.ndarray,
        n: int,
        eligible_N: np.ndarray | None = None,
        listed: Sequence[int] = (),
    ) -> list[int]:
        """The first `n` eligible rows of the order, one of a group; fewer when there are no more.

        Args:
            order: rows, best first.
            n: rows wanted.
            eligible_N: bool, rows that may be returned; None for all.
            listed: rows whose groups are taken already.
        """
        out: list[int] = []
        seen = set(self.number_N[list(listed)].tolist())
        start, stop = 0, max(_FIRST_BLOCK, 2 * n)
        while start < len(order):
            rows = order[start:stop]
            if eligible_N is not None:
                rows = rows[eligible_N[rows]]
            groups = self.number_N[rows]
            for at in np.sort(np.unique(groups, return_index=True)[1]).tolist():
                group = int(groups[at])
                if len(out) >= n:
                    return out
                if group not in seen:
                    seen.add(group)
                    out.append(int(rows[at]))
            start, stop = stop, 2 * stop
        return out

    def best(self, score_N: np.ndarray, n: int) -> list[int]:
        """The `n` rows of the highest finite scores, one of a group, ties by row; fewer when there are no more."""
        most = min(len(score_N), 8 * n + 50)
        while True:
            rows = np.argpartition(-score_N, most - 1)[:most]
            rows = rows[np.lexsort((rows, -score_N[rows]))]
            kept = self.first(rows[np.isfinite(score_N[rows])], n)
            if len(kept) >= n or most == len(score_N):
                return kept
            most = min(2 * most, len(score_N))
