"""The synchronous client: on grpcio-testing's channel, and against a real server that loses it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, TypeVar

import grpc
import grpc_testing
import numpy as np
import pytest
import tidegate_analysis as ta
from google.rpc import status_pb2
from grpc_status import rpc_status
from tidegate.v1 import deployments_pb2, evaluation_service_pb2, findings_pb2, metrics_pb2
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate_server.app import Server
from tidegate_server.client import MAX_UNACKNOWLEDGED, TidegateClient, TidegateError
from tidegate_server.errors import Code, RequestError, Violation
from tidegate_server.interceptors import to_status

from tests.server.harness import PATIENCE, START, STEP, Serving, arms, specs

T = TypeVar("T")
SERVICE = evaluation_service_pb2.DESCRIPTOR.services_by_name["EvaluationService"]
ANALYZE, STREAM = SERVICE.methods_by_name["Analyze"], SERVICE.methods_by_name["StreamEvaluation"]


@pytest.fixture
def channel() -> Iterator[Any]:
    made = grpc_testing.channel([SERVICE], grpc_testing.strict_real_time())
    yield made
    made.close()


def aside(work: Callable[[], T]) -> Future[T]:
    """Run the client's call in a thread, while the test plays the server."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def blocks(x: np.ndarray, y: np.ndarray, first: int = 0) -> list[ta.Block]:
    start = START + first * STEP
    return [ta.Block("baseline", start, STEP, x), ta.Block("canary", start, STEP, y)]


def status_of(error: RequestError) -> tuple[Any, grpc.StatusCode, str]:
    status: status_pb2.Status = to_status(error)
    made = rpc_status.to_status(status)
    return made.trailing_metadata, made.code, made.details


def test_analyze_sends_what_was_given(channel: Any) -> None:
    x, y = arms()
    x[0, 0] = np.nan
    answer = es.AnalyzeResponse(verdict=findings_pb2.VERDICT_PASS, sentence="fine")
    client = TidegateClient(channel=channel)
    deployment = deployments_pb2.Deployment(service="shop", environment="prod")
    call = aside(
        lambda: client.analyze(
            specs(),
            blocks(x, y),
            design="concurrent",
            history=[tuple(blocks(x, y))],  # type: ignore[list-item]
            false_discovery_rate=0.1,
            warm_up=1.5,
            deployment=deployment,
        )
    )
    _, request, rpc = channel.take_unary_unary(ANALYZE)
    rpc.terminate(answer, (), grpc.StatusCode.OK, "")
    assert call.result(PATIENCE) == answer
    assert [metric.name for metric in request.metrics] == ["a", "b"]
    assert request.metrics[0].margin == 0.1
    assert request.design == metrics_pb2.DESIGN_CONCURRENT
    assert (request.options.false_discovery_rate, request.options.warm_up.nanos) == (0.1, 500_000_000)
    assert request.deployment == deployment
    sent = request.blocks[0]
    assert (sent.arm, sent.phase, sent.columns) == (metrics_pb2.ARM_BASELINE, metrics_pb2.PHASE_POST, 60)
    assert np.array_equal(np.asarray(sent.values).reshape(2, 60), x, equal_nan=True)
    assert request.history[0].canary.columns == 60


def test_a_refusal_is_told_in_full(channel: Any) -> None:
    client = TidegateClient(channel=channel)
    call = aside(lambda: client.analyze([], []))
    _, _, rpc = channel.take_unary_unary(ANALYZE)
    violation = Violation("metrics", "at least one metric is needed")
    refusal = RequestError(
        Code.INVALID_ARGUMENT, "INVALID_REQUEST", "no", metadata={"a": "b"}, violations=[violation], retry_seconds=1
    )
    trailing, code, details = status_of(refusal)
    rpc.terminate(None, trailing, code, details)
    with pytest.raises(TidegateError) as caught:
        call.result(PATIENCE)
    error = caught.value
    assert (error.code, error.reason, error.message) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "no")
    assert error.metadata == {"a": "b"}
    assert error.violations == (violation,)


