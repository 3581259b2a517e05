"""A decoder's forward pass for answering: only the states that are read, and beams beside one shared past.

Of a prompt, generation reads one state a request, so the last layer makes keys and values of all tokens but a query, an
attention and an MLP of those only; beams attend to the user's keys where they lie, without a copy a beam. The numbers are
those of the transformers model, which training uses; families that are not listed keep to it. It knows tensors, no items
and no prompts. Our choice.

Shape legend: B users, R requests, L prompt positions, K beams, S new tokens of a beam, T tokens of a beam so far, D hidden,
H heads, G key heads, W head width.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention

from sigma_core.model.heads import Slots

FAMILIES: Final = ("PlainDecoderLayer", "Qwen3DecoderLayer", "Qwen2DecoderLayer", "LlamaDecoderLayer")
TOKENS_AT_A_TIME: Final = 2048  # of a prompt batch: measured best on CPUs with 1 to 2 MiB of cache a core
NORMED: Final = ("PlainAttention", "Qwen3Attention")  # attentions that normalise queries and keys


class KeyValues(NamedTuple):
    """What one layer remembers: of a prompt (R or B, G, L, W), of beams (R, G, K, T, W)."""

    key: Tensor
    value: Tensor


class Trail(NamedTuple):
    """What every layer remembers of each beam's own tokens."""

    layers: tuple[KeyValues, ...]

    def of(self, parent_RK: Tensor) -> "Trail":
        """The trail of each chosen beam's parent."""
        index = parent_RK[:, None, :, None, None]
        return Trail(
            tuple(
                KeyValues(
                    *(x.gather(2, index.expand(-1, x.shape[1], -1, x.shape[3], x.shape[4])) for x in layer)
                )
                for layer in self.layers
            )
        )


def is_known(backbone: Any) -> bool:
    """Whether the backbone's layers are of a family this module computes itself."""
    layers = getattr(backbone, "layers", None)
    return layers is not None and all(type(layer).__name__ in FAMILIES for layer in layers)


