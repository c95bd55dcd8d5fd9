"""Evaluations, their series, and the feed that tells of their changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from tidegate_server.errors import over_limit
from tidegate_server.gates.errors import (
    AlreadyExistsError,
    DomainError,
    NotFoundError,
    PreconditionError,
    RequestReusedError,
)
from tidegate_server.gates.model import Evaluation, EvaluationState, MonitorCheck
from tidegate_server.gates.ports import AuditRecord, BlockReceipt, ListQuery, Page, StoredBlock
from tidegate_server.store import schema
from tidegate_server.store.audit import write_audit
from tidegate_server.store.codec import (
    count_points,
    decode_block,
    decode_evaluation,
    encode_block,
    encode_evaluation,
    micros,
    optional_micros,
    same_numbers,
    seconds,
)
from tidegate_server.store.database import Database
from tidegate_server.store.filters import (
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

if TYPE_CHECKING:
    from tidegate_analysis.batch import Block

_e = schema.evaluations.c
_b = schema.evaluation_blocks.c

_FIELDS: Mapping[str, Field] = {
    "service": text_field(_e.service),
    "environment": text_field(_e.environment),
    "identifier": text_field(_e.identifier),
    "version": text_field(_e.deployed_version),
    "commit": text_field(_e.commit_id),
    "actor": text_field(_e.actor),
    "state": plain_field(_e.state),
    "verdict": plain_field(_e.verdict),
    "decision": plain_field(_e.decision),
    "dry_run": plain_field(_e.dry_run),
    "overridden": plain_field(_e.overridden),
    "label": member_field(_e.labels, ","),
    "create_time": time_field(_e.create_us),
    "end_time": time_field(_e.end_us),
}

# Made once: to make a statement takes longer than to run it.
_KEY: sa.BindParameter[str] = sa.bindparam("key")
_INSERT_BLOCKS = sa.insert(schema.evaluation_blocks)
_FOR_APPEND = sa.select(_e.state, _e.series_complete, _e.points).where(_e.id == _KEY).with_for_update()
# Two numbers from the ends of two indexes, however many blocks there are.
_COUNTS = sa.select(
    sa.select(sa.func.max(_b.position)).where(_b.evaluation_id == _KEY).scalar_subquery(),
    sa.select(sa.func.max(_b.sequence))
    .where(_b.evaluation_id == _KEY, _b.writer == sa.bindparam("by"))
    .scalar_subquery(),
)
_BLOCKS = (
    sa.select(_b.position, _b.writer, _b.sequence, _b.receive_us, _b.header, _b.data)
    .where(_b.evaluation_id == _KEY, _b.position > sa.bindparam("after"))
    .order_by(_b.position)
)

_REPEATED = sa.select(_b.sequence, _b.header, _b.data).where(_b.evaluation_id == _KEY, _b.writer == sa.bindparam("by"))

STORED = (_e.gate, _e.body, _e.results, _e.series_complete)


def evaluation_of(row: Any) -> Evaluation:
    """The evaluation of a row with the columns of `STORED`."""
    return decode_evaluation(row.gate, row.body, row.results, series_complete=row.series_complete)


def columns_of(evaluation: Evaluation) -> dict[str, Any]:
    """The columns that change while an evaluation lives; not its gate, its series, its lease or its due
    time."""
    _, body, results = encode_evaluation(evaluation, gate=False)
    labels = "," + "".join(f"{kind:d}," for kind in sorted({label.kind for label in evaluation.labels}))
    return {
        "overridden": evaluation.override is not None,
        "labels": labels if evaluation.labels else "",
        "state": int(evaluation.state),
        "verdict": int(evaluation.verdict or 0),
        "decision": int(evaluation.standing_decision or 0),
        "end_us": optional_micros(evaluation.end_time),
        "version": evaluation.version,
        "body": body,
        "results": results,
    }


def _missing(evaluation_id: str) -> NotFoundError:
    return NotFoundError(
        "EVALUATION_NOT_FOUND", f"there is no evaluation {evaluation_id!r}", {"evaluation_id": evaluation_id}
    )


class _Encoded(NamedTuple):
    """A block as it is stored; a sequence of 0 is still to be numbered."""

    sequence: int
    points: int
    header: str
    data: bytes


def _unseen(encoded: Sequence[_Encoded], taken: int, writer: str) -> list[_Encoded]:
    """The blocks that follow the last one taken of this writer, numbered.

    Raises:
        PreconditionError: if one is missing between them.
    """
    new: list[_Encoded] = []
    last = taken
    for one in encoded:
        number = one.sequence or last + 1
        if number <= last:
            continue
        if number != last + 1:
            raise PreconditionError(
                "SEQUENCE_GAP",
                f"block {number} of writer {writer!r} came after block {last}; "
                f"nothing of this call was taken, go on with {taken + 1}",
                {"expected_sequence": str(taken + 1), "sequence": str(number)},
            )
        last = number
        new.append(one._replace(sequence=number))
    return new


async def _check_repeated(
    connection: AsyncConnection, evaluation_id: str, writer: str, encoded: Sequence[_Encoded], taken: int
) -> None:
    """Compare the blocks that were taken before with what is stored of them.

    Raises:
        AlreadyExistsError: if one has other points: a writer that lost count would lose them without a word.
    """
    told = {one.sequence: one for one in encoded if 0 < one.sequence <= taken}
    if not told:
        return
    query = _REPEATED.where(_b.sequence.in_(told))
    for row in await connection.execute(query, {"key": evaluation_id, "by": writer}):
        one = told[row.sequence]
        if row.header != one.header or not same_numbers(row.data, one.data):
            raise AlreadyExistsError(
                "SEQUENCE_REUSED",
                f"block {row.sequence} of writer {writer!r} was written before with other points; nothing of this call "
                f"was taken, go on with {taken + 1} or choose another writer",
                {"expected_sequence": str(taken + 1), "sequence": str(row.sequence)},
            )


class SqlFeed:
    """Implements `EvaluationFeed`: told at once of what this process writes, and polls for the rest.

    One query per interval asks for all evaluations that are watched here, however many watchers there are.
    """

    def __init__(self, database: Database, *, poll_seconds: float = 1.0) -> None:
        """Keep the parts; polling starts with the first watcher."""
        self._database = database
        self._poll_seconds = poll_seconds
        self._watched: dict[str, dict[asyncio.Future[bool], int]] = {}
        self._poller: asyncio.Task[None] | None = None

    def tell(self, evaluation_id: str, version: int) -> None:
        """Wakes those who wait for a later version than they saw."""
        for future, after in list(self._watched.get(evaluation_id, {}).items()):
            if version > after and not future.done():
                future.set_result(True)

    async def wait(self, evaluation_id: str, after_version: int, patience: float) -> bool:
        """See `EvaluationFeed.wait`."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        watchers = self._watched.setdefault(evaluation_id, {})
        watchers[future] = after_version
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="evaluation feed")
        try:
            # What was written before we began to wait would otherwise be seen only at the next poll.
            with contextlib.suppress(DomainError):
                await self._ask([evaluation_id])
            await asyncio.wait({future}, timeout=patience)
            return future.done() and not future.cancelled()
        finally:
            del watchers[future]
            if not watchers and self._watched.get(evaluation_id) is watchers:
                del self._watched[evaluation_id]

    async def _ask(self, evaluation_ids: Sequence[str]) -> None:
        for start in range(0, len(evaluation_ids), 500):
            part = evaluation_ids[start : start + 500]
            async with self._database.read() as connection:
                found = await connection.execute(sa.select(_e.id, _e.version).where(_e.id.in_(part)))
                versions = {row.id: row.version for row in found}
            for evaluation_id in part:
                # A watched evaluation that is gone wakes its watchers too: they will find out.
                self.tell(evaluation_id, versions.get(evaluation_id, 2**62))

    async def _poll(self) -> None:
        while self._watched:
            await asyncio.sleep(self._poll_seconds)
            with contextlib.suppress(DomainError):  # the store is away: waiters have their own patience
                await self._ask(list(self._watched))

    async def close(self) -> None:
        """Stops polling; those who wait run into their patience."""
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller


