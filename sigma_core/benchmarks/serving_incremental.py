"""What a new event costs with cached KV states, against reading the whole history again. One process, no HTTP.

Users are made up from the day's most sold items, so that every history has exactly the asked length. Both ways answer the same
prompts, in turns; their lists are compared too. Our choice.
"""

import copy
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from sigma_core.instruction.collate import Collator, Prompt, Request, UserContext
from sigma_core.serving.session_cache import SessionCache

if TYPE_CHECKING:
    from sigma_core.generation.recommender import Recommendation, Recommender
    from sigma_core.serving.live import LiveDay

T = TypeVar("T")
MAX_RECENT = 16
PROFILE = "aged 35 to 44, income 50 to 74K, two adults with kids, homeowner, household of three"
INSTRUCTION = "Recommend items this user is likely to buy next."


def made_up_user(name: str, history: int, steps: int, rows: np.ndarray, seed: int) -> list[UserContext]:
    """A user with `history` items in the prompt, and the same user after 1 .. `steps` more events."""
    rng = np.random.default_rng(seed)
    taken = rng.choice(rows, history + steps, replace=False)

    def stats(count: int) -> np.ndarray:
        return rng.uniform(1, 9, (count, 4)).astype(np.float32)

    favorites, recents = taken[: history - MAX_RECENT], taken[history - MAX_RECENT :]
    told, known = stats(len(recents)), stats(len(favorites))
    out = []
    for step in range(steps + 1):
        prompt = Prompt(favorites, known, recents[: MAX_RECENT + step], told[: MAX_RECENT + step])
        newest = slice(step, MAX_RECENT + step)
        out.append(
            UserContext(name, PROFILE, recents[newest][::-1], told[newest][::-1], favorites, known, prompt)
        )
    return out


def measure_incremental(
    live: "LiveDay", lengths: Sequence[int], *, steps: int, batch: int, repeats: int, seed: int
) -> dict[str, Any]:
    """Times and ratios for histories of each length.

    `update` is the way from a user's new context to the state that answers are generated from (prompt layout, reading,
    keeping the new states); `refresh` is that and the three generation steps, a list of `serving.u2i_top_n` items. For one
    user at a time, and for batches of `batch` as nearline makes them, where times are a user's share.

    `max_score_difference` is that of an item in the two lists; one that only one list names is taken to be as good as the other
    list's last. `lists_in_other_order` counts lists that are not the same item by item: float32 does not order what is equal up to
    its rounding.
    """
    out: dict[str, Any] = {}
    for length in lengths:
        recommender = _told_all(live.engine.recommender, length)
        single = _measure(recommender, live, length, steps, 1, repeats, seed)
        many = _measure(recommender, live, length, steps, batch, max(repeats // 4, 1), seed + 1000)
        out[str(length)] = {"one_user": single, f"batch_of_{batch}": many}
        for size, found in (("", many), ("_one_user", single)):
            out[f"incremental_ratio_{length}{size}"] = found["update_ratio"]
            out[f"incremental_refresh_ratio_{length}{size}"] = found["refresh_ratio"]
        out[f"incremental_p95_ms_{length}"] = single["incremental_update_p95_ms"]
    return out


def _told_all(recommender: "Recommender", history: int) -> "Recommender":
    """The same recommender whose prompts have room for the whole history."""
    other, former = copy.copy(recommender), recommender.collator
    other.collator = Collator(former.words, former.prefixes, former.codebook_size, history)
    return other


def _measure(
    recommender: "Recommender", live: "LiveDay", length: int, steps: int, batch: int, repeats: int, seed: int
) -> dict[str, Any]:
    """Both ways in turns, each new event of each user once: medians, p95, ratios, and how far scores were apart."""
    import torch

    from sigma_core.generation.recommender import Ask

    top_n = live.config.serving.u2i_top_n
    asks = [[Ask(Request(INSTRUCTION))]] * batch
    requests = [[one.request for one in mine] for mine in asks]
    plain, updating, refreshing = (copy.copy(recommender) for _ in range(3))
    plain.sessions = None
    seconds: dict[str, list[float]] = {}
    cpu: dict[str, list[float]] = {}
    apart, reordered, rows = 0.0, 0, live.popular[: max(400, length + steps)]

    def timed(name: str, call: Callable[[], T]) -> T:
        start, busy = time.perf_counter(), time.process_time()
        value = call()
        seconds.setdefault(name, []).append((time.perf_counter() - start) / batch)
        cpu.setdefault(name, []).append((time.process_time() - busy) / batch)
        return value

    with torch.inference_mode():
        for repeat in range(repeats):
            numbers = range(repeat * batch, (repeat + 1) * batch)
            users = [made_up_user(f"{n}", length, steps, rows, seed + n) for n in numbers]
            for one in (updating, refreshing):
                one.sessions = SessionCache(live.model, 4096)
                one.read([user[0] for user in users], requests, {})
            plain.read([user[0] for user in users], requests, {})
            for step in range(1, steps + 1):
                now = [user[step] for user in users]
                timed("recomputed_update", partial(plain.read, now, requests, {}))
                timed("incremental_update", partial(updating.read, now, requests, {}))
                want = timed("recomputed_refresh", partial(plain.rank, now, asks, {}, top_n))
                got = timed("incremental_refresh", partial(refreshing.rank, now, asks, {}, top_n))
                apart = max(apart, *map(_apart, got, want))
                reordered += sum(
                    [r.row for r in a] != [r.row for r in b] for a, b in zip(got, want, strict=True)
                )
    out: dict[str, Any] = {
        "new_events": repeats * steps * batch,
        "max_score_difference": apart,
        "lists_in_other_order": reordered,
    }
    for name, taken in seconds.items():
        out[f"{name}_ms"], out[f"{name}_p95_ms"] = (
            round(1000 * float(np.quantile(taken, q)), 3) for q in (0.5, 0.95)
        )
        out[f"{name}_cpu_ms"] = round(1000 * statistics.median(cpu[name]), 3)
    for name in ("update", "refresh"):
        slow, fast = (statistics.median(seconds[f"{way}_{name}"]) for way in ("recomputed", "incremental"))
        out[f"{name}_ratio"] = round(slow / fast, 2)
        slow, fast = (statistics.median(cpu[f"{way}_{name}"]) for way in ("recomputed", "incremental"))
        out[f"{name}_cpu_ratio"] = round(slow / max(fast, 1e-9), 2)
    return out


def _apart(got: "Sequence[Recommendation]", want: "Sequence[Recommendation]") -> float:
    """The largest difference of an item's scores."""
    if not got or not want:
        return 0.0 if len(got) == len(want) else float("inf")
    one, other = ({r.row: r.score for r in ranked} for ranked in (got, want))
    return max(
        abs(one.get(row, got[-1].score) - other.get(row, want[-1].score)) for row in one.keys() | other.keys()
    )
