"""The recorded rollouts: what analyze and a stream say of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tidegate_analysis as ta
from tidegate_server import cli
from tidegate_server.cli.exits import Exit
from tidegate_server.demo.rollout import specs
from tidegate_server.demo.scrape import METRICS

from tests import recordings


def test_recordings_are_whole_and_small() -> None:
    size = sum(path.stat().st_size for path in recordings.FOLDER.iterdir())
    assert size < 300_000
    for name in recordings.NAMES:
        recording = recordings.load(name)
        assert [spec.name for spec in recording.specs] == [metric.name for metric in METRICS]
        for (arm, phase), values in recording.values.items():
            assert values.shape == ((4, 40) if phase == "pre" else (4, 80)), (arm, phase)
            assert np.isnan(values).mean() < 0.02


def test_their_specs_are_those_of_the_demo() -> None:
    assert recordings.load("healthy").specs == tuple(specs())


@pytest.mark.parametrize(
    ("name", "verdict", "code"), [("healthy", "PASS", Exit.PROCEED), ("faulty", "FAIL", Exit.HALT)]
)
def test_analyze_judges_them_right(name: str, verdict: str, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    path, spec = str(recordings.path(name)), str(recordings.SPEC_FILE)
    assert cli.main(["analyze", path, "--spec", spec, "--warm-up", "1", "--output", "json"]) == code
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == verdict
    failing = {finding["metric"] for finding in answer["findings"] if finding["verdict"] == "FAIL"}
    assert failing == ({"checkout_latency_p95", "shop_error_ratio"} if name == "faulty" else set())


@pytest.mark.parametrize("name", recordings.NAMES)
def test_what_nobody_specified_is_derived(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["analyze", str(recordings.path(name)), "--output", "json"])
    findings = {finding["metric"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}
    assert findings["cart_latency_p95"]["spec"]["kind"] == "GAUGE"
    assert findings["shop_error_ratio"]["spec"]["kind"] == "RATIO"
    assert {finding["spec"]["direction"] for finding in findings.values()} == {"UP_IS_WORSE"}
    wrong = {metric for metric, finding in findings.items() if finding["verdict"] == "FAIL"}
    assert wrong == ({"checkout_latency_p95", "shop_error_ratio"} if name == "faulty" else set())


@pytest.mark.parametrize(("name", "verdict"), [("healthy", ta.Verdict.PASS), ("faulty", ta.Verdict.FAIL)])
def test_streamed_they_end_as_the_demo_does(name: str, verdict: ta.Verdict) -> None:
    recording = recordings.load(name)
    live = ta.LiveEvaluation(
        recording.specs,
        design="concurrent",
        warm_up=1.0,
        horizon_seconds=25.0,
        deployed_at=recording.start["post"] - recording.step + 0.01,
    )
    for phase in ("pre", "post"):
        for block in recording.blocks(phase):
            live.add(block)
    assert live.judge().verdict == verdict
