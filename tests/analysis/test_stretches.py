"""A short fault does not pass: scrapes in a row that stand out are held to a loop, and forbid a PASS everywhere."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from tidegate_analysis import simulate
from tidegate_analysis.kernels import dependence, stretches
from tidegate_analysis.spec import Direction

Floats = NDArray[np.float64]
POINTS, WINDOWS = 60, 28


def scalar(row: list[float], beyond: float) -> tuple[float, int, int, float]:
    row = [v for v in row if not math.isnan(v)]
    best = (0.0, 0, 0, math.nan)
    if len(row) <= 3:
        return best
    middle = float(np.median(row))
    below = [middle - v for v in row if v < middle]
    spread = 1.482602218505602 * float(np.median(below)) if below else 0.0
    calm = np.clip(np.array(row) - middle, -2.5 * spread, 2.5 * spread)
    rho = float(np.nan_to_num(dependence.lag1(calm[None])[0]))
    for length in (3, 5, 10, 20):
        if length >= len(row):
            break
        inflation = float(dependence.ar1_inflation(np.array([rho]), np.array([length]))[0])
        for first in range(len(row) - length + 1):
            part = np.array(row[first : first + length])
            if part.mean() <= beyond:
                continue
            near = np.clip(part - middle, -4.0 * spread, 4.0 * spread)
            score = near.sum() / (spread * math.sqrt(inflation * length)) if spread else math.inf
            if score > best[0] + 1e-6:
                best = (score, first, length, float(part.mean()))
    return best


def test_it_equals_a_loop_over_stretches() -> None:
    rng = np.random.default_rng(2)
    d = rng.normal(0.0, 0.1, (40, 37))
    d[::3, 30:] += 0.8
    d[1::5, 4:6] = 5.0
    d[2::4] = np.where(rng.random((10, 37)) < 0.2, np.nan, d[2::4])
    d[5] = 0.25
    d[6, :] = 0.0
    d[6, 10:14] = 1.0
    d[7, 3:] = np.nan
    d[8] = np.nan
    d[9] = np.round(d[9], 1)
    beyond = np.full(40, 0.1)
    found = stretches.standing_out(d, beyond)
    for i in range(40):
        score, first, length, mean = scalar(d[i].tolist(), 0.1)
        assert found.score[i] == pytest.approx(score, rel=1e-6), i
        if score > 0:
            assert (found.first[i], found.length[i]) == (first, length)
            assert found.mean[i] == pytest.approx(mean)
    assert found.score[6] == math.inf
    assert stretches.standing_out(np.zeros((0, 60)), np.zeros(0)).score.shape == (0,)
    for n in (0, 1, 2, 3):
        assert (stretches.standing_out(np.ones((2, n)), np.zeros(2)).score == 0).all()


@pytest.mark.parametrize("structure", ["iid", "ar.6", "ar.9", "ar.97", "ma-.5", "rounded ar.6"])
@pytest.mark.parametrize("points", [20, 60, 120])
def test_healthy_rows_seldom_reach_the_bar(structure: str, points: int) -> None:
    both = simulate.arms(structure, 2000, points, rng=8)
    d = both.canary - both.baseline
    score = stretches.standing_out(d, np.full(len(d), -np.inf)).score
    reached = (score >= stretches.bar(np.full(len(d), points))).mean()
    assert reached <= 0.015 + 3 * math.sqrt(0.015 * 0.985 / 2000)


def drawn(series: int, sd: float) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(12)
    shapes = ((series, POINTS), (series, POINTS), (series, WINDOWS, 2, POINTS))
    return tuple(100.0 * np.exp(rng.normal(0.0, sd, shape)) for shape in shapes)  # type: ignore[return-value]


def streamed(baseline: Floats, canary: Floats, spec: ta.MetricSpec, **options: object) -> ta.Result:
    stream = ta.open_stream([spec] * len(baseline), **options)
    stream.update(baseline, canary)
    return stream.result()


COLUMN = np.arange(POINTS)
SHORT: tuple[tuple[str, Direction, Callable[[Floats], Floats]], ...] = (
    ("the last 5 doubled", "up_is_worse", lambda c: np.where(COLUMN >= 55, 2.0 * c, c)),
    ("5 in the middle tripled", "up_is_worse", lambda c: np.where(COLUMN // 5 == 6, 3.0 * c, c)),
    ("the last 10 halved", "down_is_worse", lambda c: np.where(COLUMN >= 50, 0.5 * c, c)),
    ("5 halved", "either", lambda c: np.where(COLUMN // 5 == 3, 0.4 * c, c)),
    ("5 tripled", "either", lambda c: np.where(COLUMN // 5 == 3, 3.0 * c, c)),
)


@pytest.mark.parametrize("past", [0, WINDOWS])
@pytest.mark.parametrize(("what", "direction", "change"), SHORT, ids=[w for w, _, _ in SHORT])
def test_a_short_fault_does_not_pass(
    what: str, direction: Direction, change: Callable[[Floats], Floats], past: int
) -> None:
    baseline, canary, history = drawn(100, 0.05)
    canary = change(canary)
    spec = ta.MetricSpec("p95", "gauge", direction, "log", 0.15)
    known = history if past else None
    for result in (
        ta.compare(baseline, canary, spec=spec, history=known),
        streamed(baseline, canary, spec, horizon=POINTS, history=known),
        streamed(baseline, canary, spec, history=known),
    ):
        assert not (result.verdict == ta.Verdict.PASS).any(), what
    healthy = ta.compare(baseline, drawn(100, 0.05)[1], spec=spec, history=known)
    assert (healthy.verdict == ta.Verdict.PASS).mean() > 0.95


def test_a_short_fault_is_told() -> None:
    baseline, canary, _ = drawn(3, 0.02)
    canary[0, 55:] *= 1.5
    canary[1, 45:] *= 1.5
    spec = ta.MetricSpec("checkout_p95", "gauge", "up_is_worse", "log", 0.2, unit="ms")
    result = ta.compare(baseline, canary, spec=spec)
    assert result.reason[0] == "stretch_in_doubt"
    note = next(one for one in result.quality[0] if one.code == "stretch")
    assert note.count == 5
    assert note.message.startswith("5 scrapes in a row stand out, from point 56 on by +")
    assert "the whole is fine, but 5 scrapes in a row stand out, from point 56 on by +" in result.explain(0)
    assert result.reason[1] == "not_enough_evidence"
    assert "scrapes in a row stand out, from point" in result.explain(1)
    assert result.verdict[2] == ta.Verdict.PASS


def test_one_wild_scrape_is_no_stretch() -> None:
    baseline, canary, _ = drawn(200, 0.05)
    canary[:, 20] *= 30.0
    spec = ta.MetricSpec("p95", "gauge", "up_is_worse", "log", 0.15)
    result = ta.compare(baseline, canary, spec=spec)
    assert (np.array(result.reason) == "stretch_in_doubt").mean() < 0.03


def test_a_stretch_within_the_margin_passes() -> None:
    baseline, canary, _ = drawn(100, 0.01)
    canary[:, 50:] *= 1.08
    spec = ta.MetricSpec("p95", "gauge", "up_is_worse", "log", 0.15)
    assert (ta.compare(baseline, canary, spec=spec).verdict == ta.Verdict.PASS).all()


def test_after_a_short_past_a_late_fault_does_not_pass() -> None:
    rng = np.random.default_rng(4)
    before = 100.0 * np.exp(rng.normal(0.0, 0.05, (50, 60)))
    after = 100.0 * np.exp(rng.normal(0.0, 0.05, (50, 60)))
    late = np.where(COLUMN >= 55, 2.0 * after, after)
    spec = ta.MetricSpec("p95", "gauge", "up_is_worse", "log", 0.15)
    assert not (ta.before_after(before, late, spec=spec).verdict == ta.Verdict.PASS).any()
    assert (ta.before_after(before, after, spec=spec).verdict == ta.Verdict.PASS).mean() > 0.9


@pytest.mark.parametrize(
    ("reason", "spoil"),
    [
        ("bad_values", lambda c: np.where(COLUMN == 30, np.inf, c)),
        ("stale", lambda c: np.where(COLUMN >= 45, c[:, 44:45], c)),
        ("canary_silent", lambda c: np.where(COLUMN >= 50, np.nan, c)),
    ],
)
def test_what_forbids_a_pass_forbids_it_in_a_stream_with_a_past(reason: str, spoil: Callable[[Floats], Floats]) -> None:
    """Noise so slow that 60 points alone could never pass, and only the past lets the stream: bad data still holds."""
    w = simulate.windows("ar.9", 200, WINDOWS, POINTS, rng=5, positive=True)
    spec = ta.MetricSpec("p95", "gauge", "up_is_worse", "log", 0.35)
    clean = streamed(w.baseline, w.canary, spec, horizon=POINTS, history=w.history)
    assert (clean.verdict == ta.Verdict.PASS).mean() > 0.9
    result = streamed(w.baseline, spoil(w.canary), spec, horizon=POINTS, history=w.history)
    assert not (result.verdict == ta.Verdict.PASS).any()
    assert (np.array(result.reason) == reason).mean() > 0.5
