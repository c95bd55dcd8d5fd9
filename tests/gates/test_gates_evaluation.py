"""The evaluation as a state machine: every way through it, with the clock as a parameter."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate_server.gates import evaluation as machine
from tidegate_server.gates.errors import PreconditionError
from tidegate_server.gates.evaluation import Finish, Publish, Timing, Wake, advance, begin, open_rules, window
from tidegate_server.gates.model import (
    Decision,
    Deployment,
    EvaluationState,
    Gate,
    LabelKind,
    MetricSpec,
    MonitorCheck,
    Observation,
    OutcomePolicy,
    Policies,
    RegressionCheck,
    Rule,
    RuleMode,
    Seen,
    Verdict,
)

NOW = 1_700_000_000.0
DEPLOYMENT = Deployment("shop", "prod", version="2", start_time=NOW - 60)


def monitor(name: str = "alerts", duration: float = 600.0, **options) -> Rule:
    return Rule(name, MonitorCheck("env:prod", duration=duration), **options)


def regression(name: str = "latency", **options) -> Rule:
    return Rule(name, RegressionCheck((MetricSpec("p95"),)), **options)


def start(*rules: Rule, dry_run: bool = False, deployment: Deployment = DEPLOYMENT):
    return begin("e1", Gate("shop", "prod", rules=rules, dry_run=dry_run), deployment, NOW)


def saw(verdict: Verdict | None, *, settled: bool = True, seen: Seen = Seen.ENOUGH, **more) -> Observation:
    return Observation(verdict, seen, settled, f"It is {verdict}.", "because", **more)


def test_a_new_evaluation_is_pending_and_knows_nothing():
    made = start(monitor())
    assert made.state is EvaluationState.PENDING
    assert (made.verdict, made.decision, made.standing_decision) == (None, None, None)
    assert not made.finished


def test_it_runs_until_every_rule_is_through():
    made = start(monitor(), regression())
    made, actions = advance(made, {}, NOW + 1)
    assert made.state is EvaluationState.RUNNING
    assert made.start_time == NOW + 1
    assert Publish() in actions
    made, _ = advance(made, {"alerts": saw(Verdict.PASS)}, NOW + 600)
    assert made.verdict is None
    assert [rule.name for rule in open_rules(made)] == ["latency"]
    made, actions = advance(made, {"latency": saw(Verdict.PASS)}, NOW + 840)
    assert (made.verdict, made.decision, made.state) == (
        Verdict.PASS,
        Decision.PROCEED,
        EvaluationState.SUCCEEDED,
    )
    assert made.end_time == made.decide_time == NOW + 840
    assert Finish() in actions
    assert "All 2 rules passed" in made.sentence


def test_a_failure_ends_it_at_once_and_names_what_was_not_awaited():
    made, actions = advance(start(monitor(), regression()), {"alerts": saw(Verdict.FAIL, settled=False)}, NOW + 5)
    assert (made.verdict, made.decision, made.state) == (
        Verdict.FAIL,
        Decision.HALT,
        EvaluationState.SUCCEEDED,
    )
    assert made.result("latency").not_awaited is True
    assert made.result("latency").verdict is None
    assert made.result("alerts").not_awaited is False
    assert actions == (Publish(), Finish())
    assert 'Rule "alerts" failed' in made.sentence


def test_nothing_changes_after_the_end():
    made, _ = advance(start(monitor()), {"alerts": saw(Verdict.FAIL)}, NOW + 5)
    again, actions = advance(made, {"alerts": saw(Verdict.PASS)}, NOW + 50)
    assert again is made
    assert actions == ()


def test_a_rule_that_failed_stays_failed():
    made, _ = advance(start(monitor(mode=RuleMode.HOLD_ONLY), regression()), {"alerts": saw(Verdict.FAIL)}, NOW + 5)
    assert made.verdict is None
    made, _ = advance(made, {"alerts": saw(Verdict.PASS), "latency": saw(Verdict.PASS)}, NOW + 900)
    assert made.result("alerts").verdict is Verdict.FAIL
    assert made.result("alerts").effective_verdict is Verdict.INCONCLUSIVE
    assert (made.verdict, made.decision) == (Verdict.INCONCLUSIVE, Decision.HOLD)


def test_an_early_pass_that_is_not_settled_is_only_progress():
    made, actions = advance(start(regression()), {"latency": saw(Verdict.PASS, settled=False)}, NOW + 5)
    assert made.verdict is None
    assert made.result("latency").verdict is None
    assert made.result("latency").sentence
    assert Wake(NOW - 60 + 900 + 60) in actions


def test_past_the_deadline_the_policies_answer():
    rule = regression(policies=Policies(on_no_data=OutcomePolicy.ERROR))
    made = start(rule)
    deadline = window(made, rule).deadline
    assert deadline == NOW - 60 + 900 + 60
    early, _ = advance(made, {}, deadline - 0.001)
    assert early.verdict is None
    late, _ = advance(early, {}, deadline)
    assert late.verdict is Verdict.ERROR
    assert late.decision is Decision.HOLD
    assert late.result("latency").policy_applied == "on_no_data = ERROR"


def test_an_evaluation_that_begins_after_its_horizon_waits_for_late_points():
    rule = regression()
    made = start(rule, deployment=Deployment("shop", "prod", version="2", start_time=NOW - 7200))
    span = window(made, rule, Timing(late_data=30))
    assert (span.start, span.end, span.deadline) == (NOW - 7200, NOW, NOW + 30)


def test_a_source_that_failed_is_asked_again_until_patience_ends():
    failed = saw(None, settled=False, seen=Seen.NOTHING, source_error="connection refused")
    made, actions = advance(start(monitor(duration=0)), {"alerts": failed}, NOW)
    assert made.verdict is None
    assert Wake(NOW + 5) in actions
    good, _ = advance(made, {"alerts": saw(Verdict.PASS)}, NOW + 5)
    assert good.verdict is Verdict.PASS
    bad, _ = advance(made, {"alerts": failed}, NOW + 30)
    assert bad.verdict is Verdict.INCONCLUSIVE
    assert "connection refused" in bad.sentence
    assert bad.result("alerts").policy_applied == "on_source_error = INCONCLUSIVE"


def test_monitors_are_looked_at_again_and_at_the_end_of_their_window():
    made, actions = advance(start(monitor(duration=20)), {"alerts": saw(None, settled=False)}, NOW)
    assert actions[-1] == Wake(NOW + 15)
    _, actions = advance(made, {"alerts": saw(None, settled=False)}, NOW + 15)
    assert actions[-1] == Wake(NOW + 20)


def test_a_dry_run_gate_proceeds_and_says_what_it_would_have_decided():
    made, _ = advance(start(monitor(), dry_run=True), {"alerts": saw(Verdict.FAIL)}, NOW + 5)
    assert (made.verdict, made.decision, made.would_decide) == (
        Verdict.FAIL,
        Decision.PROCEED,
        Decision.HALT,
    )
    assert "would have decided HALT" in made.sentence


def test_the_decision_does_not_wait_for_dry_run_rules_but_the_end_does():
    made = start(monitor(duration=0), regression(mode=RuleMode.DRY_RUN))
    made, _ = advance(made, {"alerts": saw(Verdict.PASS)}, NOW + 1)
    assert (made.verdict, made.decision, made.state) == (
        Verdict.PASS,
        Decision.PROCEED,
        EvaluationState.RUNNING,
    )
    decided_at = made.decide_time
    made, _ = advance(made, {"latency": saw(Verdict.FAIL)}, NOW + 300)
    assert (made.verdict, made.state) == (Verdict.PASS, EvaluationState.SUCCEEDED)
    assert made.result("latency").verdict is Verdict.FAIL
    assert made.result("latency").effective_verdict is None
    assert made.decide_time == decided_at


def test_a_pass_by_policy_is_told():
    rule = monitor(policies=Policies(on_no_data=OutcomePolicy.PASS))
    made, _ = advance(start(rule), {"alerts": saw(None, seen=Seen.NOTHING)}, NOW + 600)
    assert made.verdict is Verdict.PASS
    assert "By policy, not by what was seen: alerts" in made.sentence


def test_versions_grow_with_changes_only():
    made = start(monitor())
    first, _ = advance(made, {"alerts": saw(None, settled=False)}, NOW + 1)
    assert first.version == made.version + 1
    same, actions = advance(first, {"alerts": saw(None, settled=False)}, NOW + 2)
    assert same == first
    assert Publish() not in actions


def test_a_look_that_saw_nothing_new_is_no_change():
    made, _ = advance(start(monitor()), {"alerts": saw(None, settled=False, as_of=NOW + 15)}, NOW + 15)
    again, actions = advance(made, {"alerts": saw(None, settled=False, as_of=NOW + 30)}, NOW + 30)
    assert again == made
    assert actions == (Wake(NOW + 45),)
    done, _ = advance(again, {"alerts": saw(Verdict.PASS, as_of=NOW + 600)}, NOW + 600)
    assert done.result("alerts").as_of == NOW + 600


def test_a_clock_that_jumps_back_does_not_move_its_times_back():
    made, _ = advance(start(monitor()), {}, NOW + 100)
    made, _ = advance(made, {"alerts": saw(Verdict.PASS)}, NOW - 1000)
    assert made.end_time == NOW + 100


def test_cancel():
    made, _ = advance(start(monitor(), regression()), {"latency": saw(Verdict.PASS)}, NOW + 1)
    gone = machine.cancel(made, "ann", "wrong version", NOW + 2)
    assert gone.state is EvaluationState.CANCELLED
    assert gone.finished
    assert (gone.verdict, gone.decision) == (None, Decision.HOLD)
    assert gone.result("alerts").not_awaited is True
    assert gone.version == made.version + 1
    assert machine.cancel(gone, "bob", "", NOW + 3) is gone
    assert advance(gone, {"alerts": saw(Verdict.PASS)}, NOW + 4) == (gone, ())


def test_what_has_ended_cannot_be_cancelled():
    made, _ = advance(start(monitor()), {"alerts": saw(Verdict.PASS)}, NOW + 1)
    with pytest.raises(PreconditionError) as refused:
        machine.cancel(made, "ann", "", NOW + 2)
    assert refused.value.reason == "EVALUATION_FINISHED"


def test_an_override_stands_beside_the_verdict():
    made, _ = advance(start(monitor()), {"alerts": saw(Verdict.FAIL)}, NOW + 1)
    said = machine.override(made, Decision.PROCEED, "ann", "known noise", NOW + 9)
    assert (said.verdict, said.decision, said.standing_decision) == (
        Verdict.FAIL,
        Decision.HALT,
        Decision.PROCEED,
    )
    assert said.override.actor == "ann"


def test_an_override_of_a_running_evaluation_lets_it_run_on():
    said = machine.override(start(monitor()), Decision.PROCEED, "ann", "fire", NOW + 1)
    done, _ = advance(said, {"alerts": saw(Verdict.FAIL)}, NOW + 2)
    assert (done.verdict, done.decision, done.standing_decision) == (
        Verdict.FAIL,
        Decision.HALT,
        Decision.PROCEED,
    )


def test_a_cancelled_evaluation_cannot_be_overridden():
    gone = machine.cancel(start(monitor()), "ann", "", NOW)
    with pytest.raises(PreconditionError):
        machine.override(gone, Decision.PROCEED, "ann", "please", NOW)


def test_labels_one_per_person_and_only_afterwards():
    made = start(monitor())
    with pytest.raises(PreconditionError):
        machine.label(made, LabelKind.FALSE_ALARM, "ann", "", NOW)
    made, _ = advance(made, {"alerts": saw(Verdict.FAIL)}, NOW + 1)
    made = machine.label(made, LabelKind.TRUE_ALARM, "ann", "", NOW + 2)
    made = machine.label(made, LabelKind.FALSE_ALARM, "ann", "was noise", NOW + 3)
    made = machine.label(made, LabelKind.FALSE_ALARM, "bob", "", NOW + 4)
    assert [(one.actor, one.kind.name) for one in made.labels] == [
        ("ann", "FALSE_ALARM"),
        ("bob", "FALSE_ALARM"),
    ]


looks = st.lists(
    st.tuples(
        st.sampled_from(["alerts", "latency", "extra"]),
        st.sampled_from([None, *Verdict]),
        st.booleans(),
        st.sampled_from(list(Seen)),
        st.floats(0, 400),
    ),
    max_size=12,
)


@settings(max_examples=150)
@given(looks)
def test_whatever_is_seen_it_ends_and_failures_latch(steps):
    made = start(monitor(), regression(), Rule("extra", MonitorCheck("a"), mode=RuleMode.DRY_RUN))
    now, failed = NOW, False
    for rule, verdict, settled, seen, wait in steps:
        now += wait
        before = made
        made, actions = advance(made, {rule: saw(verdict, settled=settled, seen=seen)}, now)
        if not before.finished:
            was_open = rule in {one.name for one in open_rules(before)}
            failed = failed or (verdict is Verdict.FAIL and rule != "extra" and was_open)
        assert (made.verdict is Verdict.FAIL) == failed
        assert made.version >= before.version
        if made.finished:
            assert open_rules(made) == ()
        else:
            assert actions[-1].at >= now
        if before.verdict is not None:
            assert (made.verdict, made.decision) == (before.verdict, before.decision)
    made, _ = advance(made, {}, now + 10_000)
    assert made.finished
    assert made.verdict is not None
