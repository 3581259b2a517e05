"""What the verbs of the command line share: the application, common options, and what every verb does first.

The verbs are in `cli_pipeline.py` and `cli_serving.py`; `cli.py` is the entry point. Imports nothing that costs time.
"""

import gc
import json
import logging
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, Final

import typer

from sigma_assets.cli_options import root_folder

PROFILE_THREADS: Final = 2  # runtime.threads of a root without settings
GARBAGE_COLLECTION: Final = (50_000, 10, 10)
"""Python's own first number is 700: a quarter of a short command was the walk over what it imported."""
THREAD_VARIABLES: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS")

app = typer.Typer(
    name="sigma",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=(
        "SIGMA: a generative recommender that follows instructions, as a date-partitioned Dagster pipeline.\n\n"
        "Start with `sigma demo`: it makes everything for one day of a real year of retail data, judges it and shows lists. "
        "For your own dates and data: `sigma materialize --as-of DATE`, then `sigma recommend --user ID`. "
        "All artifacts of one source live in one folder, the root (--root, by default var/)."
    ),
)

contracts_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Data contracts: check them, and files against them."
)
app.add_typer(contracts_app, name="contracts")

Root = Annotated[
    Path,
    typer.Option(
        "--root", callback=root_folder, help="Folder of all artifacts of one source, path and profile."
    ),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more, and show tracebacks.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; remembered by the root. [default: 2]")
]
AsOf = Annotated[str, typer.Option("--as-of", metavar="DATE", help="The day, for example 2017-10-23.")]


def is_named(context: typer.Context) -> bool:
    """True when --root was given, so that a root must be there; its default may be missing."""
    source = context.get_parameter_source("root")
    return source is not None and source.name == "COMMANDLINE"


def prepare(root: Path, threads: int | None, verbose: bool) -> None:
    """Settings of the process that must be there before numpy, polars and torch are imported."""
    gc.set_threshold(*GARBAGE_COLLECTION)
    number = threads or remembered_threads(root)
    for variable in THREAD_VARIABLES:
        os.environ.setdefault(variable, str(number))
    os.environ.setdefault(
        "OMP_WAIT_POLICY", "PASSIVE"
    )  # a thread that spins for a taken core makes two slower than one
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing is looked up or fetched behind the user's back
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("DAGSTER_DISABLE_TELEMETRY", "1")
    level = logging.INFO if verbose else logging.ERROR
    logging.basicConfig(level=level, stream=sys.stderr, format="%(name)s: %(message)s")
    for handler in logging.getLogger().handlers:  # some libraries set their own level, and would get through
        handler.setLevel(level)
    if not verbose:
        warnings.simplefilter("ignore")


def remembered_threads(root: Path) -> int:
    """`runtime.threads` among the root's settings, or the profile's; never an error: the verb itself reports a bad root."""
    try:
        settings = json.loads((root / "root.json").read_text())["settings"]
        given = [setting.partition("=")[2] for setting in settings if setting.startswith("runtime.threads=")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return PROFILE_THREADS
    return int(given[-1]) if given and given[-1].isdigit() else PROFILE_THREADS
