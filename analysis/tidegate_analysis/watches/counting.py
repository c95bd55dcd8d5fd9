"""Watching counts and event ratios, scrape by scrape."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.counted import clean_counts, counted_result, learn_past
from tidegate_analysis.decide import Policy, policy_of
from tidegate_analysis.kernels import count_stream
from tidegate_analysis.result import Result
from tidegate_analysis.spec import MetricSpec, Verdict
from tidegate_analysis.watches import Floats

STATE = "state."


class CountWatch:
    """Conditional-binomial e-values of some series of a stream: ratios (``absolute``), or counts."""

    def __init__(self, absolute: bool, learnt: dict[str, Floats], run: dict[str, Floats]) -> None:
        """Take over what was learnt and what ran so far."""
        self.absolute, self.learnt, self.run = absolute, learnt, run

    @classmethod
    def learn(
        cls, absolute: bool, rows: NDArray[np.int64], policy: Policy, past: Floats, totals: Floats | None
    ) -> CountWatch:
        """Learn how unevenly events fell in past windows, (series, windows, 2, points), of the watched ``rows``."""
        old_totals = None if totals is None or not absolute else totals[rows]
        dispersion, odds = learn_past(past[rows], old_totals, ratio=absolute, sized=absolute)
        learnt = {
            "rows": rows.astype(np.float64),
            "dispersion": dispersion,
            "odds": odds,
            "margin": policy.margin[rows],
            "sign": policy.sign[rows],
        }
        watch = cls(absolute, learnt, {"best": np.zeros(len(rows)), "beyond": np.zeros(len(rows))})
        watch._keep(count_stream.start(watch._design()))
        return watch

    @property
    def rows(self) -> NDArray[np.int64]:
        """Which series of the stream are watched."""
        return self.learnt["rows"].astype(np.int64)

    def _design(self) -> count_stream.CountDesign:
        a = self.learnt
        return count_stream.count_design(a["margin"], sign=a["sign"], absolute=self.absolute, n_series=len(a["margin"]))

    def _keep(self, state: count_stream.CountState) -> None:
        self.run |= {f"{STATE}{name}": np.asarray(value) for name, value in state._asdict().items()}

    def _state(self) -> count_stream.CountState:
        kept = {name: self.run[f"{STATE}{name}"] for name in count_stream.CountState._fields}
        values: dict[str, Any] = {k: int(v) if v.ndim == 0 else v for k, v in kept.items()}
        return count_stream.CountState(**values)

    def step(self, policy: Policy, x: Floats, y: Floats, ex: Floats, ey: Floats) -> None:
        """Take one scrape of the whole stream, (series, 1) each; a running best keeps what was once shown."""
        rows = self.rows
        events_x, totals_x, _ = clean_counts(x[rows], ex[rows])
        events_y, totals_y, _ = clean_counts(y[rows], ey[rows])
        told = (totals_x, totals_y)
        if not self.absolute:
            told = (np.ones(events_x.shape), self.learnt["odds"][:, None] * np.ones(events_y.shape))
        design = self._design()
        state = count_stream.update(design, self._state(), events_x, events_y, *told)
        self._keep(state)
        seen = count_stream.evidence(design, state, alpha=policy.alpha[rows], dispersion=self.learnt["dispersion"])
        sign, margin = self.learnt["sign"], self.learnt["margin"]
        with np.errstate(invalid="ignore"):
            beyond = np.where(sign == 0, np.abs(seen.effect), sign * seen.effect) > margin
            beyond |= np.isposinf(seen.effect) & (sign >= 0)
        log_e = np.nan_to_num(seen.log_e_fail, nan=0.0)
        self.run["best"] = np.maximum(self.run["best"], log_e)
        self.run["beyond"] = np.where(beyond, np.maximum(self.run["beyond"], log_e), self.run["beyond"])

    def log_e_now(self, policy: Policy) -> Floats:
        """Log e-values against "not worse" as of the newest scrape, of the watched series."""
        rows = self.rows
        seen = count_stream.evidence(
            self._design(), self._state(), alpha=policy.alpha[rows], dispersion=self.learnt["dispersion"]
        )
        return np.nan_to_num(seen.log_e_fail, nan=0.0)

    def result(
        self,
        specs: tuple[MetricSpec, ...],
        derived: tuple[tuple[str, ...], ...],
        step: float,
        arms: tuple[Floats, Floats, Floats, Floats],
        described: Result,
    ) -> Result:
        """Findings of the watched series as of now.

        Parameters
        ----------
        specs, derived:
            Of the watched series.
        arms:
            Events of baseline and canary, and their totals, of the whole stream so far.
        described:
            Levels and history of the watched series.
        """
        rows = self.rows
        policy = policy_of(specs, self.learnt["margin"])
        seen = count_stream.evidence(
            self._design(), self._state(), alpha=policy.alpha, dispersion=self.learnt["dispersion"]
        )
        x, ex, bad_x = clean_counts(arms[0][rows], arms[2][rows])
        y, ey, bad_y = clean_counts(arms[1][rows], arms[3][rows])
        # Once shown beyond the margin, always shown: the best evidence from beyond it answers for FAIL.
        shown = self.run["beyond"] >= np.log(1.0 / policy.alpha)
        fields = {
            "effect": seen.effect,
            "low": seen.low,
            "high": seen.high,
            "p": np.exp(-np.where(shown, self.run["beyond"], self.run["best"])),
            "p_pass": np.exp(-np.maximum(np.nan_to_num(seen.log_e_pass, nan=0.0), 0.0)),
            "n": seen.n_effective,
            "base": described.baseline_level,
            "canary": described.canary_level,
            "events": np.nansum(x, axis=1) + np.nansum(y, axis=1),
            "odds": self.learnt["odds"],
        }
        found = counted_result(
            specs,
            derived,
            self.learnt["margin"],
            step,
            x,
            y,
            ex if self.absolute else None,
            ey if self.absolute else None,
            fields,
            bad_x,
            bad_y,
            described.history_windows,
            described.history_exceeding,
            ("counts-ratio-sequential.v1" if self.absolute else "counts-sequential.v1",) * len(rows),
            log_e=self.run["best"],
        )
        open_ = found.verdict == Verdict.FAIL
        verdict = np.where(shown, Verdict.FAIL, np.where(open_, Verdict.INCONCLUSIVE, found.verdict))
        reason = tuple(
            "regression" if s else "not_enough_evidence" if r == "regression" else r
            for s, r in zip(shown.tolist(), found.reason, strict=True)
        )
        return replace(found, verdict=verdict.astype(np.int8), reason=reason)
