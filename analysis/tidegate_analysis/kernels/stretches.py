"""Scrapes in a row that stand out from the rest: what a mean over all of them dilutes, and a trimmed one drops."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.kernels import dependence, placebo

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LENGTHS = (3, 5, 10, 20)
# Spreads from the middle beyond which a point weighs no more: one wild point makes no stretch.
REACH = 4.0
# The same for the measure of how neighbours hang together, which a stretch must not spoil.
CALM = 2.5
ROUNDING = 1e-12


def bar(n: Ints) -> Floats:
    """Score that about 1 in 100 rows of n healthy points reach, whatever their autocorrelation (simulated)."""
    return np.asarray(4.2 + 30.0 / np.maximum(n, 1))


class Stretch(NamedTuple):
    """The most unusual stretch of each row; all of the shape (series,).

    Attributes
    ----------
    score:
        To be held to :func:`bar`; 0 where no stretch is large enough, inf where one is and the points below the middle
        do not move.
    first, length, mean:
        Its first point (observed ones counted alone), how many it has, and their mean; 0, 0 and NaN for none.
    """

    score: Floats
    first: Ints
    length: Ints
    mean: Floats


def standing_out(d: Floats, beyond: Floats) -> Stretch:
    """How far the most unusual stretch lies above the middle of its row, in standard errors of its mean.

    Stretches of 3, 5, 10 and 20 points whose mean is larger than ``beyond``. The middle is the row's median, and the
    spread that of the points below it, so that what is sought does not widen its own yardstick. For the score points
    are clipped at 4 spreads. The standard error of a stretch is that of independent points, inflated as for an AR(1)
    (Bartlett 1946) with the row's lag-1 autocorrelation, of points clipped at 2.5 spreads.

    Parameters
    ----------
    d:
        Shape (series, points), NaN = missing; up is sought.
    beyond:
        Shape (series,).
    """
    closed, n = dependence.close_up(d)
    S, width = closed.shape
    found = Stretch(np.zeros(S), np.zeros(S, dtype=np.int64), np.zeros(S, dtype=np.int64), np.full(S, np.nan))
    if width <= LENGTHS[0]:
        return found
    ordered = np.sort(closed, axis=1)
    middle = placebo.median_of_sorted(ordered, n.astype(np.float64))[:, None]
    off = closed - middle
    with np.errstate(invalid="ignore"):
        lower = (off < 0).sum(axis=1)
    # Half of the points below the middle lie nearer to it than their median does.
    spread = placebo.MAD_TO_SD * (middle[:, 0] - placebo.median_of_sorted(ordered, lower.astype(np.float64)))
    spread = np.where(spread > ROUNDING * np.abs(middle[:, 0]), spread, 0.0)
    rho = np.nan_to_num(dependence.lag1(np.clip(off, -CALM * spread[:, None], CALM * spread[:, None])))
    known = None if bool((n == width).all()) else ~np.isnan(off)
    near = np.clip(off, -REACH * spread[:, None], REACH * spread[:, None])
    plain, clipped = (_running(v if known is None else np.where(known, v, 0.0)) for v in (closed, near))
    end, rows = np.arange(width + 1), np.arange(S)
    for length in (one for one in LENGTHS if one < width):
        error = spread * np.sqrt(dependence.ar1_inflation(rho, np.full(S, length)) * length)
        with np.errstate(invalid="ignore", divide="ignore"):
            height = (clipped[:, length:] - clipped[:, :-length]) / error[:, None]
        mean = (plain[:, length:] - plain[:, :-length]) / length
        large = mean > beyond[:, None]
        if known is not None:
            large &= end[length:] <= n[:, None]
        # A row whose spread is 0 has one value for most of its points: any other is infinitely far from it.
        height[spread == 0] = np.inf
        height = np.where(large, height, 0.0)
        # Stretches of clipped points tie, but for rounding: the first of them is told, in whatever unit.
        first = np.round(height, 6).argmax(axis=1)
        highest = height[rows, first]
        better = highest > found.score + 1e-6
        found = Stretch(
            *(
                np.where(better, new, old)
                for new, old in zip((highest, first, np.full(S, length), mean[rows, first]), found, strict=True)
            )
        )
    return found


def _running(values: Floats) -> Floats:
    """Sums of the first 0, 1, 2, ... values of each row."""
    total = np.zeros((len(values), values.shape[1] + 1))
    np.cumsum(values, axis=1, out=total[:, 1:])
    return total
