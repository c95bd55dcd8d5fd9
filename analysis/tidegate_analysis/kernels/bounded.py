"""Values in [0, 1]: shares of a capacity, hit ratios, saturation.

Differences near 1 matter more than in the middle (90 to 99 % is not 70 to 79 %). Three ways to look at such
values: on the logit scale (:func:`to_logit`), by the time spent above a level (:func:`time_above`, which
feeds the counts), and by confidence sequences for the mean that assume nothing but the range
(:func:`betting_sequence`).

Formulas and sources: docs/methods/saturation.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

MEANS: Array = np.concatenate([[0.001, 0.002, 0.005], np.linspace(0.01, 0.99, 99), [0.995, 0.998, 0.999]])
"""Means that are tested; bounds are read between them."""
TRUNCATION = 0.5
"""No bet stakes more than this share of the wealth."""
FLOOR = 1e-3
"""Distance from 0 and 1 below which the logit is not followed."""


def check_bounded(values: ArrayLike, name: str = "values") -> tuple[Array, NDArray[np.int64]]:
    """Return values with those outside [0, 1] brought to the nearer end, and how many there were per row.

    Dropping them would hide saturation: a CPU share of 1.02 is full. An infinite value counts as its end too.

    Raises
    ------
    ValueError
        When there are not two axes (series, points).
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"{name}: must have the two axes (series, points), not {array.ndim}")
    outside = (array < 0.0) | (array > 1.0)
    return np.clip(array, 0.0, 1.0), np.asarray(outside.sum(axis=1), dtype=np.int64)


# --- the logit route ---


def to_logit(values: ArrayLike, floor: float = FLOOR) -> Array:
    """Return ``log(x / (1 - x))`` with x kept ``floor`` away from 0 and 1, so that both ends stay finite."""
    clipped = np.clip(np.asarray(values, dtype=np.float64), floor, 1.0 - floor)
    return np.asarray(special.logit(clipped))


def logit_margin(level: ArrayLike, margin: ArrayLike, *, up: bool = True, floor: float = FLOOR) -> Array:
    """Return what an absolute margin at a level is on the logit scale, above 0.

    0.1 is 0.54 at a level of 0.7 and 2.5 at 0.89: on the logit scale the same change counts for more near the
    end.
    """
    at = np.asarray(level, dtype=np.float64)
    moved = at + np.asarray(margin, dtype=np.float64) * (1.0 if up else -1.0)
    return np.asarray(np.maximum(np.abs(to_logit(moved, floor) - to_logit(at, floor)), 1e-12))


def from_logit(change: ArrayLike, level: ArrayLike) -> Array:
    """Return the absolute change at a level that a change on the logit scale is."""
    at = np.asarray(level, dtype=np.float64)
    return np.asarray(special.expit(to_logit(at) + np.asarray(change, dtype=np.float64)) - at)


# --- time above a level ---


