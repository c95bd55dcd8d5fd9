"""``Analyze`` with real calls: the right numbers, and refusals that name the field."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tidegate_analysis as ta
from google.protobuf.timestamp_pb2 import Timestamp
from tidegate.v1 import deployments_pb2, findings_pb2, metrics_pb2
from tidegate.v1 import evaluation_service_pb2 as es
from tidegate_server import worker
from tidegate_server.api.blocks import encode_block
from tidegate_server.api.evaluations import ANALYSIS_SECONDS

from tests.server import held
from tests.server.harness import START, STEP, Caller, Serving, arms, block, refused, request, specs


def seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos * 1e-9


def test_a_healthy_canary_passes(caller: Caller) -> None:
    answer = caller.analyze(request(*arms()))
    assert answer.verdict == findings_pb2.VERDICT_PASS
    assert answer.decision == findings_pb2.DECISION_PROCEED
    assert answer.design == metrics_pb2.DESIGN_CONCURRENT
    assert [finding.metric for finding in answer.findings] == ["a", "b"]
    assert answer.sentence.startswith("PASS")


def test_the_answer_is_that_of_the_analysis_to_the_last_bit(caller: Caller) -> None:
    x, y = arms(metrics=3, factor=1.5, row=1)
    x[0, 5] = y[2, 7] = np.nan
    metrics = [
        ta.MetricSpec("latency_p95", group="g1", unit="ms"),
        ta.MetricSpec("errors", kind="gauge", direction="up_is_worse", criticality="critical", group="g2"),
        ta.MetricSpec("throughput", direction="down_is_worse", margin=0.2, weight=3.0, alpha=0.01, group="g1"),
    ]
    deployed_at = START - 30.0
    deployment = deployments_pb2.Deployment(service="shop")
    deployment.start_time.FromNanoseconds(round(deployed_at * 1e9))
    message = request(x, y, metrics, deployment=deployment, options=es.AnalysisOptions(false_discovery_rate=0.1))
    answer = caller.analyze(message)

    batch = ta.SeriesBatch(metrics)
    batch.add(ta.Block("baseline", START, STEP, x))
    batch.add(ta.Block("canary", START, STEP, y))
    expected = ta.analyze(batch, q=0.1, deployed_at=deployed_at)
    result = expected.result

    def same(message: Any, field: str, value: float) -> None:
        if math.isfinite(value):
            assert getattr(message, field) == value
        else:
            assert not message.HasField(field)

    assert answer.verdict == expected.verdict == ta.Verdict.FAIL
    assert answer.decision == findings_pb2.DECISION_HALT
    assert answer.sentence == expected.explain()
    for i, finding in enumerate(answer.findings):
        assert finding.verdict == expected.verdicts[i]
        assert finding.sentence == expected.explain(i)
        assert finding.reason == expected.reasons[i]
        for field in ("effect", "effect_low", "effect_high", "p_value", "log_e_value", "n_effective"):
            same(finding, field, float(getattr(result, field)[i]))
        for field in ("baseline_level", "canary_level", "minimum_detectable_effect"):
            same(finding, field, float(getattr(result, field)[i]))
        same(finding, "adjusted_p_value", float(expected.adjusted_p_value[i]))
        assert (finding.baseline_points, finding.canary_points) == (result.n_baseline[i], result.n_canary[i])
        assert finding.method == result.method[i]
        assert tuple(finding.derived_fields) == result.derived[i]
        assert finding.spec.name == metrics[i].name
        assert finding.spec.margin == result.specs[i].margin
        assert finding.spec.weight == metrics[i].weight
        assert finding.spec.kind != metrics_pb2.METRIC_KIND_UNSPECIFIED
        assert finding.spec.scale != metrics_pb2.SCALE_UNSPECIFIED
        assert {note.code for note in finding.quality} == {note.code for note in result.quality[i]}
    assert [group.group for group in answer.groups] == ["g1", "g2"]
    assert [list(group.failing) for group in answer.groups] == [[], ["errors"]]
    assert [group.metrics for group in answer.groups] == [2, 1]


def test_onset_is_told_as_times(caller: Caller) -> None:
    x, y = arms(points=120)
    y[1, 12:] *= 1.5
    deployment = deployments_pb2.Deployment()
    deployment.start_time.FromSeconds(int(START))
    finding = caller.analyze(request(x, y, deployment=deployment)).findings[1]
    assert finding.verdict == findings_pb2.VERDICT_FAIL
    assert abs(seconds(finding.onset.time) - (START + 12 * STEP)) <= 3 * STEP
    assert finding.onset.earliest.seconds <= finding.onset.time.seconds <= finding.onset.latest.seconds
    assert finding.onset.after_deployment.seconds == finding.onset.time.seconds - int(START)
    # Without the deployment's time nothing is said about the time since.
    unknown = caller.analyze(request(x, y)).findings[1]
    assert unknown.onset.HasField("time")
    assert not unknown.onset.HasField("after_deployment")


def test_the_share_of_the_analysis_is_told(caller: Caller) -> None:
    _, call = caller.stub.Analyze.with_call(request(*arms()), timeout=60)
    told = dict(call.trailing_metadata())
    assert 0.0 < float(told[ANALYSIS_SECONDS]) < 20.0


def test_before_and_after_with_a_long_past(caller: Caller) -> None:
    past, now = arms(metrics=1, points=600, seed=3)
    message = es.AnalyzeRequest(
        metrics=request(past, now).metrics,
        blocks=[
            block("canary", past, start=START - 600 * STEP, phase="pre"),
            block("canary", now[:, :60] * 1.5),
        ],
    )
    answer = caller.analyze(message)
    assert answer.design == metrics_pb2.DESIGN_BEFORE_AFTER
    assert answer.verdict == findings_pb2.VERDICT_FAIL


def test_history_is_used(caller: Caller) -> None:
    x, y = arms()
    windows = []
    for k in range(8):
        bx, by = arms(seed=10 + k)
        windows.append(
            metrics_pb2.HistoryWindow(
                baseline=block("baseline", bx, start=START - 1e5 * (k + 1)),
                canary=block("canary", by, start=START - 1e5 * (k + 1)),
            )
        )
    answer = caller.analyze(request(x, y, history=windows))
    assert [finding.history_windows for finding in answer.findings] == [8, 8]


def test_blocks_may_name_their_rows_in_any_order(caller: Caller) -> None:
    x, y = arms(metrics=2, factor=2.0, row=1)
    message = request(x, y)
    named = block("canary", y[::-1], metrics=("b", "a"))
    message.blocks[1].CopyFrom(named)
    answer = caller.analyze(message)
    assert [f.verdict for f in answer.findings] == [findings_pb2.VERDICT_PASS, findings_pb2.VERDICT_FAIL]


def test_counts_ratios_and_histograms_travel(caller: Caller) -> None:
    rng = np.random.default_rng(0)
    metrics = [
        ta.MetricSpec("errors", kind="ratio", direction="up_is_worse", margin=0.005),
        ta.MetricSpec("latency", kind="histogram", direction="up_is_worse"),
    ]
    blocks = []
    for arm, rate in (("baseline", 0.01), ("canary", 0.08)):
        totals = rng.poisson(1000, (1, 60)).astype(float)
        made = ta.Block(
            arm,
            START,
            STEP,
            rng.binomial(totals.astype(int), rate).astype(float),
            metrics=("errors",),
            exposure=totals,
            histograms={"latency": (np.array([1.0, 2.0, 4.0]), rng.poisson(50, (60, 4)).astype(float))},
        )
        blocks.append(encode_block(made))
    message = request(*arms(), metrics=metrics)
    del message.blocks[:]
    message.blocks.extend(blocks)
    answer = caller.analyze(message)
    assert answer.findings[0].verdict == findings_pb2.VERDICT_FAIL
    assert answer.findings[1].verdict != findings_pb2.VERDICT_FAIL
    assert answer.findings[1].spec.kind == metrics_pb2.METRIC_KIND_HISTOGRAM


def test_instances_of_an_arm_travel_one_by_one(caller: Caller) -> None:
    rng = np.random.default_rng(2)
    message = request(*arms(metrics=1))
    del message.blocks[:]
    for arm, factor in (("baseline", 1.0), ("canary", 1.6)):
        for pod in range(3):
            values = 100.0 * factor * np.exp(rng.normal(0.05 * pod, 0.02, (1, 60)))
            message.blocks.append(block(arm, values, instance=f"{arm}-{pod}"))
    answer = caller.analyze(message)
    assert answer.verdict == findings_pb2.VERDICT_FAIL
    assert 0.4 < answer.findings[0].effect < 0.8


def test_counters_travel_with_their_restarts(caller: Caller) -> None:
    rng = np.random.default_rng(3)
    totals = np.cumsum(rng.poisson(100, (2, 1, 90)), axis=2).astype(float)
    totals[1, 0, 40:] -= totals[1, 0, 39]  # the canary's process restarted
    metrics = [ta.MetricSpec("requests_total", kind="counter", direction="down_is_worse", margin=0.2)]
    answer = caller.analyze(request(totals[0], totals[1], metrics))
    assert answer.findings[0].spec.kind == metrics_pb2.METRIC_KIND_COUNTER
    assert answer.verdict == findings_pb2.VERDICT_PASS


def changed(path: str, value: Any) -> es.AnalyzeRequest:
    """A good request with one field changed; ``path`` as in a violation."""
    message = request(*arms())
    holder: Any = message
    *parents, last = path.replace("]", "").replace("[", ".").split(".")
    for step in parents:
        holder = holder[int(step)] if step.isdigit() else getattr(holder, step)
    if last.isdigit():
        holder[int(last)] = value
    elif value is None:
        holder.ClearField(last)
    elif isinstance(value, list):
        holder.ClearField(last)
        getattr(holder, last).extend(value)
    else:
        setattr(holder, last, value)
    return message


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("metrics", None, "at least one metric"),
        ("metrics[1].name", "", "a name is needed"),
        ("metrics[1].name", "a", "declared already at metrics[0]"),
        ("metrics[0].name", "n" * 600, "at most 512"),
        ("metrics[0].group", "ä" * 300, "600 bytes"),
        ("metrics[0].kind", 77, "77 is no value of this enum; use one of METRIC_KIND_UNSPECIFIED, "),
        ("metrics[0].direction", 9, "no value"),
        ("metrics[0].scale", 9, "no value"),
        ("metrics[1].criticality", -1, "no value"),
        ("metrics[0].margin", 0.0, "above 0"),
        ("metrics[0].margin", float("nan"), "above 0"),
        ("metrics[0].weight", -1.0, "at least 0"),
        ("metrics[0].alpha", 0.5, "between 0 and 0.5"),
        ("metrics[0].alpha_pass", 0.0, "between 0 and 0.5"),
        ("design", 12, "no value"),
        ("options.false_discovery_rate", 0.0, "between 0 and 0.5"),
        ("options.warm_up.seconds", -5, "at least 0 s"),
        ("deployment.start_time.nanos", -7, "is no time"),
        ("deployment.service", "s" * 300, "at most 256"),
        ("blocks", None, "at least one block"),
        ("blocks[1].arm", 0, "is needed; use one of ARM_BASELINE"),
        ("blocks[1].arm", 5, "5 is no value of this enum; use one of ARM_BASELINE, ARM_CANARY"),
        ("blocks[0].phase", 3, "no value"),
        ("blocks[0].start_time", None, "is needed"),
        ("blocks[0].step", None, "is needed"),
        ("blocks[0].step.seconds", 0, "above 0 s"),
        ("blocks[0].step.seconds", -10, "above 0 s"),
        ("blocks[0].columns", 0, "at least 1"),
        ("blocks[1].values", [1.0, 2.0, 3.0], "3 values; 2 metrics x 60 columns = 120 are needed"),
        ("blocks[0].exposure", [1.0], "1 values"),
        ("blocks[1].metrics", ["a", "zzz"], "'zzz'"),
        ("blocks[1].metrics", ["a", "a"], "twice"),
        ("blocks[1].instance", "i" * 600, "at most 512"),
    ],
)
def test_a_wrong_field_is_named(caller: Caller, path: str, value: Any, says: str) -> None:
    refusal = refused(lambda: caller.analyze(changed(path, value)))
    assert refusal.code == "INVALID_ARGUMENT"
    assert refusal.reason == "INVALID_REQUEST"
    expected = path.removesuffix(".seconds").removesuffix(".nanos")
    expected = "blocks[1].metrics[1]" if says == "'zzz'" else expected
    assert [field for field, text in refusal.fields.items() if says in text] == [expected], refusal.fields


def test_every_wrong_field_is_told_at_once(caller: Caller) -> None:
    message = changed("metrics[0].margin", -1.0)
    message.metrics[1].alpha = 2.0
    message.design = 99  # type: ignore[assignment]
    assert set(refused(lambda: caller.analyze(message)).fields) == {
        "metrics[0].margin",
        "metrics[1].alpha",
        "design",
    }


def test_history_is_checked_with_its_path(caller: Caller) -> None:
    x, y = arms()
    good = metrics_pb2.HistoryWindow(baseline=block("baseline", x), canary=block("canary", y))
    other_step = metrics_pb2.HistoryWindow(
        baseline=block("baseline", x, step=30.0), canary=block("canary", y, step=30.0)
    )
    shorter = metrics_pb2.HistoryWindow(baseline=block("baseline", x), canary=block("canary", y[:, :50]))
    unknown = metrics_pb2.HistoryWindow(baseline=block("baseline", x, metrics=("a", "q")), canary=block("canary", y))
    refusal = refused(lambda: caller.analyze(request(x, y, history=[good, other_step, shorter, unknown])))
    assert set(refusal.fields) == {
        "history[1].baseline.step",
        "history[1].canary.step",
        "history[2].canary.columns",
        "history[3].baseline.metrics[1]",
    }
    late = refused(lambda: caller.analyze(request(x, y, history=[other_step])))
    assert set(late.fields) == {"blocks[0].step", "blocks[1].step"}


def test_limits_tell_their_name_and_value(serving: Serving) -> None:
    with serving.server(max_points=100, max_series=8) as server, Caller(server.target) as caller:
        points = refused(lambda: caller.analyze(request(*arms())))
        assert (points.code, points.reason) == ("RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED")
        assert points.metadata == {"limit": "max_points", "value": "100", "got": "240"}
        assert "max_points = 100" in points.message
        series = refused(lambda: caller.analyze(request(*arms(metrics=5, points=4), metrics=specs("abcde"))))
        assert series.metadata == {"limit": "max_series", "value": "8", "got": "10"}


def test_no_more_analyses_at_once_than_allowed(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    let_go = tmp_path / "go"
    monkeypatch.setattr(worker, "analyze", functools.partial(held.analyze, str(let_go)))
    with serving.server(max_concurrent_analyses=1) as server, Caller(server.target) as caller:
        calls = [caller.stub.Analyze.future(request(*arms()), timeout=60) for _ in range(6)]
        serving.until(lambda: sum(call.done() for call in calls) == 5)
        let_go.touch()
        turned_away = [refused(call.result) for call in calls if call.exception() is not None]
        assert len(turned_away) == 5
        for refusal in turned_away:
            assert (refusal.code, refusal.metadata["limit"]) == ("RESOURCE_EXHAUSTED", "max_concurrent_analyses")
            assert refusal.retry
        assert caller.analyze(request(*arms())).verdict


def test_a_message_that_is_none_is_the_clients_fault(caller: Caller) -> None:
    method = caller.channel.unary_unary("/tidegate.v1.EvaluationService/Analyze")
    for garbage in (b"\xff\xff\xff", b"\x0a\x04\x0a\x02\xc3\x28"):  # no protobuf; a name that is no UTF-8
        refusal = refused(lambda payload=garbage: method(payload, timeout=60))
        assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "MALFORMED_MESSAGE")


def test_a_method_that_does_not_exist(caller: Caller) -> None:
    method = caller.channel.unary_unary("/tidegate.v1.EvaluationService/Nothing")
    assert refused(lambda: method(b"", timeout=60)).code == "UNIMPLEMENTED"
