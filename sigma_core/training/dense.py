"""Dense supervision: every recent purchase in a prompt predicts the *new* ones that are told after it.

The prompt is read anyway, so its history positions cost no token. Two questions are asked of them, with the heads that answer
requests and no parameter of their own:
  * the state at an item's vector: which first codes do the later purchases have? Like the state at <|start|>, without words;
  * the state at an item's prefix tokens, before its vector: its next code, and after the last one which item of the prefix it is.
    Like the state at <q>.

Only purchases that the prompt has not told before are targets. Favourites stand before the recent purchases and hold most of
them, with the days since they were bought: to predict those would be to copy, and a state would learn to read the answer. Later
purchases are a set, as next week's are (items of one basket have no order). Nothing can be copied here: the heads get an
empty memory, for the pointer's memory tells the cut, not the position. What is bought enters as the prior of the cut's day, a sum
over all users. Source: our choice (design decision 4), after next-item training of SASRec.

Shape legend: B users, L positions, X states asked, T targets, P prefix length.
"""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sigma_core.instruction.collate import ROLE_FAVORITE, ROLE_RECENT, TreeBatch

if TYPE_CHECKING:
    from torch import Tensor

    from sigma_core.model.heads import Memory, PrefixScores, Slots
    from sigma_core.training.sft import Trainer
    from sigma_core.training.step_parts import ReadStep


class DenseTargets(NamedTuple):
    """What the positions of a batch are asked.

    Attributes:
        state_X2: user and position of each item token that predicts, int64.
        later_T2: pairs of a row of `state_X2` and an item row that is told later and was not told before.
        weight_T: of each pair; a state weighs by the root of the number of its targets, like a request.
        new_Y2: user and position of the vector of each new item; its prefix tokens stand right before.
        item_Y: item row of each of these.
    """

    state_X2: np.ndarray
    later_T2: np.ndarray
    weight_T: np.ndarray
    new_Y2: np.ndarray
    item_Y: np.ndarray


def dense_targets(tree: TreeBatch) -> DenseTargets:
    """The questions of a batch, read from its tokens alone."""
    states: list[tuple[int, int]] = []
    later: list[tuple[int, int]] = []
    weight: list[float] = []
    new: list[tuple[int, int]] = []
    items: list[int] = []
    for user, (row, role) in enumerate(zip(tree.item_BL, tree.role_BL, strict=True)):
        told = set(row[(row >= 0) & (role == ROLE_FAVORITE)].tolist())
        at = np.flatnonzero((row >= 0) & (role == ROLE_RECENT))
        first_time: list[int] = []  # places in `at` of purchases that nothing before tells
        for place, item in enumerate(row[at].tolist()):
            if item not in told:
                first_time.append(place)
                told.add(item)
        new += [(user, int(at[place])) for place in first_time]
        items += row[at[first_time]].tolist()
        for place, position in enumerate(at.tolist()):
            targets = row[at[[p for p in first_time if p > place]]].tolist()
            if targets:
                later += [(len(states), item) for item in targets]
                weight += [len(targets) ** -0.5] * len(targets)
                states.append((user, position))
    return DenseTargets(
        np.asarray(states, dtype=np.int64).reshape(-1, 2),
        np.asarray(later, dtype=np.int64).reshape(-1, 2),
        np.asarray(weight, dtype=np.float32),
        np.asarray(new, dtype=np.int64).reshape(-1, 2),
        np.asarray(items, dtype=np.int64),
    )


def dense_loss(trainer: "Trainer", step: "ReadStep") -> "Tensor":
    """Mean -log P(first code of a later purchase | position), plus that of a purchase's further codes and of the item within its
    prefix; 0 for a batch that tells no new purchase.
    """
    targets = dense_targets(step.batch.tree)
    if not len(targets.item_Y):
        return step.states_BLD.new_zeros(())
    loss = _within_prefix(trainer, step, targets)
    return loss + _later_prefixes(trainer, step, targets) if len(targets.later_T2) else loss


def _later_prefixes(trainer: "Trainer", step: "ReadStep", targets: DenseTargets) -> "Tensor":
    from sigma_core.model.heads import Slots
    from sigma_core.model.losses import prefix_nll

    user, position = _tensors(trainer, targets.state_X2)
    state_T, item_T = _tensors(trainer, targets.later_T2)
    slots = Slots(user, len(step.states_BLD))
    scores = _scores(trainer, step, slots, step.states_BLD[user, position], 0)
    (weight_T,) = _tensors(trainer, targets.weight_T[:, None])
    return prefix_nll(slots.flat(scores.log_prob_BQK), state_T, trainer.prefixes[item_T, 0], weight_T)


def _within_prefix(trainer: "Trainer", step: "ReadStep", targets: DenseTargets) -> "Tensor":
    import torch

    from sigma_core.model.heads import Slots
    from sigma_core.model.losses import in_prefix_info_nce, prefix_nll

    user, position = _tensors(trainer, targets.new_Y2)
    (item,) = _tensors(trainer, targets.item_Y[:, None])
    path_YP = trainer.prefixes[item]
    length, every = path_YP.shape[1], torch.arange(len(item), device=item.device)
    slots = Slots(user, len(step.states_BLD))
    path = slots.pad(path_YP)
    loss = step.states_BLD.new_zeros(())
    for level in range(1, length):
        state_YD = step.states_BLD[user, position - length + level - 1]
        found = slots.flat(_scores(trainer, step, slots, state_YD, level, path).log_prob_BQK)
        loss = loss + prefix_nll(found, every, path_YP[:, level], torch.ones_like(every).float())
    state = slots.pad(step.states_BLD[user, position - 1])
    ranking = trainer.model.item_scores(state, _nothing(step), path)
    group = trainer.groups_of(path_YP)
    logits = trainer.group_logits(step, ranking, user, slots, group, 1 / trainer.model.config.temperature)
    return loss + in_prefix_info_nce(logits, group, trainer.groups, every, item)


def _scores(
    trainer: "Trainer",
    step: "ReadStep",
    slots: "Slots",
    state_XD: "Tensor",
    level: int,
    path_BQP: "Tensor | None" = None,
) -> "PrefixScores":
    """One level of the prefix, without words and with nothing to copy."""
    state = slots.pad(state_XD)
    if path_BQP is None:
        path_BQP = slots.pad(slots.group_X.new_zeros(len(state_XD), 0))
    prior = trainer.activity.prefix_UKS[step.day_B]
    return trainer.model.prefix_scores(state, _nothing(step), level, path_BQP, None, prior)


def _nothing(step: "ReadStep") -> "Memory":
    """A memory without an item: the heads generate."""
    return type(step.memory)(*(part[:, :0] for part in step.memory))


def _tensors(trainer: "Trainer", rows: np.ndarray) -> "tuple[Tensor, ...]":
    import torch

    return tuple(torch.as_tensor(rows, device=trainer.device).unbind(dim=1))
