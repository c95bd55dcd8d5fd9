"""Over many metrics: what is corrected, what is not, and what the gate answers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests
from tidegate_analysis.judgement import fold
from tidegate_analysis.spec import Criticality

Floats = NDArray[np.float64]
PASS, FAIL, OPEN, ERROR = ta.Verdict.PASS, ta.Verdict.FAIL, ta.Verdict.INCONCLUSIVE, ta.Verdict.ERROR
SPEC = ta.MetricSpec("m", "gauge", "up_is_worse", "log", 0.1)


def _found(p: list[float], verdicts: list[ta.Verdict] | None = None, **spec: object) -> ta.Result:
    """Findings with given p-values; failing where p is at most alpha, unless told otherwise."""
    n = len(p)
    base = ta.compare(np.ones((n, 8)), np.ones((n, 8)), spec=[SPEC.with_(name=f"m{k}", **spec) for k in range(n)])
    told = verdicts or [FAIL if v <= SPEC.alpha else OPEN for v in p]
    return replace(
        base,
        p_value=np.array(p),
        verdict=np.array(told, dtype=np.int8),
        effect=np.full(n, 0.5),
        reason=tuple(
            "regression" if v == FAIL else "within_margin" if v == PASS else "not_enough_evidence" for v in told
        ),
    )


def _with(found: ta.Result, **fields: list) -> ta.Result:
    specs = tuple(
        spec.with_(**{name: values[k] for name, values in fields.items()}) for k, spec in enumerate(found.specs)
    )
    return replace(found, specs=specs)


@pytest.mark.parametrize("seed", range(5))
def test_one_group_is_benjamini_hochberg(seed: int) -> None:
    p = (np.random.default_rng(seed).random(30) ** 4).tolist()
    judged = ta.judge(_found(p), q=0.05)
    expected = multipletests(p, method="fdr_bh")[1]
    own = np.array(p) <= SPEC.alpha
    assert (judged.verdicts == FAIL).tolist() == ((expected <= 0.05) & own).tolist()
    # A test inside a group is never more certain than its group.
    assert (judged.adjusted_p_value >= expected - 1e-12).all()
    weak = [i for i in range(30) if own[i] and expected[i] > 0.05]
    assert all(judged.reasons[i] == "not_significant_among_many" for i in weak)


def test_a_fail_needs_its_own_test_as_well() -> None:
    judged = ta.judge(_found([1e-9] * 9 + [0.03]), q=0.2)
    assert judged.adjusted_p_value[9] < 0.2
    assert judged.verdicts[9] == OPEN


def test_critical_metrics_are_a_tier_of_their_own() -> None:
    p = [0.004] + [0.5] * 99
    crowd = ta.judge(_found(p))
    assert crowd.verdict == OPEN
    criticality: list[Criticality] = ["critical"] + ["normal"] * 99
    alone = ta.judge(_with(_found(p), criticality=criticality))
    assert (alone.verdict, alone.verdicts[0]) == (FAIL, FAIL)
    assert alone.adjusted_p_value[0] == pytest.approx(0.004)
    asked = ta.judge(_found(p), critical=[True] + [False] * 99)
    assert asked.verdicts.tolist() == alone.verdicts.tolist()


def test_critical_metrics_are_corrected_by_holm() -> None:
    p = [0.001, 0.004, 0.012, 0.018]
    judged = ta.judge(_found(p, criticality="critical"))
    np.testing.assert_allclose(judged.adjusted_p_value, multipletests(p, method="holm")[1])
    assert (judged.verdicts == FAIL).tolist() == (judged.adjusted_p_value <= SPEC.alpha).tolist()


def test_the_crowd_does_not_weaken_the_critical_ones_nor_they_the_crowd() -> None:
    p = [0.001, 0.002, 0.9]
    criticality: list[Criticality] = ["critical", "normal", "normal"]
    judged = ta.judge(_with(_found(p), criticality=criticality))
    np.testing.assert_allclose(judged.adjusted_p_value[0], 0.001)
    np.testing.assert_allclose(judged.adjusted_p_value[1:], multipletests(p[1:], method="fdr_bh")[1])


def test_a_metric_that_only_holds_never_fails_the_gate() -> None:
    found = _with(_found([1e-9, 0.5], [FAIL, PASS]), criticality=["hold_only", "normal"])
    judged = ta.judge(found)
    assert (judged.verdict, judged.reasons) == (OPEN, ("hold_only", "within_margin"))
    assert "may only hold" in judged.explain()


def test_groups_are_those_of_the_specs_in_the_order_of_first_mention() -> None:
    found = _with(_found([1e-9, 0.5, 1e-9, 0.5], [FAIL, PASS, FAIL, OPEN]), group=["db", "web", "db", "web"])
    judged = ta.judge(found)
    assert [g.name for g in judged.groups] == ["db", "web"]
    assert [g.members for g in judged.groups] == [(0, 2), (1, 3)]
    assert [g.failing for g in judged.groups] == [(0, 2), ()]
    assert [g.verdict for g in judged.groups] == [FAIL, OPEN]
    assert judged.groups[0].adjusted_p_value == pytest.approx(4e-9 / 2)
    other = ta.judge(found, groups=["a", "a", "b", "c"])
    assert [g.name for g in other.groups] == ["a", "b", "c"]


def test_a_group_of_critical_metrics_alone_has_no_group_p_value() -> None:
    judged = ta.judge(_with(_found([0.5, 0.5]), group=["a", "b"], criticality=["critical", "normal"]))
    assert math.isnan(judged.groups[0].adjusted_p_value)
    assert judged.groups[1].adjusted_p_value == pytest.approx(0.5)


def test_metrics_that_could_not_be_asked_do_not_count() -> None:
    found = _found([0.004, 1.0, 1.0, 1.0, 1.0])
    silent = replace(found, effect=np.array([0.5, np.nan, np.nan, np.nan, np.nan]))
    judged = ta.judge(silent)
    assert judged.verdicts[0] == FAIL
    assert np.isnan(judged.adjusted_p_value[1:]).all()


@pytest.mark.parametrize(
    ("verdicts", "gate"),
    [
        ([PASS, PASS], PASS),
        ([PASS, OPEN], OPEN),
        ([OPEN, FAIL], FAIL),
        ([ERROR, FAIL], FAIL),
        ([ERROR, OPEN], ERROR),
        ([PASS, ERROR], ERROR),
        ([], OPEN),
    ],
)
def test_folding(verdicts: list[ta.Verdict], gate: ta.Verdict) -> None:
    assert fold(np.array(verdicts, dtype=np.int8)) == gate


def test_the_sentence_of_the_gate() -> None:
    assert ta.judge(_found([0.5, 0.5], [PASS, PASS])).explain() == "PASS: all 2 metrics are within their margins."
    one = ta.judge(_found([0.5], [PASS]))
    assert one.explain() == f"PASS: {one.explain(0)}"
    failing = ta.judge(_found([1e-3, 1e-9, 0.5]))
    assert failing.explain() == f"FAIL (2 of 3 metrics): {failing.explain(1)}", "the strongest evidence first"
    open_ = ta.judge(_found([0.5, 0.2, 0.5], [PASS, OPEN, OPEN]))
    assert open_.explain().startswith("INCONCLUSIVE (2 of 3 metrics): m1: ")
    empty = ta.judge(ta.compare(np.zeros((0, 5)), np.zeros((0, 5)), spec=SPEC))
    assert (empty.verdict, empty.explain()) == (OPEN, "Nothing was judged.")


def test_the_frame_has_the_final_verdicts() -> None:
    judged = ta.judge(_found([0.015] + [0.9] * 20))
    frame = judged.to_frame()
    assert frame["verdict"].tolist() == ["INCONCLUSIVE"] * 21
    assert frame["reason"].iloc[0] == "not_significant_among_many"
    np.testing.assert_array_equal(frame["adjusted_p_value"], judged.adjusted_p_value)
    assert frame["explanation"].iloc[0] == judged.explain(0)


def test_a_gate_of_healthy_metrics_fails_at_most_as_often_as_q() -> None:
    rng = np.random.default_rng(1)
    gates, metrics = 150, 60
    x, y = rng.lognormal(0.0, 0.1, (2, gates * metrics, 20))
    found = ta.compare(x, y, spec=SPEC.with_(margin=0.001))
    fails = 0
    for k in range(gates):
        part = found.take(list(range(k * metrics, (k + 1) * metrics)))
        fails += ta.judge(part, q=0.05).verdict == FAIL
    assert fails / gates <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / gates)


def _stream_of_two(direction: str = "up_is_worse", **options: object) -> ta.Stream:
    rng = np.random.default_rng(9)
    past = rng.lognormal(4.0, 0.05, (3, 28, 2, 60))
    baseline, canary = rng.lognormal(4.0, 0.05, (2, 3, 40))
    canary[0] *= 1.3
    specs = [SPEC.with_(name=f"m{k}", direction=direction) for k in range(3)]
    stream = ta.open_stream(specs, history=past, **options)
    stream.update(baseline, canary)
    return stream


@pytest.mark.parametrize("direction", ["up_is_worse", "either"])
def test_a_stream_without_an_end_may_be_corrected_by_its_e_values(direction: str) -> None:
    stream = _stream_of_two(direction)
    log_e = stream.log_e_now()
    judged = stream.judge("e_bh")
    assert judged.verdicts.tolist()[0] == FAIL
    assert (judged.verdicts[1:] != FAIL).all()
    # The e-values of now are never above the largest so far, from which p is told.
    assert (log_e <= stream.result().log_e_value + 1e-12).all() or direction == "either"
    order = np.argsort(-log_e)
    by_hand = np.minimum(3 / (np.arange(1, 4) * np.exp(log_e[order])), 1.0)
    by_hand = np.minimum.accumulate(by_hand[::-1])[::-1]
    np.testing.assert_allclose(judged.adjusted_p_value[order], by_hand, rtol=1e-12)
    assert judged.groups[0].adjusted_p_value == judged.adjusted_p_value.min()


def test_e_values_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="'m0' has none; open the stream for design concurrent without a horizon"):
        _stream_of_two(horizon=60).judge("e_bh")
    with pytest.raises(ValueError, match="multiplicity: 'holm' is none of grouped, e_bh"):
        _stream_of_two().judge("holm")
    with pytest.raises(ValueError, match="log_e: 1 values for 3 series"):
        ta.judge(_stream_of_two().result(), log_e=np.zeros(1))


def test_counts_have_e_values_with_a_horizon_too() -> None:
    rng = np.random.default_rng(10)
    specs = [ta.MetricSpec(f"errors_{k}", "count", "up_is_worse", margin=0.25) for k in range(3)]
    stream = ta.open_stream(specs, horizon=60)
    stream.update(rng.poisson(20.0, (3, 60)), rng.poisson([[60.0], [20.0], [20.0]], (3, 60)))
    assert stream.judge("e_bh").verdicts.tolist()[0] == FAIL
    assert (stream.judge("e_bh").verdicts[1:] != FAIL).all()
