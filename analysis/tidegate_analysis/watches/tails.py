"""Watching whether the worst points of a canary get worse than those of its baseline, scrape by scrape."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tidegate_analysis.decide import Policy
from tidegate_analysis.kernels import dependence, placebo, sequential
from tidegate_analysis.prepare import to_scale
from tidegate_analysis.tail import MIN_WINDOWS, QUARTILES, TAIL_DOUBT, TAIL_WEIGHT, shape_of
from tidegate_analysis.watches import Bools, Floats

TAIL_QUANTILE = 0.95
# Scrapes whose median is an arm's recent level, and how many of them must be there.
TRAIL, MIN_TRAIL = 10, 3
# Skewness below which a sum counts as symmetric.
STRAIGHT = 1e-3
# Points worked on at a time while learning: each is sorted with its trail.
PORTION = 1 << 15


class TailSeen(NamedTuple):
    """What is known of the tails now; arrays over series.

    Attributes
    ----------
    asked:
        Whether the tail is asked at all.
    p_value, p_beyond:
        Of the evidence so far, and of its part that was seen while the worst points lay further out by more than the
        margin; both only fall, and are 1 where the tail is not asked.
    in_doubt:
        Whether the tail may well have moved beyond the margin.
    """

    asked: Bools
    p_value: Floats
    p_beyond: Floats
    in_doubt: Bools


def not_asked(S: int) -> TailSeen:
    """Tails nobody watches."""
    return TailSeen(np.zeros(S, dtype=bool), np.ones(S), np.ones(S), np.zeros(S, dtype=bool))


class Side(NamedTuple):
    """A tail that is asked: the suffix of its names, what turns its way up, and of which series; (series,) each."""

    name: str
    flip: Floats
    wanted: Bools


def sides(policy: Policy) -> list[Side]:
    """The worse tail of every series; of those for which both ways are worse the upper one, and then the lower."""
    both = policy.sign == 0
    first = Side("", np.where(policy.sign < 0, -1.0, 1.0), np.ones(len(both), dtype=bool))
    return [first, Side("_down", np.full(len(both), -1.0), both)] if both.any() else [first]


class TailWatch:
    """How far out the far points of the canary lie, less those of the baseline, as a running sum on a boundary.

    A point is far when it lies above the recent level of both arms, less what they usually differ by, by more than
    95 % of the past's points do. It counts by how far, ``asinh(distance / spread)`` minus the same of the least far
    one: linear within a few spreads and logarithmic beyond. The sum over its spread at past windows of both arms is a
    Brownian motion on the boundary of :mod:`~tidegate_analysis.kernels.sequential`, with Student's tail of the same
    kurtosis.
    """

    def __init__(self, learnt: dict[str, Floats], run: dict[str, Floats]) -> None:
        """Take over what was learnt and what ran so far."""
        self.learnt, self.run = learnt, run

    @classmethod
    def learn(cls, policy: Policy, horizon: int, past: Floats) -> TailWatch:
        """Learn from past windows, (series, windows, 2, points), baseline first."""
        g = to_scale((past,), policy.log).parts[0][..., :horizon]
        learnt: dict[str, Floats] = {}
        run: dict[str, Floats] = {}
        for side in sides(policy):
            found = _learn(g * side.flip[:, None, None, None], side.wanted)
            learnt |= {f"{name}{side.name}": values for name, values in found.items()}
            run |= {f"{name}{side.name}": np.zeros(len(g)) for name in ("sum", "most", "beyond")}
        return cls(learnt, run)

    def step(self, policy: Policy, x: Floats, y: Floats) -> None:
        """Take the newest scrape; ``x`` and ``y`` have all scrapes so far, (series, scrapes), in the metrics' units."""
        a, run = self.learnt, self.run
        gx, gy = to_scale((x[:, -TRAIL - 1 :], y[:, -TRAIL - 1 :]), policy.log).parts
        for side in sides(policy):
            k, flip = side.name, side.flip[:, None]
            far_x, far_y = far_off(gx * flip, gy * flip, a[f"offset{k}"][:, None], newest=True)
            score_x, score_y = (score(one[:, 0], a[f"unit{k}"], a[f"cut{k}"]) for one in (far_x, far_y))
            run[f"sum{k}"] = run[f"sum{k}"] + np.nan_to_num(score_y - score_x - a[f"drift{k}"])
            height = np.nan_to_num(run[f"sum{k}"] / a[f"sd{k}"])
            run[f"most{k}"] = np.maximum(run[f"most{k}"], height)
            # How far the worst points moved is asked only where it decides.
            higher = height > run[f"beyond{k}"]
            if higher.any():
                deciding = higher & (self._one_p(k, height) <= TAIL_WEIGHT * policy.alpha)
                moved = self._moved(policy, side, deciding, x, y)
                run[f"beyond{k}"] = np.where(moved, height, run[f"beyond{k}"])

    def seen(self, policy: Policy, x: Floats, y: Floats) -> TailSeen:
        """Say what was seen so far; ``x`` and ``y`` as in :meth:`step`."""
        p_value = self._p(policy, "most")
        in_doubt = np.zeros(len(p_value), dtype=bool)
        for side in sides(policy):
            in_doubt |= self._moved(policy, side, side.wanted & (p_value <= TAIL_DOUBT), x, y)
        return TailSeen(np.isfinite(self.learnt["sd"]), p_value, self._p(policy, "beyond"), in_doubt)

    def _p(self, policy: Policy, name: str) -> Floats:
        """P-value of a running maximum; where both tails are asked twice the smaller of two (Bonferroni)."""
        one = [self._one_p(side.name, self.run[f"{name}{side.name}"]) for side in sides(policy)]
        if len(one) == 1:
            return one[0]
        return np.where(policy.sign == 0, np.minimum(2.0 * np.minimum(*one), 1.0), one[0])

    def _one_p(self, side: str, height: Floats) -> Floats:
        """P-value of a largest height; heights of skewed sums are first straightened (Wilson and Hilferty 1931)."""
        df, skew = np.nan_to_num(self.learnt[f"df{side}"], nan=1.0), np.nan_to_num(self.learnt[f"skew{side}"])
        some = skew > STRAIGHT
        bent = np.where(some, skew, 1.0)
        straight = 6.0 / bent * (np.cbrt(0.5 * bent * np.maximum(height, 0.0) + 1.0) - 1.0) + bent / 6.0
        # Below the middle the two cross; there a p-value of 1 says all there is.
        height = np.where(some, np.minimum(straight, height), height)
        return np.where(np.isnan(self.learnt[f"df{side}"]), 1.0, sequential.reflection_p(height, df))

    def _moved(self, policy: Policy, side: Side, rows: Bools, x: Floats, y: Floats) -> Bools:
        """Whether the worst points of some series moved by more than the margin, less what they usually differ by."""
        moved = np.zeros(len(rows), dtype=bool)
        if rows.any():
            gx, gy = (g * side.flip[rows, None] for g in to_scale((x[rows], y[rows]), policy.log[rows]).parts)
            change = shape_of(gy).worst.mean(axis=-1) - shape_of(gx).worst.mean(axis=-1)
            margin = policy.better if side.name else policy.worse
            with np.errstate(invalid="ignore"):
                moved[rows] = change - self.learnt[f"shift{side.name}"][rows] > margin[rows]
        return moved


