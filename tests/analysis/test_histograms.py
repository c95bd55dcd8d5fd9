"""Histograms: merging, resets, superiority, quantiles, and what clustering does to their judgement."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special, stats
from tidegate_analysis import simulate
from tidegate_analysis.kernels import dependence
from tidegate_analysis.kernels import histograms as hist

Array = NDArray[np.float64]
NAN = math.nan
BOUNDS = simulate.PROMETHEUS_BUCKETS


# --- superiority ---


def test_superiority_is_mann_whitney_with_ties() -> None:
    rng = np.random.default_rng(0)
    b, c = rng.poisson(2.0, (30, 9)), rng.poisson(1.0, (30, 9))
    got = hist.superiority(b, c)
    for i in range(30):
        x, y = np.repeat(np.arange(9), b[i]), np.repeat(np.arange(9), c[i])
        if len(x) and len(y):
            assert got[i] == pytest.approx(stats.mannwhitneyu(y, x).statistic / (len(x) * len(y)), rel=1e-12)
        else:
            assert math.isnan(got[i])
    assert np.allclose(hist.superiority(c, b), 1 - got, equal_nan=True)


@pytest.mark.parametrize(("b", "c", "want"), [([5, 0], [0, 5], 1.0), ([0, 5], [5, 0], 0.0), ([3, 3], [3, 3], 0.5)])
def test_superiority_at_its_ends(b: list, c: list, want: float) -> None:
    assert hist.superiority(b, c) == want


# --- the series ---


def slow_series(b: Array, c: Array, group: int) -> list[float]:
    """One series, scrapes put together from the end."""
    points = len(b)
    out = [NAN] * points
    for stop in range(points, group - 1, -group):
        x, y = np.zeros(b.shape[1]), np.zeros(b.shape[1])
        for t in range(stop - group, stop):
            if not (np.isnan(b[t]).any() or np.isnan(c[t]).any()):
                x, y = x + b[t], y + c[t]
        if x.sum() >= 10 and y.sum() >= 10:
            out[stop - 1] = float(hist.superiority(x, y)) - 0.5
    return out


def test_the_series_equals_a_loop() -> None:
    rng = np.random.default_rng(1)
    size, points = 12, 70
    busy = np.geomspace(0.4, 40, size)[:, None, None]
    b, c = rng.poisson(busy, (size, points, 5)).astype(float), rng.poisson(busy, (size, points, 5)).astype(float)
    b[3, 4, 2] = NAN
    c[5, 60] = NAN
    got = hist.difference_series(b, c)
    assert set(got.group.tolist()) == {1, 2, 4, 8}
    for i in range(size):
        want = slow_series(b[i], c[i], int(got.group[i]))
        assert np.allclose(got.difference[i], want, equal_nan=True)
        requests = np.nansum(np.where(np.isnan(b[i]).any(-1)[:, None] | np.isnan(c[i]).any(-1)[:, None], NAN, b[i]))
        dropped = points % int(got.group[i])
        if not dropped:
            assert np.nansum(got.baseline_requests[i]) == requests
    mirrored = hist.difference_series(c, b)
    assert np.allclose(mirrored.difference, -got.difference, equal_nan=True)


def test_thin_scrapes_are_left_out_and_told() -> None:
    b = np.full((1, 8, 2), 50.0)
    c = b.copy()
    c[0, 3] = 1.0
    got = hist.difference_series(b, c)
    assert math.isnan(got.difference[0, 3])
    assert got.thin.tolist() == [1]
    silent = hist.difference_series(b, c * 0)
    assert np.isnan(silent.difference).all()
    assert silent.thin.tolist() == [8]


@pytest.mark.parametrize("points", [0, 1, 2, 5])
def test_short_windows(points: int) -> None:
    got = hist.difference_series(np.ones((2, points, 3)), np.ones((2, points, 3)))
    assert got.difference.shape == (2, points)
    assert np.isnan(got.difference).all()


@pytest.mark.parametrize(
    ("name", "b", "c"),
    [
        ("baseline", np.ones((2, 3)), np.ones((2, 3))),
        ("canary", np.ones((1, 2, 3)), np.ones((1, 2, 4))),
        ("canary", np.ones((1, 2, 3)), -np.ones((1, 2, 3))),
        ("baseline", np.full((1, 2, 3), np.inf), np.ones((1, 2, 3))),
    ],
)
def test_wrong_counts_are_named(name: str, b: Array, c: Array) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: "):
        hist.difference_series(b, c)


# --- what scrapers send ---


def test_cumulative_buckets() -> None:
    plain, mended = hist.from_cumulative([[1, 3, 3, 9], [2, 1, 5, 5]])
    assert plain.tolist() == [[1, 2, 0, 6], [2, 0, 4, 0]]
    assert mended.tolist() == [0, 1]


def test_a_reset_of_one_bucket_is_a_reset_of_all() -> None:
    totals = [[[5, 9], [6, 12], [1, 14], [2, 15], [NAN, 16], [4, 17], [5, 18]]]
    got, resets = hist.bucket_increases(totals)
    want = [[NAN, NAN], [1, 3], [1, 14], [1, 1], [NAN, NAN], [NAN, NAN], [1, 1]]
    assert np.array_equal(got[0], np.array(want, dtype=float), equal_nan=True)
    assert resets.tolist() == [1]


def test_merging_to_common_bounds_adds_bins_up() -> None:
    rng = np.random.default_rng(3)
    fine, coarse = np.array([1.0, 2.0, 3.0, 5.0, 8.0]), np.array([0.5, 2.0, 5.0 * (1 + 1e-12), 9.0])
    x, y = rng.uniform(0, 10, (4, 500)), rng.uniform(0, 10, (4, 500))

    def binned(values: Array, bounds: Array) -> Array:
        at = np.searchsorted(bounds, values)
        return np.stack([np.bincount(row, minlength=len(bounds) + 1) for row in at]).astype(float)

    bounds, a, b = hist.merge_bounds(fine, binned(x, fine), coarse, binned(y, coarse))
    assert bounds.tolist() == [2.0, 5.0]
    assert np.array_equal(a, binned(x, np.array([2.0, 5.0])))
    assert np.array_equal(b, binned(y, np.array([2.0, 5.0])))
    same, a, _ = hist.merge_bounds(fine, binned(x, fine), fine, binned(y, fine))
    assert np.array_equal(same, fine)
    assert np.array_equal(a, binned(x, fine))
    with pytest.raises(ValueError, match="no bound in common"):
        hist.merge_bounds([1.0], [1, 1], [2.0], [1, 1])


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
@pytest.mark.parametrize("first", [-7, -1, 0, 4])
def test_coarser_native_buckets_hold_the_same_values(steps: int, first: int) -> None:
    rng = np.random.default_rng(steps)
    bins = 11
    counts = rng.integers(0, 9, (3, bins)).astype(float)
    at, got = hist.coarsen_native(3, first, counts, 3 - steps)
    bounds = hist.native_bounds(3 - steps, at, got.shape[-1])
    fine = hist.native_bounds(3, first, bins)
    for j, bound in enumerate(bounds):
        below = counts[:, fine <= bound * (1 + 1e-12)].sum(axis=-1)
        assert np.array_equal(got[:, : j + 1].sum(axis=-1), below)
    assert np.array_equal(got.sum(axis=-1), counts.sum(axis=-1))
    with pytest.raises(ValueError, match="finer"):
        hist.coarsen_native(2, 0, counts, 3)


def test_native_histograms_of_two_schemas_meet_at_the_coarser() -> None:
    rng = np.random.default_rng(5)
    values = rng.lognormal(0, 1, (2, 4000))

    def native(row: Array, schema: int, first: int, bins: int) -> Array:
        index = np.ceil(np.log2(row) * 2**schema).astype(int) - first
        return np.bincount(index, minlength=bins).astype(float)

    a, b = native(values[0], 3, -40, 90), native(values[1], 1, -12, 24)
    bounds, x, y = hist.merge_native(3, -40, a, 1, -12, b)
    assert x.shape == y.shape == (bounds.size + 1,)
    assert (x.sum(), y.sum()) == (4000, 4000)
    exact = stats.mannwhitneyu(values[1], values[0]).statistic / 4000**2
    assert hist.superiority(x, y) == pytest.approx(exact, abs=0.01)


def test_sketch_bins_keep_their_accuracy() -> None:
    bounds = hist.sketch_bounds(0.01, -500, 1200)
    assert np.allclose(bounds[1:] / bounds[:-1], 1.01 / 0.99)
    values = np.random.default_rng(6).lognormal(0, 1, 20_000)
    counts = np.bincount(np.searchsorted(bounds, values), minlength=bounds.size + 1)
    for p in (0.5, 0.95, 0.99):
        assert hist.quantile(counts, bounds, p).value == pytest.approx(np.quantile(values, p), rel=0.011)


@pytest.mark.parametrize("bad", [[], [2.0, 1.0], [1.0, 1.0], [1.0, np.inf], [[1.0]]])
def test_wrong_bounds_are_named(bad: list) -> None:
    with pytest.raises(ValueError, match=r"^upper_bounds: "):
        hist.check_bounds(bad)


def test_wrong_sketches_and_schemas_are_named() -> None:
    with pytest.raises(ValueError, match="relative_accuracy"):
        hist.sketch_bounds(1.0, 0, 3)
    with pytest.raises(ValueError, match="schema"):
        hist.native_bounds(9, 0, 3)


# --- quantiles ---


def test_quantiles_interpolate_along_the_logarithm() -> None:
    got = hist.quantile([0, 10, 0], [1.0, 4.0], 0.5)
    assert (float(got.value), float(got.lower), float(got.upper)) == pytest.approx((2.0, 1.0, 4.0))
    # Nothing is known above the last bound.
    top = hist.quantile([0, 0, 3], [1.0, 4.0], 0.5)
    assert (float(top.value), float(top.upper)) == (4.0, math.inf)
    assert math.isnan(hist.quantile([0, 0, 0], [1.0, 4.0], 0.5).value)
    # Where a bin reaches below 0 it is even.
    assert hist.quantile([0, 4, 0], [-2.0, 2.0], 0.25).value == pytest.approx(-1.0)
    assert hist.quantile([4, 0], [3.0], 0.5).value == pytest.approx(1.5)
    with pytest.raises(ValueError, match=r"^p: "):
        hist.quantile([1, 1], [1.0], 1.0)
    with pytest.raises(ValueError, match=r"^counts: "):
        hist.quantile([1, 1, 1], [1.0], 0.5)


def test_quantiles_lie_in_their_bin_and_near_the_truth() -> None:
    values = np.random.default_rng(7).lognormal(-2, 0.6, (5, 20_000))
    counts = np.stack([np.bincount(np.searchsorted(BOUNDS, row), minlength=12) for row in values])
    for p in (0.1, 0.5, 0.9, 0.99):
        got = hist.quantile(counts, BOUNDS, p)
        truth = np.quantile(values, p, axis=1)
        assert ((got.lower <= truth) & (truth <= got.upper)).all()
        assert (np.abs(np.log(got.value / truth)) < np.log(got.upper / got.lower)).all()


# --- superiority in words ---


def test_a_slow_down_is_told_as_one() -> None:
    """A histogram whose values were multiplied is found to be slower by that factor."""
    bounds = hist.native_bounds(3, -60, 90)
    rng = np.random.default_rng(8)
    values = rng.lognormal(-2, 0.7, (3, 60_000))

    def binned(x: Array) -> Array:
        return np.stack([np.bincount(np.searchsorted(bounds, row), minlength=91) for row in x]).astype(float)

    mapping = hist.scale_map(binned(values), bounds)
    for factor in (0.6, 0.9, 1.0, 1.05, 1.2, 2.0, 4.0):
        theta = hist.superiority(binned(values), binned(values * factor))
        assert hist.change_of_theta(mapping, theta) == pytest.approx(factor - 1, rel=0.04, abs=0.006)
        # For lognormal values theta is Phi(log factor / (sigma sqrt 2)).
        closed = special.ndtr(np.log(factor) / (0.7 * np.sqrt(2)))
        assert hist.theta_of_change(mapping, factor - 1) == pytest.approx(closed, abs=0.01)


def test_the_map_is_monotone_and_centred() -> None:
    rng = np.random.default_rng(9)
    mapping = hist.scale_map(rng.poisson(3.0, (40, 12)), BOUNDS)
    assert (np.diff(mapping.theta, axis=1) >= 0).all()
    middle = int(np.flatnonzero(mapping.log_factor == 0)[0])
    assert np.allclose(mapping.theta[:, middle], 0.5)
    for change in (-0.3, 0.0, 0.1, 0.7):
        there = hist.theta_of_change(mapping, change)
        assert hist.change_of_theta(mapping, there) == pytest.approx(change, abs=1e-6)
    assert np.isnan(hist.change_of_theta(mapping, np.full(40, NAN))).all()
    empty = hist.scale_map(np.zeros((1, 12)), BOUNDS)
    assert np.isnan(empty.theta).all()
    with pytest.raises(ValueError, match="above 0"):
        hist.scale_map(np.ones((1, 3)), [-1.0, 1.0])


# --- error rates ---


def rejects(series: Array) -> Array:
    """Two-sided p of the mean, with the wider of two standard errors that respect autocorrelation."""
    one, df_one, two, df_two = dependence.standard_errors(series)
    mean = np.abs(np.nanmean(series, axis=1))
    return np.maximum(2 * special.stdtr(df_one, -mean / one), 2 * special.stdtr(df_two, -mean / two)) <= 0.02


@pytest.mark.parametrize(
    ("requests", "shared", "own", "bound"),
    [
        (500, 0.0, 0.0, 0.02),  # independent requests
        (20, 0.0, 0.0, 0.02),
        (4, 0.0, 0.0, 0.02),  # put together by fours
        (500, 0.3, 0.0, 0.02),  # scrapes that shift for both arms
        (500, 0.3, 0.05, 0.04),  # and for each arm alone, AR(.6)
        (20, 0.0, 0.2, 0.04),
        (500, 0.0, 0.2, 0.04),
    ],
)
def test_no_effect_is_rarely_found(requests: int, shared: float, own: float, bound: float) -> None:
    size = 250
    data = simulate.histograms(size, 60, rng=10, requests=requests, shared=shared, own=own)
    wrong = rejects(hist.difference_series(data.baseline, data.canary).difference).mean()
    assert wrong <= bound + 3 * math.sqrt(bound * (1 - bound) / size)
    if own == 0.2 and requests == 500:
        # The same data pooled and tested as independent requests: what this module is there to avoid.
        b, c = hist.pooled(data.baseline), hist.pooled(data.canary)
        m, n = b.sum(axis=1), c.sum(axis=1)
        ties = ((b + c) ** 3 - (b + c)).sum(axis=1)
        sd = np.sqrt((m + n + 1 - ties / ((m + n) * (m + n - 1))) / (12 * m * n))
        naive = (np.abs(hist.superiority(b, c) - 0.5) / sd > 2.326).mean()
        assert naive > 0.5


def test_slow_downs_are_found() -> None:
    for requests, factor, least in ((500, 1.05, 0.9), (20, 1.2, 0.9), (4, 1.5, 0.5)):
        data = simulate.histograms(100, 60, rng=11, requests=requests, shared=0.2, own=0.0, factor=factor)
        assert rejects(hist.difference_series(data.baseline, data.canary).difference).mean() > least


def test_every_combination_of_sizes_is_taken() -> None:
    for size, points, bins in itertools.product((0, 1, 3), (1, 9), (2, 5)):
        got = hist.difference_series(np.full((size, points, bins), 20.0), np.full((size, points, bins), 20.0))
        assert got.difference.shape == (size, points)
        assert (got.difference == 0).all()
