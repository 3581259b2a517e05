"""What an ablation or a backtest reads of one materialized day, loaded once and held in memory.

Reads a root, writes nothing. Events of the days after come from the source itself, so the day need not be evaluated first.
Our choice.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import polars as pl

from sigma_assets.benchmarks.roots import outdated
from sigma_assets.intake import intake_of, item_types_of
from sigma_assets.judging import examples_of_day
from sigma_assets.periods import SELECT, as_date, day_key, month_key
from sigma_assets.planner import Step, plan
from sigma_assets.stages import STAGES
from sigma_assets.world import World
from sigma_core import columns as c
from sigma_core.artifacts import ArtifactError, digest_json
from sigma_core.config import SigmaConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.sources import Vectors
from sigma_core.data.splits import history_until
from sigma_core.data.users import UserProfiles
from sigma_core.evaluation.protocol import DayJudge, EvalDay
from sigma_core.grounding.embed import ItemEmbeddings
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.grounding.relevance_pairs import RelevancePairs
from sigma_core.instruction.examples import ExampleSet
from sigma_core.instruction.shards import SftShard
from sigma_core.tokenization.codebooks import Codebooks

JUDGED: Final = "judged/"
MAX_REQUESTS_PER_TASK: Final = (
    3  # query and category requests of a user that an ablation or a backtest judges
)


@dataclass(frozen=True)
class Grounding:
    """Grounded words and the codes made from them.

    Attributes:
        encoder: of texts.
        refit: vectors of the refit's items.
        known: more vectors by the same encoder, so that fewer texts need encoding.
        codebooks: fitted on `refit`.
    """

    encoder: GroundedEncoder
    refit: ItemEmbeddings
    known: tuple[ItemEmbeddings, ...]
    codebooks: Codebooks


@dataclass(frozen=True)
class Materials:
    """Everything of one day.

    Attributes:
        day: the day that is judged.
        config: the root's settings with those of the evaluation.
        grounding: the root's own.
        pairs, ids: relevance pairs and item ID vectors of the month.
        refit_catalog, last_catalog, catalog: of the day before the month, of the day before, of the day.
        base_shards, lora_shards: the windows of the two trainings.
        profiles, examples, judge: of the day.
        events: accepted events up to the last day that is judged on.
        images: image vectors that the source brings.
        digests: of what all this was made from, by asset and partition; what only judging reads begins with `JUDGED`.
        stale: what of it is of other code, settings or inputs than the root's of now.
    """

    day: date
    config: SigmaConfig
    grounding: Grounding
    pairs: RelevancePairs
    ids: ItemIdEmbeddings
    refit_catalog: ItemCatalog
    last_catalog: ItemCatalog
    catalog: ItemCatalog
    base_shards: list[SftShard]
    lora_shards: list[SftShard]
    profiles: UserProfiles
    examples: ExampleSet
    judge: DayJudge
    events: pl.DataFrame
    images: Vectors | None
    digests: dict[str, str]
    stale: tuple[str, ...] = ()

    @property
    def trained_on(self) -> dict[str, str]:
        """The digests without those that only judging depends on."""
        return {name: digest for name, digest in self.digests.items() if not name.startswith(JUDGED)}

    @property
    def history(self) -> pl.DataFrame:
        """Purchases up to the day."""
        return history_until(self.events, self.day)


def evaluation_settings(
    config: SigmaConfig, users: int | None, lift_users: int | None, threads: int | None = None
) -> SigmaConfig:
    """The settings with a sample of users, three query and category requests each, and a number of threads."""
    judged = {"sample_users": users, "lift_users": lift_users, "max_requests_per_task": MAX_REQUESTS_PER_TASK}
    runtime = {"threads": threads} if threads else {}
    return config.model_copy(
        update={
            "evaluation": config.evaluation.model_copy(update=judged),
            "runtime": config.runtime.model_copy(update=runtime),
        }
    )


class Reading:
    """One open root, and the digests of what was read of it."""

    def __init__(self, root: Path) -> None:
        self.world = World.open(root)
        self.digests: dict[str, str] = {}

    def one(self, cls: Any, asset: str, partition: str) -> Any:
        """The artifact; remembered with its digest.

        Raises:
            ArtifactError: it is not there, or its last run failed a check.
        """
        manifest = self.world.manifest(asset, partition)
        if manifest is None:
            raise ArtifactError(
                f"{asset}/{partition} is not in {self.world.root}. Run `sigma materialize --as-of DATE --root "
                f"{self.world.root}` for the day first."
            )
        if (failed := self.world.failure(asset, partition)) is not None:
            raise ArtifactError(
                f"{asset}/{partition} in {self.world.root} is of before its last run, which failed a check: {failed}. Mend that "
                f"and run `sigma materialize --as-of DATE --root {self.world.root}` for the day."
            )
        self.digests[f"{asset}/{partition}"] = manifest["digest"]
        return self.world.store.read(cls, asset, partition)

    def many(self, cls: Any, asset: str, window: str, partition: str) -> list[Any]:
        """The artifacts of a window, oldest first; partitions that are missing or failed a check are left out."""
        keys, world = SELECT[window](as_date(partition), self.world.span), self.world
        good = [key for key in keys if world.manifest(asset, key) and world.failure(asset, key) is None]
        return [self.one(cls, asset, key) for key in good]

    def events(self, last: date) -> pl.DataFrame:
        """Accepted events of the source up to a day.

        Raises:
            ArtifactError: the source ends before it.
        """
        if last > self.world.span.end:
            raise ArtifactError(
                f"judging needs the days up to {last}, the source ends on {self.world.span.end}."
            )
        return intake_of(self.world).events.filter(pl.col(c.EVENT_DATE) <= last)


def judged_on(world: World, day: date) -> dict[str, str]:
    """Digests of what judging a day reads of the source itself: products, offers, and events until its horizon is over."""
    last = day_key(day + timedelta(days=world.config.data.horizon_days))
    events = {key: digest for key, digest in world.binding.event_days.items() if key <= last}
    parts = world.source_lineage(STAGES["eval_report"], day_key(day))
    parts["source/events"] = digest_json(events) if events else world.binding.parts["events"]
    return {f"{JUDGED}{name}": digest for name, digest in parts.items()}


def materials_of(
    world: World,
    day: date,
    config: SigmaConfig,
    digests: dict[str, str],
    events: pl.DataFrame,
    **artifacts: Any,
) -> Materials:
    """The materials of a day from what was read of its root; the day's requests and its judge are made here.

    Args:
        world: for offers, item types and images of the source.
        day: the day that is judged.
        config: the settings with those of the evaluation.
        digests: of the artifacts.
        events: accepted events up to the end of the day's horizon or beyond.
        artifacts: the other attributes of `Materials` by name.
    """
    offers, types = intake_of(world).offers.known_on(day), item_types_of(world, day)
    catalog, profiles = artifacts["catalog"], artifacts["profiles"]
    examples = examples_of_day(day, events, catalog, profiles, types, config, offers)
    images = world.source_lineage(STAGES["sigma_base"], month_key(day))
    return Materials(
        day=day,
        config=config,
        examples=examples,
        judge=DayJudge(EvalDay(day, catalog.frame, history_until(events, day), examples), config),
        events=events,
        images=world.source.image_vectors(),
        digests=digests | images | judged_on(world, day),
        **artifacts,
    )


def materials_of_month(
    world: World,
    month: date,
    config: SigmaConfig,
    digests: dict[str, str],
    events: pl.DataFrame,
    catalogs: Mapping[str, ItemCatalog],
    shards: Mapping[str, SftShard],
    **artifacts: Any,
) -> Materials:
    """`materials_of` a month's first day; catalogs and shards by partition."""
    windows = ("refit_cut", "day_before", "first_day")
    refit, last, first = (catalogs[SELECT[window](month, world.span)[0]] for window in windows)
    base, lora = (
        [shards[key] for key in SELECT[window](month, world.span) if key in shards]
        for window in ("base_shards", "lora_shards")
    )
    chosen = {"refit_catalog": refit, "last_catalog": last, "catalog": first}
    return materials_of(
        world, month, config, digests, events, base_shards=base, lora_shards=lora, **chosen, **artifacts
    )


