"""Due evaluations as a work queue: claimed under a lease, stored only under the fence of that claim.

Leases and due times are compared with the store's clock only. That clock may jump. Forwards, a lease lapses
early and another replica may repeat a tick; the fence lets one of the two be stored. Backwards, times lie
further ahead than anybody would have set them; such times count as past, so nothing waits for the clock to
come back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from tidegate_server.gates.model import Evaluation
from tidegate_server.store import schema
from tidegate_server.store.database import Database
from tidegate_server.store.evaluations import STORED, SqlFeed, columns_of, evaluation_of

_e = schema.evaluations.c


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to do one tick of one evaluation, until the lease lapses or somebody else writes the
    evaluation.

    Times are microseconds of the store's clock. `tick_us` is None before the first tick; `behind_us` is how
    far the evaluation's own time stands behind the clock (see `engine.clock`); `due_us` is when the tick was due.
    """

    evaluation_id: str
    owner: str
    fence: int
    version: int
    inputs: int
    series_complete: bool
    now_us: int
    tick_us: int | None
    behind_us: int
    due_us: int


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick came to. `wait_us` is how long until the next one; None when there is none."""

    claim: Claim
    evaluation: Evaluation
    wait_us: int | None
    behind_us: int


def _held(claims: Sequence[Claim], *, due: bool = False) -> sa.Select[Any]:
    """The ids of claims that still hold, locked in the order in which everybody locks several: by id.

    With `due`, only those of evaluations that are not over.
    """
    mine: sa.ColumnElement[bool] = sa.tuple_(_e.id, _e.fence).in_(
        [(claim.evaluation_id, claim.fence) for claim in claims]
    )
    if due:
        mine = sa.and_(mine, _e.due_us.is_not(None))
    locked = (
        sa.select(_e.id).where(mine, _e.lease_owner == claims[0].owner).order_by(_e.id).with_for_update().cte("held")
    )
    return sa.select(locked.c.id)


class SqlWork:
    """The engine's side of the evaluations.

    Args:
        database: the store.
        feed: told of what ticks changed.
        lease_us: how long a claim holds without renewal.
        longest_wait_us: no evaluation waits longer between two ticks; a due time further ahead was set before
            the clock went backwards.
    """

    def __init__(self, database: Database, feed: SqlFeed, *, lease_us: int, longest_wait_us: int) -> None:
        """Keep the parts."""
        self._database = database
        self._feed = feed
        self.lease_us = lease_us
        self.longest_wait_us = longest_wait_us

    def _claim(self, owner: str, limit: int, *, past: bool) -> sa.Update:
        """Claims what was due before now, or what is due later than anything could be that was set by this clock.

        Each is one end of the index by due time, however many evaluations wait in between.
        """
        # The clock is read here, not when the claim was asked for: it may have waited for its turn.
        now = self._database.now
        due = (
            sa.select(_e.id)
            .where(
                _e.due_us.is_not(None),
                _e.due_us <= now if past else _e.due_us > now + self.longest_wait_us,
                sa.or_(_e.lease_us.is_(None), _e.lease_us <= now, _e.lease_us > now + self.lease_us),
            )
            .order_by(_e.due_us)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        return (
            sa.update(schema.evaluations)
            .where(_e.id.in_(sa.select(due.c.id)))
            .values(lease_owner=owner, lease_us=now + self.lease_us, fence=_e.fence + 1)
            .returning(
                _e.id,
                _e.fence,
                _e.version,
                _e.inputs,
                _e.series_complete,
                _e.tick_us,
                _e.behind_us,
                _e.due_us,
                now.label("now_us"),
            )
        )

    async def claim(self, owner: str, limit: int) -> Sequence[Claim]:
        """Takes up to `limit` evaluations that are due, those that wait longest first.

        Raises:
            UnavailableError: if the store cannot be reached.
        """

        async def take(connection: AsyncConnection) -> list[Any]:
            rows: list[Any] = []
            for past in (True, False):
                if len(rows) < limit:
                    rows += (await connection.execute(self._claim(owner, limit - len(rows), past=past))).all()
            return rows

        rows = await self._database.write_together(take)
        return [
            Claim(
                evaluation_id=row.id,
                owner=owner,
                fence=row.fence,
                version=row.version,
                inputs=row.inputs,
                series_complete=row.series_complete,
                now_us=row.now_us,
                tick_us=row.tick_us,
                behind_us=row.behind_us,
                due_us=row.due_us,
            )
            for row in rows
        ]

    async def load(self, evaluation_ids: Sequence[str]) -> Mapping[str, Evaluation]:
        """The evaluations as they are stored now; one that is gone is left out."""
        if not evaluation_ids:
            return {}
        async with self._database.read() as connection:
            rows = await connection.execute(sa.select(_e.id, *STORED).where(_e.id.in_(evaluation_ids)))
            return {row.id: evaluation_of(row) for row in rows}

    async def store(self, ticks: Sequence[Tick]) -> frozenset[str]:
        """Stores ticks in one transaction, each only if its claim still holds; returns the ids of those
        stored.

        A tick whose claim is lost changes nothing. A finished evaluation has no due time, so nothing can
        claim, and nothing can store, a second verdict.

        Raises:
            UnavailableError: if the store cannot be reached; nothing, or everything, was stored then, and
                storing again is safe.
            LimitError: if the store is full; nothing was stored.
        """
        if not ticks:
            return frozenset()
        by_id = {tick.claim.evaluation_id: tick for tick in ticks}
        changed = [tick for tick in ticks if tick.evaluation.version != tick.claim.version]
        written = {tick.claim.evaluation_id: columns_of(tick.evaluation) for tick in changed}

        async def write(connection: AsyncConnection) -> frozenset[str]:
            # What is locked here stays as it is until the end of the transaction.
            found = await connection.execute(_held([tick.claim for tick in ticks], due=True))
            stored = frozenset(found.scalars())
            for with_columns in (False, True):
                rows = [
                    self._row(by_id[key]) | written.get(key, {}) for key in stored if (key in written) is with_columns
                ]
                if rows:
                    await connection.execute(self._update(rows[0]), rows)
            return stored

        def committed(stored: frozenset[str]) -> None:
            for key in stored:
                self._feed.tell(key, by_id[key].evaluation.version)

        return await self._database.write_together(write, committed, weight=len(ticks))

    def _row(self, tick: Tick) -> dict[str, Any]:
        return {
            "key": tick.claim.evaluation_id,
            "over": tick.wait_us is None,
            "wait": min(tick.wait_us or 0, self.longest_wait_us),
            "seen_inputs": tick.claim.inputs,
            "tick_us": tick.claim.now_us,
            "behind_us": tick.behind_us,
        }

    def _update(self, row: Mapping[str, Any]) -> sa.Update:
        """One statement for many rows like this one."""
        now = self._database.now
        due = sa.case(
            (sa.bindparam("over", type_=sa.Boolean), sa.null()),
            # Series that came while the tick ran make it due again at once.
            (_e.inputs == sa.bindparam("seen_inputs"), now + sa.bindparam("wait", type_=sa.BigInteger)),
            else_=now,
        )
        columns: dict[str, Any] = {
            name: sa.bindparam(name) for name in row if name not in ("key", "over", "wait", "seen_inputs")
        }
        return (
            sa.update(schema.evaluations)
            .where(_e.id == sa.bindparam("key"))
            .values(due_us=due, lease_owner=None, lease_us=None, **columns)
        )

    async def renew(self, claims: Sequence[Claim]) -> frozenset[str]:
        """Prolongs the leases of claims that still hold; returns their ids. The others are lost."""
        if not claims:
            return frozenset()
        statement = (
            sa.update(schema.evaluations)
            .where(_e.id.in_(_held(claims)))
            .values(lease_us=self._database.now + self.lease_us)
            .returning(_e.id)
        )
        async with self._database.write() as connection:
            return frozenset((await connection.execute(statement)).scalars())

    async def release(self, claims: Sequence[Claim]) -> None:
        """Gives claims back undone: any replica may take them at once."""
        if not claims:
            return
        statement = (
            sa.update(schema.evaluations).where(_e.id.in_(_held(claims))).values(lease_owner=None, lease_us=None)
        )
        async with self._database.write() as connection:
            await connection.execute(statement)

    async def nudge(self, limit: int = 64) -> int:
        """Makes evaluations that watch monitors due now, as states have changed; returns how many.

        At most `limit`, those first that were looked at longest ago: where states change every second and thousands
        watch, the look that each takes anyway every few seconds must do.
        """
        now = self._database.now
        watching = sa.select(_e.id).where(
            _e.due_us.is_not(None), _e.watches_monitors, _e.due_us > now, _e.lease_us.is_(None)
        )
        statement = (
            sa.update(schema.evaluations)
            .where(_e.id.in_(watching.order_by(_e.tick_us).limit(limit).with_for_update(skip_locked=True)))
            .values(due_us=now)
        )
        async with self._database.write() as connection:
            return int((await connection.execute(statement)).rowcount)

    async def next_due(self) -> tuple[int, int | None]:
        """The store's clock, and the earliest moment at which something can be claimed (None: nothing
        waits)."""
        free = sa.case((_e.lease_us > _e.due_us, _e.lease_us), else_=_e.due_us)
        now = self._database.now
        waiting = sa.select(sa.func.min(free)).where(_e.due_us.is_not(None), _e.due_us <= now)
        # Whatever is leased was due; should the clock have gone back since, asking once more does no harm.
        later = sa.select(sa.func.min(_e.due_us)).where(_e.due_us.is_not(None), _e.due_us > now)
        query = sa.select(now.label("now_us"), waiting.scalar_subquery(), later.scalar_subquery())
        async with self._database.read() as connection:
            now_us, *found = (await connection.execute(query)).one()
        return now_us, min((one for one in found if one is not None), default=None)

    async def count(self) -> int:
        """How many evaluations are not through."""
        query = sa.select(sa.func.count()).select_from(schema.evaluations).where(_e.due_us.is_not(None))
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())
