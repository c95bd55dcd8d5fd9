"""Processes and connections that die: nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate.v1 import findings_pb2
from tidegate_server import live, worker
from tidegate_server.app import Server
from tidegate_server.pool import AnalysisPool

from tests.server.deadly import die
from tests.server.harness import (
    FINISH,
    START,
    STEP,
    UPDATE,
    Caller,
    Conversation,
    Serving,
    arms,
    block,
    opening,
    refused,
    request,
)


@pytest.fixture
def pool() -> Iterator[AnalysisPool]:
    made = AnalysisPool(1)
    made.start()
    yield made
    made.close()


@pytest.fixture
def fragile(serving: Serving, pool: AnalysisPool) -> Iterator[Server]:
    """A server with one worker of its own, to be killed."""
    with serving.server(pool) as made:
        yield made


def kill(pool: AnalysisPool) -> int:
    for _ in range(600):
        (victim,) = pool.pids
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:
            # Killed before, and the pool has not started the next one yet.
            time.sleep(0.05)
        else:
            return victim
    pytest.fail("the pool never started another worker")


def run_undisturbed(caller: Caller, x: object, y: object) -> es.VerdictUpdate:
    stream = caller.stream(opening())
    stream.opened()
    stream.send_arms(x, y)
    stream.send(FINISH)
    return stream.final()


def feed(stream: Conversation, x: object, y: object, low: int, high: int) -> int:
    last = 0
    for k in range(low, high):
        last = stream.send_arms(x[:, k : k + 1], y[:, k : k + 1], START + k * STEP)  # type: ignore[index]
    return last


@pytest.mark.parametrize("saved", [False, True], ids=["from blocks", "from a saved state"])
def test_killing_the_worker_loses_nothing(
    fragile: Server, pool: AnalysisPool, saved: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if saved:
        monkeypatch.setattr(live, "STATE_EVERY_BLOCKS", 8)
    x, y = arms(points=60, seed=4)
    with Caller(fragile.target) as caller:
        stream = caller.stream(opening())
        evaluation_id = stream.opened().evaluation_id
        victims = set()
        for low in range(0, 60, 20):
            stream.until_acknowledged(feed(stream, x, y, low, low + 20))
            victims.add(kill(pool))
        assert (fragile.evaluations._known[evaluation_id].saved is not None) == saved
        stream.send(FINISH)
        final = stream.final()
        expected = run_undisturbed(caller, x, y)
    assert len(victims) == 3
    assert final.sequence == 120
    assert final.verdict == expected.verdict
    assert list(final.findings) == list(expected.findings)


def test_killing_the_worker_in_the_middle_of_a_step_loses_nothing(fragile: Server, pool: AnalysisPool) -> None:
    x, y = arms(points=300)
    with Caller(fragile.target) as caller:
        stream = caller.stream(opening())
        stream.opened()
        last = feed(stream, x, y, 0, 300)
        for _ in range(3):
            kill(pool)
            message = stream.next()  # an answer: the next worker is at work
            while message.WhichOneof("message") != "acknowledgement":
                message = stream.next()
            if message.acknowledgement.sequence == last:
                break
        stream.send(FINISH)
        final = stream.final()
        assert final.sequence == last
        assert list(final.findings) == list(run_undisturbed(caller, x, y).findings)


def test_a_fail_that_was_told_survives_its_worker(fragile: Server, pool: AnalysisPool) -> None:
    x, y = arms(points=60, factor=1.8)
    with Caller(fragile.target) as caller:
        stream = caller.stream(opening())
        stream.opened()
        stream.send_arms(x, y)
        stream.send(UPDATE)
        assert stream.until_update(2).verdict == findings_pb2.VERDICT_FAIL
        kill(pool)
        stream.send_arms(x, x)  # corrected points: alone they would not fail
        stream.send(FINISH)
        assert stream.final().verdict == findings_pb2.VERDICT_FAIL


def test_analyze_survives_a_dead_worker(fragile: Server, pool: AnalysisPool) -> None:
    with Caller(fragile.target) as caller:
        victim = kill(pool)
        assert caller.analyze(request(*arms())).verdict == findings_pb2.VERDICT_PASS
        assert victim not in pool.pids


def test_work_that_kills_every_worker_is_given_up(fragile: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Caller(fragile.target) as caller:
        with monkeypatch.context() as patch:
            patch.setattr(worker, "analyze", die)
            refusal = refused(lambda: caller.analyze(request(*arms())))
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "ANALYSIS_LOST")
        assert refusal.retry
        stream = caller.stream(opening())
        evaluation_id = stream.opened().evaluation_id
        with monkeypatch.context() as patch:
            patch.setattr(worker, "step", die)
            stream.send_arms(*arms())
            assert stream.error().reason == "ANALYSIS_LOST"
        again = caller.stream(resuming(evaluation_id))
        assert again.opened().acknowledged_sequence == 0
        again.send_arms(*arms())
        again.send(FINISH)
        assert again.final().verdict == findings_pb2.VERDICT_PASS


def resuming(evaluation_id: str) -> es.StreamEvaluationRequest:
    return es.StreamEvaluationRequest(open=es.OpenEvaluation(resume_evaluation_id=evaluation_id))


def test_an_evaluation_that_its_worker_forgot_is_built_again(
    fragile: Server, pool: AnalysisPool, serving: Serving
) -> None:
    x, y = arms(points=40)
    with Caller(fragile.target) as caller:
        stream = caller.stream(opening())
        evaluation_id = stream.opened().evaluation_id
        stream.until_acknowledged(feed(stream, x, y, 0, 20))
        serving.run(pool.run(worker.forget, evaluation_id))
        stream.until_acknowledged(feed(stream, x, y, 20, 40))
        stream.send(FINISH)
        assert list(stream.final().findings) == list(run_undisturbed(caller, x, y).findings)


def test_a_step_whose_client_vanished_is_carried_through(serving: Serving) -> None:
    x, y = arms(points=60)
    with serving.server() as server, Caller(server.target) as caller:
        stream = caller.stream(opening())
        evaluation_id = stream.opened().evaluation_id
        feed(stream, x, y, 0, 60)
        stream.next()  # something was taken; more is under way
        stream.cancel()

        serving.until(lambda: server.evaluations.open_streams == 0)
        again = caller.stream(resuming(evaluation_id))
        again.sequence = again.opened().acknowledged_sequence
        assert again.sequence > 0
        low, odd = divmod(again.sequence, 2)
        if odd:  # the baseline of this column was taken, its canary was not
            again.send_block(block("canary", y[:, low : low + 1], start=START + low * STEP))
            low += 1
        feed(again, x, y, low, 60)
        again.send(FINISH)
        final = again.final()
        assert final.sequence == 120
        assert list(final.findings) == list(run_undisturbed(caller, x, y).findings)


def test_the_fork_server_may_die_too(serving: Serving, pool: AnalysisPool) -> None:
    from multiprocessing import forkserver

    server_pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    os.kill(server_pid, signal.SIGKILL)
    with serving.server(pool) as server, Caller(server.target) as caller:
        kill(pool)
        assert caller.analyze(request(*arms())).verdict == findings_pb2.VERDICT_PASS


def test_clients_that_vanish_at_any_moment_cost_nothing(serving: Serving, caplog: pytest.LogCaptureFixture) -> None:
    """Streams are left at every stage, some by closing the whole connection; nothing leaks, nothing is unforeseen."""
    x, y = arms(points=30)
    with serving.server(max_kept_evaluations=4) as server:
        for k in range(24):
            with Caller(server.target) as caller:
                stream = caller.stream(opening())
                if k % 8 > 0:
                    stream.opened()
                feed(stream, x, y, 0, 2 * (k % 8))
                for _ in range(k % 5):
                    stream.send(UPDATE)
                if k % 8 > 3:
                    stream.next()
                if k % 6 == 5:
                    stream.send(FINISH)
                if k % 3:
                    stream.cancel()  # else the connection goes with the caller
        serving.until(lambda: server.evaluations.open_streams == 0)
        serving.until(lambda: not server.evaluations._under_way)
        assert len(server.evaluations._waiting) <= 4
        held = sum(one.held_bytes for one in server.evaluations._known.values())
        assert server.evaluations.held_bytes == held
        with Caller(server.target) as caller:
            run_undisturbed(caller, x, y)
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_a_client_that_leaves_while_it_resumes_leaves_the_evaluation_behind(serving: Serving) -> None:
    x, y = arms(points=20)
    with serving.server() as server, Caller(server.target) as caller:
        stream = caller.stream(opening())
        evaluation_id = stream.opened().evaluation_id
        stream.until_acknowledged(feed(stream, x, y, 0, 20))
        evaluation = server.evaluations._known[evaluation_id]
        serving.run(evaluation.lock.acquire())  # as if a step were under way
        again = caller.stream(resuming(evaluation_id))
        assert stream.error().reason == "EVALUATION_TAKEN_OVER"
        again.cancel()
        serving.until(lambda: server.evaluations.open_streams == 0)
        serving.loop.call_soon_threadsafe(evaluation.lock.release)
        assert evaluation.feeder is None
        assert evaluation_id in server.evaluations._waiting
        last = caller.stream(resuming(evaluation_id), FINISH)
        assert last.opened().acknowledged_sequence == 40
        assert last.final().sequence == 40


def test_finished_evaluations_do_not_push_out_those_that_wait(serving: Serving) -> None:
    with serving.server(max_kept_evaluations=1) as server, Caller(server.target) as caller:
        broken = caller.stream(opening())
        evaluation_id = broken.opened().evaluation_id
        broken.cancel()
        serving.until(lambda: server.evaluations.open_streams == 0)
        for _ in range(3):
            run_undisturbed(caller, *arms())
        again = caller.stream(resuming(evaluation_id))
        assert again.opened().evaluation_id == evaluation_id
        again.cancel()


def test_many_streams_while_workers_die_again_and_again(serving: Serving) -> None:
    """Every final verdict equals that of an undisturbed run, to the last bit."""
    pool = AnalysisPool(2)
    pool.start()
    killed = set()
    try:
        with serving.server(pool) as server, Caller(server.target) as caller:
            series = [arms(points=40, seed=k, factor=1.0 + 0.1 * (k % 3)) for k in range(6)]
            streams = [caller.stream(opening()) for _ in series]
            for stream in streams:
                stream.opened()
            for low in range(0, 40, 8):
                for stream, (x, y) in zip(streams, series, strict=True):
                    feed(stream, x, y, low, low + 8)
                victim = pool.pids[low // 8 % 2]
                # Twice per worker: a step is given up at its third loss. No successor yet: nothing to kill.
                if low < 32 and victim not in killed:
                    os.kill(victim, signal.SIGKILL)
                    killed.add(victim)
            for stream in streams:
                stream.send(FINISH)
            finals = [stream.final() for stream in streams]
            expected = [run_undisturbed(caller, x, y) for x, y in series]
    finally:
        pool.close()
    assert len(killed) >= 2
    for final, undisturbed in zip(finals, expected, strict=True):
        assert final.sequence == 80
        assert final.verdict == undisturbed.verdict
        assert list(final.findings) == list(undisturbed.findings)
