"""Gradient caching gives the gradients of the plain step, for any chunk, and the trained encoder with it is the same."""

import numpy as np
import pytest
import torch

from sigma_core.config import GroundingConfig
from sigma_core.grounding.gradient_cache import backward
from sigma_core.grounding.losses import info_nce_rows
from sigma_core.grounding.train import train_grounded_encoder
from tests.grounding.test_train import config, world  # noqa: F401

ROWS = np.arange(10)


def gradients(chunk: int | None) -> tuple[list[torch.Tensor], list[int]]:
    """Gradients of a small network under in-batch InfoNCE of ten rows, and how many rows each pass with a graph had."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)).double()
    x, sizes = torch.randn(10, 4, dtype=torch.float64), []

    def vectors(rows: np.ndarray) -> torch.Tensor:
        if torch.is_grad_enabled():
            sizes.append(len(rows))
        return torch.nn.functional.normalize(network(x[torch.from_numpy(rows)]), dim=1)

    def loss(v: torch.Tensor) -> torch.Tensor:
        return info_nce_rows(v[:5], v[5:], 0.1, torch.ones(5, 5, dtype=torch.bool)).mean()

    backward(vectors, ROWS, loss, chunk)
    return [p.grad for p in network.parameters() if p.grad is not None], sizes


@pytest.mark.parametrize("chunk", [1, 3, 5, 9])
def test_gradients_equal_those_of_the_plain_step(chunk: int) -> None:
    plain, whole = gradients(None)
    cached, sizes = gradients(chunk)
    assert whole == [10]
    assert max(sizes) == chunk
    assert len(plain) == len(cached) == 4
    for one, other in zip(plain, cached, strict=True):
        torch.testing.assert_close(other, one, atol=1e-12, rtol=1e-10)


def test_an_encoder_trained_with_caching_is_the_same(config: GroundingConfig) -> None:  # noqa: F811
    plain = train_grounded_encoder(*world(), config, seed=4)
    cached = train_grounded_encoder(*world(), config.model_copy(update={"cached_texts": 3}), seed=4)
    np.testing.assert_allclose(cached.encode(["soda", "candy"]), plain.encode(["soda", "candy"]), atol=2e-3)
