"""Monitors, the states of their groups over time, and downtimes.

A group's timeline is kept as stretches: (start, state, muted), last confirmed at `seen`, believed until
`expire`. The newest stretch of a group is its row in `monitor_groups`; those before it are in
`monitor_spans`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from tidegate_server.gates.errors import AlreadyExistsError, NotFoundError
from tidegate_server.gates.model import MonitorState, StateSpan
from tidegate_server.gates.ports import AuditRecord, PushReceipt, Search
from tidegate_server.monitors.model import Downtime, Monitor, MonitorGroup, MonitorHistory, StatePush
from tidegate_server.monitors.query import Query, select
from tidegate_server.store import schema
from tidegate_server.store.audit import write_audit
from tidegate_server.store.codec import (
    from_text,
    micros,
    optional_micros,
    read_texts,
    seconds,
    to_text,
    write_texts,
)
from tidegate_server.store.database import Database
from tidegate_server.store.monitor_search import search

_m = schema.monitors.c
_g = schema.monitor_groups.c
_s = schema.monitor_spans.c
_d = schema.downtimes.c

# SQLite takes 32766 parameters in a statement, PostgreSQL 32767.
_CHUNK = 500

_Key = tuple[str, str]


@dataclass(slots=True)
class _Stretch:
    """One stretch of a group's timeline. `until` is the start of the next one; None for the newest."""

    start: int
    state: int
    muted: bool
    seen: int
    expire: int | None
    until: int | None = None

    def believed_at(self, time: int) -> bool:
        return self.expire is None or time <= self.expire

    def says(self, push: StatePush) -> bool:
        return self.state == push.state and self.muted == push.muted

    def confirm(self, time: int, expire: int | None) -> None:
        """Takes a push that says the same: the newest one decides how long it is believed."""
        if time >= self.seen:
            self.seen, self.expire = time, expire
        elif self.expire is not None and expire is not None:
            self.expire = max(self.expire, expire)


def _missing(monitor_id: str, group: str | None = None) -> NotFoundError:
    part = "" if group is None else f" with a group {group!r}"
    return NotFoundError("MONITOR_NOT_FOUND", f"there is no monitor {monitor_id!r}{part}", {"monitor_id": monitor_id})


