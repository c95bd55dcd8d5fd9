"""Connections, transactions and time, the same for SQLite and PostgreSQL.

Time in the store is a whole number of microseconds since 1970, UTC. `Database.now` is the only clock that
leases and due times are measured with: the server's clock on PostgreSQL, so that replicas agree whatever
their own clocks say, and the host's clock on SQLite, whose users all share that host.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from tidegate_server.errors import RequestError
from tidegate_server.gates.errors import InvalidError, LimitError, UnavailableError, Violation
from tidegate_server.store.sqlite_driver import connector
from tidegate_server.store.together import WriteQueue

T = TypeVar("T")

_BUSY_SECONDS = 5.0
_CONNECT_SECONDS = 5.0
_COMMAND_SECONDS = 15.0
_WRITE = "tidegate_write"

_SQLITE_DAMAGED = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_SQLITE_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
    }
)
# Classes of PostgreSQL states that pass by themselves: connections, resources, operator intervention, system
# errors, and transactions that lost to another one.
_POSTGRES_UNAVAILABLE = ("08", "53", "57", "58", "40", "25P03", "55P03")
_POSTGRES_FULL = frozenset({"53100"})
_POSTGRES_TEXT = frozenset({"22021", "22P05"})


def host_clock() -> int:
    """The host's wall clock in microseconds since 1970."""
    return time.time_ns() // 1000


def parse_url(text: str) -> URL:
    """Turns what a user writes into a SQLAlchemy URL with an async driver.

    Takes `postgresql://...` (or `postgres://`), `sqlite:///file` and a plain file name.

    Raises:
        ValueError: for another kind of store, a URL that cannot be read, or a driver that is not installed.
    """
    if "://" not in text:
        if not text:
            raise ValueError("store_url: empty; give a file name, sqlite:///file or postgresql://user@host/database")
        return URL.create("sqlite+aiosqlite", database=text)
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ValueError("store_url: not a URL; give sqlite:///file or postgresql://user@host/database") from error
    match url.drivername:
        case "sqlite" | "sqlite+aiosqlite":
            if not url.database or url.database == ":memory:":
                raise ValueError("store_url: a SQLite store needs a file: sqlite:///tidegate.db")
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql" | "postgres" | "postgresql+asyncpg":
            if importlib.util.find_spec("asyncpg") is None:
                raise ValueError("store_url: PostgreSQL needs asyncpg: pip install 'tidegate[postgres]'")
            return url.set(drivername="postgresql+asyncpg")
        case other:
            raise ValueError(f"store_url: {other} is not supported; give sqlite:///file or postgresql://...")


def _full() -> LimitError:
    return LimitError("STORE_FULL", "the store's disk is full; nothing was written, try again once there is room")


def _away(what: str) -> UnavailableError:
    return UnavailableError("STORE_UNAVAILABLE", f"the store is not available: {what}")


