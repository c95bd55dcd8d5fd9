"""The demo's course: both versions run, traffic flows, Tidegate is fed scrape by scrape and answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import tidegate_analysis as ta
from tidegate.v1 import deployments_pb2, evaluation_service_pb2, findings_pb2
from tidegate_analysis.batch import Phase

from tidegate_server.client import TidegateClient
from tidegate_server.demo import processes, recording
from tidegate_server.demo.scrape import ARMS, METRICS, Column, Scraper

Update = evaluation_service_pb2.VerdictUpdate

FINAL_WITHIN_SECONDS = 60.0
GATE = "tidegate_server.demo.gate"

# What counts as worse: 15 % on a p95, 2 percentage points of errors.
LATENCY_MARGIN = 0.15
ERROR_MARGIN = 0.02


@dataclass(frozen=True, slots=True)
class Plan:
    """How a demo runs; times in seconds.

    ``before`` is how long both arms run v1, so that Tidegate learns how alike they are; ``horizon`` how long
    a rollout is watched at most; ``rate`` requests a second over both arms.
    """

    rate: float = 900.0
    step: float = 0.5
    settle: float = 1.0
    before: float = 3.0
    warm_up: float = 1.0
    horizon: float = 25.0


@dataclass(frozen=True, slots=True)
class Rollout:
    """One release to be judged: its key in the answer, a title, the shop's version, and how it should end."""

    key: str
    title: str
    version: str
    expected: int


ROLLOUTS = (
    Rollout("healthy", "a harmless v2", "v2-harmless", findings_pb2.VERDICT_PASS),
    Rollout("faulty", "a v2 with a slow checkout and failing requests", "v2-faulty", findings_pb2.VERDICT_FAIL),
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


def specs() -> list[ta.MetricSpec]:
    """Return how the demo's metrics are judged: by endpoint, latency in ms and errors of requests."""
    return [
        ta.MetricSpec(
            name=metric.name,
            kind="ratio" if metric.is_ratio else "gauge",
            scale="linear" if metric.is_ratio else "log",
            direction="up_is_worse",
            margin=ERROR_MARGIN if metric.is_ratio else LATENCY_MARGIN,
            group=metric.path.strip("/") or "shop",
            unit="" if metric.is_ratio else "ms",
        )
        for metric in METRICS
    ]


def blocks(phase: Phase, step: float, columns: list[Column]) -> list[ta.Block]:
    """Return columns as one block per arm."""
    return [
        ta.Block(
            arm=arm,
            phase=phase,
            start=columns[0].time,
            step=step,
            values=np.array([column.values[k] for column in columns]).T,
            exposure=np.array([column.totals[k] for column in columns]).T,
        )
        for k, arm in enumerate(ARMS)
    ]


def run(plan: Plan, watcher: Watcher, record: Path | None = None) -> list[Outcome]:
    """Run both rollouts and return how they were judged.

    Raises
    ------
    DemoError
        When a process does not start.
    TidegateError
        When Tidegate refuses something or cannot be reached.
    OSError
        When the recording cannot be written.
    """
    with ExitStack() as stack:
        children = stack.enter_context(processes.Children())
        watcher.stage("starting Tidegate, the shop and its users")
        try:
            gate = children.start(GATE)
            versions = ["v1", "v1", *(rollout.version for rollout in ROLLOUTS)]
            shops = [children.start("tidegate_server.demo.shop", version) for version in versions]
            users = children.start("tidegate_server.demo.traffic", str(plan.rate))
            baseline, twin, *candidates = [int(children.first_line(shop, "the shop")) for shop in shops]
            address = children.first_line(gate, "Tidegate")
        except processes.ChildError as error:
            raise DemoError(str(error)) from None
        client = stack.enter_context(TidegateClient(address))
        scraper = stack.enter_context(Scraper(plan.step))

        def deploy(canary: int) -> None:
            processes.tell(users, f"{baseline} {canary}")
            scraper.aim(baseline, canary)

        deploy(twin)
        _scrape_for(scraper, plan.settle, watcher, -plan.before - plan.settle)
        watcher.stage(f"v1 beside v1 for {plan.before:g} s, before anything is deployed")
        before = _scrape_for(scraper, plan.before, watcher, -plan.before)
        outcomes = []
        for rollout, port in zip(ROLLOUTS, candidates, strict=True):
            outcome, after = _judge(plan, rollout, client, scraper, partial(deploy, port), before, watcher)
            outcomes.append(outcome)
            if record is not None:
                columns = [("pre", column) for column in before] + [("post", column) for column in after]
                recording.write(record / f"{rollout.key}.csv", columns)
        return outcomes


def _judge(
    plan: Plan,
    rollout: Rollout,
    client: TidegateClient,
    scraper: Scraper,
    deploy: Callable[[], None],
    before: list[Column],
    watcher: Watcher,
) -> tuple[Outcome, list[Column]]:
    deploy()
    deployed_at, started = scraper.now(), time.monotonic()
    deployment = deployments_pb2.Deployment(
        service="shop", environment="demo", version=rollout.version, previous_version="v1"
    )
    deployment.start_time.FromNanoseconds(round(deployed_at * 1e6) * 1000)
    watcher.deployed(rollout)
    known: dict[str, findings_pb2.Finding] = {}
    after: list[Column] = []

    def take(update: Update) -> Update:
        known.update((finding.metric, finding) for finding in update.findings)
        watcher.updated(update, [known[m.name] for m in METRICS if m.name in known])
        return update

    with client.stream(
        specs(),
        design="concurrent",
        warm_up=plan.warm_up,
        horizon=plan.horizon,
        deployment=deployment,
    ) as stream:
        for block in blocks("pre", plan.step, before):
            stream.send(block)
        decided = False
        # One scrape in any case: on a busy machine the stream may take as long to open as a short horizon.
        while not after or (not decided and scraper.now() - deployed_at < plan.horizon):
            column = scraper.wait()
            after.append(column)
            sent = max(stream.send(block) for block in blocks("post", plan.step, [column]))
            watcher.scraped(column.time - deployed_at)
            # What comes before the next scrape is about the points that were sent, so the final verdict is the same.
            while not decided and (patience := scraper.until_next()) > 0:
                update = next(stream.updates(wait=patience), None)
                if update is None:
                    break
                take(update)
                over = update.verdict in (findings_pb2.VERDICT_PASS, findings_pb2.VERDICT_FAIL)
                decided = over and update.sequence >= sent
        seconds = time.monotonic() - started
        last = take(stream.finish(timeout=FINAL_WITHIN_SECONDS))
    findings = [known[m.name] for m in METRICS if m.name in known]
    outcome = Outcome(rollout, last.verdict, last.decision, last.sentence, seconds, findings, list(last.groups))
    watcher.ended(outcome)
    return outcome, after


def _scrape_for(scraper: Scraper, seconds: float, watcher: Watcher, since: float) -> list[Column]:
    columns = []
    for k in range(1, round(seconds / scraper.step) + 1):
        columns.append(scraper.wait())
        watcher.scraped(since + k * scraper.step)
    return columns
