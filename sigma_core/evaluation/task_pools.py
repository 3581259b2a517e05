"""What each task's request tells an opponent, as a pool: the items in question, their order, their weight.

A pool is the same for every user. A personal score is multiplied with the weight; items the user has no score for
follow in the pool's own order ("filled with the task-informed popularity"). Source: the opponents' column of
tasks.md; smoothing and pool sizes are our choice, made on the dates 2017-04-08, 2017-06-26 and 2017-11-15.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl

from sigma_core import columns as c
from sigma_core.data.offers import offer_label
from sigma_core.evaluation.metrics import TOP_N, BoolArray, FloatArray, codes_of
from sigma_core.evaluation.ranking import tie_order
from sigma_core.evaluation.requests import EvalRequest, IntArray
from sigma_core.evaluation.text_match import Bm25, CosineMatch
from sigma_core.instruction.phrases import phrase_table
from sigma_core.instruction.tasks import TASKS

# Shape legend: N items of the catalog, P items of a pool.
Weights = npt.NDArray[np.float32]
PoolRule: TypeAlias = Callable[[EvalRequest], "Pool"]
Answers: TypeAlias = Callable[[EvalRequest], IntArray]
"""Catalog rows that truly answer a request: the oracle's knowledge."""

COSINE_POOL: Final = 1000  # items nearest to a phrase that a cosine opponent considers
COSINE_SHARPNESS: Final = 10.0  # weight = exp(10 cos): .07 more cosine is worth twice the popularity
SMOOTHING: Final = 20.0  # event lines added to a type's 56 days, a quarter of them to its 14 days
TREND_POWER: Final = 2.0
THEME_POWER: Final = 2.0  # a text that holds half of a theme's words counts a quarter


class Pool(NamedTuple):
    """Items in question [P]: `rows` best first for a user without any score, `weight` >= 0 of personal scores."""

    rows: IntArray
    weight: Weights


