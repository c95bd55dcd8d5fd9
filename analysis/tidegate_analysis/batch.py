"""Blocks of points in, aligned arrays out: the one place where bad input is met.

A block is a rectangle of points of one arm on a regular clock. Blocks come in any order, may overlap, repeat,
have gaps, and the two arms' clocks need not agree to the second. What can be mended is mended and told as a
quality note; what cannot is refused with the field and what would be right.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.kernels.shared import as_floats
from tidegate_analysis.room import widened
from tidegate_analysis.spec import MetricSpec, QualityNote

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Arm = Literal["baseline", "canary"]
Phase = Literal["pre", "post"]
ARMS: tuple[Arm, Arm] = ("baseline", "canary")
PHASES: tuple[Phase, Phase] = ("pre", "post")
# A block this long at a step of a second is a year; longer ones are a mistake in the step.
MAX_COLUMNS = 1 << 25
# Points of all metrics over the whole span: half a gigabyte.
MAX_CELLS = 1 << 26


class BlockError(ValueError):
    """A block, or a frame, that cannot be used: which field, and what would be right."""

    def __init__(self, field: str, message: str) -> None:
        """Name the field and say what would be right."""
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message

    def __reduce__(self) -> tuple[type[BlockError], tuple[str, str]]:
        """Survive a trip between processes."""
        return type(self), (self.field, self.message)


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of points: metrics down, scrapes across.

    Parameters
    ----------
    arm, phase:
        Which arm, and on which side of the deployment.
    start, step:
        Epoch seconds of the first column, and seconds between columns.
    values:
        Shape (rows, columns), NaN = missing.
    metrics:
        Names of the rows; ``None`` = every declared metric that is not a histogram, in declared order.
    instance:
        The instance it was scraped from; empty = the whole arm.
    exposure:
        Totals of the rows of kind ratio, in the shape of ``values``.
    histograms:
        ``{metric: (upper bounds (B,), counts (columns, B + 1))}``.
    """

    arm: Arm
    start: float
    step: float
    values: Floats
    phase: Phase = "post"
    metrics: tuple[str, ...] | None = None
    instance: str = ""
    exposure: Floats | None = None
    histograms: Mapping[str, tuple[Floats, Floats]] | None = None


