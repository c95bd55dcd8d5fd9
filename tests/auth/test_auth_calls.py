"""Every method with every role, within and outside its scope, with real calls; and who is asked at all."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from tidegate.v1 import (
    evaluation_service_pb2,
    findings_pb2,
    gate_service_pb2,
    gates_pb2,
    monitor_service_pb2,
    monitors_pb2,
    rules_pb2,
)
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate_server.app import Server
from tidegate_server.auth.methods import METHODS
from tidegate_server.auth.model import Grant, Role
from tidegate_server.auth.tokens import new_token
from tidegate_server.gates.ports import AuditRecord, ListQuery

from tests.api_gates.gate_calls import Calls, gate_of, monitor_rule, name_of, regression_rule
from tests.server.harness import Refused, Serving, refused

SERVICE, OTHER = "checkout", "search"
AUDIT = AuditRecord(time=0.0, actor="test", action="test", resource="test")


@dataclass
class Guarded:
    """A server that asks everybody, tokens by name, and an evaluation in the scope."""

    server: Server
    tokens: dict[str, str]
    evaluation: str = ""
    other: str = ""

    def calls(self, name: str) -> Calls:
        return Calls(self.server.target, self.tokens.get(name, name))


GRANTS = {
    "viewer": [Grant(Role.VIEWER, SERVICE, "prod")],
    "deployer": [Grant(Role.DEPLOYER, SERVICE, "prod")],
    "operator": [Grant(Role.OPERATOR, SERVICE, "prod")],
    "viewer of another": [Grant(Role.VIEWER, OTHER, "*")],
    "deployer of another": [Grant(Role.DEPLOYER, OTHER, "*")],
    "operator of another": [Grant(Role.OPERATOR, OTHER, "*")],
    "operator of another environment": [Grant(Role.OPERATOR, SERVICE, "dev*")],
    "viewer of all": [Grant(Role.VIEWER)],
    "deployer of all": [Grant(Role.DEPLOYER)],
    "operator of all": [Grant(Role.OPERATOR)],
    "nobody": [],
}


@pytest.fixture(scope="module")
def guarded(serving: Serving) -> Iterator[Guarded]:
    with serving.server() as server:
        store = server.durable.store
        tokens = {}

        async def prepare() -> None:
            for name, grants in GRANTS.items():
                tokens[name], record = new_token(name, grants, "test", time.time())
                await store.tokens.create(record, AUDIT)
            await store.tokens.set_enabled(True, AUDIT)

        serving.run(prepare())
        made = Guarded(server, tokens)
        calls = made.calls("operator of all")
        for service in (SERVICE, OTHER):
            calls.gates.CreateGate(gate_service_pb2.CreateGateRequest(gate=gate_of(service)))
        made.evaluation, made.other = (
            calls.evaluations.StartEvaluation(
                es.StartEvaluationRequest(
                    inline_rules=es.InlineRules(rules=[regression_rule()]),
                    deployment={"service": service, "environment": "prod", "version": "2"},
                )
            ).evaluation.name
            for service in (SERVICE, OTHER)
        )
        report = monitors_pb2.MonitorStateReport(monitor_id="m", state=rules_pb2.MONITOR_STATE_OK)
        calls.monitors.PushStates(monitor_service_pb2.PushStatesRequest(states=[report]))
        calls.close()
        yield made


def requests_for(guarded: Guarded) -> dict[str, Any]:
    """A request of every method that asks for something of the service in prod; validation may refuse it later."""
    gate, named = gates_pb2.Gate(service=SERVICE, environment="prod"), name_of(SERVICE)
    deployment = {"service": SERVICE, "environment": "prod"}
    g, e, m = gate_service_pb2, evaluation_service_pb2, monitor_service_pb2
    name = guarded.evaluation
    return {
        "CreateGate": g.CreateGateRequest(gate=gate),
        "UpdateGate": g.UpdateGateRequest(gate=gate),
        "DeleteGate": g.DeleteGateRequest(name=named, etag="stale"),
        "GetGate": g.GetGateRequest(name=named),
        "ListGateRevisions": g.ListGateRevisionsRequest(name=named),
        "ListGates": g.ListGatesRequest(),
        "Analyze": e.AnalyzeRequest(),
        "StreamEvaluation": e.StreamEvaluationRequest(finish=e.FinishEvaluation()),
        "StartEvaluation": e.StartEvaluationRequest(deployment=deployment, request_id="x" * 200),
        "EnsureEvaluation": e.EnsureEvaluationRequest(deployment=deployment),
        "WriteSeries": e.WriteSeriesRequest(name=name),
        "CancelEvaluation": e.CancelEvaluationRequest(name=name, reason="x" * 5000),
        "LabelEvaluation": e.LabelEvaluationRequest(name=name),
        "OverrideEvaluation": e.OverrideEvaluationRequest(name=name),
        "GetEvaluation": e.GetEvaluationRequest(name=name),
        "WatchEvaluation": e.WatchEvaluationRequest(name=name, view=9),
        "GetEvidence": e.GetEvidenceRequest(name=name),
        "ListEvaluations": e.ListEvaluationsRequest(),
        "PushStates": m.PushStatesRequest(),
        "StreamStates": m.StreamStatesRequest(),
        "DeleteMonitor": m.DeleteMonitorRequest(name="monitors/none"),
        "CreateDowntime": m.CreateDowntimeRequest(),
        "DeleteDowntime": m.DeleteDowntimeRequest(name="downtimes/none"),
        "ListMonitors": m.ListMonitorsRequest(),
        "GetMonitor": m.GetMonitorRequest(name="monitors/m"),
        "ListDowntimes": m.ListDowntimesRequest(),
    }


READ = {"viewer", "deployer", "operator", "viewer of all", "deployer of all", "operator of all"}
DEPLOY = {"deployer", "operator", "deployer of all", "operator of all"}
OPERATE = {"operator", "operator of all"}
ANY_READ = set(GRANTS) - {"nobody"}
ANY_DEPLOY = DEPLOY | {"deployer of another", "operator of another", "operator of another environment"}
ALL_OPERATE = {"operator of all"}

ALLOWED = {
    "CreateGate": OPERATE,
    "UpdateGate": OPERATE,
    "DeleteGate": OPERATE,
    "GetGate": READ,
    "ListGateRevisions": READ,
    "ListGates": ANY_READ,
    "Analyze": ANY_DEPLOY,
    "StreamEvaluation": ANY_DEPLOY,
    "StartEvaluation": DEPLOY,
    "EnsureEvaluation": DEPLOY,
    "WriteSeries": DEPLOY,
    "CancelEvaluation": DEPLOY,
    "LabelEvaluation": DEPLOY,
    "OverrideEvaluation": OPERATE,
    "GetEvaluation": READ,
    "WatchEvaluation": READ,
    "GetEvidence": READ,
    "ListEvaluations": ANY_READ,
    "PushStates": ALL_OPERATE,
    "StreamStates": ALL_OPERATE,
    "DeleteMonitor": ALL_OPERATE,
    "CreateDowntime": ALL_OPERATE,
    "DeleteDowntime": ALL_OPERATE,
    "ListMonitors": ANY_READ,
    "GetMonitor": ANY_READ,
    "ListDowntimes": ANY_READ,
}


def call(calls: Calls, method: str, request: Any) -> Refused | None:
    service = METHOD_SERVICE[method]
    stub = {"Gate": calls.gates, "Evaluation": calls.evaluations, "Monitor": calls.monitors}[service]
    streams = method in ("StreamEvaluation", "StreamStates")
    try:
        answer = getattr(stub, method)(iter([request]) if streams else request)
        if method in ("StreamEvaluation", "WatchEvaluation"):
            list(answer)
    except grpc.RpcError as error:
        return Refused(error)
    return None


METHOD_SERVICE = {
    path.rpartition("/")[2]: path.rpartition("/")[0].rpartition(".")[2].removesuffix("Service") for path in METHODS
}


def test_the_table_knows_every_method_of_the_contract():
    services = [
        gate_service_pb2.DESCRIPTOR.services_by_name["GateService"],
        evaluation_service_pb2.DESCRIPTOR.services_by_name["EvaluationService"],
        monitor_service_pb2.DESCRIPTOR.services_by_name["MonitorService"],
    ]
    known = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert set(METHODS) == known
    assert set(ALLOWED) == {path.rpartition("/")[2] for path in known}


@pytest.mark.parametrize("who", GRANTS)
def test_every_method_with_every_role(guarded, who):
    calls = guarded.calls(who)
    for method, request in requests_for(guarded).items():
        found = call(calls, method, request)
        denied = found is not None and found.code == "PERMISSION_DENIED"
        assert denied is (who not in ALLOWED[method]), (method, found)
        assert found is None or found.code not in ("UNAUTHENTICATED", "INTERNAL", "UNKNOWN"), (method, found)
        if denied:
            assert found.reason == "PERMISSION_DENIED"
            assert who in found.message
    calls.close()


@pytest.mark.parametrize("token", ["", "tg_0123456789abcdef_" + "x" * 43, "nonsense", "Bearer"])
def test_callers_without_a_good_token_are_not_known(guarded, token):
    calls = guarded.calls(token)
    for method, request in requests_for(guarded).items():
        found = call(calls, method, request)
        assert found is not None
        assert found.code == "UNAUTHENTICATED", method
        assert not token or token not in found.message
    calls.close()


def test_the_secret_of_one_token_does_not_open_another(guarded):
    _, one, _ = guarded.tokens["viewer"].split("_", 2)
    secret = guarded.tokens["operator of all"].split("_", 2)[2]
    calls = guarded.calls(f"tg_{one}_{secret}")
    assert refused(lambda: calls.gates.ListGates(gate_service_pb2.ListGatesRequest())).code == "UNAUTHENTICATED"


def test_authorisation_comes_before_validation(guarded):
    calls = guarded.calls("viewer")
    broken = gates_pb2.Gate(service=SERVICE, environment="prod", rules=[monitor_rule("(")])
    found = refused(lambda: calls.gates.CreateGate(gate_service_pb2.CreateGateRequest(gate=broken)))
    assert (found.code, found.fields) == ("PERMISSION_DENIED", {})


@pytest.mark.parametrize("method", ["/tidegate.v1.GateService/CreateGate", "/tidegate.v1.MonitorService/PushStates"])
@pytest.mark.parametrize(
    ("who", "code"),
    [("unknown", "UNAUTHENTICATED"), ("viewer", "PERMISSION_DENIED"), ("operator of all", "INVALID_ARGUMENT")],
)
def test_authorisation_comes_before_messages_that_cannot_be_read(guarded, method, who, code):
    calls = guarded.calls(who)
    call = calls.channel.unary_unary(method)
    found = refused(lambda: call(b"\xff\xff\xff", timeout=20.0, metadata=calls.metadata))
    assert found.code == code
    calls.close()


def test_lists_hold_what_the_caller_may_see(guarded):
    for who, services in (
        ("viewer", {SERVICE}),
        ("viewer of another", {OTHER}),
        ("operator of another environment", set()),
        ("viewer of all", {SERVICE, OTHER}),
    ):
        calls = guarded.calls(who)
        gates = calls.gates.ListGates(gate_service_pb2.ListGatesRequest()).gates
        assert {one.service for one in gates} == services
        evaluations = calls.evaluations.ListEvaluations(es.ListEvaluationsRequest()).evaluations
        assert {one.deployment.service for one in evaluations} == services
        calls.close()


def test_what_is_beyond_a_scope_looks_like_what_is_not_there(guarded):
    calls = guarded.calls("viewer")
    get = calls.evaluations.GetEvaluation
    hidden = refused(lambda: get(es.GetEvaluationRequest(name=guarded.other)))
    absent = refused(lambda: get(es.GetEvaluationRequest(name="evaluations/none")))
    assert hidden.message.replace(guarded.other, "X") == absent.message.replace("evaluations/none", "X")
    assert (hidden.code, absent.code) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    everywhere = guarded.calls("viewer of all")
    found = refused(lambda: everywhere.evaluations.GetEvaluation(es.GetEvaluationRequest(name="evaluations/none")))
    assert found.code == "NOT_FOUND"


def test_a_gate_of_one_service_cannot_be_started_for_another(guarded):
    calls = guarded.calls("deployer")
    request = es.StartEvaluationRequest(gate=name_of(OTHER), deployment={"service": SERVICE, "environment": "prod"})
    assert refused(lambda: calls.evaluations.StartEvaluation(request)).code == "PERMISSION_DENIED"
    request = es.StartEvaluationRequest(gate=name_of(SERVICE), deployment={"service": OTHER, "environment": "prod"})
    assert refused(lambda: calls.evaluations.StartEvaluation(request)).code == "PERMISSION_DENIED"


def test_health_and_reflection_ask_nobody(guarded):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    calls = guarded.calls("")
    stub = health_pb2_grpc.HealthStub(calls.channel)
    assert stub.Check(health_pb2.HealthCheckRequest(), timeout=60).status == health_pb2.HealthCheckResponse.SERVING


def test_revoked_and_expired_tokens_are_told_apart_from_unknown_ones(guarded, serving):
    store = guarded.server.durable.store

    async def make() -> tuple[str, str]:
        revoked, one = new_token("revoked", [Grant(Role.VIEWER)], "test", time.time())
        expired, two = new_token("expired", [Grant(Role.VIEWER)], "test", time.time() - 10, ttl=5)
        for record in (one, two):
            await store.tokens.create(record, AUDIT)
        await store.tokens.revoke(one.id, time.time(), AUDIT)
        return revoked, expired

    for token in serving.run(make()):
        calls = guarded.calls(token)
        found = refused(lambda calls=calls: calls.gates.ListGates(gate_service_pb2.ListGatesRequest()))
        assert (found.code, found.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
        assert "has expired or was revoked" in found.message
        assert token not in found.message


def test_changes_stand_in_the_audit_log_under_their_caller_and_without_secrets(guarded, serving):
    calls = guarded.calls("operator")
    made = calls.gates.CreateGate(gate_service_pb2.CreateGateRequest(gate=gate_of(SERVICE, identifier="audited"))).gate
    assert made.created_by == "operator"
    calls.evaluations.OverrideEvaluation(
        es.OverrideEvaluationRequest(name=guarded.evaluation, decision=findings_pb2.DECISION_PROCEED, reason="tried")
    )
    page = serving.run(guarded.server.durable.store.audit.list(ListQuery(page_size=100)))
    found = {(one.action, one.resource): one for one in page.items}
    assert found["gate.create", made.name].actor == "operator"
    assert found["evaluation.override", guarded.evaluation].detail["reason"] == "tried"
    text = repr(page.items)
    assert not any(token.split("_", 2)[2] in text for token in guarded.tokens.values())


def test_off_by_default_on_loopback(calls):
    assert calls.gates.ListGates(gate_service_pb2.ListGatesRequest()) is not None


def test_on_beyond_loopback_whatever_the_store_says(serving):
    with serving.server(address="0.0.0.0:0", insecure=True) as server:
        calls = Calls(f"127.0.0.1:{server.port}")
        found = refused(lambda: calls.gates.ListGates(gate_service_pb2.ListGatesRequest()))
        assert found.code == "UNAUTHENTICATED"
        calls.close()


def test_the_python_client_sends_its_token(guarded):
    import tidegate_analysis as ta
    from tidegate_server.client import TidegateClient, TidegateError

    from tests.server.harness import arms, specs

    x, y = arms(1)
    blocks = [ta.Block(arm, 0.0, 10.0, values) for arm, values in (("baseline", x), ("canary", y))]
    with TidegateClient(guarded.server.target, token=guarded.tokens["deployer"]) as client:
        assert client.analyze(specs("a"), blocks).verdict
        with client.stream(specs("a"), warm_up=0.0) as stream:
            for block in blocks:
                stream.send(block)
            assert stream.finish().final
    with TidegateClient(guarded.server.target) as client, pytest.raises(TidegateError, match="UNAUTHENTICATED"):
        client.analyze(specs("a"), blocks)
