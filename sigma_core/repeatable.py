"""Trainings that repeat bit by bit: the switch of torch that makes sums independent of which thread comes first.

Without it the backward pass of an indexed read (`index_put` with accumulation) adds in the order threads finish, and two runs with
one seed drift apart in the last bit, then in every weight. Holds that switch only; seeds are the callers'. Our choice.
"""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def repeatable(wanted: bool) -> Iterator[None]:
    """Deterministic algorithms within the block where `wanted`; torch's state is left as it was.

    Equal inputs, seed and number of threads then give equal bits on one machine. An operation that has no deterministic form
    raises RuntimeError.
    """
    import torch

    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
