"""Ranking metrics over lists of catalog rows, as sums a household, so that any share can be resampled by household.

Every metric but coverage is a ratio of two sums over users: recall@k pools hits over all targets of all requests
(micro), macro recall and any-hit average over users, NDCG averages over requests. tasks.md defines them; formulas
stand beside the code. Nothing here knows a model or a task.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from sigma_core import columns as c
from sigma_core.evaluation.requests import NO_ITEM, IntArray

# Shape legend: R requests, n length of a list, T targets of all requests, N items of the catalog, H users.
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

TOP_N: Final = 20
RECALL_AT: Final = (1, 5, 10, 20)
NDCG_AT: Final = (10, 20)
RATIO_METRICS: Final[tuple[str, ...]] = (
    *(f"recall@{k}" for k in RECALL_AT),
    "macro_recall@20",
    "any_hit@20",
    "group_recall@20",
    *(f"ndcg@{k}" for k in NDCG_AT),
    "diversity@20",
    "novelty@20",
)
METRICS: Final[tuple[str, ...]] = (*RATIO_METRICS[:9], "coverage@20", *RATIO_METRICS[9:])


class TargetSets(NamedTuple):
    """Targets of R requests end to end: those of request r are `rows[offsets[r]:offsets[r + 1]]`."""

    offsets: npt.NDArray[np.int64]  # [R + 1]
    rows: IntArray  # [T]

    def counts(self) -> npt.NDArray[np.int64]:
        """Number of targets of each request, [R]."""
        return np.asarray(np.diff(self.offsets), np.int64)

    def requests(self) -> npt.NDArray[np.int64]:
        """The request each target belongs to, [T]."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.counts())

    def keep(self, mask: BoolArray) -> "TargetSets":
        """The same requests with only the targets where `mask` [T] holds (a request may be left with none)."""
        kept = np.bincount(self.requests()[mask], minlength=len(self.offsets) - 1)
        return TargetSets(np.concatenate([[0], np.cumsum(kept)]), self.rows[mask])


class ItemFacts(NamedTuple):
    """What metrics need to know of each item, by catalog row [N]."""

    group: npt.NDArray[np.int64]  # items with one shown title share it
    item_type: npt.NDArray[np.int64]
    information: FloatArray  # bits: -log2 of the item's share of the 56-day volume


class Ratio(NamedTuple):
    """A metric as sum(num) / sum(den), both by user [H]."""

    num: FloatArray
    den: FloatArray

    def value(self) -> float | None:
        """The metric over all users; None without any."""
        total = float(self.den.sum())
        return float(self.num.sum()) / total if total > 0 else None


def share_of(part: npt.NDArray[Any], whole: npt.NDArray[Any]) -> FloatArray:
    """`part / whole`, 0 where `whole` is 0."""
    whole = np.asarray(whole, np.float64)
    return np.asarray(np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0), np.float64)


def codes_of(names: pl.Series) -> npt.NDArray[np.int64]:
    """A number for each distinct name, from 0 in sorted order; nulls count as one name."""
    return np.asarray(names.fill_null("").rank("dense").to_numpy(), np.int64) - 1


def item_facts(catalog: pl.DataFrame) -> ItemFacts:
    """Facts of an ItemCatalog frame. An item that nobody bought in 56 days counts as bought once, not as infinitely new."""
    sold = catalog[c.NUM_EVENTS_56D].to_numpy().astype(np.float64) + 1
    return ItemFacts(
        codes_of(catalog[c.TEXT_GROUP]), codes_of(catalog[c.ITEM_TYPE]), -np.log2(sold / sold.sum())
    )


def target_sets(targets: Sequence[IntArray]) -> TargetSets:
    """Put the targets of the requests end to end."""
    counts = np.array([len(t) for t in targets], np.int64)
    rows = np.concatenate(targets).astype(np.int32) if len(targets) else np.empty(0, np.int32)
    return TargetSets(np.concatenate([[0], np.cumsum(counts)]), rows)


def ceiling(targets: TargetSets, k: int = TOP_N) -> float | None:
    """The highest recall@k any ranker can have: sum(min(k, targets)) / sum(targets)."""
    counts = targets.counts()
    return float(np.minimum(counts, k).sum() / counts.sum()) if counts.sum() else None


def contains(ordered: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> BoolArray:
    """Whether each of `wanted` is in the sorted array: `np.isin` hashes the whole of it every time."""
    if not len(ordered):
        return np.zeros(len(wanted), np.bool_)
    at = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return np.asarray(ordered[at] == wanted, np.bool_)


def target_ranks(lists: IntArray, targets: TargetSets) -> npt.NDArray[np.int64]:
    """Place from 0 at which each target stands in its request's list, [T]; n (the list's length) where it is not."""
    num_requests, length = lists.shape
    width = int(max(lists.max(initial=0), targets.rows.max(initial=0))) + 2
    listed = (np.arange(num_requests)[:, None] * width + np.where(lists == NO_ITEM, width - 1, lists)).ravel()
    order = np.argsort(listed, kind="stable")
    wanted = targets.requests() * width + targets.rows
    if not order.size:
        return np.full(len(wanted), length, np.int64)
    at = order[np.minimum(np.searchsorted(listed[order], wanted), order.size - 1)]
    return np.asarray(np.where(listed[at] == wanted, at % length, length), np.int64)


def group_hits(lists: IntArray, targets: TargetSets, group: npt.NDArray[np.int64]) -> BoolArray:
    """Whether an item of the target's text group is listed for its request, [T]."""
    width = int(group.max(initial=0)) + 1
    listed = lists != NO_ITEM
    shown = (np.arange(len(lists))[:, None] * width + group[lists])[listed]
    return contains(np.sort(shown), targets.requests() * width + group[targets.rows])


def ndcg(ranks: npt.NDArray[np.int64], targets: TargetSets, k: int) -> FloatArray:
    """NDCG@k of each list [R]: sum of 1 / log2(rank from 1, + 1) over targets listed in the first k, over that of
    min(k, targets) targets at the top.

    Example: one of two targets, at rank 2: (1 / log2(3)) / (1 + 1 / log2(3)).
    """
    gains = np.where(ranks < k, 1.0 / np.log2(ranks + 2), 0.0)
    best = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))])
    counts = targets.counts()
    ideal = best[np.minimum(counts, k)]
    found = np.bincount(targets.requests(), weights=gains, minlength=len(counts))
    return share_of(found, ideal)


