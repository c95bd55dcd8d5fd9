"""What others would have said: the published judges and the usual tests, vectorised over series, on the
same data.

Every peer takes ``baseline`` and ``canary`` of ``(series, points)`` with NaN where missing, and answers
``fails``: a bool per series, True where it would stop the rollout. "Worse" is up in all of them; negate the
arrays for metrics where down is worse.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

# Hard-wired in the judge: the settings class that holds both is injected, and not used, since 2018.
KAYENTA_TOLERANCE = 0.25
KAYENTA_CONFIDENCE = 0.98
KAYENTA_BRENT_TOLERANCE = 1e-4
_EPSILON = float(np.finfo(np.float64).eps)


# ---------------------------------------------------------------- Kayenta's judge (NetflixACAJudge-v1.0)


def _kayenta_z(shift: Array, canary: Array, baseline: Array) -> Array:
    """Return Kayenta's z of ``canary - shift`` against ``baseline``; NaN where all are tied (it throws
    there).

    ``z = (U - mn/2 - sign/2) / sqrt(mn/12 (N + 1 - sum(t^3 - t)/(N (N - 1))))``: the normal approximation
    of Mann and Whitney's U with tie correction and the continuity correction, which Kayenta never switches
    off.
    """
    rows, m = canary.shape
    n = baseline.shape[1]
    total = m + n
    pooled = np.concatenate([canary - shift[:, None], baseline], axis=1)
    order = np.argsort(pooled, axis=1)
    ordered = np.take_along_axis(pooled, order, axis=1)
    new = np.ones((rows, total), dtype=bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=new[:, 1:])
    of_canary = order < m
    ranks: Array = np.broadcast_to(np.arange(1.0, total + 1.0), (rows, total))
    tie: Any = np.zeros(rows)
    if not new.all():
        start = np.flatnonzero(new)
        length = np.diff(start, append=rows * total).astype(np.float64)
        row = start // total
        middle = (start - row * total) + 0.5 * (length + 1.0)
        ranks = np.repeat(middle, length.astype(np.intp)).reshape(rows, total)
        tie = np.bincount(row, weights=length * (length * length - 1.0), minlength=rows)
    distance = (of_canary * ranks).sum(axis=1) - m * (m + 1) / 2.0 - m * n / 2.0
    variance = m * n / 12.0 * ((total + 1.0) - tie / (total * (total - 1.0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        z = (distance - 0.5 * np.sign(distance)) / np.sqrt(variance)
    return np.where(variance > 0, z, np.nan)


def _brent(
    function: Callable[[Array, NDArray[np.intp]], Array],
    low: Array,
    high: Array,
    at_low: Array,
    at_high: Array,
) -> Array:
    """Return a root of ``function(x, rows)`` per row by Brent's classical method (Brent 1973, chapter 4).

    The stopping rule is the one Kayenta runs: half the bracket at most ``2 eps |b| + 5e-5``, in the
    metric's own unit, whatever that unit is. That is where its dependence on units comes from.
    """
    a, b = low.copy(), high.copy()
    fa, fb = at_low.copy(), at_high.copy()
    c, fc = a.copy(), fa.copy()
    root = np.full(a.shape, np.nan)
    root[fa == 0] = a[fa == 0]
    exact = (fb == 0) & (fa != 0)
    root[exact] = b[exact]
    rows = np.flatnonzero(np.isnan(root) & np.isfinite(fa) & np.isfinite(fb))
    for _ in range(1001):
        if rows.size == 0:
            break
        A, B, C, FA, FB, FC = (v[rows] for v in (a, b, c, fa, fb, fc))
        previous = B - A
        swap = np.abs(FC) < np.abs(FB)
        A, B, C = np.where(swap, B, A), np.where(swap, C, B), np.where(swap, B, C)
        FA, FB, FC = np.where(swap, FB, FA), np.where(swap, FC, FB), np.where(swap, FB, FC)
        tolerance = 2 * _EPSILON * np.abs(B) + KAYENTA_BRENT_TOLERANCE / 2
        step = (C - B) / 2
        done = (np.abs(step) <= tolerance) | (FB == 0)
        root[rows[done]] = B[done]
        with np.errstate(divide="ignore", invalid="ignore"):
            wide = C - B
            secant = A == C
            t1 = FB / FA
            u, v = FA / FC, FB / FC
            p = np.where(secant, wide * t1, t1 * (wide * u * (u - v) - (B - A) * (v - 1.0)))
            q = np.where(secant, 1.0 - t1, (u - 1.0) * (v - 1.0) * (t1 - 1.0))
            q = np.where(p > 0, -q, q)
            p = np.abs(p)
            try_it = (np.abs(previous) >= tolerance) & (np.abs(FA) > np.abs(FB))
            good = try_it & (p < 0.75 * wide * q - np.abs(tolerance * q) / 2) & (p < np.abs(previous * q / 2))
            step = np.where(good, p / q, step)
        step = np.where(np.abs(step) < tolerance, np.where(step > 0, tolerance, -tolerance), step)
        A, FA = B, FB
        B = B + step
        keep = ~done
        rows = rows[keep]
        if rows.size == 0:
            break
        A, B, C, FA, FC = A[keep], B[keep], C[keep], FA[keep], FC[keep]
        FB = function(B, rows)
        same_side = (FB > 0) == (FC > 0)
        C, FC = np.where(same_side, A, C), np.where(same_side, FA, FC)
        a[rows], b[rows], c[rows], fa[rows], fb[rows], fc[rows] = A, B, C, FA, FB, FC
    root[rows] = b[rows]
    return root


def kayenta_interval(baseline: Array, canary: Array) -> tuple[Array, Array, Array]:
    """Return Kayenta's 98 % interval of the shift and its estimate: low, high, estimate, each ``(series,)``.

    No NaN in the input. NaN comes out where all observations tie after the shift, where Kayenta throws.
    """
    q = float(special.ndtri(1.0 - (1.0 - KAYENTA_CONFIDENCE) / 2))
    d0 = canary.min(axis=1) - baseline.max(axis=1)
    d1 = canary.max(axis=1) - baseline.min(axis=1)
    z0, z1 = _kayenta_z(d0, canary, baseline), _kayenta_z(d1, canary, baseline)

    def at(level: float) -> Array:
        def f(x: Array, rows: NDArray[np.intp]) -> Array:
            return _kayenta_z(x, canary[rows], baseline[rows]) - level

        return _brent(f, d0, d1, z0 - level, z1 - level)

    with np.errstate(invalid="ignore"):
        low = np.where(z0 <= q, d0, np.where(z1 >= q, d1, at(q)))
        high = np.where(z1 >= -q, d1, np.where(z0 <= -q, d0, at(-q)))
    estimate = at(0.0)
    thrown = np.isnan(z0) | np.isnan(z1)
    return tuple(np.where(thrown, np.nan, v) for v in (low, high, estimate))  # type: ignore[return-value]


@dataclass(frozen=True)
class KayentaOutcome:
    """``label`` per series: Pass, High, Low, Nodata or Error; ``ratio`` of the means."""

    label: NDArray[np.str_]
    ratio: Array


def kayenta(
    baseline: Array,
    canary: Array,
    *,
    direction: str = "increase",
    allowed_increase: float = 1.0,
    seed: int = 0,
) -> KayentaOutcome:
    """Return what Kayenta's judge says of each series with its defaults (NaN removed, outliers kept).

    ``allowed_increase`` is ``effectSize.allowedIncrease``, off at 1.0. Kayenta adds unseeded noise where
    both sides are one constant each; here it is seeded, so that a table can be made twice.
    """
    series = len(baseline)
    label = np.full(series, "Pass", dtype="<U8")
    ratio = np.full(series, np.nan)
    m_all = np.isfinite(canary).sum(axis=1)
    n_all = np.isfinite(baseline).sum(axis=1)
    # Kayenta keeps infinities. No row of the tables holds any; dropping them here keeps z finite.
    E_all = np.sort(np.where(np.isfinite(canary), canary, np.nan), axis=1)
    C_all = np.sort(np.where(np.isfinite(baseline), baseline, np.nan), axis=1)
    generator = np.random.default_rng(seed)
    for m, n in {(int(a), int(b)) for a, b in zip(m_all, n_all, strict=True)}:
        rows = np.flatnonzero((m_all == m) & (n_all == n))
        if m == 0 or n == 0:
            label[rows] = "Nodata"
            continue
        E, C = E_all[rows, :m], C_all[rows, :n]
        identical = (E == C).all(axis=1) if m == n else np.zeros(rows.size, dtype=bool)
        one_e, one_c = E[:, 0] == E[:, -1], C[:, 0] == C[:, -1]
        identical |= one_e & one_c & (E[:, 0] == C[:, 0])
        ratio[rows[identical]] = 1.0
        flat = one_e & one_c & ~identical
        if flat.any():
            E[flat] += generator.standard_normal(E[flat].shape) * 1e-5 * np.abs(E[flat])
            C[flat] += generator.standard_normal(C[flat].shape) * 1e-5 * np.abs(C[flat])
        judged = np.flatnonzero(~identical)
        if judged.size == 0:
            continue
        low, high, estimate = kayenta_interval(C[judged], E[judged])
        bound = KAYENTA_TOLERANCE * np.abs(estimate)
        mean_e, mean_c = E[judged].mean(axis=1), C[judged].mean(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            effect = np.where((mean_e == 0) | (mean_c == 0), np.nan, mean_e / mean_c)
        ratio[rows[judged]] = effect
        up = (low > bound) & (np.isnan(effect) | (effect >= allowed_increase))
        down = (high < -bound) & (np.isnan(effect) | (effect <= 2.0 - allowed_increase))
        said = np.full(judged.size, "Pass", dtype="<U8")
        if direction in ("either", "decrease"):
            said[down] = "Low"
        if direction in ("either", "increase"):
            said[up] = "High"
        said[np.isnan(estimate)] = "Error"
        label[rows[judged]] = said
    return KayentaOutcome(label, ratio)


def kayenta_fails(baseline: Array, canary: Array) -> Bools:
    """Return whether Kayenta flags each series as High, with its defaults and direction ``increase``."""
    return np.asarray(kayenta(baseline, canary).label == "High")


def kayenta_allowed_fails(baseline: Array, canary: Array) -> Bools:
    """Return the same with ``effectSize.allowedIncrease`` at 1.1, as its documentation advises."""
    return np.asarray(kayenta(baseline, canary, allowed_increase=1.1).label == "High")


# ---------------------------------------------------------------- the usual tests


def welch_p(baseline: Array, canary: Array) -> Array:
    """Return the one-sided p-value of Welch's t-test for a higher canary mean; 1 where it is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        n, m = (np.isfinite(v).sum(axis=1) for v in (baseline, canary))
        # scipy warns of rows that hardly vary; what it answers for them is part of the comparison.
        warnings.simplefilter("ignore", RuntimeWarning)
        p = stats.ttest_ind(canary, baseline, axis=1, equal_var=False, alternative="greater", nan_policy="omit").pvalue
    return np.where((n > 1) & (m > 1) & np.isfinite(p), p, 1.0)