def translate(error: BaseException) -> RequestError | None:
    """The refusal that stands for `error`, or None if `error` is a defect and must be seen as one."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, DBAPIError):
        return _translate_driver(error)
    if isinstance(error, sqlite3.Error):
        return _translate_sqlite(error)
    if isinstance(error, OSError | TimeoutError | sa.exc.TimeoutError):
        return _away("it cannot be reached or did not answer in time")
    return None


def _translate_driver(error: DBAPIError) -> RequestError | None:
    cause: BaseException | None = error.orig
    state = getattr(cause, "sqlstate", None)
    if isinstance(state, str):
        if state in _POSTGRES_FULL:
            return _full()
        if state in _POSTGRES_TEXT:
            return InvalidError([Violation("", "a text holds a NUL or is not UTF-8; send plain UTF-8 text")])
        if state.startswith(_POSTGRES_UNAVAILABLE):
            return _away(f"PostgreSQL answered with state {state}")
    while cause is not None:
        if isinstance(cause, sqlite3.Error):
            return _translate_sqlite(cause)
        if isinstance(cause, OSError | TimeoutError):
            return _away("the connection was lost or it did not answer in time")
        cause = cause.__cause__
    if error.connection_invalidated or isinstance(error, sa.exc.InterfaceError):
        return _away("the connection was lost")
    return None


def _translate_sqlite(error: sqlite3.Error) -> RequestError | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return _full()
    if code in _SQLITE_DAMAGED:
        return _away("its file is damaged, or is no SQLite database; restore it, or name another file")
    if code in _SQLITE_UNAVAILABLE:
        return _away(f"its file cannot be used ({error})")
    return None


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns what drivers raise into the errors of the domain."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error, OSError, TimeoutError) as error:
        better = translate(error)
        if better is None:
            raise
        raise better from error


async def _translating(work: Callable[[AsyncConnection], Awaitable[T]], connection: AsyncConnection) -> T:
    with translated():
        return await work(connection)


class Database:
    """One store: a pool of connections and the rules of its transactions.

    Args:
        url: what `parse_url` takes.
        clock: the host's clock, replaced in tests; PostgreSQL stores ask their server instead.
        now_sql: the SQL of the server's clock in microseconds, replaced in tests; PostgreSQL only.
        pool_size: connections that are kept.

    Raises:
        ValueError: if the URL cannot be used.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], int] = host_clock,
        now_sql: str = "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)",
        pool_size: int = 8,
    ) -> None:
        """Connect to nothing yet."""
        self.url = parse_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._clock = clock
        self._now_sql = now_sql
        # SQLite takes one writer at a time: waiting in line here is cheaper than in its busy loop.
        self._writer = asyncio.Lock()
        self._queue = WriteQueue(self.write)
        if self.is_sqlite:
            file = Path(self.url.database or "").expanduser()
            _probe(file)
            self.engine = create_async_engine(
                self.url.set(database=str(file)),
                async_creator=connector(file, _BUSY_SECONDS),
                pool_size=pool_size,
                max_overflow=0,
            )
            sa.event.listen(self.engine.sync_engine, "begin", _begin_sqlite)
        else:
            self.engine = create_async_engine(
                self.url,
                connect_args={
                    "timeout": _CONNECT_SECONDS,
                    "command_timeout": _COMMAND_SECONDS,
                    "server_settings": {
                        "application_name": "tidegate",
                        "idle_in_transaction_session_timeout": "30000",
                        "timezone": "UTC",
                    },
                },
                pool_size=pool_size,
                max_overflow=0,
                pool_pre_ping=True,
                pool_timeout=_COMMAND_SECONDS,
            )

    @property
    def now(self) -> sa.ColumnElement[int]:
        """The store's clock as an SQL expression, in microseconds since 1970."""
        if self.is_sqlite:
            return sa.literal(self._clock(), sa.BigInteger)
        return sa.literal_column(self._now_sql, sa.BigInteger)

    async def read_clock(self) -> int:
        """The store's clock, in microseconds since 1970.

        Raises:
            UnavailableError: if the store does not answer.
        """
        async with self.read() as connection:
            return await self.clock_of(connection)

    async def clock_of(self, connection: AsyncConnection) -> int:
        """The store's clock, read within a transaction."""
        if self.is_sqlite:
            return self._clock()
        return int((await connection.execute(sa.select(self.now))).scalar_one())

    @contextlib.asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that only reads.

        Raises:
            UnavailableError: if the store cannot be reached or does not answer in time.
        """
        with translated():
            async with self.engine.connect() as connection, connection.begin():
                yield connection

    @contextlib.asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed at the end of the block, undone if the block raises.

        Raises:
            UnavailableError: if the store cannot be reached or does not answer in time.
            LimitError: if it has no room left.
        """
        with translated():
            if self.is_sqlite:
                async with self._writer, self.engine.connect() as connection:
                    await connection.execution_options(**{_WRITE: True})
                    async with connection.begin():
                        yield connection
            else:
                async with self.engine.connect() as connection, connection.begin():
                    yield connection

    async def write_together(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        committed: Callable[[T], None] | None = None,
        *,
        weight: int = 1,
    ) -> T:
        """Runs `work` in a transaction that writes, and answers once it is committed.

        On SQLite those who write at the same time share a transaction, see `WriteQueue.run`; PostgreSQL puts
        commits together itself.

        Raises:
            UnavailableError: if the store cannot be reached or does not answer in time.
            LimitError: if it has no room left.
            Exception: whatever `work` raised; nothing that it wrote is stored then.
        """
        if self.is_sqlite:
            return await self._queue.run(lambda connection: _translating(work, connection), committed, weight=weight)
        async with self.write() as connection:
            answer = await work(connection)
        if committed is not None:
            committed(answer)
        return answer

    async def close(self) -> None:
        """Closes every connection, when what waits to be written is."""
        await self._queue.close()
        await self.engine.dispose()

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that takes ON CONFLICT, in this store's dialect."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def clock(self) -> int:
        """The host's wall clock in microseconds: for what is told, never for leases."""
        return self._clock()


def _probe(file: Path) -> None:
    """Opens and closes a SQLite file: a place that cannot be used is told at once.

    Raises:
        ValueError: if the file cannot be opened or made.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        sqlite3.connect(file).close()
    except OSError as error:
        raise ValueError(f"store_url: {file} cannot be used: {error.strerror}") from None
    except sqlite3.Error as error:
        raise ValueError(f"store_url: {file} cannot be used: {error}") from None


def _begin_sqlite(connection: sa.Connection) -> None:
    """Takes the write lock at the start of a writing transaction: a later upgrade could fail with BUSY at
    once."""
    writes = connection.get_execution_options().get(_WRITE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
