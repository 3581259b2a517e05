"""The rule by which a new adapter is promoted, kept out or refused: facts in, a verdict with its findings out.

Pure: it measures nothing (`promotion_evidence.py` does), reads no file and knows no partition but by its name. Limits are
`PromotionConfig`. Source: our choice; non-inferiority by the one-sided bound of a paired bootstrap over households.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal

from sigma_core.config_sections import PromotionConfig

Outcome = Literal["promoted", "kept", "refused"]
"""promoted: the new one serves. kept: the former one goes on. refused: nothing that fits the day's index may serve."""


@dataclass(frozen=True)
class ModelName:
    """Which model: the day of its adapter, the month of its refit, and digests of what belongs together.

    Attributes:
        day: partition of `lora_checkpoint`.
        month: partition of the refit.
        checkpoint, base, codebooks, encoder: digests.
        recipe: code version of `lora_checkpoint`: its settings and its code.
    """

    day: str
    month: str
    checkpoint: str
    base: str
    codebooks: str
    encoder: str
    recipe: str


@dataclass(frozen=True)
class Fitness:
    """What can be said of an adapter without any day that it is judged on.

    Attributes:
        num_not_finite: weights that are NaN or infinite.
        misfit: why it cannot be used with the month's base, encoder and codebooks; "" when it can.
        beams_valid: share of generated prefixes that exist; None when it could not be run.
        probe_loss, base_loss: loss on households that training never sees, of the adapter and of the base alone.
    """

    num_not_finite: int = 0
    misfit: str = ""
    beams_valid: float | None = None
    probe_loss: float | None = None
    base_loss: float | None = None


@dataclass(frozen=True)
class Guardrails:
    """What must not break, whatever the accuracy: on the lists of a few households.

    Attributes:
        coverage: distinct items listed, over the most there could be (places, or items of the catalog if fewer).
        cold_share: share of the places that hold an item launched lately.
        latency_ms: median CPU time of one household's answer.
    """

    coverage: float
    cold_share: float
    latency_ms: float


@dataclass(frozen=True)
class TaskLoss:
    """One task of the comparison, in recall@20 on the same targets.

    Attributes:
        num_targets, num_households: what it stands on.
        challenger, incumbent: recall of each.
        upper: upper confidence bound of `incumbent - challenger`, households resampled.
    """

    num_targets: int
    num_households: int
    challenger: float
    incumbent: float
    upper: float


@dataclass(frozen=True)
class Comparison:
    """The adapter of some days ago against a promoted one, on the days since. The incumbent should not have seen them either."""

    challenger: ModelName
    incumbent: ModelName
    tasks: Mapping[str, TaskLoss] = field(default_factory=dict)

    @property
    def is_same_model(self) -> bool:
        """Both are one adapter: there is nothing to compare."""
        return self.challenger.checkpoint == self.incumbent.checkpoint


