"""The networks of the benchmark, made from a lab: sizes from the profile, item vectors started from what the protocol shows.

Our choice: vectors that start from content or from co-occurrence reach in three epochs what random ones reach in ten.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from sigma_core.benchmarks.leave_one_out.data import Protocol
from sigma_core.benchmarks.leave_one_out.features import FloatArray, principal, unit
from sigma_core.benchmarks.leave_one_out.networks import CatalogModel, SemanticIdModel
from sigma_core.benchmarks.leave_one_out.sigma_network import SigmaNetwork

if TYPE_CHECKING:
    from sigma_core.benchmarks.leave_one_out.models import Lab

START_NOISE: Final = 0.01  # tells apart items whose start is the same


def sasrec(lab: "Lab", protocol: Protocol) -> CatalogModel:
    """SASRec with the exact softmax over the catalogue: random item vectors, plain products."""
    del protocol
    width = lab.profile.trunk.width
    return _catalog_model(lab, torch.randn(lab.data.num_items, width) * width**-0.5, cosine=False)


def text(lab: "Lab", protocol: Protocol) -> CatalogModel:
    """The text model of EnsRec: item vectors start from titles and categories."""
    del protocol
    return _catalog_model(lab, _start(lab.content(), lab.profile.trunk.width), cosine=True)


def gr_id(lab: "Lab", protocol: Protocol) -> CatalogModel:
    """GR (ID): unique fused vectors only, ranked over the catalogue by plain products, as SIGMA's fused stream; no prefix."""
    both = np.concatenate([unit(lab.content()), lab.together(protocol)], axis=1)
    return _catalog_model(lab, _start(both, lab.profile.trunk.width), cosine=False)


def gr_sid(lab: "Lab", protocol: Protocol) -> SemanticIdModel:
    """GR (SID): semantic IDs only, of the space that SIGMA's prefixes are cut in."""
    own = lab.profile.beam_search
    codes = lab.remember(f"codes-{protocol}", lambda: semantic_codes(lab, protocol))
    return SemanticIdModel(torch.from_numpy(codes), lab.profile.trunk, own, lab.profile.training.max_length)


def sigma(lab: "Lab", protocol: Protocol, streams: Sequence[str] = ()) -> SigmaNetwork:
    """SIGMA of the named streams, of all of `STREAMS` when none is named; prefixes on content and teacher.

    The ID stream starts as `sasrec`, the text stream as `text`, the fused stream as `gr_id`, from content and the collaborative
    teacher together.
    """
    width = lab.profile.trunk.width
    starts: dict[str, Callable[[], Tensor]] = {
        "id": lambda: torch.randn(lab.data.num_items, width) * width**-0.5,
        "text": lambda: _start(lab.content(), width),
        "fused": lambda: _start(np.concatenate([unit(lab.content()), lab.together(protocol)], axis=1), width),
    }
    names = streams or tuple(STREAMS)
    prefixes = lab.remember(f"prefixes-{protocol}", lambda: prefix_codes(lab, protocol))
    return SigmaNetwork(
        [starts[name]() for name in names],
        torch.from_numpy(prefixes),
        lab.profile.trunk,
        lab.profile.sigma,
        lab.profile.training.max_length,
        cosine=[STREAMS[name] for name in names],
    )


STREAMS: Final[Mapping[str, bool]] = {"id": False, "text": True, "fused": False}
"""Of SIGMA, and whether each compares by cosine: text learns by cosine, what knows purchases by plain products."""
NETWORKS: Final[Mapping[str, Callable[["Lab", Protocol], Any]]] = {
    "sasrec_ce": sasrec,
    "text": text,
    "gr_id": gr_id,
    "gr_sid": gr_sid,
    **{f"sigma_{name}": partial(sigma, streams=(name,)) for name in STREAMS},
}


def prefix_codes(lab: "Lab", protocol: Protocol) -> np.ndarray:
    """int64 [N]: prefix of each item, 0 to C - 1 all used; balanced k-means on text beside co-occurrence."""
    from sigma_core.tokenization.balanced_kmeans import balanced_kmeans

    own, space = lab.profile.sigma, code_space(lab, protocol)
    weights = np.ones(len(space))
    found = balanced_kmeans(
        space, weights, own.num_prefixes, max_ratio=own.max_group_ratio, iterations=20, seed=0
    )
    used: np.ndarray = np.unique(found.labels, return_inverse=True)[1]
    return used.astype(np.int64)


def code_space(lab: "Lab", protocol: Protocol) -> FloatArray:
    """What codes are cut from, [N, ...]: unit text vectors beside co-occurrence."""
    texts = lab.texts() - lab.texts().mean(axis=0)
    together = lab.profile.sigma.collaborative_weight * lab.together(protocol)
    return np.asarray(np.concatenate([unit(texts), together], axis=1), np.float32)


def semantic_codes(lab: "Lab", protocol: Protocol) -> np.ndarray:
    """int64 [N, levels]: residual k-means codes; the last code numbers the items that share all others."""
    from sigma_core.tokenization.balanced_kmeans import kmeans, nearest

    own = lab.profile.beam_search
    residual = code_space(lab, protocol)
    weights = np.ones(len(residual))
    levels = []
    for level in range(own.num_levels - 1):
        centers = kmeans(residual, weights, own.codebook_size, iterations=20, seed=level)
        code = nearest(residual, centers)
        residual = residual - centers[code]
        levels.append(np.unique(code, return_inverse=True)[1])
    codes = np.stack(levels, axis=1)
    seen: dict[tuple[int, ...], int] = {}
    last = np.zeros(len(codes), np.int64)
    for row, key in enumerate(map(tuple, codes.tolist())):
        last[row] = seen.get(key, 0)
        seen[key] = last[row] + 1
    return np.concatenate([codes, last[:, None]], axis=1).astype(np.int64)


def _catalog_model(lab: "Lab", start: Tensor, *, cosine: bool) -> CatalogModel:
    return CatalogModel(start, lab.profile.trunk, lab.profile.training.max_length, cosine=cosine)


def _start(vectors: FloatArray, width: int) -> Tensor:
    """Unit rows (N, width): principal components, with a little noise so that no two items start as one."""
    start = torch.from_numpy(principal(vectors, width))
    return torch.nn.functional.normalize(start + START_NOISE * torch.randn(start.shape), dim=1)