def test_a_stream_on_the_testing_channel(channel: Any) -> None:
    x, y = arms()
    client = TidegateClient(channel=channel)
    opening = aside(lambda: client.stream(specs(), warm_up=0.0, horizon=60.0))
    _, rpc = channel.take_stream_stream(STREAM)
    opened = rpc.take_request()
    assert opened.open.options.horizon.seconds == 60
    assert opened.open.options.HasField("warm_up")
    rpc.send_response(es.StreamEvaluationResponse(opened=es.EvaluationOpened(evaluation_id="e1")))
    stream = opening.result(PATIENCE)
    assert stream.evaluation_id == "e1"
    assert [stream.send(one) for one in blocks(x, y)] == [1, 2]
    assert [rpc.take_request().block.sequence for _ in range(2)] == [1, 2]
    assert stream.acknowledged_sequence == 0
    stream.request_update()
    assert rpc.take_request().WhichOneof("message") == "request_update"
    rpc.send_response(es.StreamEvaluationResponse(acknowledgement=es.Acknowledgement(sequence=2)))
    update = es.VerdictUpdate(verdict=findings_pb2.VERDICT_INCONCLUSIVE, sequence=2)
    rpc.send_response(es.StreamEvaluationResponse(update=update))
    updates = iter(stream)
    assert next(updates) == update
    assert stream.acknowledged_sequence == 2
    finishing = aside(lambda: stream.finish(PATIENCE))
    assert rpc.take_request().WhichOneof("message") == "finish"
    final = es.VerdictUpdate(verdict=findings_pb2.VERDICT_PASS, final=True)
    rpc.send_response(es.StreamEvaluationResponse(update=final))
    rpc.terminate((), grpc.StatusCode.OK, "")
    assert finishing.result(PATIENCE) == final
    assert list(updates) == [final]
    with pytest.raises(ValueError, match="finished already"):
        stream.send(blocks(x, y)[0])


def test_a_lost_stream_is_resumed_and_what_was_not_acknowledged_is_sent_again(channel: Any) -> None:
    x, y = arms()
    client = TidegateClient(channel=channel)
    opening = aside(lambda: client.stream(specs()))
    _, rpc = channel.take_stream_stream(STREAM)
    rpc.take_request()
    rpc.send_response(es.StreamEvaluationResponse(opened=es.EvaluationOpened(evaluation_id="e1")))
    stream = opening.result(PATIENCE)
    for one in blocks(x, y) * 2:
        stream.send(one)
    rpc.terminate((), grpc.StatusCode.UNAVAILABLE, "connection lost")
    _, again = channel.take_stream_stream(STREAM)
    assert again.take_request().open == es.OpenEvaluation(resume_evaluation_id="e1")
    resumed = es.EvaluationOpened(evaluation_id="e1", acknowledged_sequence=3)
    again.send_response(es.StreamEvaluationResponse(opened=resumed))
    assert again.take_request().block.sequence == 4
    finishing = aside(lambda: stream.finish(PATIENCE))
    assert again.take_request().WhichOneof("message") == "finish"
    again.send_response(es.StreamEvaluationResponse(update=es.VerdictUpdate(final=True, sequence=4)))
    again.terminate((), grpc.StatusCode.OK, "")
    assert finishing.result(PATIENCE).sequence == 4


def test_a_stream_that_was_refused_says_so_everywhere(channel: Any) -> None:
    client = TidegateClient(channel=channel)
    opening = aside(lambda: client.stream(specs()))
    _, rpc = channel.take_stream_stream(STREAM)
    rpc.send_response(es.StreamEvaluationResponse(opened=es.EvaluationOpened(evaluation_id="e1")))
    stream = opening.result(PATIENCE)
    trailing, code, details = status_of(RequestError(Code.ABORTED, "EVALUATION_TAKEN_OVER", "gone"))
    rpc.terminate(trailing, code, details)
    for use in (lambda: list(stream), lambda: stream.send(blocks(*arms())[0]), lambda: stream.finish(PATIENCE)):
        with pytest.raises(TidegateError, match="gone") as caught:
            use()
        assert caught.value.reason == "EVALUATION_TAKEN_OVER"


