"""Counts, event ratios and rare events of two arms: exact tests that stay honest when events clump.

Given that an event happened, it fell on the canary with a probability that depends on the traffic shares and
the rate ratio alone, whatever the common rate did (Lindon & Malek, NeurIPS 2022, arXiv 2011.03567). So daily
swings and shared bursts drop out. What does not drop out is noise that an arm has for itself: events in
clumps, rates that wander. It is met in two ways:

* with a history, the log likelihood is divided by the dispersion seen there (quasi-likelihood);
* without one, a claim must hold twice: for independent events, and either for stretches of time taken as
  exchangeable wholes, or for events in clumps as large as :data:`CLUMP`. All three parts only grow more
  certain when events are added to the canary, so more failures never weaken a FAIL.

Everything works on whole ``(S, T)`` arrays; NaN means missing. Formulas and measurements:
docs/methods/counts.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tidegate_analysis.kernels.shared import as_floats

Array = NDArray[np.float64]

CLUMP = 12.0
"""Mean clump size that a claim without history must survive when there are too few stretches to compare."""
RELATIVE_NOISE = 0.25
"""Relative variance of a stretch's own rate (half its level, squared) that the same claim must survive."""
OUTLYING = 0.05
"""Share of an arm's scrapes that must not decide that claim: they are capped at the highest of the others."""
ROUTE_ABOVE = 5.0
"""Dispersion in the history above which a count is better judged as a continuous series."""
STRETCHES = (7, 10)
"""Fewest (where there are so many scrapes) and most stretches that a window without history is cut into."""
MIN_WINDOWS = 5
"""Past windows with an event from which on their dispersion stands for the noise."""
ROWS = 128
"""Series compared at a time, so that their subsets stay in the cache."""
BLOCK = 5
"""Scrapes per stretch in a stream without history."""


class CountData(NamedTuple):
    """Checked counts of both arms, ``(S, T)``; a pair of scrapes that cannot be compared is zero in all four.

    ``missing`` counts the pairs left out, ``raised`` the scrapes with more events than total, whose total was
    raised to the events (dropping them would hide failures).
    """

    baseline: Array
    canary: Array
    baseline_exposure: Array
    canary_exposure: Array
    missing: NDArray[np.int64]
    raised: NDArray[np.int64]


class CountComparison(NamedTuple):
    """The comparison of two arms at one moment, arrays over series ``(S,)``.

    ``effect``, ``low`` and ``high`` are relative changes (0.18 = +18 %) or, with ``absolute``, differences of
    event ratios; ``low`` and ``high`` are one-sided bounds at ``alpha`` each. ``p_value`` belongs to "not
    worse", ``pass_p_value`` to "worse by the margin at least". NaN where there is nothing to say.
    """

    effect: Array
    low: Array
    high: Array
    p_value: Array
    pass_p_value: Array
    n_effective: Array
    dispersion: Array
    route: NDArray[np.bool_]
    baseline_level: Array
    canary_level: Array
    baseline_events: Array
    canary_events: Array
    missing: NDArray[np.int64]
    raised: NDArray[np.int64]


def _matrix(name: str, value: ArrayLike, shape: tuple[int, ...] | None) -> Array:
    array = as_floats(name, value)
    if array.ndim != 2:
        raise ValueError(f"{name}: must have the two axes (series, points), not {array.ndim}")
    if shape is not None and array.shape != shape:
        raise ValueError(f"{name}: its shape {array.shape} differs from that of baseline_events, {shape}")
    if np.isinf(array).any():
        raise ValueError(f"{name}: holds an infinite value; use NaN for a missing one")
    if (array < 0).any():
        raise ValueError(f"{name}: holds a negative value; counts and totals are at least 0")
    return array


