"""The promoted model of a day: which adapter serves, since when, why, what it replaced, and the adapter itself.

The adapter is kept whole inside the artifact, so that training its day anew, or deleting it, takes nothing from what serves.
Reads no evidence and decides nothing (`evaluation/promotion.py`). Source: our choice.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from sigma_core.artifacts import digest_json, read_dataclass, write_json
from sigma_core.evaluation.promotion import ModelName
from sigma_core.training.checkpoint import LoraCheckpoint

POINTER: Final = "pointer.json"
CHECKPOINT: Final = "checkpoint"


@dataclass(frozen=True)
class Pointer:
    """The part of the artifact that is one JSON file.

    Attributes:
        as_of: the day it serves.
        model: what is promoted.
        since: first day it was promoted for without a break.
        outcome: promoted | kept | by_hand; refused is never written.
        reason: one line.
        replaced: what served before it; None: nothing.
        held: why a rollback put it in place; "" otherwise.
        evidence: the verdict with its findings and figures, plain values.
    """

    as_of: str
    model: ModelName
    since: str
    outcome: str
    reason: str
    replaced: ModelName | None = None
    held: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> Self:
        """The pointer of a written artifact, without its adapter.

        Raises:
            DamagedError: the file is not what was written.
        """
        return read_dataclass(cls, directory / POINTER)


@dataclass(frozen=True)
class PromotedModel:
    """A pointer and the adapter it points to."""

    pointer: Pointer
    checkpoint: LoraCheckpoint

    def save(self, directory: Path) -> None:
        """Write `pointer.json` and `checkpoint/`, the adapter as `lora_checkpoint` writes it."""
        folder = directory / CHECKPOINT
        folder.mkdir()
        self.checkpoint.save(folder)
        write_json(directory / POINTER, asdict(self.pointer))

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read back what `save` wrote."""
        return cls(Pointer.read(directory), LoraCheckpoint.load(directory / CHECKPOINT))

    def digest(self) -> str:
        """Digest of what serves, not of the day and the reasons: readers are stale when the model changes, and only then."""
        return digest_json(asdict(self.pointer.model))

    def summary(self) -> dict[str, Any]:
        """What serves, since when, why, and what it replaced."""
        pointer = self.pointer
        return {
            "model_day": pointer.model.day,
            "refit": pointer.model.month,
            "since": pointer.since,
            "outcome": pointer.outcome,
            "reason": pointer.reason,
            "replaced": pointer.replaced.day if pointer.replaced else "",
            "held": pointer.held,
            "checkpoint": pointer.model.checkpoint,
            "base": pointer.model.base,
            "codebooks": pointer.model.codebooks,
        }
