"""Verbs that make, judge and look after artifacts: materialize, catalog-update, contracts, evaluate, prune, demo, config, doctor, ui.

Each parses, calls and prints; every import that costs time is inside the verb.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from sigma_assets.cli_app import AsOf, Root, Threads, Verbose, app, contracts_app, is_named, prepare
from sigma_assets.cli_options import output_file, output_folder


@app.command()
def materialize(
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="DATE", help="The day, for example 2017-10-23.")
    ] = None,
    first: Annotated[
        str | None, typer.Option("--from", metavar="DATE", help="Instead of --as-of: the first of many days.")
    ] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DATE", help="The last of many days, included.")
    ] = None,
    root: Root = Path("var"),
    source: Annotated[
        str | None,
        typer.Option(
            help="complete_journey (the embedded year), movielens, amazon or tabular. [default: complete_journey]"
        ),
    ] = None,
    path: Annotated[Path | None, typer.Option(help="Folder of the source's files, where it has any.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="demo, standard, llm or toy: how much is computed. [default: demo]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings, by section; replaces the root's own.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. training.lora_steps=100."),
    ] = None,
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Make everything that recommendations as of a day need, through Dagster, and nothing that is fresh.

    The day itself is known, nothing after it is. A root is bound to its source, path and profile; settings may change, and
    then what depends on them is made again. With --from and --to: every day of a range, oldest first; a day that cannot be
    made does not stop the others (exit code 1), and the same command tries it again.
    """
    if (as_of is None) == (first is None) or (first is None) != (last is None):
        raise typer.BadParameter("give --as-of DATE for one day, or --from DATE and --to DATE for many.")
    prepare(root, threads, verbose)
    from sigma_assets.binding import Request
    from sigma_assets.commands import materialize as run
    from sigma_assets.progress import Reporter
    from sigma_assets.tables import print_steps
    from sigma_core.config import parse_date

    settings = (*(set_ or ()), *((f"runtime.threads={threads}",) if threads else ()))
    request = Request(source, path, profile, config, settings)
    if as_of is None:
        from sigma_assets.backfill import backfill, summary_lines

        days = backfill(
            root, parse_date(str(first)), parse_date(str(last)), request, Reporter(), verbose=verbose
        )[1]
        sys.stdout.write("\n".join(summary_lines(days)) + "\n")
        raise typer.Exit(int(any(one.problems for one in days)))
    world, done = run(root, parse_date(as_of), request, Reporter(), verbose=verbose)
    print_steps(world, done, sys.stdout)


@app.command("catalog-update")
def catalog_update(
    day: Annotated[
        str, typer.Option("--date", metavar="DATE", help="The day from which the catalog is new.")
    ],
    path: Annotated[
        Path | None,
        typer.Option(
            help="The whole new catalog, .parquet or .csv. [default: the source's items, read again]"
        ),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=output_file,
            help="Only write the product master of the day to FILE, to edit it.",
        ),
    ] = None,
    max_delisted: Annotated[
        float,
        typer.Option(min=0, max=1, help="Largest share of the day's items that may be delisted at once."),
    ] = 0.2,
    root: Root = Path("var"),
    verbose: Verbose = False,
) -> None:
    """Take in a changed catalog from a day on: new, changed, renamed, delisted and relisted items.

    Runs item_catalog, item_embeddings, semantic_id_map, item_index and user_to_item_index of that day and nothing else: no
    model is trained, only new words are encoded, existing semantic IDs stay. The file holds one row an item with the columns
    of `items` (item_id, title, item_type, category, department, brand, maker, size); an item that it leaves out is delisted.
    """
    prepare(root, None, verbose)
    from sigma_assets.catalog_update import catalog_update as run
    from sigma_assets.catalog_update import export_catalog
    from sigma_assets.progress import Reporter
    from sigma_assets.tables import print_steps, print_update
    from sigma_core.config import parse_date

    when = parse_date(day)
    if export:
        sys.stdout.write(f"{export_catalog(root, when, export):,} items written to {export}\n")
        return
    world, update = run(root, when, path, Reporter(), max_delisted=max_delisted, verbose=verbose)
    print_update(update, sys.stdout)
    print_steps(world, update.done, sys.stdout)


@contracts_app.command("check")
def contracts_check(
    table: Annotated[
        str | None,
        typer.Option(
            help="events, items or users (files you bring), or a published table such as item_catalog."
        ),
    ] = None,
    path: Annotated[Path | None, typer.Option(help="The file, .parquet or .csv.")] = None,
    root: Root = Path("var"),
    verbose: Verbose = False,
) -> None:
    """Say everything that is wrong with a file before anyone ingests it, with examples; without one, check the contracts.

    Exit code 1 when the file would not be ingested as it is. Events are checked against the root's product master where the
    root exists, else every item of the file counts as known. Writes nothing.
    """
    prepare(root, None, verbose)
    from sigma_assets.checks.files import check_contracts, check_file

    if (table is None) != (path is None):
        raise typer.BadParameter("--table and --path go together; without both the contracts are checked.")
    if table is None or path is None:
        sys.stdout.write(f"{check_contracts()} contracts can be read and checked\n")
        return
    from sigma_assets.masters import known_items_of

    found = check_file(table, path, known_items_of(root))
    for violation in found:
        sys.stdout.write(violation.text() + "\n")
    errors = sum(one.severity == "ERROR" for one in found)
    warnings_ = sum(one.severity == "WARN" for one in found)
    sys.stdout.write(f"{path} as {table}: {errors} errors, {warnings_} warnings\n")
    if errors:
        raise typer.Exit(1)


