"""What a pointer explains of a leaf's targets, by hand."""

import torch

from sigma_core.model.heads import Memory, Slots
from sigma_core.training.step_parts import Leaves, copied_shares


def test_a_target_is_copied_as_its_own_item_and_no_other_of_its_prefix() -> None:
    """Two users, a leaf each with prefix 1. Shares are of the P(prefix) that the level made.

    The first owns items 7 and 8 under the prefix and 9 under another: P = .1 of item 7, .2 of item 8, .2 generated, .5 together.
    The second owns item 8 and a padded place (row 0): P = .3 of item 8, .1 generated, .4 together.
    """
    nothing = torch.zeros(2, 3, 0)
    valid = torch.tensor([[True, True, True], [True, False, False]])
    prefix = torch.tensor([[[1], [1], [2]], [[1], [-1], [-1]]])
    rows = torch.tensor([[7, 8, 9], [8, 0, 0]])
    memory = Memory(nothing, nothing, nothing, nothing, prefix, rows, valid, valid)
    leaves = Leaves(
        user_M=torch.tensor([1, 0]),  # the second user's leaf first
        slots=Slots(torch.tensor([1, 0]), 2),
        path_MP=torch.tensor([[1], [1]]),
        focus=None,
        log_prob_M=torch.tensor([0.4, 0.5]).log(),
        copied_MJ=torch.tensor([[0.3, 0.0, 0.0], [0.1, 0.2, 0.15]]),
        generated_M=torch.tensor([0.1, 0.2]),
    )
    leaf, item = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([8, 5, 7, 8, 5])
    found = copied_shares(memory, leaves, leaf, item)
    torch.testing.assert_close(found.rest_M, torch.tensor([0.25, 0.4]))
    torch.testing.assert_close(found.share_T, torch.tensor([0.75, 0.0, 0.2, 0.4, 0.0]))
