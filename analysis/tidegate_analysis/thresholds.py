"""Absolute thresholds: is a metric's level below (or above) a bound? Judged with the interval of the level.

PASS when the whole interval lies on the allowed side, FAIL when it lies on the other, INCONCLUSIVE else.
Levels of gauges are trimmed means whose interval respects autocorrelation; counts and event ratios are
counted exactly, wider where events come in clumps. See docs/methods/thresholds.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tidegate_analysis import defaults
from tidegate_analysis.compare import check_step
from tidegate_analysis.contrast import effective_points
from tidegate_analysis.kernels import count_stream, counts, dependence
from tidegate_analysis.prepare import HUGE, as_points, notes_for, to_scale
from tidegate_analysis.result import Result
from tidegate_analysis.spec import Direction, MetricSpec, QualityNote, Verdict, specs_for

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Comparator = Literal["below", "above"]

MIN_POINTS = 5
"""Points from which on a gauge's level is judged."""
FIRST_LOOK = 10
"""Points from which on a confidence sequence is looked at."""
TUNED_FOR = 60.0
"""Points at which the confidence sequence is tightest."""
POWER = 0.9


class _Level(NamedTuple):
    """Levels with their one-sided answers: bounds, p of "at most the bound" and of "at least the bound"."""

    level: Floats
    low: Floats
    high: Floats
    p_above: Floats
    p_below: Floats
    log_e_above: Floats
    log_e_below: Floats
    reach: Floats
    n_effective: Floats
    known: NDArray[np.bool_]


def threshold(
    values: ArrayLike,
    *,
    spec: MetricSpec | Sequence[MetricSpec],
    bound: ArrayLike,
    comparator: Comparator = "below",
    exposure: ArrayLike | None = None,
    step_seconds: float | None = None,
    anytime: bool = False,
) -> Result:
    """Judge levels against bounds.

    Parameters
    ----------
    values:
        ``(S, points)``, NaN = missing: what is compared with the bound, point by point (for a counter its
        rate, not its running total). With ``exposure`` the events; their ratio is compared.
    spec:
        One for all series, or one per series; ``alpha`` is the rate of a false FAIL, ``alpha_pass`` of a
        false PASS.
    bound:
        In the metric's unit (0.01 for an event ratio of 1 %), a number or ``(S,)``.
    comparator:
        The side on which the level must lie.
    exposure:
        Totals of the events, ``(S, points)``.
    step_seconds:
        Time between points; without it no time to an answer is told.
    anytime:
        Whether the answer must hold at every look, however often one looks (confidence sequences, from
        :data:`FIRST_LOOK` points on). Otherwise it holds for one look.

    Returns
    -------
    Result
        ``baseline_level`` is the bound, ``canary_level`` the level, ``effect`` the level minus the bound.

    Raises
    ------
    ValueError
        On shapes that do not fit, a bound that is not finite, an unknown comparator, bad counts.
    """
    x = as_points("values", values)
    size, points = x.shape
    specs = specs_for(spec, size)
    if comparator not in ("below", "above"):
        raise ValueError(f"comparator: {comparator!r} is none of below, above")
    limit = counts.per_series("bound", bound, size)
    if not (np.abs(limit) <= HUGE).all():
        raise ValueError(f"bound: must be finite and at most {HUGE:g}")
    step = check_step(step_seconds)
    totals = None if exposure is None else as_points("exposure", exposure)
    if totals is not None and totals.shape != x.shape:
        raise ValueError(f"exposure: its shape {totals.shape} differs from that of values, {x.shape}")
    has_total = np.zeros(size, dtype=np.bool_)
    if totals is not None:
        has_total |= np.isfinite(totals).any(axis=1)
    resolved, derived, _ = defaults.resolve_all(specs, x, x, has_total)
    # The question sets direction, scale and margin, whatever the metric is.
    told = tuple(tuple(field for field in fields if field == "kind") for fields in derived)
    way: Direction = "up_is_worse" if comparator == "below" else "down_is_worse"
    resolved = tuple(one.with_(direction=way, scale="linear") for one in resolved)
    alpha, alpha_pass = (np.array([getattr(one, field) for one in resolved]) for field in ("alpha", "alpha_pass"))
    worse_up = comparator == "below"
    low_level, high_level = (alpha, alpha_pass) if worse_up else (alpha_pass, alpha)

    counted = _counted(resolved, x, totals, has_total)
    outside = np.zeros(size, dtype=np.int64)
    parts: list[tuple[Ints, _Level]] = []
    rows = np.flatnonzero(~counted)
    bad = np.zeros(size, dtype=np.int64)
    if rows.size:
        prepared = to_scale((x[rows],), np.zeros(len(rows), dtype=bool))
        bad[rows] = prepared.bad[0]
        ask = _mean_sequence if anytime else _mean
        parts.append((rows, ask(prepared.parts[0], limit[rows], low_level[rows], high_level[rows])))
    rows = np.flatnonzero(counted)
    if rows.size:
        whole = None if totals is None else np.where(has_total[rows, None], totals[rows], np.nan)
        events, total, outside[rows] = _events(x[rows], whole, has_total[rows])
        parts.append(
            (
                rows,
                _count(
                    events,
                    total,
                    limit[rows],
                    low_level[rows],
                    high_level[rows],
                    bounded=has_total[rows],
                    anytime=anytime,
                ),
            )
        )
    level = _joined(parts, size)
    method = np.where(
        counted,
        "threshold-count-sequence.v1" if anytime else "threshold-count.v1",
        "threshold-mean-sequence.v1" if anytime else "threshold-mean.v1",
    )
    seen = np.isfinite(x).sum(axis=1)
    notes = notes_for(
        [
            ("bad_values", bad, "{n} points were infinite or absurd"),
            ("more_events_than_total", outside, "{n} points had more events than their total"),
            ("gaps", points - seen - bad, "{n} points are missing"),
        ],
        size,
    )
    return _answer(
        level,
        limit,
        resolved,
        told,
        worse_up=worse_up,
        alpha=alpha,
        alpha_pass=alpha_pass,
        method=method,
        seen=seen,
        bad=bad,
        quality=tuple(tuple(one) for one in notes),
        step=step,
        anytime=anytime,
    )


