"""Fuzzed from its own OpenAPI document, with requests that keep to it and requests that do not: no 5xx, and errors in the
one form they have. SIGMA_FUZZ_EXAMPLES=1000 makes a soak of it.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from sigma_core.serving.http.app import create_app
from sigma_core.serving.http.security import KeyRing
from tests.serving.live_world import holder
from tests.serving.running import running
from tests.serving.test_http import EASY

EXAMPLES = int(os.environ.get("SIGMA_FUZZ_EXAMPLES", "10"))  # of each kind, an operation


def operations() -> list[Any]:
    document = create_app(holder(), EASY, KeyRing()).openapi()
    return [found.ok() for found in schemathesis.openapi.from_dict(document).get_all_operations()]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with running(create_app(holder(), EASY, KeyRing())) as where:
        yield where


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["good", "bad"])
@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.label)
def test_no_request_breaks_it(address: str, operation: Any, mode: GenerationMode) -> None:
    if mode is GenerationMode.NEGATIVE and not (
        operation.body or operation.query or operation.path_parameters
    ):
        pytest.skip("takes nothing that could be wrong")

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(case=operation.as_strategy(generation_mode=mode))
    def fuzz(case: Any) -> None:
        response = case.call(base_url=address)
        assert response.status_code < 500, response.text
        assert "Traceback" not in response.text
        if response.status_code >= 400 and case.method != "HEAD":
            assert set(response.json()) == {"code", "message", "request_id"}

    fuzz()