class SqlMonitors:
    """Implements `MonitorRepository`."""

    def __init__(self, database: Database, changed: Callable[[], None] = lambda: None) -> None:
        """Keep the parts; `changed` is called when states, or what mutes them, have changed."""
        self._database = database
        self.changed = changed

    async def push(self, states: Sequence[StatePush], now: float) -> PushReceipt:
        """See `MonitorRepository.push`. Two different states of the same moment are both kept, in their
        order."""
        if not states:
            return PushReceipt(0, 0, 0)
        ids = sorted({state.monitor_id for state in states})

        async def store(connection: AsyncConnection) -> PushReceipt:
            batch = _Batch(connection, self._database, now)
            await batch.load(ids)
            for state in states:
                await batch.take(state)
            await batch.write()
            return PushReceipt(len(states), batch.unchanged, batch.out_of_order)

        def committed(receipt: PushReceipt) -> None:
            if receipt.unchanged < receipt.accepted:
                self.changed()

        return await self._database.write_together(store, committed, weight=len(states))

    async def list(self, *, alive_after: float | None = None) -> Sequence[Monitor]:
        """See `MonitorRepository.list`."""
        alive: sa.ColumnElement[bool] = _m.delete_us.is_(None)
        if alive_after is not None:
            alive = sa.or_(alive, _m.delete_us > micros(alive_after))
        async with self._database.read() as connection:
            return await _read_monitors(connection, alive)

    async def search(self, query: Query, *, after: str, size: int) -> Search:
        """See `MonitorRepository.search`."""
        async with self._database.read() as connection:
            place = await search(connection, query, after, size, is_sqlite=self._database.is_sqlite)
            monitors: list[Monitor] = []
            for at in range(0, len(place.ids), _CHUNK):
                part = place.ids[at : at + _CHUNK]
                monitors += await _read_monitors(connection, sa.and_(_m.id.in_(part), _m.delete_us.is_(None)))
        last = place.ids[-1] if place.more else ""
        return Search(tuple(select(query, monitors)), last, place.total)

    async def get(self, monitor_id: str) -> Monitor:
        """See `MonitorRepository.get`. A deleted monitor is not found."""
        async with self._database.read() as connection:
            found = await _read_monitors(connection, sa.and_(_m.id == monitor_id, _m.delete_us.is_(None)))
        if not found:
            raise _missing(monitor_id)
        return found[0]

    async def histories(self, monitor_ids: Sequence[str], start: float, end: float) -> Mapping[str, MonitorHistory]:
        """See `MonitorRepository.histories`."""
        first, last = micros(start), micros(end)
        ids = list(dict.fromkeys(monitor_ids))
        stretches: dict[_Key, list[_Stretch]] = defaultdict(list)
        groups: dict[str, dict[str, float | None]] = defaultdict(dict)
        monitors: list[Monitor] = []
        async with self._database.read() as connection:
            for at in range(0, len(ids), _CHUNK):
                part = ids[at : at + _CHUNK]
                monitors += await _read_monitors(connection, _m.id.in_(part))
                for key, stretch in await _read_spans(connection, part, first, last):
                    stretches[key].append(stretch)
                newest = await connection.execute(sa.select(schema.monitor_groups).where(_g.monitor_id.in_(part)))
                for row in newest:
                    key = (row.monitor_id, row.group_key)
                    if row.start_us <= last:
                        stretches[key].append(_stretch(row))
                    groups[row.monitor_id][row.group_key] = None if row.delete_us is None else seconds(row.delete_us)
        return {
            monitor.id: MonitorHistory(
                monitor,
                {
                    group: _timeline(stretches[monitor.id, group], last, ended or monitor.delete_time)
                    for group, ended in groups[monitor.id].items()
                },
            )
            for monitor in monitors
        }

    async def delete(self, monitor_id: str, now: float, audit: AuditRecord, *, group: str | None = None) -> None:
        """See `MonitorRepository.delete`."""
        living = sa.and_(_m.id == monitor_id, _m.delete_us.is_(None))
        if group is None:
            statement = sa.update(schema.monitors).where(living).values(delete_us=micros(now))
        else:
            statement = (
                sa.update(schema.monitor_groups)
                .where(
                    _g.monitor_id.in_(sa.select(_m.id).where(living)),
                    _g.group_key == group,
                    _g.delete_us.is_(None),
                )
                .values(delete_us=micros(now))
            )
        async with self._database.write() as connection:
            gone = await connection.execute(statement)
            if gone.rowcount == 0:
                raise _missing(monitor_id, group)
            await write_audit(connection, audit)
        self.changed()

    async def create_downtime(self, downtime: Downtime, audit: AuditRecord) -> Downtime:
        """See `MonitorRepository.create_downtime`."""
        taken = AlreadyExistsError(
            "DOWNTIME_EXISTS", f"there is already a downtime {downtime.id!r}", {"downtime_id": downtime.id}
        )
        async with self._database.write() as connection:
            if (await connection.execute(sa.select(_d.id).where(_d.id == downtime.id))).first() is not None:
                raise taken
            try:
                await connection.execute(sa.insert(schema.downtimes).values(**_downtime_columns(downtime)))
            except IntegrityError as error:
                raise taken from error
            await write_audit(connection, audit)
        return downtime

    async def list_downtimes(self, *, overlapping: tuple[float, float] | None = None) -> Sequence[Downtime]:
        """See `MonitorRepository.list_downtimes`."""
        query = sa.select(_d.body).order_by(_d.start_us, _d.id)
        if overlapping is not None:
            start, end = map(micros, overlapping)
            query = query.where(_d.start_us <= end, sa.or_(_d.end_us.is_(None), _d.end_us >= start))
        async with self._database.read() as connection:
            return [from_text(body, Downtime) for body in (await connection.execute(query)).scalars()]

    async def end_downtime(self, downtime_id: str, now: float, audit: AuditRecord) -> Downtime:
        """See `MonitorRepository.end_downtime`. One that has ended already stays as it is."""
        async with self._database.write() as connection:
            query = sa.select(_d.body).where(_d.id == downtime_id).with_for_update()
            body = (await connection.execute(query)).scalar_one_or_none()
            if body is None:
                raise NotFoundError(
                    "DOWNTIME_NOT_FOUND",
                    f"there is no downtime {downtime_id!r}",
                    {"downtime_id": downtime_id},
                )
            downtime = from_text(body, Downtime)
            if downtime.end_time is not None and downtime.end_time <= now:
                return downtime
            ended = replace(downtime, end_time=max(now, downtime.start_time))
            if downtime.start_time >= now:
                await connection.execute(sa.delete(schema.downtimes).where(_d.id == downtime_id))
            else:
                await connection.execute(
                    sa.update(schema.downtimes).where(_d.id == downtime_id).values(**_downtime_columns(ended))
                )
            await write_audit(connection, audit)
        return ended

    async def delete_before(self, time: float, limit: int) -> int:
        """Deletes stretches that ended before `time`, downtimes and deleted monitors of before it; returns
        how many.

        At most `limit` of each in one transaction. The newest stretch of a living group stays, however old.
        """
        cutoff = micros(time)
        spans = sa.select(_s.monitor_id, _s.group_key, _s.start_us).where(_s.until_us < cutoff).limit(limit).subquery()
        place = sa.tuple_(_s.monitor_id, _s.group_key, _s.start_us)
        statements = [
            sa.delete(schema.monitor_spans).where(place.in_(sa.select(spans))),
            sa.delete(schema.downtimes).where(_d.id.in_(sa.select(_d.id).where(_d.end_us < cutoff).limit(limit))),
            sa.delete(schema.monitors).where(_m.id.in_(sa.select(_m.id).where(_m.delete_us < cutoff).limit(limit))),
        ]
        async with self._database.write() as connection:
            return sum([(await connection.execute(statement)).rowcount for statement in statements])


