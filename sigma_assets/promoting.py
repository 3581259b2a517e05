"""What `sigma rollback`, `sigma promote` and `sigma promotions` do: give an order, decide the day again, tell the history.

An order is recorded, then the day's pointer and lists are made again; a running `sigma serve` takes both over. Decides
nothing itself. Our choice.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sigma_assets.binding import read_binding
from sigma_assets.locking import order_lock
from sigma_assets.periods import as_date, month_key
from sigma_assets.planner import PlanError, Step
from sigma_assets.progress import Reporter
from sigma_assets.promotion_orders import (
    PROMOTED,
    Order,
    barred,
    decision_lineage,
    give_order,
    order_for,
    taken_back_since,
)
from sigma_assets.world import World
from sigma_core.serving.promoted import Pointer

if TYPE_CHECKING:
    import dagster as dg

    from sigma_assets.runner import Done

PREVIOUS: Final = "previous"
LISTS: Final = "user_to_item_index"
REMADE: Final = (PROMOTED, LISTS)


@dataclass(frozen=True)
class Ordered:
    """An order and what became of its steps."""

    order: Order
    done: list["Done"]


def rollback(
    root: Path, to: str, reason: str, reporter: Reporter, *, verbose: bool = False
) -> tuple[World, Ordered]:
    """Put the adapter of the day `to`, or the one that was replaced ("previous"), in the place of the one that serves now.

    The latest served day is decided again; the adapter taken back is barred until somebody promotes it, and nothing but a
    comparison or a hand replaces the one put in place. A later day that is decided but has no lists yet is decided again when it
    is made, and a run at work on one is refused. A rollback that was stopped before the lists were made is finished, under
    its own order and reason, when "previous" or its own day is asked for: never a second step back.

    Raises:
        PlanError: nothing serves, there is no such adapter, or it does not fit the refit that serves.
        RootError, LockedError, StepError: see their classes.
    """
    with order_lock(root, "rollback") as alone:
        world = World(root, read_binding(root))
        day, now = _serving(world)
        stopped = _stopped(world, day)
        if stopped is not None and to in {PREVIOUS, stopped.model_day}:
            reporter.line(
                f"note: finishing the rollback of {stopped.at} to the adapter of {stopped.model_day}, which was stopped half way; "
                "--to DATE names another adapter"
            )
            if not alone:
                need_no_run_at(root, day)
            return world, Ordered(stopped, _remake(world, day, reporter, alone=alone, verbose=verbose))
        model = _previous(world, day, now) if to == PREVIOUS else find_model(world, to)
        if model[1] == now.model.checkpoint:
            raise PlanError(f"the adapter of {model[0]} is the one that serves {day}; name another day.")
        _need_fit(world, day, model)
        if not alone:
            need_no_run_at(root, day)
        order = give_order(root, "rollback", day, model[:2], now.model.checkpoint, _said(reason))
        for later in (key for key in world.store.partitions(PROMOTED) if key > day):
            if taken_back_since(world, later):
                reporter.line(
                    f"note: {later} was decided for the adapter taken back; it is decided again when it is made"
                )
        return world, Ordered(order, _remake(world, day, reporter, alone=alone, verbose=verbose))


def promote(
    root: Path, day: str, reason: str, reporter: Reporter, *, verbose: bool = False
) -> tuple[World, Ordered]:
    """Let the day's own adapter serve it, whatever the gate says.

    Raises:
        PlanError: the day has no adapter, or it does not fit its month.
        RootError, LockedError, StepError: see their classes.
    """
    with order_lock(root, "promote") as alone:
        world = World(root, read_binding(root))
        manifest = world.manifest("lora_checkpoint", day)
        if manifest is None:
            raise PlanError(
                f"{day} has no lora_checkpoint. {_days(world, 'lora_checkpoint')} "
                f"Run `sigma materialize --as-of {day} --root {root}` first."
            )
        model = (day, str(manifest["digest"]), _base_of(world, "lora_checkpoint", day))
        _need_fit(world, day, model)
        if not alone:
            need_no_run_at(root, day)
        order = give_order(root, "promote", day, model[:2], "", _said(reason))
        return world, Ordered(order, _remake(world, day, reporter, alone=alone, verbose=verbose))


def history(world: World) -> list[tuple[Pointer, Order | None]]:
    """Every day's pointer, oldest first, with the order for that day."""
    there = [key for key in world.store.partitions(PROMOTED) if world.manifest(PROMOTED, key)]
    return [(Pointer.read(world.store.path(PROMOTED, key)), order_for(world.root, key)) for key in there]


