"""Rules of the house that a reader relies on and no type checker knows: directions, lightness, formats, charters, contracts."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from sigma_assets.checks.contract import type_name
from sigma_core import columns
from sigma_core.artifacts import TableArtifact
from sigma_core.contracts import contract_names, load_contract
from tests.checks.valid_artifacts import VALID

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("sigma_core", "sigma_assets")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MAX_LINES = 400


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imports_of(tree: ast.AST) -> Iterator[str]:
    """Top-level packages that any statement of the module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(ROOT / "sigma_core")], ids=name_of)
def test_the_core_knows_no_orchestrator_tracker_or_validator(path: Path) -> None:
    banned = {"dagster", "wandb", "great_expectations", "sigma_assets"}
    assert not banned & set(imports_of(ast.parse(path.read_text())))


def test_one_module_alone_imports_great_expectations() -> None:
    users = [name_of(p) for p in MODULES if "great_expectations" in set(imports_of(ast.parse(p.read_text())))]
    assert users == ["sigma_assets/checks/gx_suite.py"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_nothing_is_pickled(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert not {"pickle", "cloudpickle", "joblib", "dill", "shelve", "marshal"} & set(imports_of(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) not in {("torch", "load"), ("torch", "save")}, (
                f"line {node.lineno}"
            )
        if isinstance(node, ast.keyword):
            assert node.arg != "allow_pickle", f"line {node.value.lineno}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_has_a_charter_and_fits_on_a_few_screens(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)), "no docstring"
    assert text.count("\n") <= MAX_LINES


LIGHT = {
    "sigma_assets.cli": {"dagster", "peft", "great_expectations", "torch", "transformers", "faiss", "implicit", "wandb", "matplotlib"},
    "sigma_assets.doctor": {"dagster", "peft", "great_expectations", "torch", "transformers", "faiss"},
    "sigma_assets.checks.contract": {"dagster", "great_expectations"},
    "sigma_core.serving.http.server": {"fastapi", "uvicorn", "torch", "transformers"},
    "sigma_core.contracts": {"polars", "torch"},
}  # fmt: skip


@pytest.mark.parametrize("module", sorted(LIGHT))
def test_importing_is_light(module: str) -> None:
    code = f"import sys, {module}; print(sorted({LIGHT[module]!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


# ------------------------------------------------------------------------------------------ contracts
def stages() -> dict[str, Any]:
    from sigma_assets.stages import STAGES

    return dict(STAGES)


def test_every_contract_has_its_asset_and_every_asset_its_contract() -> None:
    assert set(stages()) == set(contract_names())


@pytest.mark.parametrize("name", sorted(VALID))
def test_a_contract_publishes_the_columns_that_the_code_writes(name: str) -> None:
    cls = stages()[name].artifact_type()
    if not (isinstance(cls, type) and issubclass(cls, TableArtifact)):
        pytest.skip("not one table")
    declared = {x.name: x.type for x in load_contract(name).tables[name].columns if not x.computed}
    written = {
        key: type_name(kind if isinstance(kind, pl.DataType) else kind()) for key, kind in cls.schema.items()
    }
    assert declared == written


def test_contracts_name_only_columns_of_columns_py() -> None:
    known = {value for value in vars(columns).values() if isinstance(value, str)} | {"text_hash"}
    for name in contract_names():
        for table in load_contract(name).tables.values():
            published = {column.name for column in table.columns if not column.computed}
            assert published <= known, f"{name}: {sorted(published - known)}"


def test_shard_contracts_declare_the_columns_and_types_that_are_published() -> None:
    from sigma_core.instruction.contexts import CONTEXT_SCHEMA
    from sigma_core.instruction.examples import EXAMPLE_SCHEMA

    tables = load_contract("sft_shards").tables
    for table, schema in (("contexts", CONTEXT_SCHEMA), ("examples", EXAMPLE_SCHEMA)):
        declared = {column.name: column.type for column in tables[table].columns if not column.computed}
        assert declared == {
            name: type_name(kind if isinstance(kind, pl.DataType) else kind())
            for name, kind in schema.items()
        }
