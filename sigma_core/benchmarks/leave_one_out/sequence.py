"""A small causal transformer over item sequences, and the batches it reads.

The trunk that every learned model of the benchmark shares: pre-norm blocks, attention with a learned bias by distance (so a
position means the same at any length), dropout masks drawn from bytes. It knows no item vectors and no loss. Our choice.

Shape legend: B sequences, L longest of the batch, X real positions (packed), D width, H heads.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

IntArray = np.ndarray


class Batch(NamedTuple):
    """Sequences padded on the right."""

    items_BL: Tensor  # int64 item rows, 0 where padded
    real_BL: Tensor  # bool

    def last_columns(self) -> Tensor:
        """(B,): column of each sequence's last item."""
        return self.real_BL.sum(dim=1) - 1


def make_batch(sequences: Sequence[IntArray]) -> Batch:
    """Non-empty sequences of item rows, padded on the right."""
    lengths = np.array([len(s) for s in sequences])
    items = np.zeros((len(sequences), int(lengths.max())), np.int64)
    real = np.arange(items.shape[1])[None, :] < lengths[:, None]
    items[real] = np.concatenate(sequences)
    return Batch(torch.from_numpy(items), torch.from_numpy(real))


def batches(
    sequences: Sequence[IntArray], positions_at_once: int, rng: np.random.Generator | None = None
) -> Iterator[tuple[IntArray, Batch]]:
    """Batches of about `positions_at_once` padded positions, with the numbers of their sequences.

    Sequences of similar length go together, which leaves little padding. With `rng`, lengths tie at random and the batches
    come in random order; without, in order of length.
    """
    lengths = np.array([len(s) for s in sequences])
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    groups, start = [], 0
    while start < len(order):
        stop = start + max(1, positions_at_once // max(1, int(lengths[order[start]])))
        while (
            stop - start > 1
            and (stop - start) * lengths[order[min(stop, len(order)) - 1]] > positions_at_once
        ):
            stop -= 1
        groups.append(order[start:stop])
        start = stop
    for number in range(len(groups)) if rng is None else rng.permutation(len(groups)):
        yield groups[number], make_batch([sequences[i] for i in groups[number]])


class ByteDropout(nn.Module):
    """Dropout whose mask is compared byte by byte: an eighth of the random numbers, the rate in steps of 1/256."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.cut = round(rate * 256)

    def forward(self, x: Tensor) -> Tensor:
        """`x` with entries zeroed at the rate and the rest scaled up, in training mode; `x` itself otherwise."""
        if not self.training or self.cut == 0:
            return x
        words = torch.randint(-(2**63), 2**63 - 1, ((x.numel() + 7) // 8,), dtype=torch.int64)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= self.cut
        return x * kept.to(x.dtype).mul_(256 / (256 - self.cut))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, drop: float, max_length: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_in, self.norm_mid = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.by_distance = nn.Parameter(torch.zeros(heads, max_length))
        self.drop = ByteDropout(drop)

    def forward(self, x_BLD: Tensor, distance_LL: Tensor, hidden_LL: Tensor) -> Tensor:
        batch, length, width = x_BLD.shape
        qkv = self.qkv(self.norm_in(x_BLD)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.by_distance[:, distance_LL].masked_fill(hidden_LL, float("-inf"))
        scores = q @ k.transpose(-1, -2) * (width // self.heads) ** -0.5 + bias
        mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, length, width)
        x_BLD = x_BLD + self.drop(self.out(mixed))
        return x_BLD + self.drop(self.down(nn.functional.gelu(self.up(self.norm_mid(x_BLD)))))


class Trunk(nn.Module):
    """Causal states of a sequence of vectors; state l has read vectors 0 to l."""

    def __init__(
        self, width: int, *, blocks: int, heads: int, drop: float, max_length: int, inner: int | None = None
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            _Block(width, heads, inner or 2 * width, drop, max_length) for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """(B, L, D) states. Padding on the right is read by no real position."""
        at = torch.arange(x_BLD.shape[1])
        distance = at[:, None] - at[None, :]
        for block in self.blocks:
            x_BLD = block(x_BLD, distance.clamp_min(0), distance < 0)
        return self.norm(x_BLD)
