"""Whether points came to the end of a window: a PASS on its first half would have missed what began later.

Asked only of what would pass because the time is up. Where the writers said that no more points will come, a rule
answers for the points that are there.
"""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import tidegate_analysis as ta

from tidegate_server.gates.model import Observation, Seen, Verdict

if TYPE_CHECKING:
    from tidegate_analysis.batch import Arm

# How much of a window may be without points at its end: a share of it, and so many scrapes however short it is.
MISSING_SHARE = 0.1
MISSING_SCRAPES = 2


def to_the_end(
    seen: Observation, batch: ta.SeriesBatch, arms: Sequence[Arm], *, start: float, end: float
) -> Observation:
    """Return what was seen; a PASS becomes too little to tell when the points of a metric ended early.

    Parameters
    ----------
    seen:
        What the rule would answer.
    batch:
        Its points.
    arms:
        Those that are needed: a metric has points for as long as each of them has.
    start, end:
        From when to when points count.
    """
    if seen.verdict is not Verdict.PASS:
        return seen
    allowed = max(MISSING_SHARE * (end - start), MISSING_SCRAPES * batch.step)
    last = {spec.name: min(_last_point(batch, row, arm) for arm in arms) for row, spec in enumerate(batch.specs)}
    early = {name: time for name, time in last.items() if end - time > allowed + batch.step}
    if not early:
        return seen
    name, time = min(early.items(), key=lambda item: item[1])
    more = f" So did {len(early) - 1} more." if len(early) > 1 else ""
    when = f"at {_clock(time)}, {end - time:.0f} s before the watch was over" if math.isfinite(time) else "before then"
    return replace(
        seen,
        verdict=Verdict.INCONCLUSIVE,
        seen=Seen.TOO_LITTLE,
        reason="ended_early",
        sentence=f"The points of {name} ended {when}: what came after them was not seen.{more}",
    )


def _last_point(batch: ta.SeriesBatch, row: int, arm: Arm) -> float:
    """Return the time of a metric's newest point after the deployment, -inf without any."""
    span = batch.span("post")
    if span is None:
        return -math.inf
    spec = batch.specs[row]
    if spec.kind == "histogram":
        there = np.isfinite(batch.histogram_window(spec.name, arm, "post", *span)).any(axis=1)
    else:
        values, _ = batch.window(arm, "post", *span)
        there = np.isfinite(values[row]).reshape(-1, values.shape[-1]).any(axis=0)
    at = np.flatnonzero(there)
    return batch.time_of(span[0] + int(at[-1])) if at.size else -math.inf


def _clock(time: float) -> str:
    return dt.datetime.fromtimestamp(time, dt.UTC).strftime("%H:%M:%S UTC")
