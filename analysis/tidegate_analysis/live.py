"""Blocks in as they come, the verdict out at any moment."""

from __future__ import annotations

import math
import pickle
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.analyze import analyze, column_of, flat_past, flat_window, history_array, with_notes
from tidegate_analysis.batch import ARMS, Block, SeriesBatch
from tidegate_analysis.defaults import resolve_all
from tidegate_analysis.judgement import Judgement, judge
from tidegate_analysis.kernels.counters import increases
from tidegate_analysis.kernels.shared import as_number
from tidegate_analysis.live_histograms import watch_histograms
from tidegate_analysis.rates import as_levels, increments, ratios
from tidegate_analysis.result import concatenate
from tidegate_analysis.spec import Design, MetricSpec, QualityNote, Verdict
from tidegate_analysis.stream import Stream, open_stream

Floats = NDArray[np.float64]
# Scrapes that the canary may be behind the baseline before it counts as silent.
SILENT_AFTER = 3


class LiveEvaluation:
    """An evaluation that is fed blocks of either arm and either phase in any order.

    What is answered depends on the points that came, not on when it was asked nor on how the points were cut
    into blocks: scrapes are judged in order, as far as both arms have got, and points that come late for a
    scrape that was judged already have the stream run again from its beginning.

    Parameters
    ----------
    specs:
        The metrics.
    design:
        ``"auto"``: concurrent when the baseline speaks after the deployment, else before/after.
    q:
        False-discovery rate over the metrics.
    deployed_at:
        Epoch seconds of the deployment; default: the first point of phase ``"post"``.
    warm_up, horizon_seconds:
        Seconds after the deployment that are not judged, and how long it is watched, from the deployment.
    history:
        Past pairs of blocks (baseline, canary) in which nothing was wrong.

    Raises
    ------
    ValueError
        When a parameter is out of its range.
    """

    # Which metrics are running totals, where their difference is watched.
    _running: NDArray[np.bool_] | None = None

    def __init__(
        self,
        specs: Sequence[MetricSpec],
        *,
        design: Design = "auto",
        q: float = 0.05,
        deployed_at: float | None = None,
        warm_up: float = 60.0,
        horizon_seconds: float = 900.0,
        history: Sequence[tuple[Block, Block]] | None = None,
    ) -> None:
        """Declare the metrics and the plan."""
        if not (math.isfinite(warm_up) and warm_up >= 0):
            raise ValueError(f"warm_up: must be a number of seconds of at least 0, not {warm_up!r}")
        if not (math.isfinite(horizon_seconds) and horizon_seconds > warm_up):
            raise ValueError(
                f"horizon_seconds: must be more than the warm-up of {warm_up:g} s, not {horizon_seconds!r}"
            )
        if not 0.0 < as_number(q) < 0.5:
            raise ValueError(f"q: must lie between 0 and 0.5, not {q!r}")
        if deployed_at is not None and not math.isfinite(deployed_at):
            raise ValueError(f"deployed_at: must be a finite time, not {deployed_at!r}")
        self.batch = SeriesBatch(tuple(specs))
        self.design: Design = design
        self.q = q
        self.deployed_at = deployed_at
        self.warm_up = warm_up
        self.horizon_seconds = horizon_seconds
        self.history = tuple(history or ())
        self._stream: Stream | None = None
        self._plan: tuple[Design, int, int] | None = None
        self._taken = 0
        self._dirty = True
        self._failed: dict[int, str] = {}
        self._last: tuple[tuple[object, ...], Judgement] | None = None
        binned = np.array([s.kind == "histogram" for s in self.batch.specs], dtype=bool)
        self._plain, self._binned = np.flatnonzero(~binned), np.flatnonzero(binned)
        self._by_ratio = np.zeros(len(self._plain), dtype=bool)

    def add(self, block: Block) -> None:
        """Take a block.

        Raises
        ------
        BlockError
            When it cannot be used; nothing of it is then taken.
        """
        self.batch.add(block)
        if self._plan is None:
            return
        at = math.floor((block.start - self.batch.origin) / self.batch.step + 0.5)
        if block.phase == "pre" or at < self._plan[1] + self._taken:
            self._dirty = True

    def _span(self) -> tuple[int, int, int] | None:
        """First judged column, columns of the horizon, and one past the newest column of both arms."""
        span = self.batch.span("post")
        if span is None:
            return None
        step = self.batch.step
        deployed = span[0] if self.deployed_at is None else column_of(self.batch, self.deployed_at)
        low = max(deployed + math.ceil(self.warm_up / step - 1e-6), span[0])
        horizon = max(1, math.floor(self.horizon_seconds / step + 1e-6) - (low - deployed))
        return low, horizon, span[1]

    def _frontier(self, design: Design, final: bool) -> int:
        """One past the last column that may be judged: as far as both arms have got, or either when no more
        will come.
        """
        ends = {arm: self._end(arm) for arm in ("baseline", "canary")}
        if design == "before_after":
            return ends["canary"]
        return max(ends.values()) if final else min(ends.values())

    def _end(self, arm: str) -> int:
        names = self.batch.instances(arm, "post")  # type: ignore[arg-type]
        tracks = [self.batch._tracks[arm, "post", n] for n in names]  # type: ignore[index]  # noqa: SLF001
        return max((t.first + t.values.shape[1] for t in tracks), default=-(1 << 40))

    def _choose(self) -> Design:
        if self.design != "auto":
            return self.design
        has_past = bool(self.batch.instances("canary", "pre") or self.batch.instances("baseline", "pre"))
        return "before_after" if not self.batch.instances("baseline", "post") and has_past else "concurrent"

    def _open(self, design: Design, low: int, horizon: int) -> Stream:
        rows = self._plain
        specs = tuple(self.batch.specs[i] for i in rows.tolist())
        if design == "concurrent":
            history, totals = history_array(self.batch, list(self.history), horizon)
            return open_stream(
                specs,
                design="concurrent",
                history=history[rows],
                history_exposure=None if totals is None else totals[rows],
                step_seconds=self.batch.step,
                horizon=horizon,
                q=self.q,
            )
        pre = self.batch.span("pre")
        floor = pre[0] if pre is not None else low
        past, told = self._rows(flat_past(self.batch, "canary", floor, low))
        if design == "difference_in_differences":
            control, control_told = self._rows(flat_past(self.batch, "baseline", floor, low))
            past, control, told = ratios(past, told), ratios(control, control_told), None
            specs, self._by_ratio, self._running = self._differenced(specs, past)
            past = self._difference(self._apart(past), self._apart(control))
        return open_stream(
            specs,
            design="before_after",
            before=past,
            before_exposure=told,
            step_seconds=self.batch.step,
            horizon=horizon,
            q=self.q,
        )

    def _rows(self, found: tuple[Floats, Floats | None]) -> tuple[Floats, Floats | None]:
        """Keep the metrics that the stream watches."""
        values, totals = found
        return values[self._plain], None if totals is None else totals[self._plain]

    def _differenced(
        self, declared: tuple[MetricSpec, ...], past: Floats
    ) -> tuple[tuple[MetricSpec, ...], NDArray[np.bool_], NDArray[np.bool_]]:
        """Specs of the arms' difference, which are ratios and which came in as running totals.

        Ratios stay on the log scale, the rest on the linear one with its margin: counts, too, as before/after has them.
        """
        resolved, derived, margin = resolve_all(declared, past, past)
        running = np.array([s.kind == "counter" for s in resolved], dtype=bool)
        resolved, _, margin, _ = as_levels(resolved, derived, margin, *increments(resolved, (past,)))
        by_ratio = np.array([s.scale == "log" for s in resolved], dtype=bool)
        specs = tuple(
            s.with_(kind="gauge", scale="log" if r else "linear", margin=float(m))
            for s, r, m in zip(resolved, by_ratio.tolist(), margin.tolist(), strict=True)
        )
        return specs, by_ratio, running

    def _apart(self, values: Floats) -> Floats:
        """Turn running totals into increases; the first has none."""
        if self._running is None or not self._running.any():
            return values
        out = values.copy()
        out[self._running] = increases(values[self._running])
        return out

    def _difference(self, y: Floats, x: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.where(x > 0, y / x, np.nan)
        return np.where(self._by_ratio[:, None], ratio, y - x)

    def judge(self, *, final: bool = False) -> Judgement:
        """Return the verdict as of now.

        Valid at whatever moment and however often it is asked for. A FAIL stays. With ``final`` scrapes that
        only one arm answered are judged too, since no more will come.
        """
        found = self._span()
        if found is None:
            return judge(with_notes(analyze(self.batch).result, self.batch.notes), q=self.q)
        low, horizon, _ = found
        design = self._choose()
        plan = (design, low, horizon)
        if self._dirty or self._plan != plan:
            self._stream = self._open(*plan) if len(self._plain) else None
            self._plan, self._taken, self._dirty, self._last = plan, 0, False, None
        high = max(min(self._frontier(design, final), low + horizon), low + self._taken)
        if self._stream is not None and high > low + self._taken:
            self._feed(self._stream, design, low + self._taken, high)
        # Scrapes that only one arm answered may still be completed, should more come after all.
        self._dirty = final and high > low + self._taken
        behind = min(self._end("baseline"), low + horizon) - self._end("canary")
        seen = (high, max(behind, SILENT_AFTER - 1), self.batch.notes)
        if self._last is not None and self._last[0] == seen:
            return self._last[1]  # no scrape was completed since, as after the first arm of each
        self._taken = high - low
        parts, places = [], []
        if self._stream is not None:
            parts.append(self._stream.result())
            places.append(self._plain)
        if len(self._binned):
            parts.append(watch_histograms(self.batch, self._binned, low, self._taken, horizon))
            places.append(self._binned)
        result = with_notes(concatenate(parts, places), self.batch.notes)
        if design == "concurrent" and behind >= SILENT_AFTER:
            note = QualityNote("canary_silent", int(behind), f"the canary is {behind} scrapes behind the baseline")
            waiting = result.verdict != Verdict.FAIL
            result = replace(
                with_notes(result, (note,)),
                verdict=np.where(waiting, Verdict.INCONCLUSIVE, result.verdict).astype(np.int8),
                reason=tuple("canary_silent" if w else r for w, r in zip(waiting.tolist(), result.reason, strict=True)),
            )
        judged = judge(result, q=self.q, design=design, clock=(self.batch.time_of(low), self.batch.step))
        self._last = (seen, self._latched(judged))
        return self._last[1]

    def _feed(self, stream: Stream, design: Design, a: int, b: int) -> None:
        """Show the columns ``a`` to ``b - 1`` to the stream."""
        if design == "difference_in_differences":
            # One scrape more to the left: what an increase is measured from.
            arms = (ratios(*self._rows(flat_window(self.batch, arm, "post", a - 1, b))) for arm in ARMS[::-1])
            stream.update(None, self._difference(*(self._apart(one)[:, 1:] for one in arms)))
            return
        y, ey = self._rows(flat_window(self.batch, "canary", "post", a, b))
        x, ex = self._rows(flat_window(self.batch, "baseline", "post", a, b))
        if design == "concurrent":
            stream.update(x, y, baseline_exposure=ex, canary_exposure=ey)
        else:
            stream.update(None, y, canary_exposure=ey)

    def _latched(self, judged: Judgement) -> Judgement:
        """Keep every FAIL that was told, even if late points would have taken it back."""
        verdicts, reasons = judged.verdicts.copy(), list(judged.reasons)
        for i, reason in self._failed.items():
            if verdicts[i] != Verdict.FAIL:
                verdicts[i], reasons[i] = Verdict.FAIL, reason
        for i in np.flatnonzero(verdicts == Verdict.FAIL).tolist():
            self._failed.setdefault(i, reasons[i])
        if np.array_equal(verdicts, judged.verdicts):
            return judged
        from tidegate_analysis.judgement import fold

        return replace(judged, verdict=fold(verdicts), verdicts=verdicts, reasons=tuple(reasons))

    @property
    def finished(self) -> bool:
        """Whether the horizon was judged to its end."""
        return self._plan is not None and self._taken >= self._plan[2]

    def state(self) -> bytes:
        """Everything there is, as bytes; for the process that made it or its successor, not for strangers."""
        return pickle.dumps({**self.__dict__, "_last": None}, protocol=5)

    @classmethod
    def restore(cls, state: bytes) -> LiveEvaluation:
        """Return the evaluation that :meth:`state` described. Give it only bytes you stored yourself."""
        live = cls.__new__(cls)
        live.__dict__.update(pickle.loads(state))  # noqa: S301
        return live
