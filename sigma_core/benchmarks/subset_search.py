"""`sigma benchmark subset-search`: step 2 alone, all items under each searched prefix, by several means.

Ours: the rows of a prefix lie together and are one slice of the table (gathered rows where there are few; the product
chooses by `SMALL_SEARCH`). Theirs: a faiss flat index a prefix, and faiss IVF with the prefixes as its lists. All give the exact
best `TOP` of each (request, prefix) pair from the same float32 rows. Our choice.

Shape legend: N items, X (request, prefix) pairs, E width.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from sigma_core.benchmarks.timing import Clock, alternate
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from torch import Tensor

    from sigma_core.generation.subset_search import PrefixRanges

TOP: Final = 20  # items kept under each prefix
PRODUCT: Final = "product"
FLAT, IVF = "faiss_flat_per_prefix", "faiss_ivf"
MOST_GATHERED: Final = 2**30  # bytes: gathered rows are copied, larger searches leave that side out


@dataclass(frozen=True)
class SubsetSearchSettings:
    """Sizes of the tables, width, items a prefix on average, requests of a batch, prefixes a request, faiss' sides.

    Each faiss side holds a copy of the table: where memory is short, measure one at a time beside the product.
    """

    items: tuple[int, ...] = (10_000, 1_000_000, 10_000_000)
    width: int = 64
    group_size: int = 1000
    batches: tuple[int, ...] = (1, 64)
    prefixes: int = 20
    rounds: int = 9
    threads: int = 2
    clock: Clock = "wall"
    seed: int = 17
    faiss: tuple[str, ...] = (FLAT, IVF)


def run_subset_search(settings: SubsetSearchSettings, progress: Progress = no_progress) -> dict[str, Any]:
    """`rows`: size, batch and side with milliseconds and memory; `fastest`: which side won, by items and batch."""
    import faiss
    import torch

    torch.set_num_threads(settings.threads)
    faiss.omp_set_num_threads(settings.threads)
    rows: list[dict[str, Any]] = []
    for number, items in enumerate(settings.items):
        progress(number, len(settings.items), f"{items} items")
        rows += _of_size(items, settings)
    fastest = {}
    for items in settings.items:
        for batch in settings.batches:
            mine = [row for row in rows if row["items"] == items and row["batch"] == batch]
            fastest[f"{items}_batch_{batch}"] = min(mine, key=lambda row: row["ms"])["side"]
    return {"rows": rows, "fastest": fastest, "settings": asdict(settings)}


def _of_size(items: int, settings: SubsetSearchSettings) -> list[dict[str, Any]]:
    import torch

    from sigma_core.generation import subset_search as product

    rng = np.random.default_rng(settings.seed)
    groups = max(settings.prefixes, items // settings.group_size)
    prefix = np.sort(rng.integers(0, groups, items))
    table = torch.from_numpy(_unit(rng, items, settings.width))
    ranges = product.PrefixRanges.of_sorted(torch.as_tensor(prefix)[:, None])
    num_groups = len(ranges.length_Q)
    theirs: dict[str, Callable[[np.ndarray, np.ndarray], Any]] = {}
    held: dict[str, int] = {}
    if FLAT in settings.faiss:
        flat = _FlatPerPrefix(table.numpy(), ranges.start_Q.tolist(), ranges.length_Q.tolist())
        theirs[FLAT], held[FLAT] = flat.search, flat.bytes
    if IVF in settings.faiss:
        group_N = np.repeat(np.arange(num_groups), ranges.length_Q.numpy())
        theirs[IVF], held[IVF] = _ivf(table.numpy(), group_N, num_groups)
    out = []
    for batch in settings.batches:
        pairs = np.concatenate(
            [rng.choice(num_groups, settings.prefixes, replace=False) for _ in range(batch)]
        )
        query = torch.from_numpy(_unit(rng, len(pairs), settings.width))
        sides = _torch_sides(query, torch.as_tensor(pairs), table, ranges)
        sides |= {name: partial(search, query.numpy(), pairs) for name, search in theirs.items()}
        for side, timing in alternate(sides, settings.rounds, settings.clock).items():
            out.append(
                {
                    "items": items, "batch": batch, "side": side, "ms": 1e3 * timing.p50, "p95_ms": 1e3 * timing.p95,
                    "index_mib": round(held.get(side, table.numel() * 4) / 2**20, 1), "added_mib": timing.added_mib,
                }
            )  # fmt: skip
    return out


def _torch_sides(
    query_XE: "Tensor", group_X: "Tensor", table_NE: "Tensor", ranges: "PrefixRanges"
) -> dict[str, Callable[[], Any]]:
    """The product's search and its two ways, each with the best `TOP` of every pair."""
    import torch

    from sigma_core.generation import subset_search as product
    from sigma_core.generation.fusion import top_of_rows

    width = int(ranges.length_Q[group_X].max())
    valid = torch.arange(width) < ranges.length_Q[group_X][:, None]

    def best(hits: "Tensor") -> Any:
        return top_of_rows(hits.masked_fill(~valid, -2.0), TOP)

    def gathered() -> Any:
        row = (ranges.start_Q[group_X][:, None] + torch.arange(width)).clamp_max(len(table_NE) - 1)
        return best((table_NE[row] @ query_XE[..., None]).squeeze(-1))

    sides: dict[str, Callable[[], Any]] = {
        PRODUCT: lambda: best(product.search_groups(query_XE, group_X, table_NE, ranges).cosine_XG),
        "torch_slices": lambda: best(product.by_slices(query_XE, group_X, table_NE, ranges, width)),
    }
    if query_XE.numel() * width * 4 < MOST_GATHERED:
        sides["torch_gathered"] = gathered
    return sides


