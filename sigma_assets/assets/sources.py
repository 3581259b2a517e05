"""Sources: the days of events, their monthly rollup, and the catalog and the users of a day.

`sigma materialize` makes these in bulk (`sigma_assets/ingest.py`) with the same core calls and the same result.
Source: architecture.md, "One walk"; tasks.md (catalog of a day).
"""

import dagster as dg

from sigma_assets.changes import changes_of
from sigma_assets.intake import intake_of
from sigma_assets.periods import as_date, month_span
from sigma_assets.publish import Published, publish
from sigma_assets.resources import SigmaResource
from sigma_assets.window import Window, frames_of
from sigma_core.data.events import InteractionEvents
from sigma_core.data.users import build_user_profiles


def interaction_events(context: dg.AssetExecutionContext, sigma: SigmaResource) -> Published:
    """Accepted events of one day; the refused rows beside them, each with its reason."""
    day, intake = as_date(context.partition_key), intake_of(sigma.world)
    if line := intake.report_line():
        context.log.info(line)
    shown = intake.report_metadata()
    yield from publish(context, sigma, intake.day(day), metadata=shown, **intake.event_inputs([day]))


def interaction_history(context: dg.AssetExecutionContext, sigma: SigmaResource, days: Window) -> Published:
    """All accepted events of one month, so that readers of the full history need few files."""
    first, last = month_span(as_date(context.partition_key), sigma.world.span)
    yield from publish(context, sigma, InteractionEvents(frames_of(days)), first=first, last=last)


def item_catalog(
    context: dg.AssetExecutionContext, sigma: SigmaResource, history: Window, recent: Window
) -> Published:
    """Items that can be recommended on a day, with their words, novelty and recent sales."""
    day, intake = as_date(context.partition_key), intake_of(sigma.world)
    catalog = intake.catalog_builder(sigma.world, frames_of(history, recent), day).day(day)
    changes = changes_of(sigma, context.partition_key, catalog)
    yield from publish(context, sigma, catalog, metadata=changes, **intake.catalog_inputs(day))


def user_profiles(
    context: dg.AssetExecutionContext, sigma: SigmaResource, history: Window, recent: Window
) -> Published:
    """Users seen up to a day, with what is known of them in words."""
    day = as_date(context.partition_key)
    profiles = build_user_profiles(intake_of(sigma.world).users, frames_of(history, recent), day)
    yield from publish(context, sigma, profiles, day=day)
