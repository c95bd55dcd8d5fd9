"""Evaluations whose answers are known, and what is asserted of them afterwards."""

from __future__ import annotations

import asyncio
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import sqlalchemy as sa
import tidegate_analysis as ta
from replica import make_engine
from tidegate_server.gates.evaluation import begin
from tidegate_server.gates.model import (
    Deployment,
    Evaluation,
    Gate,
    MonitorCheck,
    MonitorState,
    RegressionCheck,
    Rule,
)
from tidegate_server.gates.ports import AuditRecord
from tidegate_server.monitors.model import StatePush
from tidegate_server.store import Store

AUDIT = AuditRecord(0.0, "test", "test", "test")
POINTS, PIECES = 48, 4
STEP = 5.0


@dataclass(frozen=True)
class Case:
    """One evaluation: series of a healthy or a slower canary, or a monitor that stays well or alerts for a moment."""

    index: int

    @property
    def by_series(self) -> bool:
        return self.index % 2 == 0

    @property
    def faulty(self) -> bool:
        return self.index % 4 >= 2

    @property
    def monitor(self) -> str:
        return f"monitor-{self.index}"

    def gate(self, seconds: float) -> Gate:
        if self.by_series:
            metrics = tuple(ta.MetricSpec(name, kind="gauge", margin=0.2) for name in ("p95", "p50"))
            check = RegressionCheck(metrics, design="concurrent", warm_up=0.0, horizon=POINTS * STEP)
        else:
            check = MonitorCheck(f"tag:{self.monitor}", duration=seconds)
        return Gate("svc", "prod", f"case-{self.index}", rules=(Rule("only", check),))

    def pieces(self, start: float) -> list[list[ta.Block]]:
        rng = np.random.default_rng(self.index)
        arms = 100.0 * np.exp(rng.normal(0.0, 0.05, (2, 2, POINTS)))
        if self.faulty:
            arms[1, 0] *= 1.6
        width = POINTS // PIECES
        return [
            [
                ta.Block(arm, start + low * STEP, STEP, values[:, low : low + width], metrics=("p95", "p50"))
                for arm, values in zip(("baseline", "canary"), arms, strict=True)
            ]
            for low in range(0, POINTS, width)
        ]


class Cases:
    """A set of cases on one store: started, fed over time, and followed to the end."""

    def __init__(self, store: Store, count: int, watch_seconds: float) -> None:
        self.store = store
        self.cases = [Case(k) for k in range(count)]
        self.watch_seconds = watch_seconds
        self.ids: dict[int, str] = {}
        self._starts: dict[int, float] = {}

    async def start(self) -> None:
        for case in self.cases:
            now = time.time()
            if not case.by_series:
                await self._tell_states(case, now)
            deployment = Deployment("svc", "prod", "2", start_time=now - POINTS * STEP if case.by_series else None)
            made = begin(uuid.uuid4().hex, case.gate(self.watch_seconds), deployment, now)
            await self.store.evaluations.create(made, "f", AUDIT)
            self.ids[case.index] = made.id
            self._starts[case.index] = made.deployed_at

    async def _tell_states(self, case: Case, now: float) -> None:
        """Tells beforehand what the monitor will do, so that no slow machine tells it too late."""
        history = [(MonitorState.OK, now - 100)]
        if case.faulty:
            history += [
                (MonitorState.ALERT, now + 0.3 * self.watch_seconds),
                (MonitorState.OK, now + 0.5 * self.watch_seconds),
            ]
        pushes = [StatePush(case.monitor, state, at, tags=(case.monitor,)) for state, at in history]
        await self.store.monitors.push(pushes, now)

    async def feed(self, pause: float) -> None:
        """Writes series bit by bit."""
        for piece in range(PIECES):
            for case in self.cases:
                if case.by_series:
                    blocks = case.pieces(self._starts[case.index])[piece]
                    numbered = [(piece * 2 + k + 1, block) for k, block in enumerate(blocks)]
                    await self._write(case, numbered, complete=piece == PIECES - 1)
            await asyncio.sleep(pause)

    async def _write(self, case: Case, blocks, *, complete: bool) -> None:
        from tidegate_server.gates.errors import PreconditionError

        try:
            await self.store.evaluations.append_blocks(
                self.ids[case.index], "w", blocks, complete=complete, now=time.time()
            )
        except PreconditionError as error:
            assert error.reason == "EVALUATION_FINISHED"  # noqa: PT017 - a FAIL does not wait for more series
            assert case.faulty

    async def ended(self, patience: float) -> dict[int, Evaluation]:
        """Waits until every evaluation is over; fails with those that are not."""
        found: dict[int, Evaluation] = {}
        deadline = time.monotonic() + patience
        for index, evaluation_id in self.ids.items():
            while True:
                evaluation = await self.store.evaluations.get(evaluation_id)
                if evaluation.finished:
                    found[index] = evaluation
                    break
                left = deadline - time.monotonic()
                assert left > 0, f"evaluation of case {index} was lost: {evaluation}"
                await self.store.feed.wait(evaluation_id, evaluation.version, left)
        return found