def mann_whitney_p(baseline: Array, canary: Array) -> Array:
    """Return the one-sided p-value of the Mann-Whitney test for a higher canary; 1 where it is undefined."""
    with np.errstate(divide="ignore", invalid="ignore"):
        p = stats.mannwhitneyu(
            canary, baseline, axis=1, alternative="greater", method="asymptotic", nan_policy="omit"
        ).pvalue
    return np.where(np.isfinite(p), p, 1.0)


def two_proportions_p(baseline: Array, canary: Array, baseline_total: Array, canary_total: Array) -> Array:
    """Return the one-sided p-value of the pooled two-proportion z-test on the sums; 1 where it is undefined."""
    a, b, n, m = (v.sum(axis=1) for v in (baseline, canary, baseline_total, canary_total))
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (a + b) / (n + m)
        z = (b / m - a / n) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return np.where(np.isfinite(z), special.ndtr(-z), 1.0)


def binned_mann_whitney_p(baseline: Array, canary: Array) -> Array:
    """Return the one-sided p-value of the Mann-Whitney test on requests in the same bins, ``(series, bins)``."""
    m, n = canary.sum(axis=1), baseline.sum(axis=1)
    total = m + n
    below = np.cumsum(baseline, axis=1) - baseline / 2
    U = (canary * below).sum(axis=1)
    tie = ((baseline + canary) ** 3 - (baseline + canary)).sum(axis=1)
    sd = np.sqrt(m * n / 12 * ((total + 1) - tie / (total * (total - 1))))
    return np.asarray(special.ndtr(-(U - m * n / 2) / sd))


