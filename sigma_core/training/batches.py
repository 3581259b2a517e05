"""What a training step reads: shards resolved to item rows, and the sampling of batches from them.

Holds users, requests and targets by item row, and nothing of the model. Source: paper, multi-task supervised fine-tuning;
the task mix is config, sampling is our choice.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sigma_core import columns as c
from sigma_core.data.item_activity import aligned_counts
from sigma_core.grounding.cross_fitting import EVERYONE, FoldedIds
from sigma_core.instruction.aspects import aspects_of
from sigma_core.instruction.collate import Request, UserContext, encode_contexts
from sigma_core.training.alignment import aligned_users

if TYPE_CHECKING:
    from sigma_core.config import TrainingConfig
    from sigma_core.instruction.shards import SftShard

COMMON_SHARE = 0.2  # of the users; a task that fewer have is rare
MAX_REPEATS = 4
LengthOf = Callable[[UserContext, Sequence[Request]], int]


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
    fold: int = EVERYONE  # whose v_ID it trains on: that of all users outside this fold


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


def build_training_set(
    shards: Sequence["SftShard"], item_ids: Sequence[str], folded: FoldedIds | None = None
) -> TrainingSet:
    """Users and requests of the shards with item ids resolved to rows; requests left without a target are dropped.

    With `folded`, users of cuts that v_ID has looked past get their fold.
    """
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
        cut = shard.contexts[c.CUT_DATE].min()  # one shard is one cut
        for context in encode_contexts(shard.contexts, rows):
            if context.user_id in asked:
                fold = EVERYONE
                if folded is not None and isinstance(cut, date):
                    fold = folded.out_of_fold.fold(context.user_id, cut)
                users.append(TrainingUser(context, tuple(asked[context.user_id]), day, fold))
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
    fold: int = EVERYONE  # of all its users


def sample_steps(
    data: TrainingSet,
    prefixes_NP: np.ndarray,
    config: "TrainingConfig",
    steps: int,
    seed: int,
    length_of: LengthOf | None = None,
) -> Iterator[StepInputs]:
    """`steps` batches; users in shuffled epochs, a user's requests by task weight, target prefixes by chance. The users of a batch
    are of one fold, for they share an item table.

    With `bucket_steps` above 1 and `length_of` (tokens of a user's row), what so many steps drew is cut into batches of like
    length, for less padding; they come in random order. A task that few users have is practised more often: its users come up
    to `MAX_REPEATS` times an epoch. `alignment_share` adds users without history (`alignment.py`) to each step; at 0 nothing of
    it runs and no random number is drawn for it.
    """
    rng = np.random.default_rng(seed)
    num_aligned = round(config.alignment_share * config.contexts_per_batch)
    aligned: dict[int, list[TrainingUser]] = {}
    for user in aligned_users(data.users) if num_aligned else ():
        aligned.setdefault(user.fold, []).append(user)
    drawn = _drawn(data.users, config, rng)
    many = 1 if length_of is None else config.bucket_steps
    left = steps
    while left > 0:
        batches = [[_part(user, prefixes_NP, config, rng) for user in next(drawn)] for _ in range(many)]
        if length_of is not None and many > 1:
            batches = _bucketed(batches, length_of, rng)
        for batch in batches[:left]:
            fold = batch[0].fold
            nobodies = aligned.get(fold, [])
            chosen = [nobodies[i] for i in rng.choice(len(nobodies), num_aligned)] if nobodies else []
            yield _joined(batch + [_part(user, prefixes_NP, config, rng) for user in chosen], fold)
        left -= many


def _drawn(
    users: Sequence[TrainingUser], config: "TrainingConfig", rng: np.random.Generator
) -> Iterator[list[TrainingUser]]:
    """The users of one step after another, without end, from shuffled epochs; a step is ready when enough of a fold have come."""
    epoch = np.repeat(np.arange(len(users)), _repeats(users))
    waiting: dict[int, list[TrainingUser]] = {}
    while True:
        for user in (users[i] for i in rng.permutation(epoch).tolist()):
            mine = waiting.setdefault(user.fold, [])
            mine.append(user)
            if len(mine) == config.contexts_per_batch:
                yield waiting.pop(user.fold)


def _bucketed(
    batches: "list[list[_UserPart]]", length_of: LengthOf, rng: np.random.Generator
) -> "list[list[_UserPart]]":
    """The same parts in as many batches of like length, each of one fold as before, in random order.

    Parts of a batch are shuffled too: the catalogue-wide loss reads its first ones.
    """
    size = len(batches[0])
    parts = sorted(chain(*batches), key=lambda part: (part.fold, length_of(part.context, part.asked)))
    drawn = [parts[n * size : (n + 1) * size] for n in rng.permutation(len(batches))]
    return [[batch[i] for i in rng.permutation(size)] for batch in drawn]


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


class _UserPart(NamedTuple):
    """One user's share of a batch; requests and leaves are numbered from 0."""

    context: UserContext
    day: int
    fold: int
    asked: list[Request]
    targets: list[np.ndarray]  # of each request: item rows
    leaf_items: list[np.ndarray]  # of each leaf, request by request: item rows


def _part(
    user: TrainingUser, prefixes_NP: np.ndarray, config: "TrainingConfig", rng: np.random.Generator
) -> _UserPart:
    part = _UserPart(user.context, user.day, user.fold, [], [], [])
    for index in _pick(user.requests, config, rng):
        request = user.requests[index]
        distinct, inverse = np.unique(prefixes_NP[request.targets], axis=0, return_inverse=True)
        chosen = rng.permutation(len(distinct))[: config.targets_per_branch]
        leaves = tuple(map(tuple, distinct[chosen].tolist()))
        part.asked.append(Request(request.instruction, request.focus, leaves))
        part.targets.append(request.targets)
        part.leaf_items.extend(request.targets[inverse.reshape(-1) == prefix] for prefix in chosen)
    return part


def _joined(parts: Sequence[_UserPart], fold: int) -> StepInputs:
    targets = [items for part in parts for items in part.targets]
    leaves = [items for part in parts for items in part.leaf_items]
    return StepInputs(
        [part.context for part in parts],
        np.asarray([part.day for part in parts], dtype=np.int64),
        [part.asked for part in parts],
        np.repeat(np.arange(len(targets)), [len(items) for items in targets]),
        np.concatenate(targets),
        np.concatenate([np.full(len(items), len(items) ** -0.5) for items in targets]),
        np.repeat(np.arange(len(leaves)), [len(items) for items in leaves]),
        np.concatenate(leaves),
        fold,
    )
