"""A real server in a loop of its own thread, and series to send to it."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Self, TypeVar

import grpc
import numpy as np
import tidegate_analysis as ta
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from numpy.typing import NDArray
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate.v1 import evaluation_service_pb2_grpc, metrics_pb2
from tidegate_server.api.blocks import encode_block
from tidegate_server.api.metrics import encode_spec
from tidegate_server.app import Server
from tidegate_server.config import Config
from tidegate_server.pool import AnalysisPool

T = TypeVar("T")
START = 1_700_000_000.0
STEP = 10.0
PATIENCE = 60.0


class Serving:
    """A loop in a thread and two analysis workers, shared by all servers of a test run."""

    def __init__(self) -> None:
        self.pool = AnalysisPool(2)
        self.pool.start()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE)

    @contextmanager
    def server(self, pool: AnalysisPool | None = None, **settings: Any) -> Iterator[Server]:
        """A server on a free port, with other settings than the defaults."""

        async def start() -> Server:
            server = Server(Config(**{"address": "127.0.0.1:0", **settings}), pool or self.pool)
            await server.start()
            return server

        server = self.run(start())
        try:
            yield server
        finally:
            self.run(server.stop())

    def until(self, condition: Callable[[], object]) -> None:
        """Wait until something holds in the loop."""

        async def holds() -> bool:
            return bool(condition())

        patience = time.monotonic() + PATIENCE
        while not self.run(holds()):
            assert time.monotonic() < patience, "did not come to hold"
            time.sleep(0.002)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(PATIENCE)
        self.loop.close()
        self.pool.close()


def specs(names: str = "ab", **fields: Any) -> list[ta.MetricSpec]:
    """Gauges up to whose margin of 10 % a rise is fine."""
    given = {"kind": "gauge", "direction": "up_is_worse", "margin": 0.1, **fields}
    return [ta.MetricSpec(name=name, **given) for name in names]


def arms(
    metrics: int = 2, points: int = 60, *, factor: float = 1.0, row: int = 0, seed: int = 1, noise: float = 0.02
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two arms around 100, shape (metrics, points); the canary's ``row`` is ``factor`` times as high."""
    rng = np.random.default_rng(seed)
    x, y = 100.0 * np.exp(rng.normal(0.0, noise, (2, metrics, points)))
    y[row] *= factor
    return x, y


def block(
    arm: str, values: Any, *, start: float = START, step: float = STEP, sequence: int = 0, **more: Any
) -> metrics_pb2.SeriesBlock:
    """The message of a block."""
    made = ta.Block(arm=arm, start=start, step=step, values=np.atleast_2d(values), **more)
    return encode_block(made, sequence)


def request(x: Any, y: Any, metrics: list[ta.MetricSpec] | None = None, **more: Any) -> es.AnalyzeRequest:
    """An ``AnalyzeRequest`` of one block per arm."""
    chosen = specs("abcdefghij"[: len(np.atleast_2d(x))]) if metrics is None else metrics
    return es.AnalyzeRequest(
        metrics=[encode_spec(spec) for spec in chosen], blocks=[block("baseline", x), block("canary", y)], **more
    )


def opening(metrics: list[ta.MetricSpec] | None = None, **more: Any) -> es.StreamEvaluationRequest:
    """The first message of a stream, without a warm-up."""
    options = es.AnalysisOptions()
    options.warm_up.seconds = 0
    options.warm_up.SetInParent()
    message = es.OpenEvaluation(
        metrics=[encode_spec(spec) for spec in (specs() if metrics is None else metrics)], options=options, **more
    )
    return es.StreamEvaluationRequest(open=message)


UPDATE = es.StreamEvaluationRequest(request_update=es.RequestUpdate())
FINISH = es.StreamEvaluationRequest(finish=es.FinishEvaluation())


