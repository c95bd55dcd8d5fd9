"""EvaluationService with real calls: start, ensure, feed, watch, cancel, override, label, list, evidence."""

from __future__ import annotations

import concurrent.futures
import time
import uuid

import numpy as np
import pytest
from tidegate.v1 import evaluation_service_pb2 as wire
from tidegate.v1 import evaluations_pb2, findings_pb2, gate_service_pb2, monitor_service_pb2, monitors_pb2, rules_pb2
from tidegate_server.api.paging import write_token

from tests.api_gates.gate_calls import (
    DONE,
    Calls,
    arms,
    deployment_of,
    fresh,
    gate_of,
    monitor_rule,
    name_of,
    regression_rule,
    seconds,
)
from tests.server.harness import refused

PASS, FAIL = findings_pb2.VERDICT_PASS, findings_pb2.VERDICT_FAIL
PROCEED, HALT, HOLD = findings_pb2.DECISION_PROCEED, findings_pb2.DECISION_HALT, findings_pb2.DECISION_HOLD


def push(calls, service, state="OK", monitor_id=None, **more):
    report = monitors_pb2.MonitorStateReport(
        monitor_id=monitor_id or f"m-{service}",
        name=f"Errors of {service}",
        state=f"MONITOR_STATE_{state}",
        tags=[f"service:{service}"],
        **more,
    )
    calls.monitors.PushStates(monitor_service_pb2.PushStatesRequest(states=[report]))


def start(calls, service, *rules, deployment=None, dry_run=False, **more):
    inline = wire.InlineRules(rules=rules or [regression_rule()], dry_run=dry_run)
    request = wire.StartEvaluationRequest(inline_rules=inline, deployment=deployment or deployment_of(service), **more)
    return calls.evaluations.StartEvaluation(request).evaluation


def watch(calls, name, **more):
    return list(calls.evaluations.WatchEvaluation(wire.WatchEvaluationRequest(name=name, **more)))


def end_of(calls, name):
    return watch(calls, name)[-1].evaluation


def test_a_gate_with_monitors_and_a_regression_fails_with_evidence(calls):
    service = fresh()
    push(calls, service)
    push(calls, service, monitor_id=f"n-{service}")
    calls.gates.CreateGate(
        gate_service_pb2.CreateGateRequest(
            gate=gate_of(service, monitor_rule(f"service:{service}", duration=600), regression_rule())
        )
    )
    deployment = deployment_of(service, ago=700)
    made = calls.evaluations.StartEvaluation(
        wire.StartEvaluationRequest(gate=name_of(service), deployment=deployment)
    ).evaluation
    assert made.name.startswith("evaluations/")
    assert made.gate.revision == 1
    assert calls.evaluations.GetEvaluation(wire.GetEvaluationRequest(name=made.name)).evaluation.name == made.name
    blocks = arms(time.time() - 690, factor=1.5)
    receipt = calls.evaluations.WriteSeries(wire.WriteSeriesRequest(name=made.name, blocks=blocks))
    assert receipt.blocks_taken == 2
    updates = watch(calls, made.name)
    assert [one.final for one in updates] == [False] * (len(updates) - 1) + [True]
    versions = [one.evaluation.version for one in updates]
    assert versions == sorted(set(versions))
    done = updates[-1].evaluation
    assert (done.state, done.verdict, done.decision) == (DONE, FAIL, HALT)
    by_rule = {one.rule: one for one in done.rule_results}
    assert by_rule["latency"].findings[0].verdict == FAIL
    assert by_rule["latency"].findings[0].HasField("onset")
    assert by_rule["alerts"].not_awaited is True
    assert {one.monitor_id for one in by_rule["alerts"].monitors} == {f"m-{service}", f"n-{service}"}
    assert "p95" in done.sentence


def test_it_keeps_the_rules_that_it_began_with(calls):
    service = fresh()
    push(calls, service)
    calls.gates.CreateGate(gate_service_pb2.CreateGateRequest(gate=gate_of(service)))
    made = calls.evaluations.StartEvaluation(wire.StartEvaluationRequest(deployment=deployment_of(service))).evaluation
    calls.gates.DeleteGate(gate_service_pb2.DeleteGateRequest(name=name_of(service)))
    done = end_of(calls, made.name)
    assert (done.verdict, done.decision) == (PASS, PROCEED)
    assert done.gate.rules[0].monitor.query == f"service:{service}"


