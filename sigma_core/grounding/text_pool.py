"""The texts of one training after the frozen layers: run once, kept in memory, read by every step.

Holds the states and the forward pass of the remaining top layers over some of them. A text of 24 tokens costs 37 kB, so only
texts that training uses come here (`pair_plan.py` bounds them). Our choice.
"""

# Shape legend: n_b texts of bucket b, T_b its pad length, H hidden width.

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sigma_core.grounding import text_backbone as tb
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from torch import Tensor

    from sigma_core.grounding.text_network import TextNetwork


@dataclass
class TextPool:
    """States of N texts after the frozen layers, by bucket.

    Attributes:
        states: float32 [n_b, T_b, H] per bucket (token ids [n_b, T_b] of a model that is run whole).
        masks: bool [n_b, T_b] per bucket.
        bucket: int64 [N], the bucket of each text.
        place: int64 [N], its row there.
    """

    states: list["Tensor"]
    masks: list["Tensor"]
    bucket: np.ndarray
    place: np.ndarray


def run_frozen_layers(
    network: "TextNetwork",
    files: dict[str, str],
    texts: Sequence[str],
    *,
    num_top: int,
    pad_buckets: Sequence[int],
    padding_side: str = "right",
    progress: Progress = no_progress,
) -> TextPool:
    """The pool of `texts` after all layers of `network` but the `num_top` last, on the network's device."""
    import torch

    buckets = sorted(pad_buckets)
    batches = tb.token_batches(texts, tb.make_tokenizer(files, buckets[-1]), buckets, padding_side)
    states: dict[int, list[Tensor]] = {length: [] for length in buckets}
    masks: dict[int, list[Tensor]] = {length: [] for length in buckets}
    bucket = np.zeros(len(texts), dtype=np.int64)
    place = np.zeros(len(texts), dtype=np.int64)
    device = next(network.model.parameters()).device
    lower = network.layers[: len(network.layers) - num_top]
    with torch.inference_mode():
        for done, batch in enumerate(batches, start=1):
            length = batch.ids.shape[1]
            bucket[batch.rows] = buckets.index(length)
            place[batch.rows] = sum(len(part) for part in states[length]) + np.arange(len(batch.rows))
            mask = batch.mask.to(device)
            hidden = network.run(lower, network.embed(batch.ids.to(device)), mask)
            states[length].append(hidden[: len(batch.rows)].clone())
            masks[length].append(mask[: len(batch.rows)])
            progress(done, len(batches), "batches of texts through the frozen layers")
    return TextPool(
        states=[
            torch.cat(states[n]).clone() if states[n] else torch.zeros(0, n, device=device) for n in buckets
        ],
        masks=[
            torch.cat([*masks[n], torch.zeros((0, n), dtype=torch.bool, device=device)]).clone()
            for n in buckets
        ],
        bucket=bucket,
        place=place,
    )


def pooled_states(
    pool: TextPool, network: "TextNetwork", num_top: int, texts: np.ndarray, *, grad: bool = False
) -> "Tensor":
    """[len(texts), H] unit rows of the pool's `texts` (positions) after the last `num_top` layers, as they are now.

    Without `grad` in small chunks.
    """
    import torch

    top = network.layers[-num_top:]
    parts, order = [], []
    with torch.set_grad_enabled(grad):
        for bucket, (states, masks) in enumerate(zip(pool.states, pool.masks, strict=True)):
            members = np.flatnonzero(pool.bucket[texts] == bucket)
            chunk = max(len(members), 1) if grad else 8 * tb.BATCH_ROWS
            for start in range(0, len(members), chunk):
                some = members[start : start + chunk]
                rows = torch.from_numpy(pool.place[texts[some]])
                parts.append(network.pool(network.run(top, states[rows], masks[rows]), masks[rows]))
                order.append(some)
    back = np.argsort(np.concatenate(order))
    return torch.cat(parts)[torch.from_numpy(back)]
