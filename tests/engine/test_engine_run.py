"""The engine claims, looks, stores and goes on, whatever happens around it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest
from engine_helpers import (
    AUDIT,
    PATIENCE,
    Script,
    finished,
    monitor_gate,
    new,
    open_store,
    running,
    saw,
    until,
)
from tidegate_analysis import Verdict
from tidegate_server.engine import Engine
from tidegate_server.gates.errors import LimitError, UnavailableError
from tidegate_server.gates.evaluation import Timing, cancel, override
from tidegate_server.gates.model import (
    Decision,
    EvaluationState,
    MonitorCheck,
    OutcomePolicy,
    Policies,
    Rule,
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tidegate.db"


class Clock:
    """A store's clock that only the test turns, so that no lease lapses because the machine was busy."""

    def __init__(self) -> None:
        self.us = round(time.time() * 1e6)

    def __call__(self) -> int:
        return self.us


async def _start(store, evaluation=None, **changes):
    made, _ = await store.evaluations.create(evaluation or new(time.time(), **changes), "f", AUDIT)
    return made


def test_an_evaluation_runs_to_its_end_and_watchers_are_told(path):
    async def go():
        async with open_store(path) as store:
            runner = Script(Verdict.PASS)
            engine = Engine(store, runner)
            async with running(engine):
                made = await _start(store)
                done = await finished(store, made.id)
            assert done.state is EvaluationState.SUCCEEDED
            assert (done.verdict, done.decision) == (Verdict.PASS, Decision.PROCEED)
            assert engine.health.ticks == 1
            assert runner.forgotten == [made.id]
            assert await store.work.count() == 0

    asyncio.run(go())


def test_many_evaluations_are_all_judged_once(path):
    async def go():
        async with open_store(path) as store:
            runner = Script(lambda evaluation, _: Verdict.FAIL if evaluation.id < "8" else Verdict.PASS)
            engine = Engine(store, runner, concurrency=7)
            made = [await _start(store) for _ in range(40)]
            async with running(engine):
                done = [await finished(store, one.id) for one in made]
            assert [one.verdict for one in done] == [Verdict.FAIL if one.id < "8" else Verdict.PASS for one in made]
            assert len(runner.looks) == engine.health.ticks == 40

    asyncio.run(go())


def test_a_stored_fail_is_never_judged_again(path):
    async def go():
        async with open_store(path) as store:
            first = Script(Verdict.FAIL)
            async with running(Engine(store, first)):
                made = await _start(store)
                failed = await finished(store, made.id)
            second = Script(Verdict.PASS)
            async with running(Engine(store, second)):
                later = await _start(store)
                await finished(store, later.id)
                # People may still write to it; that must not bring it back.
                await store.evaluations.modify(
                    made.id, lambda one: override(one, Decision.PROCEED, "ann", "known", time.time()), AUDIT
                )
                third = await _start(store)
                await finished(store, third.id)
            assert {looked for looked, _ in second.looks} == {later.id, third.id}
            assert (await store.evaluations.get(made.id)).verdict is Verdict.FAIL
            assert (await store.evaluations.get(made.id)).results == failed.results

    asyncio.run(go())


def test_a_look_that_saw_nothing_new_is_repeated_when_the_state_machine_says(path):
    async def go():
        async with open_store(path) as store:
            answers = iter([None, None, Verdict.PASS])
            runner = Script(lambda *_: next(answers))
            async with running(Engine(store, runner, timing=Timing(monitor_interval=0.05))):
                made = await _start(store)
                await finished(store, made.id)
            assert len(runner.looks) == 3

    asyncio.run(go())


def test_new_states_of_monitors_and_new_series_bring_the_next_look_forward(path):
    from tidegate_server.gates.model import MonitorState
    from tidegate_server.monitors.model import StatePush

    async def go():
        async with open_store(path) as store:
            runner = Script(None)
            async with running(Engine(store, runner)):
                made = await _start(store)
                await until(lambda: len(runner.looks) == 1)
                await store.monitors.push([StatePush("m", MonitorState.ALERT, 1.0)], time.time())
                await until(lambda: len(runner.looks) == 2)
                await store.evaluations.append_blocks(made.id, "w", [], complete=True, now=time.time())
                await until(lambda: len(runner.looks) == 3)

    asyncio.run(go())


