"""`sigma benchmark ablation` and `ablation_report`: train and ask the arms that are not cached, and gather their report.

A finished arm is one JSON file (and its lists, as safetensors) in the folder given (beside `--out`); what it was made from is in
its key, the versions of the code among it, so another budget, root, day or sample makes it again, and a killed run goes on. Source: issue 3, "Proof".
"""

import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from sigma_assets.benchmarks.arm_answers import Lists, answers_of, frontier_lists
from sigma_assets.benchmarks.arm_training import NothingToTrainError, seconds_a_step, train_arm
from sigma_assets.benchmarks.materials import Materials, evaluation_settings, load_materials
from sigma_assets.progress import Reporter
from sigma_assets.stages import ABLATED, versions_of
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactStore, digest_json, read_json, write_json
from sigma_core.benchmarks.ablation_report import ArmResult, ablation_values
from sigma_core.benchmarks.arms import ARMS, SIGMA, Arm, chosen_arms
from sigma_core.benchmarks.record import Stopwatch, benchmark_record
from sigma_core.evaluation.metrics import household_sums, metric_values, outcome_of, target_sets


@dataclass(frozen=True)
class AblationOptions:
    """What one ablation is asked for.

    Attributes:
        arms: names or groups of `chosen_arms`.
        seeds: each arm is trained once a seed.
        minutes: training time of SIGMA's base and adapter on this machine; all arms get its number of steps.
        steps: that number itself, instead of measuring it.
        users: households judged, chosen by hash; None: all.
        threads: None: as the root says.
        stale_ok: steps behind the day may be of other code, settings or inputs than the root's of now; the record names them.
    """

    arms: tuple[str, ...] = ("all",)
    seeds: tuple[int, ...] = (0, 1, 2)
    minutes: float = 5.0
    steps: int | None = None
    users: int | None = None
    threads: int | None = None
    stale_ok: bool = False


def cache_folder(out: Path) -> Path:
    """Where the arms of a report are kept: beside it."""
    return out.with_name(f"{out.stem}.arms")


def run(root: Path, day: date, out: Path, options: AblationOptions, reporter: Reporter) -> dict[str, Any]:
    """The record of the ablation of a day, every arm trained or read from its cache.

    Raises:
        RootError, ArtifactError: the day is not materialized, or stale and not `stale_ok`.
        ValueError: an unknown arm.
    """
    import torch

    watch, num_arms = Stopwatch(), len(chosen_arms(options.arms))
    config = evaluation_settings(World.open(root).config, options.users, 0, options.threads)
    torch.set_num_threads(config.runtime.threads)
    reporter.start(f"reading {root} as of {day}")
    materials = load_materials(root, day, config, options.stale_ok)
    reporter.end(f"{len(materials.judge.users)} households, {num_arms} arms, seeds {list(options.seeds)}")
    values = ablated(materials, cache_folder(out), options, reporter)
    settings = {**asdict(options), **values["settings"]}
    data = {"materials": digest_json(materials.digests)}
    return benchmark_record(
        "ablation", values, settings=settings, data=data, seeds=options.seeds, seconds=watch.seconds()
    )


def ablated(
    materials: Materials, folder: Path, options: AblationOptions, reporter: Reporter
) -> dict[str, Any]:
    """Dates, seeds, settings and the values of `ablation_values`; every arm trained, or read from the folder.

    `options.users` and `options.threads` are not read: the materials hold what they lead to.

    Raises:
        ValueError: an unknown arm.
    """
    day, config, arms = materials.day, materials.config, chosen_arms(options.arms)
    folder.mkdir(parents=True, exist_ok=True)
    budget = training_budget(materials, folder, options, reporter)
    results: dict[str, list[ArmResult]] = {}
    skipped: dict[str, str] = {}
    for seed in options.seeds:  # seed by seed: an interrupted run holds every arm once before any twice
        for arm in arms:
            if arm.name in skipped:
                continue
            if missing := arm.lacks(config):
                skipped[arm.name] = f"this release has no setting {missing}"
            elif arm.task and not materials.judge.plan.tasks[arm.task].requests:
                skipped[arm.name] = f"no target of {arm.task} on {day}"
            else:
                try:
                    found = arm_result(arm, materials, seed, budget["steps"], folder, reporter)
                    results.setdefault(arm.name, []).append(found)
                except NothingToTrainError as error:
                    skipped[arm.name] = str(error)
            if arm.name in skipped:
                reporter.line(f"{arm.name}: left out, {skipped[arm.name]}")
    frontier = _frontier(materials, options.seeds[0], budget["steps"], folder, reporter)
    settings = {
        "arms": list(options.arms),
        **budget,
        "households": len(materials.judge.users),
        "max_requests_per_task": config.evaluation.max_requests_per_task,
        "stale": list(materials.stale),
        "grounding_seed": config.runtime.seed,
    }
    return {
        "dates": [day.isoformat()],
        "seeds": list(options.seeds),
        "settings": settings,
        **ablation_values(materials.judge, results, skipped, frontier),
    }


