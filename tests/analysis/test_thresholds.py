"""Absolute thresholds: verdicts, error rates, exact limits, bad input."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from scipy import stats
from tidegate_analysis import simulate
from tidegate_analysis.kernels import dependence

Array = NDArray[np.float64]
NAN = math.nan
GAUGE = ta.MetricSpec("p95", kind="gauge", unit="ms")
RATIO = ta.MetricSpec("errors", kind="ratio")
COUNT = ta.MetricSpec("restarts", kind="count")
PASS, FAIL, INCONCLUSIVE = (int(v) for v in (ta.Verdict.PASS, ta.Verdict.FAIL, ta.Verdict.INCONCLUSIVE))


def noise(size: int, points: int, rho: float, seed: int = 1) -> Array:
    return simulate.ar1(np.random.default_rng(seed), size, points, rho)


# --- gauges ---


def test_the_three_answers_and_their_sentences() -> None:
    x = np.array([[250.0], [350.0], [300.5]]) + 10.0 * noise(3, 60, 0.3)
    got = ta.threshold(x, spec=GAUGE, bound=300.0)
    assert got.verdict.tolist() == [PASS, FAIL, INCONCLUSIVE]
    assert got.reason == ("threshold_kept", "threshold_crossed", "not_enough_evidence")
    assert got.method == ("threshold-mean.v1",) * 3
    assert got.baseline_level.tolist() == [300.0] * 3
    assert np.allclose(got.effect, got.canary_level - 300.0)
    assert ((got.effect_low < got.effect) & (got.effect < got.effect_high)).all()
    assert "it must stay below 300 ms" in got.explain(1)
    assert "below its bound of 300 ms" in got.explain(0)
    assert "cannot tell yet" in got.explain(2)
    judged = ta.judge(got)
    assert judged.verdict is ta.Verdict.FAIL
    assert judged.explain(1) == got.explain(1)
    assert len(got.to_frame()) == 3


def test_above_mirrors_below() -> None:
    x = np.array([[250.0], [350.0], [300.5]]) + 10.0 * noise(3, 60, 0.3)
    below = ta.threshold(x, spec=GAUGE, bound=300.0)
    above = ta.threshold(-x, spec=GAUGE, bound=-300.0, comparator="above")
    assert np.array_equal(below.verdict, above.verdict)
    assert np.allclose(below.p_value, above.p_value)
    assert np.allclose(below.effect_high, -above.effect_low)
    assert "must stay above -300 ms" in above.explain(1)


def test_a_level_and_its_interval_are_those_of_the_trimmed_mean() -> None:
    x = 100 + 5 * noise(4, 40, 0.5)
    got = ta.threshold(x, spec=GAUGE, bound=101.0)
    for i in range(4):
        mean, u = dependence.trimmed_influence(x[i : i + 1])
        wide = []
        for se, df in np.array(dependence.standard_errors(u)).reshape(2, 2):
            wide.append((stats.t.ppf(0.98, df) * se, stats.t.ppf(0.95, df) * se, stats.t.sf((mean[0] - 101) / se, df)))
        assert got.canary_level[i] == pytest.approx(mean[0])
        assert mean[0] == pytest.approx(stats.trim_mean(x[i], 0.1))
        assert got.effect_low[i] == pytest.approx(mean[0] - 101 - max(w[0] for w in wide))
        assert got.effect_high[i] == pytest.approx(mean[0] - 101 + max(w[1] for w in wide))
        assert got.p_value[i] == pytest.approx(max(w[2] for w in wide))


@pytest.mark.parametrize("points", [20, 60])
@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6])
def test_a_level_at_its_bound_is_rarely_called(points: int, rho: float) -> None:
    size = 800
    x = 300.0 + 30.0 * noise(size, points, rho)
    got = ta.threshold(x, spec=GAUGE, bound=300.0)
    assert (got.verdict == FAIL).mean() <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / size)
    assert (got.verdict == PASS).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / size)
    # A sixth above the bound is found, a sixth below passes.
    for level, verdict in ((350.0, FAIL), (250.0, PASS)):
        got = ta.threshold(x - 300.0 + level, spec=GAUGE, bound=300.0)
        assert (got.verdict == verdict).mean() > (0.9 if points == 60 or rho < 0.6 else 0.6)


def test_looking_often_needs_the_sequence() -> None:
    size = 150
    x = 300.0 + 30.0 * noise(size, 120, 0.3)
    once, always = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
    for t in range(5, 121, 5):
        once |= ta.threshold(x[:, :t], spec=GAUGE, bound=300.0).verdict == FAIL
        always |= ta.threshold(x[:, :t], spec=GAUGE, bound=300.0, anytime=True).verdict == FAIL
    assert always.mean() <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / size)
    assert once.mean() > 0.04
    far = ta.threshold(x + 60.0, spec=GAUGE, bound=300.0, anytime=True)
    assert (far.verdict == FAIL).all()
    assert (far.log_e_value > math.log(50)).all()
    assert far.method[0] == "threshold-mean-sequence.v1"
    early = ta.threshold(x[:, :9] + 600.0, spec=GAUGE, bound=300.0, anytime=True)
    assert (early.verdict == INCONCLUSIVE).all()


def test_a_constant_level_is_its_own_interval() -> None:
    x = np.array([[200.0] * 6, [300.0] * 6, [400.0] * 6])
    got = ta.threshold(x, spec=GAUGE, bound=300.0)
    assert got.verdict.tolist() == [PASS, INCONCLUSIVE, FAIL]
    assert got.effect_low.tolist() == got.effect_high.tolist() == [-100.0, 0.0, 100.0]


def test_worse_points_never_turn_fail_into_pass() -> None:
    rng = np.random.default_rng(4)
    x = 310.0 + 8.0 * noise(200, 30, 0.3)
    failing = ta.threshold(x, spec=GAUGE, bound=300.0).verdict == FAIL
    assert failing.any()
    for height in (5.0, 100.0, 1e6, math.inf):
        y = x.copy()
        y[np.arange(200), rng.integers(0, 30, 200)] += height
        got = ta.threshold(y, spec=GAUGE, bound=300.0)
        assert not (got.verdict[failing] == PASS).any()


def test_the_unit_does_not_matter() -> None:
    x = 295.0 + 10.0 * noise(50, 30, 0.3)
    base = ta.threshold(x, spec=GAUGE, bound=300.0)
    for scale in (1e-9, 1e-3, 1e6):
        got = ta.threshold(x * scale, spec=GAUGE, bound=300.0 * scale)
        assert np.array_equal(got.verdict, base.verdict)
        assert np.allclose(got.p_value, base.p_value)


def test_time_to_an_answer() -> None:
    x = 297.0 + 10.0 * noise(40, 12, 0.3)
    got = ta.threshold(x, spec=GAUGE, bound=300.0, step_seconds=15.0)
    open_ = got.verdict == INCONCLUSIVE
    inside = open_ & (got.effect < 0)
    assert inside.any()
    assert (got.seconds_to_answer[inside] > 0).all()
    assert np.isnan(got.seconds_to_answer[~inside]).all()


# --- counts and ratios ---


def test_ratios_have_exact_limits() -> None:
    """Clopper and Pearson's, where events are spread evenly."""
    for events, total, bound in ((0, 1000, 0.01), (0, 100, 0.01), (30, 1000, 0.01), (12, 1000, 0.01)):
        got = ta.threshold([[float(events)]], spec=RATIO, bound=bound, exposure=[[float(total)]])
        low = stats.beta.ppf(0.02, events, total - events + 1) if events else 0.0
        high = stats.beta.ppf(0.95, events + 1, total - events)
        assert got.effect_low[0] == pytest.approx(low - bound)
        assert got.effect_high[0] == pytest.approx(high - bound)
        assert got.p_value[0] == pytest.approx(stats.binom.sf(events - 1, total, bound))
        want = FAIL if low > bound else PASS if high < bound else INCONCLUSIVE
        assert got.verdict[0] == want
    assert "%" in got.explain(0)


