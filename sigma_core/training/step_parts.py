"""What the pieces of a training step hand to each other: the items' streams, the batch as read, its starts, its leaves.

Value objects and two small functions, no model and no sampling; `sft.Trainer` fills them, `dense.py` reads the batch. Our choice.

Shape legend: B users, L positions, D hidden, J history items, R requests, M leaves, P prefix length, K codes, T targets.
"""

from typing import TYPE_CHECKING, NamedTuple

from sigma_core.grounding.cross_fitting import EVERYONE

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from sigma_core.model.fusion import ItemStreams
    from sigma_core.model.heads import Focus, ItemTensors, Memory, Slots
    from sigma_core.model.losses import Copied
    from sigma_core.model.sigma import TensorBatch
    from sigma_core.tokenization.item_features import ItemFeatures


class ReadStep(NamedTuple):
    """A batch and what the backbone made of it."""

    batch: "TensorBatch"
    items: "ItemTensors"
    states_BLD: "Tensor"
    memory: "Memory"
    day_B: "Tensor"  # of each user: set of item statistics


class Starts(NamedTuple):
    """Level 0 of the prefix at each request's <|start|>."""

    state_RD: "Tensor"
    log_prob_RK: "Tensor"
    copied_RJ: "Tensor"
    generated_RK: "Tensor"


class Leaves(NamedTuple):
    """Each leaf's prefix and how it came about."""

    user_M: "Tensor"
    slots: "Slots"
    path_MP: "Tensor"
    focus: "Focus | None"
    log_prob_M: "Tensor"  # of the last level given those before
    copied_MJ: "Tensor"
    generated_M: "Tensor"


def copied_shares(memory: "Memory", leaves: Leaves, leaf_T: "Tensor", item_T: "Tensor") -> "Copied":
    """What the pointer leaves of each leaf's prefix, and its share of each target item."""
    from sigma_core.model.losses import Copied

    whole_M = leaves.log_prob_M.exp()
    share_MJ = leaves.copied_MJ / whole_M[:, None]
    inside = (memory.prefix_BJP[leaves.user_M] == leaves.path_MP[:, None]).all(dim=-1)
    same = memory.row_BJ[leaves.user_M][leaf_T] == item_T[:, None]
    return Copied(leaves.generated_M / whole_M, (share_MJ[leaf_T] * (same & inside[leaf_T])).sum(dim=1))


def fold_streams(features: "ItemFeatures", device: "torch.device") -> "dict[int, ItemStreams]":
    """The fusion's inputs by fold of users: those of `EVERYONE`, and v_ID without each fold where it is cross-fitted."""
    import torch

    from sigma_core.model.sigma import item_streams

    out = {EVERYONE: item_streams(features, device)}
    if features.folded is not None:
        for fold in range(features.folded.out_of_fold.folds):
            vectors, known = (torch.as_tensor(part, device=device) for part in features.folded.of(fold))
            out[fold] = out[EVERYONE]._replace(id_NI=vectors, has_id_N=known)
    return out
