"""What a training step reads: shards resolved to item rows, and the sampling of batches from them.

Holds users, requests and targets by item row, and nothing of the model. Source: paper, multi-task supervised fine-tuning;
the task mix is config, sampling is our choice.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from sigma_core import columns as c
from sigma_core.data.item_activity import aligned_counts
from sigma_core.instruction.aspects import aspects_of
from sigma_core.instruction.collate import Request, UserContext, encode_contexts
from sigma_core.training.alignment import aligned_users

if TYPE_CHECKING:
    from sigma_core.config import TrainingConfig
    from sigma_core.instruction.shards import SftShard

COMMON_SHARE = 0.2  # of the users; a task that fewer have is rare
MAX_REPEATS = 4


@dataclass(frozen=True)
class TrainingRequest:
    """A request and the item rows that answer it."""

    task: str
    instruction: str
    focus: str
    targets: np.ndarray  # int64 item rows, distinct


@dataclass(frozen=True)
class TrainingUser:
    """A user at one cut, with all requests the shard holds for it."""

    context: UserContext
    requests: tuple[TrainingRequest, ...]
    day: int = 0  # which of the set's days: row of `TrainingSet.counts`


@dataclass
class TrainingSet:
    """What training reads: users with requests over one item table."""

    users: list[TrainingUser]
    dropped_targets: int  # targets whose item the table does not hold
    counts: np.ndarray  # float32 (days, items, A): how much each item was bought by the cut of each day

    @property
    def focus_texts(self) -> list[str]:
        """Distinct texts that requests are about, sorted."""
        asked = {r.focus for u in self.users for r in u.requests}
        return sorted({aspect for focus in asked for aspect in aspects_of(focus)})


def build_training_set(shards: Sequence["SftShard"], item_ids: Sequence[str]) -> TrainingSet:
    """Users and requests of the shards with item ids resolved to rows; requests left without a target are dropped."""
    import json

    from sigma_core.instruction.tasks import TASKS, render

    rows = {item: row for row, item in enumerate(item_ids)}
    users: list[TrainingUser] = []
    dropped = 0
    counts = np.stack([aligned_counts(shard.activity, item_ids) for shard in shards])
    for day, shard in enumerate(shards):
        asked: dict[str, list[TrainingRequest]] = {}
        columns = (c.USER_ID, c.TASK, c.WORDING, c.SLOTS, c.FOCUS_TEXT, c.TARGETS)
        for user, task, wording, slots, focus, targets in shard.examples.select(columns).iter_rows():
            known = [rows[i] for i in targets if i in rows]
            dropped += len(targets) - len(known)
            if known:
                text = render(TASKS[task], wording, json.loads(slots))
                # a user who types freely gives no slot: now and then the whole wording is the focus
                whole = focus and wording % 3 == 2
                asked.setdefault(user, []).append(
                    TrainingRequest(task, text, text if whole else focus, np.asarray(sorted(set(known))))
                )
        users += [
            TrainingUser(context, tuple(asked[context.user_id]), day)
            for context in encode_contexts(shard.contexts, rows)
            if context.user_id in asked
        ]
    return TrainingSet(users, dropped, counts)


@dataclass(frozen=True)
class StepInputs:
    """One batch: users, their requests with leaves, and targets by request and by leaf."""

    users: list[UserContext]
    days: np.ndarray  # of the users: rows of `TrainingSet.counts`
    requests: list[list[Request]]
    target_request: np.ndarray
    target_item: np.ndarray
    target_weight: np.ndarray
    leaf_target_leaf: np.ndarray
    leaf_target_item: np.ndarray


def sample_steps(
    data: TrainingSet, prefixes_NP: np.ndarray, config: "TrainingConfig", steps: int, seed: int
) -> Iterator[StepInputs]:
    """`steps` batches; users in shuffled epochs, a user's requests by task weight, target prefixes by chance.

    With `bucket_steps` above 1, the users of so many steps are cut into batches of like history length, for less padding, and those
    batches come in random order. A task that few users have is practised more often: its users come up to `MAX_REPEATS` times an epoch. `alignment_share` adds
    users without history (`alignment.py`) to each step; at 0 nothing of it runs and no random number is drawn for it.
    """
    rng = np.random.default_rng(seed)
    num_aligned = round(config.alignment_share * config.contexts_per_batch)
    aligned = aligned_users(data.users) if num_aligned else []
    for users in islice(_user_batches(data.users, config, rng), steps):
        if num_aligned and aligned:
            users += [aligned[i] for i in rng.choice(len(aligned), num_aligned)]
        yield _step(users, prefixes_NP, config, rng)


def _user_batches(
    users: Sequence[TrainingUser], config: "TrainingConfig", rng: np.random.Generator
) -> Iterator[list[TrainingUser]]:
    """Batches without end, from shuffled epochs."""
    epoch = np.repeat(np.arange(len(users)), _repeats(users))
    size, many = config.contexts_per_batch, config.bucket_steps
    order: list[int] = []
    while True:
        while len(order) < size * many:
            order.extend(rng.permutation(epoch).tolist())
        chosen, order = [users[i] for i in order[: size * many]], order[size * many :]
        if many == 1:
            yield chosen
            continue
        chosen.sort(key=lambda user: len(user.context.favorite_rows) + len(user.context.recent_rows))
        for batch in rng.permutation(many):
            yield chosen[batch * size : (batch + 1) * size]


def _repeats(users: Sequence[TrainingUser]) -> np.ndarray:
    """How often each user comes in an epoch: as often as the rarest of their tasks needs to reach `COMMON_SHARE`."""
    tasks = [{request.task for request in user.requests} for user in users]
    have = Counter(task for mine in tasks for task in mine)
    needed = {task: round(COMMON_SHARE * len(users) / count) for task, count in have.items()}
    return np.asarray([min(MAX_REPEATS, max(1, *(needed[task] for task in mine))) for mine in tasks])


def _pick(
    requests: Sequence[TrainingRequest], config: "TrainingConfig", rng: np.random.Generator
) -> list[int]:
    size = min(config.branches_per_context, len(requests))
    weight = np.asarray([config.task_weights.get(r.task, 1.0) for r in requests])
    counts: dict[str, int] = {}
    for r in requests:
        counts[r.task] = counts.get(r.task, 0) + 1
    weight = weight / np.asarray([counts[r.task] for r in requests])
    keys = rng.exponential(size=len(requests)) / weight
    return [int(index) for index in np.argsort(keys)[:size]]


def _step(
    users: list[TrainingUser], prefixes_NP: np.ndarray, config: "TrainingConfig", rng: np.random.Generator
) -> StepInputs:
    asked: list[list[Request]] = []
    flat: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    leaf_pairs: list[np.ndarray] = []
    num_requests = num_leaves = 0
    for user in users:
        mine: list[Request] = []
        for index in _pick(user.requests, config, rng):
            request = user.requests[index]
            distinct, inverse = np.unique(prefixes_NP[request.targets], axis=0, return_inverse=True)
            chosen = rng.permutation(len(distinct))[: config.targets_per_branch]
            mine.append(
                Request(request.instruction, request.focus, tuple(map(tuple, distinct[chosen].tolist())))
            )
            size = len(request.targets)
            flat.append((np.full(size, num_requests), request.targets, np.full(size, size**-0.5)))
            for leaf, prefix in enumerate(chosen):
                items = request.targets[inverse.reshape(-1) == prefix]
                leaf_pairs.append(np.stack((np.full(len(items), num_leaves + leaf), items)))
            num_requests += 1
            num_leaves += len(chosen)
        asked.append(mine)
    request_of, item_of, weight = (np.concatenate(parts) for parts in zip(*flat, strict=True))
    pairs = np.concatenate(leaf_pairs, axis=1)
    days = np.asarray([u.day for u in users], dtype=np.int64)
    contexts = [u.context for u in users]
    return StepInputs(contexts, days, asked, request_of, item_of, weight, pairs[0], pairs[1])