def read_prompt(
    backbone: Any,
    embeds_BLD: Tensor,
    mask_B1LL: Tensor | None,
    position_BL: Tensor,
    user_R: Tensor,
    at_R: Tensor,
) -> tuple[Tensor, tuple[KeyValues, ...]]:
    """States (R, D) of the tokens `at_R` of rows `user_R`, and keys and values of all tokens, layer by layer.

    Without a mask a token sees what stands before it in its row. Rows are read a few at a time, so that what a layer hands to
    the next is still in the cache of the processor.
    """
    size = max(1, TOKENS_AT_A_TIME // embeds_BLD.shape[1])
    if len(embeds_BLD) <= size:
        return _read_rows(backbone, embeds_BLD, mask_B1LL, position_BL, user_R, at_R)
    state_RD = embeds_BLD.new_empty(len(user_R), embeds_BLD.shape[2])
    parts = []
    for first in range(0, len(embeds_BLD), size):
        rows = slice(first, first + size)
        mine = ((user_R >= first) & (user_R < first + size)).nonzero().squeeze(1)
        mask = None if mask_B1LL is None else mask_B1LL[rows]
        state_RD[mine], past = _read_rows(
            backbone, embeds_BLD[rows], mask, position_BL[rows], user_R[mine] - first, at_R[mine]
        )
        parts.append(past)
    return state_RD, _joined(parts)


def _read_rows(
    backbone: Any,
    embeds_BLD: Tensor,
    mask_B1LL: Tensor | None,
    position_BL: Tensor,
    user_R: Tensor,
    at_R: Tensor,
) -> tuple[Tensor, tuple[KeyValues, ...]]:
    """`read_prompt` of all rows at once."""
    hidden, past = embeds_BLD, []
    turn = _turn(backbone, embeds_BLD, position_BL)
    slots = Slots(user_R, len(embeds_BLD))
    *lower, last = backbone.layers
    for layer in lower:
        normed = _norm(layer.input_layernorm, hidden)
        past.append(_key_values(layer.self_attn, normed, turn))
        query = _query(layer.self_attn, normed, turn)
        mixed = scaled_dot_product_attention(
            query, *past[-1], attn_mask=mask_B1LL, is_causal=mask_B1LL is None, enable_gqa=_groups(layer) > 1
        )
        hidden = _rest(layer, hidden, mixed.transpose(1, 2).flatten(2))
    normed = _norm(last.input_layernorm, hidden)
    past.append(_key_values(last.self_attn, normed, turn))
    place = slots.pad(at_R)  # (B, most requests of a user)
    index = place[..., None]
    chosen = hidden.gather(1, index.expand(-1, -1, hidden.shape[2]))
    own = tuple(part.gather(1, index.expand(-1, -1, part.shape[2])) for part in turn)
    query = _query(last.self_attn, normed.gather(1, index.expand(-1, -1, hidden.shape[2])), own)
    if mask_B1LL is None:
        seen = torch.arange(hidden.shape[1], device=hidden.device) <= index
        mask = torch.zeros(seen.shape, device=hidden.device).masked_fill_(~seen, _lowest(hidden))[:, None]
    else:
        mask = mask_B1LL.gather(2, place[:, None, :, None].expand(-1, -1, -1, mask_B1LL.shape[3]))
    mixed = scaled_dot_product_attention(query, *past[-1], attn_mask=mask, enable_gqa=_groups(last) > 1)
    state = _norm(backbone.norm, _rest(last, chosen, mixed.transpose(1, 2).flatten(2)))
    return slots.flat(state), tuple(past)


class Onward(NamedTuple):
    """One user whose prompt is read from where it was left.

    Attributes:
        room: (2, layers, G, C, W), keys and values; the first `past` are there, reading writes those of the new tokens behind.
        past: positions that are there.
        size: new tokens.
        mask_NN: additive, what the new tokens see of each other; of the past they see all.
        at_R: which new tokens' states are wanted.
    """

    room: Tensor
    past: int
    size: int
    mask_NN: Tensor
    at_R: Tensor


def read_onwards(
    backbone: Any, embeds_XD: Tensor, position_X: Tensor, users: Sequence[Onward]
) -> tuple[Tensor, Tensor]:
    """States (R, D) of the wanted tokens of all users, and keys and values (2, layers, G, X, W) of the new tokens.

    New tokens of all users stand one after the other, without padding; only attention goes user by user, over the keys where
    they lie.
    """
    hidden = embeds_XD[None]
    turn = _turn(backbone, hidden, position_X[None])
    ends = list(accumulate(user.size for user in users))
    fresh: list[Tensor] = []
    masks, sizes = [user.mask_NN for user in users], [user.size for user in users]
    for number, layer in enumerate(backbone.layers):
        normed = _norm(layer.input_layernorm, hidden)
        fresh.append(torch.stack(_key_values(layer.self_attn, normed, turn))[:, 0])
        if number == len(backbone.layers) - 1:  # of the last layer only the wanted tokens are read
            at = torch.cat([user.at_R + end - user.size for user, end in zip(users, ends, strict=True)])
            hidden, normed, *turned = (part[:, at] for part in (hidden, normed, *turn))
            turn = tuple(turned)
            masks = [user.mask_NN[user.at_R] for user in users]
            sizes = [len(user.at_R) for user in users]
        query = (_query(layer.self_attn, normed, turn)[0] * layer.self_attn.scaling).split(sizes, dim=1)
        new = fresh[-1].split([user.size for user in users], dim=2)
        mixed = [
            _onward(mine, some, user.room[:, number], user.past, mask)
            for mine, some, user, mask in zip(query, new, users, masks, strict=True)
        ]
        hidden = _rest(layer, hidden, torch.cat(mixed)[None])
    return _norm(backbone.norm, hidden)[0], torch.stack(fresh, dim=1)


def _onward(query_HQW: Tensor, fresh_2GNW: Tensor, room_2GCW: Tensor, past: int, mask_QN: Tensor) -> Tensor:
    """Attention (Q, H*W) of one user's tokens over the past and the new tokens, whose keys and values are written behind it."""
    heads, tokens, width = query_HQW.shape
    room_2GCW[:, :, past : past + fresh_2GNW.shape[2]] = fresh_2GNW
    key, value = room_2GCW[:, :, : past + fresh_2GNW.shape[2]]
    scores = query_HQW.reshape(len(key), -1, width) @ key.transpose(1, 2)
    scores.view(heads, tokens, -1)[..., past:].add_(mask_QN)
    return (scores.softmax(dim=-1) @ value).view(heads, tokens, width).transpose(0, 1).flatten(1)


def read_beams(
    backbone: Any,
    past: Sequence[KeyValues],
    valid_RL: Tensor,
    trail: Trail | None,
    embeds_RKSD: Tensor,
    position_RS: Tensor,
    is_last: bool = False,
) -> tuple[Tensor, Trail | None]:
    """States (R, K, D) of each beam's last new token, and the beams' trail with the new tokens; none when they are the last.

    A new token sees the valid past of its request, its beam's trail and the new tokens before it. Requests are read a few at
    a time, as prompts are.
    """
    num, beams, size, _ = embeds_RKSD.shape
    few = max(1, TOKENS_AT_A_TIME // (beams * size))
    states, trails = [], []
    for first in range(0, num, few):
        rows = slice(first, first + few)
        state, mine = _read_beams(
            backbone, _rows(past, rows), valid_RL[rows], trail and Trail(_rows(trail.layers, rows)),
            embeds_RKSD[rows], position_RS[rows],
        )  # fmt: skip
        states.append(state)
        trails.append(mine.layers)
    if is_last:
        return torch.cat(states), None
    return torch.cat(states), Trail(_joined(trails))


def _rows(layers: Sequence[KeyValues], rows: slice) -> tuple[KeyValues, ...]:
    """Some rows of what every layer remembers."""
    return tuple(KeyValues(key[rows], value[rows]) for key, value in layers)


def _joined(parts: Sequence[Sequence[KeyValues]]) -> tuple[KeyValues, ...]:
    """What every layer remembers of the rows of all parts."""
    layers = zip(*parts, strict=True)
    return tuple(KeyValues(*(torch.cat(part) for part in zip(*layer, strict=True))) for layer in layers)


def _read_beams(
    backbone: Any,
    past: Sequence[KeyValues],
    valid_RL: Tensor,
    trail: Trail | None,
    embeds_RKSD: Tensor,
    position_RS: Tensor,
) -> tuple[Tensor, Trail]:
    """`read_beams` of all requests at once."""
    num, beams, size, width = embeds_RKSD.shape
    hidden = embeds_RKSD.reshape(num, beams * size, width)
    position = position_RS[:, None].expand(-1, beams, -1).reshape(num, -1)
    turn = _turn(backbone, hidden, position)
    hides = torch.zeros(valid_RL.shape, device=hidden.device).masked_fill_(~valid_RL, _lowest(hidden))
    trails: list[KeyValues] = []
    for number, layer in enumerate(backbone.layers):
        normed = _norm(layer.input_layernorm, hidden)
        fresh = KeyValues(
            *(x.unflatten(2, (beams, size)) for x in _key_values(layer.self_attn, normed, turn))
        )
        old = trail.layers[number] if trail is not None else None
        trails.append(
            fresh if old is None else KeyValues(*(torch.cat(x, 3) for x in zip(old, fresh, strict=True)))
        )
        if number == len(backbone.layers) - 1:  # of the last layer only the last token is read
            hidden, normed = hidden[:, size - 1 :: size], normed[:, size - 1 :: size]
            turn, size = tuple(part[:, size - 1 :: size] for part in turn), 1
        query = _query(layer.self_attn, normed, turn)
        mixed = _beside(query, past[number], hides, trails[-1], size, layer.self_attn.scaling)
        hidden = _rest(layer, hidden, mixed)
    return _norm(backbone.norm, hidden), Trail(tuple(trails))


def _beside(
    query_RHXW: Tensor, past: KeyValues, hides_RL: Tensor, trail: KeyValues, size: int, scaling: float
) -> Tensor:
    """Attention (R, X, H*W) of X = K*S tokens over their request's past and their own beam's trail; X ends each beam."""
    num, heads, tokens, width = query_RHXW.shape
    groups = trail.key.shape[1]
    query = query_RHXW.reshape(num, groups, -1, width) * scaling  # (R, G, heads of a group * X, W)
    far = (query @ past.key.transpose(2, 3)).add_(hides_RL[:, None, None])
    beams, length = trail.key.shape[2:4]
    near_query = query.view(num, groups, heads // groups, beams, size, width)
    near_key, near_value = trail.key[:, :, None], trail.value[:, :, None]
    near = near_query @ near_key.transpose(4, 5)  # (R, G, H/G, K, S, T)
    if size > 1:
        later = torch.ones(size, length, dtype=torch.bool, device=near.device).triu(length - size + 1)
        near = near.masked_fill(later, _lowest(near))
    near = near.reshape(num, groups, -1, length)
    top = torch.maximum(far.amax(dim=-1, keepdim=True), near.amax(dim=-1, keepdim=True))
    far.sub_(
        top
    ).exp_()  # one softmax over both parts, in place: joining them would copy the larger one twice
    near = (near - top).exp()
    total = far.sum(dim=-1, keepdim=True) + near.sum(dim=-1, keepdim=True)
    close = near.view(num, groups, heads // groups, beams, size, length) @ near_value
    out = (far @ past.value + close.reshape(num, groups, -1, width)) / total
    return out.view(num, heads, tokens, width).transpose(1, 2).reshape(num, tokens, -1)


def _rest(layer: Any, hidden: Tensor, mixed: Tensor) -> Tensor:
    """What a layer does after its attention."""
    hidden = hidden + layer.self_attn.o_proj(mixed)
    return hidden + layer.mlp(_norm(layer.post_attention_layernorm, hidden))


def _norm(module: Any, x: Tensor) -> Tensor:
    """The families' root-mean-square norm in one call instead of six."""
    return rms_norm(x, (x.shape[-1],), module.weight, module.variance_epsilon)


def _query(attention: Any, normed: Tensor, turn: tuple[Tensor, ...]) -> Tensor:
    query = attention.q_proj(normed).unflatten(-1, (-1, attention.head_dim))
    if type(attention).__name__ in NORMED:
        query = _norm(attention.q_norm, query)
    return _turned(query, turn).transpose(1, 2)


def _key_values(attention: Any, normed: Tensor, turn: tuple[Tensor, ...]) -> KeyValues:
    key = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim))
    if type(attention).__name__ in NORMED:
        key = _norm(attention.k_norm, key)
    value = attention.v_proj(normed).unflatten(-1, (-1, attention.head_dim))
    return KeyValues(_turned(key, turn).transpose(1, 2), value.transpose(1, 2))


def _turn(backbone: Any, hidden: Tensor, position: Tensor) -> tuple[Tensor, ...]:
    """Cosines and sines (rows, tokens, W/2) of the rotary positions; the second half repeats the first."""
    cos, sin = backbone.rotary_emb(hidden, position)
    half = cos.shape[-1] // 2
    return cos[..., :half], sin[..., :half]


def _turned(x: Tensor, turn: tuple[Tensor, ...]) -> Tensor:
    """Rotary embedding of (rows, tokens, heads, W)."""
    cos, sin = (part[:, :, None] for part in turn)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _groups(layer: Any) -> int:
    return int(layer.self_attn.num_key_value_groups)


def _lowest(like: Tensor) -> float:
    return float(torch.finfo(like.dtype).min)
