"""The store goes away, stands still, fills up; the clock jumps. Evaluations come to the same answers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import pytest
import sqlalchemy as sa
from fault_cases import Cases, answers_undisturbed, judged_once, same_answers, watch_judgements
from replica import make_engine
from tidegate_server.errors import Code
from tidegate_server.gates.errors import LimitError, UnavailableError
from tidegate_server.gates.ports import AuditRecord
from tidegate_server.store import Store


class Wire:
    """A Unix socket before a PostgreSQL that can be cut: connections break, and new ones are refused."""

    def __init__(self, server) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tg-", dir="/tmp"))
        self._target = server.socket
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def mend(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.folder / self._target.name)

    async def _serve(self, reader, writer) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        self._writers |= {writer, back}

        async def pump(source, sink) -> None:
            with contextlib.suppress(ConnectionError):
                while data := await source.read(65536):
                    sink.write(data)
                    await sink.drain()
            sink.close()

        await asyncio.gather(pump(reader, back), pump(there, writer))

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            (self.folder / self._target.name).unlink(missing_ok=True)
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


COUNT, WATCH_SECONDS = 8, 1.0


async def _through(store: Store, disturb, expected):
    """Runs cases while `disturb(engine)` goes on, checks every answer, and returns the engine's health."""
    engine = make_engine(store, 0.05)
    running = asyncio.create_task(engine.run())
    cases = Cases(store, COUNT, WATCH_SECONDS)
    await cases.start()
    await cases.feed(0.0)
    await disturb(engine)
    found = await cases.ended(60)
    engine.stop()
    await running
    await judged_once(store, cases.ids.values())
    same_answers(found, expected)
    return engine.health


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    path = tmp_path_factory.mktemp("undisturbed") / "tidegate.db"
    return asyncio.run(answers_undisturbed(path, COUNT, WATCH_SECONDS))


