"""The README keeps its word: its snippets run, its tables and links are true."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest
from tidegate_server.app import Server
from tidegate_server.cli import COMMANDS
from tidegate_server.cli.exits import Exit

from tests.interop.test_interop_node import modules as node_modules  # noqa: F401 - a fixture

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]
ADDRESS = "127.0.0.1:7443"


def snippets(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_python_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    code = next(code for code in snippets("python") if ADDRESS not in code)
    exec(compile(code, "README.md", "exec"), {})
    said = capsys.readouterr().out
    assert said.startswith("FAIL (1 of 2 metrics): ")
    assert re.search(r"checkout_latency_p95 is \d+ % above the baseline", said)


def test_python_over_grpc(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    codes = [code for code in snippets("python") if ADDRESS in code]
    assert codes
    for code in codes:
        exec(compile(code.replace(ADDRESS, server.target), "README.md", "exec"), {})
        said = capsys.readouterr().out
        assert "checkout_latency_p95" in said
        assert "FAIL" in said


@pytest.mark.node
def test_node_over_grpc(server: Server, node_modules: Path, tmp_path: Path) -> None:  # noqa: F811
    codes = snippets("js")
    assert codes
    for code in codes:
        script = tmp_path / "readme.cjs"
        script.write_text(code.replace(ADDRESS, server.target))
        done = subprocess.run(
            ["node", str(script)],
            cwd=ROOT,
            env={**os.environ, "NODE_PATH": str(node_modules)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("VERDICT_FAIL DECISION_HALT FAIL: checkout_latency_p95")


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _, fragment = target.partition("#")
            found = page.parent / path if path else page
            assert found.exists(), f"{page.name} links to {target}"
            assert not fragment or fragment in anchors(found), f"{page.name} links to {target}"


def test_the_readme_shows_the_walkthrough_as_it_is() -> None:
    script = (ROOT / "docs" / "examples" / "gate" / "walkthrough.sh").read_text(encoding="utf-8")
    steps = script[script.index("tidegate gate apply") :]
    shown = next(code for code in snippets("sh") if "tidegate gate apply" in code)
    kept = [line for line in steps.splitlines() if line and not line.startswith("# Follows")]
    assert [line for line in shown.splitlines() if line] == ["cd docs/examples/gate", *kept]


def test_the_picture_shows_the_verdicts_of_the_recordings() -> None:
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("forming", ROOT / "docs" / "pictures" / "forming.py")
    assert spec is not None
    assert spec.loader is not None
    forming = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(forming)
    picture = (ROOT / "docs" / "pictures" / "forming.svg").read_text(encoding="utf-8")
    for name, verdict in (("healthy", "PASS"), ("faulty", "FAIL")):
        assert forming.looks(name)[-1][4] == verdict
        assert re.search(rf">{verdict} after [\d.]+ s<", picture), "make pictures draws it anew"


def test_every_command_and_exit_code_is_told() -> None:
    told = set(re.findall(r"^\| `tidegate (\S+?)[ `]", README, re.MULTILINE))
    assert told == set(COMMANDS)
    numbers = {int(n) for n in re.findall(r"(\d) (?:proceed|halt|usage|hold|could not look)", README)}
    assert numbers == {int(code) for code in Exit} - {Exit.INTERRUPTED}


def test_every_make_target_that_is_told_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        assert set(re.findall(r"`make ([a-z-]+)", page.read_text(encoding="utf-8"))) <= targets


def test_settings_that_are_told_exist() -> None:
    import dataclasses

    from tidegate_server.config import Config

    flags = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(Config)}
    told = set(re.findall(r"`(--[a-z-]+)", (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")))
    assert told
    assert told <= flags
