"""The peers are who they say: against scipy, a plain search, and what is known of the published judge."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from benchmarks import peers


def test_the_usual_tests_are_those_of_scipy() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((2, 5, 30))
    for k in range(5):
        welch = stats.ttest_ind(y[k], x[k], equal_var=False, alternative="greater").pvalue
        rank = stats.mannwhitneyu(y[k], x[k], alternative="greater", method="asymptotic").pvalue
        assert peers.welch_p(x, y)[k] == pytest.approx(welch)
        assert peers.mann_whitney_p(x, y)[k] == pytest.approx(rank)
    flat = np.ones((1, 10))
    assert peers.welch_p(flat, flat)[0] == 1.0
    assert peers.mann_whitney_p(flat, flat)[0] == 1.0


def _z(shift: float, canary: np.ndarray, baseline: np.ndarray) -> float:
    moved = canary - shift
    m, n = len(moved), len(baseline)
    ranks = stats.rankdata(np.concatenate([moved, baseline]))
    distance = ranks[:m].sum() - m * (m + 1) / 2 - m * n / 2
    _, counts = np.unique(np.concatenate([moved, baseline]), return_counts=True)
    total = m + n
    variance = m * n / 12 * ((total + 1) - float((counts**3 - counts).sum()) / (total * (total - 1)))
    return (distance - 0.5 * np.sign(distance)) / np.sqrt(variance)


@pytest.mark.parametrize("case", ["plain", "ties", "unequal"])
def test_the_interval_is_where_the_statistic_crosses(case: str) -> None:
    rng = np.random.default_rng(2)
    x, y = 10 * rng.standard_normal((6, 25)), 10 * rng.standard_normal((6, 25)) + 3
    if case == "ties":
        x, y = np.round(x), np.round(y)
    if case == "unequal":
        y = y[:, :14]
    low, high, estimate = peers.kayenta_interval(x, y)
    for k in range(6):
        d0, d1 = y[k].min() - x[k].max(), y[k].max() - x[k].min()
        for level, got in ((2.3263478740408408, low[k]), (-2.3263478740408408, high[k]), (0.0, estimate[k])):
            # The statistic is a step function: both searches end within their tolerance of a step that crosses.
            wanted = optimize.brentq(lambda d, k=k, level=level: _z(d, y[k], x[k]) - level, d0, d1, xtol=1e-9)
            step = 1.0 if case == "ties" else 1e-3
            assert got == pytest.approx(wanted, abs=step)
        assert low[k] <= estimate[k] <= high[k]


def test_a_clean_baseline_and_more_and_more_errors() -> None:
    # 60 points: 1-26 Pass, 27-29 High, 30-36 Pass, 37-60 High; 120 points: 48-59 High, 60-69 Pass, 70 and more High.
    for points, high in ((60, {*range(27, 30), *range(37, 61)}), (120, {*range(48, 60), *range(70, 121)})):
        bad = np.arange(points + 1)
        y = (np.arange(points)[None] < bad[:, None]).astype(float)
        labels = peers.kayenta(np.zeros_like(y), y).label
        assert set(np.flatnonzero(labels == "High").tolist()) == high


def test_the_error_rates_that_are_known_of_the_judge() -> None:
    rng = np.random.default_rng(3)
    for n, low, high in ((2, 0.19, 0.30), (4, 0.0, 0.025), (60, 0.0, 0.01)):
        x, y = 1 + 0.15 * rng.standard_normal((2, 1000, n))
        flagged = (peers.kayenta(x, y, direction="either").label != "Pass").mean()
        assert low <= flagged <= high


def test_labels_that_need_no_test() -> None:
    nothing, some = np.full((1, 5), np.nan), np.arange(5.0)[None]
    assert peers.kayenta(nothing, some).label[0] == "Nodata"
    assert peers.kayenta(some, some.copy()).label[0] == "Pass"
    assert peers.kayenta(np.array([[1.0]]), np.array([[2.0]])).label[0] == "Error"
    gaps = np.array([[1.0, np.nan, 2.0, 3.0, np.nan]])
    assert peers.kayenta(gaps, gaps[:, ::-1].copy()).label[0] == "Pass"
    assert peers.kayenta(some, some - 100, direction="either").label[0] == "Low"
    assert peers.kayenta(some, some - 100).label[0] == "Pass"


def test_thresholds() -> None:
    x, y = np.full((2, 10), 1.0), np.full((2, 10), 1.0)
    y[0] = 1.2
    assert peers.argo_ratio_fails(x, y).tolist() == [True, False]
    y[1, -1] = 9.0
    assert peers.argo_bound_fails(y, np.full(2, 1.25)).tolist() == [False, True]
    y[1, -1] = np.nan
    assert peers.argo_bound_fails(y, np.full(2, 1.25)).tolist() == [False, False]
    y[1, 2:7] = 5.0
    assert peers.flagger_fails(y, np.full(2, 1.25)).tolist() == [False, True]
    assert peers.flagger_fails(y, np.full(2, 1.25), interval=5).tolist() == [False, False]


def test_looking_again_and_again() -> None:
    x = np.zeros((3, 20))
    y = np.zeros((3, 20))
    y[1, 7] = 1.0

    def last_is_high(b: np.ndarray, c: np.ndarray, rows: np.ndarray) -> np.ndarray:
        assert len(b) == len(c) == len(rows)
        return c[:, -1] > 0

    assert peers.any_look(last_is_high, x, y, np.arange(1, 21)).tolist() == [False, True, False]
    assert peers.any_look(last_is_high, x, y, np.arange(5, 21, 5)).tolist() == [False, False, False]


def test_reflection_keeps_the_level_and_turns_the_direction() -> None:
    x = np.array([[8.0, 10.0, 12.0], [8.0, 10.0, 12.0]])
    turned = peers.reflect(x, np.array([10.0, 10.0]), np.array([True, False]))
    assert turned.tolist() == [[12.0, 10.0, 8.0], [8.0, 10.0, 12.0]]
