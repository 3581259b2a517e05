"""The command line, one function a verb; `sigma --help` lists them.

Parses, calls, prints; every import that costs time is inside the verb that needs it, so that `sigma --help` and `sigma
recommend` start fast (the latter and `search` never import dagster, peft or great_expectations). Errors are one line on stderr and exit
code 1; `-v` shows the traceback. Source: issue "SIGMA end to end", section CLI.
"""

import json
import logging
import os
import signal
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any, Final

import typer

PROFILE_THREADS: Final = 2  # runtime.threads of a root without settings
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
    Path, typer.Option("--root", help="Folder of all artifacts of one source, path and profile.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more, and show tracebacks.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; remembered by the root. [default: 2]")
]
AsOf = Annotated[str, typer.Option("--as-of", metavar="DATE", help="The day, for example 2017-10-23.")]


@app.command()
def materialize(
    as_of: AsOf,
    root: Root = Path("var"),
    source: Annotated[
        str | None,
        typer.Option(
            help="complete_journey (the embedded year), movielens or tabular. [default: complete_journey]"
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
    then what depends on them is made again.
    """
    _prepare(root, threads, verbose)
    from sigma_assets.binding import Request
    from sigma_assets.commands import materialize as run
    from sigma_assets.progress import Reporter
    from sigma_assets.tables import print_steps
    from sigma_core.config import parse_date

    settings = (*(set_ or ()), *((f"runtime.threads={threads}",) if threads else ()))
    request = Request(source, path, profile, config, settings)
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
        typer.Option(metavar="FILE", help="Only write the product master of the day to FILE, to edit it."),
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
    _prepare(root, None, verbose)
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
        typer.Option(help="events or items (files you bring), or a published table such as item_catalog."),
    ] = None,
    path: Annotated[Path | None, typer.Option(help="The file, .parquet or .csv.")] = None,
    root: Root = Path("var"),
    verbose: Verbose = False,
) -> None:
    """Say everything that is wrong with a file before anyone ingests it, with examples; without one, check the contracts.

    Exit code 1 when the file would not be ingested as it is. Events are checked against the root's product master where the
    root exists, else every item of the file counts as known. Writes nothing.
    """
    _prepare(root, None, verbose)
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


@app.command()
def recommend(
    user: Annotated[str, typer.Option("--user", metavar="ID", help="Whom to recommend to.")],
    root: Root = Path("var"),
    task: Annotated[
        str | None,
        typer.Option(
            help="just_for_you, query, category, longtail, discover, season or holiday. [default: what is asked]"
        ),
    ] = None,
    query: Annotated[
        str | None, typer.Option(metavar="TEXT", help='What the user types: "ice cream".')
    ] = None,
    category: Annotated[str | None, typer.Option(metavar="TEXT", help="A category in words.")] = None,
    instruction: Annotated[
        str | None, typer.Option(metavar="TEXT", help='Free words: "Halloween is coming".')
    ] = None,
    top_n: Annotated[int, typer.Option("--top-n", help="Length of the list.")] = 10,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="DATE", help="The day. [default: the latest]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    verbose: Verbose = False,
) -> None:
    """Recommend to one user, on a day that was materialized. Makes nothing that is missing."""
    _prepare(root, None, verbose)
    from sigma_core.serving.runtime import load_recommender

    rows = load_recommender(root, as_of).recommend(user, task, query, category, instruction, top_n)
    if as_json:
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(shown_list(rows))


@app.command()
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help='What to look for: "red lipstick".')],
    root: Root = Path("var"),
    top_n: Annotated[int, typer.Option("--top-n", help="Length of the list.")] = 10,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="DATE", help="The day. [default: the latest]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    verbose: Verbose = False,
) -> None:
    """The items of a day nearest to a text, by the grounded encoder alone: no user, no trained model."""
    _prepare(root, None, verbose)
    from sigma_core.serving.search import load_search

    rows = load_search(root, as_of).search(text, top_n)
    if as_json:
        sys.stdout.write(json.dumps(rows, ensure_ascii=False) + "\n")
        return
    sys.stdout.write(f"{'#':>3}  {'title':<62} {'item':>10} {'cosine':>7}\n")
    for row in rows:
        sys.stdout.write(
            f"{row['rank']:>3}  {_short(row['title']):<62} {row['item_id']:>10} {row['score']:>7.3f}\n"
        )


@app.command()
def evaluate(
    as_of: AsOf,
    json_file: Annotated[Path, typer.Option("--json", metavar="FILE", help="Where to write the report.")],
    root: Root = Path("var"),
    horizon_days: Annotated[
        int | None, typer.Option(min=1, help="Days after the day that are judged. [default: 7]")
    ] = None,
    sample_households: Annotated[
        int | None, typer.Option(min=1, help="Judge only so many households, chosen by hash. [default: all]")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Judge a materialized day on the days after it: SIGMA beside its opponents on all seven tasks."""
    _prepare(root, None, verbose)
    from sigma_assets.commands import EvaluateOptions
    from sigma_assets.commands import evaluate as run
    from sigma_assets.progress import Reporter
    from sigma_assets.tables import print_report
    from sigma_core.artifacts import write_json
    from sigma_core.config import parse_date

    if not json_file.resolve().parent.is_dir():
        raise typer.BadParameter(
            f"--json {json_file}: the folder {json_file.resolve().parent} does not exist."
        )
    options = EvaluateOptions(horizon_days=horizon_days, sample_households=sample_households)
    _, _, report = run(root, parse_date(as_of), options, Reporter(), verbose=verbose)
    write_json(json_file, report)
    print_report(report, sys.stdout)
    sys.stdout.write(f"written to {json_file}\n")


@app.command()
def demo(root: Root = Path("var"), threads: Threads = None, verbose: Verbose = False) -> None:
    """The whole pipeline as of 2017-10-23 on a real year of retail data, judged, with lists for one household."""
    _prepare(root, threads, verbose)
    from sigma_assets.demo import run_demo

    run_demo(root, threads, verbose=verbose)


@app.command()
def config(
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
    """Every setting in force: YAML that --config takes, or a table of all dimensions, temperatures and weights."""
    _prepare(root, None, verbose)
    import yaml

    from sigma_core.artifacts import read_json
    from sigma_core.config import load_config
    from sigma_core.config_table import config_table

    binding: dict[str, Any] = {"profile": profile or "demo", "settings": []}
    if profile is None and (root / "root.json").exists():
        binding = read_json(root / "root.json")
    found = load_config(binding["profile"], file, (*binding["settings"], *(set_ or ())))
    values = found.model_dump(mode="json", exclude={"profile"})
    sys.stdout.write(config_table(found) if table else yaml.safe_dump(values, sort_keys=False))


@app.command()
def doctor(root: Root = Path("var"), verbose: Verbose = False) -> None:
    """What is installed, which backbones load, what each profile needs, and what to do about gaps."""
    _prepare(root, None, verbose)
    from sigma_assets.doctor import doctor_report, is_healthy

    rows = doctor_report(root)
    width = max(len(row.name) for row in rows)
    for row in rows:
        remedy = f"  -> {row.remedy}" if row.remedy else ""
        sys.stdout.write(f"{row.status:<8}{row.topic:<10}{row.name:<{width}}  {row.found}{remedy}\n")
    if not is_healthy(rows):
        raise typer.Exit(1)


@app.command()
def serve(
    root: Root = Path("var"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; one that other machines reach needs an API key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Port.")] = 8000,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="DATE", help="Stay with this day. [default: the latest]")
    ] = None,
    api_keys_file: Annotated[
        Path | None,
        typer.Option(help="File of API keys, one a line, read again when it changes. Or set SIGMA_API_KEYS."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A setting of section http, e.g. http.deadline_ms=500."
        ),
    ] = None,
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Answer over HTTP: recommendations, prepared lists, similar items, search. Needs the extra `serve`.

    A newly materialized day is taken over while requests go on. /openapi.json describes the API, /metrics its figures.
    """
    _prepare(root, threads, verbose)
    from sigma_core.serving.http.server import ServeOptions
    from sigma_core.serving.http.server import serve as run

    run(root, ServeOptions(host, port, as_of, api_keys_file, tuple(set_ or ())))


@app.command()
def nearline(
    events: Annotated[
        Path,
        typer.Option("--events", help="File, or folder of files: JSON lines or Parquet, may still grow."),
    ],
    root: Root = Path("var"),
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on looking for new events until Ctrl-C.")
    ] = False,
    threads: Threads = None,
    verbose: Verbose = False,
) -> None:
    """Take in new events and refresh the prepared lists of their users, on the latest day of the root.

    Rows hold user_id, item_id, event_time and, if there are any, event_type, session_id, quantity. Late, repeated and
    unordered events are fine; a run that is killed goes on where it was.
    """
    _prepare(root, threads, verbose)
    from sigma_assets.commands import follow_events as run

    def told(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    run(root, events, told, follow=follow)


@app.command()
def ui(
    root: Root = Path("var"),
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 3000,
    verbose: Verbose = False,
) -> None:
    """Open the root's artifacts in Dagster's UI (127.0.0.1 only), until Ctrl-C."""
    _prepare(root, None, verbose)
    from sigma_assets.ui import run_ui

    raise typer.Exit(run_ui(root, port))


def shown_list(rows: list[dict[str, Any]]) -> str:
    """A list for people: rank, title, item id, score, where in the tree of semantic IDs."""
    lines = [f"{'#':>3}  {'title':<62} {'item':>10} {'score':>7}  prefix (probability)\n"]
    for row in rows:
        title = _short(row["title"])
        prefix = "-".join(map(str, row["prefix"]))
        lines.append(
            f"{row['rank']:>3}  {title:<62} {row['item_id']:>10} {row['score']:>7.3f}  {prefix} ({row['prefix_probability']:.3f})\n"
        )
    return "".join(lines)


def _short(title: str) -> str:
    return title if len(title) <= 62 else title[:59] + "..."


@app.command(name="embed-images")
def embed_images(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Pictures named ITEM_ID.jpg (or png, webp).")
    ],
    model: Annotated[
        str, typer.Option(help="A transformers vision model: a folder, or a Hub id in the local cache.")
    ],
    out: Annotated[Path, typer.Option(help="The table to write, next to your other tables.")] = Path(
        "item_image_vectors.parquet"
    ),
    verbose: Verbose = False,
) -> None:
    """Image vectors of your pictures, as the table that --source tabular reads."""
    _prepare(Path(), None, verbose)
    from sigma_core.grounding import image_vectors as iv

    ids, vectors = iv.embed_images(iv.image_files(folder), model)
    iv.write_image_vectors(ids, vectors, out)
    sys.stdout.write(f"{len(ids)} pictures, vectors of width {vectors.shape[1]}: written to {out}\n")


# ------------------------------------------------------------------------------------------ process
def _prepare(root: Path, threads: int | None, verbose: bool) -> None:
    """Settings of the process that must be there before numpy, polars and torch are imported."""
    number = threads or _remembered_threads(root)
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


def _remembered_threads(root: Path) -> int:
    try:
        settings = json.loads((root / "root.json").read_text())["settings"]
    except (OSError, ValueError, KeyError):
        return PROFILE_THREADS
    given = [setting.partition("=")[2] for setting in settings if setting.startswith("runtime.threads=")]
    return int(given[-1]) if given and given[-1].isdigit() else PROFILE_THREADS


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the console script: runs a verb and exits with 0, 1 (an error, one line) or 130 (Ctrl-C)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    verbose = "-v" in arguments or "--verbose" in arguments
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill ends like Ctrl-C
    try:
        code = app(arguments, standalone_mode=False)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; the same command goes on where it was.\n")
        sys.exit(130)
    except Exception as error:
        if verbose:
            logging.getLogger("sigma").exception("failed")
        sys.stderr.write(f"error: {one_line(error)}\n")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def one_line(error: BaseException) -> str:
    """The error in one line. Our own errors say what to do; of others the type is named."""
    text = " ".join(str(getattr(error, "format_message", lambda: error)()).split())
    module = type(error).__module__
    if module.startswith(("sigma_", "typer")) or isinstance(error, ValueError):
        return text
    return f"{type(error).__name__}: {text} (run again with -v for the traceback)"


if __name__ == "__main__":
    main()