def bucket_quantile(counts: Array, upper_bounds: Array, q: float) -> Array:
    """Return the quantile that ``histogram_quantile`` gives: linear inside the bucket, the last bound above it."""
    seen = np.cumsum(counts, axis=1)
    rank = q * seen[:, -1:]
    k = (seen >= rank).argmax(axis=1)
    lower = np.concatenate([[0.0], upper_bounds])
    rows = np.arange(len(counts))
    inside = np.minimum(k, len(upper_bounds) - 1)
    start = seen[rows, inside] - counts[rows, inside]
    share = np.clip((rank[:, 0] - start) / np.maximum(counts[rows, inside], 1e-300), 0.0, 1.0)
    return np.asarray(lower[inside] + share * (upper_bounds[inside] - lower[inside]))


# ---------------------------------------------------------------- thresholds, as they are written in rollouts


def _mean(values: Array) -> Array:
    held = np.isfinite(values)
    count = held.sum(axis=-1)
    return np.where(count > 0, np.where(held, values, 0.0).sum(axis=-1) / np.maximum(count, 1), np.nan)


def argo_ratio_fails(baseline: Array, canary: Array, *, factor: float = 1.1) -> Bools:
    """Argo Rollouts, ``failureCondition: canary / baseline > 1.1`` on the means, one measurement."""
    with np.errstate(invalid="ignore"):
        return np.asarray(_mean(canary) > factor * _mean(baseline))


