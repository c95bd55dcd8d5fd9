"""Whole servers: killed and started again on the same store, and with a disk that is full."""

from __future__ import annotations

import asyncio
import time
import uuid

import grpc
import pytest
import sqlalchemy as sa
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate.v1 import evaluations_pb2, findings_pb2
from tidegate_server.config import Config
from tidegate_server.durable import Durable
from tidegate_server.errors import StartupError

from tests.api_gates.gate_calls import Calls, fresh, monitor_rule, regression_rule
from tests.server.harness import Serving, block
from tests.server.test_server_lifecycle import serve

FAIL = findings_pb2.VERDICT_FAIL
SUCCEEDED = evaluations_pb2.EVALUATION_STATE_SUCCEEDED
CANARY_IS_SLOWER = 1.6
UNLIMITED = 1_073_741_823


def _series(points: int = 60):
    import numpy as np

    rng = np.random.default_rng(4)
    arms = 100.0 * np.exp(rng.normal(0.0, 0.03, (2, 1, points)))
    arms[1] *= CANARY_IS_SLOWER
    return arms


def _written(
    evaluation: str, deployed: int, low: int, high: int, sequence: int, *, complete: bool
) -> es.WriteSeriesRequest:
    arms = _series()
    blocks = [
        block(arm, values[:, low:high], start=deployed + low * 10.0, sequence=sequence + k, metrics=("p95",))
        for k, (arm, values) in enumerate(zip(("baseline", "canary"), arms, strict=True))
    ]
    return es.WriteSeriesRequest(name=evaluation, writer="w", blocks=blocks, complete=complete)


def _start(service: str, rule, deployed: int, request_id: str = "") -> es.StartEvaluationRequest:
    request = es.StartEvaluationRequest(request_id=request_id)
    request.deployment.service, request.deployment.environment = service, "prod"
    request.deployment.version = "2"
    request.deployment.start_time.FromSeconds(deployed)
    request.inline_rules.rules.add().CopyFrom(rule)
    return request


def _watching() -> es.StartEvaluationRequest:
    return _start(fresh(), monitor_rule("*", duration=7200.0), int(time.time()))


def test_a_server_that_is_killed_goes_on_where_it_was(tmp_path):
    """What was answered is kept: the evaluation, its points, and the answer to a repeated request."""
    options = ("--store-url", str(tmp_path / "tidegate.db"), "--lease-seconds", "1")
    deployed = int(time.time()) - 900
    request = _start(fresh(), regression_rule("p95", horizon=1500.0), deployed, uuid.uuid4().hex)
    with serve(*options) as first:
        calls = Calls(first.line("listening")["address"])
        started = calls.evaluations.StartEvaluation(request).evaluation
        calls.evaluations.WriteSeries(_written(started.name, deployed, 0, 2, 1, complete=False))
        first.process.kill()
        first.process.wait(60)
        calls.close()
    with serve(*options) as second:
        calls = Calls(second.line("listening")["address"])
        again = calls.evaluations.StartEvaluation(request).evaluation
        assert again.name == started.name
        receipt = calls.evaluations.WriteSeries(_written(started.name, deployed, 0, 2, 1, complete=False))
        assert receipt.acknowledged_sequence == 2, "the points of before are known"
        calls.evaluations.WriteSeries(_written(started.name, deployed, 2, 60, 3, complete=True))
        last = None
        for update in calls.evaluations.WatchEvaluation(es.WatchEvaluationRequest(name=started.name)):
            last = update.evaluation
        assert last is not None
        assert last.state == SUCCEEDED
        assert last.verdict == FAIL
        calls.close()


@pytest.fixture(scope="module")
def full():
    """A server whose SQLite can be told how large it may become."""
    serving = Serving()
    with serving.server() as server:
        limit = [UNLIMITED]
        sa.event.listen(
            server.durable.store.database.engine.sync_engine,
            "begin",
            lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count = {limit[0]}"),
        )
        yield server, limit
    serving.close()


def test_a_full_disk_is_told_to_callers_and_health(full):
    server, limit = full
    calls = Calls(server.target)
    health = health_pb2_grpc.HealthStub(calls.channel)
    request = health_pb2.HealthCheckRequest(service="tidegate.v1.EvaluationService")

    taken = [calls.evaluations.StartEvaluation(_watching()).evaluation]
    limit[0] = 1
    refusal = None
    for _ in range(500):
        try:
            made = calls.evaluations.StartEvaluation(_watching())
            taken.append(made.evaluation)
        except grpc.RpcError as error:
            refusal = error
            break
    assert refusal is not None
    assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "disk is full; nothing was written" in refusal.details()
    assert "sqlite" not in refusal.details().lower()
    for one in taken:
        assert calls.evaluations.GetEvaluation(es.GetEvaluationRequest(name=one.name)).evaluation.name == one.name
    limit[0] = UNLIMITED
    assert calls.evaluations.StartEvaluation(_watching()).evaluation.name
    watch = health.Watch(request, timeout=60)
    for answer in watch:
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            break
    watch.cancel()
    calls.close()


def test_a_store_that_cannot_be_opened_is_told_at_the_start(tmp_path):
    (tmp_path / "file").write_bytes(b"this is no database" * 1000)
    (tmp_path / "folder").mkdir()

    async def begin(url: str) -> None:
        durable = Durable(Config(store_url=url), None)
        await durable.start()

    for url, tells in (
        (str(tmp_path / "file"), "store_url: .* is no SQLite database"),
        (str(tmp_path / "folder"), "store_url: .*folder cannot be used: unable to open"),
        (str(tmp_path / "file" / "below"), "store_url: .*below cannot be used: File exists"),
        ("mysql://localhost/x", "store_url: mysql is not supported"),
        (f"postgresql://nobody@/x?host={tmp_path}", "store_url: the store is not available"),
    ):
        with pytest.raises(StartupError, match=tells) as refused:
            asyncio.run(begin(url))
        assert "Traceback" not in str(refused.value)