def training_budget(
    materials: Materials, folder: Path, options: AblationOptions, reporter: Reporter
) -> dict[str, Any]:
    """Steps of every arm. Measured once a cache: a run that goes on must not change it."""
    if options.steps:
        return {"steps": options.steps}
    path = folder / "budget.json"
    code = versions_of(("sigma_base",), materials.config)
    training = materials.config.model_dump(mode="json")["training"]
    key = digest_json([options.minutes, code, materials.trained_on, training])
    if path.exists() and (known := read_json(path))["key"] == key:
        return {"steps": known["steps"], "seconds_a_step": known["seconds_a_step"]}
    reporter.start("timing a few steps")
    seconds = seconds_a_step(materials, reporter.advance)
    steps = max(10, round(options.minutes * 60 / (1.1 * seconds)))  # a tenth more: the adapter
    reporter.end(f"{seconds:.2f} s a step: {options.minutes:g} minutes are {steps} steps, for every arm")
    write_json(path, {"key": key, "steps": steps, "seconds_a_step": round(seconds, 3)})
    return {"steps": steps, "seconds_a_step": round(seconds, 3)}


def arm_result(
    arm: Arm, materials: Materials, seed: int, steps: int, folder: Path, reporter: Reporter
) -> ArmResult:
    """The arm's lists under one seed, from the cache or made now.

    Raises:
        NothingToTrainError: the data have nothing for this arm.
    """
    key = digest_json([asdict(arm), seed, steps, *_made_from(materials)])
    path = folder / f"{arm.name}-{seed}.json"
    head = f"{arm.name:22s} seed {seed}"
    if path.exists() and (known := read_json(path))["key"] == key:
        reporter.line(f"{head}         cached")
        return ArmResult(arm, seed, known["figures"], _read_lists(path.with_suffix(".safetensors")))
    reporter.start(head)
    store = ArtifactStore(folder / "models")
    model = ARMS[SIGMA] if arm.reads else arm
    trained = train_arm(model, materials, seed, steps, store, reporter.advance)
    lists = answers_of(trained, arm, materials, reporter.advance)
    training = {
        name: trained.base.figures[name] for name in ("steps", "seconds", "probe_loss", "tokens_per_second")
    }
    figures = {} if arm.reads else training
    _write_lists(path.with_suffix(".safetensors"), lists)
    recall = _recall(materials, lists)
    write_json(path, {"key": key, "arm": arm.name, "seed": seed, "figures": figures, "recall@20": recall})
    reporter.end(" ".join(f"{task} {value:.4f}" for task, value in recall.items() if value is not None))
    return ArmResult(arm, seed, figures, lists)


def _made_from(materials: Materials) -> list[dict[str, Any]]:
    """Settings, data and code that lists depend on, beside the arm, its seed and its steps."""
    settings = materials.config.model_dump(mode="json", exclude={"http", "nearline", "runtime", "ablation"})
    return [settings, materials.digests, versions_of(ABLATED, materials.config)]


def _recall(materials: Materials, lists: Lists) -> dict[str, float | None]:
    judge, out = materials.judge, {}
    for task, (rows, _) in lists.items():
        plan = judge.plan.tasks[task]
        if plan.requests:
            sums = household_sums(
                outcome_of(rows, plan.targets, judge.facts), plan.targets, plan.users, len(plan.user_ids)
            )
            out[task] = sums["recall@20"].value()
    return out


def _write_lists(path: Path, lists: Lists) -> None:
    kinds = ("rows", "scores")
    write_tensors(
        path,
        {f"{k}/{task}": part for task, both in lists.items() for k, part in zip(kinds, both, strict=True)},
    )


def write_tensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file so that it is there whole or not at all."""
    from safetensors.numpy import save_file

    tmp = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        save_file({name: np.ascontiguousarray(part) for name, part in arrays.items()}, tmp)
        tmp.replace(path)
    finally:
        tmp.unlink(missing_ok=True)


def _read_lists(path: Path) -> Lists:
    from safetensors.numpy import load_file

    arrays = load_file(path)
    tasks = [name.removeprefix("rows/") for name in arrays if name.startswith("rows/")]
    return {task: (arrays[f"rows/{task}"], arrays[f"scores/{task}"]) for task in tasks}


def _frontier(
    materials: Materials, seed: int, steps: int, folder: Path, reporter: Reporter
) -> dict[str, list[dict[str, Any]]]:
    """Task -> points (kind, temperature, recall, diversity, coverage, novelty); SIGMA's model of the first seed."""
    path = folder / "frontier.json"
    key = digest_json([seed, steps, *_made_from(materials)])
    if path.exists() and (known := read_json(path))["key"] == key:
        return dict(known["points"])
    reporter.start("frontier of APF and fixed temperatures")
    store = ArtifactStore(folder / "models")
    trained = train_arm(ARMS[SIGMA], materials, seed, steps, store, reporter.advance)
    questions, lists = frontier_lists(trained, ARMS[SIGMA], materials, reporter.advance)
    points: dict[str, list[dict[str, Any]]] = {}
    for (kind, temperature), by_task in lists.items():
        for task, rows in by_task.items():
            if requests := questions[task]:
                values = list_values(materials, requests, rows)
                points.setdefault(task, []).append({"kind": kind, "temperature": temperature, **values})
    write_json(path, {"key": key, "points": points})
    reporter.end(f"{len(lists)} settings")
    return points


def list_values(
    materials: Materials, requests: Sequence[Any], rows: np.ndarray
) -> Mapping[str, float | None]:
    """All metrics of the requests' lists."""
    judge, targets = materials.judge, target_sets([request.targets for request in requests])
    users = np.unique([request.user_id for request in requests], return_inverse=True)[1]
    sums = household_sums(outcome_of(rows, targets, judge.facts), targets, users, int(users.max()) + 1)
    return metric_values(sums, rows, judge.num_items)
