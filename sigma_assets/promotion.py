"""What the promotion of a day is decided on: the former pointer, orders by hand, and evidence gathered from the root.

Puts core functions together; the rule is `sigma_core/evaluation/promotion.py`. What came before and what is compared with are
looked up when the decision is made: a decision is an event, and an older day that is made later does not undo it. Our choice.
"""

from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any, Final

import dagster as dg

from sigma_assets.checks.gate import GATE
from sigma_assets.comparing import Contender, Refit, events_until, losses_between
from sigma_assets.features import catalog_features
from sigma_assets.io_manager import load
from sigma_assets.periods import as_date, day_key, month_key
from sigma_assets.promotion_orders import COMPARED, PROMOTED, Order, barred, order_for
from sigma_assets.resources import SigmaResource
from sigma_assets.window import Window
from sigma_assets.world import World
from sigma_core.artifacts import ArtifactError
from sigma_core.config import SigmaConfig
from sigma_core.data.catalog import ItemCatalog
from sigma_core.evaluation.promotion import Case, Comparison, ModelName, TaskLoss, decide, rule_of
from sigma_core.serving.promoted import Pointer, PromotedModel
from sigma_core.tokenization.item_features import ItemFeatures
from sigma_core.training.checkpoint import LoraCheckpoint


@dataclass
class Gate:
    """One decision: the day's own adapter against what the root knows."""

    context: dg.AssetExecutionContext
    sigma: SigmaResource
    refit: Refit
    checkpoint: LoraCheckpoint
    shards: Window
    catalog: ItemCatalog

    @property
    def day(self) -> str:
        """The day that is decided for."""
        return str(self.context.partition_key)

    @property
    def world(self) -> World:
        """The root."""
        return self.sigma.world

    @property
    def config(self) -> SigmaConfig:
        """All settings of the root."""
        return self.sigma.config

    def decide(self) -> PromotedModel:
        """The day's promoted model; its outcome is "refused" when nothing may serve, and then the contract refuses it."""
        former = former_pointer(self.world, self.day)
        order = order_for(self.world.root, self.day)
        if order is not None and (ordered := self._ordered(order, former)) is not None:
            return ordered
        case, kept = self._case(former)
        verdict = decide(case, self.config.promotion)
        evidence = verdict.to_json() | figures_of(case)
        if verdict.outcome == "kept" and former is not None and kept is not None:
            pointer = replace(
                former,
                as_of=self.day,
                outcome="kept",
                reason=verdict.reason,
                evidence=evidence,
            )
            return PromotedModel(pointer, kept)
        replaced = former.model if former else None
        pointer = Pointer(
            self.day, case.candidate, self.day, verdict.outcome, verdict.reason, replaced, "", evidence
        )
        return PromotedModel(pointer, self.checkpoint)

    # ------------------------------------------------------------------------------------ evidence
    def _case(self, former: Pointer | None) -> tuple[Case, LoraCheckpoint | None]:
        """Everything the rule looks at, and the promoted adapter where it fits the day's index."""
        from sigma_core.evaluation.promotion_evidence import adapter_fitness, guardrails

        named = self.named(self.day, self.checkpoint)
        candidate = replace(named, base=self.refit.base.digest())  # what it has to fit; a misfit is a finding
        parts = (self.refit.base, self.checkpoint)
        features = self.features_of(self.catalog)
        shards = list(self.shards.values())
        fitness = adapter_fitness(
            *parts, shards, features, self.refit.codebooks, self.refit.encoder, self.config
        )
        case = Case(
            day=as_date(self.day),
            candidate=candidate,
            fitness=fitness,
            guardrails=None,
            promoted=former.model if former else None,
            horizon=self.world.span.horizon,
            barred=barred(self.world.root).get(candidate.checkpoint, ""),
            held=former.held if former else "",
        )
        kept = self.model_of(former) if former and case.can_keep else None

        def lists_of(checkpoint: LoraCheckpoint) -> Any:
            data = (features, self.catalog, shards[-1].contexts, self.refit.encoder, self.config)
            return guardrails(self.refit.base, checkpoint, *data)

        if not fitness.num_not_finite and not fitness.misfit:
            case = replace(case, guardrails=lists_of(self.checkpoint))
        if kept is not None:
            case = replace(case, promoted_guardrails=lists_of(kept))
            case = self._compared(case, former, kept)
        return case, kept

    def _compared(self, case: Case, former: Pointer | None, kept: LoraCheckpoint) -> Case:
        """The case with the comparison of the adapter of `horizon` days ago, or with why there is none."""
        if former is None or rule_of(case) != "comparison":
            return case
        before = day_key(as_date(self.day) - timedelta(days=case.horizon))
        try:
            challenger = self._challenger(before, case.candidate)
        except ArtifactError as error:
            return replace(case, no_comparison=str(error))
        incumbent, model = self._incumbent(former, kept, before, challenger)
        pair = Comparison(challenger, incumbent)
        if not pair.is_same_model:
            tasks = self._losses(before, load(self.world, "lora_checkpoint", before), model)
            pair = replace(pair, tasks=tasks)
        return replace(case, comparison=pair)

    def _challenger(self, before: str, candidate: ModelName) -> ModelName:
        """The adapter of `before`, made by the candidate's recipe on its refit.

        Raises:
            ArtifactError: it is not there, was made otherwise, or was rolled back.
        """
        world, what = self.world, f"the adapter of {before}, by which this one is judged,"
        for asset in COMPARED:
            if not world.manifest(asset, before) or world.failure(asset, before):
                raise ArtifactError(f"{what} is not there (no {asset} of that day)")
        name = self.named(before, load(world, "lora_checkpoint", before))
        if name.recipe != candidate.recipe:
            raise ArtifactError(f"{what} was made by other settings or code")
        if name.base != candidate.base:
            raise ArtifactError(f"{what} was made on another refit")
        if why := barred(world.root).get(name.checkpoint):
            raise ArtifactError(f"{what} was rolled back: {why}")
        return name

    def _incumbent(
        self, former: Pointer, kept: LoraCheckpoint, before: str, challenger: ModelName
    ) -> tuple[ModelName, LoraCheckpoint]:
        """What the challenger is compared with: the newest promoted adapter that has seen nothing after `before`.

        That is the promoted one when it is old enough; else another that was promoted around `before`, for the promoted one has
        learnt from the very days that both are judged on. Where there is none it is the promoted one all the same: the
        comparison then favours it.
        """
        if former.model.day <= before:
            return former.model, kept
        for key in reversed(self.world.store.partitions(PROMOTED)):
            if key > before:
                continue
            pointer = Pointer.read(self.world.store.path(PROMOTED, key))
            is_older = pointer.model.day <= before and pointer.model.base == challenger.base
            if is_older and pointer.model.checkpoint != challenger.checkpoint:
                return pointer.model, self.world.store.read(PromotedModel, PROMOTED, key).checkpoint
        return former.model, kept

    def _losses(
        self, before: str, challenger: LoraCheckpoint, incumbent: LoraCheckpoint
    ) -> dict[str, TaskLoss]:
        """Both on the days after `before`, over the catalog of `before`."""
        catalog, profiles = (load(self.world, asset, before) for asset in ("item_catalog", "user_profiles"))
        features = self.features_of(catalog)
        return losses_between(
            Contender(self.refit, challenger, features),
            Contender(self.refit, incumbent, features),
            self.sigma,
            self.context,
            (as_date(before), catalog, profiles, events_until(self.world, self.day)),
        )

    # --------------------------------------------------------------------------------------- parts
    def _ordered(self, order: Order, former: Pointer | None) -> PromotedModel | None:
        """What an order names; None when that is gone or fits the day's refit no more: then the gate decides again."""
        try:
            checkpoint = model_by_digest(self.world, order.model_day, order.checkpoint)
        except ArtifactError as error:
            self.context.log.warning(f"the order by hand for {self.day} counts no more: {error}")
            return None
        if checkpoint.base_digest != self.refit.base.digest():
            self.context.log.warning(
                f"the order by hand for {self.day} names an adapter of another refit; it counts no more"
            )
            return None
        held = order.reason if order.kind == "rollback" else ""
        pointer = Pointer(
            as_of=self.day,
            model=self.named(order.model_day, checkpoint),
            since=self.day,
            outcome="by_hand",
            reason=f"{order.kind} to the adapter of {order.model_day}: {order.reason}",
            replaced=self._replaced(order, former),
            held=held,
            evidence={"order": asdict(order)},
        )
        return PromotedModel(pointer, checkpoint)

    def _replaced(self, order: Order, former: Pointer | None) -> ModelName | None:
        """What served the day before the order, else what served before the day."""
        there = read_pointer(self.world, self.day)
        if there is None or there.model.checkpoint == order.checkpoint:
            return there.replaced if there else (former.model if former else None)
        return there.model

    def named(self, day: str, checkpoint: LoraCheckpoint) -> ModelName:
        """The adapter's name; digests of the refit are the day's own month's."""
        manifest = self.world.manifest("lora_checkpoint", day) or {}
        refit = self.refit
        return ModelName(
            day=day,
            month=month_key(as_date(day)),
            checkpoint=checkpoint.digest(),
            base=checkpoint.base_digest,
            codebooks=refit.codebooks.digest(),
            encoder=refit.encoder.digest(),
            recipe=str(manifest.get("code_version", "")),
        )

    def model_of(self, pointer: Pointer) -> LoraCheckpoint:
        """The adapter that a written pointer points to."""
        return self.world.store.read(PromotedModel, PROMOTED, pointer.as_of).checkpoint

    def features_of(self, catalog: ItemCatalog) -> ItemFeatures:
        """Features of a catalog's items under the month's refit."""
        refit, sigma = self.refit, self.sigma
        remembering = sigma.remembering(refit.encoder)
        known = sigma.known_vectors(self.day)
        return catalog_features(
            catalog, refit.id_embeddings, refit.codebooks, remembering, known, sigma.images()
        )


