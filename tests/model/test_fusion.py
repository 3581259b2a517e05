"""ProjectAndFuse: unit vectors from whatever streams are there, and gates that only weigh present ones."""

import pytest
import torch

from sigma_core.model.fusion import ItemStreams, ProjectAndFuse


def streams(has_id: list[bool], has_image: list[bool], seed: int = 0) -> ItemStreams:
    torch.manual_seed(seed)
    size = len(has_id)
    return ItemStreams(
        torch.randn(size, 6),
        torch.randn(size, 4),
        torch.tensor(has_id),
        torch.randn(size, 5),
        torch.tensor(has_image),
    )


def fusion(drop: float = 0.0) -> ProjectAndFuse:
    torch.manual_seed(1)
    return ProjectAndFuse(6, 4, 5, hidden=8, item_dim=3, drop=drop).eval()


def test_vectors_are_unit_and_gates_weigh_present_streams_only() -> None:
    trace = fusion().trace(streams([True, False, True, False], [True, True, False, False]))
    torch.testing.assert_close(trace.fused_NE.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(trace.gates_N3.sum(dim=1), torch.ones(4))
    assert (trace.gates_N3 > 0).tolist() == [
        [True, True, True],
        [True, False, True],
        [True, True, False],
        [True, False, False],
    ]


def test_an_absent_stream_is_not_read() -> None:
    one = streams([False], [False])
    other = one._replace(id_NI=one.id_NI + 9, image_NV=one.image_NV - 9)
    torch.testing.assert_close(fusion()(one), fusion()(other), rtol=0, atol=0)


def test_removing_a_modality_changes_the_vector() -> None:
    both = streams([True], [True])
    text_only = both._replace(has_id_N=torch.tensor([False]), has_image_N=torch.tensor([False]))
    assert (fusion()(both) - fusion()(text_only)).abs().max() > 1e-3


def test_the_presence_vector_is_that_of_what_is_there() -> None:
    """First row of `presence`: v_ID, second: image; in each the vector of an absent stream, then of a present one."""
    given = streams([True, True, False, False], [True, False, True, False])
    there = {0: given.has_id_N, 1: given.has_image_N}
    for stream, has in there.items():
        for present in (0, 1):
            model = fusion()
            before = model(given)
            with torch.no_grad():
                model.presence[stream, present] = torch.randn(8)
            moved = (model(given) - before).abs().amax(dim=1) > 1e-3
            assert moved.tolist() == (has == bool(present)).tolist()


@pytest.mark.parametrize("training", [True, False])
def test_modality_dropout_hides_streams_in_training_only(training: bool) -> None:
    model = fusion(drop=0.5).train(training)
    torch.manual_seed(3)
    gates = model.trace(streams([True] * 400, [False] * 400)).gates_N3
    hidden = (gates[:, 1] == 0).float().mean().item()
    assert hidden == (pytest.approx(0.5, abs=0.1) if training else 0.0)


def test_no_parameter_grows_with_the_catalogue() -> None:
    """A new item needs no training: nothing in the fusion has a row an item."""
    assert all(100 not in p.shape for p in fusion().parameters())
    assert fusion()(streams([False] * 100, [False] * 100)).shape == (100, 3)
