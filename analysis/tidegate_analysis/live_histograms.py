"""Histogram metrics of a live evaluation: each scrape becomes one number, and a stream watches the numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis import tail as tails
from tidegate_analysis.batch import SeriesBatch
from tidegate_analysis.decide import policy_of
from tidegate_analysis.defaults import resolve_all
from tidegate_analysis.histogram_compare import METHODS, retold, tail_of, theta_margins
from tidegate_analysis.kernels import histograms
from tidegate_analysis.result import Result, concatenate
from tidegate_analysis.spec import Verdict
from tidegate_analysis.stream import open_stream
from tidegate_analysis.watches import FIRST_LOOK

Floats = NDArray[np.float64]
# A scrape with fewer requests in an arm than this says next to nothing.
MIN_REQUESTS = 10.0


def watch_histograms(batch: SeriesBatch, rows: NDArray[np.int64], low: int, taken: int, horizon: int) -> Result:
    """Findings of the histogram metrics after ``taken`` scrapes, valid at every look; each has bins of its own.

    The margin is turned into a superiority by the baseline's histogram before the deployment, or over the first 8
    scrapes where there is none, so that it does not move while the watch goes on. The loop is over metrics.
    """
    return concatenate(
        [_watch(batch, i, low, taken, horizon) for i in rows.tolist()], [np.array([k]) for k in range(len(rows))]
    )


def _watch(batch: SeriesBatch, row: int, low: int, taken: int, horizon: int) -> Result:
    spec = batch.specs[row]
    bounds = batch.bounds(spec.name)
    none = np.full((1, 1), np.nan)
    (resolved,), (derived,), margin = resolve_all((spec,), none, none)
    past = np.zeros((1, 0, 2, horizon))
    scrapes = np.full((1, taken), np.nan)
    mapping = None
    if bounds is not None:
        post = [batch.histogram_window(spec.name, arm, "post", low, low + taken) for arm in ("baseline", "canary")]
        scrapes = _superiority(post[0], post[1])[None]
        span = batch.span("pre")
        reference = post[0][:FIRST_LOOK]
        if span is not None:
            count = (span[1] - span[0]) // horizon
            start = span[1] - max(count, 0) * horizon
            pre = [batch.histogram_window(spec.name, arm, "pre", span[0], span[1]) for arm in ("baseline", "canary")]
            if np.nansum(pre[0]) >= MIN_REQUESTS:
                reference = pre[0]
            if count:
                told = _superiority(pre[0], pre[1])[start - span[0] :].reshape(1, count, horizon)
                past = np.stack(_halves(told), axis=2)
        mapping = histograms.scale_map(histograms.pooled(reference[None]), bounds)
    limit = 0.01
    if mapping is not None:
        worse, better = theta_margins(mapping, policy_of((resolved,), margin))
        narrow = float(min(worse[0], better[0]))
        limit = narrow if np.isfinite(narrow) and narrow > 0 else limit
    level = resolved.with_(kind="gauge", scale="linear", margin=limit)
    # As at one look: what a scrape's worst requests did is in its superiority.
    stream = open_stream(level, history=past, step_seconds=batch.step, horizon=horizon, tail=False)
    if taken:
        stream.update(*_halves(scrapes))
    found = replace(stream.result(), specs=(resolved,), derived=(derived,))
    # How far off scrapes were is told in superiorities, which nobody reads.
    notes = (replace(n, message=n.message.partition(" by ")[0]) if n.code == "stretch" else n for n in found.quality[0])
    found = replace(found, quality=(tuple(notes),))
    found = replace(found, method=(f"{METHODS[0].removesuffix('.v1')}-sequential.v1",))
    unknown = np.full(1, np.nan)
    found = replace(found, baseline_level=unknown, canary_level=unknown)
    if mapping is None or bounds is None:
        return found
    # What a stream of superiorities cannot see: a few requests that take far longer.
    policy = policy_of((resolved,), margin)
    worst = tail_of(post[0][None], post[1][None], bounds, policy) if taken else tails.not_asked(1)
    with np.errstate(invalid="ignore"):
        doubt = (found.verdict == Verdict.PASS) & (worst.p_value <= tails.TAIL_DOUBT) & (worst.change > policy.worse)
    return replace(
        retold(found, mapping, margin),
        verdict=np.where(doubt, Verdict.INCONCLUSIVE, found.verdict).astype(np.int8),
        reason=("tail_in_doubt",) if doubt[0] else found.reason,
        tail_p_value=worst.p_value,
        tail_effect=np.expm1(np.where(policy.sign < 0, -worst.change, worst.change)),
    )


def _superiority(x: Floats, y: Floats) -> Floats:
    """Superiority of the canary above one half per scrape, (scrapes,); NaN where an arm has few requests."""
    with np.errstate(invalid="ignore"):
        enough = (x.sum(axis=1) >= MIN_REQUESTS) & (y.sum(axis=1) >= MIN_REQUESTS)
    return np.where(enough, histograms.superiority(x, y) - 0.5, np.nan)


def _halves(superiority: Floats) -> tuple[Floats, Floats]:
    """Split a difference between two arms that move alike, as healthy ones do: the tail of either is then the same."""
    return -0.5 * superiority, 0.5 * superiority
