"""Rows of the index as the answers of the API: titles, probabilities, cards, explanations. No model, no queue.

Items are plain values with the fields of `schemas.RankedItem`: a model an item would be half of what a prepared list costs.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sigma_core import columns as c
from sigma_core.serving.http.schemas import (
    MAX_EXPLAINED,
    About,
    Explained,
    ExplainedItem,
    ExplainedPrefix,
    RankedItem,
    ShownEvent,
    TakenFor,
    UserCard,
)

if TYPE_CHECKING:
    from sigma_core.generation.explain import Explanation, PrefixPart
    from sigma_core.generation.recommender import Recommendation
    from sigma_core.serving.http.schemas import RecommendRequest
    from sigma_core.serving.live import LiveDay, Prepared

_EXPLAINED_ITEMS = 12  # items shown under a prefix


def ranked_items(
    live: "LiveDay", ranked: "Sequence[Recommendation]", owned: frozenset[int]
) -> list[dict[str, Any]]:
    """A list for the wire."""
    out = []
    for rank, found in enumerate(ranked, start=1):
        by_model = bool(found.prefix)
        out.append(
            {
                **live.shown[found.row],
                "rank": rank,
                "score": found.score,
                "prefix": found.prefix if by_model else None,
                "prefix_probability": found.prefix_probability if by_model else None,
                "item_probability": found.item_probability if by_model else None,
                "owned": found.row in owned,
            }
        )
    return out


def scored_items(live: "LiveDay", scored: Iterable[tuple[int, float]]) -> list[RankedItem]:
    """Rows with a cosine for the wire."""
    return [
        RankedItem(rank=rank, score=score, **live.shown[row])
        for rank, (row, score) in enumerate(scored, start=1)
    ]


def told_filters(wish: "RecommendRequest", one: "Prepared") -> str:
    """The filters of a request by name, those of its fields and those read out of its words."""
    own = wish.filters.model_dump(exclude_defaults=True)
    return "; ".join((*own, *one.understood)) or f"what {one.task} leaves out of what they had"


def taken_for(one: "Prepared") -> TakenFor | None:
    """What free words were taken for; None where the request named its task."""
    if one.route is None:
        return None
    return TakenFor(task=one.route.task, confidence=round(one.route.confidence, 4), followed=one.followed)


def explained(live: "LiveDay", one: "Prepared", why: "Explanation") -> Explained:
    """The three steps for the wire, at most `MAX_EXPLAINED` prefixes."""
    from sigma_core.generation.explain import nearest_history

    own = live.engine.recommender.config
    context = one.context
    history = [*context.recent_rows.tolist(), *context.favorite_rows.tolist()]
    listed = [row for part in why.parts[:MAX_EXPLAINED] for row, _, _ in part.items[:_EXPLAINED_ITEMS]]
    near = nearest_history(live.engine.recommender, listed, history)
    return Explained(
        sigma=why.sigma,
        sharpness=why.sharpness,
        num_prefixes=one.settings.num_prefixes or own.num_prefixes,
        items_per_prefix=one.settings.items_per_prefix or own.items_per_prefix,
        temperature=one.settings.temperature,
        prefix_mass=one.settings.prefix_mass or own.prefix_mass,
        covered=min(sum(part.probability for part in why.parts), 1.0),
        prefixes=[_prefix(live, part, near) for part in why.parts[:MAX_EXPLAINED]],
    )


def _prefix(live: "LiveDay", part: "PrefixPart", near: dict[int, tuple[int, float]]) -> ExplainedPrefix:
    return ExplainedPrefix(
        prefix=list(part.prefix),
        label=_label(live, [row for row, _, _ in part.items]),
        probability=part.probability,
        num_items=len(part.items),
        items=[
            ExplainedItem(
                item_id=live.item_ids[row],
                title=live.shown[row][c.TITLE],
                item_probability=inside,
                score=score,
                nearest_history=live.shown[near[row][0]][c.TITLE] if row in near else None,
                nearest_cosine=near[row][1] if row in near else None,
            )
            for row, inside, score in part.items[:_EXPLAINED_ITEMS]
        ],
    )


def _label(live: "LiveDay", rows: Sequence[int]) -> str:
    """The category most of the rows are of."""
    counts = Counter(live.shown[row][c.CATEGORY] or "" for row in rows)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else ""


def user_card(live: "LiveDay", user_id: str) -> UserCard | None:
    """A known user's profile and history; None for an unknown one."""
    known = live.known_user(user_id)
    if known is None:
        return None
    context, _ = known

    def cards(rows: np.ndarray, stats: np.ndarray) -> list[ShownEvent]:
        counts, ages = stats[:, 0].astype(int).tolist(), stats[:, 1].astype(int).tolist()
        listed = zip(rows.tolist(), ages, counts, strict=True)
        return [_card(live.shown[row], age, count) for row, age, count in listed]

    return UserCard(
        user_id=user_id,
        profile=context.profile_text,
        recent=cards(context.recent_rows, context.recent_stats),
        favorites=cards(context.favorite_rows, context.favorite_stats),
    )


def _card(shown: dict[str, Any], days_ago: int, count: int) -> ShownEvent:
    return ShownEvent(
        item_id=shown[c.ITEM_ID],
        title=shown[c.TITLE],
        category=shown[c.CATEGORY],
        days_ago=days_ago,
        count=count,
    )


def about(live: "LiveDay", deadline_ms: int) -> About:
    """What the server answers from."""
    from sigma_core.instruction.tasks import TASKS

    words = live.loaded.lists.words or {}
    config = live.engine.recommender.config
    return About(
        day=live.day,
        model=live.model,
        num_items=len(live.item_ids),
        num_users=len(live.user_ids),
        tasks={task.name: task.description for task in TASKS.values()},
        u2i_tasks=list(live.config.serving.u2i_tasks),
        departments=live.values("departments"),
        categories=live.values("categories"),
        brands=live.values("brands"),
        price_bands=live.values("price_bands"),
        num_prefixes=config.num_prefixes,
        items_per_prefix=config.items_per_prefix,
        season=words.get("season", ""),
        holiday=words.get("holiday", ""),
        deadline_ms=deadline_ms,
        takes_events=live.store is not None,
    )