def test_a_monitor_that_fails_halts(calls):
    service = fresh()
    push(calls, service, "ALERT", url="https://monitors/1")
    done = end_of(calls, start(calls, service, monitor_rule(f"service:{service}")).name)
    assert (done.verdict, done.decision) == (FAIL, HALT)
    evidence = done.rule_results[0].monitors[0]
    assert (evidence.failing, evidence.url) == (True, "https://monitors/1")
    assert evidence.timeline[0].state == rules_pb2.MONITOR_STATE_ALERT
    assert "Errors of" in done.sentence


def test_an_alert_ends_a_watch_at_once(calls):
    service = fresh()
    push(calls, service)
    made = start(calls, service, monitor_rule(f"service:{service}", duration=600))
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        watched = pool.submit(watch, calls, made.name)
        push(calls, service, "ALERT")
        done = watched.result(60)[-1].evaluation
    assert (done.state, done.verdict) == (DONE, FAIL)


def test_a_dry_run_proceeds_and_tells(calls):
    service = fresh()
    push(calls, service, "ALERT")
    done = end_of(calls, start(calls, service, monitor_rule(f"service:{service}"), dry_run=True).name)
    assert (done.verdict, done.decision, done.would_decide) == (FAIL, PROCEED, HALT)


def test_completed_series_are_judged_at_once(calls):
    service = fresh()
    made = start(calls, service, deployment=deployment_of(service, ago=700))
    request = wire.WriteSeriesRequest(name=made.name, blocks=arms(time.time() - 690), complete=True)
    calls.evaluations.WriteSeries(request)
    done = end_of(calls, made.name)
    assert done.series_complete
    assert (done.verdict, done.decision) == (PASS, PROCEED)


def test_completing_without_points_is_a_matter_of_policy(calls):
    service = fresh()
    rule = regression_rule(on_no_data=rules_pb2.OUTCOME_POLICY_ERROR)
    made = start(calls, service, rule)
    calls.evaluations.WriteSeries(wire.WriteSeriesRequest(name=made.name, complete=True))
    done = end_of(calls, made.name)
    assert (done.verdict, done.decision) == (findings_pb2.VERDICT_ERROR, HOLD)
    assert done.rule_results[0].policy_applied == "on_no_data = ERROR"


def test_the_decision_is_told_before_dry_run_rules_are_through(calls):
    service = fresh()
    push(calls, service)
    made = start(
        calls,
        service,
        monitor_rule(f"service:{service}"),
        regression_rule(mode=rules_pb2.RULE_MODE_DRY_RUN),
    )
    last = watch(calls, made.name, until_decided=True)[-1]
    assert last.final
    assert (last.evaluation.decision, last.evaluation.state) == (
        PROCEED,
        evaluations_pb2.EVALUATION_STATE_RUNNING,
    )
    calls.evaluations.CancelEvaluation(wire.CancelEvaluationRequest(name=made.name))


# --- starting


def test_a_repeated_request_returns_the_same_evaluation(calls):
    service, request_id = fresh(), uuid.uuid4().hex
    first = start(calls, service, request_id=request_id)
    assert start(calls, service, request_id=request_id).name == first.name
    found = refused(
        lambda: start(calls, service, deployment=deployment_of(service, version="3"), request_id=request_id)
    )
    assert (found.code, found.reason) == ("ALREADY_EXISTS", "REQUEST_ID_REUSED")
    assert start(calls, fresh(), request_id=request_id).name != first.name


def test_many_repetitions_at_once_start_one_evaluation(calls):
    service, request_id = fresh(), uuid.uuid4().hex
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        names = set(pool.map(lambda _: start(calls, service, request_id=request_id).name, range(16)))
    assert len(names) == 1


def ensure(calls, service, key, **more):
    request = wire.EnsureEvaluationRequest(
        key=key,
        inline_rules=wire.InlineRules(rules=[regression_rule()]),
        deployment=deployment_of(service),
        **more,
    )
    return calls.evaluations.EnsureEvaluation(request)


def test_ensure_returns_the_evaluation_of_its_key(calls):
    service = fresh()
    first = ensure(calls, service, "step-1")
    assert first.created
    assert first.evaluation.ensure_key == "step-1"
    again = ensure(calls, service, "step-1")
    assert (again.created, again.evaluation.name) == (False, first.evaluation.name)
    assert ensure(calls, service, "step-2").created
    assert ensure(calls, fresh(), "step-1").created


