"""GateService with real calls: the life of a gate, pages, filters, etags, and everything that is refused."""

from __future__ import annotations

import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate.v1 import gate_service_pb2 as wire
from tidegate.v1 import gates_pb2, rules_pb2
from tidegate_server.api.paging import write_token
from tidegate_server.store.filters import write_cursor

from tests.api_gates.gate_calls import fresh, gate_of, monitor_rule, name_of, regression_rule, seconds
from tests.server.harness import refused


def create(calls, gate, **more):
    return calls.gates.CreateGate(wire.CreateGateRequest(gate=gate, **more)).gate


def test_the_life_of_a_gate(calls):
    service = fresh()
    made = create(calls, gate_of(service, owner="ann", tags=["tier:1"]))
    assert made.name == name_of(service)
    assert (made.revision, made.identifier, made.enabled, made.created_by) == (1, "default", True, "anonymous")
    assert made.etag
    assert made.uid
    assert made.rules[0].mode == rules_pb2.RULE_MODE_ENFORCE
    assert list(made.rules[0].monitor.fail_on) == [rules_pb2.MONITOR_STATE_ALERT, rules_pb2.MONITOR_STATE_NO_DATA]
    assert calls.gates.GetGate(wire.GetGateRequest(name=made.name)).gate == made

    changed = calls.gates.UpdateGate(
        wire.UpdateGateRequest(
            gate=gates_pb2.Gate(name=made.name, owner="bob", description="ignored", etag=made.etag),
            update_mask=FieldMask(paths=["owner"]),
        )
    ).gate
    assert (changed.revision, changed.owner, changed.description) == (2, "bob", "")
    assert changed.rules == made.rules
    assert changed.etag != made.etag
    assert changed.uid == made.uid

    assert calls.gates.GetGate(wire.GetGateRequest(name=made.name, revision=1)).gate == made
    revisions = calls.gates.ListGateRevisions(wire.ListGateRevisionsRequest(name=made.name)).gates
    assert [one.revision for one in revisions] == [2, 1]

    calls.gates.DeleteGate(wire.DeleteGateRequest(name=made.name, etag=changed.etag))
    assert refused(lambda: calls.gates.GetGate(wire.GetGateRequest(name=made.name))).code == "NOT_FOUND"
    again = create(calls, gate_of(service))
    assert again.uid != made.uid
    assert again.revision == 1


def test_a_second_gate_of_the_same_name_is_refused(calls):
    service = fresh()
    create(calls, gate_of(service))
    assert refused(lambda: create(calls, gate_of(service))).code == "ALREADY_EXISTS"
    create(calls, gate_of(service, identifier="pre-deploy"))
    create(calls, gate_of(service, environment="staging"))


def test_names_with_slashes(calls):
    service = fresh("team/shop")
    made = create(calls, gate_of(service))
    assert made.name == name_of(service.replace("/", "%2F"))
    assert calls.gates.GetGate(wire.GetGateRequest(name=made.name)).gate.service == service


def test_an_update_that_changes_nothing_makes_no_revision(calls):
    made = create(calls, gate_of(fresh()))
    request = wire.UpdateGateRequest(gate=made)
    assert calls.gates.UpdateGate(request).gate == made


def test_a_stale_etag_is_refused(calls):
    made = create(calls, gate_of(fresh()))
    calls.gates.UpdateGate(
        wire.UpdateGateRequest(gate=gates_pb2.Gate(name=made.name, owner="x"), update_mask=FieldMask(paths=["owner"]))
    )
    request = wire.UpdateGateRequest(
        gate=gates_pb2.Gate(name=made.name, owner="y", etag=made.etag), update_mask=FieldMask(paths=["owner"])
    )
    for call in (
        lambda: calls.gates.UpdateGate(request),
        lambda: calls.gates.DeleteGate(wire.DeleteGateRequest(name=made.name, etag=made.etag)),
    ):
        found = refused(call)
        assert (found.code, found.reason) == ("ABORTED", "ETAG_MISMATCH")
        assert found.metadata["revision"] == "2"
        assert "read again" in found.message


