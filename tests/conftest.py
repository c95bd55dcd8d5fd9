"""Fixtures for every test: a real PostgreSQL and Tidegate servers, made once for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from tidegate_server.app import Server
from tidegate_server.store.local_postgres import LocalPostgres, PostgresMissingError

from tests.server.harness import Caller, Serving

# How long an example takes says more of the machine than of the code. CI tries the same examples every time: what it
# refuses must be of the change, not of the draw.
settings.register_profile(
    "tidegate",
    deadline=None,
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("tidegate")


@pytest.fixture(scope="session", autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keeps what servers store by default out of the home of whoever runs the tests."""
    folder = tmp_path_factory.mktemp("state")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[LocalPostgres]:
    """A PostgreSQL server that dies with the run. Missing, it is a failure under CI and a skip elsewhere."""
    try:
        server = LocalPostgres()
    except PostgresMissingError as error:
        if os.environ.get("CI"):
            pytest.fail(f"CI runs the tests on PostgreSQL too: {error}")
        pytest.skip(f"no PostgreSQL: {error}")
    with server:
        yield server


@pytest.fixture(scope="session")
def serving() -> Iterator[Serving]:
    """What servers need: a loop in a thread, and analysis workers."""
    made = Serving()
    yield made
    made.close()


@pytest.fixture(scope="session")
def server(serving: Serving) -> Iterator[Server]:
    """A server with the default settings."""
    with serving.server() as made:
        yield made


@pytest.fixture
def caller(server: Server) -> Iterator[Caller]:
    """A plain gRPC client of that server."""
    with Caller(server.target) as made:
        yield made
