"""Reading series in long form from CSV and Parquet files."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tidegate_server.cli.exits import CouldNotLookError

if TYPE_CHECKING:
    import pandas as pd

REQUIRED = ("timestamp", "metric", "arm", "value")
OPTIONAL = ("phase", "instance", "total")
MAX_SECONDS = 253_402_300_799
"""The end of the year 9999: larger numbers are of another unit."""


def read_series(path: str) -> pd.DataFrame:
    """Return the long-form table in ``path``; ``-`` reads CSV from standard input.

    Columns: ``timestamp`` (ISO 8601, or seconds since 1970), ``metric``, ``arm`` (baseline, canary),
    ``value``, and optionally ``phase`` (pre, post), ``instance`` and ``total`` (for ratios). What the cells
    say is checked by the analysis, not here.

    Raises
    ------
    CouldNotLookError
        When there is no such file, it cannot be read as what its name says, it is empty, or columns are
        missing.
    """
    import pandas as pd

    name = "standard input" if path == "-" else path
    try:
        if path != "-" and Path(path).suffix.lower() in (".parquet", ".pq"):
            frame = _read_parquet(path)
        else:
            frame = _read_csv(sys.stdin if path == "-" else path)
    except FileNotFoundError:
        raise CouldNotLookError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise CouldNotLookError(f"{name}: is a folder, not a file") from None
    except pd.errors.EmptyDataError:
        raise CouldNotLookError(f"{name}: is empty; a header with {', '.join(REQUIRED)} is needed") from None
    except UnicodeError:
        raise CouldNotLookError(f"{name}: is not a text file in UTF-8; CSV is expected") from None
    except (OSError, ValueError) as error:
        raise CouldNotLookError(f"{name}: cannot be read: {first_line(error)}") from error
    missing = [column for column in REQUIRED if column not in frame.columns]
    if missing:
        raise CouldNotLookError(
            f"{name}: column {' and '.join(missing)} missing; "
            f"needed are {', '.join(REQUIRED)}, and {', '.join(OPTIONAL)} may be there; "
            f"found are {', '.join(map(str, frame.columns[:12]))}"
        )
    if frame.empty:
        raise CouldNotLookError(f"{name}: has a header but no rows")
    for column in ("value", "total"):
        if column in frame.columns and not pd.api.types.is_numeric_dtype(frame[column]):
            numbers = pd.to_numeric(frame[column], errors="coerce")
            bad = int((numbers.isna() & frame[column].notna()).to_numpy().argmax())
            raise CouldNotLookError(f"{name}: row {bad}: {column} {frame[column].iloc[bad]!r} is not a number")
    return frame.assign(timestamp=_times(name, frame["timestamp"]))


def _times(name: str, column: pd.Series) -> pd.Series:
    """Return a column of times: as numbers of seconds, or read from ISO 8601; empty cells stay empty.

    Raises
    ------
    CouldNotLookError
        When a cell is no time, or a number is no number of seconds.
    """
    import pandas as pd

    if pd.api.types.is_numeric_dtype(column):
        beyond = (column.abs() > MAX_SECONDS).to_numpy()
        if beyond.any():
            bad = int(beyond.argmax())
            raise CouldNotLookError(
                f"{name}: row {bad}: timestamp {column.iloc[bad]:.0f} lies beyond the year 9999; seconds since 1970"
                " are expected, not milliseconds or smaller"
            )
        return column
    if column.dtype.kind == "M":
        return column
    times = pd.to_datetime(column, utc=True, format="ISO8601", errors="coerce")
    unread = (times.isna() & column.notna()).to_numpy()
    if unread.any():
        bad = int(unread.argmax())
        raise CouldNotLookError(
            f"{name}: row {bad}: timestamp {str(column.iloc[bad])[:60]!r} is no time; ISO 8601 is expected, or seconds"
            " since 1970 in all rows"
        )
    return times


def _read_csv(source: str | TextIO) -> pd.DataFrame:
    import pandas as pd

    missing = ["", "nan", "NaN", "NAN"]
    with warnings.catch_warnings():
        # Rows longer than the header are cut with a warning only.
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(
                source,
                index_col=False,
                # "NA" or "null" may be a metric's name; only an empty cell and nan are missing.
                keep_default_na=False,
                na_values={"timestamp": [""], "value": missing, "total": missing},
                dtype={"metric": "str", "arm": "str", "phase": "str", "instance": "str"},
                skipinitialspace=True,
            )
        except pd.errors.ParserWarning:
            raise ValueError("a row has more cells than the header") from None


def _read_parquet(path: str) -> pd.DataFrame:
    import pandas as pd

    if not Path(path).is_file():
        raise FileNotFoundError(path)
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise CouldNotLookError(
            f"{path}: reading Parquet needs pyarrow; install it with: pip install 'tidegate[parquet]'"
        ) from None


def first_line(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
