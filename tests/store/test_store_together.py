"""Writes that share a transaction: one commit for many, and each answers for itself alone."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from store_factories import AUDIT, T0, block, evaluation
from tidegate_server.gates.errors import LimitError, NotFoundError, UnavailableError
from tidegate_server.gates.model import MonitorState
from tidegate_server.monitors.model import StatePush
from tidegate_server.store import Store, schema, together

_NAME = schema.settings.c.name


def put(name: str, fail: Exception | None = None):
    """A write of one setting, which may fail after it wrote."""

    async def work(connection):
        await connection.execute(sa.insert(schema.settings).values(name=name, value=""))
        if fail is not None:
            raise fail
        return name

    return work


async def names(database) -> list[str]:
    async with database.read() as connection:
        return list((await connection.execute(sa.select(_NAME).order_by(_NAME))).scalars())


@pytest.fixture
def sqlite(sqlite_file):
    """Runs a test with a fresh SQLite database and the list of its commits."""

    def run(test):
        async def go():
            store = Store(str(sqlite_file))
            await store.migrate()
            commits: list[object] = []
            sa.event.listen(store.database.engine.sync_engine, "commit", commits.append)
            try:
                await test(store, commits)
            finally:
                await store.close()

        asyncio.run(go())

    return run


async def queued(database, *calls):
    """Starts calls while another transaction is written, so that they wait together."""
    async with database.write():
        tasks = [asyncio.create_task(call) for call in calls]
        for _ in range(5):  # each has put its work in the queue, which waits for the other transaction
            await asyncio.sleep(0)
    return tasks


def test_a_write_is_answered_told_of_and_undone_alone(run):
    database = run.store.database
    told: list[str] = []

    async def go():
        assert await database.write_together(put("a"), told.append) == "a"
        with pytest.raises(LimitError, match="too much"):
            await database.write_together(put("b", LimitError("X", "too much")), told.append)
        with pytest.raises(IntegrityError):
            await database.write_together(put("a"), told.append)
        return await names(database)

    assert run(go()) == ["a"]
    assert told == ["a"]


def test_callers_that_wait_share_one_commit_and_none_is_answered_before_it(sqlite):
    async def test(store, commits):
        done_at_commit: list[int] = []
        tasks: list[asyncio.Task] = []
        made = [evaluation(request_id=f"r{k}") for k in range(10)]
        creates = [store.evaluations.create(one, "f", AUDIT) for one in made]
        push = store.monitors.push([StatePush("m", MonitorState.OK, T0)], T0)
        tasks += await queued(store.database, *creates, push)
        commits.clear()
        sa.event.listen(
            store.database.engine.sync_engine,
            "commit",
            lambda _: done_at_commit.append(sum(task.done() for task in tasks)),
        )
        answers = await asyncio.gather(*tasks)
        assert [new for _, new in answers[:10]] == [True] * 10
        assert answers[10].accepted == 1
        assert len(commits) == 1
        assert done_at_commit == [0]
        blocks = [store.evaluations.append_blocks(one.id, "w", [(1, block())], complete=False, now=T0) for one in made]
        tasks = await queued(store.database, *blocks)
        commits.clear()
        assert [one.taken for one in await asyncio.gather(*tasks)] == [1] * 10
        assert len(commits) == 1

    sqlite(test)


def test_the_same_request_twice_in_one_transaction_makes_one_evaluation(sqlite):
    async def test(store, commits):
        made = [evaluation(request_id="r") for _ in range(3)]
        tasks = await queued(store.database, *(store.evaluations.create(one, "f", AUDIT) for one in made))
        commits.clear()
        answers = await asyncio.gather(*tasks)
        assert [new for _, new in answers] == [True, False, False]
        assert {one.id for one, _ in answers} == {made[0].id}
        assert len(commits) == 1

    sqlite(test)


def test_one_that_fails_takes_nothing_from_the_others(sqlite):
    async def test(store, commits):
        database = store.database
        calls = [
            database.write_together(put("a")),
            database.write_together(put("b", LimitError("X", "too much"))),
            store.evaluations.append_blocks("nope", "w", [(1, block())], complete=False, now=T0),
            database.write_together(put("a")),
            database.write_together(put("c")),
        ]
        tasks = await queued(database, *calls)
        commits.clear()
        a, b, missing, twice, c = await asyncio.gather(*tasks, return_exceptions=True)
        assert (a, c) == ("a", "c")
        assert isinstance(b, LimitError)
        assert isinstance(missing, NotFoundError)
        assert isinstance(twice, IntegrityError)
        assert await names(database) == ["a", "c"]
        assert len(commits) == 1 + 1  # and the read

    sqlite(test)


def test_a_caller_that_goes_before_its_turn_leaves_nothing(sqlite):
    async def test(store, _):
        database = store.database
        told: list[str] = []
        calls = [database.write_together(put(name), told.append) for name in "abc"]
        tasks = await queued(database, *calls)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[1].cancelled()
        assert await names(database) == told == ["a", "c"]

    sqlite(test)


def test_what_a_caller_began_is_carried_through_and_told_of_when_it_goes(sqlite):
    async def test(store, _):
        database = store.database
        told: list[str] = []
        wrote, go_on = asyncio.Event(), asyncio.Event()

        async def slow(connection):
            name = await put("a")(connection)
            wrote.set()
            await go_on.wait()
            return name

        gone = asyncio.create_task(database.write_together(slow, told.append))
        await wrote.wait()
        beside = asyncio.create_task(database.write_together(put("b"), told.append))
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert told == []
        go_on.set()
        assert await beside == "b"
        assert await names(database) == told == ["a", "b"]

    sqlite(test)


def test_when_one_undoes_the_whole_transaction_the_others_go_into_the_next(sqlite):
    async def test(store, _):
        database = store.database

        async def undo(connection):
            # As SQLite does by itself when, for one, the disk is full.
            await connection.exec_driver_sql("ROLLBACK")
            raise LimitError("STORE_FULL", "the disk is full")

        told: list[str] = []
        tasks = await queued(
            database,
            database.write_together(put("a"), told.append),
            database.write_together(undo),
            database.write_together(put("b"), told.append),
        )
        a, full, b = await asyncio.gather(*tasks, return_exceptions=True)
        assert (a, b) == ("a", "b")
        assert isinstance(full, LimitError)
        assert await names(database) == told == ["a", "b"]

    sqlite(test)


def test_a_commit_that_fails_is_told_to_all_and_stores_nothing(sqlite):
    async def test(store, _):
        database = store.database
        told: list[str] = []

        def fail(_connection):
            raise OSError("the disk went away")

        tasks = await queued(database, *(database.write_together(put(name), told.append) for name in "ab"))
        sa.event.listen(database.engine.sync_engine, "commit", fail)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in answers] == [UnavailableError] * 2
        sa.event.remove(database.engine.sync_engine, "commit", fail)
        assert await names(database) == told == []
        assert await database.write_together(put("c")) == "c"

    sqlite(test)


def test_a_store_that_cannot_be_written_is_told_to_all_who_wait(sqlite):
    async def test(store, _):
        database = store.database

        def fail(_connection):
            raise OSError("no such thing")

        tasks = await queued(database, *(database.write_together(put(name)) for name in "ab"))
        sa.event.listen(database.engine.sync_engine, "begin", fail)
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(one) for one in answers] == [UnavailableError] * 2
        sa.event.remove(database.engine.sync_engine, "begin", fail)
        assert await database.write_together(put("c")) == "c"

    sqlite(test)


def test_one_transaction_takes_so_many_and_closing_waits_for_the_rest(sqlite):
    async def test(store, commits):
        count = 2 * together.MOST + 1
        calls = (store.database.write_together(put(f"{k:03}")) for k in range(count))
        tasks = await queued(store.database, *calls)
        commits.clear()
        await store.database.close()
        assert len(commits) == 3
        assert await asyncio.gather(*tasks) == [f"{k:03}" for k in range(count)]

    sqlite(test)


def test_a_large_write_is_not_joined_by_others(sqlite):
    async def test(store, commits):
        database = store.database
        calls = [
            database.write_together(put("a")),
            database.write_together(put("b"), weight=10 * together.MOST),
            database.write_together(put("c")),
            database.write_together(put("d")),
        ]
        tasks = await queued(database, *calls)
        commits.clear()
        assert await asyncio.gather(*tasks) == ["a", "b", "c", "d"]
        assert len(commits) == 3

    sqlite(test)
