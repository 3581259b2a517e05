"""Promotions ordered by hand: `<root>/promotions.jsonl`, a line an order, only ever appended to.

An order names the day it is for and the adapter (by digest) that serves it; it counts whenever that day is decided again. What
somebody rolled back is barred until somebody promotes it. Knows files and digests, no Dagster. Our choice.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from sigma_assets.ledger import append, entries
from sigma_assets.periods import as_date, day_key
from sigma_core.artifacts import ArtifactError, digest_json

if TYPE_CHECKING:
    from sigma_assets.world import World

ORDERS: Final = "promotions.jsonl"
PROMOTED: Final = "promoted_model"
COMPARED: Final = ("lora_checkpoint", "item_catalog", "user_profiles")
"""What must be there of the day some days before, for an adapter to be judged by it."""


@dataclass(frozen=True)
class Order:
    """One order.

    Attributes:
        kind: rollback takes back what served and holds its successor; promote overrides the gate.
        day: the day it is for.
        model_day, checkpoint: the adapter that is to serve: its day and digest.
        taken_back: digest of the adapter that a rollback bars; "" for a promotion.
        reason: why, in the words of whoever ordered it.
        at: when (UTC, ISO).
    """

    kind: Literal["rollback", "promote"]
    day: str
    model_day: str
    checkpoint: str
    taken_back: str
    reason: str
    at: str


def give_order(
    root: Path,
    kind: Literal["rollback", "promote"],
    day: str,
    model: tuple[str, str],
    taken_back: str,
    reason: str,
) -> Order:
    """Append an order for `day`; `model` is (day, digest) of the adapter. Hold the root's lock."""
    order = Order(kind, day, *model, taken_back, reason, datetime.now(UTC).isoformat(timespec="seconds"))
    append(root / ORDERS, asdict(order))
    return order


def orders(root: Path) -> list[Order]:
    """Every order, oldest first.

    Raises:
        ArtifactError: a line is no order; nothing may be promoted while it is unclear what somebody took back.
    """
    return entries(root / ORDERS, Order, "order")


def order_for(root: Path, day: str) -> Order | None:
    """The newest order for a day."""
    mine = [order for order in orders(root) if order.day == day]
    return mine[-1] if mine else None


def barred(root: Path) -> dict[str, str]:
    """Digest of every adapter that was rolled back and not promoted since -> why."""
    return {checkpoint: order.reason for checkpoint, order in _barring(root).items()}


def _barring(root: Path) -> dict[str, Order]:
    out: dict[str, Order] = {}
    for order in orders(root):
        out.pop(order.checkpoint, None)
        if order.taken_back:
            out[order.taken_back] = order
    return out


def taken_back_since(world: "World", day: str) -> str:
    """Why the day has to be decided again: a rollback of a day before it barred the adapter that its pointer names; else "".

    A day with an order of its own stands by that order, and days before the rollback stay what they were.
    """
    from sigma_core.serving.promoted import Pointer

    if not world.manifest(PROMOTED, day) or order_for(world.root, day):
        return ""
    model = Pointer.read(world.store.path(PROMOTED, day)).model
    order = _barring(world.root).get(model.checkpoint)
    if order is None or order.day > day:
        return ""
    return f"the adapter of {model.day} was rolled back since: {order.reason}"


def need_not_taken_back(world: "World", day: str) -> None:
    """Lists of a day that would put back what a rollback took away are not made.

    Raises:
        ArtifactError: the day's pointer is one of `taken_back_since`.
    """
    if why := taken_back_since(world, day):
        raise ArtifactError(
            f"promoted_model of {day} may not serve: {why}. Decide that day again: run the job daily_refresh for it in the UI, or with the "
            f"UI closed `sigma materialize --as-of {day} --root {world.root}`."
        )


def why_kept(world: "World", day: str) -> str:
    """Why another adapter than the day's own serves the day by the gate's decision; "" when it does not."""
    from sigma_core.serving.promoted import Pointer

    if not world.manifest(PROMOTED, day):
        return ""
    pointer = Pointer.read(world.store.path(PROMOTED, day))
    return pointer.reason if pointer.outcome == "kept" else ""


def decision_lineage(world: "World", day: str) -> dict[str, str]:
    """What a day's decision was made from beside its inputs, as far as it is there: an order, and the adapter compared with.

    Neither is planned for a day; when one appears or changes, the day is decided again.
    """
    found = {}
    if order := order_for(world.root, day):
        found["order/promotions"] = digest_json(asdict(order))
    before = day_key(as_date(day) - timedelta(days=world.span.horizon))
    compared = {asset: world.manifest(asset, before) for asset in COMPARED}
    if all(compared.values()):
        found |= {
            f"compared/{asset}/{before}": manifest["digest"]
            for asset, manifest in compared.items()
            if manifest
        }
    return found
