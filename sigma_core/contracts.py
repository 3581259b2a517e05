"""Read data contracts: what a published table must be, as data.

Holds the plain YAML -> `Contract` loader and `bundled_path`, which finds the repository's root files in a checkout and in
an installed wheel. It checks a contract's own form (every name declared, every table with a row count); it never looks at
a frame: `sigma_assets/checks/contract.py` does. Our choice; the paper is silent.
"""

from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sigma_core.yaml_files import parse_yaml

CONTRACTS = "data_contracts"
ROW_COUNT = "expect_table_row_count_to_be_between"
COLUMN_KEYS = ("column", "column_A", "column_B")  # keyword arguments of GX that name one column


class ContractError(ValueError):
    """A contract file is missing, misspelt, or says something that cannot be checked."""


class Part(BaseModel):
    """Base of a contract's parts: immutable, and a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Freshness(Part):
    """How old the table may be, in words and in hours after the end of its partition."""

    text: str
    hours: float = Field(gt=0)


class Column(Part):
    """One column. `computed`: not published, a figure computed from the artifact for the check alone."""

    name: str
    type: str = Field(description="polars type: String, Int64, Date, Datetime(us), List(String), ...")
    description: str
    computed: bool = False


class ExpectationMeta(Part):
    """`id` names the expectation in reports (GX reorders results); `why` says it in words."""

    id: str
    why: str = ""


class Expectation(Part):
    """One expectation under its own GX name. A failed `critical` one keeps the partition from being written."""

    type: str
    kwargs: dict[str, Any]
    severity: Literal["critical", "warning", "info"]
    meta: ExpectationMeta

    def columns(self) -> tuple[str, ...]:
        """Columns that this expectation reads."""
        single = tuple(str(self.kwargs[key]) for key in COLUMN_KEYS if key in self.kwargs)
        return single + tuple(str(name) for name in self.kwargs.get("column_list", ()))


class Table(Part):
    """One table of an artifact: columns, the key that names a row, expectations."""

    description: str
    key: tuple[str, ...] = Field(description="columns that name a row, shown with every failing example")
    columns: tuple[Column, ...] = Field(min_length=1)
    expectations: tuple[Expectation, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _is_checkable(self) -> Self:
        declared = [column.name for column in self.columns]
        if twice := sorted({name for name in declared if declared.count(name) > 1}):
            raise ValueError(f"columns declared twice: {twice}")
        ids = [e.meta.id for e in self.expectations]
        if twice := sorted({i for i in ids if ids.count(i) > 1}):
            raise ValueError(f"expectation ids used twice: {twice}")
        used = {name for e in self.expectations for name in e.columns()} | set(self.key)
        if unknown := sorted(used - set(declared)):
            raise ValueError(f"expectations or key name undeclared columns: {unknown}")
        if not any(e.type == ROW_COUNT for e in self.expectations):
            raise ValueError(f"no {ROW_COUNT}: an empty table passes every other expectation")
        return self

    def columns_read(self) -> tuple[str, ...]:
        """Columns that the check needs: the key and those of the expectations, in declared order."""
        used = {name for e in self.expectations for name in e.columns()} | set(self.key)
        return tuple(column.name for column in self.columns if column.name in used)


class DriftLimits(Part):
    """How far a day may lie from the days before it: (warning, error) for each kind of figure. Never blocks a partition."""

    days: int = Field(default=28, ge=1, description="trailing days to compare with")
    min_days: int = Field(default=7, ge=1, description="fewer of them on disk: no comparison")
    rows_ratio: tuple[float, float] = Field(description="larger over smaller number of rows")
    null_share: tuple[float, float] = Field(description="change of a column's share of nulls")
    price_ratio: tuple[float, float] = Field(description="larger over smaller quantile of the price")
    refused_share: tuple[float, float] = Field(
        description="change of the share of unknown items, of duplicates"
    )
    mix_psi: tuple[float, float] = Field(description="population stability index of the categories")


class Contract(Part):
    """What one asset promises to its readers."""

    name: str
    owner: str = Field(pattern=r"^team:\w+$", description="as Dagster writes owners")
    description: str
    freshness: Freshness
    tables: dict[str, Table] = Field(min_length=1)
    drift: DriftLimits | None = None

    def severities(self) -> frozenset[str]:
        """Severities that occur, so that a caller knows which checks to announce."""
        return frozenset(e.severity for table in self.tables.values() for e in table.expectations)


def bundled_path(name: str) -> Path:
    """Where `name` (`data_contracts`, `dagster.yaml`, `workspace.yaml`) is: the checkout's root, else inside the wheel.

    Raises:
        ContractError: it is in neither place (a broken installation).
    """
    package = Path(__file__).resolve().parent
    places = (package.parent / name, package / "_bundled" / name)
    for place in places:
        if place.exists():
            return place
    raise ContractError(f"{name} is in neither {places[0]} nor {places[1]}; reinstall sigma-recommender.")


def contract_names() -> tuple[str, ...]:
    """Assets that have a contract, sorted."""
    return tuple(sorted(path.stem for path in bundled_path(CONTRACTS).glob("*.yaml")))


@cache
def load_contract(name: str) -> Contract:
    """The contract of asset `name`.

    Raises:
        ContractError: no such file, or its content is not a contract (the message names the place in the file).
    """
    path = bundled_path(CONTRACTS) / f"{name}.yaml"
    if not path.exists():
        raise ContractError(f"asset {name!r} has no contract; there are {', '.join(contract_names())}.")
    return read_contract(path)


def read_contract(path: Path) -> Contract:
    """The contract in a file; its `name` must be the file's.

    Raises:
        ContractError: not YAML, not a contract, or named otherwise than its file.
    """
    try:
        values = parse_yaml(path.read_text())
    except yaml.YAMLError as error:
        raise ContractError(f"{path} is not valid YAML: {error}") from error
    try:
        contract = Contract.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "file"
        raise ContractError(f"{path}, {where}: {first['msg']}.") from error
    if contract.name != path.stem:
        raise ContractError(
            f"{path} holds the contract of {contract.name!r}; a contract's file bears its name."
        )
    return contract


def load_contracts() -> dict[str, Contract]:
    """Every contract by asset name."""
    return {name: load_contract(name) for name in contract_names()}
