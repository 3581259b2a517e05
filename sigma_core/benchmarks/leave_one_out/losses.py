"""Softmax over the whole catalogue on two CPU cores: the loss and its gradients in one pass over the logits.

Holds no model. Autograd would keep every logit and read it five times; here a chunk of rows is made, turned into its own
gradient in place and forgotten. Our choice.

Shape legend: X states, N items, E width, T targets.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS_AT_ONCE = 256
ITEMS_AT_ONCE = 1024  # 256 x 1024 x 4 bytes = 1 MB: a block stays in the caches, twice as fast as a whole row


class _CatalogCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query_XE: Tensor, items_NE: Tensor, state_T: Tensor, item_T: Tensor, weight_T: Tensor
    ) -> Tensor:
        mass_X = query_XE.new_zeros(len(query_XE)).index_add_(0, state_T, weight_T)
        grad_query, grad_items = torch.zeros_like(query_XE), torch.zeros_like(items_NE)
        lse_X = query_XE.new_empty(len(query_XE))
        blocks = items_NE.split(ITEMS_AT_ONCE)
        grads = grad_items.split(ITEMS_AT_ONCE)
        for start in range(0, len(query_XE), ROWS_AT_ONCE):
            query, pull = query_XE[start : start + ROWS_AT_ONCE], grad_query[start : start + ROWS_AT_ONCE]
            shift = (query @ blocks[0].T).amax(dim=1, keepdim=True)  # near the maximum is all it takes
            kept, total = [], query.new_zeros(len(query), 1)
            for block in blocks:
                part = torch.addmm(-shift, query, block.T).exp_()
                total += part.sum(dim=1, keepdim=True)
                pull.addmm_(part, block)
                kept.append(part)
            share = mass_X[start : start + ROWS_AT_ONCE, None] / total
            pull.mul_(share)
            scaled = query * share
            for grad, part in zip(grads, kept, strict=True):
                grad.addmm_(part.T, scaled)
            lse_X[start : start + ROWS_AT_ONCE] = (total.log() + shift).squeeze(1)
        if not bool(torch.isfinite(lse_X).all()):
            raise FloatingPointError("catalog_cross_entropy: a softmax is not finite; the training diverged.")
        query_TE, item_TE = query_XE[state_T], items_NE[item_T]
        grad_query.index_add_(0, state_T, item_TE * -weight_T[:, None])
        grad_items.index_add_(0, item_T, query_TE * -weight_T[:, None])
        ctx.save_for_backward(grad_query, grad_items)
        return ((lse_X[state_T] - (query_TE * item_TE).sum(dim=1)) * weight_T).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        grad_query, grad_items = ctx.saved_tensors
        return grad_query * grad, grad_items * grad, None, None, None


def catalog_cross_entropy(
    query_XE: Tensor, items_NE: Tensor, state_T: Tensor, item_T: Tensor, weight_T: Tensor | None = None
) -> Tensor:
    """Mean over X states of the sum over their targets of -weight * log softmax(query @ items.T)[item], exact, scalar.

    A state may have several targets (their weights need not sum to one) or none. Gradients reach `query_XE` and `items_NE`
    only.
    """
    weight = torch.ones_like(state_T, dtype=query_XE.dtype) if weight_T is None else weight_T
    total: Tensor = _CatalogCrossEntropy.apply(query_XE, items_NE, state_T, item_T, weight)  # type: ignore[no-untyped-call]
    return total / max(len(query_XE), 1)
