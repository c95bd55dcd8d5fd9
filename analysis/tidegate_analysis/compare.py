"""Canary against baseline over the same scrapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate_analysis import contrast as contrasts
from tidegate_analysis import tail as tails
from tidegate_analysis.assemble import Described, Pieces, assemble, described, too_many
from tidegate_analysis.decide import Policy, policy_of
from tidegate_analysis.defaults import resolve_all
from tidegate_analysis.kernels import dependence
from tidegate_analysis.kernels.shared import as_number
from tidegate_analysis.prepare import HUGE, TINY, as_points, check_exposure, level, notes_for, rows_of, to_scale
from tidegate_analysis.quality import stale
from tidegate_analysis.rates import told_rows
from tidegate_analysis.result import Result, concatenate
from tidegate_analysis.spec import MetricSpec, specs_for

Floats = NDArray[np.float64]


def check_history(history: ArrayLike | None, n_series: int, points: int) -> Floats:
    """Return past windows, cut to the length of the arms: (series, windows, 2, points); none for ``None``.

    Raises
    ------
    ValueError
        When the shape does not fit, or the windows are shorter than the arms.
    """
    if history is None:
        return np.zeros((n_series, 0, 2, points))
    past = as_points("history", history, (4,))
    if past.shape[0] != n_series or past.shape[2] != 2:
        raise ValueError(f"history: must have the shape ({n_series}, windows, 2, points), not {past.shape}")
    if past.shape[1] and past.shape[3] < points:
        raise ValueError(
            f"history: windows of {past.shape[3]} points for arms of {points}; "
            "they must be at least as long, at the same step"
        )
    return past[..., :points]


def compare(
    baseline: ArrayLike,
    canary: ArrayLike,
    *,
    spec: MetricSpec | Sequence[MetricSpec],
    history: ArrayLike | None = None,
    baseline_exposure: ArrayLike | None = None,
    canary_exposure: ArrayLike | None = None,
    history_exposure: ArrayLike | None = None,
    step_seconds: float | None = None,
    borrow: bool = True,
) -> Result:
    """Judge a canary against the baseline beside it.

    Parameters
    ----------
    baseline, canary:
        Shape (series, points), column by column of the same scrape, NaN = missing; or (series, instances,
        points), then the spread between the baseline's instances is the yardstick.
    spec:
        One spec for all series, or one per series.
    history:
        Shape (series, windows, 2, points): past pairs of windows in which nothing was wrong, baseline first.
    baseline_exposure, canary_exposure:
        Totals that the values are events of, in the shape of the arms; needed for kind ``"ratio"``.
    history_exposure:
        Totals of the windows, in the shape of ``history``; without them a window's scrapes count alike.
    step_seconds:
        Time between scrapes; without it no time to an answer is told.
    borrow:
        With instances: moderate the spread of each series by those of the other series of the call on the same scale,
        on the linear one in units of their margins.

    Returns
    -------
    Result
        Per series, before any correction for looking at many; see :func:`tidegate_analysis.judge`.

    Raises
    ------
    ValueError
        When shapes do not fit; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> import tidegate_analysis as ta
    >>> rng = np.random.default_rng(1)
    >>> baseline = rng.lognormal(4.0, 0.05, (2, 60))
    >>> canary = rng.lognormal(4.0, 0.05, (2, 60)) * [[1.0], [1.2]]
    >>> specs = [ta.MetricSpec("search_p95", unit="ms"), ta.MetricSpec("cart_p95", unit="ms")]
    >>> result = ta.compare(baseline, canary, spec=specs, step_seconds=15.0)
    >>> [ta.Verdict(v).name for v in result.verdict]
    ['PASS', 'FAIL']
    >>> print(result.explain(1))
    cart_p95 is 19 % above the baseline (+17 % to +21 %), since point 1.
    """
    x = as_points("baseline", baseline, (2, 3))
    y = as_points("canary", canary, (2, 3))
    if x.ndim != y.ndim or x.shape[0] != y.shape[0] or x.shape[-1] != y.shape[-1]:
        raise ValueError(f"canary: shape {y.shape} does not fit the baseline's {x.shape}; series and points must agree")
    S, points = x.shape[0], x.shape[-1]
    specs = specs_for(spec, S)
    past = check_history(history, S, points)
    ex = check_exposure("baseline_exposure", baseline_exposure, x)
    ey = check_exposure("canary_exposure", canary_exposure, y)
    past_exposure = None
    if history_exposure is not None:
        if history is None or np.asarray(history_exposure).shape != np.asarray(history).shape:
            raise ValueError(f"history_exposure: shape {np.asarray(history_exposure).shape} is not that of history")
        past_exposure = check_history(history_exposure, S, points)
    step = check_step(step_seconds)
    exposed = told_rows(ex, S) & told_rows(ey, S)
    resolved, derived, margin = resolve_all(specs, rows_of(x), rows_of(y), exposed)
    kinds = np.array([s.kind for s in resolved]) if S else np.zeros(0, dtype="<U1")
    if (kinds == "histogram").any():
        raise ValueError("spec: histograms are compared with compare_histograms, from their bin counts")
    counted = np.isin(kinds, ("ratio", "count"))
    if not counted.any():
        return _continuous(x, y, past, resolved, derived, margin, step, borrow)
    from tidegate_analysis.counted import compare_counts

    parts, rows = [], []
    for index, counts in ((np.flatnonzero(~counted), False), (np.flatnonzero(counted), True)):
        if not len(index):
            continue
        chosen = index.tolist()
        chosen_specs = tuple(resolved[i] for i in chosen)
        chosen_derived = tuple(derived[i] for i in chosen)
        if counts:
            parts.append(
                compare_counts(
                    x[index],
                    y[index],
                    past[index],
                    None if past_exposure is None else past_exposure[index],
                    chosen_specs,
                    chosen_derived,
                    margin[index],
                    step,
                    None if ex is None else ex[index],
                    None if ey is None else ey[index],
                )
            )
        else:
            parts.append(
                _continuous(x[index], y[index], past[index], chosen_specs, chosen_derived, margin[index], step, borrow)
            )
        rows.append(index)
    return concatenate(parts, rows)


def check_step(step_seconds: float | None) -> float:
    """Return the step, NaN for none.

    Raises
    ------
    ValueError
        When it is not a positive number.
    """
    if step_seconds is None:
        return float("nan")
    step = as_number(step_seconds)
    if not (np.isfinite(step) and step > 0):
        raise ValueError(f"step_seconds: must be a positive number of seconds, not {step_seconds!r}")
    return step


def _continuous(
    x: Floats,
    y: Floats,
    past: Floats,
    specs: tuple[MetricSpec, ...],
    derived: tuple[tuple[str, ...], ...],
    margin: Floats,
    step: float,
    borrow: bool,
) -> Result:
    counters = np.array([s.kind == "counter" for s in specs], dtype=bool)
    if counters.any():
        from tidegate_analysis.kernels.counters import increases

        x, y, past = x.copy(), y.copy(), past.copy()
        for arm in (x, y, past):
            arm[counters] = increases(arm[counters])
    return assemble(_pieces(x, y, past, specs, derived, policy_of(specs, margin), step, borrow))


def describe(
    x: Floats,
    y: Floats,
    specs: tuple[MetricSpec, ...],
    derived: tuple[tuple[str, ...], ...],
    policy: Policy,
    step: float,
    usual: Floats,
    *,
    tail: bool,
) -> Described:
    """Levels, presence, quality and tail of two arms, (series, points), without a past, and what of it forbids a PASS:
    what a stream adds to its own answer. Nothing is resolved again and no onset is sought.

    ``usual`` is the arms' distance before any change, (series,), on the scale of the change; ``tail`` says whether the
    worst points are asked.
    """
    past = np.zeros((len(x), 0, 2, max(x.shape[1], 1)))
    arms = (as_points("baseline", x), as_points("canary", y))
    pieces = replace(_pieces(*arms, past, specs, derived, policy, step, True, usual), locate=False)
    return described(pieces if tail else replace(pieces, tail=tails.not_asked(len(x)), tail_down=None))


def _pieces(
    x: Floats,
    y: Floats,
    past: Floats,
    specs: tuple[MetricSpec, ...],
    derived: tuple[tuple[str, ...], ...],
    policy: Policy,
    step: float,
    borrow: bool,
    usual: Floats | None = None,
) -> Pieces:
    ready = _ready(x, y, past, policy)
    gx, gy, past_t = ready.x, ready.y, ready.past_change
    left = np.zeros(len(specs), dtype=np.int64)
    if gx.ndim == 3:
        gx, left_x = drop_leavers(gx)
        gy, left_y = drop_leavers(gy)
        left = left_x + left_y
    alone = gx.ndim == 2
    # Spreads of ratios have no unit; of values, the margin is theirs.
    unit = np.where(policy.log, np.nan, np.clip(policy.worse, TINY, HUGE)) if borrow else None
    lost = np.zeros(len(specs), dtype=bool)
    if gx.ndim == 3:
        contrast, d = contrasts.instances(gx, gy, past_t, unit)
        mx, my = contrasts.mean_over(gx, axis=1), contrasts.mean_over(gy, axis=1)
        lost = (tails.instances_lost(gy) > tails.SILENT_SHARE) & (tails.instances_lost(gx) <= tails.SILENT_SHARE)
    else:
        d = gy - gx
        mx, my = gx, gy
        contrast = contrasts.paired(d, past_t)
    # Past windows re-centre the question; the canary's usual distance is then the level before the change.
    centre = np.zeros(len(specs)) if usual is None else usual
    recentred = contrast.windows >= contrasts.ENOUGH_WINDOWS
    level_before = np.where(recentred, dependence.trimmed_mean(d) - contrast.estimate, centre)
    heard = tails.presence(mx, my)
    # Nothing but zeros where there are zeros is rest, and no answer that hangs.
    resting = ~policy.log & (np.nan_to_num(my) == 0.0).all(axis=1)
    frozen = np.where(resting, 0, stale(my, mx))
    tail, tail_down = _tails(mx, my, policy.sign, ready, level_before, by_scrape=alone)
    odd = (None, None) if alone else contrasts.worst_instance(gx, gy, policy.sign, level_before, unit)
    pairs = (~np.isnan(d)).sum(axis=1)
    bad_x, bad_y = ready.bad
    notes = notes_for(
        [
            ("bad_values", bad_x + bad_y, "{n} points were infinite, absurd or negative on a log scale"),
            (
                "zeros",
                ready.zeros,
                "{n} zeros counted as half the smallest positive value",
            ),
            (
                "instance_left",
                left,
                "{n} instances left during the comparison; their last points were dropped",
            ),
            (
                "canary_silent",
                heard.only_baseline * heard.silent,
                "the canary was silent at {n} scrapes the baseline answered",
            ),
            ("stale", frozen, "the canary repeated one value for its last {n} scrapes"),
            ("gaps", (~np.isnan(mx) & ~np.isnan(my)).shape[1] - pairs, "{n} scrapes without a pair"),
        ],
        len(specs),
    )
    return Pieces(
        specs=specs,
        derived=derived,
        policy=policy,
        contrast=contrast if usual is None else contrast._replace(estimate=contrast.estimate - usual),
        tail=tail,
        tail_down=tail_down,
        d=d,
        d_level=level_before,
        level_now=level_before,
        pairs=pairs,
        n_baseline=(~np.isnan(mx)).sum(axis=1),
        n_canary=(~np.isnan(my)).sum(axis=1),
        baseline_level=level(x),
        canary_level=level(y),
        silent=heard.silent | lost,
        instance_change=odd[0],
        instance_p=odd[1],
        bad_canary=bad_y,
        spoilt=too_many(bad_x, (~np.isnan(mx)).sum(axis=1)),
        baseline_silent=heard.baseline_silent,
        stale=frozen > 0,
        notes=notes,
        step=step,
    )


def _tails(
    x: Floats, y: Floats, sign: Floats, ready: Ready, usual: Floats, *, by_scrape: bool
) -> tuple[tails.Tail, NDArray[np.bool_]]:
    """Ask for the tail that is worse, or for both; and say of which series the lower one answers although both are."""
    up = tails.tail_contrast(x, y, sign, ready.past_x, ready.past_y, usual=usual, by_scrape=by_scrape)
    rows = np.flatnonzero(sign == 0)
    if not len(rows):
        return up, np.zeros(len(sign), dtype=bool)
    way = np.full(len(rows), -1.0)
    down = tails.tail_contrast(
        x[rows], y[rows], way, ready.down_x, ready.down_y, usual=usual[rows], by_scrape=by_scrape
    )
    return tails.of_both(up, down, rows)


class Ready(NamedTuple):
    """Arms on the scale of the change, and what the past windows come down to; arrays over series."""

    x: Floats
    y: Floats
    past_change: Floats
    past_x: tails.Shape
    past_y: tails.Shape
    # The same of the lower side, of the series for which both sides are worse.
    down_x: tails.Shape
    down_y: tails.Shape
    bad: tuple[NDArray[np.int64], NDArray[np.int64]]
    zeros: NDArray[np.int64]


# Points worked on at a time: their arrays stay in the cache, which a history of 28 windows would not.
PORTION = 1 << 17


def _ready(x: Floats, y: Floats, past: Floats, policy: Policy) -> Ready:
    """Bring arms to their scale, and summarise the past windows portion by portion."""
    S, K = past.shape[:2]
    flip = np.where(policy.sign < 0, -1.0, 1.0)[:, None, None]
    size = max(1, PORTION // max(past[0].size if S else 1, 1))
    parts = []
    for low in range(0, max(S, 1), size):
        rows = slice(low, low + size)
        prepared = to_scale((x[rows], y[rows], past[rows]), policy.log[rows])
        gx, gy, gp = prepared.parts
        change = dependence.trimmed_mean(gp[:, :, 1] - gp[:, :, 0])
        # Mostly up is worse, and a copy of a history that is turned by nothing costs a tenth of a judgement.
        turned = gp if (flip[rows] == 1.0).all() else gp * flip[rows][..., None]
        a, b = turned[:, :, 0], turned[:, :, 1]
        both = np.flatnonzero(policy.sign[rows] == 0)
        if K >= tails.MIN_WINDOWS:
            shapes = [tails.shape_of(arm) for arm in (a, b, -a[both], -b[both])]
        else:
            shapes = [_no_shape(one) for one in (change, change, change[both], change[both])]
        zeros = prepared.zeros[0] + prepared.zeros[1]
        sides = [column for shape in shapes for column in shape]
        parts.append((gx, gy, change, *sides, prepared.bad[0], prepared.bad[1], zeros))
    joined = [column[0] if len(column) == 1 else np.concatenate(column) for column in zip(*parts, strict=True)]
    gx, gy, change, *columns, bad_x, bad_y, zeros = joined
    past_x, past_y, down_x, down_y = (tails.Shape(*columns[k : k + 3]) for k in range(0, 12, 3))
    return Ready(gx, gy, change, past_x, past_y, down_x, down_y, (bad_x, bad_y), zeros)


def _no_shape(change: Floats) -> tails.Shape:
    none = np.full((len(change), 0), np.nan)
    return tails.Shape(none, none, none[:, :, None])


def drop_leavers(arm: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Drop the last points of instances that left, and count them.

    An instance that is being removed answers with zeros or not at all: from where the last of at least 3 such
    points begin, while another instance of the arm still speaks, its points are missing. On the scale of the
    change such zeros are the instance's own smallest value, repeated.

    ``arm`` has the shape (series, instances, points).
    """
    width = arm.shape[2]
    if width < 4 or arm.shape[1] < 2:
        return arm, np.zeros(len(arm), dtype=np.int64)
    last = arm[:, :, -1:]
    lowest = np.fmin.reduce(arm, axis=2, keepdims=True)
    stuck = np.isnan(last) | ((last == lowest) & (last < dependence.trimmed_mean(arm)[:, :, None]))
    same = np.where(np.isnan(last), np.isnan(arm), arm == last)
    run = same[:, :, ::-1].cumprod(axis=2).sum(axis=2)
    others_speak = (~np.isnan(last[:, :, 0])).sum(axis=1, keepdims=True) >= 1
    gone = stuck[:, :, 0] & (run >= 3) & (run < width) & others_speak
    # Never drop every instance: an arm that stops as a whole is a finding, not a leaver.
    gone &= ~gone.all(axis=1, keepdims=True)
    column = np.arange(width)
    out = np.where(gone[:, :, None] & (column >= (width - run)[:, :, None]), np.nan, arm)
    return out, gone.sum(axis=1).astype(np.int64)
