"""The same judgement fed scrape by scrape, valid at every look."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tidegate_analysis import contrast as contrasts
from tidegate_analysis.before_after import ENOUGH_MOMENTS, before_after
from tidegate_analysis.compare import check_history, check_step, compare
from tidegate_analysis.counted import clean_counts, counted_result
from tidegate_analysis.decide import ROUNDING, Policy, policy_of, quantile_t, tail_p, to_effect
from tidegate_analysis.defaults import resolve_all
from tidegate_analysis.judgement import Judgement, judge
from tidegate_analysis.kernels import count_stream, dependence, placebo, scan, sequential
from tidegate_analysis.kernels.counters import increases
from tidegate_analysis.kernels.counts import history_dispersion
from tidegate_analysis.prepare import as_points, to_scale
from tidegate_analysis.rates import as_levels, increments, ratios, told_rows
from tidegate_analysis.result import Result, concatenate
from tidegate_analysis.spec import Design, MetricSpec, Verdict
from tidegate_analysis.tail import CENTRE_WEIGHT, MIN_WINDOWS, TAIL_WEIGHT

Floats = NDArray[np.float64]
FIRST_LOOK = 8
CLIP_SDS = 3.5
MAX_ORDER = 10
STATE_VERSION = 1


def open_stream(
    specs: MetricSpec | Sequence[MetricSpec],
    *,
    design: Design = "concurrent",
    history: ArrayLike | None = None,
    before: ArrayLike | None = None,
    step_seconds: float = 60.0,
    horizon: int | None = None,
    q: float = 0.05,
    history_exposure: ArrayLike | None = None,
    before_exposure: ArrayLike | None = None,
) -> Stream:
    """Open a stream of scrapes that can be judged at any moment.

    Parameters
    ----------
    specs:
        One per series.
    design:
        ``"concurrent"``: the arms are compared scrape by scrape. ``"before_after"``: the canary against
        ``before``.
    history:
        Concurrent: past pairs of windows, (series, windows, 2, points). With a horizon they must be at least
        as long.
    before:
        Before/after: the past, (series, points), up to the deployment.
    step_seconds:
        Time between scrapes.
    horizon:
        Scrapes after which the watch ends. Fixing it makes the watch stronger; points beyond it are not
        taken. ``None`` watches for ever.
    q:
        False-discovery rate of :meth:`Stream.judge`.
    history_exposure, before_exposure:
        Totals that the events of kind ratio belong to, in the shapes of ``history`` and ``before``.

    Raises
    ------
    ValueError
        When an argument is out of range or does not fit; the message names it.
    """
    chosen = (specs,) if isinstance(specs, MetricSpec) else tuple(specs)
    return Stream(chosen, design, history, before, step_seconds, horizon, q, history_exposure, before_exposure)


def restore_stream(state: bytes) -> Stream:
    """Return the stream that :meth:`Stream.state` described.

    Raises
    ------
    ValueError
        When the bytes are no such state.
    """
    stream = Stream.__new__(Stream)
    return stream.restore(state)


class Stream:
    """A running comparison; made by :func:`open_stream`.

    The state after some scrapes does not depend on the sizes of the blocks in which they came.
    """

    specs: tuple[MetricSpec, ...]
    derived: tuple[tuple[str, ...], ...]
    design: Design
    horizon: int | None
    step: float
    q: float

    def __init__(
        self,
        specs: tuple[MetricSpec, ...],
        design: Design,
        history: ArrayLike | None,
        before: ArrayLike | None,
        step_seconds: float,
        horizon: int | None,
        q: float,
        history_exposure: ArrayLike | None = None,
        before_exposure: ArrayLike | None = None,
    ) -> None:
        """Check the arguments and learn from the past."""
        S = len(specs)
        if S == 0:
            raise ValueError("specs: at least one is needed")
        if design not in ("concurrent", "before_after"):
            raise ValueError(f"design: {design!r} cannot be streamed; concurrent or before_after")
        if horizon is not None and horizon < 1:
            raise ValueError(f"horizon: must be at least 1 scrape, not {horizon!r}")
        if not 0.0 < q < 0.5:
            raise ValueError(f"q: must lie between 0 and 0.5, not {q!r}")
        self.design, self.horizon, self.step, self.q = design, horizon, check_step(step_seconds), q
        if any(s.kind == "histogram" for s in specs):
            raise ValueError("specs: histograms are streamed as series of superiority; see compare_histograms")
        self._arrays: dict[str, Floats] = {}
        if design == "concurrent":
            if before is not None:
                raise ValueError("before: belongs to design before_after; give history")
            past = check_history(history, S, horizon or 0) if horizon else self._any_history(history, S)
            totals = None
            if history_exposure is not None and history is not None:
                totals = as_points("history_exposure", history_exposure, (4,))[..., : past.shape[3]]
                if totals.shape != past.shape:
                    raise ValueError(f"history_exposure: shape {totals.shape} does not fit the history's {past.shape}")
            known = past.transpose(2, 0, 1, 3).reshape(2, S, -1)
            exposed = told_rows(totals, S)
            self._resolve(specs, known[0], known[1], exposed)
            counter = self._counters()
            if counter.any():
                past = past.copy()
                past[counter] = increases(past[counter])
            self._learn_pairs(past)
            self._learn_counts(past, totals)
        else:
            if history is not None:
                raise ValueError("history: belongs to design concurrent; give before")
            if before is None:
                raise ValueError("before: is needed for design before_after")
            if horizon is None:
                raise ValueError("horizon: is needed for design before_after")
            past = as_points("before", before)
            if len(past) != S:
                raise ValueError(f"before: {len(past)} series for {S} specs")
            totals = None if before_exposure is None else as_points("before_exposure", before_exposure)
            if totals is not None and totals.shape != past.shape:
                raise ValueError(f"before_exposure: shape {totals.shape} does not fit before's {past.shape}")
            past = ratios(past, totals)
            exposed = told_rows(totals, S)
            self._resolve(specs, past, past, exposed)
            (past,) = increments(self.specs, (past,))
            self.specs, self.derived, self._arrays["margin"], rare = as_levels(
                self.specs, self.derived, self._arrays["margin"], past
            )
            self._arrays["rare"] = rare.astype(np.float64)
            self._learn_past(past)
        self._x, self._y, self._ex, self._ey = (np.zeros((S, 0)) for _ in range(4))
        self._start()

    # What is learnt before the first scrape.

    @staticmethod
    def _any_history(history: ArrayLike | None, S: int) -> Floats:
        if history is None:
            return np.zeros((S, 0, 2, 0))
        past = as_points("history", history, (4,))
        return check_history(past, S, past.shape[3])

    def _resolve(self, specs: tuple[MetricSpec, ...], x: Floats, y: Floats, exposed: NDArray[np.bool_]) -> None:
        self.specs, self.derived, margin = resolve_all(specs, x, y, exposed)
        self._arrays["margin"] = margin

    def _counters(self) -> NDArray[np.bool_]:
        return np.array([s.kind == "counter" for s in self.specs], dtype=bool)

    def _apart(self, name: str, block: Floats) -> Floats:
        """Turn totals of counters into increases, going on from the last scrape that was taken."""
        counter = self._counters()
        if not counter.any() or not block.shape[1]:
            return block
        joined = np.concatenate([self._run[name][counter, None], block[counter]], axis=1)
        self._run[name] = np.where(counter, block[:, -1], np.nan)
        out = block.copy()
        out[counter] = increases(joined)[:, 1:]
        return out

    def _counted_rows(self) -> dict[bool, NDArray[np.int64]]:
        """Rows judged as counts: by an absolute margin (ratios), and by a relative one."""
        if self.design != "concurrent":
            return {}
        kinds = np.array([s.kind for s in self.specs])
        found = {True: np.flatnonzero(kinds == "ratio"), False: np.flatnonzero(kinds == "count")}
        return {absolute: rows for absolute, rows in found.items() if len(rows)}

    def _learn_counts(self, past: Floats, totals: Floats | None) -> None:
        """Learn how unevenly events fell in the past: whole windows, as they were."""
        dispersion = np.full(len(self.specs), np.nan)
        for rows in self._counted_rows().values():
            if past.shape[1] and past.shape[3]:
                old = past[rows]
                with np.errstate(invalid="ignore"):
                    old = np.where((old >= 0) & (old < 1e15), old, np.nan)
                dispersion[rows], _ = history_dispersion(old, None if totals is None else totals[rows])
        self._arrays["dispersion"] = dispersion

    def _design_of(self, absolute: bool, rows: NDArray[np.int64]) -> count_stream.CountDesign:
        policy = policy_of(self.specs, self._arrays["margin"])
        return count_stream.count_design(
            self._arrays["margin"][rows], sign=policy.sign[rows], absolute=absolute, n_series=len(rows)
        )

    def _learn_pairs(self, past: Floats) -> None:
        a = self._arrays
        S, K = past.shape[:2]
        policy = policy_of(self.specs, a["margin"])
        g = to_scale((past,), policy.log).parts[0]
        d = g[:, :, 1] - g[:, :, 0]
        means = dependence.trimmed_mean(d) if K and d.shape[2] else np.full((S, K), np.nan)
        k = (~np.isnan(means)).sum(axis=1).astype(np.float64)
        enough = k >= contrasts.ENOUGH_WINDOWS
        a["past"], a["windows"] = past, k
        centre, _, _ = placebo.centre_and_scale(means) if K else (np.zeros(S), None, None)
        centre = np.where(enough, np.nan_to_num(centre), 0.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            a["extra"] = np.where((k > 0) & ~enough, np.nansum(means**2, axis=1) / np.maximum(k, 1.0), 0.0)
        flat = d.reshape(S, -1) - centre[:, None]
        s = np.sort(np.abs(flat), axis=1)
        n = (~np.isnan(s)).sum(axis=1).astype(np.float64)
        spread = placebo.MAD_TO_SD * placebo.median_of_sorted(s, n) if s.shape[1] else np.full(S, np.nan)
        # Most differences equal: the plain spread keeps the scores from being cut to nothing.
        with np.errstate(invalid="ignore", divide="ignore"):
            rms = np.sqrt(np.nansum(flat**2, axis=1) / np.maximum(n, 1.0))
        spread = np.where(spread > 0, spread, rms)
        reach = np.where(enough & (spread > 0), CLIP_SDS * spread + np.maximum(policy.worse, policy.better), np.inf)
        a["centre"], a["reach"] = centre, reach
        w = np.clip(d - centre[:, None, None], -reach[:, None, None], reach[:, None, None])
        if self.horizon is not None and K:
            sums = np.where(np.isnan(means), np.nan, np.nansum(w[:, :, : self.horizon], axis=2))
            _, scale, count = placebo.centre_and_scale(sums, centred=False)
            a["sd"] = np.where(enough & (scale > 0), scale * np.sqrt(1.0 + 1.0 / np.maximum(count, 1.0)), np.nan)
        else:
            a["sd"] = np.full(S, np.nan)
        a["df"] = np.where(np.isfinite(a["sd"]), np.maximum(k - 1.0, 1.0), np.inf)
        self._learn_tail(g, policy.sign, k)
        if self.horizon is None and flat.shape[1] >= 200:
            order = min(MAX_ORDER, flat.shape[1] // 100)
            a["phi"] = np.where(enough[:, None], sequential.yule_walker(np.nan_to_num(flat), order), 0.0)
            a["memory"] = np.nan_to_num(flat[:, -order:])
        a["bets"] = enough.astype(np.float64) if "phi" in a else np.zeros(S)

    def _learn_tail(self, g: Floats, sign: Floats, k: Floats) -> None:
        """Learn where the baseline's worst twentieth begins and how the arms' shares beyond it differ by
        themselves.
        """
        a = self._arrays
        S = len(k)
        a["tail_cut"] = np.full(S, np.nan)
        a["tail_sd"] = np.full(S, np.nan)
        if self.horizon is None or g.shape[1] < MIN_WINDOWS:
            return
        flip = np.where(sign < 0, -1.0, 1.0)[:, None, None]
        x, y = g[:, :, 0] * flip, g[:, :, 1] * flip
        pooled = np.sort(np.concatenate([x.reshape(S, -1), y.reshape(S, -1)], axis=1), axis=1)
        n = (~np.isnan(pooled)).sum(axis=1)
        cut = pooled[np.arange(S), np.clip((np.ceil(0.95 * n) - 1).astype(np.int64), 0, pooled.shape[1] - 1)]
        with np.errstate(invalid="ignore"):
            e = (y > cut[:, None, None]).astype(np.float64) - (x > cut[:, None, None])
        sums = e[:, :, : self.horizon].sum(axis=2)
        sums = np.where(np.isnan(g[:, :, 0]).all(axis=2) | np.isnan(g[:, :, 1]).all(axis=2), np.nan, sums)
        _, scale, count = placebo.centre_and_scale(sums, centred=False)
        # A share that never differed still moves by whole points.
        scale = np.maximum(scale, 1.0)
        a["tail_cut"] = np.where(k >= MIN_WINDOWS, cut, np.nan)
        a["tail_sd"] = np.where(k >= MIN_WINDOWS, scale * np.sqrt(1.0 + 1.0 / np.maximum(count, 1.0)), np.nan)

    def _learn_past(self, past: Floats) -> None:
        a = self._arrays
        horizon = self.horizon or 1
        policy = policy_of(self.specs, a["margin"])
        g = to_scale((past,), policy.log).parts[0]
        size = max(1, min(round(60.0 / self.step), horizon // 8 if horizon >= 16 else 1))
        blocks = max(horizon // size, 1)
        back = max(1, min(round(3600.0 / self.step / size), g.shape[1] // size))
        lengths = tuple(
            h for h in (max(1, round(m * 60.0 / self.step / size)) for m in (5, 10, 20, 30, 60)) if h <= blocks
        )
        plan = scan.layout(blocks, lengths)
        per_day = 86400.0 / self.step / size
        whole_day = round(per_day) if abs(per_day - round(per_day)) < 1e-9 else 0
        pasts = scan.block_means(g, size, a["rare"] > 0)
        stick = scan.calibrate(pasts, plan, back, whole_day, stride=scan.stride_for(pasts.shape[1], whole_day))
        a["past"] = past
        a["level"] = scan.window_means(pasts, np.array([pasts.shape[1] - back]), np.array([pasts.shape[1]]))[:, 0]
        a["scan_centre"], a["scan_scale"] = stick.centre, stick.scale
        a["scan_up"], a["scan_down"] = stick.largest_up, stick.largest_down
        a["scan_moments"], a["scan_independent"] = stick.moments.astype(np.float64), stick.independent
        a["plan"] = np.array([size, blocks, back, *plan.first.tolist(), *plan.last.tolist()], dtype=np.float64)

    # What grows with the scrapes.

    def _start(self) -> None:
        S = len(self.specs)
        run = ("up", "down", "fail_up", "fail_down", "tail", "fail_tail")
        self._run: dict[str, Floats] = {name: np.zeros(S) for name in run}
        self._run["sum"] = np.zeros(S)
        self._run["count"] = np.zeros(S)
        self._run["tail_sum"] = np.zeros(S)
        self._run["last_x"], self._run["last_y"] = np.full(S, np.nan), np.full(S, np.nan)
        for absolute, rows in self._counted_rows().items():
            state = count_stream.start(self._design_of(absolute, rows))
            self._keep_counts(absolute, state)
            self._run[f"best.{int(absolute)}"] = np.zeros((2, len(rows)))
        if "phi" in self._arrays:
            order = self._arrays["phi"].shape[1]
            self._run["memory"] = self._arrays["memory"].copy()
            self._run["magnitudes"] = np.full((S, sequential.RANK_WINDOW), np.nan)
            for name in ("bet_up", "bet_down", "bet_pass_up", "bet_pass_down"):
                self._run[name] = np.zeros((S, len(sequential.BETS)))
            self._run["magnitudes_pass_up"] = np.full((S, sequential.RANK_WINDOW), np.nan)
            self._run["magnitudes_pass_down"] = np.full((S, sequential.RANK_WINDOW), np.nan)
            self._run["memory_pass_up"] = np.zeros((S, order))
            self._run["memory_pass_down"] = np.zeros((S, order))

    @property
    def scrapes(self) -> int:
        """How many scrapes were taken."""
        return self._y.shape[1]

    @property
    def finished(self) -> bool:
        """Whether the horizon is reached."""
        return self.horizon is not None and self.scrapes >= self.horizon

    def _keep_counts(self, absolute: bool, state: count_stream.CountState) -> None:
        for name, value in state._asdict().items():
            self._run[f"counts.{int(absolute)}.{name}"] = np.asarray(value)

    def _kept_counts(self, absolute: bool) -> count_stream.CountState:
        kept = {name: self._run[f"counts.{int(absolute)}.{name}"] for name in count_stream.CountState._fields}
        values: dict[str, Any] = {k: int(v) if v.ndim == 0 else v for k, v in kept.items()}
        return count_stream.CountState(**values)

    def _step_counts(self) -> None:
        """Take the newest scrape into the counts; a running best keeps what was once shown."""
        j = self.scrapes - 1
        for absolute, rows in self._counted_rows().items():
            design = self._design_of(absolute, rows)
            x, ex, _ = clean_counts(self._x[rows, j : j + 1], self._ex[rows, j : j + 1])
            y, ey, _ = clean_counts(self._y[rows, j : j + 1], self._ey[rows, j : j + 1])
            told = (ex, ey) if absolute else (None, None)
            state = count_stream.update(design, self._kept_counts(absolute), x, y, *told)
            self._keep_counts(absolute, state)
            policy = policy_of(tuple(self.specs[i] for i in rows.tolist()), self._arrays["margin"][rows])
            seen = count_stream.evidence(design, state, alpha=policy.alpha, dispersion=self._arrays["dispersion"][rows])
            with np.errstate(invalid="ignore"):
                beyond = np.where(policy.sign == 0, np.abs(seen.effect), policy.sign * seen.effect) > policy.margin
                beyond |= np.isposinf(seen.effect) & (policy.sign >= 0)
            best = self._run[f"best.{int(absolute)}"]
            log_e = np.nan_to_num(seen.log_e_fail, nan=0.0)
            self._run[f"best.{int(absolute)}"] = np.stack(
                [np.maximum(best[0], log_e), np.where(beyond, np.maximum(best[1], log_e), best[1])]
            )

    def _with_counts(self, result: Result) -> Result:
        """Replace the findings of counted rows by what their e-values say, valid at every look."""
        counted = self._counted_rows()
        if not counted:
            return result
        parts, places = [], []
        for absolute, rows in counted.items():
            design, state = self._design_of(absolute, rows), self._kept_counts(absolute)
            specs = tuple(self.specs[i] for i in rows.tolist())
            policy = policy_of(specs, self._arrays["margin"][rows])
            seen = count_stream.evidence(design, state, alpha=policy.alpha, dispersion=self._arrays["dispersion"][rows])
            best = self._run[f"best.{int(absolute)}"]
            x, ex, bad_x = clean_counts(self._x[rows], self._ex[rows])
            y, ey, bad_y = clean_counts(self._y[rows], self._ey[rows])
            own = result.take(rows)
            # Once shown beyond the margin, always shown: the best evidence beyond it answers for FAIL.
            shown = best[1] >= np.log(1.0 / policy.alpha)
            fields = {
                "effect": seen.effect, "low": seen.low, "high": seen.high,
                "p": np.exp(-np.where(shown, best[1], best[0])), "p_pass": np.exp(-np.nan_to_num(seen.log_e_pass, nan=0.0)),
                "n": seen.n_effective, "base": own.baseline_level, "canary": own.canary_level,
                "events": np.nansum(x, axis=1) + np.nansum(y, axis=1),
            }  # fmt: skip
            found = counted_result(
                specs, tuple(self.derived[i] for i in rows.tolist()), self._arrays["margin"][rows], self.step,
                x, y, ex if absolute else None, ey if absolute else None, fields, bad_x, bad_y, own.history_windows, own.history_exceeding,
                ("counts-ratio-sequential.v1" if absolute else "counts-sequential.v1",) * len(rows), log_e=best[0],
            )  # fmt: skip
            verdict = np.where(
                shown,
                Verdict.FAIL,
                np.where(found.verdict == Verdict.FAIL, Verdict.INCONCLUSIVE, found.verdict),
            )
            reason = tuple(
                "regression" if s else "not_enough_evidence" if r == "regression" else r
                for s, r in zip(shown.tolist(), found.reason, strict=True)
            )
            parts.append(replace(found, verdict=verdict.astype(np.int8), reason=reason))
            places.append(rows)
        rest = np.setdiff1d(np.arange(len(self.specs)), np.concatenate(places))
        if len(rest):
            parts.append(result.take(rest))
            places.append(rest)
        return concatenate(parts, places)

    def update(
        self,
        baseline_block: ArrayLike | None,
        canary_block: ArrayLike,
        *,
        baseline_exposure: ArrayLike | None = None,
        canary_exposure: ArrayLike | None = None,
    ) -> None:
        """Take scrapes: (series, n) columns of both arms, NaN = missing; no baseline for design before_after.

        Scrapes beyond the horizon are not taken.

        Raises
        ------
        ValueError
            When shapes do not fit; nothing is then taken.
        """
        S = len(self.specs)
        y = as_points("canary_block", canary_block)
        if np.shape(canary_block)[-1] == 0:
            return
        if self.design == "concurrent":
            if baseline_block is None:
                raise ValueError("baseline_block: is needed for design concurrent")
            x = as_points("baseline_block", baseline_block)
        else:
            if baseline_block is not None:
                raise ValueError("baseline_block: must be None for design before_after")
            x = np.full(y.shape, np.nan)
        if len(y) != S:
            raise ValueError(f"canary_block: {len(y)} series, the stream has {S}")
        if x.shape != y.shape:
            raise ValueError(f"baseline_block: shape {x.shape} does not fit the canary's {y.shape}")
        room = y.shape[1] if self.horizon is None else max(self.horizon - self.scrapes, 0)
        ex, ey = (
            np.full(y.shape, np.nan) if e is None else as_points(name, e)
            for name, e in (("baseline_exposure", baseline_exposure), ("canary_exposure", canary_exposure))
        )
        for name, e in (("baseline_exposure", ex), ("canary_exposure", ey)):
            if e.shape != y.shape:
                raise ValueError(f"{name}: shape {e.shape} does not fit the block's {y.shape}")
        if True in self._counted_rows() and (baseline_exposure is None or canary_exposure is None):
            raise ValueError("baseline_exposure: kind 'ratio' needs the totals of both arms")
        if self.design == "before_after":
            y = ratios(y, None if canary_exposure is None else ey)
        room = min(room, y.shape[1])
        x, y = self._apart("last_x", x[:, :room]), self._apart("last_y", y[:, :room])
        for j in range(room):
            column = slice(j, j + 1)
            self._x, self._y, self._ex, self._ey = (
                np.concatenate([kept, new[:, column]], axis=1)
                for kept, new in ((self._x, x), (self._y, y), (self._ex, ex), (self._ey, ey))
            )
            if self.design == "concurrent":
                self._step_pairs()
                self._step_counts()
            else:
                self._step_scan()

    def _pairs(self) -> tuple[Floats, Floats]:
        policy = policy_of(self.specs, self._arrays["margin"])
        gx, gy = to_scale((self._x, self._y), policy.log).parts
        return gx, gy

    def _step_pairs(self) -> None:
        a, run = self._arrays, self._run
        policy = policy_of(self.specs, a["margin"])
        t = self.scrapes
        gx, gy = self._last_pair(policy.log)
        d = gy - gx - a["centre"]
        there = ~np.isnan(d)
        w = np.where(there, np.clip(np.nan_to_num(d), -a["reach"], a["reach"]), 0.0)
        run["sum"] = run["sum"] + w
        run["count"] = run["count"] + there
        by_past = np.isfinite(a["sd"])
        with np.errstate(invalid="ignore", divide="ignore"):
            up = np.where(by_past, run["sum"] / a["sd"], 0.0)
            mean = run["sum"] / np.maximum(run["count"], 1.0)
        look = run["count"] >= (3 if self.horizon else FIRST_LOOK)
        plain = ~by_past & (a["bets"] == 0)
        if plain.any() and self._looks_at(t):
            z_up, z_down, estimate = self._student(plain)
            share = np.sqrt(t / self.horizon) if self.horizon else 1.0
            look = np.where(plain, run["count"] >= FIRST_LOOK, look)
            if self.horizon:
                up = np.where(plain, z_up * share, up)
                down = np.where(plain, z_down * share, -up)
            else:
                n = run["count"]
                up = np.where(plain, sequential.normal_mixture_log_e(z_up, n, 60.0), up)
                down = np.where(plain, sequential.normal_mixture_log_e(z_down, n, 60.0), -up)
            mean = np.where(plain, estimate, mean)
        else:
            down = -up
            look = look & ~plain
        beyond_up, beyond_down = (
            mean > policy.worse,
            -mean > np.where(policy.sign == 0, policy.better, policy.worse),
        )
        for name, height, beyond in (("up", up, beyond_up), ("down", down, beyond_down)):
            run[name] = np.where(look, np.maximum(run[name], height), run[name])
            run[f"fail_{name}"] = np.where(look & beyond, np.maximum(run[f"fail_{name}"], height), run[f"fail_{name}"])
        self._step_tail(gx, gy, policy.sign)
        if "phi" in a:
            self._step_bets(d, policy.worse, policy.better)

    def _last_pair(self, log: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Return the newest scrape on the scale of the change; a zero counts as half the smallest positive
        value so far.
        """
        x, y = self._x[:, -1], self._y[:, -1]
        with np.errstate(invalid="ignore"):
            easy = np.isfinite(x) & np.isfinite(y) & (~log | ((x > 0) & (y > 0)))
        if easy.all():
            if log.all():
                return np.log(x), np.log(y)
            return np.where(log, np.log(np.where(log, x, 1.0)), x), np.where(log, np.log(np.where(log, y, 1.0)), y)
        gx, gy = self._pairs()
        return gx[:, -1], gy[:, -1]

    def _looks_at(self, t: int) -> bool:
        """Whether a series without a past is looked at now: always at first, then about 120 times in all."""
        return t >= FIRST_LOOK and (t <= 120 or t % max(1, t // 60) == 0 or t == self.horizon)

    def _student(self, rows: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        """Normal scores (equal tails) of the mean so far and its mirror, by the window's own standard errors."""
        gx, gy = self._pairs()
        estimate, u = dependence.trimmed_influence((gy - gx)[rows])
        se1, df1, se2, df2 = dependence.standard_errors(u)
        extra = self._arrays["extra"][rows]
        errors = ((np.sqrt(se1**2 + extra), df1), (np.sqrt(se2**2 + extra), df2))
        return _spread_over(rows, *_scores(estimate, errors))

    def _step_tail(self, gx: Floats, gy: Floats, sign: Floats) -> None:
        a, run = self._arrays, self._run
        if not np.isfinite(a["tail_sd"]).any():
            return
        flip = np.where(sign < 0, -1.0, 1.0)
        with np.errstate(invalid="ignore", divide="ignore"):
            e = (gy * flip > a["tail_cut"]).astype(np.float64) - (gx * flip > a["tail_cut"])
            e = np.where(np.isnan(gx) | np.isnan(gy), 0.0, e)
            run["tail_sum"] = run["tail_sum"] + e
            height = np.where(np.isfinite(a["tail_sd"]), run["tail_sum"] / a["tail_sd"], 0.0)
        run["tail"] = np.maximum(run["tail"], height)

    def _step_bets(self, d: Floats, worse: Floats, better: Floats) -> None:
        a, run = self._arrays, self._run
        phi = a["phi"]
        order = phi.shape[1]
        t = self.scrapes - 1
        for suffix, shift, games in (
            ("", 0.0, (("bet_up", 1.0), ("bet_down", -1.0))),
            ("_pass_up", worse, (("bet_pass_up", -1.0),)),
            ("_pass_down", -better, (("bet_pass_down", 1.0),)),
        ):
            value = d - shift
            memory = run[f"memory{suffix}"]
            innovation = value - (phi * memory[:, ::-1]).sum(axis=1)
            magnitudes = run[f"magnitudes{suffix}"]
            seen = np.minimum((~np.isnan(magnitudes)).sum(axis=1), sequential.RANK_WINDOW).astype(np.float64)
            for name, sign in games:
                run[name] = sequential.bet_step(run[name], sign * innovation, magnitudes, seen)
            magnitudes[:, t % sequential.RANK_WINDOW] = np.abs(innovation)
            run[f"memory{suffix}"] = np.concatenate([memory, np.nan_to_num(value)[:, None]], axis=1)[:, -order:]
        bound_up = sequential.log_mean_wealth(run["bet_up"])
        bound_down = sequential.log_mean_wealth(run["bet_down"])
        on = a["bets"] > 0
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = run["sum"] / np.maximum(run["count"], 1.0)
        for name, height, beyond in (("up", bound_up, mean > worse), ("down", bound_down, -mean > better)):
            run[name] = np.where(on, np.maximum(run[name], height), run[name])
            run[f"fail_{name}"] = np.where(on & beyond, np.maximum(run[f"fail_{name}"], height), run[f"fail_{name}"])

    def _layout(self) -> tuple[int, int, int, scan.Layout]:
        numbers = self._arrays["plan"].astype(np.int64)
        size, blocks, back = (int(v) for v in numbers[:3])
        W = (len(numbers) - 3) // 2
        return size, blocks, back, scan.Layout(numbers[3 : 3 + W], numbers[3 + W :], blocks)

    def _step_scan(self) -> None:
        a, run = self._arrays, self._run
        size, _, _, plan = self._layout()
        t = self.scrapes
        run["count"] = run["count"] + ~np.isnan(self._y[:, -1])
        policy = policy_of(self.specs, a["margin"])
        plain = a["scan_independent"] < ENOUGH_MOMENTS
        if plain.any() and self._looks_at(t):
            up, down, estimate = self._student_alone(plain, policy.log)
            share = np.sqrt(t / (self.horizon or t))
            self._raise(plain, up * share, down * share, estimate[:, None], policy)
        if t % size or plain.all():
            return
        now = t // size
        ending = np.flatnonzero(plan.last == now)
        if not len(ending):
            return
        blocks = scan.block_means(self._after(policy.log)[:, : now * size], size, a["rare"] > 0)
        change = (
            scan.window_means(blocks, plan.first[ending], plan.last[ending])
            - a["level"][:, None]
            - a["scan_centre"][:, ending]
        )
        scale = a["scan_scale"][:, ending]
        with np.errstate(invalid="ignore", divide="ignore"):
            z = np.nan_to_num(change / np.where(scale > 0, scale, np.nan))
        self._raise(~plain, z, -z, np.nan_to_num(change), policy)

    def _raise(self, rows: NDArray[np.bool_], up: Floats, down: Floats, change: Floats, policy: Policy) -> None:
        """Raise the running maxima of some series; those of FAIL only by evidence of a change beyond the margin."""
        run = self._run
        better = np.where(policy.sign == 0, policy.better, policy.worse)[:, None]
        for name, heights, beyond in (
            ("up", up, change > policy.worse[:, None]),
            ("down", down, -change > better),
        ):
            tall = heights.reshape(len(rows), -1)
            run[name] = np.where(rows, np.maximum(run[name], tall.max(axis=1)), run[name])
            shown = np.where(beyond, tall, 0.0).max(axis=1)
            run[f"fail_{name}"] = np.where(rows, np.maximum(run[f"fail_{name}"], shown), run[f"fail_{name}"])

    def _after(self, log: NDArray[np.bool_]) -> Floats:
        """Points after the deployment on the scale of the change; zeros are measured by the last day before, too."""
        recent = self._arrays["past"][:, -1440:]
        return to_scale((recent, self._y), log).parts[1]

    def _two_arms(self, rows: NDArray[np.bool_], log: NDArray[np.bool_]) -> contrasts.Contrast:
        recent, after = to_scale((self._arrays["past"][:, -1440:], self._y), log).parts
        width = max(self.horizon or 1, 30)
        none = np.full((int(rows.sum()), 0), np.nan)
        return contrasts.two_arms(recent[rows][:, -width:], after[rows], none, ("before-after-trim.v1",) * 3)

    def _student_alone(self, rows: NDArray[np.bool_], log: NDArray[np.bool_]) -> tuple[Floats, Floats, Floats]:
        """Normal scores of the change against the stretch before, where the past is too short for placebo moments."""
        found = self._two_arms(rows, log)
        return _spread_over(rows, *_scores(found.estimate, found.errors))

    # What is answered.

    def _evidence(self, up: Floats, down: Floats) -> Floats:
        """P-values of running maxima in the direction asked; by Ville's inequality for log e-values."""
        a = self._arrays
        sign = policy_of(self.specs, a["margin"]).sign
        if self.design == "before_after":
            p_up = self._scan_p(up, a["scan_up"])
            p_down = self._scan_p(down, a["scan_down"])
        elif self.horizon is None:
            p_up, p_down = np.exp(-np.maximum(up, 0.0)), np.exp(-np.maximum(down, 0.0))
        else:
            p_up, p_down = sequential.reflection_p(up, a["df"]), sequential.reflection_p(down, a["df"])
        both = np.minimum(2.0 * np.minimum(p_up, p_down), 1.0)
        return np.where(sign > 0, p_up, np.where(sign < 0, p_down, both))

    def _scan_p(self, largest: Floats, past: Floats) -> Floats:
        a = self._arrays
        p = scan.rank_p(np.where(largest > 0, largest, -np.inf), past, a["scan_moments"].astype(np.int64))
        df = np.maximum(a["scan_independent"] - 1.0, 1.0)
        _, _, _, plan = self._layout()
        looks = len(np.unique(plan.last - plan.first))
        p_t = np.minimum(tail_p(largest, df) * looks, 1.0)
        few = a["scan_independent"] < 40
        p = np.where(few, np.maximum(p, p_t), p)
        alone = sequential.reflection_p(largest, np.full(len(largest), np.inf))
        p = np.where(a["scan_independent"] < ENOUGH_MOMENTS, alone, p)
        return np.where(largest > 0, p, 1.0)

    def result(self) -> Result:
        """Findings as of now, valid at whatever moment they are asked for.

        FAIL is reached when the running evidence beyond the margin crosses its boundary, and stays. PASS is
        as of now.
        """
        a, run = self._arrays, self._run
        policy = policy_of(self.specs, a["margin"])
        described = self._described()
        tested_tail = np.isfinite(a.get("tail_sd", np.full(len(self.specs), np.nan)))
        share = np.where(tested_tail, CENTRE_WEIGHT, 1.0)
        p_any = self._evidence(run["up"], run["down"])
        p_fail = self._evidence(run["fail_up"], run["fail_down"])
        p_tail = np.where(
            tested_tail,
            sequential.reflection_p(run["tail"], a.get("df", np.full(len(self.specs), np.inf))),
            1.0,
        )
        centre_fail = p_fail <= policy.alpha * share
        tail_fail = tested_tail & (p_tail <= policy.alpha * TAIL_WEIGHT)
        fail = centre_fail | tail_fail
        p = np.fmin(np.minimum(p_any / share, 1.0), np.where(tested_tail, np.minimum(p_tail / TAIL_WEIGHT, 1.0), 1.0))
        low, high, estimate, shown, n = self._interval(share)
        blocked = np.array([r in ("tail_in_doubt", "bad_values", "canary_silent") for r in described.reason])
        inside = np.where(
            policy.sign > 0,
            high < policy.worse,
            np.where(policy.sign < 0, low > -policy.worse, (high < policy.worse) & (low > -policy.better)),
        )
        passed = shown & ~fail & inside & ~blocked & (n >= FIRST_LOOK)
        verdict = np.where(fail, Verdict.FAIL, np.where(passed, Verdict.PASS, Verdict.INCONCLUSIVE)).astype(np.int8)
        reason = [
            "regression"
            if c
            else "tail_regression"
            if f
            else "within_margin"
            if o
            else was
            if was not in ("regression", "within_margin", "tail_regression")
            else "not_enough_evidence"
            for c, f, o, was in zip(
                centre_fail.tolist(), tail_fail.tolist(), passed.tolist(), described.reason, strict=True
            )
        ]
        log_e = np.full(len(self.specs), np.nan)
        if self.design == "concurrent" and self.horizon is None:
            log_e = np.where(
                policy.sign < 0,
                run["down"],
                np.where(policy.sign > 0, run["up"], np.maximum(run["up"], run["down"]) - np.log(2.0)),
            )
        known = np.isfinite(estimate)
        out = replace(
            described,
            verdict=verdict,
            reason=tuple(reason),
            p_value=np.clip(p, 1e-300, 1.0),
            log_e_value=log_e,
            effect=np.where(known, to_effect(estimate, policy.log), described.effect),
            effect_low=to_effect(low, policy.log),
            effect_high=to_effect(high, policy.log),
            method=tuple(self._methods()),
        )
        failing = verdict == Verdict.FAIL
        lost = failing & (out.onset < 0)
        if lost.any():
            onset = self._onset(policy)
            out = replace(out, onset=onset[0], onset_low=onset[1], onset_high=onset[2])
        return self._with_counts(out)

    def _onset(self, policy: Policy) -> tuple[NDArray[np.int64], ...]:
        from tidegate_analysis.kernels import changepoint

        if self.design == "concurrent":
            gx, gy = self._pairs()
            d, level = gy - gx, self._arrays["centre"]
        else:
            d = to_scale((self._arrays["past"][:, -1440:], self._y), policy.log).parts[1]
            level = self._arrays["level"]
        return changepoint.onset(d, level)

    def _described(self) -> Result:
        """Levels, tail, presence and quality of what came so far; the verdict in it is not used."""
        # Counters came in as totals and were taken apart on arrival: here they are levels.
        levels = tuple(s.with_(kind="gauge") if s.kind == "counter" else s for s in self.specs)
        if self.design == "concurrent":
            n = self.scrapes
            past = self._arrays["past"]
            usable = past[..., :n] if past.shape[3] >= n else past[:, :0, :, :0]
            counted = True in self._counted_rows()
            out = compare(
                self._x,
                self._y,
                spec=levels,
                history=usable if n else None,
                step_seconds=self.step,
                baseline_exposure=self._ex if counted else None,
                canary_exposure=self._ey if counted else None,
            )
        else:
            out = before_after(self._arrays["past"], self._y, spec=levels, step_seconds=self.step)
        return replace(out, specs=self.specs, derived=self.derived)

    def _interval(self, share: Floats) -> tuple[Floats, Floats, Floats, NDArray[np.bool_], Floats]:
        """Repeated confidence bounds (Jennison and Turnbull 1989) on the scale of the change, valid at every
        look.
        """
        a, run = self._arrays, self._run
        policy = policy_of(self.specs, a["margin"])
        n = run["count"]
        fail_level = np.where(policy.sign == 0, policy.alpha / 2.0, policy.alpha) * share
        if self.design == "before_after":
            return self._scan_interval(policy, fail_level)
        by_past = np.isfinite(a["sd"])
        with np.errstate(invalid="ignore", divide="ignore"):
            estimate = np.where(n > 0, run["sum"] / n, np.nan)
            unit = a["sd"] / n
        to_null = np.where(by_past, sequential.boundary(fail_level, a["df"]) * unit, np.nan)
        to_margin = np.where(by_past, sequential.boundary(policy.alpha_pass, a["df"]) * unit, np.nan)
        plain = ~by_past
        if plain.any() and self.scrapes >= FIRST_LOOK:
            gx, gy = self._pairs()
            mean, u = dependence.trimmed_influence(gy - gx)
            se1, df1, se2, df2 = dependence.standard_errors(u)
            errors = ((np.sqrt(se1**2 + a["extra"]), df1), (np.sqrt(se2**2 + a["extra"]), df2))
            wide_null, wide_margin = (self._repeated(errors, level, n) for level in (fail_level, policy.alpha_pass))
            estimate = np.where(plain, mean, estimate)
            to_null = np.where(plain, wide_null, to_null)
            to_margin = np.where(plain, wide_margin, to_margin)
        betting = a["bets"] > 0
        if betting.any():
            pass_up = sequential.log_mean_wealth(run["bet_pass_up"]) >= np.log(1.0 / policy.alpha_pass)
            pass_down = sequential.log_mean_wealth(run["bet_pass_down"]) >= np.log(1.0 / policy.alpha_pass)
            # The bets say yes or no at the margin; the shown interval is that answer and the estimate.
            to_margin = np.where(
                betting & np.where(policy.sign < 0, pass_down, np.where(policy.sign > 0, pass_up, pass_up & pass_down)),
                np.maximum(np.minimum(policy.worse, policy.better) - np.abs(estimate), 0.0) * 0.999,
                np.where(betting, np.inf, to_margin),
            )
            to_null = np.where(betting, np.nan, to_null)
        shown = np.isfinite(to_margin) & np.isfinite(estimate)
        down = policy.sign < 0
        both = policy.sign == 0
        low = estimate - np.where(down, to_margin, to_null)
        high = estimate + np.where(down | both, to_null, to_margin)
        high = np.where(betting & both, estimate + to_margin, high) if betting.any() else high
        low = np.where(betting & both, estimate - to_margin, low) if betting.any() else low
        low, high = np.where(np.isfinite(low), low, np.nan), np.where(np.isfinite(high), high, np.nan)
        return low, high, estimate, shown, n

    def _repeated(self, errors: tuple[tuple[Floats, Floats], ...], level: Floats, n: Floats) -> Floats:
        """Half-width of the repeated confidence bound by the window's own standard errors: the widest of them."""
        if self.horizon is not None:
            b = sequential.boundary(level, np.full(len(level), np.inf)) * np.sqrt(self.horizon / max(self.scrapes, 1))
        else:
            b = _mixture_bound(level, n)
        width = np.zeros(len(level))
        for se, df in errors:
            # The same tail by Student's t as the boundary has by the normal.
            q = quantile_t(np.clip(special.ndtr(-b), 1e-12, 0.5), np.nan_to_num(df, nan=1.0))
            width = np.maximum(width, q * se)
        return width

    def _scan_interval(
        self, policy: Policy, fail_level: Floats
    ) -> tuple[Floats, Floats, Floats, NDArray[np.bool_], Floats]:
        a = self._arrays
        S = len(self.specs)
        size, blocks, _, plan = self._layout()
        n = (~np.isnan(self._y)).sum(axis=1).astype(np.float64)
        estimate, to_null, to_margin = (np.full(S, np.nan) for _ in range(3))
        now = self.scrapes // size
        start = np.flatnonzero((plan.first == 0) & (plan.last <= now))
        by_past = (a["scan_independent"] >= ENOUGH_MOMENTS) & (now > 0) & bool(len(start))
        if by_past.any():
            j = int(start[-1])
            values = scan.block_means(self._after(policy.log)[:, : now * size], size, a["rare"] > 0)
            mean = scan.window_means(values, np.array([0]), np.array([now]))[:, 0]
            by_past &= a["scan_scale"][:, j] > 0
            estimate = np.where(by_past, mean - a["level"] - a["scan_centre"][:, j], np.nan)
            df = np.maximum(a["scan_independent"] - 1.0, 1.0)
            unit = a["scan_scale"][:, j] * np.sqrt(blocks / max(int(plan.last[j]), 1))
            to_null = np.where(by_past, sequential.boundary(fail_level, df) * unit, np.nan)
            to_margin = np.where(by_past, sequential.boundary(policy.alpha_pass, df) * unit, np.nan)
        plain = a["scan_independent"] < ENOUGH_MOMENTS
        if plain.any() and self.scrapes >= FIRST_LOOK:
            found = self._two_arms(np.ones(S, dtype=bool), policy.log)
            estimate = np.where(plain, found.estimate, estimate)
            to_null = np.where(plain, self._repeated(found.errors[:2], fail_level, n), to_null)
            to_margin = np.where(plain, self._repeated(found.errors[:2], policy.alpha_pass, n), to_margin)
        down, both = policy.sign < 0, policy.sign == 0
        low = estimate - np.where(down, to_margin, to_null)
        high = estimate + np.where(down | both, to_null, to_margin)
        return low, high, estimate, np.isfinite(estimate) & np.isfinite(to_margin), n

    def _methods(self) -> list[str]:
        if self.design == "before_after":
            alone = (self._arrays["scan_independent"] < ENOUGH_MOMENTS).tolist()
            return ["before-after-sequential.v1" if a else "before-after-scan-sequential.v1" for a in alone]
        past = np.isfinite(self._arrays["sd"]).tolist()
        bets = (self._arrays["bets"] > 0).tolist()
        plain = "paired-group-sequential.v1" if self.horizon is not None else "paired-mixture.v1"
        return [
            "paired-placebo-sequential.v1" if p else "signed-rank-betting.v1" if b else plain
            for p, b in zip(past, bets, strict=True)
        ]

    def judge(self) -> Judgement:
        """Return the gate's verdict as of now; a FAIL stays, since its evidence only grows."""
        return judge(self.result(), q=self.q, design=self.design)

    # What outlives a process.

    def state(self) -> bytes:
        """Everything there is, as bytes; equal streams give equal bytes."""
        config = {
            "version": STATE_VERSION,
            "specs": [asdict(s) for s in self.specs],
            "derived": self.derived,
            "design": self.design,
            "horizon": self.horizon,
            "step": self.step,
            "q": self.q,
        }
        arrays = {"x": self._x, "y": self._y, "ex": self._ex, "ey": self._ey}
        arrays.update({f"a.{k}": v for k, v in sorted(self._arrays.items())})
        arrays.update({f"r.{k}": v for k, v in sorted(self._run.items())})
        text = np.frombuffer(json.dumps(config, sort_keys=True).encode(), dtype=np.uint8)
        out = io.BytesIO()
        np.savez(out, config=text, **arrays)  # type: ignore[arg-type]
        return out.getvalue()

    def restore(self, state: bytes) -> Stream:
        """Become the stream that ``state`` describes, and return it.

        Raises
        ------
        ValueError
            When the bytes are no such state.
        """
        try:
            with np.load(io.BytesIO(state), allow_pickle=False) as stored:
                config = json.loads(stored["config"].tobytes().decode())
                arrays = {name: stored[name] for name in stored.files if name != "config"}
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise ValueError(f"state: is no saved stream ({type(error).__name__})") from None
        if config.get("version") != STATE_VERSION:
            raise ValueError(f"state: version {config.get('version')} is not {STATE_VERSION}")
        self.specs = tuple(MetricSpec(**s) for s in config["specs"])
        self.derived = tuple(tuple(d) for d in config["derived"])
        self.design, self.horizon, self.step, self.q = (
            config["design"],
            config["horizon"],
            config["step"],
            config["q"],
        )
        self._x, self._y, self._ex, self._ey = (arrays.pop(name) for name in ("x", "y", "ex", "ey"))
        self._arrays = {k[2:]: v for k, v in arrays.items() if k.startswith("a.")}
        self._run = {k[2:]: v for k, v in arrays.items() if k.startswith("r.")}
        return self


def _scores(estimate: Floats, errors: tuple[tuple[Floats, Floats], ...]) -> tuple[Floats, Floats, Floats]:
    """Smallest normal scores, upward and downward, over several standard errors; and the estimate."""
    up = np.full(len(estimate), np.inf)
    down = np.full(len(estimate), np.inf)
    for se, df in errors:
        ok = np.isfinite(se) & (se > ROUNDING * np.abs(estimate)) & np.isfinite(estimate)
        t = np.where(ok, estimate / np.where(ok, se, 1.0), 0.0)
        f = np.where(ok, df, 1.0)
        for score, way in ((up, t), (down, -t)):
            z = -special.ndtri(np.clip(tail_p(way, f), 1e-300, 1.0 - 1e-16))
            np.minimum(score, np.where(ok, z, 0.0), out=score)
    return up, down, estimate


def _spread_over(rows: NDArray[np.bool_], *values: Floats) -> tuple[Floats, Floats, Floats]:
    """Put values of some series into arrays over all; 0 for the rest and where unknown."""
    full = np.zeros((3, len(rows)))
    full[:, rows] = np.nan_to_num(np.stack(values))
    return full[0], full[1], full[2]


def _mixture_bound(alpha: Floats, n: Floats) -> Floats:
    """Invert :func:`~tidegate_analysis.kernels.sequential.normal_mixture_log_e` for z by bisection."""
    low, high = np.zeros(len(n)), np.full(len(n), 60.0)
    goal = np.log(1.0 / alpha)
    safe = np.maximum(n, 1.0)
    for _ in range(50):
        middle = 0.5 * (low + high)
        reached = sequential.normal_mixture_log_e(middle, safe, 60.0) >= goal
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high
