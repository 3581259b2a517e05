"""The gates' checks: what they announce. Results come from `sigma_assets/promotion.py` and `sigma_assets/refit_gate.py`.

Never blocking: when a day's own adapter is kept out, the former one serves, and somebody should look; a refused refit is not
written at all. Our choice.
"""

from typing import Any, Final

import dagster as dg

from sigma_assets.promotion_orders import PROMOTED

GATE: Final = "quality_gate"
REFIT_GATE: Final = "refit_gate"
_SAID: Final = {
    PROMOTED: (
        GATE,
        "the day's own adapter serves: fit, within the guardrails, not worse than the promoted one",
    ),
    "sigma_base": (
        REFIT_GATE,
        "the month's own refit is published: on the days it left out it is not worse than what served",
    ),
}


def gate_specs(asset: str, partitions: Any) -> list[dg.AssetCheckSpec]:
    """The gate's check, for the two assets that have one."""
    if asset not in _SAID:
        return []
    name, said = _SAID[asset]
    return [dg.AssetCheckSpec(name, asset=asset, description=said, partitions_def=partitions)]