def test_validate_only_stores_nothing(calls):
    service = fresh()
    shown = create(calls, gate_of(service), validate_only=True)
    assert shown.name == name_of(service)
    get = wire.GetGateRequest(name=shown.name)
    assert refused(lambda: calls.gates.GetGate(get)).code == "NOT_FOUND"
    made = create(calls, gate_of(service))
    change = gates_pb2.Gate(name=made.name, dry_run=True)
    after = calls.gates.UpdateGate(
        wire.UpdateGateRequest(gate=change, update_mask=FieldMask(paths=["dry_run"]), validate_only=True)
    ).gate
    assert (after.dry_run, after.revision) == (True, 2)
    calls.gates.DeleteGate(wire.DeleteGateRequest(name=made.name, validate_only=True))
    assert calls.gates.GetGate(get).gate == made


def test_an_update_may_create(calls):
    service = fresh()
    request = wire.UpdateGateRequest(gate=gate_of(service))
    assert refused(lambda: calls.gates.UpdateGate(request)).code == "NOT_FOUND"
    request.allow_missing = True
    assert calls.gates.UpdateGate(request).gate.revision == 1
    assert calls.gates.UpdateGate(request).gate.revision == 1


def test_what_an_update_creates_is_checked_as_a_whole(calls):
    """The mask names what is to change; of a gate that is not there yet, everything counts."""
    service = fresh()
    request = wire.UpdateGateRequest(
        gate=gates_pb2.Gate(service=service, environment="prod", owner="ann"),
        update_mask=FieldMask(paths=["owner"]),
        allow_missing=True,
    )
    assert refused(lambda: calls.gates.UpdateGate(request)).fields == {"gate.rules": "at least one rule is needed"}
    request.gate.rules.append(monitor_rule(""))
    assert set(refused(lambda: calls.gates.UpdateGate(request)).fields) == {"gate.rules[0].monitor.query"}
    request.gate.rules[0].monitor.query = "env:prod"
    made = calls.gates.UpdateGate(request).gate
    assert (made.owner, len(made.rules)) == ("ann", 1)


def test_an_update_with_an_etag_creates_nothing(calls):
    """Somebody has deleted the gate since its etag was read."""
    made = create(calls, gate_of(fresh()))
    calls.gates.DeleteGate(wire.DeleteGateRequest(name=made.name))
    request = wire.UpdateGateRequest(gate=made, allow_missing=True)
    assert refused(lambda: calls.gates.UpdateGate(request)).code == "NOT_FOUND"
    request.gate.etag = ""
    assert calls.gates.UpdateGate(request).gate.uid != made.uid


def test_lists_by_parent_filter_and_page(calls):
    service = fresh()
    for k in range(5):
        create(calls, gate_of(service, environment="prod", identifier=f"g{k}", owner="ann" if k % 2 else "bob"))
    create(calls, gate_of(service, environment="dev"))
    everywhere = calls.gates.ListGates(wire.ListGatesRequest(parent=f"services/{service}/environments/-"))
    assert [(one.environment, one.identifier) for one in everywhere.gates] == [
        ("dev", "default"),
        *(("prod", f"g{k}") for k in range(5)),
    ]
    ann = wire.ListGatesRequest(parent=f"services/{service}/environments/prod", filter="owner = ann")
    assert [one.identifier for one in calls.gates.ListGates(ann).gates] == ["g1", "g3"]
    seen, token = [], ""
    while True:
        page = calls.gates.ListGates(
            wire.ListGatesRequest(parent=f"services/{service}/environments/-", page_size=2, page_token=token)
        )
        seen += [one.identifier for one in page.gates]
        token = page.next_page_token
        if not token:
            break
    assert seen == ["default", "g0", "g1", "g2", "g3", "g4"]


@pytest.mark.parametrize("cursor", ["x", "\ud800", write_cursor("a", "b"), write_cursor(10**30, "x")])
def test_page_tokens_that_somebody_made_up_are_refused(calls, cursor):
    ours = wire.ListGatesRequest(page_token=write_token(cursor, "gates", "", ""))
    theirs = es.ListEvaluationsRequest(page_token=write_token(cursor, "evaluations", "", ""))
    for call in (lambda: calls.gates.ListGates(ours), lambda: calls.evaluations.ListEvaluations(theirs)):
        found = refused(call)
        assert (found.code, list(found.fields)) == ("INVALID_ARGUMENT", ["page_token"])


