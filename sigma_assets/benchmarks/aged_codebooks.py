"""What stable semantic IDs cost: recall with codebooks fitted 30 and 90 days before the refit, against the refit's own.

One thing differs: the day whose catalog and co-purchases the codebooks were fitted on. Texts are encoded by the month's encoder,
today's items are coded as ever, and base and adapter are trained anew on the older codes, as every month does. Trained arms are
kept beside the result like the ablation's. Source: issue "benchmarks"; our choice.
"""

from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from sigma_assets.benchmarks.ablation import AblationOptions, arm_result, cache_folder, training_budget
from sigma_assets.benchmarks.arm_training import NothingToTrainError
from sigma_assets.benchmarks.materials import Materials, evaluation_settings, load_materials
from sigma_assets.features import own_id_embeddings
from sigma_assets.intake import intake_of
from sigma_assets.periods import SELECT, as_date, month_key
from sigma_assets.progress import Reporter
from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.benchmarks.ablation_report import ROW_METRIC, ArmResult, ablation_values
from sigma_core.benchmarks.arms import ARMS, SIGMA, Arm
from sigma_core.grounding.embed import embed_items
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings, fit_id_embeddings
from sigma_core.tokenization.codebooks import fit_codebooks

AGES: Final = (30, 90)  # days


def aged_results(
    root: Path,
    day: date,
    out: Path,
    options: AblationOptions,
    reporter: Reporter,
    ages: tuple[int, ...] = AGES,
) -> dict[str, Any]:
    """`aged_<days>` of each age: by task, recall@20 with the older codebooks and with the refit's, and their difference.

    Each is {mean, low, high} over resampled households, the difference (fresh minus aged) paired and with a p-value, means over
    `options.seeds`. An age that the data do not reach back to holds the reason under `skipped` instead. `options.arms` is not
    read.

    Raises:
        RootError, ArtifactError: the day is not materialized.
    """
    import torch

    world = World.open(root)
    config = evaluation_settings(world.config, options.users, 0, options.threads)
    torch.set_num_threads(config.runtime.threads)
    materials = load_materials(root, day, config)
    folder = cache_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    budget = training_budget(materials, folder, options, reporter)
    arms, skipped = {SIGMA: (ARMS[SIGMA], materials)}, {}
    for age in ages:
        name = f"aged_{age}"
        try:
            older = with_aged_codebooks(world, materials, age)
        except ValueError as error:  # too few days, users or items
            skipped[name] = str(error)
            continue
        arms[name] = Arm(name, f"codebooks {age} days older than the refit"), older
    results: dict[str, list[ArmResult]] = {}
    for seed in options.seeds:
        for name, (arm, given) in arms.items():
            found = arm_result(arm, given, seed, budget["steps"], folder, reporter)
            results.setdefault(name, []).append(found)
    values = ablation_values(materials.judge, results, skipped, {})
    measured = [name for name in results if name != SIGMA]
    settings = {
        "seeds": options.seeds,
        **budget,
        "households": len(materials.judge.users),
        "measured": measured,
    }
    return {
        **{name: _by_task(values, name) for name in measured},
        **{name: {"skipped": reason} for name, reason in skipped.items()},
        "aged_settings": settings,
    }


def with_aged_codebooks(world: World, materials: Materials, age: int) -> Materials:
    """The materials with codebooks fitted `age` days before those of the month's refit.

    Raises:
        NothingToTrainError: the data begin later.
        ValueError: the catalog of that day is empty, or nobody had bought enough for item ID vectors.
    """
    (cut,) = SELECT["refit_cut"](as_date(month_key(materials.day)), world.span)
    fitted_on = as_date(cut) - timedelta(days=age)
    if fitted_on < world.span.start:
        raise NothingToTrainError(f"{age} days before {cut} the data had not begun ({world.span.start})")
    runtime, grounding = materials.config.runtime, materials.grounding
    known = materials.events.filter(pl.col(c.EVENT_DATE) <= fitted_on)
    catalog = intake_of(world).catalog_builder(world, known, fitted_on).day(fitted_on).frame.sort(c.ITEM_ID)
    ids, texts = catalog[c.ITEM_ID].to_list(), catalog[c.TEXT].to_list()
    codebooks = fit_codebooks(
        embed_items(ids, texts, grounding.encoder, grounding.known)[0],
        materials.config.tokenization,
        runtime.seed,
        runtime.threads,
        id_embeddings=_id_vectors(world, known, materials, fitted_on),
        categories=catalog[c.CATEGORY].to_list(),
    )
    return replace(
        materials,
        grounding=replace(grounding, codebooks=codebooks),
        digests=materials.digests | {f"codebooks as of {fitted_on}": codebooks.digest()},
    )


def _id_vectors(world: World, known: pl.DataFrame, materials: Materials, last: date) -> ItemIdEmbeddings:
    """The collaborative vectors a refit after that day would have had."""
    own, runtime = world.source.id_vectors(), materials.config.runtime
    if own is not None:
        return own_id_embeddings(own, known)
    return fit_id_embeddings(known, materials.config.grounding, runtime.seed, runtime.threads, as_of=last)


def _by_task(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {
        task: {
            ROW_METRIC: metrics[ROW_METRIC],
            "fresh": values["arms"][SIGMA][task][ROW_METRIC],
            "fresh_minus_aged": values["differences"][name][task][ROW_METRIC],
        }
        for task, metrics in values["arms"][name].items()
    }
