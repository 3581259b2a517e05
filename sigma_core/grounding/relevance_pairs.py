"""Relevance pairs: what the grounded encoder is taught to place together, from several views.

Holds the artifact and the list of views; each view is a module in `views/`. Pairs name their positive by item id and their
anchor by text, so a query, a holiday and an item are anchors alike. Source: paper section on grounding.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TableArtifact
from sigma_core.config import GroundingConfig
from sigma_core.grounding.views import collaborative, knowledge, search, visual
from sigma_core.grounding.views.base import PAIR_ORDER, PAIR_SCHEMA, ViewInputs

if TYPE_CHECKING:
    from sigma_core.data.catalog import ItemCatalog

VIEWS: dict[str, Callable[[ViewInputs], pl.DataFrame]] = {
    collaborative.NAME: collaborative.pairs,
    search.NAME: search.pairs,
    knowledge.NAME: knowledge.pairs,
    visual.NAME: visual.pairs,
}


class RelevancePairs(TableArtifact):
    """VIEW, ANCHOR_TEXT, ANCHOR_ITEM_ID (null where the anchor is no item), POSITIVE_ITEM_ID, WEIGHT, IS_PSEUDO; sorted."""

    schema: ClassVar[dict[str, Any]] = PAIR_SCHEMA

    def summary(self) -> dict[str, Any]:
        """Rows, rows and share of each view, distinct anchors per view, and the number of made-up queries."""
        by_view = (
            self.frame.group_by(c.VIEW)
            .agg(pl.len(), pl.col(c.ANCHOR_TEXT).n_unique().alias("anchors"))
            .sort(c.VIEW)
        )
        return {
            **super().summary(),
            "by_view": dict(by_view.select(c.VIEW, "len").iter_rows()),
            "share_by_view": {
                view: round(rows / self.frame.height, 4)
                for view, rows in by_view.select(c.VIEW, "len").iter_rows()
            },
            "anchors_by_view": dict(by_view.select(c.VIEW, "anchors").iter_rows()),
            "pseudo_queries": int(self.frame[c.IS_PSEUDO].sum()),
        }


def text_answers(
    items: pl.DataFrame, themes: Mapping[str, Sequence[str]], phrases: Mapping[str, Sequence[str]]
) -> pl.DataFrame:
    """ANCHOR_TEXT and POSITIVE_ITEM_ID: which of `items` (a catalog's frame) answer a phrase, a name of a type or category, a
    holiday. Pairs are drawn from these; the others are no negatives.
    """
    parts = (search.answers(items, phrases), knowledge.answers(items, themes))
    return pl.concat(parts).unique().sort(c.ANCHOR_TEXT, c.POSITIVE_ITEM_ID)


def build_relevance_pairs(
    events: pl.DataFrame,
    catalog: "ItemCatalog",
    themes: Mapping[str, Sequence[str]],
    phrases: Mapping[str, Sequence[str]],
    config: GroundingConfig,
    seed: int,
    images: tuple[Sequence[str], np.ndarray] | None = None,
    annotations: Mapping[str, Sequence[str]] | None = None,
    complements: Mapping[str, Sequence[str]] | None = None,
    held_out: frozenset[str] = frozenset(),
) -> RelevancePairs:
    """Pairs of every view that `config.view_weights` gives a share, at most `pairs_per_view` each.

    `events` must end before the refit; `phrases` (phrase -> item ids) must hold the train split only, and the others are
    `held_out`; `complements` says what is used with what, in words. Without `images` (item ids and vectors) the visual view has no pair; `annotations` are an LLM's phrases of the
    knowledge view.

    Raises:
        ValueError: a view that does not exist.
    """
    wanted = [view for view, share in config.view_weights.items() if share > 0]
    if unknown := sorted(set(wanted) - set(VIEWS)):
        raise ValueError(
            f"grounding.view_weights names unknown views {unknown}; there are {', '.join(VIEWS)}."
        )
    inputs = ViewInputs(
        events,
        catalog.frame,
        themes,
        phrases,
        config,
        seed,
        annotations or {},
        images,
        complements or {},
        held_out,
    )
    frames = [VIEWS[view](inputs) for view in sorted(wanted)]
    return RelevancePairs(pl.concat(frames).sort(PAIR_ORDER))
