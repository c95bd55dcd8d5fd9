"""Domain objects with every field set, and short ways to make them."""

from __future__ import annotations

import math
import uuid
from dataclasses import replace

import numpy as np
import tidegate_analysis as ta
from tidegate_server.gates.model import (
    Comparator,
    Decision,
    Deployment,
    Evaluation,
    EvaluationState,
    Finding,
    Gate,
    GroupFinding,
    Label,
    LabelKind,
    MonitorCheck,
    MonitorEvidence,
    MonitorScope,
    MonitorState,
    MutedHandling,
    Onset,
    OutcomePolicy,
    Override,
    Policies,
    RegressionCheck,
    Rule,
    RuleMode,
    RuleResult,
    Seen,
    StateSpan,
    ThresholdCheck,
)
from tidegate_server.gates.ports import AuditRecord

AUDIT = AuditRecord(1_700_000_000.0, "ann", "test", "thing/1", "checkout", "prod", {"why": "because"})
T0 = 1_700_000_000.0


def rules() -> tuple[Rule, ...]:
    spec = ta.MetricSpec("p95", kind="gauge", margin=0.1, group="latency", unit="ms", criticality="critical")
    return (
        Rule("slower", RegressionCheck((spec, ta.MetricSpec("errors")), design="concurrent", horizon=600.0)),
        Rule(
            "quiet",
            MonitorCheck(
                'service:x AND (NOT group:"a b")',
                duration=300.5,
                fail_on=frozenset({MonitorState.ALERT, MonitorState.WARN}),
                scope=MonitorScope.NEWLY_FAILING,
                muted=MutedHandling.INCLUDE,
                max_matches=7,
            ),
            RuleMode.HOLD_ONLY,
            Policies(OutcomePolicy.FAIL, OutcomePolicy.PASS, OutcomePolicy.ERROR),
        ),
        Rule("low", ThresholdCheck(spec, Comparator.BELOW, 0.1 + 0.2), RuleMode.DRY_RUN),
    )


def gate(service: str = "checkout", environment: str = "prod", identifier: str = "default", **changes) -> Gate:
    values = {
        "rules": rules(),
        "uid": uuid.uuid4().hex,
        "revision": 1,
        "create_time": T0,
        "update_time": T0 + 0.1,
    }
    return Gate(service, environment, identifier, **(values | changes))


def evaluation(service: str = "checkout", environment: str = "prod", at: float = T0, **changes) -> Evaluation:
    deployment = changes.pop("deployment", None) or Deployment(service, environment, version="2.0")
    chosen = changes.pop("gate", None) or gate(service, environment)
    results = tuple(RuleResult(rule.name, rule.mode) for rule in chosen.rules)
    made = Evaluation(uuid.uuid4().hex, chosen, deployment, at, update_time=at, results=results)
    return replace(made, **changes)


def judged(one: Evaluation, verdict: ta.Verdict = ta.Verdict.FAIL, **changes) -> Evaluation:
    """The evaluation at its end, with evidence in every field."""
    finding = Finding(
        metric="p95",
        verdict=verdict,
        sentence="18 % worse \u2013 \u4f60\u597d \U0001f30a",
        reason="regression",
        spec=ta.MetricSpec("p95"),
        effect=0.1 + 0.2,
        effect_low=-math.inf,
        effect_high=math.inf,
        p_value=5e-324,
        adjusted_p_value=math.nan,
        baseline_points=120,
        onset=Onset(T0 + 1 / 3, T0, T0 + 2, 0.1),
        quality=(ta.QualityNote("gaps", 3, "3 points are missing"),),
        derived_fields=("kind", "scale"),
    )
    monitor = MonitorEvidence(
        "m1",
        "disk",
        "host:a",
        (StateSpan(MonitorState.ALERT, T0, None, muted=True),),
        muted=True,
        failing=False,
    )
    results = tuple(
        replace(
            result,
            verdict=verdict,
            done=True,
            seen=Seen.ENOUGH,
            findings=(finding,),
            groups=(GroupFinding("latency", verdict, None, 2, ("p95",)),),
            monitors=(monitor,),
            end_time=T0 + 60.123456,
        )
        for result in one.results
    )
    values = {
        "state": EvaluationState.SUCCEEDED,
        "verdict": verdict,
        "decision": Decision.HALT,
        "results": results,
        "version": one.version + 1,
        "end_time": one.create_time + 60,
    }
    return replace(one, **(values | changes))


def labelled(one: Evaluation, kind: LabelKind = LabelKind.TRUE_ALARM) -> Evaluation:
    label = Label(kind, "ann", T0 + 1, "it was real")
    return replace(one, labels=(*one.labels, label), version=one.version + 1)


def overridden(one: Evaluation) -> Evaluation:
    override = Override(Decision.PROCEED, "known", "ann", T0 + 2)
    return replace(one, override=override, version=one.version + 1)


def block(seed: int = 0, columns: int = 5, **changes) -> ta.Block:
    """A block with gaps, infinities, signed zero, denormals and every optional part."""
    rng = np.random.default_rng(seed)
    values = rng.lognormal(size=(2, columns))
    values[0, 0] = np.nan
    values[1, :4] = [-0.0, np.inf, 5e-324, 0.1 + 0.2][: min(4, columns)]
    parts = {
        "arm": "canary",
        "start": T0 + seed / 3,
        "step": 15.0,
        "values": values,
        "metrics": ("p95", "errors"),
        "instance": "pod-1",
        "exposure": rng.poisson(100, size=(2, columns)).astype(float),
        "histograms": {"size": (np.array([1.0, 10.0]), rng.poisson(3, size=(columns, 3)).astype(float))},
    }
    return ta.Block(**(parts | changes))


def same_block(one: ta.Block, other: ta.Block) -> bool:
    """Whether two blocks are equal to the last bit."""
    plain = ("arm", "phase", "start", "step", "metrics", "instance")
    if any(getattr(one, name) != getattr(other, name) for name in plain):
        return False

    def raw(item: ta.Block) -> list[bytes]:
        parts = [item.values] + ([] if item.exposure is None else [item.exposure])
        for bounds, counts in (item.histograms or {}).values():
            parts += [bounds, counts]
        return [np.ascontiguousarray(part, dtype=float).tobytes() + str(np.shape(part)).encode() for part in parts]

    return raw(one) == raw(other) and list(one.histograms or {}) == list(other.histograms or {})
