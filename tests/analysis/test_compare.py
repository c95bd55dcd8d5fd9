"""Canary against baseline: every series equals a scalar reference built on scipy, and the shapes hold."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import NamedTuple

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from scipy import stats
from statsmodels.tsa.stattools import acf
from tidegate_analysis.kernels import placebo

Floats = NDArray[np.float64]


class Expected(NamedTuple):
    """What the reference finds for one series."""

    verdict: ta.Verdict
    p: float
    effect: float
    low: float
    high: float


def _errors(d: list[float]) -> list[tuple[float, float]]:
    """Both standard errors of the 10 % trimmed mean, from its influence, as docs/methods/paired-trim.md tells."""
    n = len(d)
    s = sorted(d)
    k = int(0.1 * n)
    u = [min(max(v, s[k]), s[n - k - 1]) / (0.8 if k else 1.0) for v in d]
    nu = max(2, round(0.4 * n ** (2 / 3)))
    cosines = [
        math.sqrt(2 / n) * sum(u[t] * math.cos(math.pi * j * (t + 0.5) / n) for t in range(n)) for j in range(1, nu + 1)
    ]
    by_cosines = math.sqrt(sum(c * c for c in cosines) / nu / n)
    r = float(acf(np.array(u), nlags=1, fft=False)[1])
    rho = min(max(r + (1 + 3 * r) / n, 0.0), 0.97)
    vif = max(1.0, 1.0 + 2.0 * sum((1 - j / n) * rho**j for j in range(1, n)))
    return [(by_cosines, nu), (float(stats.sem(u)) * math.sqrt(vif), max(n / vif - 1.0, 1.0))]


def _placebo(past: list[float]) -> tuple[float, float, float]:
    median = float(np.median(past))
    reach = placebo.CLIP * 1.482602218505602 * float(np.median(np.abs(np.array(past) - median)))
    clipped = np.clip(past, median - reach, median + reach)
    return float(clipped.mean()), float(clipped.std(ddof=1)) * math.sqrt(1 + 1 / len(past)), len(past) - 1.0


def reference(x: Floats, y: Floats, spec: ta.MetricSpec, history: Floats | None = None) -> Expected:
    """Judge one series, without the tail: plain lines, scipy's t, statsmodels' autocorrelation."""
    g = np.log if spec.scale == "log" else (lambda v: v)
    d = [float(v) for v in g(y) - g(x) if not math.isnan(v)]
    estimate = float(stats.trim_mean(d, 0.1))
    errors = _errors(d)
    if history is not None:
        past = [float(stats.trim_mean(g(w[1]) - g(w[0]), 0.1)) for w in history]
        if len(past) >= 7:
            centre, se, df = _placebo(past)
            estimate -= centre
            errors = [(se, df)]
        else:
            shown = sum(v * v for v in past)
            errors = [(math.sqrt(max(se * se, (2 * se * se + shown) / (2 + len(past)))), df) for se, df in errors]
    assert spec.margin is not None
    up = math.log1p(spec.margin) if spec.scale == "log" else spec.margin
    down = -math.log1p(-spec.margin) if spec.scale == "log" else spec.margin
    sign = {"up_is_worse": 1.0, "down_is_worse": -1.0}.get(spec.direction, 0.0)
    either = sign == 0
    way = sign or (-1.0 if estimate < 0 else 1.0)
    worse, margin, other = way * estimate, up if way > 0 else down, down if way > 0 else up
    level = spec.alpha / 2 if either else spec.alpha
    p = max(stats.t.sf(worse / se, df) for se, df in errors) * (2 if either else 1)
    to_null = max(stats.t.isf(level, df) * se for se, df in errors)
    to_margin = max(stats.t.isf(spec.alpha_pass, df) * se for se, df in errors)
    verdict = ta.Verdict.INCONCLUSIVE
    if worse - to_null > 0 and worse > margin:
        verdict = ta.Verdict.FAIL
    elif worse + to_margin < margin and (not either or worse - to_margin > -other):
        verdict = ta.Verdict.PASS
    bounds = sorted([way * (worse - to_null), way * (worse + (to_null if either else to_margin))])
    effect = np.expm1 if spec.scale == "log" else (lambda v: v)
    return Expected(verdict, min(p, 1.0), float(effect(estimate)), float(effect(bounds[0])), float(effect(bounds[1])))


def _data(S: int, n: int, seed: int) -> tuple[Floats, Floats]:
    """Positive series with a common course, own noise, and changes of all sizes in both directions."""
    rng = np.random.default_rng(seed)
    common = np.cumsum(rng.normal(size=(S, n)) * 0.1, axis=1)
    x = np.exp(common + rng.normal(size=(S, n)) * 0.1)
    y = np.exp(common + rng.normal(size=(S, n)) * 0.1 + np.linspace(-0.4, 0.4, S)[:, None])
    return x, y


def _calm(S: int, n: int, seed: int) -> Floats:
    """One past window: (series, 2, points) that differ by noise alone."""
    rng = np.random.default_rng(seed)
    common = np.cumsum(rng.normal(size=(S, 1, n)) * 0.1, axis=2)
    return np.exp(common + rng.normal(size=(S, 2, n)) * 0.1)


SPECS = {
    "up": ta.MetricSpec("m", "gauge", "up_is_worse", "log", 0.1),
    "down": ta.MetricSpec("m", "gauge", "down_is_worse", "log", 0.1),
    "either": ta.MetricSpec("m", "gauge", "either", "log", 0.1),
    "linear": ta.MetricSpec("m", "gauge", "up_is_worse", "linear", 0.15, alpha=0.01, alpha_pass=0.1),
    "linear either": ta.MetricSpec("m", "gauge", "either", "linear", 0.3),
}


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("windows", [0, 3, 28])
@pytest.mark.parametrize("n", [5, 39])
def test_every_series_equals_the_reference(name: str, windows: int, n: int) -> None:
    # Below 40 points and with gaps the tail is asked by its past only, and not from fewer than 14 windows: with 28
    # the tail is looked at apart, below.
    S, spec = 12, SPECS[name]
    x, y = _data(S, n, 1)
    history = None
    if windows:
        history = np.stack([_calm(S, n, 10 + k) for k in range(windows)], axis=1)
    found = ta.compare(x, y, spec=spec, history=history)
    asked = np.isfinite(found.tail_p_value)
    assert asked.all() if windows >= 14 else not asked.any()
    for i in range(S):
        own = spec.with_(alpha=spec.alpha * 0.8) if asked[i] else spec
        expected = reference(x[i], y[i], own, None if history is None else history[i])
        np.testing.assert_allclose(
            [found.effect[i], found.effect_low[i], found.effect_high[i]],
            [expected.effect, expected.low, expected.high],
            rtol=1e-6,
            atol=1e-9,
        )
        if not asked[i]:
            assert found.p_value[i] == pytest.approx(expected.p, rel=1e-6, abs=1e-12)
            assert found.verdict[i] == expected.verdict
        elif found.reason[i] not in ("tail_regression", "tail_in_doubt"):
            assert found.verdict[i] == expected.verdict
            centre, tail = expected.p / 0.8, found.tail_p_value[i] / 0.2
            assert found.p_value[i] == pytest.approx(min(centre, tail, 1.0), rel=1e-6, abs=1e-12)
    if windows != 3 and n > 5:
        assert {ta.Verdict.PASS, ta.Verdict.FAIL} <= {int(v) for v in found.verdict}


def test_gaps_are_left_out_pair_by_pair() -> None:
    x, y = _data(6, 30, 2)
    x[:, 4] = np.nan
    y[:, 7:9] = np.nan
    found = ta.compare(x, y, spec=SPECS["up"])
    both = ~(np.isnan(x) | np.isnan(y))[0]
    alone = ta.compare(x[:, both], y[:, both], spec=SPECS["up"])
    np.testing.assert_allclose(found.effect, alone.effect, rtol=1e-12)
    np.testing.assert_allclose(found.p_value, alone.p_value, rtol=1e-9)
    assert found.n_baseline.tolist() == [29] * 6
    assert found.n_canary.tolist() == [28] * 6
    assert {note.code for note in found.quality[0]} == {"gaps"}
    assert found.quality[0][0].count == 3


def test_one_series_does_not_look_at_its_neighbours() -> None:
    x, y = _data(40, 60, 3)
    y[3] = np.nan
    x[5] = 0.0
    y[7, 2] = np.inf
    together = ta.compare(x, y, spec=SPECS["up"])
    for i in range(0, 40, 3):
        alone = ta.compare(x[i : i + 1], y[i : i + 1], spec=SPECS["up"])
        assert alone.verdict[0] == together.verdict[i]
        assert alone.reason[0] == together.reason[i]
        np.testing.assert_allclose(alone.p_value[0], together.p_value[i], rtol=1e-9)


def test_every_array_has_one_entry_per_series() -> None:
    x, y = _data(7, 20, 4)
    found = ta.compare(x, y, spec=ta.MetricSpec("p95", unit="ms"), step_seconds=15.0)
    assert len(found) == 7
    arrays = {f.name: getattr(found, f.name) for f in fields(found)}
    assert {v.shape for v in arrays.values() if isinstance(v, np.ndarray)} == {(7,)}
    assert {len(v) for v in arrays.values() if isinstance(v, tuple)} == {7}
    assert found.verdict.dtype == np.int8
    assert found.specs[0].direction == "up_is_worse"
    assert set(found.derived[0]) == {"kind", "direction", "scale", "margin"}
    frame = found.to_frame()
    assert len(frame) == 7
    assert frame["explanation"].iloc[2] == found.explain(2)


def test_no_series_at_all() -> None:
    found = ta.compare(np.zeros((0, 10)), np.zeros((0, 10)), spec=SPECS["up"])
    assert len(found) == 0
    assert len(found.to_frame()) == 0


def test_levels_are_medians_in_the_metrics_unit() -> None:
    x, y = _data(5, 31, 5)
    found = ta.compare(x, y, spec=SPECS["up"])
    np.testing.assert_allclose(found.baseline_level, np.median(x, axis=1))
    np.testing.assert_allclose(found.canary_level, np.median(y, axis=1))


def test_the_detectable_change_is_found_nine_times_in_ten() -> None:
    rng = np.random.default_rng(6)
    spec = ta.MetricSpec("m", "gauge", "up_is_worse", "linear", 0.01)
    noise = rng.normal(size=(2000, 30))
    detectable = ta.compare(np.zeros((2000, 30)), noise, spec=spec).minimum_detectable_effect
    true = float(np.median(detectable))
    fails = ta.compare(np.zeros((2000, 30)), rng.normal(size=(2000, 30)) + true, spec=spec).verdict == ta.Verdict.FAIL
    # The error is estimated with few degrees of freedom, so nine in ten holds roughly.
    assert 0.8 <= fails.mean() <= 0.97


def _noise(rng: np.random.Generator, n: int) -> tuple[Floats, Floats]:
    return rng.normal(size=(400, n)) / math.sqrt(2), rng.normal(size=(400, n)) / math.sqrt(2)


def test_time_to_answer_is_enough_for_a_harmless_canary() -> None:
    rng = np.random.default_rng(7)
    spec = ta.MetricSpec("m", "gauge", "up_is_worse", "linear", 0.5)
    short = ta.compare(*_noise(rng, 20), spec=spec, step_seconds=60.0)
    more = short.seconds_to_answer[short.verdict == ta.Verdict.INCONCLUSIVE]
    # Where the estimate alone stands in the way, more points are not what is missing.
    assert np.isfinite(more).mean() > 0.9
    assert (more[np.isfinite(more)] > 0).all()
    assert np.isnan(short.seconds_to_answer[short.verdict != ta.Verdict.INCONCLUSIVE]).all()
    longer = 20 + round(float(np.nanmedian(more)) / 60.0)
    later = ta.compare(*_noise(rng, longer), spec=spec, step_seconds=60.0)
    assert (later.verdict == ta.Verdict.PASS).mean() > 0.75


def test_past_windows_that_exceed_are_counted() -> None:
    x, y = _data(3, 30, 8)
    history = np.ones((3, 20, 2, 30))
    history[:, :, 1] = np.exp(np.linspace(-0.05, 0.05, 20))[None, :, None]
    y = x * math.exp(0.02)
    found = ta.compare(x, y, spec=SPECS["up"], history=history)
    # The windows are centred on their mean, which is 0: those of at least 0.02 count.
    assert found.history_windows.tolist() == [20] * 3
    assert found.history_exceeding.tolist() == [int((np.linspace(-0.05, 0.05, 20) >= 0.02).sum())] * 3


def test_a_change_late_in_the_stretch_has_its_onset() -> None:
    rng = np.random.default_rng(9)
    x = np.exp(rng.normal(size=(20, 60)) * 0.05)
    y = np.exp(rng.normal(size=(20, 60)) * 0.05)
    y[:, 30:] *= 1.6
    history = np.exp(rng.normal(size=(20, 14, 2, 60)) * 0.05)
    found = ta.compare(x, y, spec=SPECS["up"], history=history)
    assert (found.verdict == ta.Verdict.FAIL).all()
    assert (np.abs(found.onset - 30) <= 1).all()
    assert (found.onset_low <= found.onset).all()
    assert (found.onset_high >= found.onset).all()
    calm = ta.compare(x, x[::-1], spec=SPECS["up"])
    assert (calm.onset[calm.verdict != ta.Verdict.FAIL] == -1).all()


def test_a_tail_shift_alone_is_found() -> None:
    rng = np.random.default_rng(10)
    history = np.exp(rng.normal(size=(40, 28, 2, 60)) * 0.1)
    x, y = np.exp(rng.normal(size=(2, 40, 60)) * 0.1)
    y[:, ::10] *= 3.0
    found = ta.compare(x, y, spec=SPECS["up"], history=history)
    assert np.mean([r == "tail_regression" for r in found.reason]) > 0.9
    assert (found.tail_effect > 1.0).all()
    without = ta.compare(x, x[::-1], spec=SPECS["up"], history=history)
    assert (without.verdict == ta.Verdict.PASS).mean() > 0.9


# Instances.


def _instances(S: int, baseline: int, canary: int, n: int, spread: float, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(S, baseline + canary, 1)) * spread
    both = np.exp(own + rng.normal(size=(S, baseline + canary, n)) * 0.02)
    return both[:, :baseline], both[:, baseline:]


def test_instances_are_the_yardstick() -> None:
    # Pods differ by 10 % for ever: a canary pod that differs by as much is nothing special.
    x, y = _instances(300, 4, 1, 60, 0.1, 11)
    spec = SPECS["up"]
    by_instance = ta.compare(x, y, spec=spec, borrow=False)
    pooled = ta.compare(x.mean(axis=1), y.mean(axis=1), spec=spec)
    assert (by_instance.verdict == ta.Verdict.FAIL).mean() < 0.03
    assert (pooled.verdict == ta.Verdict.FAIL).mean() > 0.1
    assert set(by_instance.method) == {"instances.v1"}


def test_the_spread_between_instances_is_a_t_test_over_instance_means() -> None:
    x, y = _instances(5, 4, 2, 200, 0.3, 12)
    spec = ta.MetricSpec("m", "gauge", "up_is_worse", "linear", 0.01)
    found = ta.compare(x, y, spec=spec, borrow=False)
    for i in range(5):
        reference_course = x[i].mean(axis=0)
        a = [float(stats.trim_mean(r - reference_course, 0.1)) for r in x[i]]
        d = stats.trim_mean(y[i].mean(axis=0) - reference_course, 0.1)
        se = math.sqrt(np.var(a, ddof=1) * (1 / 4 + 1 / 2))
        own = max(stats.t.sf(abs(d) / s, df) for s, df in _errors((y[i].mean(axis=0) - reference_course).tolist()))
        p = max(stats.t.sf(abs(d) / se, 3), own)
        asked = np.isfinite(found.tail_p_value[i])
        centre = (p if d > 0 else 1 - p) / (0.8 if asked else 1.0)
        tail = found.tail_p_value[i] / 0.2 if asked else 1.0
        if d > 0:
            assert found.p_value[i] == pytest.approx(min(centre, tail, 1.0), rel=1e-6)
        assert found.effect[i] == pytest.approx(float(d), rel=1e-9)


def test_few_instances_borrow_from_the_other_series() -> None:
    x, y = _instances(60, 2, 1, 40, 0.05, 13)
    y *= 1.5
    alone = ta.compare(x, y, spec=SPECS["up"], borrow=False)
    borrowed = ta.compare(x, y, spec=SPECS["up"])
    assert (borrowed.verdict == ta.Verdict.FAIL).mean() > (alone.verdict == ta.Verdict.FAIL).mean() + 0.3


def test_an_instance_that_leaves_does_not_drag_the_arm_down() -> None:
    x, y = _instances(10, 4, 2, 40, 0.02, 14)
    x[:, 3, 30:] = 0.0
    y[:, 1, 35:] = np.nan
    found = ta.compare(x * 100, y * 100, spec=ta.MetricSpec("m", "gauge", "up_is_worse", "linear", 20.0))
    assert (found.verdict == ta.Verdict.PASS).all()
    assert all(any(n.code == "instance_left" and n.count == 2 for n in notes) for notes in found.quality)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("baseline", {"baseline": np.zeros(5)}),
        ("baseline", {"baseline": [["a", "b"]]}),
        ("baseline", {"baseline": np.zeros((1, 1, 1, 1))}),
        ("canary", {"canary": np.zeros((3, 10))}),
        ("canary", {"canary": np.zeros((2, 9))}),
        ("canary", {"canary": np.zeros((2, 4, 10))}),
        ("spec", {"spec": [SPECS["up"]]}),
        ("spec", {"spec": ta.MetricSpec("m", "histogram")}),
        (r"spec\[1\]", {"spec": [SPECS["up"], "p95"]}),
        ("history", {"history": np.zeros((2, 5, 10))}),
        ("history", {"history": np.zeros((3, 5, 2, 10))}),
        ("history", {"history": np.zeros((2, 5, 3, 10))}),
        ("history", {"history": np.zeros((2, 5, 2, 9))}),
        ("baseline_exposure", {"baseline_exposure": np.zeros((2, 9)), "canary_exposure": np.zeros((2, 10))}),
        ("canary_exposure", {"baseline_exposure": np.zeros((2, 10)), "canary_exposure": np.zeros((10,))}),
        ("baseline_exposure", {"spec": ta.MetricSpec("m", "ratio")}),
        ("step_seconds", {"step_seconds": 0.0}),
        ("step_seconds", {"step_seconds": float("nan")}),
    ],
)
def test_arguments_that_do_not_fit_are_named(field: str, arguments: dict) -> None:
    given = {"baseline": np.ones((2, 10)), "canary": np.ones((2, 10)), "spec": SPECS["up"], **arguments}
    with pytest.raises(ValueError, match=f"^{field}: "):
        ta.compare(given.pop("baseline"), given.pop("canary"), **given)


def test_spreads_are_borrowed_in_units_of_the_margin() -> None:
    """What series lend to each other must not depend on the unit that one of them is told in."""
    x, y = _instances(24, 3, 2, 30, 0.05, 15)
    unit = np.exp(np.random.default_rng(16).normal(0, 5, 24))
    unit[:12] = 1.0
    specs = [
        ta.MetricSpec(f"m{k}", "gauge", "up_is_worse", "log" if k < 12 else "linear", 0.08 if k < 12 else 8.0)
        for k in range(24)
    ]
    scaled = [s if s.scale == "log" else s.with_(margin=8.0 * u) for s, u in zip(specs, unit, strict=True)]
    plain = ta.compare(x, y, spec=specs)
    other = ta.compare(x * unit[:, None, None], y * unit[:, None, None], spec=scaled)
    np.testing.assert_allclose(other.p_value, plain.p_value, rtol=1e-9)
    assert other.reason == plain.reason