class Caller:
    """A plain gRPC client."""

    def __init__(self, target: str, credentials: grpc.ChannelCredentials | None = None) -> None:
        options = [("grpc.max_receive_message_length", -1), ("grpc.use_local_subchannel_pool", 1)]
        self.channel = (
            grpc.insecure_channel(target, options)
            if credentials is None
            else grpc.secure_channel(target, credentials, options)
        )
        self.stub: Any = evaluation_service_pb2_grpc.EvaluationServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def analyze(self, message: es.AnalyzeRequest) -> es.AnalyzeResponse:
        answer: es.AnalyzeResponse = self.stub.Analyze(message, timeout=PATIENCE)
        return answer

    def stream(self, *messages: es.StreamEvaluationRequest) -> Conversation:
        return Conversation(self.stub, *messages)


class Conversation:
    """One ``StreamEvaluation`` call, message by message."""

    def __init__(self, stub: Any, *messages: es.StreamEvaluationRequest) -> None:
        self.outgoing: queue.SimpleQueue[es.StreamEvaluationRequest | None] = queue.SimpleQueue()
        self.sequence = 0
        self.send(*messages)
        self.call = stub.StreamEvaluation(iter(self.outgoing.get, None), timeout=PATIENCE)

    def send(self, *messages: es.StreamEvaluationRequest) -> None:
        for message in messages:
            self.outgoing.put(message)

    def send_block(self, message: metrics_pb2.SeriesBlock, sequence: int | None = None) -> int:
        """Send a block under the next sequence number, or under a given one."""
        self.sequence = self.sequence + 1 if sequence is None else sequence
        message.sequence = self.sequence
        self.send(es.StreamEvaluationRequest(block=message))
        return self.sequence

    def send_arms(self, x: Any, y: Any, start: float = START) -> int:
        """Send a block of each arm."""
        self.send_block(block("baseline", x, start=start))
        return self.send_block(block("canary", y, start=start))

    def close(self) -> None:
        """Say that nothing more will come."""
        self.outgoing.put(None)

    def next(self) -> es.StreamEvaluationResponse:
        message: es.StreamEvaluationResponse = next(self.call)
        return message

    def opened(self) -> es.EvaluationOpened:
        message = self.next()
        assert message.WhichOneof("message") == "opened", message
        return message.opened

    def until_acknowledged(self, sequence: int) -> list[es.VerdictUpdate]:
        """Read until a block is acknowledged; return the updates on the way."""
        updates = []
        while True:
            message = self.next()
            if message.WhichOneof("message") == "update":
                updates.append(message.update)
            elif message.acknowledgement.sequence >= sequence:
                return updates

    def until_update(self, sequence: int = 0) -> es.VerdictUpdate:
        """Read until an update that has seen a block."""
        while True:
            message = self.next()
            if message.WhichOneof("message") == "update" and message.update.sequence >= sequence:
                return message.update

    def final(self) -> es.VerdictUpdate:
        """Read until the final update, which must be the last message."""
        while True:
            message = self.next()
            if message.WhichOneof("message") == "update" and message.update.final:
                assert next(self.call, None) is None
                return message.update

    def error(self) -> Refused:
        """Read to the end, which must be an error."""
        return refused(lambda: list(self.call))

    def cancel(self) -> None:
        """Vanish."""
        self.outgoing.put(None)
        self.call.cancel()


class Refused:
    """What a refusal said."""

    def __init__(self, error: Any) -> None:
        self.code: str = error.code().name
        self.message: str = error.details()
        self.reason = ""
        self.metadata: dict[str, str] = {}
        self.fields: dict[str, str] = {}
        self.retry = False
        status = rpc_status.from_call(error)
        for detail in [] if status is None else status.details:
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                assert info.domain == "tidegate"
                self.reason, self.metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                self.fields = {one.field: one.description for one in bad.field_violations}
            elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                self.retry = True

    def __repr__(self) -> str:
        return f"{self.code} {self.reason}: {self.message}"


def refused(call: Any) -> Refused:
    """Run a call that must be refused."""
    try:
        answer = call()
    except grpc.RpcError as error:
        return Refused(error)
    raise AssertionError(f"was not refused, but answered {str(answer)[:500]}")
