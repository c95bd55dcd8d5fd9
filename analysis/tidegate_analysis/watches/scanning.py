"""Watching what comes after a deployment against its own past, scrape by scrape."""

from __future__ import annotations

import numpy as np

from tidegate_analysis import contrast as contrasts
from tidegate_analysis.before_after import ENOUGH_MOMENTS, HORIZON_MINUTES, LEVEL_MINUTES, RANK_MOMENTS
from tidegate_analysis.decide import Policy, tail_p
from tidegate_analysis.kernels import dependence, placebo, scan, sequential
from tidegate_analysis.prepare import to_scale
from tidegate_analysis.watches import (
    FIRST_LOOK,
    Bools,
    Floats,
    Seen,
    bounds,
    half_width,
    looks_at,
    raise_maxima,
    scores,
    spread_over,
)

BLOCK_SECONDS = 60.0
DAY_SECONDS = 86400.0
# Points of the past that are kept: they say how small the smallest value is, and what the last hours looked like.
RECENT = 1440


class ScanWatch:
    """The scan of :mod:`tidegate_analysis.kernels.scan`, its windows looked at as they fill.

    The largest standardised contrast so far is compared with the largest of the whole scan at past moments, so every
    look within the horizon is paid for. Where the past is too short for moments, the stretch is compared with as long
    a stretch before it, by their own standard errors, on a boundary for every look.
    """

    def __init__(self, horizon: int, learnt: dict[str, Floats], run: dict[str, Floats]) -> None:
        """Take over what was learnt and what ran so far."""
        self.horizon, self.learnt, self.run = horizon, learnt, run

    @classmethod
    def learn(cls, policy: Policy, horizon: int, step: float, past: Floats, rare: Bools) -> ScanWatch:
        """Learn from the past, (series, points), up to the deployment; ``rare`` marks counts and ratios."""
        S = len(past)
        g = to_scale((past,), policy.log).parts[0]
        size = max(1, min(round(BLOCK_SECONDS / step), horizon // 8 if horizon >= 16 else 1))
        blocks = max(horizon // size, 1)
        back = max(1, min(round(LEVEL_MINUTES * 60.0 / step / size), g.shape[1] // size))
        lengths = (max(1, round(m * 60.0 / step / size)) for m in HORIZON_MINUTES)
        plan = scan.layout(blocks, tuple(h for h in lengths if h <= blocks))
        per_day = DAY_SECONDS / step / size
        whole_day = round(per_day) if abs(per_day - round(per_day)) < 1e-9 else 0
        pasts = scan.block_means(g, size, rare)
        stick = scan.calibrate(pasts, plan, back, whole_day, stride=scan.stride_for(pasts.shape[1], whole_day))
        end = np.array([pasts.shape[1]])
        learnt = {
            "rare": rare.astype(np.float64),
            "recent": past[:, -max(RECENT, horizon) :].copy(),
            "level": scan.window_means(pasts, end - back, end)[:, 0],
            "centre": stick.centre,
            "scale": stick.scale,
            "largest_up": stick.largest_up,
            "largest_down": stick.largest_down,
            "moments": stick.moments.astype(np.float64),
            "independent": stick.independent,
            "wander": stick.wander,
            "worth": stick.worth,
            "plan": np.array([size, blocks, *plan.first.tolist(), *plan.last.tolist()], dtype=np.float64),
        }
        run = {name: np.zeros(S) for name in ("up", "down", "beyond_up", "beyond_down", "count")}
        return cls(horizon, learnt, run)

    @property
    def _alone(self) -> Bools:
        """Series whose past is too short for moments, (series,)."""
        return np.asarray(self.learnt["independent"] < ENOUGH_MOMENTS)

    @property
    def scanning(self) -> Bools:
        """Which series have past enough to look at every window."""
        return ~self._alone

    def _layout(self) -> tuple[int, scan.Layout]:
        numbers = self.learnt["plan"].astype(np.int64)
        half = (len(numbers) - 2) // 2
        return int(numbers[0]), scan.Layout(numbers[2 : 2 + half], numbers[2 + half :], int(numbers[1]))

    def _after(self, policy: Policy, y: Floats) -> Floats:
        """Points after the deployment on the scale of the change; zeros are measured by the recent past, too."""
        return to_scale((self.learnt["recent"], y), policy.log).parts[1]

    def _two_arms(self, policy: Policy, rows: Bools, y: Floats) -> contrasts.Contrast:
        before, after = to_scale((self.learnt["recent"][rows], y[rows]), policy.log[rows]).parts
        none = np.full((int(rows.sum()), 0), np.nan)
        near = before[:, -max(self.horizon, 30) :]
        found = contrasts.two_arms(near, after, none, ("before-after-trim.v1",) * 3)
        wander, worth = self.learnt["wander"][rows], self.learnt["worth"][rows]
        pooled = ((contrasts.few_windows(se, wander, worth), df) for se, df in found.errors[:2])
        return found._replace(errors=tuple(pooled))

    def step(self, policy: Policy, y: Floats) -> None:
        """Take the newest scrape; ``y`` has all scrapes so far, (series, scrapes), in the metrics' units."""
        a, run, t = self.learnt, self.run, y.shape[1]
        size, plan = self._layout()
        run["count"] = run["count"] + ~np.isnan(y[:, -1])
        alone = self._alone
        if alone.any() and looks_at(t, self.horizon):
            found = self._two_arms(policy, alone, y)
            share = np.sqrt(t / self.horizon)
            up, down, estimate = spread_over(alone, *scores(found.estimate, found.errors), found.estimate)
            raise_maxima(run, policy, alone, up[:, None] * share, down[:, None] * share, estimate[:, None])
        ending = np.flatnonzero(plan.last == t // size)
        if t % size or alone.all() or not len(ending):
            return
        blocks = scan.block_means(self._after(policy, y)[:, : t // size * size], size, a["rare"] > 0)
        windows = scan.window_means(blocks, plan.first[ending], plan.last[ending])
        change = windows - a["level"][:, None] - a["centre"][:, ending]
        scale = a["scale"][:, ending]
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.nan_to_num(change / np.where(scale > 0, scale, np.nan))
        raise_maxima(run, policy, ~alone, z, -z, np.nan_to_num(change))

    def _p(self, policy: Policy, up: Floats, down: Floats) -> Floats:
        p_up, p_down = (self._one_way(h, self.learnt[f"largest_{w}"]) for h, w in ((up, "up"), (down, "down")))
        both = np.minimum(2.0 * np.minimum(p_up, p_down), 1.0)
        return np.where(policy.sign > 0, p_up, np.where(policy.sign < 0, p_down, both))

    def _one_way(self, largest: Floats, past: Floats) -> Floats:
        a = self.learnt
        _, plan = self._layout()
        rank = scan.rank_p(np.where(largest > 0, largest, -np.inf), past, a["moments"].astype(np.int64))
        looks = len(np.unique(plan.last - plan.first))
        student = np.minimum(tail_p(largest, np.maximum(a["independent"] - 1.0, 1.0)) * looks, 1.0)
        p = np.where(a["independent"] < RANK_MOMENTS, np.maximum(rank, student), rank)
        p = np.where(self._alone, sequential.reflection_p(largest, np.full(len(largest), np.inf)), p)
        return np.where(largest > 0, p, 1.0)

    def seen(self, policy: Policy, y: Floats) -> Seen:
        """Say what was seen so far; ``y`` as in :meth:`step`."""
        a, run = self.learnt, self.run
        S = len(a["level"])
        estimate, low, high = self._interval(policy, y)
        unit = np.where(np.isfinite(estimate), 1.0, np.nan)
        largest = np.where(policy.sign < 0, run["down"], np.where(policy.sign > 0, run["up"], 0.0)) * unit
        past = np.where((policy.sign < 0)[:, None], a["largest_down"], a["largest_up"])
        exceeding = np.where(self._alone, 0, placebo.exceeding(largest, past))
        methods = [
            "before-after-sequential.v1" if alone else "before-after-scan-sequential.v1"
            for alone in self._alone.tolist()
        ]
        return Seen(
            self._p(policy, run["up"], run["down"]),
            self._p(policy, run["beyond_up"], run["beyond_down"]),
            np.full(S, np.nan),
            estimate,
            low,
            high,
            run["count"],
            methods,
            np.where(self._alone, 0, a["moments"]).astype(np.int64),
            exceeding.astype(np.int64),
        )

    def _interval(self, policy: Policy, y: Floats) -> tuple[Floats, Floats, Floats]:
        a, t = self.learnt, y.shape[1]
        S = len(a["level"])
        size, plan = self._layout()
        estimate, to_null, to_margin = (np.full(S, np.nan) for _ in range(3))
        fail_level = np.where(policy.sign == 0, policy.alpha / 2.0, policy.alpha)
        now = t // size
        start = np.flatnonzero((plan.first == 0) & (plan.last <= now))
        if now and len(start) and not self._alone.all():
            j = int(start[-1])
            rows = ~self._alone & (a["scale"][:, j] > 0)
            blocks = scan.block_means(self._after(policy, y)[:, : now * size], size, a["rare"] > 0)
            mean = scan.window_means(blocks, np.array([0]), np.array([now]))[:, 0]
            # Where too few blocks are there for a mean of them, the points themselves are told, without bounds.
            told = np.where(np.isnan(mean), dependence.trimmed_mean(self._after(policy, y)), mean)
            estimate = np.where(rows, told - a["level"] - a["centre"][:, j], np.nan)
            rows &= ~np.isnan(mean)
            df = np.maximum(a["independent"] - 1.0, 1.0)
            unit = a["scale"][:, j] * np.sqrt(plan.blocks / max(int(plan.last[j]), 1))
            to_null = np.where(rows, sequential.boundary(fail_level, df) * unit, np.nan)
            to_margin = np.where(rows, sequential.boundary(policy.alpha_pass, df) * unit, np.nan)
        if self._alone.any() and t >= FIRST_LOOK:
            alone = self._alone
            found = self._two_arms(policy, alone, y)
            estimate[alone] = found.estimate
            for out, level in ((to_null, fail_level), (to_margin, policy.alpha_pass)):
                out[alone] = half_width(found.errors, level[alone], t, self.horizon, self.run["count"][alone])
        low, high = bounds(estimate, to_null, to_margin, policy.sign)
        return estimate, low, high

    def prospect(self) -> tuple[Floats, Floats]:
        """Spread of the whole stretch's change at the horizon, and its degrees of freedom."""
        _, plan = self._layout()
        whole = int(np.flatnonzero((plan.first == 0) & (plan.last == plan.blocks))[0])
        scale = np.where(self._alone, np.nan, self.learnt["scale"][:, whole])
        return scale, np.maximum(self.learnt["independent"] - 1.0, 1.0)

    def level(self) -> Floats:
        """Level before the deployment, on the scale of the change."""
        return self.learnt["level"]
