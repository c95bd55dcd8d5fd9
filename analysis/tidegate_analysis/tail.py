"""The tail and the silence: what a test of the centre cannot see."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tidegate_analysis.decide import tail_p
from tidegate_analysis.kernels import dependence, placebo

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TAIL_SHARE = 0.05
EXCEED_SHARE = 0.1
# Shares of a metric's error rate that its centre and its tail may spend (weighted Bonferroni).
CENTRE_WEIGHT, TAIL_WEIGHT = 0.8, 0.2
MIN_WINDOWS = 14


def tail_mean(x: Floats) -> Floats:
    """Mean of the largest 5 % of each row, at least two values; NaN below 5 points. ``x``: (..., points), NaN
    = missing.
    """
    s = np.sort(x, axis=-1)
    width = x.shape[-1]
    n = (~np.isnan(s)).sum(axis=-1)[..., None]
    m = np.maximum(np.ceil(TAIL_SHARE * n).astype(np.int64), 2)
    j = np.arange(width)
    top = (j >= n - m) & (j < n) & (n >= 5)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(top, s, 0.0).sum(axis=-1) / np.where(top.any(axis=-1), top.sum(axis=-1), np.nan))


class Tail(NamedTuple):
    """Tail tests of many series: one-sided p-value (NaN = not tested) and the change of the tail on its
    scale.
    """

    p_value: Floats
    change: Floats


def tail_contrast(x: Floats, y: Floats, sign: Floats, past_x: Floats, past_y: Floats) -> Tail:
    """Ask whether the worse tail of the canary lies further out than the baseline's.

    With at least 14 past windows: the mean of the worst 5 % of points, canary minus baseline, over the spread
    of the same number at the windows. Without: the share of points beyond the pooled 90 % quantile, paired by
    scrape, with the standard errors of :func:`~tidegate_analysis.kernels.dependence.standard_errors`; bounded
    values, so heavy tails do it no harm, but a handful of far points is no evidence to it.

    Parameters
    ----------
    x, y:
        Shape (series, points), on the scale of the change.
    sign:
        Shape (series,): 1 where up is worse, -1 where down is, 0 both (the upper tail is then asked).
    past_x, past_y:
        Shape (series, windows, points).
    """
    flip = np.where(sign < 0, -1.0, 1.0)[:, None]
    a, b = x * flip, y * flip
    change = tail_mean(b) - tail_mean(a)
    p = np.full(len(x), np.nan)
    if past_x.shape[1]:
        past = tail_mean(past_y * flip[:, :, None]) - tail_mean(past_x * flip[:, :, None])
        centre, scale, k = placebo.centre_and_scale(past)
        use = (k >= MIN_WINDOWS) & (scale > 0) & np.isfinite(change)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = (change - centre) / (scale * np.sqrt(1.0 + 1.0 / k))
        p = np.where(use, tail_p(np.where(use, t, 0.0), np.where(use, k - 1.0, 1.0)), p)
        change = np.where(use, change - centre, change)
    rest = np.isnan(p)
    if rest.any():
        p[rest] = _exceedance_p(a[rest], b[rest])
    return Tail(p, change)


def _exceedance_p(a: Floats, b: Floats) -> Floats:
    pooled = np.sort(np.concatenate([a, b], axis=1), axis=1)
    n = (~np.isnan(pooled)).sum(axis=1)
    rows = np.arange(len(a))
    cut = pooled[rows, np.clip((np.ceil((1.0 - EXCEED_SHARE) * n) - 1).astype(np.int64), 0, pooled.shape[1] - 1)]
    with np.errstate(invalid="ignore"):
        over = (b > cut[:, None]).astype(np.float64) - (a > cut[:, None]).astype(np.float64)
    over[np.isnan(a) | np.isnan(b)] = np.nan
    pairs = (~np.isnan(over)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(over, axis=1) / pairs
    se1, df1, se2, df2 = dependence.standard_errors(over)
    ok = (pairs >= 40) & (se1 > 0) & (se2 > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.fmax(
            tail_p(np.where(ok, mean / se1, 0.0), np.where(ok, df1, 1.0)),
            tail_p(np.where(ok, mean / se2, 0.0), np.where(ok, df2, 1.0)),
        )
    return np.where(ok, p, np.nan)


class Presence(NamedTuple):
    """Which arm spoke: scrapes only the baseline answered, only the canary answered, and whether the canary
    fell silent.
    """

    only_baseline: Ints
    only_canary: Ints
    p_value: Floats
    silent: NDArray[np.bool_]


def presence(x: Floats, y: Floats) -> Presence:
    """Ask whether the canary is silent while the baseline speaks.

    One-sided exact test of McNemar (1947) on the scrapes that only one arm answered, their number divided by
    the variance inflation of an AR(1), since silence comes in runs. A canary is called silent when that is
    below 0.01 and at least 3 scrapes are concerned, when its last 3 answers are missing while the baseline's
    are there, or when it never spoke at all.

    Parameters
    ----------
    x, y:
        Shape (series, points), NaN = no answer.
    """
    there_x, there_y = ~np.isnan(x), ~np.isnan(y)
    lost = there_x & ~there_y
    gained = there_y & ~there_x
    n10, n01 = lost.sum(axis=1), gained.sum(axis=1)
    vif, _ = dependence.ar1_vif(lost.astype(np.float64) - gained.astype(np.float64))
    worth = (n10 + n01) / np.nan_to_num(vif, nan=1.0)
    share = n10 / np.maximum(n10 + n01, 1)
    # Binomial tail with a real number of trials, by the incomplete beta function.
    successes = share * worth
    p = np.where(n10 > 0, special.betainc(np.maximum(successes, 1e-9), worth - successes + 1.0, 0.5), 1.0)
    width = x.shape[1]
    run = lost[:, ::-1].cumprod(axis=1).sum(axis=1) if width else np.zeros(len(x), dtype=np.int64)
    silent = ((p < 0.01) & (n10 >= 3)) | (run >= 3) | ((n10 >= 1) & ~there_y.any(axis=1))
    return Presence(n10.astype(np.int64), n01.astype(np.int64), p, silent)
