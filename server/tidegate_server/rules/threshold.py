"""Threshold rules: the canary's level of one metric against a fixed bound, judged with the level's interval.

Half of alpha is spent on failing early, by a sequence of intervals that holds at every look; the other half
on one last look at everything, which is sharper and the only one that may PASS.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tidegate_analysis as ta
from numpy.typing import NDArray

from tidegate_server.gates.model import Comparator, Observation, Seen, ThresholdCheck, Verdict
from tidegate_server.rules.coverage import to_the_end
from tidegate_server.rules.findings import findings_of, seen_of

Floats = NDArray[np.float64]


def look(
    check: ThresholdCheck,
    deployed_at: float,
    state: bytes | None,
    blocks: Sequence[ta.Block],
    *,
    over: bool,
    complete: bool,
) -> tuple[bytes, Observation, str]:
    """Take new blocks and judge what there is; parameters and answer as in `regression.look`.

    Only the canary's points between the warm-up and the horizon count.
    """
    batch = _restore(check, state)
    refused = ""
    for block in blocks:
        if block.arm != "canary" or block.phase != "post":
            continue
        try:
            batch.add(block)
        except ta.BlockError as error:
            refused = refused or str(error)
    points = _points(batch, check, deployed_at)
    seen = _observe(check, points, deployed_at, over=over)
    if over and not complete:
        seen = to_the_end(seen, batch, ("canary",), start=deployed_at + check.warm_up, end=deployed_at + check.horizon)
    return _store(batch), seen, refused


class _Points(NamedTuple):
    """What is compared with the bound, point by point, and the totals that it is events of."""

    values: Floats
    exposure: Floats | None
    step: float


def _observe(check: ThresholdCheck, points: _Points | None, deployed_at: float, *, over: bool) -> Observation:
    if points is None or not np.isfinite(points.values).any():
        return Observation(None, Seen.NOTHING, over, "No point of the canary was seen.", "no_data")
    judgement = _judge(check, points, anytime=True)
    if over and judgement.verdict is not Verdict.FAIL:
        judgement = _judge(check, points, anytime=False)
    return Observation(
        verdict=Verdict(judgement.verdict),
        seen=seen_of(judgement),
        settled=over,
        sentence=judgement.explain(0),
        reason=judgement.reasons[0],
        findings=findings_of(judgement, deployed_at),
    )


def _judge(check: ThresholdCheck, points: _Points, *, anytime: bool) -> ta.Judgement:
    result = ta.threshold(
        points.values[None, :],
        spec=check.metric.with_(alpha=check.metric.alpha / 2),
        bound=check.bound,
        comparator="below" if check.comparator is Comparator.BELOW else "above",
        exposure=None if points.exposure is None else points.exposure[None, :],
        step_seconds=points.step,
        anytime=anytime,
    )
    return ta.judge(result, critical=[True])


def _points(batch: ta.SeriesBatch, check: ThresholdCheck, deployed_at: float) -> _Points | None:
    """Return the points that count: instances put together, running totals as rates; None without any."""
    span = batch.span("post")
    if span is None:
        return None
    values, exposure = batch.window("canary", "post", *span)
    rows = values.reshape(-1, values.shape[-1])
    times = batch.origin + batch.step * np.arange(*span, dtype=np.float64)
    kept = (times >= deployed_at + check.warm_up) & (times <= deployed_at + check.horizon)
    if check.metric.kind == "counter":
        # A total that falls was reset: what it counted since its last scrape is not known.
        growth = np.diff(rows, axis=1, prepend=np.nan)
        rows = np.where(growth >= 0, growth / batch.step, np.nan)
    # A block may carry totals for its ratios alone: those of other rows are ignored, and may be NaN.
    ratio = check.metric.kind in ("ratio", "auto") and exposure is not None and np.isfinite(exposure).any()
    totals = exposure.reshape(rows.shape) if exposure is not None and ratio else None
    seen = np.isfinite(rows) if totals is None else np.isfinite(rows) & np.isfinite(totals)
    count = seen.sum(axis=0).astype(np.float64)
    level: Floats = np.where(seen, rows, 0.0).sum(axis=0)
    if totals is not None:
        whole: Floats = np.where(seen, totals, 0.0).sum(axis=0)
        return _Points(np.where(count > 0, level, np.nan)[kept], np.where(count > 0, whole, np.nan)[kept], batch.step)
    if check.metric.kind not in ("counter", "count"):
        level = level / np.where(count > 0, count, 1.0)
    return _Points(np.where(count > 0, level, np.nan)[kept], None, batch.step)


def _store(batch: ta.SeriesBatch) -> bytes:
    """Return the canary's points as bytes: plain arrays, nothing that runs code when it is read."""
    buffer = io.BytesIO()
    span = batch.span("post")
    if span is None:
        return b""
    values, exposure = batch.window("canary", "post", *span)
    arrays: dict[str, NDArray[np.generic]] = {
        "clock": np.array([batch.time_of(span[0]), batch.step]),
        "instances": np.array(batch.instances("canary", "post"), dtype=np.str_),
        "values": values.reshape(-1, values.shape[-1]),
    }
    if exposure is not None:
        arrays["exposure"] = exposure.reshape(-1, values.shape[-1])
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _restore(check: ThresholdCheck, state: bytes | None) -> ta.SeriesBatch:
    batch = ta.SeriesBatch((check.metric,))
    if not state:
        return batch
    with np.load(io.BytesIO(state), allow_pickle=False) as stored:
        start, step = stored["clock"].tolist()
        exposure = stored.get("exposure")
        for k, name in enumerate(stored["instances"].tolist()):
            batch.add(
                ta.Block(
                    arm="canary",
                    start=start,
                    step=step,
                    values=stored["values"][k : k + 1],
                    metrics=(check.metric.name,),
                    instance=name,
                    exposure=None if exposure is None else exposure[k : k + 1],
                )
            )
    return batch