def test_counts_have_exact_limits() -> None:
    got = ta.threshold([[7.0, 7.0]], spec=COUNT, bound=2.0)
    phi = 1.0  # even counts are not clumped
    assert got.effect_low[0] == pytest.approx(stats.gamma.ppf(0.02, 14 / phi) / 2 - 2.0)
    assert got.effect_high[0] == pytest.approx(stats.gamma.ppf(0.95, 15) / 2 - 2.0)
    assert got.p_value[0] == pytest.approx(stats.poisson.sf(13, 4.0))
    assert got.verdict[0] == FAIL
    assert got.method == ("threshold-count.v1",)


@pytest.mark.parametrize("anytime", [False, True])
@pytest.mark.parametrize("clumped", [False, True])
def test_counts_at_their_bound_are_rarely_called(anytime: bool, clumped: bool) -> None:
    size, points = 600, 40
    rng = np.random.default_rng(5)
    rate = rng.gamma(0.5, 2.0, (size, points)) if clumped else np.ones((size, points))
    x = rng.poisson(rate).astype(float)
    for spec, exposure, bound in ((COUNT, None, 1.0), (RATIO, np.full(x.shape, 50.0), 0.02)):
        got = ta.threshold(x, spec=spec, bound=bound, exposure=exposure, anytime=anytime)
        assert (got.verdict == FAIL).mean() <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / size)
        assert (got.verdict == PASS).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / size)
        far = ta.threshold(x, spec=spec, bound=bound * 3, exposure=exposure, anytime=anytime)
        assert (far.verdict == PASS).mean() > (0.9 if not clumped else 0.8)
        near = ta.threshold(x, spec=spec, bound=bound / 3, exposure=exposure, anytime=anytime)
        assert (near.verdict == FAIL).mean() > (0.9 if not clumped else 0.25)


def test_a_count_sequence_agrees_with_its_e_values() -> None:
    rng = np.random.default_rng(6)
    x = rng.poisson(2.0, (100, 30)).astype(float)
    for bound in (1.4, 2.0, 2.9):
        got = ta.threshold(x, spec=COUNT, bound=bound, anytime=True)
        assert np.array_equal(got.effect_low > 0, got.log_e_value >= math.log(50))
        # Failing means that rare evidence against "at most the bound" was seen.
        assert ((got.verdict == FAIL) == (got.log_e_value >= math.log(50))).all()


