"""Mid-ranks and rank sums by packed keys: one integer sort, no argsort.

A float64 is mapped to an int64 of the same order, its lowest bits are given up, and the arm (1 bit) or
the column (enough bits to number the columns) is packed there. Sorting the keys then sorts values and
labels at once. Values that agree to 2**-51 (rank sums) or to 2**-(51 - bits of the column) (mid-ranks) of
their size count as ties.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_LOW63 = np.int64(0x7FFF_FFFF_FFFF_FFFF)


# Blocks of this many values stay in the second-level cache, with their keys and labels: three times faster
# than whole arrays, whose temporaries the system hands out page by page at every call.
_BLOCK_VALUES = 32_768


def _keys(z: Floats, bits: int) -> tuple[NDArray[np.int64], NDArray[np.bool_] | None]:
    """Return int64 keys in the order of ``z`` with the lowest ``bits`` cleared, and where values are missing.

    Missing values get the largest key, above infinity; the mask is None when there are none.
    """
    keys = (z + 0.0).view(np.int64)  # + 0.0 merges the two zeros
    sign = keys >> 63
    sign &= _LOW63
    keys ^= sign
    np.bitwise_and(keys, np.int64(-(1 << bits)), out=keys)
    missing = np.isnan(z)
    if not missing.any():
        return keys, None
    np.copyto(keys, _LOW63 >> bits << bits, where=missing)
    return keys, missing


def _blocks(series: int, points: int) -> list[slice]:
    """Return the rows of each block."""
    rows = max(1, _BLOCK_VALUES // max(points, 1))
    return [slice(k, min(k + rows, series)) for k in range(0, series, rows)]


def _check(name: str, z: Floats) -> Floats:
    out = np.ascontiguousarray(z, dtype=np.float64)
    if out.ndim != 2:
        raise ValueError(f"{name}: must have the shape (series, points), not {out.shape}")
    return out


def rank_sums(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Count the pairs in which ``x`` exceeds ``y``, ties as one half, and the tie term.

    Parameters
    ----------
    x, y:
        Shapes (series, m) and (series, n); NaN = missing, so that rows may be ragged.

    Returns
    -------
    U, tie:
        Shape (series,). ``U = #{x > y} + #{x = y} / 2``, the statistic of Mann and Whitney (1947);
        ``tie = sum(t**3 - t)`` over the groups of ties of the pooled row (Kruskal and Wallis 1952).

    Raises
    ------
    ValueError
        When the arrays are not two-dimensional or have different numbers of series.
    """
    x, y = _check("x", x), _check("y", y)
    if len(x) != len(y):
        raise ValueError(f"y: {len(y)} series beside {len(x)} in x")
    S, m = x.shape
    n = y.shape[1]
    N = m + n
    if N == 0 or S == 0:
        return np.zeros(S), np.zeros(S)
    U, tie = np.empty(S), np.empty(S)
    for rows in _blocks(S, N):
        U[rows], tie[rows] = _rank_sums(np.concatenate([x[rows], y[rows]], axis=1), m)
    return U, tie


