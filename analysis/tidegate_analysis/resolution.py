"""Fill in what a spec leaves open, for many series at once."""

from __future__ import annotations

import re
import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.prepare import level
from tidegate_analysis.spec import MetricSpec

Floats = NDArray[np.float64]
RELATIVE_MARGIN = 0.10


def resolve_all(
    specs: tuple[MetricSpec, ...], baseline: Floats, canary: Floats, has_exposure: bool
) -> tuple[tuple[MetricSpec, ...], tuple[tuple[str, ...], ...], Floats]:
    """Return the specs with nothing left open, the names of the fields that were derived, and the margins.

    Parameters
    ----------
    baseline, canary:
        Shape (series, values), from which kind and scale are derived where name and unit do not tell.
    has_exposure:
        Whether totals were given with the values.

    Returns
    -------
    resolved, derived, margin:
        Margins in the unit of the effect, shape (series,).
    """
    with np.errstate(invalid="ignore"):
        positive = ~((baseline <= 0).any(axis=1) | (canary <= 0).any(axis=1))
    resolved, derived = [], []
    margin = np.full(len(specs), np.nan)
    for i, spec in enumerate(specs):
        changes = {}
        if spec.kind == "auto":
            changes["kind"] = "ratio" if has_exposure else "gauge"
        if spec.direction == "auto":
            changes["direction"] = (
                "down_is_worse" if re.search("throughput|success|rps|hit", spec.name) else "up_is_worse"
            )
        kind = changes.get("kind", spec.kind)
        if spec.scale == "auto":
            changes["scale"] = "log" if kind in ("gauge", "counter") and positive[i] else "linear"
        if spec.margin is None:
            if kind == "ratio":
                changes["margin"] = 0.005
            elif changes.get("scale", spec.scale) == "log" or kind == "count":
                changes["margin"] = RELATIVE_MARGIN
        resolved.append(spec.with_(**changes) if changes else spec)
        derived.append(tuple(changes))
        margin[i] = resolved[-1].margin if resolved[-1].margin is not None else np.nan
    open_margin = np.isnan(margin)
    if open_margin.any():
        rows = np.flatnonzero(open_margin)
        margin[rows] = RELATIVE_MARGIN * np.abs(
            level(np.concatenate([baseline[rows], baseline[rows]], axis=1))
        )
    return tuple(resolved), tuple(derived), margin
