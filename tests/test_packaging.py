"""What an installation carries: the bundled files, pins that satisfy the dependencies, and (slow) the wheel itself."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from sigma_core.contracts import ContractError, bundled_path, contract_names

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUNDLED = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]


def pins() -> dict[str, str]:
    lines = [
        line
        for line in (ROOT / "requirements.lock").read_text().splitlines()
        if "==" in line and line[0] != "#"
    ]
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def requirements() -> list[Requirement]:
    project = PROJECT["project"]
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    return [Requirement(text) for text in (*project["dependencies"], *extras)]


@pytest.mark.parametrize("requirement", requirements(), ids=str)
def test_every_dependency_is_pinned_to_a_version_that_satisfies_it(requirement: Requirement) -> None:
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_torch_is_pinned_without_a_build_label() -> None:
    assert "+" not in pins()["torch"]


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_what_the_wheel_bundles_exists_and_is_found_in_a_checkout(name: str) -> None:
    assert bundled_path(name) == ROOT / name
    assert BUNDLED[name] == f"sigma_core/_bundled/{name}"


def test_a_bundled_file_that_is_nowhere_is_a_clear_error() -> None:
    with pytest.raises(ContractError, match=r"nothing\.yaml is in neither"):
        bundled_path("nothing.yaml")


@pytest.mark.slow  # builds in an isolated environment, which fetches hatchling
def test_the_wheel_carries_contracts_templates_and_the_instance_settings(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"sigma_core/_bundled/data_contracts/{name}.yaml" for name in contract_names()} <= names
    assert {"sigma_core/_bundled/dagster.yaml", "sigma_core/_bundled/workspace.yaml"} <= names
    data = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "sigma_core").rglob("*")
        if path.suffix in {".yaml", ".jinja", ".html", ".css", ".js", ".svg"}
    }
    assert data <= names
    assert not [name for name in names if name.startswith("tests/")]

    unpacked = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(unpacked)
    code = "from sigma_core.contracts import bundled_path, contract_names; print(bundled_path('dagster.yaml'), len(contract_names()))"
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=unpacked, capture_output=True, text=True, check=True
    ).stdout
    assert out.split() == [str(unpacked / "sigma_core/_bundled/dagster.yaml"), str(len(contract_names()))]
