"""One ``StreamEvaluation`` call: messages in, acknowledgements and updates out.

A reader takes messages off the wire as they come, up to a bound; one step at a time takes all blocks that
are there, judges, and answers. So there is never more than one analysis under way per stream, blocks that
arrive meanwhile are taken together by the next, and a client that sends faster than the analysis runs is
slowed down by flow control.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from tidegate.v1 import evaluation_service_pb2, metrics_pb2

from tidegate_server.api.blocks import count_points
from tidegate_server.api.metrics import encode_seconds
from tidegate_server.errors import Code, RequestError, Violation, invalid, over_limit
from tidegate_server.interceptors import Context
from tidegate_server.live import Evaluation, Evaluations, taken_over

Request = evaluation_service_pb2.StreamEvaluationRequest
Response = evaluation_service_pb2.StreamEvaluationResponse

MAX_PENDING_BLOCKS = 256
MAX_PENDING_BYTES = 4 * 1024 * 1024


class EvaluationStream:
    """The server's side of one call."""

    def __init__(self, evaluations: Evaluations, requests: AsyncIterator[Request], context: Context) -> None:
        """Keep the parts; :meth:`run` does the work."""
        self._evaluations = evaluations
        self._config = evaluations.config
        self._requests = aiter(requests)
        self._context = context
        self._evaluation: Evaluation | None = None
        self._pending: list[tuple[int, bytes]] = []
        self._pending_bytes = 0
        self._counted: deque[tuple[int, int]] = deque()
        self._received = 0
        self._acknowledge = False
        self._everything = False
        self._finish = False
        self._closed = False
        self._draining = False
        self._taken_over = False
        self._failure: Exception | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()

    def take_over(self) -> None:
        """End this stream: another one has the evaluation."""
        self._taken_over = True
        self._changed.set()

    def drain(self) -> None:
        """End this stream after what was read of it."""
        self._draining = True
        self._changed.set()

    async def run(self) -> None:
        """Serve the call to its end.

        Raises
        ------
        RequestError
            When it cannot go on; the evaluation is kept for a while then.
        """
        self._evaluations.enter(self)
        reader: asyncio.Task[None] | None = None
        try:
            self._evaluation = await self._open()
            reader = asyncio.create_task(self._read(self._evaluation))
            await self._serve(self._evaluation)
        finally:
            if reader is not None:
                reader.cancel()
            if self._evaluation is not None:
                # What was not taken will be sent, and counted, again.
                self._forget_taken(self._evaluation.acknowledged)
                self._evaluation.points -= sum(points for _, points in self._counted)
                self._evaluations.release(self._evaluation, self)
            self._evaluations.leave(self)

    def _forget_taken(self, acknowledged: int) -> None:
        """Keep count of the blocks that were received but not taken yet."""
        while self._counted and self._counted[0][0] <= acknowledged:
            self._counted.popleft()

    async def _open(self) -> Evaluation:
        try:
            first = await anext(self._requests)
        except StopAsyncIteration:
            raise invalid([Violation("open", "is needed: the first message of every stream")]) from None
        kind = first.WhichOneof("message") or "an empty one"
        if kind != "open":
            raise invalid([Violation("open", f"must be the first message, not {kind}")])
        opening = first.open
        if opening.resume_evaluation_id:
            evaluation = await self._evaluations.resume(opening.resume_evaluation_id, self)
            if evaluation.acknowledged and evaluation.final is None:  # the client may have missed the last update
                self._everything = True
                self._changed.set()
        else:
            if len(opening.metrics) > self._config.max_series:
                raise over_limit("max_series", self._config.max_series, len(opening.metrics), "declare fewer metrics")
            points = sum(count_points(w.baseline) + count_points(w.canary) for w in opening.history)
            if points > self._config.max_points:
                raise over_limit("max_points", self._config.max_points, points, "send less history")
            evaluation = await self._evaluations.open(opening.SerializeToString(), len(opening.metrics), self)
            evaluation.points = points
        self._received = evaluation.acknowledged
        response = Response()
        response.opened.evaluation_id = evaluation.id
        response.opened.acknowledged_sequence = evaluation.acknowledged
        encode_seconds(response.opened.resume_within, self._config.resume_within_seconds)
        self._evaluation = evaluation  # from here on it is kept, even if the client is gone already
        await self._context.write(response)
        return evaluation

    async def _serve(self, evaluation: Evaluation) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._taken_over:
                raise taken_over(evaluation.id)
            blocks, self._pending, self._pending_bytes = self._pending, [], 0
            everything, self._everything = self._everything, False
            acknowledge, self._acknowledge = self._acknowledge, False
            final = self._finish
            self._room.set()
            if evaluation.final is not None:
                if final or everything or self._closed:
                    await self._context.write(_update(evaluation.final))
                    return
            elif blocks or everything or final:
                before = evaluation.acknowledged
                stepped = await self._evaluations.advance(evaluation, self, blocks, everything=everything, final=final)
                if evaluation.acknowledged > before or acknowledge:
                    await self._acknowledge_up_to(evaluation.acknowledged)
                if stepped.refusal is not None:
                    raise stepped.refusal
                if stepped.update is not None:
                    await self._context.write(_update(stepped.update))
                if final:
                    return
            elif acknowledge:
                await self._acknowledge_up_to(evaluation.acknowledged)
            if not (self._pending or self._everything or self._finish):
                self._end_if_due(evaluation)

    def _end_if_due(self, evaluation: Evaluation) -> None:
        kept = {"evaluation_id": evaluation.id, "acknowledged_sequence": str(evaluation.acknowledged)}
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise RequestError(
                Code.FAILED_PRECONDITION,
                "CLOSED_WITHOUT_FINISH",
                "the client closed the stream without finish, so there is no final verdict; the evaluation "
                f"is kept for {self._config.resume_within_seconds:g} s, resume it and send finish",
                metadata=kept,
            )
        if self._draining:
            raise RequestError(
                Code.UNAVAILABLE,
                "SERVER_DRAINING",
                f"the server shuts down; blocks up to {evaluation.acknowledged} were taken, but it "
                "keeps evaluations in memory: open a new one on another server and send every block again",
                metadata=kept,
                retry_seconds=1.0,
            )

    async def _acknowledge_up_to(self, sequence: int) -> None:
        response = Response()
        response.acknowledgement.sequence = sequence
        await self._context.write(response)

    async def _read(self, evaluation: Evaluation) -> None:
        try:
            async for message in self._requests:
                if self._draining:
                    return
                await self._receive(evaluation, message)
                if self._finish:
                    return
            self._closed = True
        except Exception as error:
            self._failure = error
        finally:
            self._changed.set()

    async def _receive(self, evaluation: Evaluation, message: Request) -> None:
        kind = message.WhichOneof("message")
        if kind == "block":
            await self._receive_block(evaluation, message.block)
        elif kind == "request_update":
            self._everything = True
        elif kind == "finish":
            self._finish = True
        elif kind == "open":
            raise invalid([Violation("open", "the evaluation is open already; open another in a stream of its own")])
        else:
            raise invalid([Violation("message", "is empty; one of block, request_update or finish is needed")])
        self._changed.set()

    async def _receive_block(self, evaluation: Evaluation, block: metrics_pb2.SeriesBlock) -> None:
        if evaluation.final is not None:
            raise RequestError(
                Code.FAILED_PRECONDITION,
                "EVALUATION_FINISHED",
                "the evaluation has its final verdict, this block is too late; request_update tells it again",
                metadata={
                    "evaluation_id": evaluation.id,
                    "acknowledged_sequence": str(evaluation.acknowledged),
                },
            )
        expected = self._received + 1
        if block.sequence != expected:
            if 0 < block.sequence < expected:
                self._acknowledge = True  # taken before: say so again
                return
            raise RequestError(
                Code.INVALID_ARGUMENT,
                "SEQUENCE_GAP",
                f"block.sequence: {block.sequence}; the next block must have {expected}",
                metadata={"expected": str(expected), "got": str(block.sequence)},
                violations=[Violation("block.sequence", f"must be {expected}, not {block.sequence}")],
            )
        points = count_points(block)
        if evaluation.points + points > self._config.max_points:
            raise over_limit(
                "max_points",
                self._config.max_points,
                evaluation.points + points,
                "watch fewer series, or for a shorter time",
            )
        evaluation.arms.add((block.arm, block.instance))
        series = len(evaluation.arms) * evaluation.metrics
        if series > self._config.max_series:
            raise over_limit("max_series", self._config.max_series, series, "send fewer metrics or instances")
        payload = block.SerializeToString()
        while self._pending and (
            len(self._pending) >= MAX_PENDING_BLOCKS or self._pending_bytes + len(payload) > MAX_PENDING_BYTES
        ):
            self._room.clear()
            await self._room.wait()
        evaluation.points += points
        self._forget_taken(evaluation.acknowledged)
        self._counted.append((expected, points))
        self._received = expected
        self._pending.append((expected, payload))
        self._pending_bytes += len(payload)


def _update(serialised: bytes) -> Response:
    response = Response()
    response.update.ParseFromString(serialised)
    return response