def _rank_sums(z: Floats, m: int) -> tuple[Floats, Floats]:
    """Do the work of :func:`rank_sums` on one block of pooled rows, the first ``m`` columns being x."""
    S, N = z.shape
    n = N - m
    keys, missing = _keys(z, 1)
    keys[:, m:] |= 1
    m_i, n_i = np.float64(m), np.float64(n)
    if missing is not None:
        # Missing values lose their arm: they sort last, and neither sums nor ranks of the rest see them.
        np.bitwise_and(keys, np.int64(-2), out=keys, where=missing)
        m_i = m - missing[:, :m].sum(axis=1)
        n_i = n - missing[:, m:].sum(axis=1)
    keys.sort(axis=1)
    # Sums of ranks stay exact in float32 up to 2**24; BLAS does them at the speed of memory.
    exact = np.float32 if N <= 4096 else np.float64
    label = (keys.astype(np.int8) & np.int8(1)).astype(exact)
    rank_sum = (label @ np.arange(1, N + 1, dtype=exact)).astype(np.float64)
    U = m_i * n_i - (rank_sum - n_i * (n_i + 1) / 2.0)  # ties counted as x < y so far
    keys >>= 1
    # All rows as one: the last of a row beside the first of the next is looked at for nothing, and it is faster so.
    flat = keys.ravel()
    equal = np.zeros(S * N, dtype=bool)
    np.equal(flat[1:], flat[:-1], out=equal[:-1])
    tie = np.zeros(S)
    same = equal.reshape(S, N)[:, :-1]
    if missing is not None:
        same &= keys[:, 1:] != (_LOW63 >> 1)
    if equal.any() and same.any():
        tied = np.flatnonzero(same.any(axis=1))
        R = tied.size
        new = np.ones((R, N), dtype=bool)
        np.logical_not(same[tied], out=new[:, 1:])
        start = np.flatnonzero(new)
        length = np.diff(start, append=R * N).astype(np.float64)
        in_y = np.add.reduceat(label[tied].ravel(), start).astype(np.float64)
        row = start // N
        U[tied] += 0.5 * np.bincount(row, weights=in_y * (length - in_y), minlength=R)
        tie[tied] = np.bincount(row, weights=length * (length * length - 1.0), minlength=R)
    return U, tie


def midranks(z: Floats) -> tuple[Floats, Floats]:
    """Rank each row, ties by their mean, in the order of the columns.

    Parameters
    ----------
    z:
        Shape (series, points); NaN = missing.

    Returns
    -------
    ranks, tie:
        Ranks of the shape of ``z``, NaN where missing, from 1; and ``sum(t**3 - t)`` of each row, shape
        (series,).
    """
    z = _check("z", z)
    S, N = z.shape
    if N == 0 or S == 0:
        return np.zeros((S, N)), np.zeros(S)
    ranks, tie = np.empty((S, N)), np.empty(S)
    for rows in _blocks(S, N):
        ranks[rows], tie[rows] = _midranks(z[rows])
    return ranks, tie


def _midranks(z: Floats) -> tuple[Floats, Floats]:
    """Do the work of :func:`midranks` on one block."""
    S, N = z.shape
    bits = max(int(N - 1).bit_length(), 1)
    keys, missing = _keys(z, bits)
    keys |= np.arange(N, dtype=np.int64)
    keys.sort(axis=1)
    flat = (keys & ((1 << bits) - 1)) + (np.arange(S, dtype=np.int64) * N)[:, None]
    keys >>= bits
    new = np.ones((S, N), dtype=bool)
    np.not_equal(keys[:, 1:], keys[:, :-1], out=new[:, 1:])
    if missing is not None:
        new[:, 1:] |= keys[:, 1:] == (_LOW63 >> bits)
    ranks = np.empty(S * N)
    tie = np.zeros(S)
    if new.all():
        ranks[flat] = np.arange(1.0, N + 1.0)
    else:
        start = np.flatnonzero(new)
        length = np.diff(start, append=S * N)
        row = start // N
        ranks[flat.ravel()] = np.repeat((start - row * N) + 0.5 * (length + 1), length)
        run = length.astype(np.float64)
        tie[:] = np.bincount(row, weights=run * (run * run - 1.0), minlength=S)
    out = ranks.reshape(S, N)
    if missing is not None:
        np.copyto(out, np.nan, where=missing)
    return out, tie


def superiority(x: Floats, y: Floats) -> Floats:
    """Estimate P(y > x) + P(y = x) / 2 for each row: 0.5 when the arms are alike (Brunner and Munzel 2000).

    Shapes as in :func:`rank_sums`; NaN for a row in which an arm is empty.
    """
    U, _ = rank_sums(x, y)
    pairs = (~np.isnan(np.asarray(x))).sum(axis=1) * (~np.isnan(np.asarray(y))).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(pairs > 0, 1.0 - U / pairs, np.nan)