@pytest.mark.postgres
@pytest.mark.parametrize("seconds", [1.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_a_store_that_is_cut_off_is_waited_for(postgres_server, undisturbed, seconds):
    async def go():
        wire = Wire(postgres_server)
        await wire.mend()
        url = postgres_server.url(await _database(postgres_server), socket_folder=wire.folder)
        store = Store(url, poll_seconds=0.1, pool_size=4)
        await store.migrate()
        await watch_judgements(store)

        async def disturb(engine):
            away = asyncio.Event()
            engine._on_health = lambda health: (told.append(health.serving), away.set())
            await wire.cut()
            await away.wait()
            assert not engine.health.serving
            with pytest.raises(UnavailableError, match="the store is not available"):
                await store.evaluations.get("any")
            await asyncio.sleep(seconds)
            assert not engine.health.serving
            assert engine.health.problem
            await wire.mend()

        told: list[bool] = []
        health = await _through(store, disturb, undisturbed)
        assert told[:2] == [False, True]
        assert health.serving
        await store.close()
        await wire.cut()
        wire.folder.rmdir()

    asyncio.run(go())


async def _database(server) -> str:
    name = f"f{uuid.uuid4().hex}"
    await asyncio.to_thread(server.create_database, name)
    return name


@pytest.mark.postgres
@pytest.mark.parametrize("seconds", [1.5, pytest.param(20.0, marks=pytest.mark.slow)])
def test_a_store_that_stands_still_is_waited_for(postgres_server, undisturbed, seconds):
    """Connections stay open and nothing answers: worse than a cut, since only time tells."""

    async def go():
        url = postgres_server.url(await _database(postgres_server))
        store = Store(url, poll_seconds=0.1, pool_size=4, lease_seconds=2.0)
        await store.migrate()
        await watch_judgements(store)

        async def disturb(_engine):
            postgres_server.freeze()
            try:
                await asyncio.sleep(seconds)
            finally:
                postgres_server.thaw()

        health = await _through(store, disturb, undisturbed)
        assert health.serving
        assert health.clock_jumps == 0, "a store that stands still is no clock that jumps"
        await store.close()

    asyncio.run(go())


# --- a full disk


def _fill(path: Path, leave: int = 0) -> Path:
    """Takes all room of the file system of `path` but `leave` bytes."""
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    if leave:
        os.truncate(ballast, max(0, ballast.stat().st_size - leave))
    return ballast


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB; skipped where none can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4M", "tidegate-test", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


UNLIMITED = 1_073_741_823


def _page_limit(store: Store) -> list[int]:
    """Makes SQLite itself say that the disk is full: at the first entry's number of pages, from now on."""
    limit = [UNLIMITED]

    def apply(connection) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {limit[0]}")

    sa.event.listen(store.database.engine.sync_engine, "begin", apply)
    return limit


def _record(k: int) -> AuditRecord:
    return AuditRecord(float(k), "ann", "write", "x" * 2000, detail={"k": str(k)})


async def _write_until_full(store: Store, start: int) -> int:
    """Writes records until the store refuses; returns how many were acknowledged."""
    for k in range(start, start + 5000):
        try:
            await store.audit.append(_record(k))
        except LimitError as error:
            refusal = error
            break
    else:
        raise AssertionError("the disk never was full")
    assert refusal.code is Code.RESOURCE_EXHAUSTED
    assert "disk is full; nothing was written" in refusal.message
    return k - start


async def _records(store: Store) -> list[str]:
    async with store.database.read() as connection:
        rows = await connection.execute(sa.text("SELECT create_us FROM audit_log WHERE actor = 'ann' ORDER BY 1"))
        return list(rows.scalars())


def test_a_full_sqlite_says_so_loses_nothing_and_recovers(tmp_path, undisturbed):
    async def go():
        store = Store(str(tmp_path / "tidegate.db"), poll_seconds=0.1)
        await store.migrate()
        await watch_judgements(store)
        limit = _page_limit(store)

        async def disturb(engine):
            async with store.database.read() as connection:
                pages = (await connection.execute(sa.text("PRAGMA page_count"))).scalar_one()
            limit[0] = pages + 20
            taken = await _write_until_full(store, 0)
            with pytest.raises(LimitError):
                await store.audit.append(_record(0))
            # Reading goes on, and the engine waits.
            assert len(await _records(store)) == taken
            await asyncio.sleep(0.3)
            limit[0] = UNLIMITED
            await store.audit.append(_record(taken))
            assert len(await _records(store)) == taken + 1

        health = await _through(store, disturb, undisturbed)
        assert health.serving
        await store.close()

    asyncio.run(go())


def test_a_full_file_system_says_so_loses_nothing_and_recovers(small_disk, undisturbed):
    async def go():
        store = Store(str(small_disk / "tidegate.db"), poll_seconds=0.1)
        await store.migrate()
        await watch_judgements(store)

        async def disturb(engine):
            ballast = _fill(small_disk, leave=65536)
            taken = await _write_until_full(store, 0)
            assert len(await _records(store)) == taken
            await asyncio.sleep(0.3)
            ballast.unlink()
            await store.audit.append(_record(taken))
            assert len(await _records(store)) == taken + 1

        health = await _through(store, disturb, undisturbed)
        assert health.serving
        await store.close()
        # What was acknowledged is there for the next process too.
        again = Store(str(small_disk / "tidegate.db"))
        async with again.database.read() as connection:
            sound = (await connection.execute(sa.text("PRAGMA integrity_check"))).scalar_one()
        assert sound == "ok"
        await again.close()

    asyncio.run(go())


# --- a clock that jumps


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def test_a_clock_that_jumps_to_and_fro_changes_no_answer(kind, request, tmp_path, undisturbed):
    """Two replicas; the store's clock jumps by up to two hours, again and again."""

    async def go():
        offset = [0]
        if kind == "sqlite":
            url = str(tmp_path / "tidegate.db")
        else:
            server = request.getfixturevalue("postgres_server")
            url = server.url(await _database(server))
        stores = [
            Store(
                url,
                poll_seconds=0.1,
                clock=lambda: time.time_ns() // 1000 + offset[0],
                now_sql="(SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) + us FROM jumps)",
            )
            for _ in range(2)
        ]
        await stores[0].migrate()
        await watch_judgements(stores[0])

        async def write(statement: str) -> None:
            async with stores[0].database.write() as connection:
                await connection.execute(sa.text(statement))

        if kind == "postgresql":
            await write("CREATE TABLE jumps (us bigint)")
            await write("INSERT INTO jumps VALUES (0)")
        second = make_engine(stores[1], 0.05)
        running = asyncio.create_task(second.run())
        rng = random.Random(5)

        async def disturb(_engine):
            for _ in range(8):
                await asyncio.sleep(rng.uniform(0.05, 0.3))
                offset[0] = round(rng.uniform(-7200, 7200) * 1e6)
                if kind == "postgresql":
                    await write(f"UPDATE jumps SET us = {offset[0]}")

        health = await _through(stores[0], disturb, undisturbed)
        assert health.clock_jumps > 0
        second.stop()
        await running
        for store in stores:
            await store.close()

    asyncio.run(go())
