"""Means under autocorrelation: trimmed means, their influence series, long-run variances.

Missing points are closed up (the observed points move left, in order) before a row is looked at; the formulas
then see a row of n points. The loop in :func:`ewc_lrv` is over the distinct lengths that occur, not over
series.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TRIM = 0.1
RHO_MAX = 0.97


def close_up(x: Floats) -> tuple[Floats, Ints]:
    """Move the observed points of each row to its left, in order; return them and their number.

    ``x`` has the shape (..., points). The rest of a row becomes NaN.
    """
    missing = np.isnan(x)
    width = x.shape[-1]
    if not missing.any():
        return x, np.full(x.shape[:-1], width, dtype=np.int64)
    present = ~missing
    n = present.sum(axis=-1)
    # A row whose gaps are all at its end is closed up already.
    lead = np.arange(width) < n[..., None]
    if bool((present == lead).all()):
        return x, n
    order = np.argsort(~present, axis=-1, kind="stable")
    return np.take_along_axis(x, order, axis=-1), n


def trimmed_mean(x: Floats, trim: float = TRIM) -> Floats:
    """Mean of the values between the ``trim`` and ``1 - trim`` quantiles of each row; NaN for an empty row.

    ``x`` has the shape (..., points), NaN = missing; ``floor(trim * n)`` points are cut at each end (Tukey
    1962).
    """
    s = np.sort(x, axis=-1)  # NaN last
    width = x.shape[-1]
    if width == 0:
        return np.full(x.shape[:-1], np.nan)
    if not np.isnan(s[..., -1]).any():
        k = int(trim * width)
        return np.asarray(s[..., k : width - k].mean(axis=-1))
    n = (~np.isnan(s)).sum(axis=-1)[..., None]
    k = (trim * n).astype(np.int64)
    j = np.arange(width)
    keep = (j >= k) & (j < n - k)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(keep, s, 0.0).sum(axis=-1) / keep.sum(axis=-1))


def trimmed_influence(x: Floats, trim: float = TRIM) -> tuple[Floats, Floats]:
    """Return the trimmed mean of each row and the series whose plain mean varies as it does.

    The influence of a point on the trimmed mean is linear between the trimming points and constant beyond
    (Huber 1981, ch. 3): ``u = clip(x, q_trim, q_1-trim) / (1 - 2 trim)``. A row in which the trimming points
    coincide (most values are equal) is not trimmed: what is rare there is what there is to see.

    Parameters
    ----------
    x:
        Shape (series, points), NaN = missing.

    Returns
    -------
    mean, u:
        Shapes (series,) and (series, points).
    """
    S, width = x.shape
    if width == 0:
        return np.full(S, np.nan), x.copy()
    s = np.sort(x, axis=-1)
    cut = int(trim * width)
    if not np.isnan(s[:, -1]).any() and (s[:, cut] < s[:, width - cut - 1]).all():
        # Nothing is missing and every row is trimmed alike; zeros keep the order in which the sum runs.
        low, high = s[:, cut].copy(), s[:, width - cut - 1].copy()
        s[:, :cut] = 0.0
        s[:, width - cut :] = 0.0
        return s.sum(axis=1) / (width - 2 * cut), np.clip(x, low[:, None], high[:, None]) / (
            1.0 - 2.0 * trim if cut else 1.0
        )
    n = (~np.isnan(s)).sum(axis=-1)
    k = (trim * n).astype(np.int64)
    rows = np.arange(S)
    low = s[rows, np.minimum(k, width - 1)]
    high = s[rows, np.clip(n - k - 1, 0, width - 1)]
    j = np.arange(width)
    flat = (low == high) & (n > 0)
    k = np.where(flat, 0, k)
    low = np.where(flat, -np.inf, low)
    high = np.where(flat, np.inf, high)
    keep = (j >= k[:, None]) & (j < (n - k)[:, None])
    kept = keep.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(keep, s, 0.0).sum(axis=1) / kept
        u = np.clip(x, low[:, None], high[:, None]) / np.where(k > 0, 1.0 - 2.0 * trim, 1.0)[:, None]
    return np.where(kept > 0, mean, np.nan), u


@lru_cache(maxsize=512)
def _cosines(n: int, nu: int) -> Floats:
    t = (np.arange(n) + 0.5) / n
    basis = np.sqrt(2.0 / n) * np.cos(np.pi * np.arange(1, nu + 1)[:, None] * t)
    basis.flags.writeable = False
    return np.asarray(basis)


def ewc_degrees(n: int) -> int:
    """Return the number of cosines for n points: ``round(0.4 n^(2/3))``, at least 2 (Lazarus et al. 2018)."""
    return max(2, round(0.4 * math.pow(n, 2.0 / 3.0)))


def ewc_lrv(u: Floats) -> tuple[Floats, Floats]:
    """Long-run variance by equal-weighted cosines, and its degrees of freedom.

    ``Lambda_j = sqrt(2/n) sum_t u_t cos(pi j (t - 1/2) / n)``, ``LRV = mean_j Lambda_j^2`` with ``nu``
    degrees of freedom (Lazarus, Lewis, Stock and Watson 2018). Rows shorter than 4 points get NaN.

    Parameters
    ----------
    u:
        Shape (series, points), NaN = missing.
    """
    return _ewc_lrv(*close_up(u))


def _ewc_lrv(closed: Floats, n: Ints) -> tuple[Floats, Floats]:
    lrv = np.full(len(closed), np.nan)
    df = np.full(len(closed), np.nan)
    for length in np.unique(n):
        size = int(length)
        if size < 4:
            continue
        rows = slice(None) if bool((n == length).all()) else np.flatnonzero(n == length)
        nu = ewc_degrees(size)
        coefficients = closed[rows, :size] @ _cosines(size, nu).T
        lrv[rows] = (coefficients * coefficients).mean(axis=1)
        df[rows] = nu
    return lrv, df


class _Spread(NamedTuple):
    """Rows about their mean: 0 where missing, the number of points, the sum of squares, and what may be rounding.

    ``rounding`` is the variance that a constant row may show by the rounding of its level.
    """

    centred: Floats
    n: Floats
    power: Floats
    rounding: Floats


def _spread(u: Floats, n: Ints) -> _Spread:
    """Centre rows of ``n`` points, NaN = missing; ``n`` has the shape (series,)."""
    n_f = n.astype(np.float64)
    full = u.shape[1] > 0 and bool((n == u.shape[1]).all())
    with np.errstate(invalid="ignore", divide="ignore"):
        if full:
            c = u - (u.sum(axis=1) / n_f)[:, None]
            largest = np.maximum(np.maximum(u.max(axis=1), -u.min(axis=1)), 0.0)
        else:
            c = np.where(np.isnan(u), 0.0, u - (np.nansum(u, axis=1) / n_f)[:, None])
            largest = np.fmax.reduce(np.abs(u), axis=1, initial=0.0)
        return _Spread(c, n_f, (c * c).sum(axis=1), np.asarray((1e-12 * largest) ** 2))


def lag1(u: Floats, *, corrected: bool = True) -> Floats:
    """Lag-1 autocorrelation of each row, clipped to [0, 0.97]; NaN below 4 points, 0 for a constant row.

    Corrected for the bias of an estimated mean: ``r + (1 + 3 r) / n`` (Kendall 1954; Marriott and Pope 1954).
    """
    return _lag1(_spread(*close_up(u)), corrected=corrected)


def _lag1(spread: _Spread, *, corrected: bool = True) -> Floats:
    c, n = spread.centred, spread.n
    with np.errstate(invalid="ignore", divide="ignore"):
        moves = spread.power > n * spread.rounding
        r = np.where(moves, (c[:, 1:] * c[:, :-1]).sum(axis=1) / spread.power, 0.0)
        if corrected:
            r = r + (1.0 + 3.0 * r) / n
    return np.where(n >= 4, np.clip(r, 0.0, RHO_MAX), np.nan)


def ar1_inflation(rho: Floats, n: Floats | Ints) -> Floats:
    """Factor by which an AR(1) with coefficient ``rho`` inflates the variance of a mean of n points.

    ``(1+rho)/(1-rho) - 2 rho (1-rho^n) / (n (1-rho)^2)``, Bartlett's finite sum (1946) in closed form.
    """
    n_f = np.asarray(n, dtype=np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        out = (1.0 + rho) / (1.0 - rho) - 2.0 * rho * (1.0 - rho**n_f) / (n_f * (1.0 - rho) ** 2)
    return np.asarray(np.maximum(out, 1.0))


def ar1_vif(u: Floats) -> tuple[Floats, Floats]:
    """Return the variance inflation of each row's mean under AR(1), and the coefficient. Shape (series,)."""
    rho = lag1(u)
    n = (~np.isnan(u)).sum(axis=1)
    return ar1_inflation(rho, n), rho


