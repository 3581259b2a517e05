"""Both losses against float64 numpy, closed forms, and masks."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from sigma_core.grounding.losses import info_nce_rows, similarity_kl


def unit(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(torch.randn(rows, width, generator=generator, dtype=torch.float64), dim=1)


def log_softmax(scores: np.ndarray, axis: int) -> np.ndarray:
    return scores - np.log(np.exp(scores).sum(axis=axis, keepdims=True))


def info_nce(*given: Any) -> torch.Tensor:
    """L_CL of a batch."""
    return info_nce_rows(*given).mean()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 7))
def test_info_nce_equals_the_float64_reference(seed: int, batch: int) -> None:
    anchor, positive = unit(batch, 4, seed), unit(batch, 4, seed + 1)
    compared = torch.from_numpy(np.random.default_rng(seed).random((batch, batch)) < 0.7)
    scores = (anchor @ positive.T).numpy() / 0.2
    scores = np.where(compared.numpy() | np.eye(batch, dtype=bool), scores, -np.inf)
    want = 0.0
    for i in range(batch):  # -1/(2B) sum_i [log P(i | i) along the row + along the column]
        want -= (log_softmax(scores, 1)[i, i] + log_softmax(scores, 0)[i, i]) / (2 * batch)
    assert float(info_nce(anchor, positive, 0.2, compared)) == pytest.approx(want, abs=1e-9)
    in_float32 = info_nce(anchor.float(), positive.float(), 0.2, compared)
    assert float(in_float32) == pytest.approx(want, abs=1e-5)


def test_with_all_similarities_equal_info_nce_is_the_log_of_the_batch() -> None:
    same = torch.ones(4, 1)
    assert float(info_nce(same, same, 0.05, torch.ones(4, 4, dtype=torch.bool))) == pytest.approx(np.log(4))


def test_a_masked_false_negative_changes_nothing_whatever_its_vector() -> None:
    anchor, positive = unit(3, 4, 1), unit(3, 4, 2)
    compared = torch.ones(3, 3, dtype=torch.bool)
    compared[0, 2] = compared[2, 0] = compared[0, 1] = compared[1, 0] = False
    moved = positive.clone()
    moved[0] = anchor[0]
    before = info_nce(anchor[1:], positive[1:], 0.1, compared[1:, 1:]) * 2
    # Row 0 is compared with nothing but itself: it adds log 1 = 0, however near or far its positive is.
    assert float(info_nce(anchor, positive, 0.1, compared) * 3) == pytest.approx(float(before), abs=1e-9)
    assert float(info_nce(anchor, moved, 0.1, compared) * 3) == pytest.approx(float(before), abs=1e-9)


def kl(
    anchor: torch.Tensor, positive: torch.Tensor, ids: tuple[torch.Tensor, torch.Tensor], **has: torch.Tensor
):
    return similarity_kl(
        anchor,
        positive,
        *ids,
        has_anchor_id_B=has["a"],
        has_positive_id_B=has["p"],
        temperature_text=0.2,
        temperature_id=0.3,
    )


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_similarity_kl_equals_the_float64_reference(seed: int, batch: int) -> None:
    anchor, positive = unit(batch, 4, seed), unit(batch, 4, seed + 1)
    ids = 3 * unit(batch, 5, seed + 2), unit(batch, 5, seed + 3)  # lengths must not matter
    rng = np.random.default_rng(seed)
    a, p = rng.random(batch) < 0.7, rng.random(batch) < 0.7
    rows, cols = np.flatnonzero(a), np.flatnonzero(p)
    want, terms = 0.0, 0
    teacher = (functional.normalize(ids[0]) @ functional.normalize(ids[1]).T).numpy() / 0.3
    student = (anchor @ positive.T).numpy() / 0.2
    for i in rows:
        if len(cols) == 0:
            continue
        log_t = log_softmax(teacher[i, cols][None], 1)[0]
        log_s = log_softmax(student[i, cols][None], 1)[0]
        want += float((np.exp(log_t) * (log_t - log_s)).sum())
        terms += 1
    got = kl(anchor, positive, ids, a=torch.from_numpy(a), p=torch.from_numpy(p))
    assert float(got) == pytest.approx(want / max(terms, 1), abs=1e-9)
    assert float(got) >= -1e-12


def test_an_anchor_without_v_id_gets_no_gradient_from_the_teacher() -> None:
    anchor, positive = unit(3, 4, 1).requires_grad_(), unit(3, 4, 2)
    ids = unit(3, 5, 3), unit(3, 5, 4).requires_grad_()
    everyone = torch.ones(3, dtype=torch.bool)
    kl(anchor, positive, ids, a=torch.tensor([True, False, True]), p=everyone).backward()
    assert anchor.grad is not None
    assert anchor.grad[1].abs().sum() == 0
    assert anchor.grad[0].abs().sum() > 0
    assert ids[1].grad is None  # the teacher is frozen


def test_a_batch_of_queries_only_has_no_distillation() -> None:
    anchor, positive = unit(2, 4, 1).requires_grad_(), unit(2, 4, 2)
    loss = kl(
        anchor,
        positive,
        (unit(2, 5, 3), unit(2, 5, 4)),
        a=torch.zeros(2, dtype=torch.bool),
        p=torch.ones(2, dtype=torch.bool),
    )
    loss.backward()
    assert float(loss.detach()) == 0


def test_a_student_that_agrees_with_the_teacher_has_no_loss() -> None:
    anchor, positive = unit(4, 4, 1), unit(4, 4, 2)
    all_ = torch.ones(4, dtype=torch.bool)
    loss = similarity_kl(
        anchor,
        positive,
        anchor,
        positive,
        has_anchor_id_B=all_,
        has_positive_id_B=all_,
        temperature_text=0.1,
        temperature_id=0.1,
    )
    assert float(loss) == pytest.approx(0, abs=1e-12)


def test_the_loss_is_the_mean_of_its_pairs() -> None:
    torch.manual_seed(0)
    anchor, positive = (torch.nn.functional.normalize(torch.randn(4, 3), dim=1) for _ in range(2))
    everyone = torch.ones(4, 4, dtype=torch.bool)
    rows = info_nce_rows(anchor, positive, 0.1, everyone)
    assert rows.shape == (4,)
    torch.testing.assert_close(info_nce(anchor, positive, 0.1, everyone), rows.sum() / 4)
