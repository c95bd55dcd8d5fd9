"""``tidegate analyze``: verdicts, exit codes, both outputs, and what bad files get."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tidegate.v1 import evaluation_service_pb2, findings_pb2
from tidegate_server import cli
from tidegate_server.cli.exits import Exit

METRICS = ["checkout_latency_p95", "search_latency_p95"]
START = 1_770_000_000


def series(path: Path, change: float = 1.0, points: int = 60, noise: float = 0.03, **columns: object) -> Path:
    """Write two metrics of both arms, the first changed by a factor on the canary."""
    rng = np.random.default_rng(11)
    rows = []
    for metric, factor in zip(METRICS, (change, 1.0), strict=True):
        weather = rng.normal(0.0, 0.1, points)
        for arm, by in (("baseline", 1.0), ("canary", factor)):
            values = 80.0 * by * np.exp(weather + rng.normal(0.0, noise, points))
            rows += [
                {"timestamp": START + 10 * k, "metric": metric, "arm": arm, "value": float(value), **columns}
                for k, value in enumerate(values)
            ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("change", "points", "noise", "verdict", "code"),
    [
        (1.0, 60, 0.03, "PASS", Exit.PROCEED),
        (1.4, 60, 0.03, "FAIL", Exit.HALT),
        (1.0, 12, 0.4, "INCONCLUSIVE", Exit.HOLD),
    ],
)
def test_the_exit_code_is_the_decision(
    tmp_path: Path,
    change: float,
    points: int,
    noise: float,
    verdict: str,
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = str(series(tmp_path / "a.csv", change, points, noise))
    assert cli.main(["analyze", path, "--direction", "up-is-worse"]) == code
    table = capsys.readouterr().out
    assert verdict in table
    assert f"(exit code {int(code)})" in table
    assert "\x1b" not in table
    assert cli.main(["analyze", path, "--direction", "up-is-worse", "--output", "json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == verdict
    assert answer["decision"] == {"PASS": "PROCEED", "FAIL": "HALT", "INCONCLUSIVE": "HOLD"}[verdict]
    assert [finding["metric"] for finding in answer["findings"]] == [
        "checkout_latency_p95",
        "search_latency_p95",
    ]
    assert answer["sentence"] in table


def test_json_has_every_field_of_the_contract_in_plain_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(series(tmp_path / "a.csv", 1.4))
    cli.main(["analyze", path, "--output", "json", "--deployed-at", str(START)])
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == [field.name for field in evaluation_service_pb2.AnalyzeResponse.DESCRIPTOR.fields]
    finding = answer["findings"][0]
    assert list(finding) == [field.name for field in findings_pb2.Finding.DESCRIPTOR.fields]
    assert answer["design"] == "CONCURRENT"
    assert finding["spec"]["kind"] == "GAUGE"
    assert "kind" in finding["derived_fields"]
    assert finding["effect"] == pytest.approx(0.4, abs=0.03)
    assert finding["onset"]["time"].endswith("Z")
    assert finding["onset"]["after_deployment"] == pytest.approx(0.0, abs=20.0)
    assert finding["log_e_value"] is None


def test_options_reach_the_analysis(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(series(tmp_path / "a.csv", 1.2))
    up = ["--direction", "up-is-worse"]
    assert cli.main(["analyze", path, *up]) == Exit.HALT
    assert cli.main(["analyze", path, *up, "--margin", "checkout_latency_p95=40%"]) == Exit.PROCEED
    assert cli.main(["analyze", path, "--direction", "down-is-worse"]) == Exit.PROCEED
    spec = tmp_path / "spec.yaml"
    spec.write_text("metrics:\n  checkout_latency_p95: {margin: 40%, direction: up_is_worse}\n")
    assert cli.main(["analyze", path, "--spec", str(spec)]) == Exit.PROCEED
    capsys.readouterr()
    assert cli.main(["analyze", path, "--spec", str(spec), "--output", "json"]) == Exit.PROCEED
    assert json.loads(capsys.readouterr().out)["findings"][0]["spec"]["margin"] == 0.4
    cli.main(["analyze", path, "--warm-up", "300", "--deployed-at", str(START), "--output", "json"])
    assert json.loads(capsys.readouterr().out)["findings"][0]["canary_points"] == 30


def test_points_before_the_deployment_are_the_past(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(series(tmp_path / "a.csv"))
    cli.main(["analyze", path, "--deployed-at", str(START + 400), "--output", "json"])
    assert json.loads(capsys.readouterr().out)["findings"][0]["canary_points"] == 20


def test_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = series(tmp_path / "a.csv", 1.4).read_text()
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert cli.main(["analyze", "-", "--direction", "up-is-worse"]) == Exit.HALT


def test_as_a_process_without_colour_or_traceback(tmp_path: Path) -> None:
    path = series(tmp_path / "a.csv", 1.4)
    program = [str(Path(sys.executable).parent / "tidegate"), "analyze"]
    done = subprocess.run([*program, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (Exit.HALT, "")
    assert "\x1b" not in done.stdout
    done = subprocess.run([*program, str(tmp_path / "none.csv")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (Exit.COULD_NOT_LOOK, "")
    assert done.stderr == f"tidegate: {tmp_path / 'none.csv'}: no such file\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.assign(arm="blue"), "arm: 'blue' is neither baseline nor canary"),
        (lambda frame: frame.assign(phase="later"), "phase: 'later' is neither pre nor post"),
        (lambda frame: frame.assign(timestamp="yesterday"), "row 0: timestamp 'yesterday' is no time; ISO 8601"),
        (
            lambda frame: frame.assign(timestamp=frame["timestamp"].where(frame.index > 3)),
            "timestamp: row 0 has no time",
        ),
    ],
)
def test_bad_cells_name_their_column(
    tmp_path: Path, change: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = series(tmp_path / "a.csv")
    change(pd.read_csv(path)).to_csv(path, index=False)  # type: ignore[operator]
    assert cli.main(["analyze", str(path)]) == Exit.COULD_NOT_LOOK
    text = capsys.readouterr().err
    assert said in text
    assert text.count("\n") == 1


def test_one_silent_arm_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = series(tmp_path / "a.csv")
    frame = pd.read_csv(path)
    for arm in ("baseline", "canary"):
        frame.assign(value=frame["value"].mask(frame["arm"] == arm)).to_csv(path, index=False)
        assert cli.main(["analyze", str(path), "--direction", "up-is-worse"]) == Exit.HOLD
    assert "INCONCLUSIVE" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--q", "0.7"], "--q: must lie between 0 and 0.5"),
        (["--warm-up", "-1"], "--warm-up: must be at least 0"),
        (["--warm-up", "nan"], "--warm-up: must be at least 0"),
        (["--deployed-at", "soon"], "--deployed-at: 'soon' is no time"),
        (["--design", "random"], "'random' is not one of"),
        (["--margin", "none=1"], "there is no metric 'none'"),
    ],
)
def test_wrong_options_are_usage(
    tmp_path: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(series(tmp_path / "a.csv"))
    assert cli.main(["analyze", path, *options]) == Exit.USAGE
    assert said in capsys.readouterr().err
