"""The tail and the silence: what a test of the centre cannot see."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tidegate_analysis.decide import tail_p
from tidegate_analysis.kernels import dependence, placebo

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
EXCEED_SHARE = 0.1
# Shares of a metric's error rate that its centre and its tail may spend (weighted Bonferroni).
CENTRE_WEIGHT, TAIL_WEIGHT = 0.8, 0.2
# A tail this suspicious is not shown to be harmless, whatever the centre says.
TAIL_DOUBT = 0.05
MIN_WINDOWS = 14
# Missing scrapes that make a canary silent: as many at its end, or this share of what the baseline answered.
SILENT_RUN = 3
SILENT_SHARE = 0.5
QUARTILES = 1.3489795003921634


class Shape(NamedTuple):
    """What one sort tells of stretches: trimmed mean, robust spread, and the worst twentieth of the points.

    ``centre`` and ``spread`` have the shape (...), ``worst`` (..., m) with NaN where there are fewer than 5 points.
    """

    centre: Floats
    spread: Floats
    worst: Floats


def shape_of(v: Floats) -> Shape:
    """Trimmed mean, spread (quartile distance as a standard deviation) and the largest 5 % of points, at least two.

    ``v`` has the shape (..., points), NaN = missing.
    """
    width = v.shape[-1]
    m = min(max(-(-width // 20), 2), width)
    s = np.sort(v, axis=-1)
    if not np.isnan(s[..., -1]).any() and width >= 5:
        k = int(dependence.TRIM * width)
        low, high = s[..., (width - 1) // 4], s[..., width - 1 - (width - 1) // 4]
        return Shape(s[..., k : width - k].mean(axis=-1), (high - low) / QUARTILES, s[..., width - m :])
    n = (~np.isnan(s)).sum(axis=-1)
    last = np.maximum(n - 1, 0)[..., None]
    low = np.take_along_axis(s, last // 4, axis=-1)[..., 0]
    high = np.take_along_axis(s, last - last // 4, axis=-1)[..., 0]
    worst = np.take_along_axis(s, np.clip(n[..., None] - m + np.arange(m), 0, width - 1), axis=-1)
    return Shape(dependence.trimmed_mean(v), (high - low) / QUARTILES, np.where((n >= 5)[..., None], worst, np.nan))


def reach(shape: Shape, spread: Floats) -> Floats:
    """How far the worst points lie from the centre: mean of ``asinh((v - centre) / spread)``.

    Linear within a few spreads and logarithmic beyond, so that under heavy tails it still varies as it did in the past
    (a plain mean of the largest points does not). ``spread`` has the shape of ``shape.centre``.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        far = (shape.worst - shape.centre[..., None]) / np.where(spread > 0, spread, np.nan)[..., None]
        return np.asarray(np.arcsinh(far).mean(axis=-1))


def from_higher(shape: Shape, level: Floats) -> Shape:
    """The same stretches, their worst points measured from their own centre or from a level, whichever is higher.

    What got better in many points has a lower centre: its other points are then no further out than they were.
    ``level`` has the shape of ``shape.centre``, NaN = unknown.
    """
    return shape._replace(centre=np.fmax(shape.centre, level))


class Tail(NamedTuple):
    """Tail tests of many series: one-sided p-value (NaN = not tested) and how far the tail moved, on its scale."""

    p_value: Floats
    change: Floats


def not_asked(S: int) -> Tail:
    """Tests of a tail nobody asked about."""
    return Tail(np.full(S, np.nan), np.full(S, np.nan))


def of_both(up: Tail, down: Tail, rows: Ints) -> tuple[Tail, NDArray[np.bool_]]:
    """Ask for both tails, each at half the level: the p-value is twice the smaller one (Bonferroni).

    Parameters
    ----------
    up:
        Of all series.
    down:
        The lower tail of the series ``rows``, of which both are asked.

    Returns
    -------
    tail, lower:
        And of which series the lower tail answers.
    """
    lower = np.zeros(len(up.p_value), dtype=bool)
    lower[rows] = np.isfinite(down.p_value) & ~(up.p_value[rows] <= down.p_value)
    p, change = up.p_value.copy(), up.change.copy()
    p[rows] = np.minimum(2.0 * np.fmin(up.p_value[rows], down.p_value), 1.0)
    change[rows] = np.where(lower[rows], down.change, up.change[rows])
    return Tail(p, change), lower


