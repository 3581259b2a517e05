"""What we are measured against: items spelled with four codes each, decoded by constrained beam search.

Twice: as peers do it (`transformers.generate`, `prefix_allowed_tokens_fn`, a dictionary of allowed tokens), and as well as we
can (dense masks, one cache of the prompt that all beams share, the last layer only where it is read). Both get the same
network and a vocabulary of no more words than they use, which favours them. Our choice.

Shape legend: N items, R requests, L prompt positions, K beams, C codes of a level.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from sigma_core.benchmarks.generation_world import (
    INSTRUCTION,
    PEER_CODEBOOK,
    PEER_LEVELS,
    PROFILE,
    WORDS,
    CountedWords,
)
from sigma_core.config import ModelConfig
from sigma_core.instruction.collate import UserContext
from sigma_core.model.backbone import build_backbone, is_mini
from sigma_core.model.decoder import read_beams, read_prompt

START: Final = WORDS  # the token after which the item is spelled
FIRST_CODE: Final = WORDS + 1
VOCABULARY: Final = FIRST_CODE + PEER_LEVELS * PEER_CODEBOOK
Lists = list[list[int]]


def causal_network(backbone: str, seed: int) -> Any:
    """A transformers causal language model of the backbone's very shape, over words and codes; new weights are random."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = ModelConfig(backbone=backbone)
    body = build_backbone(config)
    settings = body.config.to_dict() | {"vocab_size": VOCABULARY, "use_cache": True}
    settings |= {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0, "attn_implementation": "sdpa"}
    kind = settings.pop("model_type")
    network = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings))
    if not is_mini(config):
        network.model.layers.load_state_dict(body.layers.state_dict())
    with torch.no_grad():
        network.get_input_embeddings().weight.normal_()
    return network.float().eval()


def four_token_prompts(
    users: Sequence[UserContext], codes_N4: np.ndarray, words: CountedWords, codes_per_item: int = PEER_LEVELS
) -> Tensor:
    """Token ids (R, L): profile, the history's items with their codes, instruction, start. All users have one length."""
    offsets = FIRST_CODE + np.arange(codes_per_item) * PEER_CODEBOOK
    before, after = words.ids(PROFILE), np.append(words.ids(INSTRUCTION), START)
    rows = [
        np.concatenate((before, (codes_N4[user.recent_rows, :codes_per_item] + offsets).ravel(), after))
        for user in users
    ]
    return torch.as_tensor(np.stack(rows))


