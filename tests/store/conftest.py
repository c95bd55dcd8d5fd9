"""The store under test: the same suite on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from store_runner import Runner
from tidegate_server.store import Store


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated, empty store for one test module."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path_factory.mktemp('store')}/tidegate.db"
    else:
        url = request.getfixturevalue("postgres_server").create_database(f"t{uuid.uuid4().hex}")

    async def make() -> None:
        store = Store(url)
        await store.migrate()
        await store.close()

    asyncio.run(make())
    return url


@pytest.fixture
def run(store_url: str) -> Iterator[Runner]:
    """An empty store, as `run.store`; `run(coroutine)` runs something on it."""
    runner = Runner(store_url)
    runner.empty()
    yield runner
    runner.close()


@pytest.fixture
def open_store(store_url: str) -> Iterator[Callable[..., Runner]]:
    """Opens the same store again, with other options: another replica."""
    opened: list[Runner] = []

    def make(**options: object) -> Runner:
        opened.append(Runner(store_url, **options))
        return opened[-1]

    yield make
    for runner in opened:
        runner.close()


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "tidegate.db"
