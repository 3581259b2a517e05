"""`sigma benchmark backtest`: every date materialized in a root of its own, judged beside all opponents, gathered with intervals.

A judged date is kept as JSON and safetensors in the folder beside `--out`; a killed run goes on with the date it was at, and
within it where `sigma materialize` was. Source: issue 3, "Proof"; tasks.md, "Dates".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from sigma_assets.benchmarks.ablation import write_tensors
from sigma_assets.benchmarks.materials import MAX_REQUESTS_PER_TASK, Reading, evaluation_settings, judged_on
from sigma_assets.benchmarks.roots import outdated
from sigma_assets.binding import Request
from sigma_assets.commands import materialize
from sigma_assets.intake import intake_of, item_types_of
from sigma_assets.judging import examples_of_day, opponents_of
from sigma_assets.periods import month_key
from sigma_assets.planner import Step, plan
from sigma_assets.progress import Reporter
from sigma_assets.stages import versions_of
from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.artifacts import digest_json, read_json, write_json
from sigma_core.benchmarks.arm_scores import list_sums
from sigma_core.benchmarks.backtest_values import (
    MAIN,
    METRICS,
    PARTS,
    DaySums,
    Enough,
    TaskSums,
    backtest_values,
)
from sigma_core.benchmarks.record import Stopwatch, benchmark_record
from sigma_core.benchmarks.sequence_opponent import recipe, sasrec_of
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.splits import history_until
from sigma_core.data.users import UserProfiles
from sigma_core.evaluation.metrics import Ratio
from sigma_core.evaluation.protocol import UNSEEN_PHRASE, DayJudge, EvalDay, day_lists, report_of
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.serving.item_index import ItemIndex
from sigma_core.serving.ranking import SigmaRanker
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase


@dataclass(frozen=True)
class BacktestOptions:
    """What a backtest is asked for.

    Attributes:
        dates: days to judge.
        request: source, profile and settings of roots that have to be made.
        users: households judged a day, chosen by hash; None: all.
        lift_users: of these, for wordings and confined lists; None: all.
        threads: None: as each root says.
        sasrec: SASRec is trained on each day's history and stands among its opponents; about an hour a day.
        stale_ok: a root that is there may be of other code, settings or inputs than its own of now; the record names the steps.
    """

    dates: tuple[date, ...]
    request: Request
    users: int | None = None
    lift_users: int | None = None
    threads: int | None = None
    sasrec: bool = False
    stale_ok: bool = False


def run(roots: Path, out: Path, options: BacktestOptions, reporter: Reporter) -> dict[str, Any]:
    """The record of the backtest; every date's root lies in `roots/DATE`, is made when missing, and else used as it is.

    Raises:
        RootError, StepError, ArtifactError: a date cannot be made or judged, or is stale and not `stale_ok`; the dates before
            it are kept.
    """
    watch, days, used = Stopwatch(), {}, {}
    folder = out.with_name(f"{out.stem}.days")
    folder.mkdir(parents=True, exist_ok=True)
    digests, config = {}, None
    for number, day in enumerate(options.dates, start=1):
        root = roots / day.isoformat()
        if making := not _is_made(root, day):
            reporter.line(f"{day} ({number}/{len(options.dates)}): materializing into {root}")
            materialize(root, day, options.request, reporter)
        world = World.open(root)
        stale = outdated(world, plan(_judged_steps(day), world.span), options.stale_ok)
        used[day.isoformat()] = {
            "profile": world.binding.profile,
            "settings": list(world.binding.settings),
            "made_now": making,
            "stale": list(stale),
        }
        sums, digests[day.isoformat()] = judged_day(root, day, folder, options, reporter)
        days[day] = sums
        config = config or world.config
    assert config is not None, "at least one date"
    enough = Enough(config.evaluation.min_targets, config.evaluation.min_users)
    values = backtest_values(days, config.evaluation.bootstrap_samples, config.runtime.seed, enough)
    settings = {
        "dates": [day.isoformat() for day in options.dates],
        "roots": used,
        "users": options.users,
        "lift_users": options.lift_users,
        "max_requests_per_task": MAX_REQUESTS_PER_TASK,
        "sasrec": options.sasrec,
        "resampling": {  # of the first date's root, for all dates
            "bootstrap_samples": config.evaluation.bootstrap_samples, "seed": config.runtime.seed, **enough._asdict(),
        },
    }  # fmt: skip
    return benchmark_record(
        "backtest",
        values,
        settings=settings,
        data=digests,
        seeds=[config.runtime.seed],
        seconds=watch.seconds(),
    )


def _judged_steps(day: date) -> list[Step]:
    """Everything that `judged_day` reads of a root."""
    monthly = ("sigma_base", "grounded_encoder")
    daily = ("lora_checkpoint", "item_index", "item_catalog", "user_profiles")
    return [Step(one, month_key(day)) for one in monthly] + [Step(one, day.isoformat()) for one in daily]


def _is_made(root: Path, day: date) -> bool:
    if not (root / "root.json").exists():
        return False
    return World.open(root).manifest("user_to_item_index", day.isoformat()) is not None


def judged_day(
    root: Path, day: date, folder: Path, options: BacktestOptions, reporter: Reporter
) -> tuple[DaySums, str]:
    """The day's sums by household, from the cache or judged now, and the digest of what was judged."""
    reading = Reading(root)
    world = reading.world
    config = evaluation_settings(world.config, options.users, options.lift_users, options.threads)
    key_day, month = day.isoformat(), month_key(day)
    model = (
        reading.one(SigmaBase, "sigma_base", month),
        reading.one(LoraCheckpoint, "lora_checkpoint", key_day),
        reading.one(ItemIndex, "item_index", key_day),
    )
    encoder = reading.one(GroundedEncoder, "grounded_encoder", month)
    catalog = reading.one(ItemCatalog, "item_catalog", key_day)
    profiles = reading.one(UserProfiles, "user_profiles", key_day)
    evaluated = config.model_dump(mode="json", include={"evaluation", "generation", "data", "instruction"})
    made_from = reading.digests | judged_on(world, day)
    if options.sasrec:
        made_from |= {"sasrec": digest_json(recipe() | {"seed": config.runtime.seed})}
    key = digest_json([made_from, evaluated, versions_of(("eval_report",), config)])
    path = folder / f"{day}.json"
    if path.exists() and (known := read_json(path))["key"] == key:
        reporter.line(f"{day}: cached")
        return _read_sums(path, known), key
    reporter.start(f"judging {day}")
    events = reading.events(day + timedelta(days=config.data.horizon_days))
    offers, types = intake_of(world).offers.known_on(day), item_types_of(world, day)
    examples = examples_of_day(day, events, catalog, profiles, types, config, offers)
    history = history_until(events, day)
    judge = DayJudge(EvalDay(day, catalog.frame, history, examples), config)
    sigma = SigmaRanker(*model, catalog, examples.contexts, encoder, config, reporter.advance)
    sequence = None
    if options.sasrec:
        sequence = sasrec_of(history, catalog.frame[c.ITEM_ID], config.runtime.seed, reporter.line)
    opponents = opponents_of(day, history, catalog, config, offers, sequence)
    lists = day_lists(judge, sigma, opponents, reporter.advance)
    report = report_of(judge, lists, opponents, reporter.advance)
    oracles = frozenset(name for name, baseline in opponents.items() if baseline.is_oracle)
    sums: DaySums = {}
    for plans, blocks, suffix in (
        (judge.plan.tasks, lists.tasks, ""),
        (judge.filtered, lists.filtered, ", confined"),
    ):
        for task, asked in plans.items():
            if asked.requests:
                found = {name: list_sums(judge, asked, rows) for name, rows in blocks[task].items()}
                models = {name: _kept(of) for name, of in found.items()}
                sums[f"{task}{suffix}"] = TaskSums(asked.user_ids, models, oracles & models.keys())
                if all(UNSEEN_PHRASE in of for of in found.values()):
                    models = {name: {m: of[UNSEEN_PHRASE][m] for m in METRICS} for name, of in found.items()}
                    sums[f"{task}, unseen phrases"] = TaskSums(
                        asked.user_ids, models, oracles & models.keys()
                    )
    _write_sums(path, sums, {"key": key, "report": report.to_json()})
    reporter.end(_headline(report.summary()))
    return sums, key


