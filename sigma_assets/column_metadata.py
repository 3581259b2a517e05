"""What Dagster's UI shows of columns: their types and meanings from the contract, and where they come from.

A column comes from the columns of the same name in the tables that the asset reads; columns are named once in this project
(`sigma_core.columns`), so a name is a meaning. Our choice.
"""

from functools import cache
from typing import Any

import dagster as dg

from sigma_assets.stages import STAGES
from sigma_core.contracts import Contract, contract_names, load_contract


def column_schema(contract: Contract) -> dict[str, Any]:
    """Definition metadata: the columns of the asset's main table, as published."""
    table = contract.tables.get(contract.name)
    if table is None:
        return {}
    columns = [
        dg.TableColumn(
            column.name,
            type=column.type,
            description=column.description,
            constraints=dg.TableColumnConstraints(nullable=True, unique=table.key == (column.name,)),
        )
        for column in table.columns
        if not column.computed
    ]
    return {"dagster/column_schema": dg.TableSchema(columns=columns)} if columns else {}


@cache
def column_lineage(asset: str) -> dict[str, Any]:
    """Materialization metadata: the columns of the asset's inputs that its own ones come from."""
    mine, deps = _published(asset), dict[str, list[dg.TableColumnDep]]()
    for source in dict.fromkeys(read.asset for read in STAGES[asset].reads.values()):
        for name in sorted(mine & _published(source)):
            deps.setdefault(name, []).append(dg.TableColumnDep(dg.AssetKey(source), name))
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)} if deps else {}


def _published(asset: str) -> set[str]:
    contract = load_contract(asset) if asset in contract_names() else None
    table = contract.tables.get(asset) if contract else None
    return {column.name for column in table.columns if not column.computed} if table else set()
