"""Writes that share a transaction, so that one write to the disk confirms many of them.

A commit on SQLite waits for the disk, and one writer at a time is all it takes. Callers that come while another
transaction is written therefore wait together, and go into the next one together. Each is a savepoint of its own
in it: what one of them does wrong is undone alone. None is answered before the commit of all.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

T = TypeVar("T")

MOST = 64
"""Weight of the members of one transaction, as small writes: others that write wait for its end."""


@dataclass(slots=True, eq=False)
class _Member:
    """One write that waits, and what came of it."""

    work: Callable[[AsyncConnection], Awaitable[Any]]
    committed: Callable[[Any], None] | None
    future: asyncio.Future[Any]
    weight: int = 1
    answer: Any = None

    def fail(self, error: BaseException) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def succeed(self) -> None:
        """Tell of the commit; whoever asked may have gone meanwhile, those who are told beside may not miss it."""
        try:
            if self.committed is not None:
                self.committed(self.answer)
        except Exception as error:
            self.fail(error)
        else:
            if not self.future.done():
                self.future.set_result(self.answer)


class _UndoneError(Exception):
    """The database undid the whole transaction because of one member."""


class WriteQueue:
    """Runs writes in the order in which they came, many in one transaction.

    Parameters
    ----------
    begin:
        Opens a writing transaction that is committed at the end of its block; waits for other writers.
    """

    def __init__(self, begin: Callable[[], AbstractAsyncContextManager[AsyncConnection]]) -> None:
        """Start empty."""
        self._begin = begin
        self._waiting: deque[_Member] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def run(
        self,
        work: Callable[[AsyncConnection], Awaitable[T]],
        committed: Callable[[T], None] | None = None,
        *,
        weight: int = 1,
    ) -> T:
        """Run `work` in a transaction with others, and return its answer once that is committed.

        A caller that is cancelled before its turn leaves nothing behind; later, its work is carried through.

        Parameters
        ----------
        work:
            Reads and writes on the connection it is given. It may be run again if what it did was undone, and must
            not wait for another write.
        committed:
            Called with the answer right after the commit, even when the caller was cancelled.
        weight:
            How large it is, in small writes. A large one is not joined by others, which would hold the store, and
            whoever else writes to it, for the time of them all.

        Raises
        ------
        Exception
            What `work` raised, its own writes undone; or why the transaction could not be committed: nothing of
            it is stored then.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Member(work, committed, future, weight))
        if self._writer is None or self._writer.done():
            # In no caller's context: what it logs belongs to many.
            self._writer = asyncio.get_running_loop().create_task(
                self._write(), name="write together", context=contextvars.Context()
            )
        return await future

    async def close(self) -> None:
        """Wait until everything that waits is written or refused."""
        if self._writer is not None and not self._writer.done():
            await asyncio.wait({self._writer})

    async def _write(self) -> None:
        while self._waiting:
            group: list[_Member] = []
            try:
                async with self._begin() as connection:
                    await self._fill(connection, group)
            except _UndoneError:
                # They did nothing wrong, and nothing of them is there: they are the next ones.
                self._waiting.extendleft(reversed(group))
            except Exception as error:
                # A transaction that did not even begin is told to those who wait for it.
                for member in group or self._take_all():
                    member.fail(error)
            except BaseException as error:
                for member in (*group, *self._take_all()):
                    member.fail(error)
                raise
            else:
                for member in group:
                    member.succeed()

    async def _fill(self, connection: AsyncConnection, group: list[_Member]) -> None:
        """Run members that wait, also those that come meanwhile; `group` are those that are to be committed.

        Raises
        ------
        _UndoneError
            When a member's error undid the others too; that member has been told.
        """
        weight = 0
        while self._waiting:
            member = self._waiting.popleft()
            if member.future.done():
                continue  # cancelled before its turn
            if weight and weight + member.weight > MOST:
                self._waiting.appendleft(member)
                return
            weight += member.weight
            # Named before it runs: should this task be ended, its caller must hear of it.
            group.append(member)
            try:
                await connection.exec_driver_sql("SAVEPOINT member")
                member.answer = await member.work(connection)
                await connection.exec_driver_sql("RELEASE member")
            except Exception as error:
                group.pop()
                member.fail(error)
                # SQLAlchemy's own savepoints would go back to one that is not there any more.
                if not await _is_open(connection):
                    raise _UndoneError from error
                await connection.exec_driver_sql("ROLLBACK TO member")
                await connection.exec_driver_sql("RELEASE member")

    def _take_all(self) -> list[_Member]:
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


async def _is_open(connection: AsyncConnection) -> bool:
    """Whether SQLite still has the transaction: a full disk, for one, ends it as a whole, and without a word."""
    if connection.invalidated or connection.closed:
        return False
    raw = await connection.get_raw_connection()
    return raw.driver_connection is not None and bool(raw.driver_connection.in_transaction)
