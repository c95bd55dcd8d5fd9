"""Evaluations that streams feed: what is known of each, who feeds it, how long it waits for a lost client.

The numbers live in an analysis process. Here is all it takes to build them again after that process died: the
opening, the last saved state, and every block since. Nothing is acknowledged before both have it.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from tidegate_server import worker
from tidegate_server.config import Config
from tidegate_server.errors import Code, RequestError
from tidegate_server.log import Log
from tidegate_server.pool import AnalysisPool, WorkerLostError

ATTEMPTS = 3
"""So often a step is tried when its analysis process dies."""

STATE_EVERY_BYTES = 1024 * 1024
STATE_EVERY_BLOCKS = 512
KEPT_FINISHED = 1024
"""So many final verdicts are kept for clients that did not hear them."""

REMEMBERED = 10_000
"""So many ids of evaluations that are gone are remembered, to say what became of them."""

T = TypeVar("T")

log = Log("live")


class Feeder(Protocol):
    """A stream that feeds an evaluation."""

    def take_over(self) -> None:
        """Another stream feeds the evaluation from now on."""

    def drain(self) -> None:
        """The server ends soon."""


@dataclass(slots=True, eq=False)
class Evaluation:
    """One evaluation. ``acknowledged`` is the last sequence number that cannot get lost any more."""

    id: str
    opening: bytes
    metrics: int
    acknowledged: int = 0
    points: int = 0
    as_of: float | None = None
    arms: set[tuple[int, str]] = field(default_factory=set)
    saved: worker.Saved | None = None
    tail: list[bytes] = field(default_factory=list)
    tail_bytes: int = 0
    final: bytes | None = None
    feeder: Feeder | None = None
    expiry: asyncio.TimerHandle | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def saved_bytes(self) -> int:
        """Size of the saved state, 0 for none."""
        return 0 if self.saved is None else len(self.saved.live)

    @property
    def held_bytes(self) -> int:
        """Memory that the evaluation takes here."""
        return len(self.opening) + self.tail_bytes + self.saved_bytes + len(self.final or b"")


class Evaluations:
    """Every evaluation that this server knows."""

    def __init__(self, pool: AnalysisPool, config: Config) -> None:
        """Start with none."""
        self.pool = pool
        self.config = config
        self.held_bytes = 0
        self._known: dict[str, Evaluation] = {}
        self._waiting: OrderedDict[str, Evaluation] = OrderedDict()
        self._finished: OrderedDict[str, Evaluation] = OrderedDict()
        self._ended: OrderedDict[str, str] = OrderedDict()
        self._feeders: set[Feeder] = set()
        self._under_way: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        """Return how many evaluations are held, those that wait for their client included."""
        return len(self._known)

    async def open(self, opening: bytes, metrics: int, feeder: Feeder) -> Evaluation:
        """Make an evaluation out of a serialised ``OpenEvaluation`` and give it to a feeder.

        Raises
        ------
        RequestError
            When the opening is not as it should be, or the analysis cannot be reached.
        """
        self._check_memory(len(opening))
        evaluation = Evaluation(uuid.uuid4().hex, opening, metrics)
        for attempt in range(ATTEMPTS):
            try:
                await self.pool.run(
                    worker.open_evaluation,
                    evaluation.id,
                    opening,
                    self.config.max_points,
                    key=evaluation.id,
                )
                break
            except WorkerLostError as lost:
                give_up_if_due(lost, attempt)
        evaluation.feeder = feeder
        self._known[evaluation.id] = evaluation
        self.held_bytes += evaluation.held_bytes
        return evaluation

    async def resume(self, evaluation_id: str, feeder: Feeder) -> Evaluation:
        """Give an evaluation to another feeder; the one that had it is told.

        Raises
        ------
        RequestError
            When there is no such evaluation (any more).
        """
        evaluation = self._known.get(evaluation_id)
        if evaluation is None:
            what = self._ended.get(evaluation_id, "is not known to this server")
            raise RequestError(
                Code.NOT_FOUND,
                "EVALUATION_NOT_FOUND",
                f"open.resume_evaluation_id: the evaluation {what}; open a new one and send every block",
                metadata={"evaluation_id": evaluation_id[:64]},
            )
        if evaluation.feeder is not None:
            evaluation.feeder.take_over()
        evaluation.feeder = feeder
        self._waiting.pop(evaluation_id, None)
        self._finished.pop(evaluation_id, None)
        if evaluation.expiry is not None:
            evaluation.expiry.cancel()
            evaluation.expiry = None
        try:
            async with evaluation.lock:  # what the other stream had under way is settled now
                return evaluation
        except BaseException:
            self.release(evaluation, feeder)
            raise

    def release(self, evaluation: Evaluation, feeder: Feeder) -> None:
        """Keep an evaluation whose stream ended, for a while, unless another stream has it."""
        if evaluation.feeder is not feeder:
            return
        evaluation.feeder = None
        if evaluation.id not in self._known:
            return
        finished = evaluation.final is not None
        (self._finished if finished else self._waiting)[evaluation.id] = evaluation
        seconds = self.config.resume_within_seconds
        evaluation.expiry = asyncio.get_running_loop().call_later(
            seconds, self._drop, evaluation, f"was dropped: no client came back within {seconds:g} s"
        )
        self._make_room(self._waiting, self.config.max_kept_evaluations)
        self._make_room(self._finished, KEPT_FINISHED)

    async def advance(
        self,
        evaluation: Evaluation,
        feeder: Feeder,
        blocks: Sequence[tuple[int, bytes]],
        *,
        everything: bool,
        final: bool,
    ) -> worker.Stepped:
        """Take blocks and judge; a step that has begun is carried through even if its stream ends meanwhile.

        Raises
        ------
        RequestError
            When another stream has the evaluation now, or the analysis cannot be reached.
        """
        work = self._advance(evaluation, feeder, blocks, everything, final)
        return await asyncio.shield(self._in_background(work))

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start work that nobody may be waiting for at its end."""
        task = asyncio.get_running_loop().create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task

    async def _advance(
        self,
        evaluation: Evaluation,
        feeder: Feeder,
        blocks: Sequence[tuple[int, bytes]],
        everything: bool,
        final: bool,
    ) -> worker.Stepped:
        async with evaluation.lock:
            if evaluation.feeder not in (feeder, None):
                raise taken_over(evaluation.id)
            size = sum(len(payload) for _, payload in blocks)
            self._check_memory(size)
            request = worker.Step(
                evaluation.id,
                evaluation.acknowledged,
                blocks,
                evaluation.as_of,
                self.config.max_points,
                everything=everything,
                final=final,
                save=not final and self._state_is_due(evaluation, len(blocks), size),
            )
            stepped = await self._step(evaluation, request)
            taken = blocks[: stepped.taken]
            if taken:
                self.held_bytes -= evaluation.held_bytes
                evaluation.acknowledged = taken[-1][0]
                evaluation.as_of = stepped.as_of
                evaluation.tail += [payload for _, payload in taken]
                evaluation.tail_bytes += sum(len(payload) for _, payload in taken)
                if stepped.saved is not None:
                    evaluation.saved, evaluation.tail, evaluation.tail_bytes = stepped.saved, [], 0
                self.held_bytes += evaluation.held_bytes
            if final and stepped.refusal is None:
                self.held_bytes -= evaluation.held_bytes
                evaluation.final = stepped.update
                evaluation.opening, evaluation.saved, evaluation.tail, evaluation.tail_bytes = (
                    b"",
                    None,
                    [],
                    0,
                )
                self.held_bytes += evaluation.held_bytes
            return stepped

    async def _step(self, evaluation: Evaluation, request: worker.Step) -> worker.Stepped:
        for attempt in range(ATTEMPTS):
            try:
                stepped = await self.pool.run(worker.step, request, key=evaluation.id)
            except WorkerLostError as lost:
                give_up_if_due(lost, attempt)
            else:
                if stepped.known:
                    return stepped
            log.info("rebuilding", evaluation=evaluation.id, blocks=len(evaluation.tail))
            build = worker.Rebuild(evaluation.opening, evaluation.saved, tuple(evaluation.tail))
            request = replace(request, rebuild=build)
        raise RequestError(Code.UNAVAILABLE, "ANALYSIS_LOST", "the analysis forgot the evaluation again and again")

    @staticmethod
    def _state_is_due(evaluation: Evaluation, blocks: int, size: int) -> bool:
        # As much again as the state itself, so that saving costs no more than a constant share of the work.
        much = max(STATE_EVERY_BYTES, evaluation.saved_bytes)
        return evaluation.tail_bytes + size >= much or len(evaluation.tail) + blocks >= STATE_EVERY_BLOCKS

    def _check_memory(self, more: int) -> None:
        limit = self.config.max_held_bytes
        while self.held_bytes + more > limit and self._waiting:
            self._drop(next(iter(self._waiting.values())), "was dropped to make room: its stream was gone")
        if self.held_bytes + more > limit:
            raise RequestError(
                Code.RESOURCE_EXHAUSTED,
                "LIMIT_EXCEEDED",
                f"the limit max_held_bytes = {limit} over all open evaluations is reached; try again later",
                metadata={"limit": "max_held_bytes", "value": str(limit)},
                retry_seconds=5.0,
            )

    def _make_room(self, among: OrderedDict[str, Evaluation], most: int) -> None:
        while len(among) > most:
            self._drop(next(iter(among.values())), f"was dropped: more than {most} evaluations wait for a client")

    def _drop(self, evaluation: Evaluation, why: str) -> None:
        if self._known.pop(evaluation.id, None) is None:
            return
        self._waiting.pop(evaluation.id, None)
        self._finished.pop(evaluation.id, None)
        self.held_bytes -= evaluation.held_bytes
        if evaluation.expiry is not None:
            evaluation.expiry.cancel()
        self._ended[evaluation.id] = "has finished" if evaluation.final is not None else why
        while len(self._ended) > REMEMBERED:
            self._ended.popitem(last=False)
        evaluation.gone.set()
        if evaluation.final is None:
            log.info("dropped", evaluation=evaluation.id, why=why)
            self._in_background(self.pool.run(worker.forget, evaluation.id, key=evaluation.id))

    def enter(self, feeder: Feeder) -> None:
        """Note an open stream, so that it hears of a drain."""
        self._feeders.add(feeder)

    def leave(self, feeder: Feeder) -> None:
        """Forget a stream that ended."""
        self._feeders.discard(feeder)

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return len(self._feeders)

    def drain(self) -> None:
        """Tell every open stream that the server ends."""
        for feeder in tuple(self._feeders):
            feeder.drain()


def taken_over(evaluation_id: str) -> RequestError:
    """Return the last word to a stream whose evaluation another stream resumed."""
    return RequestError(
        Code.ABORTED,
        "EVALUATION_TAKEN_OVER",
        "another stream resumed this evaluation; only the newest may feed it",
        metadata={"evaluation_id": evaluation_id},
    )


def give_up_if_due(lost: WorkerLostError, attempt: int) -> None:
    """Return when another attempt makes sense; ``attempt`` counts from 0.

    Raises
    ------
    RequestError
        When the analysis took too long, or its process died as often as allowed.
    """
    if lost.timed_out:
        raise RequestError(
            Code.DEADLINE_EXCEEDED,
            "ANALYSIS_TIMEOUT",
            "the analysis took longer than analysis_timeout_seconds; send fewer series or points",
        ) from None
    if attempt >= ATTEMPTS - 1:
        raise RequestError(
            Code.UNAVAILABLE,
            "ANALYSIS_LOST",
            f"the analysis process died {ATTEMPTS} times; what was acknowledged is safe, try again",
            retry_seconds=1.0,
        ) from None