def test_more_events_never_turn_fail_into_pass() -> None:
    x = np.zeros((1, 20))
    n = np.full((1, 20), 100.0)
    seen_fail = False
    for k in range(0, 100, 5):
        x[0, k % 20] = float(k)
        got = ta.threshold(x, spec=RATIO, bound=0.01, exposure=n)
        seen_fail = seen_fail or got.verdict[0] == FAIL
        assert not (seen_fail and got.verdict[0] == PASS)


def test_more_events_than_their_total_are_kept() -> None:
    got = ta.threshold([[5.0] * 8], spec=RATIO, bound=0.5, exposure=[[3.0] * 8])
    assert got.verdict[0] == FAIL
    assert got.canary_level[0] == 1.0
    assert [note.code for note in got.quality[0]] == ["more_events_than_total"]


# --- bad and little input ---


@pytest.mark.parametrize("anytime", [False, True])
@pytest.mark.parametrize("points", [0, 1, 2, 4])
@pytest.mark.parametrize("value", [NAN, 0.0, 5.0, 1e300, -3.0])
def test_little_input(points: int, value: float, anytime: bool) -> None:
    got = ta.threshold(np.full((2, points), value), spec=GAUGE, bound=1.0, anytime=anytime)
    assert got.verdict.tolist() == [INCONCLUSIVE] * 2
    expected = "no_data" if points == 0 or math.isnan(value) else "too_few_points"
    assert got.reason == (expected, expected)
    assert math.isnan(got.effect[0])
    assert got.p_value.tolist() == [1.0, 1.0]
    assert "no points" in got.explain(0) or "too few points" in got.explain(0)
    if not math.isnan(value) and value >= 0 and value < 1e15:
        counted = ta.threshold(np.full((2, points), value), spec=COUNT, bound=50.0, anytime=anytime)
        assert counted.verdict[0] in (PASS, INCONCLUSIVE)


def test_infinite_values_are_not_passed_over() -> None:
    x = 200.0 + 10.0 * noise(2, 30, 0.0)
    x[0, 3] = math.inf
    got = ta.threshold(x, spec=GAUGE, bound=300.0)
    assert got.verdict.tolist() == [INCONCLUSIVE, PASS]
    assert got.reason[0] == "bad_values"
    assert [note.code for note in got.quality[0]] == ["bad_values"]


def test_gaps_are_told() -> None:
    x = 200.0 + 10.0 * noise(1, 30, 0.0)
    x[0, 4:7] = NAN
    got = ta.threshold(x, spec=GAUGE, bound=300.0)
    assert got.verdict[0] == PASS
    assert [(note.code, note.count) for note in got.quality[0]] == [("gaps", 3)]
    assert got.n_canary.tolist() == [27]


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("values", {"values": [1.0, 2.0]}),
        ("values", {"values": [["a"]]}),
        ("bound", {"bound": NAN}),
        ("bound", {"bound": [1.0, 2.0]}),
        ("comparator", {"comparator": "under"}),
        ("exposure", {"exposure": [[1.0]]}),
        ("exposure", {"exposure": [[1.0, -1.0]]}),
        ("step_seconds", {"step_seconds": 0.0}),
        ("spec", {"spec": [GAUGE, GAUGE]}),
    ],
)
def test_wrong_arguments_are_named(name: str, kwargs: dict) -> None:
    arguments = {"values": [[1.0, 2.0]], "spec": GAUGE, "bound": 1.0, **kwargs}
    with pytest.raises(ValueError, match=rf"^{name}: "):
        ta.threshold(**arguments)


def test_kinds_are_derived_and_mixed() -> None:
    """One call over a gauge, a count and a ratio; a row alone gives the same."""
    rng = np.random.default_rng(7)
    x = np.stack([rng.lognormal(5, 0.2, 40), rng.poisson(0.3, 40), rng.poisson(2.0, 40)]).astype(float)
    n = np.stack([np.full(40, NAN), np.full(40, NAN), np.full(40, 100.0)])
    specs = (ta.MetricSpec("latency_ms"), ta.MetricSpec("pod_restarts"), ta.MetricSpec("failures"))
    got = ta.threshold(x, spec=specs, bound=[200.0, 1.0, 0.05], exposure=n)
    assert [s.kind for s in got.specs] == ["gauge", "count", "ratio"]
    assert got.derived == (("kind",),) * 3
    assert got.method == ("threshold-mean.v1", "threshold-count.v1", "threshold-count.v1")
    assert got.verdict.tolist() == [PASS] * 3
    for i in range(3):
        one = ta.threshold(x[i : i + 1], spec=specs[i], bound=[200.0, 1.0, 0.05][i], exposure=n[i : i + 1])
        assert one.p_value[0] == got.p_value[i]
        assert one.effect_high[0] == got.effect_high[i]
    none = ta.threshold(np.zeros((0, 5)), spec=GAUGE, bound=1.0)
    assert len(none) == 0
