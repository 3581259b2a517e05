"""Small worlds with a `Source` interface, shared by the tests of every stage.

`toy_source()`: 6 items in two clusters, 4 users, 8 days, small enough to work every answer out by hand (the table is
below). `small_source()`: synthetic but structured (clusters, repeats, launches, one holiday), for end-to-end tests.
`write_tabular` writes either as the files of the tabular source.

The toy world (all purchases, one unit each):

    day    u1            u2      u3      u4
    03-01  ice_a ice_b           dia_a
    03-02                ice_a           dia_a dia_b
                         ice_c
    03-03  ice_a                 dia_b
    03-04                ice_b           dia_a
    03-05  ice_b                 dia_c                  <- TOY_DAY, the day all answers are for
    03-06  ice_a                 dia_a
    03-07                ice_c           dia_c
    03-08  ice_a dia_b

With `TOY_CONFIG` the catalog of TOY_DAY is dia_a, dia_b, dia_c (launched that day), ice_a, ice_b; ice_c has one buyer
and is left-censored. Targets of the 7 days after: u1 ice_a, u1 dia_b, u3 dia_a, u4 dia_c; one (u2 ice_c) is outside.
"""

from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from sigma_core import columns as c
from sigma_core.config import DataConfig
from sigma_core.data.catalog import CatalogBuilder, ItemCatalog
from sigma_core.data.events import clean_events
from sigma_core.data.offers import OFFERED_SCHEMA, SENT_SCHEMA, Offers
from sigma_core.data.purchases import Purchases
from sigma_core.data.sources.base import Vectors, event_dates, product_master, raw_events
from sigma_core.data.users import UserProfiles, build_user_profiles
from sigma_core.instruction.examples import catalog_targets
from sigma_core.root_file import Binding

TOY_START = date(2024, 3, 1)
TOY_DAY = date(2024, 3, 5)
TOY_CONFIG = DataConfig(left_censored_days=3)
TOY_ITEMS = ("dia_a", "dia_b", "dia_c", "ice_a", "ice_b", "ice_c")
TOY_USERS = ("u1", "u2", "u3", "u4")

SMALL_START = date(
    2024, 9, 9
)  # 60 days reach 2024-11-07; Halloween is inside, and so is the start of two months
SMALL_CONFIG = DataConfig(left_censored_days=14, min_category_items=5)
SMALL_HOLIDAY = date(2024, 10, 31)
SMALL_LAUNCH_DAY = 35  # the last items of each cluster are first sold on or after this day
SMALL_NUM_MALFORMED = 6  # rows of small_source that have to end in quarantine, one of each reason

_TOY_SALES = {
    1: {"u1": ["ice_a", "ice_b"], "u3": ["dia_a"]},
    2: {"u2": ["ice_a", "ice_c"], "u4": ["dia_a", "dia_b"]},
    3: {"u1": ["ice_a"], "u3": ["dia_b"]},
    4: {"u2": ["ice_b"], "u4": ["dia_a"]},
    5: {"u1": ["ice_b"], "u3": ["dia_c"]},
    6: {"u1": ["ice_a"], "u3": ["dia_a"]},
    7: {"u2": ["ice_c"], "u4": ["dia_c"]},
    8: {"u1": ["ice_a", "dia_b"]},
}
_TOY_PRICES = {"ice_a": 4.0, "ice_b": 5.0, "ice_c": 6.0, "dia_a": 20.0, "dia_b": 22.0, "dia_c": 24.0}


@dataclass
class FrameSource:
    """A source made of frames that are already there."""

    name: str
    raw: pl.DataFrame
    master: pl.DataFrame
    people: pl.DataFrame
    ids: Vectors | None = None
    images: Vectors | None = None
    offered: Offers = field(default_factory=Offers.nothing)
    version: str = field(default="1")

    def events(self) -> pl.DataFrame:
        return self.raw

    def products(self) -> pl.DataFrame:
        return self.master

    def users(self) -> pl.DataFrame:
        return self.people

    def date_range(self) -> tuple[date, date]:
        return event_dates(self.raw, self.name)

    def fingerprint(self) -> str:
        return f"{self.name}-{self.version}"

    def id_vectors(self) -> Vectors | None:
        return self.ids

    def image_vectors(self) -> Vectors | None:
        return self.images

    def offers(self) -> Offers:
        return self.offered


