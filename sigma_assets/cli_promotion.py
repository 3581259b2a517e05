"""Verbs about which model serves: rollback, promote, promotions. Each parses, calls and prints."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sigma_assets.cli_app import AsOf, Root, Verbose, app, prepare

if TYPE_CHECKING:
    from sigma_assets.promoting import Ordered
    from sigma_assets.world import World

Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept with the promotion.")]


@app.command()
def rollback(
    reason: Reason,
    to: Annotated[
        str, typer.Option("--to", metavar="DATE", help="Day of the adapter to go back to, or: previous.")
    ] = "previous",
    root: Root = Path("var"),
    verbose: Verbose = False,
) -> None:
    """Go back to an earlier adapter, at once: the latest day is served by it, and a running `sigma serve` takes it over.

    What is taken back is never promoted again by itself, and nothing but a comparison or `sigma promote` replaces what was put
    in place. The order is kept in <root>/promotions.jsonl. Trains nothing; the day's lists are made again.
    """
    prepare(root, None, verbose)
    from sigma_assets.progress import Reporter
    from sigma_assets.promoting import rollback as run
    from sigma_core.config import parse_date

    if to != "previous":
        to = parse_date(to).isoformat()
    _print(*run(root, to, reason, Reporter(), verbose=verbose))


@app.command()
def promote(as_of: AsOf, reason: Reason, root: Root = Path("var"), verbose: Verbose = False) -> None:
    """Let a day's own adapter serve that day, whatever the quality gate said. Also lifts a rollback of it."""
    prepare(root, None, verbose)
    from sigma_assets.progress import Reporter
    from sigma_assets.promoting import promote as run
    from sigma_core.config import parse_date

    _print(*run(root, parse_date(as_of).isoformat(), reason, Reporter(), verbose=verbose))


@app.command()
def promotions(root: Root = Path("var"), verbose: Verbose = False) -> None:
    """Which adapter served each day, since when, and why; and which months' refits were refused."""
    prepare(root, None, verbose)
    from sigma_assets.promoting import history
    from sigma_assets.refits import refusals
    from sigma_assets.world import World

    world = World.open(root)
    sys.stdout.write(f"{'day':<11} {'adapter of':<11} {'since':<11} {'outcome':<9} why\n")
    for pointer, order in history(world):
        ordered = f" (ordered {order.at})" if order else ""
        sys.stdout.write(
            f"{pointer.as_of:<11} {pointer.model.day:<11} {pointer.since:<11} {pointer.outcome:<9} {pointer.reason}{ordered}\n"
        )
    for refusal in refusals(root):
        sys.stdout.write(f"refit of {refusal.month} refused {refusal.at}: {refusal.reason}\n")


def _print(world: "World", ordered: "Ordered") -> None:
    from sigma_assets.tables import print_steps

    order = ordered.order
    sys.stdout.write(f"{order.day} is served by the adapter of {order.model_day}: {order.reason}\n")
    print_steps(world, ordered.done, sys.stdout)