def _learn(g: Floats, wanted: Bools) -> dict[str, Floats]:
    """Learn one side from windows turned so that up is worse, (series, windows, 2, points).

    ``offset``: how much higher the canary usually lies; ``unit``: spread of distances from the recent level (of their
    quartiles; 0 where most are equal); ``cut``: their 95 % quantile; ``drift``: what a scrape usually adds to the sum;
    ``sd``, ``df``, ``skew``: spread of the sum at the horizon, its degrees of freedom and its skewness, 0 at the least;
    ``shift``: by how much the canary's worst points usually lie further out. NaN where the tail is not asked.
    """
    S = len(g)
    offset = np.nan_to_num(placebo.centre_and_scale(dependence.trimmed_mean(g[:, :, 1] - g[:, :, 0]))[0])
    far = np.empty(g.shape)
    size = max(1, PORTION // max(g[0].size if S else 1, 1))
    for low in range(0, S, size):
        rows = slice(low, low + size)
        far[rows] = np.stack(far_off(g[rows, :, 0], g[rows, :, 1], offset[rows, None, None]), axis=2)
    pooled = np.sort(far.reshape(S, -1), axis=1)
    n = (~np.isnan(pooled)).sum(axis=1)
    every, last = np.arange(S), np.maximum(n - 1, 0)
    cut = pooled[every, np.clip(np.ceil(TAIL_QUANTILE * n).astype(np.int64) - 1, 0, None)]
    unit = (pooled[every, last - last // 4] - pooled[every, last // 4]) / QUARTILES
    scores = score(far, unit[:, None, None, None], cut[:, None, None, None])
    e = np.nan_to_num(scores[:, :, 1] - scores[:, :, 0])
    centre, scale, count = placebo.centre_and_scale(np.where(np.isnan(far).all(axis=(2, 3)), np.nan, e.sum(axis=2)))
    counted = np.nan_to_num(scores).reshape(S, -1)
    number = np.maximum((counted > 0).sum(axis=1), 1)
    second, fourth = ((counted**power).sum(axis=1) / number for power in (2, 4))
    # Sums that never differed still move by whole points.
    scale = np.maximum(scale, np.sqrt(second))
    sd = scale * np.sqrt(1.0 + 1.0 / np.maximum(count, 1.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        # A sum of few points of unequal weight is a compound Poisson one. Student's t has its excess kurtosis,
        # E[s^4] / (points in a window * E[s^2]^2), and that of a spread that comes from so many windows.
        kurtosis = fourth / (number / np.maximum(count, 1.0) * second**2) + 6.0 / np.maximum(count - 5.0, 1.0)
        df = np.fmax(4.0 + 6.0 / kurtosis, 1.0)
        # Where the canary's points usually weigh more, its side of the sum has the longer tail.
        third = np.nansum(scores[:, :, 1] ** 3 - scores[:, :, 0] ** 3, axis=(1, 2)) / np.maximum(count, 1.0)
        skew = np.where(scale > 0, np.fmax(third / scale**3, 0.0), 0.0)
    worst = shape_of(g).worst.mean(axis=-1)
    shift, _, _ = placebo.centre_and_scale(worst[:, :, 1] - worst[:, :, 0])
    asked = wanted & (count >= MIN_WINDOWS) & np.isfinite(cut) & (sd > 0)
    drift = centre / max(g.shape[3], 1)
    found = {"unit": unit, "cut": cut, "drift": drift, "sd": sd, "df": df, "skew": skew, "shift": shift}
    return {"offset": offset} | {name: np.where(asked, values, np.nan) for name, values in found.items()}


def score(far: Floats, unit: Floats, cut: Floats) -> Floats:
    """How far beyond the cut a point lies, 0 within it; 1 for any that is beyond where distances have no spread.

    NaN where the distance or the cut is unknown. Arrays broadcast; distances in the unit of the scale of the change.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        safe = np.where(unit > 0, unit, 1.0)
        beyond = np.where(unit > 0, np.arcsinh(far / safe) - np.arcsinh(cut / safe), 1.0)
        return np.where(np.isnan(far) | np.isnan(cut), np.nan, np.where(far > cut, beyond, 0.0))


def far_off(gx: Floats, gy: Floats, offset: Floats, *, newest: bool = False) -> tuple[Floats, Floats]:
    """How far each point of both arms lies above the recent level of the arms, whichever is higher; NaN = unknown.

    The recent level is the median of up to 10 points before, at least 3. A slow metric keeps near its own however far
    it drifts, so points far off are rare and come alone; the median stays where it is when a few of the ten are far off
    themselves; and the other arm's level tells a return to the usual from a way out of it.

    Parameters
    ----------
    gx, gy:
        Baseline and canary, shape (..., points), NaN = missing.
    offset:
        How much higher the canary usually lies; broadcasts to them.
    newest:
        Whether only the last point is asked; the results then have one column.
    """
    level_x, level_y = _trail(gx, newest), _trail(gy, newest)
    if newest:
        gx, gy = gx[..., -1:], gy[..., -1:]
    return gx - np.fmax(level_x, level_y - offset), gy - np.fmax(level_y, level_x + offset)


def _trail(v: Floats, newest: bool) -> Floats:
    nothing = np.full((*v.shape[:-1], TRAIL), np.nan)
    padded = np.concatenate([nothing, v], axis=-1)[..., :-1]
    if newest:
        padded = padded[..., -TRAIL:]
    trail = np.sort(np.lib.stride_tricks.sliding_window_view(padded, TRAIL, axis=-1), axis=-1)
    n = (~np.isnan(trail)).sum(axis=-1)[..., None]
    low, high = (np.take_along_axis(trail, np.maximum(k, 0), axis=-1)[..., 0] for k in ((n - 1) // 2, n // 2))
    return np.asarray(np.where(n[..., 0] >= MIN_TRAIL, 0.5 * (low + high), np.nan))