def test_a_revision_that_no_gate_can_have(calls):
    made = create(calls, gate_of(fresh()))
    found = refused(lambda: calls.gates.GetGate(wire.GetGateRequest(name=made.name, revision=2**64 - 1)))
    assert (found.code, found.reason) == ("NOT_FOUND", "GATE_NOT_FOUND")


def test_page_tokens_belong_to_their_list(calls):
    service = fresh()
    for k in range(3):
        create(calls, gate_of(service, identifier=f"g{k}"))
    parent = f"services/{service}/environments/-"
    token = calls.gates.ListGates(wire.ListGatesRequest(parent=parent, page_size=1)).next_page_token
    assert token
    for request in (
        wire.ListGatesRequest(parent=parent, page_token=token, filter="owner = x"),
        wire.ListGatesRequest(page_token=token),
        wire.ListGatesRequest(parent=parent, page_token="nonsense"),
        wire.ListGatesRequest(parent=parent, page_token=token[:-3] + "AAA"),
    ):
        found = refused(lambda request=request: calls.gates.ListGates(request))
        assert (found.code, list(found.fields)) == ("INVALID_ARGUMENT", ["page_token"])
    other = wire.ListGateRevisionsRequest(name=name_of(service, identifier="g0"), page_token=token)
    assert "page_token" in refused(lambda: calls.gates.ListGateRevisions(other)).fields


@pytest.mark.parametrize(
    ("request_", "field", "tells"),
    [
        (wire.ListGatesRequest(page_size=-1), "page_size", "must be 0 to 1000"),
        (wire.ListGatesRequest(parent="services/a"), "parent", "is no parent"),
        (wire.ListGatesRequest(filter="ownr = x"), "filter", "there is no field 'ownr'"),
        (wire.ListGatesRequest(filter="owner ="), "filter", "column 8"),
    ],
)
def test_lists_that_are_refused(calls, request_, field, tells):
    found = refused(lambda: calls.gates.ListGates(request_))
    assert found.code == "INVALID_ARGUMENT"
    assert tells in found.fields[field]


def broken(change) -> gates_pb2.Gate:
    gate = gate_of("shop", monitor_rule("env:prod"), regression_rule())
    change(gate)
    return gate


def set_field(path: str, value):
    def change(gate):
        target = gate
        *parts, last = path.split(".")
        for part in parts:
            target = target[int(part)] if part.isdigit() else getattr(target, part)
        setattr(target, last, value)

    return change


