"""Reading a batch when keys and values of some users' histories are there already.

Holds the states of one user's trunk, how much of them still fits a new prompt, and the forward pass over what is new. Where
states are kept and for how long is `serving/session_cache.py`. A kept state is used as far as its tokens are those of the
prompt and no further, so a wrong or old one costs time, never an answer. A trunk grows at its end in memory of its own, so
that a new event copies its own keys and not the whole history's. Source: paper, nearline serving (inference continues from
cached KV states).

Shape legend: B users, L positions of the whole rows, X new tokens of all users in a row, N of one user, P kept positions,
G layers, T tokens of a trunk, C room for tokens, H heads, W width of a head, S statistics, R requests, D hidden.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sigma_core.model.decoder import TOKENS_AT_A_TIME, KeyValues, Onward, read_onwards
from sigma_core.model.sigma import TensorBatch

if TYPE_CHECKING:
    from sigma_core.instruction.collate import TreeBatch
    from sigma_core.model.sigma import SigmaModel

_KINDS = (
    "word",
    "special",
    "prefix",
    "item",
    "role",
)  # what a trunk token is; with its statistics, all it is
_ROUNDED = 32  # rooms are for a multiple of so many tokens


class Room:
    """Memory for keys and values (2, G, H, C, W) of one trunk. What was published of it is never written again.

    One reading at a time may write behind that, which `claim` decides; everybody else makes a room of their own.
    """

    def __init__(self, layers: int, heads: int, tokens: int, width: int) -> None:
        """Room for `tokens` and a few more, claimed by whoever makes it."""
        tokens += -tokens % _ROUNDED
        with torch.inference_mode(False):  # else it could not be written outside of inference
            self.both = torch.empty(2, layers, heads, tokens, width)
        self.used = 0
        self._writing = threading.Lock()
        self._writing.acquire()

    def claim(self, used: int, tokens: int) -> bool:
        """Whether the caller may write from position `used` up to `tokens`: nobody has, nobody does, and there is room."""
        if tokens > self.both.shape[3] or not self._writing.acquire(blocking=False):
            return False
        if self.used != used:
            self._writing.release()
            return False
        return True

    def release(self) -> None:
        """Let others write."""
        self._writing.release()


class TrunkStates(NamedTuple):
    """Keys and values of a user's trunk, and the tokens they were made from."""

    tokens_TK: np.ndarray  # int32, a column for each of word, special, prefix, item, role
    stats_TS: np.ndarray  # float32
    keys_GHTW: np.ndarray  # float32
    values_GHTW: np.ndarray  # float32
    room: Room | None = None  # where keys and values lie, when they can grow in place

    def arrays(self) -> dict[str, np.ndarray]:
        """What is written to disk: all but spare room, each in one piece."""
        return {name: np.ascontiguousarray(value) for name, value in self._asdict().items() if name != "room"}

    @property
    def nbytes(self) -> int:
        """Memory it takes, spare room included."""
        kept = self.keys_GHTW.nbytes + self.values_GHTW.nbytes
        return self.tokens_TK.nbytes + self.stats_TS.nbytes + (self.room.both.nbytes if self.room else kept)

    def fits(self, tokens_TK: np.ndarray, stats_TS: np.ndarray) -> int:
        """How many of its first tokens are the first ones of another trunk."""
        size = min(len(tokens_TK), len(self.tokens_TK))
        mine, other = (self.tokens_TK[:size], self.stats_TS[:size]), (tokens_TK[:size], stats_TS[:size])
        if all(np.array_equal(a, b) for a, b in zip(mine, other, strict=True)):
            return size
        same = (mine[0] == other[0]).all(axis=1) & (mine[1] == other[1]).all(axis=1)
        return int(same.argmin())


class StatesStore(Protocol):
    """Where states of users are kept."""

    def get(self, user_id: str) -> TrunkStates | None:
        """What is kept of the user."""

    def put(self, user_id: str, states: TrunkStates) -> None:
        """Keep it, in place of what was there."""


