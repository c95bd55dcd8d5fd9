"""The server as a process: it starts, says where, serves, drains on SIGTERM, and its exit code tells how it went."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tidegate_server.app import Server
from tidegate_server.config import Config

from tests.server.harness import FINISH, Caller, Serving, arms, opening, refused, request

PROGRAM = Path(sys.executable).with_name("tidegate")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings from outside, and a state folder of its own."""
    for name in os.environ:
        if name.startswith("TIDEGATE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


class Process:
    """``tidegate serve`` and the lines it logs."""

    def __init__(self, *options: str) -> None:
        command = [str(PROGRAM), "serve", "--address", "127.0.0.1:0", "--workers", "1", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def line(self, event: str) -> dict[str, Any]:
        """Read the log up to an event."""
        assert self.process.stderr is not None
        for text in self.process.stderr:
            line: dict[str, Any] = json.loads(text)
            if line["event"] == event:
                return line
        raise AssertionError(f"the server ended without {event!r}")

    def ended(self) -> int:
        return self.process.wait(60)


@contextmanager
def serve(*options: str) -> Iterator[Process]:
    started = Process(*options)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.communicate()


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [str(PROGRAM), "serve", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_sigterm_drains_and_exits_with_0() -> None:
    with serve("--drain-pause-seconds", "0", "--drain-grace-seconds", "0.2") as process:
        address = process.line("listening")["address"]
        with Caller(address) as caller:
            assert caller.analyze(request(*arms())).verdict
            stream = caller.stream(opening())
            evaluation_id = stream.opened().evaluation_id
            last = stream.send_arms(*arms())
            stream.until_acknowledged(last)
            process.process.send_signal(signal.SIGTERM)
            refusal = stream.error()
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "SERVER_DRAINING")
        assert refusal.metadata == {"evaluation_id": evaluation_id, "acknowledged_sequence": str(last)}
        assert "send every block again" in refusal.message
        assert refusal.retry
        assert process.line("stopped")["cut_off"] == 0
        assert process.ended() == 0


def test_a_second_signal_hurries() -> None:
    with serve("--drain-pause-seconds", "600") as process:
        process.line("listening")
        process.process.send_signal(signal.SIGINT)
        process.line("draining")
        process.process.send_signal(signal.SIGINT)
        assert process.ended() == 0


def test_a_killed_server_leaves_no_workers_behind() -> None:
    with serve() as process:
        process.line("listening")
        children = _descendants(process.process.pid)
        assert len(children) >= 2  # a fork server and a worker
        process.process.kill()
        process.ended()
        for child in children:
            _wait_until_gone(child)


def _descendants(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def _wait_until_gone(pid: int) -> None:
    """Wait for a process that is not a child of this one; a zombie counts as gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    gone = poll.poll(60_000)
    os.close(descriptor)
    assert gone, f"process {pid} goes on"


def test_a_port_that_is_taken_is_told_and_exits_with_4(server: Server) -> None:
    done = run("--address", server.target, "--workers", "1")
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == (
        f"tidegate: cannot listen on {server.target}: it is in use, is no address of this machine, or is not allowed"
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--address", "0.0.0.0:7443"], "there is no TLS"),
        (["--tls-certificate", "/nowhere/c.pem"], "set both"),
        (["--tls-certificate", "/nowhere/c.pem", "--tls-key", "/nowhere/k.pem"], "cannot read /nowhere/c.pem"),
        (["--workers", "0"], "workers: must be at least 1"),
        (["--no-such-option"], "No such option"),
    ],
)
def test_settings_that_cannot_be_exit_with_2(options: list[str], says: str) -> None:
    done = run(*options)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_draining_lets_open_work_end(serving: Serving) -> None:
    """Health says no first; then nothing new is taken, while what is open may end by itself."""
    config = Config(address="127.0.0.1:0", drain_pause_seconds=60, drain_grace_seconds=60)
    hurry = asyncio.Event()

    async def start() -> Server:
        server = Server(config, serving.pool)
        await server.start()
        return server

    server = serving.run(start())
    with Caller(server.target) as caller, grpc.insecure_channel(server.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == SERVING
        stream = caller.stream(opening())
        stream.opened()
        draining = asyncio.run_coroutine_threadsafe(server.drain(hurry), serving.loop)
        assert next(watch).status == NOT_SERVING
        # The pause: not serving any more, yet whoever has not noticed is still answered.
        assert caller.analyze(request(*arms())).verdict
        stream.send_arms(*arms())
        stream.send(FINISH)
        assert stream.final().verdict
        serving.loop.call_soon_threadsafe(hurry.set)
        draining.result(60)
        watch.cancel()


def test_only_its_own_work_holds_a_drain_up(serving: Serving) -> None:
    """A health watcher never ends its call; a drain must not wait for it."""

    async def start() -> Server:
        server = Server(Config(address="127.0.0.1:0", drain_pause_seconds=0, drain_grace_seconds=600), serving.pool)
        await server.start()
        return server

    server = serving.run(start())
    with grpc.insecure_channel(server.target) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=60)
        assert next(watch).status == SERVING
        serving.run(server.drain())
        assert next(watch).status == NOT_SERVING
        assert refused(lambda: next(watch)).code in ("UNAVAILABLE", "CANCELLED")
