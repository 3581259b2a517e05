"""Gradient caching: a loss over a large in-batch negative set with the memory of a small chunk.

The vectors are made without a graph first, the loss gives their gradients, and each chunk is then run again with a graph and
takes its share. Gradients equal those of the plain step; the price is one more forward pass. It knows no model and no loss.
Source: Gao et al. 2021, "Scaling deep contrastive learning batch size under memory limited setup"; needs a pass without
dropout (ours has none).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor


def backward(
    vectors_of: "Callable[[np.ndarray], Tensor]",
    rows: np.ndarray,
    loss_of: "Callable[[Tensor], Tensor]",
    chunk: int | None,
) -> None:
    """Adds the gradients of `loss_of(vectors_of(rows))` to the parameters behind `vectors_of`.

    Args:
        vectors_of: float [n, D] of n rows, each row's vector independent of the others; run under the current grad mode.
        rows: int64 [N].
        loss_of: a scalar from float [N, D].
        chunk: rows that hold a graph at a time; none, or at least N: one plain pass.
    """
    import torch

    if chunk is None or chunk >= len(rows):
        loss_of(vectors_of(rows)).backward()
        return
    parts = [rows[start : start + chunk] for start in range(0, len(rows), chunk)]
    with torch.no_grad():
        vectors = torch.cat([vectors_of(part) for part in parts])
    vectors.requires_grad_(True)
    loss_of(vectors).backward()
    assert vectors.grad is not None
    for part, gradient in zip(parts, vectors.grad.split(chunk), strict=True):
        vectors_of(part).backward(gradient)
