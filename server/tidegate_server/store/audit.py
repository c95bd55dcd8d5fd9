"""The append-only audit log, bearer tokens and the switch that turns authorisation on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from tidegate_server.gates.errors import AlreadyExistsError, NotFoundError
from tidegate_server.gates.ports import AuditRecord, ListQuery, Page, TokenRecord
from tidegate_server.store import schema
from tidegate_server.store.codec import from_text, micros, to_text
from tidegate_server.store.database import Database
from tidegate_server.store.filters import (
    Field,
    in_scopes,
    read_cursor,
    text_field,
    time_field,
    to_sql,
    write_cursor,
)

_a = schema.audit_log.c
_t = schema.tokens.c
_ENABLED = "authorisation"
# Made once: to make a statement takes longer than to run it.
_INSERT = sa.insert(schema.audit_log)

_FIELDS: Mapping[str, Field] = {
    "time": time_field(_a.create_us),
    "actor": text_field(_a.actor),
    "action": text_field(_a.action),
    "resource": text_field(_a.resource),
    "service": text_field(_a.service),
    "environment": text_field(_a.environment),
}


async def write_audit(connection: AsyncConnection, record: AuditRecord) -> None:
    """Adds one record within the transaction of what it records."""
    row = {
        "create_us": micros(record.time),
        "actor": record.actor,
        "action": record.action,
        "resource": record.resource,
        "service": record.service,
        "environment": record.environment,
        "body": to_text(record),
    }
    await connection.execute(_INSERT, row)


class SqlAuditLog:
    """Implements `AuditLog`."""

    def __init__(self, database: Database) -> None:
        """Keep the database."""
        self._database = database

    async def append(self, record: AuditRecord) -> None:
        """See `AuditLog.append`."""
        async with self._database.write() as connection:
            await write_audit(connection, record)

    async def list(self, query: ListQuery) -> Page[AuditRecord]:
        """See `AuditLog.list`. Filter fields: time, actor, action, resource, service, environment."""
        statement = (
            sa.select(_a.body, _a.sequence)
            .where(in_scopes(query.scopes, _a.service, _a.environment))
            .order_by(_a.sequence.desc())
            .limit(query.page_size + 1)
        )
        if query.service is not None:
            statement = statement.where(_a.service == query.service)
        if query.environment is not None:
            statement = statement.where(_a.environment == query.environment)
        if query.where is not None:
            statement = statement.where(to_sql(query.where, _FIELDS))
        if query.cursor:
            statement = statement.where(_a.sequence < read_cursor(query.cursor, int)[0])
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        page = rows[: query.page_size]
        more = len(rows) > query.page_size
        return Page(
            tuple(from_text(row.body, AuditRecord) for row in page),
            write_cursor(page[-1].sequence) if more else "",
        )


class SqlTokens:
    """Implements `TokenRepository`."""

    def __init__(self, database: Database) -> None:
        """Keep the database."""
        self._database = database

    async def create(self, token: TokenRecord, audit: AuditRecord) -> None:
        """See `TokenRepository.create`."""
        taken = AlreadyExistsError(
            "TOKEN_EXISTS",
            f"there is already a token named {token.name!r}; revoke it, or choose another name",
        )
        async with self._database.write() as connection:
            named = sa.select(_t.id).where(_t.name == token.name, sa.not_(_t.revoked))
            if (await connection.execute(named)).first() is not None:
                raise taken
            try:
                await connection.execute(
                    sa.insert(schema.tokens).values(
                        id=token.id,
                        name=token.name,
                        create_us=micros(token.create_time),
                        revoked=token.revoke_time is not None,
                        body=to_text(token),
                    )
                )
            except IntegrityError as error:
                raise taken from error
            await write_audit(connection, audit)

    async def find(self, token_id: str) -> TokenRecord | None:
        """See `TokenRepository.find`."""
        async with self._database.read() as connection:
            body = (await connection.execute(sa.select(_t.body).where(_t.id == token_id))).scalar_one_or_none()
        return None if body is None else from_text(body, TokenRecord)

    async def list(self) -> Sequence[TokenRecord]:
        """See `TokenRepository.list`."""
        async with self._database.read() as connection:
            rows = await connection.execute(sa.select(_t.body).order_by(_t.create_us, _t.id))
            return [from_text(body, TokenRecord) for body in rows.scalars()]

    async def revoke(self, token_id: str, now: float, audit: AuditRecord) -> None:
        """See `TokenRepository.revoke`. Revoking twice keeps the first time."""
        async with self._database.write() as connection:
            query = sa.select(_t.body).where(_t.id == token_id).with_for_update()
            body = (await connection.execute(query)).scalar_one_or_none()
            if body is None:
                raise NotFoundError("TOKEN_NOT_FOUND", f"there is no token {token_id!r}")
            token = from_text(body, TokenRecord)
            if token.revoke_time is not None:
                return
            await connection.execute(
                sa.update(schema.tokens)
                .where(_t.id == token_id)
                .values(revoked=True, body=to_text(replace(token, revoke_time=now)))
            )
            await write_audit(connection, audit)

    async def enabled(self) -> bool:
        """See `TokenRepository.enabled`."""
        query = sa.select(schema.settings.c.value).where(schema.settings.c.name == _ENABLED)
        async with self._database.read() as connection:
            return (await connection.execute(query)).scalar_one_or_none() == "on"

    async def set_enabled(self, enabled: bool, audit: AuditRecord) -> None:
        """See `TokenRepository.set_enabled`."""
        value = "on" if enabled else "off"
        statement = self._database.insert(schema.settings).values(name=_ENABLED, value=value)
        async with self._database.write() as connection:
            await connection.execute(statement.on_conflict_do_update(index_elements=["name"], set_={"value": value}))
            await write_audit(connection, audit)