def test_a_key_never_returns_the_evaluation_of_another_version_or_of_other_rules(calls):
    service = fresh()
    first = ensure(calls, service, "k").evaluation
    rules = wire.InlineRules(rules=[regression_rule()])
    later = wire.EnsureEvaluationRequest(key="k", inline_rules=rules, deployment=deployment_of(service, ago=5))
    assert calls.evaluations.EnsureEvaluation(later).evaluation.name == first.name
    for other in (
        wire.EnsureEvaluationRequest(key="k", inline_rules=rules, deployment=deployment_of(service, version="3")),
        wire.EnsureEvaluationRequest(
            key="k",
            inline_rules=wire.InlineRules(rules=[regression_rule("other")]),
            deployment=deployment_of(service),
        ),
    ):
        found = refused(lambda other=other: calls.evaluations.EnsureEvaluation(other))
        assert (found.code, found.reason) == ("ALREADY_EXISTS", "KEY_REUSED")
        assert "names the rollout and step" in found.message


def test_ensure_begins_anew_after_its_life_time_and_after_a_cancellation(calls):
    service = fresh()
    request = wire.EnsureEvaluationRequest(
        key="k",
        inline_rules=wire.InlineRules(rules=[monitor_rule(f"service:{service}", duration=0.001)]),
        deployment=deployment_of(service),
    )
    seconds(request.ttl, 0.001)
    first = calls.evaluations.EnsureEvaluation(request)
    assert calls.evaluations.EnsureEvaluation(request).created
    assert first.created
    request.inline_rules.rules[0].CopyFrom(regression_rule())
    seconds(request.ttl, 3600)
    lasting = calls.evaluations.EnsureEvaluation(request)
    calls.evaluations.CancelEvaluation(wire.CancelEvaluationRequest(name=lasting.evaluation.name))
    assert calls.evaluations.EnsureEvaluation(request).created


def test_a_life_time_shorter_than_the_watch_is_refused(calls):
    """Every poll after it would begin another evaluation, and none would ever be seen to end."""
    request = wire.EnsureEvaluationRequest(
        key="k", inline_rules=wire.InlineRules(rules=[regression_rule(horizon=900)]), deployment=deployment_of(fresh())
    )
    seconds(request.ttl, 60)
    found = refused(lambda: calls.evaluations.EnsureEvaluation(request))
    assert (found.code, list(found.fields)) == ("INVALID_ARGUMENT", ["ttl"])
    assert "shorter than the 900 s that the rules may watch" in found.fields["ttl"]
    request.ClearField("ttl")
    seconds(request.inline_rules.rules[0].regression.horizon, 7200)
    made = calls.evaluations.EnsureEvaluation(request).evaluation
    assert made.expire_time.ToNanoseconds() - made.create_time.ToNanoseconds() == 4 * 3600 * 10**9


@pytest.mark.parametrize("became", ["disabled", "deleted", "in need of a version"])
def test_repetitions_are_answered_whatever_became_of_the_gate(calls, became):
    service = fresh()
    gate = calls.gates.CreateGate(gate_service_pb2.CreateGateRequest(gate=gate_of(service))).gate
    deployment = deployment_of(service, version="")
    begin = wire.StartEvaluationRequest(gate=gate.name, deployment=deployment, request_id="r1")
    ensure = wire.EnsureEvaluationRequest(gate=gate.name, deployment=deployment, key="k1")
    started = calls.evaluations.StartEvaluation(begin).evaluation
    ensured = calls.evaluations.EnsureEvaluation(ensure).evaluation
    if became == "deleted":
        calls.gates.DeleteGate(gate_service_pb2.DeleteGateRequest(name=gate.name))
    else:
        gate.enabled = became != "disabled"
        gate.rules.append(regression_rule())
        calls.gates.UpdateGate(gate_service_pb2.UpdateGateRequest(gate=gate))
    assert calls.evaluations.StartEvaluation(begin).evaluation.name == started.name
    again = calls.evaluations.EnsureEvaluation(ensure)
    assert (again.evaluation.name, again.created) == (ensured.name, False)
    ensure.deployment.version = "3"
    assert refused(lambda: calls.evaluations.EnsureEvaluation(ensure)).reason == "KEY_REUSED"
    begin.deployment.version = "3"
    assert refused(lambda: calls.evaluations.StartEvaluation(begin)).reason == "REQUEST_ID_REUSED"
    begin.request_id, ensure.key = "r2", "k2"
    begin.deployment.version = ensure.deployment.version = ""
    right = {"deleted": "NOT_FOUND", "disabled": "FAILED_PRECONDITION"}.get(became, "INVALID_ARGUMENT")
    assert refused(lambda: calls.evaluations.StartEvaluation(begin)).code == right
    assert refused(lambda: calls.evaluations.EnsureEvaluation(ensure)).code == right


