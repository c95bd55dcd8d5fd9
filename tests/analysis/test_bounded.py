"""Values in [0, 1]: betting sequences, the logit route, time above a level."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from numpy.typing import NDArray
from tidegate_analysis import simulate
from tidegate_analysis.kernels import bounded, counts

Array = NDArray[np.float64]
NAN = math.nan


def slow_wealth(values: list[float], mean: float, alpha: float) -> tuple[float, float]:
    """Waudby-Smith and Ramdas' bets on one series, one value after another."""
    more = less = total = square = 0.0
    n = 0
    for x in values:
        if math.isnan(x):
            continue
        variance = (0.25 + square) / (n + 1)
        i = n + 1
        stake = math.sqrt(2 * math.log(2 / alpha) / (variance * i * math.log(1 + i)))
        more += math.log1p(min(stake, 0.5 / mean) * (x - mean))
        less += math.log1p(-min(stake, 0.5 / (1 - mean)) * (x - mean))
        n += 1
        total += x
        square += (x - (0.5 + total) / (n + 1)) ** 2
    return more, less


def test_the_wealth_equals_a_loop() -> None:
    rng = np.random.default_rng(0)
    values = rng.beta(2, 5, (4, 30))
    values[1, 3:6] = NAN
    values[2] = 1.0
    state = bounded.betting_update(bounded.betting_start(4), values, 0.05)
    for i in range(4):
        for k in (0, 20, 60, 100):
            want = slow_wealth(values[i].tolist(), float(bounded.MEANS[k]), 0.05)
            assert state.wealth[i, k] == pytest.approx(want, abs=1e-9)


def test_the_split_into_calls_does_not_matter() -> None:
    values = np.random.default_rng(1).beta(2, 5, (6, 31))
    whole = bounded.betting_update(bounded.betting_start(6), values)
    state, at = bounded.betting_start(6), 0
    for width in (1, 7, 0, 3, 20):
        state = pickle.loads(pickle.dumps(bounded.betting_update(state, values[:, at : at + width])))
        at += width
    for one, two in zip(whole, state, strict=True):
        assert np.array_equal(one, two)


@pytest.mark.parametrize(("a", "b"), [(6.0, 3.0), (0.5, 0.5), (1.0, 30.0)])
def test_the_sequence_covers_at_all_looks(a: float, b: float) -> None:
    size, points = 150, 60
    values = np.random.default_rng(2).beta(a, b, (size, points))
    truth = a / (a + b)
    state = bounded.betting_start(size)
    missed = np.zeros(size, dtype=bool)
    for t in range(points):
        state = bounded.betting_update(state, values[:, t : t + 1], 0.05)
        low, high = bounded.betting_sequence(state, 0.05)
        missed |= (low > truth) | (high < truth)
    assert missed.mean() <= 0.05
    # And it says something: a third of the way from knowing nothing, at least.
    assert np.median(high - low) < 0.35


def test_bets_against_a_mean_lie_between_those_on_the_grid() -> None:
    values = np.random.default_rng(3).beta(8, 2, (5, 80))
    state = bounded.betting_update(bounded.betting_start(5), values)
    above, below = bounded.betting_log_e(state, 0.5)
    k = int(np.flatnonzero(np.isclose(bounded.MEANS, 0.5))[0])
    assert np.array_equal(above, state.wealth[:, k, 0])
    assert np.array_equal(below, state.wealth[:, k, 1])
    between, _ = bounded.betting_log_e(state, 0.505)
    assert np.array_equal(between, state.wealth[:, k + 1, 0])
    assert (above > math.log(50)).all()
    # Beyond the grid nothing is claimed.
    assert (bounded.betting_log_e(state, 1.0)[0] == 0).all()
    assert (bounded.betting_log_e(state, 0.0)[1] == 0).all()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_constant_ends(level: float) -> None:
    state = bounded.betting_update(bounded.betting_start(1), np.full((1, 200), level))
    low, high = bounded.betting_sequence(state)
    assert low[0] <= level <= high[0]
    assert high[0] - low[0] < 0.15