def _unit(rng: np.random.Generator, count: int, width: int) -> np.ndarray:
    """Random unit rows, float32, made in place: ten million of them are 2.5 GB."""
    out = rng.standard_normal((count, width), dtype=np.float32)
    out /= np.linalg.norm(out, axis=1, keepdims=True)
    return out


class _FlatPerPrefix:
    """One flat inner-product index a prefix: what most serving stacks would put together. Built when first asked for."""

    def __init__(self, table_NE: np.ndarray, starts: list[int], lengths: list[int]) -> None:
        import faiss

        self.bytes = table_NE.nbytes
        self._indexes = []
        for start, length in zip(starts, lengths, strict=True):
            index = faiss.IndexFlatIP(table_NE.shape[1])
            index.add(table_NE[start : start + length])
            self._indexes.append(index)

    def search(self, query_XE: np.ndarray, group_X: np.ndarray) -> list[Any]:
        """Best `TOP` of each pair, pairs of one prefix in one call."""
        order = np.argsort(group_X, kind="stable")
        groups, first = np.unique(group_X[order], return_index=True)
        parts = np.split(order, first[1:])
        return [
            self._indexes[group].search(query_XE[mine], TOP)
            for group, mine in zip(groups.tolist(), parts, strict=True)
        ]


def _ivf(
    table_NE: np.ndarray, group_N: np.ndarray, num_groups: int
) -> tuple[Callable[[np.ndarray, np.ndarray], Any], int]:
    """faiss IVF whose lists are the prefixes: the list of each query is given, nothing is probed."""
    import faiss

    quantizer = faiss.IndexFlatIP(table_NE.shape[1])
    quantizer.add(np.zeros((num_groups, table_NE.shape[1]), dtype=np.float32))
    index: Any = faiss.IndexIVFFlat(quantizer, table_NE.shape[1], num_groups, faiss.METRIC_INNER_PRODUCT)
    index.is_trained = True
    step = 200_000
    for start in range(0, len(table_NE), step):
        part = np.ascontiguousarray(table_NE[start : start + step])
        lists = np.ascontiguousarray(group_N[start : start + step].astype(np.int64))
        ids = np.arange(start, start + len(part), dtype=np.int64)
        index.add_core(len(part), faiss.swig_ptr(part), faiss.swig_ptr(ids), faiss.swig_ptr(lists))
    index.nprobe = 1

    def search(query_XE: np.ndarray, group_X: np.ndarray) -> Any:
        lists = np.ascontiguousarray(group_X[:, None].astype(np.int64))
        return index.search_preassigned(query_XE, TOP, lists, np.zeros(lists.shape, dtype=np.float32))

    return search, table_NE.nbytes + 8 * len(table_NE)
