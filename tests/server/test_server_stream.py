"""``StreamEvaluation`` with real calls: order, acknowledgements, updates, resuming, endings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tidegate_analysis as ta
from tidegate.v1 import deployments_pb2, findings_pb2, metrics_pb2
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate_server.api.streams import MAX_PENDING_BLOCKS
from tidegate_server.app import Server

from tests.server.harness import (
    FINISH,
    START,
    STEP,
    UPDATE,
    Caller,
    Serving,
    arms,
    block,
    opening,
    request,
    specs,
)

PASS, FAIL = findings_pb2.VERDICT_PASS, findings_pb2.VERDICT_FAIL
INCONCLUSIVE = findings_pb2.VERDICT_INCONCLUSIVE


def resuming(evaluation_id: str) -> es.StreamEvaluationRequest:
    return es.StreamEvaluationRequest(open=es.OpenEvaluation(resume_evaluation_id=evaluation_id))


def direct(x: np.ndarray, y: np.ndarray) -> ta.Judgement:
    """The same series judged without a server."""
    live = ta.LiveEvaluation(specs(), design="concurrent", warm_up=0.0)
    live.add(ta.Block("baseline", START, STEP, x))
    live.add(ta.Block("canary", START, STEP, y))
    return live.judge(final=True)


def same_numbers(update: es.VerdictUpdate, expected: ta.Judgement) -> None:
    assert update.verdict == expected.verdict
    assert [f.verdict for f in update.findings] == expected.verdicts.tolist()
    for i, finding in enumerate(update.findings):
        for field in ("effect", "effect_low", "effect_high", "log_e_value", "p_value"):
            value = float(getattr(expected.result, field)[i])
            if np.isfinite(value):
                assert getattr(finding, field) == value, field
            else:
                assert not finding.HasField(field)


def test_from_open_to_final(caller: Caller) -> None:
    x, y = arms(points=80, factor=1.5, row=1)
    stream = caller.stream(opening())
    opened = stream.opened()
    assert opened.evaluation_id
    assert opened.acknowledged_sequence == 0
    assert opened.resume_within.seconds == 120
    updates = []
    for k in range(80):
        last = stream.send_arms(x[:, k : k + 1], y[:, k : k + 1], START + k * STEP)
        updates += stream.until_acknowledged(last)
    stream.send(FINISH)
    final = stream.final()
    assert final.verdict == FAIL
    assert final.decision == findings_pb2.DECISION_HALT
    assert final.sequence == 160
    assert final.as_of.seconds == START + 79 * STEP
    same_numbers(final, direct(x, y))
    # The first update tells of everything; a FAIL came before the end, and stayed.
    assert len(updates[0].findings) == 2
    verdicts = [update.verdict for update in updates]
    assert FAIL in verdicts
    assert set(verdicts[verdicts.index(FAIL) :]) == {FAIL}
    assert [update.sequence for update in updates] == sorted(update.sequence for update in updates)
    assert not any(update.final for update in updates)
    # Updates come when something changed, not with every block.
    assert len(updates) < 80


def test_interleaving_and_cutting_do_not_matter(caller: Caller) -> None:
    x, y = arms(points=60, seed=5)
    whole = caller.stream(opening())
    whole.opened()
    whole.send_arms(x, y)
    whole.send(FINISH)
    pieces = caller.stream(opening())
    pieces.opened()
    for low in range(0, 60, 20):
        pieces.send_block(block("canary", y[:, low : low + 20], start=START + low * STEP))
    for k in range(60):
        pieces.send_block(block("baseline", x[:, k : k + 1], start=START + k * STEP))
    pieces.send(FINISH)
    one, other = whole.final(), pieces.final()
    assert one.verdict == other.verdict
    assert list(one.findings) == list(other.findings)
    same_numbers(one, direct(x, y))


def test_a_past_before_the_deployment_is_used(caller: Caller) -> None:
    past_x, past_y = arms(points=400, seed=8)
    x, y = arms(points=30, seed=9)
    deployment = deployments_pb2.Deployment()
    deployment.start_time.FromSeconds(int(START))
    first = opening(deployment=deployment)
    first.open.options.horizon.FromSeconds(300)
    stream = caller.stream(first)
    stream.opened()
    before = START - 400 * STEP
    stream.send_block(block("baseline", past_x, start=before, phase="pre"))
    stream.send_block(block("canary", past_y, start=before, phase="pre"))
    stream.send_arms(x, y)
    stream.send(FINISH)
    final = stream.final()
    assert [finding.history_windows for finding in final.findings] == [13, 13]


def test_an_update_can_be_asked_for(caller: Caller) -> None:
    stream = caller.stream(opening())
    stream.opened()
    stream.send(UPDATE)
    empty = stream.until_update()
    assert empty.verdict == INCONCLUSIVE
    assert [finding.metric for finding in empty.findings] == ["a", "b"]
    assert empty.sequence == 0
    assert not empty.HasField("as_of")
    last = stream.send_arms(*arms(points=5))
    stream.until_acknowledged(last)
    for _ in range(2):  # nothing changed in between: asked for, it comes all the same, with everything
        stream.send(UPDATE)
        again = stream.until_update(last)
        while len(again.findings) != 2:
            again = stream.until_update(last)
    stream.cancel()


def test_blocks_that_wait_are_judged_together(caller: Caller) -> None:
    x, y = arms(points=200)
    stream = caller.stream(opening())
    stream.opened()
    for k in range(200):
        last = stream.send_arms(x[:, k : k + 1], y[:, k : k + 1], START + k * STEP)
    stream.send(FINISH)
    seen = list(stream.call)
    acknowledged = [m.acknowledgement.sequence for m in seen if m.WhichOneof("message") == "acknowledgement"]
    assert acknowledged[-1] == last
    assert acknowledged == sorted(set(acknowledged))
    assert seen[-1].update.final
    same_numbers(seen[-1].update, direct(x, y))


def test_a_repeated_block_is_ignored_and_acknowledged_again(caller: Caller) -> None:
    x, y = arms()
    stream = caller.stream(opening())
    stream.opened()
    last = stream.send_arms(x, y)
    stream.until_update(last)
    stream.send_block(block("canary", y * 7.0), sequence=last)
    assert stream.until_acknowledged(last) == []
    stream.send(FINISH)
    same_numbers(stream.final(), direct(x, y))


@pytest.mark.parametrize(("sequence", "expected"), [(0, 2), (3, 2), (99, 2)])
def test_a_gap_is_refused_with_what_is_expected(caller: Caller, sequence: int, expected: int) -> None:
    stream = caller.stream(opening())
    evaluation_id = stream.opened().evaluation_id
    stream.send_block(block("canary", arms()[0]))
    stream.send_block(block("baseline", arms()[1]), sequence=sequence)
    refusal = stream.error()
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "SEQUENCE_GAP")
    assert refusal.metadata == {"expected": str(expected), "got": str(sequence)}
    assert refusal.fields == {"block.sequence": f"must be {expected}, not {sequence}"}
    # What came before the gap was taken.
    again = caller.stream(resuming(evaluation_id))
    assert again.opened().acknowledged_sequence == 1
    again.cancel()


def test_a_refused_block_is_not_taken_and_the_evaluation_goes_on(caller: Caller) -> None:
    x, y = arms()
    stream = caller.stream(opening())
    evaluation_id = stream.opened().evaluation_id
    stream.send_block(block("baseline", x))
    stream.send_block(block("canary", y, metrics=("a", "unknown")))
    refusal = stream.error()
    assert refusal.code == "INVALID_ARGUMENT"
    assert list(refusal.fields) == ["block.metrics[1]"]
    again = caller.stream(resuming(evaluation_id))
    again.sequence = again.opened().acknowledged_sequence
    assert again.sequence == 1
    again.send_block(block("canary", y))
    again.send(FINISH)
    same_numbers(again.final(), direct(x, y))


def test_a_client_that_comes_back_goes_on(caller: Caller) -> None:
    x, y = arms(points=60, factor=1.4)
    stream = caller.stream(opening())
    evaluation_id = stream.opened().evaluation_id
    last = stream.send_arms(x[:, :40], y[:, :40])
    stream.until_acknowledged(last)
    stream.cancel()
    again = caller.stream(resuming(evaluation_id))
    opened = again.opened()
    assert (opened.evaluation_id, opened.acknowledged_sequence) == (evaluation_id, last)
    # Nothing needs to be asked: the client may have missed what was told last.
    assert len(again.until_update(last).findings) == 2
    again.sequence = opened.acknowledged_sequence
    again.send_arms(x[:, 40:], y[:, 40:], START + 40 * STEP)
    again.send(FINISH)
    same_numbers(again.final(), direct(x, y))


def test_of_two_streams_the_newer_wins(caller: Caller) -> None:
    x, y = arms()
    older = caller.stream(opening())
    evaluation_id = older.opened().evaluation_id
    older.until_acknowledged(older.send_block(block("baseline", x)))
    newer = caller.stream(resuming(evaluation_id))
    assert newer.opened().acknowledged_sequence == 1
    refusal = older.error()
    assert (refusal.code, refusal.reason) == ("ABORTED", "EVALUATION_TAKEN_OVER")
    assert refusal.metadata["evaluation_id"] == evaluation_id
    newer.sequence = 1
    newer.send_block(block("canary", y))
    newer.send(FINISH)
    same_numbers(newer.final(), direct(x, y))


def test_a_finished_evaluation_tells_its_verdict_again_but_takes_no_block(caller: Caller) -> None:
    x, y = arms()
    stream = caller.stream(opening())
    evaluation_id = stream.opened().evaluation_id
    stream.send_arms(x, y)
    stream.send(FINISH)
    final = stream.final()
    for ask in (FINISH, UPDATE):
        again = caller.stream(resuming(evaluation_id))
        assert again.opened().acknowledged_sequence == 2
        again.send(ask)
        assert [message.update for message in again.call] == [final]  # and the call ends
    late = caller.stream(resuming(evaluation_id))
    late.opened()
    late.send_block(block("canary", y), sequence=3)
    refusal = late.error()
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "EVALUATION_FINISHED")
    closed = caller.stream(resuming(evaluation_id))
    closed.close()
    closed.opened()
    assert closed.final() == final


def test_an_evaluation_that_nobody_knows(caller: Caller) -> None:
    refusal = caller.stream(resuming("0" * 32)).error()
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "EVALUATION_NOT_FOUND")
    assert "send every block" in refusal.message


def test_closing_without_finish_is_told(caller: Caller) -> None:
    stream = caller.stream(opening())
    evaluation_id = stream.opened().evaluation_id
    stream.send_arms(*arms())
    stream.close()
    refusal = stream.error()
    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "CLOSED_WITHOUT_FINISH")
    assert refusal.metadata == {"evaluation_id": evaluation_id, "acknowledged_sequence": "2"}
    again = caller.stream(resuming(evaluation_id), FINISH)
    again.opened()
    assert again.final().verdict == PASS


@pytest.mark.parametrize(
    ("messages", "field"),
    [
        ([UPDATE], "open"),
        ([es.StreamEvaluationRequest()], "open"),
        ([es.StreamEvaluationRequest(block=metrics_pb2.SeriesBlock(sequence=1))], "open"),
        ([opening(), opening()], "open"),
        ([opening(), es.StreamEvaluationRequest()], "message"),
        ([opening([])], "open.metrics"),
        ([opening(specs("ab")[:1] * 2)], "open.metrics[1].name"),
    ],
)
def test_messages_out_of_place(caller: Caller, messages: list[es.StreamEvaluationRequest], field: str) -> None:
    refusal = caller.stream(*messages).error()
    assert refusal.code == "INVALID_ARGUMENT"
    assert list(refusal.fields) == [field]


def test_an_empty_stream(caller: Caller) -> None:
    stream = caller.stream()
    stream.close()
    assert list(stream.error().fields) == ["open"]


def test_open_is_checked_with_its_path(caller: Caller) -> None:
    message = opening()
    message.open.metrics[0].margin = -1.0
    message.open.options.horizon.seconds = -5
    assert set(caller.stream(message).error().fields) == {"open.metrics[0].margin", "open.options.horizon"}
    short = opening()
    short.open.options.warm_up.seconds = 60
    short.open.options.horizon.seconds = 30
    assert list(caller.stream(short).error().fields) == ["open.options.horizon"]


def test_streams_have_limits(serving: Serving) -> None:
    with (
        serving.server(max_open_streams=1, max_points=100, max_series=4) as server,
        Caller(server.target) as caller,
    ):
        first = caller.stream(opening())
        first.opened()
        second = caller.stream(opening()).error()
        assert (second.code, second.metadata) == ("RESOURCE_EXHAUSTED", {"limit": "max_open_streams", "value": "1"})
        assert second.retry
        first.send_block(block("canary", np.ones((2, 20))))
        first.send_block(block("canary", np.ones((2, 40)), start=START + 500))
        points = first.error()
        assert points.metadata == {"limit": "max_points", "value": "100", "got": "120"}
        third = caller.stream(opening())
        third.opened()
        for instance in ("p1", "p2", "p3"):
            third.send_block(block("canary", np.ones((2, 2)), instance=instance))
        assert third.error().metadata == {"limit": "max_series", "value": "4", "got": "6"}
        many = caller.stream(opening(specs("abcdef"))).error()
        assert many.metadata == {"limit": "max_series", "value": "4", "got": "6"}


def test_points_that_were_not_taken_do_not_count(serving: Serving) -> None:
    with serving.server(max_points=100) as server, Caller(server.target) as caller:
        stream = caller.stream(opening())
        evaluation_id = stream.opened().evaluation_id
        for _ in range(3):
            stream.send_block(block("canary", np.ones((2, 30)), metrics=("a", "unknown")))
            assert list(stream.error().fields) == ["block.metrics[1]"]
            stream = caller.stream(resuming(evaluation_id))
            assert stream.opened().acknowledged_sequence == 0
        stream.until_acknowledged(stream.send_block(block("canary", np.ones((2, 50)))))
        assert server.evaluations._known[evaluation_id].points == 100
        stream.send_block(block("baseline", np.ones((2, 1))))
        assert stream.error().metadata["got"] == "102"


def test_memory_over_all_evaluations_has_a_limit(serving: Serving) -> None:
    with serving.server(max_held_bytes=64 * 1024) as server, Caller(server.target) as caller:
        waiting = caller.stream(opening())
        gone = waiting.opened().evaluation_id
        waiting.until_acknowledged(waiting.send_block(block("canary", np.ones((2, 2000)))))
        waiting.cancel()
        serving.until(lambda: server.evaluations.open_streams == 0)
        # A stream that is there has precedence over one whose client is gone.
        stream = caller.stream(opening())
        stream.opened()
        stream.until_acknowledged(stream.send_block(block("canary", np.ones((2, 3000)))))
        assert caller.stream(resuming(gone)).error().code == "NOT_FOUND"
        stream.send_block(block("baseline", np.ones((2, 3000))))
        refusal = stream.error()
        assert (refusal.code, refusal.metadata["limit"]) == ("RESOURCE_EXHAUSTED", "max_held_bytes")


def test_a_client_that_vanished_is_waited_for_and_then_forgotten(serving: Serving) -> None:
    with serving.server(resume_within_seconds=0.05) as server, Caller(server.target) as caller:
        stream = caller.stream(opening())
        opened = stream.opened()
        assert opened.resume_within.nanos == 50_000_000
        stream.until_acknowledged(stream.send_arms(*arms()))
        evaluation = server.evaluations._known[opened.evaluation_id]
        stream.cancel()
        serving.run(evaluation.gone.wait())
        assert len(server.evaluations) == 0
        assert server.evaluations.held_bytes == 0
        refusal = caller.stream(resuming(opened.evaluation_id)).error()
        assert refusal.code == "NOT_FOUND"
        assert "no client came back within 0.05 s" in refusal.message


def test_only_so_many_evaluations_wait_for_their_client(serving: Serving) -> None:
    with serving.server(max_kept_evaluations=2) as server, Caller(server.target) as caller:
        ids = []
        for _ in range(3):
            stream = caller.stream(opening())
            ids.append(stream.opened().evaluation_id)
            stream.cancel()
            serving.until(lambda: server.evaluations.open_streams == 0)
        assert len(server.evaluations) == 2
        assert "more than 2 evaluations wait" in caller.stream(resuming(ids[0])).error().message
        for evaluation_id in ids[1:]:
            stream = caller.stream(resuming(evaluation_id))
            assert stream.opened().evaluation_id == evaluation_id
            stream.cancel()


class Unread:
    """A stream whose client asks for answers and reads none of them, until the server cannot write any more."""

    def __init__(self, serving: Serving, server: Server, caller: Caller, other: Caller) -> None:
        self._serving = serving
        self.evaluations = server.evaluations
        self._other = other
        self.stream = caller.stream(opening(specs([f"metric-{k}" for k in range(300)])))  # type: ignore[arg-type]
        self.evaluation_id = self.stream.opened().evaluation_id
        self.feeder: Any = next(iter(self.evaluations._feeders))
        self.writing = self.written = self.sent = 0
        write = self.feeder._context.write

        class Counted:
            async def write(_, message: object) -> None:  # noqa: N805 - self is the test's
                self.writing += 1
                await write(message)
                self.written += 1

        self.feeder._context = Counted()

    def send(self) -> None:
        self.sent += 1
        self.stream.send_block(block("canary", np.ones((300, 1)), start=START + self.sent * STEP))
        self.stream.send(UPDATE)

    def stuck(self) -> bool:
        """Whether one write waits while the server answers whole calls of others: it waits for the reader, then."""
        writing = self.writing
        calls = 0
        while calls < 20 and self.written < writing == self.writing:
            assert self._other.analyze(request(*arms(points=3))).verdict
            calls += 1
        return calls == 20

    def fill(self) -> None:
        """Send until the server is stuck: an answer to each message, so that it is the answers that fill the way."""
        while not self.stuck():
            assert self.sent < 4000, "every message was answered although nothing was read"
            self.send()
            self._serving.until(
                lambda: self.written < self.writing or self.sent <= self.feeder._evaluation.acknowledged
            )


def test_a_client_that_does_not_read_is_slowed_down(serving: Serving) -> None:
    """Neither end may grow without bound: the reader stops at its bound while the answers wait to be read."""
    with serving.server() as server, Caller(server.target) as caller, Caller(server.target) as other:
        unread = Unread(serving, server, caller, other)
        unread.fill()
        while unread.sent < 4000:
            unread.send()
        serving.until(lambda: len(unread.feeder._pending) == MAX_PENDING_BLOCKS)
        assert unread.stuck()
        received = unread.feeder._received
        assert received < 4000
        assert len(unread.feeder._pending) == MAX_PENDING_BLOCKS
        # It goes on as soon as it is read.
        unread.stream.until_acknowledged(received + 1)
        unread.stream.cancel()


@pytest.mark.parametrize("leave", ["cancels", "closes its connection"])
def test_a_client_that_leaves_while_an_answer_waits_is_nothing_unforeseen(
    serving: Serving, caplog: pytest.LogCaptureFixture, leave: str
) -> None:
    with serving.server() as server, Caller(server.target) as caller, Caller(server.target) as other:
        unread = Unread(serving, server, caller, other)
        unread.fill()
        if leave == "cancels":
            unread.stream.cancel()
        else:
            caller.channel.close()
        serving.until(lambda: server.evaluations.open_streams == 0)
        again = other.stream(resuming(unread.evaluation_id))
        assert again.opened().acknowledged_sequence > 0
        again.cancel()
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_late_points_do_not_take_a_fail_back(caller: Caller) -> None:
    x, y = arms(points=60, factor=1.8)
    stream = caller.stream(opening())
    stream.opened()
    stream.until_acknowledged(stream.send_arms(x, y))
    stream.send(UPDATE)
    assert stream.until_update(2).verdict == FAIL
    stream.send_arms(x, x)  # corrected points say that nothing was wrong
    stream.send(FINISH)
    final = stream.final()
    assert final.verdict == FAIL
    assert "duplicates" in {note.code for note in final.findings[0].quality}


def test_finish_without_any_block_is_inconclusive(caller: Caller) -> None:
    stream = caller.stream(opening())
    stream.opened()
    stream.send(FINISH)
    assert stream.final().verdict == INCONCLUSIVE
    assert stream.call.code().name == "OK"