class _Batch:
    """The states of one push: what is stored is read once, changed here, and written once."""

    def __init__(self, connection: AsyncConnection, database: Database, now: float) -> None:
        self._connection = connection
        self._database = database
        self._now = now
        self._monitors: dict[str, Monitor] = {}
        self._known: dict[str, Monitor] = {}
        self._deleted: dict[str, int] = {}
        self._deleted_groups: dict[_Key, int] = {}
        self._pushed: set[_Key] = set()
        self._newest: dict[_Key, _Stretch] = {}
        self._tags: dict[_Key, tuple[str, ...]] = {}
        self._spans: dict[_Key, list[_Stretch]] = defaultdict(list)
        self.unchanged = 0
        self.out_of_order = 0

    async def load(self, ids: Sequence[str]) -> None:
        for at in range(0, len(ids), _CHUNK):
            part = ids[at : at + _CHUNK]
            query = sa.select(_m.id, _m.delete_us, _m.body).where(_m.id.in_(part)).with_for_update()
            for row in await self._connection.execute(query.order_by(_m.id)):
                self._known[row.id] = from_text(row.body, Monitor)
                if row.delete_us is not None:
                    self._deleted[row.id] = row.delete_us
            for row in await self._connection.execute(sa.select(schema.monitor_groups).where(_g.monitor_id.in_(part))):
                key = (row.monitor_id, row.group_key)
                self._newest[key] = _stretch(row)
                if row.delete_us is not None:
                    self._deleted_groups[key] = row.delete_us
                self._tags[key] = read_texts(row.tags)

    async def take(self, push: StatePush) -> None:
        """Takes one state."""
        self._describe(push)
        key = (push.monitor_id, push.group)
        self._tags[key] = push.group_tags or self._tags.get(key, ())
        self._pushed.add(key)
        time, expire = micros(push.time), optional_micros(push.expire_time)
        fresh = _Stretch(time, int(push.state), push.muted, time, expire)
        newest = self._newest.get(key)
        if newest is None:
            self._newest[key] = fresh
            return
        deleted = self._deleted_groups.get(key, self._deleted.get(push.monitor_id))
        if deleted is not None and newest.seen <= deleted < time:
            # It came back: what was told before it was deleted ends there.
            newest.expire = deleted if newest.expire is None else min(newest.expire, deleted)
        if time < newest.start:
            self.out_of_order += 1
            await self._insert_earlier(key, push, fresh)
        elif newest.says(push) and newest.believed_at(time):
            newest.confirm(time, expire)
            self.unchanged += 1
        elif time < newest.seen:
            # It lies between two confirmations of another state, which held again from the later one on.
            self.out_of_order += 1
            resumed = replace(newest, start=newest.seen)
            fresh.until = resumed.start
            if time == newest.start:
                fresh.start += 1
            self._spans[key] += [replace(newest, until=fresh.start, seen=newest.start), fresh]
            self._newest[key] = resumed
        else:
            if time == newest.start:
                # Both were told of the same moment: keep both, so that no alert is lost to a tie.
                fresh.start = fresh.seen = time + 1
            self._spans[key].append(replace(newest, until=fresh.start))
            self._newest[key] = fresh

    def _describe(self, push: StatePush) -> None:
        """Upserts the monitor; a field that the push leaves empty keeps what was told before."""
        old = self._monitors.get(push.monitor_id) or self._known.get(push.monitor_id)
        if old is None:
            old = Monitor(id=push.monitor_id, name=push.monitor_id, create_time=self._now)
        self._monitors[push.monitor_id] = replace(
            old,
            name=push.name or old.name,
            tags=push.tags or old.tags,
            scope=push.scope or old.scope,
            url=push.url or old.url,
            source=push.source or old.source,
            update_time=self._now,
        )

    async def _insert_earlier(self, key: _Key, push: StatePush, fresh: _Stretch) -> None:
        """Puts a state that came late where it belongs among the earlier stretches."""
        query = (
            sa.select(schema.monitor_spans)
            .where(_s.monitor_id == key[0], _s.group_key == key[1], _s.start_us <= fresh.start)
            .order_by(_s.start_us.desc())
            .limit(1)
        )
        row = (await self._connection.execute(query)).first()
        pending = self._spans[key]
        earlier = [one for one in pending if one.start <= fresh.start]
        if row is not None and all(one.start != row.start_us for one in pending):
            earlier.append(_stretch(row))
        before = max(earlier, key=lambda one: one.start, default=None)
        if before is None:
            later = [one.start for one in pending] + [self._newest[key].start]
            stored = sa.select(sa.func.min(_s.start_us)).where(_s.monitor_id == key[0], _s.group_key == key[1])
            first = (await self._connection.execute(stored)).scalar_one()
            fresh.until = min(later if first is None else [*later, first])
            pending.append(fresh)
            return
        if before.says(push) and before.believed_at(fresh.start):
            before.confirm(fresh.seen, fresh.expire)
            self.unchanged += 1
            self._put(key, before)
            return
        if before.start == fresh.start:
            fresh.start += 1
        until = before.until
        if until is None or fresh.start >= until:
            self.unchanged += 1  # no room between two neighbours of the same moment
            return
        fresh.until = until
        if fresh.start < before.seen < until:
            # The state before was confirmed after this one: it held again from there on.
            self._put(key, replace(before, start=before.seen))
            fresh.until = before.seen
            before.seen = before.start
        before.until = fresh.start
        self._put(key, before)
        self._put(key, fresh)

    def _put(self, key: _Key, stretch: _Stretch) -> None:
        self._spans[key] = [one for one in self._spans[key] if one.start != stretch.start] + [stretch]

    async def write(self) -> None:
        """Writes everything that changed."""
        insert = self._database.insert
        monitors = [
            {
                "id": monitor.id,
                "create_us": micros(monitor.create_time),
                "update_us": micros(monitor.update_time),
                "delete_us": None,
                "body": to_text(monitor),
            }
            for monitor in self._monitors.values()
        ]
        groups = [
            {
                "monitor_id": key[0],
                "group_key": key[1],
                "tags": write_texts(self._tags[key]),
                "state": one.state,
                "muted": one.muted,
                "start_us": one.start,
                "seen_us": one.seen,
                "expire_us": one.expire,
                # A group lives again when it is pushed, not when another one of its monitor is.
                "delete_us": None if key in self._pushed else self._deleted_groups.get(key),
            }
            for key, one in self._newest.items()
            if key[0] in self._monitors and key in self._tags
        ]
        spans = [
            {
                "monitor_id": key[0],
                "group_key": key[1],
                "start_us": one.start,
                "until_us": one.until,
                "state": one.state,
                "muted": one.muted,
                "seen_us": one.seen,
                "expire_us": one.expire,
            }
            for key, many in self._spans.items()
            for one in many
        ]
        for table, rows in (
            (schema.monitors, monitors),
            (schema.monitor_groups, groups),
            (schema.monitor_spans, spans),
        ):
            if not rows:
                continue
            keys = [column.name for column in table.primary_key]
            statement = insert(table)
            statement = statement.on_conflict_do_update(
                index_elements=keys,
                set_={name: statement.excluded[name] for name in rows[0] if name not in keys},
            )
            await self._connection.execute(statement, rows)


