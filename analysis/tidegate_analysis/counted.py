"""Counts, event ratios and rare events: from arms to findings by the conditional binomial."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tidegate_analysis import tail as tails
from tidegate_analysis.assemble import LATE_PART, too_many
from tidegate_analysis.decide import POWER, Policy, policy_of
from tidegate_analysis.kernels import changepoint
from tidegate_analysis.kernels.counts import check_counts, fixed_horizon_counts, history_dispersion, usual_odds
from tidegate_analysis.prepare import notes_for, rows_of
from tidegate_analysis.rates import told_rows
from tidegate_analysis.result import Result
from tidegate_analysis.spec import MetricSpec, Verdict

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
# Fewer events than this in both arms together never fail a canary by themselves.
MIN_EVENTS = 5
# Arms whose usual events differ by more than this factor's logarithm are told to be of different size.
UNEVEN = 0.25
# Smaller counts are rounding, not events.
TINY_COUNT = 1e-15


def clean_counts(events: Floats, exposure: Floats | None) -> tuple[Floats, Floats | None, Ints]:
    """Make infinite and negative counts missing, and sum over instances; return how many points were bad.

    ``events`` has the shape (series, points) or (series, instances, points), ``exposure`` the same.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~np.isnan(events) & ~((events >= 0) & (events < 1e15))
    bad = rows_of(wrong).sum(axis=1)
    out = np.where(wrong, np.nan, np.where(events < TINY_COUNT, 0.0, events))
    totals = None
    if exposure is not None:
        with np.errstate(invalid="ignore"):
            off = ~np.isnan(exposure) & ~((exposure >= 0) & (exposure < 1e15))
        bad = bad + rows_of(off).sum(axis=1)
        totals = np.where(off, np.nan, exposure)
    if events.ndim == 3:
        gap = np.isnan(out) if totals is None else np.isnan(out) | np.isnan(totals)
        none = gap.all(axis=1)
        out = np.where(none, np.nan, np.where(gap, 0.0, out).sum(axis=1))
        if totals is not None:
            totals = np.where(none, np.nan, np.where(gap, 0.0, totals).sum(axis=1))
    return out, totals, bad.astype(np.int64)


def learn_past(past: Floats, totals: Floats | None, *, ratio: bool, sized: bool) -> tuple[Floats, Floats]:
    """Learn from past windows how unevenly events fell, and the canary's usual share of them.

    Parameters
    ----------
    past, totals:
        Events and their totals, (series, windows, 2, points).
    ratio:
        Whether events are part of their totals.
    sized:
        Whether totals come with the present; a past without any says nothing then.

    Returns
    -------
    dispersion, odds:
        Shape (series,): NaN where there is too little to learn from; the canary's usual rate over the baseline's
        where no totals say how large either arm is (one pod beside nine), else 1.
    """
    S = len(past)
    if not past.shape[1] or not past.shape[3]:
        return np.full(S, np.nan), np.ones(S)
    with np.errstate(invalid="ignore"):
        old = np.where((past >= 0) & (past < 1e15), past, np.nan)
    if sized and totals is None:
        return np.full(S, np.nan), np.ones(S)
    if totals is not None:
        return history_dispersion(old, totals, bounded=ratio)[0], np.ones(S)
    odds = usual_odds(old)
    dispersion, _ = history_dispersion(old, odds=odds)
    return dispersion, np.where(np.isfinite(dispersion), odds, 1.0)


def count_levels(x: Floats, y: Floats, ex: Floats | None, ey: Floats | None, ratio: Bools) -> tuple[Floats, Floats]:
    """Return the event rates of both arms over the scrapes that both answered, ``(series,)`` each; NaN for none.

    Events and totals have the shape (series, points); rows that are no ``ratio`` and have no totals count per scrape.
    """
    x, ex, _ = clean_counts(x, ex)
    y, ey, _ = clean_counts(y, ey)
    base, canary = np.full(len(x), np.nan), np.full(len(x), np.nan)
    for rows in (np.flatnonzero(ratio), np.flatnonzero(~ratio)):
        if not len(rows):
            continue
        told = None if ex is None or ey is None else (ex[rows], ey[rows])
        if told is None or (not ratio[rows[0]] and np.isnan(told[0]).all() and np.isnan(told[1]).all()):
            told = (np.ones(x[rows].shape), np.ones(y[rows].shape))
        given = check_counts(x[rows], y[rows], *told, bounded=bool(ratio[rows[0]]))
        for out, events, of in (
            (base, given.baseline, given.baseline_exposure),
            (canary, given.canary, given.canary_exposure),
        ):
            total = of.sum(axis=1)
            out[rows] = np.divide(events.sum(axis=1), total, out=np.full(len(rows), np.nan), where=total > 0)
    return base, canary


