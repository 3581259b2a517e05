"""The three steps of one answer, taken apart for people: prefix beams, distributions inside them, fused scores.

Reads what `Recommender` returns and recomputes nothing of it, so an explanation can never disagree with the list.
Source: paper, three-step item generation; showing it is our choice.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from sigma_core.generation.fusion import beam_sigma

if TYPE_CHECKING:
    from torch import Tensor

    from sigma_core.generation.recommender import Recommendation, Recommender, Searched


@dataclass(frozen=True)
class PrefixPart:
    """One searched prefix.

    Attributes:
        prefix: its codes.
        probability: P(c | T), step 1.
        items: (row, P(id | T, c), P(v | T)) of the items kept under it, best first: steps 2 and 3. The last is `probability` times
            the second, times what the whole catalog says of the item where that is fused in.
    """

    prefix: tuple[int, ...]
    probability: float
    items: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True)
class Explanation:
    """An answer in its parts.

    Attributes:
        sigma: spread of the top beam probabilities, what APF reads.
        sharpness: sigma / tau within its bounds; multiplies cosines inside a prefix.
        parts: searched prefixes, most probable first.
    """

    sigma: float
    sharpness: float
    parts: tuple[PrefixPart, ...]


def explain(recommender: "Recommender", found: "Searched", eligible_RN: "Tensor") -> list[Explanation]:
    """The parts of every request that step 1 searched for, from the same public calls that make its list."""
    config, beams = recommender.config, found.beams
    log_prob = beams.log_prob_RK
    everything = log_prob.shape[1] * config.items_per_prefix
    ranked = recommender.answer(found, eligible_RN, everything, collapse=False)
    sigma = beam_sigma(log_prob.exp(), config.sigma_top, config.sigma_floor).tolist()
    sharpness = recommender.sharpness(found).tolist()
    searched = recommender.searched(found)
    probability, prefixes = (log_prob.exp() * searched).tolist(), beams.prefix_RKP.tolist()
    return [
        Explanation(sigma[r], sharpness[r], _parts(prefixes[r], probability[r], ranked[r]))
        for r in range(len(ranked))
    ]


def _parts(
    prefixes: Sequence[Sequence[int]], probability: Sequence[float], ranked: "Sequence[Recommendation]"
) -> tuple[PrefixPart, ...]:
    inside: dict[tuple[int, ...], list[tuple[int, float, float]]] = {}
    for item in ranked:
        share = item.item_probability or 0.0
        inside.setdefault(item.prefix, []).append((item.row, share, item.score))
    return tuple(
        PrefixPart(tuple(codes), value, tuple(inside.get(tuple(codes), ())))
        for codes, value in zip(prefixes, probability, strict=True)
        if value > 0
    )


def nearest_history(
    recommender: "Recommender", rows: Sequence[int], history_rows: Sequence[int]
) -> dict[int, tuple[int, float]]:
    """For each item row the history item nearest to it in the space of v~, itself left out, and their cosine; none without history."""
    vectors = recommender.items.tensors.vectors_NE
    mine = sorted(set(map(int, history_rows)))
    if not mine or not rows:
        return {}
    asked, near = (torch.as_tensor(part, device=vectors.device) for part in (list(rows), mine))
    cosine = (vectors[asked] @ vectors[near].T).masked_fill_(asked[:, None] == near, -2.0)
    value, place = cosine.max(dim=1)  # of equal ones the first, which has the lowest row
    found = zip(rows, place.tolist(), value.tolist(), strict=True)
    return {row: (mine[at], best) for row, at, best in found if best > -2.0}


def with_settings(
    recommender: "Recommender",
    num_prefixes: int | None = None,
    items_per_prefix: int | None = None,
    temperature: float = 1.0,
    prefix_mass: float | None = None,
) -> "Recommender":
    """The same model and items with another K (fixed or by mass), M, or `temperature` times its APF temperature. Shares all
    tensors.
    """
    given = {"num_prefixes": num_prefixes, "items_per_prefix": items_per_prefix, "prefix_mass": prefix_mass}
    update = {key: value for key, value in given.items() if value is not None}
    other = copy.copy(recommender)
    other.config = recommender.config.model_copy(update=update)
    other.apf_temperature = recommender.apf_temperature * temperature
    return other
