"""Long tables of points, as files and DataFrames have them, cut into blocks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.batch import ARMS, PHASES, Arm, Block, BlockError
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
        since = (times - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
        seconds = since.to_numpy(dtype=np.float64)
    if not bool(np.isfinite(seconds).all()):
        row = int(np.flatnonzero(~np.isfinite(seconds))[0])
        raise BlockError("timestamp", f"row {row} has no time")
    return seconds


def numbers(name: str, column: pd.Series) -> Floats:
    """Return a column as floats; empty cells and "nan" are NaN.

    Raises
    ------
    BlockError
        When a cell holds something else.
    """
    import pandas as pd

    out = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    text = np.isnan(out) & column.notna().to_numpy() & (column.astype(str).str.lower() != "nan").to_numpy()
    if text.any():
        row = int(np.flatnonzero(text)[0])
        raise BlockError(name, f"row {row} has {column.iloc[row]!r}, which is not a number")
    return out


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
    value = numbers("value", frame["value"])
    total = numbers("total", frame["total"]) if "total" in frame.columns else None
    seconds = epoch_seconds(frame["timestamp"])
    if "phase" in frame.columns:
        phase = frame["phase"].astype(object).fillna("post").astype(str).str.strip().str.lower()
        odd = sorted(set(phase.unique()) - set(PHASES))
        if odd:
            raise BlockError("phase", f"{odd[0]!r} is neither pre nor post")
        is_pre = (phase == "pre").to_numpy()
    else:
        is_pre = seconds < deployed_at if deployed_at is not None else np.zeros(len(frame), dtype=bool)
    instance = (
        frame["instance"].astype(object).fillna("").astype(str)
        if "instance" in frame.columns
        else pd.Series([""] * len(frame), index=frame.index)
    )
    key = pd.DataFrame({"arm": arm.to_numpy(), "pre": is_pre, "instance": instance.to_numpy()})
    # Scrapes of two arms rarely fall together: the step is the distance within one series, not between them.
    series = key.assign(metric=metric.to_numpy()).groupby(["arm", "instance", "metric"]).ngroup().to_numpy()
    step = common_step(seconds, series)
    origin = float(seconds.min())
    column = np.floor((seconds - origin) / step + 0.5).astype(np.int64)
    row_of = metric.map(names).to_numpy(dtype=np.int64)
    number = key.groupby(["arm", "pre", "instance"], sort=True).ngroup().to_numpy()
    blocks = []
    for k in range(int(number.max()) + 1):
        at = np.flatnonzero(number == k)
        one_arm: Arm = "canary" if arm.iloc[at[0]] == "canary" else "baseline"
        low, high = int(column[at].min()), int(column[at].max()) + 1
        if (high - low) * len(specs) > MAX_POINTS_PER_TRACK:
            raise BlockError("timestamp", f"the points lie {high - low} scrapes of {step:g} s apart; check the times")
        # Points at one place come as several blocks, so that the batch meets and counts the duplicates.
        remaining = at
        places = row_of[at] * (high - low) + (column[at] - low)
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
                    phase="pre" if is_pre[at[0]] else "post",
                    start=origin + low * step,
                    step=step,
                    values=values,
                    metrics=tuple(s.name for s in specs),
                    instance=str(instance.iloc[at[0]]),
                    exposure=exposure,
                )
            )
            keep = np.ones(len(remaining), dtype=bool)
            keep[index] = False
            remaining, places = remaining[keep], places[keep]
    return blocks


def common_step(seconds: Floats, series: NDArray[np.integer] | None = None) -> float:
    """Typical distance between neighbouring times of one series, in seconds; 60 when none has two.

    The median distance, refined to the median of those within a quarter of it, and rounded to half a second
    where that is within a twentieth: jitter of the scrapes does not move it.

    Parameters
    ----------
    seconds:
        Shape (points,), in any order; equal times of a series count once.
    series:
        Shape (points,), which series each belongs to; default: all to one.
    """
    of = np.zeros(len(seconds), dtype=np.int64) if series is None else series
    order = np.lexsort((seconds, of))
    gaps = np.diff(seconds[order])[np.diff(of[order]) == 0]
    gaps = gaps[gaps > 1e-6]
    if not len(gaps):
        return 60.0
    middle = float(np.median(gaps))
    near = gaps[np.abs(gaps - middle) <= 0.25 * middle]
    step = float(np.median(near)) if len(near) else middle
    rounded = round(step * 2) / 2
    return rounded if rounded > 0 and math.isclose(step, rounded, rel_tol=0.05) else round(step, 3)
