"""Which partitions a date needs, in which order. Pure calendar arithmetic over the table of stages; no Dagster, no data.

Source: architecture.md, "One walk" and "Two cadences".
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from sigma_assets.periods import SELECT, Span, as_date, day_key, next_month
from sigma_assets.stages import ORDER, STAGES, Stage


class PlanError(ValueError):
    """A date cannot be computed from the dates of the root."""


@dataclass(frozen=True)
class Step:
    """One partition of one asset."""

    asset: str
    partition: str

    @property
    def stage(self) -> Stage:
        """The asset's row in the table of stages."""
        return STAGES[self.asset]

    def __str__(self) -> str:
        return f"{self.asset}[{self.partition}]"


def plan(targets: Iterable[Step], span: Span) -> list[Step]:
    """The targets and everything they read, each once, so that every step comes after its inputs.

    Raises:
        PlanError: a step needs an input that lies before the data.
    """
    found: set[Step] = set()
    open_steps = list(targets)
    while open_steps:
        step = open_steps.pop()
        if step in found:
            continue
        found.add(step)
        open_steps += inputs_of(step, span)
    # A stage never reads a later one, so the table's order with dates inside a stage is an order of execution.
    return sorted(found, key=lambda step: (ORDER[step.asset], step.partition))


def inputs_of(step: Step, span: Span) -> list[Step]:
    """The partitions that the step reads."""
    day, inputs = as_date(step.partition), []
    for read in step.stage.reads.values():
        keys = SELECT[read.window](day, span)
        if not keys and (not read.is_window or read.asset == "sft_shards"):
            raise PlanError(f"{step} needs {read.asset} from before {span.start}, the first day of the data.")
        inputs += [Step(read.asset, key) for key in keys]
    return inputs


def day_targets(as_of: date) -> list[Step]:
    """What `sigma materialize --as-of` is for: the day's lists, and through them everything that makes them."""
    return [Step("user_to_item_index", day_key(as_of))]


def plan_day(as_of: date, span: Span) -> list[Step]:
    """Everything a day needs.

    Raises:
        PlanError: the day is outside the data or too early for a refit; the message says which days are possible.
    """
    if not span.start <= as_of <= span.end:
        raise PlanError(f"--as-of {as_of} is outside the data, which has {span.start} to {span.end}.")
    try:
        return plan(day_targets(as_of), span)
    except PlanError as error:
        first = first_day(span)
        hint = f"The earliest possible day is {first}" if first else "The data are too short for a refit"
        raise PlanError(f"--as-of {as_of} is too early: {error} {hint}.") from error


def first_day(span: Span) -> date | None:
    """The earliest day that can be materialized, or None."""
    day = next_month(span.start)
    while day <= span.end:
        try:
            plan(day_targets(day), span)
        except PlanError:
            day += timedelta(days=1)
        else:
            return day
    return None


def evaluation_days(as_of: date, horizon: int, span: Span) -> list[Step]:
    """The days of events after `as_of` that judging it needs.

    Raises:
        PlanError: the source ends before the last of them.
    """
    last = as_of + timedelta(days=horizon)
    if last > span.end:
        raise PlanError(
            f"judging {as_of} with a horizon of {horizon} days needs events until {last}; the source ends {span.end}. "
            f"The last day that can be judged is {span.end - timedelta(days=horizon)}."
        )
    return [Step("interaction_events", day_key(as_of + timedelta(days=n))) for n in range(1, horizon + 1)]
