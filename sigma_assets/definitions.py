"""The code location: every stage as a Dagster asset, with jobs, automation and resources of one root.

`build_definitions` is all there is; the module-level `defs` (for `dagster dev`) calls it for the root that SIGMA_ROOT
names. Loading reads `root.json` and the contracts, opens no data and imports no model library.
"""

import inspect
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import dagster as dg

from sigma_assets.alert_sensors import alert_sensors
from sigma_assets.assets import (
    evaluation,
    grounding,
    instruction,
    promotion,
    serving,
    sources,
    tokenization,
    training,
)
from sigma_assets.automation import condition_of, sensor
from sigma_assets.binding import ROOT_FILE
from sigma_assets.catalog_inbox import catalog_sensor, take_back_sensor
from sigma_assets.checks.contract import check_specs
from sigma_assets.checks.gate import gate_specs
from sigma_assets.column_metadata import column_schema
from sigma_assets.freshness import freshness_sensor, is_live, policy_of
from sigma_assets.growing import follow_sensor
from sigma_assets.io_manager import WINDOW_KEY, SigmaIOManager
from sigma_assets.jobs import all_jobs, refit_sensor, schedules
from sigma_assets.locking import share_of_ui
from sigma_assets.nearline_job import nearline_job, nearline_sensor
from sigma_assets.partitions import DEFAULT_SPAN, Calendar, calendar_of
from sigma_assets.refit_gate import or_republish
from sigma_assets.refits import REPUBLISHED
from sigma_assets.resources import SigmaResource
from sigma_assets.stages import STAGES, Stage
from sigma_assets.world import World
from sigma_core.contracts import contract_names, load_contract

ROOT_VARIABLE: Final = "SIGMA_ROOT"
DEFAULT_ROOT: Final = "var"
OWNER: Final = "team:sigma"

MODULES: Final = {
    "sources": sources,
    "grounding": grounding,
    "tokenization": tokenization,
    "instruction": instruction,
    "training": training,
    "promotion": promotion,
    "serving": serving,
    "evaluation": evaluation,
}
"""Group -> the module that holds the bodies of its assets, in the order of the walk."""


def build_definitions(
    *,
    root: Path | None = None,
    eval_horizon: int | None = None,
    resources: dict[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = None,
) -> dg.Definitions:
    """The definitions of a root; without one, those of the embedded source's dates.

    Args:
        root: folder with a `root.json`, else SIGMA_ROOT, else `var`.
        eval_horizon: days after a day that its `eval_report` reads; None: the configured horizon.
        resources: replace the ones of the same name (tests).
        executor: of every job; one process by default, because a process per step costs seconds.
    """
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)
    root = root or Path(os.environ.get(ROOT_VARIABLE, DEFAULT_ROOT))
    world = World.open(root, eval_horizon) if (root / ROOT_FILE).exists() else None
    span = world.span if world else DEFAULT_SPAN
    live = world is not None and is_live(world)
    calendar = calendar_of(span, grows=live)
    versions = world.code_versions if world else {}
    stride = span.shard_stride
    given = {
        "io_manager": SigmaIOManager(root=str(root), eval_horizon=eval_horizon),
        "sigma": SigmaResource(root=str(root), eval_horizon=eval_horizon),
        **(resources or {}),
    }
    return dg.Definitions(
        assets=[
            as_asset(
                stage,
                calendar,
                versions.get(name, stage.version),
                condition_of(stage, root, eval_horizon),
                stride if name == "sft_shards" else 1,
            )
            for name, stage in STAGES.items()
        ],
        jobs=[*all_jobs(), nearline_job(root)],
        schedules=schedules(root, span.end),
        sensors=[
            sensor(),
            follow_sensor(root, span.end),
            catalog_sensor(root),
            take_back_sensor(root),
            refit_sensor(root),
            nearline_sensor(root),
            *alert_sensors(root),
            freshness_sensor(root, live=live),
        ],
        resources=given,
        executor=executor or dg.in_process_executor,
    )


def as_asset(
    stage: Stage,
    calendar: Calendar,
    code_version: str,
    condition: dg.AutomationCondition | None = None,
    stride: int = 1,
) -> dg.AssetsDefinition:
    """The Dagster asset of a stage: its body from `assets/`, everything else from the table of stages.

    `condition`: when it is made by itself. `stride`: days between two of its partitions, where it is not made every day.
    """
    body: Callable[..., Any] = getattr(MODULES[stage.group], stage.name)
    if stage.name in REPUBLISHED:
        body = or_republish(stage.name, body)
    partitions = calendar.partitions_of(stage)
    ins = {
        name: dg.AssetIn(
            key=read.asset,
            partition_mapping=calendar.mappings[read.window],
            metadata={WINDOW_KEY: read.window},
        )
        for name, read in stage.reads.items()
    }
    contract = load_contract(stage.name) if stage.name in contract_names() else None
    return dg.asset(
        name=stage.name,
        ins=ins,
        partitions_def=partitions,
        group_name=stage.group,
        description=inspect.getdoc(body),
        metadata=column_schema(contract) if contract else None,
        owners=[contract.owner if contract else OWNER],
        kinds=set(stage.kinds),
        code_version=code_version,
        pool=stage.pool,
        check_specs=[*check_specs(contract, partitions), *gate_specs(stage.name, partitions)]
        if contract
        else None,
        freshness_policy=policy_of(stage, contract, stride) if contract and not stage.on_demand else None,
        automation_condition=condition,
    )(body)


@dg.definitions
def defs() -> dg.Definitions:
    """What `dagster dev -m sigma_assets.definitions` loads: the root that SIGMA_ROOT names."""
    root = Path(os.environ.get(ROOT_VARIABLE, DEFAULT_ROOT))
    share_of_ui(root)  # code servers and runs load this, and nobody waits for them to end
    return build_definitions(root=root)
