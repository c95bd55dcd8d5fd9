"""Due evaluations: claimed by one, stored under the fence, taken over after the lease, whatever the clock
does."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import sqlalchemy as sa
from store_factories import AUDIT, T0, block, evaluation, gate, judged, overridden
from store_runner import Runner
from tidegate_server.gates.model import EvaluationState, MonitorCheck, Rule
from tidegate_server.store import Tick

LEASE = 10.0
LONGEST = 60.0


class Clock:
    """A store's clock that tests turn: a callable for SQLite, an SQL function of the same value for
    PostgreSQL."""

    def __init__(self) -> None:
        self.us = round(T0 * 1e6)

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def replica(run, open_store, clock):
    """Opens replicas that share the turned clock; `replica.turn(seconds)` turns it."""
    first = open_store()
    if not first.store.database.is_sqlite:

        async def prepare():
            async with first.store.database.write() as connection:
                await connection.execute(sa.text("CREATE TABLE IF NOT EXISTS test_clock (us bigint)"))
                await connection.execute(sa.text("DELETE FROM test_clock"))
                await connection.execute(sa.text("INSERT INTO test_clock VALUES (:us)"), {"us": clock.us})

        first(prepare())

    def make() -> Runner:
        return open_store(
            clock=clock,
            now_sql="(SELECT us FROM test_clock)",
            lease_seconds=LEASE,
            longest_wait_seconds=LONGEST,
        )

    def turn(seconds: float) -> None:
        clock.us += round(seconds * 1e6)
        if not first.store.database.is_sqlite:

            async def move():
                async with first.store.database.write() as connection:
                    await connection.execute(sa.text("UPDATE test_clock SET us = :us"), {"us": clock.us})

            first(move())

    make.turn = turn
    yield make
    if not first.store.database.is_sqlite:

        async def clean():
            async with first.store.database.write() as connection:
                await connection.execute(sa.text("DROP TABLE test_clock"))

        first(clean())


def _new(one: Runner, **changes):
    return one(one.store.evaluations.create(evaluation(**changes), "f", AUDIT))[0]


def _claim(one: Runner, owner="a", limit=10):
    return one(one.store.work.claim(owner, limit))


def _store(one: Runner, *ticks: Tick):
    return one(one.store.work.store(ticks))


def _running(made, **changes):
    return replace(made, state=EvaluationState.RUNNING, version=made.version + 1, **changes)


def test_a_new_evaluation_is_due_and_claimed_by_one_only(replica):
    one, two = replica(), replica()
    made = _new(one)
    (claim,) = _claim(one, "a")
    assert claim.evaluation_id == made.id
    assert claim.version == made.version
    assert claim.tick_us is None
    assert _claim(two, "b") == []
    assert one(one.store.work.load([made.id, "gone"])) == {made.id: made}


def test_claims_take_the_longest_waiting_first_and_no_more_than_asked(replica):
    one = replica()
    made = []
    for _ in range(5):
        made.append(_new(one).id)
        replica.turn(0.001)
    assert {claim.evaluation_id for claim in _claim(one, limit=2)} == set(made[:2])
    assert len(_claim(one, "b", limit=10)) == 3


def test_a_tick_is_stored_and_due_again_when_it_said(replica):
    one = replica()
    made = _new(one)
    (claim,) = _claim(one)
    after = _running(made)
    assert _store(one, Tick(claim, after, 5_000_000, 0)) == {made.id}
    assert one(one.store.evaluations.get(made.id)) == after
    assert _claim(one) == []
    replica.turn(4.9)
    assert _claim(one) == []
    replica.turn(0.1)
    (again,) = _claim(one)
    assert again.fence > claim.fence
    assert again.tick_us == claim.now_us


def test_a_finished_evaluation_is_never_due_again(replica):
    one = replica()
    made = _new(one)
    (claim,) = _claim(one)
    assert _store(one, Tick(claim, judged(made), None, 0)) == {made.id}
    replica.turn(1e6)
    assert _claim(one) == []
    assert _store(one, Tick(claim, _running(made), 0, 0)) == frozenset()
    assert one(one.store.work.count()) == 0
    assert repr(one(one.store.evaluations.get(made.id))) == repr(judged(made))


def test_a_dead_owner_is_followed_after_its_lease_and_its_late_tick_is_dropped(replica):
    one, two = replica(), replica()
    made = _new(one)
    (old,) = _claim(one, "a")
    replica.turn(LEASE - 0.01)
    assert _claim(two, "b") == []
    replica.turn(0.01)
    (new,) = _claim(two, "b")
    assert new.fence > old.fence
    assert _store(one, Tick(old, judged(made), None, 0)) == frozenset()
    after = _running(made)
    assert _store(two, Tick(new, after, 0, 0)) == {made.id}
    assert two(two.store.evaluations.get(made.id)) == after


def test_the_same_owner_name_cannot_use_an_old_fence(replica):
    one = replica()
    made = _new(one)
    (old,) = _claim(one, "a")
    replica.turn(LEASE)
    _claim(one, "a")
    assert _store(one, Tick(old, judged(made), None, 0)) == frozenset()


def test_renewed_leases_hold_and_lost_ones_are_named(replica):
    one, two = replica(), replica()
    _new(one)
    _new(one)
    claims = _claim(one, "a")
    replica.turn(LEASE * 0.9)
    assert one(one.store.work.renew(claims)) == {claim.evaluation_id for claim in claims}
    replica.turn(LEASE * 0.9)
    assert _claim(two, "b") == []
    assert one(one.store.work.renew(claims[:1])) == {claims[0].evaluation_id}
    replica.turn(LEASE * 0.9)
    (taken,) = _claim(two, "b")
    assert one(one.store.work.renew(claims)) == {claims[0].evaluation_id}
    assert taken.evaluation_id == claims[1].evaluation_id
    assert one(one.store.work.renew([])) == frozenset()


def test_released_claims_are_free_at_once(replica):
    one, two = replica(), replica()
    _new(one)
    claims = _claim(one, "a")
    one(one.store.work.release(claims))
    assert len(_claim(two, "b")) == 1
    one(one.store.work.release(claims))
    assert _claim(one, "a") == [], "a stale release must not free the new owner's claim"


def test_a_change_from_outside_drops_the_tick_under_way(replica):
    one, two = replica(), replica()
    made = _new(one)
    (claim,) = _claim(one)
    changed = two(two.store.evaluations.modify(made.id, overridden, None))
    assert _store(one, Tick(claim, judged(made), None, 0)) == frozenset()
    assert two(two.store.evaluations.get(made.id)) == changed
    assert [again.version for again in _claim(one)] == [changed.version]


def test_a_cancelled_evaluation_keeps_its_state_though_a_tick_finishes(replica):
    one, two = replica(), replica()
    made = _new(one)
    (claim,) = _claim(one)
    cancelled = two(
        two.store.evaluations.modify(
            made.id,
            lambda item: replace(item, state=EvaluationState.CANCELLED, version=2, end_time=T0 + 1),
            None,
        )
    )
    assert _store(one, Tick(claim, judged(made), None, 0)) == frozenset()
    assert one(one.store.evaluations.get(made.id)) == cancelled
    assert _claim(one) == []


def test_series_that_come_during_a_tick_make_it_due_at_once(replica):
    one = replica()
    made = _new(one)
    (claim,) = _claim(one)
    one(one.store.evaluations.append_blocks(made.id, "w", [(1, block())], complete=True, now=T0))
    assert _claim(one) == [], "the tick under way keeps its claim"
    assert _store(one, Tick(claim, _running(made), 30_000_000, 0)) == {made.id}
    (again,) = _claim(one)
    assert again.series_complete
    assert one(one.store.evaluations.get(made.id)).series_complete, "a tick does not undo what writers said"


def test_a_deleted_evaluation_takes_no_tick(replica):
    one = replica()
    made = _new(one)
    (claim,) = _claim(one)
    one(one.store.evaluations.delete(made.id, AUDIT))
    assert _store(one, Tick(claim, _running(made), 0, 0)) == frozenset()


def test_one_lost_tick_does_not_spoil_the_others_of_its_transaction(replica):
    one = replica()
    made = {item.id: item for item in (_new(one), _new(one), _new(one))}
    claims = _claim(one)
    lost = claims[1].evaluation_id
    one(one.store.evaluations.delete(lost, AUDIT))
    ticks = [Tick(claim, _running(made[claim.evaluation_id]), 0, 0) for claim in claims]
    assert _store(one, *ticks) == set(made) - {lost}


@pytest.mark.parametrize("jump", [3600.0, 86_400.0 * 365])
def test_when_the_clock_goes_back_nothing_waits_for_it(replica, jump):
    one, two = replica(), replica()
    made = [_new(one), _new(one)]
    claims = _claim(one, "a")
    waiting = next(claim for claim in claims if claim.evaluation_id == made[0].id)
    _store(one, Tick(waiting, _running(made[0]), 20_000_000, 0))
    replica.turn(-jump)
    again = _claim(two, "b")
    assert {claim.evaluation_id for claim in again} == {one.id for one in made}
    dead = next(claim for claim in claims if claim.evaluation_id == made[1].id)
    assert _store(one, Tick(dead, judged(made[1]), None, 0)) == frozenset()


def test_when_the_clock_goes_forward_one_of_two_ticks_is_stored(replica):
    one, two = replica(), replica()
    made = _new(one)
    (first,) = _claim(one, "a")
    replica.turn(3600)
    (second,) = _claim(two, "b")
    stored = [
        _store(one, Tick(first, judged(made), None, 0)),
        _store(two, Tick(second, judged(made), None, 0)),
    ]
    assert stored == [frozenset(), {made.id}]


def test_no_wait_is_longer_than_the_longest(replica):
    one = replica()
    made = _new(one)
    (claim,) = _claim(one)
    _store(one, Tick(claim, _running(made), 7_200_000_000, 0))
    replica.turn(LONGEST)
    assert len(_claim(one)) == 1


def test_next_due_counts_leases(replica):
    one = replica()
    assert one(one.store.work.next_due())[1] is None
    made = _new(one)
    now, due = one(one.store.work.next_due())
    assert due == now
    (claim,) = _claim(one)
    now, due = one(one.store.work.next_due())
    assert due - now == LEASE * 1e6
    _store(one, Tick(claim, _running(made), 3_000_000, 0))
    now, due = one(one.store.work.next_due())
    assert due - now == 3_000_000
    assert one(one.store.work.count()) == 1


def test_many_claimers_share_without_overlap(run):
    async def work():
        for _ in range(40):
            await run.store.evaluations.create(evaluation(), "f", AUDIT)
        taken = await asyncio.gather(*(run.store.work.claim(f"o{k}", 7) for k in range(8)))
        return [claim.evaluation_id for claims in taken for claim in claims]

    ids = run(work())
    assert len(ids) == len(set(ids)) == 40


def test_a_nudge_brings_those_forward_that_waited_longest_and_no_more_than_asked(replica):
    one = replica()
    monitors = gate(rules=(Rule("watch", MonitorCheck("*")),))
    series = gate(rules=tuple(rule for rule in gate().rules if rule.name == "slower"))
    watching = []
    for chosen in (monitors, monitors, monitors, series):
        made = _new(one, gate=chosen)
        (claim,) = _claim(one)
        _store(one, Tick(claim, _running(made), 30_000_000, 0))
        watching.append(made.id)
        replica.turn(1)
    assert _claim(one) == []
    assert one(one.store.work.nudge(2)) == 2
    assert {claim.evaluation_id for claim in _claim(one)} == set(watching[:2])
    assert one(one.store.work.nudge()) == 1
    assert [claim.evaluation_id for claim in _claim(one)] == watching[2:3]
    assert one(one.store.work.nudge()) == 0
