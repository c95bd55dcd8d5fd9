"""A judgement of the analysis as findings of the domain."""

from __future__ import annotations

import math

import tidegate_analysis as ta

from tidegate_server.gates.model import Finding, GroupFinding, Onset, Seen, Verdict

# Metrics that are INCONCLUSIVE for one of these reasons need more points. Any other reason says that
# something is odd, and no policy for "too little data" may wave it through.
TOO_LITTLE = frozenset(
    {"not_enough_evidence", "too_few_points", "no_overlap", "no_baseline", "baseline_silent", "no_data"}
)


def findings_of(judgement: ta.Judgement, deployed_at: float) -> tuple[Finding, ...]:
    """Return one finding per metric under its final verdict; numbers that are not finite are left out."""
    result = judgement.result
    verdicts = judgement.verdicts.tolist()
    columns = {
        name: getattr(result, name).tolist()
        for name in (
            "effect",
            "effect_low",
            "effect_high",
            "p_value",
            "log_e_value",
            "n_effective",
            "n_baseline",
            "n_canary",
            "baseline_level",
            "canary_level",
            "minimum_detectable_effect",
            "seconds_to_answer",
            "history_windows",
            "history_exceeding",
        )
    }
    adjusted = judgement.adjusted_p_value.tolist()
    return tuple(
        Finding(
            metric=spec.name,
            verdict=Verdict(verdicts[i]),
            sentence=judgement.explain(i),
            reason=judgement.reasons[i],
            spec=spec,
            effect=_known(columns["effect"][i]),
            effect_low=_known(columns["effect_low"][i]),
            effect_high=_known(columns["effect_high"][i]),
            p_value=_known(columns["p_value"][i]),
            adjusted_p_value=_known(adjusted[i]),
            log_e_value=_known(columns["log_e_value"][i]),
            n_effective=_known(columns["n_effective"][i]),
            baseline_points=columns["n_baseline"][i],
            canary_points=columns["n_canary"][i],
            baseline_level=_known(columns["baseline_level"][i]),
            canary_level=_known(columns["canary_level"][i]),
            method=result.method[i],
            history_windows=columns["history_windows"][i],
            history_exceeding=columns["history_exceeding"][i],
            minimum_detectable_effect=_known(columns["minimum_detectable_effect"][i]),
            time_to_answer=_known(columns["seconds_to_answer"][i]),
            onset=_onset(judgement, i, deployed_at) if verdicts[i] == Verdict.FAIL else None,
            quality=tuple(result.quality[i]),
            derived_fields=tuple(result.derived[i]),
        )
        for i, spec in enumerate(result.specs)
    )


def groups_of(judgement: ta.Judgement) -> tuple[GroupFinding, ...]:
    """Return one outcome per group."""
    names = [spec.name for spec in judgement.result.specs]
    return tuple(
        GroupFinding(
            group=group.name,
            verdict=Verdict(group.verdict),
            adjusted_p_value=_known(group.adjusted_p_value),
            metrics=len(group.members),
            failing=tuple(names[i] for i in group.failing),
        )
        for group in judgement.groups
    )


def seen_of(judgement: ta.Judgement) -> Seen:
    """Return how much was seen: nothing at all, too little of some metric, or enough to answer as it did."""
    result = judgement.result
    if not (result.n_baseline.any() or result.n_canary.any()):
        return Seen.NOTHING
    open_reasons = {
        reason
        for verdict, reason in zip(judgement.verdicts.tolist(), judgement.reasons, strict=True)
        if verdict == Verdict.INCONCLUSIVE
    }
    return Seen.TOO_LITTLE if open_reasons and open_reasons <= TOO_LITTLE else Seen.ENOUGH


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _onset(judgement: ta.Judgement, i: int, deployed_at: float) -> Onset | None:
    start, step = judgement.clock
    column, low, high = (int(getattr(judgement.result, name)[i]) for name in ("onset", "onset_low", "onset_high"))
    if column < 0 or not math.isfinite(start) or not math.isfinite(step):
        return None
    time = start + column * step
    return Onset(
        time=time,
        earliest=start + low * step if low >= 0 else time,
        latest=start + high * step if high >= 0 else time,
        after_deployment=time - deployed_at,
    )
