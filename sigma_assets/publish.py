"""Write, audit, publish: the last move of every asset.

The contract is checked on the value before anything is written. A broken ERROR expectation yields the failed checks, leaves
no file and raises; otherwise the output goes out with its digest as data version, and the checks follow it (automation reads
their order). Source: architecture.md, rule 4.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from sigma_assets.checks.contract import CheckOutcome, check_results, failed_errors, validate
from sigma_assets.checks.drift import drift_results
from sigma_assets.checks.semantic import facts
from sigma_assets.column_metadata import column_lineage
from sigma_assets.plots import plot_of
from sigma_assets.resources import SigmaResource
from sigma_assets.stages import STAGES
from sigma_assets.tracked import record
from sigma_assets.tracking import NullRun
from sigma_core.artifacts import Artifact
from sigma_core.contracts import contract_names, load_contract

Published = Iterator[dg.Output | dg.AssetCheckResult]


def publish(
    context: dg.AssetExecutionContext,
    sigma: SigmaResource,
    value: Artifact,
    *,
    judged: Any = None,
    metadata: dict[str, Any] | None = None,
    checks: Sequence[dg.AssetCheckResult] = (),
    run: NullRun | None = None,
    refused: str = "",
    **inputs: Any,
) -> Published:
    """Yield the value as the asset's output if it meets its contract.

    Args:
        context: of the running asset.
        sigma: the root, which remembers a failure.
        value: the artifact.
        judged: what the contract looks at, where it is not the artifact itself.
        metadata: shown with the materialization beside the artifact's own figures.
        checks: results of further checks of the asset, none of which keeps it from being written.
        run: of W&B, still open; gets the artifact once it is written, and its link is shown.
        refused: why a gate keeps the value out, whatever its contract says; "" when none does.
        inputs: what `checks.semantic.facts` needs to know beside the value.

    Raises:
        Failure: an ERROR expectation is broken, or a gate refused the value; nothing was written.
    """
    name, partition = context.asset_key.path[-1], context.partition_key
    outcomes = audit(name, value if judged is None else judged, **inputs)
    results = [*(check_results(load_contract(name), outcomes) if outcomes else []), *checks]
    broken = failed_errors(outcomes)
    if broken or refused:
        message = refusal(name, partition, broken) if broken else f"{name}[{partition}]: {refused}"
        sigma.world.mark_failure(name, partition, message)
        yield from results
        raise dg.Failure(message, allow_retries=False)
    shown = metadata_of(name, value) | (metadata or {})
    if run is not None and run.url:
        shown["wandb"] = run.url
    results += drift_results(sigma.world, name, partition, value)
    yield dg.Output(value, data_version=dg.DataVersion(value.digest()), metadata=shown)
    yield from results
    if run is not None:  # Dagster has written the value by now: what W&B calls latest is there
        record(run, sigma.world.store, name, partition, value)


def audit(name: str, value: Any, **inputs: Any) -> list[CheckOutcome]:
    """Outcomes of the asset's contract on a value; none where the asset has no contract."""
    if name not in contract_names():
        return []
    return validate(load_contract(name), facts(name, value, **inputs))


def refusal(name: str, partition: str, broken: list[CheckOutcome]) -> str:
    """One line: what was refused, and which expectations it broke."""
    said = "; ".join(f"{outcome.id}: {outcome.description}" for outcome in broken[:3])
    more = f"; and {len(broken) - 3} more" if len(broken) > 3 else ""
    return f"{name}[{partition}] breaks its contract and was not written: {said}{more}"


def links_of(folder: Path, files: Mapping[str, str]) -> dict[str, Any]:
    """Files of an artifact's folder as links in its metadata, by what they are."""
    return {name: dg.MetadataValue.path(str(folder.resolve() / file)) for name, file in files.items()}


def legible(figure: bool | int | float | str) -> bool | int | float | str:
    """A figure for people: a fraction to six digits of the number, "none" for an empty text. The artifact keeps all digits."""
    if isinstance(figure, float) and math.isfinite(figure):
        return float(f"{figure:.6g}") if abs(figure) < 1e6 else float(round(figure))
    return "none" if figure == "" else figure


def metadata_of(name: str, value: Artifact, *, with_plot: bool = True) -> dict[str, Any]:
    """The artifact's summary and the origin of its columns as Dagster metadata, and a small plot where the asset has one."""
    metadata: dict[str, Any] = dict(column_lineage(name)) if name in STAGES else {}
    for key, figure in value.summary().items():
        is_plain = isinstance(figure, bool | int | float | str)
        metadata[key] = legible(figure) if is_plain else dg.MetadataValue.json(figure)
    picture = plot_of(name, value) if with_plot else None
    return metadata | ({"plot": dg.MetadataValue.md(picture)} if picture else {})
