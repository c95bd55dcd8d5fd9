"""One client of the run's server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tidegate_server.app import Server

from tests.api_gates.gate_calls import Calls


@pytest.fixture(scope="session")
def calls(server: Server) -> Iterator[Calls]:
    """Every service of the run's server."""
    made = Calls(server.target)
    yield made
    made.close()
