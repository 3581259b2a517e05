"""Auxiliary alignment, item to text: an item's prefix tokens and vector are read, and the backbone says the item's words.

For backbones that generate text, real LLMs: their own word embeddings are the output layer (tied, as in SmolLM2 and the smaller
Qwen3). `mini` has no word to say, so it is refused there. Off by default. Source: LC-Rec's auxiliary tasks; weight and form are our
choice.

Shape legend: X items, P prefix length, S words of the longest text, V vocabulary, D hidden.
"""

from typing import TYPE_CHECKING

import numpy as np

from sigma_core.instruction.collate import ROLE_FOCUS
from sigma_core.model.backbone import is_mini

if TYPE_CHECKING:
    from torch import Tensor

    from sigma_core.config import SigmaConfig
    from sigma_core.training.sft import Trainer
    from sigma_core.training.step_parts import ReadStep


def check_item_text(config: "SigmaConfig", texts: list[str] | None) -> None:
    """Nothing happens where the loss is off, or can be computed.

    Raises:
        ValueError: it has a weight and the backbone is `mini`, or the items come without texts.
    """
    if config.training.weight_item_text == 0:
        return
    if is_mini(config.model):
        raise ValueError(
            "training.weight_item_text is above 0 and model.backbone is mini, which cannot generate text. Choose an LLM, "
            "or set training.weight_item_text to 0."
        )
    if texts is None:
        raise ValueError("training.weight_item_text is above 0 and the items' features hold no texts.")


def item_text_loss(trainer: "Trainer", step: "ReadStep", rows: np.ndarray) -> "Tensor":
    """Mean -log P(word | prefix, v~, words before it) over the words of the first distinct items of `rows`; 0 without a word."""
    import torch

    chosen = list(dict.fromkeys(rows.tolist()))[: trainer.config.training.item_texts]
    assert trainer.texts is not None
    words = [trainer.collator.words.ids(trainer.texts[row]) for row in chosen]
    width = max((len(ids) for ids in words), default=0)
    if width == 0:
        return step.states_BLD.new_zeros(())
    word_XS = torch.full((len(chosen), width), -1, dtype=torch.long, device=trainer.device)
    for at, ids in enumerate(words):
        word_XS[at, : len(ids)] = torch.as_tensor(ids)
    known_XS = word_XS >= 0
    row_X = torch.as_tensor(chosen, device=trainer.device)
    model, length = trainer.model, trainer.prefixes.shape[1]
    tokens = model.prefix_tokens()
    prefix = [tokens[level][trainer.prefixes[row_X, level]] for level in range(length)]
    vector_XD = model.item_project(step.items.vectors_NE[row_X]) + model.roles[ROLE_FOCUS]
    said_XSD = model.word_project(trainer.lexical[word_XS.clamp_min(0)])
    embeds = torch.cat((torch.stack((*prefix, vector_XD), dim=1), said_XSD[:, :-1]), dim=1)
    # padding stands last and order is causal: no word sees it
    states = model.backbone(inputs_embeds=embeds).last_hidden_state[:, length:]
    logits = states[known_XS] @ trainer.lexical.T
    return torch.nn.functional.cross_entropy(logits, word_XS[known_XS])
