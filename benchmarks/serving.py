"""The server under load: how long a verdict takes on the wire, and whether health is answered meanwhile.

Three processes: the server (with its analysis workers), the load generator, and a probe that asks for health
all the time. All share the machine, so the figures are those of a server that has about half of it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import tidegate_analysis as ta
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate.v1 import evaluation_service_pb2_grpc
from tidegate_server.api.blocks import encode_block
from tidegate_server.api.evaluations import ANALYSIS_SECONDS
from tidegate_server.api.metrics import encode_spec

from benchmarks.report import Table

SEED = 20240304
METRICS, POINTS = 500, 60
STREAMS, STREAM_METRICS = 32, 20
STEP = 0.5
START = 1_700_000_000.0
WINDOW = 16
HEALTH_EVERY_SECONDS = 0.005
DEADLINE_SECONDS = 300.0

ANALYZE_NOTE = (
    "From the client: encoding, the wire, decoding, checks, the way to a worker and back, findings and sentences of "
    "all metrics. The analysis is ta.analyze alone, timed in the worker."
)
STREAM_NOTE = (
    f"Paced: a scrape of every stream each {STEP} s, all at the same moment. As fast as it goes: up to {WINDOW} blocks "
    "of a stream not yet acknowledged. An update is asked for after every scrape; messages count both directions."
)

Span = tuple[float, float]


def quantiles(seconds: list[float]) -> tuple[float, float]:
    """Return median and 99th percentile in milliseconds."""
    if not seconds:
        return float("nan"), float("nan")
    low, high = np.quantile(np.array(seconds) * 1e3, [0.5, 0.99])
    return float(low), float(high)


@contextmanager
def server() -> Iterator[str]:
    """Run ``tidegate serve`` on a free port; give its address."""
    program = Path(sys.executable).with_name("tidegate")
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_STATE_HOME": folder}
        options = ["--address", "127.0.0.1:0", "--log-format", "json", "--drain-pause-seconds", "0"]
        process = subprocess.Popen([program, "serve", *options], stderr=subprocess.PIPE, text=True, env=environment)
        assert process.stderr is not None
        try:
            address = ""
            for text in process.stderr:
                line = json.loads(text) if text.startswith("{") else {}
                if line.get("event") == "listening":
                    address = line["address"]
                    break
            if not address:
                raise RuntimeError("the server did not start")
            # Its log goes on while it serves; unread, it would fill the pipe and hold the server up.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield address
        finally:
            process.terminate()
            process.wait(30)


def specs(n: int) -> list[ta.MetricSpec]:
    """Latency-like metrics in groups of ten."""
    return [
        ta.MetricSpec(f"service-{k // 10}-latency-{k % 10}", direction="up_is_worse", group=f"service-{k // 10}")
        for k in range(n)
    ]


def series(rng: np.random.Generator, metrics: int, points: int) -> np.ndarray:
    """Levels of 50 to 500 ms with 10 % of noise, shape (metrics, points)."""
    level = rng.uniform(50.0, 500.0, (metrics, 1))
    return np.asarray(level * np.exp(rng.normal(0.0, 0.1, (metrics, points))))


async def analyze(address: str, calls: int, at_once: int) -> tuple[list[float], list[float], Span]:
    """Call ``Analyze`` again and again; return seconds per call, of which analysis, and when it was."""
    rng = np.random.default_rng(SEED)
    request = es.AnalyzeRequest(
        metrics=[encode_spec(spec) for spec in specs(METRICS)],
        blocks=[
            encode_block(ta.Block(arm, START, 60.0, series(rng, METRICS, POINTS)))  # type: ignore[arg-type]
            for arm in ("baseline", "canary")
        ],
    )
    seconds: list[float] = []
    inside: list[float] = []
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = evaluation_service_pb2_grpc.EvaluationServiceStub(channel)

        async def caller(share: int) -> None:
            for _ in range(share):
                started = time.perf_counter()
                call = stub.Analyze(request, timeout=60)
                await call
                seconds.append(time.perf_counter() - started)
                inside.append(float(dict(await call.trailing_metadata())[ANALYSIS_SECONDS]))

        await asyncio.gather(*(caller(3) for _ in range(at_once)))  # not counted
        seconds.clear()
        inside.clear()
        began = time.time()
        await asyncio.gather(*(caller(calls // at_once) for _ in range(at_once)))
        return seconds, inside, (began, time.time())


class Stream:
    """One evaluation that is fed column by column, and the time each block waited for its verdict update."""

    def __init__(self, stub: Any, number: int, columns: int, every_seconds: float) -> None:
        rng = np.random.default_rng([SEED, number])
        arms = (("baseline", series(rng, STREAM_METRICS, columns)), ("canary", series(rng, STREAM_METRICS, columns)))
        self.messages: list[es.StreamEvaluationRequest] = []
        for k in range(columns):
            for arm, values in arms:
                sequence = len(self.messages) + 1
                block = ta.Block(arm, START + k * STEP, STEP, values[:, k : k + 1])  # type: ignore[arg-type]
                self.messages.append(es.StreamEvaluationRequest(block=encode_block(block, sequence)))
        self.every_seconds = every_seconds
        self.sent: list[float] = []
        self.waited: list[float] = []
        self.received = 0
        self.acknowledged = 0
        self.moved = asyncio.Event()
        self.opened = asyncio.Event()
        self.call = stub.StreamEvaluation(self.requests(), timeout=DEADLINE_SECONDS)

    async def requests(self) -> AsyncIterator[es.StreamEvaluationRequest]:
        opening = es.OpenEvaluation(metrics=[encode_spec(spec) for spec in specs(STREAM_METRICS)])
        opening.options.warm_up.FromSeconds(0)
        opening.options.horizon.FromSeconds(3600)
        yield es.StreamEvaluationRequest(open=opening)
        await self.opened.wait()
        update = es.StreamEvaluationRequest(request_update=es.RequestUpdate())
        due = time.perf_counter()
        for k, message in enumerate(self.messages):
            if self.every_seconds and k % 2 == 0:
                due += self.every_seconds
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
            while not self.every_seconds and k - self.acknowledged >= WINDOW:
                self.moved.clear()
                await self.moved.wait()
            self.sent.append(time.perf_counter())
            yield message
            if k % 2:
                yield update
        yield es.StreamEvaluationRequest(finish=es.FinishEvaluation())

    async def run(self) -> None:
        told = 0
        async for response in self.call:
            self.received += 1
            kind = response.WhichOneof("message")
            if kind == "opened":
                self.opened.set()
            elif kind == "acknowledgement":
                self.acknowledged = response.acknowledgement.sequence
                self.moved.set()
            else:
                now = time.perf_counter()
                self.waited += [now - self.sent[k] for k in range(told, response.update.sequence)]
                told = max(told, response.update.sequence)


async def stream(address: str, columns: int, every_seconds: float) -> tuple[dict[str, float], Span]:
    """Feed 32 streams at once; ``every_seconds`` between columns of a stream, 0 = as fast as it goes."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = evaluation_service_pb2_grpc.EvaluationServiceStub(channel)
        streams = [Stream(stub, number, columns, every_seconds) for number in range(STREAMS)]
        began, started = time.time(), time.perf_counter()
        await asyncio.gather(*(one.run() for one in streams))
        seconds = time.perf_counter() - started
    blocks = sum(len(one.sent) for one in streams)
    # Beside the blocks: openings, requests for updates and finishes; and all that came back.
    messages = blocks + blocks // 2 + 2 * STREAMS + sum(one.received for one in streams)
    median, p99 = quantiles([wait for one in streams for wait in one.waited])
    figures = {
        "seconds": seconds,
        "blocks": blocks,
        "blocks_per_second": blocks / seconds,
        "messages_per_second": messages / seconds,
        "block_to_update_median_ms": median,
        "block_to_update_p99_ms": p99,
    }
    return figures, (began, time.time())


