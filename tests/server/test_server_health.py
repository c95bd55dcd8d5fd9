"""Health and reflection, idle and under load."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tidegate_server import worker
from tidegate_server.app import EVALUATION_SERVICE, Server
from tidegate_server.errors import StartupError

from tests.server import held
from tests.server.harness import Caller, Serving, arms, opening, refused, request

SERVING = health_pb2.HealthCheckResponse.SERVING


def check(channel: grpc.Channel, service: str = "") -> Any:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=60)


def test_the_server_and_its_service_are_serving(caller: Caller) -> None:
    assert check(caller.channel).status == SERVING
    assert check(caller.channel, EVALUATION_SERVICE).status == SERVING
    assert refused(lambda: check(caller.channel, "nothing")).code == "NOT_FOUND"


def test_health_is_answered_while_every_limit_is_reached(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    let_go = tmp_path / "go"
    monkeypatch.setattr(worker, "analyze", functools.partial(held.analyze, str(let_go)))
    with (
        serving.server(max_concurrent_analyses=2, max_open_streams=1) as server,
        Caller(server.target) as caller,
        Caller(server.target) as other,
    ):
        stream = caller.stream(opening())
        stream.opened()
        calls = [caller.stub.Analyze.future(request(*arms()), timeout=60) for _ in range(4)]
        serving.until(lambda: sum(call.done() for call in calls) == 2)
        for _ in range(20):
            assert check(other.channel).status == SERVING
        assert refused(lambda: list(other.stub.StreamEvaluation(iter([opening()]), timeout=60))).reason
        assert sum(call.done() for call in calls) == 2, "health did not wait for the analyses"
        let_go.touch()
        codes = [call.code().name for call in calls if call.exception() is not None or call.result()]
        assert sorted(codes) == ["OK", "OK", "RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"]
        stream.cancel()


def test_reflection_tells_the_whole_contract(caller: Caller) -> None:
    database = ProtoReflectionDescriptorDatabase(caller.channel)
    services = set(database.get_services())
    assert {EVALUATION_SERVICE, "grpc.health.v1.Health"} <= services
    file = database.FindFileContainingSymbol(EVALUATION_SERVICE)
    assert file.name == "tidegate/v1/evaluation_service.proto"


def test_reflection_can_be_turned_off(serving: Serving) -> None:
    with serving.server(reflection=False) as server, Caller(server.target) as caller:
        database = ProtoReflectionDescriptorDatabase(caller.channel)
        assert refused(database.get_services).code == "UNIMPLEMENTED"


def test_a_second_server_on_the_same_port_is_refused(serving: Serving, server: Server) -> None:
    with pytest.raises(StartupError, match="in use"), serving.server(address=server.target):
        pass
