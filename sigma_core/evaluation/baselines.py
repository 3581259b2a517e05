"""The opponents: every ranker SIGMA is measured against, each told what the task tells.

A baseline is a user score (`user_scores.py`) inside a pool (`task_pools.py`); this module pairs them, names them and
ranks. Source: tasks.md, "strong, equally informed opponents"; it also states which numbers these must reproduce.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from sigma_core import columns as c
from sigma_core.evaluation.collaborative_scores import (
    EaseScores,
    GroupPopularity,
    TextNeighbors,
    TifuKnnScores,
    basket_frequencies,
)
from sigma_core.evaluation.filtered_plans import COLD
from sigma_core.evaluation.metrics import TOP_N, BoolArray, codes_of
from sigma_core.evaluation.ranking import top_columns
from sigma_core.evaluation.requests import NO_ITEM, EvalRequest, IntArray, Ranker
from sigma_core.evaluation.task_pools import Answers, Pool, PoolRule, TaskPools, phrase_answers, type_words
from sigma_core.evaluation.text_match import CosineMatch, Encode
from sigma_core.evaluation.user_scores import (
    CountScores,
    ItemNeighbors,
    PurchaseHistory,
    ScoreBlock,
    TypeScores,
    UserScores,
)

# Shape legend: R requests, n length of a list, B users of a block, N items of the catalog, P items of a pool.
HALF_LIFE_DAYS: Final = 120.0  # tasks.md
_USERS_AT_ONCE: Final = 128
_ROWS_AT_ONCE: Final = 128


@dataclass(frozen=True)
class Baseline:
    """A named opponent.

    Attributes:
        rank: answers requests.
        tasks: the tasks (and filtered rows) it takes part in; empty = all.
        apart: tasks and filtered rows it takes no part in all the same.
        is_oracle: it knows what no request says; shown as a ceiling, never compared with.
    """

    rank: Ranker
    tasks: tuple[str, ...] = ()
    is_oracle: bool = False
    apart: tuple[str, ...] = ()

    def plays(self, task: str) -> bool:
        """Whether it takes part in the task."""
        return task not in self.apart and (not self.tasks or task in self.tasks)


class PoolRanker:
    """Ranks a pool by weight x user score, ties and unscored items in the pool's order.

    Args:
        history: gives each user's row.
        scores: of users; None ranks by the pool's order alone.
        pool_of: the pool of a request.
        unfilled: tasks in which items without a score are not listed at all.
        instead: other scores for some tasks.
    """

    def __init__(
        self,
        history: PurchaseHistory,
        scores: UserScores | None,
        pool_of: PoolRule,
        *,
        unfilled: frozenset[str] = frozenset(),
        instead: Mapping[str, UserScores] | None = None,
    ) -> None:
        self._history = history
        self._scores = scores
        self._pool_of = pool_of
        self._unfilled = unfilled
        self._instead = dict(instead or {})
        self._marks: BoolArray = np.zeros(history.counts.shape[1], np.bool_)

    def __call__(self, requests: list[EvalRequest]) -> IntArray:
        """int32 [R, 20] catalog rows, -1 padded."""
        out = np.full((len(requests), TOP_N), NO_ITEM, np.int32)
        by_scores: dict[int, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            by_scores[id(self._scores_for(request.task))].append(i)
        for members in by_scores.values():
            scores = self._scores_for(requests[members[0]].task)
            if scores is None:
                for i in members:
                    first = self._first_allowed(self._pool_of(requests[i]), requests[i].exclude)
                    out[i, : len(first)] = first
            else:
                self._rank_scored(requests, np.array(members), scores, out)
        return out

    def _scores_for(self, task: str) -> UserScores | None:
        return self._instead.get(task, self._scores)

    def _first_allowed(self, pool: Pool, exclude: IntArray) -> IntArray:
        """The first 20 rows of the pool that are not excluded; they lie within its first 20 + len(exclude)."""
        if not exclude.size:
            return pool.rows[:TOP_N]
        head = pool.rows[: TOP_N + len(exclude)]
        return head[~self._among(exclude, head)][:TOP_N]

    def _among(self, excluded: IntArray, rows: IntArray) -> BoolArray:
        """Which of `rows` are excluded; one table of the catalog is marked and wiped, faster than a set operation."""
        self._marks[excluded] = True
        found = self._marks[rows]
        self._marks[excluded] = False
        return found

    def _rank_scored(
        self, requests: list[EvalRequest], members: npt.NDArray[np.int64], scores: UserScores, out: IntArray
    ) -> None:
        """Fill `out[members]`, a block of users at a time: their scores are made once for all their requests."""
        rows = self._history.rows_of([requests[i].user_id for i in members])
        users, user_of = np.unique(rows, return_inverse=True)
        order = np.argsort(user_of, kind="stable")
        for start in range(0, len(users), _USERS_AT_ONCE):
            low, high = np.searchsorted(user_of[order], [start, start + _USERS_AT_ONCE])
            part = order[low:high]
            block = scores.block(users[start : start + _USERS_AT_ONCE])
            for task, pool, chosen in self._by_pool(requests, members[part]):
                asked = part[chosen]
                scored = block[(user_of[asked] - start)[:, None], pool.rows]
                self._rank_pool(requests, members[asked], scored, task, pool, out)

    def _by_pool(
        self, requests: list[EvalRequest], members: npt.NDArray[np.int64]
    ) -> Iterator[tuple[str, Pool, npt.NDArray[np.int64]]]:
        """Task, pool, and which of `members` ask it, at most `_ROWS_AT_ONCE` at a time."""
        pools: dict[tuple[str, int], Pool] = {}
        groups: dict[tuple[str, int], list[int]] = defaultdict(list)
        for i, member in enumerate(members):
            pool = self._pool_of(requests[member])
            key = requests[member].task, id(pool.rows)
            pools[key] = pool
            groups[key].append(i)
        for key, group in groups.items():
            for start in range(0, len(group), _ROWS_AT_ONCE):
                yield key[0], pools[key], np.array(group[start : start + _ROWS_AT_ONCE])

    def _rank_pool(
        self,
        requests: list[EvalRequest],
        members: npt.NDArray[np.int64],
        scores: ScoreBlock,
        task: str,
        pool: Pool,
        out: IntArray,
    ) -> None:
        """Fill `out[members]`: `scores` [len(members), P] are their users' scores of the pool's items; changed here."""
        scores *= pool.weight
        for row, member in zip(scores, members, strict=True):
            if requests[member].exclude.size:
                row[self._among(requests[member].exclude, pool.rows)] = -1.0
        columns = top_columns(scores, TOP_N, positive_only=task in self._unfilled)
        out[members] = np.where(columns == NO_ITEM, NO_ITEM, pool.rows[columns])


def build_baselines(
    catalog: pl.DataFrame,
    history: pl.DataFrame,
    as_of: date,
    *,
    themes: Mapping[str, Sequence[str]],
    encode: Encode | None = None,
    answers: Answers | None = None,
    offered: pl.DataFrame | None = None,
    sequence: Callable[[PurchaseHistory], UserScores] | None = None,
) -> dict[str, Baseline]:
    """Every opponent by name, the four common ones first.

    On just_for_you the two personal ones list only what the user took before (that is what the table of tasks.md
    holds); those named `filled` go on with popularity, there and among launches. On the other tasks all are filled.

    Args:
        catalog: ItemCatalog frame of `as_of`.
        history: purchases up to `as_of`.
        as_of: the day that is judged.
        themes: `data.calendar.load_themes()`.
        encode: texts to unit vectors, a general text encoder; None leaves the MiniLM opponents out.
        offered: OFFER_ID, ITEM_ID of the offers that hold on the day, for campaigns.
        answers: the rows that answer a query, for the oracle; None takes the types of `phrases.phrase_table`.
        sequence: scores of a sequence model, SASRec; None leaves it out, since its training takes an hour.
    """
    taken = PurchaseHistory(history, catalog[c.ITEM_ID], as_of, HALF_LIFE_DAYS)
    cosine = None if encode is None else CosineMatch(type_words(catalog), encode)
    pools = TaskPools(catalog, themes, answers or phrase_answers(catalog), cosine, offered)
    ranker = partial(PoolRanker, taken)
    frequency, decayed = CountScores(taken.counts), CountScores(taken.decayed)
    own = frozenset({"just_for_you"})
    item_type = codes_of(catalog[c.ITEM_TYPE])
    sold = catalog[c.NUM_EVENTS_28D].to_numpy().astype(np.int64)
    by_type = {"longtail": TypeScores(taken.counts, item_type, sold)}
    by_type_decayed = {"longtail": TypeScores(taken.decayed, item_type, sold)}
    out = {
        "popularity": Baseline(ranker(None, pools.informed)),
        "personal_frequency": Baseline(
            ranker(frequency, pools.informed, unfilled=own, instead=by_type), apart=(COLD,)
        ),
        "personal_decayed": Baseline(
            ranker(decayed, pools.informed, unfilled=own, instead=by_type_decayed), apart=(COLD,)
        ),
        "item_knn": Baseline(ranker(ItemNeighbors(taken.decayed), pools.informed)),
        "personal_frequency_filled": Baseline(ranker(frequency, pools.informed), ("just_for_you", COLD)),
        "personal_decayed_filled": Baseline(ranker(decayed, pools.informed), ("just_for_you", COLD)),
        "bm25_popularity": Baseline(ranker(None, pools.by_bm25), ("query",)),
        "bm25_personal": Baseline(ranker(decayed, pools.by_bm25), ("query",)),
        "bm25_season": Baseline(ranker(None, pools.by_bm25_lately), ("season",)),
    }
    ease = EaseScores(taken.decayed.log1p())
    tifu = TifuKnnScores(basket_frequencies(history, catalog[c.ITEM_ID], taken))
    category = codes_of(catalog[c.CATEGORY])
    learned = ("just_for_you", "longtail", "discover", COLD)
    if sequence is not None:
        out["sasrec_ce"] = Baseline(ranker(sequence(taken), pools.informed), learned)
    out |= {
        "ease": Baseline(ranker(ease, pools.informed), learned),
        "tifu_knn": Baseline(ranker(tifu, pools.informed), ("just_for_you",)),
        "category_popularity": Baseline(ranker(GroupPopularity(category, sold), pools.informed), (COLD,)),
        "category_personal": Baseline(
            ranker(TypeScores(taken.decayed, category, sold), pools.informed), (COLD,)
        ),
        "type_personal": Baseline(
            ranker(TypeScores(taken.decayed, item_type, sold), pools.informed), (COLD,)
        ),
    }
    if cosine is not None:
        near = TextNeighbors(taken.decayed, cosine)
        out["text_neighbors"] = Baseline(ranker(near, pools.informed), ("longtail", "discover", COLD))
        out["minilm_popularity"] = Baseline(ranker(None, pools.by_cosine), ("query",))
        out["minilm_personal"] = Baseline(ranker(decayed, pools.by_cosine), ("query",))
        out["minilm_holiday"] = Baseline(ranker(None, pools.by_cosine_lately), ("holiday",))
    out["type_filter_oracle"] = Baseline(ranker(decayed, pools.by_oracle), ("query",), is_oracle=True)
    return out
