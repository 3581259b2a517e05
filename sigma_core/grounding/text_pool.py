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
    from torch.nn import Module
    from transformers.models.bert.modeling_bert import BertModel


@dataclass
class TextPool:
    """States of N texts after the frozen layers, by bucket.

    Attributes:
        states: float32 [n_b, T_b, H] per bucket.
        masks: bool [n_b, T_b] per bucket.
        bucket: int64 [N], the bucket of each text.
        place: int64 [N], its row there.
    """

    states: list["Tensor"]
    masks: list["Tensor"]
    bucket: np.ndarray
    place: np.ndarray


def run_frozen_layers(
    model: "BertModel",
    files: dict[str, str],
    texts: Sequence[str],
    *,
    num_top: int,
    pad_buckets: Sequence[int],
    progress: Progress = no_progress,
) -> TextPool:
    """The pool of `texts` after all layers of `model` but the `num_top` last."""
    import torch

    buckets = sorted(pad_buckets)
    batches = tb.token_batches(texts, tb.make_tokenizer(files, buckets[-1]), buckets)
    states: dict[int, list[Tensor]] = {length: [] for length in buckets}
    masks: dict[int, list[Tensor]] = {length: [] for length in buckets}
    bucket = np.zeros(len(texts), dtype=np.int64)
    place = np.zeros(len(texts), dtype=np.int64)
    lower = list(model.encoder.layer)[: len(model.encoder.layer) - num_top]
    with torch.inference_mode():
        for done, batch in enumerate(batches, start=1):
            length = batch.ids.shape[1]
            bucket[batch.rows] = buckets.index(length)
            place[batch.rows] = sum(len(part) for part in states[length]) + np.arange(len(batch.rows))
            hidden = tb.run_layers(lower, model.embeddings(input_ids=batch.ids), batch.mask)
            states[length].append(hidden[: len(batch.rows)].clone())
            masks[length].append(batch.mask[: len(batch.rows)])
            progress(done, len(batches), "batches of texts through the frozen layers")
    width = int(model.config.hidden_size)
    return TextPool(
        states=[torch.cat([*states[n], torch.zeros((0, n, width))]).clone() for n in buckets],
        masks=[torch.cat([*masks[n], torch.zeros((0, n), dtype=torch.bool)]).clone() for n in buckets],
        bucket=bucket,
        place=place,
    )


def pooled_states(pool: TextPool, top: list["Module"], texts: np.ndarray, *, grad: bool = False) -> "Tensor":
    """[len(texts), H] unit rows of the pool's `texts` (positions) after the layers `top`; without `grad` in small chunks."""
    import torch

    parts, order = [], []
    with torch.set_grad_enabled(grad):
        for bucket, (states, masks) in enumerate(zip(pool.states, pool.masks, strict=True)):
            members = np.flatnonzero(pool.bucket[texts] == bucket)
            chunk = max(len(members), 1) if grad else 8 * tb.BATCH_ROWS
            for start in range(0, len(members), chunk):
                some = members[start : start + chunk]
                rows = torch.from_numpy(pool.place[texts[some]])
                parts.append(tb.mean_pool(tb.run_layers(top, states[rows], masks[rows]), masks[rows]))
                order.append(some)
    back = np.argsort(np.concatenate(order))
    return torch.cat(parts)[torch.from_numpy(back)]
