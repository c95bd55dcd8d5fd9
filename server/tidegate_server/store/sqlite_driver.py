"""SQLite connections that cost one change of threads per statement.

aiosqlite runs every connection in a thread of its own, and goes there and back to make a cursor, to execute,
to fetch and to close it. Each trip wakes two threads, which takes longer than most statements of this store;
here all four are done in one trip. Results are read whole, as SQLAlchemy does with this driver anyway.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

import aiosqlite

Row = tuple[Any, ...]
_CHUNK = 64
_WAL_PAUSE_SECONDS = 0.02


class _Cursor:
    """The part of a cursor that SQLAlchemy's adapter for aiosqlite uses."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows: list[Row] = []
        self.description: Any = None
        self.rowcount = -1
        self.lastrowid: int | None = None
        self.arraysize = 1

    async def __aenter__(self) -> Self:
        return self

    def _do(self, execute: Callable[[sqlite3.Cursor], object]) -> None:
        """In the connection's thread: everything from making the cursor to closing it."""
        cursor = self._connection._conn.cursor()  # noqa: SLF001 - its only way to the connection itself
        try:
            execute(cursor)
            self.description, self.rowcount = cursor.description, cursor.rowcount
            self.lastrowid = cursor.lastrowid
            self._rows = cursor.fetchall() if cursor.description else []
        finally:
            cursor.close()

    async def execute(self, sql: str, parameters: Sequence[Any] = ()) -> _Cursor:
        await self._connection.run(self._do, lambda cursor: cursor.execute(sql, parameters))
        return self

    async def executemany(self, sql: str, parameters: Sequence[Sequence[Any]]) -> _Cursor:
        await self._connection.run(self._do, lambda cursor: cursor.executemany(sql, parameters))
        return self

    async def fetchall(self) -> list[Row]:
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        self._rows = []


class Connection(aiosqlite.Connection):
    """A connection whose cursors do everything in one trip to its thread."""

    _stopped: asyncio.Future[None] | None = None

    def stop(self) -> asyncio.Future[None] | None:
        """Tell the thread to end, and remember when it did."""
        self._stopped = super().stop()
        return self._stopped

    async def _connect(self) -> Self:
        """Open the file; if that fails, the thread is gone before its user hears of it."""
        try:
            await super()._connect()
        except Exception:
            if self._stopped is not None:
                await self._stopped
            raise
        return self

    async def run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run a function in this connection's thread."""
        await self._execute(function, *arguments)  # type: ignore[no-untyped-call]

    def cursor(self) -> Any:
        """Return a cursor; nothing is done in the thread before it executes something."""
        return _Cursor(self)


def connector(file: Path, busy_seconds: float) -> Callable[[], Connection]:
    """Return what makes connections to a file; to be awaited, as those of ``aiosqlite.connect``.

    Each is in WAL mode, checks foreign keys, and leaves it to its user to begin transactions.

    Parameters
    ----------
    file:
        The database.
    busy_seconds:
        How long a statement waits for another connection's lock.
    """

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(file, timeout=busy_seconds, isolation_level=None)
        try:
            _enter_wal(connection, busy_seconds)
            # FULL, not NORMAL: what was acknowledged must outlive a power cut, not only a killed process.
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def make() -> Connection:
        made = Connection(connect, _CHUNK)
        # A thread that waits for work must not keep a process from ending.
        made._thread.daemon = True  # noqa: SLF001 - as SQLAlchemy sets it for connections that it makes
        return made

    return make


def _enter_wal(connection: sqlite3.Connection, busy_seconds: float) -> None:
    """Switch a file to WAL, waiting for others that are at it; in the connection's own thread.

    The switch turns a read lock into the exclusive one. SQLite answers BUSY to such an upgrade at once, whatever
    its timeout is, when another connection is in the middle of the same or of its first write.
    """
    deadline = monotonic() + busy_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                raise
            sleep(_WAL_PAUSE_SECONDS)
        else:
            return
