"""Verbs of `sigma abtest`: simulate replays two policies on held-out days, analyse reads a log that a platform filled."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sigma_assets.cli_app import Verbose, app, prepare
from sigma_assets.cli_options import output_file, output_folder

abtest_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help=(
        "A/B tests: users split by hash, lifts with intervals, sample-ratio check, required sample size. `simulate` is a "
        "replay of purchases that happened without either list, never an online result."
    ),
)
app.add_typer(abtest_app, name="abtest")

Out = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", callback=output_file, help="Write the report here, as JSON."),
]
Share = Annotated[float, typer.Option(help="Share of users that see the candidate.")]
Detect = Annotated[float, typer.Option(help="Relative lift that the required sample size is for.")]


@abtest_app.command()
def simulate(
    control: Annotated[
        str,
        typer.Option(
            metavar="ROOT[@DAY]", help="The promoted policy: a root; with @DAY its lists of that day."
        ),
    ],
    candidate: Annotated[
        str, typer.Option(metavar="ROOT[@DAY]", help="The policy that is tried, in the same form.")
    ],
    experiment: Annotated[
        str, typer.Option(help="Name of the test; another name splits users anew.")
    ] = "replay",
    task: Annotated[str, typer.Option(help="Which prepared lists are shown.")] = "just_for_you",
    top_n: Annotated[int, typer.Option("--top-n", min=1, help="Items shown.")] = 20,
    share: Share = 0.5,
    detect: Detect = 0.05,
    log: Annotated[
        Path | None,
        typer.Option(
            "--log",
            metavar="FOLDER",
            callback=output_folder,
            help="Write assignment, exposure and outcome tables here.",
        ),
    ] = None,
    out: Out = None,
    verbose: Verbose = False,
) -> None:
    """Replay the days after which both roots have a horizon of events, each user under the list of their arm.

    The events are the control root's; `sigma evaluate` brings the days after a day into a root.
    """
    prepare(Path(), None, verbose)
    from sigma_assets.abtest import Replayed, simulate_replay

    asked = Replayed(control, candidate, experiment, task, top_n, share, detect)
    sys.stdout.write(simulate_replay(asked, log, out))


@abtest_app.command()
def analyse(
    log: Annotated[
        Path,
        typer.Option("--log", metavar="FOLDER", help="Folder of assignment, exposure and outcome.parquet."),
    ],
    experiment: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which test is read; needed where the log holds several."),
    ] = None,
    share: Share = 0.5,
    detect: Detect = 0.05,
    out: Out = None,
    verbose: Verbose = False,
) -> None:
    """Check a log against its contract and report what it says.

    Refused: several tests in one log without --experiment, and lists of another arm than their user's.
    """
    prepare(Path(), None, verbose)
    from sigma_assets.abtest import analyse_log

    sys.stdout.write(analyse_log(log, share, detect, out, experiment))