# ------------------------------------------------------------------------------------------- toy
def toy_source() -> FrameSource:
    """The world of the table above."""
    rows = [
        {
            c.USER_ID: user,
            c.ITEM_ID: item,
            c.EVENT_TIME: datetime(2024, 3, day, 10, number),
            c.EVENT_TYPE: "purchase",
            c.SESSION_ID: f"{user}-{day}",
            c.QUANTITY: 1.0,
            c.PRICE: _TOY_PRICES[item],
        }
        for day, baskets in _TOY_SALES.items()
        for user, items in baskets.items()
        for number, item in enumerate(items)
    ]
    raw = raw_events(pl.DataFrame(rows).sort(c.EVENT_TIME, c.USER_ID))
    people = pl.DataFrame(
        {
            c.USER_ID: ["u1", "u3"],
            "profile": ["aged 25 to 34, one adult without kids", "aged 35 to 44, two adults with kids"],
        }
    )
    return FrameSource("toy", raw, _toy_products(), people, offered=toy_offers())


def toy_offers() -> Offers:
    """Four offers: "ice" to u1, u2 and "baby" to u1, u3, u4 hold on TOY_DAY; "later" starts the day after, "over" ends on it."""
    days = {"ice": (-4, 9), "baby": (-2, 1), "later": (1, 9), "over": (-4, 0)}
    to = {"ice": ("u1", "u2"), "baby": ("u1", "u3", "u4"), "later": ("u1", "u3"), "over": ("u1",)}
    items = {
        "ice": ("ice_a", "ice_b", "ice_c"), "baby": ("dia_a", "dia_b", "dia_c"), "later": ("dia_a",), "over": ("ice_a",)
    }  # fmt: skip
    sent = [
        (offer, user, *(TOY_DAY + timedelta(days=day) for day in days[offer]))
        for offer, users in to.items()
        for user in users
    ]
    pairs = [(offer, item) for offer, mine in items.items() for item in mine]
    return Offers(
        pl.DataFrame(sent, schema=SENT_SCHEMA, orient="row"),
        pl.DataFrame(pairs, schema=OFFERED_SCHEMA, orient="row"),
    )


def _toy_products() -> pl.DataFrame:
    def product(item: str, kind: str, category: str, size: str, maker: int) -> dict[str, str]:
        return {
            c.ITEM_ID: item,
            c.ITEM_TYPE: kind,
            c.CATEGORY: category,
            c.DEPARTMENT: "grocery",
            c.BRAND: "private brand" if maker == 1 else "national brand",
            c.MAKER: f"maker {maker}",
            c.SIZE: size,
        }

    return product_master(
        pl.DataFrame(
            [
                product("dia_a", "baby diapers", "diapers", "29 count", 1),
                product("dia_b", "baby diapers", "diapers", "40 count", 2),
                product("dia_c", "baby wipes", "diapers", "80 count", 2),
                product("ice_a", "premium ice cream", "ice cream", "48 oz", 1),
                product("ice_b", "premium ice cream", "ice cream", "1 pint", 3),
                product("ice_c", "ice pops", "ice cream", "16 count", 3),
            ]
        )
    )


def toy_events() -> pl.DataFrame:
    """The accepted events of the toy world, all 8 days."""
    source = toy_source()
    return clean_events(source.events(), source.products()[c.ITEM_ID])[0]


def toy_catalog(day: date = TOY_DAY) -> ItemCatalog:
    """The toy world's catalog of a day, by `TOY_CONFIG`."""
    return CatalogBuilder(toy_events(), toy_source().products(), TOY_CONFIG, TOY_START).day(day)


def targets_of(
    events: pl.DataFrame, catalog: ItemCatalog, day: date, horizon: int
) -> tuple[pl.DataFrame, int]:
    """Targets of the days after `day`, and how many pairs lie outside the catalog."""
    return catalog_targets(Purchases.of(events), catalog, day, horizon)


