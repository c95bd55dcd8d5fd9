"""What is wrong with the data itself: values that stopped moving, traffic that is split otherwise than agreed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tidegate_analysis.kernels import dependence
from tidegate_analysis.kernels.shared import as_floats, as_number

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# Scrapes with one and the same value at the end of a series that moved before.
STALE_RUN = 5
# A series moves when at most this share of its steps before repeat the value.
MOVING = 0.2
SPLIT_ALPHA = 0.001
# More requests than this in a scrape are no number of requests.
LARGEST = 1e75


def stale(values: Floats, beside: Floats | None = None) -> Ints:
    """Scrapes at the end of each row that repeat one value although the row moved before; 0 where it is not stale.

    An exporter that hangs goes on answering with the last thing it knew: at least 5 equal values at the end of a row in
    which at most a fifth of the earlier steps repeated a value. One that hung before the first scrape never moves at
    all: its row is stale when the one ``beside`` it moves.

    Parameters
    ----------
    values, beside:
        Shape (series, points), NaN = missing.
    """
    S, width = values.shape
    if width <= 2 * STALE_RUN:
        return np.zeros(S, dtype=np.int64)
    same = values[:, 1:] == values[:, :-1]
    run = same[:, ::-1].cumprod(axis=1).sum(axis=1) + 1
    before = np.arange(width - 1) < (width - run)[:, None]
    is_stale = (run >= STALE_RUN) & (run < width) & _moves(values, before)
    if beside is not None:
        is_stale |= (run == width) & _moves(beside, np.ones(before.shape, dtype=bool))
    return np.where(is_stale, run, 0).astype(np.int64)


def _moves(values: Floats, among: Bools) -> Bools:
    """Whether at most a fifth of the steps in question, 5 at least, repeat a value."""
    steps = among & ~np.isnan(values[:, 1:]) & ~np.isnan(values[:, :-1])
    known = steps.sum(axis=1)
    repeats = ((values[:, 1:] == values[:, :-1]) & steps).sum(axis=1)
    return np.asarray((known >= STALE_RUN) & (repeats <= MOVING * known))


class Split(NamedTuple):
    """Outcome of :func:`traffic_split`, arrays over series: the canary's share, a p-value, and whether it is off."""

    share: Floats
    p_value: Floats
    off: Bools


def traffic_split(baseline: ArrayLike, canary: ArrayLike, expected_share: float) -> Split:
    """Ask whether the canary gets the share of the traffic that was agreed (sample-ratio mismatch).

    A comparison whose arms are not fed as planned compares something else. Two-sided z test of the canary's share of
    all requests; its variance is the binomial's or, where shares wander more than that from scrape to scrape, their own
    with respect to autocorrelation (whichever is larger). Off means p < 0.001.

    Parameters
    ----------
    baseline, canary:
        Requests per scrape, (series, points), NaN = missing.
    expected_share:
        The canary's agreed share of both arms' traffic, in (0, 1).

    Raises
    ------
    ValueError
        When shapes differ or the share is out of range.
    """
    x, y = as_floats("baseline", baseline), as_floats("canary", canary)
    if x.ndim != 2 or x.shape != y.shape:
        raise ValueError(f"canary: shape {y.shape} does not fit the baseline's {x.shape}")
    if not 0.0 < as_number(expected_share) < 1.0:
        raise ValueError(f"expected_share: must lie between 0 and 1, not {expected_share!r}")
    with np.errstate(invalid="ignore"):
        usable = (x >= 0) & (y >= 0) & (x <= LARGEST) & (y <= LARGEST)
    a, b = np.where(usable, x, 0.0), np.where(usable, y, 0.0)
    total = (a + b).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = b.sum(axis=1) / total
        # Influence of each scrape on the share: its surplus of canary requests, per average scrape.
        surplus = np.where(usable, b - share[:, None] * (a + b), np.nan) / (total / usable.sum(axis=1))[:, None]
    se1, _, se2, _ = dependence.standard_errors(surplus)
    with np.errstate(invalid="ignore", divide="ignore"):
        binomial = np.sqrt(expected_share * (1.0 - expected_share) / total)
        z = np.abs(share - expected_share) / np.fmax(np.fmax(se1, se2), binomial)
    p = np.where(np.isfinite(z), 2.0 * special.ndtr(-np.where(np.isfinite(z), z, 0.0)), 1.0)
    return Split(share, p, p < SPLIT_ALPHA)
