"""APF against a float64 reference, and its limits."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import sigma_core.generation
from sigma_core.generation.fusion import beam_sigma, fuse, in_prefix_log_probs, with_catalog


def reference(beam: np.ndarray, cosine: list[np.ndarray], top: int, floor: float, tau: float) -> np.ndarray:
    """P(v | T) of every item, written as the paper has it, in float64."""
    best = np.sort(beam.astype(np.float64))[::-1][:top]
    sigma = max(np.std(np.concatenate((best, np.zeros(top - len(best))))), floor)
    parts = []
    for probability, values in zip(beam, cosine, strict=True):
        weight = np.exp(values.astype(np.float64) * sigma / tau)
        parts.append(probability * weight / weight.sum())
    return np.concatenate(parts)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.floats(0.005, 1.0))
def test_fused_probabilities_match_the_float64_reference_and_sum_to_the_beam_mass(
    seed: int, k: int, tau: float
) -> None:
    rng = np.random.default_rng(seed)
    beam = rng.dirichlet(np.ones(k + 1))[:k]
    sizes = rng.integers(1, 7, k)
    cosine = [rng.uniform(-1, 1, size) for size in sizes]
    padded = np.zeros((k, sizes.max()))
    valid = np.arange(sizes.max()) < sizes[:, None]
    for row, values in enumerate(cosine):
        padded[row, : len(values)] = values
    sigma = beam_sigma(torch.tensor(beam)[None], top=4, floor=1e-3)
    inside = in_prefix_log_probs(torch.tensor(padded), torch.tensor(valid), (sigma / tau).expand(k))
    got = fuse(torch.tensor(beam).log(), inside)[torch.tensor(valid)].exp().numpy()
    np.testing.assert_allclose(got, reference(beam, cosine, 4, 1e-3, tau), rtol=1e-9, atol=1e-12)
    assert got.sum() == pytest.approx(beam.sum())


def test_sigma_of_one_hot_flat_and_single_beams() -> None:
    one_hot = torch.tensor([[1.0, 0.0, 0.0, 0.0]])
    flat = torch.full((1, 4), 0.25)
    single = torch.tensor([[1.0]])
    assert beam_sigma(one_hot, 4, 1e-3).item() == pytest.approx(
        math.sqrt(3) / 4
    )  # mean 1/4: sqrt((9+1+1+1)/16/4)
    assert beam_sigma(flat, 4, 1e-3).item() == pytest.approx(
        1e-3
    )  # the floor: a flat beam must not divide by zero
    assert beam_sigma(single, 4, 1e-3).item() == pytest.approx(math.sqrt(3) / 4)  # missing beams count as 0


def test_sigma_does_not_depend_on_how_many_prefixes_are_searched() -> None:
    wide = torch.tensor([[0.5, 0.2, 0.1, 0.05, 0.04, 0.01]])
    assert beam_sigma(wide, 3, 1e-3).item() == beam_sigma(wide[:, :4], 3, 1e-3).item()


def test_a_peaked_beam_sharpens_and_a_flat_one_flattens() -> None:
    cosine, valid = torch.tensor([[0.9, 0.1]]), torch.ones(1, 2, dtype=torch.bool)
    peaked = in_prefix_log_probs(cosine, valid, torch.tensor([0.4 / 0.02])).exp()
    flat = in_prefix_log_probs(cosine, valid, torch.tensor([0.001 / 0.02])).exp()
    assert peaked[0, 0] > 0.99
    assert flat[0, 0] == pytest.approx(0.51, abs=0.01)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 2.0))
def test_the_catalogue_wide_score_is_one_more_expert(seed: int, weight: float) -> None:
    """P * Q ** weight in float64, holding as much probability as P did; what may not be listed stays out; weight 0: P."""
    rng = np.random.default_rng(seed)
    apf = rng.dirichlet(np.ones(6), 2) * 0.8
    apf[0, 4] = 0.0
    cosine, norm = rng.uniform(-1, 1, (2, 6)), rng.uniform(0, 3, (2, 6))
    expected = apf * np.exp(cosine / 0.2 - norm) ** weight
    expected *= apf.sum(axis=1, keepdims=True) / expected.sum(axis=1, keepdims=True)
    given_ = (torch.tensor(values) for values in (np.log(apf.clip(1e-300)), cosine, norm))
    fused, cosine_RX, norm_RX = given_
    found = with_catalog(fused.masked_fill(fused < -600, -math.inf), cosine_RX, norm_RX, 0.2, weight)
    np.testing.assert_allclose(found.exp().numpy(), expected, rtol=1e-9)
    assert torch.isinf(found[0, 4])


def test_a_group_without_a_valid_item_has_no_probability() -> None:
    out = in_prefix_log_probs(torch.zeros(1, 3), torch.zeros(1, 3, dtype=torch.bool), torch.ones(1))
    assert torch.isinf(out).all()
    assert not torch.isnan(out).any()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0.0, 1.0))
def test_what_is_copied_goes_to_its_item_and_the_rest_is_shared_as_before(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    cosine, valid = torch.tensor(rng.uniform(-1, 1, (1, 5))), torch.tensor([[True, True, False, True, True]])
    prior = torch.tensor(rng.normal(size=(1, 5)))
    copied = torch.zeros(1, 5, dtype=torch.float64)
    copied[0, 3] = share
    plain = in_prefix_log_probs(cosine, valid, torch.tensor([7.0]), prior).exp()
    mixed = in_prefix_log_probs(cosine, valid, torch.tensor([7.0]), prior, copied).exp()
    torch.testing.assert_close(mixed, (1 - share) * plain + copied, atol=2e-6, rtol=1e-5)
    assert mixed.sum().item() == pytest.approx(1.0)


def test_a_prior_is_left_alone_by_sharpness() -> None:
    """Equal cosines, prior log 3: three to one, however flat the beam."""
    cosine, valid = torch.tensor([[0.5, 0.5]]), torch.ones(1, 2, dtype=torch.bool)
    prior = torch.tensor([[math.log(3.0), 0.0]])
    for sharpness in (0.01, 50.0):
        found = in_prefix_log_probs(cosine, valid, torch.tensor([sharpness]), prior).exp()
        assert found[0].tolist() == pytest.approx([0.75, 0.25], abs=1e-5)


def test_no_step_of_generation_knows_a_task() -> None:
    """No name, attribute, argument or text of the package says "task": presets are resolved before it is called."""
    for path in Path(sigma_core.generation.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            said = [getattr(node, field, None) for field in ("id", "attr", "arg", "module", "name")]
            assert not [word for word in said if isinstance(word, str) and "task" in word.lower()], path.name