class SqlEvaluations:
    """Implements `EvaluationRepository`.

    Args:
        database: the store.
        feed: told of every change.
        due: called when there is something new to do for the engine of this process.
    """

    def __init__(self, database: Database, feed: SqlFeed, due: Callable[[], None] = lambda: None) -> None:
        """Keep the parts."""
        self._database = database
        self._feed = feed
        self.due = due

    async def create(self, evaluation: Evaluation, fingerprint: str, audit: AuditRecord) -> tuple[Evaluation, bool]:
        """See `EvaluationRepository.create`."""
        gate, _, _ = encode_evaluation(evaluation)
        deployment = evaluation.deployment
        row = {
            "id": evaluation.id,
            "service": deployment.service,
            "environment": deployment.environment,
            "identifier": evaluation.gate.identifier,
            "deployed_version": deployment.version,
            "commit_id": deployment.commit,
            "actor": deployment.actor,
            "dry_run": evaluation.gate.dry_run,
            "create_us": micros(evaluation.create_time),
            "request_id": evaluation.request_id,
            "fingerprint": fingerprint,
            "ensure_key": evaluation.ensure_key,
            "expire_us": optional_micros(evaluation.expire_time),
            "gate": gate,
            "series_complete": evaluation.series_complete,
            "watches_monitors": any(isinstance(rule.check, MonitorCheck) for rule in evaluation.gate.rules),
            "fence": 0,
            "inputs": 0,
            "behind_us": 0,
            **columns_of(evaluation),
        }

        async def store(connection: AsyncConnection) -> tuple[Evaluation, bool]:
            earlier = await self._earlier(connection, evaluation, fingerprint)
            if earlier is not None:
                return earlier, False
            due = None if evaluation.finished else self._database.now
            await connection.execute(sa.insert(schema.evaluations).values(due_us=due), row)
            await write_audit(connection, audit)
            return evaluation, True

        def committed(answer: tuple[Evaluation, bool]) -> None:
            if answer[1]:
                self.due()

        try:
            return await self._database.write_together(store, committed)
        except IntegrityError:
            # Another replica took the request id between our look and our write: now it is there to be found.
            return await self._database.write_together(store, committed)

    async def earlier(self, evaluation: Evaluation, fingerprint: str) -> Evaluation | None:
        """See `EvaluationRepository.earlier`."""
        async with self._database.read() as connection:
            return await self._earlier(connection, evaluation, fingerprint)

    async def _earlier(
        self, connection: AsyncConnection, evaluation: Evaluation, fingerprint: str
    ) -> Evaluation | None:
        place = sa.and_(
            _e.service == evaluation.deployment.service, _e.environment == evaluation.deployment.environment
        )
        if evaluation.request_id:
            query = sa.select(*STORED, _e.fingerprint).where(place, _e.request_id == evaluation.request_id)
            row = (await connection.execute(query)).first()
            if row is not None:
                if row.fingerprint == fingerprint:
                    return evaluation_of(row)
                raise RequestReusedError(
                    "REQUEST_ID_REUSED",
                    f"request_id: {evaluation.request_id!r} was used before for another request; "
                    "repeat that request as it was, or choose a new request_id",
                    {"request_id": evaluation.request_id},
                )
        if evaluation.ensure_key:
            if not self._database.is_sqlite:
                # Two pollers that ask at the same moment must get the same evaluation.
                name = "\0".join(
                    (evaluation.deployment.service, evaluation.deployment.environment, evaluation.ensure_key)
                )
                lock = sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(sa.literal(repr(name)), 0))
                await connection.execute(sa.select(lock))
            living = (
                sa.select(*STORED)
                .where(
                    place,
                    _e.ensure_key == evaluation.ensure_key,
                    _e.expire_us > micros(evaluation.create_time),
                    _e.state != int(EvaluationState.CANCELLED),
                )
                .order_by(_e.create_us.desc(), _e.id.desc())
                .limit(1)
            )
            found = (await connection.execute(living)).first()
            if found is not None:
                return evaluation_of(found)
        return None

    async def get(self, evaluation_id: str) -> Evaluation:
        """See `EvaluationRepository.get`."""
        async with self._database.read() as connection:
            row = (await connection.execute(sa.select(*STORED).where(_e.id == evaluation_id))).first()
        if row is None:
            raise _missing(evaluation_id)
        return evaluation_of(row)

    async def list(self, query: ListQuery) -> Page[Evaluation]:
        """See `EvaluationRepository.list`."""
        statement = (
            sa.select(*STORED, _e.create_us, _e.id)
            .where(in_scopes(query.scopes, _e.service, _e.environment))
            .order_by(_e.create_us.desc(), _e.id.desc())
            .limit(query.page_size + 1)
        )
        if query.service is not None:
            statement = statement.where(_e.service == query.service)
        if query.environment is not None:
            statement = statement.where(_e.environment == query.environment)
        if query.where is not None:
            statement = statement.where(to_sql(query.where, _FIELDS))
        if query.cursor:
            created, last = read_cursor(query.cursor, int, str)
            place = sa.tuple_(sa.literal(created, sa.BigInteger), sa.literal(last))
            statement = statement.where(sa.tuple_(_e.create_us, _e.id) < place)
        async with self._database.read() as connection:
            rows = (await connection.execute(statement)).all()
        page = rows[: query.page_size]
        more = len(rows) > query.page_size
        return Page(
            tuple(evaluation_of(row) for row in page),
            write_cursor(page[-1].create_us, page[-1].id) if more else "",
        )

    async def modify(
        self, evaluation_id: str, change: Callable[[Evaluation], Evaluation], audit: AuditRecord | None
    ) -> Evaluation:
        """See `EvaluationRepository.modify`. A tick that is under way is dropped, and done again on what
        is new."""
        async with self._database.write() as connection:
            query = sa.select(*STORED).where(_e.id == evaluation_id).with_for_update()
            row = (await connection.execute(query)).first()
            if row is None:
                raise _missing(evaluation_id)
            evaluation = evaluation_of(row)
            changed = change(evaluation)
            if changed is evaluation:
                return evaluation
            await connection.execute(
                sa.update(schema.evaluations)
                .where(_e.id == evaluation_id)
                .values(
                    fence=_e.fence + 1,
                    lease_owner=None,
                    lease_us=None,
                    due_us=None if changed.finished else self._database.now,
                    series_complete=changed.series_complete,
                    **columns_of(changed),
                )
            )
            if audit is not None:
                await write_audit(connection, audit)
        self._feed.tell(evaluation_id, changed.version)
        self.due()
        return changed

    async def append_blocks(
        self,
        evaluation_id: str,
        writer: str,
        blocks: Sequence[tuple[int, Block]],
        *,
        complete: bool,
        now: float,
        max_points: int | None = None,
    ) -> BlockReceipt:
        """See `EvaluationRepository.append_blocks`."""
        # Compressed before the transaction: it need not be held for that.
        encoded = [_Encoded(sequence, count_points(block), *encode_block(block)) for sequence, block in blocks]

        async def append(connection: AsyncConnection) -> BlockReceipt:
            row = (await connection.execute(_FOR_APPEND, {"key": evaluation_id})).first()
            if row is None:
                raise _missing(evaluation_id)
            counts = (await connection.execute(_COUNTS, {"key": evaluation_id, "by": writer})).one()
            position, taken_before = (one or 0 for one in counts)
            finished = row.state in (EvaluationState.SUCCEEDED, EvaluationState.CANCELLED)
            completes = complete and not row.series_complete
            repeated = all(0 < one.sequence <= taken_before for one in encoded)
            if finished and (completes or not repeated):
                raise PreconditionError(
                    "EVALUATION_FINISHED",
                    f"evaluation {evaluation_id} is over; it takes no more series",
                    {"evaluation_id": evaluation_id},
                )
            await _check_repeated(connection, evaluation_id, writer, encoded, taken_before)
            new = _unseen(encoded, taken_before, writer)
            last = new[-1].sequence if new else taken_before
            if not new and not completes:
                return BlockReceipt(acknowledged_sequence=last, taken=0)
            points = row.points + sum(one.points for one in new)
            if new and max_points is not None and points > max_points:
                room = max(0, max_points - row.points)
                advice = f"the evaluation has {row.points} points, {room} more may come; write a coarser series"
                raise over_limit("max_points", max_points, points, advice)
            if new:
                rows = [
                    {
                        "evaluation_id": evaluation_id,
                        "position": position + k,
                        "writer": writer,
                        "sequence": one.sequence,
                        "receive_us": micros(now),
                        "header": one.header,
                        "data": one.data,
                    }
                    for k, one in enumerate(new, 1)
                ]
                await connection.execute(_INSERT_BLOCKS, rows)
            await connection.execute(
                sa.update(schema.evaluations)
                .where(_e.id == evaluation_id)
                .values(
                    inputs=_e.inputs + 1,
                    points=points,
                    due_us=self._database.now,
                    series_complete=complete or row.series_complete,
                )
            )
            return BlockReceipt(acknowledged_sequence=last, taken=len(new))

        return await self._database.write_together(append, lambda _: self.due(), weight=len(encoded) or 1)

    async def blocks(
        self, evaluation_id: str, *, after_position: int = 0, limit: int | None = None
    ) -> Sequence[StoredBlock]:
        """See `EvaluationRepository.blocks`."""
        query = _BLOCKS if limit is None else _BLOCKS.limit(limit)
        async with self._database.read() as connection:
            rows = (await connection.execute(query, {"key": evaluation_id, "after": after_position})).all()
        return [
            StoredBlock(
                position=row.position,
                writer=row.writer,
                sequence=row.sequence,
                block=decode_block(row.header, row.data),
                received_time=seconds(row.receive_us),
            )
            for row in rows
        ]

    async def delete(self, evaluation_id: str, audit: AuditRecord) -> None:
        """Deletes one evaluation with everything that hangs on it, whatever its state.

        Raises:
            NotFoundError: if there is none.
        """
        async with self._database.write() as connection:
            gone = await connection.execute(sa.delete(schema.evaluations).where(_e.id == evaluation_id))
            if gone.rowcount == 0:
                raise _missing(evaluation_id)
            await write_audit(connection, audit)
        self._feed.tell(evaluation_id, 2**62)

    async def delete_before(self, time: float, limit: int) -> int:
        """See `EvaluationRepository.delete_before`."""
        old = (
            sa.select(_e.id)
            .where(_e.end_us < micros(time), _e.labels == "", _e.due_us.is_(None))
            .order_by(_e.end_us)
            .limit(limit)
        )
        async with self._database.write() as connection:
            gone = await connection.execute(sa.delete(schema.evaluations).where(_e.id.in_(old)))
            return int(gone.rowcount)
