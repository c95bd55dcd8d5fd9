"""Means under autocorrelation against direct sums, scipy and statsmodels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.tsa.stattools import acf
from tidegate_analysis.kernels import dependence

Floats = NDArray[np.float64]


def _cases() -> dict[str, Floats]:
    rng = np.random.default_rng(2)
    gaps = rng.normal(size=(12, 40))
    gaps[rng.random(gaps.shape) < 0.3] = np.nan
    gaps[0] = np.nan
    gaps[1, 1:] = np.nan
    gaps[2, 2:] = np.nan
    gaps[3, 5:] = np.nan
    walk = np.cumsum(rng.normal(size=(6, 60)), axis=1)
    return {
        "continuous": rng.normal(size=(8, 37)),
        "random walk": walk,
        "ties": rng.integers(0, 3, (8, 30)).astype(float),
        "mostly zeros": (rng.random((8, 50)) < 0.05).astype(float),
        "constant": np.full((2, 20), 3.7),
        "gaps": gaps,
        "heavy tails": rng.standard_t(1, size=(8, 33)),
        "five points": rng.normal(size=(5, 5)),
        "two points": rng.normal(size=(3, 2)),
        "one point": rng.normal(size=(3, 1)),
        "no points": np.zeros((3, 0)),
        "no series": np.zeros((0, 9)),
    }


CASES = _cases()


def _rows(x: Floats) -> list[Floats]:
    return [row[~np.isnan(row)] for row in x]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("trim", [0.0, 0.1, 0.2, 0.25])
def test_trimmed_mean_is_that_of_scipy(name: str, trim: float) -> None:
    found = dependence.trimmed_mean(CASES[name], trim)
    expected = [stats.trim_mean(row, trim) if len(row) else np.nan for row in _rows(CASES[name])]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


def test_trimmed_mean_takes_more_dimensions() -> None:
    x = np.random.default_rng(3).normal(size=(3, 4, 21))
    x[1, 2, 5:9] = np.nan
    found = dependence.trimmed_mean(x)
    for i in range(3):
        np.testing.assert_allclose(found[i], dependence.trimmed_mean(x[i]), rtol=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_influence_is_clipped_at_the_trimming_points(name: str) -> None:
    x = CASES[name]
    mean, u = dependence.trimmed_influence(x)
    for i, row in enumerate(_rows(x)):
        if not len(row):
            assert np.isnan(mean[i])
            continue
        k = int(0.1 * len(row))
        s = np.sort(row)
        low, high = s[k], s[len(row) - k - 1]
        if low == high:  # most are equal: not trimmed
            assert mean[i] == pytest.approx(row.mean(), abs=1e-12)
            np.testing.assert_array_equal(u[i][~np.isnan(x[i])], row)
            continue
        assert mean[i] == pytest.approx(stats.trim_mean(row, 0.1), abs=1e-12)
        factor = 0.8 if k else 1.0
        np.testing.assert_allclose(u[i][~np.isnan(x[i])], np.clip(row, low, high) / factor)


@pytest.mark.parametrize("name", CASES)
def test_the_cosine_variance_is_the_direct_sum(name: str) -> None:
    lrv, df = dependence.ewc_lrv(CASES[name])
    for i, row in enumerate(_rows(CASES[name])):
        n = len(row)
        if n < 4:
            assert np.isnan(lrv[i])
            assert np.isnan(df[i])
            continue
        nu = max(2, round(0.4 * n ** (2 / 3)))
        total = 0.0
        for j in range(1, nu + 1):
            c = sum(row[t] * math.cos(math.pi * j * (t + 0.5) / n) for t in range(n)) * math.sqrt(2 / n)
            total += c * c
        assert df[i] == nu
        assert lrv[i] == pytest.approx(total / nu, rel=1e-9, abs=1e-20)


def test_cosines_for_60_points() -> None:
    assert dependence.ewc_degrees(60) == 6


def test_the_cosine_variance_does_not_see_the_level() -> None:
    x = np.random.default_rng(4).normal(size=(3, 60))
    np.testing.assert_allclose(dependence.ewc_lrv(x)[0], dependence.ewc_lrv(x + 1e3)[0], rtol=1e-8)


def test_the_cosine_variance_of_white_noise_is_its_variance() -> None:
    x = np.random.default_rng(5).normal(size=(20_000, 60))
    lrv, _ = dependence.ewc_lrv(x)
    # Chi-square with 6 degrees over 6: standard deviation sqrt(2/6).
    assert lrv.mean() == pytest.approx(1.0, abs=3 * math.sqrt(2 / 6 / len(x)))


@pytest.mark.parametrize("name", CASES)
def test_lag_one_is_that_of_statsmodels(name: str) -> None:
    x = CASES[name]
    plain, corrected = dependence.lag1(x, corrected=False), dependence.lag1(x)
    for i, row in enumerate(_rows(x)):
        n = len(row)
        if n < 4:
            assert np.isnan(plain[i])
            assert np.isnan(corrected[i])
            continue
        r = 0.0 if np.ptp(row) == 0 else float(acf(row, nlags=1, fft=False)[1])
        assert plain[i] == pytest.approx(np.clip(r, 0.0, 0.97), abs=1e-9)
        assert corrected[i] == pytest.approx(np.clip(r + (1 + 3 * r) / n, 0.0, 0.97), abs=1e-9)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.6, 0.9, 0.97])
@pytest.mark.parametrize("n", [2, 5, 60, 1000])
def test_inflation_is_bartletts_sum(rho: float, n: int) -> None:
    direct = 1.0 + 2.0 * sum((1.0 - k / n) * rho**k for k in range(1, n))
    assert float(dependence.ar1_inflation(np.array(rho), np.array(n))) == pytest.approx(direct, rel=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_standard_errors_are_the_textbook_ones(name: str) -> None:
    x = CASES[name]
    se_ewc, df_ewc, se_ar1, df_ar1 = dependence.standard_errors(x)
    for i, row in enumerate(_rows(x)):
        n = len(row)
        if n < 4:
            assert np.isnan([se_ewc[i], df_ewc[i], se_ar1[i], df_ar1[i]]).all()
            continue
        if np.ptp(row) == 0:
            assert se_ewc[i] == se_ar1[i] == 0.0
            continue
        lrv = float(dependence.ewc_lrv(row[None])[0][0])
        rho = float(dependence.lag1(row[None])[0])
        vif = max(1.0, 1.0 + 2.0 * sum((1.0 - k / n) * rho**k for k in range(1, n)))
        assert se_ewc[i] == pytest.approx(math.sqrt(lrv / n), rel=1e-9)
        assert se_ar1[i] == pytest.approx(stats.sem(row) * math.sqrt(vif), rel=1e-9)
        assert df_ar1[i] == pytest.approx(max(n / vif - 1.0, 1.0), rel=1e-9)


@pytest.mark.parametrize("level", [1e-9, 3.3, 0.1 + 0.2, 1e12])
def test_rounding_of_a_constant_is_no_spread(level: float) -> None:
    for n in (4, 7, 60, 333):
        se_ewc, _, se_ar1, _ = dependence.standard_errors(np.full((2, n), level))
        assert (se_ewc == 0).all()
        assert (se_ar1 == 0).all()


def test_gaps_are_closed_up_in_order() -> None:
    x = np.array([[np.nan, 1.0, np.nan, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0, 5.0], [np.nan] * 5])
    closed, n = dependence.close_up(x)
    assert n.tolist() == [3, 5, 0]
    np.testing.assert_array_equal(closed[0], [1.0, 2.0, 3.0, np.nan, np.nan])
    np.testing.assert_array_equal(closed[1:], x[1:])