@contracts_app.command("docs")
def contracts_docs(
    context: typer.Context,
    out: Annotated[
        Path, typer.Option(callback=output_folder, help="Folder for the pages; open its index.html.")
    ] = Path("contract-docs"),
    root: Root = Path("var"),
    verbose: Verbose = False,
) -> None:
    """Write the contracts as pages that open offline, with the latest results of a materialized root beside them.

    Without --root, the results of var/ where it exists.
    """
    prepare(root, None, verbose)
    from sigma_assets.contract_docs import build_docs

    pages = build_docs(out, root if is_named(context) or (root / "root.json").exists() else None)
    sys.stdout.write(f"{pages} pages; open {out / 'index.html'}\n")


@app.command()
def evaluate(
    as_of: AsOf,
    json_file: Annotated[
        Path,
        typer.Option("--json", metavar="FILE", callback=output_file, help="Where to write the report."),
    ],
    root: Root = Path("var"),
    horizon_days: Annotated[
        int | None, typer.Option(min=1, help="Days after the day that are judged. [default: 7]")
    ] = None,
    sample_households: Annotated[
        int | None,
        typer.Option(
            "--sample-households",
            "--users",
            min=1,
            help="Judge only so many households, chosen by hash. [default: all]",
        ),
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Judge a materialized day on the days after it: SIGMA beside its opponents on every task."""
    prepare(root, None, verbose)
    from sigma_assets.commands import EvaluateOptions
    from sigma_assets.commands import evaluate as run
    from sigma_assets.progress import Reporter
    from sigma_assets.tables import print_report
    from sigma_core.artifacts import write_json
    from sigma_core.config import parse_date

    options = EvaluateOptions(horizon_days=horizon_days, sample_households=sample_households)
    _, _, report = run(root, parse_date(as_of), options, Reporter(), verbose=verbose)
    write_json(json_file, report)
    print_report(report, sys.stdout)
    sys.stdout.write(f"written to {json_file}\n")


@app.command()
def prune(
    keep_days: Annotated[
        int, typer.Option("--keep-days", metavar="N", help="Days before the newest that stay, 28 at least.")
    ],
    root: Root = Path("var"),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, and how many MB.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Take away item_embeddings, item_index and user_to_item_index of days older than N days before the newest one.

    Nothing that a later day, a rollback or the quality gate reads is touched: sources, catalogs, shards, refits, adapters,
    promotions and reports stay. A day taken away counts as never made; `sigma materialize` makes it again.
    """
    prepare(root, None, verbose)
    from sigma_assets.prune import prune as run

    def told(line: str) -> None:
        sys.stdout.write(line + "\n")

    if run(root, keep_days, told, dry_run=dry_run):
        sys.stdout.write("nothing was removed (--dry-run)\n" if dry_run else "removed\n")


@app.command()
def demo(root: Root = Path("var"), threads: Threads = None, verbose: Verbose = False) -> None:
    """The whole pipeline as of 2017-10-23 on a real year of retail data, judged, with lists for one household."""
    prepare(root, threads, verbose)
    from sigma_assets.demo import run_demo

    run_demo(root, threads, verbose=verbose)


@app.command()
def config(
    context: typer.Context,
    root: Root = Path("var"),
    profile: Annotated[
        str | None, typer.Option(help="demo, standard, llm or toy. [default: the root's, else demo]")
    ] = None,
    file: Annotated[Path | None, typer.Option("--config", help="YAML file of settings, by section.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One setting, e.g. training.lora_steps=100."),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="A Markdown table with bounds and meanings instead of YAML.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Every setting in force: YAML that --config takes, or a table of all dimensions, temperatures and weights.

    Of the root that --root names; without it of var/ where it exists, else of the profile.
    """
    prepare(root, None, verbose)
    import yaml

    from sigma_core.config import load_config
    from sigma_core.config_table import config_table
    from sigma_core.root_file import ROOT_FILE, read_binding

    own: tuple[str, ...] = ()
    if profile is None and (is_named(context) or (root / ROOT_FILE).exists()):
        binding = read_binding(root)
        profile, own = binding.profile, () if file else binding.settings  # as `materialize --config` has it
    found = load_config(profile or "demo", file, (*own, *(set_ or ())))
    values = found.model_dump(mode="json", exclude={"profile"})
    sys.stdout.write(config_table(found) if table else yaml.safe_dump(values, sort_keys=False))


@app.command()
def doctor(root: Root = Path("var"), verbose: Verbose = False) -> None:
    """What is installed, which backbones load, what each profile needs, and what to do about gaps."""
    prepare(root, None, verbose)
    from sigma_assets.doctor import doctor_report, is_healthy

    rows = doctor_report(root)
    width = max(len(row.name) for row in rows)
    for row in rows:
        remedy = f"  -> {row.remedy}" if row.remedy else ""
        sys.stdout.write(f"{row.status:<8}{row.topic:<10}{row.name:<{width}}  {row.found}{remedy}\n")
    if not is_healthy(rows):
        raise typer.Exit(1)


@app.command()
def ui(
    root: Root = Path("var"),
    port: Annotated[int, typer.Option(min=1, max=65_535, help="Port on 127.0.0.1.")] = 3000,
    verbose: Verbose = False,
) -> None:
    """Open the root's artifacts in Dagster's UI (127.0.0.1 only), until Ctrl-C."""
    prepare(root, None, verbose)
    from sigma_assets.ui import run_ui

    raise typer.Exit(run_ui(root, port))