def test_validate_only_starts_nothing(calls):
    service = fresh()
    made = start(calls, service, validate_only=True)
    assert made.name == ""
    listed = calls.evaluations.ListEvaluations(wire.ListEvaluationsRequest(parent=f"services/{service}/environments/-"))
    assert not listed.evaluations


def test_a_gate_that_is_not_enabled_refuses(calls):
    service = fresh()
    calls.gates.CreateGate(gate_service_pb2.CreateGateRequest(gate=gate_of(service, enabled=False)))
    found = refused(
        lambda: calls.evaluations.StartEvaluation(wire.StartEvaluationRequest(deployment=deployment_of(service)))
    )
    assert (found.code, found.reason) == ("FAILED_PRECONDITION", "GATE_DISABLED")


def test_a_gate_that_is_not_there(calls):
    found = refused(
        lambda: calls.evaluations.StartEvaluation(wire.StartEvaluationRequest(deployment=deployment_of(fresh())))
    )
    assert (found.code, found.reason) == ("NOT_FOUND", "GATE_NOT_FOUND")


BASE = wire.StartEvaluationRequest(
    inline_rules=wire.InlineRules(rules=[regression_rule()]), deployment=deployment_of("shop")
)


def start_request(**changes):
    request = wire.StartEvaluationRequest()
    request.CopyFrom(BASE)
    for path, value in changes.items():
        target = request.deployment if hasattr(request.deployment, path) else request
        setattr(target, path, value)
    return request


@pytest.mark.parametrize(
    ("request_", "field", "tells"),
    [
        (start_request(version=""), "deployment.version", "rule 'latency' compares"),
        (start_request(service=""), "deployment.service", "is needed"),
        (start_request(environment="x" * 10_000), "deployment.environment", "at most 256"),
        (start_request(request_id="x" * 129), "request_id", "at most 128"),
        (start_request(gate="nonsense"), "gate", "is no name of a gate"),
        (start_request(gate=name_of("other")), "deployment.service", "is not the gate's 'other'"),
        (
            wire.StartEvaluationRequest(inline_rules=wire.InlineRules(), deployment=deployment_of("shop")),
            "inline_rules.rules",
            "at least one rule",
        ),
        (
            wire.StartEvaluationRequest(
                inline_rules=wire.InlineRules(rules=[monitor_rule("a:(")]), deployment=deployment_of("shop")
            ),
            "inline_rules.rules[0].monitor.query",
            "column 4",
        ),
        (
            wire.StartEvaluationRequest(
                inline_rules=wire.InlineRules(rules=[monitor_rule("a"), monitor_rule("b")]),
                deployment=deployment_of("shop"),
            ),
            "inline_rules.rules[1].name",
            "names differ",
        ),
        (
            wire.StartEvaluationRequest(inline_rules=BASE.inline_rules, deployment=deployment_of("shop", ago=-3600)),
            "deployment.start_time",
            "in the future",
        ),
    ],
)
def test_starts_that_are_refused(calls, request_, field, tells):
    found = refused(lambda: calls.evaluations.StartEvaluation(request_))
    assert found.code == "INVALID_ARGUMENT"
    assert tells in found.fields[field], found.fields


def test_ensures_that_are_refused(calls):
    request = wire.EnsureEvaluationRequest(inline_rules=BASE.inline_rules, deployment=BASE.deployment)
    seconds(request.ttl, 8 * 86400)
    assert set(refused(lambda: calls.evaluations.EnsureEvaluation(request)).fields) == {"key", "ttl"}


# --- series


def test_numbered_blocks_may_be_sent_again(calls):
    service = fresh()
    made = start(calls, service, deployment=deployment_of(service, ago=700))
    blocks = arms(time.time() - 690)
    for number, block in enumerate(blocks, 1):
        block.sequence = number
    request = wire.WriteSeriesRequest(name=made.name, writer="pusher", blocks=blocks)
    first = calls.evaluations.WriteSeries(request)
    assert (first.acknowledged_sequence, first.blocks_taken) == (2, 2)
    again = calls.evaluations.WriteSeries(request)
    assert (again.acknowledged_sequence, again.blocks_taken) == (2, 0)
    request.blocks[0].sequence, request.blocks[1].sequence = 5, 6
    found = refused(lambda: calls.evaluations.WriteSeries(request))
    assert (found.code, found.reason) == ("FAILED_PRECONDITION", "SEQUENCE_GAP")


def series(name, **changes):
    block = arms(time.time() - 600, columns=3)[0]
    for field, value in changes.items():
        if field == "start":
            seconds(block.start_time, value)
        elif field == "step":
            seconds(block.step, value)
        elif isinstance(value, list):
            del getattr(block, field)[:]
            getattr(block, field).extend(value)
        else:
            setattr(block, field, value)
    return wire.WriteSeriesRequest(name=name, blocks=[block])


