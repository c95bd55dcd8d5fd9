"""Counters, counts and ratios as levels: what designs without a concurrent partner can look at."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.kernels.counters import increases
from tidegate_analysis.prepare import HUGE, rows_of
from tidegate_analysis.spec import MetricSpec

Floats = NDArray[np.float64]


def as_levels(
    specs: tuple[MetricSpec, ...],
    derived: tuple[tuple[str, ...], ...],
    margin: Floats,
    past: Floats,
) -> tuple[tuple[MetricSpec, ...], tuple[tuple[str, ...], ...], Floats, NDArray[np.bool_]]:
    """Bring counts to the linear scale, their relative margin to events per scrape.

    Zeros are ordinary in counts, so there are no logs of them; the margin becomes a share of the past's mean.

    Returns
    -------
    specs, derived, margin, rare:
        And which series are counts or ratios, whose means must not be trimmed.
    """
    count = np.array([s.kind == "count" and s.scale == "log" for s in specs], dtype=bool)
    rare = np.array([s.kind == "count" for s in specs], dtype=bool) | np.array(
        [s.kind == "ratio" for s in specs], dtype=bool
    )
    if not count.any():
        return specs, derived, margin, rare
    with np.errstate(invalid="ignore", divide="ignore"):
        there = np.abs(past) <= HUGE
        mean = np.where(there, past, 0.0).sum(axis=1) / there.sum(axis=1)
    # With no event in the past one event in the window's scrapes is what the margin is a share of.
    mean = np.where(np.isfinite(mean) & (mean > 0), mean, 1.0 / max(past.shape[1], 1))
    out = np.where(count, margin * mean, margin)
    flags = count.tolist()
    # A spec's own margin stays what was asked for; the margin in events is told beside the finding.
    told = tuple(
        s.with_(scale="linear", margin=float(m)) if c else s for s, m, c in zip(specs, out.tolist(), flags, strict=True)
    )
    names = tuple(
        tuple(dict.fromkeys((*d, "scale", "margin"))) if c else d for d, c in zip(derived, flags, strict=True)
    )
    return told, names, out, rare


def increments(specs: tuple[MetricSpec, ...], arrays: tuple[Floats, ...]) -> tuple[Floats, ...]:
    """Turn running totals into increases per scrape; ``arrays`` are consecutive stretches of one arm."""
    counter = np.array([s.kind == "counter" for s in specs], dtype=bool)
    if not counter.any():
        return arrays
    joined = np.concatenate(arrays, axis=1)
    joined[counter] = increases(joined[counter])
    edges = np.cumsum([a.shape[1] for a in arrays])[:-1]
    return tuple(np.split(joined, edges, axis=1))


def ratios(events: Floats, totals: Floats | None) -> Floats:
    """Events per total of each scrape, NaN where there was no traffic; the events themselves without totals.

    Negative numbers, and events of no traffic, have no ratio that could be judged: infinite, as all bad values.
    """
    if totals is None:
        return events
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = np.where(totals > 0, events / totals, np.nan)
        share = np.where((events < 0) | (totals < 0) | ((totals == 0) & (events > 0)), np.inf, share)
    return np.where(np.isnan(totals).all(axis=1, keepdims=True), events, share)


def told_rows(totals: Floats | None, n_series: int) -> NDArray[np.bool_]:
    """Which series came with totals: those with at least one. ``totals`` has the shape (series, ...)."""
    if totals is None:
        return np.zeros(n_series, dtype=bool)
    return np.asarray(~rows_of(np.isnan(totals)).all(axis=1), dtype=bool)
