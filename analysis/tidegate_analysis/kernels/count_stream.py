"""Counts and event ratios looked at after every scrape: e-values that hold at any moment.

The conditional likelihood of the split of events (:mod:`tidegate_analysis.kernels.counts`) is kept on a grid
of log rate ratios and mixed (Lindon & Malek 2022): ``l(d) += c d - n log(1 + rho (e**d - 1))`` for c canary
events of n at a canary share of rho. A margin that is a difference of ratios costs one more sum, ``A(d) += w
(e**d - 1) / (1 + rho (e**d - 1))`` with ``w = r_b r_c / (r_b + r_c)``: for every d, ``exp(l(d) - m A(d))``
has mean at most 1 whenever the difference is at most m (d above 0) or at least m (d below 0), whatever the
level of either arm does.

With a history both are divided by the dispersion seen there. Without one a claim must hold for independent
events and, besides, either for large clumps or in bets on whole stretches of time. See
docs/methods/counts.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from tidegate_analysis.kernels import counts
from tidegate_analysis.kernels.counts import Array, CountData

_STEPS = np.geomspace(0.02, 4.0, 20)
GRID: Array = np.concatenate([-_STEPS[::-1], _STEPS])
"""Log rate ratios that are bet on; 0 is not among them, its likelihood is always 1."""
_CENTRE = len(_STEPS)
_DENSITY = np.gradient(_STEPS) / (1.0 + (_STEPS / 0.3) ** 2)
LOG_WEIGHT: Array = np.log(np.concatenate([_DENSITY[::-1], _DENSITY]) / _DENSITY.sum())
"""Logarithm of a Cauchy weight of scale 0.3, 1 in total on either side of 0."""
STAKES: Array = np.array([0.2, 0.45, 0.7, 0.95])
"""Shares of the wealth that are staked on each stretch."""
CHUNK = 2_000_000
"""Grid values worked on at a time."""


class CountDesign(NamedTuple):
    """What a stream of counts is judged against; arrays over series.

    ``sign``: 1 where a rise is worse, -1 where a fall is, 0 where both are. ``margin_up``, ``margin_down``:
    margins on the working scale (log rate ratio, or with ``absolute`` difference of ratios), both above 0.
    """

    sign: Array
    margin_up: Array
    margin_down: Array
    absolute: bool


class CountState(NamedTuple):
    """All that a stream of counts remembers; arrays over series first, sums only.

    ``likelihood`` ``(S, G + 2)`` on the grid and at the two margins; ``burden`` ``(S, G)``, the sum A that
    goes with a margin of differences; ``events`` ``(S, 2)`` canary and baseline; ``sums`` ``(S, 3)``
    stratified events of either arm and their weight; ``scrapes`` columns seen; ``stretch`` ``(S, 5)``, the
    same sums and their variances over the open stretch; ``scale`` ``(S, 3)``, the largest difference of a
    stretch so far; ``wealth`` ``(S, 3, 2, L)``, logarithms, for the nulls 0, margin up and margin down, bets
    on a rise and on a fall, and every stake; ``moments`` ``(S, 8)``, sums over stretches from which the
    dispersion follows; ``missing`` and ``raised`` as in :class:`~tidegate_analysis.kernels.counts.CountData`.

    With ``absolute`` all but the last two have twice the rows: below the events what is not an event. Which
    of the two is rare, and so tells more, is not known before; their e-values are averaged.
    """

    likelihood: Array
    burden: Array
    events: Array
    sums: Array
    scrapes: int
    stretch: Array
    scale: Array
    wealth: Array
    moments: Array
    missing: NDArray[np.int64]
    raised: NDArray[np.int64]


class LogE(NamedTuple):
    """Logarithms of e-values, ``(S,)`` each.

    Against: no change either way (``differs``); the canary at most as high (``above``), at least as high
    (``below``); higher by the margin at most (``beyond_up``) or at least (``short_up``); lower by the margin
    at most (``beyond_down``) or at least (``short_down``).
    """

    differs: Array
    above: Array
    below: Array
    beyond_up: Array
    beyond_down: Array
    short_up: Array
    short_down: Array


class CountEvidence(NamedTuple):
    """What a stream of counts says now, arrays ``(S,)``.

    ``log_e_fail`` against "not worse", ``log_e_beyond`` against "worse by the margin at most", ``log_e_pass``
    against "worse by the margin at least". Effect and its confidence sequence as in
    :class:`~tidegate_analysis.kernels.counts.CountComparison`; the sequence covers at all looks together.
    """

    log_e_fail: Array
    log_e_beyond: Array
    log_e_pass: Array
    effect: Array
    low: Array
    high: Array
    n_effective: Array
    dispersion: Array


def count_design(margin: ArrayLike, *, sign: ArrayLike = 1, absolute: bool = False, n_series: int) -> CountDesign:
    """Return the design of a stream.

    Parameters
    ----------
    margin, sign, absolute:
        As for :func:`~tidegate_analysis.kernels.counts.fixed_horizon_counts`; scalars or ``(S,)``.
    n_series:
        Number of series.

    Raises
    ------
    ValueError
        When a margin is not above 0.
    """
    way = np.sign(counts.per_series("sign", sign, n_series))
    extent = counts.per_series("margin", margin, n_series)
    if not (np.isfinite(extent) & (extent > 0)).all():
        raise ValueError("margin: must be finite and above 0")
    up, down = counts.working_margins(extent, way, absolute=absolute)
    return CountDesign(way, up, down, absolute)


def _doubled(design: CountDesign) -> CountDesign:
    """The design of the rows of a state: with ``absolute`` those of the events, then those of the rest."""
    if not design.absolute:
        return design
    return CountDesign(
        np.concatenate([design.sign, -design.sign]),
        np.concatenate([design.margin_up, design.margin_down]),
        np.concatenate([design.margin_down, design.margin_up]),
        design.absolute,
    )


def start(design: CountDesign) -> CountState:
    """Return the state before the first scrape."""
    size = len(design.sign)
    none = np.zeros(size, dtype=np.int64)
    size *= 2 if design.absolute else 1
    return CountState(
        np.zeros((size, len(GRID) + 2)),
        np.zeros((size, len(GRID) if design.absolute else 0)),
        np.zeros((size, 2)),
        np.zeros((size, 3)),
        0,
        np.zeros((size, 5)),
        np.zeros((size, 3)),
        np.zeros((size, 3, 2, len(STAKES))),
        np.zeros((size, 8)),
        none,
        none,
    )


def update(
    design: CountDesign,
    state: CountState,
    baseline_events: ArrayLike,
    canary_events: ArrayLike,
    baseline_exposure: ArrayLike | None = None,
    canary_exposure: ArrayLike | None = None,
) -> CountState:
    """Return the state after more scrapes, ``(S, n)`` each; the split into calls does not change it by a bit.

    Raises
    ------
    ValueError
        As :func:`~tidegate_analysis.kernels.counts.check_counts`; also when the exposure is missing and the
        margin is a difference of ratios.
    """
    if design.absolute and baseline_exposure is None:
        raise ValueError("baseline_exposure: is missing; a difference of event ratios needs the totals of both arms")
    given = counts.check_counts(
        baseline_events, canary_events, baseline_exposure, canary_exposure, bounded=design.absolute
    )
    if given.canary.shape[0] != len(design.sign):
        raise ValueError(f"baseline_events: has {given.canary.shape[0]} series, the stream has {len(design.sign)}")
    columns = given.canary.shape[1]
    if columns == 0:
        return state
    data = _with_rest(given) if design.absolute else given
    design = _doubled(design)
    u, v, w = counts.weights(data)
    likelihood, burden = _likelihood(design, state, data, v, w)
    stretch, scale, wealth, moments = _stretches(design, state, data, u, v, w)
    return CountState(
        likelihood,
        burden,
        _run(state.events, np.stack([data.canary, data.baseline], axis=1)),
        _run(state.sums, np.stack([u * data.canary, v * data.baseline, w], axis=1)),
        state.scrapes + columns,
        stretch,
        scale,
        wealth,
        moments,
        state.missing + given.missing,
        state.raised + given.raised,
    )


def _with_rest(data: CountData) -> CountData:
    """Put what is not an event below the events, as further rows."""
    rest = counts.rest_of(data, True)

    def both(one: Array, two: Array) -> Array:
        return np.concatenate([one, two])

    return CountData(
        both(data.baseline, rest.baseline),
        both(data.canary, rest.canary),
        both(data.baseline_exposure, rest.baseline_exposure),
        both(data.canary_exposure, rest.canary_exposure),
        data.missing,
        data.raised,
    )


def _run(total: Array, more: Array) -> Array:
    """Add columns (last axis of ``more``) one by one, so that the grouping of calls cannot move a bit."""
    return np.asarray(np.cumsum(np.concatenate([total[..., None], more], axis=-1), axis=-1)[..., -1])


def _likelihood(design: CountDesign, state: CountState, data: CountData, rho: Array, w: Array) -> tuple[Array, Array]:
    size, columns = data.canary.shape
    likelihood, burden = np.empty_like(state.likelihood), np.empty_like(state.burden)
    per = max(1, CHUNK // (columns * state.likelihood.shape[1]))
    for first in range(0, size, per):
        rows = slice(first, first + per)
        edge = np.stack([design.margin_up[rows], -design.margin_down[rows]], axis=1)
        if design.absolute:
            edge = np.zeros_like(edge)  # the margins live in the burden
        delta = np.concatenate([np.broadcast_to(GRID, (len(edge), len(GRID))), edge], axis=1)[:, None, :]
        c, share = data.canary[rows, :, None], rho[rows, :, None]
        n = c + data.baseline[rows, :, None]
        rise = np.expm1(delta)
        more = c * delta - n * np.log1p(share * rise)
        likelihood[rows] = _run(state.likelihood[rows], np.moveaxis(more, 1, 2))
        if design.absolute:
            part = rise[..., : len(GRID)]
            load = w[rows, :, None] * part / (1.0 + share * part)
            burden[rows] = _run(state.burden[rows], np.moveaxis(load, 1, 2))
    return likelihood, burden


def _stretches(
    design: CountDesign, state: CountState, data: CountData, u: Array, v: Array, w: Array
) -> tuple[Array, Array, Array, Array]:
    """Close the stretches that are full and bet on their differences."""
    size, columns = data.canary.shape
    offset = state.scrapes % counts.BLOCK
    full = (offset + columns) // counts.BLOCK
    padded = (full + 1) * counts.BLOCK
    laid = np.zeros((size, 5, padded))
    inside = slice(offset, offset + columns)
    rise, fall = u * data.canary, v * data.baseline
    for k, term in enumerate((rise, fall, w, u * rise, v * fall)):
        laid[:, k, inside] = term
    laid = laid.reshape(size, 5, full + 1, counts.BLOCK)
    sums = np.zeros((size, 5, full + 1))
    sums[:, :, 0] = state.stretch
    for k in range(counts.BLOCK):  # one by one: the same order however the scrapes came in
        sums = sums + laid[..., k]
    moments = state.moments.copy()
    if full == 0:
        return sums[:, :, 0], state.scale, state.wealth, moments
    r, f, weight = sums[:, 0, :full], sums[:, 1, :full], sums[:, 2, :full]
    squares = (
        r * r,
        r * f,
        f * f,
        sums[:, 3, :full],
        sums[:, 4, :full],
        r,
        f,
        ((r + f) > 0).astype(np.float64),
    )
    for k, term in enumerate(squares):
        moments[:, k] = _run(state.moments[:, k], term)
    if design.absolute:
        up, down = design.margin_up[:, None] * weight, -design.margin_down[:, None] * weight
        gaps = np.stack([r - f, r - f - up, r - f - down], axis=1)
    else:
        up, down = np.exp(design.margin_up)[:, None], np.exp(-design.margin_down)[:, None]
        gaps = np.stack([r - f, r - up * f, r - down * f], axis=1)
    reach = np.maximum.accumulate(np.concatenate([state.scale[..., None], np.abs(gaps)], axis=-1), axis=-1)[..., 1:]
    bet = np.divide(gaps, reach, out=np.zeros_like(gaps), where=reach > 0)
    signed = np.stack([bet, -bet], axis=2)
    wealth = _run(state.wealth, np.log1p(STAKES[:, None] * signed[:, :, :, None, :]))
    return sums[:, :, full], reach[..., -1], wealth, moments


def _mix(values: Array, log_weight: Array) -> Array:
    """Log of the weighted sum of exponentials over the last axis; -inf weights leave points out."""
    terms = values + log_weight
    top = terms.max(axis=-1)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(safe + np.log(np.exp(terms - safe[..., None]).sum(axis=-1)))


def _grid_log_e(design: CountDesign, state: CountState, phi: Array) -> LogE:
    """Mixed e-values when events come in clumps of mean size phi."""
    size = len(GRID)
    level = state.likelihood[:, :size] / phi[:, None]
    left, right = slice(0, _CENTRE), slice(_CENTRE, size)
    above, below = _mix(level[:, right], LOG_WEIGHT[right]), _mix(level[:, left], LOG_WEIGHT[left])
    differs = np.logaddexp(above, below) - np.log(2.0)
    if design.absolute:
        burden = state.burden / phi[:, None]
        at_up = level - design.margin_up[:, None] * burden
        at_down = level + design.margin_down[:, None] * burden
        return LogE(
            differs,
            above,
            below,
            _mix(at_up[:, right], LOG_WEIGHT[right]),
            _mix(at_down[:, left], LOG_WEIGHT[left]),
            _mix(at_up[:, left], LOG_WEIGHT[left]),
            _mix(at_down[:, right], LOG_WEIGHT[right]),
        )

    def against(edge: Array, at: Array, *, higher: bool) -> Array:
        points = GRID[None, :] > edge[:, None] if higher else GRID[None, :] < edge[:, None]
        chosen = np.where(points, LOG_WEIGHT, -np.inf)
        none = ~points.any(axis=1)
        norm = np.log(np.where(points, np.exp(LOG_WEIGHT), 0.0).sum(axis=1) + none)
        return np.where(none, 0.0, _mix(level, chosen) - norm - at)

    up, down = design.margin_up, -design.margin_down
    at_up, at_down = state.likelihood[:, size] / phi, state.likelihood[:, size + 1] / phi
    return LogE(
        differs,
        above,
        below,
        against(up, at_up, higher=True),
        against(down, at_down, higher=False),
        against(up, at_up, higher=False),
        against(down, at_down, higher=True),
    )


def _stretch_log_e(state: CountState) -> LogE:
    """e-values of the bets on whole stretches."""
    mean = np.asarray(special.logsumexp(state.wealth, axis=-1) - np.log(len(STAKES)))
    zero, up, down = mean[:, 0], mean[:, 1], mean[:, 2]
    differs = np.logaddexp(zero[:, 0], zero[:, 1]) - np.log(2.0)
    return LogE(differs, zero[:, 0], zero[:, 1], up[:, 0], down[:, 1], up[:, 1], down[:, 0])


def log_e_values(design: CountDesign, state: CountState, *, dispersion: ArrayLike | None = None) -> LogE:
    """Return all e-values of a stream.

    Parameters
    ----------
    dispersion:
        Dispersion in the history, ``(S,)``, NaN = none; fixed before the stream began.
    """
    size = len(design.sign)
    past = np.full(size, np.nan) if dispersion is None else counts.per_series("dispersion", dispersion, size)
    if not design.absolute:
        return _row_log_e(design, state, past)
    e = _row_log_e(_doubled(design), state, np.concatenate([past, past]))
    one, two = LogE(*(x[:size] for x in e)), LogE(*(x[size:] for x in e))

    def mean(first: Array, second: Array) -> Array:
        return np.asarray(np.logaddexp(first, second) - np.log(2.0))

    # More of the rest is less of the events.
    return LogE(
        mean(one.differs, two.differs),
        mean(one.above, two.below),
        mean(one.below, two.above),
        mean(one.beyond_up, two.beyond_down),
        mean(one.beyond_down, two.beyond_up),
        mean(one.short_up, two.short_down),
        mean(one.short_down, two.short_up),
    )


def _row_log_e(design: CountDesign, state: CountState, past: Array) -> LogE:
    learnt = np.isfinite(past)
    exact = _grid_log_e(design, state, np.where(learnt, np.maximum(past, 1.0), 1.0))
    if learnt.all():
        return exact
    clumped = _grid_log_e(design, state, _worst(state))
    whole = _stretch_log_e(state)
    return LogE(
        *(np.where(learnt, a, np.minimum(a, np.maximum(b, c))) for a, b, c in zip(exact, clumped, whole, strict=True))
    )


def _worst(state: CountState) -> Array:
    stretches = max(state.scrapes / counts.BLOCK, 1.0)
    return np.asarray(counts.CLUMP + counts.RELATIVE_NOISE * state.events.sum(axis=1) / (2.0 * stretches))


def evidence(
    design: CountDesign, state: CountState, *, alpha: ArrayLike = 0.02, dispersion: ArrayLike | None = None
) -> CountEvidence:
    """Return the e-values of the two questions, the effect and its confidence sequence.

    Parameters
    ----------
    alpha:
        Error rate of the confidence sequence, a scalar or ``(S,)``.
    dispersion:
        Dispersion in the history, ``(S,)``, NaN = none.
    """
    size = len(design.sign)
    level = counts.per_series("alpha", alpha, size)
    past = np.full(size, np.nan) if dispersion is None else counts.per_series("dispersion", dispersion, size)
    e = log_e_values(design, state, dispersion=dispersion)
    way = design.sign

    def pick(up: Array, down: Array, either: Array) -> Array:
        return np.where(way > 0, up, np.where(way < 0, down, either))

    known = np.concatenate([past, past]) if design.absolute else past
    phi = np.where(
        np.isfinite(known),
        np.maximum(known, 1.0),
        np.minimum(counts.fitted_dispersion(tuple(state.moments.T)), _worst(state)),
    )
    rise, fall, weight = state.sums[:size].T
    seen = weight > 0
    if design.absolute:
        effect = (rise - fall) / np.where(seen, weight, 1.0)
        # Half the error rate for each of the two sides; what both leave is kept.
        ends = _difference_sequence(state, phi, np.concatenate([level, level]) / 2.0)
        low = np.maximum(ends[0][:size], -ends[1][size:])
        high = np.minimum(ends[1][:size], -ends[0][size:])
        common = state.events[:size].sum(axis=1) > state.events[size:].sum(axis=1)
        rare = np.arange(size) + np.where(common, size, 0)
        phi, number = phi[rare], state.events.sum(axis=1)[rare]
    else:
        bare = (rise == 0) | (fall == 0)
        change = np.log(rise + 0.25 * bare) - np.log(fall + 0.25 * bare)
        low, high = _ratio_sequence(state, phi, level)
        number = state.events.sum(axis=1)
        with np.errstate(over="ignore"):
            effect, low, high = np.expm1(change), np.expm1(low), np.expm1(high)
    unknown = np.where(seen, 0.0, np.nan)
    return CountEvidence(
        pick(e.above, e.below, e.differs),
        pick(e.beyond_up, e.beyond_down, np.logaddexp(e.beyond_up, e.beyond_down) - np.log(2.0)),
        pick(e.short_up, e.short_down, np.minimum(e.short_up, e.short_down)),
        effect + unknown,
        low + unknown,
        high + unknown,
        np.where(seen, number / phi, 0.0),
        phi + unknown,
    )


def _difference_sequence(state: CountState, phi: Array, alpha: Array) -> tuple[Array, Array]:
    """Differences that no single bet of the mixture rejects at alpha / 2: closed forms in l and A."""
    need = phi[:, None] * (np.log(2.0 / alpha)[:, None] - LOG_WEIGHT) - state.likelihood[:, : len(GRID)]
    bound = np.divide(-need, state.burden, out=np.full_like(need, np.nan), where=state.burden != 0)
    low = np.fmax(np.nan_to_num(bound[:, _CENTRE:], nan=-1.0).max(axis=1), -1.0)
    high = np.fmin(np.nan_to_num(bound[:, :_CENTRE], nan=1.0).min(axis=1), 1.0)
    return np.minimum(low, 1.0), np.maximum(high, -1.0)


def _ratio_sequence(state: CountState, phi: Array, alpha: Array) -> tuple[Array, Array]:
    """Log rate ratios that the mixture does not reject at alpha, read off the grid by parabolas."""
    x = np.concatenate([GRID[:_CENTRE], [0.0], GRID[_CENTRE:]])
    size = len(phi)
    level = np.insert(state.likelihood[:, : len(GRID)], _CENTRE, 0.0, axis=1) / phi[:, None]
    mixed = _mix(np.delete(level, _CENTRE, axis=1), LOG_WEIGHT - np.log(2.0))
    bar = mixed + np.log(alpha)
    inside = level > bar[:, None]
    any_inside = inside.any(axis=1)
    peak = level.argmax(axis=1)
    first = np.where(any_inside, inside.argmax(axis=1), peak)
    last = np.where(any_inside, len(x) - 1 - inside[:, ::-1].argmax(axis=1), peak)
    rows = np.arange(size)

    def crossing(at: NDArray[np.int64], side: float) -> Array:
        mid = np.clip(at, 1, len(x) - 2)
        x0, x1, x2 = x[mid - 1], x[mid], x[mid + 1]
        y0, y1, y2 = level[rows, mid - 1], level[rows, mid], level[rows, mid + 1]
        s0, s1 = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
        curve = np.minimum((s1 - s0) / (x2 - x0), -1e-12)  # the likelihood is concave
        slope = s0 + curve * (x1 - x0)
        root = np.sqrt(np.maximum(slope * slope - 4.0 * curve * (y1 - bar), 0.0))
        return np.asarray(x1 + (slope + side * root) / (-2.0 * curve))

    low = np.where(inside[:, 0], -np.inf, crossing(first, -1.0))
    high = np.where(inside[:, -1], np.inf, crossing(last, 1.0))
    return low, high