class PeerBeam:
    """Beam search of `transformers.generate`, legal tokens from a dictionary of prefixes.

    `most_rows` bounds requests times beams of one call: larger batches are answered in parts, which is faster and fits memory.
    """

    def __init__(self, network: Any, codes_N4: np.ndarray, most_rows: int) -> None:
        self.network, self.most_rows = network, most_rows
        order = np.lexsort(codes_N4.T[::-1])
        codes = codes_N4[order]
        self.item_of = dict(zip(_numbers(codes).tolist(), order.tolist(), strict=True))
        self.allowed: dict[tuple[int, int], list[int]] = {}
        for level in range(PEER_LEVELS):
            pairs = np.unique(_numbers(codes[:, : level + 1]))
            parents, first = np.unique(pairs // PEER_CODEBOOK, return_index=True)
            tokens = (pairs % PEER_CODEBOOK + FIRST_CODE + level * PEER_CODEBOOK).tolist()
            ends = [*first[1:].tolist(), len(tokens)]
            for parent, start, end in zip(parents.tolist(), first.tolist(), ends, strict=True):
                self.allowed[level, parent] = tokens[start:end]

    def rank(self, prompts_RL: Tensor, num_beams: int, top_n: int) -> Lists:
        """The `top_n` items of each request, best first."""
        size = max(1, self.most_rows // num_beams)
        parts = [
            self._part(prompts_RL[start : start + size], num_beams, top_n)
            for start in range(0, len(prompts_RL), size)
        ]
        return [items for part in parts for items in part]

    def _part(self, prompts_RL: Tensor, num_beams: int, top_n: int) -> Lists:
        length = prompts_RL.shape[1]

        def legal(_: int, tokens: Tensor) -> list[int]:
            spelled = tokens[length:].tolist()
            number = 0
            for level, token in enumerate(spelled):
                number = number * PEER_CODEBOOK + token - FIRST_CODE - level * PEER_CODEBOOK
            return self.allowed.get((len(spelled), number), [0])

        out = self.network.generate(
            input_ids=prompts_RL, attention_mask=torch.ones_like(prompts_RL), do_sample=False, num_beams=num_beams,
            num_return_sequences=top_n, max_new_tokens=PEER_LEVELS, prefix_allowed_tokens_fn=legal, pad_token_id=0,
            use_cache=True,
        )  # fmt: skip
        codes = out[:, length:].numpy() - FIRST_CODE - np.arange(PEER_LEVELS) * PEER_CODEBOOK
        items = [self.item_of[number] for number in _numbers(codes).tolist()]
        return [items[start : start + top_n] for start in range(0, len(items), top_n)]


class OwnFourTokenBeam:
    """The same search with everything our own path has: dense tables of legal codes, one shared cache, no idle states."""

    def __init__(self, network: Any, codes_N4: np.ndarray) -> None:
        self.body = network.model
        head = network.get_output_embeddings().weight.detach()[FIRST_CODE:]
        self.head = head.view(PEER_LEVELS, PEER_CODEBOOK, -1)
        self.embeddings = network.get_input_embeddings().weight.detach()
        order = np.lexsort(codes_N4.T[::-1])
        codes = codes_N4[order]
        self.item_of, self.last_code = torch.as_tensor(order), torch.as_tensor(codes[:, -1])
        self.tables = []
        for level in range(PEER_LEVELS - 1):
            nodes = np.unique(_numbers(codes[:, : level + 1]))
            parents = np.unique(nodes // PEER_CODEBOOK)
            table = np.full((len(parents), PEER_CODEBOOK), -1, dtype=np.int32)
            place = np.searchsorted(parents, nodes // PEER_CODEBOOK)
            table[place, nodes % PEER_CODEBOOK] = np.arange(len(nodes))
            self.tables.append(torch.as_tensor(table))
        _, first, count = np.unique(_numbers(codes[:, :-1]), return_index=True, return_counts=True)
        self.first, self.count = torch.as_tensor(first), torch.as_tensor(count)

    @torch.inference_mode()
    def rank(self, prompts_RL: Tensor, num_beams: int, top_n: int) -> Lists:
        """The `top_n` items of each request, best first."""
        num, length = prompts_RL.shape
        request = torch.arange(num)
        position = torch.arange(length).expand(num, -1)
        state, past = read_prompt(
            self.body, self.embeddings[prompts_RL], None, position, request, torch.full((num,), length - 1)
        )
        valid = torch.ones(num, length, dtype=torch.bool)
        score, node, trail, states = (
            torch.zeros(num, 1),
            torch.zeros(num, 1, dtype=torch.long),
            None,
            state[:, None],
        )
        for level in range(PEER_LEVELS):
            children = self._children(level, node)
            log_probs = (
                (states @ self.head[level].T).masked_fill(children < 0, -torch.inf).log_softmax(dim=-1)
            )
            log_probs = log_probs.masked_fill(log_probs.isnan(), -torch.inf)  # a beam without children
            total = (score[..., None] + log_probs).flatten(1)
            width = top_n if level == PEER_LEVELS - 1 else num_beams
            score, flat = total.topk(min(width, total.shape[1]), dim=1)
            node = children.flatten(1).gather(1, flat).long().clamp_min(0)
            if level == PEER_LEVELS - 1:
                break
            parent, code = flat // PEER_CODEBOOK, flat % PEER_CODEBOOK
            tokens = self.embeddings[FIRST_CODE + level * PEER_CODEBOOK + code][:, :, None]
            at = torch.full((num, 1), length + level)
            is_last = level == PEER_LEVELS - 2
            states, trail = read_beams(
                self.body, past, valid, trail and trail.of(parent), tokens, at, is_last
            )
        return [
            [item for item, value in zip(items, values, strict=True) if value > float("-inf")]
            for items, values in zip(self.item_of[node].tolist(), score.tolist(), strict=True)
        ]

    def _children(self, level: int, node_RK: Tensor) -> Tensor:
        """Node numbers (R, K, C) under each node; -1 where there is none. Under the last level they are sorted items."""
        if level < PEER_LEVELS - 1:
            return self.tables[level][node_RK]
        first, count = self.first[node_RK], self.count[node_RK]
        place = torch.arange(int(count.max()))
        row = (first[..., None] + place).clamp_max(len(self.item_of) - 1)
        here = place < count[..., None]
        out = torch.full((*node_RK.shape, PEER_CODEBOOK + 1), -1, dtype=torch.long)
        return out.scatter_(2, self.last_code[row].masked_fill(~here, PEER_CODEBOOK), row)[..., :-1]


def _numbers(codes: np.ndarray) -> np.ndarray:
    """Codes (N, levels) as one number each."""
    out: np.ndarray = codes @ (PEER_CODEBOOK ** np.arange(codes.shape[1])[::-1])
    return out
