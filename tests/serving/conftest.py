"""One server for the tests of a module that change nothing in it."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from sigma_core.serving.http.app import create_app
from sigma_core.serving.http.security import KeyRing
from tests.serving.live_world import holder
from tests.serving.test_http import EASY, LOCAL


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    with TestClient(create_app(holder(), EASY, KeyRing()), base_url=LOCAL) as made:
        yield made