class TaskPools:
    """Pools of one catalog; each (opponent, task, words) is worked out once.

    Args:
        catalog: ItemCatalog frame, sorted by ITEM_ID.
        themes: holiday name -> words of what is bought for it.
        answers: rows that answer a request, for the oracle.
        cosine: matcher of an encoder over `type_words`, where there is one.
        offered: OFFER_ID, ITEM_ID of the offers that hold; an opponent is told all items of a campaign, not its words alone.
    """

    def __init__(
        self,
        catalog: pl.DataFrame,
        themes: Mapping[str, Sequence[str]],
        answers: Answers,
        cosine: CosineMatch | None = None,
        offered: pl.DataFrame | None = None,
    ) -> None:
        sold = {days: catalog[name].to_numpy().astype(np.int64) for days, name in _SOLD.items()}
        self._popularity = sold[28].astype(np.float64)
        self._recent = sold[14].astype(np.float64)
        self._trend = _type_trend(codes_of(catalog[c.ITEM_TYPE]), sold[14], sold[56])
        self._item_trend = _ratio(sold[14], sold[56])
        self._offered = {} if offered is None else _rows_by_offer(catalog, offered)
        self._ties = tie_order(sold[28], catalog[c.ITEM_ID])
        self._categories = catalog[c.CATEGORY].fill_null("").str.to_lowercase().to_numpy()
        self._is_tail = catalog[c.IS_TAIL].to_numpy()
        self._bm25 = Bm25(catalog[c.TEXT].to_list())
        self._themes = {name.casefold(): list(words) for name, words in themes.items()}
        self._cosine = cosine
        self._answers = answers
        self._made: dict[tuple[str, str, str], Pool] = {}

    def informed(self, request: EvalRequest) -> Pool:
        """The pool of the four common opponents: the catalog narrowed or weighted by what the task says."""
        rule = {
            "all": self._of_all,
            "query": self._of_query,
            "category": self._of_category,
            "tail": self._of_tail,
            "season": self._of_season,
            "holiday": self._of_holiday,
            "rising": self._of_rising,
            "offer": self._of_offer,
        }[TASKS[request.task].pool]
        return self._once("informed", request, rule)

    def by_bm25(self, request: EvalRequest) -> Pool:
        """Items that share a word with the phrase, weighted by BM25."""
        return self._once("bm25", request, lambda r: self._of_bm25(r, self._popularity))

    def by_bm25_lately(self, request: EvalRequest) -> Pool:
        """The same, ordered by the popularity of the last 14 days."""
        return self._once("bm25_14", request, lambda r: self._of_bm25(r, self._recent))

    def by_cosine(self, request: EvalRequest) -> Pool:
        """The items nearest to the phrase by cosine, weighted steeply by it."""
        return self._once("cosine", request, lambda r: self._near(r, self._popularity))

    def by_cosine_lately(self, request: EvalRequest) -> Pool:
        """The same, ordered by the popularity of the last 14 days."""
        return self._once("cosine14", request, lambda r: self._near(r, self._recent))

    def by_oracle(self, request: EvalRequest) -> Pool:
        """Exactly the items that answer the request."""
        return self._once("oracle", request, self._of_answers)

    def _once(self, opponent: str, request: EvalRequest, rule: PoolRule) -> Pool:
        key = (opponent, request.task, request.focus)
        if key not in self._made:
            self._made[key] = rule(request)
        return self._made[key]

    def _pool(
        self, mask: BoolArray, order: FloatArray | None = None, weight: FloatArray | None = None
    ) -> Pool:
        """The masked items by `order` descending, ties by 28-day popularity, then item id; all items for no mask.

        A pool of fewer than 20 items goes on with the most popular others, at weight 0.
        """
        mask = mask if mask.any() else np.ones(len(mask), np.bool_)
        rows = self._ties[mask[self._ties]]
        if order is not None:
            rows = rows[np.argsort(-order[rows], kind="stable")]
        weights = np.ones(len(rows)) if weight is None else weight[rows]
        if len(rows) < TOP_N:
            others = self._ties[~mask[self._ties]][: TOP_N - len(rows)]
            rows, weights = np.concatenate([rows, others]), np.concatenate([weights, np.zeros(len(others))])
        return Pool(rows, weights.astype(np.float32))

    def _of_all(self, _: EvalRequest) -> Pool:
        return self._pool(np.ones(len(self._ties), np.bool_))

    def _of_query(self, request: EvalRequest) -> Pool:
        return self._pool(self._bm25.scores(request.focus) > 0)

    def _of_bm25(self, request: EvalRequest, popularity: FloatArray) -> Pool:
        match = self._bm25.scores(request.focus).astype(np.float64)
        if not match.any():
            return self._of_all(request)
        return self._pool(match > 0, match * (popularity + 1), match)

    def _of_category(self, request: EvalRequest) -> Pool:
        name = str(request.slots.get("category", request.focus)).lower()
        inside = self._categories == name
        return self._pool(inside if inside.any() else self._bm25.scores(name) > 0)

    def _of_tail(self, _: EvalRequest) -> Pool:
        return self._pool(self._is_tail)

    def _of_season(self, _: EvalRequest) -> Pool:
        """Everything, by how much its type sells now (14 days) over lately (56 days)."""
        everything = np.ones(len(self._ties), np.bool_)
        return self._pool(everything, self._trend * self._recent, self._trend)

    def _of_holiday(self, request: EvalRequest) -> Pool:
        """Items that a theme of the holiday matches, by the share of the theme's words, trend and 14 days."""
        themes = [request.focus, *self._themes.get(request.focus.casefold(), ())]
        share = np.max([_share_of_best(self._bm25.scores(theme)) for theme in themes], axis=0)
        weight = share**THEME_POWER * self._trend
        return self._pool(share > 0, weight * self._recent, weight)

    def _of_rising(self, _: EvalRequest) -> Pool:
        """Everything, by how much the item itself sells now (14 days) over lately (56 days): the popularity ratio."""
        everything = np.ones(len(self._ties), np.bool_)
        return self._pool(everything, self._item_trend * self._recent, self._item_trend)

    def _of_offer(self, request: EvalRequest) -> Pool:
        """The items of the offer that the request is about; everything when none of them is in the catalog."""
        mask = np.zeros(len(self._ties), np.bool_)
        mask[self._offered.get(str(request.slots.get("campaign", "")), ())] = True
        return self._pool(mask)

    def _of_answers(self, request: EvalRequest) -> Pool:
        mask = np.zeros(len(self._ties), np.bool_)
        mask[self._answers(request)] = True
        return self._pool(mask)

    def _near(self, request: EvalRequest, popularity: FloatArray) -> Pool:
        assert self._cosine is not None, "cosine opponents exist only where an encoder was given"
        cosine = self._cosine.scores(request.focus).astype(np.float64)
        mask = np.zeros(len(cosine), np.bool_)
        mask[np.argsort(-cosine, kind="stable")[:COSINE_POOL]] = True
        weight = np.exp(COSINE_SHARPNESS * (cosine - cosine.max()))
        return self._pool(mask, weight * (popularity + 1), weight)


