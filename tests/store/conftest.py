"""The store under test: the same suite on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
import sqlalchemy as sa
from tidegate_server.store import Store, schema

T = TypeVar("T")


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


class Runner:
    """Runs async tests in one event loop, which the store's connections belong to."""

    def __init__(self, url: str, **options: Any) -> None:
        self.loop = asyncio.Runner()
        self.store: Store = self.loop.run(self._open(url, options))

    async def _open(self, url: str, options: dict[str, Any]) -> Store:
        return Store(url, **options)

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run(work)

    def close(self) -> None:
        self.loop.run(self.store.close())
        self.loop.close()

    def empty(self) -> None:
        """Removes every row but those of the audit log."""

        async def clear() -> None:
            async with self.store.database.write() as connection:
                for table in reversed(schema.metadata.sorted_tables):
                    if table is not schema.audit_log:
                        await connection.execute(sa.delete(table))

        self(clear())


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

    def make(**options: Any) -> Runner:
        opened.append(Runner(store_url, **options))
        return opened[-1]

    yield make
    for runner in opened:
        runner.close()


@pytest.fixture
def sqlite_file(tmp_path: Path) -> Path:
    return tmp_path / "tidegate.db"
