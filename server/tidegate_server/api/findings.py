"""Findings, groups and verdicts: domain to wire."""

from __future__ import annotations

import math
from collections.abc import Sequence

import tidegate_analysis as ta
from tidegate.v1 import evaluation_service_pb2, findings_pb2

from tidegate_server.api.metrics import DECISIONS, DESIGN_NUMBERS, encode_seconds, encode_spec

_NUMBERS = ("effect", "effect_low", "effect_high", "p_value", "log_e_value", "n_effective")
_MORE_NUMBERS = ("baseline_level", "canary_level", "minimum_detectable_effect")


def encode_findings(
    judgement: ta.Judgement, *, deployed_at: float | None, only: Sequence[int] | None = None
) -> list[findings_pb2.Finding]:
    """Return one message per metric, or for the rows ``only``; numbers that are not finite are left out."""
    result = judgement.result
    rows = range(len(result.specs)) if only is None else only
    verdicts = judgement.verdicts.tolist()
    adjusted = judgement.adjusted_p_value.tolist()
    numbers: dict[str, list[float]] = {name: getattr(result, name).tolist() for name in (*_NUMBERS, *_MORE_NUMBERS)}
    seconds = result.seconds_to_answer.tolist()
    baseline_points, canary_points = result.n_baseline.tolist(), result.n_canary.tolist()
    windows, exceeding = result.history_windows.tolist(), result.history_exceeding.tolist()
    findings = []
    for i in rows:
        finding = findings_pb2.Finding(
            metric=result.specs[i].name,
            verdict=verdicts[i],
            sentence=judgement.explain(i),
            reason=judgement.reasons[i],
            adjusted_p_value=_known(adjusted[i]),
            baseline_points=baseline_points[i],
            canary_points=canary_points[i],
            method=result.method[i],
            history_windows=windows[i],
            history_exceeding=exceeding[i],
            spec=encode_spec(result.specs[i]),
            derived_fields=result.derived[i],
            **{name: _known(values[i]) for name, values in numbers.items()},  # type: ignore[arg-type]
        )
        if math.isfinite(seconds[i]):
            encode_seconds(finding.time_to_answer, min(seconds[i], 3e11))
        if verdicts[i] == ta.Verdict.FAIL and result.onset[i] >= 0:
            _set_onset(finding.onset, judgement, i, deployed_at)
        for note in result.quality[i]:
            finding.quality.add(code=note.code, count=max(0, int(note.count)), message=note.message)
        findings.append(finding)
    return findings


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _set_onset(message: findings_pb2.Onset, judgement: ta.Judgement, i: int, deployed_at: float | None) -> None:
    start, step = judgement.clock
    if not (math.isfinite(start) and math.isfinite(step)):
        return
    result = judgement.result
    time = start + int(result.onset[i]) * step
    encode_seconds(message.time, time)
    if result.onset_low[i] >= 0:
        encode_seconds(message.earliest, start + int(result.onset_low[i]) * step)
    if result.onset_high[i] >= 0:
        encode_seconds(message.latest, start + int(result.onset_high[i]) * step)
    if deployed_at is not None:
        encode_seconds(message.after_deployment, time - deployed_at)


def encode_groups(judgement: ta.Judgement) -> list[findings_pb2.GroupFinding]:
    """Return one message per group, in the order of first mention."""
    names = [spec.name for spec in judgement.result.specs]
    return [
        findings_pb2.GroupFinding(
            group=group.name,
            verdict=int(group.verdict),  # type: ignore[arg-type]
            adjusted_p_value=_known(float(group.adjusted_p_value)),
            metrics=len(group.members),
            failing=[names[row] for row in group.failing],
        )
        for group in judgement.groups
    ]


def encode_response(judgement: ta.Judgement, *, deployed_at: float | None) -> evaluation_service_pb2.AnalyzeResponse:
    """Return the answer of ``Analyze``."""
    return evaluation_service_pb2.AnalyzeResponse(
        verdict=int(judgement.verdict),  # type: ignore[arg-type]
        decision=DECISIONS[ta.Verdict(judgement.verdict)],
        sentence=judgement.explain(),
        findings=encode_findings(judgement, deployed_at=deployed_at),
        groups=encode_groups(judgement),
        design=DESIGN_NUMBERS.get(judgement.design, 0),  # type: ignore[arg-type]
    )


def encode_update(
    judgement: ta.Judgement,
    *,
    rows: Sequence[int] | None,
    sequence: int,
    as_of: float | None,
    deployed_at: float | None,
    final: bool,
) -> evaluation_service_pb2.VerdictUpdate:
    """Return an update of a stream with the findings of ``rows``, of all metrics for ``None``."""
    update = evaluation_service_pb2.VerdictUpdate(
        verdict=int(judgement.verdict),  # type: ignore[arg-type]
        decision=DECISIONS[ta.Verdict(judgement.verdict)],
        sentence=judgement.explain(),
        findings=encode_findings(judgement, deployed_at=deployed_at, only=rows),
        groups=encode_groups(judgement),
        sequence=sequence,
        final=final,
    )
    if as_of is not None:
        encode_seconds(update.as_of, as_of)
    return update