def test_an_evaluation_against_a_real_server(server: Server) -> None:
    x, y = arms(points=40, factor=1.5)
    with TidegateClient(server.target) as client, client.stream(specs(), warm_up=0.0) as stream:
        for k in range(40):
            for one in blocks(x[:, k : k + 1], y[:, k : k + 1], k):
                stream.send(one)
        final = stream.finish(PATIENCE)
        assert final.verdict == findings_pb2.VERDICT_FAIL
        assert list(stream)[-1] == final
        assert stream.acknowledged_sequence == 80


def test_a_connection_that_breaks_is_not_noticed_by_the_user(serving: Serving) -> None:
    x, y = arms(points=40, factor=1.5)
    with (
        serving.server() as server,
        TidegateClient(server.target) as client,
        client.stream(specs(), warm_up=0.0) as stream,
    ):
        for k in range(40):
            if k == 20:
                # As a lost connection would: the server forgets the stream, the client is told UNAVAILABLE.
                feeder = next(iter(server.evaluations._feeders))
                lost = RequestError(Code.UNAVAILABLE, "CONNECTION_LOST", "for the test")
                serving.loop.call_soon_threadsafe(break_off, feeder, lost)
            for one in blocks(x[:, k : k + 1], y[:, k : k + 1], k):
                stream.send(one)
        final = stream.finish(PATIENCE)
    assert final.sequence == 80
    live = ta.LiveEvaluation(specs(), design="concurrent", warm_up=0.0)
    for one in blocks(x, y):
        live.add(one)
    expected = live.judge(final=True)
    assert [f.effect for f in final.findings] == expected.result.effect.tolist()


def break_off(feeder: Any, error: Exception) -> None:
    feeder._failure = error
    feeder._draining = True  # stops its reader
    feeder._changed.set()


def test_a_server_that_is_not_there() -> None:
    with TidegateClient("127.0.0.1:1", timeout=PATIENCE) as client:
        with pytest.raises(TidegateError) as caught:
            client.analyze(specs(), blocks(*arms()))
        assert caught.value.code == grpc.StatusCode.UNAVAILABLE
        with pytest.raises(TidegateError) as caught:
            client.stream(specs())
        assert caught.value.code == grpc.StatusCode.UNAVAILABLE


def test_leaving_a_stream_ends_its_thread(server: Server) -> None:
    with TidegateClient(server.target) as client:
        with client.stream(specs()) as stream:
            stream.send(blocks(*arms())[0])
        assert not stream._reader.is_alive() or stream._stopped.is_set()
        with pytest.raises(TidegateError):
            stream.finish(PATIENCE)


def test_too_many_blocks_under_way_wait(channel: Any) -> None:
    client = TidegateClient(channel=channel)
    opening = aside(lambda: client.stream(specs()))
    _, rpc = channel.take_stream_stream(STREAM)
    rpc.send_response(es.StreamEvaluationResponse(opened=es.EvaluationOpened(evaluation_id="e1")))
    stream = opening.result(PATIENCE)
    one = blocks(*arms(points=1))[0]
    for _ in range(MAX_UNACKNOWLEDGED):
        stream.send(one)
    late = aside(lambda: stream.send(one))
    assert not late.done()
    rpc.send_response(es.StreamEvaluationResponse(acknowledgement=es.Acknowledgement(sequence=1)))
    assert late.result(PATIENCE) == MAX_UNACKNOWLEDGED + 1
    rpc.terminate((), grpc.StatusCode.OK, "")
