"""Reading a batch when keys and values of some users' histories are there already.

Holds the states of one user's trunk, how much of them still fits a new prompt, and the forward pass over what is new. Where
states are kept and for how long is `serving/session_cache.py`. A kept state is used as far as its tokens are those of the
prompt and no further, so a wrong or old one costs time, never an answer. Source: paper, nearline serving (inference continues
from cached KV states).

Shape legend: B users, L positions of the whole rows, N positions that are read now, P kept positions, G layers, T tokens of a
trunk, H heads, W width of a head, S statistics, R requests, D hidden.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from sigma_core.model.decoder import KeyValues
from sigma_core.model.sigma import TensorBatch

if TYPE_CHECKING:
    from sigma_core.instruction.collate import TreeBatch
    from sigma_core.model.sigma import SigmaModel

_BOTH = ("keys", "values")
_KINDS = (
    "word",
    "special",
    "prefix",
    "item",
    "role",
)  # what a trunk token is; with its statistics, all it is


class TrunkStates(NamedTuple):
    """Keys and values of a user's trunk, and the tokens they were made from."""

    tokens_TK: np.ndarray  # int32, a column for each of word, special, prefix, item, role
    stats_TS: np.ndarray  # float32
    keys_GHTW: np.ndarray  # float32
    values_GHTW: np.ndarray  # float32

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return sum(part.nbytes for part in self)

    def fits(self, tokens_TK: np.ndarray, stats_TS: np.ndarray) -> int:
        """How many of its first tokens are the first ones of another trunk."""
        size = min(len(tokens_TK), len(self.tokens_TK))
        same = (self.tokens_TK[:size] == tokens_TK[:size]).all(axis=1)
        same &= (self.stats_TS[:size] == stats_TS[:size]).all(axis=1)
        return size if same.all() else int(same.argmin())


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


def read_continued(
    model: "SigmaModel",
    batch: TensorBatch,
    user_ids: Sequence[str],
    items_NE: Tensor,
    lexical_VW: Tensor,
    store: StatesStore,
) -> ReadStates:
    """Reads a batch, continuing from what `store` has of its users, and leaves their new trunk states there.

    The same as `SigmaModel.read` up to rounding. A user without a name, or without any history item, is read whole and
    not kept.
    """
    tree = batch.tree
    trunk_B = ((tree.branch_BL == 0) & tree.valid_BL).sum(axis=1)
    told = [_trunk(tree, row, size) for row, size in enumerate(trunk_B)]
    kept: list[TrunkStates | None] = [store.get(user) if user else None for user in user_ids]
    kept_B = np.array(
        [0 if one is None else one.fits(*mine) for one, mine in zip(kept, told, strict=True)], dtype=np.int64
    )
    new_BN, is_new_BN = _new_positions(tree.valid_BL, kept_B)
    cache, mask = _past(model, kept, kept_B, batch.device), _mask(tree, new_BN, is_new_BN, kept_B)
    part = TensorBatch(_at(tree, new_BN, is_new_BN), batch.focus_FT, batch.device)
    states_BND = model.backbone(
        inputs_embeds=model.embed(part, items_NE, lexical_VW),
        attention_mask=torch.as_tensor(mask, device=batch.device),
        position_ids=part.position_BL,
        past_key_values=cache,
        use_cache=True,
    ).last_hidden_state
    place = np.zeros(tree.valid_BL.shape, dtype=np.int64)  # of each position of a row among those read now
    row_X, slot_X = (
        is_new_BN.nonzero()
    )  # padding stands at the row's end and must not take a real token's place
    place[row_X, new_BN[row_X, slot_X]] = slot_X
    user, start = tree.request_user_R, tree.request_start_R
    start_RD = states_BND[batch.request_user_R, torch.as_tensor(place[user, start], device=batch.device)]
    past = int(kept_B.max())
    for row, (user_id, mine) in enumerate(zip(user_ids, told, strict=True)):
        if user_id and kept_B[row] < trunk_B[row] and (tree.item_BL[row] >= 0).any():
            states = (_cut(cache, row, int(kept_B[row]), past, int(trunk_B[row]), name) for name in _BOTH)
            store.put(user_id, TrunkStates(*mine, *states))
    whole = partial(_whole, cache, kept_B, place, batch.device)
    return ReadStates(start_RD, whole, trunk_B, kept_B)


