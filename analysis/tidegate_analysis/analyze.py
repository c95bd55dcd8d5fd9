"""One call from a batch of blocks to the verdict: what the service and the command line use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.batch import ARMS, Arm, Block, Phase, SeriesBatch
from tidegate_analysis.before_after import before_after
from tidegate_analysis.compare import compare
from tidegate_analysis.judgement import Judgement, judge
from tidegate_analysis.result import Result, concatenate
from tidegate_analysis.spec import Design, QualityNote, merge_notes

Floats = NDArray[np.float64]
MAX_HISTORY_WINDOWS = 56


def analyze(
    batch: SeriesBatch,
    *,
    design: Design = "auto",
    history: Sequence[tuple[Block, Block]] | Floats | None = None,
    q: float = 0.05,
    deployed_at: float | None = None,
    warm_up: float = 0.0,
) -> Judgement:
    """Judge everything in a batch.

    Parameters
    ----------
    batch:
        The series; phase ``"post"`` is judged, phase ``"pre"`` is the past.
    design:
        ``"auto"``: concurrent when both arms have points after the deployment, else before/after.
    history:
        Past pairs of windows in which nothing was wrong: pairs of blocks (baseline, canary), or an array
        (metrics, windows, 2, points).
    q:
        False-discovery rate over the metrics.
    deployed_at:
        Epoch seconds of the deployment; default: the first point of phase ``"post"``.
    warm_up:
        Seconds after the deployment that are not judged.

    Raises
    ------
    ValueError
        When a parameter is out of its range, or the design needs points that are not there.
    """
    if not (math.isfinite(warm_up) and warm_up >= 0):
        raise ValueError(f"warm_up: must be a number of seconds of at least 0, not {warm_up!r}")
    low, high = judged_span(batch, deployed_at, warm_up)
    chosen = choose_design(batch, design)
    specs = batch.specs
    histogram = np.array([s.kind == "histogram" for s in specs], dtype=bool)
    parts: list[Result] = []
    rows: list[NDArray[np.int64]] = []
    plain = np.flatnonzero(~histogram)
    past_windows, past_totals = history_array(batch, history, high - low)
    if len(plain):
        told = None if past_totals is None else past_totals[plain]
        parts.append(_plain(batch, plain, chosen, past_windows[plain], told, low, high))
        rows.append(plain)
    if histogram.any():
        from tidegate_analysis.histogram_compare import compare_batch_histograms

        index = np.flatnonzero(histogram)
        parts.append(compare_batch_histograms(batch, index, low, high))
        rows.append(index)
    result = concatenate(parts, rows)
    result = with_notes(result, batch.notes)
    start = batch.time_of(low) if math.isfinite(batch.origin) else math.nan
    return judge(result, q=q, design=chosen, clock=(start, batch.step))


def judged_span(batch: SeriesBatch, deployed_at: float | None, warm_up: float) -> tuple[int, int]:
    """Grid columns that are judged: from the end of the warm-up to the last point of either arm."""
    span = batch.span("post")
    if span is None:
        return 0, 0
    low, high = span
    if deployed_at is not None and math.isfinite(deployed_at):
        low = max(low, column_of(batch, deployed_at))
    low += math.ceil(warm_up / batch.step - 1e-6)
    return min(low, high), high


def column_of(batch: SeriesBatch, moment: float) -> int:
    """First grid column that is not more than a quarter of a step before a moment.

    The grid is the clock of whichever block came first; arms whose clocks differ by less than that then give the same
    columns in whatever order they come.
    """
    return math.ceil((moment - batch.origin) / batch.step - 0.25)


def choose_design(batch: SeriesBatch, design: Design) -> Design:
    """Fill in ``"auto"``: concurrent when the baseline speaks after the deployment, else before/after."""
    if design != "auto":
        return design
    return (
        "concurrent" if batch.instances("baseline", "post") or not batch.instances("canary", "pre") else "before_after"
    )


def with_notes(result: Result, notes: Sequence[QualityNote]) -> Result:
    """Add notes that concern every series."""
    if not notes:
        return result
    return replace(result, quality=tuple(merge_notes(own, notes) for own in result.quality))


def history_array(
    batch: SeriesBatch, history: Sequence[tuple[Block, Block]] | Floats | None, points: int
) -> tuple[Floats, Floats | None]:
    """Past windows of a concurrent comparison as (metrics, windows, 2, points), oldest first, and their totals.

    Given windows come first; then the phase ``"pre"`` of both arms is cut into stretches of ``points`` columns that end
    at the deployment. Windows shorter than ``points`` are left out.
    """
    M = len(batch.specs)
    pieces: list[Floats] = []
    totals: list[Floats] = []
    if isinstance(history, np.ndarray):
        if history.shape[-1] >= points:
            pieces.append(history[..., :points])
            totals.append(np.full_like(pieces[-1], np.nan))
    elif history:
        for baseline, canary in history:
            pair = SeriesBatch(batch.specs)
            pair.add(replace(baseline, arm="baseline", phase="post", instance=""))
            pair.add(replace(canary, arm="canary", phase="post", instance=""))
            span = pair.span("post")
            if span is not None and span[1] - span[0] >= points and math.isclose(pair.step, batch.step, rel_tol=1e-6):
                _cut(pair, "post", span[0], 1, points, pieces, totals)
    span = batch.span("pre")
    if span is not None and points > 0 and batch.instances("baseline", "pre") and batch.instances("canary", "pre"):
        count = min((span[1] - span[0]) // points, MAX_HISTORY_WINDOWS)
        if count:
            _cut(batch, "pre", span[1] - count * points, count, points, pieces, totals)
    if not pieces:
        return np.zeros((M, 0, 2, points)), None
    joined = np.concatenate(pieces, axis=1)
    # A window in which an arm says next to nothing tells nothing.
    spoken = (~np.isnan(joined)).mean(axis=3) >= 0.5
    joined[~spoken.all(axis=2)] = np.nan
    every = np.concatenate(totals, axis=1)
    return joined, None if np.isnan(every).all() else every


def _cut(
    batch: SeriesBatch,
    phase: Phase,
    low: int,
    count: int,
    points: int,
    pieces: list[Floats],
    totals: list[Floats],
) -> None:
    M = len(batch.specs)
    arms, exposures = [], []
    for arm in ARMS:
        values, exposure = batch.window(arm, phase, low, low + count * points)
        arms.append(_flat(values).reshape(M, count, points))
        told = np.full(values.shape, np.nan) if exposure is None else exposure
        exposures.append(_flat(told).reshape(M, count, points))
    pieces.append(np.stack(arms, axis=2))
    totals.append(np.stack(exposures, axis=2))


def _flat(values: Floats) -> Floats:
    """Mean over instances, where there are any."""
    if values.ndim == 2:
        return values
    present = ~np.isnan(values)
    count = present.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(count > 0, np.where(present, values, 0.0).sum(axis=1) / count, np.nan)


def _same_instances(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    if x.ndim == y.ndim:
        return x, y
    return (x[:, None, :] if x.ndim == 2 else x), (y[:, None, :] if y.ndim == 2 else y)


def _plain(
    batch: SeriesBatch,
    rows: NDArray[np.int64],
    design: Design,
    past: Floats,
    past_totals: Floats | None,
    low: int,
    high: int,
) -> Result:
    specs = tuple(batch.specs[i] for i in rows.tolist())
    step = batch.step if math.isfinite(batch.step) else None
    if design == "concurrent":
        x, ex = batch.window("baseline", "post", low, high)
        y, ey = batch.window("canary", "post", low, high)
        told_x = np.full(x.shape, np.nan) if ex is None else ex
        told_y = np.full(y.shape, np.nan) if ey is None else ey
        x, y = _same_instances(x[rows], y[rows])
        told_x, told_y = _same_instances(told_x[rows], told_y[rows])
        # Without any point yet there are no totals to miss.
        counted = ex is not None or ey is not None or low >= high
        return compare(
            x,
            y,
            spec=specs,
            history=past,
            step_seconds=step,
            baseline_exposure=told_x if counted else None,
            canary_exposure=told_y if counted else None,
            history_exposure=past_totals,
        )
    span = batch.span("pre")
    floor = span[0] if span is not None else low
    after, after_totals = flat_window(batch, "canary", "post", low, high)
    before, before_totals = flat_past(batch, "canary", floor, low)
    seconds = step or 60.0
    controls: dict[str, Floats] = {}
    if design == "difference_in_differences":
        for name, (values, totals) in (
            ("control_after", flat_window(batch, "baseline", "post", low, high)),
            ("control_before", flat_past(batch, "baseline", floor, low)),
        ):
            controls[name] = values[rows]
            if totals is not None and before_totals is not None and after_totals is not None:
                controls[f"{name}_exposure"] = totals[rows]
    if before_totals is not None and after_totals is not None:
        controls["before_exposure"], controls["after_exposure"] = before_totals[rows], after_totals[rows]
    return before_after(before[rows], after[rows], spec=specs, step_seconds=seconds, **controls)


def flat_window(batch: SeriesBatch, arm: Arm, phase: Phase, low: int, high: int) -> tuple[Floats, Floats | None]:
    """Points and totals of an arm, (metrics, points): the mean over its instances, where it has several."""
    values, totals = batch.window(arm, phase, low, high)
    return _flat(values), None if totals is None else _flat(totals)


def flat_past(batch: SeriesBatch, arm: Arm, floor: int, low: int) -> tuple[Floats, Floats | None]:
    """Past of an arm up to the judged span; of the baseline where the canary has none (a rolling update)."""
    found = flat_window(batch, arm, "pre", floor, low)
    if np.isnan(found[0]).all() and arm == "canary":
        return flat_window(batch, "baseline", "pre", floor, low)
    return found
