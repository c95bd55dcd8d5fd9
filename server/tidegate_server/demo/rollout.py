"""The demo's course: both versions run, traffic flows, Tidegate is fed scrape by scrape and answers."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import grpc
from tidegate.v1 import (
    deployments_pb2,
    evaluation_service_pb2,
    evaluation_service_pb2_grpc,
    findings_pb2,
    metrics_pb2,
)

from tidegate_server.demo import processes, recording
from tidegate_server.demo.scrape import METRICS, Column, Scraper

Request = evaluation_service_pb2.StreamEvaluationRequest
Update = evaluation_service_pb2.VerdictUpdate

FINAL_WITHIN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How a demo runs; times in seconds.

    ``before`` is how long both arms run v1, so that Tidegate learns how alike they are; ``horizon`` how long
    a rollout is watched at most; ``rate`` requests a second over both arms.
    """

    rate: float = 900.0
    step: float = 0.5
    settle: float = 1.0
    before: float = 10.0
    warm_up: float = 1.0
    horizon: float = 20.0


@dataclass(frozen=True, slots=True)
class Rollout:
    """One release to be judged: its key in the answer, a title, the shop's version, and how it should end."""

    key: str
    title: str
    version: str
    expected: int


ROLLOUTS = (
    Rollout("healthy", "a harmless v2", "v2-harmless", findings_pb2.VERDICT_PASS),
    Rollout("faulty", "a v2 with a slow, failing checkout", "v2-faulty", findings_pb2.VERDICT_FAIL),
)


@dataclass(slots=True)
class Outcome:
    """How a rollout was judged. ``seconds`` runs from the deployment to the verdict."""

    rollout: Rollout
    verdict: int
    decision: int
    sentence: str
    seconds: float
    findings: list[findings_pb2.Finding]
    groups: list[findings_pb2.GroupFinding]

    @property
    def as_expected(self) -> bool:
        """Whether it ended as it should."""
        return self.verdict == self.rollout.expected


class Watcher(Protocol):
    """Who shows what happens."""

    def stage(self, text: str) -> None:
        """Something new begins."""

    def scraped(self, seconds: float) -> None:
        """One column went out, ``seconds`` after the deployment (negative before it)."""

    def deployed(self, rollout: Rollout) -> None:
        """A rollout begins."""

    def updated(self, update: Update, findings: list[findings_pb2.Finding]) -> None:
        """The server told how things stand; ``findings`` are all that are known, in the metrics' order."""

    def ended(self, outcome: Outcome) -> None:
        """A rollout has its verdict."""


class DemoError(RuntimeError):
    """The demo could not run; the message says why."""


def specs() -> list[metrics_pb2.MetricSpec]:
    """Return how the demo's metrics are judged: by endpoint, latency in ms and errors of requests."""
    return [
        metrics_pb2.MetricSpec(
            name=metric.name,
            kind=metrics_pb2.METRIC_KIND_RATIO if metric.is_ratio else metrics_pb2.METRIC_KIND_GAUGE,
            direction=metrics_pb2.DIRECTION_UP_IS_WORSE,
            margin=0.015 if metric.is_ratio else 0.15,
            group=metric.path.strip("/"),
            unit="" if metric.is_ratio else "ms",
        )
        for metric in METRICS
    ]


class Evaluation:
    """One ``StreamEvaluation`` call: blocks go out from here, answers are read in a thread."""

    def __init__(self, channel: grpc.Channel, opening: evaluation_service_pb2.OpenEvaluation) -> None:
        """Open the evaluation."""
        self.outgoing: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self.incoming: queue.SimpleQueue[Update | grpc.RpcError] = queue.SimpleQueue()
        self.sequence = 0
        stub = evaluation_service_pb2_grpc.EvaluationServiceStub(channel)  # type: ignore[no-untyped-call]
        self.outgoing.put(Request(open=opening))
        self.call = stub.StreamEvaluation(iter(self.outgoing.get, None))
        threading.Thread(target=self._read, name="verdicts", daemon=True).start()

    def send(self, phase: int, step: float, columns: list[Column]) -> None:
        """Send columns of both arms."""
        for k, arm in enumerate((metrics_pb2.ARM_BASELINE, metrics_pb2.ARM_CANARY)):
            self.sequence += 1
            block = metrics_pb2.SeriesBlock(
                arm=arm,
                phase=phase,  # type: ignore[arg-type]
                columns=len(columns),
                values=[column.values[k][row] for row in range(len(METRICS)) for column in columns],
                exposure=[column.totals[k][row] for row in range(len(METRICS)) for column in columns],
                sequence=self.sequence,
            )
            block.start_time.FromNanoseconds(round(columns[0].time * 1e3) * 1_000_000)
            block.step.FromNanoseconds(round(step * 1e9))
            self.outgoing.put(Request(block=block))

    def finish(self) -> None:
        """Ask for the final verdict."""
        self.outgoing.put(Request(finish=evaluation_service_pb2.FinishEvaluation()))
        self.outgoing.put(None)

    def updates(self, wait: float = 0.0) -> Iterator[Update]:
        """Yield the updates that are there; wait up to ``wait`` seconds for the first.

        Raises
        ------
        DemoError
            When the call failed.
        """
        while True:
            try:
                answer = self.incoming.get(timeout=wait) if wait > 0 else self.incoming.get_nowait()
            except queue.Empty:
                return
            if isinstance(answer, grpc.RpcError):
                raise DemoError(f"Tidegate ended the stream: {_details(answer)}")
            yield answer
            wait = 0.0

    def cancel(self) -> None:
        """End the call without a verdict."""
        self.outgoing.put(None)
        self.call.cancel()

    def _read(self) -> None:
        try:
            for response in self.call:
                if response.WhichOneof("message") == "update":
                    self.incoming.put(response.update)
        except grpc.RpcError as error:
            self.incoming.put(error)