def _counted(
    specs: tuple[MetricSpec, ...], x: Floats, totals: Floats | None, has_total: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Which series are events: those with totals, and counts whose values are whole numbers."""
    kind = np.array([one.kind for one in specs])
    fine = np.isfinite(x)
    safe = np.where(fine, x, 0.0)
    whole = (safe == np.floor(safe)).all(axis=1) & (safe >= 0).all(axis=1) & ~np.isinf(x).any(axis=1)
    if totals is not None:
        odd = np.isinf(totals).any(axis=1) | (np.where(np.isnan(totals), 0.0, totals) < 0).any(axis=1)
        wrong = has_total & (odd | np.isinf(x).any(axis=1) | (safe < 0).any(axis=1))
        if wrong.any():
            raise ValueError("exposure: events and totals must be finite and at least 0; use NaN for a missing one")
    return np.asarray(has_total | ((kind == "count") & whole), dtype=np.bool_)


def _events(x: Floats, totals: Floats | None, bounded: NDArray[np.bool_]) -> tuple[Floats, Floats, Ints]:
    """Return events and what they are events of, 0 in both where a point is missing."""
    total = np.ones_like(x) if totals is None else np.where(bounded[:, None], totals, 1.0)
    ok = ~np.isnan(x) & ~np.isnan(total)
    events, total = np.where(ok, x, 0.0), np.where(ok, total, 0.0)
    over = bounded[:, None] & (events > total)
    return events, np.where(over, events, total), over.sum(axis=1).astype(np.int64)


def _joined(parts: list[tuple[Ints, _Level]], size: int) -> _Level:
    out = np.full((9, size), np.nan)
    known = np.zeros(size, dtype=np.bool_)
    for rows, level in parts:
        out[:, rows] = np.stack(level[:9])
        known[rows] = level.known
    a, b, c, d, e, f, g, h, i = out
    return _Level(a, b, c, d, e, f, g, h, i, known)


# --- gauges ---


def _errors(x: Floats) -> tuple[Floats, Floats, list[tuple[Floats, Floats]]]:
    """Trimmed mean, points it is worth, and its standard errors with their degrees of freedom."""
    mean, u = dependence.trimmed_influence(x)
    first, first_df, second, second_df = dependence.standard_errors(u)
    return mean, effective_points(u, first, second), [(first, first_df), (second, second_df)]


def _mean(x: Floats, bound: Floats, low_level: Floats, high_level: Floats) -> _Level:
    """One look: Student's t with the wider of two long-run standard errors."""
    mean, worth, errors = _errors(x)
    known = (~np.isnan(x)).sum(axis=1) >= MIN_POINTS
    size = len(mean)
    below, above, reach = np.zeros(size), np.zeros(size), np.zeros(size)
    p_above, p_below = np.zeros(size), np.zeros(size)
    gap = np.where(known, mean - bound, 0.0)
    for se, df in errors:
        fine = known & np.isfinite(se) & np.isfinite(df)
        safe_df = np.where(fine, df, 1.0)
        width = np.where(fine, se, 0.0)
        below = np.maximum(below, -special.stdtrit(safe_df, low_level) * width)
        above = np.maximum(above, -special.stdtrit(safe_df, high_level) * width)
        power = -special.stdtrit(safe_df, np.full(size, 1.0 - POWER))
        reach = np.maximum(reach, (-special.stdtrit(safe_df, np.minimum(low_level, high_level)) + power) * width)
        t = np.divide(gap, width, out=np.where(gap == 0, 0.0, np.copysign(np.inf, gap)), where=width > 0)
        p_above = np.maximum(p_above, special.stdtr(safe_df, -t))
        p_below = np.maximum(p_below, special.stdtr(safe_df, t))
    none = np.full(size, np.nan)
    return _Level(mean, mean - below, mean + above, p_above, p_below, none, none, reach, worth, known)


def _mean_sequence(x: Floats, bound: Floats, low_level: Floats, high_level: Floats) -> _Level:
    """Every look: the asymptotic confidence sequence with the same standard errors.

    ``se sqrt(2 (t r + 1) / (t r) log(1 + sqrt(t r + 1) / (2 alpha)))`` (Waudby-Smith et al., Ann. Stat. 2024,
    eq. 134), its multiple of the standard error turned into Student's t of the same tail. The log e-values
    are those of the one-sided normal mixture.
    """
    mean, worth, errors = _errors(x)
    n = (~np.isnan(x)).sum(axis=1).astype(np.float64)
    known = n >= FIRST_LOOK
    size = len(mean)
    t = np.maximum(n, 1.0)
    below, above, z_least = np.zeros(size), np.zeros(size), np.full(size, np.inf)
    gap = np.where(known, mean - bound, 0.0)

    def multiple(level: Floats) -> Floats:
        two = np.log(1.0 / (2.0 * level))
        r = (2.0 * two + np.log1p(2.0 * two)) / TUNED_FOR
        q = t * r + 1.0
        return np.asarray(np.sqrt(2.0 * q / (t * r) * np.log1p(np.sqrt(q) / (2.0 * level))))

    for se, df in errors:
        fine = known & np.isfinite(se) & np.isfinite(df)
        safe_df, width = np.where(fine, df, 1.0), np.where(fine, se, 0.0)
        below = np.maximum(below, -special.stdtrit(safe_df, special.ndtr(-multiple(low_level))) * width)
        above = np.maximum(above, -special.stdtrit(safe_df, special.ndtr(-multiple(high_level))) * width)
        ratio = np.divide(np.abs(gap), width, out=np.where(gap == 0, 0.0, np.inf), where=width > 0)
        tail = np.maximum(special.stdtr(safe_df, -ratio), 1e-300)
        z_least = np.minimum(z_least, -special.ndtri(tail))
    z = np.copysign(z_least, gap)

    def mixture(signed: Floats, level: Floats) -> Floats:
        two = np.log(1.0 / (2.0 * level))
        rho = TUNED_FOR / (2.0 * two + np.log1p(2.0 * two))
        s = signed * np.sqrt(t)
        exponent = s * s / (2.0 * (t + rho)) + special.log_ndtr(s / np.sqrt(t + rho))
        return np.asarray(0.5 * np.log(4.0 * rho / (t + rho)) + exponent)

    e_above, e_below = mixture(z, low_level), mixture(-z, high_level)
    one, none = np.ones(size), np.full(size, np.nan)
    p_above, p_below = np.minimum(one, np.exp(-e_above)), np.minimum(one, np.exp(-e_below))
    return _Level(mean, mean - below, mean + above, p_above, p_below, e_above, e_below, none, worth, known)


# --- counts ---


def _clumping(events: Floats, total: Floats, level: Floats) -> Floats:
    """Dispersion of the events over stretches of time, widened for few of them; at least 1."""
    edges = counts.stretch_edges(events.shape[1])
    observed, weight = np.add.reduceat(events, edges, axis=1), np.add.reduceat(total, edges, axis=1)
    rate = np.divide(events.sum(axis=1), total.sum(axis=1), out=np.zeros(len(events)), where=total.sum(axis=1) > 0)
    expected = rate[:, None] * weight
    used = (expected > 0).sum(axis=1)
    pearson = np.divide((observed - expected) ** 2, expected, out=np.zeros_like(expected), where=expected > 0)
    df = np.maximum(used - 1.0, 1.0)
    wider = (special.stdtrit(df, 1.0 - level) / special.ndtri(1.0 - level)) ** 2
    phi = np.where(used > 1, wider * pearson.sum(axis=1) / df, 1.0)
    return np.maximum(phi, 1.0)


def _count(
    events: Floats,
    total: Floats,
    bound: Floats,
    low_level: Floats,
    high_level: Floats,
    *,
    bounded: NDArray[np.bool_],
    anytime: bool,
) -> _Level:
    """Exact limits of a Poisson rate, or of a binomial share (``bounded``); counts by their clumping."""
    if events.shape[1] == 0:
        events, total = np.zeros((len(bound), 1)), np.zeros((len(bound), 1))
    phi = _clumping(events, total, np.minimum(low_level, high_level))
    number, of = events.sum(axis=1), total.sum(axis=1)
    known = of > 0
    c, n = number / phi, np.where(known, of / phi, 1.0)
    size = len(c)
    rate = np.where(known, number / np.where(known, of, 1.0), np.nan)
    none = np.full(size, np.nan)
    limit = np.where(bounded, np.clip(bound, 0.0, 1.0), np.maximum(bound, 0.0))
    if anytime:
        return _count_sequence(rate, c, n, limit, low_level, high_level, bounded, known, phi)
    tiny = 1e-300
    share = np.clip(limit, 0.0, 1.0)
    rest = np.maximum(n - c, 0.0)
    p_above = np.where(
        c > 0,
        np.where(
            bounded,
            special.betainc(np.maximum(c, tiny), rest + 1.0, share),
            special.gammainc(np.maximum(c, tiny), limit * n),
        ),
        1.0,
    )
    p_below = np.where(
        bounded,
        np.where(rest > 0, special.betaincc(c + 1.0, np.maximum(rest, tiny), share), 1.0),
        special.gammaincc(c + 1.0, limit * n),
    )
    low = np.where(
        c > 0,
        np.where(
            bounded,
            special.betaincinv(np.maximum(c, tiny), rest + 1.0, low_level),
            special.gammaincinv(np.maximum(c, tiny), low_level) / n,
        ),
        0.0,
    )
    high = np.where(
        bounded,
        np.where(rest > 0, special.betaincinv(c + 1.0, np.maximum(rest, tiny), 1.0 - high_level), 1.0),
        special.gammaincinv(c + 1.0, 1.0 - high_level) / n,
    )
    return _Level(rate, low, high, p_above, p_below, none, none, none, number / phi, known)


def _count_sequence(
    rate: Floats,
    c: Floats,
    n: Floats,
    limit: Floats,
    low_level: Floats,
    high_level: Floats,
    bounded: NDArray[np.bool_],
    known: NDArray[np.bool_],
    phi: Floats,
) -> _Level:
    """Every look: a mixture over rates above (below) the bound; its sequence by bisection.

    ``sum_d w(d) exp(c d - n bound (e**d - 1))`` has mean at most 1 under any rate at most (at least) the
    bound, for binomial counts as well, which vary less than Poisson ones.
    """
    half = count_stream.GRID.size // 2
    ups, weight = count_stream.GRID[half:], count_stream.LOG_WEIGHT[half:]

    def log_e(at: Floats, sign: float) -> Floats:
        d = sign * ups
        terms = c[:, None] * d - (n * at)[:, None] * np.expm1(d) + weight
        return np.asarray(special.logsumexp(terms, axis=1))

    def edge(level: Floats, sign: float) -> Floats:
        """The rejected rate nearest to the estimate, by bisection of the logarithm."""
        bar = -np.log(level)
        centre = (c + 0.5) / n
        near, far = np.zeros(len(c)), np.full(len(c), 60.0)
        for _ in range(40):
            mid = 0.5 * (near + far)
            rejected = log_e(centre * np.exp(-sign * mid), sign) >= bar
            near, far = np.where(rejected, near, mid), np.where(rejected, mid, far)
        return np.asarray(centre * np.exp(-sign * far))

    e_above, e_below = log_e(limit, 1.0), log_e(limit, -1.0)
    low = np.where(c > 0, edge(low_level, 1.0), 0.0)
    high = edge(high_level, -1.0)
    high = np.where(bounded, np.minimum(high, 1.0), high)
    p_above, p_below = np.exp(-np.maximum(e_above, 0.0)), np.exp(-np.maximum(e_below, 0.0))
    none = np.full(len(c), np.nan)
    worth = np.where(known, c, 0.0)
    return _Level(rate, low, high, p_above, p_below, e_above, e_below, none * phi, worth, known)


# --- the answer ---


def _answer(
    level: _Level,
    bound: Floats,
    specs: tuple[MetricSpec, ...],
    derived: tuple[tuple[str, ...], ...],
    *,
    worse_up: bool,
    alpha: Floats,
    alpha_pass: Floats,
    method: NDArray[np.str_],
    seen: Ints,
    bad: Ints,
    quality: tuple[tuple[QualityNote, ...], ...],
    step: float,
    anytime: bool,
) -> Result:
    size = len(bound)
    sign = 1.0 if worse_up else -1.0
    known = level.known & np.isfinite(level.level)
    p_fail, p_pass = (level.p_above, level.p_below) if worse_up else (level.p_below, level.p_above)
    log_e = level.log_e_above if worse_up else level.log_e_below
    beyond = level.low > bound if worse_up else level.high < bound
    inside = level.high < bound if worse_up else level.low > bound
    fail = known & beyond & (p_fail <= alpha)
    passed = known & ~fail & inside & (p_pass <= alpha_pass)
    reason = np.select(
        [fail, passed & (bad > 0), passed, seen == 0, ~known],
        ["threshold_crossed", "bad_values", "threshold_kept", "no_data", "too_few_points"],
        "not_enough_evidence",
    )
    verdict = np.select(
        [fail, passed & (bad == 0)], [int(Verdict.FAIL), int(Verdict.PASS)], int(Verdict.INCONCLUSIVE)
    ).astype(np.int8)
    unknown = np.where(known, 0.0, np.nan)
    effect = level.level - bound + unknown
    low, high = level.low - bound + unknown, level.high - bound + unknown
    # The width falls with the root of the points: until it fits between level and bound, if the level stays.
    room = -sign * effect
    width = (high - effect) if worse_up else (effect - low)
    grow = np.divide(width, room, out=np.full(size, np.nan), where=np.isfinite(room) & (room > 0)) ** 2
    open_ = (verdict == Verdict.INCONCLUSIVE) & (grow > 1.0) & ~np.bool_(anytime)
    seconds = np.where(open_, (grow - 1.0) * seen * step, np.nan)
    none = np.full(size, np.nan)
    flat = np.full(size, -1, dtype=np.int64)
    zero = np.zeros(size, dtype=np.int64)
    return Result(
        specs=specs,
        derived=derived,
        verdict=verdict,
        p_value=np.where(known, np.clip(p_fail, 1e-300, 1.0), 1.0),
        log_e_value=np.where(known, log_e, np.nan),
        effect=effect,
        effect_low=low,
        effect_high=high,
        margin=none,
        n_effective=np.where(known, level.n_effective, 0.0),
        n_baseline=zero,
        n_canary=seen.astype(np.int64),
        baseline_level=np.array(bound),
        canary_level=level.level + unknown,
        minimum_detectable_effect=level.reach + unknown,
        seconds_to_answer=seconds,
        method=tuple(method.tolist()),
        reason=tuple(reason.tolist()),
        history_windows=zero,
        history_exceeding=zero,
        onset=flat,
        onset_low=flat,
        onset_high=flat,
        quality=quality,
        tail_p_value=none,
        tail_effect=none,
    )


def threshold_sentence(result: Result, i: int, *, verdict: int, reason: str, among: int = 0) -> str:
    """Return the sentence on a threshold's series ``i``, under a verdict that may have been corrected."""
    from tidegate_analysis.explain import number

    spec = result.specs[i]
    bound, level = float(result.baseline_level[i]), float(result.canary_level[i])
    worse_up = spec.direction == "up_is_worse"
    ratio = spec.kind == "ratio" and not spec.unit

    def tell(value: float) -> str:
        return f"{number(100.0 * value)} %" if ratio else number(value, spec.unit)

    side = "below" if worse_up else "above"
    if not np.isfinite(level):
        why = "there are no points" if reason == "no_data" else "there are too few points to tell its level"
        return f"{spec.name}, which must stay {side} {tell(bound)}: {why}."
    low, high = bound + float(result.effect_low[i]), bound + float(result.effect_high[i])
    span = f"{tell(level)} ({tell(low)} to {tell(high)})"
    if verdict == Verdict.FAIL:
        return f"{spec.name} is {span}; it must stay {side} {tell(bound)}."
    if verdict == Verdict.PASS:
        return f"{spec.name} is {span}, {side} its bound of {tell(bound)}."
    why = {
        "bad_values": "some of its values are infinite or absurd",
        "not_significant_among_many": f"it does not stand out among {among or len(result)} judged together",
        "hold_only": "it crossed its bound, but this metric may only hold a rollout",
    }.get(reason, "the data cannot tell yet")
    return f"{spec.name} is {span} and must stay {side} {tell(bound)}: {why}."
