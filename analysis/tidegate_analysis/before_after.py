"""After the deployment against before it, with the past as the judge of what is unusual."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate_analysis import contrast as contrasts
from tidegate_analysis import tail as tails
from tidegate_analysis.assemble import Described, Pieces, assemble, described, too_many
from tidegate_analysis.compare import check_step
from tidegate_analysis.decide import ROUNDING, Policy, policy_of, tail_p
from tidegate_analysis.defaults import resolve_all
from tidegate_analysis.kernels import dependence, placebo, scan
from tidegate_analysis.prepare import HUGE, Prepared, as_points, check_exposure, level, notes_for, to_scale
from tidegate_analysis.quality import STALE_RUN, stale
from tidegate_analysis.rates import as_levels, increments, ratios, told_rows
from tidegate_analysis.result import Result
from tidegate_analysis.spec import MetricSpec, specs_for

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
HORIZON_MINUTES = (5.0, 10.0, 20.0, 30.0, 60.0)
LEVEL_MINUTES = 60.0
DAY = 86400.0
# Past moments that do not overlap: from here on their spread stands alone, and from there on their ranks do.
ENOUGH_MOMENTS = 7
RANK_MOMENTS = 40
# Series are scanned in portions whose contrasts fit into a cache-friendly piece of memory.
CHUNK = 2_000_000


def before_after(
    before: ArrayLike,
    after: ArrayLike,
    *,
    spec: MetricSpec | Sequence[MetricSpec],
    step_seconds: float = 60.0,
    control_before: ArrayLike | None = None,
    control_after: ArrayLike | None = None,
    exclude: ArrayLike | None = None,
    before_exposure: ArrayLike | None = None,
    after_exposure: ArrayLike | None = None,
    control_before_exposure: ArrayLike | None = None,
    control_after_exposure: ArrayLike | None = None,
) -> Result:
    """Judge the points after a deployment against those before it.

    The change is measured at once over windows of 5, 10, 20, 30 and 60 minutes and over the whole stretch, each against
    the hour before the deployment; the most unusual one counts, by the rank of the same maximum at the moments of the
    past, centred on the time of day where the past has at least 4 days. With less past there is one window and fewer
    things to be sure of: see docs/methods/before-after.md.

    Parameters
    ----------
    before:
        Shape (series, past points), the last one right before the deployment, NaN = missing. Weeks if there are.
    after:
        Shape (series, points).
    spec:
        One spec for all series, or one per series.
    step_seconds:
        Time between points.
    control_before, control_after:
        The same for a group that was not deployed to; given, the change of the difference is judged (difference in
        differences).
    exclude:
        Shape (past points,): true where another deployment or a known incident touches the past.
    before_exposure, after_exposure:
        Totals that the values are events of, in the shapes of ``before`` and ``after``; the ratio is then judged.
    control_before_exposure, control_after_exposure:
        The same of the control group; needed where the deployed group's are given.

    Raises
    ------
    ValueError
        When shapes do not fit; the message names the argument.

    Examples
    --------
    >>> import numpy as np
    >>> import tidegate_analysis as ta
    >>> rng = np.random.default_rng(2)
    >>> minutes = np.arange(7 * 1440 + 30)
    >>> latency = 100 + 30 * np.sin(2 * np.pi * minutes / 1440) + rng.normal(0, 4, (1, len(minutes)))
    >>> latency[:, -30:] *= 1.2
    >>> spec = ta.MetricSpec("p95", unit="ms", margin=0.05)
    >>> result = ta.before_after(latency[:, :-30], latency[:, -30:], spec=spec)
    >>> ta.Verdict(result.verdict[0]).name, result.method[0], int(result.history_exceeding[0])
    ('FAIL', 'before-after-scan-daily.v1', 0)
    """
    x = as_points("before", before)
    y = as_points("after", after)
    if x.shape[0] != y.shape[0]:
        raise ValueError(f"after: {y.shape[0]} series beside {x.shape[0]} before")
    step = check_step(step_seconds)
    if np.isnan(step):
        raise ValueError("step_seconds: is needed to know how long a minute is")
    specs = specs_for(spec, x.shape[0])
    if (control_before is None) != (control_after is None):
        raise ValueError("control_after: give both control_before and control_after, or neither")
    cx = cy = None
    if control_before is not None and control_after is not None:
        cx, cy = as_points("control_before", control_before), as_points("control_after", control_after)
        for name, control, arm in (("control_before", cx, x), ("control_after", cy, y)):
            if control.shape != arm.shape:
                raise ValueError(f"{name}: shape {control.shape} does not fit the deployed group's {arm.shape}")
    touched = None
    if exclude is not None:
        touched = np.asarray(exclude, dtype=bool)
        if touched.shape != (x.shape[1],):
            raise ValueError(f"exclude: must have the shape ({x.shape[1]},), not {touched.shape}")
    tx = check_exposure("before_exposure", before_exposure, x)
    ty = check_exposure("after_exposure", after_exposure, y)
    if cx is not None and cy is not None:
        tcx = check_exposure("control_before_exposure", control_before_exposure, cx)
        tcy = check_exposure("control_after_exposure", control_after_exposure, cy)
        for name, own, other in (("control_before_exposure", tx, tcx), ("control_after_exposure", ty, tcy)):
            if (own is None) != (other is None):
                raise ValueError(f"{name}: give the totals of both groups, or of neither")
        cx, cy = ratios(cx, tcx), ratios(cy, tcy)
    x, y = ratios(x, tx), ratios(y, ty)
    exposed = told_rows(tx, len(specs))
    resolved, derived, margin = resolve_all(specs, x, y, exposed)
    if any(s.kind == "histogram" for s in resolved):
        raise ValueError("spec: histograms are compared with compare_histograms, from their bin counts")
    x, y = increments(resolved, (x, y))
    if cx is not None and cy is not None:
        cx, cy = increments(resolved, (cx, cy))
    resolved, derived, margin, rare = as_levels(resolved, derived, margin, x)
    policy = policy_of(resolved, margin)
    raw_x, raw_y = x, y
    arrays = (x, y) if cx is None or cy is None else (x, y, cx, cy)
    prepared = to_scale(arrays, policy.log)
    gx, gy = prepared.parts[0], prepared.parts[1]
    if len(prepared.parts) == 4:
        gx, gy = gx - prepared.parts[2], gy - prepared.parts[3]
    found = scanned(gx, gy, policy.sign, step, touched, rare)
    names = "difference-in-differences" if cx is not None else "before-after"
    method = np.char.replace(found.contrast.method, "before-after", names) if len(specs) else found.contrast.method
    group = None if cx is None or cy is None else (cx, cy)
    return assemble(_pieces((raw_x, raw_y, gx, gy), prepared, resolved, derived, policy, found, method, step, group))


def _pieces(
    sides: tuple[Floats, Floats, Floats, Floats],
    prepared: Prepared,
    specs: tuple[MetricSpec, ...],
    derived: tuple[tuple[str, ...], ...],
    policy: Policy,
    found: Found,
    method: NDArray[np.str_],
    step: float,
    control: tuple[Floats, Floats] | None = None,
) -> Pieces:
    """Collect the pieces; ``sides`` are before and after in the metrics' units, then on the scale of the change."""
    raw_x, raw_y, gx, gy = sides
    bad_x, bad_y = prepared.bad[0], prepared.bad[1]
    points = gy.shape[1]
    # Counts and ratios rest at 0; what else moved before and stands still is an answer that hangs.
    joined = np.concatenate([raw_x[:, -max(points, 2 * STALE_RUN) :], raw_y], axis=1)
    recent = max(2 * points, 60, round(3600.0 / step))
    arms = (raw_x[:, -recent:],) if control is None else (raw_x[:, -recent:], control[0][:, -recent:], control[1])
    spoilt = np.any([_spoilt(arm, policy.log) for arm in arms], axis=0)
    resting = np.array([s.kind in ("count", "ratio") for s in specs], dtype=bool)
    frozen = np.where(resting, 0, np.minimum(stale(joined), points))
    notes = notes_for(
        [
            ("bad_values", bad_x + bad_y, "{n} points were infinite, absurd or negative on a log scale"),
            (
                "zeros",
                prepared.zeros[0] + prepared.zeros[1],
                "{n} zeros counted as half the smallest positive value",
            ),
            (
                "no_history",
                np.where(found.contrast.windows == 0, gx.shape[1], 0),
                "the past of {n} points is too short to know what is usual",
            ),
            ("stale", frozen, "the canary repeated one value for its last {n} scrapes"),
            ("gaps", np.isnan(gy).sum(axis=1), "{n} points are missing after the deployment"),
        ],
        len(specs),
    )
    return Pieces(
        specs=specs,
        derived=derived,
        policy=policy,
        contrast=found.contrast._replace(method=method),
        tail=found.tail,
        tail_down=found.tail_down,
        d=gy,
        d_level=found.level,
        # A scan looked at every window already.
        level_now=np.where(np.isnan(found.p_value), found.level, np.nan),
        pairs=np.minimum((~np.isnan(gy)).sum(axis=1), (~np.isnan(gx)).sum(axis=1)),
        n_baseline=(~np.isnan(gx)).sum(axis=1),
        n_canary=(~np.isnan(gy)).sum(axis=1),
        baseline_level=level(raw_x[:, -max(2 * points, 60) :]),
        canary_level=level(raw_y),
        silent=tails.fell_silent(gx, gy),
        bad_canary=bad_y,
        spoilt=spoilt,
        stale=frozen > 0,
        notes=notes,
        step=step,
        unusual=found.p_value,
        unusual_change=found.change,
        unusual_scale=found.scale,
    )