def find_model(world: World, day: str) -> tuple[str, str, str]:
    """(day, digest, base) of the adapter of a day: as it was promoted last, else as it was trained.

    Raises:
        PlanError: there is none.
    """
    for key in reversed(world.store.partitions(PROMOTED)):
        model = Pointer.read(world.store.path(PROMOTED, key)).model
        if model.day == day:
            return model.day, model.checkpoint, model.base
    manifest = world.manifest("lora_checkpoint", day)
    if manifest is None:
        raise PlanError(f"there is no adapter of {day} in {world.root}. {_days(world, 'lora_checkpoint')}")
    return day, str(manifest["digest"]), _base_of(world, "lora_checkpoint", day)


def _serving(world: World) -> tuple[str, Pointer]:
    days = world.store.partitions(LISTS)
    served = [day for day in days if world.manifest(PROMOTED, day)]
    if not served:
        raise PlanError(f"{world.root} serves no day yet; run `sigma materialize --as-of DATE` first.")
    return served[-1], Pointer.read(world.store.path(PROMOTED, served[-1]))


def _stopped(world: World, day: str) -> Order | None:
    """The newest order for the day, if it is a rollback that the day's pointer or lists were not made by yet."""
    order = order_for(world.root, day)
    if order is None or order.kind != "rollback":
        return None
    pointer, lists = world.manifest(PROMOTED, day), world.manifest(LISTS, day)
    if pointer is None or lists is None:
        return order
    ordered = "order/promotions"
    is_decided = pointer["lineage"].get(ordered) == decision_lineage(world, day)[ordered]
    is_listed = lists["lineage"].get(f"{PROMOTED}/{day}") == pointer["digest"]
    return None if is_decided and is_listed else order


def _previous(world: World, day: str, now: Pointer) -> tuple[str, str, str]:
    """The adapter that served before the present one was first promoted, not what a rollback has just taken back."""
    taken_back = barred(world.root)
    ways_in = [pointer for pointer, _ in history(world) if pointer.model.checkpoint == now.model.checkpoint]
    for pointer in (now, *reversed(ways_in)):
        model = pointer.replaced
        if model is not None and model.checkpoint not in {*taken_back, now.model.checkpoint}:
            return model.day, model.checkpoint, model.base
    raise PlanError(
        f"the adapter of {now.model.day}, which serves {day}, replaced none that could serve again. Train another day, or name "
        "one with --to DATE."
    )


def _need_fit(world: World, day: str, model: tuple[str, str, str]) -> None:
    month = month_key(as_date(day))
    base = world.manifest("sigma_base", month)
    if base is None or base["digest"] != model[2]:
        raise PlanError(
            f"the adapter of {model[0]} was trained on another refit than that of {month}, whose index serves {day}: its "
            "prefixes mean other groups. Name an adapter of the same refit, or serve a former day: `sigma serve --as-of DATE`."
        )


def _base_of(world: World, asset: str, day: str) -> str:
    from sigma_core.training.checkpoint import LoraCheckpoint

    return world.store.read(LoraCheckpoint, asset, day).base_digest


def need_no_run_at(root: Path, day: str) -> None:
    """Refuse an order while a run of the UI is at work on what it makes again, or on a later day, which serves once it is there.

    Whichever ended last would win: the later day may be decided already, by what the order is about to change.

    Raises:
        PlanError: there is such a run; the message names it.
    """
    import dagster as dg

    from sigma_assets.instance import AT_WORK, open_instance
    from sigma_assets.jobs import JOBS

    made_by = {job.name: job.assets for job in JOBS}
    with open_instance(root) as instance:
        runs = instance.get_runs(dg.RunsFilter(statuses=AT_WORK))
    for run in (one for one in runs if one.remote_job_origin and _partition(one) >= day):
        made = [key.path[-1] for key in run.asset_selection or ()] or made_by.get(run.job_name, ())
        if set(made) & set(REMADE):
            raise PlanError(
                f"run {run.run_id[:8]} ({run.job_name}) is making {_partition(run)} in the UI and would write over the order. "
                "Terminate it there (Runs), or wait until it has ended, then give the order again."
            )


def _partition(run: "dg.DagsterRun") -> str:
    return str(run.tags.get("dagster/partition", ""))


def _remake(world: World, day: str, reporter: Reporter, *, alone: bool, verbose: bool) -> list["Done"]:
    """The day's pointer and lists, each as a Dagster run of its own."""
    from sigma_assets.commands import runner_of

    with runner_of(world, reporter, alone=alone, verbose=verbose) as runner:
        return runner.run_singly([Step(asset, day) for asset in REMADE])


def _said(reason: str) -> str:
    if not reason.strip():
        raise PlanError("--reason is empty; say why, for whoever reads the history.")
    return " ".join(reason.split())


def _days(world: World, asset: str) -> str:
    days = world.store.partitions(asset)
    return f"There are {', '.join(days[-5:])}." if days else "No day has one."
