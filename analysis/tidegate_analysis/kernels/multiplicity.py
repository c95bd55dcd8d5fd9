"""Many questions at once: adjusted p-values and e-values over the last axis. NaN = not asked."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def _ordered(p: Floats) -> tuple[Floats, NDArray[np.intp], Floats]:
    order = np.argsort(p, axis=-1)  # NaN last
    count = (~np.isnan(p)).sum(axis=-1, keepdims=True).astype(np.float64)
    return np.take_along_axis(p, order, axis=-1), order, count


def _restore(values: Floats, order: NDArray[np.intp], p: Floats) -> Floats:
    out = np.empty_like(values)
    np.put_along_axis(out, order, values, axis=-1)
    out[np.isnan(p)] = np.nan
    return out


def benjamini_hochberg(p: Floats) -> Floats:
    """Adjusted p-values that bound the false-discovery rate: ``min_{j>=i} m p_(j) / j``.

    Benjamini and Hochberg (1995), eq. 1. ``p`` has the shape (..., tests). When no hypothesis is false, the family-wise
    error is bounded too.
    """
    s, order, m = _ordered(p)
    j = np.arange(1, p.shape[-1] + 1)
    scaled = np.where(np.isnan(s), np.inf, s * m / j)
    adjusted = np.minimum.accumulate(scaled[..., ::-1], axis=-1)[..., ::-1]
    return _restore(np.minimum(adjusted, 1.0), order, p)


def holm(p: Floats) -> Floats:
    """Adjusted p-values that bound the family-wise error: ``max_{j<=i} (m - j + 1) p_(j)`` (Holm 1979)."""
    s, order, m = _ordered(p)
    j = np.arange(p.shape[-1])
    scaled = np.where(np.isnan(s), 0.0, s * (m - j))
    adjusted = np.maximum.accumulate(scaled, axis=-1)
    return _restore(np.minimum(adjusted, 1.0), order, p)


def simes(p: Floats) -> Floats:
    """One p-value for a whole group: ``min_i m p_(i) / i`` (Simes 1986). NaN for an empty one."""
    if p.shape[-1] == 0:
        return np.full(p.shape[:-1], np.nan)
    s, _, m = _ordered(p)
    j = np.arange(1, p.shape[-1] + 1)
    best = np.where(np.isnan(s), np.inf, s * m / j).min(axis=-1)
    return np.asarray(np.where(np.isfinite(best), np.minimum(best, 1.0), np.nan))


def grouped(p: Floats, group: NDArray[np.int64], q: float) -> tuple[Floats, Floats, Bools]:
    """Two-level control: Simes within groups, Benjamini-Hochberg over groups and inside the selected ones.

    Inside a selected group the level is ``q * selected / groups`` (Benjamini and Bogomolov 2014), so that the
    false-discovery rate averaged over the selected groups stays below q.

    Parameters
    ----------
    p:
        Shape (tests,); NaN = not asked.
    group:
        Shape (tests,), 0-based number of each test's group.
    q:
        The false-discovery rate.

    Returns
    -------
    adjusted, group_adjusted, rejected:
        Adjusted p-values of the tests (reject at ``<= q``), of the groups, and what is rejected.
    """
    n_groups = int(group.max()) + 1 if len(group) else 0
    if n_groups == 0:
        return np.zeros(0), np.zeros(0), np.zeros(0, dtype=bool)
    width = int(np.bincount(group, minlength=n_groups).max())
    order = np.argsort(group, kind="stable")
    first = np.searchsorted(group[order], np.arange(n_groups))
    column = np.empty(len(group), dtype=np.int64)
    column[order] = np.arange(len(group)) - first[group[order]]
    table = np.full((n_groups, width), np.nan)
    table[group, column] = p
    group_adjusted = benjamini_hochberg(simes(table))
    selected = np.nan_to_num(group_adjusted, nan=2.0) <= q
    asked = int((~np.isnan(group_adjusted)).sum())
    share = max(int(selected.sum()), 1) / max(asked, 1)
    inside = benjamini_hochberg(table)[group, column] / share
    adjusted = np.minimum(np.maximum(inside, group_adjusted[group]), 1.0)
    with np.errstate(invalid="ignore"):
        return adjusted, group_adjusted, (adjusted <= q) & selected[group]


def e_benjamini_hochberg(log_e: Floats, q: float) -> Bools:
    """Reject with e-values at one common time: the largest k with ``k e_(k) / m >= 1/q``.

    Wang and Ramdas (2022). Holds under any dependence. ``log_e`` has the shape (..., tests), NaN = not asked.
    """
    with np.errstate(invalid="ignore"):
        return np.asarray(e_adjusted(log_e) <= q)


def e_adjusted(log_e: Floats) -> Floats:
    """Smallest false-discovery rate at which e-BH rejects each test: ``min_{j >= i} m / (j e_(j))``, at most 1.

    Benjamini-Hochberg of ``1 / e`` (Wang and Ramdas 2022). ``log_e`` has the shape (..., tests), NaN = not asked.
    """
    with np.errstate(over="ignore"):
        return benjamini_hochberg(np.exp(-log_e))
