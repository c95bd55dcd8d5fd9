"""Stores, engines and a runner whose answers a test decides."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from tidegate_analysis import Verdict
from tidegate_server.engine import Engine
from tidegate_server.gates.evaluation import begin, open_rules
from tidegate_server.gates.model import (
    Deployment,
    Evaluation,
    Gate,
    MonitorCheck,
    Observation,
    Rule,
    Seen,
)
from tidegate_server.gates.ports import AuditRecord
from tidegate_server.store import Store

AUDIT = AuditRecord(0.0, "test", "test", "test")
PATIENCE = 60.0


def saw(verdict: Verdict | None, *, settled: bool = True) -> Observation:
    return Observation(verdict, Seen.ENOUGH, settled, f"saw {verdict}", "test")


def monitor_gate(*rules: Rule, service: str = "checkout") -> Gate:
    return Gate(service, "prod", rules=rules or (Rule("watch", MonitorCheck("*", duration=7200.0)),))


def new(now: float, gate: Gate | None = None, **changes) -> Evaluation:
    gate = gate or monitor_gate()
    return begin(uuid.uuid4().hex, gate, Deployment(gate.service, gate.environment, "2"), now, **changes)


class Script:
    """A runner that answers what it is told; `looks` counts, `gate` holds looks back."""

    def __init__(self, answer: Callable[[Evaluation, float], Verdict | None] | Verdict | None = None) -> None:
        self.answer = answer
        self.looks: list[tuple[str, float]] = []
        self.forgotten: list[str] = []
        self.looking = asyncio.Event()
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.error: Exception | None = None
        self.behind = 0.0

    async def look(self, evaluation: Evaluation, now: float, behind: float) -> Mapping[str, Observation]:
        self.looks.append((evaluation.id, now))
        self.behind = behind
        self.looking.set()
        await self.may_go.wait()
        if self.error is not None:
            raise self.error
        answer = self.answer(evaluation, now) if callable(self.answer) else self.answer
        return {rule.name: saw(answer, settled=answer is not None) for rule in open_rules(evaluation)}

    def forget(self, evaluation_id: str) -> None:
        self.forgotten.append(evaluation_id)


@contextlib.asynccontextmanager
async def open_store(path: Path, **options) -> AsyncIterator[Store]:
    store = Store(str(path), **options)
    await store.migrate()
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def running(*engines: Engine) -> AsyncIterator[None]:
    """Runs engines; one that ends by itself with an error fails the test."""
    tasks = [asyncio.create_task(engine.run(grace_seconds=2.0)) for engine in engines]
    try:
        yield
    finally:
        for engine in engines:
            engine.stop()
        await asyncio.gather(*tasks)


async def until(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Waits for something that has no event of its own; fails when it never comes."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = condition()
            if found if isinstance(found, bool) else await found:
                return
            await asyncio.sleep(0.01)


async def finished(store: Store, evaluation_id: str) -> Evaluation:
    """Watches an evaluation to its end, as a client would."""
    async with asyncio.timeout(PATIENCE):
        while True:
            evaluation = await store.evaluations.get(evaluation_id)
            if evaluation.finished:
                return evaluation
            await store.feed.wait(evaluation_id, evaluation.version, PATIENCE)
