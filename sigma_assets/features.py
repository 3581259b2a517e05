"""Item features for the stages that train and index: which vectors and semantic IDs go together.

Only lines artifacts up (`item_features.assemble`); the one thing it decides is which launch texts need encoding. Source:
paper, hybrid item tokenization; architecture.md on `lora_checkpoint` (features of the catalog of the day before).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.sources import Vectors
from sigma_core.grounding.embed import ItemEmbeddings, TextEncoder, embed_items
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.tokenization.codebooks import Codebooks
from sigma_core.tokenization.item_features import ItemFeatures, assemble
from sigma_core.tokenization.semantic_ids import build_semantic_id_map


def own_id_embeddings(own: Vectors, history: pl.DataFrame) -> ItemIdEmbeddings:
    """A user's own collaborative vectors in the shape of fitted ones: mean norm 1, then the standardized log1p(events)."""
    item_ids, vectors = own
    counts = dict(history.group_by(c.ITEM_ID).len().iter_rows())
    sold = np.log1p(np.array([counts.get(item, 0) for item in item_ids], dtype=np.float64))
    popularity = (sold - sold.mean()) / max(float(sold.std()), 1e-12)
    norm = max(float(np.linalg.norm(vectors, axis=1).mean()), 1e-12)
    return ItemIdEmbeddings(item_ids, np.column_stack([vectors / norm, popularity]), history.height)


def launch_vectors(
    catalog: ItemCatalog, codebooks: Codebooks, encoder: TextEncoder, known: Sequence[ItemEmbeddings]
) -> ItemEmbeddings:
    """Vectors of the first texts of the items that came after the refit."""
    later = catalog.frame.filter(~catalog.frame[c.ITEM_ID].is_in(codebooks.item_ids))
    return embed_items(later[c.ITEM_ID].to_list(), later[c.LAUNCH_TEXT].to_list(), encoder, known)[0]


def refit_features(
    catalog: ItemCatalog,
    embeddings: ItemEmbeddings,
    id_embeddings: ItemIdEmbeddings,
    codebooks: Codebooks,
    images: Vectors | None = None,
) -> ItemFeatures:
    """Features of the refit's items: all of them have stored codes, so nothing is encoded."""
    semantic_ids = build_semantic_id_map(catalog, codebooks, embeddings)
    features = assemble(catalog.frame[c.ITEM_ID].to_list(), embeddings, id_embeddings, semantic_ids, images)
    return with_texts(features, catalog)


def catalog_features(
    catalog: ItemCatalog,
    id_embeddings: ItemIdEmbeddings,
    codebooks: Codebooks,
    encoder: TextEncoder,
    known: Sequence[ItemEmbeddings],
    images: Vectors | None = None,
) -> ItemFeatures:
    """Features of any day's catalog; only texts that are in none of `known` are encoded."""
    ids, texts = catalog.frame[c.ITEM_ID].to_list(), catalog.frame[c.TEXT].to_list()
    vectors, _ = embed_items(ids, texts, encoder, known)
    launched = launch_vectors(catalog, codebooks, encoder, [vectors, *known])
    semantic_ids = build_semantic_id_map(catalog, codebooks, launched)
    return with_texts(assemble(ids, vectors, id_embeddings, semantic_ids, images), catalog)


def with_texts(features: ItemFeatures, catalog: ItemCatalog) -> ItemFeatures:
    """The features with the texts of their items."""
    texts = dict(catalog.frame.select(c.ITEM_ID, c.TEXT).iter_rows())
    return replace(features, texts=[texts[item] for item in features.item_ids])
