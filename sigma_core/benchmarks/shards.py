"""`sigma benchmark shards`: SFT examples a second of the polars builder against a plain Python loop over the same events.

The loop is given its events sorted by user and time, the phrases and the season's types for free; it walks each user's events
and writes contexts and the requests of the paper's seven tasks. The builder pays for sorting its events, once for all cuts, and
makes our own tasks too, which are not counted. Both sides' examples are compared. Our choice.
"""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from sigma_core import columns as c
from sigma_core.benchmarks.timing import Clock, Timing, alternate
from sigma_core.tracking import Progress, no_progress

if TYPE_CHECKING:
    from sigma_core.config import SigmaConfig
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.data.users import UserProfiles

Read = tuple[
    "SigmaConfig", pl.DataFrame, list[tuple[date, "ItemCatalog", "UserProfiles"]], dict[str, str]
]  # the last: digests of what was read
BUILDER, LOOP = "polars builder", "Python loop"
LOOP_TASKS: Final = ("just_for_you", "query", "category", "longtail", "discover", "season", "holiday")
ROUNDS: Final = 3


@dataclass(frozen=True)
class ShardSettings:
    """Shards built, of everyone or of the configured sample of users.

    Attributes:
        days: cuts; the latest days of the root, or with `year` as many spread evenly over the year before the last one.
        year: read the root's source itself, all of it, and make the catalog and the profiles of each cut first, untimed.
    """

    days: int = 4
    all_users: bool = True
    year: bool = False
    threads: int = 2
    clock: Clock = "wall"


class Event(NamedTuple):
    """An accepted purchase, as the loop is given it."""

    time: Any
    day: int  # ordinal
    item: str


@dataclass(frozen=True)
class LoopInputs:
    """What the loop reads; made beforehand and not timed."""

    events: Mapping[str, Sequence[Event]]  # of each user, oldest first
    profiles: Mapping[str, str]
    items: Mapping[str, tuple[str | None, str | None, int, bool]]  # type, category, text group, is tail
    phrases: Mapping[tuple[str | None, str | None], Sequence[str]]  # by category and type
    categories: frozenset[str]  # large enough to be asked for
    season: frozenset[str]
    holiday: frozenset[str]


def run_shards(root: Path, settings: ShardSettings, progress: Progress = no_progress) -> dict[str, Any]:
    """`rows`: a side's examples and seconds, of all cuts; `cuts`: of each; `year_seconds`: what 365 such cuts take, where our
    side sorts its events once; `ratio`: examples a second of ours over the loop's, of those 365.

    Raises:
        RequestError: the root has no catalog and profiles of one day with a whole target window after it.
        RuntimeError: the two sides disagree on an example.
    """
    from sigma_core.data.purchases import Purchases
    from sigma_core.instruction.examples import build_examples

    config, events, days, digests = (_read_year if settings.year else _read)(root, settings)
    horizon = timedelta(days=config.data.horizon_days)
    rows, known = [], events.filter(pl.col(c.EVENT_DATE) <= days[-1][0] + horizon)
    purchases = Purchases.of(known)

    def sort_events() -> None:
        _ = Purchases.of(known).by_pair

    sorting = alternate({BUILDER: sort_events}, ROUNDS, settings.clock)[BUILDER]
    _ = purchases.by_pair
    for number, (cut, catalog, profiles) in enumerate(days):
        progress(number, len(days), f"cut {cut}")
        users = None if settings.all_users else _sample(events, cut, config)
        inputs = loop_inputs(events, catalog, profiles, cut, config, users)
        found: dict[str, Any] = {}

        def build(
            cut: date = cut, catalog: Any = catalog, profiles: Any = profiles, users: Any = users,
            found: dict[str, Any] = found,
        ) -> None:  # fmt: skip
            found[BUILDER] = build_examples(
                cut, purchases, catalog, profiles, config, users=users, split="train", max_requests=None
            )

        def loop(cut: date = cut, inputs: LoopInputs = inputs, found: dict[str, Any] = found) -> None:
            found[LOOP] = plain_examples(cut, inputs, config)

        timings = alternate({BUILDER: build, LOOP: loop}, ROUNDS, settings.clock)
        compare(found[BUILDER].examples, found[LOOP][1], config)
        rows.append((cut, len(found[LOOP][1]), timings))
    return _summed(rows, sorting) | {
        "events": events.height,
        "data": digests,
        "settings": asdict(settings),
    }