# ---------------------------------------------------------------------------------------- look-ups
def read_pointer(world: World, day: str) -> Pointer | None:
    """The pointer of a day, as it is on disk."""
    return Pointer.read(world.store.path(PROMOTED, day)) if world.manifest(PROMOTED, day) else None


def former_pointer(world: World, day: str) -> Pointer | None:
    """The newest pointer of an earlier day, but for those to an adapter that was rolled back: it may not go on."""
    taken_back = barred(world.root)
    for key in reversed(world.store.partitions(PROMOTED)):
        pointer = read_pointer(world, key) if key < day else None
        if pointer is not None and pointer.model.checkpoint not in taken_back:
            return pointer
    return None


def model_by_digest(world: World, day: str, digest: str) -> LoraCheckpoint:
    """The adapter of this digest: among what was ever promoted, or as the day's own checkpoint.

    Raises:
        ArtifactError: it is in neither place any more.
    """
    for key in reversed(world.store.partitions(PROMOTED)):
        pointer = read_pointer(world, key)
        if pointer is not None and pointer.model.checkpoint == digest:
            return world.store.read(PromotedModel, PROMOTED, key).checkpoint
    manifest = world.manifest("lora_checkpoint", day)
    if manifest is not None and manifest["digest"] == digest:
        return world.store.read(LoraCheckpoint, "lora_checkpoint", day)
    raise ArtifactError(
        f"the adapter {digest} of {day} is in {world.root} no more. Promote another one: `sigma promote --as-of DATE`."
    )


