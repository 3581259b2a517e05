"""`sigma benchmark generation`: requests a second of three-step generation against constrained beam search over four codes.

Same network, same items, same users, same length of the final list. Sides: ours; peers (`transformers.generate` with
`prefix_allowed_tokens_fn`); our own best four-token beam, on its own prompts (four codes an item) and on prompts as short as ours;
the floor, our prompt read once in the cheapest way we know; and the same pass as transformers makes it, with all states of the last
layer. Recall is measured on a trained root. Our choice.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sigma_core.benchmarks.timing import Clock, Timing, alternate
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from sigma_core.benchmarks.generation_world import GenerationWorld
    from sigma_core.instruction.collate import UserContext
    from sigma_core.serving.runtime import LoadedRecommender

OURS, PEERS, OWN_BEAM, OWN_BEAM_SHORT, FLOOR = "ours", "peers", "own_beam", "own_beam_short", "floor"
READ_BY_TRANSFORMERS: Final = "transformers_read"
TOP_N: Final = 20
PEER_ROUNDS: Final = 3  # the slow side is called this often at most
HEADLINE_BATCH: Final = 64
SIDES: Final = 6


@dataclass(frozen=True)
class GenerationSettings:
    """What is measured. Sizes of catalogs and batches, prefixes searched, history items, timed calls a side, threads, clock."""

    catalogs: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    batches: tuple[int, ...] = (1, 64)
    prefixes: tuple[int, ...] = (20, 64)
    history: int = 50
    rounds: int = 15
    threads: int = 2
    clock: Clock = "wall"
    backbone: str = "mini"
    peer_rows: int = 1280
    seed: int = 17


def run_generation(settings: GenerationSettings, progress: Progress = no_progress) -> dict[str, Any]:
    """Measures every combination; `rows` holds one dict a combination and side, the ratios are of the largest catalog.

    Ratios: requests a second of ours over the peers' (`ratio_batch_1`, `ratio_batch_64`) and over our own four-token beam's,
    seconds of ours over the floor's (and over `transformers_read`); each at the first K, and with `_k<K>` behind the key for the
    others.
    """
    import torch

    from sigma_core.benchmarks.four_token_beam import OwnFourTokenBeam, PeerBeam, causal_network
    from sigma_core.benchmarks.generation_world import generation_world

    torch.set_num_threads(settings.threads)
    network = causal_network(settings.backbone, settings.seed)
    rows: list[dict[str, Any]] = []
    total = len(settings.catalogs) * len(settings.batches) * len(settings.prefixes)
    for items in settings.catalogs:
        world = generation_world(
            items, settings.history, max(settings.batches), backbone=settings.backbone, seed=settings.seed
        )
        peers = PeerBeam(network, world.codes_N4, settings.peer_rows)
        own = OwnFourTokenBeam(network, world.codes_N4)
        for batch in settings.batches:
            for width in settings.prefixes:
                progress(len(rows) // SIDES, total, f"{items} items, batch {batch}, K {width}")
                sides = _sides(world, peers, own, batch, width)
                timings = alternate(sides, settings.rounds, settings.clock, {PEERS: PEER_ROUNDS})
                rows += [_row(items, batch, width, side, timing) for side, timing in timings.items()]
    return {"rows": rows, **ratios(rows, settings.prefixes), "settings": asdict(settings)}


def _sides(
    world: "GenerationWorld", peers: Any, own: Any, batch: int, width: int
) -> dict[str, Callable[[], Any]]:
    import torch

    from sigma_core.benchmarks.four_token_beam import four_token_prompts
    from sigma_core.benchmarks.generation_world import INSTRUCTION, TEXT_DIM
    from sigma_core.generation.recommender import Ask
    from sigma_core.instruction.collate import Request
    from sigma_core.model.decoder import is_known
    from sigma_core.model.sigma import TensorBatch

    recommender, users = world.recommender, world.users[:batch]
    recommender.config = recommender.config.model_copy(update={"num_prefixes": width})
    asks = [[Ask(Request(INSTRUCTION))] for _ in users]
    tree = recommender.collator(users, [[ask.request for ask in mine] for mine in asks])
    prompt = TensorBatch(tree, torch.zeros(0, TEXT_DIM), torch.device("cpu"))
    spelled = four_token_prompts(users, world.codes_N4, world.words)
    short = four_token_prompts(users, world.codes_N4, world.words, codes_per_item=2)

    model, vectors = recommender.model, recommender.items.tensors.vectors_NE
    cheapest = model.read_starts if is_known(model.backbone) else model.read

    def reading(read: Callable[..., Any]) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return read(prompt, vectors, recommender.lexical)

        return run

    return {
        OURS: lambda: recommender.rank(users, asks, {}, TOP_N),
        FLOOR: reading(cheapest),
        READ_BY_TRANSFORMERS: reading(model.read),
        OWN_BEAM: lambda: own.rank(spelled, width, TOP_N),
        OWN_BEAM_SHORT: lambda: own.rank(short, width, TOP_N),
        PEERS: lambda: peers.rank(spelled, width, TOP_N),
    }


def _row(items: int, batch: int, width: int, side: str, timing: Timing) -> dict[str, Any]:
    return {
        "items": items,
        "batch": batch,
        "prefixes": width,
        "side": side,
        "requests_per_second": batch / timing.p50,
        "p50_ms": 1e3 * timing.p50,
        "p95_ms": 1e3 * timing.p95,
        "added_mib": timing.added_mib,
        "calls": len(timing.seconds),
    }


def ratios(rows: Sequence[dict[str, Any]], prefixes: Sequence[int]) -> dict[str, float]:
    """The headline ratios of the largest catalog. Keys exist for what was measured."""
    largest = max(row["items"] for row in rows)
    p50 = {
        (row["batch"], row["prefixes"], row["side"]): row["p50_ms"] for row in rows if row["items"] == largest
    }
    out = {}
    for batch in sorted({row["batch"] for row in rows}):
        for width in prefixes:
            ours = p50[batch, width, OURS]
            end = f"batch_{batch}" + ("" if width == prefixes[0] else f"_k{width}")
            out[f"ratio_{end}"] = p50[batch, width, PEERS] / ours
            out[f"ratio_own_beam_{end}"] = p50[batch, width, OWN_BEAM] / ours
            out[f"ratio_own_beam_short_{end}"] = p50[batch, width, OWN_BEAM_SHORT] / ours
            out[f"over_floor_{end}"] = ours / p50[batch, width, FLOOR]
            out[f"over_{READ_BY_TRANSFORMERS}_{end}"] = ours / p50[batch, width, READ_BY_TRANSFORMERS]
    return out


def recall_by_prefixes(
    root: Path, prefixes: Sequence[int], users: int = 300, days: int = 7
) -> list[dict[str, Any]]:
    """Recall@20 and the share of the exhaustive list found, by K, on the latest day of a trained root.

    A user's targets are the distinct items bought in the `days` after the day; users without one are left out.

    Raises:
        RequestError: the root holds no trained day, or no purchase after it.
    """
    from sigma_core.generation.explain import with_settings
    from sigma_core.generation.recommender import Ask
    from sigma_core.instruction.collate import Request
    from sigma_core.serving.runtime import load_recommender

    loaded = load_recommender(root, device="cpu")  # clocks here know nothing of a GPU's queue
    targets = next_purchases(root, loaded.day, days, loaded.engine.rows)
    people = people_with_targets(root, loaded, targets, users)
    text = just_for_you()
    asks = [[Ask(Request(text))] for _ in people]
    groups = len(loaded.engine.recommender.ranges.length_Q)
    found = {}
    for width in sorted({*prefixes, groups}):
        recommender = with_settings(loaded.engine.recommender, num_prefixes=width)
        found[width] = [
            {r.row for r in ranked}
            for start in range(0, len(people), 32)
            for ranked in recommender.rank(people[start : start + 32], asks[start : start + 32], {}, TOP_N)
        ]
    out = []
    for width, lists in found.items():
        hits = sum(len(rows & targets[u.user_id]) for u, rows in zip(people, lists, strict=True))
        same = [
            len(rows & whole) / max(1, len(whole)) for rows, whole in zip(lists, found[groups], strict=True)
        ]
        out.append(
            {
                "prefixes": width, "exhaustive": width == groups, "recall@20": hits / sum(len(targets[u.user_id]) for u in people),
                "of_exhaustive_list": float(np.mean(same)), "users": len(people),
            }
        )  # fmt: skip
    return out


def people_with_targets(
    root: Path, loaded: "LoadedRecommender", targets: Mapping[str, set[int]], users: int
) -> "list[UserContext]":
    """At most so many of the day's users that have a target, evenly chosen.

    Raises:
        RequestError: nobody has one.
    """
    from sigma_core import columns as c
    from sigma_core.serving.runtime import RequestError

    known = loaded.engine.contexts(loaded.lists.contexts.sort(c.USER_ID))
    people = [user for user in known if user.user_id in targets]
    if not people:
        raise RequestError(
            f"{root} holds no purchase of a known user after {loaded.day}; run `sigma evaluate --as-of {loaded.day} "
            f"--root {root}`, which reads the days after."
        )
    return people[:: max(1, len(people) // users)][:users]


def next_purchases(root: Path, day: date, days: int, rows: dict[str, int]) -> dict[str, set[int]]:
    """Distinct index rows that each user took in the `days` after the day (a view takes nothing); users without one are missing."""
    from sigma_core import columns as c
    from sigma_core.artifacts import ArtifactStore
    from sigma_core.data.events import InteractionEvents, positive_events

    store = ArtifactStore(root)
    out: dict[str, set[int]] = {}
    for partition in days_after(root, day, days):
        frame = store.read(InteractionEvents, "interaction_events", partition).frame
        for user, item in positive_events(frame).select(c.USER_ID, c.ITEM_ID).iter_rows():
            if item in rows:
                out.setdefault(user, set()).add(rows[item])
    return out


def days_after(root: Path, day: date, days: int) -> list[str]:
    """Those of the `days` after the day whose events the root holds."""
    from sigma_core.artifacts import ArtifactStore

    known = set(ArtifactStore(root).partitions("interaction_events"))
    wanted = [(day + timedelta(days=after)).isoformat() for after in range(1, days + 1)]
    return [partition for partition in wanted if partition in known]


def recall_data(root: Path, days: int = 7) -> dict[str, str]:
    """Digests of what `recall_by_prefixes` reads."""
    from sigma_core.artifacts import ArtifactStore
    from sigma_core.benchmarks.record import answering_digests, artifact_digests
    from sigma_core.serving.runtime import pick_day

    day = pick_day(ArtifactStore(root), None)
    after = days_after(root, date.fromisoformat(day), days)
    return answering_digests(root, day) | artifact_digests(root, {"interaction_events": after})


def just_for_you() -> str:
    """The first wording of the general task."""
    from sigma_core.instruction.tasks import TASKS, render

    return str(render(TASKS["just_for_you"], 0, {}))
