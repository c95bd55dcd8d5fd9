"""Threshold rules look by look: instances together, rates of counters, shares of ratios, early failures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tidegate_analysis as ta
from tidegate_server.gates.evaluation import begin
from tidegate_server.gates.model import Comparator, Deployment, Gate, Rule, Seen, ThresholdCheck, Verdict
from tidegate_server.rules import look_at_series

NOW = 1_700_000_000.0
STEP = 10.0


def rule(bound: float, *, kind: str = "gauge", comparator=Comparator.BELOW, warm_up: float = 0.0) -> Rule:
    spec = ta.MetricSpec("level", kind=kind)  # type: ignore[arg-type]
    return Rule("level", ThresholdCheck(spec, comparator, bound, warm_up=warm_up, horizon=900.0))


def look(own: Rule, blocks, state=None, *, complete: bool = True, now: float = NOW + 100):
    made = begin("e1", Gate("shop", "prod", rules=(own,)), Deployment("shop", "prod", start_time=NOW), NOW)
    return look_at_series(own, replace(made, series_complete=complete), state, blocks, now)


def block(values, *, arm="canary", phase="post", start=NOW, instance="", exposure=None) -> ta.Block:
    return ta.Block(
        arm,
        start,
        STEP,
        np.atleast_2d(np.asarray(values, dtype=np.float64)),
        phase=phase,
        metrics=("level",),
        instance=instance,
        exposure=None if exposure is None else np.atleast_2d(np.asarray(exposure, dtype=np.float64)),
    )


def noise(level: float, columns: int = 60, seed: int = 1) -> np.ndarray:
    return level * (1 + 0.03 * np.random.default_rng(seed).standard_normal(columns))


@pytest.mark.parametrize(
    ("level", "bound", "comparator", "verdict"),
    [
        (100, 120, Comparator.BELOW, Verdict.PASS),
        (130, 120, Comparator.BELOW, Verdict.FAIL),
        (120, 120, Comparator.BELOW, Verdict.INCONCLUSIVE),
        (130, 120, Comparator.ABOVE, Verdict.PASS),
        (100, 120, Comparator.ABOVE, Verdict.FAIL),
    ],
)
def test_levels_against_bounds(level, bound, comparator, verdict):
    _, found = look(rule(bound, comparator=comparator), [block(noise(level))])
    assert found.verdict is verdict
    assert found.settled
    assert found.findings[0].canary_level == pytest.approx(level, rel=0.02)
    assert found.findings[0].baseline_level == bound
    assert found.sentence


def test_it_fails_early_and_passes_only_at_the_end():
    _, found = look(rule(120), [block(noise(140, 30))], complete=False)
    assert (found.verdict, found.settled) == (Verdict.FAIL, False)
    _, found = look(rule(120), [block(noise(100, 30))], complete=False)
    assert found.verdict is not Verdict.FAIL
    assert not found.settled


def test_only_the_canary_between_warm_up_and_horizon_counts():
    blocks = [
        block(noise(900, 3), start=NOW),
        block(noise(100, 60), start=NOW + 30),
        block(noise(900, 9), start=NOW + 910),
        block(noise(900, 60), arm="baseline"),
        block(noise(900, 60), phase="pre", start=NOW - 600),
    ]
    _, found = look(rule(120, warm_up=30), blocks)
    assert found.verdict is Verdict.PASS
    assert found.findings[0].canary_points == 60


def test_instances_are_averaged():
    blocks = [block(noise(60), instance="a"), block(noise(140, seed=2), instance="b")]
    _, found = look(rule(120), blocks)
    assert found.findings[0].canary_level == pytest.approx(100, rel=0.02)


def test_counters_are_rates_and_resets_are_left_out():
    total = np.cumsum(np.full(60, 50.0))
    total[30:] -= total[30]
    _, found = look(rule(6.0, kind="counter"), [block(total)])
    assert found.findings[0].canary_level == pytest.approx(5.0)


def test_ratios_are_shares_of_their_totals():
    events = np.random.default_rng(3).binomial(1000, 0.002, 60)
    blocks = [block(events, exposure=np.full(60, 1000.0))]
    assert look(rule(0.01, kind="ratio"), blocks)[1].verdict is Verdict.PASS
    _, found = look(rule(0.0005, kind="ratio"), blocks)
    assert found.verdict is Verdict.FAIL
    assert found.findings[0].canary_level == pytest.approx(0.002, rel=0.4)


def test_nothing_seen():
    _, found = look(rule(1.0), [])
    assert (found.verdict, found.seen) == (None, Seen.NOTHING)
    _, found = look(rule(1.0), [block([np.nan] * 5)])
    assert (found.verdict, found.seen) == (None, Seen.NOTHING)


def test_too_little_seen():
    _, found = look(rule(120), [block(noise(100, 2))])
    assert (found.verdict, found.seen) == (Verdict.INCONCLUSIVE, Seen.TOO_LITTLE)


@pytest.mark.parametrize("kind", ["gauge", "ratio"])
def test_pieces_give_the_numbers_of_the_whole(kind):
    exposure = np.full(60, 200.0) if kind == "ratio" else None
    values = np.random.default_rng(5).poisson(8, 60).astype(float)
    own = rule(0.1 if kind == "ratio" else 20.0, kind=kind)
    _, whole = look(own, [block(values, instance="a", exposure=exposure)])
    state = None
    for k in range(0, 60, 20):
        part = None if exposure is None else exposure[k : k + 20]
        piece = block(values[k : k + 20], start=NOW + STEP * k, instance="a", exposure=part)
        state, _ = look(own, [piece], state, complete=False)
    assert look(own, [], state)[1] == whole


def test_a_block_with_another_step_is_told():
    odd = ta.Block("canary", NOW, 7.0, np.ones((1, 3)), metrics=("level",))
    _, found = look(rule(120), [block(noise(100)), odd])
    assert "7 s in a batch of 10 s" in found.source_error


def test_points_that_end_before_the_horizon_do_not_pass():
    _, found = look(rule(120), [block(noise(100, 50))], complete=False, now=NOW + 960)
    assert (found.verdict, found.seen, found.reason) == (Verdict.INCONCLUSIVE, Seen.TOO_LITTLE, "ended_early")
    _, found = look(rule(120), [block(noise(100, 88))], complete=False, now=NOW + 960)
    assert found.verdict is Verdict.PASS
    _, found = look(rule(120), [block(noise(130, 50))], complete=False, now=NOW + 960)
    assert found.verdict is Verdict.FAIL
