"""Brings a store to the schema of this version."""

from __future__ import annotations

import asyncio
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from tidegate_server.gates.errors import PreconditionError
from tidegate_server.store.database import Database

# Any number will do, as long as every replica takes the same.
_LOCK = 0x7469646567617465


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    return config


async def migrate_database(database: Database) -> None:
    """Runs what is missing, in one transaction; replicas that start together wait for each other.

    Raises:
        PreconditionError: if the store was written by a later version of Tidegate.
        UnavailableError: if the store cannot be reached.
        LimitError: if the store has no room.
    """
    async with database.write() as connection:
        if not database.is_sqlite:
            await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        await connection.run_sync(_upgrade)


def _upgrade(connection: sa.Connection) -> None:
    config = _config()
    scripts = ScriptDirectory.from_config(config)
    current = MigrationContext.configure(connection).get_current_revision()
    if current == scripts.get_current_head():
        return
    if current is not None and current not in {script.revision for script in scripts.walk_revisions()}:
        raise PreconditionError(
            "STORE_TOO_NEW",
            f"the store has schema {current}, which this version of Tidegate does not know; "
            "run the version that wrote it, or a later one",
            {"schema": current},
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def migrate(url: str) -> None:
    """Brings the store at `url` to the schema of this version; see `migrate_database`."""

    async def run() -> None:
        database = Database(url)
        try:
            await migrate_database(database)
        finally:
            await database.close()

    asyncio.run(run())