def _trunk(tree: "TreeBatch", row: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    columns = [getattr(tree, f"{kind}_BL")[row, :size] for kind in _KINDS]
    return np.stack(columns, axis=1).astype(np.int32), tree.stats_BLS[row, :size].copy()


def _new_positions(valid_BL: np.ndarray, kept_B: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positions (B, N) to be read, padded with the rows' last ones, and which are no padding."""
    length_B = valid_BL.sum(axis=1)
    width = int((length_B - kept_B).max())
    at = kept_B[:, None] + np.arange(width)
    is_new = at < length_B[:, None]
    return np.minimum(at, valid_BL.shape[1] - 1), is_new


def _at(tree: "TreeBatch", new_BN: np.ndarray, is_new_BN: np.ndarray) -> "TreeBatch":
    """The token columns of a tree at some positions; the rest of it as it is."""
    columns: dict[str, Any] = {}
    for kind in (*_KINDS, "focus"):
        column = np.take_along_axis(getattr(tree, f"{kind}_BL"), new_BN, axis=1)
        columns[f"{kind}_BL"] = np.where(is_new_BN, column, -1)
    columns["position_BL"] = np.take_along_axis(tree.position_BL, new_BN, axis=1)
    stats = np.take_along_axis(tree.stats_BLS, new_BN[..., None], axis=1)
    return replace(tree, **columns, stats_BLS=stats)


def _mask(tree: "TreeBatch", new_BN: np.ndarray, is_new_BN: np.ndarray, kept_B: np.ndarray) -> np.ndarray:
    """Additive mask (B, 1, N, P + N): kept trunk, then what `tree_mask` allows among new tokens."""
    branch = np.take_along_axis(tree.branch_BL, new_BN, axis=1)
    leaf = np.take_along_axis(tree.leaf_BL, new_BN, axis=1)
    same_leaf = (leaf[:, None] == 0) | (leaf[:, None] == leaf[:, :, None])
    visible = (branch[:, None] == 0) | ((branch[:, None] == branch[:, :, None]) & same_leaf)
    width = new_BN.shape[1]
    visible &= np.tri(width, dtype=bool) & is_new_BN[:, None]
    visible |= np.eye(width, dtype=bool)  # padding sees itself: no NaN
    past = np.arange(int(kept_B.max())) < kept_B[:, None]
    past = np.broadcast_to(past[:, None], (*new_BN.shape, past.shape[1]))
    out = np.where(np.concatenate((past, visible), axis=2), 0.0, np.finfo(np.float32).min)
    return out.astype(np.float32)[:, None]


def _past(
    model: "SigmaModel", kept: Sequence[TrunkStates | None], kept_B: np.ndarray, device: torch.device
) -> Any:
    """A DynamicCache of the kept states, padded on the right; empty when nothing fits."""
    from transformers import DynamicCache

    cache = DynamicCache(config=model.backbone.config)
    width = int(kept_B.max())
    first = next((one for one in kept if one is not None), None)
    if not width or first is None:
        return cache
    layers, heads, _, size = first.keys_GHTW.shape
    both = np.zeros((2, layers, len(kept), heads, width, size), dtype=np.float32)
    for row, (one, fits) in enumerate(zip(kept, kept_B, strict=True)):
        if one is not None and fits:
            both[0, :, row, :, :fits] = one.keys_GHTW[:, :, :fits]
            both[1, :, row, :, :fits] = one.values_GHTW[:, :, :fits]
    keys, values = torch.as_tensor(both, device=device)
    for layer in range(layers):
        cache.update(keys[layer], values[layer], layer)
    return cache


def _whole(cache: Any, kept_B: np.ndarray, place: np.ndarray, device: torch.device) -> tuple[KeyValues, ...]:
    """Kept and new keys and values with every token at its own position of the row."""
    position = np.arange(place.shape[1])
    at = np.where(position < kept_B[:, None], position, int(kept_B.max()) + place)
    index = torch.as_tensor(at, device=device)[:, None, :, None]
    out = []
    for layer in cache.layers:
        where = index.expand(-1, layer.keys.shape[1], -1, layer.keys.shape[3])
        out.append(KeyValues(layer.keys.gather(2, where), layer.values.gather(2, where)))
    return tuple(out)


def _cut(cache: Any, row: int, kept: int, past: int, size: int, name: str) -> np.ndarray:
    """Keys or values (G, H, size, W) of a row's trunk: its kept ones, then those read behind the padded past."""
    parts = [getattr(layer, name)[row].detach().float().cpu().numpy() for layer in cache.layers]
    out = np.empty((len(parts), len(parts[0]), size, parts[0].shape[2]), dtype=np.float32)
    for layer, part in zip(out, parts, strict=True):
        layer[:, :kept] = part[:, :kept]
        layer[:, kept:] = part[:, past : past + size - kept]
    return out