class Probe:
    """A process that asks for health every few milliseconds and remembers how long each answer took."""

    def __init__(self, address: str) -> None:
        command = [sys.executable, "-m", "benchmarks.serving", address]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.process.stdout.readline()  # it is connected

    def end(self) -> list[tuple[float, float]]:
        """Return when each check was sent, and the seconds it took."""
        output, _ = self.process.communicate("")
        return [tuple(pair) for pair in json.loads(output)]


def probe(address: str) -> None:
    """In the probe's process: check until standard input closes."""
    import select

    checks: list[tuple[float, float]] = []
    with grpc.insecure_channel(address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=20)
        print("ready", flush=True)
        while not select.select([sys.stdin], [], [], HEALTH_EVERY_SECONDS)[0]:
            sent, started = time.time(), time.perf_counter()
            health.Check(health_pb2.HealthCheckRequest(), timeout=20)
            checks.append((sent, time.perf_counter() - started))
    print(json.dumps(checks))


def run(out_dir: Path, quick: bool) -> dict[str, Any]:  # noqa: ARG001
    """Measure, and return figures and tables."""
    calls = 40 if quick else 400
    columns = 20 if quick else 200
    paced_columns = 6 if quick else 40
    spans: dict[str, Span] = {}
    figures: dict[str, Any] = {}
    with server() as address:
        watching = Probe(address)
        idle = time.time()
        time.sleep(0.5 if quick else 2.0)
        spans["idle"] = (idle, time.time())
        for name, at_once in (("one at a time", 1), ("four at once", 4)):
            seconds, inside, spans[f"Analyze, {name}"] = asyncio.run(analyze(address, calls, at_once))
            median, p99 = quantiles(seconds)
            low, high = spans[f"Analyze, {name}"]
            figures[f"analyze {name}"] = {
                "calls": len(seconds),
                "median_ms": median,
                "p99_ms": p99,
                "analysis_median_ms": quantiles(inside)[0],
                "share_not_analysis": 1.0 - sum(inside) / sum(seconds),
                "calls_per_second": len(seconds) / (high - low),
            }
        for name, count, pace in (("paced", paced_columns, STEP), ("as fast as it goes", columns, 0.0)):
            figures[f"streams {name}"], spans[f"streams, {name}"] = asyncio.run(stream(address, count, pace))
        checks = watching.end()
    for name, (low, high) in spans.items():
        during = [seconds for sent, seconds in checks if low <= sent <= high]
        median, p99 = quantiles(during)
        figures[f"health {name}"] = {"checks": len(during), "median_ms": median, "p99_ms": p99}
    return {"seed": SEED, "figures": figures, "tables": [table.as_dict() for table in tables(figures)]}


