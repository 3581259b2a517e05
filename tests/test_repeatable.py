"""The switch that makes trainings repeat: on inside, as it was outside."""

import pytest
import torch

from sigma_core.repeatable import repeatable


@pytest.mark.parametrize("wanted", [True, False])
def test_it_holds_inside_and_is_undone_outside(wanted: bool) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    with repeatable(wanted):
        assert torch.are_deterministic_algorithms_enabled() == (wanted or before)
    assert torch.are_deterministic_algorithms_enabled() == before


def test_an_error_inside_leaves_nothing_switched_on() -> None:
    with pytest.raises(RuntimeError, match="stop"), repeatable(True):
        raise RuntimeError("stop")
    assert not torch.are_deterministic_algorithms_enabled()
