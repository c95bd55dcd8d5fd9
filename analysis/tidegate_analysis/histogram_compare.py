"""Histograms beside each other: scrape by scrape, how often a request of the canary takes longer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate_analysis import contrast as contrasts
from tidegate_analysis import tail as tails
from tidegate_analysis.assemble import Pieces, assemble
from tidegate_analysis.batch import SeriesBatch
from tidegate_analysis.compare import check_step
from tidegate_analysis.contrast import MIN_POINTS
from tidegate_analysis.decide import Policy, decide, policy_of
from tidegate_analysis.defaults import resolve_all
from tidegate_analysis.kernels import dependence, histograms
from tidegate_analysis.kernels.shared import as_floats
from tidegate_analysis.prepare import notes_for
from tidegate_analysis.result import Result, concatenate
from tidegate_analysis.spec import MetricSpec, specs_for

Floats = NDArray[np.float64]
# The worst requests whose mean tells how far the tail moved.
WORST = 0.05
METHODS = ("histogram-superiority.v1", "histogram-few-windows.v1", "histogram-placebo.v1")


def compare_histograms(
    baseline: ArrayLike,
    canary: ArrayLike,
    upper_bounds: ArrayLike,
    *,
    spec: MetricSpec | Sequence[MetricSpec],
    history: ArrayLike | None = None,
    step_seconds: float | None = None,
) -> Result:
    """Judge histograms of a canary against those of the baseline beside it.

    Each scrape gives one number, P(canary > baseline) + P(equal) / 2, from its bins; the series of these numbers is
    judged as any other, so that requests that share a slow minute count as one observation and not as thousands. The
    margin and the effect are told as the common slow-down that would give the same number.

    Parameters
    ----------
    baseline, canary:
        Counts per scrape and bin, (series, points, bins), not cumulative, NaN = missing.
    upper_bounds:
        Shape (bins - 1,), ascending and above 0; the last bin lies above them all.
    spec:
        One spec for all series, or one per series, of kind ``"histogram"``.
    history:
        Shape (series, windows, 2, points, bins): past pairs of windows in which nothing was wrong, baseline first.
    step_seconds:
        Time between scrapes; without it no time to an answer is told.

    Raises
    ------
    ValueError
        When shapes do not fit or counts are negative or infinite; the message names the argument.
    """
    bounds = histograms.check_bounds(upper_bounds)
    x = histograms.check_bins(baseline, "baseline", bounds.size + 1)
    y = histograms.check_bins(canary, "canary", bounds.size + 1)
    found = histograms.difference_series(x, y)
    S, points = found.difference.shape
    specs = tuple(s if s.kind == "histogram" else s.with_(kind="histogram") for s in specs_for(spec, S))
    none = np.full((S, 1), np.nan)
    resolved, derived, margin = resolve_all(specs, none, none)
    past = np.full((S, 0), np.nan)
    windows = None
    if history is not None:
        windows = as_floats("history", history)
        wanted = (S, windows.shape[1] if windows.ndim > 1 else 0, 2, points, bounds.size + 1)
        if windows.shape != wanted:
            raise ValueError(
                f"history: must have the shape (series, windows, 2, points, bins) {wanted}, not {windows.shape}"
            )
        flat = (S * wanted[1], points, bounds.size + 1)
        then = histograms.difference_series(windows[:, :, 0].reshape(flat), windows[:, :, 1].reshape(flat))
        past = dependence.trimmed_mean(then.difference).reshape(S, wanted[1])
    mapping = histograms.scale_map(histograms.pooled(x), bounds)
    contrast = contrasts.paired(found.difference, past)
    named = np.select(
        [contrast.method == "paired-trim.v1", contrast.method == "paired-few-windows.v1"], METHODS[:2], METHODS[2]
    )
    policy = policy_of(resolved, margin)
    worst = tail_of(x, y, bounds, policy, windows)
    worse, better = theta_margins(mapping, policy)
    turned = policy._replace(log=np.zeros(S, dtype=bool), worse=worse, better=better)
    there_x, there_y = (~np.isnan(a).all(axis=2) for a in (x, y))
    heard = tails.presence(np.where(there_x, 0.0, np.nan), np.where(there_y, 0.0, np.nan))
    pairs = (~np.isnan(found.difference)).sum(axis=1)
    middle = [histograms.quantile(histograms.pooled(a), bounds, 0.5).value for a in (x, y)]
    notes = notes_for(
        [
            ("thin_scrapes", found.thin, "{n} scrapes had too few requests to compare"),
            ("grouped_scrapes", np.where(found.group > 1, found.group, 0), "{n} scrapes at a time were put together"),
            (
                "canary_silent",
                heard.only_baseline * heard.silent,
                "the canary was silent at {n} scrapes the baseline answered",
            ),
        ],
        S,
    )
    zero = np.zeros(S, dtype=np.int64)
    out = assemble(
        Pieces(
            specs=resolved,
            derived=derived,
            policy=turned,
            contrast=contrast._replace(method=named),
            # Held to the margin on its own scale.
            tail=tails.Tail(worst.p_value, worst.change / policy.worse * worse),
            d=found.difference,
            d_level=dependence.trimmed_mean(found.difference) - contrast.estimate,
            level_now=dependence.trimmed_mean(found.difference) - contrast.estimate,
            pairs=pairs,
            n_baseline=there_x.sum(axis=1),
            n_canary=there_y.sum(axis=1),
            baseline_level=middle[0],
            canary_level=middle[1],
            silent=heard.silent,
            bad_canary=zero,
            spoilt=zero > 0,
            baseline_silent=heard.baseline_silent,
            notes=notes,
            step=check_step(step_seconds),
        )
    )
    moved = np.expm1(np.where(policy.sign < 0, -worst.change, worst.change))
    return replace(retold(out, mapping, margin), tail_effect=moved)


def tail_of(x: Floats, y: Floats, bounds: Floats, policy: Policy, windows: Floats | None = None) -> tails.Tail:
    """Ask of counts per bin whether the worst requests of the canary are worse; upwards where both ways are.

    By the share of requests beyond the bin that holds nine tenths of both arms' requests, scrape by scrape, against its
    own standard errors or its past (:func:`~tidegate_analysis.contrast.paired`). ``change`` is how far the mean of the
    worst twentieth of all requests moved, on the log scale, towards worse.

    Parameters
    ----------
    x, y:
        Shape (series, points, bins).
    windows:
        Past pairs, (series, windows, 2, points, bins).
    """
    down = policy.sign < 0
    levels = histograms.log_middles(bounds)
    a, b = (np.where(down[:, None, None], arm[..., ::-1], arm) for arm in (x, y))
    worst = [
        np.where(down, histograms.worst_level(p, -levels[::-1], WORST), histograms.worst_level(p, levels, WORST))
        for p in (histograms.pooled(a), histograms.pooled(b))
    ]
    last = histograms.last_bin_within(histograms.pooled(a) + histograms.pooled(b), tails.EXCEED_SHARE)
    found = histograms.difference_series(histograms.beyond(a, last), histograms.beyond(b, last))
    past: Floats = np.full((len(x), 0), np.nan)
    if windows is not None and windows.shape[1]:
        turned = np.where(down[:, None, None, None, None], windows[..., ::-1], windows)
        two = histograms.beyond(turned, last)
        flat = (two.shape[0] * two.shape[1], *two.shape[3:])
        then = histograms.difference_series(two[:, :, 0].reshape(flat), two[:, :, 1].reshape(flat))
        past = dependence.trimmed_mean(then.difference).reshape(two.shape[:2])
    contrast = contrasts.paired(found.difference, past)
    decided = decide(contrast, policy._replace(sign=np.ones(len(x))))
    asked = ~np.isnan(decided.low) & ((~np.isnan(found.difference)).sum(axis=1) >= MIN_POINTS)
    return tails.Tail(np.where(asked, decided.p_value, np.nan), worst[1] - worst[0])


def theta_margins(mapping: histograms.ScaleMap, policy: Policy) -> tuple[Floats, Floats]:
    """Margins towards worse and better as superiorities above one half."""
    down = policy.sign < 0
    above = histograms.theta_of_change(mapping, np.expm1(np.where(down, policy.better, policy.worse))) - 0.5
    below = 0.5 - histograms.theta_of_change(mapping, np.expm1(-np.where(down, policy.worse, policy.better)))
    return np.where(down, below, above), np.where(down, above, below)


def retold(result: Result, mapping: histograms.ScaleMap, margin: Floats) -> Result:
    """Tell effects of superiority as the slow-downs that would give them; ``margin`` is relative, shape (series,)."""

    def change(theta: Floats) -> Floats:
        return histograms.change_of_theta(mapping, 0.5 + theta)

    return replace(
        result,
        margin=margin,
        effect=change(result.effect),
        effect_low=change(result.effect_low),
        effect_high=change(result.effect_high),
        minimum_detectable_effect=change(result.minimum_detectable_effect),
    )


def compare_batch_histograms(batch: SeriesBatch, rows: NDArray[np.int64], low: int, high: int) -> Result:
    """Judge the histogram metrics of a batch over the columns ``low`` to ``high - 1``; each has bounds of its own.

    The loop is over metrics, as their bins differ; scrapes and bins are arrays.
    """
    step = batch.step if np.isfinite(batch.step) else None
    points = max(high - low, 1)
    parts = []
    for i in rows.tolist():
        name = batch.specs[i].name
        bounds = batch.bounds(name)
        edges = np.array([1.0]) if bounds is None else bounds
        arms = [
            np.full((points, edges.size + 1), np.nan)
            if bounds is None
            else batch.histogram_window(name, arm, "post", low, high)
            for arm in ("baseline", "canary")
        ]
        past = _past_windows(batch, name, edges, points, high - low)
        parts.append(
            compare_histograms(
                arms[0][None], arms[1][None], edges, spec=batch.specs[i], history=past, step_seconds=step
            )
        )
    return concatenate(parts, [np.array([k]) for k in range(len(parts))])


def _past_windows(batch: SeriesBatch, name: str, edges: Floats, points: int, width: int) -> Floats | None:
    span = batch.span("pre")
    if span is None or width < 1 or batch.bounds(name) is None:
        return None
    count = min((span[1] - span[0]) // points, 56)
    if count < 1:
        return None
    start = span[1] - count * points
    arms = [
        batch.histogram_window(name, arm, "pre", start, span[1]).reshape(count, points, edges.size + 1)
        for arm in ("baseline", "canary")
    ]
    return np.stack(arms, axis=1)[None]
