"""Keeping what the demo streamed, in the long form that ``tidegate analyze`` reads."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from tidegate_server.demo.scrape import ARMS, METRICS, Column

HEADER = ("timestamp", "metric", "arm", "value", "phase", "total")


def write(path: Path, columns: Iterable[tuple[str, Column]]) -> None:
    """Write ``(phase, column)`` pairs, phase ``pre`` or ``post``, as CSV; a missing value is an empty cell.

    Raises
    ------
    OSError
        When the file cannot be written.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for phase, column in columns:
            time = datetime.fromtimestamp(column.time, UTC).isoformat(timespec="milliseconds")
            for k, arm in enumerate(ARMS):
                for metric, value, total in zip(METRICS, column.values[k], column.totals[k], strict=True):
                    cells = (_cell(value), phase, _cell(total) if metric.is_ratio else "")
                    writer.writerow((time.replace("+00:00", "Z"), metric.name, arm, *cells))


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
