"""Regression rules look by look: progress, failures, what policies are told, states that can be kept."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tidegate_analysis as ta
from tidegate_server.gates.evaluation import advance, begin
from tidegate_server.gates.model import (
    Deployment,
    Gate,
    MonitorCheck,
    MonitorScope,
    MonitorState,
    RegressionCheck,
    Rule,
    Seen,
    StateSpan,
    Verdict,
)
from tidegate_server.monitors.model import Monitor, MonitorGroup, MonitorHistory
from tidegate_server.rules import declared_metrics, look_at_monitors, look_at_series, look_of, rows_for

NOW = 1_700_000_000.0
STEP = 10.0
SPECS = (ta.MetricSpec("p95", kind="gauge"), ta.MetricSpec("cpu", kind="gauge"))
RULE = Rule("latency", RegressionCheck(SPECS, warm_up=0.0, horizon=900.0))


def evaluation(*rules: Rule, complete: bool = False):
    made = begin(
        "e1",
        Gate("shop", "prod", rules=rules or (RULE,)),
        Deployment("shop", "prod", version="2", start_time=NOW),
        NOW,
    )
    return replace(made, series_complete=complete)


def blocks(factor: float, columns: int = 90, *, first: int = 0, seed: int = 1, arms=("baseline", "canary")):
    random = np.random.default_rng([seed, first])
    out = []
    for arm in arms:
        level = np.array([[100.0], [40.0]]) * (factor if arm == "canary" else 1.0)
        values = level * np.exp(0.05 * random.standard_normal((2, columns)))
        out.append(ta.Block(arm, NOW + STEP * first, STEP, values, metrics=("p95", "cpu")))
    return out


def test_a_regression_fails_before_the_window_is_over():
    state, found = look_at_series(RULE, evaluation(), None, blocks(1.5, 60), NOW + 600)
    assert (found.verdict, found.reason) == (Verdict.FAIL, "regression")
    assert {one.metric: one.verdict for one in found.findings} == {"p95": Verdict.FAIL, "cpu": Verdict.FAIL}
    assert found.findings[0].onset is not None
    assert 0 <= found.findings[0].onset.after_deployment < 120
    assert found.findings[0].effect == pytest.approx(0.5, abs=0.1)
    assert found.groups[0].failing == ("p95", "cpu")
    assert "p95" in found.sentence or "cpu" in found.sentence
    assert isinstance(state, bytes)


def test_no_regression_passes_only_when_nothing_more_can_come():
    state, early = look_at_series(RULE, evaluation(), None, blocks(1.0, 80), NOW + 800)
    assert early.verdict is not Verdict.FAIL
    assert not early.settled
    _, late = look_at_series(RULE, evaluation(), state, blocks(1.0, 10, first=80), NOW + 960)
    assert late.settled
    assert (late.verdict, late.reason, late.seen) == (Verdict.PASS, "within_margin", Seen.ENOUGH)


def test_completing_the_series_settles_it_at_once():
    _, found = look_at_series(RULE, evaluation(complete=True), None, blocks(1.0), NOW + 1)
    assert found.settled
    assert found.verdict is Verdict.PASS


def test_nothing_seen_and_too_little_seen_are_told_apart():
    _, nothing = look_at_series(RULE, evaluation(), None, [], NOW + 960)
    assert (nothing.verdict, nothing.seen, nothing.reason) == (None, Seen.NOTHING, "no_data")
    _, little = look_at_series(RULE, evaluation(), None, blocks(1.0, 2), NOW + 960)
    assert (little.verdict, little.seen) == (Verdict.INCONCLUSIVE, Seen.TOO_LITTLE)


def test_a_silent_canary_is_no_lack_of_data():
    _, found = look_at_series(RULE, evaluation(), None, blocks(1.0, 60, arms=("baseline",)), NOW + 960)
    assert (found.verdict, found.seen) == (Verdict.INCONCLUSIVE, Seen.ENOUGH)
    assert found.reason == "canary_silent"


def test_looks_cut_into_pieces_give_the_same_numbers_to_the_last_bit():
    pieces = [part for first in range(0, 90, 15) for part in blocks(1.08, 15, first=first)]
    _, whole = look_at_series(RULE, evaluation(), None, pieces, NOW + 960)
    state = None
    for k, piece in enumerate(pieces):
        state, last = look_at_series(RULE, evaluation(), state, [piece], NOW + 10 * k)
    _, last = look_at_series(RULE, evaluation(), state, [], NOW + 960)
    assert last == whole


def test_a_stored_evaluation_replayed_gives_the_same_numbers_to_the_last_bit():
    pieces = blocks(1.3, 60)
    _, found = look_at_series(RULE, evaluation(complete=True), None, pieces, NOW + 600)
    live = ta.LiveEvaluation(SPECS, deployed_at=NOW, warm_up=0.0, horizon_seconds=900.0)
    for piece in pieces:
        live.add(piece)
    again = live.judge(final=True)
    assert [one.effect for one in found.findings] == again.result.effect.tolist()
    assert [one.log_e_value for one in found.findings] == [
        None if np.isnan(one) else one for one in again.result.log_e_value.tolist()
    ]
    assert [one.adjusted_p_value for one in found.findings] == again.adjusted_p_value.tolist()


def test_a_block_that_cannot_be_used_makes_a_source_error_that_stays():
    odd = ta.Block("canary", NOW, 7.0, np.ones((2, 3)), metrics=("p95", "cpu"))
    state, found = look_at_series(RULE, evaluation(), None, [*blocks(1.0, 20), odd], NOW + 200)
    assert "7 s in a batch of 10 s" in found.source_error
    _, later = look_at_series(RULE, evaluation(), state, blocks(1.0, 70, first=20), NOW + 960)
    assert later.source_error == found.source_error
    done, _ = advance(evaluation(), {"latency": later}, NOW + 960)
    assert done.verdict is Verdict.INCONCLUSIVE
    assert done.result("latency").policy_applied == "on_source_error = INCONCLUSIVE"


def test_rows_go_to_the_rules_that_watch_them():
    one = Rule("one", RegressionCheck((ta.MetricSpec("cpu"),)))
    both = blocks(1.0, 5)[0]
    assert rows_for(RULE, both) is both
    part = rows_for(one, both)
    assert part.metrics == ("cpu",)
    assert np.array_equal(part.values, np.asarray(both.values)[1:])
    assert rows_for(Rule("none", RegressionCheck((ta.MetricSpec("qps"),))), both) is None
    assert rows_for(Rule("m", MonitorCheck("a")), both) is None
    with pytest.raises(ta.BlockError, match="must name the rows"):
        rows_for(RULE, ta.Block("canary", NOW, STEP, np.ones((2, 3))))


def test_metrics_of_all_rules_are_declared_once():
    gate = Gate("shop", "prod", rules=(RULE, Rule("m", MonitorCheck("a")), Rule("again", RULE.check)))
    assert [spec.name for spec in declared_metrics(gate)] == ["p95", "cpu"]


def test_each_type_of_rule_has_its_own_look():
    watch = Rule("m", MonitorCheck("env:prod"))
    with pytest.raises(TypeError):
        look_at_series(watch, evaluation(watch), None, [], NOW)
    with pytest.raises(TypeError):
        look_at_monitors(RULE, [], {}, [], look_of(RULE, evaluation(), NOW))


def test_a_query_of_another_grammar_is_a_source_error():
    watch = Rule("m", MonitorCheck("env:prod AND"))
    found = look_at_monitors(watch, [], {}, [], look_of(watch, evaluation(watch), NOW))
    assert "column 13" in found.source_error
    assert found.settled


@pytest.mark.parametrize("stops", ["both", "baseline", "one metric"])
def test_points_that_end_before_the_horizon_do_not_pass(stops):
    """Whoever wrote them may have died with the rollout: what came afterwards was seen by nobody."""
    pieces = blocks(1.0, 50)
    if stops == "baseline":
        pieces += blocks(1.0, 40, first=50, arms=("canary",))
    elif stops == "one metric":
        rest = blocks(1.0, 40, first=50)
        pieces += [replace(one, values=one.values[:1], metrics=("p95",)) for one in rest]
    _, found = look_at_series(RULE, evaluation(), None, pieces, NOW + 960)
    assert found.verdict is Verdict.INCONCLUSIVE
    assert found.seen is Seen.TOO_LITTLE
    _, told = look_at_series(RULE, evaluation(complete=True), None, blocks(1.0, 50), NOW + 500)
    assert told.verdict is Verdict.PASS


def test_when_the_points_ended_is_told():
    _, found = look_at_series(RULE, evaluation(), None, blocks(1.0, 50), NOW + 960)
    assert found.reason == "ended_early"
    assert found.sentence == (
        "The points of p95 ended at 22:21:30 UTC, 410 s before the watch was over: what came after them was not seen."
        " So did 1 more."
    )


def test_the_last_scrapes_may_be_missing():
    _, found = look_at_series(RULE, evaluation(), None, blocks(1.0, 85), NOW + 960)
    assert found.verdict is Verdict.PASS


def test_a_regression_that_was_seen_fails_however_early_the_points_ended():
    _, found = look_at_series(RULE, evaluation(), None, blocks(1.5, 50), NOW + 960)
    assert found.verdict is Verdict.FAIL


@pytest.mark.parametrize(("behind", "verdict"), [(0.0, Verdict.PASS), (500.0, Verdict.FAIL)])
def test_a_watch_that_stood_still_ends_later_by_the_clock_that_states_are_told_by(behind, verdict):
    """The evaluation's own time is over at 600 s; what was told until then counts, whatever the clock said."""
    watch = Rule("m", MonitorCheck("*", duration=600.0))
    told = StateSpan(MonitorState.ALERT, NOW + 900, None)
    before = StateSpan(MonitorState.OK, NOW - 100, NOW + 900)
    monitor = Monitor("m1", "Errors", groups=(MonitorGroup("", state=MonitorState.ALERT, since=NOW + 900),))
    history = MonitorHistory("m1", {"": (before, told)})
    look = look_of(watch, evaluation(watch), NOW + 600, behind)
    found = look_at_monitors(watch, [monitor], {"m1": history}, [], look)
    assert (found.verdict, found.settled) == (verdict, True)


def test_one_look_is_one_look_however_late():
    once = Rule("m", MonitorCheck("*"))
    look = look_of(once, evaluation(once), NOW, 500.0)
    assert (look.since, look.until, look.over) == (NOW + 500, NOW + 500, True)


def test_what_fails_from_now_on_is_new_though_the_deployment_was_told_ahead():
    """By a clock that runs ahead: up to five minutes are taken."""
    watch = Rule("m", MonitorCheck("*", duration=600.0, scope=MonitorScope.NEWLY_FAILING))
    ahead = replace(evaluation(watch), create_time=NOW - 300)
    spans = (StateSpan(MonitorState.OK, NOW - 1000, NOW - 200), StateSpan(MonitorState.ALERT, NOW - 200, None))
    monitor = Monitor("m1", "Errors", groups=(MonitorGroup("", state=MonitorState.ALERT, since=NOW - 200),))
    history = {"m1": MonitorHistory("m1", {"": spans})}
    assert ahead.deployed_at == NOW
    assert look_at_monitors(watch, [monitor], history, [], look_of(watch, ahead, NOW)).verdict is Verdict.FAIL