def check_counts(
    baseline_events: ArrayLike,
    canary_events: ArrayLike,
    baseline_exposure: ArrayLike | None = None,
    canary_exposure: ArrayLike | None = None,
    *,
    bounded: bool = False,
) -> CountData:
    """Check the counts of two arms and leave out pairs of scrapes that cannot be compared.

    Parameters
    ----------
    baseline_events, canary_events:
        Events per scrape, ``(S, T)``, at least 0, NaN = missing.
    baseline_exposure, canary_exposure:
        What the events are events of (requests, seconds), ``(S, T)``; both or neither.
    bounded:
        Whether events are part of their exposure (an event ratio), so that more events than exposure is
        wrong.

    Raises
    ------
    ValueError
        On infinite or negative values, on shapes that differ, and on an exposure of one arm only.
    """
    b = _matrix("baseline_events", baseline_events, None)
    c = _matrix("canary_events", canary_events, b.shape)
    if (baseline_exposure is None) != (canary_exposure is None):
        absent = "baseline_exposure" if baseline_exposure is None else "canary_exposure"
        raise ValueError(f"{absent}: is missing; give the exposure of both arms or of none")
    raised = np.zeros(b.shape[0], dtype=np.int64)
    if baseline_exposure is None or canary_exposure is None:
        ok = ~(np.isnan(b) | np.isnan(c))
        ones = ok.astype(np.float64)
        if ok.all():
            return CountData(b, c, ones, ones, np.zeros(len(b), dtype=np.int64), raised)
        rb, rc = ones, ones
    else:
        rb = _matrix("baseline_exposure", baseline_exposure, b.shape)
        rc = _matrix("canary_exposure", canary_exposure, b.shape)
        if bounded:
            over_b, over_c = b > rb, c > rc
            raised = (over_b.sum(axis=1) + over_c.sum(axis=1)).astype(np.int64)
            rb, rc = np.where(over_b, b, rb), np.where(over_c, c, rc)
        ok = ~(np.isnan(b) | np.isnan(c) | np.isnan(rb) | np.isnan(rc))
        ok &= (rb > 0) & (rc > 0)
        rb, rc = np.where(ok, rb, 0.0), np.where(ok, rc, 0.0)
    return CountData(np.where(ok, b, 0.0), np.where(ok, c, 0.0), rb, rc, (~ok).sum(axis=1).astype(np.int64), raised)


# --- one moment ---


def _rows(data: CountData, rows: slice | NDArray[np.int64]) -> CountData:
    return CountData(
        data.baseline[rows],
        data.canary[rows],
        data.baseline_exposure[rows],
        data.canary_exposure[rows],
        data.missing[rows],
        data.raised[rows],
    )


class _Sums(NamedTuple):
    """Sums stratified by scrape: time-varying rates and shares cannot bias them.

    ``rise = sum c r_b/(r_b+r_c)`` and ``fall = sum b r_c/(r_b+r_c)`` have the expectations ``e^delta W
    lambda`` and ``W lambda`` (Mantel-Haenszel). Divided by their greatest weight they are spread no wider
    than Poisson counts of the same mean: ``a*c`` is the mean of a thinned count given ``c`` (Jensen).
    """

    canary: Array
    baseline: Array
    log_odds: Array
    canary_rate: Array
    baseline_rate: Array
    canary_unit: Array
    baseline_unit: Array


def _safe_divide(a: Array, b: Array, default: float = np.nan) -> Array:
    out = np.full(np.broadcast_shapes(a.shape, b.shape), default)
    np.divide(a, b, out=out, where=b != 0)
    return out


def weights(data: CountData) -> tuple[Array, Array, Array]:
    """Per scrape: weight of a canary event, weight of a baseline event, weight of the pair."""
    total = data.baseline_exposure + data.canary_exposure
    u = _safe_divide(data.baseline_exposure, total, 0.0)
    v = _safe_divide(data.canary_exposure, total, 0.0)
    return u, v, u * data.canary_exposure


def _sums(data: CountData) -> _Sums:
    u, v, w = weights(data)
    rise, fall = (u * data.canary).sum(axis=1), (v * data.baseline).sum(axis=1)
    u_max, v_max = u.max(axis=1, initial=0.0), v.max(axis=1, initial=0.0)
    ok = u_max > 0
    one = np.ones_like(u_max)
    u_max, v_max = np.where(ok, u_max, one), np.where(ok, v_max, one)
    weight = np.where(ok, w.sum(axis=1), np.nan)
    return _Sums(
        rise / u_max,
        fall / v_max,
        np.log(v_max) - np.log(u_max),
        rise / weight,
        fall / weight,
        u_max / weight,
        v_max / weight,
    )


class _Sided(NamedTuple):
    """One-sided p-values of "at most 0", "at least 0", "beyond the margin" up and down, and the bounds."""

    above: Array
    below: Array
    margin_up: Array
    margin_down: Array
    low: Array
    high: Array


def _share_tail(c: Array, b: Array, theta: Array) -> Array:
    """P(at least c of c+b on the canary) at share theta: the binomial tail, continued to real counts."""
    return np.where(c > 0, special.betainc(np.maximum(c, 1e-300), b + 1.0, theta), 1.0)


