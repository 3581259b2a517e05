"""Search by words alone: the nearest items of a day's catalog in the grounded text space. Needs the encoder, no trained model.

Reads artifacts, computes none that miss; imports no dagster and no peft. Errors name what exists. Source: issue "SIGMA at full
depth", grounding: queries and free text are encoded by the same encoder as items.
"""

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import ArtifactError, ArtifactStore
from sigma_core.config import ConfigError, parse_date
from sigma_core.grounding.lexical import for_search, unit_rows
from sigma_core.pretrained import PretrainedError
from sigma_core.root_file import RootError, read_binding
from sigma_core.serving.runtime import RequestError, pick_day

if TYPE_CHECKING:
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.grounding.embed import ItemEmbeddings
    from sigma_core.grounding.encoder import GroundedEncoder


@dataclass
class LoadedSearch:
    """One day's items in the grounded space, and the encoder that put them there."""

    day: date
    encoder: "GroundedEncoder"
    embeddings: "ItemEmbeddings"
    catalog: "ItemCatalog"

    def search(self, text: str, top_n: int = 10) -> list[dict[str, Any]]:
        """Nearest items of `text`: rank, item_id, title, score (cosine, of meaning and words together), best first; ties by item id.

        One item of a text group is listed. `text` is encoded as typed.

        Raises:
            RequestError: nothing was asked, or `top_n` is below 1.
        """
        if top_n < 1:
            raise RequestError(f"--top-n {top_n}: needed at least 1.")
        if not text.strip():
            raise RequestError('the search text is empty; ask for something: sigma search "red lipstick".')
        asked = self.encoder.match_vectors([text.strip()])
        query = unit_rows(for_search(asked, self.embeddings.vectors.shape[1]))[0]
        cosine_N = unit_rows(self.embeddings.match()) @ query
        found = pl.DataFrame({c.ITEM_ID: self.embeddings.item_ids, c.SCORE: cosine_N.astype(np.float64)})
        nearest = (
            found.join(self.catalog.frame.select(c.ITEM_ID, c.TITLE, c.TEXT_GROUP), on=c.ITEM_ID)
            .sort(c.SCORE, c.ITEM_ID, descending=[True, False])
            .unique(c.TEXT_GROUP, keep="first", maintain_order=True)
            .head(top_n)
            .with_row_index(c.RANK, offset=1)
        )
        return nearest.select(c.RANK, c.ITEM_ID, c.TITLE, c.SCORE).to_dicts()


def load_search(root: Path, as_of: str | None = None) -> LoadedSearch:
    """Load what searching one day needs from `root`; without `as_of` the latest day with item vectors.

    Raises:
        RequestError: the day or one of its artifacts is not there, or they do not belong together.
    """
    import torch

    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.grounding.embed import ItemEmbeddings
    from sigma_core.grounding.encoder import GroundedEncoder

    store = ArtifactStore(root)
    day = pick_day(store, as_of, "item_embeddings", "item vectors")
    try:
        config = read_binding(root).config()
        torch.set_num_threads(config.runtime.threads)
        encoder = store.read(GroundedEncoder, "grounded_encoder", f"{day[:7]}-01")
        embeddings = store.read(ItemEmbeddings, "item_embeddings", day)
        catalog = store.read(ItemCatalog, "item_catalog", day)
    except (RootError, ConfigError, ArtifactError, PretrainedError) as error:
        raise RequestError(str(error)) from error
    if embeddings.encoder_digest != encoder.digest():
        raise RequestError(
            f"the item vectors of {day} were made by another encoder than this month's. Run `sigma materialize --as-of {day} "
            f"--root {root}` again."
        )
    return LoadedSearch(parse_date(day), encoder, embeddings, catalog)