def _stretch(row: Any) -> _Stretch:
    return _Stretch(row.start_us, row.state, row.muted, row.seen_us, row.expire_us, getattr(row, "until_us", None))


async def _read_monitors(connection: AsyncConnection, where: sa.ColumnElement[bool]) -> list[Monitor]:
    rows = (
        await connection.execute(
            sa.select(
                _m.id,
                _m.delete_us,
                _m.body,
                _g.group_key,
                _g.tags,
                _g.state,
                _g.muted,
                _g.start_us,
                _g.expire_us,
                _g.delete_us.label("group_delete_us"),
            )
            .select_from(schema.monitors.outerjoin(schema.monitor_groups))
            .where(where)
            .order_by(_m.id, _g.group_key)
        )
    ).all()
    bodies: dict[str, Any] = {}
    groups: dict[str, list[MonitorGroup]] = defaultdict(list)
    for row in rows:
        bodies[row.id] = row
        if row.group_key is not None and row.group_delete_us is None:
            groups[row.id].append(
                MonitorGroup(
                    key=row.group_key,
                    tags=read_texts(row.tags),
                    state=MonitorState(row.state),
                    muted=row.muted,
                    since=seconds(row.start_us),
                    expire_time=None if row.expire_us is None else seconds(row.expire_us),
                )
            )
    return [
        replace(
            from_text(row.body, Monitor),
            groups=tuple(groups[monitor_id]),
            delete_time=None if row.delete_us is None else seconds(row.delete_us),
        )
        for monitor_id, row in bodies.items()
    ]