def toy_profiles(day: date = TOY_DAY) -> UserProfiles:
    """The toy world's users seen up to a day."""
    return build_user_profiles(toy_source().users(), toy_events(), day)


# ----------------------------------------------------------------------------------------- small
_CLUSTERS = (  # category, item types, department, base price
    ("ice cream", ("premium ice cream", "ice pops"), "grocery", 4.0),
    ("packaged candy", ("bagged chocolate candy", "candy bars"), "grocery", 3.0),
    ("diapers", ("baby diapers", "baby wipes"), "drugstore", 18.0),
    ("soft drinks", ("soda cans", "soda large bottle"), "grocery", 2.0),
    ("coffee", ("ground coffee", "instant coffee"), "grocery", 7.0),
    ("dog food", ("dry dog food", "dog treats"), "grocery", 10.0),
    ("salad mix", ("garden salad mix", "salad kit"), "produce", 3.5),
    ("hair care", ("shampoo", "hair conditioner"), "drugstore", 5.0),
)
HOLIDAY_CATEGORY = "packaged candy"  # what small_source's users buy in the week before SMALL_HOLIDAY


def small_source(num_users: int = 60, num_items: int = 80, days: int = 60, seed: int = 0) -> FrameSource:
    """A structured synthetic world that starts on SMALL_START.

    Items fall into 8 clusters in turn; the last tenth of them launch on day SMALL_LAUNCH_DAY or later. A user shops
    every second or third day, mostly for a handful of favourites, sometimes for other items of the two clusters they
    like, seldom for anything else. In the week before SMALL_HOLIDAY most users add candy. Half of the users have a
    profile. The last `SMALL_NUM_MALFORMED` rows are malformed.
    """
    rng = np.random.default_rng(seed)
    items = _small_products(num_items, rng)
    ids = items[c.ITEM_ID].to_list()
    cluster = np.arange(num_items) % len(_CLUSTERS)
    launch = np.where(np.arange(num_items) < num_items - num_items // 10, 0, SMALL_LAUNCH_DAY)
    launch += np.where(launch > 0, rng.integers(0, 10, num_items), 0)
    price = np.array([_CLUSTERS[k][3] for k in cluster]) * rng.uniform(0.7, 1.4, num_items).round(2)
    rows: list[dict[str, object]] = []
    for user in range(num_users):
        liked = np.flatnonzero(np.isin(cluster, [user % len(_CLUSTERS), (user * 3 + 1) % len(_CLUSTERS)]))
        favourites = rng.choice(liked, size=min(4, len(liked)), replace=False)
        candy = np.flatnonzero(cluster == 1)
        for day in range(user % 3, days):
            if rng.random() > 0.4:
                continue
            basket = set(rng.choice(favourites, size=2)) | set(rng.choice(liked, size=1))
            if rng.random() < 0.3:
                basket.add(rng.integers(num_items))
            if 0 < (SMALL_HOLIDAY - SMALL_START).days - day <= 7 and rng.random() < 0.8:
                basket |= set(rng.choice(candy, size=2))
            moment = datetime.combine(SMALL_START, datetime.min.time()) + timedelta(
                days=day, hours=9 + user % 10
            )
            for number, item in enumerate(sorted(int(i) for i in basket)):
                if launch[item] <= day:
                    rows.append(_sale(f"user{user:03d}", ids[item], moment, number, float(price[item])))
    rows.sort(key=lambda row: (str(row[c.EVENT_TIME]), str(row[c.USER_ID])))
    raw = pl.concat([pl.DataFrame(rows), _malformed(rows[0])], how="vertical_relaxed")
    people = _small_users(num_users)
    return FrameSource(
        "small", raw_events(raw), items, people, version=f"{seed}", offered=_small_offers(items, num_users)
    )


def _small_offers(items: pl.DataFrame, num_users: int) -> Offers:
    """Coupons for the holiday category, sent to every third user for the seven weeks before 20 November."""
    candy = items.filter(pl.col(c.CATEGORY) == HOLIDAY_CATEGORY)[c.ITEM_ID]
    span = (date(2024, 10, 1), date(2024, 11, 20))
    sent = [("candy weeks", f"user{user:03d}", *span) for user in range(0, num_users, 3)]
    return Offers(
        pl.DataFrame(sent, schema=SENT_SCHEMA, orient="row"),
        pl.DataFrame({c.OFFER_ID: "candy weeks", c.ITEM_ID: candy}, schema=OFFERED_SCHEMA),
    )


def _sale(user: str, item: str, moment: datetime, number: int, price: float) -> dict[str, object]:
    return {
        c.USER_ID: user,
        c.ITEM_ID: item,
        c.EVENT_TIME: moment + timedelta(seconds=number),
        c.EVENT_TYPE: "purchase",
        c.SESSION_ID: f"{user}-{moment:%m%d}",
        c.QUANTITY: 1.0,
        c.PRICE: price,
    }


def _malformed(good: dict[str, object]) -> pl.DataFrame:
    """One row for each reason that a source can produce (a future time needs an as-of time)."""
    bad: list[dict[str, object]] = [
        good | {c.USER_ID: None},
        good | {c.ITEM_ID: None},
        good | {c.EVENT_TIME: None},
        good | {c.ITEM_ID: "nowhere"},
        good | {c.QUANTITY: 0.0},
        good,
    ]
    assert len(bad) == SMALL_NUM_MALFORMED
    return pl.DataFrame(bad, infer_schema_length=None)


def _small_products(num_items: int, rng: np.random.Generator) -> pl.DataFrame:
    sizes = ("8 oz", "12 oz", "16 oz", "24 oz", "32 oz", "6 count", "12 count")
    rows = []
    for number in range(num_items):
        category, kinds, department, _ = _CLUSTERS[number % len(_CLUSTERS)]
        maker = int(rng.integers(1, 6))
        rows.append(
            {
                c.ITEM_ID: f"item{number:03d}",
                c.ITEM_TYPE: kinds[(number // len(_CLUSTERS)) % len(kinds)],
                c.CATEGORY: category,
                c.DEPARTMENT: department,
                c.BRAND: "private brand" if maker == 1 else "national brand",
                c.MAKER: f"maker {maker}",
                c.SIZE: sizes[int(rng.integers(len(sizes)))],
            }
        )
    return product_master(pl.DataFrame(rows))


def _small_users(num_users: int) -> pl.DataFrame:
    known = range(0, num_users, 2)
    ages = ("aged 25 to 34", "aged 35 to 44", "aged 45 to 54")
    homes = ("one adult without kids", "two adults with kids")
    return pl.DataFrame(
        {
            c.USER_ID: [f"user{u:03d}" for u in known],
            "profile": [f"{ages[u % 3]}, {homes[u // 2 % 2]}" for u in known],
        }
    )


# --------------------------------------------------------------------------------------- tabular
def write_tabular(source: FrameSource, folder: Path) -> Path:
    """Write `source` as events.parquet, items.parquet, users.parquet (and vectors), for `open_source("tabular", folder)`."""
    folder.mkdir(parents=True, exist_ok=True)
    source.events().drop(c.SOURCE_ROW).write_parquet(folder / "events.parquet")
    source.products().write_parquet(folder / "items.parquet")
    source.users().write_parquet(folder / "users.parquet")
    if source.offers().sent.height:
        source.offers().sent.write_parquet(folder / "offers.parquet")
        source.offers().items.write_parquet(folder / "offer_items.parquet")
    for name, vectors in (("id", source.id_vectors()), ("image", source.image_vectors())):
        if vectors is not None:
            table = pl.DataFrame({c.ITEM_ID: vectors[0], "vector": vectors[1].tolist()})
            table.write_parquet(folder / f"item_{name}_vectors.parquet")
    return folder


def root_values(profile: str = "toy", settings: tuple[str, ...] = ()) -> dict[str, Any]:
    """The content of a `root.json`, for roots that hold only what a test puts there."""
    day = date(2024, 10, 20)
    binding = Binding("tabular", "nowhere", profile, settings, day, day, "f", {"products": "p"})
    return binding.as_json(binding.config())
