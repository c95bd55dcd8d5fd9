"""Threshold rules: the canary's level of one metric against a fixed bound, judged with the level's interval.

The interval is made for one look, and this rule looks several times to fail early. So the looks are planned:
at the quarters of the horizon, each for FAIL at a quarter of alpha (Bonferroni). PASS is asked once, at the
end.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import tidegate_analysis as ta
from numpy.typing import NDArray

from tidegate_server.gates.model import Observation, Seen, ThresholdCheck, Verdict
from tidegate_server.rules.findings import findings_of, seen_of

LOOKS = 4

Floats = NDArray[np.float64]


def look(
    check: ThresholdCheck,
    deployed_at: float,
    state: bytes | None,
    blocks: Sequence[ta.Block],
    *,
    over: bool,
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
    times, level = _level(batch, check)
    kept = (times >= deployed_at + check.warm_up) & (times <= deployed_at + check.horizon)
    seen = _observe(check, times[kept], level[kept], deployed_at, over=over)
    return _store(batch), seen, refused


def _observe(
    check: ThresholdCheck, times: Floats, level: Floats, deployed_at: float, *, over: bool
) -> Observation:
    if not np.isfinite(level).any():
        return Observation(None, Seen.NOTHING, over, "No point of the canary was seen.", "no_data")
    spec = check.metric.with_(alpha=check.metric.alpha / LOOKS)
    reached = LOOKS if over else _looks_until(check, float(times[-1]), deployed_at)
    for number in range(1, reached + 1):
        until = deployed_at + check.warm_up + (check.horizon - check.warm_up) * number / LOOKS
        part = level[times <= until]
        if number == LOOKS or np.isfinite(part).any():
            judgement = _judge(check, spec, part)
            if judgement.verdict is Verdict.FAIL or number == LOOKS:
                return _answer(judgement, deployed_at, over=over)
    progress = _answer(_judge(check, spec, level), deployed_at, over=False)
    return Observation(None, progress.seen, False, progress.sentence, "watching", findings=progress.findings)


def _looks_until(check: ThresholdCheck, newest: float, deployed_at: float) -> int:
    """Return how many planned looks lie in the past of the newest point; the last one only comes at the
    end."""
    watched = newest - deployed_at - check.warm_up
    return int(np.clip(np.floor(LOOKS * watched / (check.horizon - check.warm_up)), 0, LOOKS - 1))


def _judge(check: ThresholdCheck, spec: ta.MetricSpec, level: Floats) -> ta.Judgement:
    result = ta.threshold(
        level[None, :], spec=spec, bound=check.bound, comparator=check.comparator.name.lower()
    )
    return ta.judge(result)


def _answer(judgement: ta.Judgement, deployed_at: float, *, over: bool) -> Observation:
    verdict = Verdict(judgement.verdict)
    return Observation(
        verdict=verdict,
        seen=seen_of(judgement),
        settled=over,
        sentence=judgement.explain(0),
        reason=judgement.reasons[0],
        findings=findings_of(judgement, deployed_at),
    )


def _level(batch: ta.SeriesBatch, check: ThresholdCheck) -> tuple[Floats, Floats]:
    """Return times and the metric's level at each: instances put together, totals to shares, counters to
    rates."""
    span = batch.span("post")
    if span is None:
        return np.zeros(0), np.zeros(0)
    values, exposure = batch.window("canary", "post", *span)
    rows = values.reshape(-1, values.shape[-1])
    times: Floats = batch.origin + batch.step * np.arange(*span, dtype=np.float64)
    if exposure is not None:
        totals = exposure.reshape(rows.shape)
        seen = np.isfinite(rows) & np.isfinite(totals)
        events, total = (np.where(seen, one, 0.0).sum(axis=0) for one in (rows, totals))
        return times, _share(events, total)
    kind = check.metric.kind
    if kind == "counter":
        # A total that falls was reset: what it counted since its last scrape is not known.
        growth = np.diff(rows, axis=1, prepend=np.nan)
        rows = np.where(growth >= 0, growth / batch.step, np.nan)
    seen = np.isfinite(rows)
    total = np.where(seen, rows, 0.0).sum(axis=0)
    count = seen.sum(axis=0).astype(np.float64)
    if kind in ("counter", "count"):
        return times, np.where(count > 0, total, np.nan)
    return times, _share(total, count)


def _share(part: Floats, whole: Floats) -> Floats:
    """Return part / whole, NaN where the whole is 0."""
    out: Floats = np.full(part.shape, np.nan)
    np.divide(part, whole, out=out, where=whole > 0)
    return out


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
