"""Offers: which items a business put forward (a coupon campaign, a mailing), to whom, and on which days.

Holds the two tables, what is known of them on a day, and the words that name an offer. Sources that have none leave the
method out. No outcome enters here. Our choice; the paper's business-specific requests come from its own campaigns.
"""

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

import polars as pl

from sigma_core import columns as c

if TYPE_CHECKING:
    from sigma_core.data.sources.base import Source

SENT_SCHEMA: Final[dict[str, Any]] = {
    c.OFFER_ID: pl.String,
    c.USER_ID: pl.String,
    c.STARTS_ON: pl.Date,
    c.ENDS_ON: pl.Date,
}
OFFERED_SCHEMA: Final[dict[str, Any]] = {c.OFFER_ID: pl.String, c.ITEM_ID: pl.String}
NUM_OFFER_TYPES: Final = 5  # types that an offer's request names


@dataclass(frozen=True)
class Offers:
    """Offers of a source.

    Attributes:
        sent: frame of `SENT_SCHEMA`, one row a user and offer; both days are included.
        items: frame of `OFFERED_SCHEMA`, distinct: what each offer is for.
    """

    sent: pl.DataFrame
    items: pl.DataFrame

    @classmethod
    def nothing(cls) -> "Offers":
        """No offer at all."""
        return cls(pl.DataFrame(schema=SENT_SCHEMA), pl.DataFrame(schema=OFFERED_SCHEMA))

    def known_on(self, day: date) -> "Offers":
        """What `day` may know and the day after may use: offers that started on or before `day` and end after it."""
        sent = self.sent.filter((pl.col(c.STARTS_ON) <= day) & (pl.col(c.ENDS_ON) > day))
        return Offers(sent, self.items.join(sent.select(c.OFFER_ID).unique(), on=c.OFFER_ID, how="semi"))


@runtime_checkable
class OfferSource(Protocol):
    """A `Source` that has offers too."""

    def offers(self) -> Offers:
        """Every offer of the source."""


def offers_of(source: "Source") -> Offers:
    """The source's offers; `Offers.nothing()` when it has none."""
    return source.offers() if isinstance(source, OfferSource) else Offers.nothing()


def offer_label(offer_id: str) -> str:
    """How slots and focus texts call an offer: one word, so that its types follow it as aspects."""
    return f"offer-{'-'.join(offer_id.split())}"


def offer_words(known: Offers, catalog: pl.DataFrame) -> dict[str, tuple[str, ...]]:
    """Offer -> the `NUM_OFFER_TYPES` types that it is for, most characteristic first; from the catalog of the day alone.

    A type's place is by its event lines of 56 days within the offer, times the share of the type's lines they make: an offer
    for all ice cream and one soup is about ice cream. Offers without an item of the catalog are left out.
    """
    lines = pl.col(c.NUM_EVENTS_56D) + 1
    typed = catalog.select(c.ITEM_ID, c.ITEM_TYPE, lines.alias("lines")).drop_nulls(c.ITEM_TYPE)
    of_type = typed.group_by(c.ITEM_TYPE).agg(pl.col("lines").sum().alias("all"))
    inside = (
        known.items.join(typed, on=c.ITEM_ID).group_by(c.OFFER_ID, c.ITEM_TYPE).agg(pl.col("lines").sum())
    )
    ranked = (
        inside.join(of_type, on=c.ITEM_TYPE)
        .with_columns((pl.col("lines") ** 2 / pl.col("all")).alias("weight"))
        .sort(c.OFFER_ID, "weight", c.ITEM_TYPE, descending=[False, True, False])
    )
    named = ranked.group_by(c.OFFER_ID, maintain_order=True).agg(pl.col(c.ITEM_TYPE).head(NUM_OFFER_TYPES))
    return {offer: tuple(types) for offer, types in named.iter_rows()}


def offers_sent(known: Offers) -> dict[str, tuple[str, ...]]:
    """User -> the offers they have, newest first (equal days by id)."""
    ordered = known.sent.sort(c.USER_ID, c.STARTS_ON, c.OFFER_ID, descending=[False, True, False])
    listed = ordered.group_by(c.USER_ID, maintain_order=True).agg(c.OFFER_ID)
    return {user: tuple(offers) for user, offers in listed.iter_rows()}