@dataclass(frozen=True)
class ReadStates:
    """What a batch's reading left.

    Attributes:
        start_RD: states at each request's <|start|>.
        layers: makes keys and values of all positions of the rows, layer by layer; only generation needs them.
        tokens_B: trunk tokens of each user.
        kept_B: how many of them came from kept states.
    """

    start_RD: Tensor
    layers: Callable[[], tuple[KeyValues, ...]]
    tokens_B: np.ndarray
    kept_B: np.ndarray


@torch.no_grad()
def read_continued(
    model: "SigmaModel",
    batch: TensorBatch,
    user_ids: Sequence[str],
    items_NE: Tensor,
    lexical_VW: Tensor,
    store: StatesStore,
) -> ReadStates:
    """Reads a batch, continuing from what `store` has of its users, and leaves their new trunk states there.

    The same as `SigmaModel.read_starts` up to rounding, and like it for a backbone that `decoder.is_known`. A user without a
    name, or without any history item, is read whole and not kept.
    """
    tree = batch.tree
    length_B = tree.valid_BL.sum(axis=1)
    trunk_B = ((tree.branch_BL == 0) & tree.valid_BL).sum(axis=1)
    tokens_BLK = np.stack([getattr(tree, f"{kind}_BL") for kind in _KINDS], axis=2).astype(np.int32)
    told = [(tokens_BLK[row, :size], tree.stats_BLS[row, :size]) for row, size in enumerate(trunk_B)]
    kept: list[TrunkStates | None] = [store.get(user) if user else None for user in user_ids]
    kept_B = np.array(
        [0 if one is None else one.fits(*mine) for one, mine in zip(kept, told, strict=True)], dtype=np.int64
    )
    rooms = [_room(model, *one) for one in zip(kept, kept_B.tolist(), length_B.tolist(), strict=True)]
    try:
        start_RD, fresh = _read(model, batch, rooms, kept_B, length_B, items_NE, lexical_VW)
        has_items_B = np.asarray((tree.item_BL >= 0).any(axis=1))
        for row, (user_id, mine) in enumerate(zip(user_ids, told, strict=True)):
            if user_id and kept_B[row] < trunk_B[row] and has_items_B[row]:
                store.put(user_id, _published(rooms[row], int(trunk_B[row]), *mine))
    finally:
        for room in rooms:
            room.release()
    whole = partial(_whole, rooms, fresh, kept_B, length_B, batch.device)
    return ReadStates(start_RD, whole, trunk_B, kept_B)


