"""Reading series from files: what is there comes back, what is wrong is said in one sentence."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from tidegate_server.cli.exits import CouldNotLookError
from tidegate_server.cli.series_file import read_series

CSV = """timestamp,metric,arm,value,phase
2026-05-01T12:00:00Z,NA,baseline,1.5,post
2026-05-01T12:00:00Z,NA,canary,,post
2026-05-01T12:01:00Z,null,canary,nan,post
"""


def test_csv_from_file_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "series.csv"
    path.write_text(CSV)
    frame = read_series(str(path))
    assert frame["metric"].tolist() == ["NA", "NA", "null"]
    assert frame["value"].isna().tolist() == [False, True, True]
    monkeypatch.setattr("sys.stdin", io.StringIO(CSV))
    assert read_series("-").equals(frame)


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "series.csv").write_text(CSV)
    frame = read_series(str(tmp_path / "series.csv"))
    frame.to_parquet(tmp_path / "series.parquet")
    again = read_series(str(tmp_path / "series.parquet"))
    assert again.astype({"value": float}).to_dict("list").keys() == frame.to_dict("list").keys()
    assert again["metric"].tolist() == frame["metric"].tolist()
    assert again["value"].isna().tolist() == frame["value"].isna().tolist()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", b"", "is empty; a header with timestamp, metric, arm, value is needed"),
        ("a.csv", b"timestamp,metric,arm,value\n", "has a header but no rows"),
        ("a.csv", b"time,metric,arm\n1,a,canary\n", "column timestamp and value missing"),
        (
            "a.csv",
            b"timestamp,metric,arm,value\n1,a,canary,3\n2,a,canary,fast\n",
            "row 1: value 'fast' is not a number",
        ),
        (
            "a.csv",
            b"timestamp,metric,arm,value,total\n1,a,canary,3,many\n",
            "row 0: total 'many' is not a number",
        ),
        (
            "a.csv",
            b"timestamp,metric,arm,value\n1,a,canary,3,4,5\n2,a,canary,3\n",
            "more cells than the header",
        ),
        (
            "a.csv",
            b"timestamp,metric,arm,value\n1764000000,a,canary,3\n1764000000000,a,canary,3\n",
            "row 1: timestamp 1764000000000 lies beyond the year 9999; seconds since 1970 are expected, not milli",
        ),
        (
            "a.csv",
            b"timestamp,metric,arm,value\n2026-05-01T12:00:00Z,a,canary,3\n1764000000,a,canary,3\n",
            "row 1: timestamp '1764000000' is no time; ISO 8601 is expected, or seconds since 1970 in all rows",
        ),
        ("a.csv", b"\xff\xfe\x00\x01", "not a text file in UTF-8"),
        ("a.parquet", b"PAR1 not really", "cannot be read"),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CouldNotLookError) as caught:
        read_series(str(path))
    assert said in caught.value.message
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message


def test_standard_input_that_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    odd = io.TextIOWrapper(io.BytesIO(bytes(range(256)) * 4), encoding="utf-8", errors="surrogateescape")
    monkeypatch.setattr("sys.stdin", odd)
    with pytest.raises(CouldNotLookError, match="standard input: is not a text file in UTF-8"):
        read_series("-")


def test_times_in_several_zones_are_one_time() -> None:
    text = "timestamp,metric,arm,value\n2026-05-01T12:00:00Z,a,canary,1\n2026-05-01T14:00:00+02:00,a,baseline,1\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.stdin", io.StringIO(text))
        times = read_series("-")["timestamp"]
    assert times[0] == times[1]


def test_what_is_no_file(tmp_path: Path) -> None:
    for name in ("none.csv", "none.parquet"):
        with pytest.raises(CouldNotLookError, match="no such file"):
            read_series(str(tmp_path / name))
    with pytest.raises(CouldNotLookError, match="is a folder"):
        read_series(str(tmp_path))
