"""The example in docs/examples/gate runs as its page says, against a server of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tidegate_server import cli
from tidegate_server.cli.exits import Exit
from tidegate_server.demo import processes

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "examples" / "gate"
PAGE = FOLDER.parents[1] / "gates.md"


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """Variables with which the example finds a server and this program."""
    with processes.Children() as children:
        address = children.first_line(children.start("tidegate_server.demo.gate"), "Tidegate")
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        yield {**os.environ, "TIDEGATE_SERVER": address, "PATH": path}


@pytest.fixture(scope="module")
def walked(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "walkthrough.sh"],
        env=environment,
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_the_walkthrough_ends_in_halt(walked: subprocess.CompletedProcess[str]) -> None:
    assert walked.returncode == Exit.HALT, walked.stderr
    for said in (
        "1 applied, 0 unchanged",
        "PASS         alarms are quiet",
        "PASS         storage has room (hold only)",
        "FAIL         no regression",
        "decision: HALT (exit code 1)",
    ):
        assert said in walked.stdout
    assert "Traceback" not in walked.stderr


def test_its_page_shows_its_script_and_its_gate() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in ("gates.yaml", "rules.yaml"):
        assert (FOLDER / name).read_text(encoding="utf-8") in page, name
    script = (FOLDER / "walkthrough.sh").read_text(encoding="utf-8")
    commands = [line for line in script.splitlines() if line.startswith("tidegate ")]
    assert commands
    for command in commands:
        assert command in page, command


def test_watchers_that_leave_do_not_end_the_server(
    environment: dict[str, str],
    walked: subprocess.CompletedProcess[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert walked.returncode == Exit.HALT
    monkeypatch.setenv("TIDEGATE_SERVER", environment["TIDEGATE_SERVER"])
    assert cli.main(["evaluation", "list"]) == 0
    evaluation = capsys.readouterr().out.splitlines()[1].split()[0]
    for _ in range(5):
        assert cli.main(["evaluation", "watch", evaluation]) == Exit.HALT


def test_a_ci_job_without_a_stored_gate(
    environment: dict[str, str],
    walked: subprocess.CompletedProcess[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert walked.returncode == Exit.HALT
    monkeypatch.setenv("TIDEGATE_SERVER", environment["TIDEGATE_SERVER"])
    rules = str(FOLDER / "rules.yaml")
    evaluate = ["evaluate", "--service", "shop", "--env", "prod", "--version", "v3", "-f", rules]
    assert cli.main(evaluate) == Exit.PROCEED
    push = ["monitor", "push", "--id", "queue", "--tag", "service:shop", "--tag", "env:prod", "--state", "alert"]
    assert cli.main(push) == 0
    capsys.readouterr()
    assert cli.main(evaluate) == Exit.HALT
    assert "was in ALERT" in capsys.readouterr().out