@pytest.mark.parametrize(
    ("changes", "field", "tells"),
    [
        ({"arm": 0}, "blocks[0].arm", "is needed; use one of ARM_BASELINE, ARM_CANARY"),
        ({"arm": 9}, "blocks[0].arm", "9 is no value of this enum; use one of ARM_BASELINE, ARM_CANARY"),
        ({"metrics": ["nope"]}, "blocks[0].metrics[0]", "not declared"),
        ({"values": [1.0]}, "blocks[0].values", "are needed"),
        ({"step": 0}, "blocks[0].step", "above 0"),
        ({"start": time.time() + 3600}, "blocks[0].start_time", "in the future"),
        ({"start": time.time() / 1000}, "blocks[0].start_time", "days before the deployment; at most 30"),
        ({"instance": "i" * 10_000}, "blocks[0].instance", "at most"),
    ],
)
def test_blocks_that_are_refused(calls, changes, field, tells):
    made = start(calls, fresh())
    found = refused(lambda: calls.evaluations.WriteSeries(series(made.name, **changes)))
    assert found.code == "INVALID_ARGUMENT"
    assert tells in found.fields[field], found.fields


def test_blocks_with_another_step_than_the_first_are_refused(calls):
    made = start(calls, fresh())
    calls.evaluations.WriteSeries(series(made.name))
    found = refused(lambda: calls.evaluations.WriteSeries(series(made.name, step=7.0)))
    assert "have 10 s" in found.fields["blocks[0].step"]


def test_rows_must_be_named_where_rules_differ(calls):
    made = start(calls, fresh(), regression_rule("a"), regression_rule("b", name="second"))
    found = refused(lambda: calls.evaluations.WriteSeries(series(made.name, metrics=[])))
    assert "more than one rule" in found.fields["blocks[0].metrics"]


def test_series_of_a_monitor_gate_are_refused(calls):
    service = fresh()
    push(calls, service)
    made = start(calls, service, monitor_rule(f"service:{service}", duration=600))
    found = refused(lambda: calls.evaluations.WriteSeries(series(made.name)))
    assert "no rule on metrics" in found.fields["name"]


def test_nothing_to_write_is_refused(calls):
    made = start(calls, fresh())
    found = refused(lambda: calls.evaluations.WriteSeries(wire.WriteSeriesRequest(name=made.name)))
    assert "or complete" in found.fields["blocks"]


def test_what_has_ended_takes_no_points(calls):
    made = start(calls, fresh())
    calls.evaluations.CancelEvaluation(wire.CancelEvaluationRequest(name=made.name))
    found = refused(lambda: calls.evaluations.WriteSeries(series(made.name)))
    assert (found.code, found.reason) == ("FAILED_PRECONDITION", "EVALUATION_FINISHED")


def test_the_evidence_holds_what_was_written_to_the_last_bit(calls):
    service = fresh()
    made = start(calls, service, regression_rule("a"), regression_rule("b", name="second"))
    written = arms(time.time() - 600, metrics=("a", "b"), columns=7)
    calls.evaluations.WriteSeries(wire.WriteSeriesRequest(name=made.name, blocks=written))
    blocks, token, pages = [], "", 0
    while True:
        page = calls.evaluations.GetEvidence(wire.GetEvidenceRequest(name=made.name, page_size=1, page_token=token))
        assert bool(page.rule_results) == (pages == 0)
        blocks += page.blocks
        token, pages = page.next_page_token, pages + 1
        if not token:
            break
    assert pages == 2
    assert [np.asarray(one.values).tolist() for one in blocks] == [list(one.values) for one in written]
    assert [one.sequence for one in blocks] == [1, 2]
    part = calls.evaluations.GetEvidence(wire.GetEvidenceRequest(name=made.name, rule="second"))
    assert [list(one.metrics) for one in part.blocks] == [["b"], ["b"]]
    assert [one.rule for one in part.rule_results] == ["second"]
    found = refused(lambda: calls.evaluations.GetEvidence(wire.GetEvidenceRequest(name=made.name, rule="third")))
    assert "rules are latency, second" in found.fields["rule"]


# --- people