def argo_bound_fails(canary: Array, bound: Array) -> Bools:
    """Argo Rollouts, ``successCondition: result[0] < bound`` on an instant query: the last value decides."""
    held = np.isfinite(canary)
    last = np.where(held.any(axis=1), canary.shape[1] - 1 - held[:, ::-1].argmax(axis=1), 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.take_along_axis(canary, last[:, None], axis=1)[:, 0] > bound)


def flagger_fails(canary: Array, bound: Array, *, interval: int = 1, threshold: int = 5) -> Bools:
    """Flagger: the mean of each interval against a bound; ``threshold`` failed checks roll back.

    ``analysis.interval`` is ``interval`` points, ``analysis.threshold`` failed checks end the rollout (5 in
    most examples of its documentation). Checks that fail are counted over the whole analysis, not in a row.
    """
    series, points = canary.shape
    checks = points // interval
    each = _mean(canary[:, : checks * interval].reshape(series, checks, interval))
    with np.errstate(invalid="ignore"):
        return np.asarray((each > np.asarray(bound)[:, None]).sum(axis=1) >= threshold)


def usual_bound(history_baseline: Array, *, factor: float = 1.25) -> Array:
    """Return the bound a person would write: a quarter above the usual level, ``(series,)``.

    ``history_baseline`` is what the person saw on the dashboard, ``(series, points)``.
    """
    return np.asarray(factor * np.nanmedian(history_baseline, axis=1))


# ---------------------------------------------------------------- looked at again and again


def any_look(
    fails: Callable[[Array, Array, NDArray[np.intp]], Bools],
    baseline: Array,
    canary: Array,
    looks: NDArray[np.intp],
) -> Bools:
    """Return whether a method stops the rollout at any of the looks, on the window that grows from the start.

    ``fails(baseline, canary, rows)`` is asked about the rows that were not stopped yet; ``looks`` are
    numbers of points.
    """
    stopped = np.zeros(len(canary), dtype=bool)
    for n in looks:
        rows = np.flatnonzero(~stopped)
        if rows.size == 0:
            break
        stopped[rows] = fails(baseline[rows, :n], canary[rows, :n], rows)
    return stopped


# ---------------------------------------------------------------- all of them under one form

Judge = Callable[[Array, Array, Array], Bools]

PEERS: dict[str, Judge] = {
    "Kayenta": lambda b, c, _usual: kayenta_fails(b, c),
    "Mann-Whitney .02": lambda b, c, _usual: mann_whitney_p(b, c) <= 0.02,
    "Welch .02": lambda b, c, _usual: welch_p(b, c) <= 0.02,
    "Argo mean > 1.1x": lambda b, c, _usual: argo_ratio_fails(b, c),
    "Argo last > bound": lambda _b, c, usual: argo_bound_fails(c, 1.25 * usual),
    "Flagger 5 checks": lambda _b, c, usual: flagger_fails(c, 1.25 * usual),
}
"""``judge(baseline, canary, usual level) -> fails``; the bound of the thresholds is a quarter above the
usual level."""

LOOKS: dict[str, int] = {
    "Kayenta": 5,
    "Mann-Whitney .02": 5,
    "Welch .02": 5,
    "Argo mean > 1.1x": 5,
    "Argo last > bound": 1,
    "Flagger 5 checks": 1,
}
"""Points between two looks when a peer is looked at again and again: means and tests every 5, thresholds
each point."""


def reflect(values: Array, usual: Array, down: Bools) -> Array:
    """Return the values mirrored about the usual level in the rows where down is worse, so that up is
    worse in all."""
    shape = (len(values),) + (1,) * (values.ndim - 1)
    return np.where(down.reshape(shape), 2.0 * usual.reshape(shape) - values, values)
