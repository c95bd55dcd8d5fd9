"""How verdicts fold: the rules of the house, and properties that hold for any gate."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate_server.gates.folding import apply_policies, decide, effective_verdict, fold, fold_verdicts
from tidegate_server.gates.model import (
    Decision,
    Observation,
    OutcomePolicy,
    Policies,
    RuleMode,
    RuleResult,
    Seen,
    Verdict,
)

P, F, N, E = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.ERROR
BADNESS = {P: 0, N: 1, E: 2, F: 3}


def result(name: str, verdict: Verdict | None, mode: RuleMode = RuleMode.ENFORCE) -> RuleResult:
    return RuleResult(
        rule=name,
        mode=mode,
        verdict=verdict,
        effective_verdict=effective_verdict(verdict, mode),
        done=verdict is not None,
    )


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        ([P], P),
        ([P, P], P),
        ([P, N], N),
        ([P, E], E),
        ([N, E], E),
        ([F, E, N, P], F),
        ([N, N], N),
        ([], N),
    ],
)
def test_worst_verdict_counts(verdicts, expected):
    assert fold_verdicts(verdicts) is expected


@pytest.mark.parametrize(
    ("verdict", "mode", "expected"),
    [(v, RuleMode.ENFORCE, v) for v in Verdict]
    + [(v, RuleMode.DRY_RUN, None) for v in Verdict]
    + [
        (P, RuleMode.HOLD_ONLY, P),
        (F, RuleMode.HOLD_ONLY, N),
        (N, RuleMode.HOLD_ONLY, N),
        (E, RuleMode.HOLD_ONLY, E),
    ],
)
def test_mode_limits_what_counts(verdict, mode, expected):
    assert effective_verdict(verdict, mode) is expected


def test_fail_is_known_before_the_others_are_done():
    assert fold([result("a", F), result("b", None)]) is F
    assert fold([result("a", P), result("b", None)]) is None
    assert fold([result("a", E), result("b", None)]) is None


def test_a_hold_only_failure_waits_for_the_others_and_holds():
    held = result("a", F, RuleMode.HOLD_ONLY)
    assert fold([held, result("b", None)]) is None
    assert fold([held, result("b", P)]) is N


def test_dry_run_rules_are_not_awaited():
    assert fold([result("a", P), result("b", None, RuleMode.DRY_RUN)]) is P


@pytest.mark.parametrize(
    ("verdict", "decision"),
    [(P, Decision.PROCEED), (F, Decision.HALT), (N, Decision.HOLD), (E, Decision.HOLD)],
)
def test_decisions(verdict, decision):
    assert decide(verdict, dry_run=False) == (decision, None)
    assert decide(verdict, dry_run=True) == (Decision.PROCEED, decision)


rules = st.lists(
    st.tuples(st.sampled_from([P, F, N, E, None]), st.sampled_from(list(RuleMode))), min_size=1, max_size=8
).map(lambda pairs: [result(f"r{k}", verdict, mode) for k, (verdict, mode) in enumerate(pairs)])
finished = st.lists(
    st.tuples(st.sampled_from(list(Verdict)), st.sampled_from(list(RuleMode))), min_size=1, max_size=8
).map(lambda pairs: [result(f"r{k}", verdict, mode) for k, (verdict, mode) in enumerate(pairs)])


@settings(max_examples=200)
@given(rules, st.randoms(use_true_random=False))
def test_order_does_not_matter(results, random):
    shuffled = list(results)
    random.shuffle(shuffled)
    assert fold(shuffled) is fold(results)


@settings(max_examples=200)
@given(finished)
def test_a_failing_enforcing_rule_never_makes_it_better(results):
    assert fold([*results, result("more", F)]) is F


@settings(max_examples=200)
@given(finished, st.sampled_from(list(Verdict)), st.sampled_from([RuleMode.ENFORCE, RuleMode.HOLD_ONLY]))
def test_another_counting_rule_never_makes_it_better(results, verdict, mode):
    counting = [one for one in results if one.mode is not RuleMode.DRY_RUN]
    before, after = fold(results), fold([*results, result("more", verdict, mode)])
    assert before is not None
    assert after is not None
    if counting:
        assert BADNESS[after] >= BADNESS[before]


@settings(max_examples=200)
@given(rules, st.sampled_from([P, F, N, E, None]))
def test_a_dry_run_rule_never_changes_the_verdict(results, verdict):
    assert fold([*results, result("more", verdict, RuleMode.DRY_RUN)]) is fold(results)


@settings(max_examples=200)
@given(rules)
def test_fail_stays_fail_however_the_open_rules_end(results):
    if fold(results) is F:
        opened = [one for one in results if not one.done]
        for ends in itertools.islice(itertools.product(Verdict, repeat=len(opened)), 16):
            closed = {one.rule: result(one.rule, end, one.mode) for one, end in zip(opened, ends, strict=True)}
            assert fold([closed.get(one.rule, one) for one in results]) is F


def observation(verdict: Verdict | None, seen: Seen, source_error: str = "") -> Observation:
    return Observation(verdict, seen, True, "A sentence.", "a_reason", source_error=source_error)


@pytest.mark.parametrize("policy", list(OutcomePolicy))
@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("on_no_data", None),
        ("on_no_data", observation(None, Seen.NOTHING)),
        ("on_insufficient_data", observation(N, Seen.TOO_LITTLE)),
        ("on_insufficient_data", observation(None, Seen.ENOUGH)),
        ("on_source_error", observation(None, Seen.NOTHING, "timed out")),
        ("on_source_error", observation(P, Seen.ENOUGH, "timed out")),
    ],
)
def test_the_policy_that_fired_decides_and_is_told(name, seen, policy):
    verdict, applied, _, sentence = apply_policies(seen, Policies(**{name: policy}))
    assert verdict.name == policy.name
    assert applied == f"{name} = {policy.name}"
    assert applied in sentence


def test_policies_default_to_inconclusive():
    assert Policies() == Policies(*[OutcomePolicy.INCONCLUSIVE] * 3)


@pytest.mark.parametrize("verdict", [P, F, N])
def test_no_policy_fires_when_enough_was_seen(verdict):
    lenient = Policies(*[OutcomePolicy.PASS] * 3)
    assert apply_policies(observation(verdict, Seen.ENOUGH), lenient)[:2] == (verdict, "")


def test_a_failure_that_was_seen_is_no_matter_of_policy():
    lenient = Policies(*[OutcomePolicy.PASS] * 3)
    assert apply_policies(observation(F, Seen.TOO_LITTLE, "then the source died"), lenient)[:2] == (F, "")