def test_no_values_no_knowledge() -> None:
    state = bounded.betting_start(2)
    for values in (np.zeros((2, 0)), np.full((2, 5), NAN)):
        low, high = bounded.betting_sequence(bounded.betting_update(state, values))
        assert low.tolist() == [0.0, 0.0]
        assert high.tolist() == [1.0, 1.0]


def test_values_outside_are_brought_to_the_end() -> None:
    values, outside = bounded.check_bounded([[-0.1, 0.5, 1.2, math.inf, NAN]])
    assert np.array_equal(values, [[0.0, 0.5, 1.0, 1.0, NAN]], equal_nan=True)
    assert outside.tolist() == [3]
    with pytest.raises(ValueError, match=r"^values: "):
        bounded.check_bounded([0.5])
    with pytest.raises(ValueError, match=r"^values: "):
        bounded.time_above([0.5], 0.5)


def test_block_means() -> None:
    got = bounded.block_means([[1.0, 3.0, NAN, 4.0, NAN, NAN, 9.0]], 2)
    assert np.array_equal(got, [[2.0, 4.0, NAN]], equal_nan=True)
    assert bounded.block_means(np.zeros((2, 3)), 5).shape == (2, 0)
    with pytest.raises(ValueError, match=r"^block: "):
        bounded.block_means([[1.0]], 0)


def test_autocorrelated_values_keep_their_cover_in_blocks() -> None:
    values = np.clip(0.7 + 0.06 * simulate.ar1(np.random.default_rng(4), 150, 300, 0.9), 0, 1)
    means = bounded.block_means(values, 10)
    state = bounded.betting_start(150)
    missed = np.zeros(150, dtype=bool)
    for t in range(means.shape[1]):
        state = bounded.betting_update(state, means[:, t : t + 1], 0.05)
        low, high = bounded.betting_sequence(state, 0.05)
        missed |= (low > 0.7) | (high < 0.7)
    assert missed.mean() <= 0.05


def test_logits() -> None:
    x = np.array([0.0, 0.001, 0.3, 0.5, 0.9, 1.0, NAN])
    got = bounded.to_logit(x)
    assert got[3] == 0.0
    assert got[2] == pytest.approx(math.log(0.3 / 0.7))
    assert np.isfinite(got[:-1]).all()
    assert math.isnan(got[-1])
    # The same ten points count for more near the end, and there and back is the same.
    assert bounded.logit_margin(0.7, 0.1) == pytest.approx(math.log(0.8 / 0.2) - math.log(0.7 / 0.3))
    assert bounded.logit_margin(0.89, 0.1) > 4 * bounded.logit_margin(0.7, 0.1)
    assert bounded.logit_margin(0.5, 0.1, up=False) == pytest.approx(bounded.logit_margin(0.5, 0.1))
    assert bounded.logit_margin(1.0, 0.1) > 0
    for level in (0.2, 0.7, 0.89):
        assert bounded.from_logit(bounded.logit_margin(level, 0.1), level) == pytest.approx(0.1)


def test_time_above_goes_into_the_counts() -> None:
    rng = np.random.default_rng(5)
    calm, hot = rng.uniform(0.5, 0.85, (3, 60)), rng.uniform(0.5, 0.85, (3, 60))
    hot[1:, ::3] = 0.95
    hot[2, 5] = NAN
    b, nb = bounded.time_above(calm, 0.9)
    c, nc = bounded.time_above(hot, [0.9, 0.9, 0.9])
    assert c[1].sum() == 20
    assert math.isnan(c[2, 5])
    assert nc[2].sum() == 59
    got = counts.fixed_horizon_counts(b, c, baseline_exposure=nb, canary_exposure=nc, margin=0.05, absolute=True)
    assert (got.p_value <= 0.02).tolist() == [False, True, True]
    assert got.missing.tolist() == [0, 0, 1]
