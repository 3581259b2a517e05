"""Verbs that answer: recommend, search, serve, nearline; and embed-images, which makes vectors of pictures.

None of them imports dagster, peft or great_expectations. Each parses, calls and prints.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sigma_assets.cli_app import Root, Threads, Verbose, app, prepare
from sigma_assets.cli_options import output_file, some_words
from sigma_core.instruction.tasks import told_tasks

TopN = Annotated[int, typer.Option("--top-n", "--n", help="Length of the list.")]


@app.command()
def recommend(
    user: Annotated[str, typer.Option("--user", metavar="ID", help="Whom to recommend to.")],
    root: Root = Path("var"),
    task: Annotated[
        str | None,
        typer.Option(metavar="TASK", help=f"{told_tasks()}. [default: what is asked]"),
    ] = None,
    query: Annotated[
        str | None,
        typer.Option(metavar="TEXT", callback=some_words, help='What the user types: "ice cream".'),
    ] = None,
    category: Annotated[
        str | None, typer.Option(metavar="TEXT", callback=some_words, help="A category in words.")
    ] = None,
    instruction: Annotated[
        str | None,
        typer.Option(metavar="TEXT", callback=some_words, help='Free words: "Halloween is coming".'),
    ] = None,
    top_n: TopN = 10,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="DATE", help="The day. [default: the latest]")
    ] = None,
    category_in: Annotated[
        list[str] | None,
        typer.Option(
            "--category-in", metavar="TEXT", help="Only what this names: a category, a type, 'dairy'."
        ),
    ] = None,
    category_out: Annotated[
        list[str] | None,
        typer.Option(
            "--category-out", metavar="TEXT", help="Nothing of what this names. Both may be repeated."
        ),
    ] = None,
    min_price: Annotated[float | None, typer.Option(min=0, help="Least unit price.")] = None,
    max_price: Annotated[float | None, typer.Option(min=0, help="Highest unit price.")] = None,
    stock: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Item ids in stock, one a line: nothing else is listed."),
    ] = None,
    hide_owned: Annotated[bool, typer.Option("--hide-owned", help="Nothing that was bought before.")] = False,
    num_prefixes: Annotated[int | None, typer.Option(min=1, help="K, prefixes searched at most.")] = None,
    prefix_mass: Annotated[
        float | None, typer.Option(min=1e-6, max=1.0, help="Stop searching prefixes at this probability.")
    ] = None,
    items_per_prefix: Annotated[int | None, typer.Option(min=1, help="M, items kept under a prefix.")] = None,
    temperature: Annotated[float, typer.Option(min=0.05, max=20.0, help="More is flatter.")] = 1.0,
    explain: Annotated[bool, typer.Option("--explain", help="Show the three steps behind the list.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    verbose: Verbose = False,
) -> None:
    """Recommend to one user, on a day that was materialized. Makes nothing that is missing.

    Words of --instruction and --query like "nothing from dairy", "under $5" or "not soda again" become filters, which are told on
    stderr; the rest is the model's. An --instruction without a --task is taken for the task whose wordings it is nearest to. Names of categories and types may be given in part.
    """
    prepare(root, None, verbose)
    from sigma_assets.shown import shown_explanation, stocked
    from sigma_core.instruction.price_words import told_unread
    from sigma_core.serving.item_filter import ItemFilter
    from sigma_core.serving.runtime import Wish, load_recommender

    wanted = ItemFilter(
        only=tuple(category_in or ()),
        without=tuple(category_out or ()),
        min_price=min_price,
        max_price=max_price,
        only_items=None if stock is None else stocked(stock),
        owned="hide_items" if hide_owned else "task",
    )
    steps = (num_prefixes, prefix_mass, items_per_prefix, temperature)
    wish = Wish(task, query, category, instruction, top_n, wanted, *steps, explain)
    answered = load_recommender(root, as_of).answer(user, wish)
    for line in answered.understood:
        sys.stderr.write(f"understood as a filter: {line}\n")
    if min_price is None and max_price is None and (unread := told_unread(answered.instruction)):
        sys.stderr.write(f"note: {unread}\n")
    if answered.taken_for:
        sys.stderr.write(f"taken for: {answered.taken_for}\n")
    if as_json:
        value = answered.rows if answered.explanation is None else vars(answered)
        sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")
        return
    sys.stdout.write(shown_list(answered.rows))
    if answered.explanation:
        sys.stdout.write(shown_explanation(answered))


@app.command()
def search(
    text: Annotated[str, typer.Argument(metavar="TEXT", help='What to look for: "red lipstick".')],
    root: Root = Path("var"),
    top_n: TopN = 10,
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="DATE", help="The day. [default: the latest]")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    verbose: Verbose = False,
) -> None:
    """The items of a day nearest to a text, by the grounded encoder alone: no user, no trained model, no filters ("under $5" too is words)."""
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
    out: Annotated[
        Path, typer.Option(callback=output_file, help="The table to write, next to your other tables.")
    ] = Path("item_image_vectors.parquet"),
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