def compare_counts(
    x: Floats,
    y: Floats,
    past: Floats,
    past_exposure: Floats | None,
    specs: tuple[MetricSpec, ...],
    derived: tuple[tuple[str, ...], ...],
    margin: Floats,
    step: float,
    ex: Floats | None,
    ey: Floats | None,
) -> Result:
    """Judge series of kind count (relative margin) and ratio (margin as a difference of ratios) at one moment.

    Parameters
    ----------
    x, y:
        Events of baseline and canary, (series, points) or (series, instances, points).
    past, past_exposure:
        Events, and their totals, of past windows: (series, windows, 2, points).
    ex, ey:
        Totals; rows without any are judged as counts.

    Raises
    ------
    ValueError
        When a ratio comes without totals.
    """
    S = len(specs)
    x, ex, bad_x = clean_counts(x, ex)
    y, ey, bad_y = clean_counts(y, ey)
    ratio = np.array([s.kind == "ratio" for s in specs], dtype=bool)
    if ratio.any() and (ex is None or ey is None):
        raise ValueError(
            "baseline_exposure: kind 'ratio' needs the totals of both arms, baseline_exposure and canary_exposure"
        )
    policy = policy_of(specs, margin)
    fields = {
        name: np.full(S, np.nan)
        for name in ("effect", "low", "high", "p", "p_pass", "n", "base", "canary", "events", "odds")
    }
    for rows, absolute in ((np.flatnonzero(ratio), True), (np.flatnonzero(~ratio), False)):
        if not len(rows):
            continue
        ok_x, ok_y = (None, None) if ex is None or ey is None else (ex[rows], ey[rows])
        if not absolute and ok_x is not None and ok_y is not None and np.isnan(ok_x).all() and np.isnan(ok_y).all():
            ok_x = ok_y = None
        # Present totals are judged with the past's; without any, the past says what the canary's share is.
        old_totals = None if past_exposure is None or (ok_x is None and not absolute) else past_exposure[rows]
        dispersion, odds = learn_past(past[rows], old_totals, ratio=absolute, sized=ok_x is not None)
        if ok_x is None and ok_y is None:
            ok_x, ok_y = np.ones(x[rows].shape), odds[:, None] * np.ones(y[rows].shape)
        found = fixed_horizon_counts(
            x[rows], y[rows], baseline_exposure=ok_x, canary_exposure=ok_y, margin=margin[rows], absolute=absolute,
            sign=policy.sign[rows], alpha=policy.alpha[rows], alpha_pass=policy.alpha_pass[rows], dispersion=dispersion,
        )  # fmt: skip
        for name, value in (
            ("effect", found.effect), ("low", found.low), ("high", found.high),
            ("p", found.p_value), ("p_pass", found.pass_p_value),
            ("n", found.n_effective), ("base", found.baseline_level), ("canary", found.canary_level * odds),
            ("odds", odds),
            ("events", found.baseline_events + found.canary_events),
        ):  # fmt: skip
            fields[name][rows] = value
    exceeding = _exceeding(past, past_exposure, fields["effect"], policy.sign, ratio, fields["odds"])
    return counted_result(
        specs, derived, margin, step, x, y, ex, ey, fields, bad_x, bad_y, *exceeding,
        tuple("counts-ratio.v1" if r else "counts.v1" for r in ratio.tolist()),
    )  # fmt: skip


