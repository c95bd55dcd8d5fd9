"""Monitors that a query finds, a page at a time: what SQL can tell is told by SQL, the query tells the rest.

SQL narrows down, and never decides: its lower case knows ASCII alone, and a query compares lower-cased Unicode. So
every condition here lets pass whatever the query might find. What passes is read without what the query does not
look at; monitors are decoded whole for the page alone.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tidegate_server.gates.model import MonitorState
from tidegate_server.monitors.model import Monitor, MonitorGroup
from tidegate_server.monitors.query import AndNode, Node, NotNode, OrNode, Pattern, Query, Term, select
from tidegate_server.store import schema
from tidegate_server.store.codec import read_texts
from tidegate_server.store.filters import contains

_m = schema.monitors.c
_g = schema.monitor_groups.c

_EVERYTHING = Term("name", Pattern("*", wildcard=True))
# Bodies are JSON in ASCII. Lower case turns some letters beyond ASCII into ASCII (the Kelvin sign into k).
_BEYOND_ASCII = "\\u"


@dataclass(frozen=True, slots=True)
class Place:
    """A page of a search: ids in their order, whether more follow, and how many the query finds in all."""

    ids: Sequence[str]
    more: bool
    total: int


async def search(connection: AsyncConnection, query: Query, after: str, size: int, *, is_sqlite: bool) -> Place:
    """Return the ids of the page after an id, "" for the first page."""
    alive = _m.delete_us.is_(None)
    if query.root == _EVERYTHING:
        count = sa.select(sa.func.count()).select_from(schema.monitors).where(alive)
        page = sa.select(_m.id).where(alive, _m.id > after).order_by(_m.id).limit(size + 1)
        total = int((await connection.execute(count)).scalar_one())
        ids = list((await connection.execute(page)).scalars())
        return Place(ids[:size], len(ids) > size, total)
    may = _may_match(query.root, is_sqlite=is_sqlite)
    where = alive if may is None else sa.and_(alive, may)
    rows = (await connection.execute(sa.select(_m.id, _m.body).where(where).order_by(_m.id))).all()
    states: Sequence[Any] = ()
    if query.by_group:
        living = (
            sa.select(_g.monitor_id, _g.group_key, _g.tags, _g.state)
            .select_from(schema.monitor_groups.join(schema.monitors))
            .where(where, _g.delete_us.is_(None))
        )
        states = (await connection.execute(living)).all()
    # Ten thousand monitors take a good part of a second, in which others want answers too.
    found = await asyncio.to_thread(_find, query, rows, states)
    ids = [one for one in found if one > after][: size + 1]
    return Place(ids[:size], len(ids) > size, len(found))


def _find(query: Query, rows: Sequence[Any], states: Sequence[Any]) -> list[str]:
    """Ids of the monitors that a query finds, given the fields alone that queries look at."""
    groups: dict[str, list[MonitorGroup]] = defaultdict(list)
    for row in states:
        groups[row.monitor_id].append(MonitorGroup(row.group_key, read_texts(row.tags), MonitorState(row.state)))
    monitors = (_monitor(row.id, json.loads(row.body), groups.get(row.id, ())) for row in rows)
    return [match.monitor.id for match in select(query, monitors)]


def _monitor(monitor_id: str, body: dict[str, Any], groups: Sequence[MonitorGroup]) -> Monitor:
    return Monitor(
        id=monitor_id,
        name=body["name"],
        tags=tuple(body.get("tags", ())),
        scope=tuple(body.get("scope", ())),
        groups=tuple(groups),
    )


def _may_match(node: Node, *, is_sqlite: bool) -> sa.ColumnElement[bool] | None:
    """What holds for every monitor that a query finds; None when nothing can be told."""
    match node:
        case NotNode():
            return None  # the opposite of "may match" is not "does not match"
        case AndNode(items):
            parts = [_may_match(one, is_sqlite=is_sqlite) for one in items]
            known = [one for one in parts if one is not None]
            return sa.and_(*known) if known else None
        case OrNode(items):
            parts = [_may_match(one, is_sqlite=is_sqlite) for one in items]
            known = [one for one in parts if one is not None]
            return sa.or_(*known) if len(known) == len(parts) else None
        case Term("status", pattern):
            return _may_be_in(MonitorState[pattern.text.upper()])
        case Term("group"):
            return None
        case Term(_, pattern):
            return _may_hold(pattern, is_sqlite=is_sqlite)


def _may_be_in(state: MonitorState) -> sa.ColumnElement[bool]:
    living = sa.and_(_g.monitor_id == _m.id, _g.delete_us.is_(None))
    inside = sa.select(sa.literal(1)).select_from(schema.monitor_groups).where(living).correlate(schema.monitors)
    found = sa.exists(inside.where(_g.state == int(state)))
    # One whose state was never told counts as UNKNOWN.
    return sa.or_(found, ~sa.exists(inside)) if state is MonitorState.UNKNOWN else found


def _may_hold(pattern: Pattern, *, is_sqlite: bool) -> sa.ColumnElement[bool] | None:
    """The text of a pattern, or its longest piece between wildcards, stands somewhere in the monitor's body."""
    pieces = pattern.text.replace("?", "*").split("*") if pattern.wildcard else [pattern.text]
    longest = max(pieces, key=len)
    # JSON writes quotes, backslashes and what is not printable in another way.
    if not longest or not longest.isascii() or not longest.isprintable() or set(longest) & set('"\\'):
        return None
    # Lower case as in ASCII, whatever the locale of the database.
    body = sa.func.lower(_m.body if is_sqlite else sa.collate(_m.body, "C"))
    return sa.or_(contains(body, longest), contains(_m.body, _BEYOND_ASCII))