@dataclass
class _Track:
    """Points of one arm, phase and instance on the batch's grid: column k lies at ``origin + k * step``."""

    first: int = 0
    values: Floats = field(default_factory=lambda: np.zeros((0, 0)))
    exposure: Floats | None = None
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, dtype=bool))
    # The arrays above are the left columns of these, where there are any.
    room: dict[str, NDArray[Any]] = field(default_factory=dict, repr=False)

    def reserve(self, rows: int, low: int, high: int) -> None:
        """Make room for the columns ``low`` to ``high - 1``."""
        if self.values.shape[1] == 0:
            self.first = low
            self.values = np.full((rows, high - low), np.nan)
            self.seen = np.zeros(high - low, dtype=bool)
            return
        left = max(self.first - low, 0)
        right = max(high - (self.first + self.values.shape[1]), 0)
        if left or right:
            self.values = widened(self.room, "values", self.values, left, right)
            self.seen = widened(self.room, "seen", self.seen, left, right)
            if self.exposure is not None:
                self.exposure = widened(self.room, "exposure", self.exposure, left, right)
            self.first -= left

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs, without the spare room."""
        kept = {
            name: np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
            for name, value in self.__dict__.items()
        }
        return {**kept, "room": {}}


class SeriesBatch:
    """Series of several metrics, assembled from blocks onto one clock.

    Parameters
    ----------
    specs:
        The metrics, in order; names must be unique.

    Raises
    ------
    BlockError
        When there is no metric, or a name twice.
    """

    def __init__(self, specs: tuple[MetricSpec, ...] | list[MetricSpec]) -> None:
        """Declare the metrics."""
        self.specs = tuple(specs)
        if not self.specs:
            raise BlockError("metrics", "at least one metric must be declared")
        self._row: dict[str, int] = {}
        for k, spec in enumerate(self.specs):
            if spec.name in self._row:
                raise BlockError(f"metrics[{k}].name", f"{spec.name!r} is declared twice; names must be unique")
            self._row[spec.name] = k
        self._plain = np.array([k for k, s in enumerate(self.specs) if s.kind != "histogram"], dtype=np.int64)
        self._tracks: dict[tuple[Arm, Phase, str], _Track] = {}
        self._histograms: dict[tuple[str, Arm, Phase, str], dict[int, Floats]] = {}
        self._bounds: dict[str, Floats] = {}
        self.step = math.nan
        self.origin = math.nan
        self._counts: dict[str, int] = {}
        self._messages: dict[str, str] = {}

    def add(self, block: Block) -> None:
        """Take a block.

        Points that were already there with another value are replaced by the newer and counted as duplicates;
        repeated equal points are ignored. A clock that lies off the grid is moved to it by at most half a
        step and told.

        Raises
        ------
        BlockError
            When the block cannot be used; nothing of it is then taken.
        """
        rows, values, exposure = self._checked(block)
        histograms, bounds = self._checked_histograms(block)
        step, origin = (float(block.step), float(block.start)) if math.isnan(self.step) else (self.step, self.origin)
        if abs(block.step - step) > 1e-6 * step:
            raise BlockError("step", f"{block.step:g} s in a batch of {step:g} s; all blocks must have one step")
        columns = values.shape[1]
        if not values.size and histograms:  # bins alone
            columns = len(next(iter(histograms.values())))
            rows, values, exposure = rows[:0], np.zeros((0, columns)), None
        position = (block.start - origin) / step
        self._check_reach(position, columns)
        # From here on nothing fails.
        self.step, self.origin = step, origin
        self._bounds.update(bounds)
        low = math.floor(position + 0.5)
        skew = abs(position - low) * step
        if skew > 0.01 * self.step:
            self._note(
                "clock_skew",
                1,
                f"clocks disagree by up to {skew:.3g} s; points were moved to the nearest scrape",
                largest=skew,
            )
        track = self._tracks.setdefault((block.arm, block.phase, block.instance), _Track())
        track.reserve(len(self.specs), low, low + columns)
        part = slice(low - track.first, low - track.first + columns)
        if low < track.first + track.seen.size and track.seen[part].any():
            self._count_duplicates(track, rows, part, values)
        if track.seen.any() and part.start < int(np.flatnonzero(track.seen)[-1]) and not track.seen[part].all():
            self._note("out_of_order", 1, "blocks came out of order in time")
        old = track.values[rows, part]
        track.values[rows, part] = np.where(np.isnan(values), old, values)
        track.seen[part] = True
        if exposure is not None:
            if track.exposure is None:
                track.exposure = np.full(track.values.shape, np.nan)
            track.exposure[rows, part] = np.where(np.isnan(exposure), track.exposure[rows, part], exposure)
        for name, counts in histograms.items():
            store = self._histograms.setdefault((name, block.arm, block.phase, block.instance), {})
            store.update({low + k: counts[k] for k in range(columns)})

    def _check_reach(self, position: float, columns: int) -> None:
        """Refuse a block so far from the others that the points between them would not fit into memory."""
        ends = [end for t in self._tracks.values() if t.seen.size for end in (t.first, t.first + t.seen.size)]
        reach = max([*ends, position + columns]) - min([*ends, position])
        if not reach <= MAX_COLUMNS or reach * len(self.specs) > MAX_CELLS:
            raise BlockError(
                "start_time", f"the points would span {reach:.3g} scrapes; check times, step and the unit of both"
            )

    def _checked(self, block: Block) -> tuple[NDArray[np.int64], Floats, Floats | None]:
        if block.arm not in ARMS:
            raise BlockError("arm", f"{block.arm!r} is neither baseline nor canary")
        if block.phase not in PHASES:
            raise BlockError("phase", f"{block.phase!r} is neither pre nor post")
        if not (math.isfinite(block.step) and block.step > 0):
            raise BlockError("step", f"must be a positive number of seconds, not {block.step!r}")
        if not math.isfinite(block.start):
            raise BlockError("start_time", "must be a finite time")
        try:
            values = as_floats("values", block.values)
        except ValueError:
            raise BlockError("values", "must be numbers") from None
        if values.ndim != 2:
            raise BlockError("values", f"must have the shape (rows, columns), not {values.shape}")
        if block.metrics is None:
            rows = self._plain
            if len(values) != len(rows) and not (block.histograms and values.size == 0):
                raise BlockError(
                    "values",
                    f"{len(values)} rows for {len(rows)} declared metrics; name them in metrics, or send all",
                )
            rows = rows[: len(values)]
        else:
            if len(block.metrics) != len(values):
                raise BlockError("metrics", f"{len(block.metrics)} names for {len(values)} rows of values")
            unknown = [k for k, name in enumerate(block.metrics) if name not in self._row]
            if unknown:
                k = unknown[0]
                raise BlockError(
                    f"metrics[{k}]",
                    f"{block.metrics[k]!r} was not declared; declared are {self._some_names()}",
                )
            if len(set(block.metrics)) != len(block.metrics):
                raise BlockError("metrics", "a metric is named twice")
            rows = np.array([self._row[name] for name in block.metrics], dtype=np.int64)
            for k in np.flatnonzero(~np.isin(rows, self._plain)).tolist():
                if not np.isnan(values[k]).all():
                    raise BlockError(f"metrics[{k}]", f"{block.metrics[k]!r} is a histogram; send it in histograms")
        if values.shape[1] == 0 and not block.histograms:
            raise BlockError("columns", "a block needs at least one column")
        if values.shape[1] > MAX_COLUMNS:
            raise BlockError("columns", f"{values.shape[1]} columns; at most {MAX_COLUMNS}")
        exposure = None
        if block.exposure is not None:
            try:
                exposure = as_floats("exposure", block.exposure)
            except ValueError:
                raise BlockError("exposure", "must be numbers") from None
            if exposure.shape != values.shape:
                raise BlockError("exposure", f"shape {exposure.shape} does not fit the values' {values.shape}")
        return rows, values, exposure

    def _checked_histograms(self, block: Block) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Return counts and upper bounds by metric."""
        out: dict[str, Floats] = {}
        bounds_of: dict[str, Floats] = {}
        for k, (name, (bounds, counts)) in enumerate((block.histograms or {}).items()):
            path = f"histograms[{k}]"
            if name not in self._row:
                raise BlockError(f"{path}.metric", f"{name!r} was not declared; declared are {self._some_names()}")
            kind = self.specs[self._row[name]].kind
            if kind != "histogram":
                raise BlockError(f"{path}.metric", f"{name!r} was declared with kind {kind!r}, not histogram")
            try:
                edges = np.asarray(bounds, dtype=np.float64)
                table = np.asarray(counts, dtype=np.float64)
            except (TypeError, ValueError):
                raise BlockError(path, "bounds and counts must be numbers") from None
            if edges.ndim != 1 or len(edges) < 1 or not bool((np.diff(edges) > 0).all()) or np.isnan(edges[0]):
                raise BlockError(f"{path}.upper_bounds", "must be strictly ascending, at least one")
            if table.ndim != 2 or table.shape[1] != len(edges) + 1:
                raise BlockError(
                    f"{path}.counts",
                    f"must have columns x {len(edges) + 1} counts (one bin above the last bound)",
                )
            if bool((table < 0).any()) or bool(np.isinf(table).any()):
                raise BlockError(f"{path}.counts", "must be finite and not negative")
            known = self._bounds.get(name)
            if known is not None and not np.array_equal(known, edges):
                raise BlockError(f"{path}.upper_bounds", "differ from those of earlier blocks of this metric")
            bounds_of[name] = edges
            out[name] = table
        sizes = {len(t) for t in out.values()} | (
            {np.asarray(block.values).shape[1]} if np.asarray(block.values).size else set()
        )
        if len(sizes) > 1:
            raise BlockError("histograms", "have another number of columns than the block")
        return out, bounds_of

    def _some_names(self) -> str:
        names = [repr(s.name) for s in self.specs[:5]]
        return ", ".join(names) + (f" and {len(self.specs) - 5} more" if len(self.specs) > 5 else "")

    def _count_duplicates(self, track: _Track, rows: NDArray[np.int64], part: slice, values: Floats) -> None:
        old = track.values[rows, part]
        both = ~np.isnan(old) & ~np.isnan(values)
        changed = int((both & (old != values)).sum())
        same = int((both & (old == values)).sum())
        if changed:
            self._note("duplicates", changed, "points came twice with different values; the later ones count")
        elif same:
            self._note("repeated", same, "points came twice with the same value")

    def _note(self, code: str, count: int, message: str, *, largest: float | None = None) -> None:
        key = f"{code}_largest"
        if largest is None or largest >= self._counts.get(key, 0):
            self._messages[code] = message
        if largest is not None:
            self._counts[key] = max(self._counts.get(key, 0), largest)  # type: ignore[assignment]
        self._counts[code] = self._counts.get(code, 0) + count

    def add_frame(self, frame: pd.DataFrame, *, deployed_at: float | None = None) -> None:
        """Take a long table: ``timestamp, metric, arm, value`` and optionally ``phase, instance, total``.

        Timestamps may be datetimes, ISO 8601 text, or epoch seconds; rows may be in any order. The step is
        the most common distance between scrapes. Without a column ``phase`` every point before
        ``deployed_at`` is ``pre``.

        Raises
        ------
        BlockError
            When a column is missing or cannot be read; the field is the column.
        """
        from tidegate_analysis.frames import blocks_of

        for block in blocks_of(frame, self.specs, deployed_at):
            self.add(block)

    @property
    def notes(self) -> tuple[QualityNote, ...]:
        """What was met while blocks were taken."""
        return tuple(QualityNote(code, int(self._counts[code]), message) for code, message in self._messages.items())

    def instances(self, arm: Arm, phase: Phase) -> tuple[str, ...]:
        """Names of the instances of an arm in a phase, sorted."""
        return tuple(sorted(name for a, p, name in self._tracks if a == arm and p == phase))

    def span(self, phase: Phase) -> tuple[int, int] | None:
        """First and one past the last grid column of a phase over both arms; ``None`` when it has none."""
        tracks = [t for (_, p, _), t in self._tracks.items() if p == phase and t.values.shape[1]]
        if not tracks:
            return None
        return min(t.first for t in tracks), max(t.first + t.values.shape[1] for t in tracks)

    def time_of(self, column: int) -> float:
        """Epoch seconds of a grid column."""
        return self.origin + column * self.step

    def window(self, arm: Arm, phase: Phase, low: int, high: int) -> tuple[Floats, Floats | None]:
        """Return the columns ``low`` to ``high - 1`` of an arm.

        Shape (metrics, points), or (metrics, instances, points); missing points are NaN. The second array has the
        exposures, or is ``None`` when the arm has none.
        """
        names = self.instances(arm, phase)
        width = max(high - low, 0)
        if not names:
            return np.full((len(self.specs), width), np.nan), None
        parts = [self._cut(self._tracks[arm, phase, name], low, high) for name in names]
        values = [v for v, _ in parts]
        exposures = [e for _, e in parts]
        if len(names) == 1:
            return values[0], exposures[0]
        stacked = np.stack(values, axis=1)
        if all(e is None for e in exposures):
            return stacked, None
        return stacked, np.stack([np.full_like(values[0], np.nan) if e is None else e for e in exposures], axis=1)

    def _cut(self, track: _Track, low: int, high: int) -> tuple[Floats, Floats | None]:
        out = np.full((len(self.specs), max(high - low, 0)), np.nan)
        a, b = max(low, track.first), min(high, track.first + track.values.shape[1])
        exposure = None if track.exposure is None else np.full_like(out, np.nan)
        if a < b:
            out[:, a - low : b - low] = track.values[:, a - track.first : b - track.first]
            if exposure is not None and track.exposure is not None:
                exposure[:, a - low : b - low] = track.exposure[:, a - track.first : b - track.first]
        return out, exposure

    def histogram_window(self, name: str, arm: Arm, phase: Phase, low: int, high: int) -> Floats:
        """Return the bin counts of a histogram metric: (columns, bins), NaN where missing."""
        bins = len(self._bounds[name]) + 1 if name in self._bounds else 1
        out = np.full((max(high - low, 0), bins), np.nan)
        for (metric, of, when, _), store in self._histograms.items():
            if (metric, of, when) == (name, arm, phase):
                for at, counts in store.items():
                    if low <= at < high:
                        out[at - low] = np.where(np.isnan(out[at - low]), counts, out[at - low] + counts)
        return out

    def bounds(self, name: str) -> Floats | None:
        """Upper bounds of a histogram metric's bins; ``None`` when none came."""
        return self._bounds.get(name)
