"""Counters: running totals that start again at 0 when their process restarts.

A drop is a reset, and the new value is what was counted since (the rule of Prometheus). What was counted
across a gap belongs to no single interval, so the first sample after a gap gives a missing increase, never a
0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]


class CounterQuality(NamedTuple):
    """What was seen in running totals, one number per row.

    ``resets``: drops from one observed sample to the next, also across a gap. ``gaps``: samples whose
    increase is missing although they were observed. ``bad``: negative or infinite samples, taken as missing.
    """

    resets: NDArray[np.int64]
    gaps: NDArray[np.int64]
    bad: NDArray[np.int64]


def _observed(totals: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    """Return the samples with bad ones missing, and which ones were bad."""
    try:
        values = np.asarray(totals, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"totals: must be numbers: {error}") from None
    if values.ndim == 0:
        raise ValueError("totals: must have an axis of points")
    bad = np.isinf(values) | (values < 0)
    return np.where(bad, np.nan, values), bad


def increases(totals: ArrayLike) -> Array:
    """Return what was counted in each interval.

    Parameters
    ----------
    totals:
        Running totals, ``(..., points)``, NaN = missing. Negative and infinite samples count as missing.

    Returns ------- Same shape; column t holds the increase since column t-1. NaN in the first column and
    wherever one of the two samples is missing.

    Raises
    ------
    ValueError
        When the totals are not an array of numbers.
    """
    values, _ = _observed(totals)
    out = np.full(values.shape, np.nan)
    before, after = values[..., :-1], values[..., 1:]
    # A drop is a reset; NaN compares false and goes through the subtraction as NaN, as does the value itself.
    out[..., 1:] = np.where(after < before, after, after - before)
    return out


def counter_quality(totals: ArrayLike) -> CounterQuality:
    """Count resets, gaps and bad samples of running totals ``(..., points)``; shapes ``(...,)``.

    Restarts of the canary are themselves a metric: ``resets`` of both arms can be compared as counts.

    Raises
    ------
    ValueError
        When the totals are not an array of numbers.
    """
    values, bad = _observed(totals)
    points = values.shape[-1]
    seen = ~np.isnan(values)
    increase = increases(values)
    first = seen & (np.cumsum(seen, axis=-1) == 1)
    gaps = seen & np.isnan(increase) & ~first
    # The last sample observed before each column, found by its position.
    position = np.where(seen, np.arange(points), -1)
    last = np.maximum.accumulate(position, axis=-1)[..., :-1]
    held = np.take_along_axis(values, np.maximum(last, 0), axis=-1) if points > 1 else values[..., :0]
    drops = (last >= 0) & (values[..., 1:] < held)
    return CounterQuality(
        np.asarray(drops.sum(axis=-1), dtype=np.int64),
        np.asarray(gaps.sum(axis=-1), dtype=np.int64),
        np.asarray(bad.sum(axis=-1), dtype=np.int64),
    )