def time_above(values: ArrayLike, level: ArrayLike) -> tuple[Array, Array]:
    """Return scrapes above a level as events, and scrapes seen as their total, ``(S, T)`` each.

    They go into :func:`tidegate_analysis.kernels.counts.fixed_horizon_counts` as an event ratio: "the share
    of time above 90 %". Neighbouring scrapes hang together; the stretches of that method take care of it.

    Parameters
    ----------
    values:
        ``(S, T)``, NaN = missing, which gives NaN events and a total of 0.
    level:
        A scalar or ``(S,)``.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2:
        raise ValueError(f"values: must have the two axes (series, points), not {array.ndim}")
    bar = np.broadcast_to(np.asarray(level, dtype=np.float64), array.shape[:1])[:, None]
    seen = ~np.isnan(array)
    return np.where(seen, (array > bar).astype(np.float64), np.nan), seen.astype(np.float64)


# --- betting ---


class BettingState(NamedTuple):
    """All that the bets remember, arrays over series.

    ``number``, ``total`` and ``square`` ``(S,)`` (values so far, their sum and
    summed squared deviations from the running mean), ``wealth`` ``(S, M, 2)``, logarithms for every mean
    tested, bets on more and on less.
    """

    number: Array
    total: Array
    square: Array
    wealth: Array


def betting_start(n_series: int) -> BettingState:
    """Return the state before the first value."""
    zero = np.zeros(n_series)
    return BettingState(zero, zero, zero, np.zeros((n_series, MEANS.size, 2)))


def betting_update(state: BettingState, values: ArrayLike, alpha: ArrayLike = 0.02) -> BettingState:
    """Return the state after more values ``(S, n)`` in [0, 1], NaN = missing.

    Predictable plug-in bets (Waudby-Smith & Ramdas, JRSSB 2024, section 4.2): with mean and variance of the
    values so far, ``mu = (1/2 + sum) / (i + 1)``, ``s2 = (1/4 + sum (x - mu)**2) / (i + 1)``, value number i
    stakes ``lambda = sqrt(2 log(2 / alpha) / (s2 i log(1 + i)))``, cut so that the wealth stays positive.

    Raises
    ------
    ValueError
        When there are not two axes.
    """
    x, _ = check_bounded(values)
    size, columns = x.shape
    if columns == 0:
        return state
    level = np.broadcast_to(np.asarray(alpha, dtype=np.float64), (size,))[:, None]
    seen = ~np.isnan(x)
    filled = np.where(seen, x, 0.0)
    count = state.number[:, None] + np.cumsum(seen, axis=1)
    total = np.cumsum(np.concatenate([state.total[:, None], filled], axis=1), axis=1)
    mean = (0.5 + total[:, 1:]) / (count + 1.0)
    deviation = np.where(seen, (filled - mean) ** 2, 0.0)
    square = np.cumsum(np.concatenate([state.square[:, None], deviation], axis=1), axis=1)
    # What was known before each value: number i - 1, and the variance from it.
    before = count - seen
    variance = (0.25 + square[:, :-1]) / (before + 1.0)
    i = before + 1.0
    stake = np.sqrt(2.0 * np.log(2.0 / level) / (variance * i * np.log1p(i)))[:, None, :]
    m = MEANS[None, :, None]
    gain = (filled[:, None, :] - m) * seen[:, None, :]
    more = np.log1p(np.minimum(stake, TRUNCATION / m) * gain)
    less = np.log1p(-np.minimum(stake, TRUNCATION / (1.0 - m)) * gain)
    grown = np.cumsum(np.concatenate([state.wealth[..., None], np.stack([more, less], axis=2)], axis=-1), axis=-1)
    return BettingState(count[:, -1], total[:, -1], square[:, -1], grown[..., -1])


def betting_log_e(state: BettingState, mean: ArrayLike) -> tuple[Array, Array]:
    """Return the log wealth of betting that the mean is above, and that it is below, ``mean``; ``(S,)`` each.

    Between two tested means the smaller wealth counts: a bet that the mean is above 0.302 wins less than one
    at 0.30.
    """
    size = len(state.number)
    at = np.broadcast_to(np.asarray(mean, dtype=np.float64), (size,))
    rows = np.arange(size)
    right = np.clip(np.searchsorted(MEANS, at, side="left"), 0, MEANS.size - 1)
    left = np.clip(np.searchsorted(MEANS, at, side="right") - 1, 0, MEANS.size - 1)
    above = np.where(at > MEANS[-1], 0.0, state.wealth[rows, right, 0])
    below = np.where(at < MEANS[0], 0.0, state.wealth[rows, left, 1])
    return above, below


def betting_sequence(state: BettingState, alpha: ArrayLike = 0.02) -> tuple[Array, Array]:
    """Return a confidence sequence for the mean, ``(S,)`` each end: it covers at all looks together.

    It assumes that each value has the mean, given those before it; with autocorrelation give it means of
    blocks. A mean is left out when the wealth of either half of the bets exceeds ``2 / alpha``.
    """
    size = len(state.number)
    bar = np.log(2.0 / np.broadcast_to(np.asarray(alpha, dtype=np.float64), (size,)))[:, None]
    too_low, too_high = state.wealth[:, :, 0] >= bar, state.wealth[:, :, 1] >= bar
    # The ends step out to the first mean on the grid that is left out.
    lowest = np.where(too_low.any(axis=1), MEANS[MEANS.size - 1 - too_low[:, ::-1].argmax(axis=1)], 0.0)
    highest = np.where(too_high.any(axis=1), MEANS[too_high.argmax(axis=1)], 1.0)
    return lowest, highest


def block_means(values: ArrayLike, block: int) -> Array:
    """Return means of ``block`` neighbouring points ``(S, T // block)``, missing ones left out, rest cut off.

    Raises
    ------
    ValueError
        When the block is not at least 1.
    """
    if block < 1:
        raise ValueError(f"block: must be at least 1, not {block}")
    x = np.asarray(values, dtype=np.float64)
    whole = x.shape[-1] // block
    cut = x[..., : whole * block].reshape(*x.shape[:-1], whole, block)
    seen = ~np.isnan(cut)
    number = seen.sum(axis=-1)
    out = np.full(number.shape, np.nan)
    np.divide(np.where(seen, cut, 0.0).sum(axis=-1), number, out=out, where=number > 0)
    return out
