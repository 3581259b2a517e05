"""Users seen up to a day, with their profile in words. The source words each value; this module only joins them."""

from datetime import date
from typing import Any, ClassVar

import polars as pl

from sigma_core import columns as c
from sigma_core.artifacts import TableArtifact
from sigma_core.data.splits import history_until


class UserProfiles(TableArtifact):
    """One row a user, sorted by USER_ID; PROFILE_TEXT is "" when nothing is known of the user."""

    schema: ClassVar[dict[str, Any]] = {
        c.USER_ID: pl.String,
        c.PROFILE_TEXT: pl.String,
        c.FIRST_SEEN: pl.Date,
        c.NUM_EVENTS: pl.Int64,
    }


def build_user_profiles(users_raw: pl.DataFrame, events: pl.DataFrame, day: date) -> UserProfiles:
    """Profiles of every user with a purchase (or rating) up to `day`.

    Args:
        users_raw: USER_ID and profile columns of a `Source`; users without events are left out.
        events: accepted events; later ones than `day` are not looked at.
    """
    known = [name for name in users_raw.columns if name != c.USER_ID]
    text = pl.concat_str(known, separator=", ", ignore_nulls=True) if known else pl.lit("")
    profiles = users_raw.select(c.USER_ID, text.alias(c.PROFILE_TEXT)).unique(c.USER_ID, keep="first")
    seen = (
        history_until(events, day)
        .group_by(c.USER_ID)
        .agg(pl.col(c.EVENT_DATE).min().alias(c.FIRST_SEEN), pl.len().cast(pl.Int64).alias(c.NUM_EVENTS))
    )
    frame = (
        seen.join(profiles, on=c.USER_ID, how="left")
        .with_columns(pl.col(c.PROFILE_TEXT).fill_null(""))
        .select(UserProfiles.schema.keys())
        .sort(c.USER_ID)
    )
    return UserProfiles(frame)