def test_cancel(calls):
    made = start(calls, fresh())
    gone = calls.evaluations.CancelEvaluation(
        wire.CancelEvaluationRequest(name=made.name, reason="wrong build")
    ).evaluation
    assert gone.state == evaluations_pb2.EVALUATION_STATE_CANCELLED
    assert (gone.verdict, gone.decision) == (findings_pb2.VERDICT_UNSPECIFIED, HOLD)
    assert (gone.cancelled_by, gone.cancel_reason) == ("anonymous", "wrong build")
    again = calls.evaluations.CancelEvaluation(wire.CancelEvaluationRequest(name=made.name)).evaluation
    assert again == gone
    assert watch(calls, made.name)[-1].final


def test_what_is_cancelled_holds_even_if_somebody_let_it_go_on_before(calls):
    made = start(calls, fresh())
    let_go = wire.OverrideEvaluationRequest(name=made.name, decision=PROCEED, reason="known")
    assert calls.evaluations.OverrideEvaluation(let_go).evaluation.decision == PROCEED
    found = calls.evaluations.CancelEvaluation(wire.CancelEvaluationRequest(name=made.name)).evaluation
    assert found.decision == HOLD
    assert found.override.decision == PROCEED
    parent = f"services/{made.deployment.service}/environments/prod"
    holding = wire.ListEvaluationsRequest(parent=parent, filter="decision = HOLD")
    assert [one.name for one in calls.evaluations.ListEvaluations(holding).evaluations] == [made.name]


def test_what_has_ended_cannot_be_cancelled(calls):
    service = fresh()
    push(calls, service)
    made = start(calls, service, monitor_rule(f"service:{service}"))
    end_of(calls, made.name)
    found = refused(lambda: calls.evaluations.CancelEvaluation(wire.CancelEvaluationRequest(name=made.name)))
    assert (found.code, found.reason) == ("FAILED_PRECONDITION", "EVALUATION_FINISHED")


def test_a_cancellation_while_it_finishes_is_one_or_the_other(calls):
    service = fresh()
    push(calls, service)
    for _ in range(10):
        made = start(calls, service, monitor_rule(f"service:{service}"))
        request = wire.CancelEvaluationRequest(name=made.name)
        try:
            cancelled = calls.evaluations.CancelEvaluation(request).evaluation.state
        except Exception as error:
            assert error.details().startswith("evaluation")  # noqa: PT017 - either answer is right
            cancelled = None
        done = end_of(calls, made.name)
        if cancelled is None:
            assert (done.state, done.verdict) == (DONE, PASS)
        else:
            assert done.state == evaluations_pb2.EVALUATION_STATE_CANCELLED
            assert done.verdict == findings_pb2.VERDICT_UNSPECIFIED


def test_override_and_label(calls):
    service = fresh()
    push(calls, service, "ALERT")
    made = start(calls, service, monitor_rule(f"service:{service}"))
    early = refused(
        lambda: calls.evaluations.LabelEvaluation(
            wire.LabelEvaluationRequest(name=start(calls, service).name, kind=evaluations_pb2.LABEL_KIND_MISSED)
        )
    )
    assert early.reason == "EVALUATION_NOT_FINISHED"
    end_of(calls, made.name)
    said = calls.evaluations.OverrideEvaluation(
        wire.OverrideEvaluationRequest(name=made.name, decision=PROCEED, reason="known noise")
    ).evaluation
    assert (said.verdict, said.decision, said.computed_decision) == (FAIL, PROCEED, HALT)
    assert (said.override.reason, said.override.actor) == ("known noise", "anonymous")
    labelled = calls.evaluations.LabelEvaluation(
        wire.LabelEvaluationRequest(name=made.name, kind=evaluations_pb2.LABEL_KIND_FALSE_ALARM, note="noise")
    ).evaluation
    assert [one.note for one in labelled.labels] == ["noise"]
    parent = f"services/{service}/environments/-"
    for text in ("overridden = true", "label = FALSE_ALARM", "decision = PROCEED AND verdict = FAIL"):
        listed = calls.evaluations.ListEvaluations(wire.ListEvaluationsRequest(parent=parent, filter=text))
        assert [one.name for one in listed.evaluations] == [made.name], text


