"""The `quality_gate` check of `promoted_model`: what it announces. Its results come from `sigma_assets/promotion.py`.

Never blocking: when a day's own adapter is kept out, the former one serves, and somebody should look. Our choice.
"""

from typing import Any, Final

import dagster as dg

from sigma_assets.promotion_orders import PROMOTED

GATE: Final = "quality_gate"


def gate_specs(asset: str, partitions: Any) -> list[dg.AssetCheckSpec]:
    """The check, for the one asset that has it."""
    if asset != PROMOTED:
        return []
    said = "the day's own adapter serves: fit, within the guardrails, not worse than the promoted one"
    return [dg.AssetCheckSpec(GATE, asset=asset, description=said, partitions_def=partitions)]