def load_materials(
    root: Path, day: date, config: SigmaConfig | None = None, stale_ok: bool = False
) -> Materials:
    """All that the arms of one day need; `config`: the root's settings with changes of `evaluation` or `runtime` only.

    Raises:
        RootError: there is no root.
        ArtifactError: the day is not materialized there, its horizon lies beyond the data, or a step behind it is stale and
            not `stale_ok`.
    """
    reading = Reading(root)
    world = reading.world
    config = config or world.config
    key, month = day.isoformat(), month_key(day)
    catalog = reading.one(ItemCatalog, "item_catalog", key)
    profiles = reading.one(UserProfiles, "user_profiles", key)
    trained = (
        Step("sigma_base", month),
        Step("lora_checkpoint", key),
    )  # arms train their own on what these read
    behind = plan([*trained, Step("item_embeddings", key), Step("user_profiles", key)], world.span)
    stale = outdated(world, [step for step in behind if step not in trained], stale_ok)
    events = reading.events(day + timedelta(days=config.data.horizon_days))
    (cut,) = SELECT["refit_cut"](as_date(month), world.span)
    (before,) = SELECT["day_before"](day, world.span)
    refit = reading.one(ItemEmbeddings, "refit_item_embeddings", month)
    artifacts = {
        "grounding": Grounding(
            reading.one(GroundedEncoder, "grounded_encoder", month),
            refit,
            (refit, reading.one(ItemEmbeddings, "item_embeddings", key)),
            reading.one(Codebooks, "codebooks", month),
        ),
        "pairs": reading.one(RelevancePairs, "relevance_pairs", month),
        "ids": reading.one(ItemIdEmbeddings, "item_id_embeddings", month),
        "refit_catalog": reading.one(ItemCatalog, "item_catalog", cut),
        "last_catalog": reading.one(ItemCatalog, "item_catalog", before),
        "catalog": catalog,
        "base_shards": reading.many(SftShard, "sft_shards", "base_shards", month),
        "lora_shards": reading.many(SftShard, "sft_shards", "lora_shards", key),
        "profiles": profiles,
        "stale": tuple(stale),
    }
    return materials_of(world, day, config, reading.digests, events, **artifacts)
