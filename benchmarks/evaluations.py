"""Stored evaluations: how many one process starts and finishes, how many it holds, and what a look costs.

One process with its analysis workers and its store, on SQLite (with a write to the disk at every commit) and on
a PostgreSQL of its own on the same machine (fsync on). The generator of the load runs in the same process, so
the figures are lower bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tidegate_analysis as ta
from tidegate_server import log
from tidegate_server.engine import Engine, Looks
from tidegate_server.gates.evaluation import begin
from tidegate_server.gates.model import (
    Deployment,
    Gate,
    MonitorCheck,
    MonitorState,
    RegressionCheck,
    Rule,
)
from tidegate_server.gates.ports import AuditRecord
from tidegate_server.monitors.model import StatePush
from tidegate_server.pool import AnalysisPool
from tidegate_server.store import Store
from tidegate_server.store.local_postgres import LocalPostgres, PostgresMissingError

from benchmarks.report import Table

SEED = 20240305
METRICS, POINTS, STEP = 20, 120, 15.0
HELD = {"SQLite": 10_000, "PostgreSQL": 10_000}
CALLERS = 16
AUDIT = AuditRecord(0.0, "bench", "bench", "bench")

Figures = dict[str, Any]


def run(out_dir: Path, quick: bool) -> dict[str, Any]:  # noqa: ARG001 - the runner writes the files
    """Measure both stores."""
    log.setup("json", "error")
    held = dict.fromkeys(HELD, 200) if quick else HELD
    started = 300 if quick else 3000
    figures: dict[str, Figures] = {}
    pool = AnalysisPool(max(1, min(2, os.cpu_count() or 1)))
    pool.start()
    try:
        with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as folder, _postgres() as url:
            stores = {"SQLite": f"{folder}/tidegate.db"} | ({"PostgreSQL": url} if url else {})
            asyncio.run(_measure_all(stores, figures, pool, held, started))
    finally:
        pool.close()
    notes = [] if "PostgreSQL" in figures else ["No PostgreSQL could be started here."]
    return {"seed": SEED, "figures": figures, "tables": [t.as_dict() for t in tables(figures, notes)]}


async def _measure_all(
    stores: dict[str, str], figures: dict[str, Figures], pool: AnalysisPool, held: dict[str, int], started: int
) -> None:
    for k, (name, url) in enumerate(stores.items()):
        figures[name] = await measure(url, pool, held[name], started)
        if k:
            # The processes go on in the memory that the store before left them: their growth tells nothing.
            figures[name] |= {"held_mb": None, "held_kb_each": None}


@contextlib.contextmanager
def _postgres() -> Iterator[str]:
    try:
        server = LocalPostgres(durable=True)
    except PostgresMissingError:
        yield ""
        return
    with server:
        yield server.create_database("bench")


async def measure(url: str, pool: AnalysisPool, held: int, started: int) -> Figures:
    """Measure one store: short evaluations first, then many that live."""
    store = Store(url)
    await store.migrate()
    figures: Figures = {}
    try:
        async with _engine(store, pool):
            figures |= await _short(store, started)
        figures |= await _live(store, pool, held)
    finally:
        await store.close()
    return figures


@contextlib.asynccontextmanager
async def _engine(store: Store, pool: AnalysisPool) -> AsyncIterator[Engine]:
    engine = Engine(store, Looks(store.evaluations, store.monitors, pool))
    running = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        engine.stop()
        await running


async def _all(work: list[Any]) -> list[float]:
    """Run coroutines, so many at a time, and return how long each took."""
    turns = asyncio.Semaphore(CALLERS)

    async def one(coroutine: Any) -> float:
        async with turns:
            began = time.perf_counter()
            await coroutine
            return time.perf_counter() - began

    return await asyncio.gather(*(one(coroutine) for coroutine in work))


async def _short(store: Store, count: int) -> Figures:
    """Evaluations of one look at one monitor: started, judged, finished."""
    now = time.time()
    await store.monitors.push([StatePush("m", MonitorState.OK, now - 60, tags=("bench",))], now)
    gate = Gate("short", "prod", rules=(Rule("quiet", MonitorCheck("tag:bench")),))
    deployment = Deployment("short", "prod", "2")

    def start() -> Any:
        made = begin(uuid.uuid4().hex, gate, deployment, time.time())
        return store.evaluations.create(made, "f", AUDIT)

    began = time.perf_counter()
    seconds = await _all([start() for _ in range(count)])
    created = time.perf_counter() - began
    while await store.work.count():  # noqa: ASYNC110 - the store is asked, as any client would
        await asyncio.sleep(0.02)
    finished = time.perf_counter() - began
    return {
        "short": count,
        "started_per_second": count / created,
        "start_p50_ms": float(np.quantile(seconds, 0.5) * 1e3),
        "start_p99_ms": float(np.quantile(seconds, 0.99) * 1e3),
        "finished_per_second": count / finished,
    }


def _gate() -> Gate:
    metrics = tuple(ta.MetricSpec(f"metric_{k}", kind="gauge", margin=0.2) for k in range(METRICS))
    check = RegressionCheck(metrics, design="concurrent", warm_up=0.0, horizon=7200.0)
    return Gate("live", "prod", rules=(Rule("slower", check),))


def _blocks(deployed_at: float, low: int, columns: int, rng: np.random.Generator) -> list[ta.Block]:
    names = tuple(f"metric_{k}" for k in range(METRICS))
    values = 100.0 * np.exp(rng.normal(0.0, 0.05, (2, METRICS, columns)))
    start = deployed_at + low * STEP
    return [
        ta.Block("baseline", start, STEP, values[0], metrics=names),
        ta.Block("canary", start, STEP, values[1], metrics=names),
    ]


async def _live(store: Store, pool: AnalysisPool, count: int) -> Figures:
    """Evaluations with series, that live: filled, held, and looked at scrape by scrape."""
    rng = np.random.default_rng(SEED)
    gate = _gate()
    deployed_at = time.time() - POINTS * STEP
    before = _resident(pool)
    ids = [uuid.uuid4().hex for _ in range(count)]
    deployment = Deployment("live", "prod", "2", start_time=deployed_at)

    async def open_one(evaluation_id: str) -> None:
        made = begin(evaluation_id, gate, deployment, time.time())
        await store.evaluations.create(made, "f", AUDIT)
        blocks = _blocks(deployed_at, 0, POINTS, rng)
        await store.evaluations.append_blocks(
            evaluation_id, "w", list(enumerate(blocks, 1)), complete=False, now=time.time()
        )

    began = time.perf_counter()
    await _all([open_one(one) for one in ids])
    written = time.perf_counter() - began
    async with _engine(store, pool) as engine:
        began = time.perf_counter()
        await _ticks(engine, count)
        filled = time.perf_counter() - began
        held = _resident(pool) - before

        scraped = ids[: max(1, count // 10)]
        done = engine.health.ticks
        began = time.perf_counter()

        async def scrape(evaluation_id: str) -> None:
            blocks = _blocks(deployed_at, POINTS, 1, rng)
            numbered = list(enumerate(blocks, 3))
            await store.evaluations.append_blocks(evaluation_id, "w", numbered, complete=False, now=time.time())

        await _all([scrape(one) for one in scraped])
        await _ticks(engine, done + len(scraped))
        ticked = time.perf_counter() - began

        one_by_one = []
        for evaluation_id in ids[-50:]:
            done = engine.health.ticks
            began = time.perf_counter()
            await scrape(evaluation_id)
            await _ticks(engine, done + 1)
            one_by_one.append(time.perf_counter() - began)
    return {
        "held": count,
        "written_per_second": count / written,
        "first_looks_per_second": count / filled,
        "held_mb": held / 1e6,
        "held_kb_each": held / count / 1e3,
        "scrapes_per_second": len(scraped) / ticked,
        "scrape_p50_ms": float(np.quantile(one_by_one, 0.5) * 1e3),
        "scrape_p99_ms": float(np.quantile(one_by_one, 0.99) * 1e3),
        "store_mb": await _store_size(store) / 1e6,
    }


async def _ticks(engine: Engine, count: int) -> None:
    while engine.health.ticks < count:  # noqa: ASYNC110 - the engine counts, and tells nobody
        await asyncio.sleep(0.001)


def _resident(pool: AnalysisPool) -> int:
    """Bytes of memory of this process and its workers."""
    page = os.sysconf("SC_PAGE_SIZE")
    files = [Path(f"/proc/{pid}/statm") for pid in (os.getpid(), *pool.pids)]
    return sum(int(file.read_text().split()[1]) * page for file in files if file.exists())


async def _store_size(store: Store) -> int:
    import sqlalchemy as sa

    query = "SELECT pg_database_size(current_database())"
    if store.database.is_sqlite:
        query = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
    async with store.database.read() as connection:
        return int((await connection.execute(sa.text(query))).scalar_one())


def tables(figures: dict[str, Figures], notes: list[str]) -> list[Table]:
    """Lay the figures out."""
    short = Table(
        "Evaluations of one look at one monitor",
        ["store", "evaluations", "started/s", "start, median ms", "p99 ms", "started and finished/s"],
        notes=[f"{CALLERS} callers at a time; started: acknowledged, on disk, due.", *notes],
    )
    live = Table(
        f"Live evaluations of {METRICS} metrics, {POINTS} points in each of two arms",
        [
            "store",
            "evaluations held",
            "memory MB",
            "kB each",
            "in the store MB",
            "written/s",
            f"first looks ({POINTS} points)/s",
            "looks at a new scrape/s",
            "scrape to stored answer, median ms",
            "p99 ms",
        ],
        notes=[
            "Memory: what the process and its workers grew by on the first store; the second uses it again.",
            "Looks/s: written, judged by the workers, stored.",
            "Scrape to stored answer: one evaluation at a time, all the others being held.",
        ],
    )
    for name, f in figures.items():
        short.add(
            name,
            f["short"],
            f["started_per_second"],
            f["start_p50_ms"],
            f["start_p99_ms"],
            f["finished_per_second"],
        )
        live.add(
            name,
            f["held"],
            "-" if f["held_mb"] is None else f["held_mb"],
            "-" if f["held_kb_each"] is None else f["held_kb_each"],
            f["store_mb"],
            f["written_per_second"],
            f["first_looks_per_second"],
            f["scrapes_per_second"],
            f["scrape_p50_ms"],
            f["scrape_p99_ms"],
        )
    return [short, live]
