"""A synchronous client: series in, verdicts out, without a thought for gRPC.

>>> with TidegateClient("127.0.0.1:7443") as client:                        # doctest: +SKIP
...     answer = client.analyze(metrics=[spec], blocks=[baseline, canary])
...     with client.stream(metrics=[spec]) as stream:
...         stream.send(block)
...         final = stream.finish()
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc
import tidegate_analysis as ta
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status
from tidegate.v1 import (
    deployments_pb2,
    evaluation_service_pb2,
    evaluation_service_pb2_grpc,
    metrics_pb2,
)
from tidegate_analysis.spec import Design

from tidegate_server.api.blocks import encode_block
from tidegate_server.api.metrics import DESIGN_NUMBERS, encode_seconds, encode_spec
from tidegate_server.errors import Violation

Request = evaluation_service_pb2.StreamEvaluationRequest
Update = evaluation_service_pb2.VerdictUpdate

MAX_UNACKNOWLEDGED = 1024
"""So many blocks may be under way; :meth:`EvaluationStream.send` waits then."""

RESUME_ATTEMPTS = 5
OPTIONS = [("grpc.max_receive_message_length", 64 * 1024 * 1024)]


class TidegateError(Exception):
    """A call that the server refused, or that did not reach it.

    Attributes
    ----------
    code:
        The gRPC status code.
    reason:
        ``UPPER_SNAKE``, for programs; empty when the server did not answer.
    metadata:
        Facts for programs.
    violations:
        The fields at fault.
    """

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
    ) -> None:
        """Keep the parts."""
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message
        self.reason = reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)

    @classmethod
    def of(cls, error: Any) -> TidegateError:
        """Return what a ``grpc.RpcError`` says."""
        reason, metadata, violations = "", {}, []
        for detail in _details(error):
            info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(info):
                reason, metadata = info.reason, dict(info.metadata)
            elif detail.Unpack(bad):
                violations = [Violation(one.field, one.description) for one in bad.field_violations]
        return cls(error.code(), error.details() or "", reason, metadata, violations)


def _details(error: Any) -> Sequence[Any]:
    if not callable(getattr(error, "trailing_metadata", None)):
        return ()
    status = rpc_status.from_call(error)
    return () if status is None else list(status.details)


class _Details(NamedTuple):
    """What gRPC wants to know of a call."""

    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.StreamStreamClientInterceptor):
    """Sends a token with every call."""

    def __init__(self, token: str) -> None:
        self._entry = ("authorization", f"Bearer {token}")

    def _with_token(self, details: Any) -> _Details:
        return _Details(
            details.method,
            details.timeout,
            [*(details.metadata or ()), self._entry],
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return continuation(self._with_token(client_call_details), request_iterator)


class TidegateClient:
    """Calls one server.

    Parameters
    ----------
    target:
        ``host:port``, or any gRPC target.
    credentials:
        From :func:`tidegate_server.tls.channel_credentials`; ``None`` is plaintext.
    channel:
        A channel to use instead of one made from target and credentials; it stays open on :meth:`close`.
    timeout:
        Seconds after which a unary call is given up.
    token:
        A bearer token; servers beyond loopback want one. It is sent as it is: give ``credentials`` too.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:7443",
        credentials: grpc.ChannelCredentials | None = None,
        *,
        channel: grpc.Channel | None = None,
        timeout: float = 60.0,
        token: str = "",
    ) -> None:
        """Make the channel; nothing is sent yet."""
        self._own = channel is None
        if channel is None and credentials is None:
            channel = grpc.insecure_channel(target, options=OPTIONS)
        elif channel is None and credentials is not None:
            channel = grpc.secure_channel(target, credentials, options=OPTIONS)
        self._channel = channel
        self._timeout = timeout
        if token and channel is not None:
            channel = grpc.intercept_channel(channel, _Bearer(token))
        self._stub: Any = evaluation_service_pb2_grpc.EvaluationServiceStub(channel)  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the channel and every call on it."""
        if self._own and self._channel is not None:
            self._channel.close()

    def analyze(
        self,
        metrics: Sequence[ta.MetricSpec],
        blocks: Sequence[ta.Block],
        *,
        design: Design = "auto",
        history: Sequence[tuple[ta.Block, ta.Block]] = (),
        false_discovery_rate: float | None = None,
        warm_up: float | None = None,
        deployment: deployments_pb2.Deployment | None = None,
        timeout: float | None = None,
    ) -> evaluation_service_pb2.AnalyzeResponse:
        """Judge series at once.

        Parameters
        ----------
        metrics:
            How each metric is judged.
        blocks:
            The series.
        design:
            Which comparison the verdict rests on.
        history:
            Past windows in which nothing was wrong: pairs of blocks, baseline first.
        false_discovery_rate, warm_up:
            As in ``AnalysisOptions``; seconds. ``None`` takes the default.
        deployment:
            What was deployed.
        timeout:
            Seconds after which the call is given up; ``None`` takes that of the client.

        Raises
        ------
        TidegateError
            When the server refuses it or cannot be reached.
        """
        request = evaluation_service_pb2.AnalyzeRequest(
            metrics=[encode_spec(spec) for spec in metrics],
            design=DESIGN_NUMBERS[design],  # type: ignore[arg-type]
            blocks=[encode_block(block) for block in blocks],
            history=_windows(history),
            options=_options(false_discovery_rate, warm_up, None),
            deployment=deployment,
        )
        try:
            answer: evaluation_service_pb2.AnalyzeResponse = self._stub.Analyze(
                request, timeout=self._timeout if timeout is None else timeout
            )
        except grpc.RpcError as error:
            raise TidegateError.of(error) from None
        return answer

    def stream(
        self,
        metrics: Sequence[ta.MetricSpec],
        *,
        design: Design = "auto",
        history: Sequence[tuple[ta.Block, ta.Block]] = (),
        false_discovery_rate: float | None = None,
        warm_up: float | None = None,
        horizon: float | None = None,
        deployment: deployments_pb2.Deployment | None = None,
        resume: bool = True,
    ) -> EvaluationStream:
        """Open an evaluation that judges series as they come.

        Parameters as in :meth:`analyze`, and ``horizon``: how long it is judged, in seconds from the
        deployment. With ``resume`` a lost connection is taken up again, and what the server had not acknowledged
        is sent again.

        Raises
        ------
        TidegateError
            When the server refuses it or cannot be reached.
        """
        opening = evaluation_service_pb2.OpenEvaluation(
            metrics=[encode_spec(spec) for spec in metrics],
            design=DESIGN_NUMBERS[design],  # type: ignore[arg-type]
            history=_windows(history),
            options=_options(false_discovery_rate, warm_up, horizon),
            deployment=deployment,
        )
        return EvaluationStream(self._stub, opening, resume=resume)


def _windows(history: Sequence[tuple[ta.Block, ta.Block]]) -> list[metrics_pb2.HistoryWindow]:
    return [
        metrics_pb2.HistoryWindow(baseline=encode_block(baseline), canary=encode_block(canary))
        for baseline, canary in history
    ]


def _options(
    rate: float | None, warm_up: float | None, horizon: float | None
) -> evaluation_service_pb2.AnalysisOptions:
    options = evaluation_service_pb2.AnalysisOptions(false_discovery_rate=rate)
    if warm_up is not None:
        encode_seconds(options.warm_up, warm_up)
    if horizon is not None:
        encode_seconds(options.horizon, horizon)
    return options


class EvaluationStream:
    """One evaluation, fed block by block. Made by :meth:`TidegateClient.stream`.

    A thread of its own reads what the server says; all methods may be called from any thread.

    Attributes
    ----------
    evaluation_id:
        The evaluation's id at the server.
    """

    def __init__(self, stub: Any, opening: evaluation_service_pb2.OpenEvaluation, *, resume: bool = True) -> None:
        """Open the evaluation and wait until the server knows it."""
        self.evaluation_id = ""
        self._stub = stub
        self._opening = opening
        self._resume = resume
        self._changed = threading.Condition()
        self._unacknowledged: deque[tuple[int, metrics_pb2.SeriesBlock]] = deque()
        self._sequence = 0
        self._finishing = False
        self._closing = False
        self._outgoing: queue.SimpleQueue[Request | None] | None = None
        self._call: Any = None
        self._updates: queue.SimpleQueue[Update | TidegateError | None] = queue.SimpleQueue()
        self._final: Update | None = None
        self._failure: TidegateError | None = None
        self._stopped = threading.Event()
        self._patience = threading.Event()
        self._reader = threading.Thread(target=self._run, name="tidegate-stream", daemon=True)
        self._reader.start()
        with self._changed:
            self._changed.wait_for(lambda: self.evaluation_id or self._failure)
        self._check()

    @property
    def acknowledged_sequence(self) -> int:
        """The last block that the server cannot lose any more."""
        with self._changed:
            return self._unacknowledged[0][0] - 1 if self._unacknowledged else self._sequence

    def send(self, block: ta.Block) -> int:
        """Send a block and return its sequence number; waits while too many are not acknowledged.

        Raises
        ------
        TidegateError
            When the stream has failed.
        ValueError
            After :meth:`finish`.
        """
        with self._changed:
            if self._finishing:
                raise ValueError("send: the evaluation was finished already")
            self._changed.wait_for(
                lambda: len(self._unacknowledged) < MAX_UNACKNOWLEDGED or self._failure or self._closing
            )
            self._check()
            self._sequence += 1
            message = encode_block(block, self._sequence)
            self._unacknowledged.append((self._sequence, message))
            if self._outgoing is not None:
                self._outgoing.put(Request(block=message))
            return self._sequence

    def request_update(self) -> None:
        """Ask for an update with all findings.

        Raises
        ------
        TidegateError
            When the stream has failed.
        """
        with self._changed:
            self._check()
            if self._outgoing is not None:
                self._outgoing.put(Request(request_update=evaluation_service_pb2.RequestUpdate()))

    def finish(self, timeout: float | None = None) -> Update:
        """Say that no more blocks will come, and wait for the final verdict.

        Raises
        ------
        TidegateError
            When the stream has failed, or the verdict did not come in time.
        """
        with self._changed:
            self._check()
            if not self._finishing:
                self._finishing = True
                if self._outgoing is not None:
                    self._outgoing.put(Request(finish=evaluation_service_pb2.FinishEvaluation()))
        if not self._stopped.wait(timeout):
            raise TidegateError(grpc.StatusCode.DEADLINE_EXCEEDED, f"no final verdict within {timeout:g} s")
        self._check()
        if self._final is None:
            raise TidegateError(grpc.StatusCode.CANCELLED, "the stream was closed")
        return self._final

    def __iter__(self) -> Iterator[Update]:
        """Yield updates as they come, the final one last.

        Raises
        ------
        TidegateError
            When the stream has failed.
        """
        return self.updates()

    def updates(self, wait: float | None = None) -> Iterator[Update]:
        """Yield updates; end after the final one, or when none came for ``wait`` seconds.

        Raises
        ------
        TidegateError
            When the stream has failed.
        """
        while True:
            try:
                item = self._updates.get(block=wait != 0, timeout=wait or None)
            except queue.Empty:
                return
            if item is None or isinstance(item, TidegateError):
                self._updates.put(item)  # for whoever asks next
                if item is None:
                    return
                raise item
            yield item

    def close(self) -> None:
        """Leave the stream; without :meth:`finish` before, the server keeps the evaluation for a while."""
        with self._changed:
            self._closing = True
            self._patience.set()
            if self._outgoing is not None:
                self._outgoing.put(None)
            if self._call is not None:
                self._call.cancel()
            self._changed.notify_all()
        self._stopped.wait(5.0)

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        """In the reader's thread: serve calls until the evaluation is over."""
        attempts = 0
        try:
            while True:
                failure = self._serve_call()
                if failure is None or self._closing:
                    return
                resumable = (
                    failure.code == grpc.StatusCode.UNAVAILABLE
                    and failure.reason != "SERVER_DRAINING"
                    and self._resume
                    and bool(self.evaluation_id)
                )
                attempts = attempts + 1 if self._outgoing is None else 1
                with self._changed:
                    self._outgoing = None
                if not resumable or attempts > RESUME_ATTEMPTS:
                    with self._changed:
                        self._failure = failure
                    return
                self._patience.wait(0.1 * 2**attempts)
        finally:
            self._updates.put(self._failure)
            self._stopped.set()
            with self._changed:
                self._changed.notify_all()

    def _serve_call(self) -> TidegateError | None:
        """Run one call to its end; return why it failed, ``None`` when the final verdict came."""
        outgoing: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        opening = self._opening
        if self.evaluation_id:
            opening = evaluation_service_pb2.OpenEvaluation(resume_evaluation_id=self.evaluation_id)
        outgoing.put(Request(open=opening))
        call = self._stub.StreamEvaluation(iter(outgoing.get, None))
        with self._changed:
            self._call = call
            if self._closing:
                call.cancel()
        try:
            for response in call:
                kind = response.WhichOneof("message")
                if kind == "opened":
                    self._opened(response.opened, outgoing)
                elif kind == "acknowledgement":
                    self._acknowledged(response.acknowledgement.sequence)
                elif kind == "update":
                    if response.update.final:
                        self._final = response.update
                    self._updates.put(response.update)
        except grpc.RpcError as error:
            return TidegateError.of(error)
        finally:
            outgoing.put(None)
        if self._final is None:
            return TidegateError(grpc.StatusCode.UNAVAILABLE, "the stream ended without a final verdict")
        return None

    def _opened(
        self, opened: evaluation_service_pb2.EvaluationOpened, outgoing: queue.SimpleQueue[Request | None]
    ) -> None:
        with self._changed:
            self.evaluation_id = opened.evaluation_id
            while self._unacknowledged and self._unacknowledged[0][0] <= opened.acknowledged_sequence:
                self._unacknowledged.popleft()
            for _, message in self._unacknowledged:
                outgoing.put(Request(block=message))
            if self._finishing:
                outgoing.put(Request(finish=evaluation_service_pb2.FinishEvaluation()))
            self._outgoing = outgoing
            self._changed.notify_all()

    def _acknowledged(self, sequence: int) -> None:
        with self._changed:
            while self._unacknowledged and self._unacknowledged[0][0] <= sequence:
                self._unacknowledged.popleft()
            self._changed.notify_all()
