"""Promises at every look: closed forms, simulated Brownian motion, fair games, statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from statsmodels.regression.linear_model import yule_walker as reference_yule_walker
from tidegate_analysis.kernels import sequential

Floats = NDArray[np.float64]


def test_reflection_is_the_closed_form() -> None:
    b = np.array([-1.0, 0.0, 0.1, 1.0, 2.326, 8.0, 40.0])
    normal = sequential.reflection_p(b, np.full(len(b), np.inf))
    np.testing.assert_allclose(normal, np.where(b > 0, np.minimum(2 * stats.norm.sf(b), 1), 1.0), rtol=1e-12)
    student = sequential.reflection_p(b, np.full(len(b), 13.0))
    np.testing.assert_allclose(student, np.where(b > 0, np.minimum(2 * stats.t.sf(b, 13), 1), 1.0), rtol=1e-10)


def test_boundary_and_p_value_are_inverse() -> None:
    alpha = np.array([0.001, 0.02, 0.05, 0.4])
    for df in (np.inf, 27.0, 3.0):
        there = np.full(4, df)
        back = sequential.reflection_p(sequential.boundary(alpha, there), there)
        np.testing.assert_allclose(back, alpha, rtol=1e-9)


def test_boundary_at_two_per_cent() -> None:
    # 2 P(Z >= b) = 0.02 at the normal 99 % quantile.
    assert float(sequential.boundary(np.array([0.02]), np.array([np.inf]))[0]) == pytest.approx(2.3263479, abs=1e-7)


def test_a_brownian_motion_crosses_as_often_as_told() -> None:
    rng = np.random.default_rng(12)
    runs, steps = 20_000, 400
    paths = np.cumsum(rng.normal(size=(runs, steps)) / math.sqrt(steps), axis=1)
    top = paths.max(axis=1)
    for b in (0.8, 1.5, 2.3):
        told = float(sequential.reflection_p(np.array([b]), np.array([np.inf]))[0])
        # A path seen at steps only overshoots by 0.5826 of a step (Siegmund 1979).
        seen = float((top >= b - 0.5826 / math.sqrt(steps)).mean())
        assert abs(seen - told) <= 3 * math.sqrt(told * (1 - told) / runs)
        assert float((top >= b).mean()) <= told + 3 * math.sqrt(told / runs)


def test_a_path_over_an_estimated_scale_crosses_as_student_says() -> None:
    rng = np.random.default_rng(13)
    runs, steps, df = 20_000, 200, 13
    top = np.cumsum(rng.normal(size=(runs, steps)) / math.sqrt(steps), axis=1).max(axis=1)
    scale = np.sqrt(rng.chisquare(df, runs) / df)
    for b in (1.5, 2.7):
        told = float(sequential.reflection_p(np.array([b]), np.array([float(df)]))[0])
        seen = float((top + 0.5826 / math.sqrt(steps) >= b * scale).mean())
        assert abs(seen - told) <= 3 * math.sqrt(told / runs)


def test_the_mixture_is_the_integral_over_half_normal_shifts() -> None:
    z, n, tuned = np.array([-1.0, 0.5, 3.0]), np.array([10.0, 60.0, 100.0]), 60.0
    gain = math.log(25.0)
    r = tuned / (2 * gain + math.log(1 + 2 * gain))
    shifts = np.linspace(0.0, 12.0 / math.sqrt(r), 400_001)
    weight = 2 * stats.norm.pdf(shifts, scale=1 / math.sqrt(r))
    for zi, ni, found in zip(z, n, sequential.normal_mixture_log_e(z, n, tuned), strict=True):
        likelihood = np.exp(shifts * zi * math.sqrt(ni) - shifts**2 * ni / 2)
        assert found == pytest.approx(math.log(np.trapezoid(weight * likelihood, shifts)), abs=1e-6)


@pytest.mark.parametrize("n", [1.0, 10.0, 60.0])
@pytest.mark.parametrize("total", [-5.0, 0.0, 3.0, 20.0])
def test_the_mixture_is_a_martingale(n: float, total: float) -> None:
    def log_e(sums: Floats, points: float) -> Floats:
        return sequential.normal_mixture_log_e(sums / math.sqrt(points), np.full(len(sums), points), 60.0)

    # The next point is standard normal: its expectation as an integral.
    x = np.linspace(-30.0, 30.0, 200_001)
    expected = np.trapezoid(np.exp(log_e(total + x, n + 1) - x * x / 2) / math.sqrt(2 * math.pi), x)
    assert expected == pytest.approx(float(np.exp(log_e(np.array([total]), n)[0])), rel=1e-9)


def test_the_mixture_is_worth_one_wherever_one_stops() -> None:
    rng = np.random.default_rng(14)
    n = np.arange(1.0, 61.0)
    z = np.cumsum(rng.normal(size=(40_000, 60)), axis=1) / np.sqrt(n)
    log_e = sequential.normal_mixture_log_e(z, n, 60.0)
    high = log_e >= math.log(20.0)
    stop = np.where(high.any(axis=1), high.argmax(axis=1), 59)
    e = np.exp(log_e[np.arange(len(z)), stop])
    assert abs(e.mean() - 1.0) <= 3 * e.std() / math.sqrt(len(e))


def test_the_mixture_rarely_rejects_whenever_one_looks() -> None:
    rng = np.random.default_rng(15)
    n = np.arange(1.0, 241.0)
    z = np.cumsum(rng.normal(size=(4000, 240)), axis=1) / np.sqrt(n)
    ever = (sequential.normal_mixture_log_e(z, n, 60.0) >= math.log(1 / 0.02)).any(axis=1).mean()
    assert ever <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / 4000)


@pytest.mark.filterwarnings("ignore:yule_walker currently:FutureWarning")
@pytest.mark.parametrize("order", [1, 3, 10])
def test_yule_walker_is_that_of_statsmodels(order: int) -> None:
    rng = np.random.default_rng(16)
    past = np.zeros((4, 2000))
    noise = rng.uniform(-1, 1, past.shape)
    for t in range(2, past.shape[1]):
        past[:, t] = 0.5 * past[:, t - 1] + 0.2 * past[:, t - 2] + noise[:, t]
    found = sequential.yule_walker(past, order, ridge=0.0)
    for i in range(4):
        low, high = np.quantile(past[i], [0.01, 0.99])
        clipped = np.clip(past[i], low, high)
        expected = reference_yule_walker(clipped, order=order, method="mle", demean=True)[0]
        np.testing.assert_allclose(found[i], expected, atol=1e-9)


def test_yule_walker_of_a_constant_or_missing_row_is_zero() -> None:
    past = np.stack([np.full(300, 2.0), np.random.default_rng(17).normal(size=300)])
    assert (sequential.yule_walker(past, 3)[0] == 0).all()


def test_bets_rank_the_magnitude_among_those_before() -> None:
    seen = np.array([[0.5, 2.0, np.nan, np.nan]])
    for e, below, sign in ((1.0, 1, 1), (-3.0, 2, -1), (0.0, 0, 0), (np.nan, 0, 0)):
        h = sign * (1 + below) / (2 + 2)
        found = sequential.bet_step(np.zeros((1, 8)), sequential.signed_rank(np.array([e]), seen, np.array([2.0])))
        np.testing.assert_allclose(found[0], np.log1p(sequential.BETS * h), rtol=1e-12)


def _wealth(e: Floats) -> Floats:
    runs, steps = e.shape
    wealth = np.zeros((runs, len(sequential.BETS)))
    magnitudes = np.full((runs, sequential.RANK_WINDOW), np.nan)
    out = np.zeros((runs, steps))
    for t in range(steps):
        seen = np.full(runs, float(min(t, sequential.RANK_WINDOW)))
        wealth = sequential.bet_step(wealth, sequential.signed_rank(e[:, t], magnitudes, seen))
        magnitudes[:, t % sequential.RANK_WINDOW] = np.abs(e[:, t])
        out[:, t] = sequential.log_mean_wealth(wealth)
    return out


@pytest.mark.parametrize("shape", ["normal", "cauchy", "growing"])
def test_bets_are_a_fair_game_under_symmetry(shape: str) -> None:
    rng = np.random.default_rng(18)
    runs, steps = 6000, 40
    e = {
        "normal": rng.normal(size=(runs, steps)),
        "cauchy": rng.standard_cauchy((runs, steps)),
        "growing": rng.normal(size=(runs, steps)) * np.linspace(1, 20, steps),
    }[shape]
    log_e = _wealth(e)
    for t in (0, 9):
        value = np.exp(log_e[:, t])
        assert abs(value.mean() - 1.0) <= 3 * value.std() / math.sqrt(runs)
    ever = (log_e >= math.log(1 / 0.02)).any(axis=1).mean()
    assert ever <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / runs)


def test_bets_win_against_a_shift() -> None:
    e = np.random.default_rng(19).normal(1.0, 1.0, (300, 60))
    assert ((_wealth(e) >= math.log(1 / 0.02)).any(axis=1)).mean() > 0.95


def test_log_mean_wealth_does_not_overflow() -> None:
    log_wealth = np.array([[800.0, 0.0], [-800.0, -800.0]])
    found = sequential.log_mean_wealth(log_wealth)
    np.testing.assert_allclose(found, special.logsumexp(log_wealth, axis=1) - math.log(2))
