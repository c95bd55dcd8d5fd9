"""The decoder against anything: it answers, or refuses with an error of the domain; nothing else gets out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import tidegate_analysis as ta
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate.v1 import metrics_pb2
from tidegate_server import worker
from tidegate_server.api.blocks import Declared, decode_block, encode_block
from tidegate_server.api.metrics import (
    CRITICALITIES,
    DECISIONS,
    DESIGNS,
    DIRECTIONS,
    KINDS,
    SCALES,
    decode_specs,
    decode_time,
    encode_seconds,
    encode_spec,
)
from tidegate_server.errors import RequestError, Violations

LIMIT = 20_000
NAMES = st.sampled_from(["a", "b", "c", "", "ä" * 300, "a.b c"])
NUMBERS = st.floats() | st.sampled_from([0.0, 1.0, -1.0, 0.02, 0.1, math.nan, math.inf])
ENUM = st.integers(-1, 7)
SECONDS = st.sampled_from([0, 1, 10, 60, -1, 2**40, 253_402_300_799]) | st.integers(-(2**62), 2**62)
NANOS = st.sampled_from([0, 1, 999_999_999, -1]) | st.integers(-(2**31), 2**31 - 1)


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | strategy


def times(kind: type) -> st.SearchStrategy:
    return st.builds(kind, seconds=SECONDS, nanos=NANOS)


METRIC = st.builds(
    metrics_pb2.MetricSpec,
    name=NAMES,
    kind=ENUM,
    direction=ENUM,
    scale=ENUM,
    margin=maybe(NUMBERS),
    criticality=ENUM,
    group=NAMES,
    weight=maybe(NUMBERS),
    alpha=maybe(NUMBERS),
    alpha_pass=maybe(NUMBERS),
    unit=NAMES,
)
GOOD_METRIC = st.builds(
    metrics_pb2.MetricSpec, name=st.sampled_from("abc"), kind=st.integers(0, 6), direction=st.integers(0, 3)
)
HISTOGRAM = st.builds(
    metrics_pb2.HistogramRows,
    metric=NAMES,
    upper_bounds=st.lists(NUMBERS, max_size=3),
    counts=st.lists(NUMBERS, max_size=8),
)
BLOCK = st.builds(
    metrics_pb2.SeriesBlock,
    arm=ENUM,
    phase=ENUM,
    instance=NAMES,
    metrics=st.lists(NAMES, max_size=3),
    start_time=maybe(times(Timestamp)),
    step=maybe(times(Duration)),
    columns=st.integers(0, 5) | st.sampled_from([2**31, 2**32 - 1]),
    values=st.lists(NUMBERS, max_size=10),
    exposure=st.just([]) | st.lists(NUMBERS, max_size=10),
    histograms=st.lists(HISTOGRAM, max_size=2),
    sequence=st.integers(0, 3),
)


@st.composite
def plausible_blocks(draw: st.DrawFn) -> metrics_pb2.SeriesBlock:
    """A block that fits one metric, with times and values of any kind."""
    columns = draw(st.integers(1, 12))
    values = draw(hnp.arrays(np.float64, (1, columns), elements=st.floats(width=64)))
    return encode_block(
        ta.Block(
            arm=draw(st.sampled_from(["baseline", "canary"])),
            phase=draw(st.sampled_from(["pre", "post"])),
            start=draw(st.sampled_from([0.0, 3.0, 600.0, 1e9])),
            step=draw(st.sampled_from([1.0, 1.0, 1.0, 60.0])),
            values=values,
            instance=draw(st.sampled_from(["", "", "p1", "p2"])),
        ),
        sequence=1,
    )


def judged(payload: bytes) -> es.AnalyzeResponse | None:
    """Carry a request out as a worker does; ``None`` when it was refused as it may be."""
    try:
        return es.AnalyzeResponse.FromString(worker.analyze(payload, LIMIT).response)
    except RequestError as error:
        refusal = error
    assert refusal.violations
    assert refusal.message
    return None


@settings(max_examples=60)
@given(st.binary(max_size=200))
def test_any_bytes(payload: bytes) -> None:
    try:
        es.AnalyzeRequest.FromString(payload)
    except DecodeError:
        return  # refused by the interceptor as MALFORMED_MESSAGE
    judged(payload)


@settings(max_examples=120)
@given(
    st.builds(
        es.AnalyzeRequest,
        metrics=st.lists(METRIC | GOOD_METRIC, max_size=3),
        design=ENUM,
        blocks=st.lists(BLOCK, max_size=3),
        history=st.lists(st.builds(metrics_pb2.HistoryWindow, baseline=BLOCK, canary=BLOCK), max_size=2),
        options=st.builds(
            es.AnalysisOptions,
            false_discovery_rate=maybe(NUMBERS),
            warm_up=maybe(times(Duration)),
            horizon=maybe(times(Duration)),
        ),
    )
)
def test_any_request(request: es.AnalyzeRequest) -> None:
    judged(request.SerializeToString())


@settings(max_examples=120)
@given(
    metric=st.builds(
        metrics_pb2.MetricSpec, name=st.just("a"), kind=st.sampled_from([0, 1, 2, 5, 6]), direction=st.integers(0, 3)
    ),
    design=st.integers(0, 3),
    blocks=st.lists(plausible_blocks(), min_size=1, max_size=4),
)
def test_any_values_in_a_request_that_fits(
    metric: metrics_pb2.MetricSpec, design: int, blocks: list[metrics_pb2.SeriesBlock]
) -> None:
    request = es.AnalyzeRequest(metrics=[metric], design=design, blocks=blocks)  # type: ignore[arg-type]
    answer = judged(request.SerializeToString())
    if answer is not None:
        assert 1 <= answer.verdict <= 4
        for finding in answer.findings:
            for field, value in finding.ListFields():
                if field.cpp_type == field.CPPTYPE_DOUBLE:
                    assert math.isfinite(value), field.name


@settings(max_examples=60)
@given(blocks=st.lists(plausible_blocks() | BLOCK, max_size=5))
def test_any_blocks_in_a_stream(blocks: list[metrics_pb2.SeriesBlock]) -> None:
    opening = es.OpenEvaluation(metrics=[metrics_pb2.MetricSpec(name="a", kind=metrics_pb2.METRIC_KIND_GAUGE)])
    build = worker.Rebuild(opening.SerializeToString())
    at = 0
    for sequence, message in enumerate(blocks, 1):
        step = worker.Step("h", at, [(sequence, message.SerializeToString())], None, LIMIT, rebuild=build)
        answer = worker.step(step)
        assert answer.known
        if answer.refusal is not None:
            assert answer.refusal.violations
            break
        at = sequence
    worker.forget("h")


@settings(max_examples=60)
@given(hnp.arrays(np.float64, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.floats(width=64)))
def test_values_arrive_to_the_last_bit(values: np.ndarray) -> None:
    names = [f"m{k}" for k in range(len(values))]
    declared = Declared.of([ta.MetricSpec(name) for name in names])
    block = ta.Block("canary", 1_700_000_000.25, 0.5, values, phase="pre", instance="p", exposure=values)
    wrong = Violations()
    decoded = decode_block(encode_block(block, 7), declared, "block", wrong)
    assert decoded is not None
    assert wrong.found == []
    assert decoded.values.tobytes() == values.tobytes()
    assert decoded.exposure is not None
    assert decoded.exposure.tobytes() == values.tobytes()
    assert (decoded.arm, decoded.phase, decoded.instance) == ("canary", "pre", "p")
    assert (decoded.start, decoded.step) == (1_700_000_000.25, 0.5)


SPECS = st.builds(
    ta.MetricSpec,
    name=st.text(min_size=1, max_size=20),
    kind=st.sampled_from(sorted(set(KINDS.values()))),
    direction=st.sampled_from(sorted(set(DIRECTIONS.values()))),
    scale=st.sampled_from(["auto", "linear"]),
    margin=st.none() | st.floats(1e-9, 1e9),
    criticality=st.sampled_from(sorted(set(CRITICALITIES.values()))),
    group=st.text(max_size=20),
    weight=st.floats(0, 1e9),
    alpha=st.floats(1e-9, 0.49),
    alpha_pass=st.floats(1e-9, 0.49),
    unit=st.text(max_size=5),
)


@settings(max_examples=60)
@given(SPECS)
def test_a_spec_comes_back_as_it_went(spec: ta.MetricSpec) -> None:
    wrong = Violations()
    assert decode_specs([encode_spec(spec)], "metrics", wrong) == [spec]
    assert wrong.found == []


@settings(max_examples=100)
@given(st.floats(-3e11, 3e11))
def test_times_and_durations_keep_the_microsecond(seconds: float) -> None:
    duration, wrong = Duration(), Violations()
    encode_seconds(duration, seconds)
    assert abs(duration.seconds + duration.nanos * 1e-9 - seconds) <= 1e-6 + abs(seconds) * 1e-15
    assert duration.seconds * duration.nanos >= 0
    if -6e10 < seconds < 2.5e11:
        stamp = Timestamp()
        encode_seconds(stamp, seconds)
        told = decode_time(stamp, "t", wrong)
        assert told is not None
        assert abs(told - seconds) <= 1e-6 + abs(seconds) * 1e-15
        assert 0 <= stamp.nanos < 1_000_000_000


@pytest.mark.parametrize(
    ("table", "enum"),
    [
        (KINDS, metrics_pb2.MetricKind),
        (DIRECTIONS, metrics_pb2.Direction),
        (SCALES, metrics_pb2.Scale),
        (CRITICALITIES, metrics_pb2.Criticality),
        (DESIGNS, metrics_pb2.Design),
    ],
)
def test_every_enum_value_has_a_meaning(table: dict[int, str], enum: object) -> None:
    assert set(table) == set(enum.values())  # type: ignore[attr-defined]


def test_every_verdict_has_a_decision() -> None:
    assert set(DECISIONS) == set(ta.Verdict)
