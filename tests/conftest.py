"""Fixtures for every test: a real PostgreSQL, one server for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from tidegate_server.store.local_postgres import LocalPostgres, PostgresMissingError


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
