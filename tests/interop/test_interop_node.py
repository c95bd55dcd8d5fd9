"""A client that is not Python: Node.js with @grpc/grpc-js, unary and streaming."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tidegate_analysis as ta
from tidegate_server.app import Server

from tests.server.harness import START, STEP, arms, specs

HERE = Path(__file__).with_name("node")
ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.node


def missing(what: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(f"{what}; CI runs the tests with Node.js too")
    pytest.skip(what)


@pytest.fixture(scope="module")
def modules() -> Path:
    """The folder of the installed packages; installed anew when the lock file changes."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            missing(f"{program} is not installed")
    lock = (HERE / "package-lock.json").read_bytes()
    folder = ROOT / ".cache" / "node" / hashlib.sha256(lock).hexdigest()[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Tests run in several processes: one installs, the others wait for it and find it done.
    with folder.with_suffix(".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            install(folder)
    return folder / "node_modules"


def install(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(HERE / name, folder)
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts"], cwd=folder, capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        missing(f"npm ci failed: {done.stderr.strip()[-500:]}")
    (folder / "installed").touch()


@pytest.fixture(scope="module")
def series() -> tuple[np.ndarray, np.ndarray]:
    x, y = arms(points=40, factor=1.5, row=1)
    x[0, 3] = np.nan
    return x, y


@pytest.fixture(scope="module")
def answers(modules: Path, server: Server, series: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """What a run of drive.js against the server saw."""
    x, y = (np.where(np.isnan(arm), None, arm).tolist() for arm in series)  # type: ignore[call-overload]
    given = {"start": START, "step": STEP, "metrics": ["a", "b"], "baseline": x, "canary": y}
    done = subprocess.run(
        ["node", str(HERE / "drive.js"), server.target, str(ROOT / "protos")],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "NODE_PATH": str(modules)},
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def blocks(series: tuple[np.ndarray, np.ndarray]) -> list[ta.Block]:
    return [ta.Block("baseline", START, STEP, series[0]), ta.Block("canary", START, STEP, series[1])]


def test_unary(answers: dict[str, Any], series: tuple[np.ndarray, np.ndarray]) -> None:
    batch = ta.SeriesBatch(specs())
    for block in blocks(series):
        batch.add(block)
    expected = ta.analyze(batch)
    answer = answers["unary"]
    assert (answer["verdict"], answer["decision"]) == ("VERDICT_FAIL", "DECISION_HALT")
    assert answer["sentence"] == expected.explain()
    assert [finding["effect"] for finding in answer["findings"]] == expected.result.effect.tolist()
    assert [finding["baseline_points"] for finding in answer["findings"]] == [39, 40]


def test_a_refusal_names_the_field(answers: dict[str, Any]) -> None:
    refused = answers["refused"]
    assert refused["code"] == 3
    assert refused["details"] == "metrics: at least one metric is needed"
    assert refused["rich"] == 1


def test_streaming(answers: dict[str, Any], series: tuple[np.ndarray, np.ndarray]) -> None:
    live = ta.LiveEvaluation(specs(), design="concurrent", warm_up=0.0)
    for block in blocks(series):
        live.add(block)
    expected = live.judge(final=True)
    seen = answers["stream"]
    assert seen["opened"]["evaluation_id"]
    assert seen["acknowledged"][-1] == 80
    final = seen["updates"][-1]
    assert [update.get("final") for update in seen["updates"]].count(True) == 1
    assert final["final"]
    assert final["verdict"] == "VERDICT_FAIL"
    assert final["sequence"] == 80
    assert [finding["effect"] for finding in final["findings"]] == expected.result.effect.tolist()


def test_a_gap_in_a_stream(answers: dict[str, Any]) -> None:
    assert answers["gap"]["code"] == 3
    assert answers["gap"]["details"] == "block.sequence: 5; the next block must have 1"
    assert answers["gap"]["rich"] == 1
