"""A store and the event loop that its connections belong to."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import sqlalchemy as sa
from tidegate_server.store import Store, schema

T = TypeVar("T")


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
