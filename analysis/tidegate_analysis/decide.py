"""From a change and its uncertainty to PASS, FAIL or INCONCLUSIVE."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tidegate_analysis.contrast import Contrast
from tidegate_analysis.kernels.shared import same_for_all
from tidegate_analysis.spec import MetricSpec, Verdict

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
POWER = 0.9
# Larger changes are told as this one: their ratio is no number any more.
LARGEST_LOG = 700.0
ROUNDING = 1e-10


class Policy(NamedTuple):
    """The specs as arrays over series: what is worse, by how much it matters, and how sure one must be.

    ``sign`` is 1 where up is worse, -1 where down is, 0 where both are. ``worse`` and ``better`` are the
    margins towards either side on the scale of the change, both positive.
    """

    sign: Floats
    log: Bools
    margin: Floats
    worse: Floats
    better: Floats
    alpha: Floats
    alpha_pass: Floats


def policy_of(specs: tuple[MetricSpec, ...], margin: Floats) -> Policy:
    """Turn resolved specs into arrays; ``margin`` in the unit of the effect, shape (series,)."""
    sign = np.array([{"up_is_worse": 1.0, "down_is_worse": -1.0}.get(s.direction, 0.0) for s in specs])
    log = np.array([s.scale == "log" for s in specs], dtype=bool)
    with np.errstate(invalid="ignore", divide="ignore"):
        up = np.where(log, np.log1p(margin), margin)
        down = np.where(log, -np.log1p(-np.minimum(margin, 0.99)), margin)
    worse = np.where(sign < 0, down, up)
    better = np.where(sign < 0, up, down)
    alpha = np.array([s.alpha for s in specs])
    alpha_pass = np.array([s.alpha_pass for s in specs])
    return Policy(sign, log, margin, worse, better, alpha, alpha_pass)


def tail_p(t: Floats, df: Floats) -> Floats:
    """Upper tail of Student's t; exact in the far tail."""
    return np.asarray(special.stdtr(df, -t))


def quantile_t(p: Floats, df: Floats) -> Floats:
    """Upper quantile of Student's t."""
    if same_for_all(p, df):
        # Series of one length share their degrees of freedom; the inverse is what costs.
        return np.full(p.shape, -special.stdtrit(df[0], p[0]))
    return np.asarray(-special.stdtrit(df, p))


class Decided(NamedTuple):
    """What :func:`decide` answers, arrays over series; bounds are on the scale of the change."""

    verdict: NDArray[np.int8]
    reason: NDArray[np.str_]
    p_value: Floats
    low: Floats
    high: Floats
    detectable: Floats
    points_factor: Floats


def decide(contrast: Contrast, policy: Policy) -> Decided:
    """Judge changes against their margins.

    FAIL: shown to be worse than no change at ``alpha``, and estimated beyond the margin. PASS: shown not to
    be beyond the margin at ``alpha_pass``. Both directions count where ``sign`` is 0 (two one-sided tests,
    Schuirmann 1987). Everything else is INCONCLUSIVE.
    """
    estimate = contrast.estimate
    S = len(estimate)
    either = policy.sign == 0
    sign = np.where(either, np.where(estimate < 0, -1.0, 1.0), policy.sign)
    worse_estimate = sign * estimate
    worse_margin = np.where(either & (estimate < 0), policy.better, policy.worse)
    other_margin = np.where(either & (estimate < 0), policy.worse, policy.better)
    level = np.where(either, policy.alpha / 2.0, policy.alpha)
    p = np.zeros(S)
    to_null = np.zeros(S)
    to_margin = np.zeros(S)
    detectable = np.zeros(S)
    known = np.zeros(S, dtype=bool)
    flat = np.zeros(S, dtype=bool)
    for se, df in contrast.errors:
        there = np.isfinite(se) & np.isfinite(df) & np.isfinite(estimate)
        known |= there
        # What is left of rounding is no spread.
        moving = there & (se > ROUNDING * np.abs(estimate))
        flat |= there & ~moving
        safe_se, safe_df = np.where(moving, se, 1.0), np.where(moving, df, 1.0)
        p = np.where(moving, np.fmax(p, tail_p(worse_estimate / safe_se, safe_df)), p)
        q_fail = quantile_t(level, safe_df)
        to_null = np.where(moving, np.fmax(to_null, q_fail * safe_se), to_null)
        to_margin = np.where(moving, np.fmax(to_margin, quantile_t(policy.alpha_pass, safe_df) * safe_se), to_margin)
        reach = (q_fail + quantile_t(np.full(S, 1.0 - POWER), safe_df)) * safe_se
        detectable = np.where(moving, np.fmax(detectable, reach), detectable)
    p = np.where(either, np.minimum(2.0 * p, 1.0), p)
    p = np.clip(p, 1e-300, 1.0)
    # Nothing moved, neither now nor in the past: there is no yardstick.
    still = known & flat & (to_null == 0)
    judged = known & ~still
    fail = judged & (worse_estimate - to_null > 0) & (worse_estimate > worse_margin) & (p <= policy.alpha)
    inside = (worse_estimate + to_margin < worse_margin) & (~either | (worse_estimate - to_margin > -other_margin))
    passed = judged & ~fail & inside
    verdict = np.where(fail, Verdict.FAIL, np.where(passed, Verdict.PASS, Verdict.INCONCLUSIVE)).astype(np.int8)
    worse_low, worse_high = worse_estimate - to_null, worse_estimate + np.where(either, to_null, to_margin)
    low = np.where(sign > 0, worse_low, -worse_high)
    high = np.where(sign > 0, worse_high, -worse_low)
    reason = np.where(
        fail,
        "regression",
        np.where(
            passed,
            "within_margin",
            np.where(
                ~known,
                "too_few_points",
                np.where(
                    still,
                    "constant",
                    np.where((p <= policy.alpha) & (worse_low > 0), "below_margin", "not_enough_evidence"),
                ),
            ),
        ),
    )
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        # n grows by this factor until a true change of zero passes with the wanted power (standard error ~
        # 1/sqrt(n)).
        need = to_margin * (1.0 + special.ndtri(POWER) / np.maximum(-special.ndtri(policy.alpha_pass), 1e-9))
        factor = (need / worse_margin) ** 2
    bad = ~judged
    nan = np.where(bad, np.nan, 0.0)
    return Decided(
        verdict,
        reason,
        np.where(bad, 1.0, p),
        low + nan,
        high + nan,
        detectable + nan,
        np.where(bad, np.nan, factor),
    )


def to_effect(change: Floats, log: Bools) -> Floats:
    """Turn a change on its scale into an effect: ``exp(change) - 1`` on the log scale, else itself.

    An infinite change is a bound that is not there: NaN.
    """
    change = np.where(np.isinf(change), np.nan, change)
    if not bool(log.any()):
        return change
    ratio = np.expm1(np.minimum(change, LARGEST_LOG))
    return ratio if bool(log.all()) else np.where(log, ratio, change)
