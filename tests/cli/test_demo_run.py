"""The demo as a whole: its course, its answer, and that it leaves nothing running."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from tidegate.v1 import findings_pb2
from tidegate_server.cli import demo as demo_command
from tidegate_server.cli.exits import Exit
from tidegate_server.cli.series_file import read_series
from tidegate_server.demo.rollout import ROLLOUTS, DemoError, Outcome, Plan, Rollout, Update, run
from tidegate_server.demo.scrape import METRICS

PROGRAM = [str(Path(sys.executable).parent / "tidegate"), "demo"]


class Notes:
    """A watcher that writes everything down, and says it as lines too."""

    def __init__(self, lines: demo_command.Lines) -> None:
        self.lines = lines
        self.events: list[str] = []
        self.outcomes: list[Outcome] = []

    def stage(self, text: str) -> None:
        self.events.append("stage")
        self.lines.stage(text)

    def scraped(self, seconds: float) -> None:
        self.events.append("scraped")
        self.lines.scraped(seconds)

    def deployed(self, rollout: Rollout) -> None:
        self.events.append(f"deployed {rollout.key}")
        self.lines.deployed(rollout)

    def updated(self, update: Update, findings: list[findings_pb2.Finding]) -> None:
        self.events.append("final" if update.final else "updated")
        self.lines.updated(update, findings)

    def ended(self, outcome: Outcome) -> None:
        self.events.append(f"ended {outcome.rollout.key}")
        self.outcomes.append(outcome)
        self.lines.ended(outcome)


def test_a_shortened_demo_runs_its_course(tmp_path: Path) -> None:
    """Real processes, traffic and streams, too short for verdicts to be sure."""
    with (tmp_path / "said").open("w") as file:
        notes = Notes(demo_command.Lines(Console(file=file, width=160)))
        plan = Plan(step=0.1, settle=0.2, before=0.5, warm_up=0.1, horizon=1.5)
        outcomes = run(plan, notes, tmp_path)
    assert [outcome.rollout.key for outcome in outcomes] == ["healthy", "faulty"]
    assert outcomes == notes.outcomes
    course = [event for event in notes.events if event.startswith(("stage", "deployed", "final", "ended"))]
    assert course == [
        "stage",
        "stage",
        "deployed healthy",
        "final",
        "ended healthy",
        "deployed faulty",
        "final",
        "ended faulty",
    ]
    for outcome in outcomes:
        assert [finding.metric for finding in outcome.findings] == [metric.name for metric in METRICS]
        assert {group.group for group in outcome.groups} == {"checkout", "search", "cart", "shop"}
        assert outcome.verdict in findings_pb2.Verdict.values()[1:4]
        assert 0 < outcome.seconds < 30
        frame = read_series(str(tmp_path / f"{outcome.rollout.key}.csv"))
        assert set(frame["phase"]) == {"pre", "post"}
        assert frame.loc[frame["metric"] == "shop_error_ratio", "total"].gt(0).any()
    answer = demo_command.as_json(outcomes)
    assert set(answer) == {"healthy", "faulty"}
    assert json.loads(json.dumps(answer, allow_nan=False))["faulty"]["findings"][0]["metric"] == METRICS[0].name
    said = (tmp_path / "said").read_text()
    assert "rollout 2 of 2" in said
    assert outcomes[1].sentence in said


def descendants(pid: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_whatever_ends_the_demo_ends_its_processes(number: signal.Signals) -> None:
    # A test run in the background ignores SIGINT, and its children would too.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tidegate_server.cli import main; sys.exit(main(['demo', '--json']))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stderr is not None
        assert demo.stdout is not None
        while "v1 beside v1" not in (line := demo.stderr.readline()):
            assert line, "the demo ended by itself"
        pids = descendants(demo.pid)
        assert len(pids) >= 6  # the server, four shops, the users
        os.kill(demo.pid, number)
        assert demo.stdout.read() == ""
        rest = demo.stderr.read()
    assert demo.returncode == (-signal.SIGKILL if number == signal.SIGKILL else Exit.INTERRUPTED)
    assert "Traceback" not in rest
    deadline = time.monotonic() + 60.0
    while not all(ended(pid) for pid in pids):
        assert time.monotonic() < deadline, [pid for pid in pids if not ended(pid)]
        time.sleep(0.02)


def test_what_cannot_start_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tidegate_server.demo.rollout.GATE", "tidegate_server.demo.no_such_module")
    with pytest.raises(DemoError, match=r"Tidegate did not start: .*no_such_module"):
        run(Plan(), Notes(demo_command.Lines(Console(quiet=True))))


def test_a_folder_that_cannot_be_made_is_usage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tidegate_server import cli

    (tmp_path / "file").write_text("")
    assert cli.main(["demo", "--record", str(tmp_path / "file" / "x")]) == Exit.USAGE
    assert "--record" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demo_ends_as_it_should_within_a_minute(tmp_path: Path) -> None:
    began = time.monotonic()
    done = subprocess.run(
        [*PROGRAM, "--json", "--record", str(tmp_path)], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == Exit.PROCEED, done.stderr
    assert time.monotonic() - began < 60
    answer = json.loads(done.stdout)
    healthy, faulty = answer["healthy"], answer["faulty"]
    assert (healthy["verdict"], healthy["decision"]) == ("PASS", "PROCEED")
    assert (faulty["verdict"], faulty["decision"]) == ("FAIL", "HALT")
    assert faulty["seconds_to_verdict"] < 25
    failing = [finding for finding in faulty["findings"] if finding["verdict"] == "FAIL"]
    assert {finding["metric"] for finding in failing} <= {"checkout_latency_p95", "shop_error_ratio"}
    latency = next(finding for finding in faulty["findings"] if finding["metric"] == "checkout_latency_p95")
    assert 0.3 < latency["effect"] < 0.9
    assert all(-5 < finding["onset"]["after_deployment"] < 10 for finding in failing)
    assert [rollout.key for rollout in ROLLOUTS] == list(answer)
