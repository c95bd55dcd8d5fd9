"""Real series and windows, read from the folder that ``TIDEGATE_DATA`` names; nothing of them is kept here.

The folder holds ``windows_null.npz``, ``windows_injected.npz`` and ``cloud_monitoring.npz``: pairs of 60
+ 60 points of production and benchmark metrics with no known change between them, the same with an effect
put in, and 11 metrics of one value a minute over 11 to 14 days with what experts marked in them. Sources:
Microsoft's Cloud Monitoring Dataset (MIT), NAB (MIT), Nezha (MIT), PetShop (CC-BY-4.0), cloud VM
benchmark noise (CC-BY-4.0).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]
POINTS = 60
DAY = 86_400
DOWN_KINDS = ("throughput", "success_rate")


def folder() -> Path | None:
    """Return the folder of the data, None when ``TIDEGATE_DATA`` names none or it lacks the files."""
    name = os.environ.get("TIDEGATE_DATA")
    if not name:
        return None
    path = Path(name)
    needed = ("windows_null.npz", "windows_injected.npz", "cloud_monitoring.npz")
    return path if all((path / one).is_file() for one in needed) else None


@dataclass(frozen=True)
class WindowPairs:
    """Pairs of real windows, rows of one array each.

    ``pre`` and ``post`` ``(rows, 60)``; ``down``: a drop is worse; ``two_arms``: the windows come from
    two machines and not from before and after a moment; ``quality``: "exchangeable" (a true null) or
    "labelled_clean"; ``step`` seconds; ``day_pre`` and ``day_post`` the same windows a day earlier, NaN
    where there are none.
    """

    pre: Array
    post: Array
    down: Bools
    two_arms: Bools
    quality: NDArray[np.str_]
    source: NDArray[np.str_]
    kind: NDArray[np.str_]
    step: Array
    day_pre: Array
    day_post: Array

    def take(self, rows: NDArray[np.intp] | Bools) -> WindowPairs:
        """Return some of the rows."""
        return WindowPairs(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def with_post(self, post: Array, down: Bools) -> WindowPairs:
        """Return the same windows with other points after the change."""
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return WindowPairs(**{**fields, "post": post, "down": down})

    @property
    def has_day(self) -> Bools:
        """Whether most points of the windows a day earlier are there."""
        return np.asarray(np.isfinite(self.day_post).mean(axis=1) > 0.5)

    @property
    def day_apart(self) -> Bools:
        """Whether the windows a day earlier end before those under judgement begin: a past of its own."""
        return np.asarray(2 * POINTS * self.step <= DAY)

    def past(self) -> list[tuple[NDArray[np.intp], Array]]:
        """Return what was known before the change, as (rows, values up to it), one entry per length.

        The window before the change and, where there are any, the windows of the day before at their own
        places, NaN between them. Windows a day earlier that reach past the change are cut there: with
        hourly points "the same window a day earlier" holds points of after the change.
        """
        day = np.where(self.has_day, np.round(DAY / self.step), 0).astype(int)
        out = []
        for length in np.unique(day):
            rows = np.flatnonzero(day == length)
            before = np.full((rows.size, length + POINTS), np.nan)
            if length:
                before[:, :POINTS] = self.day_pre[rows]
                stop = min(2 * POINTS, length + POINTS)
                before[:, POINTS:stop] = self.day_post[rows][:, : stop - POINTS]
            before[:, -POINTS:] = self.pre[rows]
            out.append((rows, before))
        return out


def null_windows(path: Path) -> WindowPairs:
    """Return the pairs with no known change between them."""
    with np.load(path / "windows_null.npz", allow_pickle=False) as z:
        kind = z["metric_kind"].astype(str)
        return WindowPairs(
            pre=z["pre"].astype(np.float64),
            post=z["post"].astype(np.float64),
            down=np.isin(kind, DOWN_KINDS),
            two_arms=z["mode"].astype(str) == "aa_exchangeable",
            quality=z["null_quality"].astype(str),
            source=z["source"].astype(str),
            kind=kind,
            step=z["step_seconds"].astype(np.float64),
            day_pre=z["day1_pre"].astype(np.float64),
            day_post=z["day1_post"].astype(np.float64),
        )


@dataclass(frozen=True)
class Injected:
    """Pairs with an effect put in: ``pairs`` and the ``effect`` of each row."""

    pairs: WindowPairs
    effect: NDArray[np.str_]


def injected_windows(path: Path, null: WindowPairs) -> Injected:
    """Return the pairs with an effect put into the points after the change."""
    with np.load(path / "windows_injected.npz", allow_pickle=False) as z:
        pairs = null.take(z["null_row"].astype(np.intp))
        pairs = pairs.with_post(z["post"].astype(np.float64), z["direction"] < 0)
        return Injected(pairs, z["effect_kind"].astype(str))


@dataclass(frozen=True)
class Minutes:
    """Real metrics, one value a minute: ``values`` and ``labelled`` ``(series, minutes)``, ``names``."""

    names: NDArray[np.str_]
    values: Array
    labelled: Bools


def minutes(path: Path) -> Minutes:
    """Return the one-minute metrics."""
    with np.load(path / "cloud_monitoring.npz", allow_pickle=False) as z:
        return Minutes(z["names"].astype(str), z["values"].astype(np.float64), z["labelled"] > 0)


def cut_points(
    data: Minutes, count: int, *, before: int, after: int, rng: np.random.Generator, clear: int = 120
) -> NDArray[np.intp]:
    """Return ``count`` pairs (series, minute of a deployment), drawn with replacement: ``(count, 2)``.

    Each has ``before`` minutes of past, ``after`` minutes of future that are mostly there, and no label
    from ``clear`` minutes before it to ``after`` minutes behind it.
    """
    usable = []
    for series, (values, labels) in enumerate(zip(data.values, data.labelled, strict=True)):
        length = int(np.flatnonzero(np.isfinite(values))[-1]) + 1
        moments = np.arange(before, length - after)
        marked = np.concatenate([[0], np.cumsum(labels)])
        gaps = np.concatenate([[0], np.cumsum(~np.isfinite(values))])
        quiet = marked[moments + after] == marked[np.maximum(moments - clear, 0)]
        whole = gaps[moments + after] - gaps[moments - after] <= 0.1 * 2 * after
        good = moments[quiet & whole]
        usable.append(np.stack([np.full(good.size, series), good], axis=1))
    # A series at random first, so that long ones do not crowd out the others.
    with_any = [rows for rows in usable if len(rows)]
    which = rng.integers(0, len(with_any), count)
    picked = [with_any[k][rng.integers(0, len(with_any[k]))] for k in which]
    return np.asarray(picked, dtype=np.intp)