def test_a_cancel_during_a_look_wins(path):
    async def go():
        async with open_store(path) as store:
            runner = Script(Verdict.PASS)
            runner.may_go.clear()
            engine = Engine(store, runner)
            async with running(engine):
                made = await _start(store)
                await runner.looking.wait()
                cancelled = await store.evaluations.modify(
                    made.id, lambda one: cancel(one, "ann", "wrong build", time.time()), AUDIT
                )
                runner.may_go.set()
                await until(lambda: engine.health.lost == 1)
            assert await store.evaluations.get(made.id) == cancelled
            assert engine.health.ticks == 0

    asyncio.run(go())


def test_an_override_during_a_look_is_kept_and_the_look_is_done_again(path):
    async def go():
        async with open_store(path) as store:
            runner = Script(Verdict.FAIL)
            runner.may_go.clear()
            async with running(Engine(store, runner)):
                made = await _start(store)
                await runner.looking.wait()
                await store.evaluations.modify(
                    made.id, lambda one: override(one, Decision.PROCEED, "ann", "known", time.time()), AUDIT
                )
                runner.may_go.set()
                done = await finished(store, made.id)
            assert done.override is not None
            assert done.verdict is Verdict.FAIL
            assert len(runner.looks) == 2

    asyncio.run(go())


def test_a_look_that_raises_does_not_stop_others_and_the_policy_ends_it(path):
    """What cannot be looked at ends by `on_source_error` once its window is over, never by itself as PASS."""

    async def go():
        clock = Clock()
        async with open_store(path, clock=clock) as store:
            runner = Script()
            gate = monitor_gate(
                Rule("watch", MonitorCheck("*"), policies=Policies(on_source_error=OutcomePolicy.ERROR)),
                service="broken",
            )

            def answer(evaluation, _):
                if evaluation.gate.service == "broken":
                    raise ZeroDivisionError
                return Verdict.PASS

            runner.answer = answer
            timing = Timing(source_patience=0.3, retry_interval=0.1)
            engine = Engine(store, runner, timing=timing, poll_seconds=0.02)
            async with running(engine):
                bad = await _start(store, new(clock.us / 1e6, gate))
                good = await _start(store)
                assert (await finished(store, good.id)).verdict is Verdict.PASS
                await until(lambda: engine.health.ticks == 2)  # of the good one, and a first try of the bad one
                clock.us += 200_000
                await until(lambda: engine.health.ticks == 3)
                assert not (await store.evaluations.get(bad.id)).finished
                clock.us += 200_000
                done = await finished(store, bad.id)
            assert done.verdict is Verdict.ERROR
            assert done.decision is Decision.HOLD
            assert "server's log" in done.results[0].source_error
            assert "ZeroDivision" not in repr(done)
            assert engine.health.failed == 3

    asyncio.run(go())


@pytest.mark.parametrize("error", [UnavailableError("X", "gone"), LimitError("X", "full")])
def test_a_store_that_does_not_answer_is_waited_for_and_health_tells(path, error):
    async def go():
        async with open_store(path) as store:
            told = []
            runner = Script(Verdict.PASS)
            engine = Engine(store, runner, on_health=told.append)
            broken = True
            originals = {name: getattr(store.work, name) for name in ("claim", "store", "next_due")}

            def breakable(name):
                async def call(*args):
                    if broken:
                        raise error
                    return await originals[name](*args)

                return call

            for name in originals:
                setattr(store.work, name, breakable(name))
            async with running(engine):
                made = await _start(store)
                await until(lambda: not engine.health.serving)
                assert engine.health.problem == error.message
                broken = False
                await finished(store, made.id)
                await until(lambda: engine.health.serving)
                # And away again, this time between the look and its storing.
                runner.may_go.clear()
                runner.looking.clear()
                second = await _start(store)
                await runner.looking.wait()
                broken = True
                runner.may_go.set()
                await until(lambda: not engine.health.serving)
                broken = False
                await finished(store, second.id)
            assert [health.serving for health in told][:3] == [False, True, False], "told of changes alone"
            assert len(runner.looks) == 2, "a tick that waits for the store is not looked at again"

    asyncio.run(go())