@pytest.mark.parametrize(
    ("change", "field", "tells"),
    [
        (set_field("service", ""), "gate.service", "is needed"),
        (set_field("service", "x" * 10_000), "gate.service", "10000 bytes; at most 256"),
        (set_field("environment", "a\u0000b"), "gate.environment", "control characters"),
        (set_field("name", "gates/1"), "gate.name", "write services/"),
        (set_field("name", name_of("other")), "gate.name", "contradicts"),
        (lambda gate: gate.ClearField("rules"), "gate.rules", "at least one rule"),
        (set_field("rules.1.name", "alerts"), "gate.rules[1].name", "is the name of gate.rules[0] already"),
        (lambda gate: gate.rules[0].ClearField("monitor"), "gate.rules[0]", "one of regression, monitor"),
        (set_field("rules.0.mode", 9), "gate.rules[0].mode", "9 is no value of this enum; use one of ENFORCE"),
        (set_field("rules.0.on_no_data", 77), "gate.rules[0].on_no_data", "INCONCLUSIVE, PASS, FAIL, ERROR"),
        (set_field("rules.0.monitor.query", "a:(b"), "gate.rules[0].monitor.query", "column 5"),
        (set_field("rules.0.monitor.query", ""), "gate.rules[0].monitor.query", "the query is empty"),
        (
            lambda gate: seconds(gate.rules[0].monitor.duration, 7201),
            "gate.rules[0].monitor.duration",
            "0 s to 7200 s, not 7201 s",
        ),
        (
            lambda gate: seconds(gate.rules[0].monitor.duration, -1),
            "gate.rules[0].monitor.duration",
            "not -1 s",
        ),
        (
            lambda gate: gate.rules[0].monitor.fail_on.append(0),
            "gate.rules[0].monitor.fail_on[0]",
            "is needed",
        ),
        (
            lambda gate: gate.rules[0].monitor.fail_on.append(1),
            "gate.rules[0].monitor.fail_on",
            "OK cannot fail",
        ),
        (
            lambda gate: gate.rules[1].regression.ClearField("metrics"),
            "gate.rules[1].regression.metrics",
            "at least one metric",
        ),
        (
            set_field("rules.1.regression.metrics.0.margin", -1.0),
            "gate.rules[1].regression.metrics[0].margin",
            "above 0",
        ),
        (
            lambda gate: seconds(gate.rules[1].regression.horizon, 0),
            "gate.rules[1].regression.horizon",
            "above 0 s",
        ),
        (
            lambda gate: gate.rules[1].threshold.SetInParent(),
            "gate.rules[1].threshold.metric",
            "is needed",
        ),
    ],
)
def test_gates_that_are_refused(calls, change, field, tells):
    found = refused(lambda: create(calls, broken(change)))
    assert found.code == "INVALID_ARGUMENT"
    assert tells in found.fields[field], found.fields


def test_a_fault_is_told_once(calls):
    rule = rules_pb2.Rule(name="latency")
    rule.regression.SetInParent()
    request = wire.CreateGateRequest(gate=gate_of(fresh(), rule))
    found = refused(lambda: calls.gates.CreateGate(request))
    assert found.message == "gate.rules[0].regression.metrics: at least one metric is needed"


def test_all_faults_are_told_at_once(calls):
    gate = gate_of("", monitor_rule("(", name=""), regression_rule(name=""))
    found = refused(lambda: create(calls, gate))
    assert set(found.fields) == {
        "gate.service",
        "gate.rules[0].name",
        "gate.rules[0].monitor.query",
        "gate.rules[1].name",
    }


@pytest.mark.parametrize("path", ["service", "uid", "rules[0].name", "nothing", "create_time"])
def test_masks_that_are_refused(calls, path):
    made = create(calls, gate_of(fresh()))
    request = wire.UpdateGateRequest(gate=made, update_mask=FieldMask(paths=["owner", path]))
    found = refused(lambda: calls.gates.UpdateGate(request))
    assert "fields that can are rules, dry_run, enabled" in found.fields["update_mask.paths[1]"]


@pytest.mark.parametrize("name", ["", "shop", "services/a/environments/b", "evaluations/1"])
def test_names_that_are_refused(calls, name):
    for call in (
        lambda: calls.gates.GetGate(wire.GetGateRequest(name=name)),
        lambda: calls.gates.DeleteGate(wire.DeleteGateRequest(name=name)),
        lambda: calls.gates.ListGateRevisions(wire.ListGateRevisionsRequest(name=name)),
    ):
        found = refused(call)
        assert (found.code, list(found.fields)) == ("INVALID_ARGUMENT", ["name"])


def test_what_is_not_there(calls):
    missing = name_of("nothing")
    for call in (
        lambda: calls.gates.GetGate(wire.GetGateRequest(name=missing)),
        lambda: calls.gates.DeleteGate(wire.DeleteGateRequest(name=missing)),
        lambda: calls.gates.ListGateRevisions(wire.ListGateRevisionsRequest(name=missing)),
        lambda: calls.gates.UpdateGate(wire.UpdateGateRequest(gate=gate_of("nothing"))),
    ):
        assert refused(call).code == "NOT_FOUND"


def test_text_that_is_not_utf_8_is_refused(calls):
    bad = b"\n\x06\n\x04\xff\xfe\xff\xfe"
    method = calls.channel.unary_unary("/tidegate.v1.GateService/CreateGate")
    found = refused(lambda: method(bad, timeout=60))
    assert (found.code, found.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")
    assert "UTF-8" in found.message
