"""Watching a canary beside its baseline, scrape by scrape."""

from __future__ import annotations

import numpy as np

from tidegate_analysis.contrast import ENOUGH_WINDOWS, few_windows
from tidegate_analysis.decide import Policy
from tidegate_analysis.kernels import dependence, placebo, sequential
from tidegate_analysis.prepare import HUGE, to_scale
from tidegate_analysis.watches import (
    FIRST_LOOK,
    Bools,
    Errors,
    Floats,
    Seen,
    bounds,
    half_width,
    looks_at,
    raise_maxima,
    scores,
    spread_over,
)

CLIP_SDS = 3.5
MAX_ORDER = 10
# Points of the past from which an autoregression of the differences is learnt.
MIN_PAST = 200


class PairWatch:
    """Differences of two arms, canary minus baseline.

    With a horizon and at least 7 past windows: the sum of the clipped differences over its spread at the windows, as a
    Brownian motion. With a horizon and fewer: the mean over the window's own standard errors, on the same boundary.
    Without a horizon: signed-rank bets on whitened differences, or a normal mixture where there is no past.
    """

    def __init__(self, horizon: int | None, learnt: dict[str, Floats], run: dict[str, Floats]) -> None:
        """Take over what was learnt and what ran so far."""
        self.horizon, self.learnt, self.run = horizon, learnt, run

    @classmethod
    def learn(cls, policy: Policy, horizon: int | None, past: Floats) -> PairWatch:
        """Learn from past windows, (series, windows, 2, points), baseline first."""
        S, K = past.shape[:2]
        g = to_scale((past,), policy.log).parts[0]
        d = g[:, :, 1] - g[:, :, 0]
        means = dependence.trimmed_mean(d) if K and d.shape[2] else np.full((S, K), np.nan)
        k = (~np.isnan(means)).sum(axis=1).astype(np.float64)
        enough = k >= ENOUGH_WINDOWS
        centre = placebo.centre_and_scale(means)[0] if K else np.zeros(S)
        centre = np.where(enough, np.nan_to_num(centre), 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            square = np.nansum(means**2, axis=1) / np.maximum(k, 1.0)
        flat = d.reshape(S, -1) - centre[:, None]
        spread = _point_spread(flat)
        reach = np.where(enough & (spread > 0), CLIP_SDS * spread + np.maximum(policy.worse, policy.better), np.inf)
        sd = np.full(S, np.nan)
        if horizon is not None and K:
            w = np.clip(d - centre[:, None, None], -reach[:, None, None], reach[:, None, None])
            sums = np.where(np.isnan(means), np.nan, np.nansum(w[:, :, :horizon], axis=2))
            _, scale, count = placebo.centre_and_scale(sums, centred=False)
            sd = np.where(enough & (scale > 0), scale * np.sqrt(1.0 + 1.0 / np.maximum(count, 1.0)), np.nan)
        learnt = {
            "windows": k,
            "means": means - centre[:, None],
            "centre": centre,
            "square": square,
            "few": np.where(enough, 0.0, k),
            "reach": reach,
            "sd": sd,
            "df": np.where(np.isfinite(sd), np.maximum(k - 1.0, 1.0), np.inf),
            "bets": np.zeros(S),
        }
        run = {name: np.zeros(S) for name in ("up", "down", "beyond_up", "beyond_down", "sum", "count")}
        if horizon is None and flat.shape[1] >= MIN_PAST and enough.any():
            order = min(MAX_ORDER, flat.shape[1] // 100)
            known = np.nan_to_num(flat)
            learnt["phi"] = np.where(enough[:, None], sequential.yule_walker(known, order), 0.0)
            learnt["bets"] = enough.astype(np.float64)
            run["memory"] = known[:, -order:].copy()
            for name in ("bet_up", "bet_down", "bet_pass_up", "bet_pass_down"):
                run[name] = np.zeros((S, len(sequential.BETS)))
            for name in ("magnitudes", "magnitudes_pass_up", "magnitudes_pass_down"):
                run[name] = np.full((S, sequential.RANK_WINDOW), np.nan)
            run["memory_pass_up"], run["memory_pass_down"] = np.zeros((S, order)), np.zeros((S, order))
        return cls(horizon, learnt, run)

    @property
    def _betting(self) -> Bools:
        return np.asarray(self.learnt["bets"] > 0)

    @property
    def _by_past(self) -> Bools:
        return np.asarray(np.isfinite(self.learnt["sd"]))

    def step(self, policy: Policy, x: Floats, y: Floats) -> None:
        """Take the newest scrape; ``x`` and ``y`` have all scrapes so far, (series, scrapes), in the metrics' units."""
        a, run, t = self.learnt, self.run, x.shape[1]
        gx, gy = _newest(x, y, policy.log)
        d = gy - gx - a["centre"]
        there = ~np.isnan(d)
        run["sum"] = run["sum"] + np.where(there, np.clip(np.nan_to_num(d), -a["reach"], a["reach"]), 0.0)
        run["count"] = run["count"] + there
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = run["sum"] / np.maximum(run["count"], 1.0)
            height = np.where(self._by_past, run["sum"] / a["sd"], 0.0)
        self._raise(policy, self._by_past & (run["count"] >= 3), height, -height, mean)
        alone = ~self._by_past & ~self._betting
        if alone.any() and looks_at(t, self.horizon):
            up, down, estimate = self._alone(policy, alone, x, y)
            self._raise(policy, alone & (run["count"] >= FIRST_LOOK), up, down, estimate)
        if "phi" in a:
            self._step_bets(policy, d, t)
            log_up, log_down = (sequential.log_mean_wealth(run[name]) for name in ("bet_up", "bet_down"))
            self._raise(policy, self._betting, log_up, log_down, mean)

    def _raise(self, policy: Policy, rows: Bools, up: Floats, down: Floats, change: Floats) -> None:
        """Raise running maxima by one look, (series,) each."""
        raise_maxima(self.run, policy, rows, up[:, None], down[:, None], change[:, None])

    def _own_errors(self, policy: Policy, rows: Bools, x: Floats, y: Floats) -> tuple[Floats, Errors]:
        gx, gy = to_scale((x[rows], y[rows]), policy.log[rows]).parts
        estimate, u = dependence.trimmed_influence(gy - gx)
        se1, df1, se2, df2 = dependence.standard_errors(u)
        square, k = self.learnt["square"][rows], self.learnt["few"][rows]
        return estimate, ((few_windows(se1, square, k), df1), (few_windows(se2, square, k), df2))

    def _alone(self, policy: Policy, rows: Bools, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        estimate, errors = self._own_errors(policy, rows, x, y)
        up, down, estimate = spread_over(rows, *scores(estimate, errors, policy.sign[rows]), estimate)
        if self.horizon is not None:
            share = np.sqrt(x.shape[1] / self.horizon)
            return up * share, down * share, estimate
        n = np.maximum(self.run["count"], 1.0)
        return sequential.normal_mixture_log_e(up, n), sequential.normal_mixture_log_e(down, n), estimate

    def _step_bets(self, policy: Policy, d: Floats, t: int) -> None:
        run, phi = self.run, self.learnt["phi"]
        at = (t - 1) % sequential.RANK_WINDOW
        # Scrapes beyond the first 240 are written over the oldest; before that the columns to the right are empty.
        filled = min(t - 1, sequential.RANK_WINDOW)
        for suffix, shift, games in (
            ("", 0.0, (("bet_up", 1.0), ("bet_down", -1.0))),
            ("_pass_up", policy.worse, (("bet_pass_up", -1.0),)),
            ("_pass_down", -policy.better, (("bet_pass_down", 1.0),)),
        ):
            value = d - shift
            memory, magnitudes = run[f"memory{suffix}"], run[f"magnitudes{suffix}"]
            innovation = value - (phi * memory[:, ::-1]).sum(axis=1)
            before = magnitudes[:, :filled]
            seen = filled - np.isnan(before).view(np.uint8).sum(axis=1, dtype=np.uint8).astype(np.float64)
            h = sequential.signed_rank(innovation, before, seen)
            for name, sign in games:
                run[name] = sequential.bet_step(run[name], sign * h)
            magnitudes[:, at] = np.abs(innovation)
            run[f"memory{suffix}"] = np.concatenate([memory[:, 1:], np.nan_to_num(value)[:, None]], axis=1)

    def _p(self, policy: Policy, up: Floats, down: Floats) -> Floats:
        if self.horizon is None:
            p_up, p_down = np.exp(-np.maximum(up, 0.0)), np.exp(-np.maximum(down, 0.0))
        else:
            p_up, p_down = (sequential.reflection_p(h, self.learnt["df"]) for h in (up, down))
        both = np.minimum(2.0 * np.minimum(p_up, p_down), 1.0)
        return np.where(policy.sign > 0, p_up, np.where(policy.sign < 0, p_down, both))

    def seen(self, policy: Policy, x: Floats, y: Floats, share: Floats) -> Seen:
        """Say what was seen so far; ``x`` and ``y`` as in :meth:`step`, ``share`` of alpha is the centre's."""
        a, run = self.learnt, self.run
        log_e = np.full(len(share), np.nan)
        if self.horizon is None:
            either = np.maximum(run["up"], run["down"]) - np.log(2.0)
            log_e = np.where(policy.sign > 0, run["up"], np.where(policy.sign < 0, run["down"], either))
        estimate, low, high = self._interval(policy, share, x, y)
        shift = np.where(policy.sign == 0, np.abs(estimate), np.where(policy.sign < 0, -1.0, 1.0) * estimate)
        way = np.where(policy.sign < 0, -1.0, 1.0)[:, None]
        past = np.where((policy.sign == 0)[:, None], np.abs(a["means"]), way * a["means"])
        return Seen(
            self._p(policy, run["up"], run["down"]),
            self._p(policy, run["beyond_up"], run["beyond_down"]),
            log_e,
            estimate,
            low,
            high,
            run["count"],
            self._methods(),
            a["windows"].astype(np.int64),
            placebo.exceeding(shift, past),
        )

    def log_e_now(self, policy: Policy, x: Floats, y: Floats) -> Floats:
        """Log e-values as of the newest scrape, (series,), NaN with a horizon; ``x`` and ``y`` as in :meth:`step`.

        Of the bets or of the normal mixture; where both ways are worse, the mean of the two. Unlike the largest so
        far, which :meth:`seen` tells, they may be corrected for many series at one common scrape.
        """
        if self.horizon is not None:
            return np.full(len(policy.sign), np.nan)
        up, down = np.zeros(len(policy.sign)), np.zeros(len(policy.sign))
        alone = ~self._by_past & ~self._betting
        if alone.any() and x.shape[1] >= FIRST_LOOK:
            found_up, found_down, _ = self._alone(policy, alone, x, y)
            looked = alone & (self.run["count"] >= FIRST_LOOK)
            up, down = np.where(looked, found_up, 0.0), np.where(looked, found_down, 0.0)
        if self._betting.any():
            up = np.where(self._betting, sequential.log_mean_wealth(self.run["bet_up"]), up)
            down = np.where(self._betting, sequential.log_mean_wealth(self.run["bet_down"]), down)
        both = np.logaddexp(up, down) - np.log(2.0)
        return np.where(policy.sign > 0, up, np.where(policy.sign < 0, down, both))

    def _interval(self, policy: Policy, share: Floats, x: Floats, y: Floats) -> tuple[Floats, Floats, Floats]:
        a, run = self.learnt, self.run
        n, t = run["count"], x.shape[1]
        fail_level = np.where(policy.sign == 0, policy.alpha / 2.0, policy.alpha)
        fail_level = fail_level * share
        with np.errstate(invalid="ignore", divide="ignore"):
            estimate = np.where(n > 0, run["sum"] / n, np.nan)
            unit = np.where(self._by_past, a["sd"] / n, np.nan)
        to_null = sequential.boundary(fail_level, a["df"]) * unit
        to_margin = sequential.boundary(policy.alpha_pass, a["df"]) * unit
        alone = ~self._by_past & ~self._betting
        if alone.any() and t >= FIRST_LOOK:
            mean, errors = self._own_errors(policy, alone, x, y)
            estimate[alone] = mean
            for out, level in ((to_null, fail_level), (to_margin, policy.alpha_pass)):
                out[alone] = half_width(errors, level[alone], t, self.horizon, n[alone])
        low, high = bounds(estimate, to_null, to_margin, policy.sign)
        if self._betting.any():
            low, high = self._bet_bounds(policy, estimate, low, high)
        return estimate, low, high

    def _bet_bounds(self, policy: Policy, estimate: Floats, low: Floats, high: Floats) -> tuple[Floats, Floats]:
        """Bounds that bets can give: a margin that was bet against and lost is one, 0 another; else unknown."""
        run, bar = self.run, np.log(1.0 / policy.alpha_pass)
        below = sequential.log_mean_wealth(run["bet_pass_up"]) >= bar
        above = sequential.log_mean_wealth(run["bet_pass_down"]) >= bar
        inside = 1.0 - 1e-9
        top = np.where(policy.sign < 0, policy.better, policy.worse)
        bottom = np.where(policy.sign < 0, policy.worse, policy.better)
        bet_high = np.where(below, np.maximum(top * inside, estimate), np.nan)
        bet_low = np.where(above, np.minimum(-bottom * inside, estimate), np.nan)
        return np.where(self._betting, bet_low, low), np.where(self._betting, bet_high, high)

    def _methods(self) -> list[str]:
        alone = "paired-group-sequential.v1" if self.horizon is not None else "paired-mixture.v1"
        return [
            "paired-placebo-sequential.v1" if p else "signed-rank-betting.v1" if b else alone
            for p, b in zip(self._by_past.tolist(), self._betting.tolist(), strict=True)
        ]

    def prospect(self) -> tuple[Floats, Floats]:
        """Spread of the mean difference at the horizon, and its degrees of freedom."""
        horizon = float(self.horizon or 1)
        return self.learnt["sd"] / horizon, self.learnt["df"]

    def level(self) -> Floats:
        """Difference of the arms before any change, on its scale."""
        return self.learnt["centre"]


def _point_spread(flat: Floats) -> Floats:
    """Robust spread of single differences; the plain one where most of them are equal."""
    s = np.sort(np.abs(flat), axis=1)
    n = (~np.isnan(s)).sum(axis=1).astype(np.float64)
    spread = placebo.MAD_TO_SD * placebo.median_of_sorted(s, n) if s.shape[1] else np.full(len(s), np.nan)
    with np.errstate(invalid="ignore", divide="ignore"):
        rms = np.sqrt(np.nansum(flat**2, axis=1) / np.maximum(n, 1.0))
        return np.where(spread > 0, spread, rms)


def _newest(x: Floats, y: Floats, log: Bools) -> tuple[Floats, Floats]:
    """Newest scrape on the scale of the change; a zero counts as half the smallest positive value so far."""
    a, b = x[:, -1], y[:, -1]
    with np.errstate(invalid="ignore"):
        easy = (np.abs(a) <= HUGE) & (np.abs(b) <= HUGE) & (~log | ((a > 0) & (b > 0)))
    if easy.all():
        if log.all():
            return np.log(a), np.log(b)
        return np.where(log, np.log(np.where(log, a, 1.0)), a), np.where(log, np.log(np.where(log, b, 1.0)), b)
    gx, gy = to_scale((x, y), log).parts
    return gx[:, -1], gy[:, -1]
