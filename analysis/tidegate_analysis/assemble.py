"""From the pieces of a comparison to its findings: the one place where verdicts are qualified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.contrast import MIN_POINTS, Contrast
from tidegate_analysis.decide import Decided, Policy, decide, to_effect
from tidegate_analysis.explain import stretch_note
from tidegate_analysis.kernels import changepoint, dependence, placebo, stretches
from tidegate_analysis.result import Result
from tidegate_analysis.spec import MetricSpec, QualityNote, Verdict
from tidegate_analysis.tail import CENTRE_WEIGHT, TAIL_DOUBT, TAIL_WEIGHT, Tail

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# The last part of a watch, as one in so many, that must be within the margin by itself.
LATE_PART = 3


@dataclass(frozen=True)
class Pieces:
    """Everything a comparison found out, arrays over series; most are fields of the result."""

    specs: tuple[MetricSpec, ...]
    derived: tuple[tuple[str, ...], ...]
    policy: Policy
    contrast: Contrast
    tail: Tail
    d: Floats
    d_level: Floats
    # The level from which all points, the last third of them and any in a row must be within the margin; NaN where a
    # scan asks that of every window.
    level_now: Floats
    pairs: Ints
    n_baseline: Ints
    n_canary: Ints
    baseline_level: Floats
    canary_level: Floats
    silent: Bools
    bad_canary: Ints
    # Series of whose baseline, where it says what is usual, more than a twentieth is bad.
    spoilt: Bools
    notes: list[list[QualityNote]]
    step: float
    # Whether to say when the change of a failing series began.
    locate: bool = True
    # Series of which the lower tail answers although both are worse; None = none.
    tail_down: Bools | None = None
    # Series whose baseline no longer says what the canary is compared with.
    baseline_silent: Bools | None = None
    # The worst of the canary's instances: its change, and how unusual it is; None = instances are not known.
    instance_change: Floats | None = None
    instance_p: Floats | None = None
    # Series whose canary stopped moving.
    stale: Bools | None = None
    # Of a scan: the p-value of its most unusual window, the change there and its spread; NaN = not scanned.
    unusual: Floats | None = None
    unusual_change: Floats | None = None
    unusual_scale: Floats | None = None


class Described(NamedTuple):
    """A result whose verdicts are for others to give, and what forbids a PASS of each series ("" = nothing)."""

    result: Result
    doubts: NDArray[np.str_]


def assemble(pieces: Pieces) -> Result:
    """Decide, qualify, and build the result; see :func:`described`."""
    return described(pieces).result


def described(pieces: Pieces) -> Described:
    """Decide, qualify by the tail and the data's quality, and build the result.

    The centre and the tail share the metric's error rate (weighted Bonferroni), so asking both does not
    double it. What forbids PASS: a doubtful tail or stretch, a change that has only begun, a silent or frozen canary,
    bad values in the canary or in more than a twentieth of the baseline. Nothing of this turns a FAIL into anything
    else.
    """
    policy, contrast, tail = pieces.policy, pieces.contrast, pieces.tail
    tested = np.isfinite(tail.p_value)
    share = np.where(tested, CENTRE_WEIGHT, 1.0)
    few = pieces.pairs < MIN_POINTS
    if pieces.unusual is not None and pieces.unusual_change is not None and pieces.unusual_scale is not None:
        scanned = np.isfinite(pieces.unusual)
        with np.errstate(invalid="ignore"):
            sign = np.where(policy.sign == 0, np.sign(pieces.unusual_change), policy.sign)
            beyond = sign * pieces.unusual_change > np.where(sign * policy.sign < 0, policy.better, policy.worse)
            flagged = scanned & (pieces.unusual <= policy.alpha * share) & beyond
        # A window that stands out is what is reported: its change, measured by how such windows usually move.
        errors = [(np.where(flagged, np.nan, se), df) for se, df in contrast.errors]
        errors.append((np.where(flagged, pieces.unusual_scale, np.nan), np.where(flagged, 200.0, np.nan)))
        contrast = contrast._replace(
            estimate=np.where(flagged, pieces.unusual_change, contrast.estimate), errors=tuple(errors)
        )
    estimate = np.where(few, np.nan, contrast.estimate)
    decided = decide(contrast._replace(estimate=estimate), policy._replace(alpha=policy.alpha * share))
    if pieces.unusual is not None and pieces.unusual_change is not None and pieces.unusual_scale is not None:
        decided = _scan_decides(decided, np.where(few, np.nan, pieces.unusual), flagged & ~few)
    verdict, reason = decided.verdict.copy(), decided.reason.astype("<U24")
    tail_down, moved = _tail_moved(pieces)
    with np.errstate(invalid="ignore"):
        tail_fail = tested & ~few & (tail.p_value <= policy.alpha * TAIL_WEIGHT) & moved
    fail = verdict == Verdict.FAIL
    reason[tail_fail & ~fail] = "tail_regression"
    verdict[tail_fail] = Verdict.FAIL
    doubt, notes = _doubts(pieces, moved)
    blocked = (verdict == Verdict.PASS) & (doubt != "")
    reason[blocked] = doubt[blocked]
    verdict[blocked] = Verdict.INCONCLUSIVE
    unknown = verdict == Verdict.INCONCLUSIVE
    for name, where in (
        ("no_overlap", (pieces.pairs == 0) & (pieces.n_baseline > 0) & (pieces.n_canary > 0)),
        ("no_baseline", (pieces.n_baseline == 0) & (pieces.n_canary > 0)),
        ("canary_silent", (pieces.n_canary == 0) & (pieces.n_baseline > 0) & (pieces.bad_canary == 0)),
        ("bad_values", (pieces.n_canary == 0) & (pieces.bad_canary > 0)),
        ("no_data", (pieces.n_canary == 0) & (pieces.n_baseline == 0)),
    ):
        reason[unknown & where] = name
    p_centre = np.minimum(decided.p_value / share, 1.0)
    p_value = np.where(tested & ~few, np.fmin(p_centre, np.minimum(tail.p_value / TAIL_WEIGHT, 1.0)), p_centre)
    sign = np.where(policy.sign < 0, -1.0, 1.0)
    windows = contrast.windows
    with np.errstate(invalid="ignore"):
        shift = np.where(policy.sign == 0, np.abs(estimate), sign * estimate)
        past = np.where((policy.sign == 0)[:, None], np.abs(contrast.past), sign[:, None] * contrast.past)
        exceeding = placebo.exceeding(shift, past)
        seconds = np.where(
            (verdict == Verdict.INCONCLUSIVE) & (decided.points_factor > 1.0),
            (decided.points_factor - 1.0) * pieces.pairs * pieces.step,
            np.nan,
        )
    onset, onset_low, onset_high = _onsets(pieces, (verdict == Verdict.FAIL) & pieces.locate)
    log = policy.log
    result = Result(
        specs=pieces.specs,
        derived=pieces.derived,
        verdict=verdict,
        p_value=p_value,
        log_e_value=np.full(len(verdict), np.nan),
        effect=to_effect(estimate, log),
        effect_low=to_effect(decided.low, log),
        effect_high=to_effect(decided.high, log),
        margin=policy.margin,
        n_effective=contrast.n_effective,
        n_baseline=pieces.n_baseline.astype(np.int64),
        n_canary=pieces.n_canary.astype(np.int64),
        baseline_level=pieces.baseline_level,
        canary_level=pieces.canary_level,
        minimum_detectable_effect=to_effect(decided.detectable, log),
        seconds_to_answer=seconds,
        method=tuple(contrast.method.tolist()),
        reason=tuple(reason.tolist()),
        history_windows=windows,
        history_exceeding=exceeding,
        onset=onset,
        onset_low=onset_low,
        onset_high=onset_high,
        quality=notes,
        tail_p_value=np.where(few, np.nan, tail.p_value),
        tail_effect=to_effect(np.where((policy.sign < 0) | tail_down, -tail.change, tail.change), log),
    )
    return Described(result, doubt)


def _doubts(pieces: Pieces, moved: Bools) -> tuple[NDArray[np.str_], tuple[tuple[QualityNote, ...], ...]]:
    """What forbids a PASS of each series, whatever its typical value does, "" = nothing; and all notes on it."""
    policy = pieces.policy
    with np.errstate(invalid="ignore"):
        far = (pieces.tail.p_value <= TAIL_DOUBT) & moved
    change = pieces.d - pieces.level_now[:, None]
    standing, stretch = _stretches(policy, change)
    spread_out, late = _hidden(policy, change)
    none = np.zeros(len(policy.sign), dtype=bool)
    odd = none
    if pieces.instance_change is not None and pieces.instance_p is not None:
        odd = (pieces.instance_p <= TAIL_DOUBT) & _beyond(policy, pieces.instance_change)
    out = np.select(
        [
            none if pieces.stale is None else pieces.stale,
            pieces.silent & (pieces.bad_canary == 0),
            (pieces.bad_canary > 0) | pieces.spoilt,
            none if pieces.baseline_silent is None else pieces.baseline_silent,
            standing,
            far | spread_out,
            late,
            odd,
        ],
        [
            "stale",
            "canary_silent",
            "bad_values",
            "baseline_silent",
            "stretch_in_doubt",
            "tail_in_doubt",
            "late_in_doubt",
            "instance_in_doubt",
        ],
        "",
    ).astype("<U24")
    notes = [tuple(one) for one in pieces.notes]
    off = to_effect(stretch.mean, policy.log)
    for i in np.flatnonzero(standing).tolist():
        notes[i] += (stretch_note(pieces.specs[i], int(stretch.first[i]), int(stretch.length[i]), float(off[i])),)
    return out, tuple(notes)


def _tail_moved(pieces: Pieces) -> tuple[Bools, Bools]:
    """Of which series the lower tail answers although both are worse, and whether the tail moved beyond the margin."""
    policy, change = pieces.policy, pieces.tail.change
    down = np.zeros(len(change), dtype=bool) if pieces.tail_down is None else pieces.tail_down
    with np.errstate(invalid="ignore"):
        return down, change > np.where(down, policy.better, policy.worse)


def _stretches(policy: Policy, change: Floats) -> tuple[Bools, stretches.Stretch]:
    """Whether some scrapes in a row stand out as worse by more than the margin, though the mean of all may not."""
    up = stretches.standing_out(np.where(policy.sign < 0, -1.0, 1.0)[:, None] * change, policy.worse)
    up.mean[policy.sign < 0] *= -1.0
    both = np.flatnonzero(policy.sign == 0)
    if len(both):
        down = stretches.standing_out(-change[both], policy.better[both])
        down.mean[:] *= -1.0
        lower = down.score > up.score[both]
        for ours, theirs in zip(up, down, strict=True):
            ours[both[lower]] = theirs[lower]
    return np.asarray(up.score >= stretches.bar((~np.isnan(change)).sum(axis=1))), up


def too_many(bad: Ints, of: Ints) -> Bools:
    """Whether more than a twentieth of the points are bad."""
    return np.asarray(bad * 20 > np.maximum(of, 1))


def _hidden(policy: Policy, change: Floats) -> tuple[Bools, Bools]:
    """Whether all points, none trimmed, and whether the last third of them, are on average beyond the margin.

    A trimmed mean does not see a tenth of the points, and no mean sees what has only begun: neither may hide in a PASS.
    """
    if not change.shape[1]:
        none = np.zeros(len(policy.sign), dtype=bool)
        return none, none
    part = change[:, -max(-(-change.shape[1] // LATE_PART), min(3, change.shape[1])) :]
    every, last = dependence.trimmed_mean(change, 0.0), dependence.trimmed_mean(part)
    return _beyond(policy, every), _beyond(policy, last)


def _beyond(policy: Policy, change: Floats) -> Bools:
    """Whether a change is worse by the margin at least."""
    with np.errstate(invalid="ignore"):
        up, down = change >= policy.worse, change <= -np.where(policy.sign < 0, policy.worse, policy.better)
    return np.asarray(np.where(policy.sign > 0, up, np.where(policy.sign < 0, down, up | down)))


def _scan_decides(decided: Decided, unusual: Floats, flagged: Bools) -> Decided:
    """Let the scan answer for FAIL where there is one; the whole stretch still answers for PASS."""
    scanned = np.isfinite(unusual)
    overruled = scanned & ~flagged & (decided.verdict == Verdict.FAIL)
    verdict = np.where(flagged, Verdict.FAIL, np.where(overruled, Verdict.INCONCLUSIVE, decided.verdict)).astype(
        np.int8
    )
    reason = np.where(flagged, "regression", np.where(overruled, "not_enough_evidence", decided.reason))
    return decided._replace(verdict=verdict, reason=reason, p_value=np.where(scanned, unusual, decided.p_value))


def _onsets(pieces: Pieces, failing: Bools) -> tuple[Ints, Ints, Ints]:
    """Locate the change of the failing series only: the question is asked after the verdict."""
    S = len(failing)
    out = [np.full(S, -1, dtype=np.int64) for _ in range(3)]
    if failing.any():
        found = changepoint.onset(pieces.d[failing], pieces.d_level[failing])
        for array, values in zip(out, found, strict=True):
            array[failing] = values
    return out[0], out[1], out[2]