def _byar_upper(x: Array, z: Array) -> Array:
    """Upper Poisson limit: Byar's cube-root form of the exact gamma limit."""
    y = x + 1.0
    return np.asarray(y * (1.0 - 1.0 / (9.0 * y) + z / (3.0 * np.sqrt(y))) ** 3)


def _byar_lower(x: Array, z: Array) -> Array:
    """Lower Poisson limit, at least 0."""
    y = np.maximum(x, 1e-12)
    return np.asarray(y * np.maximum(1.0 - 1.0 / (9.0 * y) - z / (3.0 * np.sqrt(y)), 0.0) ** 3)


def _difference_bound(s: _Sums, phi: Array, z: Array, *, upper: bool) -> Array:
    """Bound of the difference of two rates from the limits of each (MOVER: Zou & Donner, Stat. Med. 2008)."""
    if upper:
        more = (phi * _byar_upper(s.canary / phi, z) - s.canary) * s.canary_unit
        less = (s.baseline - phi * _byar_lower(s.baseline / phi, z)) * s.baseline_unit
        return np.asarray(s.canary_rate - s.baseline_rate + np.hypot(more, less))
    more = (s.canary - phi * _byar_lower(s.canary / phi, z)) * s.canary_unit
    less = (phi * _byar_upper(s.baseline / phi, z) - s.baseline) * s.baseline_unit
    return np.asarray(s.canary_rate - s.baseline_rate - np.hypot(more, less))


def _difference_p(s: _Sums, phi: Array, bound: Array, *, upper: bool) -> Array:
    """p of "at least bound" (``upper``) or "at most bound": the level at which the limit meets the bound."""
    sign = 1.0 if upper else -1.0
    p = np.where(np.isnan(s.canary_rate), 1.0, 0.5)
    zero = np.zeros(len(phi))
    claimed = sign * (bound - _difference_bound(s, phi, zero, upper=upper)) > 0
    opposed = sign * (_difference_bound(s, phi, zero, upper=not upper) - bound) > 0
    for rows, which, direction in ((claimed, upper, -1.0), (opposed, not upper, 1.0)):
        picked = np.flatnonzero(rows)
        if picked.size:
            part, disp, aim = _Sums(*(a[picked] for a in s)), phi[picked], bound[picked]
            lo, hi = np.zeros(picked.size), np.full(picked.size, 38.0)
            for _ in range(26):
                z = 0.5 * (lo + hi)
                short = -direction * sign * (aim - _difference_bound(part, disp, z, upper=which)) > 0
                lo, hi = np.where(short, z, lo), np.where(short, hi, z)
            p[picked] = special.ndtr(direction * lo)
    return p


def _independent(
    s: _Sums, phi: Array, levels: tuple[Array, Array], margins: tuple[Array, Array], *, absolute: bool
) -> _Sided:
    """Answers for independent events, or for clumps of mean size phi: both counts are divided by phi."""
    c, b = s.canary / phi, s.baseline / phi
    null = special.expit(s.log_odds)
    above, below = _share_tail(c, b, null), _share_tail(b, c, 1.0 - null)
    if absolute:
        margin_up = _difference_p(s, phi, margins[0], upper=True)
        margin_down = _difference_p(s, phi, -margins[1], upper=False)
        low = _difference_bound(s, phi, -special.ndtri(levels[0]), upper=False)
        high = _difference_bound(s, phi, -special.ndtri(levels[1]), upper=True)
        # The bounds agree with the exact test about the sign.
        least = np.finfo(np.float64).tiny
        low = np.where(above <= levels[0], np.maximum(low, least), np.minimum(low, 0.0))
        high = np.where(below <= levels[1], np.minimum(high, -least), np.maximum(high, 0.0))
        return _Sided(above, below, margin_up, margin_down, low, high)
    margin_up = _share_tail(b, c, special.expit(-s.log_odds - margins[0]))
    margin_down = _share_tail(c, b, special.expit(s.log_odds - margins[1]))
    low_share = np.where(c > 0, special.betaincinv(np.maximum(c, 1e-300), b + 1.0, levels[0]), 0.0)
    high_share = np.where(b > 0, special.betaincinv(np.maximum(b, 1e-300), c + 1.0, levels[1]), 0.0)
    low = special.logit(low_share) - s.log_odds
    high = -special.logit(high_share) - s.log_odds
    return _Sided(above, below, margin_up, margin_down, low, high)