def list_diversity(lists: IntArray, item_type: npt.NDArray[np.int64]) -> FloatArray:
    """Share of the pairs of a list that are of two types, [R]; 0 for a list of fewer than two items.

    With c_t items of type t among m listed: 1 - sum c_t (c_t - 1) / (m (m - 1)).
    """
    types = np.where(lists == NO_ITEM, -1, item_type[lists])
    same = (types[:, :, None] == types[:, None, :]) & (types[:, :, None] >= 0)
    listed = (lists != NO_ITEM).sum(axis=1)
    pairs = listed * (listed - 1)
    equal = same.sum(axis=(1, 2)) - listed
    return share_of(pairs - equal, pairs)


def list_novelty(lists: IntArray, information: FloatArray) -> FloatArray:
    """Mean bits of information of the listed items, [R]; 0 for an empty list."""
    listed = lists != NO_ITEM
    total = np.where(listed, information[lists], 0.0).sum(axis=1)
    return share_of(total, listed.sum(axis=1))


def coverage(lists: IntArray, num_items: int) -> float:
    """Distinct items listed in any list, over the items of the catalog."""
    shown = np.unique(lists)
    return float((shown != NO_ITEM).sum() / num_items)


class Outcome(NamedTuple):
    """All that metrics need of the lists one ranker gave to R requests."""

    lists: IntArray  # [R, 20]
    ranks: npt.NDArray[np.int64]  # [T], 20 = not listed
    group_hit: BoolArray  # [T]
    diversity: FloatArray  # [R]
    novelty: FloatArray  # [R]


def outcome_of(lists: IntArray, targets: TargetSets, facts: ItemFacts) -> Outcome:
    """Look the targets up in the first 20 of each list."""
    lists = lists[:, :TOP_N]
    ranks = target_ranks(lists, targets)
    return Outcome(
        lists,
        np.where(ranks < lists.shape[1], ranks, TOP_N),
        group_hits(lists, targets, facts.group),
        list_diversity(lists, facts.item_type),
        list_novelty(lists, facts.information),
    )


def household_sums(
    outcome: Outcome,
    targets: TargetSets,
    users: npt.NDArray[np.int64],
    num_users: int,
    keep: BoolArray | None = None,
) -> dict[str, Ratio]:
    """Each metric of `RATIO_METRICS` as sums a user.

    Args:
        outcome: of the R requests.
        targets: the ones `outcome` was made with.
        users: index of each request's user, [R], below `num_users`; a user with several requests pools them.
        num_users: H.
        keep: judge only these targets, [T]. A request that is left without any counts nowhere.
    """
    ranks, group_hit = outcome.ranks, outcome.group_hit
    if keep is not None:
        targets, ranks, group_hit = targets.keep(keep), ranks[keep], group_hit[keep]
    counts = targets.counts()
    of_target = users[targets.requests()]

    def by_user(index: npt.NDArray[np.int64], values: npt.NDArray[Any]) -> FloatArray:
        return np.bincount(index, weights=values.astype(np.float64), minlength=num_users).astype(np.float64)

    asked = (counts > 0).astype(np.float64)
    num_targets, num_requests = by_user(users, counts), by_user(users, asked)
    present = (num_targets > 0).astype(np.float64)
    found = {k: by_user(of_target, ranks < k) for k in RECALL_AT}
    out = {f"recall@{k}": Ratio(found[k], num_targets) for k in RECALL_AT}
    out["macro_recall@20"] = Ratio(share_of(found[20], num_targets), present)
    out["any_hit@20"] = Ratio((found[20] > 0).astype(np.float64), present)
    out["group_recall@20"] = Ratio(by_user(of_target, group_hit), num_targets)
    for k in NDCG_AT:
        out[f"ndcg@{k}"] = Ratio(by_user(users, ndcg(ranks, targets, k)), num_requests)
    out["diversity@20"] = Ratio(by_user(users, outcome.diversity * asked), num_requests)
    out["novelty@20"] = Ratio(by_user(users, outcome.novelty * asked), num_requests)
    return out


def metric_values(sums: dict[str, Ratio], lists: IntArray, num_items: int) -> dict[str, float | None]:
    """Every metric of `METRICS` as a number, None where no request has a target.

    Args:
        sums: of `household_sums`.
        lists: [R, n] of the requests that count, for coverage.
        num_items: of the catalog.
    """
    values: dict[str, float | None] = {name: sums[name].value() for name in RATIO_METRICS}
    values["coverage@20"] = coverage(lists, num_items) if len(lists) else None
    return {name: values[name] for name in METRICS}