def _summed(cuts: Sequence[tuple[date, int, Mapping[str, Timing]]], sorting: Timing) -> dict[str, Any]:
    """What a record holds of each side, from the examples and timings of each cut, and of sorting the events once."""
    count, seconds = sum(examples for _, examples, _ in cuts), {}
    rows = []
    for side in (BUILDER, LOOP):
        each = [timings[side] for _, _, timings in cuts]
        more = [sorting] if side == BUILDER else []
        seconds[side] = sum(timing.p50 for timing in each)
        total = seconds[side] + sum(timing.p50 for timing in more)
        rows.append(
            {
                "side": side, "examples": count, "seconds": total, "examples_per_second": count / total,
                "added_mib": max(timing.added_mib or 0.0 for timing in (*each, *more)),
            }
        )  # fmt: skip
    by_cut = [
        {"cut": str(cut), "examples": examples} | {side: timings[side].p50 for side in (BUILDER, LOOP)}
        for cut, examples, timings in cuts
    ]
    year = {side: 365 * seconds[side] / len(cuts) for side in (BUILDER, LOOP)}
    year[BUILDER] += sorting.p50
    return {
        "rows": rows,
        "cuts": by_cut,
        "sorting_seconds": sorting.p50,
        "shards": len(cuts),
        "ratio": year[LOOP] / year[BUILDER],
        "year_seconds": year,
    }


def plain_examples(cut: date, inputs: LoopInputs, config: "SigmaConfig") -> tuple[list[Any], list[Any]]:
    """Contexts, and examples as (user, task, what is asked for, sorted targets), of users with history and a target."""
    settings, half_life = config.instruction, config.instruction.favorite_half_life_days
    first, last = cut.toordinal(), cut.toordinal() + config.data.horizon_days
    contexts, examples = [], []
    for user, mine in inputs.events.items():
        owned: dict[str, list[Any]] = {}
        targets: set[str] = set()
        for event in mine:
            if event.day > last:
                break
            if event.item not in inputs.items:
                continue
            if event.day > first:
                targets.add(event.item)
                continue
            age = first - event.day
            entry = owned.get(event.item)
            if entry is None:
                entry = owned[event.item] = [event.time, age, 0, 0.0, 0.0]
            entry[0], entry[1] = event.time, age
            entry[2] += 1
            entry[3] += 0.5 ** (age / half_life)
            entry[4] += 0.5 ** (4 * age / half_life)
        if not targets or not owned:
            continue
        recent = heapq.nlargest(settings.max_recent, owned.items(), key=lambda pair: pair[1][0])
        favorite = heapq.nlargest(settings.max_favorites, owned.items(), key=lambda pair: pair[1][3])
        contexts.append((user, cut, inputs.profiles.get(user, ""), recent, favorite))
        examples += _requests(user, targets, owned, inputs)
    return contexts, examples


def _requests(user: str, targets: set[str], owned: Mapping[str, Any], inputs: LoopInputs) -> list[Any]:
    texts = {inputs.items[item][2] for item in owned}
    asked: dict[tuple[str, str], list[str]] = {}
    for item in sorted(targets):
        item_type, category, text, is_tail = inputs.items[item]
        asked.setdefault(("just_for_you", ""), []).append(item)
        for phrase in inputs.phrases.get((category, item_type), ()):
            asked.setdefault(("query", phrase), []).append(item)
        if category in inputs.categories:
            asked.setdefault(("category", str(category)), []).append(item)
        if item not in owned:
            if is_tail:
                asked.setdefault(("longtail", ""), []).append(item)
            if text not in texts:
                asked.setdefault(("discover", ""), []).append(item)
        if item_type in inputs.season:
            asked.setdefault(("season", ""), []).append(item)
        if item_type in inputs.holiday:
            asked.setdefault(("holiday", ""), []).append(item)
    return [(user, task, key, items) for (task, key), items in asked.items()]


def compare(examples: pl.DataFrame, plain: Sequence[Any], config: "SigmaConfig") -> None:
    """Checks that both sides found the same requests with the same targets (those the builder cuts by hash are counted).

    Raises:
        RuntimeError: they differ; the message names a first example.
    """
    columns = (c.USER_ID, c.TASK, c.TARGETS)
    most = config.instruction.max_targets
    both = examples.filter(pl.col(c.TASK).is_in(LOOP_TASKS)).select(
        columns
    )  # the builder makes our own tasks too
    ours = sorted((user, task, tuple(items)) for user, task, items in both.iter_rows())
    theirs = sorted((user, task, tuple(items)) for user, task, _, items in plain)
    short = [row for row in ours if len(row[2]) < most], [row for row in theirs if len(row[2]) < most]
    if len(ours) != len(theirs) or short[0] != short[1]:
        lone = sorted(set(short[0]) ^ set(short[1]))[:1]
        raise RuntimeError(
            f"the builder made {len(ours)} examples, the loop {len(theirs)}; the first that only one of them has: {lone}."
        )