async def _read_spans(
    connection: AsyncConnection, ids: Sequence[str], first: int, last: int
) -> list[tuple[_Key, _Stretch]]:
    """Stretches of before the newest that touch [first, last], and for each group the two before them."""
    # The one that lasts at `first` overlaps; one more is "the span before", and one in reserve for a late
    # push that split it within the same state.
    rank = (
        sa.func.row_number()
        .over(partition_by=(_s.monitor_id, _s.group_key, _s.until_us >= first), order_by=_s.start_us.desc())
        .label("rank")
    )
    ranked = sa.select(schema.monitor_spans, rank).where(_s.monitor_id.in_(ids), _s.start_us <= last).subquery()
    query = (
        sa.select(ranked)
        .where(sa.or_(ranked.c.until_us >= first, ranked.c.rank <= 2))
        .order_by(ranked.c.monitor_id, ranked.c.group_key, ranked.c.start_us)
    )
    return [((row.monitor_id, row.group_key), _stretch(row)) for row in await connection.execute(query)]


def _timeline(stretches: Sequence[_Stretch], last: int, delete_time: float | None) -> tuple[StateSpan, ...]:
    """Stretches, oldest first, as spans: NO_DATA from where one expired, equal neighbours joined."""
    deleted = None if delete_time is None else micros(delete_time)
    spans: list[StateSpan] = []

    def add(state: MonitorState, start: int, end: int | None, *, muted: bool) -> None:
        if deleted is not None:
            if start >= deleted:
                return
            end = deleted if end is None else min(end, deleted)
        stop = None if end is None else seconds(end)
        if spans and spans[-1].state is state and spans[-1].muted == muted and spans[-1].end == seconds(start):
            spans[-1] = replace(spans[-1], end=stop)
        else:
            spans.append(StateSpan(state, seconds(start), stop, muted))

    for k, one in enumerate(stretches):
        until = stretches[k + 1].start if k + 1 < len(stretches) else one.until
        state = MonitorState(one.state)
        ends = one.expire
        if ends is not None and ends <= last and (until is None or ends < until):
            if ends > one.start:
                add(state, one.start, ends, muted=one.muted)
            add(MonitorState.NO_DATA, max(ends, one.start), until, muted=one.muted)
        else:
            add(state, one.start, until, muted=one.muted)
    return tuple(spans)


def _downtime_columns(downtime: Downtime) -> dict[str, Any]:
    return {
        "id": downtime.id,
        "start_us": micros(downtime.start_time),
        "end_us": optional_micros(downtime.end_time),
        "body": to_text(downtime),
    }