def test_a_long_look_keeps_its_lease_against_another_replica(path):
    async def go():
        lease, clock = 0.3, Clock()
        async with (
            open_store(path, lease_seconds=lease, clock=clock) as store,
            open_store(path, lease_seconds=lease, clock=clock) as other,
        ):
            slow, quick = Script(Verdict.FAIL), Script(Verdict.PASS)
            slow.may_go.clear()
            renewed, renew = asyncio.Queue(), store.work.renew
            polled, claim = asyncio.Queue(), other.work.claim

            async def renewing(claims):
                began = clock.us
                held = await renew(claims)
                renewed.put_nowait(began)
                return held

            async def claiming(*args):
                began = clock.us
                claims = await claim(*args)
                polled.put_nowait(began)
                return claims

            async def after_a_turn(queue):
                async with asyncio.timeout(PATIENCE):
                    while await queue.get() < clock.us:
                        pass

            store.work.renew, other.work.claim = renewing, claiming
            one = Engine(store, slow)
            two = Engine(other, quick, poll_seconds=0.02)
            async with running(one):
                made = await _start(store)
                await slow.looking.wait()
                async with running(two):
                    for _ in range(6):  # four leases in all
                        clock.us += round(lease / 1.5 * 1e6)
                        await after_a_turn(polled)
                        await after_a_turn(renewed)
                    assert quick.looks == []
                    slow.may_go.set()
                    assert (await finished(store, made.id)).verdict is Verdict.FAIL
            assert one.health.lost == 0

    asyncio.run(go())


def test_an_owner_that_stalls_beyond_its_lease_is_followed_and_its_answer_dropped(path):
    async def go():
        lease, clock = 0.3, Clock()
        async with (
            open_store(path, lease_seconds=lease, clock=clock) as store,
            open_store(path, lease_seconds=lease, clock=clock) as other,
        ):
            stalled = Script(Verdict.PASS)
            stalled.may_go.clear()
            one = Engine(store, stalled)

            async def no_renewal(claims):
                return frozenset(claim.evaluation_id for claim in claims)

            asked = asyncio.Event()

            async def nothing_due(_owner, _limit):
                asked.set()
                return []

            async with running(one):
                made = await _start(store)
                await stalled.looking.wait()
                # As if the process were stopped: a claim that is under way would see the lease lapse, so it
                # must have ended.
                store.work.renew, store.work.claim = no_renewal, nothing_due
                await asked.wait()
                clock.us += round(1.5 * lease * 1e6)
                two = Engine(other, Script(Verdict.FAIL), poll_seconds=0.02)
                async with running(two):
                    assert (await finished(other, made.id)).verdict is Verdict.FAIL
                stalled.may_go.set()
                await until(lambda: one.health.lost == 1)
            assert (await store.evaluations.get(made.id)).verdict is Verdict.FAIL

    asyncio.run(go())


def test_a_stopped_engine_finishes_what_it_looks_at_and_gives_the_rest_back(path):
    async def go():
        async with open_store(path) as store:
            runner = Script(Verdict.PASS)
            runner.may_go.clear()
            engine = Engine(store, runner, concurrency=1)
            task = asyncio.create_task(engine.run(grace_seconds=30))
            made = [await _start(store), await _start(store)]
            await runner.looking.wait()
            engine.stop()
            runner.may_go.set()
            await task
            done = [await store.evaluations.get(one.id) for one in made]
            assert sum(one.finished for one in done) == 1

            runner.may_go.clear()
            runner.looking.clear()
            impatient = Engine(store, runner)
            task = asyncio.create_task(impatient.run(grace_seconds=0.05))
            await runner.looking.wait()
            impatient.stop()
            await task
            assert len(await store.work.claim("next", 10)) == 1, "its lease was given back"

    asyncio.run(go())