def loop_inputs(
    events: pl.DataFrame,
    catalog: "ItemCatalog",
    profiles: "UserProfiles",
    cut: date,
    config: "SigmaConfig",
    users: Sequence[str] | None = None,
) -> LoopInputs:
    """What the loop reads of these tables."""
    from sigma_core.data.events import positive_events
    from sigma_core.instruction.labels import askable_phrases, seasonal_types, type_outcomes
    from sigma_core.instruction.requests import day_words

    horizon = config.data.horizon_days
    words = day_words(events, catalog, cut, horizon, config.data.country)
    rises = type_outcomes(events, catalog.frame, cut, horizon)
    season, holiday = seasonal_types(rises, is_before_holiday=bool(words.holiday))
    taken = positive_events(events).sort(c.USER_ID, c.EVENT_TIME)
    if users is not None:
        taken = taken.filter(pl.col(c.USER_ID).is_in(pl.Series(users).implode()))
    by_user: dict[str, list[Event]] = {}
    ordinal = (pl.col(c.EVENT_DATE).cast(pl.Int32) + date(1970, 1, 1).toordinal()).alias("day")
    for user, time, day, item in taken.select(c.USER_ID, c.EVENT_TIME, ordinal, c.ITEM_ID).iter_rows():
        by_user.setdefault(user, []).append(Event(time, day, item))
    phrases: dict[tuple[str | None, str | None], list[str]] = {}
    table = askable_phrases(catalog, "train").select(c.CATEGORY, c.ITEM_TYPE, c.PHRASE).unique()
    for category, item_type, phrase in table.iter_rows():
        phrases.setdefault((category, item_type), []).append(phrase)
    sizes = catalog.frame.drop_nulls(c.CATEGORY).group_by(c.CATEGORY).len()
    large = sizes.filter(pl.col("len") >= config.data.min_category_items)[c.CATEGORY]
    rows = catalog.frame.select(c.ITEM_ID, c.ITEM_TYPE, c.CATEGORY, c.TEXT_GROUP, c.IS_TAIL)
    return LoopInputs(
        by_user,
        dict(profiles.frame.select(c.USER_ID, c.PROFILE_TEXT).iter_rows()),
        {item: tuple(rest) for item, *rest in rows.iter_rows()},
        phrases,
        frozenset(large),
        frozenset(season),
        frozenset(holiday),
    )


def _sample(events: pl.DataFrame, cut: date, config: "SigmaConfig") -> list[str]:
    """As many users as a shard holds, among those with an event in the target window."""
    after = pl.col(c.EVENT_DATE).is_between(
        cut + timedelta(days=1), cut + timedelta(days=config.data.horizon_days)
    )
    users: list[str] = events.filter(after)[c.USER_ID].unique().sort().to_list()
    return users[:: max(1, len(users) // config.instruction.users_per_shard)][
        : config.instruction.users_per_shard
    ]


def _read(root: Path, settings: ShardSettings) -> "Read":
    from sigma_core.artifacts import ArtifactStore
    from sigma_core.benchmarks.record import artifact_digests
    from sigma_core.data.catalog import ItemCatalog
    from sigma_core.data.events import InteractionEvents
    from sigma_core.data.users import UserProfiles
    from sigma_core.root_file import read_binding
    from sigma_core.serving.runtime import RequestError

    store, config = ArtifactStore(root), read_binding(root).config()
    partitions = store.partitions("interaction_events")
    both = sorted({*store.partitions("item_catalog")} & {*store.partitions("user_profiles")})
    horizon = timedelta(days=config.data.horizon_days)
    cuts = [date.fromisoformat(key) for key in both]
    cuts = [cut for cut in cuts if partitions and (cut + horizon).isoformat() <= partitions[-1]]
    if not cuts:
        raise RequestError(
            f"{root} holds no day with a catalog, profiles and a whole target window after it."
        )
    cuts = cuts[-settings.days :]
    last = (cuts[-1] + horizon).isoformat()
    events = pl.concat(
        [
            store.read(InteractionEvents, "interaction_events", key).frame.select(
                c.USER_ID, c.ITEM_ID, c.EVENT_TIME, c.EVENT_DATE, c.EVENT_TYPE
            )
            for key in partitions
            if key <= last
        ]
    )
    days = [
        (
            cut,
            store.read(ItemCatalog, "item_catalog", cut.isoformat()),
            store.read(UserProfiles, "user_profiles", cut.isoformat()),
        )
        for cut in cuts
    ]
    inside, made = [key for key in partitions if key <= last], [cut.isoformat() for cut in cuts]
    read = {"interaction_events": inside, "item_catalog": made, "user_profiles": made}
    return config, events, days, artifact_digests(root, read)


def _read_year(root: Path, settings: ShardSettings) -> "Read":
    """All accepted events of the root's source, and cuts spread over its last year that have a whole target window."""
    from sigma_core.benchmarks.record import source_fingerprint
    from sigma_core.data.catalog import CatalogBuilder
    from sigma_core.data.events import clean_events
    from sigma_core.data.users import build_user_profiles
    from sigma_core.root_file import read_binding

    binding = read_binding(root)
    config, source = binding.config(), binding.open_source()
    products, people = source.products(), source.users()
    events, _ = clean_events(source.events(), products[c.ITEM_ID])
    start, end = source.date_range()
    last = end - timedelta(days=config.data.horizon_days + 1)
    span = min(365, (last - start).days)
    cuts = [
        last - timedelta(days=span * number // settings.days) for number in reversed(range(settings.days))
    ]
    builder = CatalogBuilder(events, products, config.data, start)
    days = [(cut, builder.day(cut), build_user_profiles(people, events, cut)) for cut in cuts]
    return config, events, days, source_fingerprint(root)
