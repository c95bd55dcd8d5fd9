"""Findings as text and as plain JSON."""

from __future__ import annotations

import io
import json
import math

import pytest
from rich.console import Console
from rich.live import Live
from tidegate.v1 import evaluation_service_pb2, evaluations_pb2, findings_pb2, metrics_pb2
from tidegate_server.cli import console, render
from tidegate_server.cli.demo import Screen
from tidegate_server.cli.evaluation import show_list
from tidegate_server.cli.exits import Exit
from tidegate_server.cli.plain import plain, word
from tidegate_server.demo.rollout import ROLLOUTS, Outcome, Update


def finding(**fields: object) -> findings_pb2.Finding:
    spec = metrics_pb2.MetricSpec(name="m", kind=1, scale=1, margin=0.1, unit="ms")
    values = {"metric": "m", "verdict": 2, "sentence": "m is worse.", "effect": 0.5, "spec": spec} | fields
    return findings_pb2.Finding(**values)  # type: ignore[arg-type]


LOG = finding()
SHARE = finding(spec=metrics_pb2.MetricSpec(kind=3, scale=2, margin=0.005, unit="1"))
LINEAR = finding(spec=metrics_pb2.MetricSpec(kind=1, scale=2, margin=3.0, unit="MB"))


@pytest.mark.parametrize(
    ("one", "value", "said"),
    [
        (LOG, 0.1234, "+12.3 %"),
        (LOG, -0.5, "-50 %"),
        (LOG, 23.0, "+2300 %"),
        (SHARE, 0.0123, "+1.23 pp"),
        (LINEAR, -4.2, "-4.2 MB"),
        (LOG, None, "-"),
        (LOG, math.nan, "-"),
        (LOG, math.inf, "inf"),
        (LOG, -math.inf, "-inf"),
    ],
)
def test_changes_speak_the_metrics_terms(one: findings_pb2.Finding, value: float | None, said: str) -> None:
    assert render.change(one, value) == said


def test_levels_and_words() -> None:
    assert render.level(LOG, 88.123) == "88.12 ms"
    assert render.level(SHARE, 0.0123) == "1.23 %"
    assert render.level(LOG, math.inf) == render.level(LOG, None) == "-"
    assert [render.verdict_word(number) for number in range(6)] == ["-", "PASS", "FAIL", "INCONCLUSIVE", "ERROR", "-"]
    assert [render.decision_word(number) for number in range(4)] == ["-", "PROCEED", "HALT", "HOLD"]


@pytest.mark.parametrize(
    ("verdict", "decision", "code"),
    [
        (1, 1, Exit.PROCEED),
        (2, 2, Exit.HALT),
        (3, 3, Exit.HOLD),
        (4, 3, Exit.COULD_NOT_LOOK),
        (2, 1, Exit.PROCEED),
        (4, 1, Exit.PROCEED),
        (0, 0, Exit.COULD_NOT_LOOK),
        (7, 7, Exit.COULD_NOT_LOOK),
    ],
)
def test_the_decision_is_the_exit_code_of_dry_runs_too(verdict: int, decision: int, code: int) -> None:
    assert render.exit_code(verdict, decision) == code


def test_plain_says_everything_and_is_json() -> None:
    one = finding(p_value=math.nan, effect_high=math.inf, time_to_answer={"seconds": 90, "nanos": 500_000_000})
    one.onset.time.FromJsonString("2026-05-01T12:41:00.5Z")
    one.quality.add(code="gaps", count=3, message="3 scrapes are missing")
    said = plain(one)
    json.dumps(said, allow_nan=False)
    assert list(said) == [field.name for field in findings_pb2.Finding.DESCRIPTOR.fields]
    assert said["verdict"] == "FAIL"
    assert said["p_value"] is None
    assert said["effect_high"] is None
    assert said["effect_low"] is None
    assert said["time_to_answer"] == 90.5
    assert said["onset"]["time"] == "2026-05-01T12:41:00.500Z"
    assert said["onset"]["after_deployment"] is None
    assert said["quality"] == [{"code": "gaps", "count": 3, "message": "3 scrapes are missing"}]
    assert said["spec"]["kind"] == "GAUGE"
    assert said["spec"]["direction"] is None
    assert plain(evaluation_service_pb2.AnalyzeResponse())["findings"] == []


def test_an_enum_value_of_a_newer_server_is_null() -> None:
    assert word(findings_pb2.Verdict.DESCRIPTOR, 99) is None


def test_the_table_has_a_row_per_finding() -> None:
    file = io.StringIO()
    Console(file=file, width=120).print(render.findings_table([LOG, SHARE]))
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["m", "-", "-", "+50", "%", "-", "10", "%", "FAIL"]


def test_an_onset_is_said_when_it_is_known() -> None:
    one = finding()
    assert render.onset(one) == ""
    one.onset.after_deployment.FromMilliseconds(1450)
    assert render.onset(one) == "m began to differ 1.45 s after the deployment"


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    def said(file: io.StringIO) -> str:
        monkeypatch.setattr("sys.stdout", file)
        console.out().print(render.styled_verdict(2))
        return file.getvalue()

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in said(Terminal())
    assert "\x1b[" not in said(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31m" not in said(Terminal())


def test_the_screen_leaves_every_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    file = io.StringIO()
    to = Console(file=file, force_terminal=True, width=100, height=40)
    with Live(console=to, auto_refresh=False, transient=True) as live:
        screen = Screen(to, live)
        screen.stage("v1 beside v1")
        screen.scraped(-2.0)
        screen.deployed(ROLLOUTS[1])
        screen.updated(Update(verdict=3, sentence="INCONCLUSIVE: too early."), [LOG])  # type: ignore[arg-type]
        live.refresh()
        screen.ended(Outcome(ROLLOUTS[1], 3, 3, "INCONCLUSIVE: too early.", 4.2, [finding(verdict=3)], []))
    text = file.getvalue()
    for said in ("INCONCLUSIVE: too early.", "HOLD, 4.2 s after the deployment", "expected FAIL", "m is worse."):
        assert said in text


def test_a_list_of_evaluations_is_readable_on_any_terminal():
    """An id that is cut into four lines cannot be copied."""
    made = evaluations_pb2.Evaluation(
        name=f"evaluations/{'a1b2' * 8}",
        state=evaluations_pb2.EVALUATION_STATE_SUCCEEDED,
        verdict=findings_pb2.VERDICT_INCONCLUSIVE,
        decision=findings_pb2.DECISION_HALT,
    )
    made.deployment.service, made.deployment.environment, made.deployment.version = "checkout", "production", "2.14.1"
    made.create_time.FromJsonString("2026-05-01T12:00:00.123456Z")
    made.override.decision = findings_pb2.DECISION_HALT
    running = evaluations_pb2.Evaluation(name="evaluations/b", state=evaluations_pb2.EVALUATION_STATE_RUNNING)
    for width in (80, 160):
        to = Console(file=io.StringIO(), width=width)
        show_list([made, running], to)
        text = to.file.getvalue()
        for part in ("a1b2" * 8, "INCONCLUSIVE", "HALT (overridden)", "2026-05-01T12:00:00Z", "RUNNING", "checkout"):
            assert part in text, (width, text)
        assert all(len(line) <= width for line in text.splitlines())