def _read(
    model: "SigmaModel",
    batch: TensorBatch,
    rooms: Sequence[Room],
    kept_B: np.ndarray,
    length_B: np.ndarray,
    items_NE: Tensor,
    lexical_VW: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """States (R, D) at each request's <|start|>, and keys and values (2, G, H, N, W) of each user's new tokens."""
    tree, new_B = batch.tree, length_B - kept_B
    first_B = np.concatenate(([0], np.cumsum(new_B)))
    row_X = np.repeat(np.arange(len(new_B)), new_B)
    column_X = np.arange(len(row_X)) - np.repeat(first_B[:-1] - kept_B, new_B)
    part = TensorBatch(_at(tree, row_X, column_X), batch.focus_FT, batch.device)
    embeds_XD = model.embed(part, items_NE, lexical_VW)[0]
    position_X = part.position_BL[0]
    users = [
        Onward(
            room.both,
            kept,
            new,
            _mask(tree, row, kept, new).to(batch.device),
            torch.as_tensor(tree.request_start_R[tree.request_user_R == row] - kept, device=batch.device),
        )
        for row, (room, kept, new) in enumerate(zip(rooms, kept_B.tolist(), new_B.tolist(), strict=True))
    ]
    states: list[Tensor] = []
    fresh: list[Tensor] = []
    for some in _groups(first_B):
        tokens = slice(first_B[some.start], first_B[some.stop])
        state_RD, both = read_onwards(model.backbone, embeds_XD[tokens], position_X[tokens], users[some])
        states.append(state_RD)
        fresh += both.split(new_B[some].tolist(), dim=3)
    return torch.cat(states), fresh


def _groups(first_B: np.ndarray) -> Iterator[slice]:
    """Users in groups of at most `TOKENS_AT_A_TIME` new tokens (one user at least)."""
    start = 0
    for user, (_, end) in enumerate(pairwise(first_B.tolist())):
        if user > start and end - first_B[start] > TOKENS_AT_A_TIME:
            yield slice(start, user)
            start = user
    yield slice(start, len(first_B) - 1)


def _room(model: "SigmaModel", kept: TrunkStates | None, fits: int, length: int) -> Room:
    """A claimed room for `length` tokens whose first `fits` are there: the user's own when it may grow, else a new one."""
    own = kept.room if kept is not None and fits == len(kept.tokens_TK) else None
    if own is not None and own.claim(fits, length):
        return own
    shape = model.backbone.config
    heads = shape.num_key_value_heads
    width = getattr(shape, "head_dim", None) or shape.hidden_size // shape.num_attention_heads
    room = Room(shape.num_hidden_layers, heads, length, width)
    if kept is not None and fits:
        room.both[0, :, :, :fits] = torch.from_numpy(kept.keys_GHTW[:, :, :fits])
        room.both[1, :, :, :fits] = torch.from_numpy(kept.values_GHTW[:, :, :fits])
    return room


def _published(room: Room, size: int, tokens_TK: np.ndarray, stats_TS: np.ndarray) -> TrunkStates:
    """States of the first `size` tokens of a room, which stay as they are from now on."""
    room.used = size
    keys, values = room.both[:, :, :, :size].numpy()
    return TrunkStates(tokens_TK.copy(), stats_TS.copy(), keys, values, room)


def _at(tree: "TreeBatch", row_X: np.ndarray, column_X: np.ndarray) -> "TreeBatch":
    """The token columns of a tree at some positions, as one row; the rest of it as it is."""
    names = [f"{kind}_BL" for kind in (*_KINDS, "focus", "position")]
    columns: dict[str, Any] = {name: getattr(tree, name)[row_X, column_X][None] for name in names}
    return replace(tree, **columns, stats_BLS=tree.stats_BLS[row_X, column_X][None])


def _mask(tree: "TreeBatch", row: int, kept: int, new: int) -> Tensor:
    """Additive mask (N, N) of what a user's new tokens see of each other: as `tree_mask`."""
    branch = tree.branch_BL[row, kept : kept + new]
    if branch[-1] <= 1 and not tree.leaf_BL[row, kept : kept + new].any():
        return _causal(new)
    leaf = tree.leaf_BL[row, kept : kept + new]
    same_leaf = (leaf == 0) | (leaf == leaf[:, None])
    visible = (branch == 0) | ((branch == branch[:, None]) & same_leaf)
    out = np.where(visible & np.tri(new, dtype=bool), 0.0, np.finfo(np.float32).min)
    return torch.from_numpy(out.astype(np.float32))


@lru_cache(maxsize=256)
def _causal(size: int) -> Tensor:
    lowest = torch.finfo(torch.float32).min
    return torch.zeros(size, size).masked_fill_(torch.ones(size, size, dtype=torch.bool).triu(1), lowest)


def _whole(
    rooms: Sequence[Room],
    fresh: Sequence[Tensor],
    kept_B: np.ndarray,
    length_B: np.ndarray,
    device: torch.device,
) -> tuple[KeyValues, ...]:
    """Keys and values of whole rows, padded with zeros: what was published from where it lies, the rest as it was read."""
    _, layers, heads, _, width = rooms[0].both.shape
    out = torch.zeros(2, layers, len(rooms), heads, int(length_B.max()), width, device=device)
    sizes = zip(rooms, fresh, kept_B.tolist(), length_B.tolist(), strict=True)
    for row, (room, new, kept, length) in enumerate(sizes):
        out[:, :, row, :, :kept] = room.both[:, :, :, :kept]
        out[:, :, row, :, kept:length] = new
    return tuple(KeyValues(keys, values) for keys, values in zip(*out, strict=True))
