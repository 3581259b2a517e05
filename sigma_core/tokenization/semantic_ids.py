"""The semantic ID of every item of a day's catalog.

Refit items keep the codes stored with the codebooks; later ones are coded from the first text ever seen of them, so the map
needs no memory and no ID moves between two refits. It fits nothing. Source: paper section on hybrid item tokenization;
pinning is ours (paper.md, decision 2).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TableArtifact
from sigma_core.grounding.embed import ItemEmbeddings
from sigma_core.tokenization.codebooks import Codebooks

if TYPE_CHECKING:
    from sigma_core.data.catalog import ItemCatalog

REFIT = "refit"
LAUNCH = "launch"
_LEVEL_NAMES = "abcdefgh"


class SemanticIdMap(TableArtifact):
    """ITEM_ID (ascending, distinct), CODES, PREFIX (the leading codes that become tokens), CODE_SOURCE refit | launch."""

    schema: ClassVar[dict[str, Any]] = {
        c.ITEM_ID: pl.String,
        c.CODES: pl.List(pl.Int32),
        c.PREFIX: pl.List(pl.Int32),
        c.CODE_SOURCE: pl.String,
    }

    def prefixes(self) -> np.ndarray:
        """int32 [N, prefix length], aligned with the rows."""
        return _matrix(self.frame[c.PREFIX])

    def codes(self) -> np.ndarray:
        """int32 [N, L], aligned with the rows."""
        return _matrix(self.frame[c.CODES])

    def summary(self) -> dict[str, Any]:
        """Rows, rows by origin of the code, number of distinct prefixes."""
        counts = self.frame.group_by(c.CODE_SOURCE).len().sort(c.CODE_SOURCE)
        return {
            **super().summary(),
            "by_code_source": dict(counts.iter_rows()),
            "distinct_prefixes": self.frame[c.PREFIX].n_unique(),
        }


def _matrix(column: pl.Series) -> np.ndarray:
    if column.len() == 0:
        return np.zeros((0, 1), dtype=np.int32)
    return np.array(column.explode().to_numpy(), dtype=np.int32).reshape(column.len(), -1)


def build_semantic_id_map(
    catalog: "ItemCatalog",
    codebooks: Codebooks,
    launch_vectors: ItemEmbeddings,
    encode: Callable[[np.ndarray], np.ndarray] | None = None,
) -> SemanticIdMap:
    """The semantic IDs of the catalog's items.

    `launch_vectors` must hold every catalog item that is not a refit item (more are ignored), made from LAUNCH_TEXT by the
    codebooks' own encoder. `encode` stands in for `codebooks.encode` where the codes of some vectors are remembered.

    Raises:
        ValueError: an item without a vector, or vectors of another encoder.
    """
    if launch_vectors.encoder_digest != codebooks.encoder_digest:
        raise ValueError(
            f"the launch vectors come from encoder {launch_vectors.encoder_digest}, the codebooks from "
            f"{codebooks.encoder_digest}: two different spaces. Embed the items with the encoder of the codebooks' refit."
        )
    item_ids = catalog.frame[c.ITEM_ID].sort().to_list()
    refit = {item: row for row, item in enumerate(codebooks.item_ids)}
    later = [item for item in item_ids if item not in refit]
    coded = (encode or codebooks.encode)(launch_vectors.vectors[launch_vectors.rows(later)])
    all_codes = np.concatenate((codebooks.codes, coded.reshape(len(later), -1))) if later else codebooks.codes
    row_of = refit | {item: len(refit) + number for number, item in enumerate(later)}
    codes_NL = np.array(all_codes[[row_of[item] for item in item_ids]], dtype=np.int32)
    return SemanticIdMap(
        pl.DataFrame(
            {
                c.ITEM_ID: pl.Series(item_ids, dtype=pl.String),
                c.CODES: _lists(codes_NL),
                c.PREFIX: _lists(codes_NL[:, : codebooks.prefix_length]),
                c.CODE_SOURCE: pl.Series(
                    [REFIT if item in refit else LAUNCH for item in item_ids], dtype=pl.String
                ),
            }
        )
    )


def _lists(rows_NL: np.ndarray) -> pl.Series:
    if not len(rows_NL):
        return pl.Series([], dtype=pl.List(pl.Int32))
    return pl.Series(np.ascontiguousarray(rows_NL)).cast(pl.List(pl.Int32))


def format_sid(codes: Sequence[int]) -> str:
    """The codes as tokens, `<a_12><b_7>`: the letter is the level."""
    if len(codes) > len(_LEVEL_NAMES):
        raise ValueError(f"{len(codes)} codes arrived, a semantic ID has at most {len(_LEVEL_NAMES)}.")
    return "".join(f"<{_LEVEL_NAMES[level]}_{int(code)}>" for level, code in enumerate(codes))
