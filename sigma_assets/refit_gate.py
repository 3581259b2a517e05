"""The gate of a month's refit: its base judged on the days it left out, and the former refit published where it is refused.

The challenger is the new base without any adapter, learnt up to the cut (`periods.refit_cut`); the incumbent is the adapter that
served then, on the former refit. Both rank the catalog of the cut for the days between it and the month. The rule is
`sigma_core/evaluation/promotion.py`, what a refusal is `refits.py`. Without a former refit nothing is computed. Our choice.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import dagster as dg
import polars as pl

from sigma_assets.checks.gate import REFIT_GATE
from sigma_assets.comparing import Contender, Refit, events_until, losses_between
from sigma_assets.features import catalog_features
from sigma_assets.intake import intake_of
from sigma_assets.io_manager import load
from sigma_assets.periods import as_date, day_key, refit_cut
from sigma_assets.promotion_orders import PROMOTED
from sigma_assets.publish import Published, publish
from sigma_assets.refits import REPUBLISHED, former_month, refusal_of, refuse
from sigma_assets.resources import SigmaResource
from sigma_core import columns as c
from sigma_core.data.catalog import ItemCatalog
from sigma_core.evaluation.promotion import Comparison, ModelName, Verdict, decide_refit
from sigma_core.serving.promoted import Pointer, PromotedModel
from sigma_core.tokenization.item_features import ItemFeatures


@dataclass
class RefitGate:
    """One decision: a base just trained against the adapter that served when its data ended."""

    context: dg.AssetExecutionContext
    sigma: SigmaResource
    refit: Refit
    features: ItemFeatures
    catalog: ItemCatalog

    def decide(self) -> Verdict:
        """The verdict; a refusal is recorded, and from then on the month's assets publish the former refit."""
        month, world = str(self.context.partition_key), self.sigma.world
        incumbent = self._incumbent() if world.span.refit_holdout else None
        compared = None if incumbent is None else self._compared(*incumbent)
        verdict = decide_refit(compared, self.sigma.config.promotion)
        if verdict.outcome == "refused":
            refuse(world, month, former_month(month), self.refit.base.digest(), verdict.reason)
        return verdict

    def _incumbent(self) -> tuple[Pointer, Refit] | None:
        """The newest adapter promoted on the former refit by the cut, else the oldest after it; None where there is none."""
        month, world = str(self.context.partition_key), self.sigma.world
        former = former_month(month)
        if not all(world.manifest(asset, former) for asset in REPUBLISHED):
            return None
        base = world.store.manifest("sigma_base", former)["digest"]
        there = [key for key in world.store.partitions(PROMOTED) if key < month]
        pointers = [Pointer.read(world.store.path(PROMOTED, key)) for key in there]
        mine = [pointer for pointer in pointers if pointer.model.base == base]
        if not mine:
            return None
        cut = day_key(refit_cut(as_date(month), world.span))
        by_then = [pointer for pointer in mine if pointer.model.day <= cut]
        parts = ("sigma_base", "codebooks", "grounded_encoder", "item_id_embeddings")
        return (by_then or mine[:1])[-1], Refit(*(load(world, asset, former) for asset in parts))

    def _compared(self, pointer: Pointer, former: Refit) -> Comparison:
        from sigma_core.data.users import build_user_profiles
        from sigma_core.training.checkpoint import without_adapter

        month, world = as_date(self.context.partition_key), self.sigma.world
        cut = refit_cut(month, world.span)
        events = events_until(world, day_key(month - timedelta(days=1)))
        profiles = build_user_profiles(
            intake_of(world).users, events.filter(pl.col(c.EVENT_DATE) <= cut), cut
        )
        served = world.store.read(PromotedModel, PROMOTED, pointer.as_of).checkpoint
        losses = losses_between(
            Contender(self.refit, without_adapter(self.refit.base), self.features),
            Contender(former, served, self._features_of(former, day_key(cut))),
            self.sigma,
            self.context,
            (cut, self.catalog, profiles, events),
            horizon=world.span.refit_holdout,
        )
        return Comparison(self._named(day_key(cut)), pointer.model, losses)

    def _features_of(self, former: Refit, cut: str) -> ItemFeatures:
        """Features of the cut's catalog under the former refit."""
        known = self.sigma.known_vectors(cut)
        remembering = self.sigma.remembering(former.encoder)
        return catalog_features(
            self.catalog, former.id_embeddings, former.codebooks, remembering, known, self.sigma.images()
        )

    def _named(self, cut: str) -> ModelName:
        refit, base = self.refit, self.refit.base.digest()
        recipe = self.sigma.world.code_versions["sigma_base"]
        names = (refit.codebooks.digest(), refit.encoder.digest(), recipe)
        return ModelName(cut, str(self.context.partition_key), "", base, *names)


# ----------------------------------------------------------------------------------- told and published
def refused_by(verdict: Verdict) -> str:
    """Why the gate keeps the refit out; "" when it does not."""
    return verdict.reason if verdict.outcome == "refused" else ""


def refit_result(verdict: Verdict) -> dg.AssetCheckResult:
    """The check of a decision: an error, and an alert with it, when the refit is refused."""
    against = [finding for finding in verdict.findings if finding.is_against]
    return dg.AssetCheckResult(
        passed=verdict.outcome == "promoted",
        check_name=REFIT_GATE,
        severity=dg.AssetCheckSeverity.ERROR,
        description=verdict.reason,
        metadata={
            "failed": dg.MetadataValue.json(
                [{"id": one.name, "details": {"examples": [one.said]}} for one in against]
            ),
            "findings": dg.MetadataValue.json([vars(one) for one in verdict.findings]),
            "to_do": TO_DO,
        },
    )


TO_DO: Final = (
    "`sigma materialize` goes on with the former month's refit by itself; in the UI the sensor `republish_refused_refit` does, or "
    "`monthly_refit` run once more: it publishes the former artifacts and trains nothing. Other data, code or settings train and "
    "judge the month again."
)


def or_republish(asset: str, body: Callable[..., Any]) -> Callable[..., Any]:
    """The body of a refit's asset, which publishes the former month's artifact where the month's own refit was refused."""

    @functools.wraps(body)
    def published(context: dg.AssetExecutionContext, sigma: SigmaResource, **inputs: Any) -> Published:
        refusal = refusal_of(sigma.world, context.partition_key)
        if refusal is None:
            yield from body(context, sigma, **inputs)
            return
        value = load(sigma.world, asset, refusal.former)
        said = f"{refusal.reason}; {refusal.former} goes on"
        context.log.warning(said)
        told = dg.AssetCheckResult(
            passed=False,
            check_name=REFIT_GATE,
            severity=dg.AssetCheckSeverity.WARN,
            description=said,
            metadata={"to_do": TO_DO},
        )
        yield from publish(
            context,
            sigma,
            value,
            metadata={"republished": refusal.former, "reason": refusal.reason},
            checks=[told] if asset == "sigma_base" else [],
            **_own_facts(asset, value),
        )

    return published


def _own_facts(asset: str, value: Any) -> dict[str, Any]:
    """What the contract looks at beside the value, where nothing but the value counts: it was judged by its own month's inputs."""
    if asset in ("refit_item_embeddings", "codebooks"):
        return {"item_ids": value.item_ids}
    if asset == "grounded_encoder":
        return {"probe_texts": ["tea", "oat biscuits 12 oz"]}
    return dict(value.facts()) if asset == "sigma_base" else {}
