"""Watches: what a stream keeps of its past and of every scrape, one for each way of judging it.

A watch learns from the past once, takes scrapes one by one, and says at any moment what it has seen. Its arrays are
plain numpy in two dictionaries: ``learnt`` never changes, ``run`` grows with the scrapes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tidegate_analysis.decide import ROUNDING, Policy, quantile_t, tail_p
from tidegate_analysis.kernels import sequential

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Errors = tuple[tuple[Floats, Floats], ...]
# Fewest scrapes from which a window's own spread is asked.
FIRST_LOOK = 8


class Seen(NamedTuple):
    """What a watch says now; arrays over series, changes on their scale.

    Attributes
    ----------
    p_value, p_beyond:
        Of the evidence so far, and of its part that was seen while the change was beyond the margin; both only fall.
    log_e:
        Log e-value, NaN for watches with a horizon.
    estimate, low, high:
        The change and its repeated confidence bounds (Jennison and Turnbull 1989), valid at every look; NaN = unknown.
    scrapes:
        Scrapes that told something.
    method:
        Method ids.
    windows, exceeding:
        Comparable past windows, and how many of them showed a change at least this large.
    """

    p_value: Floats
    p_beyond: Floats
    log_e: Floats
    estimate: Floats
    low: Floats
    high: Floats
    scrapes: Floats
    method: list[str]
    windows: NDArray[np.int64]
    exceeding: NDArray[np.int64]


def looks_at(t: int, horizon: int | None) -> bool:
    """Whether a series that is judged by its own spread is looked at after ``t`` scrapes.

    At every scrape at first, then about 40 times for each doubling, and at the horizon: a plan that depends on nothing
    but the number of scrapes.
    """
    return t >= FIRST_LOOK and (t % max(1, t // 40) == 0 or t == horizon)


def scores(estimate: Floats, errors: Errors, sign: Floats | None = None) -> tuple[Floats, Floats]:
    """Smallest normal scores of the change, upward and downward, over several standard errors (equal tails).

    Only the way the estimate points to has a score that can ever be evidence; the other is told as 0, and so is the
    way that is not worse where ``sign`` (1 up, -1 down, 0 both) tells it.
    """
    least = np.full(len(estimate), np.inf)
    for se, df in errors:
        ok = np.isfinite(se) & (se > ROUNDING * np.abs(estimate)) & np.isfinite(estimate)
        asked = ok & (estimate != 0) & (least > 0)
        if sign is not None:
            asked &= sign * estimate >= 0
        rows = np.flatnonzero(asked)
        t = np.abs(estimate[rows]) / se[rows]
        z = np.zeros(len(estimate))
        z[rows] = -special.ndtri(np.clip(tail_p(t, df[rows]), 1e-300, 1.0 - 1e-16))
        np.minimum(least, z, out=least)
    return np.where(estimate > 0, least, 0.0), np.where(estimate < 0, least, 0.0)


def raise_maxima(run: dict[str, Floats], policy: Policy, rows: Bools, up: Floats, down: Floats, change: Floats) -> None:
    """Raise the running maxima of a watch, and those of the evidence seen while the change was beyond the margin.

    Parameters
    ----------
    run:
        Has ``up``, ``down``, ``beyond_up`` and ``beyond_down``, (series,) each; its entries are replaced.
    rows:
        Shape (series,), which of them are looked at.
    up, down, change:
        Shape (series, windows): heights of the evidence both ways, and the change, on its scale.
    """
    better = np.where(policy.sign == 0, policy.better, policy.worse)[:, None]
    for name, heights, beyond in (("up", up, change > policy.worse[:, None]), ("down", down, -change > better)):
        run[name] = np.where(rows, np.maximum(run[name], heights.max(axis=1)), run[name])
        shown = np.where(beyond, heights, 0.0).max(axis=1)
        kept = run[f"beyond_{name}"]
        run[f"beyond_{name}"] = np.where(rows, np.maximum(kept, shown), kept)


def spread_over(rows: Bools, *values: Floats) -> Floats:
    """Put values of some series into rows of an array over all; 0 for the rest and where unknown."""
    full = np.zeros((len(values), len(rows)))
    full[:, rows] = np.nan_to_num(np.stack(values))
    return full


def half_width(errors: Errors, level: Floats, scrapes: int, horizon: int | None, n: Floats) -> Floats:
    """Half-width of a repeated confidence bound by the window's own standard errors: the widest of them."""
    if horizon is not None:
        b = sequential.boundary(level, np.full(len(level), np.inf)) * np.sqrt(horizon / max(scrapes, 1))
    else:
        b = sequential.normal_mixture_bound(level, n)
    width = np.zeros(len(level))
    for se, df in errors:
        # The same tail by Student's t as the boundary has by the normal.
        q = quantile_t(np.clip(special.ndtr(-b), 1e-12, 0.5), np.nan_to_num(df, nan=1.0))
        width = np.maximum(width, q * se)
    # Nothing moves: there is no yardstick.
    return np.where(width > 0.0, width, np.nan)


def bounds(estimate: Floats, to_null: Floats, to_margin: Floats, sign: Floats) -> tuple[Floats, Floats]:
    """Lower and upper bound: the one towards "no change" from ``to_null``, the other from ``to_margin``."""
    low = estimate - np.where(sign < 0, to_margin, to_null)
    high = estimate + np.where(sign <= 0, to_null, to_margin)
    return np.where(np.isfinite(low), low, np.nan), np.where(np.isfinite(high), high, np.nan)
