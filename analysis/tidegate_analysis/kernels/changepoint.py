"""Where a change began: asked only after a verdict, never as the test itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.kernels.dependence import ar1_inflation, lag1

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
# Drop of the log-likelihood profile that 90 % of the sets of a single change stay within (Bai 1997, sec. IV).
CUT = {0.8: 2.9, 0.9: 3.8}


def winsorise(x: Floats, share: float = 0.1) -> Floats:
    """Clip each row at its ``share`` and ``1 - share`` quantiles; NaN stays. Shape (series, points)."""
    s = np.sort(x, axis=1)
    n = (~np.isnan(s)).sum(axis=1)
    k = (share * n).astype(np.int64)
    rows = np.arange(len(x))
    last = max(x.shape[1] - 1, 0)
    return np.clip(x, s[rows, np.clip(k, 0, last)][:, None], s[rows, np.clip(n - k - 1, 0, last)][:, None])


def onset(d: Floats, level: Floats, *, share: float = 0.9) -> tuple[Ints, Ints, Ints]:
    """First point of a lasting shift away from a known level, with its confidence set.

    For each k the points from k on are given their own mean and those before k the known ``level``; the gain
    in fit is ``(sum_{t>=k} (d_t - level))^2 / (n - k)``, the known-level form of the weighted CUSUM, over
    values winsorised so that one spike does not place it. The set holds every k whose gain is within ``2
    cut`` residual variances (inflated for autocorrelation) of the best.

    Parameters
    ----------
    d:
        Shape (series, points), NaN = missing.
    level:
        Shape (series,), the level before any change.

    Returns
    -------
    best, earliest, latest:
        0-based columns, shape (series,); -1 where there are fewer than 4 points.
    """
    S, width = d.shape
    none = np.full(S, -1, dtype=np.int64)
    if width < 4:
        return none, none.copy(), none.copy()
    centred = d - level[:, None]
    present = ~np.isnan(centred)
    z = np.where(present, winsorise(centred, 0.05), 0.0)
    tail = np.cumsum(z[:, ::-1], axis=1)[:, ::-1]
    left = np.maximum(np.cumsum(present[:, ::-1], axis=1)[:, ::-1], 1)
    gain = tail * tail / left
    gain[:, width - 2 :] = 0.0  # two points are no lasting shift
    best = gain.argmax(axis=1)
    rows = np.arange(S)
    column = np.arange(width)
    after = column >= best[:, None]
    mean = tail[rows, best] / left[rows, best]
    residual = np.where(present, z - np.where(after, mean[:, None], 0.0), np.nan)
    n = present.sum(axis=1).astype(np.float64)
    variance = np.nansum(residual**2, axis=1) / np.maximum(n - 1.0, 1.0)
    inflation = ar1_inflation(np.nan_to_num(lag1(residual)), np.maximum(n, 1.0))
    width_of_set = 2.0 * CUT[share] * variance * inflation
    inside = (gain.max(axis=1)[:, None] - gain <= width_of_set[:, None]) & (column < width - 2)
    earliest = inside.argmax(axis=1)
    latest = width - 1 - inside[:, ::-1].argmax(axis=1)
    known = n >= 4
    return (
        np.where(known, best, -1),
        np.where(known, np.minimum(earliest, best), -1),
        np.where(known, np.maximum(latest, best), -1),
    )
