"""Bad input, one test each, through Analyze and through a stream: a clear answer, never a wrong PASS.

In every case the canary is twice as slow as the baseline where there is anything to compare, so PASS would be wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate.v1 import findings_pb2, metrics_pb2

from tests.server.harness import FINISH, START, STEP, Caller, Refused, Serving, arms, block, opening, refused, specs

PASS, FAIL = findings_pb2.VERDICT_PASS, findings_pb2.VERDICT_FAIL
INCONCLUSIVE = findings_pb2.VERDICT_INCONCLUSIVE
Blocks = list[metrics_pb2.SeriesBlock]
Judge = Callable[..., "es.AnalyzeResponse | es.VerdictUpdate"]


def slow(points: int = 60) -> tuple[np.ndarray, np.ndarray]:
    return arms(metrics=1, points=points, factor=2.0)


def messages(blocks: Blocks, metrics: list | None = None) -> es.AnalyzeRequest:
    request = es.AnalyzeRequest(metrics=opening(metrics or specs("a")).open.metrics)
    request.blocks.extend(blocks)
    return request


@pytest.fixture(params=["analyze", "stream"])
def judge(request: pytest.FixtureRequest, caller: Caller) -> Judge:
    """Send blocks either way; return the verdict, or raise what was refused."""

    def at_once(blocks: Blocks, metrics: list | None = None) -> es.AnalyzeResponse:
        return caller.analyze(messages(blocks, metrics))

    def as_they_come(blocks: Blocks, metrics: list | None = None) -> es.VerdictUpdate:
        stream = caller.stream(opening(metrics or specs("a")))
        stream.opened()
        for one in blocks:
            stream.send_block(one)
        stream.send(FINISH)
        return stream.final()

    return at_once if request.param == "analyze" else as_they_come


@pytest.fixture(autouse=True)
def _still_alive(caller: Caller) -> object:
    """Whatever was sent, the server goes on judging."""
    yield
    x, y = slow()
    assert caller.analyze(messages([block("baseline", x), block("canary", y)])).verdict == FAIL


def codes(answer: es.AnalyzeResponse | es.VerdictUpdate) -> set[str]:
    return {note.code for finding in answer.findings for note in finding.quality}


def told(refusal: Refused, field: str) -> str:
    assert refusal.code == "INVALID_ARGUMENT"
    found = [text for path, text in refusal.fields.items() if path.endswith(field)]
    assert len(found) == 1, refusal.fields
    return found[0]


def test_nan_on_one_side_only(judge: Judge) -> None:
    x, _ = slow()
    answer = judge([block("baseline", x), block("canary", np.full_like(x, np.nan))])
    assert answer.verdict == INCONCLUSIVE
    assert answer.findings[0].canary_points == 0
    assert answer.findings[0].reason


def test_nan_at_some_points_of_one_side(judge: Judge) -> None:
    x, y = slow()
    y[0, ::3] = np.nan
    answer = judge([block("baseline", x), block("canary", y)])
    assert answer.verdict == FAIL
    assert answer.findings[0].canary_points == 40


def test_no_overlap_in_time(judge: Judge) -> None:
    x, y = slow()
    answer = judge([block("baseline", x), block("canary", y, start=START + 3600.0)])
    assert answer.verdict == INCONCLUSIVE
    assert answer.findings[0].reason


def test_years_between_the_arms_do_not_eat_the_memory(judge: Judge) -> None:
    x, y = slow()
    blocks = [block("baseline", x, start=0.0, step=0.001), block("canary", y, step=0.001)]
    assert "Check times and step" in told(refused(lambda: judge(blocks)), "start_time")


def test_unequal_lengths(judge: Judge) -> None:
    x, y = slow(90)
    answer = judge([block("baseline", x), block("canary", y[:, :60])])
    assert answer.verdict != PASS
    longer = judge([block("baseline", x[:, :60]), block("canary", y)])
    assert longer.verdict == FAIL


@pytest.mark.parametrize("only", ["baseline", "canary"])
def test_an_empty_arm(judge: Judge, only: str) -> None:
    answer = judge([block(only, slow()[1])])
    assert answer.verdict == INCONCLUSIVE
    assert answer.findings[0].reason


@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinite_values(judge: Judge, bad: float) -> None:
    x, y = slow()
    y[0, 10] = bad
    answer = judge([block("baseline", x), block("canary", y)])
    assert answer.verdict != PASS
    assert codes(answer) & {"bad_values"}


def test_nothing_but_infinity(judge: Judge) -> None:
    x, y = slow()
    answer = judge([block("baseline", x), block("canary", np.full_like(y, np.inf))])
    assert answer.verdict != PASS


def test_negative_values_on_a_log_scale(judge: Judge) -> None:
    x, y = slow()
    y[0, 5:10] = -1.0
    answer = judge([block("baseline", x), block("canary", y)], specs("a", scale="log"))
    assert answer.verdict != PASS
    assert codes(answer) & {"bad_values"}
    every = judge([block("baseline", -x), block("canary", -y)], specs("a", scale="log"))
    assert every.verdict == INCONCLUSIVE


def test_duplicate_timestamps(judge: Judge) -> None:
    x, y = slow()
    answer = judge([block("baseline", x), block("canary", x), block("canary", y)])
    assert answer.verdict == FAIL
    assert "duplicates" in codes(answer)


def test_unsorted_timestamps(judge: Judge) -> None:
    x, y = slow()
    answer = judge(
        [
            block("canary", y[:, 30:], start=START + 30 * STEP),
            block("baseline", x),
            block("canary", y[:, :30]),
        ]
    )
    assert answer.verdict == FAIL
    assert "out_of_order" in codes(answer)


def test_clock_skew_between_the_arms(judge: Judge) -> None:
    x, y = slow()
    answer = judge([block("baseline", x), block("canary", y, start=START + 0.4 * STEP)])
    assert answer.verdict == FAIL
    assert "clock_skew" in codes(answer)


def test_an_unknown_metric(judge: Judge) -> None:
    x, y = slow()
    blocks = [block("baseline", x), block("canary", y, metrics=("latency",))]
    assert "'latency'" in told(refused(lambda: judge(blocks)), ".metrics[0]")


def test_another_step(judge: Judge) -> None:
    x, y = slow()
    refusal = refused(lambda: judge([block("baseline", x), block("canary", y, step=2 * STEP)]))
    assert "one step" in told(refusal, ".step")


def test_a_declared_metric_that_never_comes(judge: Judge) -> None:
    x, y = arms(metrics=1)
    blocks = [block("baseline", x, metrics=("a",)), block("canary", y, metrics=("a",))]
    answer = judge(blocks, specs("ab"))
    assert answer.verdict == INCONCLUSIVE
    assert [finding.verdict for finding in answer.findings] == [PASS, INCONCLUSIVE]


def test_all_zeros_and_constants(judge: Judge) -> None:
    zeros = np.zeros((1, 60))
    assert judge([block("baseline", zeros), block("canary", zeros)]).verdict != FAIL
    assert judge([block("baseline", zeros + 5.0), block("canary", zeros + 50.0)]).verdict != PASS


@pytest.mark.parametrize("points", [1, 2, 3])
def test_hardly_any_points(judge: Judge, points: int) -> None:
    x, y = slow(points)
    answer = judge([block("baseline", x), block("canary", y)])
    assert answer.verdict in (INCONCLUSIVE, FAIL)


def test_values_beyond_single_precision(judge: Judge) -> None:
    x, y = slow()
    absurd = judge([block("baseline", x * 1e300), block("canary", y * 1e300)])
    assert absurd.verdict != PASS
    large = judge([block("baseline", x * 1e38), block("canary", y * 1e38)])
    assert large.verdict == FAIL


def test_a_ten_megabyte_message(caller: Caller) -> None:
    rows, points = 1250, 500
    x, y = arms(metrics=rows, points=points, factor=2.0)
    names = [f"m{k}" for k in range(rows)]
    message = messages([block("baseline", x), block("canary", y)], specs(names))  # type: ignore[arg-type]
    assert message.ByteSize() > 10_000_000
    answer = caller.analyze(message)
    assert answer.verdict == FAIL
    assert [f.metric for f in answer.findings if f.verdict == FAIL] == ["m0"]


def test_a_message_above_the_limit(serving: Serving) -> None:
    with serving.server(max_message_bytes=1024 * 1024) as server, Caller(server.target) as caller:
        x, y = arms(metrics=100, points=1000)
        names = [f"m{k}" for k in range(100)]
        message = messages([block("baseline", x), block("canary", y)], specs(names))  # type: ignore[arg-type]
        refusal = refused(lambda: caller.analyze(message))
        assert refusal.code == "RESOURCE_EXHAUSTED"
        assert "1048576" in refusal.message
        stream = caller.stream(opening(specs(names)))  # type: ignore[arg-type]
        stream.opened()
        stream.send_block(block("baseline", np.ones((100, 2000))))
        assert stream.error().code == "RESOURCE_EXHAUSTED"
        assert caller.analyze(messages([block("baseline", x[:1]), block("canary", y[:1])])).verdict == PASS
