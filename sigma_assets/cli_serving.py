"""Verbs that answer: recommend, search, serve, nearline; and embed-images, which makes vectors of pictures.

None of them imports dagster, peft or great_expectations. Each parses, calls and prints.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sigma_assets.cli_app import Root, Threads, Verbose, app, prepare


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
    prepare(root, None, verbose)
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
    prepare(root, None, verbose)
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
    prepare(root, threads, verbose)
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
    prepare(root, threads, verbose)
    from sigma_assets.commands import follow_events as run

    def told(line: str) -> None:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    run(root, events, told, follow=follow)


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
    prepare(Path(), None, verbose)
    from sigma_core.grounding import image_vectors as iv

    ids, vectors = iv.embed_images(iv.image_files(folder), model)
    iv.write_image_vectors(ids, vectors, out)
    sys.stdout.write(f"{len(ids)} pictures, vectors of width {vectors.shape[1]}: written to {out}\n")


# ------------------------------------------------------------------------------------------ process
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
