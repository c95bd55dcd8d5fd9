"""The tail of a stream: held to a loop over scrapes, found where it is worse, and silent where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from scipy import stats
from tidegate_analysis import simulate
from tidegate_analysis.decide import policy_of
from tidegate_analysis.spec import Direction
from tidegate_analysis.watches import tails

Floats = NDArray[np.float64]
WINDOWS, POINTS = 28, 60


def drawn(series: int, sd: float, seed: int = 7) -> tuple[Floats, Floats, Floats]:
    """Baseline, canary and past windows of independent lognormal noise around 100."""
    rng = np.random.default_rng(seed)
    shapes = ((series, POINTS), (series, POINTS), (series, WINDOWS, 2, POINTS))
    return tuple(100.0 * np.exp(rng.normal(0.0, sd, shape)) for shape in shapes)  # type: ignore[return-value]


def watched(baseline: Floats, canary: Floats, history: Floats, direction: Direction, margin: float = 0.1) -> ta.Result:
    specs = [ta.MetricSpec(f"m{i}", "gauge", direction, "log", margin) for i in range(len(baseline))]
    stream = ta.open_stream(specs, history=history, horizon=POINTS)
    stream.update(baseline, canary)
    return stream.result()


def level_before(v: Floats, t: int) -> float:
    before = v[max(t - 10, 0) : t]
    before = before[~np.isnan(before)]
    return float(np.median(before)) if len(before) >= 3 else math.nan


def test_the_recent_level_is_the_higher_of_two_medians_of_ten() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 4, 30))
    y[0, ::3] = np.nan
    x[1, 5:18] = np.nan
    offset = np.array([0.0, 0.3, -0.2, 1.0])[:, None]
    far_x, far_y = tails.far_off(x, y, offset)
    for i in range(4):
        for t in range(30):
            level_x, level_y = level_before(x[i], t), level_before(y[i], t)
            expected_x = x[i, t] - np.fmax(level_x, level_y - offset[i, 0])
            expected_y = y[i, t] - np.fmax(level_y, level_x + offset[i, 0])
            np.testing.assert_allclose(far_x[i, t], expected_x, rtol=1e-12)
            np.testing.assert_allclose(far_y[i, t], expected_y, rtol=1e-12)
    newest = tails.far_off(x[:, -11:], y[:, -11:], offset, newest=True)
    np.testing.assert_array_equal(newest[0][:, 0], far_x[:, -1])
    np.testing.assert_array_equal(newest[1][:, 0], far_y[:, -1])


def test_a_watch_equals_a_loop_over_its_scrapes() -> None:
    baseline, canary, history = drawn(3, 0.2)
    canary[0, 20::9] *= 3.0
    canary[1, 30] = np.nan
    policy = policy_of(tuple(ta.MetricSpec("m", "gauge", "up_is_worse", "log", 0.1) for _ in range(3)), np.full(3, 0.1))
    watch = tails.TailWatch.learn(policy, POINTS, history)
    for t in range(1, POINTS + 1):
        watch.step(policy, baseline[:, :t], canary[:, :t])
    seen = watch.seen(policy, baseline, canary)
    for i in range(3):
        past = np.log(history[i])
        offset = stats.trim_mean(past[:, 1] - past[:, 0], 0.1, axis=1).mean()
        far = np.array([tails.far_off(past[k, 0], past[k, 1], np.array(offset)) for k in range(WINDOWS)])
        known = np.sort(far[~np.isnan(far)])
        cut = known[math.ceil(0.95 * len(known)) - 1]
        quarter = (len(known) - 1) // 4
        unit = (known[len(known) - 1 - quarter] - known[quarter]) / 1.3489795003921634

        def weight(d: float, unit: float = unit, cut: float = cut) -> float:
            return math.asinh(d / unit) - math.asinh(cut / unit) if d > cut else 0.0

        sums = [sum(weight(b) - weight(a) for a, b in zip(far[k, 0], far[k, 1], strict=True)) for k in range(WINDOWS)]
        weights = [w for d in known.tolist() if (w := weight(d)) > 0]
        rate = len(weights) / WINDOWS
        second, fourth = np.mean(np.square(weights)), np.mean(np.power(weights, 4))
        scale = max(np.std(sums, ddof=1), math.sqrt(second))
        sd = scale * math.sqrt(1 + 1 / WINDOWS)
        df = 4 + 6 / (fourth / (rate * second**2) + 6 / (WINDOWS - 5))
        cubes = [sum(weight(d) ** 3 for d in far[:, arm].ravel().tolist() if not math.isnan(d)) for arm in (0, 1)]
        skew = max((cubes[1] - cubes[0]) / WINDOWS / scale**3, 0.0)
        x, y = np.log(baseline[i]), np.log(canary[i])
        total = most = 0.0
        for t in range(POINTS):
            a, b = (float(v[t]) for v in tails.far_off(x, y, np.array(offset)))
            if not (math.isnan(a) or math.isnan(b)):
                total += weight(b) - weight(a) - np.mean(sums) / POINTS
            most = max(most, total / sd)
        if skew > 1e-3:
            most = min(most, 6 / skew * (math.cbrt(skew * most / 2 + 1) - 1) + skew / 6)
        assert seen.p_value[i] == pytest.approx(min(2 * stats.t.sf(most, df), 1.0), rel=1e-6)
    assert seen.asked.all()
    assert seen.p_beyond[0] == seen.p_value[0] < 0.004


# What changes in the canary, the direction that is worse, and what is to be said of it.
WORSE: tuple[tuple[str, Direction, Callable[[Floats], Floats]], ...] = (
    ("a twentieth x3", "up_is_worse", lambda c: simulate.inject(c, "tail", 2.0, scale="log", share=0.05)),
    ("a fifth x3", "up_is_worse", lambda c: simulate.inject(c, "tail", 2.0, scale="log", share=0.2)),
    ("a tenth / 3", "down_is_worse", lambda c: np.where(lowest(c, 0.1), c / 3.0, c)),
    ("a twentieth x3", "either", lambda c: simulate.inject(c, "tail", 2.0, scale="log", share=0.05)),
    ("a tenth / 3", "either", lambda c: np.where(lowest(c, 0.1), c / 3.0, c)),
)
BETTER: tuple[tuple[str, Direction, Callable[[Floats], Floats]], ...] = (
    ("a tenth / 3", "up_is_worse", lambda c: np.where(lowest(c, 0.1), c / 3.0, c)),
    ("a twentieth x3", "down_is_worse", lambda c: simulate.inject(c, "tail", 2.0, scale="log", share=0.05)),
    ("a fifth x3", "down_is_worse", lambda c: simulate.inject(c, "tail", 2.0, scale="log", share=0.2)),
    ("ten in a row x3", "down_is_worse", lambda c: np.where(np.arange(POINTS) // 10 == 3, 3.0 * c, c)),
)


def lowest(c: Floats, share: float) -> NDArray[np.bool_]:
    return np.asarray(c <= np.quantile(c, share, axis=1, keepdims=True))


@pytest.mark.parametrize("sd", [0.05, 0.2])
@pytest.mark.parametrize(("what", "direction", "change"), WORSE, ids=[f"{w} {d}" for w, d, _ in WORSE])
def test_a_tail_that_got_worse_is_found(
    what: str, direction: Direction, change: Callable[[Floats], Floats], sd: float
) -> None:
    baseline, canary, history = drawn(100, sd)
    found = watched(baseline, change(canary), history, direction)
    assert (found.verdict == ta.Verdict.FAIL).mean() > 0.9, what
    assert (found.verdict == ta.Verdict.PASS).mean() == 0.0


@pytest.mark.parametrize("sd", [0.05, 0.2])
@pytest.mark.parametrize(("what", "direction", "change"), BETTER, ids=[f"{w} {d}" for w, d, _ in BETTER])
def test_a_tail_that_got_better_is_no_fault(
    what: str, direction: Direction, change: Callable[[Floats], Floats], sd: float
) -> None:
    baseline, canary, history = drawn(400, sd)
    canary = change(canary)
    spec = ta.MetricSpec("m", "gauge", direction, "log", 0.1)
    limit = 0.02 + 3 * math.sqrt(0.02 * 0.98 / 400)
    for found in (
        watched(baseline, canary, history, direction),
        ta.compare(baseline, canary, spec=spec, history=history),
    ):
        assert (found.verdict == ta.Verdict.FAIL).mean() <= limit, what


def test_a_tail_that_moved_by_less_than_the_margin_is_no_fault() -> None:
    baseline, canary, history = drawn(200, 0.01)
    wider = 100.0 * (canary / 100.0) ** 3
    found = watched(baseline, wider, history, "up_is_worse", margin=0.1)
    assert (found.verdict == ta.Verdict.PASS).all(), "the worst points lie 4 % further out, 10 % are allowed"
    strict = watched(baseline, wider, history, "up_is_worse", margin=0.01)
    assert (strict.verdict == ta.Verdict.FAIL).mean() > 0.9


def test_a_tail_in_doubt_does_not_pass() -> None:
    baseline, canary, history = drawn(300, 0.2)
    canary[:, [20, 40]] *= 1.8
    found = watched(baseline, canary, history, "up_is_worse", margin=0.3)
    doubted = np.array([reason == "tail_in_doubt" for reason in found.reason])
    assert doubted.any()
    assert (found.verdict[doubted] == ta.Verdict.INCONCLUSIVE).all()


@pytest.mark.parametrize("direction", ["up_is_worse", "either"])
def test_healthy_tails_fail_as_seldom_as_promised(direction: Direction) -> None:
    n = 1500
    w = simulate.windows("lognormal ar.6", n, WINDOWS, POINTS, rng=11)
    found = watched(w.baseline, w.canary, w.history, direction, margin=1e-6)
    assert (found.verdict == ta.Verdict.FAIL).mean() <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / n)


def test_metrics_that_stand_still_and_too_few_windows_are_not_asked() -> None:
    flat = np.full((2, WINDOWS, 2, POINTS), 5.0)
    policy = policy_of(tuple(ta.MetricSpec("m", "gauge", "up_is_worse", "log", 0.1) for _ in range(2)), np.full(2, 0.1))
    assert not tails.TailWatch.learn(policy, POINTS, flat).seen(policy, flat[:, 0, 0], flat[:, 0, 1]).asked.any()
    _, _, history = drawn(2, 0.1)
    few = tails.TailWatch.learn(policy, POINTS, history[:, :13])
    assert not few.seen(policy, history[:, 0, 0], history[:, 0, 1]).asked.any()


@pytest.mark.parametrize("direction", ["up_is_worse", "down_is_worse", "either"])
def test_the_tail_of_a_past_is_asked_the_way_that_is_worse(direction: Direction) -> None:
    """Before and after: points far below are a fault of what may not fall, and of what may not move at all."""
    rng = np.random.default_rng(4)
    past = 100.0 * np.exp(rng.normal(0.0, 0.1, (40, 14 * 1440)))
    after = 100.0 * np.exp(rng.normal(0.0, 0.1, (40, 60)))
    after[:, [10, 25, 40]] /= 1.6
    spec = ta.MetricSpec("m", "gauge", direction, "log", 0.1)
    found = ta.before_after(past, after, spec=spec, step_seconds=60.0)
    fails = (found.verdict == ta.Verdict.FAIL).mean()
    if direction == "up_is_worse":
        assert fails <= 0.1
    else:
        assert fails > 0.9
        assert (found.tail_effect < 0).all()
