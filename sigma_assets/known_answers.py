"""What the texts of a catalog are known to stand for, from the written phrases and themes: the same for a refit and for an arm."""

import polars as pl

from sigma_core.data.catalog import ItemCatalog


def known_answers(catalog: ItemCatalog) -> pl.DataFrame:
    """`text_answers` of the catalog's items, with the phrases of the train split."""
    from sigma_core.data.calendar import load_themes
    from sigma_core.grounding.relevance_pairs import text_answers
    from sigma_core.instruction.phrases import answering_items

    return text_answers(catalog.frame, load_themes(), answering_items(catalog.frame, "train"))
