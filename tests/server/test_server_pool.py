"""Analysis workers: affinity, death, replacement, and what they may not import."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tidegate_server import worker
from tidegate_server.pool import AnalysisPool, WorkerLostError

from tests.server.deadly import die_while_answering
from tests.server.harness import Serving, arms, request, specs


@pytest.fixture(scope="module")
def pool(serving: Serving) -> AnalysisPool:
    return serving.pool


@pytest.fixture
def own_pool() -> Iterator[AnalysisPool]:
    made = AnalysisPool(1)
    made.start()
    yield made
    made.close()


def environment() -> dict[str, str]:
    return dict(os.environ)


def raise_value_error() -> None:
    raise ValueError("theirs")


def test_work_with_one_key_stays_in_one_process(serving: Serving, pool: AnalysisPool) -> None:
    keys = [f"evaluation-{k}" for k in range(20)]
    first = [serving.run(pool.run(os.getpid, key=key)) for key in keys]
    again = [serving.run(pool.run(os.getpid, key=key)) for key in keys]
    assert first == again
    assert set(first) == set(pool.pids)
    assert os.getpid() not in first


def test_work_without_a_key_goes_where_there_is_least_to_do(serving: Serving, pool: AnalysisPool) -> None:
    async def both() -> set[int]:
        return set(await asyncio.gather(*(pool.run(os.getpid) for _ in range(8))))

    assert serving.run(both()) == set(pool.pids)


def test_what_work_raises_comes_back(serving: Serving, pool: AnalysisPool) -> None:
    with pytest.raises(ValueError, match="theirs"):
        serving.run(pool.run(raise_value_error))


def test_a_worker_carries_no_server_and_no_statsmodels(serving: Serving, own_pool: AnalysisPool) -> None:
    # Only builtins are sent: a function of this file would bring all that it imports.
    payload = request(*arms(), metrics=specs("ab", kind="auto")).SerializeToString()
    assert serving.run(own_pool.run(worker.analyze, payload, 10_000)).response
    loaded = set(serving.run(own_pool.run(eval, "sorted(__import__('sys').modules)")))
    heavy = {"statsmodels", "pandas", "matplotlib", "grpc", "sqlalchemy", "tidegate_server.app", "pytest"}
    assert heavy & loaded == set()
    assert {"numpy", "scipy.special", "tidegate_analysis"} <= loaded


def test_a_worker_uses_one_thread_for_algebra(serving: Serving, pool: AnalysisPool) -> None:
    assert "OPENBLAS_NUM_THREADS" in serving.run(pool.run(environment))


def test_a_caller_that_gives_up_while_a_worker_is_replaced_leaves_its_pid_known(
    serving: Serving, own_pool: AnalysisPool
) -> None:
    async def go() -> int:
        (dead,) = own_pool.pids
        slot = own_pool._slots[0]
        executor = slot.executor
        os.kill(dead, signal.SIGKILL)
        caller = asyncio.ensure_future(own_pool.run(os.getpid))
        async with asyncio.timeout(60):
            while True:
                if slot.executor is not executor:
                    break
                await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        return await own_pool.run(os.getpid)

    assert serving.run(go()) == own_pool.pids[0]


def test_a_killed_worker_is_told_and_replaced(serving: Serving, pool: AnalysisPool) -> None:
    key = "somebody"
    victim = serving.run(pool.run(os.getpid, key=key))

    async def work() -> list[object]:
        two = (pool.run(time.sleep, 30, key=key) for _ in range(2))
        return await asyncio.gather(*two, return_exceptions=True)

    under_way = asyncio.run_coroutine_threadsafe(work(), serving.loop)
    serving.until(lambda: any(slot.waiting == 2 for slot in pool._slots))
    os.kill(victim, signal.SIGKILL)
    assert [type(one) for one in under_way.result(60)] == [WorkerLostError] * 2
    fresh = serving.run(pool.run(os.getpid, key=key))
    assert fresh != victim
    assert fresh in pool.pids


def test_a_worker_that_died_idle_is_replaced_at_its_next_work(serving: Serving, pool: AnalysisPool) -> None:
    victim = serving.run(pool.run(os.getpid, key="idle"))
    os.kill(victim, signal.SIGKILL)

    async def until_answered() -> int:
        while True:
            try:
                return await pool.run(os.getpid, key="idle")
            except WorkerLostError:
                continue

    assert serving.run(until_answered()) != victim


def test_a_worker_that_dies_while_it_answers_is_told_and_lets_the_server_end(
    serving: Serving, own_pool: AnalysisPool
) -> None:
    manager: Any = own_pool._slots[0].executor
    manager = manager._executor_manager_thread
    with pytest.raises(WorkerLostError) as caught:
        serving.run(own_pool.run(die_while_answering))
    assert not caught.value.timed_out
    assert serving.run(own_pool.run(os.getpid)) in own_pool.pids
    manager.join(60)
    assert not manager.is_alive(), "the interpreter waits for it at its end"


def test_a_worker_that_dies_before_it_has_read_its_work_is_told_and_lets_the_server_end(
    serving: Serving, own_pool: AnalysisPool
) -> None:
    manager: Any = own_pool._slots[0].executor
    manager = manager._executor_manager_thread
    (victim,) = own_pool.pids
    os.kill(victim, signal.SIGSTOP)
    under_way = asyncio.run_coroutine_threadsafe(own_pool.run(len, bytes(10_000_000)), serving.loop)
    serving.until(lambda: own_pool._slots[0].waiting == 1)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(WorkerLostError):
        under_way.result(60)
    assert serving.run(own_pool.run(os.getpid)) in own_pool.pids
    manager.join(60)
    assert not manager.is_alive(), "the interpreter waits for it at its end"


def test_work_that_takes_too_long_costs_its_worker(serving: Serving, own_pool: AnalysisPool) -> None:
    own_pool.timeout_seconds = 0.2
    with pytest.raises(WorkerLostError) as caught:
        serving.run(own_pool.run(time.sleep, 600))
    assert caught.value.timed_out
    own_pool.timeout_seconds = 60.0
    assert serving.run(own_pool.run(os.getpid)) in own_pool.pids


def test_giving_up_does_not_block_those_who_wait(serving: Serving, pool: AnalysisPool) -> None:
    async def give_up() -> int:
        work = [asyncio.ensure_future(pool.run(time.sleep, 0.05, key="k")) for _ in range(6)]
        await asyncio.sleep(0)
        for one in work[1:]:
            one.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        return await pool.run(os.getpid, key="k")

    assert serving.run(give_up()) in pool.pids