def counted_result(
    specs: tuple[MetricSpec, ...],
    derived: tuple[tuple[str, ...], ...],
    margin: Floats,
    step: float,
    x: Floats,
    y: Floats,
    ex: Floats | None,
    ey: Floats | None,
    f: dict[str, Floats],
    bad_x: Ints,
    bad_y: Ints,
    windows: Ints,
    exceeding: Ints,
    method: tuple[str, ...],
    log_e: Floats | None = None,
) -> Result:
    """Decide counts and build the result; ``f`` has what the kernel answered, arrays over series."""
    S = len(specs)
    policy = policy_of(specs, margin)
    effect = f["effect"]
    # Without traffic nothing was answered, whatever the number of events says.
    heard = tails.presence(*(_heard(events, totals) for events, totals in ((x, ex), (y, ey))))
    pairs = (~np.isnan(x) & ~np.isnan(y)).sum(axis=1)
    p = np.where(np.isfinite(f["p"]), np.clip(f["p"], 1e-300, 1.0), 1.0)
    with np.errstate(invalid="ignore"):
        beyond = np.where(policy.sign == 0, np.abs(effect) > margin, policy.sign * effect > margin)
        # An effect without a bound: events where the baseline had none at all.
        beyond |= np.isposinf(effect) & (policy.sign >= 0)
        fail = (p <= policy.alpha) & beyond & (f["events"] >= MIN_EVENTS)
        passed = ~fail & (f["p_pass"] <= policy.alpha_pass)
    verdict = np.where(fail, Verdict.FAIL, np.where(passed, Verdict.PASS, Verdict.INCONCLUSIVE)).astype(np.int8)
    reason = np.where(fail, "regression", np.where(passed, "within_margin", "not_enough_evidence")).astype("<U24")
    for name, where in (
        ("late_in_doubt", _late(x, y, ex, ey, f["odds"], policy)),
        ("bad_values", (bad_y > 0) | too_many(bad_x, pairs)),
        ("baseline_silent", heard.baseline_silent),
        ("canary_silent", heard.silent),
    ):
        reason[passed & where] = name
        verdict[passed & where] = Verdict.INCONCLUSIVE
    spoken_x, spoken_y = (~np.isnan(x)).sum(axis=1), (~np.isnan(y)).sum(axis=1)
    unknown = verdict == Verdict.INCONCLUSIVE
    with np.errstate(invalid="ignore"):
        few = unknown & (p <= policy.alpha) & ~(f["events"] >= MIN_EVENTS)
    for name, where in (
        ("below_margin", unknown & (p <= policy.alpha) & ~beyond),
        ("too_few_events", few),
        ("no_overlap", (pairs == 0) & (spoken_x > 0) & (spoken_y > 0)),
        ("no_baseline", (spoken_x == 0) & (spoken_y > 0)),
        ("canary_silent", (spoken_y == 0) & (spoken_x > 0)),
        ("no_data", (spoken_x == 0) & (spoken_y == 0)),
    ):
        reason[unknown & where] = name
    worse_up = policy.sign >= 0
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        to_null = np.where(worse_up, effect - f["low"], f["high"] - effect)
        to_margin = np.where(worse_up, f["high"] - effect, effect - f["low"])
        z_fail, z_pass, z_power = (
            -special.ndtri(policy.alpha),
            -special.ndtri(policy.alpha_pass),
            special.ndtri(POWER),
        )
        detectable = to_null * (1.0 + z_power / z_fail)
        factor = (to_margin * (1.0 + z_power / z_pass) / margin) ** 2
        seconds = np.where(
            (verdict == Verdict.INCONCLUSIVE) & (factor > 1.0) & np.isfinite(factor),
            (factor - 1.0) * pairs * step,
            np.nan,
        )
    onset = [np.full(S, -1, dtype=np.int64) for _ in range(3)]
    if fail.any():
        share = np.broadcast_to((f["odds"] / (1.0 + f["odds"]))[:, None], x.shape)
        if ex is not None and ey is not None:
            with np.errstate(invalid="ignore", divide="ignore"):
                told = ey / (ex + ey)
            share = np.where(np.isfinite(told), told, share)
        surplus = (y - (x + y) * share)[fail]
        for array, values in zip(onset, changepoint.onset(surplus, np.zeros(len(surplus))), strict=True):
            array[fail] = values
    notes = notes_for(
        [
            ("bad_values", bad_x + bad_y, "{n} counts were infinite, absurd or negative"),
            (
                "canary_silent",
                heard.only_baseline * heard.silent,
                "the canary was silent at {n} scrapes the baseline answered",
            ),
            ("gaps", x.shape[1] - pairs, "{n} scrapes without a pair"),
            (
                "usual_share",
                np.rint(np.where(np.abs(np.log(f["odds"])) > UNEVEN, 100.0 * f["odds"], 0.0)).astype(np.int64),
                "the canary usually has {n} % of the baseline's events, which was taken as no change",
            ),
        ],
        S,
    )
    nothing = np.full(S, np.nan)
    return Result(
        specs=specs, derived=derived, verdict=verdict, p_value=p,
        log_e_value=nothing if log_e is None else log_e,
        effect=_finite(effect), effect_low=_finite(f["low"]), effect_high=_finite(f["high"]), margin=margin,
        n_effective=np.nan_to_num(f["n"]), n_baseline=spoken_x.astype(np.int64), n_canary=spoken_y.astype(np.int64),
        baseline_level=f["base"], canary_level=f["canary"], minimum_detectable_effect=_finite(detectable),
        seconds_to_answer=seconds, method=method, reason=tuple(reason.tolist()),
        history_windows=windows, history_exceeding=exceeding,
        onset=onset[0], onset_low=onset[1], onset_high=onset[2], quality=tuple(tuple(n) for n in notes),
        tail_p_value=nothing, tail_effect=nothing.copy(),
    )  # fmt: skip