@dataclass(frozen=True)
class Case:
    """All that the rule looks at.

    Attributes:
        day: the day that is decided for.
        candidate: the day's own adapter.
        fitness, guardrails: of the candidate; guardrails None when it could not answer.
        promoted: the model promoted so far; None: there is none.
        promoted_guardrails: its figures on the same households; None where it does not fit the day's index.
        comparison: None where there is none; `no_comparison` says why.
        horizon: days that a comparison spans.
        barred: why somebody took this adapter back by hand; "" otherwise.
        held: why the promoted one was put in place by a rollback; "" otherwise.
    """

    day: date
    candidate: ModelName
    fitness: Fitness
    guardrails: Guardrails | None
    promoted: ModelName | None = None
    promoted_guardrails: Guardrails | None = None
    comparison: Comparison | None = None
    no_comparison: str = ""
    horizon: int = 7
    barred: str = ""
    held: str = ""

    @property
    def can_keep(self) -> bool:
        """The promoted model fits the day's index, so that it can go on serving."""
        return self.promoted is not None and self.promoted.base == self.candidate.base


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `holds` None: too little to tell. Only a broken one that `blocks` keeps the adapter out."""

    name: str
    said: str
    holds: bool | None
    blocks: bool = True

    @property
    def is_against(self) -> bool:
        """It keeps the adapter out."""
        return self.holds is False and self.blocks


@dataclass(frozen=True)
class Verdict:
    """What was decided, in one line, by which rule, and everything it was decided on."""

    outcome: Outcome
    rule: str
    reason: str
    findings: tuple[Finding, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        findings = [vars(finding) for finding in self.findings]
        return {"outcome": self.outcome, "rule": self.rule, "reason": self.reason, "findings": findings}


def rule_of(case: Case) -> str:
    """Which rule decides the case: first, month_start or comparison.

    first: no model of this refit is promoted yet, so there is nothing to be compared with. month_start: days 1 to `horizon` of
    a month, when no adapter of the refit is old enough to be judged; not after a rollback, which only a comparison or a hand
    ends. comparison: every other day.
    """
    if case.promoted is None:
        return "first"
    if case.day.day <= case.horizon and not (case.held and case.can_keep):
        return "month_start"
    return "comparison" if case.can_keep else "first"


def decide(case: Case, config: PromotionConfig) -> Verdict:
    """Promote the day's adapter, keep the promoted model, or refuse both."""
    rule = rule_of(case)
    findings = [*_barred(case), *data_free(case.fitness, config)]
    findings += guardrail_findings(case, config, blocks=rule != "month_start")
    if rule == "comparison":
        findings += comparison_findings(case.comparison, config, case.no_comparison)
    against = [finding for finding in findings if finding.is_against]
    if not against:
        return Verdict("promoted", rule, _why_promoted(case, rule, findings), tuple(findings))
    said = "; ".join(finding.said for finding in against)
    if case.can_keep and case.promoted is not None:
        reason = f"the adapter of {case.day} is kept out, that of {case.promoted.day} goes on: {said}"
        return Verdict("kept", rule, reason, tuple(findings))
    reason = f"the adapter of {case.day} is refused, and no promoted model fits this refit: {said}"
    return Verdict("refused", rule, reason, tuple(findings))


def data_free(fitness: Fitness, config: PromotionConfig) -> list[Finding]:
    """Finite weights, compatible with the month, valid beams, a probe loss not worse than the base's by the factor."""
    found = [
        Finding("finite", f"{fitness.num_not_finite} weights are not finite", fitness.num_not_finite == 0),
        Finding("compatible", fitness.misfit or "fits base, encoder and codebooks", not fitness.misfit),
    ]
    if not all(finding.holds for finding in found):
        return found
    valid, loss, base = fitness.beams_valid, fitness.probe_loss, fitness.base_loss
    found.append(
        Finding("beams", f"{_share(valid)} of the generated prefixes exist", valid is not None and valid >= 1)
    )
    if loss is None or base is None:
        return [*found, Finding("probe_loss", "the probe loss could not be computed", holds=False)]
    limit = config.probe_loss_factor * base
    said = f"probe loss {loss:.4f}, of the base alone {base:.4f}, at most {limit:.4f} allowed"
    return [*found, Finding("probe_loss", said, loss <= limit)]


def guardrail_findings(case: Case, config: PromotionConfig, *, blocks: bool) -> list[Finding]:
    """Coverage, share of new items and latency, against fixed limits and against the promoted model's own figures."""
    mine, theirs = case.guardrails, case.promoted_guardrails
    if mine is None:
        return [] if _is_broken(case.fitness) else [Finding("lists", "it gave no lists", holds=False)]
    coverage = max(config.min_coverage, config.coverage_ratio * theirs.coverage if theirs else 0.0)
    cold = max(0.0, config.cold_ratio * theirs.cold_share - config.cold_slack) if theirs else 0.0
    return [
        _at_least("coverage", "coverage of the lists", mine.coverage, coverage, blocks=blocks),
        _at_least("cold_share", "share of new items", mine.cold_share, cold, blocks=blocks),
        Finding(
            "latency",
            f"an answer takes {mine.latency_ms:.0f} ms of CPU, at most {config.max_latency_ms:.0f} allowed",
            mine.latency_ms <= config.max_latency_ms,
            blocks,
        ),
    ]