def test_a_wall_clock_that_jumps_ahead_does_not_end_a_watch(path):
    """15 minutes that the clock skipped were not watched: the rule goes on watching."""

    async def go():
        # The monotonic clock, so that no other jump is seen than those made here.
        jump = [time.time_ns() // 1000 - time.monotonic_ns() // 1000]
        async with open_store(path, clock=lambda: time.monotonic_ns() // 1000 + jump[0]) as store:
            runner = Script(None)
            gate = monitor_gate(Rule("watch", MonitorCheck("*", duration=900.0)))
            engine = Engine(store, runner, timing=Timing(monitor_interval=0.05))
            turn, claimed, claim = asyncio.Lock(), [0], store.work.claim

            async def claiming(*args):
                async with turn:
                    claims = await claim(*args)
                    claimed[0] += len(claims)
                    return claims

            async def skip(seconds):
                """Turns the clock while no lease is held; that one lapses by it is another test's matter."""
                async with turn:
                    await until(lambda: engine.health.ticks + engine.health.lost == claimed[0])
                    jump[0] += round(seconds * 1e6)

            store.work.claim = claiming
            async with running(engine):
                made = await _start(store, gate=gate)
                await until(lambda: len(runner.looks) >= 3)
                await skip(3600)
                seen = len(runner.looks)
                await until(lambda: len(runner.looks) >= seen + 5)
                evaluation = await store.evaluations.get(made.id)
                assert not evaluation.finished
                assert engine.health.clock_jumps == 1
                times = [now for _, now in runner.looks]
                assert times == sorted(times)
                assert times[-1] - times[0] < 600
                await skip(-7200)
                seen = len(runner.looks)
                await until(lambda: len(runner.looks) >= seen + 5)
                times = [now for _, now in runner.looks]
                assert times == sorted(times)
                runner.answer = Verdict.PASS
                assert (await finished(store, made.id)).verdict is Verdict.PASS
            assert engine.health.lost == 0

    asyncio.run(go())


@pytest.mark.parametrize("looked_before", [False, True])
def test_a_watch_does_not_end_while_no_server_works(path, looked_before):
    """Nobody could tell a state meanwhile: 15 minutes without a server are no 15 minutes without an alert."""

    async def go():
        later = [0]
        async with open_store(path, clock=lambda: time.time_ns() // 1000 + later[0]) as store:
            timing = Timing(monitor_interval=0.05)
            made = await _start(store, gate=monitor_gate(Rule("watch", MonitorCheck("*", duration=900.0))))
            if looked_before:
                first = Script(None)
                async with running(Engine(store, first, timing=timing)):
                    await until(lambda: len(first.looks) >= 2)
            later[0] = 1200 * 1_000_000
            runner = Script(None)
            async with running(Engine(store, runner, timing=timing)):
                await until(lambda: len(runner.looks) >= 3)
                assert not (await store.evaluations.get(made.id)).finished
                assert 1100 < runner.behind < 1200
                later[0] += 1000 * 1_000_000  # by which the clock jumps: not watched either
                seen = len(runner.looks)
                await until(lambda: len(runner.looks) >= seen + 3)
                assert not (await store.evaluations.get(made.id)).finished
                runner.answer = Verdict.PASS
                assert (await finished(store, made.id)).verdict is Verdict.PASS

    asyncio.run(go())


def test_results_of_one_evaluation_never_reach_another(path):
    async def go():
        async with open_store(path) as store:

            class Names(Script):
                async def look(self, evaluation, now, behind):
                    await asyncio.sleep(0)
                    return {
                        rule.name: replace(saw(Verdict.PASS), sentence=evaluation.id) for rule in evaluation.gate.rules
                    }

            async with running(Engine(store, Names(), cached=3)):
                made = [await _start(store) for _ in range(20)]
                for one in made:
                    assert (await finished(store, one.id)).results[0].sentence == one.id

    asyncio.run(go())


def test_an_engine_that_a_defect_ended_can_run_again(path):
    async def go():
        async with open_store(path) as store:
            runner = Script(Verdict.PASS)
            engine = Engine(store, runner)
            claim = store.work.claim

            async def broken(*_):
                raise ZeroDivisionError

            store.work.claim = broken
            made = await _start(store)
            with pytest.raises(ZeroDivisionError):
                await engine.run()
            store.work.claim = claim
            async with running(engine):
                assert (await finished(store, made.id)).verdict is Verdict.PASS

    asyncio.run(go())