def standard_errors(u: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Standard errors of each row's mean that respect autocorrelation, by cosines and by AR(1).

    The first sees any smooth spectrum and has few degrees of freedom; the second sees strong short memory. A
    test that asks both (the wider interval counts) keeps its size up to an autocorrelation of 0.6 without any
    history.

    Returns
    -------
    se_ewc, df_ewc, se_ar1, df_ar1:
        Shape (series,); NaN below 4 points.
    """
    closed, count = close_up(u)
    lrv, df = _ewc_lrv(closed, count)
    spread = _spread(closed, count)
    # Rows without gaps are closed up as they are: their spread is known already.
    as_it_is = spread if closed is u else _spread(u, count)
    n = as_it_is.n
    vif = ar1_inflation(_lag1(spread), count)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = as_it_is.power / (n - 1.0)
        se_ar1 = np.sqrt(variance * vif / n)
        se_ewc = np.sqrt(lrv / n)
        df_ar1 = np.maximum(n / vif - 1.0, 1.0)
        still = variance <= as_it_is.rounding
    se_ewc, se_ar1 = np.where(still, 0.0, se_ewc), np.where(still, 0.0, se_ar1)
    bad = n < 4
    return np.where(bad, np.nan, se_ewc), df, np.where(bad, np.nan, se_ar1), np.where(bad, np.nan, df_ar1)