def decide_refit(compared: Comparison | None, config: PromotionConfig) -> Verdict:
    """Publish a month's refit, or refuse it so that the former one goes on; without a comparison it is published.

    The challenger is the refit's base without an adapter, named after the last day it learnt from; the incumbent is the adapter
    that served on that day, on the former refit.
    """
    if compared is None:
        said = "there is no former refit with a promoted adapter to be compared with"
        return Verdict("promoted", "first", said, ())
    findings = comparison_findings(compared, config)
    against = [finding for finding in findings if finding.is_against]
    of = f"the adapter of {compared.incumbent.day} on the refit of {compared.incumbent.month}"
    if not against:
        said = f"the refit of {compared.challenger.month} is not worse than {of}"
        return Verdict("promoted", "comparison", said, tuple(findings))
    reason = f"the refit of {compared.challenger.month} is refused beside {of}: " + "; ".join(
        f.said for f in against
    )
    return Verdict("refused", "comparison", reason, tuple(findings))


def comparison_findings(
    compared: Comparison | None, config: PromotionConfig, no_comparison: str = ""
) -> list[Finding]:
    """One finding a task: the upper bound of the loss against its margin. A task with too few targets does not block."""
    if compared is None:
        return [Finding("comparison", no_comparison or "there is no comparison", holds=False)]
    if compared.is_same_model:
        said = f"the adapter of {compared.challenger.day} is the promoted one itself"
        return [Finding("comparison", said, holds=True)]
    found = [_task_finding(name, task, config) for name, task in compared.tasks.items()]
    if compared.incumbent.day > compared.challenger.day:
        said = f"the adapter of {compared.incumbent.day} has learnt from the days both are judged on, which favours it"
        found.append(Finding("fairness", said, holds=None))
    if all(finding.holds is None for finding in found):
        said = "no task has enough targets to compare by"
        return [*found, Finding("comparison", said, holds=False)]
    return found


def margin_of(task: TaskLoss, config: PromotionConfig) -> float:
    """The loss in recall@20 that does not matter: a share of the incumbent's recall, and at least a floor."""
    return max(config.margin_floor, config.margin_share * task.incumbent)


def _task_finding(name: str, task: TaskLoss, config: PromotionConfig) -> Finding:
    said = f"{name}: recall@20 {task.challenger:.4f} against {task.incumbent:.4f}"
    if task.num_targets < config.min_targets or task.num_households < config.min_households:
        few = f"{task.num_targets} targets of {task.num_households} households, underpowered"
        return Finding(f"task/{name}", f"{said}; {few}, does not block", holds=None)
    margin = margin_of(task, config)
    bound = f"loses at most {task.upper:+.4f} ({config.confidence:.0%}), margin {margin:.4f}"
    return Finding(f"task/{name}", f"{said}, {bound}", task.upper < margin)


def _barred(case: Case) -> list[Finding]:
    if not case.barred:
        return []
    return [Finding("rolled_back", f"it was rolled back by hand: {case.barred}", holds=False)]


def _is_broken(fitness: Fitness) -> bool:
    return fitness.num_not_finite > 0 or bool(fitness.misfit)


def _at_least(name: str, what: str, value: float, limit: float, *, blocks: bool) -> Finding:
    return Finding(name, f"{what} {value:.4f}, at least {limit:.4f} needed", value >= limit, blocks)


def _share(value: float | None) -> str:
    return "none" if value is None else f"{value:.1%}"


def _why_promoted(case: Case, rule: str, findings: Iterable[Finding]) -> str:
    names = {
        "first": "the first model of its refit: data-free checks and guardrails hold",
        "month_start": f"day {case.day.day} of the month, nothing to be judged by yet: data-free checks hold",
    }
    if rule in names:
        said = names[rule]
    elif case.comparison is not None and case.comparison.is_same_model:
        said = f"the adapter of {case.comparison.challenger.day}, same recipe, is the promoted one itself"
    else:
        assert case.comparison is not None
        pair = case.comparison
        said = f"the adapter of {pair.challenger.day}, same recipe, is not worse than that of {pair.incumbent.day}"
    told = [finding.said for finding in findings if finding.holds is not True]
    return said + (f" ({'; '.join(told)})" if told else "")
