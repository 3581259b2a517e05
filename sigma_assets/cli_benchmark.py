"""Verbs of `sigma benchmark`: each prints a table and writes its record as JSON with `--out FILE`.

A verb parses, calls `sigma_core.benchmarks` and prints; groups of verbs live in `cli_benchmark_*.py`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from sigma_assets.cli_app import app
from sigma_assets.cli_options import output_file_and_folder

benchmark_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help=(
        "Benchmarks anyone can rerun: accuracy, speed, cost. Each verb prints a table and writes JSON with versions, "
        "seeds, data digests, machine and settings. BENCHMARKS.md holds our figures and the commands that made them."
    ),
)
app.add_typer(benchmark_app, name="benchmark")

Out = Annotated[
    Path | None,
    typer.Option(
        "--out", metavar="FILE", callback=output_file_and_folder, help="Write the record here, as JSON."
    ),
]


def publish(out: Path | None, record: Mapping[str, Any], table: str) -> None:
    """Show the table; with `--out`, write the record and its page (the same name, .html) and say where they are."""
    import sys

    sys.stdout.write(table)
    if out is not None:
        from sigma_core.benchmarks.page import save_page
        from sigma_core.benchmarks.record import save_record

        page = out.with_suffix(".html")
        save_record(out, record)
        save_page(page, record)
        sys.stdout.write(f"written: {out}, {page}\n")
