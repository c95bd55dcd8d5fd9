"""Scanning the minutes after a deployment with windows of several lengths, calibrated on the past.

A fault may last, fade, come late or grow; the window that shows it best is not known beforehand. All windows
of the given lengths are looked at, each measured by how far it was off at past moments, and the largest is
compared with the largest at those past moments. Looking at many windows costs what it costs there, no
correction formula needed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.kernels import dependence, placebo

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Layout(NamedTuple):
    """Where the windows lie, in blocks after the deployment: window j covers ``[first[j], last[j])``."""

    first: Ints
    last: Ints
    blocks: int


def layout(blocks: int, lengths: tuple[int, ...]) -> Layout:
    """All windows of the given lengths (in blocks), every quarter of a length, and the whole stretch."""
    spans: set[tuple[int, int]] = set()
    for length in {min(h, blocks) for h in lengths} | {blocks}:
        stride = max(1, length // 2)
        spans.update((end - length, end) for end in range(blocks, length - 1, -stride))
        spans.add((0, length))
    ordered = sorted(spans, key=lambda s: (s[1], s[0]))
    return Layout(np.array([a for a, _ in ordered]), np.array([b for _, b in ordered]), blocks)


def block_means(x: Floats, size: int, rare: NDArray[np.bool_] | None = None) -> Floats:
    """Robust means of consecutive blocks of ``size`` points, counted from the right end of each row.

    Blocks of 5 or more points are trimmed by a fifth at each end. A block with less than half its points is
    NaN. ``x`` has the shape (series, points); points left over at the left are dropped.
    """
    S, width = x.shape
    n = width // size
    cut = x[:, width - n * size :].reshape(S, n, size)
    if size == 1:
        return cut[:, :, 0]
    means = dependence.trimmed_mean(cut, 0.2)
    if rare is not None and rare.any():
        means[rare] = dependence.trimmed_mean(cut[rare], 0.0)
    enough = 2 * (~np.isnan(cut)).sum(axis=2) >= size
    return np.where(enough, means, np.nan)


def window_means(blocks: Floats, first: Ints, last: Ints) -> Floats:
    """Mean of the blocks ``[first[j], last[j])``: (..., windows); NaN when less than half is there."""
    present = ~np.isnan(blocks)
    total = np.concatenate(
        [np.zeros((*blocks.shape[:-1], 1)), np.cumsum(np.where(present, blocks, 0.0), axis=-1)], axis=-1
    )
    count = np.concatenate([np.zeros((*blocks.shape[:-1], 1)), np.cumsum(present, axis=-1)], axis=-1)
    n = count[..., last] - count[..., first]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(2 * n >= last - first, (total[..., last] - total[..., first]) / n, np.nan)


def contrasts_at(blocks: Floats, moments: Ints, plan: Layout, back: int) -> Floats:
    """Window means after each moment minus the level of the ``back`` blocks before it.

    Parameters
    ----------
    blocks:
        Shape (series, blocks).
    moments:
        Shape (K,): the block before which a deployment is imagined; ``back <= moment <= blocks -
        plan.blocks``.

    Returns
    -------
    contrasts:
        Shape (series, K, windows).
    """
    S = blocks.shape[0]
    present = ~np.isnan(blocks)
    total = np.concatenate([np.zeros((S, 1)), np.cumsum(np.where(present, blocks, 0.0), axis=1)], axis=1)
    count = np.concatenate([np.zeros((S, 1)), np.cumsum(present, axis=1)], axis=1)

    def mean(low: Ints, high: Ints) -> Floats:
        n = count[:, high] - count[:, low]
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(np.where(2 * n >= (high - low), (total[:, high] - total[:, low]) / n, np.nan))

    before = mean(moments - back, moments)
    after = mean(moments[:, None] + plan.first, moments[:, None] + plan.last)
    return np.asarray(after - before[:, :, None])


class Yardstick(NamedTuple):
    """What the past says about a scan.

    Attributes
    ----------
    centre, scale:
        Shape (series, windows): what each window's contrast usually is at this time of day, and its spread.
    largest_up, largest_down:
        Shape (series, K), sorted ascending with NaN last: the largest upward (downward) standardised contrast
        of the scan at each past moment.
    moments:
        Shape (series,): past moments used.
    independent:
        Shape (series,): how many of them do not overlap; less than 1 where the past barely holds one.
    days:
        How many past days the centre comes from; 0 = no time of day.
    whole:
        Shape (series,): standard error of the whole stretch's contrast, so that the 95 % points of the normal
        are those of the past's moments on their wider side.
    wander:
        Shape (series,): mean square of the whole stretch's contrast at the past moments; 0 where there is none. Too few
        moments to measure by still tell that a metric moves by itself.
    """

    centre: Floats
    scale: Floats
    largest_up: Floats
    largest_down: Floats
    moments: Ints
    independent: Floats
    days: int
    whole: Floats
    wander: Floats

    @property
    def worth(self) -> Floats:
        """Past stretches that :attr:`wander` is worth: one moment is a whole stretch."""
        return np.where(self.moments > 0, np.maximum(self.independent, 1.0), 0.0)


# Contrasts that agree to this share are equal: their last digits are rounding, and depend on the unit.
TIE = 1e-9
MIN_DAYS = 4
CLIP_RMS = 3.5
NORMAL_95 = 1.6448536269514722


def calibrate(
    blocks: Floats,
    plan: Layout,
    back: int,
    per_day: int,
    exclude: NDArray[np.bool_] | None = None,
    *,
    stride: int = 1,
) -> Yardstick:
    """Run the scan at every past block and learn how large its contrasts are when nothing happened.

    From 4 past days on every moment is centred on the other days at the same time of day (its own day left
    out, so that a past moment is treated as the present one is).

    Parameters
    ----------
    blocks:
        Shape (series, blocks), ending at the deployment.
    plan, back:
        The scan's windows and the blocks before the deployment that give the level.
    per_day:
        Blocks in a day; 0 when the step does not divide one.
    exclude:
        Shape (blocks,): blocks that other deployments or incidents touch; moments that overlap them are left
        out.
    stride:
        Only every so many blocks, counted back from the deployment, is a moment; must divide ``per_day``.
    """
    S, n = blocks.shape
    # Counted back from the deployment, so that whole days lie at the same time of day.
    moments = np.arange(n - plan.blocks, back - 1, -1)
    moments = moments[(n - moments) % stride == 0][::-1]
    if exclude is not None and len(moments):
        touched = np.concatenate([[0], np.cumsum(exclude)])
        moments = moments[touched[moments + plan.blocks] == touched[moments - back]]
    K = len(moments)
    W = len(plan.first)
    if K == 0:
        nothing = np.zeros((S, 0))
        return Yardstick(
            np.zeros((S, W)),
            np.full((S, W), np.nan),
            nothing,
            nothing,
            np.zeros(S, dtype=np.int64),
            np.zeros(S),
            0,
            np.full(S, np.nan),
            np.zeros(S),
        )
    c = contrasts_at(blocks, moments, plan, back)
    centre = np.zeros((S, W))
    days = 0
    if per_day > 0:
        age = n - moments
        phase = age % per_day // stride
        day = age // per_day
        days = int((phase == 0).sum())
    if days >= MIN_DAYS:
        centre, scale, c, here = _by_time_of_day(c, phase, day, per_day // stride)
    else:
        days = 0
        _, scale, _ = placebo.centre_and_scale(c.transpose(0, 2, 1).reshape(S * W, K), centred=False)
        scale = scale.reshape(S, W)
        here = np.broadcast_to(scale[:, None, :], (S, 1, W))
    # What is left of rounding is no spread.
    finest = 1e-12 * np.nan_to_num(np.fmax.reduce(np.abs(blocks), axis=1))[:, None]
    scale, here = np.where(scale > finest, scale, 0.0), np.where(here > finest[:, :, None], here, 0.0)
    c = np.where(np.abs(c) > finest[:, :, None], c, np.where(np.isnan(c), np.nan, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.where(here > 0, c / np.where(here > 0, here, 1.0), np.where(c == 0, 0.0, np.nan))
    up = np.sort(np.fmax.reduce(z, axis=2), axis=1)
    down = np.sort(np.fmax.reduce(-z, axis=2), axis=1)
    used = (~np.isnan(up)).sum(axis=1)
    j = int(np.flatnonzero((plan.first == 0) & (plan.last == plan.blocks))[0])
    told = ~np.isnan(c[:, :, j])
    wander = (np.where(told, c[:, :, j], 0.0) ** 2).sum(axis=1) / np.maximum(told.sum(axis=1), 1)
    with np.errstate(invalid="ignore"):
        ordered = np.sort(z[:, :, j], axis=1)
        known = (~np.isnan(ordered)).sum(axis=1)
        rows = np.arange(S)
        high = ordered[rows, np.clip(np.ceil(0.95 * (known + 1)).astype(np.int64) - 1, 0, K - 1)]
        low = ordered[rows, np.clip(np.floor(0.05 * (known + 1)).astype(np.int64) - 1, 0, K - 1)]
        whole = scale[:, j] * np.fmax(high, -low) / NORMAL_95
    return Yardstick(centre, scale, up, down, used, used * stride / max(plan.blocks, 1), days, whole, wander)


def _by_time_of_day(c: Floats, phase: Ints, day: Ints, phases: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Centre contrasts on the other days at their time of day, and measure their spread around that time.

    The centre of a moment is the mean of the other days', clipped about the median so that one bad day does
    not move it; a mean of n - 1 other days wobbles a little more than one of n does, and the contrasts are
    shrunk by that. The spread is the root mean square of the clipped contrasts within an hour and a half of
    the time of day over all days, pulled by a fifth towards that of the whole day: a metric that wobbles at
    night and is steady by day is judged by the hour it is.

    Returns
    -------
    centre, scale:
        At the deployment's time of day, shape (series, windows).
    centred, scales:
        Of every moment, shape (series, K, windows).
    """
    S, _, W = c.shape
    D = int(day.max()) + 1
    table = np.full((S, phases, D, W), np.nan)
    table[:, phase, day] = c
    there = ~np.isnan(table)
    n = there.sum(axis=2).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        median = _median_over_days(table, n)
        off = table - median[:, :, None]
        rms = np.sqrt((np.where(there, off, 0.0) ** 2).sum(axis=(1, 2)) / there.sum(axis=(1, 2)))
        # The plain spread first clips the worst, the spread of what is left then clips finely.
        off = np.clip(off, -CLIP_RMS * rms[:, None, None], CLIP_RMS * rms[:, None, None])
        rms = np.sqrt((np.where(there, off, 0.0) ** 2).sum(axis=(1, 2)) / there.sum(axis=(1, 2)))
        reach = CLIP_RMS * rms[:, None, None]
        clipped = np.where(there, median[:, :, None] + np.clip(off, -reach, reach), 0.0)
        total = clipped.sum(axis=2)
        mean = np.where(n > 0, total / n, 0.0)
        others = (total[:, :, None] - clipped) / (n[:, :, None] - 1.0)
        shrink = np.sqrt((n + 1.0) * (n - 1.0) / (n * n))[:, :, None]
        centred = np.where(there & (n[:, :, None] >= 2), (table - others) * shrink, np.nan)
        square = np.where(np.isnan(centred), 0.0, np.clip(centred, -reach, reach) ** 2).sum(axis=2)
        usable = (~np.isnan(centred)).sum(axis=2).astype(np.float64)
        whole = square.sum(axis=1) / usable.sum(axis=1)
        width = max(1, round(phases / 16))
        near, count = _circular_sum(square, width), _circular_sum(usable, width)
        local = np.where(count > 0, near / count, whole[:, None])
        scale = np.sqrt(0.8 * local + 0.2 * whole[:, None])
    return mean[:, 0], scale[:, 0], centred[:, phase, day], scale[:, phase]