@pytest.mark.parametrize(
    ("method", "request_", "fields"),
    [
        ("OverrideEvaluation", wire.OverrideEvaluationRequest(reason=" "), {"decision", "reason"}),
        ("OverrideEvaluation", wire.OverrideEvaluationRequest(decision=PROCEED, reason="x" * 5000), {"reason"}),
        ("LabelEvaluation", wire.LabelEvaluationRequest(note="x" * 5000), {"kind", "note"}),
        ("CancelEvaluation", wire.CancelEvaluationRequest(reason="x" * 5000), {"reason"}),
        ("GetEvaluation", wire.GetEvaluationRequest(view=9), {"view"}),
        ("GetEvidence", wire.GetEvidenceRequest(page_size=-1), {"page_size"}),
    ],
)
def test_what_people_may_not_say(calls, method, request_, fields):
    asked = type(request_)()
    asked.CopyFrom(request_)
    asked.name = start(calls, fresh()).name
    found = refused(lambda: getattr(calls.evaluations, method)(asked))
    assert found.code == "INVALID_ARGUMENT"
    assert set(found.fields) == fields


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetEvaluation", wire.GetEvaluationRequest),
        ("CancelEvaluation", wire.CancelEvaluationRequest),
        ("OverrideEvaluation", wire.OverrideEvaluationRequest),
        ("LabelEvaluation", wire.LabelEvaluationRequest),
        ("GetEvidence", wire.GetEvidenceRequest),
        ("WriteSeries", wire.WriteSeriesRequest),
        ("WatchEvaluation", wire.WatchEvaluationRequest),
    ],
)
def test_evaluations_that_are_not_there(calls, method, request_):
    def call(name):
        answer = getattr(calls.evaluations, method)(request_(name=name))
        return list(answer) if method == "WatchEvaluation" else answer

    assert refused(lambda: call("evaluations/nothing")).code == "NOT_FOUND"
    found = refused(lambda: call("gates/1"))
    assert (found.code, list(found.fields)) == ("INVALID_ARGUMENT", ["name"])


# --- looking


def test_lists_are_newest_first_and_brief(calls):
    service = fresh()
    push(calls, service)
    names = []
    for version in ("1", "2", "3"):
        made = start(
            calls, service, monitor_rule(f"service:{service}"), deployment=deployment_of(service, version=version)
        )
        names.append(made.name)
        end_of(calls, made.name)
    parent = f"services/{service}/environments/prod"
    listed = calls.evaluations.ListEvaluations(wire.ListEvaluationsRequest(parent=parent)).evaluations
    assert [one.name for one in listed] == names[::-1]
    assert not listed[0].gate.rules
    assert not listed[0].rule_results[0].monitors
    full = calls.evaluations.ListEvaluations(
        wire.ListEvaluationsRequest(parent=parent, filter="version = 2", view=evaluations_pb2.EVALUATION_VIEW_FULL)
    ).evaluations
    assert [one.name for one in full] == [names[1]]
    assert full[0].rule_results[0].monitors
    page = calls.evaluations.ListEvaluations(wire.ListEvaluationsRequest(parent=parent, page_size=2))
    rest = calls.evaluations.ListEvaluations(
        wire.ListEvaluationsRequest(parent=parent, page_size=2, page_token=page.next_page_token)
    )
    assert [one.name for one in (*page.evaluations, *rest.evaluations)] == names[::-1]
    assert rest.next_page_token == ""
    found = refused(
        lambda: calls.evaluations.ListEvaluations(
            wire.ListEvaluationsRequest(page_token=page.next_page_token, filter="verdict = PASS")
        )
    )
    assert "belongs to a list with another" in found.fields["page_token"]
    found = refused(lambda: calls.evaluations.ListEvaluations(wire.ListEvaluationsRequest(filter="verdct = PASS")))
    assert "there is no field 'verdct'" in found.fields["filter"]


def test_a_watch_goes_on_after_the_version_that_was_seen(calls):
    service = fresh()
    push(calls, service)
    made = start(calls, service, monitor_rule(f"service:{service}"))
    done = end_of(calls, made.name)
    assert [one.final for one in watch(calls, made.name, after_version=done.version)] == [True]
    assert [one.evaluation.version for one in watch(calls, made.name)] == [done.version]


def test_a_version_that_was_never_seen_is_refused(calls):
    made = start(calls, fresh())
    found = refused(lambda: watch(calls, made.name, after_version=10_000))
    assert "was never seen" in found.fields["after_version"]


@pytest.mark.parametrize("length", [2_000, 10_000])
def test_refusals_of_very_long_names_still_arrive(calls, length):
    found = refused(
        lambda: calls.evaluations.GetEvaluation(wire.GetEvaluationRequest(name="evaluations/" + "é" * length))
    )
    assert found.code in ("NOT_FOUND", "INVALID_ARGUMENT")
    assert len(found.message) <= 1000


