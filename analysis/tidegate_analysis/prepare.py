"""From raw arrays to the scale on which a change is measured; what had to be mended is counted and told."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate_analysis.kernels.shared import as_floats
from tidegate_analysis.spec import QualityNote

Floats = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# Beyond this a fourth power overflows; such values can only be garbage.
HUGE = 1e75
# Below this, on the linear scale, a fourth power vanishes: what is smaller counts as 0.
TINY = 1e-75


def as_points(name: str, values: ArrayLike, dims: tuple[int, ...] = (2,)) -> Floats:
    """Return a float64 array of (series, ..., points).

    Raises
    ------
    ValueError
        When it is not numeric or has another number of dimensions; the message names the argument.
    """
    out = as_floats(name, values)
    if out.ndim not in dims:
        shapes = " or ".join(
            {2: "(series, points)", 3: "(series, instances, points)", 4: "(series, windows, 2, points)"}[d]
            for d in dims
        )
        raise ValueError(f"{name}: must have the shape {shapes}, not {out.shape}")
    if out.shape[-1] == 0 and out.ndim < 4:
        # No points at all are one missing point: every kernel then has a column to look at.
        return np.full((*out.shape[:-1], 1), np.nan)
    return out


def check_exposure(name: str, values: ArrayLike | None, arm: Floats) -> Floats | None:
    """Return the totals that an arm's values are events of, in the shape of the arm; ``None`` for none.

    Raises
    ------
    ValueError
        When the shape is another; the message names the argument.
    """
    if values is None:
        return None
    out = as_points(name, values, (arm.ndim,))
    if out.shape != arm.shape:
        raise ValueError(f"{name}: shape {out.shape} does not fit the arm's {arm.shape}")
    return out


class Prepared(NamedTuple):
    """Arms on the scale of the change, with what was mended.

    ``parts`` has the arrays that were given, each (series, ..., points), on the log or the linear scale;
    ``bad`` the number of infinite, absurd or (on the log scale) negative points per part and series;
    ``floor`` what a zero was replaced by on the log scale.
    """

    parts: tuple[Floats, ...]
    bad: tuple[Ints, ...]
    zeros: tuple[Ints, ...]


def to_scale(arrays: tuple[Floats, ...], log: Bools) -> Prepared:
    """Bring arrays of the same series to their scale.

    Infinite values count as the largest (or smallest) finite one of the series, so that dropping them cannot
    hide a regression; so do values beyond 1e75. On the log scale a zero counts as half the smallest positive
    value of the series, whatever the unit; negative values there are missing.

    Parameters
    ----------
    arrays:
        Each (series, ..., points), NaN = missing.
    log:
        Shape (series,), whether the series is measured in ratios.
    """
    S = len(log)
    if bool(log.all()) and all(_plainly_positive(a) for a in arrays):
        none = tuple(np.zeros(S, dtype=np.int64) for _ in arrays)
        return Prepared(tuple(np.log(a) for a in arrays), none, none)
    flat = [rows_of(a) for a in arrays]
    everything = np.concatenate(flat, axis=1) if flat else np.zeros((S, 0))
    with np.errstate(invalid="ignore"):
        fine = np.abs(everything) <= HUGE
    all_fine = bool((fine | np.isnan(everything)).all())
    any_log = bool(log.any())
    low = high = half = np.zeros(S)
    if everything.shape[1]:
        if not all_fine:
            low = np.where(fine, everything, np.inf).min(axis=1)
            high = np.where(fine, everything, -np.inf).max(axis=1)
        if any_log:
            with np.errstate(invalid="ignore"):
                positive = fine & (everything > 0)
            half = 0.5 * np.where(positive, everything, np.inf).min(axis=1)
            half = np.where(np.isfinite(half), np.maximum(half, np.nextafter(0.0, 1.0)), 1.0)
    parts, bads, zeros = [], [], []
    for original, values in zip(arrays, flat, strict=True):
        x = values
        bad = np.zeros(S, dtype=np.int64)
        zero = np.zeros(S, dtype=np.int64)
        mended: Bools | None = None
        if not all_fine:
            with np.errstate(invalid="ignore"):
                up, down = x > HUGE, x < -HUGE
            mended = up | down
            bad += mended.sum(axis=1)
            x = np.where(up, high[:, None], np.where(down, low[:, None], x))
            x = np.where(np.isfinite(x), x, np.nan)
        if not log.all():
            with np.errstate(invalid="ignore"):
                x = np.where((np.abs(x) < TINY) & ~log[:, None], 0.0, x)
        if any_log:
            with np.errstate(invalid="ignore", divide="ignore"):
                negative = (x < 0) & log[:, None]
                null = (x == 0) & log[:, None]
                bad += (negative if mended is None else negative & ~mended).sum(axis=1)
                zero += null.sum(axis=1)
                if zero.any():
                    x = np.where(null, half[:, None], x)
                logged = np.log(x)
            x = logged if bool(log.all()) else np.where(log[:, None], logged, x)
            if negative.any():
                x = np.where(negative, np.nan, x)
        parts.append(x.reshape(original.shape))
        bads.append(bad)
        zeros.append(zero)
    return Prepared(tuple(parts), tuple(bads), tuple(zeros))


def rows_of(values: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return all values of a series in one row, (series, values); also of no series at all."""
    return values.reshape(len(values), math.prod(values.shape[1:]))


def _plainly_positive(values: Floats) -> bool:
    """Whether nothing is missing, infinite, absurd or not positive: the common case, told by two quick passes."""
    return values.size == 0 or bool(values.min() > 0.0 and values.max() <= HUGE)


def level(values: Floats) -> Floats:
    """Median of the finite values of each series, in the metric's unit; NaN for an empty one. Shape
    (series,).
    """
    flat = rows_of(values)
    s = np.sort(np.where(np.isfinite(flat), flat, np.nan), axis=1)
    n = (~np.isnan(s)).sum(axis=1)
    if s.shape[1] == 0:
        return np.full(len(s), np.nan)
    rows = np.arange(len(s))
    last = s.shape[1] - 1
    middle = 0.5 * s[rows, np.clip((n - 1) // 2, 0, last)] + 0.5 * s[rows, np.clip(n // 2, 0, last)]
    return np.asarray(np.where(n > 0, middle, np.nan))


def notes_for(counts: list[tuple[str, Ints, str]], S: int) -> list[list[QualityNote]]:
    """Turn counts per series into notes: ``(code, counts, message with {n})``; a count of 0 gives no note."""
    notes: list[list[QualityNote]] = [[] for _ in range(S)]
    for code, count, message in counts:
        for i in np.flatnonzero(count).tolist():
            n = int(count[i])
            notes[i].append(QualityNote(code, n, message.format(n=n)))
    return notes