def _median_over_days(table: Floats, n: Floats) -> Floats:
    ordered = np.sort(table, axis=2)
    size = n.astype(np.int64)[:, :, None]
    last = table.shape[2] - 1
    low = np.take_along_axis(ordered, np.clip((size - 1) // 2, 0, last), axis=2)[:, :, 0]
    high = np.take_along_axis(ordered, np.clip(size // 2, 0, last), axis=2)[:, :, 0]
    return np.asarray(np.where(n > 0, 0.5 * (low + high), 0.0))


def _circular_sum(values: Floats, width: int) -> Floats:
    """Sum over the neighbours within ``width`` along axis 1, around the clock."""
    wrapped = np.concatenate([values[:, -width:], values, values[:, :width]], axis=1)
    total = np.concatenate([np.zeros_like(values[:, :1]), np.cumsum(wrapped, axis=1)], axis=1)
    return np.asarray(total[:, 2 * width + 1 :] - total[:, : values.shape[1]])


MOMENTS = 2000


def stride_for(blocks: int, per_day: int) -> int:
    """Distance of moments so that about 2,000 remain: more say little more. It divides a known day."""
    wanted = max(1, blocks // MOMENTS)
    if per_day <= 0:
        return wanted
    return next((s for s in range(wanted, per_day + 1) if per_day % s == 0), wanted)


def rank_p(largest: Floats, past: Floats, moments: Ints) -> Floats:
    """Share of past moments, the present one among them, whose scan was at least this large.

    For a stationary past every moment is as likely as another to be the largest, save that the ends of the
    past are favoured: with 40 stretches that do not overlap an error rate of 0.02 comes out as 0.023, with 10
    as 0.034. Beyond the largest of the past the p-value falls on along the power law of the past's largest
    twentieth (Hill 1975), its exponent lowered by one standard error and kept within [2, 8]: to a deployment
    far outside of everything seen, a longer past would have given a smaller p-value.

    Parameters
    ----------
    largest:
        Shape (series,).
    past:
        Shape (series, K), sorted ascending, NaN last.
    """
    S, K = past.shape
    if K == 0:
        return np.ones(S)
    with np.errstate(invalid="ignore"):
        beyond = (past >= (largest - TIE * np.abs(largest))[:, None]).sum(axis=1)
    p = (1.0 + beyond) / (moments + 1.0)
    m = np.maximum(moments // 20, 2)
    column = np.arange(K)
    rows = np.arange(S)
    base = past[rows, np.clip(moments - m - 1, 0, K - 1)]
    top = (column >= (moments - m)[:, None]) & (column < moments[:, None])
    with np.errstate(invalid="ignore", divide="ignore"):
        hill = np.where(top, np.log(past / base[:, None]), 0.0).sum(axis=1) / m
        # Neighbouring moments share most of their points: their number counts for about a tenth.
        exponent = np.clip((1.0 / hill) * (1.0 - 1.0 / np.sqrt(np.maximum(m / 10.0, 1.0))), 2.0, 8.0)
        ratio = past[rows, np.clip(moments - 1, 0, K - 1)] / largest
        far = (beyond == 0) & (moments >= 50) & (base > 0) & np.isfinite(exponent) & (ratio < 1)
        p = np.where(far, p * ratio**exponent, p)
    return np.where(np.isnan(largest), 1.0, np.maximum(p, 1e-9))
