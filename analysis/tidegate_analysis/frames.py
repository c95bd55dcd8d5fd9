"""Long tables of points, as files and DataFrames have them, cut into blocks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.batch import ARMS, PHASES, Block, BlockError
from tidegate_analysis.spec import MetricSpec

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
REQUIRED = ("timestamp", "metric", "arm", "value")
MAX_POINTS_PER_TRACK = 10_000_000


def epoch_seconds(column: pd.Series) -> Floats:
    """Return epoch seconds of a column of datetimes, ISO 8601 text or numbers.

    Raises
    ------
    BlockError
        When a value cannot be read as a time.
    """
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        seconds = column.to_numpy(dtype=np.float64)
    else:
        try:
            times = (
                pd.to_datetime(column, utc=True, format="ISO8601")
                if column.dtype.kind != "M"
                else pd.to_datetime(column, utc=True)
            )
        except (ValueError, TypeError) as error:
            raise BlockError("timestamp", f"cannot be read as times: {error}") from None
        seconds = (times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        seconds = seconds.to_numpy(dtype=np.float64)
    if not bool(np.isfinite(seconds).all()):
        row = int(np.flatnonzero(~np.isfinite(seconds))[0])
        raise BlockError("timestamp", f"row {row} has no time")
    return seconds


def blocks_of(frame: pd.DataFrame, specs: tuple[MetricSpec, ...], deployed_at: float | None) -> list[Block]:
    """Cut a long table into blocks, one per arm, phase and instance.

    Raises
    ------
    BlockError
        When a column is missing, unreadable, or names an unknown metric, arm or phase.
    """
    import pandas as pd

    missing = [c for c in REQUIRED if c not in frame.columns]
    if missing:
        raise BlockError(
            missing[0],
            f"column is missing; needed are {', '.join(REQUIRED)}, optional phase, instance, total",
        )
    if frame.empty:
        raise BlockError("timestamp", "the table has no rows")
    names = {s.name: k for k, s in enumerate(specs)}
    metric = frame["metric"].astype(str)
    unknown = sorted(set(metric.unique()) - set(names))
    if unknown:
        raise BlockError("metric", f"{unknown[0]!r} was not declared")
    arm = frame["arm"].astype(str).str.strip().str.lower()
    wrong = sorted(set(arm.unique()) - set(ARMS))
    if wrong:
        raise BlockError("arm", f"{wrong[0]!r} is neither baseline nor canary")
    value = pd.to_numeric(frame["value"], errors="coerce").to_numpy(dtype=np.float64)
    text = (
        frame["value"].notna().to_numpy()
        & np.isnan(value)
        & (frame["value"].astype(str).str.lower() != "nan").to_numpy()
    )
    if text.any():
        row = int(np.flatnonzero(text)[0])
        raise BlockError("value", f"row {row} has {frame['value'].iloc[row]!r}, which is not a number")
    total = (
        pd.to_numeric(frame["total"], errors="coerce").to_numpy(dtype=np.float64)
        if "total" in frame.columns
        else None
    )
    seconds = epoch_seconds(frame["timestamp"])
    if "phase" in frame.columns:
        phase = frame["phase"].fillna("post").astype(str).str.strip().str.lower()
        odd = sorted(set(phase.unique()) - set(PHASES))
        if odd:
            raise BlockError("phase", f"{odd[0]!r} is neither pre nor post")
        is_pre = (phase == "pre").to_numpy()
    else:
        is_pre = seconds < deployed_at if deployed_at is not None else np.zeros(len(frame), dtype=bool)
    instance = (
        frame["instance"].fillna("").astype(str)
        if "instance" in frame.columns
        else pd.Series([""] * len(frame), index=frame.index)
    )
    step = common_step(seconds)
    origin = float(seconds.min())
    column = np.floor((seconds - origin) / step + 0.5).astype(np.int64)
    row_of = metric.map(names).to_numpy(dtype=np.int64)
    key = pd.DataFrame({"arm": arm.to_numpy(), "pre": is_pre, "instance": instance.to_numpy()})
    blocks = []
    for (one_arm, pre, one_instance), at in key.groupby(
        ["arm", "pre", "instance"], sort=True
    ).indices.items():  # type: ignore[misc]
        low, high = int(column[at].min()), int(column[at].max()) + 1
        if (high - low) * len(specs) > MAX_POINTS_PER_TRACK:
            raise BlockError(
                "timestamp", f"the points lie {high - low} scrapes of {step:g} s apart; check the times"
            )
        first = np.zeros(len(at), dtype=bool)
        place = row_of[at] * (high - low) + (column[at] - low)
        first[np.unique(place, return_index=True)[1]] = True
        # Points at one place come as several blocks, so that the batch meets and counts the duplicates.
        remaining = at
        places = place
        while len(remaining):
            _, index = np.unique(places, return_index=True)
            chosen = remaining[index]
            values = np.full((len(specs), high - low), np.nan)
            values[row_of[chosen], column[chosen] - low] = value[chosen]
            exposure = None
            if total is not None:
                exposure = np.full_like(values, np.nan)
                exposure[row_of[chosen], column[chosen] - low] = total[chosen]
            blocks.append(
                Block(
                    arm=one_arm,
                    phase="pre" if pre else "post",
                    start=origin + low * step,
                    step=step,
                    values=values,
                    metrics=tuple(s.name for s in specs),
                    instance=one_instance,
                    exposure=exposure,
                )
            )
            keep = np.ones(len(remaining), dtype=bool)
            keep[index] = False
            remaining, places = remaining[keep], places[keep]
    return blocks


def common_step(seconds: Floats) -> float:
    """Most common distance between neighbouring times, in seconds; 60 for a single time.

    Distances are rounded to a thousandth of a second before they are counted, so that jitter does not split
    them; the median of those within a tenth of the most common one is taken.
    """
    gaps = np.diff(np.unique(seconds))
    gaps = gaps[gaps > 1e-6]
    if not len(gaps):
        return 60.0
    middle = float(np.median(gaps))
    near = gaps[np.abs(gaps - middle) <= 0.25 * middle]
    step = float(np.median(near)) if len(near) else middle
    rounded = round(step * 2) / 2
    return rounded if rounded > 0 and math.isclose(step, rounded, rel_tol=0.05) else round(step, 3)