def test_a_large_block_comes_in_pieces_that_any_client_takes(calls):
    made = start(calls, fresh(), regression_rule("a", "b"), deployment=deployment_of(fresh()))
    start_time = round(time.time()) - 2_000_000
    whole = arms(start_time, metrics=("a", "b"), columns=180_000)[0]
    small = arms(start_time, metrics=("b", "a"), columns=3)[1]
    calls.evaluations.WriteSeries(wire.WriteSeriesRequest(name=made.name, blocks=[whole, small]))
    for rule, page_size in (("", 50), ("latency", 1)):
        pieces, token = [], ""
        while True:
            page = calls.evaluations.GetEvidence(
                wire.GetEvidenceRequest(name=made.name, rule=rule, page_size=page_size, page_token=token)
            )
            assert page.ByteSize() < 4 * 1024 * 1024
            assert bool(page.rule_results) == (not token)
            pieces += page.blocks
            token = page.next_page_token
            if not token:
                break
        assert [piece.sequence for piece in pieces] == [1] * (len(pieces) - 1) + [2]
        assert list(pieces[-1].values) == list(small.values)
        first = pieces[:-1]
        assert len(first) > 1
        values = [np.asarray(piece.values).reshape(2, -1) for piece in first]
        assert np.concatenate(values, axis=1).tobytes() == np.asarray(whole.values).tobytes()
        columns = np.cumsum([0, *(piece.columns for piece in first[:-1])])
        assert [piece.start_time.seconds for piece in first] == [start_time + int(k) * 10 for k in columns]
    calls.evaluations.CancelEvaluation(wire.CancelEvaluationRequest(name=made.name))


@pytest.mark.parametrize("cursor", ["x", "1", "-1:0", f"{'9' * 40}:0", "\u0663:0"])
def test_evidence_tokens_that_somebody_made_up_are_refused(calls, cursor):
    made = start(calls, fresh())
    request = wire.GetEvidenceRequest(name=made.name, page_token=write_token(cursor, "evidence", made.name, ""))
    found = refused(lambda: calls.evaluations.GetEvidence(request))
    assert (found.code, list(found.fields)) == ("INVALID_ARGUMENT", ["page_token"])


def test_evidence_comes_in_pages_of_bounded_size(calls):
    made = start(calls, fresh(), regression_rule("a"))
    blocks = arms(time.time() - 600_000, metrics=("a",), columns=60_000)
    for k in range(3):
        for block in blocks:
            block.instance = f"pod-{k}"
        calls.evaluations.WriteSeries(wire.WriteSeriesRequest(name=made.name, blocks=blocks))
    sizes, token = [], ""
    while True:
        page = calls.evaluations.GetEvidence(wire.GetEvidenceRequest(name=made.name, page_token=token))
        sizes.append(len(page.blocks))
        assert page.ByteSize() < 4 * 1024 * 1024
        token = page.next_page_token
        if not token:
            break
    assert sum(sizes) == 6
    assert len(sizes) > 1
    calls.evaluations.CancelEvaluation(wire.CancelEvaluationRequest(name=made.name))


def test_more_points_than_a_server_takes_are_refused(serving):
    with serving.server(max_points=100) as server:
        own = Calls(server.target)
        made = start(own, "shop")
        request = wire.WriteSeriesRequest(name=made.name, blocks=arms(time.time() - 700, columns=60))
        found = refused(lambda: own.evaluations.WriteSeries(request))
        assert (found.code, found.metadata["limit"]) == ("RESOURCE_EXHAUSTED", "max_points")
        own.close()


def test_points_are_counted_over_all_writes_of_an_evaluation(serving):
    with serving.server(max_points=100) as server:
        own = Calls(server.target)
        made = start(own, "shop")
        at = time.time() - 700

        def write(sequence: int, columns: int) -> wire.WriteSeriesResponse:
            blocks = arms(at + 10 * sequence, columns=columns)
            for k, block in enumerate(blocks):
                block.sequence = 2 * sequence + k + 1
            return own.evaluations.WriteSeries(wire.WriteSeriesRequest(name=made.name, blocks=blocks))

        assert write(0, 30).blocks_taken == 2
        found = refused(lambda: write(1, 30))
        assert found.code == "RESOURCE_EXHAUSTED"
        assert found.metadata == {"limit": "max_points", "value": "100", "got": "120"}
        assert "the evaluation has 60 points, 40 more may come" in found.message
        assert write(0, 30).blocks_taken == 0, "what was taken before is no new point"
        assert write(1, 20).blocks_taken == 2
        assert refused(lambda: write(2, 1)).metadata["got"] == "102"
        own.close()


def test_a_request_of_too_many_blocks_is_refused(calls):
    made = start(calls, fresh())
    request = wire.WriteSeriesRequest(name=made.name, blocks=arms(time.time() - 700, columns=1) * 501)
    assert "at most 1000" in refused(lambda: calls.evaluations.WriteSeries(request)).fields["blocks"]
