"""Gates and their revisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from tidegate_server.gates.errors import AlreadyExistsError, ConflictError, NotFoundError
from tidegate_server.gates.model import Gate, GateKey
from tidegate_server.gates.ports import AuditRecord, ListQuery, Page
from tidegate_server.store import schema
from tidegate_server.store.audit import write_audit
from tidegate_server.store.codec import from_text, micros, to_text
from tidegate_server.store.database import Database
from tidegate_server.store.filters import (
    MAX_INTEGER,
    Field,
    in_scopes,
    member_field,
    plain_field,
    read_cursor,
    text_field,
    time_field,
    to_sql,
    write_cursor,
)

_TAG_SEPARATOR = "\n"

_g = schema.gates.c
_r = schema.gate_revisions.c

_FIELDS: Mapping[str, Field] = {
    "service": text_field(_g.service),
    "environment": text_field(_g.environment),
    "identifier": text_field(_g.identifier),
    "owner": text_field(_g.owner),
    "description": text_field(_g.description),
    "enabled": plain_field(_g.enabled),
    "dry_run": plain_field(_g.dry_run),
    "tags": member_field(_g.tags, _TAG_SEPARATOR),
    "create_time": time_field(_g.create_us),
    "update_time": time_field(_g.update_us),
}


def _missing(key: GateKey, revision: int = 0) -> NotFoundError:
    what = f"revision {revision} of gate" if revision else "gate"
    name = f"service {key.service!r}, environment {key.environment!r}, identifier {key.identifier!r}"
    return NotFoundError("GATE_NOT_FOUND", f"there is no {what} {name}", key._asdict())


def _columns(gate: Gate) -> dict[str, Any]:
    tags = _TAG_SEPARATOR + _TAG_SEPARATOR.join(gate.tags) + _TAG_SEPARATOR
    return {
        "uid": gate.uid,
        "revision": gate.revision,
        "owner": gate.owner,
        "description": gate.description,
        "enabled": gate.enabled,
        "dry_run": gate.dry_run,
        "tags": tags,
        "create_us": micros(gate.create_time),
        "update_us": micros(gate.update_time),
        "body": to_text(gate),
    }


def _is(key: GateKey, columns: Any) -> sa.ColumnElement[bool]:
    return sa.and_(
        columns.service == key.service,
        columns.environment == key.environment,
        columns.identifier == key.identifier,
    )


class SqlGates:
    """Implements `GateRepository`."""

    def __init__(self, database: Database) -> None:
        """Keep the database."""
        self._database = database

    async def create(self, gate: Gate, audit: AuditRecord) -> Gate:
        """See `GateRepository.create`."""
        async with self._database.write() as connection:
            taken = sa.select(_g.uid).where(_is(gate.key, _g))
            if (await connection.execute(taken)).scalar_one_or_none() is not None:
                raise _taken(gate)
            try:
                await connection.execute(sa.insert(schema.gates).values(**gate.key._asdict(), **_columns(gate)))
            except IntegrityError as error:
                raise _taken(gate) from error
            await self._keep_revision(connection, gate)
            await write_audit(connection, audit)
        return gate

    async def get(self, key: GateKey, revision: int = 0) -> Gate:
        """See `GateRepository.get`."""
        if revision > MAX_INTEGER:
            raise _missing(key, revision)
        if revision:
            # Of gates with the same key, the one that was made last.
            query = (
                sa.select(_r.body).where(_is(key, _r), _r.revision == revision).order_by(_r.sequence.desc()).limit(1)
            )
        else:
            query = sa.select(_g.body).where(_is(key, _g))
        async with self._database.read() as connection:
            body = (await connection.execute(query)).scalar_one_or_none()
        if body is None:
            raise _missing(key, revision)
        return from_text(body, Gate)

    async def list(self, query: ListQuery) -> Page[Gate]:
        """See `GateRepository.list`."""
        order = (_g.service, _g.environment, _g.identifier)
        statement = (
            sa.select(_g.body, *order)
            .where(in_scopes(query.scopes, _g.service, _g.environment))
            .order_by(*order)
            .limit(query.page_size + 1)
        )
        if query.service is not None:
            statement = statement.where(_g.service == query.service)
        if query.environment is not None:
            statement = statement.where(_g.environment == query.environment)
        if query.where is not None:
            statement = statement.where(to_sql(query.where, _FIELDS))
        if query.cursor:
            place = read_cursor(query.cursor, str, str, str)
            statement = statement.where(sa.tuple_(*order) > sa.tuple_(*map(sa.literal, place)))
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        page = rows[: query.page_size]
        more = len(rows) > query.page_size
        return Page(
            tuple(from_text(row.body, Gate) for row in page),
            write_cursor(*page[-1][1:]) if more else "",
        )

    async def list_revisions(self, key: GateKey, page_size: int, cursor: str = "") -> Page[Gate]:
        """See `GateRepository.list_revisions`."""
        statement = (
            sa.select(_r.body, _r.sequence).where(_is(key, _r)).order_by(_r.sequence.desc()).limit(page_size + 1)
        )
        if cursor:
            statement = statement.where(_r.sequence < read_cursor(cursor, int)[0])
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        if not rows and not cursor:
            raise _missing(key)
        page = rows[:page_size]
        more = len(rows) > page_size
        return Page(tuple(from_text(row.body, Gate) for row in page), write_cursor(page[-1].sequence) if more else "")

    async def modify(self, key: GateKey, change: Callable[[Gate], Gate], audit: AuditRecord) -> Gate:
        """See `GateRepository.modify`."""
        async with self._database.write() as connection:
            gate = await self._locked(connection, key)
            changed = change(gate)
            if changed is gate:
                return gate
            if changed.key != key or changed.uid != gate.uid:
                raise ConflictError("GATE_KEY_CHANGED", "a gate keeps its service, environment and identifier")
            await connection.execute(sa.update(schema.gates).where(_is(key, _g)).values(**_columns(changed)))
            await self._keep_revision(connection, changed)
            await write_audit(connection, audit)
        return changed

    async def delete(self, key: GateKey, check: Callable[[Gate], None], audit: AuditRecord) -> None:
        """See `GateRepository.delete`."""
        async with self._database.write() as connection:
            check(await self._locked(connection, key))
            await connection.execute(sa.delete(schema.gates).where(_is(key, _g)))
            await write_audit(connection, audit)

    async def _locked(self, connection: AsyncConnection, key: GateKey) -> Gate:
        query = sa.select(_g.body).where(_is(key, _g)).with_for_update()
        body = (await connection.execute(query)).scalar_one_or_none()
        if body is None:
            raise _missing(key)
        return from_text(body, Gate)

    @staticmethod
    async def _keep_revision(connection: AsyncConnection, gate: Gate) -> None:
        await connection.execute(
            sa.insert(schema.gate_revisions).values(
                uid=gate.uid, revision=gate.revision, body=to_text(gate), **gate.key._asdict()
            )
        )


def _taken(gate: Gate) -> AlreadyExistsError:
    return AlreadyExistsError(
        "GATE_EXISTS",
        f"there is already a gate {gate.identifier!r} of service {gate.service!r} in {gate.environment!r}; "
        "update it, or choose another identifier",
        gate.key._asdict(),
    )
