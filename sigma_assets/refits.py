"""Refused refits: `<root>/refits.jsonl`, a line a refusal, only ever appended to, and which former refit stands in for one.

A refusal counts for as long as the month's refit would be trained from the same data by the same code and settings; then its
assets publish the former month's artifacts under their own partition (`refit_gate.or_republish`). Something else in any of
these, and the month is trained and judged again. Knows files and digests, no Dagster. Our choice.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sigma_assets.ledger import append, entries
from sigma_assets.periods import as_date, month_key
from sigma_assets.stages import STAGES
from sigma_core.artifacts import digest_json

if TYPE_CHECKING:
    from sigma_assets.world import World

REFITS: Final = "refits.jsonl"
REPUBLISHED: Final = (
    "item_id_embeddings",
    "grounded_encoder",
    "refit_item_embeddings",
    "codebooks",
    "sigma_base",
)
"""What days read of a refit, in order: these go together, all of one refit. Its pairs are read by its encoder alone."""
_TRAINED: Final = ("relevance_pairs", *REPUBLISHED)


@dataclass(frozen=True)
class Refusal:
    """One refused refit.

    Attributes:
        month: partition of the refit.
        former: partition of the refit that goes on.
        recipe: digest of what the refit was made from and by (`recipe_of`).
        base: digest of the refused base.
        reason: the gate's, in one line.
        at: when (UTC, ISO).
    """

    month: str
    former: str
    recipe: str
    base: str
    reason: str
    at: str


def refuse(world: "World", month: str, former: str, base: str, reason: str) -> Refusal:
    """Append a refusal. Hold the root's lock."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    refusal = Refusal(month, former, recipe_of(world, month), base, reason, now)
    append(world.root / REFITS, asdict(refusal))
    return refusal


def refusals(root: Path) -> list[Refusal]:
    """Every refusal, oldest first.

    Raises:
        ArtifactError: a line is no refusal.
    """
    return entries(root / REFITS, Refusal, "refusal")


def refusal_of(world: "World", month: str) -> Refusal | None:
    """The refusal that counts for a month now; None where its own refit is published, or is to be trained."""
    mine = [refusal for refusal in refusals(world.root) if refusal.month == month]
    if not mine or mine[-1].recipe != recipe_of(world, month):
        return None
    former = mine[-1].former
    is_there = all(
        world.manifest(asset, former) and not world.failure(asset, former) for asset in REPUBLISHED
    )
    return mine[-1] if is_there else None


def former_month(month: str) -> str:
    """Partition of the month before."""
    return month_key(as_date(month) - timedelta(days=1))


def republished_lineage(world: "World", asset: str, month: str) -> dict[str, str]:
    """The former artifact that stands in for the month's own, by `republished/asset/month`; none where no refusal counts."""
    if asset not in REPUBLISHED or (refusal := refusal_of(world, month)) is None:
        return {}
    manifest = world.manifest(asset, refusal.former)
    return {f"republished/{asset}/{refusal.former}": manifest["digest"]} if manifest else {}


def recipe_of(world: "World", month: str) -> str:
    """Digest of all that a month's refit is made from and judged by: code, settings, limits, and inputs from outside the refit."""
    inputs = {
        f"{asset}/{key}": (world.manifest(asset, key) or {}).get("digest")
        for name in _TRAINED
        for asset, key in world.inputs(STAGES[name], month)
        if asset not in _TRAINED
    }
    parts = {part: world.binding.parts.get(part) for name in _TRAINED for part in STAGES[name].source_parts}
    versions = {name: world.code_versions[name] for name in _TRAINED}
    limits = world.config.promotion.model_dump(mode="json")
    return digest_json({"inputs": inputs, "source": parts, "versions": versions, "limits": limits})
