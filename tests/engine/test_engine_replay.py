"""What the engine judged and stored, judged again: from the store, from Parquet, by the analysis alone."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import tidegate_analysis as ta
from engine_helpers import AUDIT, finished, new, open_store, running, until
from tidegate_analysis import Verdict
from tidegate_server.engine import Engine, Looks
from tidegate_server.engine.looks import Inline
from tidegate_server.gates.model import (
    Comparator,
    Deployment,
    Gate,
    MonitorCheck,
    MonitorState,
    RegressionCheck,
    Rule,
    ThresholdCheck,
)
from tidegate_server.monitors.model import StatePush
from tidegate_server.rules.findings import findings_of
from tidegate_server.rules.replay import replay
from tidegate_server.store import export

STEP, POINTS = 10.0, 40
METRICS = (
    ta.MetricSpec("p95", kind="gauge", margin=0.2),
    ta.MetricSpec("memory", kind="gauge", margin=0.2),
    ta.MetricSpec("errors", kind="ratio", margin=0.05),
)
REGRESSION = RegressionCheck(METRICS, design="concurrent", warm_up=0.0, horizon=POINTS * STEP)
GATE = Gate(
    "checkout",
    "prod",
    rules=(
        Rule("slower", REGRESSION),
        Rule("low", ThresholdCheck(METRICS[1], Comparator.BELOW, 1e6, warm_up=0.0, horizon=POINTS * STEP)),
    ),
)


def _blocks(start: float, *, gaps: bool = True) -> list[ta.Block]:
    """Blocks of both arms in uneven pieces, with gaps, out of step with each other."""
    rng = np.random.default_rng(11)
    found = []
    for arm, cuts in (("baseline", [0, 7, 20, 40]), ("canary", [0, 13, 22, 33, 40])):
        gauges = 100.0 * np.exp(rng.normal(0.0, 0.05, (2, POINTS)))
        totals = rng.poisson(2000, POINTS).astype(float)
        errors = rng.binomial(totals.astype(int), 0.01).astype(float)
        values = np.vstack([gauges, errors])
        if gaps:
            values[0, 5] = values[1, 15:18] = math.nan
        exposure = np.vstack([np.full((2, POINTS), math.nan), totals])
        for low, high in itertools.pairwise(cuts):
            found.append(
                ta.Block(
                    arm,
                    start + low * STEP,
                    STEP,
                    values[:, low:high],
                    metrics=("p95", "memory", "errors"),
                    exposure=exposure[:, low:high],
                )
            )
    order = rng.permutation(len(found))
    return [found[k] for k in order]


async def _judge(path, pieces: int, *, forget: bool = False):
    """Runs one evaluation whose blocks come in so many writes; returns it as stored, and its blocks."""
    async with open_store(path) as store:
        looks = Looks(store.evaluations, store.monitors, Inline(), kept_bytes=1 if forget else 10**9)
        engine = Engine(store, looks)
        now = time.time()
        evaluation = new(now, GATE)
        start = 1_700_000_000.0
        evaluation = replace(evaluation, deployment=Deployment("checkout", "prod", "2", start_time=start))
        blocks = _blocks(start)
        async with running(engine):
            await store.evaluations.create(evaluation, "f", AUDIT)
            groups = np.array_split(np.arange(len(blocks)), pieces)
            for k, group in enumerate(groups):
                ticks = engine.health.ticks
                await store.evaluations.append_blocks(
                    evaluation.id,
                    "w",
                    [(int(j) + 1, blocks[j]) for j in group],
                    complete=k == pieces - 1,
                    now=time.time(),
                )
                if k < pieces - 1:
                    await until(lambda ticks=ticks: engine.health.ticks > ticks)
                    if forget:
                        looks.forget(evaluation.id)
            done = await finished(store, evaluation.id)
        return done, await store.evaluations.blocks(evaluation.id)


def _numbers(observations) -> dict[str, str]:
    # repr tells every bit of a float, and NaN from NaN it need not.
    return {name: repr(observation.findings) for name, observation in observations.items()}


@pytest.mark.parametrize(("pieces", "forget"), [(1, False), (5, True)])
def test_a_stored_evaluation_judged_again_gives_the_same_numbers(tmp_path, pieces, forget):
    done, stored = asyncio.run(_judge(tmp_path / "tidegate.db", pieces, forget=forget))
    assert done.verdict is Verdict.PASS
    kept = {result.rule: repr(result.findings) for result in done.results}
    assert len(done.results[0].findings) == 3
    assert _numbers(replay(done, [one.block for one in stored])) == kept

    # And by the analysis alone, in another order and in one go; only its note on the order differs.
    live = ta.LiveEvaluation(
        METRICS,
        design="concurrent",
        q=REGRESSION.false_discovery_rate,
        deployed_at=done.deployed_at,
        warm_up=0.0,
        horizon_seconds=REGRESSION.horizon,
    )
    for one in reversed(stored):
        live.add(one.block)
    judgement = live.judge(final=True)

    def numbers(findings):
        return repr([replace(finding, quality=()) for finding in findings])

    assert numbers(findings_of(judgement, done.deployed_at)) == numbers(done.results[0].findings)


def test_an_evaluation_travels_through_parquet_to_the_last_bit(tmp_path):
    done, stored = asyncio.run(_judge(tmp_path / "tidegate.db", 2))
    files = export.write(tmp_path / "export", done, stored)
    assert {file.name for file in files} == {
        "evaluation.parquet",
        "blocks.parquet",
        "series.parquet",
        "histograms.parquet",
        "findings.parquet",
        "monitors.parquet",
    }
    archive = export.read(tmp_path / "export")
    assert repr(archive.evaluation) == repr(done)
    assert len(archive.blocks) == len(stored)
    for one, other in zip(archive.blocks, stored, strict=True):
        for name in ("arm", "phase", "start", "step", "instance", "metrics"):
            assert getattr(one.block, name) == getattr(other.block, name)
        assert one.block.values.tobytes() == np.ascontiguousarray(other.block.values).tobytes()
        assert one.block.exposure.tobytes() == np.ascontiguousarray(other.block.exposure).tobytes()
        assert (one.position, one.writer, one.sequence, one.received_time) == (
            other.position,
            other.writer,
            other.sequence,
            other.received_time,
        )
    kept = {result.rule: repr(result.findings) for result in done.results}
    assert _numbers(replay(archive.evaluation, [one.block for one in archive.blocks])) == kept

    parquet = pytest.importorskip("pyarrow.parquet")
    findings = parquet.read_table(tmp_path / "export" / "findings.parquet").to_pylist()
    assert [row["metric"] for row in findings] == [
        finding.metric for result in done.results for finding in result.findings
    ]
    assert findings[0]["effect"] == done.results[0].findings[0].effect
    series = parquet.read_table(tmp_path / "export" / "series.parquet")
    assert series.num_rows == 2 * 3 * POINTS
    assert series.column("value").null_count == 0


def test_exported_histograms_and_odd_blocks_come_back(tmp_path):
    from tidegate_server.gates.ports import StoredBlock

    rng = np.random.default_rng(3)
    blocks = [
        ta.Block(
            "canary",
            1.0 / 3.0,
            0.1,
            np.empty((0, 4)),
            metrics=(),
            histograms={
                "size": (np.array([1.0, 2.0]), rng.poisson(3, (4, 3)).astype(float)),
                "time": (np.array([0.5]), rng.poisson(3, (4, 2)).astype(float)),
            },
        ),
        ta.Block("baseline", 0.0, 1.0, np.array([[math.nan, -0.0, math.inf]]), metrics=("x",), phase="pre"),
    ]
    stored = [StoredBlock(k + 1, "w", k + 1, block, 1.5) for k, block in enumerate(blocks)]
    evaluation = new(0.0)
    export.write(tmp_path / "x", evaluation, stored)
    archive = export.read(tmp_path / "x")
    assert archive.evaluation == evaluation
    first, second = (one.block for one in archive.blocks)
    for name, (bounds, counts) in blocks[0].histograms.items():
        np.testing.assert_array_equal(first.histograms[name][0], bounds)
        np.testing.assert_array_equal(first.histograms[name][1], counts)
    assert first.values.shape == (0, 4)
    assert second.values.tobytes() == blocks[1].values.tobytes()
    assert second.exposure is None
    assert second.histograms is None

    export.write(tmp_path / "none", evaluation, [])
    assert export.read(tmp_path / "none").blocks == ()
    unnamed = StoredBlock(1, "w", 1, ta.Block("canary", 0.0, 1.0, np.ones((1, 1))), 0.0)
    with pytest.raises(ValueError, match="does not name its rows"):
        export.write(tmp_path / "bad", evaluation, [unnamed])


def test_reading_something_else_says_so(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pa.table({"json": ["{}"]}), tmp_path / "evaluation.parquet")
    with pytest.raises(ValueError, match="not an evaluation that this version"):
        export.read(tmp_path)


# --- monitors, through the same looks


def test_an_alert_that_came_and_went_fails_and_a_quiet_monitor_passes(tmp_path):
    async def go():
        async with open_store(tmp_path / "tidegate.db") as store:
            looks = Looks(store.evaluations, store.monitors, Inline())
            async with running(Engine(store, looks)):
                now = time.time()
                for name in ("calm", "alarmed"):
                    await store.monitors.push([StatePush(name, MonitorState.OK, now - 60, tags=(name,))], now)

                async def start(query, seconds):
                    gate = Gate("checkout", "prod", rules=(Rule("watch", MonitorCheck(query, duration=seconds)),))
                    made, _ = await store.evaluations.create(new(time.time(), gate), "f", AUDIT)
                    return made.id

                once = await start("tag:calm", 0.0)
                short = await start("tag:calm", 0.5)
                nothing = await start("tag:unknown", 0.0)
                watched = await start("tag:alarmed", 7200.0)
                assert (await finished(store, once)).verdict is Verdict.PASS
                assert (await finished(store, short)).verdict is Verdict.PASS
                found = await finished(store, nothing)
                assert found.verdict is Verdict.FAIL
                assert found.results[0].reason == "no_match"
                at = time.time()
                await store.monitors.push(
                    [StatePush("alarmed", MonitorState.ALERT, at - 0.02), StatePush("alarmed", MonitorState.OK, at)], at
                )
                failed = await finished(store, watched)
                assert failed.verdict is Verdict.FAIL
                states = [span.state for span in failed.results[0].monitors[0].timeline]
                assert MonitorState.ALERT in states

    asyncio.run(go())
