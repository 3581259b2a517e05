"""What a training or evaluation leaves in W&B beside its curves: summary, tables, pictures, and versioned artifacts.

Names and aliases are decided here: an artifact is called like its asset, its aliases are the partition and, unless the root has
a later one, `latest` (and `promoted` for what `promoted_model` names). Knows no W&B: it talks to the run it is given. Our choice.
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from sigma_assets.tracking import NullRun
from sigma_core.artifacts import Artifact, ArtifactStore

KINDS: Final = {
    "codebooks": "codebooks",
    "sigma_base": "model",
    "lora_checkpoint": "adapter",
    "promoted_model": "adapter",
    "eval_report": "report",
    "ablation_report": "report",
}
"""Assets whose files become an artifact -> its type. The encoder's 90 MB a month stay where they are."""

SID_MAP: Final = "semantic_id_map"


def record(run: NullRun, store: ArtifactStore, asset: str, partition: str, value: Artifact) -> None:
    """Put the value's figures, tables, pictures and files into the run."""
    if not run.url:  # nobody listens
        return
    run.summary(flat(value.summary()))
    if asset == "eval_report":
        for name, rows in report_tables(value.to_json()).items():  # type: ignore[attr-defined]
            run.table(name, rows)
        value = value.without_examples()  # type: ignore[attr-defined]  # a household's purchases stay here
    if asset not in KINDS:
        return
    with TemporaryDirectory(prefix="sigma-wandb-") as folder:
        value.save(Path(folder))
        for picture in sorted(Path(folder).glob("*.png")):
            run.image(picture.stem, picture)
        run.artifact(asset, KINDS[asset], Path(folder), _aliases(store, asset, partition))
    if asset == "lora_checkpoint" and store.exists(SID_MAP, partition):
        run.artifact(SID_MAP, SID_MAP, store.path(SID_MAP, partition), _aliases(store, SID_MAP, partition))


def _aliases(store: ArtifactStore, asset: str, partition: str) -> list[str]:
    """The partition; and what the newest one is called, unless an earlier one is made again."""
    if any(key > partition for key in store.partitions(asset)):
        return [partition]
    return [partition, "latest", *(["promoted"] if asset == "promoted_model" else [])]


def flat(figures: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested figures under names joined by a slash; lists are left out."""
    out: dict[str, Any] = {}
    for key, value in figures.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{key}/")
        elif isinstance(value, str | int | float | bool):
            out[f"{prefix}{key}"] = value
    return out


def report_tables(report: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """A table of every task and model, and one of the differences to every opponent with their intervals."""
    scores, intervals = [], []
    for name, task in report["tasks"].items():
        for model, values in task["models"].items():
            scores.append({"task": name, "model": model, "targets": task["num_targets"], **(values or {})})
        for opponent, values in task["intervals"].items():
            for metric, bounds in (values or {}).items():
                low, high = bounds or (None, None)
                intervals.append(
                    {"task": name, "opponent": opponent, "metric": metric, "low": low, "high": high}
                )
    return {"scores": scores, "difference_to_opponents": intervals}
