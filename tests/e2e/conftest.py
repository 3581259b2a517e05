from pathlib import Path

import pytest

from tests.e2e.slice import materialize_arguments, sigma, write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, data: Path) -> tuple[Path, str]:
    """The root, and what materializing it printed. Tests must not change it; they may copy it."""
    root = tmp_path_factory.mktemp("tiny") / "root"
    return root, sigma(*materialize_arguments(root, data)).stdout