def figures_of(case: Case) -> dict[str, Any]:
    """The measured figures of a case, plain values."""
    pair = case.comparison
    return {
        "fitness": asdict(case.fitness),
        "guardrails": asdict(case.guardrails) if case.guardrails else None,
        "promoted_guardrails": asdict(case.promoted_guardrails) if case.promoted_guardrails else None,
        "compared": None
        if pair is None
        else {
            "challenger": pair.challenger.day,
            "incumbent": pair.incumbent.day,
            "tasks": {name: asdict(task) for name, task in pair.tasks.items()},
        },
    }


# ------------------------------------------------------------------------------------------- told
def gate_result(value: PromotedModel) -> dg.AssetCheckResult:
    """The check of a decision: it warns, and alerts with it, when the day's own adapter does not serve."""
    pointer = value.pointer
    against = [f for f in pointer.evidence.get("findings", []) if f["holds"] is False and f["blocks"]]
    return dg.AssetCheckResult(
        passed=pointer.outcome in ("promoted", "by_hand"),
        check_name=GATE,
        severity=dg.AssetCheckSeverity.WARN,
        description=pointer.reason,
        metadata={
            "failed": dg.MetadataValue.json(
                [{"id": f["name"], "details": {"examples": [f["said"]]}} for f in against]
            ),
            "to_do": TO_DO.format(day=pointer.as_of),
        },
    )


TO_DO: Final = (
    "The former model goes on serving the day's own catalog and households. Mend the adapter (or materialize the one it is "
    "judged by) and `sigma materialize --as-of {day}` again, or overrule the gate: `sigma promote --as-of {day} --reason WHY`."
)


def decision_table(value: PromotedModel) -> str:
    """The findings as a Markdown table."""
    signs = {True: "holds", False: "BROKEN", None: "cannot tell"}
    rows = [f"**{value.pointer.reason}**", "", "| looked at | result | found |", "|---|---|---|"]
    for finding in value.pointer.evidence.get("findings", []):
        sign = signs[finding["holds"]] + ("" if finding["blocks"] else " (does not block)")
        rows.append(f"| {finding['name']} | {sign} | {finding['said']} |")
    return "\n".join(rows)
