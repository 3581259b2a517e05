"""The item index of a day: fused unique vectors v~ of the whole catalog, rows sorted by prefix, with offsets.

Holds the artifact and how it is built; searching it is `generation/subset_search.py`. Source: paper, hybrid tokenization
(unique item embeddings) and three-step generation (search inside a prefix); the layout is our choice.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from sigma_core.artifacts import digest_arrays, digest_json, read_json, write_json

if TYPE_CHECKING:
    import torch

    from sigma_core.generation.recommender import ItemTable
    from sigma_core.tokenization.item_features import ItemFeatures
    from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase


class ItemIndex:
    """v~ of a catalog.

    Attributes:
        item_ids: N ids in row order: sorted by prefix, then id.
        vectors: float32 [N, E], unit rows.
        text: float32 [N, T + W], match vectors of the texts: what a request's words are compared with.
        prefixes: int32 [N, P].
        offsets: int64 [groups + 1], where each prefix group begins, and N.
        bound_to: compatibility digest of the model that made the vectors.
    """

    def __init__(
        self,
        item_ids: Sequence[str],
        vectors: np.ndarray,
        text: np.ndarray,
        prefixes: np.ndarray,
        bound_to: str,
        with_id: int,
    ) -> None:
        self.item_ids = list(item_ids)
        self.vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        self.text = np.ascontiguousarray(text, dtype=np.float32)
        self.prefixes = np.ascontiguousarray(prefixes, dtype=np.int32)
        self.bound_to = bound_to
        self.with_id = with_id
        changes = np.flatnonzero((self.prefixes[1:] != self.prefixes[:-1]).any(axis=1)) + 1
        self.offsets = np.concatenate(([0], changes, [len(self.item_ids)])).astype(np.int64)
        self._digest: str | None = None

    def table(
        self,
        counts_NA: np.ndarray,
        num_codes: int,
        text_groups: Sequence[str] | None = None,
        device: "torch.device | str" = "cpu",
    ) -> "ItemTable":
        """The index as tensors on the device.

        Args:
            counts_NA: how much each item is bought (`item_activity.aligned_counts`), aligned with `item_ids`.
            num_codes: codes of a level.
            text_groups: aligned too; lets a shown list collapse equal titles.
        """
        import torch

        from sigma_core.generation.recommender import ItemTable
        from sigma_core.model.heads import ItemTensors, activity_tensors

        numbers = None if text_groups is None else np.unique(np.asarray(text_groups), return_inverse=True)[1]
        prefixes = self.prefixes.astype(np.int64)
        return ItemTable(
            ItemTensors(
                *(torch.as_tensor(part, device=device) for part in (self.vectors, self.text, prefixes))
            ),
            activity_tensors(counts_NA[None], prefixes[:, 0], num_codes, torch.device(device)),
            None if numbers is None else torch.as_tensor(numbers.reshape(-1), device=device),
        )

    def save(self, directory: Path) -> None:
        """Write `vectors.safetensors` and `items.json`."""
        from safetensors.numpy import save_file

        tensors = {"vectors": self.vectors, "text": self.text, "prefixes": self.prefixes}
        save_file(tensors, directory / "vectors.safetensors")
        write_json(directory / "items.json", self._meta())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote."""
        from safetensors.numpy import load_file

        tensors = load_file(directory / "vectors.safetensors")
        meta = read_json(directory / "items.json")
        return cls(vectors=tensors["vectors"], text=tensors["text"], prefixes=tensors["prefixes"], **meta)

    def digest(self) -> str:
        """Digest of ids, vectors, prefixes and binding, computed once: an index is never changed."""
        if self._digest is None:
            arrays = {"v": self.vectors, "t": self.text, "p": self.prefixes}
            self._digest = digest_json([digest_arrays(arrays), self._meta()])
        return self._digest

    def summary(self) -> dict[str, Any]:
        """Sizes."""
        sizes = np.diff(self.offsets)
        return {
            "items": len(self.item_ids),
            "with_id_vector": self.with_id,
            "prefix_groups": len(sizes),
            "largest_group": int(sizes.max()) if len(sizes) else 0,
            "dim": int(self.vectors.shape[1]),
        }

    def _meta(self) -> dict[str, Any]:
        return {"item_ids": self.item_ids, "bound_to": self.bound_to, "with_id": self.with_id}


def build_item_index(base: "SigmaBase", checkpoint: "LoraCheckpoint", features: "ItemFeatures") -> ItemIndex:
    """The index of the features' items. The fusion is the base's: an adapter moves no vector.

    Raises:
        ArtifactError: base and checkpoint do not belong together.
    """
    import torch

    from sigma_core.model.sigma import item_streams

    checkpoint.check_bound(base.bound_to, "sigma_base")
    order = np.lexsort((np.arange(len(features.item_ids)), *features.prefix.T[::-1]))
    with torch.inference_mode():
        vectors = base.build_fusion()(item_streams(features)).numpy()
    return ItemIndex(
        [features.item_ids[row] for row in order], vectors[order], features.match()[order], features.prefix[order],
        base.bound_to, int(features.has_id.sum()),
    )  # fmt: skip
