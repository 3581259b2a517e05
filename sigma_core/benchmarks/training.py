"""`sigma benchmark training`: useful tokens a second of our batches against right-padded batches of transformers.

Same backbone, same examples. Ours: a user's requests and their targets are branches and leaves of one tree. Theirs: a sequence for
each (request, target prefix), the history in every one, padded on the right to the longest of a batch. Both run the backbone
forward and backward under one loss on the states that heads read. A token is useful once: history that is read again teaches
nothing new. Our choice.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sigma_core.benchmarks.timing import Clock, alternate
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from sigma_core.instruction.collate import Collator, Request, TreeBatch, UserContext
    from sigma_core.model.sigma import SigmaModel
    from sigma_core.training.batches import StepInputs

OURS, PADDED = "token trees", "right-padded"
SEED: Final = 17


@dataclass(frozen=True)
class TrainingSettings:
    """Batches of each side, and the rows of a right-padded batch."""

    steps: int = 12
    threads: int = 2
    clock: Clock = "wall"
    padded_rows: int = 32
    shards: int = 3
    seed: int = SEED


def run_training(root: Path, settings: TrainingSettings, progress: Progress = no_progress) -> dict[str, Any]:
    """`rows`: a side's useful tokens a second, padding share and seconds; `ratio`: ours over theirs.

    Raises:
        RequestError: the root holds no trained day.
    """
    import torch

    from sigma_core.training.batches import sample_steps

    model, collator, lexical, vectors, data, training, digests = _loaded(root, settings.shards)
    torch.set_num_threads(settings.threads)  # after loading, which sets the root's own
    steps = list(sample_steps(data, collator.prefixes, training, settings.steps, settings.seed))
    seconds, useful, raw, padding = _zeros(0.0), 0, _zeros(0), _zeros([])
    requests, memory = 0, _zeros(0.0)
    rng = np.random.default_rng(settings.seed)
    for number, inputs in enumerate(steps):
        progress(number, len(steps), "batches")
        tree = collator(inputs.users, inputs.requests)
        padded = list(right_padded(collator, inputs, settings.padded_rows, rng))
        sides: dict[str, Callable[[], Any]] = {
            OURS: partial(_learn, model, [tree], vectors, lexical, is_tree=True),
            PADDED: partial(_learn, model, padded, vectors, lexical, is_tree=False),
        }
        for side, timing in alternate(sides, 1, settings.clock).items():
            seconds[side] += timing.p50
            memory[side] = max(memory[side], timing.added_mib or 0.0)
        useful += int(tree.valid_BL.sum())
        requests += len(tree.request_user_R)
        raw[OURS] += tree.valid_BL.size
        raw[PADDED] += sum(part.valid_BL.size for part in padded)
        padding[OURS] = [*padding[OURS], tree.padding_share]
        padding[PADDED] = [
            *padding[PADDED],
            1 - sum(p.valid_BL.sum() for p in padded) / sum(p.valid_BL.size for p in padded),
        ]
    rows = [
        {
            "side": side, "tokens_per_second": useful / seconds[side], "requests_per_second": requests / seconds[side],
            "positions_per_second": raw[side] / seconds[side], "padding_share": float(np.mean(padding[side])),
            "useful_share": useful / raw[side], "seconds": seconds[side], "added_mib": memory[side],
        }
        for side in (OURS, PADDED)
    ]  # fmt: skip
    return {
        "rows": rows,
        "ratio": seconds[PADDED] / seconds[OURS],
        "data": digests,
        "settings": asdict(settings),
    }


def right_padded(
    collator: "Collator", inputs: "StepInputs", rows: int, rng: np.random.Generator
) -> "Sequence[TreeBatch]":
    """Batches of sequences, one for each leaf of the step, in random order: what a data loader makes of such examples."""
    from dataclasses import replace

    flat: list[tuple[UserContext, Request]] = [
        (user, replace(request, leaves=(leaf,)))
        for user, asked in zip(inputs.users, inputs.requests, strict=True)
        for request in asked
        for leaf in request.leaves
    ]
    order = [flat[i] for i in rng.permutation(len(flat))]
    parts = [order[start : start + rows] for start in range(0, len(order), rows)]
    return [collator([user for user, _ in part], [[request] for _, request in part]) for part in parts]


def _learn(
    model: "SigmaModel", trees: "Sequence[TreeBatch]", vectors: Any, lexical: Any, *, is_tree: bool
) -> None:
    """One forward and backward pass a batch."""
    for tree in trees:
        _step(model, tree, vectors, lexical, is_tree=is_tree)


def _step(model: "SigmaModel", tree: "TreeBatch", vectors: Any, lexical: Any, *, is_tree: bool) -> None:
    """One forward and backward pass; the loss reads the states at <|start|> and at <q>."""
    import torch

    from sigma_core.model.sigma import TensorBatch, tree_mask

    batch = TensorBatch(tree, torch.zeros(len(tree.focus_texts), model.shape.match_dim), torch.device("cpu"))
    states = model.backbone(
        inputs_embeds=model.embed(batch, vectors, lexical),
        attention_mask=tree_mask(batch) if is_tree else batch.valid_BL.long(),
        position_ids=batch.position_BL,
    ).last_hidden_state
    user = batch.request_user_R
    read = torch.cat(
        (
            states[user, batch.request_start_R],
            states[user[batch.leaf_request_M], batch.leaf_positions_MP1[:, -1]],
        )
    )
    model.zero_grad(set_to_none=True)
    read.square().mean().backward()


def _zeros(value: Any) -> dict[str, Any]:
    return {OURS: value, PADDED: value}


def _loaded(root: Path, shards: int) -> tuple[Any, ...]:
    import torch

    from sigma_core.artifacts import ArtifactStore
    from sigma_core.benchmarks.record import answering_digests, artifact_digests
    from sigma_core.instruction.shards import SftShard
    from sigma_core.root_file import read_binding
    from sigma_core.serving.runtime import load_recommender
    from sigma_core.training.batches import build_training_set

    loaded = load_recommender(root, device="cpu")  # clocks here know nothing of a GPU's queue
    store, engine, config = ArtifactStore(root), loaded.engine, read_binding(root).config()
    keys = [key for key in store.partitions("sft_shards") if key <= loaded.day.isoformat()][-shards:]
    data = build_training_set(
        [store.read(SftShard, "sft_shards", key) for key in keys], engine.index.item_ids
    )
    recommender = engine.recommender
    model = recommender.model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    vectors = recommender.items.tensors.vectors_NE
    digests = answering_digests(root, loaded.day.isoformat()) | artifact_digests(root, {"sft_shards": keys})
    torch.manual_seed(SEED)
    return model, recommender.collator, recommender.lexical, vectors, data, config.training, digests
