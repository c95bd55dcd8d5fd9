"""The recorded rollouts in benchmarks/data, as tables and as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tidegate_analysis as ta
from numpy.typing import NDArray
from tidegate_server.cli.series_file import read_series
from tidegate_server.cli.specs import build_specs

Floats = NDArray[np.float64]
FOLDER = Path(__file__).resolve().parents[1] / "benchmarks" / "data" / "demo"
NAMES = ("healthy", "faulty")
STEP = 0.5
SPEC_FILE = FOLDER / "metrics.yaml"


@dataclass(frozen=True)
class Recording:
    """One recorded rollout.

    ``values`` and ``totals`` hold one array (metrics, points) per (arm, phase); NaN is missing, totals of
    latencies are NaN. ``start`` has the epoch seconds of the first column of each phase, ``step`` the seconds
    between columns.
    """

    specs: tuple[ta.MetricSpec, ...]
    values: dict[tuple[str, str], Floats]
    totals: dict[tuple[str, str], Floats]
    start: dict[str, float]
    step: float

    def blocks(self, phase: str) -> list[ta.Block]:
        """One block per arm of a phase, baseline first."""
        return [
            ta.Block(
                arm=arm,  # type: ignore[arg-type]
                phase=phase,  # type: ignore[arg-type]
                start=self.start[phase],
                step=self.step,
                values=self.values[arm, phase],
                exposure=self.totals[arm, phase],
            )
            for arm in ("baseline", "canary")
        ]


def path(name: str) -> Path:
    """The CSV file of a recording, ``healthy`` or ``faulty``."""
    return FOLDER / f"{name}.csv"


def frame(name: str) -> pd.DataFrame:
    """A recording in long form."""
    return read_series(str(path(name)))


def load(name: str) -> Recording:
    """A recording as arrays."""
    table = frame(name)
    names = list(dict.fromkeys(table["metric"]))
    moment = pd.to_datetime(table["timestamp"], format="ISO8601")
    seconds = ((moment - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)).to_numpy()
    row = table["metric"].map({metric: k for k, metric in enumerate(names)}).to_numpy()
    values, totals, start = {}, {}, {}
    for phase in ("pre", "post"):
        inside = (table["phase"] == phase).to_numpy()
        start[phase] = float(seconds[inside].min())
        # A scrape that was missed leaves a gap.
        column = np.rint((seconds - start[phase]) / STEP).astype(int)
        for arm in ("baseline", "canary"):
            at = inside & (table["arm"] == arm).to_numpy()
            shape = (len(names), int(column[inside].max()) + 1)
            for target, what in ((values, "value"), (totals, "total")):
                target[arm, phase] = np.full(shape, np.nan)
                target[arm, phase][row[at], column[at]] = table[what].to_numpy(dtype=float)[at]
    return Recording(build_specs(names, spec_file=str(SPEC_FILE)), values, totals, start, STEP)
