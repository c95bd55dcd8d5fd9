"""Histograms: from bin counts per scrape to a series that can be judged, and back to words people use.

Requests of one scrape are a cluster, not a sample: pooling them over a window and testing as if they were
independent calls 57 to 88 % of healthy canaries faulty. So each scrape gives one number, the probability that
a request of the canary takes longer than one of the baseline (ties count half), and the scrapes are judged as
a series.

Bins are ``upper_bounds`` ``(B,)``, ascending; counts have ``B + 1`` entries on their last axis, the last one
for what lies above all bounds. NaN = missing. Formulas: docs/methods/histograms.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate_analysis.kernels.shared import as_floats

Array = NDArray[np.float64]

LARGEST = 1e75
"""Counts and bounds beyond it (bounds below its inverse, too) overflow when they are multiplied."""
MIN_REQUESTS = 10
"""Requests per scrape and arm below which scrapes are put together."""
GROUPS = (1, 2, 4, 8, 16)
"""How many neighbouring scrapes are put together."""
_FACTORS = np.concatenate([-np.geomspace(2.0, 0.02, 16), [0.0], np.geomspace(0.02, 2.0, 16)])


def check_bounds(upper_bounds: ArrayLike, name: str = "upper_bounds") -> Array:
    """Return bounds as an array.

    Raises
    ------
    ValueError
        When they are not finite numbers in strictly ascending order.
    """
    bounds = as_floats(name, upper_bounds)
    if bounds.ndim != 1 or bounds.size == 0:
        raise ValueError(f"{name}: must be a row of at least one bound")
    if not np.isfinite(bounds).all():
        raise ValueError(f"{name}: must be finite; the bin above the last bound is implied")
    if (np.abs(bounds) > LARGEST).any() or ((bounds != 0) & (np.abs(bounds) < 1.0 / LARGEST)).any():
        raise ValueError(f"{name}: must lie between {1.0 / LARGEST:g} and {LARGEST:g}; choose another unit")
    if not (np.diff(bounds) > 0).all():
        raise ValueError(f"{name}: must be strictly ascending")
    return bounds


def check_bins(counts: ArrayLike, name: str, bins: int | None = None) -> Array:
    """Return bin counts as an array whose scrapes are whole: a scrape with a missing bin is missing.

    Raises
    ------
    ValueError
        On negative or infinite counts, and when there are not as many bins as there should be.
    """
    values = as_floats(name, counts)
    if values.ndim == 0 or (bins is not None and values.shape[-1] != bins):
        raise ValueError(f"{name}: must have {bins} bins on its last axis (one more than bounds), not {values.shape}")
    if np.isinf(values).any():
        raise ValueError(f"{name}: holds an infinite count; use NaN for a missing one")
    if (values < 0).any():
        raise ValueError(f"{name}: holds a negative count")
    if (values > LARGEST).any():
        raise ValueError(f"{name}: holds a count beyond {LARGEST:g}")
    torn = np.isnan(values).any(axis=-1, keepdims=True)
    return np.where(torn, np.nan, values)


# --- what scrapers send ---


def from_cumulative(cumulative: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    """Turn counts "at most the bound" into counts per bin.

    Parameters
    ----------
    cumulative:
        ``(..., B + 1)``, the last entry for +Inf, i.e. the total.

    Returns
    -------
    plain, mended:
        Same shape, and per row ``(...,)`` how many bins came out negative and were set to 0 (a scrape that is
        not one instant).
    """
    values = np.asarray(cumulative, dtype=np.float64)
    plain = np.diff(values, axis=-1, prepend=0.0)
    wrong = plain < 0
    return np.where(wrong, 0.0, plain), np.asarray(wrong.sum(axis=-1), dtype=np.int64)


def bucket_increases(totals: ArrayLike) -> tuple[Array, NDArray[np.int64]]:
    """Return what was counted per interval in histograms whose bins are counters.

    Parameters
    ----------
    totals:
        Running totals, ``(..., points, bins)``, cumulative over bins or not, NaN = missing.

    Returns
    -------
    increase, resets:
        Same shape, NaN in the first column and where a sample or the one before it is missing; and resets per
        row. A drop in any bin is a reset of the whole histogram: every bin then counted from 0.
    """
    values = check_bins(totals, "totals")
    out = np.full(values.shape, np.nan)
    before, after = values[..., :-1, :], values[..., 1:, :]
    reset: NDArray[np.bool_] = np.any(after < before, axis=-1, keepdims=True)
    out[..., 1:, :] = np.where(reset & ~np.isnan(before), after, after - before)
    return out, np.asarray(reset.sum(axis=(-2, -1)), dtype=np.int64)


def merge_bounds(
    baseline_bounds: ArrayLike, baseline: ArrayLike, canary_bounds: ArrayLike, canary: ArrayLike
) -> tuple[Array, Array, Array]:
    """Bring two histograms to the bounds they share; nothing is guessed, bins between them are added up.

    Returns
    -------
    bounds, baseline, canary:
        The common bounds, and counts ``(..., common + 1)``.

    Raises
    ------
    ValueError
        When no bound is common.
    """
    a, b = (
        check_bounds(baseline_bounds, "baseline_bounds"),
        check_bounds(canary_bounds, "canary_bounds"),
    )
    first = check_bins(baseline, "baseline", a.size + 1)
    second = check_bins(canary, "canary", b.size + 1)
    if np.array_equal(a, b):
        return a, first, second
    # The same bound written by two clients may differ in its last bits.
    near = np.clip(np.searchsorted(b, a), 0, b.size - 1)
    lower = np.maximum(near - 1, 0)
    nearest = np.where(np.abs(b[lower] - a) < np.abs(b[near] - a), lower, near)
    same = np.abs(b[nearest] - a) <= 1e-9 * np.abs(a)
    if not same.any():
        raise ValueError("upper_bounds: baseline and canary have no bound in common")
    return a[same], _collect(first, np.flatnonzero(same)), _collect(second, nearest[same])


def _collect(counts: Array, kept: NDArray[np.int64]) -> Array:
    """Add up bins so that only the bounds at ``kept`` remain."""
    return np.asarray(np.add.reduceat(counts, np.concatenate([[0], kept + 1]), axis=-1))


def native_bounds(schema: int, first: int, bins: int) -> Array:
    """Upper bounds of Prometheus native (OpenTelemetry exponential) buckets: ``2**(i / 2**schema)``.

    ``first`` is the index of the first bucket, whose upper bound that is.

    Raises
    ------
    ValueError
        When the schema is not between -4 and 8.
    """
    if not -4 <= schema <= 8:
        raise ValueError(f"schema: must lie between -4 and 8, not {schema}")
    return np.asarray(np.exp2(np.arange(first, first + bins) * 2.0 ** (-schema)))


def coarsen_native(schema: int, first: int, counts: ArrayLike, to_schema: int) -> tuple[int, Array]:
    """Merge native buckets to a coarser schema: one step down puts index ``i`` into ``ceil(i / 2)``.

    Returns
    -------
    first, counts:
        Index of the first coarse bucket, and counts ``(..., coarse bins)``.

    Raises
    ------
    ValueError
        When ``to_schema`` is finer than ``schema``.
    """
    if to_schema > schema:
        raise ValueError(f"to_schema: {to_schema} is finer than {schema}; buckets can be merged, not split")
    values = np.asarray(counts, dtype=np.float64)
    factor = 2 ** (schema - to_schema)
    index = -(-np.arange(first, first + values.shape[-1]) // factor)
    starts = np.flatnonzero(np.diff(index, prepend=index[:1] - 1)) if index.size else np.zeros(0, dtype=np.int64)
    if not index.size:
        return -(-first // factor), values
    return int(index[0]), np.asarray(np.add.reduceat(values, starts, axis=-1))


def merge_native(
    baseline_schema: int,
    baseline_first: int,
    baseline: ArrayLike,
    canary_schema: int,
    canary_first: int,
    canary: ArrayLike,
) -> tuple[Array, Array, Array]:
    """Bring two native histograms to the coarser schema and one range of buckets.

    Returns
    -------
    bounds, baseline, canary:
        As for :func:`merge_bounds`; nothing lies above the last bound, so the last bin is 0.
    """
    schema = min(baseline_schema, canary_schema)
    first_a, a = coarsen_native(baseline_schema, baseline_first, baseline, schema)
    first_b, b = coarsen_native(canary_schema, canary_first, canary, schema)
    first = min(first_a, first_b)
    bins = max(first_a + a.shape[-1], first_b + b.shape[-1]) - first

    def placed(values: Array, at: int) -> Array:
        out = np.zeros((*values.shape[:-1], bins + 1))
        out[..., at - first : at - first + values.shape[-1]] = values
        # A missing scrape stays missing as a whole.
        return np.where(np.isnan(values).any(axis=-1, keepdims=True), np.nan, out)

    return native_bounds(schema, first, bins), placed(a, first_a), placed(b, first_b)


def sketch_bounds(relative_accuracy: float, first: int, bins: int) -> Array:
    """Upper bounds of DDSketch bins (Masson et al., VLDB 2019): ``gamma**i``, ``gamma = (1 + a) / (1 - a)``.

    Raises
    ------
    ValueError
        When the accuracy is not between 0 and 1.
    """
    if not 0.0 < relative_accuracy < 1.0:
        raise ValueError(f"relative_accuracy: must lie between 0 and 1, not {relative_accuracy!r}")
    gamma = (1.0 + relative_accuracy) / (1.0 - relative_accuracy)
    return np.asarray(gamma ** np.arange(first, first + bins))


# --- one number per scrape ---


class HistogramSeries(NamedTuple):
    """Histograms of two arms as a series.

    ``difference`` ``(S, T)``: P(canary > baseline) + P(equal) / 2 - 1/2 per scrape, 0 when alike, 0.5 when
    every request of the canary takes longer; NaN where it is not known. Where scrapes were put together, the
    value stands in the last of them. ``baseline_requests``, ``canary_requests`` ``(S, T)``: requests behind
    it. ``group`` ``(S,)``: scrapes put together. ``thin``: groups left out for too few requests.
    """

    difference: Array
    baseline_requests: Array
    canary_requests: Array
    group: NDArray[np.int64]
    thin: NDArray[np.int64]


def superiority(baseline: ArrayLike, canary: ArrayLike) -> Array:
    """P(a request of the canary falls into a higher bin) + half of P(the same bin), over the last axis.

    ``theta = sum_j c_j (F_j - b_j / 2) / (m n)`` with F the cumulative baseline counts: the Mann-Whitney
    statistic with ties, from bins. NaN where an arm has no request.
    """
    b, c = np.asarray(baseline, dtype=np.float64), np.asarray(canary, dtype=np.float64)
    below = np.cumsum(b, axis=-1) - 0.5 * b
    pairs = b.sum(axis=-1) * c.sum(axis=-1)
    won = (c * below).sum(axis=-1)
    theta = np.full(pairs.shape, np.nan)
    np.divide(won, pairs, out=theta, where=pairs > 0)
    return theta


def difference_series(baseline: ArrayLike, canary: ArrayLike, *, min_requests: float = MIN_REQUESTS) -> HistogramSeries:
    """Return the series that judges two arms of histograms.

    Scrapes with few requests are put together: the fewest neighbours that give the typical scrape of the
    quieter arm ``min_requests``, at most 16 and so that 8 groups remain. Groups that still have fewer are
    left out.

    Parameters
    ----------
    baseline, canary:
        Counts per scrape and bin, ``(S, T, bins)``, not cumulative, on the same bounds, NaN = missing.

    Raises
    ------
    ValueError
        When shapes differ, or counts are negative or infinite.
    """
    b, c = check_bins(baseline, "baseline"), check_bins(canary, "canary")
    if b.ndim != 3:
        raise ValueError(f"baseline: must have the axes (series, points, bins), not {b.shape}")
    if b.shape != c.shape:
        raise ValueError(f"canary: its shape {c.shape} differs from the baseline's, {b.shape}")
    size, points, _ = b.shape
    missing = np.isnan(b[..., 0]) | np.isnan(c[..., 0]) if b.shape[2] else np.ones((size, points), dtype=bool)
    b, c = np.where(missing[..., None], 0.0, b), np.where(missing[..., None], 0.0, c)
    quiet = np.minimum(b.sum(axis=-1), c.sum(axis=-1))
    seen = (~missing).sum(axis=1)
    typical = quiet.sum(axis=1) / np.maximum(seen, 1)
    group = np.ones(size, dtype=np.int64)
    for factor in GROUPS[1:]:
        if points >= 8 * factor:
            group = np.where(typical * group < min_requests, factor, group)
    difference, m, n = (np.full((size, points), np.nan) for _ in range(3))
    thin = np.zeros(size, dtype=np.int64)
    for factor in np.unique(group).tolist():
        rows = np.flatnonzero(group == factor)
        # Aligned to the end, so that a growing window keeps its newest scrapes.
        starts = np.arange(points % factor, points, factor)
        if not starts.size or not rows.size:
            continue
        pooled_b = np.add.reduceat(b[rows], starts, axis=1) if factor > 1 else b[rows]
        pooled_c = np.add.reduceat(c[rows], starts, axis=1) if factor > 1 else c[rows]
        heard = np.add.reduceat(~missing[rows], starts, axis=1) > 0
        total_b, total_c = pooled_b.sum(axis=-1), pooled_c.sum(axis=-1)
        enough = (total_b >= min_requests) & (total_c >= min_requests)
        value = np.where(enough, superiority(pooled_b, pooled_c) - 0.5, np.nan)
        at = np.ix_(rows, starts + factor - 1)
        difference[at], m[at], n[at] = value, total_b, total_c
        thin[rows] = (heard & ~enough).sum(axis=1)
    return HistogramSeries(difference, m, n, group, thin)


def pooled(counts: ArrayLike) -> Array:
    """Add up the scrapes of ``(S, T, bins)``; missing ones count nothing. Shape ``(S, bins)``."""
    return np.asarray(np.nansum(np.asarray(counts, dtype=np.float64), axis=1))


def beyond(counts: Array, last: NDArray[np.int64]) -> Array:
    """Put bins together to two: up to the bin ``last`` (S,) and beyond it. ``(S, ..., bins)`` gives ``(S, ..., 2)``."""
    far = np.arange(counts.shape[-1]) > last.reshape(-1, *(1,) * (counts.ndim - 1))
    return np.stack([np.where(far, 0.0, counts).sum(axis=-1), np.where(far, counts, 0.0).sum(axis=-1)], axis=-1)


def last_bin_within(counts: Array, share: float) -> NDArray[np.int64]:
    """The first bin beyond which at most a ``share`` of the requests lies, ``(S, bins)`` gives ``(S,)``."""
    above = counts.sum(axis=-1, keepdims=True) - np.cumsum(counts, axis=-1)
    return np.asarray((above <= share * counts.sum(axis=-1, keepdims=True) * (1.0 + 1e-12)).argmax(axis=-1))


def worst_level(counts: Array, levels: Array, share: float) -> Array:
    """Mean level of the last ``share`` of the requests; ``levels`` (bins,) go with the bins of ``counts`` (S, bins)."""
    total = counts.sum(axis=-1, keepdims=True)
    above = total - np.cumsum(counts, axis=-1)
    weight = np.clip(share * total - above, 0.0, counts)
    held = weight.sum(axis=-1)
    out = np.full(held.shape, np.nan)
    np.divide((weight * levels).sum(axis=-1), held, out=out, where=held > 0)
    return out


def log_middles(bounds: Array) -> Array:
    """Logarithm of the geometric middle of each bin, ``(B + 1,)``; the open ends are closed by one more step."""
    return np.asarray(0.5 * (_log_edges(bounds)[1:] + _log_edges(bounds)[:-1]))


def _log_edges(bounds: Array) -> Array:
    edges = _edges(bounds)
    if edges[0] <= 0:
        edges[0] = bounds[0] / 10.0
    return np.asarray(np.log(edges))


# --- back to the metric's unit ---


class Quantile(NamedTuple):
    """A quantile read from bins, and the bin it lies in; ``upper`` is inf above the last bound."""

    value: Array
    lower: Array
    upper: Array


def _edges(bounds: Array) -> Array:
    """Bin edges, both ends closed by one more step of the same ratio (width, where that is not positive)."""
    if bounds.size == 1:
        step = abs(float(bounds[0])) or 1.0
        low, high = (0.0 if bounds[0] > 0 else bounds[0] - step), bounds[0] + step
    else:
        positive = bounds[0] > 0
        low = bounds[0] ** 2 / bounds[1] if positive else 2.0 * bounds[0] - bounds[1]
        high = bounds[-1] ** 2 / bounds[-2] if bounds[-2] > 0 else 2.0 * bounds[-1] - bounds[-2]
    return np.concatenate([[low], bounds, [high]])


def quantile(counts: ArrayLike, upper_bounds: ArrayLike, p: float) -> Quantile:
    """Return a quantile of binned values, interpolated along the logarithm within its bin.

    Parameters
    ----------
    counts:
        ``(..., B + 1)``.
    p:
        Between 0 and 1.

    Returns
    -------
    Arrays ``(...,)``; NaN for an empty histogram. Above the last bound the value is that bound.

    Raises
    ------
    ValueError
        When p is not between 0 and 1, or bounds or counts are wrong.
    """
    if not 0.0 < p < 1.0:
        raise ValueError(f"p: must lie between 0 and 1, not {p!r}")
    bounds = check_bounds(upper_bounds)
    values = np.nan_to_num(check_bins(counts, "counts", bounds.size + 1), nan=0.0)
    total = values.sum(axis=-1)
    reached = np.cumsum(values, axis=-1)
    want = p * total
    at = (reached >= want[..., None] * (1.0 - 1e-12)).argmax(axis=-1)
    inside = np.take_along_axis(values, at[..., None], axis=-1)[..., 0]
    before = np.take_along_axis(reached, at[..., None], axis=-1)[..., 0] - inside
    share = np.clip(np.divide(want - before, inside, out=np.ones(total.shape), where=inside > 0), 0.0, 1.0)
    edges = _edges(bounds)
    lower, upper = edges[at], edges[at + 1]
    positive = lower > 0
    ratio = np.where(positive, upper, 1.0) / np.where(positive, lower, 1.0)
    value = np.where(positive, lower * ratio**share, lower + (upper - lower) * share)
    top = at == bounds.size
    value = np.where(top, bounds[-1], value)
    gone = np.where(total > 0, 0.0, np.nan)
    return Quantile(value + gone, lower + gone, np.where(top, np.inf, upper) + gone)


class ScaleMap(NamedTuple):
    """What a common slow-down would do: ``theta`` ``(S, G)`` for the log factors ``(G,)``."""

    log_factor: Array
    theta: Array


def scale_map(counts: ArrayLike, upper_bounds: ArrayLike) -> ScaleMap:
    """Return the superiority that slow-downs by a grid of factors would give against the same histogram.

    Values are spread along the logarithm within their bins, multiplied, and binned again. So a margin of 10 %
    can be asked in terms of theta (:func:`theta_of_change`), and a theta be told as a change
    (:func:`change_of_theta`).

    Parameters
    ----------
    counts:
        The baseline's pooled counts, ``(S, B + 1)``.

    Raises
    ------
    ValueError
        When bounds are not above 0 or counts are wrong.
    """
    bounds = check_bounds(upper_bounds)
    if bounds[0] <= 0:
        raise ValueError("upper_bounds: must be above 0 for relative changes")
    values = np.nan_to_num(check_bins(counts, "counts", bounds.size + 1), nan=0.0)
    total = values.sum(axis=-1, keepdims=True)
    share = np.divide(values, total, out=np.zeros(values.shape), where=total > 0)
    log_edges = _log_edges(bounds)
    # cut[g, i, k]: share of bin i that lies below bound k after multiplication by factor g.
    low, high = log_edges[:-1], log_edges[1:]
    cut = (np.log(bounds)[None, None, :] - _FACTORS[:, None, None] - low[None, :, None]) / (high - low)[None, :, None]
    below = np.clip(cut, 0.0, 1.0)
    # theta = sum_i sum_j p_i q_j ([j > i] + [j = i] / 2), q the moved shares and Q their sums:
    # the mean of 1 - (Q(i-1) + Q(i)) / 2.
    moved = np.einsum("si,gik->sgk", share, below)
    up_to = np.concatenate([np.zeros((*moved.shape[:2], 1)), moved, np.ones((*moved.shape[:2], 1))], axis=-1)
    middle = 0.5 * (up_to[..., :-1] + up_to[..., 1:])
    theta = 1.0 - np.einsum("si,sgi->sg", share, middle)
    theta = np.maximum.accumulate(theta, axis=-1)
    return ScaleMap(_FACTORS, np.where(total > 0, theta, np.nan))


def theta_of_change(mapping: ScaleMap, change: ArrayLike) -> Array:
    """Return the superiority that a relative change (0.1 = 10 % slower) would give, ``(S,)``."""
    wanted = np.log1p(np.broadcast_to(np.asarray(change, dtype=np.float64), mapping.theta.shape[:1]))
    grid = mapping.log_factor
    at = np.clip(np.searchsorted(grid, wanted, side="right") - 1, 0, grid.size - 2)
    rows = np.arange(len(wanted))
    share = np.clip((wanted - grid[at]) / (grid[at + 1] - grid[at]), 0.0, 1.0)
    return np.asarray(mapping.theta[rows, at] * (1.0 - share) + mapping.theta[rows, at + 1] * share)


def change_of_theta(mapping: ScaleMap, theta: ArrayLike) -> Array:
    """Return the relative change that would explain a superiority, ``(S,)``.

    Beyond the grid (a factor of e squared either way) the end of the grid is returned. NaN stays NaN.
    """
    wanted = np.broadcast_to(np.asarray(theta, dtype=np.float64), mapping.theta.shape[:1])
    table = mapping.theta
    at = np.clip((table <= wanted[:, None]).sum(axis=1) - 1, 0, table.shape[1] - 2)
    rows = np.arange(len(wanted))
    low, high = table[rows, at], table[rows, at + 1]
    share = np.clip(np.divide(wanted - low, high - low, out=np.zeros(len(wanted)), where=high > low), 0.0, 1.0)
    grid = mapping.log_factor
    return np.asarray(
        np.expm1(grid[at] * (1.0 - share) + grid[at + 1] * share) + np.where(np.isnan(wanted), np.nan, 0.0)
    )