def tail_contrast(
    x: Floats,
    y: Floats,
    sign: Floats,
    past_x: Shape | None = None,
    past_y: Shape | None = None,
    *,
    usual: Floats | None = None,
    by_scrape: bool = True,
) -> Tail:
    """Ask whether the worse tail of the canary lies further out than the baseline's.

    With at least 14 past windows: :func:`reach` of the canary (from its own centre or from where the baseline's says it
    should be, whichever is higher) minus that of the baseline, over the spread of the same number at the windows, by
    Student's t. Without: the share of points beyond the pooled 90 % quantile, paired by
    scrape, with the standard errors of :func:`~tidegate_analysis.kernels.dependence.standard_errors`; bounded values,
    so heavy tails do it no harm, but a handful of far points is no evidence to it.

    Parameters
    ----------
    x, y:
        Shape (series, points), on the scale of the change.
    sign:
        Shape (series,): 1 where up is worse, -1 where down is, 0 both (the upper tail is then asked).
    past_x, past_y:
        Shapes of the past windows, (series, windows), of values turned so that up is worse.
    usual:
        Usual distance of the arms, (series,): what the share of points beyond a quantile is asked without.
    by_scrape:
        Whether scrapes may stand for themselves where there are no windows: not when the arms are means of
        instances, which differ from each other for ever.
    """
    flip = np.where(sign < 0, -1.0, 1.0)[:, None]
    a, b = x * flip, y * flip
    if usual is not None:
        b = b - usual[:, None] * flip
    now_a, now_b = shape_of(a), shape_of(b)
    change = now_b.worst.mean(axis=-1) - now_a.worst.mean(axis=-1)
    p = np.full(len(x), np.nan)
    if past_x is not None and past_y is not None and past_x.centre.shape[1] >= MIN_WINDOWS:
        spreads = np.concatenate([past_x.spread, past_y.spread], axis=1)
        ordered = np.sort(spreads, axis=1)
        spread = placebo.median_of_sorted(ordered, (~np.isnan(ordered)).sum(axis=1).astype(np.float64))
        wide = np.broadcast_to(spread[:, None], past_x.centre.shape)
        offset = placebo.centre_and_scale(past_y.centre - past_x.centre)[0]
        past = reach(from_higher(past_y, past_x.centre + offset[:, None]), wide) - reach(past_x, wide)
        apart = past_y.worst.mean(axis=-1) - past_x.worst.mean(axis=-1)
        if usual is not None:
            offset = offset - usual * flip[:, 0]
        now = reach(from_higher(now_b, now_a.centre + offset), spread) - reach(now_a, spread)
        centre, scale, k = placebo.centre_and_scale(past)
        use = (k >= MIN_WINDOWS) & (scale > 0) & np.isfinite(now)
        with np.errstate(invalid="ignore", divide="ignore"):
            t = (now - centre) / (scale * np.sqrt(1.0 + 1.0 / k))
        p = np.where(use, tail_p(np.where(use, t, 0.0), np.where(use, k - 1.0, 1.0)), p)
        shift, _, _ = placebo.centre_and_scale(apart)
        if usual is not None:
            shift = shift - usual * flip[:, 0]
        change = np.where(use, change - shift, change)
    rest = np.isnan(p) & by_scrape
    if rest.any():
        p[rest] = _exceedance_p(a[rest], b[rest])
    return Tail(p, change)


