"""Migrations make exactly the tables of `schema`, on both stores, once, and refuse a store of the future."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from store_factories import AUDIT, T0, block, evaluation
from tidegate_server.gates.errors import PreconditionError, UnavailableError
from tidegate_server.gates.ports import AuditRecord
from tidegate_server.store import Database, Store, migrate, schema, sqlite_driver
from tidegate_server.store.codec import count_points
from tidegate_server.store.database import parse_url


def test_migrations_make_the_schema(run):
    async def differences():
        async with run.store.database.read() as connection:

            def compare(sync):
                context = MigrationContext.configure(sync, opts={"compare_type": True})
                return compare_metadata(context, schema.metadata)

            return await connection.run_sync(compare)

    assert run(differences()) == []


def test_migrating_again_changes_nothing_and_replicas_may_start_together(run, open_store):
    other = open_store()

    async def both():
        await asyncio.gather(*(run.store.migrate() for _ in range(3)))

    run(both())
    other(other.store.migrate())


def test_a_fresh_store_migrated_by_several_at_once(tmp_path: Path):
    async def start():
        stores = [Store(str(tmp_path / "new.db")) for _ in range(4)]
        await asyncio.gather(*(store.migrate() for store in stores))
        async with stores[0].database.read() as connection:
            found = await connection.execute(sa.text("SELECT version_num FROM alembic_version"))
            assert len(found.all()) == 1
        for store in stores:
            await store.close()

    asyncio.run(start())


def test_a_store_of_a_later_version_is_refused(sqlite_file: Path):
    migrate(f"sqlite:///{sqlite_file}")

    async def age():
        database = Database(str(sqlite_file))
        async with database.write() as connection:
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        await database.close()

    asyncio.run(age())
    with pytest.raises(PreconditionError, match="9999"):
        migrate(str(sqlite_file))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "give a file name"),
        ("mysql://localhost/x", "mysql is not supported"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("://x", "not a URL"),
    ],
)
def test_a_url_that_cannot_be_used_says_what_would_be_right(url, says):
    with pytest.raises(ValueError, match=says):
        parse_url(url)


def test_a_password_is_never_in_what_is_shown():
    url = parse_url("postgresql://me:secret@localhost/x")
    assert "secret" not in str(url)
    assert url.drivername == "postgresql+asyncpg"


@pytest.mark.parametrize("statement", ["UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log"])
def test_the_audit_log_only_grows(run, statement):
    run(run.store.audit.append(AuditRecord(1.0, "ann", "gate.create", "gates/x")))

    async def tamper():
        async with run.store.database.write() as connection:
            await connection.execute(sa.text(statement))

    with pytest.raises(sa.exc.DBAPIError, match="append-only"):
        run(tamper())


def test_points_of_evaluations_of_before_are_counted(sqlite_file: Path):
    async def go():
        store = Store(str(sqlite_file))
        await store.migrate()
        made = evaluation()
        await store.evaluations.create(made, "f", AUDIT)
        blocks = list(enumerate([block(k) for k in range(3)], 1))
        await store.evaluations.append_blocks(made.id, "w", blocks, complete=False, now=T0)
        read = sa.select(schema.evaluations.c.points)
        async with store.database.read() as connection:
            points = (await connection.execute(read)).scalar_one()
        assert points == sum(count_points(one) for _, one in blocks) > 0
        async with store.database.write() as connection:
            await connection.execute(sa.text("ALTER TABLE evaluations DROP COLUMN points"))
            await connection.execute(sa.text("UPDATE alembic_version SET version_num = '0001'"))
        await store.migrate()
        async with store.database.read() as connection:
            assert (await connection.execute(read)).scalar_one() == points
        await store.close()

    asyncio.run(go())


def test_a_connection_waits_for_one_that_holds_a_file_which_is_not_in_wal_mode_yet(tmp_path: Path, monkeypatch):
    file = tmp_path / "new.db"
    holder = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
    holder.execute("CREATE TABLE other (x)")
    holder.execute("BEGIN IMMEDIATE")
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            holder.execute("COMMIT")

    monkeypatch.setattr(sqlite_driver, "sleep", pause)

    async def mode():
        database = Database(str(file))
        async with database.read() as connection:
            found = (await connection.execute(sa.text("PRAGMA journal_mode"))).scalar_one()
        await database.close()
        return found

    assert asyncio.run(mode()) == "wal"
    assert len(pauses) == 3
    holder.close()


def test_a_file_that_stays_locked_is_told_as_a_store_that_is_away(tmp_path: Path, monkeypatch):
    file = tmp_path / "new.db"
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(sqlite_driver, "sleep", lambda _: None)
    monkeypatch.setattr(sqlite_driver, "monotonic", itertools.count().__next__)

    async def look():
        database = Database(str(file))
        try:
            await database.read_clock()
        finally:
            await database.close()

    with pytest.raises(UnavailableError, match="locked"):
        asyncio.run(look())
    holder.close()
