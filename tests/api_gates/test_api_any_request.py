"""Whatever is asked, the answer is one that speaks: never INTERNAL, never without a reason, never a hang."""

from __future__ import annotations

import random

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from tidegate.v1 import evaluation_service_pb2, gate_service_pb2, monitor_service_pb2, monitors_pb2, rules_pb2

from tests.api_gates.gate_calls import deployment_of, fresh, gate_of, regression_rule
from tests.server.harness import Refused

TEXTS = [
    "",
    "a",
    "-",
    "default",
    " blank ",
    "a\u0000b",
    "line\nbreak",
    "é漢字🙂",
    "x" * 300,
    "y" * 10_000,
    "evaluations/none",
    "evaluations/",
    "monitors/none",
    "downtimes/%zz",
    "services/a/environments/b/gates/c",
    "services/-/environments/-",
    "services/%2F/environments/%00/gates/%ff",
    "env:prod service:a",
    "env:(a OR",
    'verdict = FAIL AND service = "a"',
    "create_time > 99999-01-01",
    "WyJhIiwiYiJd",
    "rules",
    "https://a",
    "'; DROP TABLE gates; --",
]
WHOLE = [0, 1, 2, 3, 7, 50, 1000, 2**31 - 1]
NUMBERS = [0.0, 1.0, 0.05, -1.0, 0.5, 1e308, float("nan"), float("inf"), 5e-324]
SECONDS = [0, 1, 60, 600, 1_700_000_000, 253_402_300_799, 253_402_300_800, -62_135_596_800, 2**62, -(2**62)]
NANOS = [0, 1, 999_999_999, 1_000_000_000, -1]


def fill(message, chance: random.Random, real: list[str], depth: int = 0) -> None:
    """Set fields at random, from values that are likely to break something; names are often real."""
    for field in message.DESCRIPTOR.fields:
        if field.name in ("name", "gate") and field.message_type is None and not depth and chance.random() < 0.7:
            setattr(message, field.name, chance.choice(real))
            continue
        if chance.random() < 0.4:
            continue
        many = field.is_repeated
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name)[chance.choice(TEXTS)] = chance.choice(TEXTS)
        elif field.message_type is not None:
            if depth > 4:
                continue
            for _ in range(chance.choice([1, 1, 2]) if many else 1):
                inner = getattr(message, field.name).add() if many else getattr(message, field.name)
                if field.message_type.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
                    inner.seconds, inner.nanos = chance.choice(SECONDS), chance.choice(NANOS)
                else:
                    inner.SetInParent()
                    fill(inner, chance, real, depth + 1)
        else:
            values = [scalar(field, chance) for _ in range(chance.choice([1, 2, 3]) if many else 1)]
            if many:
                getattr(message, field.name).extend(values)
            else:
                setattr(message, field.name, values[0])


def scalar(field, chance: random.Random):
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(TEXTS)
    if field.type == FieldDescriptor.TYPE_BOOL:
        return chance.random() < 0.5
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        return chance.choice(NUMBERS)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return chance.choice([*(one.number for one in field.enum_type.values), 99])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return b"\xff"
    return chance.choice(WHOLE)


@pytest.fixture(scope="module")
def real(calls) -> list[str]:
    """Names of a gate, two evaluations, a monitor and a downtime that are there."""
    service = fresh("any")
    gate = calls.gates.CreateGate(gate_service_pb2.CreateGateRequest(gate=gate_of(service))).gate
    start = evaluation_service_pb2.StartEvaluationRequest(deployment=deployment_of(service))
    start.inline_rules.rules.append(regression_rule("a", "b"))
    evaluations = [calls.evaluations.StartEvaluation(start).evaluation.name for _ in range(2)]
    report = monitors_pb2.MonitorStateReport(monitor_id=service, state=rules_pb2.MONITOR_STATE_OK)
    calls.monitors.PushStates(monitor_service_pb2.PushStatesRequest(states=[report]))
    downtime = monitors_pb2.Downtime(query=f"id:{service}", reason="test")
    made = calls.monitors.CreateDowntime(monitor_service_pb2.CreateDowntimeRequest(downtime=downtime)).downtime
    return [gate.name, *evaluations, f"monitors/{service}", made.name]


SERVICES = {
    "gates": gate_service_pb2.DESCRIPTOR.services_by_name["GateService"],
    "evaluations": evaluation_service_pb2.DESCRIPTOR.services_by_name["EvaluationService"],
    "monitors": monitor_service_pb2.DESCRIPTOR.services_by_name["MonitorService"],
}
METHODS = [
    (stub, method.name)
    for stub, service in SERVICES.items()
    for method in service.methods
    if method.name not in ("Analyze", "StreamEvaluation")
]
SPEAKS = {"INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "FAILED_PRECONDITION", "ABORTED", "RESOURCE_EXHAUSTED"}


@pytest.mark.parametrize(("stub", "method"), METHODS, ids=[name for _, name in METHODS])
def test_any_request_gets_an_answer_that_speaks(calls, real, stub, method):
    descriptor = SERVICES[stub].methods_by_name[method]
    module = {
        "gates": gate_service_pb2,
        "evaluations": evaluation_service_pb2,
        "monitors": monitor_service_pb2,
    }[stub]
    kind = getattr(module, descriptor.input_type.name)
    for seed in range(80):
        request = kind()
        fill(request, random.Random(f"{method}:{seed}"), real)
        if method == "WatchEvaluation" and request.after_version < 100:
            # One that nothing is wrong with is answered with the next change, in minutes.
            request.after_version = 0
        try:
            answer = getattr(getattr(calls, stub), method)(iter([request]) if descriptor.client_streaming else request)
            if descriptor.server_streaming:
                next(answer, None)
                answer.cancel()
        except grpc.RpcError as error:
            found = Refused(error)
            assert found.code in SPEAKS, (seed, found)
            assert found.reason, (seed, found)
            assert found.message, (seed, found)
