"""A replay: held-out purchases under two policies' lists, each user seeing one of them by hash. Never an online result.

The purchases happened without either list being shown, so a replay says which list names more of what people took, not what
they would have taken had they seen it. Our choice.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final

import polars as pl

from sigma_core import columns as c
from sigma_core.abtest.log import ARM, CANDIDATE, CONTROL, EXPERIMENT, SCHEMAS, AbLog
from sigma_core.data.events import POSITIVE_TYPES
from sigma_core.instruction.hashing import stable_hash

_BUCKETS: Final = 10_000


def assign(user_ids: pl.Series, experiment: str, share: float = 0.5) -> pl.DataFrame:
    """Table `assignment`: each user in one arm, by a hash of user and experiment; `share` of the buckets are candidate.

    The same user always gets the same arm of an experiment; arms of two experiments are independent.

    Raises:
        ValueError: `share` is not between 0 and 1.
    """
    if not 0 < share < 1:
        raise ValueError(f"the candidate's share is {share}; needed a number between 0 and 1.")
    users = pl.DataFrame({c.USER_ID: user_ids.cast(pl.String).unique().sort()})
    bucket = stable_hash(users, (c.USER_ID,), f"abtest:{experiment}") % _BUCKETS
    arm = pl.select(
        pl.when(bucket < round(share * _BUCKETS)).then(pl.lit(CANDIDATE)).otherwise(pl.lit(CONTROL))
    )
    columns = (pl.lit(experiment).alias(EXPERIMENT), arm.to_series().alias(ARM))
    return users.with_columns(columns).select(list(SCHEMAS["assignment"]))


def replay(
    lists: Mapping[date, tuple[pl.DataFrame, pl.DataFrame]],
    categories: Mapping[date, pl.DataFrame],
    events: pl.DataFrame,
    *,
    experiment: str,
    share: float,
    top_n: int,
    horizon_days: int,
) -> AbLog:
    """The log of showing each user the list of their arm on every day, and of what they took in the days after.

    Users are those with a list of both policies on a day: a user whom one policy cannot serve would compare coverage, not
    lists.

    Args:
        lists: for each day the control's and the candidate's lists (USER_ID, RANK, ITEM_ID).
        categories: for each day ITEM_ID and CATEGORY of the catalog.
        events: held-out events: USER_ID, ITEM_ID, EVENT_DATE, EVENT_TYPE.
        experiment: its name, the salt of the assignment.
        share: of users that see the candidate.
        top_n: items shown.
        horizon_days: days after which a purchase no longer counts.
    """
    shared = [
        control.select(c.USER_ID).unique().join(candidate.select(c.USER_ID).unique(), on=c.USER_ID)
        for control, candidate in lists.values()
    ]
    users = pl.concat(shared)[c.USER_ID] if shared else pl.Series(c.USER_ID, [], pl.String)
    assignment = assign(users, experiment, share)
    exposures, outcomes = [], []
    for (day, both), served in zip(lists.items(), shared, strict=True):
        arms = assignment.join(served, on=c.USER_ID, how="semi")
        for arm, frame in zip((CONTROL, CANDIDATE), both, strict=True):
            mine = arms.filter(pl.col(ARM) == arm)
            shown = frame.filter(pl.col(c.RANK) <= top_n).join(mine, on=c.USER_ID)
            shown = shown.join(categories[day].select(c.ITEM_ID, c.CATEGORY), on=c.ITEM_ID, how="left")
            exposures.append(_typed(shown.with_columns(pl.lit(day).alias("shown_on")), "exposure"))
        until = day + timedelta(days=horizon_days)
        taken = events.filter(
            (pl.col(c.EVENT_DATE) > day)
            & (pl.col(c.EVENT_DATE) <= until)
            & pl.col(c.EVENT_TYPE).is_in(POSITIVE_TYPES)
        ).join(arms.select(c.USER_ID), on=c.USER_ID, how="semi")
        counted = taken.group_by(c.USER_ID, c.ITEM_ID).agg(pl.len().alias("events"))
        said = (pl.lit(day).alias("shown_on"), pl.lit(experiment).alias(EXPERIMENT))
        outcomes.append(_typed(counted.with_columns(said), "outcome"))
    empty = {name: pl.DataFrame(schema=SCHEMAS[name]) for name in ("exposure", "outcome")}
    return AbLog(
        assignment,
        pl.concat([empty["exposure"], *exposures]).sort(c.USER_ID, "shown_on", c.RANK),
        pl.concat([empty["outcome"], *outcomes]).sort(c.USER_ID, "shown_on", c.ITEM_ID),
    )


def _typed(frame: pl.DataFrame, table: str) -> pl.DataFrame:
    return frame.select(pl.col(name).cast(kind) for name, kind in SCHEMAS[table].items())
