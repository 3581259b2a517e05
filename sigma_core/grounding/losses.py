"""The two grounding losses, as functions of vectors: contrastive in both directions, and distillation from item ID vectors.

They own no model and do no encoding, so each is checked against a float64 reference. Source: paper, grounding, L_CL and L_KD;
the masks are our choice (paper.md, decision 8, and false negatives).
"""

# Shape legend: B pairs of a batch, D text width, I width of v_ID factors.

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def info_nce_rows(
    anchor_BD: "Tensor", positive_BD: "Tensor", temperature: float, compared_BB: "Tensor"
) -> "Tensor":
    """[B]: each pair's part of L_CL = -1/(2B) sum_i [log P(positive i | anchor i) + log P(anchor i | positive i)], in-batch.

    Their mean is L_CL. Source: paper, grounding, L_CL (half the paper's sum over both directions).

    Rows are unit vectors, similarities dot products over `temperature`. `compared_BB` (bool) says which pairs enter the
    softmax; the diagonal always does. Off the diagonal leave out what is no negative: the same item or text, known pairs.
    """
    import torch

    own_BB = torch.eye(len(anchor_BD), dtype=torch.bool, device=anchor_BD.device)
    scores_BB = (anchor_BD @ positive_BD.T) / temperature
    scores_BB = scores_BB.masked_fill(~(compared_BB | own_BB), float("-inf"))
    forward_B = torch.log_softmax(scores_BB, dim=1).diagonal()
    backward_B = torch.log_softmax(scores_BB, dim=0).diagonal()
    return -(forward_B + backward_B) / 2


def similarity_kl(
    anchor_BD: "Tensor",
    positive_BD: "Tensor",
    anchor_id_BI: "Tensor",
    positive_id_BI: "Tensor",
    *,
    has_anchor_id_B: "Tensor",
    has_positive_id_B: "Tensor",
    temperature_text: float,
    temperature_id: float,
) -> "Tensor":
    """L_KD: mean over anchors i of KL(P_ID(. | i) || P_text(. | i)) over the batch's positives, scalar.

    P_ID is a softmax over cosines of v_ID. Anchors without a v_ID (queries, holidays, new items) contribute nothing, positives
    without one stand in neither softmax; with nothing left the loss is 0. No gradient reaches v_ID.

    Source: paper, grounding, L_KD (there a sum over i; the mean keeps its weight independent of the batch).
    """
    import torch
    from torch.nn import functional

    if not bool(has_anchor_id_B.any()) or not bool(has_positive_id_B.any()):
        return anchor_BD.sum() * 0.0
    with torch.no_grad():
        teacher_a = functional.normalize(anchor_id_BI[has_anchor_id_B], dim=1)
        teacher_p = functional.normalize(positive_id_BI[has_positive_id_B], dim=1)
        log_teacher = torch.log_softmax(teacher_a @ teacher_p.T / temperature_id, dim=1)
    scores = anchor_BD[has_anchor_id_B] @ positive_BD[has_positive_id_B].T / temperature_text
    log_student = torch.log_softmax(scores, dim=1)
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1).mean()
