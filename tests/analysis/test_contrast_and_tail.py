"""Moderated variances, silence and the tail against independent answers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from scipy import optimize, special, stats
from tidegate_analysis import contrast, prepare, simulate, tail
from tidegate_analysis.kernels import dependence
from tidegate_analysis.spec import Direction

Floats = NDArray[np.float64]


def _smyth(variance: Floats, df: Floats) -> tuple[float, float]:
    """Prior degrees of freedom and variance by a root finder (Smyth 2004, sec. 6.2)."""
    e = np.log(variance) - special.digamma(df / 2) + np.log(df / 2)
    excess = e.var(ddof=1) - special.polygamma(1, df / 2).mean()
    if excess <= 0:
        return math.inf, math.exp(e.mean())
    half = optimize.brentq(lambda h: special.polygamma(1, h) - excess, 1e-3, 1e9)
    return 2 * half, math.exp(e.mean() + special.digamma(half) - math.log(half))


@pytest.mark.parametrize("prior_df", [2.0, 6.0, 20.0])
def test_variances_are_moderated_as_smyth_says(prior_df: float) -> None:
    rng = np.random.default_rng(1)
    true = prior_df * 2.0 / rng.chisquare(prior_df, 400)
    df = np.full(400, 3.0)
    variance = true * rng.chisquare(3, 400) / 3
    d0, s0 = _smyth(variance, df)
    d0 = min(d0, 30.0)
    found, found_df = contrast.moderated(variance, df)
    np.testing.assert_allclose(found, (d0 * s0 + 3 * variance) / (d0 + 3), rtol=1e-6)
    np.testing.assert_allclose(found_df, d0 + 3, rtol=1e-6)


def test_equal_variances_borrow_as_much_as_is_allowed() -> None:
    variance = 1.0 + 1e-6 * np.arange(20)
    found, df = contrast.moderated(variance, np.full(20, 2.0))
    assert (df == 32.0).all()
    np.testing.assert_allclose(found, (30.0 * _smyth(variance, np.full(20, 2.0))[1] + 2.0 * variance) / 32.0, rtol=1e-6)


def test_a_series_without_instances_of_its_own_takes_the_prior() -> None:
    rng = np.random.default_rng(2)
    variance = rng.chisquare(3, 30) / 3
    variance[4] = np.nan
    found, df = contrast.moderated(variance, np.full(30, 3.0))
    assert np.isfinite(found[4])
    assert df[4] < df[0]


def test_nine_series_are_too_few_to_borrow_from() -> None:
    variance = np.random.default_rng(3).chisquare(3, 9)
    found, df = contrast.moderated(variance, np.full(9, 3.0))
    np.testing.assert_array_equal(found, variance)
    assert (df == 3.0).all()


def test_effective_points_of_independent_data_are_their_number() -> None:
    u = np.random.default_rng(4).normal(size=(3, 50))
    plain = u.std(axis=1, ddof=1) / math.sqrt(50)
    np.testing.assert_allclose(contrast.effective_points(u, plain, plain), 50.0)
    np.testing.assert_allclose(contrast.effective_points(u, 2 * plain, plain), 12.5)


@pytest.mark.parametrize(("lost", "gained"), [(1, 0), (3, 0), (6, 1), (8, 2), (5, 5), (0, 4)])
def test_silence_is_the_exact_test_of_mcnemar(lost: int, gained: int) -> None:
    # Scattered so that lost scrapes do not come in runs: the effective number is the number.
    n = 60
    x, y = np.ones((1, n)), np.ones((1, n))
    places = np.arange(2, n, 4)
    y[0, places[:lost]] = np.nan
    x[0, places[lost : lost + gained]] = np.nan
    found = tail.presence(x, y)
    assert (found.only_baseline[0], found.only_canary[0]) == (lost, gained)
    signed = np.where(np.isnan(y), 1.0, 0.0) - np.where(np.isnan(x), 1.0, 0.0)
    vif = float(dependence.ar1_vif(signed)[0][0])
    worth = (lost + gained) / vif
    share = lost / (lost + gained)
    # P(at least k of m) for a fair coin is the incomplete beta function, which also takes m that are not whole.
    expected = special.betainc(share * worth, worth * (1 - share) + 1, 0.5) if lost else 1.0
    assert found.p_value[0] == pytest.approx(expected)
    if vif == 1.0 and lost:
        exact = stats.binomtest(lost, lost + gained, alternative="greater").pvalue
        assert found.p_value[0] == pytest.approx(exact, rel=1e-9)


@pytest.mark.parametrize(
    ("missing", "silent"),
    [
        ([], False),
        ([10], False),
        ([37, 38, 39], True),
        ([38, 39], False),
        (list(range(40)), True),
        (list(range(0, 40, 2)), True),
    ],
)
def test_what_counts_as_silent(missing: list[int], silent: bool) -> None:
    x, y = np.ones((1, 40)), np.ones((1, 40))
    y[0, missing] = np.nan
    assert tail.presence(x, y).silent[0] == silent
    assert not tail.presence(y, x).silent[0]
    if missing:
        assert not tail.presence(np.where(np.isnan(y), np.nan, x), y).silent[0], "both arms miss them"


def test_without_windows_the_tail_is_asked_by_shares_beyond_the_pooled_quantile() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(2, 6, 80))
    y[:3, ::5] += 4.0
    found = tail.tail_contrast(x, y, np.ones(6))
    for i in range(6):
        cut = np.sort(np.concatenate([x[i], y[i]]))[math.ceil(0.9 * 160) - 1]
        over = (y[i] > cut).astype(float) - (x[i] > cut)
        se1, df1, se2, df2 = (float(v[0]) for v in dependence.standard_errors(over[None]))
        expected = max(stats.t.sf(over.mean() / se1, df1), stats.t.sf(over.mean() / se2, df2))
        assert found.p_value[i] == pytest.approx(expected, rel=1e-9)
    assert (found.p_value[:3] < 0.01).all()
    mirrored = tail.tail_contrast(-x, -y, -np.ones(6))
    np.testing.assert_allclose(mirrored.p_value, found.p_value)
    np.testing.assert_allclose(mirrored.change, found.change)


def test_a_short_stretch_or_means_of_instances_have_no_tail_of_their_own() -> None:
    x, y = np.random.default_rng(6).normal(size=(2, 3, 39))
    assert np.isnan(tail.tail_contrast(x, y, np.ones(3)).p_value).all()
    long_x, long_y = np.random.default_rng(7).normal(size=(2, 3, 90))
    assert np.isnan(tail.tail_contrast(long_x, long_y, np.ones(3), by_scrape=False).p_value).all()


@pytest.mark.parametrize("log", [True, False])
def test_bringing_to_scale_mends_and_counts(log: bool) -> None:
    x = np.array([[1.0, 4.0, 0.0, np.nan, np.inf, -np.inf, -2.0, 1e80]])
    ready = prepare.to_scale((x,), np.array([log]))
    g = ready.parts[0][0]
    if log:
        np.testing.assert_allclose(g[:3], np.log([1.0, 4.0, 0.5]))
        assert np.isnan(g[3])
        np.testing.assert_allclose(g[[4, 7]], math.log(4.0), err_msg="as large as the largest that is believed")
        assert np.isnan(g[[5, 6]]).all()
        assert (ready.bad[0][0], ready.zeros[0][0]) == (4, 1)
    else:
        np.testing.assert_allclose(g, [1.0, 4.0, 0.0, np.nan, 4.0, -2.0, -2.0, 4.0])
        assert (ready.bad[0][0], ready.zeros[0][0]) == (3, 0)


def test_levels_are_medians_of_what_is_there() -> None:
    x = np.array([[3.0, np.nan, 1.0, np.inf], [np.nan] * 4, [2.0, 4.0, np.nan, np.nan], [1.7e308] * 4])
    np.testing.assert_array_equal(prepare.level(x), [2.0, np.nan, 3.0, 1.7e308])


@pytest.mark.parametrize("windows", [28, 0])
def test_of_either_both_tails_are_asked_at_the_price_of_one(windows: int) -> None:
    n = 1500
    drawn = simulate.windows("ar.6", n, 28, 60, rng=4242, positive=True)
    history = drawn.history[:, :windows] if windows else None
    spec = ta.MetricSpec("m", "gauge", "either", "log", 1e-6)

    def judged(canary: Floats, direction: Direction = "either") -> ta.Result:
        return ta.compare(drawn.baseline, canary, spec=spec.with_(direction=direction), history=history)

    healthy = judged(drawn.canary)
    for found, level in ((healthy.verdict == ta.Verdict.FAIL, 0.02), (healthy.tail_p_value <= 0.05, 0.05)):
        assert found.mean() <= level + 3 * math.sqrt(level * (1 - level) / n)
    one_sided = [judged(drawn.canary, way).tail_p_value for way in ("up_is_worse", "down_is_worse")]
    expected = np.minimum(2 * np.fmin(*one_sided), 1)
    np.testing.assert_array_equal(healthy.tail_p_value, expected)
    if windows:
        far = np.random.default_rng(1).random(drawn.canary.shape) < 0.05
        for factor, way in ((0.5, -1), (2.0, 1)):
            worse = judged(np.where(far, drawn.canary * factor, drawn.canary))
            assert (worse.verdict == ta.Verdict.FAIL).mean() > 0.7
            assert (np.sign(worse.tail_effect) == way).mean() > 0.9
