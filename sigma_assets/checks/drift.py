"""The `drift` check: a day's table against the trailing days of its root, by the limits of its contract.

And against its own former version: rows without a usable time must not become more.

Never blocking: a strange day is a day, and somebody should look at it. Profiles lie in the manifests. Our choice.
"""

from datetime import timedelta
from typing import Any, Final

import dagster as dg

from sigma_assets.periods import as_date, day_key
from sigma_assets.world import World
from sigma_core.contracts import contract_names, load_contract
from sigma_core.data.drift import Moved, Profile, more_without_time, moved, profile

CHECK_DRIFT: Final = "drift"
PROFILE: Final = "profile"  # key of the manifest


def profile_of(asset: str, value: Any) -> Profile | None:
    """What the manifest of the value keeps for later days; None where the contract asks for no drift check."""
    if asset not in contract_names() or load_contract(asset).drift is None:
        return None
    return profile(value.frame, value.quarantine)


def drift_results(world: World, asset: str, partition: str, value: Any) -> list[dg.AssetCheckResult]:
    """The outcome of the check on a value about to be written; none where the contract asks for none."""
    now = profile_of(asset, value)
    limits = load_contract(asset).drift if now is not None else None
    if now is None or limits is None:
        return []
    day = as_date(partition)
    keys = [day_key(day - timedelta(days=back)) for back in range(1, limits.days + 1)]
    manifests = [world.manifest(asset, key) for key in keys]
    before = [manifest[PROFILE] for manifest in manifests if manifest and manifest.get(PROFILE)]
    found = moved(now, before, limits)
    if former := world.manifest(asset, partition):
        found += more_without_time(_refused(value.summary()), _refused(former.get("summary", {})))
    off = [one for one in found if one.level != "ok"]
    is_error = any(one.level == "ERROR" for one in off)
    return [
        dg.AssetCheckResult(
            asset_key=asset,
            check_name=CHECK_DRIFT,
            passed=not off,
            severity=dg.AssetCheckSeverity.ERROR if is_error else dg.AssetCheckSeverity.WARN,
            description=_said(found, off, len(before), limits.min_days),
            metadata={
                "compared_days": len(before),
                "figures": dg.MetadataValue.md(_table(found)),
                "failed": dg.MetadataValue.json([_outcome(one) for one in off]),
                **({"to_do": _to_do(asset, partition)} if off else {}),
            },
        )
    ]


def _refused(summary: dict[str, Any]) -> dict[str, int]:
    return summary.get("quarantined_by_reason") or {}


def _said(found: list[Moved], off: list[Moved], days: int, min_days: int) -> str:
    if days < min_days and not off:
        return f"{days} days before it are there, {min_days} are needed to compare"
    return "; ".join(one.said() for one in off[:3]) or f"{len(found)} figures as on the {days} days before"


def _to_do(asset: str, partition: str) -> str:
    return (
        f"Nothing stopped, {partition} counts. Look at what moved: where the day is right, correct the limits in "
        f"data_contracts/{asset}.yaml; where it is not, correct the source, then `sigma materialize --as-of {partition}`."
    )


def _outcome(one: Moved) -> dict[str, Any]:
    return {"id": one.figure, "details": {"examples": [{"now": one.now, "usual": one.usual}]}}


def _table(found: list[Moved]) -> str:
    rows = ["| figure | now | usual | off by | |", "|---|---:|---:|---:|---|"]
    rows += [
        f"| {one.figure} | {one.now:,.4g} | {one.usual:,.4g} | {one.distance:,.2f} | {one.level} |"
        for one in found
    ]
    return "\n".join(rows)
