"""The frame of the command line: help, version, errors, exit codes; only what is needed is imported."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from tidegate_server import cli
from tidegate_server.cli import console
from tidegate_server.cli.exits import CouldNotLookError, Exit


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, BaseException]]:
    """A command ``fail`` that raises what is put under "error"."""
    box: dict[str, BaseException] = {}

    @click.command("fail")
    def fail() -> None:
        raise box["error"]

    module = type(sys)("tests_failing_command")
    module.fail = fail  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tests_failing_command", module)
    monkeypatch.setitem(cli.COMMANDS, "fail", ("tests_failing_command", "fail", "Fails."))
    return box  # type: ignore[return-value]


@click.command("fail")
def printing() -> None:
    """Print something as commands do."""
    console.out().print("something")


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    for name, (_, _, line) in cli.COMMANDS.items():
        assert name in text
        assert line.split(".")[0] in text


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert "Usage: tidegate " + name in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"tidegate {version('tidegate')}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, json; from tidegate_server.cli import main; main(['--help']); "
        "print(json.dumps([m for m in ('numpy', 'pandas', 'grpc', 'scipy', 'rich') if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == []


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"], ["analyze"], []])
def test_wrong_use_is_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(arguments) == Exit.USAGE
    assert "Usage: tidegate" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (CouldNotLookError("x.csv: no such file"), Exit.COULD_NOT_LOOK, "tidegate: x.csv: no such file"),
        (click.UsageError("--q: wrong"), Exit.USAGE, "--q: wrong"),
        (click.FileError("x", "gone"), Exit.COULD_NOT_LOOK, "gone"),
        (RuntimeError("line one\nline two"), Exit.COULD_NOT_LOOK, "internal error, RuntimeError: line one"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted"),
        (BrokenPipeError(), Exit.COULD_NOT_LOOK, ""),
    ],
)
def test_errors_are_one_sentence_and_never_look_like_a_verdict(
    failing: dict[str, BaseException],
    error: BaseException,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    failing["error"] = error
    assert cli.main(["fail"]) == code
    assert code not in (Exit.PROCEED, Exit.HALT)
    text = capsys.readouterr().err
    assert said in text
    assert "Traceback" not in text
    assert "line two" not in text


def test_a_reader_that_went_away_never_looks_like_a_verdict(
    failing: dict[str, BaseException],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As with ``| head``: rich would end with 1, which is HALT."""

    class Gone(io.StringIO):
        def write(self, _: str) -> int:
            raise BrokenPipeError

        def fileno(self) -> int:
            return unused

    reading, unused = os.pipe()
    monkeypatch.setattr("sys.stdout", Gone())
    monkeypatch.setattr(sys.modules["tests_failing_command"], "fail", printing)
    try:
        assert cli.main(["fail"]) == Exit.COULD_NOT_LOOK
    finally:
        os.close(reading)
        os.close(unused)


@pytest.mark.parametrize("arguments", [["--debug", "fail"], ["fail", "--debug"]])
def test_debug_shows_the_traceback(
    failing: dict[str, BaseException], arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    failing["error"] = RuntimeError("line one")
    assert cli.main(arguments) == Exit.COULD_NOT_LOOK
    assert "Traceback" in capsys.readouterr().err


def test_serve_offers_every_setting_and_refuses_plaintext_beyond_loopback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    import dataclasses

    from tidegate_server.cli.serve import descriptions, options
    from tidegate_server.config import Config

    names = [field.name for field in dataclasses.fields(Config)]
    assert [option.name for option in options()] == names
    assert set(names) <= set(descriptions())
    assert cli.main(["serve", "--address", "0.0.0.0:7443"]) == Exit.USAGE
    assert "no TLS" in capsys.readouterr().err
    assert cli.main(["serve", "--workers", "0"]) == Exit.USAGE
    assert "workers: must be at least 1" in capsys.readouterr().err
