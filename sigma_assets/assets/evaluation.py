"""Evaluation: the report of a day on the days after it, and of a month the report on what each part of SIGMA is worth.

Source: tasks.md, "The tasks and how they are judged"; the protocol is `sigma_core/evaluation/`.
"""

import dagster as dg

from sigma_assets.benchmarks.materials import Grounding, evaluation_settings, materials_of_month
from sigma_assets.intake import intake_of, item_types_of
from sigma_assets.judging import examples_of_day, judge_day
from sigma_assets.periods import as_date
from sigma_assets.progress import RunReporter
from sigma_assets.publish import Published, links_of, publish
from sigma_assets.resources import SigmaResource
from sigma_assets.stages import STAGES
from sigma_assets.window import Window, frames_of
from sigma_core.benchmarks.ablation_artifact import REPORT_FILES, AblationReport
from sigma_core.config import SigmaConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.data.users import UserProfiles
from sigma_core.evaluation.report import REPORT_PAGE
from sigma_core.grounding.embed import ItemEmbeddings
from sigma_core.grounding.encoder import GroundedEncoder
from sigma_core.grounding.id_embeddings import ItemIdEmbeddings
from sigma_core.grounding.relevance_pairs import RelevancePairs
from sigma_core.serving.item_index import ItemIndex
from sigma_core.tokenization.codebooks import Codebooks
from sigma_core.training.checkpoint import LoraCheckpoint, SigmaBase


class EvaluateConfig(dg.Config):
    """Options of one evaluation; None: as configured in the root."""

    horizon_days: int | None = None
    sample_households: int | None = None
    lift_households: int | None = None
    max_requests: int | None = None

    def applied_to(self, config: SigmaConfig) -> SigmaConfig:
        """The root's settings with the options that were given."""
        given = {
            "sample_users": self.sample_households,
            "lift_users": self.lift_households,
            "max_requests_per_task": self.max_requests,
        }
        changed = {key: value for key, value in given.items() if value is not None}
        horizon = {"horizon_days": self.horizon_days} if self.horizon_days else {}
        return config.model_copy(
            update={
                "evaluation": config.evaluation.model_copy(update=changed),
                "data": config.data.model_copy(update=horizon),
            }
        )


def eval_report(
    context: dg.AssetExecutionContext,
    config: EvaluateConfig,
    sigma: SigmaResource,
    base: SigmaBase,
    checkpoint: LoraCheckpoint,
    index: ItemIndex,
    catalog: ItemCatalog,
    profiles: UserProfiles,
    encoder: GroundedEncoder,
    history: Window,
    recent: Window,
) -> Published:
    """SIGMA and its opponents on all tasks, with intervals and the lift of the right instruction."""
    day, events, settings = (
        as_date(context.partition_key),
        frames_of(history, recent),
        config.applied_to(sigma.config),
    )
    offers = intake_of(sigma.world).offers.known_on(day)
    types = item_types_of(sigma.world, day)
    examples = examples_of_day(day, events, catalog, profiles, types, settings, offers)
    model = (base, checkpoint, index, encoder)
    with sigma.tracker(context) as tracker:
        made_from = sigma.world.lineage(STAGES["eval_report"], context.partition_key)
        report = judge_day(
            day, events, catalog, examples, model, settings, sigma.progress(context), offers, made_from
        )
        links = links_of(sigma.world.store.path("eval_report", context.partition_key), {"page": REPORT_PAGE})
        yield from publish(context, sigma, report, run=tracker, judged=report.to_json(), metadata=links)


def ablation_report(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    encoder: GroundedEncoder,
    refit_embeddings: ItemEmbeddings,
    embeddings: ItemEmbeddings,
    codebooks: Codebooks,
    pairs: RelevancePairs,
    id_embeddings: ItemIdEmbeddings,
    catalogs: Window,
    profiles: UserProfiles,
    shards: Window,
    history: Window,
    recent: Window,
) -> Published:
    """SIGMA beside SIGMA without each of its parts, trained for few steps and judged on the month's first days. On demand."""
    from sigma_assets.benchmarks.ablation import AblationOptions, ablated

    month, asked = context.partition_key, sigma.config.ablation
    materials = materials_of_month(
        sigma.world,
        as_date(month),
        evaluation_settings(sigma.config, asked.households, 0),
        sigma.world.lineage(STAGES["ablation_report"], month),
        frames_of(history, recent),
        catalogs,
        shards,
        grounding=Grounding(encoder, refit_embeddings, (refit_embeddings, embeddings), codebooks),
        pairs=pairs,
        ids=id_embeddings,
        profiles=profiles,
    )
    options = AblationOptions(asked.arms, asked.seeds, steps=asked.steps)
    with sigma.tracker(context) as tracker:
        reporter = RunReporter(context.log.info)
        report = AblationReport.of(ablated(materials, sigma.ablations(month), options, reporter))
        links = links_of(sigma.world.store.path("ablation_report", month), REPORT_FILES)
        yield from publish(context, sigma, report, run=tracker, judged=report.values, metadata=links)
