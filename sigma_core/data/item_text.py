"""The words of an item: what the encoder reads and what a person is shown, composed from what a source has.

Both are functions of the product's own columns and its price band, nothing else: equal columns, equal words. What the encoder
reads ends at `MAX_TEXT_CHARS`, as its contract demands; what a person is shown does not.
Our choice: the paper has real titles, this data has types, sizes and makers.
"""

from typing import Final

import polars as pl

from sigma_core import columns as c

MAX_CHARS_WITH_DEPARTMENT: Final = (
    34  # a longer type and category go without: texts stay within 24 word pieces
)
MAX_TEXT_CHARS: Final = 400  # data_contracts/item_catalog.yaml, text_length; no encoder here reads as far
CUT_MARK: Final = "…"
_WORD_CHARS: Final = 40  # a longer word is cut within
BASE_TEXT: Final = "base_text"
BASE_TITLE: Final = "base_title"


def add_base_words(products: pl.DataFrame) -> pl.DataFrame:
    """`products` with `BASE_TEXT` and `BASE_TITLE`: the words before a price band is appended.

    The text is title, type and size, category, department, brand and maker, whichever there are. A category or
    department whose words the part before holds already is left out, and so is the department beside a long type and category.
    The title is the source's own title, or else type and size, then brand and maker.
    """
    category = _unless_said(c.CATEGORY, c.ITEM_TYPE)
    length = pl.sum_horizontal(
        pl.col(name).str.len_chars().fill_null(0) for name in (c.ITEM_TYPE, c.CATEGORY, c.DEPARTMENT)
    )
    department = pl.when(length <= MAX_CHARS_WITH_DEPARTMENT).then(_unless_said(c.DEPARTMENT, c.CATEGORY))
    kind = _joined(" ", c.ITEM_TYPE, c.SIZE)
    text = _joined(", ", c.TITLE, kind, category, department, _joined(" ", c.BRAND, c.MAKER))
    noun = pl.coalesce(c.ITEM_TYPE, c.CATEGORY, c.DEPARTMENT, pl.lit("item ") + pl.col(c.ITEM_ID))
    name = _joined(" ", _title_case(noun), c.SIZE)
    title = pl.coalesce(c.TITLE, _joined(" - ", name, _joined(", ", c.BRAND, c.MAKER)))
    never_empty = pl.coalesce(text, pl.lit("item ") + pl.col(c.ITEM_ID))
    return products.with_columns(never_empty.alias(BASE_TEXT), title.alias(BASE_TITLE))


def with_band(base: str, band: str) -> pl.Expr:
    """The words in column `base`, with the price band of column `band` appended where there is one."""
    return pl.concat_str(base, pl.col(band) + " price", separator=", ", ignore_nulls=True)


def shown_title(band: str) -> pl.Expr:
    """The title a person is shown: the source's own as it is, a composed one with the price band."""
    return pl.when(pl.col(c.TITLE).is_null()).then(with_band(BASE_TITLE, band)).otherwise(pl.col(BASE_TITLE))


def cut_long_texts(frame: pl.DataFrame, *names: str) -> pl.DataFrame:
    """The frame with the texts of the named columns that are over `MAX_TEXT_CHARS` cut there, and all others as they were.

    A cut text ends with the last whole word that fits (within a word of more than 40 characters, where it must) and `CUT_MARK`.
    """
    if not any((frame[name].str.len_bytes() > MAX_TEXT_CHARS).any() for name in names):
        return frame
    return frame.with_columns(
        pl.when(is_long(name)).then(_cut(pl.col(name))).otherwise(pl.col(name)).alias(name) for name in names
    )


def is_long(name: str) -> pl.Expr:
    """True where the text of the column is over `MAX_TEXT_CHARS`."""
    return pl.col(name).str.len_chars() > MAX_TEXT_CHARS


def is_cut(name: str) -> pl.Expr:
    """True where the text of the column was cut (or is as long and ends with the same mark by itself)."""
    text = pl.col(name)
    return text.str.ends_with(CUT_MARK) & (text.str.len_chars() > MAX_TEXT_CHARS - 2 * _WORD_CHARS)


def _cut(text: pl.Expr) -> pl.Expr:
    words = text.str.head(MAX_TEXT_CHARS).str.replace(rf"\s+\S{{0,{_WORD_CHARS}}}$", "")
    return words.str.head(MAX_TEXT_CHARS - 1).str.strip_chars_end(" ,;-") + CUT_MARK


def _joined(separator: str, *parts: str | pl.Expr) -> pl.Expr:
    """The parts that are there, joined; null when none is."""
    return pl.concat_str(*parts, separator=separator, ignore_nulls=True).replace("", None)


def _unless_said(name: str, before: str) -> pl.Expr:
    """Column `name`, or null where column `before` contains its words already."""
    said = pl.col(before).str.contains(pl.col(name), literal=True).fill_null(False)
    return pl.when(~said).then(pl.col(name))


def _title_case(words: pl.Expr) -> pl.Expr:
    """First letters upper-cased; short joining words and letters after an apostrophe stay as they are."""
    small = words.str.to_titlecase()
    for word in ("And", "Or", "With", "In", "Of", "For", "On", "The", "To", "Under", "Over"):
        small = small.str.replace_all(f" {word} ", f" {word.lower()} ", literal=True)
    return small.str.replace_all("'S", "'s", literal=True)
