"""Two replicas on one PostgreSQL, killed at random: nothing lost, nothing judged twice, every answer the same."""

from __future__ import annotations

import asyncio
import random
import time
import uuid

import pytest
from fault_cases import Cases, answers_undisturbed, judged_once, leased, same_answers, watch_judgements
from replica import Replica
from tidegate_server.store import Store

LEASE = 1.0


async def _at_work(store: Store, replicas: list[Replica], seconds: float) -> list[Replica]:
    """Waits for replicas that hold a lease: a kill in the middle of a look is the one that matters."""
    patience = time.monotonic() + seconds
    while time.monotonic() < patience:
        owners = await leased(store)
        found = [replica for replica in replicas if any(f":{replica.pid}:" in owner for owner in owners)]
        if found:
            return found
        await asyncio.sleep(0.01)
    return []


async def _disturbed(url: str, count: int, kills: int, watch_seconds: float, seed: int):
    rng = random.Random(seed)
    store = Store(url, poll_seconds=0.1)
    await store.migrate()
    await watch_judgements(store)
    replicas = [Replica(url, LEASE, 0.4) for _ in range(2)]
    cases = Cases(store, count, watch_seconds)
    struck = 0
    try:
        for replica in replicas:
            await asyncio.to_thread(replica.start)
        await cases.start()
        feeding = asyncio.create_task(cases.feed(watch_seconds / 4))
        for _ in range(kills):
            await asyncio.sleep(rng.uniform(0.05, 0.9 * watch_seconds / kills))
            # Until one kill has struck there is work to come; later there may be none left.
            victim = rng.choice(await _at_work(store, replicas, 1.0 if struck else 60.0) or replicas)
            await asyncio.to_thread(victim.kill)
            struck += bool(await leased(store))
            await asyncio.to_thread(victim.start)
        await feeding
        found = await cases.ended(60)
        await judged_once(store, cases.ids.values())
    finally:
        for replica in replicas:
            await asyncio.to_thread(replica.kill)
        await store.close()
    return found, struck


def _kill(server, tmp_path, *, count: int, kills: int, watch_seconds: float, seed: int) -> None:
    expected = asyncio.run(answers_undisturbed(tmp_path / "undisturbed.db", count, min(watch_seconds, 2.0)))
    url = server.create_database(f"k{uuid.uuid4().hex}")
    found, struck = asyncio.run(_disturbed(url, count, kills, watch_seconds, seed))
    same_answers(found, expected)
    assert struck > 0, "no kill came while something was worked on: the test has tested nothing"


@pytest.mark.postgres
def test_replicas_that_are_killed_lose_and_repeat_nothing(postgres_server, tmp_path):
    _kill(postgres_server, tmp_path, count=16, kills=5, watch_seconds=2.5, seed=1)


@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_fifty_evaluations_and_twenty_kills(postgres_server, tmp_path, seed):
    _kill(postgres_server, tmp_path, count=50, kills=20, watch_seconds=15.0, seed=seed)
