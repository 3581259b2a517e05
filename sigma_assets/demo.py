"""`sigma demo`: the pipeline as of one day of the embedded data, judged on a sample, with lists a person can read.

Puts the other verbs together and prints; computes nothing itself. Source: issue "SIGMA end to end", `make demo`.
"""

import os
import shutil
import sys
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import polars as pl

from sigma_assets.binding import Request
from sigma_assets.cli_serving import shown_list
from sigma_assets.commands import EvaluateOptions, evaluate, materialize
from sigma_assets.progress import Reporter
from sigma_assets.tables import print_report, print_steps
from sigma_core import columns as c

if TYPE_CHECKING:
    from sigma_core.serving.runtime import LoadedRecommender

DAY: Final = date(2017, 10, 23)
SAMPLE: Final = EvaluateOptions(sample_households=400, lift_households=300, max_requests=3)
REQUESTS: Final[tuple[tuple[str, dict[str, str]], ...]] = (
    ("just for you", {"task": "just_for_you"}),
    ('"Halloween is coming"', {"instruction": "Halloween is coming"}),
    ('the query "ice cream"', {"query": "ice cream"}),
    (
        '"surprise me with something new"',
        {"task": "discover", "instruction": "surprise me with something new"},
    ),
)


def run_demo(root: Path, threads: int | None, *, verbose: bool = False) -> None:
    """Materialize, judge and show; all errors are those of the verbs."""
    started, reporter, out = time.monotonic(), Reporter(), sys.stdout
    settings = (f"runtime.threads={threads}",) if threads else ()
    request = Request("complete_journey", None, "demo", None, settings)
    world, done = materialize(root, DAY, request, reporter, verbose=verbose)
    reporter.line(
        f"judging {DAY} on the 7 days after it: a hash sample of {SAMPLE.sample_households} households, at most "
        f"{SAMPLE.max_requests} query and category requests each; lift on {SAMPLE.lift_households} of them"
    )
    _, judged, report = evaluate(root, DAY, SAMPLE, reporter, verbose=verbose)
    out.write("\nWhat each step made and took\n")
    print_steps(world, [*done, *judged], out)
    out.write("\nSIGMA and its opponents\n")
    print_report(report, out)
    show_lists(root, out)
    folder = world.store.path("eval_report", DAY.isoformat())
    out.write(
        f"\nreport      {folder / 'report.html'} (open it in a browser; .md, .json and .png beside it)\n"
        f"UI          make ui    (or: sigma ui --root {root})\n"
        f"{activation()}"
        f"your turn   sigma recommend --root {root} --user ID --query 'taco night'\n"
        f"demo took   {time.monotonic() - started:.0f} s\n"
    )


def activation() -> str:
    """A line on how to get the command `sigma`; "" where it is found, or where this is no virtual environment."""
    script = Path(sys.executable).with_name("activate")
    if shutil.which("sigma") or not script.exists():
        return ""
    return f"first       source {os.path.relpath(script)}\n"


def show_lists(root: Path, out: TextIO) -> None:
    """Ten recommendations for one household under four instructions."""
    from sigma_core.serving.runtime import load_recommender

    recommender = load_recommender(root, DAY.isoformat())
    user = shown_user(recommender)
    profile = recommender.lists.contexts.filter(pl.col(c.USER_ID) == user)[c.PROFILE_TEXT][0]
    out.write(f"\nHousehold {user}: {profile or 'no profile'}\n")
    for title, request in REQUESTS:
        out.write(f"\nTen for household {user}, {title}\n")
        out.write(shown_list(recommender.recommend(user, top_n=10, **request)))


def shown_user(recommender: "LoadedRecommender") -> str:
    """A household with a profile and a long history: the longest list of favourites, ties by id."""
    contexts = recommender.lists.contexts
    known = contexts.filter(contexts[c.PROFILE_TEXT] != "")
    pool = known if known.height else contexts
    lengths = pool[c.FAVORITE_ITEMS].list.len() + pool[c.RECENT_ITEMS].list.len()
    order = pool.with_columns(lengths.alias("_length")).sort(["_length", c.USER_ID], descending=[True, False])
    return str(order[c.USER_ID][0])
