"""What the domain needs from the outside: small protocols that the store and the engine implement.

Rules for every implementation:

* A method is one transaction. A ``change`` function given to `modify` is pure and may be called again after
  a conflict.
* Errors are those of `tidegate_server.gates.errors`; a store that cannot be reached raises
  `UnavailableError`, one whose disk is full `LimitError`.
* Times are seconds since the epoch; lists are ordered as told at each method and end with ``next_cursor ==
  ""``.
* ``audit`` records are written in the same transaction as what they record.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from tidegate_server.gates.filters import Expression
from tidegate_server.gates.model import Evaluation, Gate, GateKey
from tidegate_server.monitors.model import Downtime, Monitor, MonitorHistory, StatePush
from tidegate_server.monitors.query import Match, Query

if TYPE_CHECKING:
    from tidegate_analysis.batch import Block

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A piece of a list. ``next_cursor`` is opaque to the caller and empty on the last page."""

    items: tuple[T, ...]
    next_cursor: str = ""


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """One line of the append-only audit log. ``detail`` never holds a secret."""

    time: float
    actor: str
    action: str
    resource: str
    service: str = ""
    environment: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What to list. None and "" mean any; ``scopes`` limits to what the caller may see, None is everything.

    A scope is a pair (service pattern, environment pattern); ``*`` and ``?`` are wildcards. An item is
    listed when any of the scopes matches it.
    """

    page_size: int
    cursor: str = ""
    service: str | None = None
    environment: str | None = None
    where: Expression | None = None
    scopes: tuple[tuple[str, str], ...] | None = None


class GateRepository(Protocol):
    """Gates and all their revisions."""

    async def create(self, gate: Gate, audit: AuditRecord) -> Gate:
        """Store a new gate as it is given (revision 1). AlreadyExistsError when its key is taken."""
        ...

    async def get(self, key: GateKey, revision: int = 0) -> Gate:
        """Return a gate; revision 0 is the newest. NotFoundError. Old revisions of deleted gates stay
        readable."""
        ...

    async def list(self, query: ListQuery) -> Page[Gate]:
        """List the newest revisions, by service, environment, identifier. Filter fields:
        filters.GATE_FIELDS."""
        ...

    async def list_revisions(self, key: GateKey, page_size: int, cursor: str = "") -> Page[Gate]:
        """List all revisions of a gate, newest first, those of deleted gates of the same key too.
        NotFoundError."""
        ...

    async def modify(self, key: GateKey, change: Callable[[Gate], Gate], audit: AuditRecord) -> Gate:
        """Read, change, and store as a new revision in one transaction.

        ``change`` returns the gate with its revision already raised, or the same object for "nothing to do"
        (then neither a revision nor an audit record is written). It may raise a RequestError, which is passed
        on.
        """
        ...

    async def delete(self, key: GateKey, check: Callable[[Gate], None], audit: AuditRecord) -> None:
        """Delete a gate; ``check`` may raise a RequestError first. NotFoundError. Revisions stay."""
        ...


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """One series block as it was written. ``position`` counts from 1 within the evaluation, over all writers.

    ``block`` is exactly what the rules got.
    """

    position: int
    writer: str
    sequence: int
    block: Block
    received_time: float


@dataclass(frozen=True, slots=True)
class BlockReceipt:
    """What became of written blocks: the last sequence taken of this writer, and how many were new."""

    acknowledged_sequence: int
    taken: int


class EvaluationRepository(Protocol):
    """Evaluations, their series and what is remembered of them."""

    async def create(self, evaluation: Evaluation, fingerprint: str, audit: AuditRecord) -> tuple[Evaluation, bool]:
        """Store a new evaluation and make it due at once; return it and True.

        When ``evaluation.request_id`` is known already: return the stored evaluation and False if
        ``fingerprint`` (a hash of the request) is the same, else raise
        RequestReusedError. When ``evaluation.ensure_key`` is set and an evaluation of
        that key lives (``expire_time`` after ``evaluation.create_time``, not CANCELLED): return that one and
        False, whatever the fingerprint. Keys and request ids are unique within (service, environment).
        """
        ...

    async def earlier(self, evaluation: Evaluation, fingerprint: str) -> Evaluation | None:
        """Return the stored evaluation that `create` would return in place of this one, None when it would store it.

        Raises as `create`.
        """
        ...

    async def get(self, evaluation_id: str) -> Evaluation:
        """Return an evaluation. NotFoundError."""
        ...

    async def list(self, query: ListQuery) -> Page[Evaluation]:
        """List evaluations, newest first (create_time, then id, descending). Filter fields:
        EVALUATION_FIELDS."""
        ...

    async def modify(
        self, evaluation_id: str, change: Callable[[Evaluation], Evaluation], audit: AuditRecord | None
    ) -> Evaluation:
        """Read, change and store in one transaction, then tell the feed. Returning the same object stores
        nothing."""
        ...

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
        """Append blocks, and make the evaluation due at once.

        Each block comes with its sequence number; sequences up to the last one taken of this writer are
        skipped (a retry), or raise AlreadyExistsError("SEQUENCE_REUSED", ...) when their points are others. A gap
        raises PreconditionError("SEQUENCE_GAP", ...), 0 means "number it for me".
        ``complete`` sets ``series_complete`` in the same transaction.
        PreconditionError("EVALUATION_FINISHED", ...) when it is finished, except for a retry of blocks that
        were all taken before. ``max_points`` limits the points of the evaluation over all its writes: blocks that
        go beyond it are refused with RESOURCE_EXHAUSTED, all of this call.
        """
        ...

    async def blocks(
        self, evaluation_id: str, *, after_position: int = 0, limit: int | None = None
    ) -> Sequence[StoredBlock]:
        """Return the blocks of an evaluation in the order in which they were taken."""
        ...

    async def delete_before(self, time: float, limit: int) -> int:
        """Delete evaluations that ended before ``time``, with their series; return how many. Labelled ones
        stay."""
        ...


class EvaluationFeed(Protocol):
    """Tells of changes, also of those that other replicas made."""

    async def wait(self, evaluation_id: str, after_version: int, patience: float) -> bool:
        """Wait until the stored version may be larger than ``after_version``; False after ``timeout``
        seconds."""
        ...


@dataclass(frozen=True, slots=True)
class PushReceipt:
    """What became of pushed states."""

    accepted: int
    unchanged: int
    out_of_order: int


@dataclass(frozen=True, slots=True)
class Search:
    """A page of the monitors that a query finds, by id, each with the groups that it selects.

    ``next_after`` is the id to go on after, empty on the last page; ``total`` is how many the query finds in all.
    """

    matches: tuple[Match, ...]
    next_after: str
    total: int


class MonitorRepository(Protocol):
    """Monitors, their groups, states over time and downtimes."""

    async def push(self, states: Sequence[StatePush], now: float) -> PushReceipt:
        """Take states; all or none.

        A push upserts the monitor's name, tags, scope and link, and appends to the timeline of its group
        when state or mute changed. A state that is older than the newest one of its group is put where it
        belongs in the timeline. ``expire_time`` of the last push of a group is kept: see `MonitorHistory`.
        """
        ...

    async def list(self, *, alive_after: float | None = None) -> Sequence[Monitor]:
        """Return all monitors with their present groups; with ``alive_after`` also those deleted since
        then."""
        ...

    async def search(self, query: Query, *, after: str, size: int) -> Search:
        """Return at most ``size`` living monitors that a query finds, those whose ids come after ``after``."""
        ...

    async def get(self, monitor_id: str) -> Monitor:
        """Return one monitor. NotFoundError."""
        ...

    async def histories(self, monitor_ids: Sequence[str], start: float, end: float) -> Mapping[str, MonitorHistory]:
        """Return the timelines that overlap ``[start, end]``, with the span that lasts at ``start`` in full.

        One span before ``start`` is included as well, so that "began to fail after" can be told.
        """
        ...

    async def delete(self, monitor_id: str, now: float, audit: AuditRecord, *, group: str | None = None) -> None:
        """Mark a monitor, or one group of it, as deleted. NotFoundError. Its history stays until retention
        takes it.

        A deleted group ends its timeline and is no longer among the monitor's groups.
        """
        ...

    async def create_downtime(self, downtime: Downtime, audit: AuditRecord) -> Downtime:
        """Store a downtime. AlreadyExistsError when its id is taken."""
        ...

    async def list_downtimes(self, *, overlapping: tuple[float, float] | None = None) -> Sequence[Downtime]:
        """Return downtimes by start time; with ``overlapping`` those that touch this time."""
        ...

    async def end_downtime(self, downtime_id: str, now: float, audit: AuditRecord) -> Downtime:
        """End a downtime now (one that has not begun is removed from the future). NotFoundError."""
        ...


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """A bearer token as it is stored: never the token itself, only its hash."""

    id: str
    name: str
    secret_hash: str
    grants: tuple[tuple[str, str, str], ...]
    create_time: float
    created_by: str
    expire_time: float | None = None
    revoke_time: float | None = None
    last_used_time: float | None = None


class TokenRepository(Protocol):
    """Bearer tokens and whether authorisation is on."""

    async def create(self, token: TokenRecord, audit: AuditRecord) -> None:
        """Store a token. AlreadyExistsError when its name is taken by a token that is not revoked."""
        ...

    async def find(self, token_id: str) -> TokenRecord | None:
        """Return a token by its public id, revoked ones too."""
        ...

    async def list(self) -> Sequence[TokenRecord]:
        """Return all tokens, by creation time."""
        ...

    async def revoke(self, token_id: str, now: float, audit: AuditRecord) -> None:
        """Revoke a token. NotFoundError."""
        ...

    async def enabled(self) -> bool:
        """Whether authorisation was switched on."""
        ...

    async def set_enabled(self, enabled: bool, audit: AuditRecord) -> None:
        """Switch authorisation on or off."""
        ...


class AuditLog(Protocol):
    """The append-only log of changes."""

    async def append(self, record: AuditRecord) -> None:
        """Append one record that belongs to no other transaction (a refused call, a login)."""
        ...

    async def list(self, query: ListQuery) -> Page[AuditRecord]:
        """List records, newest first."""
        ...


class MonitorSource(Protocol):
    """A place that monitor states are pulled from (Alertmanager, Prometheus rules)."""

    name: str

    def states(self) -> AsyncIterator[StatePush]:
        """Yield the present states."""
        ...