_SOLD: Final = {56: c.NUM_EVENTS_56D, 28: c.NUM_EVENTS_28D, 14: c.NUM_EVENTS_14D}


def type_words(catalog: pl.DataFrame) -> list[str]:
    """Type and category of each item, [N]: what a phrase is about. Sizes and makers are left out: a phrase names none,
    and there are ten times fewer such texts to encode than whole ones, for nearly the same recall.
    """
    words = pl.concat_str(c.ITEM_TYPE, c.CATEGORY, separator=", ", ignore_nulls=True)
    return catalog.select(pl.when(words == "").then(pl.col(c.TEXT)).otherwise(words).alias(c.TEXT))[
        c.TEXT
    ].to_list()


def phrase_answers(catalog: pl.DataFrame) -> Answers:
    """The rows whose type answers a request's phrase, by the rules that also make the query task's targets."""
    rows = catalog.with_row_index("row").select("row", c.CATEGORY, c.ITEM_TYPE)
    answers = rows.join(phrase_table(catalog), on=[c.CATEGORY, c.ITEM_TYPE], nulls_equal=True)
    by_phrase = dict(answers.group_by(c.PHRASE).agg(pl.col("row").sort()).iter_rows())

    def of_request(request: EvalRequest) -> IntArray:
        return np.array(by_phrase.get(request.focus, ()), np.int32)

    return of_request


def _type_trend(
    item_type: npt.NDArray[np.int64], sold14: npt.NDArray[np.int64], sold56: npt.NDArray[np.int64]
) -> FloatArray:
    """(14-day / 56-day event lines of the item's type) ** TREND_POWER, [N]; steady sales give 1/4 ** TREND_POWER.

    By type and not by item: single items come and go, and their ratios did worse than none on two of three dates.
    """
    recent, longer = (np.bincount(item_type, weights=sold)[item_type] for sold in (sold14, sold56))
    return _ratio(recent, longer)


def _ratio(sold14: npt.NDArray[Any], sold56: npt.NDArray[Any]) -> FloatArray:
    return np.asarray(((sold14 + SMOOTHING / 4) / (sold56 + SMOOTHING)) ** TREND_POWER, np.float64)


def _rows_by_offer(catalog: pl.DataFrame, offered: pl.DataFrame) -> dict[str, IntArray]:
    """Catalog rows of each offer, by its label."""
    row_of = catalog.select(c.ITEM_ID).with_row_index("row")
    rows = offered.join(row_of, on=c.ITEM_ID).group_by(c.OFFER_ID).agg(pl.col("row").sort())
    return {offer_label(offer): np.array(found, np.int32) for offer, found in rows.iter_rows()}


def _share_of_best(match: Weights) -> FloatArray:
    best = float(match.max(initial=0.0))
    return match.astype(np.float64) / best if best > 0 else np.zeros(len(match))
