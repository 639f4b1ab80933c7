"""One gateway for each test module that asks for it: starting is cheap, keys are kept apart by tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.gateway.serving import ServingGateway


@pytest.fixture(scope="module")
def shared_gateway() -> Iterator[ServingGateway]:
    """For tests that leave the member as it is."""
    with ServingGateway() as serving:
        yield serving


@pytest.fixture
def gateway() -> Iterator[ServingGateway]:
    """For tests that break something."""
    with ServingGateway() as serving:
        yield serving
