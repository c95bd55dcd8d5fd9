"""A change and how uncertain it is: the form into which every design brings its question."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tidegate_analysis.kernels import dependence, placebo

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# From this many past windows on their spread stands alone as the standard error.
ENOUGH_WINDOWS = 7
MIN_POINTS = 5
# What a window's own error is worth, in past windows, as a guess of how far such windows move.
OWN_WORTH = 2.0


class Contrast(NamedTuple):
    """Estimated changes of many series with their standard errors.

    Attributes
    ----------
    estimate:
        The change on its scale (a difference of logs or of values), shape (series,).
    errors:
        Pairs of a standard error and its degrees of freedom, each (series,); every one of them must be
        satisfied, so the widest interval counts. NaN = does not apply to this series.
    n_effective:
        Points the pairs are worth.
    windows, exceeding:
        Past windows used, and how many showed a change at least as bad; filled by the caller that knows the
        direction.
    past:
        The same statistic over the past windows, about the centre that the estimate was taken from; (series,
        K).
    method:
        Method id of each series.
    """

    estimate: Floats
    errors: tuple[tuple[Floats, Floats], ...]
    n_effective: Floats
    windows: Ints
    past: Floats
    method: NDArray[np.str_]


def effective_points(u: Floats, se: Floats, se2: Floats) -> Floats:
    """Points that independent data of the same spread would need for the larger of two standard errors."""
    n = (~np.isnan(u)).sum(axis=1).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(u, axis=1) / n
        c = np.where(np.isnan(u), 0.0, u - mean[:, None])
        variance = (c * c).sum(axis=1) / (n - 1.0)
        worth = variance / np.fmax(se, se2) ** 2
    return np.where(np.isfinite(worth), np.clip(worth, 0.0, n), np.where(n > 1, 1.0, n))


def few_windows(se: Floats, square: Floats, k: Floats) -> Floats:
    """Standard error where there are too few past windows to stand alone.

    The variance between windows is pooled as under a scaled inverse chi-square prior (Gelman et al. 2013, *Bayesian
    Data Analysis*, sec. 3.2; Smyth 2004, sec. 3): the window's own variance counts as two windows, what ``k`` past
    ones showed as ``k``. The past may only widen: a quiet window of yesterday is no evidence that today's own error
    is too large.

    Parameters
    ----------
    se:
        The window's own standard error, shape (series,).
    square:
        Mean square of the statistic over the past windows, shape (series,).
    k:
        Past windows that do not overlap, shape (series,); at 0 the window's own error counts alone.
    """
    own = se * se
    pooled = (OWN_WORTH * own + k * square) / (OWN_WORTH + k)
    return np.asarray(np.sqrt(np.where(k > 0, np.maximum(own, pooled), own)))


def with_past(
    estimate: Floats,
    core: tuple[tuple[Floats, Floats], ...],
    past: Floats,
    names: tuple[str, str, str],
) -> tuple[Floats, tuple[tuple[Floats, Floats], ...], Ints, Floats, NDArray[np.str_]]:
    """Combine one window's own standard errors with what past windows showed.

    Without windows the window's own errors count. With 1 to 6 the two are pooled (:func:`few_windows`): too few to
    stand alone, enough to show that a metric moves by itself. From 7 on the clipped spread of the windows about
    their centre is the standard error, with K - 1 degrees of freedom, and the estimate is taken from their centre.

    Parameters
    ----------
    estimate:
        Shape (series,).
    core:
        The window's own standard errors with their degrees of freedom.
    past:
        Shape (series, K), NaN = unusable.
    names:
        Method ids for no, few and enough windows.
    """
    k = (~np.isnan(past)).sum(axis=1)
    enough = k >= ENOUGH_WINDOWS
    few = (k > 0) & ~enough
    method = np.where(enough, names[2], np.where(few, names[1], names[0]))
    errors = list(core)
    centred = past
    if few.any():
        with np.errstate(invalid="ignore", divide="ignore"):
            square = np.where(few, np.nansum(past**2, axis=1) / k, 0.0)
        errors = [(few_windows(se, square, np.where(few, k, 0.0)), df) for se, df in errors]
    if enough.any():
        centre, scale, count = placebo.centre_and_scale(past)
        with np.errstate(invalid="ignore", divide="ignore"):
            # The centre is estimated from the same windows: its own error is part of the contrast's.
            spread = scale * np.sqrt(1.0 + 1.0 / count)
        estimate = np.where(enough, estimate - centre, estimate)
        centred = np.where(enough[:, None], past - centre[:, None], past)
        errors = [(np.where(enough, np.nan, se), df) for se, df in errors]
        errors.append((np.where(enough, spread, np.nan), np.where(enough, count - 1.0, np.nan)))
    return estimate, tuple(errors), k.astype(np.int64), centred, method


def paired(d: Floats, past: Floats) -> Contrast:
    """Trimmed mean of paired differences.

    Parameters
    ----------
    d:
        Shape (series, points): canary minus baseline at the same scrape, NaN where either is missing.
    past:
        Shape (series, K): the same statistic over past windows.
    """
    estimate, u = dependence.trimmed_influence(d)
    se_ewc, df_ewc, se_ar1, df_ar1 = dependence.standard_errors(u)
    worth = effective_points(u, se_ewc, se_ar1)
    core = ((se_ewc, df_ewc), (se_ar1, df_ar1))
    estimate, errors, k, centred, method = with_past(
        estimate, core, past, ("paired-trim.v1", "paired-few-windows.v1", "paired-placebo.v1")
    )
    return Contrast(estimate, errors, worth, k, centred, method)


def two_arms(x: Floats, y: Floats, past: Floats, names: tuple[str, str, str]) -> Contrast:
    """Difference of the trimmed means of two stretches that are not paired: before and after.

    Degrees of freedom by Welch (1947) and Satterthwaite (1946) from those of the arms.

    Parameters
    ----------
    x, y:
        Shapes (series, m) and (series, n).
    past:
        Shape (series, K): the same statistic at past moments.
    names:
        Method ids for no, few and enough windows.
    """
    mean_x, ux = dependence.trimmed_influence(x)
    mean_y, uy = dependence.trimmed_influence(y)
    ex = dependence.standard_errors(ux)
    ey = dependence.standard_errors(uy)
    core = tuple(_welch(ex[i], ex[i + 1], ey[i], ey[i + 1]) for i in (0, 2))
    worth = np.minimum(effective_points(ux, ex[0], ex[2]), effective_points(uy, ey[0], ey[2]))
    estimate, errors, k, centred, method = with_past(mean_y - mean_x, core, past, names)
    return Contrast(estimate, errors, worth, k, centred, method)


def _welch(sx: Floats, fx: Floats, sy: Floats, fy: Floats) -> tuple[Floats, Floats]:
    v = sx * sx + sy * sy
    with np.errstate(invalid="ignore", divide="ignore"):
        df = v * v / (sx**4 / fx + sy**4 / fy)
    return np.sqrt(v), np.where(v > 0, df, np.fmin(fx, fy))


def instances(x: Floats, y: Floats, past: Floats, unit: Floats | None) -> tuple[Contrast, Floats]:
    """Difference between the arms' instances, measured by how instances differ among themselves.

    Each instance is one observation: its trimmed mean over the scrapes of its difference from the mean of the
    baseline's instances at the same scrape. The spread between baseline instances is the yardstick, with one
    degree of freedom less than there are of them; with few instances it is moderated over the series of the
    batch by the empirical Bayes estimate of Smyth (2004), when a ``unit`` is given and at least 10 series are
    there to borrow from. The scrapes' own error counts too, whichever is wider.

    Parameters
    ----------
    x, y:
        Shapes (series, instances, points) of baseline and canary.
    past:
        Shape (series, K): the arms' difference over past windows.
    unit:
        Shape (series,): what a spread is measured in when series lend it to each other, NaN for ratios, which need
        none and borrow among themselves; ``None`` = nothing is borrowed.

    Returns
    -------
    contrast, d:
        And the paired differences of the arms' means, (series, points).
    """
    d = mean_over(y, axis=1) - mean_over(x, axis=1)
    _, _, n_x, n_y, variance, df = _by_instance(x, y, unit)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = np.sqrt(variance * (1.0 / n_x + 1.0 / n_y))
    estimate, u = dependence.trimmed_influence(d)
    se_ewc, df_ewc, se_ar1, df_ar1 = dependence.standard_errors(u)
    core = ((between, df), (se_ewc, df_ewc), (se_ar1, df_ar1))
    estimate, errors, k, centred, method = with_past(
        estimate, core, past, ("instances.v1", "instances-few-windows.v1", "instances-placebo.v1")
    )
    return Contrast(estimate, errors, np.fmin(n_x, effective_points(u, se_ewc, se_ar1)), k, centred, method), d


def _by_instance(x: Floats, y: Floats, unit: Floats | None) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
    """Return what the baseline's instances have in common, the canary's one by one, how many of either spoke, and the
    variance between the baseline's with its degrees of freedom.
    """
    reference = mean_over(x, axis=1)
    centred_x = dependence.trimmed_mean(x - reference[:, None, :])
    centred_y = dependence.trimmed_mean(y - reference[:, None, :])
    n_x = (~np.isnan(centred_x)).sum(axis=1).astype(np.float64)
    n_y = (~np.isnan(centred_y)).sum(axis=1).astype(np.float64)
    base = mean_over(centred_x, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = np.nansum((centred_x - base[:, None]) ** 2, axis=1) / (n_x - 1.0)
        variance = np.where(n_x >= 2, variance, np.nan)
        df = np.maximum(n_x - 1.0, 1.0)
    if unit is not None:
        for rows, of in ((np.isnan(unit), np.ones(len(unit))), (~np.isnan(unit), unit * unit)):
            lent, worth = moderated(variance[rows] / of[rows], df[rows])
            variance[rows], df[rows] = lent * of[rows], worth
    return base, centred_y, n_x, n_y, variance, df


def worst_instance(x: Floats, y: Floats, sign: Floats, usual: Floats, unit: Floats | None) -> tuple[Floats, Floats]:
    """How far the worst canary instance lies from the baseline's mean, and how unusual that is among instances.

    As one more baseline instance would, by Student's t, paid for by every canary instance. A mean over instances does
    not show what hits one of ten.

    Parameters
    ----------
    x, y:
        Shapes (series, instances, points) of baseline and canary.
    sign, usual:
        Shape (series,): 1 where up is worse, -1 where down is, 0 both; the arms' usual distance.
    unit:
        As for :func:`instances`.

    Returns
    -------
    change, p:
        Shape (series,); the change is negative where down is worse, p is NaN with fewer than two baseline instances.
    """
    if not y.shape[1]:
        return np.full(len(x), np.nan), np.full(len(x), np.nan)
    base, centred, n_x, n_y, variance, df = _by_instance(x, y, unit)
    apart = centred - base[:, None] - usual[:, None]
    worse = np.where((sign == 0)[:, None], np.abs(apart), np.where(sign < 0, -1.0, 1.0)[:, None] * apart)
    at = np.where(np.isnan(worse), -np.inf, worse).argmax(axis=1)
    rows = np.arange(len(x))
    change, largest = apart[rows, at], worse[rows, at]
    with np.errstate(invalid="ignore", divide="ignore"):
        t = largest / np.sqrt(variance * (1.0 + 1.0 / n_x))
        p = special.stdtr(np.maximum(df, 1.0), -t) * n_y * np.where(sign == 0, 2.0, 1.0)
    return change, np.asarray(np.minimum(p, 1.0))


def mean_over(a: Floats, axis: int) -> Floats:
    """Mean of what is there along an axis, NaN where nothing is."""
    present = ~np.isnan(a)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(
            np.where(present, a, 0.0).sum(axis=axis) / np.where(present.any(axis=axis), present.sum(axis=axis), np.nan)
        )


def moderated(variance: Floats, df: Floats) -> tuple[Floats, Floats]:
    """Shrink variances of a few degrees of freedom towards their common prior (Smyth 2004, sec. 6.2).

    The prior's degrees of freedom and location come from the mean and variance of the log variances; fewer
    than 10 usable ones are left as they are.

    Parameters
    ----------
    variance, df:
        Shape (series,); NaN or 0 = not usable.
    """
    usable = np.isfinite(variance) & (variance > 0)
    if int(usable.sum()) < 10:
        return variance, df
    z, half = np.log(variance[usable]), df[usable] / 2.0
    e = z - special.digamma(half) + np.log(half)
    centre = float(e.mean())
    excess = float(((e - centre) ** 2).sum() / (len(e) - 1) - special.polygamma(1, half).mean())
    if excess <= 0:
        prior_df, prior = 1e6, float(np.exp(centre))
    else:
        # Newton's iteration for the inverse of the trigamma function (Smyth 2004, appendix).
        g = 0.5 + 1.0 / excess
        for _ in range(50):
            tri = float(special.polygamma(1, g))
            step = tri * (1.0 - tri / excess) / float(special.polygamma(2, g))
            g += step
            if -step / g < 1e-8:
                break
        prior_df = 2.0 * g
        prior = float(np.exp(centre + special.digamma(g) - np.log(g)))
    # Never take more from the neighbours than from 30 independent instances: kinds of metrics do differ.
    prior_df = min(prior_df, 30.0)
    out = np.where(usable, (prior_df * prior + df * np.nan_to_num(variance)) / (prior_df + df), prior)
    return out, np.where(usable, prior_df + df, prior_df)