def _exceeding(
    past: Floats, totals: Floats | None, effect: Floats, sign: Floats, ratio: Bools, odds: Floats
) -> tuple[Ints, Ints]:
    """Past windows that can be compared, and how many showed a change at least this bad; ``odds`` are no change."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        there = (past >= 0) & (past < 1e15)
        events = np.where(there, past, 0.0).sum(axis=3)
        if totals is None:
            of = there.sum(axis=3).astype(np.float64)
            usable = ~ratio
        else:
            of = np.where(there, np.nan_to_num(totals), 0.0).sum(axis=3)
            usable = np.ones(len(ratio), dtype=bool)
        rate = events / of
        change = np.where(
            ratio[:, None], rate[:, :, 1] - rate[:, :, 0], rate[:, :, 1] / rate[:, :, 0] / odds[:, None] - 1.0
        )
        known = usable[:, None] & ~np.isnan(change)
        worse = np.where((sign == 0)[:, None], np.abs(change), np.where(sign < 0, -1.0, 1.0)[:, None] * change)
        shift = np.where(sign == 0, np.abs(effect), np.where(sign < 0, -1.0, 1.0) * effect)
        beyond = known & (worse >= shift[:, None])
    return known.sum(axis=1).astype(np.int64), beyond.sum(axis=1).astype(np.int64)


def _late(x: Floats, y: Floats, ex: Floats | None, ey: Floats | None, odds: Floats, policy: Policy) -> Bools:
    """Whether the change over the last third of the scrapes is beyond the margin, by the rates over one mix of scrapes.

    What has only begun, or begins as the traffic goes, is too small a part of all events to be seen in their sum.
    """
    last = slice(-max(-(-x.shape[1] // LATE_PART), min(3, x.shape[1])), None)
    b, c = x[:, last], y[:, last]
    r_b, r_c = np.ones(b.shape), odds[:, None] * np.ones(c.shape)
    if ex is not None and ey is not None:
        told = told_rows(ex, len(ex)) | told_rows(ey, len(ey))
        r_b, r_c = np.where(told[:, None], ex[:, last], r_b), np.where(told[:, None], ey[:, last], r_c)
    with np.errstate(invalid="ignore", divide="ignore"):
        there = (r_b + r_c > 0) & ~np.isnan(b) & ~np.isnan(c)
        u = np.where(there, r_b / (r_b + r_c), 0.0)
        weight = (u * np.where(there, r_c, 0.0)).sum(axis=1)
        rise = (u * np.where(there, c, 0.0)).sum(axis=1) / weight
        fall = ((1.0 - u) * np.where(there, b, 0.0)).sum(axis=1) / weight
        change = np.where(policy.log, rise / fall - 1.0, rise - fall)
        up, down = change >= policy.margin, change <= -policy.margin
    return np.asarray(np.where(policy.sign > 0, up, np.where(policy.sign < 0, down, up | down)))


def _heard(events: Floats, totals: Floats | None) -> Floats:
    """Events of the scrapes that answered: whose totals, where the series has any, are above 0."""
    if totals is None:
        return events
    with np.errstate(invalid="ignore"):
        quiet = ~(totals > 0) & told_rows(totals, len(totals))[:, None]
    return np.where(quiet, np.nan, events)


def _finite(values: Floats) -> Floats:
    return np.where(np.isfinite(values), values, np.nan)