def _headline(summary: dict[str, Any]) -> str:
    tasks = summary["tasks"].items()
    return " ".join(f"{name} {t['sigma']:.4f}/{t['best_opponent_value']:.4f}" for name, t in tasks)


def _kept(sums: dict[str, dict[str, Ratio]]) -> dict[str, Ratio]:
    parts = {f"{part}/{MAIN}": sums[part][MAIN] for part in PARTS}
    return {metric: sums["all"][metric] for metric in METRICS} | parts


def _write_sums(path: Path, sums: DaySums, values: dict[str, Any]) -> None:
    arrays = {}
    for task, of in sums.items():
        for model, metrics in of.models.items():
            for metric, ratio in metrics.items():
                arrays[f"{task}|{model}|{metric}"] = np.stack([ratio.num, ratio.den])
    write_tensors(path.with_suffix(".safetensors"), arrays)
    tasks = {t: {"users": of.users, "oracles": sorted(of.oracles)} for t, of in sums.items()}
    write_json(path, {**values, "tasks": tasks})


def _read_sums(path: Path, known: dict[str, Any]) -> DaySums:
    from safetensors.numpy import load_file

    models: dict[str, dict[str, dict[str, Ratio]]] = {}
    for name, both in load_file(path.with_suffix(".safetensors")).items():
        task, model, metric = name.split("|")
        models.setdefault(task, {}).setdefault(model, {})[metric] = Ratio(both[0], both[1])
    return {
        task: TaskSums(facts["users"], _in_order(models[task]), frozenset(facts["oracles"]))
        for task, facts in known["tasks"].items()
    }


def _in_order(models: dict[str, dict[str, Ratio]]) -> dict[str, dict[str, Ratio]]:
    """SIGMA first, the others by name: a file of tensors has no order of its own."""
    names: Sequence[str] = sorted(models, key=lambda name: (name != "sigma", name))
    return {name: models[name] for name in names}