def _subset_sums(x: Array) -> Array:
    """Return the sums of all subsets of the columns, ``(S, k)`` to ``(S, 2**k)``; the first is the empty one."""
    size, k = x.shape
    out = np.zeros((size, 2**k))
    for j in range(k):
        out[:, 2**j : 2 ** (j + 1)] = out[:, : 2**j] + x[:, j : j + 1]
    return out


def stretch_edges(points: int) -> NDArray[np.int64]:
    """First columns of nearly equal stretches."""
    k = max(1, min(points, STRETCHES[0]), min(points // 3, STRETCHES[1]))
    return np.asarray((np.arange(k) * points) // k, dtype=np.int64)


def _exchangeable(
    data: CountData, levels: tuple[Array, Array], margins: tuple[Array, Array], *, absolute: bool
) -> _Sided:
    """Answers when whole stretches are exchangeable between the arms, whatever happens inside them.

    If the true effect is delta, the estimates from all subsets of stretches are as likely above as below it
    (Hartigan's typical values, JASA 1969). So the bound at level alpha is the alpha quantile of the ``2**k``
    subset estimates, and p is the share of subsets whose estimate does not exceed the null: a sign-flip test.
    The empty subset, and those without an event, speak for every null.
    """
    size = len(data.canary)
    parts = [
        _subset_answers(
            _rows(data, slice(start, start + ROWS)),
            (levels[0][start : start + ROWS], levels[1][start : start + ROWS]),
            (margins[0][start : start + ROWS], margins[1][start : start + ROWS]),
            absolute=absolute,
        )
        for start in range(0, size, ROWS)
    ]
    return _Sided(*(np.concatenate([part[k] for part in parts]) if parts else np.zeros(0) for k in range(6)))


def _subset_answers(
    data: CountData, levels: tuple[Array, Array], margins: tuple[Array, Array], *, absolute: bool
) -> _Sided:
    u, v, w = weights(data)
    edges = stretch_edges(data.canary.shape[1])
    rise = _subset_sums(np.add.reduceat(u * data.canary, edges, axis=1))
    fall = _subset_sums(np.add.reduceat(v * data.baseline, edges, axis=1))
    zero = np.zeros(len(rise))
    if absolute:
        estimate = _safe_divide(rise - fall, _subset_sums(np.add.reduceat(w, edges, axis=1)))
        slack = 1e-12 * (np.nanmax(np.abs(estimate), axis=1, initial=0.0) + np.maximum(*margins))
        nulls = (zero - slack, zero + slack, margins[0] - slack, slack - margins[1])
    else:
        estimate = np.where(rise > 0, np.inf, np.nan)
        np.divide(rise, fall, out=estimate, where=fall > 0)
        nulls = (zero + 1 - 1e-12, zero + 1 + 1e-12, np.exp(margins[0]) - 1e-12, np.exp(-margins[1]) + 1e-12)
    estimate.sort(axis=1)  # unknown ones last
    count = estimate.shape[1]
    unknown = np.isnan(estimate).sum(axis=1)

    def at_most(bound: Array) -> Array:
        return np.asarray(((estimate <= bound[:, None]).sum(axis=1) + unknown) / count)

    def at_least(bound: Array) -> Array:
        return np.asarray(((estimate >= bound[:, None]).sum(axis=1) + unknown) / count)

    def quantile(level: Array, *, upper: bool) -> Array:
        spare = np.floor(level * count + 1e-9).astype(np.int64) - unknown
        at = np.clip(count - unknown - 1 - spare if upper else spare, 0, count - 1)
        picked = np.take_along_axis(estimate, at[:, None], axis=1)[:, 0]
        picked = np.where(spare >= 0, picked, np.inf if upper else (-np.inf if absolute else 0.0))
        if absolute:
            return picked
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(picked))

    return _Sided(
        at_most(nulls[1]),
        at_least(nulls[0]),
        at_least(nulls[2]),
        at_most(nulls[3]),
        quantile(levels[0], upper=False),
        quantile(levels[1], upper=True),
    )


def _blunted(events: Array, exposure: Array) -> Array:
    """Cap the highest rates at the highest of the others; the sum still never falls when events are added."""
    points = events.shape[1]
    top = int(np.ceil(OUTLYING * points)) if points > 1 else 0
    if top == 0:
        return events
    rate = _safe_divide(events, exposure, 0.0)
    cap = np.partition(rate, points - 1 - top, axis=1)[:, points - 1 - top, None]
    return np.asarray(np.minimum(events, cap * exposure))


def _clumped(data: CountData, levels: tuple[Array, Array], margins: tuple[Array, Array], *, absolute: bool) -> _Sided:
    """Answers that survive large clumps, wandering rates and a few outlying scrapes."""

    def at(canary: Array, baseline: Array) -> _Sided:
        s = _sums(data._replace(canary=canary, baseline=baseline))
        phi = CLUMP + RELATIVE_NOISE * (s.canary + s.baseline) / (2.0 * stretch_edges(canary.shape[1]).size)
        return _independent(s, phi, levels, margins, absolute=absolute)

    up = at(_blunted(data.canary, data.canary_exposure), data.baseline)
    down = at(data.canary, _blunted(data.baseline, data.baseline_exposure))
    return _Sided(up.above, down.below, down.margin_up, up.margin_down, up.low, down.high)


def _both(first: _Sided, second: _Sided) -> _Sided:
    """A claim that both make."""
    return _Sided(
        np.maximum(first.above, second.above),
        np.maximum(first.below, second.below),
        np.maximum(first.margin_up, second.margin_up),
        np.maximum(first.margin_down, second.margin_down),
        np.minimum(first.low, second.low),
        np.maximum(first.high, second.high),
    )


def _any(first: _Sided, second: _Sided) -> _Sided:
    """A claim that one of them makes."""
    return _Sided(
        np.minimum(first.above, second.above),
        np.minimum(first.below, second.below),
        np.minimum(first.margin_up, second.margin_up),
        np.minimum(first.margin_down, second.margin_down),
        np.maximum(first.low, second.low),
        np.minimum(first.high, second.high),
    )


def _moments(data: CountData, edges: NDArray[np.int64]) -> tuple[Array, ...]:
    """Sums over stretches from which the dispersion about any rate ratio follows."""
    u, v, _ = weights(data)
    rise = np.add.reduceat(u * data.canary, edges, axis=1)
    fall = np.add.reduceat(v * data.baseline, edges, axis=1)
    return (
        (rise * rise).sum(axis=1),
        (rise * fall).sum(axis=1),
        (fall * fall).sum(axis=1),
        (u * u * data.canary).sum(axis=1),
        (v * v * data.baseline).sum(axis=1),
        rise.sum(axis=1),
        fall.sum(axis=1),
        ((rise + fall) > 0).sum(axis=1).astype(np.float64),
    )


def fitted_dispersion(moments: tuple[Array, ...]) -> Array:
    """Variance of ``rise - R fall`` over stretches, by its Poisson value, at the fitted ratio R."""
    rr, rf, ff, var_c, var_b, rise, fall, used = moments
    ratio = _safe_divide(rise, fall, 0.0)
    # Without an event in one arm every stretch fits perfectly.
    square = np.where(fall > 0, rr - 2.0 * ratio * rf + ratio * ratio * ff, 0.0)
    poisson = var_c + ratio * ratio * var_b
    phi = _safe_divide(np.maximum(square, 0.0) * used, poisson * np.maximum(used - 1.0, 1.0), 1.0)
    return np.maximum(phi, 1.0)


def fixed_horizon_counts(
    baseline_events: ArrayLike,
    canary_events: ArrayLike,
    *,
    baseline_exposure: ArrayLike | None = None,
    canary_exposure: ArrayLike | None = None,
    margin: ArrayLike,
    absolute: bool = False,
    sign: ArrayLike = 1,
    alpha: ArrayLike = 0.02,
    alpha_pass: ArrayLike = 0.05,
    dispersion: ArrayLike | None = None,
) -> CountComparison:
    """Compare the event rates of two arms at one moment.

    Parameters
    ----------
    baseline_events, canary_events:
        Events per scrape, ``(S, T)``, paired by column, NaN = missing.
    baseline_exposure, canary_exposure:
        What they are events of, ``(S, T)``. Without them every pair of scrapes counts as equally exposed.
    margin:
        The change that matters, above 0, a scalar or ``(S,)``: a fraction (0.1 = 10 %), or with ``absolute``
        a difference of event ratios (0.005 = half a percentage point).
    absolute:
        Whether the effect is a difference of ratios ``events / exposure``; needs the exposures. Where more
        than half are events (successes), the rest (failures) is compared, which is rarer.
    sign:
        1 where a rise is worse, -1 where a fall is, 0 where both are; a scalar or ``(S,)``.
    alpha, alpha_pass:
        One-sided error rates of a false FAIL and of a false PASS; the bound towards "no change" is at
        ``alpha``, the other at ``alpha_pass`` (both at ``alpha / 2`` where both directions are worse).
    dispersion:
        Dispersion of each series in its history, ``(S,)``, from :func:`history_dispersion`; NaN = none.

    Raises
    ------
    ValueError
        On bad counts (:func:`check_counts`), and on a margin that is not above 0.
    """
    given = check_counts(baseline_events, canary_events, baseline_exposure, canary_exposure, bounded=absolute)
    size = len(given.canary)
    extent = per_series("margin", margin, size)
    if not (np.isfinite(extent) & (extent > 0)).all():
        raise ValueError("margin: must be finite and above 0")
    if absolute and baseline_exposure is None:
        raise ValueError("baseline_exposure: is missing; a difference of event ratios needs the totals of both arms")
    way = np.sign(per_series("sign", sign, size))
    level, level_pass = per_series("alpha", alpha, size), per_series("alpha_pass", alpha_pass, size)
    mirrored = np.full(size, absolute) & _common(given)
    data = rest_of(given, mirrored) if absolute else given
    if not data.canary.shape[1]:
        none = np.zeros((size, 1))
        data = CountData(none, none, none, none, data.missing, data.raised)
    # For the mirrored ones more of the rest is less of the events.
    up = np.where(mirrored, -way, way)
    low_level = np.where(up > 0, level, np.where(up < 0, level_pass, 0.5 * level))
    high_level = np.where(up > 0, level_pass, np.where(up < 0, level, 0.5 * level))
    margins = working_margins(extent, up, absolute=absolute)
    levels = (low_level, high_level)

    sums = _sums(data)
    one = np.ones(size)
    past = np.full(size, np.nan) if dispersion is None else per_series("dispersion", dispersion, size)
    learnt = np.isfinite(past)
    edges = stretch_edges(data.canary.shape[1])
    fitted = fitted_dispersion(_moments(data, edges))
    phi = np.where(learnt, np.maximum(past, 1.0), fitted)
    exact = _independent(sums, np.where(learnt, phi, one), levels, margins, absolute=absolute)
    if learnt.all():
        sided = exact
    else:
        wholes = _exchangeable(data, levels, margins, absolute=absolute)
        sided = _both(exact, _any(wholes, _clumped(data, levels, margins, absolute=absolute)))
        sided = _Sided(*(np.where(learnt, a, b) for a, b in zip(exact, sided, strict=True)))

    p = np.where(
        up > 0,
        sided.above,
        np.where(up < 0, sided.below, np.minimum(2.0 * np.minimum(sided.above, sided.below), 1.0)),
    )
    p_pass = np.where(
        up > 0,
        sided.margin_up,
        np.where(up < 0, sided.margin_down, np.maximum(sided.margin_up, sided.margin_down)),
    )
    b_sum, c_sum = given.baseline.sum(axis=1), given.canary.sum(axis=1)
    if absolute:
        effect, low, high = sums.canary_rate - sums.baseline_rate, sided.low, sided.high
        low, high = np.maximum(low, -1.0), np.minimum(high, 1.0)
        effect = np.where(mirrored, -effect, effect)
        low, high = np.where(mirrored, -high, low), np.where(mirrored, -low, high)
    else:
        # Half an event on either side where an arm has none: a finite estimate inside the bounds.
        bare = (sums.canary == 0) | (sums.baseline == 0)
        extra = np.where(bare, 0.5, 0.0)
        empty = (sums.canary + sums.baseline) == 0
        top, bottom = np.where(empty, 1.0, sums.canary + extra), np.where(empty, 1.0, sums.baseline + extra)
        change = np.where(empty, 0.0, np.log(top) - np.log(bottom) - sums.log_odds)
        with np.errstate(over="ignore"):
            effect, low, high = np.expm1(change), np.expm1(sided.low), np.expm1(sided.high)
    compared = (data.canary_exposure > 0).any(axis=1)
    unknown = np.where(compared, 0.0, np.nan)
    return CountComparison(
        effect + unknown,
        low + unknown,
        high + unknown,
        np.where(compared, p, 1.0),
        np.where(compared, p_pass, 1.0),
        np.where(compared, (data.canary.sum(axis=1) + data.baseline.sum(axis=1)) / phi, 0.0),
        phi + unknown,
        learnt & (past > ROUTE_ABOVE),
        _safe_divide(b_sum, given.baseline_exposure.sum(axis=1)),
        _safe_divide(c_sum, given.canary_exposure.sum(axis=1)),
        b_sum,
        c_sum,
        given.missing,
        given.raised,
    )


def working_margins(margin: Array, sign: Array, *, absolute: bool) -> tuple[Array, Array]:
    """Return the margins towards a rise and a fall on the working scale, both above 0.

    A fraction x becomes ``log(1 + x)`` for a rise and ``-log(1 - x)`` for a fall that is worse.
    """
    if absolute:
        return margin, margin
    return np.log1p(margin), np.where(sign < 0, -np.log1p(-np.minimum(margin, 0.99)), np.log1p(margin))


def per_series(name: str, value: ArrayLike, size: int) -> Array:
    """Return one number per series from one number or an array of them."""
    array = as_floats(name, value)
    if array.ndim > 1 or (array.ndim == 1 and array.shape != (size,)):
        raise ValueError(f"{name}: must be a number or one number per series ({size}), not an array of {array.shape}")
    return np.broadcast_to(array, (size,))


def _common(data: CountData) -> NDArray[np.bool_]:
    """Whether more than half of all, both arms together, are events: then the rest is what is rare."""
    events = data.baseline.sum(axis=1) + data.canary.sum(axis=1)
    total = data.baseline_exposure.sum(axis=1) + data.canary_exposure.sum(axis=1)
    return np.asarray(events > 0.5 * total)


def rest_of(data: CountData, mirrored: NDArray[np.bool_] | bool) -> CountData:
    """Put what is not an event in the place of events: failures for successes."""
    flip = np.broadcast_to(mirrored, data.canary.shape[:1])[:, None]
    return data._replace(
        baseline=np.where(flip, data.baseline_exposure - data.baseline, data.baseline),
        canary=np.where(flip, data.canary_exposure - data.canary, data.canary),
    )


def _past(events: ArrayLike, exposure: ArrayLike | None, *, bounded: bool = False) -> tuple[CountData, int, int]:
    """Return past windows one below the other, how many series they are of, and how many windows each has."""
    past = np.asarray(events, dtype=np.float64)
    if past.ndim != 4 or past.shape[2] != 2:
        raise ValueError(f"history: must have the shape (series, windows, 2, points), not {past.shape}")
    size, windows, _, points = past.shape
    totals = None if exposure is None else np.asarray(exposure, dtype=np.float64)
    if totals is not None and totals.shape != past.shape:
        raise ValueError(f"history_exposure: its shape {totals.shape} differs from that of history, {past.shape}")
    flat = (size * windows, points)
    data = check_counts(
        past[:, :, 0].reshape(flat),
        past[:, :, 1].reshape(flat),
        None if totals is None else totals[:, :, 0].reshape(flat),
        None if totals is None else totals[:, :, 1].reshape(flat),
        bounded=bounded,
    )
    return data, size, windows


def _joined(data: CountData, size: int) -> CountData:
    """Put the windows of a series side by side."""
    return data._replace(
        baseline=data.baseline.reshape(size, -1),
        canary=data.canary.reshape(size, -1),
        baseline_exposure=data.baseline_exposure.reshape(size, -1),
        canary_exposure=data.canary_exposure.reshape(size, -1),
    )


def usual_odds(events: ArrayLike, exposure: ArrayLike | None = None) -> Array:
    """Return the rate of the canary over that of the baseline in past windows, ``(S,)``; 1 where nothing tells.

    Without totals a canary of one pod beside nine has a tenth of the events by its size alone. Where that
    share was the same in the past, ``canary_exposure = usual_odds(...)`` (and a baseline exposure of 1) makes
    it the null.

    Parameters
    ----------
    events, exposure:
        As for :func:`history_dispersion`.
    """
    data, size, windows = _past(events, exposure)
    u, v, _ = weights(data)
    rise = (u * data.canary).sum(axis=1).reshape(size, windows).sum(axis=1)
    fall = (v * data.baseline).sum(axis=1).reshape(size, windows).sum(axis=1)
    return np.asarray((rise + 0.25) / (fall + 0.25))


def history_dispersion(
    events: ArrayLike,
    exposure: ArrayLike | None = None,
    *,
    odds: ArrayLike | None = None,
    bounded: bool = False,
    alpha: float = 0.02,
) -> tuple[Array, NDArray[np.int64]]:
    """Return how much more the split of events varied in the past than that of independent events.

    Whole windows tell most (they hold every slow wander), stretches within them are many: the larger of the
    two Pearson statistics counts, each widened for the number of sums it rests on, ``(t / z)**2`` at
    ``alpha``.

    Parameters
    ----------
    events:
        ``(S, K, 2, P)``: K past windows, ``[:, :, 0]`` baseline and ``[:, :, 1]`` canary, NaN = missing.
    exposure:
        What they are events of, of the same shape.
    odds:
        Rate of the canary over that of the baseline about which they vary, ``(S,)``, from :func:`usual_odds`;
        then the dispersion also covers that the odds were estimated, ``1 + 1 / K``. Default: 1.
    bounded:
        Whether events are part of their exposure; the rarer side is looked at then, as for a difference of
        ratios.

    Returns
    -------
    dispersion:
        ``(S,)``, at least 1; NaN with fewer than :data:`MIN_WINDOWS` windows that hold an event.
    windows:
        How many windows held an event, ``(S,)``.

    Raises
    ------
    ValueError
        On shapes that do not fit, infinite or negative values.
    """
    data, size, windows = _past(events, exposure, bounded=bounded)
    points = data.canary.shape[1]
    if not points or not windows:
        return np.full(size, np.nan), np.zeros(size, dtype=np.int64)
    about = None if odds is None else np.repeat(per_series("odds", odds, size), windows)[:, None]
    if exposure is None:
        # The share is the same everywhere: sums of events are enough.
        rate = np.ones((1, 1)) if about is None else about
        u, v = 1.0 / (1.0 + rate), rate / (1.0 + rate)
    else:
        if about is not None:
            data = data._replace(canary_exposure=data.canary_exposure * about)
        if bounded:
            data = rest_of(data, np.repeat(_common(_joined(data, size)), windows))
        u, v, _ = weights(data)
    gap, poisson = u * data.canary - v * data.baseline, u * v * (data.canary + data.baseline)
    phi = np.ones(size)
    used = np.zeros(size, dtype=np.int64)
    for edges in (stretch_edges(points), np.zeros(1, dtype=np.int64)):
        shape = (size, windows * edges.size)
        expected = np.add.reduceat(poisson, edges, axis=1).reshape(shape)
        square = np.add.reduceat(gap, edges, axis=1).reshape(shape) ** 2
        filled = expected > 0
        used = filled.sum(axis=1)
        pearson = np.divide(square, expected, out=np.zeros(shape), where=filled).sum(axis=1)
        df = np.maximum(used, 1).astype(np.float64)
        wider = (special.stdtrit(df, 1.0 - alpha) / special.ndtri(1.0 - alpha)) ** 2
        phi = np.maximum(phi, wider * pearson / df)
    if odds is not None:
        phi = phi * (1.0 + 1.0 / np.maximum(used, 1))
    return np.where(used >= MIN_WINDOWS, phi, np.nan), used.astype(np.int64)


def split_log_e(canary: ArrayLike, baseline: ArrayLike, share: ArrayLike, *, strength: float = 1.0) -> Array:
    """Return the log e-value against the canary having that share of what was counted: is traffic split as planned?

    Beta-binomial with prior ``Beta(strength share, strength (1 - share))`` (Lindon & Malek 2022), valid at
    every look.

    Parameters
    ----------
    canary, baseline:
        Totals so far (requests), any shape.
    share:
        The planned share of the canary, between 0 and 1.

    Raises
    ------
    ValueError
        When totals are negative or not finite, or a share is not between 0 and 1.
    """
    c, b, s = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (canary, baseline, share)))
    for name, x in (("canary", c), ("baseline", b)):
        if not (np.isfinite(x) & (x >= 0)).all():
            raise ValueError(f"{name}: must be finite and at least 0")
    if not ((s > 0) & (s < 1)).all():
        raise ValueError("share: must lie between 0 and 1")
    first, second = strength * s, strength * (1.0 - s)
    prior = special.betaln(first, second)
    return np.asarray(special.betaln(first + c, second + b) - prior - c * np.log(s) - b * np.log1p(-s))