def _exceedance_p(a: Floats, b: Floats) -> Floats:
    pooled = np.sort(np.concatenate([a, b], axis=1), axis=1)
    n = (~np.isnan(pooled)).sum(axis=1)
    rows = np.arange(len(a))
    cut = pooled[rows, np.clip((np.ceil((1.0 - EXCEED_SHARE) * n) - 1).astype(np.int64), 0, pooled.shape[1] - 1)]
    with np.errstate(invalid="ignore"):
        over = (b > cut[:, None]).astype(np.float64) - (a > cut[:, None]).astype(np.float64)
    over[np.isnan(a) | np.isnan(b)] = np.nan
    pairs = (~np.isnan(over)).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(over, axis=1) / pairs
    se1, df1, se2, df2 = dependence.standard_errors(over)
    ok = (pairs >= 40) & (se1 > 0) & (se2 > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.fmax(
            tail_p(np.where(ok, mean / se1, 0.0), np.where(ok, df1, 1.0)),
            tail_p(np.where(ok, mean / se2, 0.0), np.where(ok, df2, 1.0)),
        )
    return np.where(ok, p, np.nan)


class Presence(NamedTuple):
    """Which arm spoke: scrapes only the baseline answered, only the canary answered, and whether the canary
    fell silent.
    """

    only_baseline: Ints
    only_canary: Ints
    p_value: Floats
    silent: NDArray[np.bool_]
    baseline_silent: NDArray[np.bool_]


def presence(x: Floats, y: Floats) -> Presence:
    """Ask whether the canary is silent while the baseline speaks.

    One-sided exact test of McNemar (1947) on the scrapes that only one arm answered, their number divided by
    the variance inflation of an AR(1), since silence comes in runs. A canary is called silent when that is
    below 0.01 and at least 3 scrapes are concerned, when its last 3 answers are missing while the baseline's
    are there, when it missed half of what the baseline answered, in one piece or in many, or when it never spoke at
    all. The baseline is called silent at its end and by half alone: what it misses here and there hides nothing.

    Parameters
    ----------
    x, y:
        Shape (series, points), NaN = no answer.
    """
    there_x, there_y = ~np.isnan(x), ~np.isnan(y)
    if there_x.all() and there_y.all():
        # Every scrape was answered, as most are: there is nothing to ask.
        none = np.zeros(len(x), dtype=np.int64)
        never = np.zeros(len(x), dtype=bool)
        return Presence(none, none, np.ones(len(x)), never, never)
    lost = there_x & ~there_y
    gained = there_y & ~there_x
    n10, n01 = lost.sum(axis=1), gained.sum(axis=1)
    vif, _ = dependence.ar1_vif(lost.astype(np.float64) - gained.astype(np.float64))
    worth = (n10 + n01) / np.nan_to_num(vif, nan=1.0)
    share = n10 / np.maximum(n10 + n01, 1)
    # Binomial tail with a real number of trials, by the incomplete beta function.
    successes = share * worth
    p = np.where(n10 > 0, special.betainc(np.maximum(successes, 1e-9), worth - successes + 1.0, 0.5), 1.0)
    silent = ((p < 0.01) & (n10 >= SILENT_RUN)) | _gone(lost, there_x) | ((n10 >= 1) & ~there_y.any(axis=1))
    return Presence(n10.astype(np.int64), n01.astype(np.int64), p, silent, _gone(gained, there_y))


def _gone(missing: NDArray[np.bool_], other: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether an arm is missing at its end, or at half of what the other arm answered."""
    number = missing.sum(axis=1)
    end = missing[:, -SILENT_RUN:].sum(axis=1) >= SILENT_RUN
    return np.asarray(end | ((number >= SILENT_RUN) & (number >= SILENT_SHARE * other.sum(axis=1))))


def fell_silent(before: Floats, after: Floats) -> NDArray[np.bool_]:
    """Whether what spoke before the deployment is silent after it: at its end, or at half of the scrapes.

    ``before`` and ``after`` have the shape (series, points), NaN = no answer; of ``before`` as many points count as
    ``after`` has.
    """
    points = after.shape[1]
    if not points or not before.shape[1]:
        return np.zeros(len(after), dtype=bool)
    there = ~np.isnan(after)
    usual = (~np.isnan(before[:, -points:])).mean(axis=1)
    end = ~there[:, -SILENT_RUN:].any(axis=1)
    half = (~there).sum(axis=1) >= SILENT_RUN
    half &= there.mean(axis=1) <= (1.0 - SILENT_SHARE) * usual
    return np.asarray((usual > SILENT_SHARE) & (end | half))


def instances_lost(arm: Floats) -> Floats:
    """Share of the instances that spoke and are missing at the last three scrapes; ``arm`` is (series, instances,
    points), the answer (series,), NaN where none ever spoke.
    """
    there = ~np.isnan(arm)
    ever, end = there.any(axis=2), there[:, :, -SILENT_RUN:].any(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((ever & ~end).sum(axis=1) / ever.sum(axis=1))