async def answers_undisturbed(path: Path, count: int, watch_seconds: float) -> dict[int, Evaluation]:
    """What cases come to on a store of their own when nothing disturbs them."""
    store = Store(str(path))
    await store.migrate()
    engine = make_engine(store)
    running = asyncio.create_task(engine.run())
    cases = Cases(store, count, watch_seconds)
    await cases.start()
    await cases.feed(0.0)
    found = await cases.ended(60)
    engine.stop()
    await running
    await store.close()
    return found


def same_answers(found: dict[int, Evaluation], undisturbed: dict[int, Evaluation]) -> None:
    """Every verdict is that of the undisturbed run; where all points were judged, every number is, to the last bit."""
    assert found.keys() == undisturbed.keys()
    for index, evaluation in found.items():
        other = undisturbed[index]
        case = Case(index)
        assert evaluation.verdict is other.verdict, case
        assert evaluation.decision is other.decision, case
        assert evaluation.verdict is (ta.Verdict.FAIL if case.faulty else ta.Verdict.PASS), case
        if case.by_series and not case.faulty:
            assert repr(evaluation.results[0].findings) == repr(other.results[0].findings), case


JUDGEMENTS = {
    "sqlite": [
        "CREATE TABLE judgements (evaluation_id TEXT, verdict INTEGER)",
        """CREATE TRIGGER judged AFTER UPDATE OF verdict, end_us, results ON evaluations
           WHEN NEW.verdict <> 0
           BEGIN INSERT INTO judgements VALUES (NEW.id, NEW.verdict); END""",
    ],
    "postgresql": [
        "CREATE TABLE judgements (evaluation_id TEXT, verdict INTEGER)",
        """CREATE FUNCTION judged() RETURNS trigger LANGUAGE plpgsql AS
           $$ BEGIN INSERT INTO judgements VALUES (NEW.id, NEW.verdict); RETURN NEW; END $$""",
        """CREATE TRIGGER judged AFTER UPDATE OF verdict, end_us, results ON evaluations
           FOR EACH ROW WHEN (NEW.verdict <> 0) EXECUTE FUNCTION judged()""",
    ],
}


async def watch_judgements(store: Store) -> None:
    """Has the store itself note every write of a verdict."""
    async with store.database.write() as connection:
        for statement in JUDGEMENTS[store.database.url.get_backend_name()]:
            await connection.execute(sa.text(statement))


async def judged_once(store: Store, ids) -> None:
    """No evaluation was judged twice, and none was judged that is not one of these."""
    async with store.database.read() as connection:
        rows = await connection.execute(sa.text("SELECT evaluation_id FROM judgements"))
        noted = sorted(rows.scalars())
    assert noted == sorted(ids)


async def leased(store: Store) -> list[str]:
    """Who works on evaluations, or was killed at it; once for each."""
    async with store.database.read() as connection:
        query = sa.text("SELECT lease_owner FROM evaluations WHERE lease_owner IS NOT NULL")
        return list((await connection.execute(query)).scalars())