def tables(figures: dict[str, Any]) -> list[Table]:
    """Lay the figures out."""
    unary = Table(
        f"Analyze: {METRICS} metrics of {POINTS} + {POINTS} points",
        ["", "calls", "median ms", "p99 ms", "of which analysis, median ms", "share not analysis %", "calls/s"],
        notes=[ANALYZE_NOTE],
    )
    for name in ("one at a time", "four at once"):
        f = figures[f"analyze {name}"]
        # Of four, two wait: what is not analysis is then mostly waiting for a core.
        share = 100 * f["share_not_analysis"] if name == "one at a time" else float("nan")
        unary.add(name, f["calls"], f["median_ms"], f["p99_ms"], f["analysis_median_ms"], share, f["calls_per_second"])
    fed = Table(
        f"StreamEvaluation: {STREAMS} streams of {STREAM_METRICS} metrics, both arms, scrape by scrape",
        ["", "blocks", "blocks/s", "messages/s", "block to its verdict update, median ms", "p99 ms"],
        notes=[STREAM_NOTE],
    )
    for name in ("paced", "as fast as it goes"):
        f = figures[f"streams {name}"]
        fed.add(
            name,
            f["blocks"],
            f["blocks_per_second"],
            f["messages_per_second"],
            f["block_to_update_median_ms"],
            f["block_to_update_p99_ms"],
        )
    health = Table("Health checks meanwhile", ["during", "checks", "median ms", "p99 ms"])
    for name, f in figures.items():
        if name.startswith("health "):
            health.add(name.removeprefix("health "), f["checks"], f["median_ms"], f["p99_ms"])
    return [unary, fed, health]


if __name__ == "__main__":
    probe(sys.argv[1])
