"""Placebo windows: how large is this statistic when nothing happened?

The statistic of interest is computed in the same way over K past windows; their spread is its standard error.
Whatever the dependence within a window is, it is in there: that is what one-window corrections cannot know.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CLIP = 5.0
MAD_TO_SD = 1.482602218505602


def centre_and_scale(past: Floats, *, centred: bool = True) -> tuple[Floats, Floats, Floats]:
    """Centre, scale and number of the past values of a statistic, a few past incidents notwithstanding.

    The centre is the mean, and the scale the root mean square about it, of the values clipped at 5 robust
    standard deviations from their median (a one-step Huber estimate, Huber 1964), so that an incident among
    the windows costs power and not size.

    Parameters
    ----------
    past:
        Shape (series, K); NaN = unusable window.
    centred:
        When false the centre is 0 by assumption.

    Returns
    -------
    centre, scale, k:
        Shape (series,). With ``centred`` the scale has the divisor k - 1. NaN where there is no window.
    """
    k = (~np.isnan(past)).sum(axis=1).astype(np.float64)
    if past.shape[1] == 0:
        nothing = np.full(len(past), np.nan)
        return nothing, nothing.copy(), k
    ordered = np.sort(past, axis=1)
    median = median_of_sorted(ordered, k) if centred else np.zeros(len(past))
    deviation = np.sort(np.abs(past - median[:, None]), axis=1)
    reach = CLIP * MAD_TO_SD * median_of_sorted(deviation, k)
    # More than half of the windows equal: no robust scale, so nothing is clipped.
    reach = np.where(reach > 0, reach, np.inf)
    clipped = np.clip(past, (median - reach)[:, None], (median + reach)[:, None])
    clipped = np.where(np.isnan(past), np.nan, clipped)
    with np.errstate(invalid="ignore", divide="ignore"):
        if centred:
            centre = np.nansum(clipped, axis=1) / k
            square = np.nansum((clipped - centre[:, None]) ** 2, axis=1) / (k - 1.0)
        else:
            centre = np.zeros(len(past))
            square = np.nansum(clipped**2, axis=1) / k
    known = k >= (2 if centred else 1)
    return np.where(known, centre, np.nan), np.where(known, np.sqrt(square), np.nan), k


def median_of_sorted(ordered: Floats, n: Floats) -> Floats:
    """Median of rows sorted with NaN last, given their numbers of observed values; NaN for an empty row."""
    rows = np.arange(len(ordered))
    size = n.astype(np.int64)
    last = ordered.shape[1] - 1
    low = ordered[rows, np.clip((size - 1) // 2, 0, last)]
    high = ordered[rows, np.clip(size // 2, 0, last)]
    return np.asarray(np.where(size > 0, 0.5 * (low + high), np.nan))


def exceeding(statistic: Floats, past: Floats) -> NDArray[np.int64]:
    """How many past windows show a value of at least ``statistic`` (shape (series,)); NaN never does."""
    with np.errstate(invalid="ignore"):
        return np.asarray((past >= statistic[:, None]).sum(axis=1), dtype=np.int64)