def run(plan: Plan, watcher: Watcher, record: Path | None = None) -> list[Outcome]:
    """Run both rollouts and return how they were judged.

    Raises
    ------
    DemoError
        When a process does not start or Tidegate cannot be reached.
    OSError
        When the recording cannot be written.
    """
    with ExitStack() as stack:
        children = stack.enter_context(processes.Children())
        watcher.stage("starting Tidegate, the shop and its users")
        try:
            gate = children.start("tidegate_server.demo.gate")
            versions = ["v1", "v1", *(rollout.version for rollout in ROLLOUTS)]
            shops = [children.start("tidegate_server.demo.shop", version) for version in versions]
            users = children.start("tidegate_server.demo.traffic", str(plan.rate))
            baseline, twin, *candidates = [int(children.first_line(shop, "the shop")) for shop in shops]
            address = children.first_line(gate, "Tidegate")
        except processes.ChildError as error:
            raise DemoError(str(error)) from None
        channel = stack.enter_context(grpc.insecure_channel(address))
        scraper = stack.enter_context(Scraper(plan.step))

        def deploy(canary: int) -> None:
            processes.tell(users, f"{baseline} {canary}")
            scraper.aim(baseline, canary)

        deploy(twin)
        _scrape_for(scraper, plan.settle, watcher, -plan.before - plan.settle)
        watcher.stage(f"v1 beside v1 for {plan.before:g} s: how alike are two copies of the same version?")
        before = _scrape_for(scraper, plan.before, watcher, -plan.before)
        outcomes = []
        for rollout, port in zip(ROLLOUTS, candidates, strict=True):
            outcome, after = _judge(plan, rollout, channel, scraper, partial(deploy, port), before, watcher)
            outcomes.append(outcome)
            if record is not None:
                columns = [("pre", column) for column in before] + [("post", column) for column in after]
                recording.write(record / f"{rollout.key}.csv", columns)
        return outcomes


def _judge(
    plan: Plan,
    rollout: Rollout,
    channel: grpc.Channel,
    scraper: Scraper,
    deploy: Callable[[], None],
    before: list[Column],
    watcher: Watcher,
) -> tuple[Outcome, list[Column]]:
    opening = evaluation_service_pb2.OpenEvaluation(
        metrics=specs(),
        design=metrics_pb2.DESIGN_CONCURRENT,
        deployment=deployments_pb2.Deployment(
            service="shop", environment="demo", version=rollout.version, previous_version="v1"
        ),
    )
    opening.options.warm_up.FromNanoseconds(round(plan.warm_up * 1e9))
    opening.options.horizon.FromNanoseconds(round(plan.horizon * 1e9))
    deploy()
    deployed_at, started = scraper.now(), time.monotonic()
    opening.deployment.start_time.FromNanoseconds(round(deployed_at * 1e6) * 1000)
    watcher.deployed(rollout)
    evaluation = Evaluation(channel, opening)
    known: dict[str, findings_pb2.Finding] = {}
    after: list[Column] = []
    last = Update()
    finished = False
    seconds = 0.0
    try:
        evaluation.send(metrics_pb2.PHASE_PRE, plan.step, before)
        while not last.final:
            if not finished:
                column = scraper.wait()
                after.append(column)
                evaluation.send(metrics_pb2.PHASE_POST, plan.step, [column])
                watcher.scraped(column.time - deployed_at)
            for update in evaluation.updates(wait=0.5 if finished else 0.0):
                last = update
                known.update((finding.metric, finding) for finding in update.findings)
                watcher.updated(update, [known[m.name] for m in METRICS if m.name in known])
            if finished and not last.final and time.monotonic() - started - seconds > FINAL_WITHIN_SECONDS:
                raise DemoError(f"Tidegate gave no final verdict within {FINAL_WITHIN_SECONDS:g} s")
            decided = last.verdict in (findings_pb2.VERDICT_PASS, findings_pb2.VERDICT_FAIL)
            if not finished and (decided or after[-1].time - deployed_at >= plan.horizon):
                finished, seconds = True, time.monotonic() - started
                evaluation.finish()
    finally:
        if not last.final:
            evaluation.cancel()
    outcome = Outcome(
        rollout,
        last.verdict,
        last.decision,
        last.sentence,
        seconds,
        [known[m.name] for m in METRICS if m.name in known],
        list(last.groups),
    )
    watcher.ended(outcome)
    return outcome, after


def _scrape_for(scraper: Scraper, seconds: float, watcher: Watcher, since: float) -> list[Column]:
    columns = []
    for k in range(1, round(seconds / scraper.step) + 1):
        columns.append(scraper.wait())
        watcher.scraped(since + k * scraper.step)
    return columns


def _details(error: grpc.RpcError) -> str:
    # What the library raises is also the call, which its types cannot say.
    call: Any = error
    return f"{call.code().name}, {call.details()}"