def _spoilt(values: Floats, log: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether more than a twentieth of the points, in the metric's unit, are infinite, absurd or negative for a log."""
    with np.errstate(invalid="ignore"):
        bad = (np.abs(values) > HUGE) | (log[:, None] & (values < 0))
    return too_many(bad.sum(axis=1), (~np.isnan(values)).sum(axis=1))


def stretch(
    recent: Floats,
    after: Floats,
    specs: tuple[MetricSpec, ...],
    derived: tuple[tuple[str, ...], ...],
    margin: Floats,
    step: float,
    scanned: NDArray[np.bool_],
) -> Described:
    """Describe the stretch after a deployment beside the recent past, without asking what is unusual: no scan, and
    a tail only where nobody else looks.

    ``scanned`` says of which series the caller looks at every window. Arrays are levels in the metrics' units, (series,
    points); see :func:`~tidegate_analysis.rates.as_levels`.
    """
    policy = policy_of(specs, margin)
    prepared = to_scale((recent, after), policy.log)
    gx, gy = prepared.parts
    none = np.full((len(specs), 0), np.nan)
    near = gx[:, -max(gy.shape[1], 30) :]
    contrast = contrasts.two_arms(near, gy, none, ("before-after-trim.v1",) * 3)
    unknown = np.full(len(specs), np.nan)
    tail = tails.not_asked(len(specs))
    points = gy.shape[1]
    if not scanned.all() and 0 < points <= gx.shape[1]:
        asked = tails.tail_contrast(gx[:, -points:], gy, policy.sign)
        tail = tails.Tail(*(np.where(scanned, np.nan, one) for one in asked))
    found = Found(
        contrast, tail, np.zeros(len(specs), dtype=bool), unknown, unknown, unknown, dependence.trimmed_mean(near)
    )
    pieces = _pieces((recent, after, gx, gy), prepared, specs, derived, policy, found, contrast.method, step)
    pieces = replace(pieces, level_now=np.where(scanned, np.nan, found.level))
    return described(pieces)


class Found(NamedTuple):
    """What a scan found: the contrast of the whole stretch, its tail, and the most unusual window."""

    contrast: contrasts.Contrast
    tail: tails.Tail
    tail_down: NDArray[np.bool_]
    p_value: Floats
    change: Floats
    scale: Floats
    level: Floats


class Plan(NamedTuple):
    """Sizes of a scan: points in a block, blocks in the level before, blocks in a day (0 = unknown), the windows."""

    size: int
    back: int
    per_day: int
    windows: scan.Layout


def plan_for(points: int, past: int, step: float) -> Plan:
    """Choose blocks of about 5 minutes, smaller for short stretches, and the windows of the scan."""
    size = max(1, min(round(300.0 / step), points // 4 if points >= 8 else 1))
    blocks = max(points // size, 1)
    back = max(
        1,
        min(round(LEVEL_MINUTES * 60.0 / step / size), past // size, max(blocks, round(1800.0 / step / size))),
    )
    per_day_points = DAY / step
    per_day = round(per_day_points / size) if abs(per_day_points / size - round(per_day_points / size)) < 1e-9 else 0
    lengths = tuple(max(1, round(m * 60.0 / step / size)) for m in HORIZON_MINUTES)
    return Plan(size, back, per_day, scan.layout(blocks, tuple(h for h in lengths if h <= blocks)))


def scanned(
    gx: Floats,
    gy: Floats,
    sign: Floats,
    step: float,
    touched: NDArray[np.bool_] | None,
    rare: NDArray[np.bool_],
) -> Found:
    """Scan the stretch after the deployment; arrays on the scale of the change, (series, points).

    Series are worked through in portions that bound the memory; each portion is one vectorised call.
    """
    S, points = gy.shape
    past = gx.shape[1]
    plan = plan_for(points, past, step) if points else None
    per_series = (min(past // plan.size, scan.MOMENTS) + 1) * max(len(plan.windows.first), 1) if plan else 1
    portion = max(1, CHUNK // max(per_series, 1))
    if portion >= S:
        return _scan_portion(gx, gy, sign, plan, touched, rare)
    parts = [
        _scan_portion(
            gx[a : a + portion],
            gy[a : a + portion],
            sign[a : a + portion],
            plan,
            touched,
            rare[a : a + portion],
        )
        for a in range(0, S, portion)
    ]
    width = max(p.contrast.past.shape[1] for p in parts)
    pasts = [
        np.pad(p.contrast.past, ((0, 0), (0, width - p.contrast.past.shape[1])), constant_values=np.nan) for p in parts
    ]
    errors = tuple(
        (
            np.concatenate([p.contrast.errors[k][0] for p in parts]),
            np.concatenate([p.contrast.errors[k][1] for p in parts]),
        )
        for k in range(len(parts[0].contrast.errors))
    )
    joined = contrasts.Contrast(
        np.concatenate([p.contrast.estimate for p in parts]),
        errors,
        np.concatenate([p.contrast.n_effective for p in parts]),
        np.concatenate([p.contrast.windows for p in parts]),
        np.concatenate(pasts),
        np.concatenate([p.contrast.method for p in parts]),
    )
    tail = tails.Tail(*(np.concatenate([p.tail[k] for p in parts]) for k in range(2)))
    return Found(
        joined,
        tail,
        *(np.concatenate([getattr(p, f) for p in parts]) for f in ("tail_down", "p_value", "change", "scale", "level")),
    )


def _scan_portion(
    gx: Floats,
    gy: Floats,
    sign: Floats,
    plan: Plan | None,
    touched: NDArray[np.bool_] | None,
    rare: NDArray[np.bool_],
) -> Found:
    S = len(gy)
    unknown = np.full(S, np.nan)
    if plan is None:
        nothing = contrasts.Contrast(
            unknown,
            ((unknown, unknown),),
            np.zeros(S),
            np.zeros(S, dtype=np.int64),
            np.zeros((S, 0)),
            np.full(S, "before-after.v1"),
        )
        return Found(nothing, tails.not_asked(S), np.zeros(S, dtype=bool), unknown, unknown, unknown, np.zeros(S))
    size, windows = plan.size, plan.windows
    points = gy.shape[1]
    usable = windows.blocks * size
    before = scan.block_means(gx, size, rare)
    after = scan.block_means(gy[:, :usable][:, ::-1], size, rare)[:, ::-1] if size > 1 else gy[:, :usable]
    excluded = None
    if touched is not None:
        n = touched.size // size
        excluded = np.asarray(touched[touched.size - n * size :].reshape(n, size).any(axis=1), dtype=bool)
    stride = scan.stride_for(before.shape[1], plan.per_day)
    stick = scan.calibrate(before, windows, plan.back, plan.per_day, excluded, stride=stride)
    joined = np.concatenate([before, after], axis=1)
    moment = np.array([before.shape[1]])
    now = scan.contrasts_at(joined, moment, windows, plan.back)[:, 0] - stick.centre
    finest = 1e-12 * np.nan_to_num(np.fmax.reduce(np.abs(joined), axis=1))[:, None]
    now = np.where(np.abs(now) > finest, now, np.where(np.isnan(now), np.nan, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        # A past that never moved: any change is larger than all of it, and counts as the rank it has.
        never = (stick.scale == 0) & (stick.moments > 0)[:, None]
        floor = np.where(np.abs(now) > ROUNDING, np.abs(now), 1.0)
        z = now / np.where(never, floor, np.where(stick.scale > 0, stick.scale, np.nan))
    flip = np.where(sign < 0, -1.0, 1.0)[:, None]
    worse = np.where((sign == 0)[:, None], np.abs(z), flip * z)
    blank = np.isnan(worse).all(axis=1)
    best = np.where(np.isnan(worse), -np.inf, worse).argmax(axis=1)
    rows = np.arange(S)
    largest = np.where(blank, np.nan, worse[rows, best])
    up = scan.rank_p(np.fmax.reduce(z, axis=1), stick.largest_up, stick.moments)
    down = scan.rank_p(np.fmax.reduce(-z, axis=1), stick.largest_down, stick.moments)
    p_rank = np.where(sign > 0, up, np.where(sign < 0, down, np.minimum(2.0 * np.minimum(up, down), 1.0)))
    # Few independent moments: ranks are coarse and hang together, so Student's tail, paid for by every window, too.
    df = np.maximum(stick.independent - 1.0, 1.0)
    looks = len(np.unique(windows.last - windows.first))
    p_t = np.minimum(
        tail_p(np.where(blank, 0.0, np.nan_to_num(largest)), df) * looks * np.where(sign == 0, 2.0, 1.0), 1.0
    )
    p_scan = np.where(stick.independent >= RANK_MOMENTS, p_rank, np.maximum(p_rank, p_t))
    use = (stick.independent >= ENOUGH_MOMENTS) & ~blank
    whole = int(np.flatnonzero((windows.first == 0) & (windows.last == windows.blocks))[0])
    # The plain comparison of the stretch with as long a stretch before it, for series without a usable past.
    recent = gx[:, max(gx.shape[1] - max(points, 30), 0) :]
    two = contrasts.two_arms(recent, gy, np.full((S, 0), np.nan), ("before-after-trim.v1",) * 3)
    estimate = np.where(use, now[:, whole], two.estimate)
    # Too few moments to measure by: what they show is pooled with the stretch's own error.
    errors = [
        (np.where(use, np.nan, contrasts.few_windows(se, stick.wander, stick.worth)), df_two)
        for se, df_two in two.errors
    ]
    errors.append((np.where(use, stick.whole, np.nan), np.where(use, np.minimum(df, 200.0), np.nan)))
    contrast = contrasts.Contrast(
        estimate,
        tuple(errors),
        two.n_effective,
        np.where(use, stick.moments, 0).astype(np.int64),
        np.where(use[:, None], np.where(sign[:, None] < 0, -stick.largest_down, stick.largest_up), np.nan)
        * stick.scale[rows, best][:, None]
        if stick.largest_up.shape[1]
        else np.zeros((S, 0)),
        np.where(
            use,
            np.where(stick.days > 0, "before-after-scan-daily.v1", "before-after-scan.v1"),
            "before-after-trim.v1",
        ),
    )
    tail, tail_down = _tails(gx, gy, sign, points, use)
    with np.errstate(invalid="ignore"):
        base = scan.window_means(joined, moment - plan.back, moment)[:, 0]
    level_before = np.where(use, base + stick.centre[:, whole], dependence.trimmed_mean(recent))
    return Found(
        contrast,
        tail,
        tail_down,
        np.where(use, p_scan, np.nan),
        np.where(use, now[rows, best], np.nan),
        np.where(use, stick.scale[rows, best], np.nan),
        level_before,
    )


def _tails(
    gx: Floats, gy: Floats, sign: Floats, points: int, use: NDArray[np.bool_]
) -> tuple[tails.Tail, NDArray[np.bool_]]:
    """Ask for the tail that is worse, or for both; and say of which series the lower one answers although both are."""
    up = _tail(gx, gy, sign, points, use)
    rows = np.flatnonzero(sign == 0)
    if not len(rows):
        return up, np.zeros(len(sign), dtype=bool)
    return tails.of_both(up, _tail(gx[rows], gy[rows], np.full(len(rows), -1.0), points, use[rows]), rows)


def _tail(gx: Floats, gy: Floats, sign: Floats, points: int, use: NDArray[np.bool_]) -> tails.Tail:
    """Worst twentieth of the stretch, its distance from the centre, ranked among the same of past stretches.

    The centre is that of the stretch or of the one before it, whichever is higher. The past is cut into stretches that
    overlap by half. The larger of the rank and Student's tail counts: the distance of the worst points is skewed, and
    a t of it alone calls too many healthy stretches unusual.
    """
    S = len(gx)
    if not points or gx.shape[1] < points:
        return tails.not_asked(S)
    half = max(points // 2, 1)
    starts = np.arange(gx.shape[1] - points, -1, -half)
    if len(starts) < 2 * tails.MIN_WINDOWS:
        return tails.tail_contrast(gx[:, gx.shape[1] - points :], gy, sign)
    flip = np.where(sign < 0, -1.0, 1.0)[:, None]
    own = tails.shape_of(np.lib.stride_tricks.sliding_window_view(gx * flip, points, axis=1)[:, starts])
    # Two stretches on lies the one that ends where a stretch begins.
    shapes = tails.from_higher(own, np.pad(own.centre[:, 2:], ((0, 0), (0, 2)), constant_values=np.nan))
    present = tails.from_higher(tails.shape_of(gy * flip), own.centre[:, 0])
    k = (~np.isnan(shapes.spread)).sum(axis=1)
    spread = placebo.median_of_sorted(np.sort(shapes.spread, axis=1), k.astype(np.float64))
    reach = tails.reach(shapes, np.broadcast_to(spread[:, None], shapes.centre.shape))
    now = tails.reach(present, spread)
    known = (~np.isnan(reach)).sum(axis=1)
    median = placebo.median_of_sorted(np.sort(reach, axis=1), known.astype(np.float64))
    worst = shapes.worst.mean(axis=-1) - shapes.centre
    usual = placebo.median_of_sorted(np.sort(worst, axis=1), known.astype(np.float64))
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.sqrt(np.nansum((reach - median[:, None]) ** 2, axis=1) / (known - 1.0))
        ok = use & (known >= 2 * tails.MIN_WINDOWS) & (scale > 0) & np.isfinite(now)
        rank = (1.0 + (reach >= now[:, None]).sum(axis=1)) / (known + 1.0)
        t = (now - median) / scale
    p = np.maximum(rank, tail_p(np.where(ok, t, 0.0), np.where(ok, np.maximum(known / 2.0 - 1.0, 1.0), 1.0)))
    return tails.Tail(np.where(ok, p, np.nan), present.worst.mean(axis=-1) - present.centre - usual)
