"""Evaluations and what rules found: domain to wire."""

from __future__ import annotations

from typing import Any, cast

from tidegate.v1 import evaluations_pb2, findings_pb2, rules_pb2

from tidegate_server.api.gate_messages import encode_deployment, encode_gate
from tidegate_server.api.metrics import encode_seconds, encode_spec
from tidegate_server.gates.model import (
    Evaluation,
    Finding,
    GroupFinding,
    MonitorEvidence,
    RuleResult,
    StateSpan,
)
from tidegate_server.gates.names import simple_name

BASIC = evaluations_pb2.EVALUATION_VIEW_BASIC
FULL = evaluations_pb2.EVALUATION_VIEW_FULL

_NUMBERS = (
    "effect",
    "effect_low",
    "effect_high",
    "p_value",
    "adjusted_p_value",
    "log_e_value",
    "n_effective",
    "baseline_level",
    "canary_level",
    "minimum_detectable_effect",
)

# A time to answer beyond this many seconds says "never" to a person, and a Duration holds no more.
_LONGEST = 3e11


def _number(value: int | None) -> Any:
    """Return an enum for the wire, 0 for None."""
    return 0 if value is None else int(value)


def encode_evaluation(evaluation: Evaluation, *, full: bool) -> evaluations_pb2.Evaluation:
    """Return the message of an evaluation; not ``full`` leaves out rules, findings, groups and monitors."""
    message = evaluations_pb2.Evaluation(
        name=simple_name("evaluations", evaluation.id) if evaluation.id else "",
        version=evaluation.version,
        state=_number(evaluation.state),
        verdict=_number(evaluation.verdict),
        decision=_number(evaluation.standing_decision),
        computed_decision=_number(evaluation.decision),
        would_decide=_number(evaluation.would_decide),
        sentence=evaluation.sentence,
        deployment=encode_deployment(evaluation.deployment),
        gate=encode_gate(evaluation.gate, rules=full),
        rule_results=[encode_rule_result(one, full=full) for one in evaluation.results],
        created_by=evaluation.created_by,
        ensure_key=evaluation.ensure_key,
        cancelled_by=evaluation.cancelled_by,
        cancel_reason=evaluation.cancel_reason,
        series_complete=evaluation.series_complete,
    )
    for name in ("create_time", "start_time", "decide_time", "end_time", "update_time", "expire_time"):
        time = getattr(evaluation, name)
        if time is not None:
            encode_seconds(getattr(message, name), time)
    if evaluation.override is not None:
        message.override.decision = cast("Any", int(evaluation.override.decision))
        message.override.reason = evaluation.override.reason
        message.override.actor = evaluation.override.actor
        encode_seconds(message.override.time, evaluation.override.time)
    for label in evaluation.labels:
        added = message.labels.add(kind=_number(label.kind), note=label.note, actor=label.actor)
        encode_seconds(added.time, label.time)
    return message


def encode_rule_result(result: RuleResult, *, full: bool = True) -> rules_pb2.RuleResult:
    """Return the message of a rule's result."""
    message = rules_pb2.RuleResult(
        rule=result.rule,
        mode=_number(result.mode),
        verdict=_number(result.verdict),
        effective_verdict=_number(result.effective_verdict),
        sentence=result.sentence,
        reason=result.reason,
        policy_applied=result.policy_applied,
        not_awaited=result.not_awaited,
        done=result.done,
    )
    if full:
        message.findings.extend(encode_finding(one) for one in result.findings)
        message.groups.extend(encode_group(one) for one in result.groups)
        message.monitors.extend(_encode_monitor(one) for one in result.monitors)
    if result.end_time is not None:
        encode_seconds(message.end_time, result.end_time)
    if result.as_of is not None:
        encode_seconds(message.as_of, result.as_of)
    return message


def encode_finding(finding: Finding) -> findings_pb2.Finding:
    """Return the message of a finding."""
    message = findings_pb2.Finding(
        metric=finding.metric,
        verdict=_number(finding.verdict),
        sentence=finding.sentence,
        reason=finding.reason,
        baseline_points=finding.baseline_points,
        canary_points=finding.canary_points,
        method=finding.method,
        history_windows=finding.history_windows,
        history_exceeding=finding.history_exceeding,
        spec=encode_spec(finding.spec),
        derived_fields=finding.derived_fields,
        quality=[
            findings_pb2.QualityNote(code=note.code, count=max(0, int(note.count)), message=note.message)
            for note in finding.quality
        ],
    )
    for name in _NUMBERS:
        value = getattr(finding, name)
        if value is not None:
            setattr(message, name, value)
    if finding.time_to_answer is not None:
        encode_seconds(message.time_to_answer, min(finding.time_to_answer, _LONGEST))
    if finding.onset is not None:
        encode_seconds(message.onset.time, finding.onset.time)
        encode_seconds(message.onset.earliest, finding.onset.earliest)
        encode_seconds(message.onset.latest, finding.onset.latest)
        if finding.onset.after_deployment is not None:
            encode_seconds(message.onset.after_deployment, finding.onset.after_deployment)
    return message


def encode_group(group: GroupFinding) -> findings_pb2.GroupFinding:
    """Return the message of a group's outcome."""
    return findings_pb2.GroupFinding(
        group=group.group,
        verdict=_number(group.verdict),
        adjusted_p_value=group.adjusted_p_value,
        metrics=group.metrics,
        failing=group.failing,
    )


def _encode_monitor(evidence: MonitorEvidence) -> rules_pb2.MonitorEvidence:
    return rules_pb2.MonitorEvidence(
        monitor_id=evidence.monitor_id,
        name=evidence.name,
        group=evidence.group,
        timeline=[encode_span(span) for span in evidence.timeline],
        muted=evidence.muted,
        failing=evidence.failing,
        url=evidence.url,
        note=evidence.note,
    )


def encode_span(span: StateSpan) -> rules_pb2.MonitorStateSpan:
    """Return the message of a stretch of time in one state."""
    message = rules_pb2.MonitorStateSpan(state=_number(span.state), muted=span.muted)
    encode_seconds(message.start_time, span.start)
    if span.end is not None:
        encode_seconds(message.end_time, span.end)
    return message
