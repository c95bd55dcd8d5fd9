"""Live evaluations: what is told depends on the points that came, not on their order nor on when one asked."""

from __future__ import annotations

import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from same_bytes import same_bytes

Floats = NDArray[np.float64]
T0 = 1_777_639_020.0
STEP = 30.0
SPECS = (
    ta.MetricSpec("latency_p95"),
    ta.MetricSpec("error_ratio", "ratio"),
    ta.MetricSpec("requests_total", "counter"),
)


def _arm(n: int, seed: int, factor: float = 1.0) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    requests = rng.poisson(200.0, n).astype(float)
    values = np.stack(
        [
            100.0 * factor * np.exp(rng.normal(size=n) * 0.05),
            rng.binomial(requests.astype(int), 0.02 * factor).astype(float),
            np.cumsum(rng.poisson(200.0, n)).astype(float),
        ]
    )
    return values, np.stack([np.full(n, math.nan), requests, np.full(n, math.nan)])


def _blocks(n: int = 36, factor: float = 1.0, past: int = 0, size: int = 4) -> list[ta.Block]:
    """Blocks of both arms in order of time; with a past, its blocks first."""
    out = []
    if past:
        for arm, seed in (("baseline", 31), ("canary", 32)):
            values, totals = _arm(past, seed)
            out.append(ta.Block(arm, T0 - past * STEP, STEP, values, phase="pre", exposure=totals))
    arms = {"baseline": _arm(n, 1), "canary": _arm(n, 2, factor)}
    for low in range(0, n, size):
        for arm, (values, totals) in arms.items():
            part = slice(low, low + size)
            out.append(ta.Block(arm, T0 + low * STEP, STEP, values[:, part], exposure=totals[:, part]))
    return out


def _live(**changes: object) -> ta.LiveEvaluation:
    return ta.LiveEvaluation(SPECS, **{"deployed_at": T0, "warm_up": 60.0, "horizon_seconds": 1080.0, **changes})


def _final(live: ta.LiveEvaluation, blocks: list[ta.Block], every: int = 0) -> ta.Judgement:
    for k, block in enumerate(blocks, 1):
        live.add(block)
        if every and k % every == 0:
            live.judge()
    return live.judge()


PASTS = {"no past": 0, "a past": 900}


@pytest.mark.parametrize("past", PASTS)
@pytest.mark.parametrize("every", [1, 5])
def test_asking_in_between_changes_no_number(past: str, every: int) -> None:
    blocks = _blocks(past=PASTS[past])
    quiet, asked = _final(_live(), blocks), _final(_live(), blocks, every)
    assert same_bytes(quiet.result, asked.result)
    assert quiet.verdicts.tolist() == asked.verdicts.tolist()


@pytest.mark.parametrize("past", PASTS)
@pytest.mark.parametrize("seed", range(2))
def test_the_order_of_the_blocks_changes_no_number(past: str, seed: int) -> None:
    blocks = _blocks(past=PASTS[past])
    straight = _final(_live(), blocks)
    order = np.random.default_rng(seed).permutation(len(blocks)).tolist()
    mixed = _final(_live(), [blocks[k] for k in order], every=2 + seed)
    quality = mixed.result.quality[0]
    assert {note.code for note in quality} - {n.code for n in straight.result.quality[0]} <= {"out_of_order"}
    for field in ("verdict", "p_value", "effect", "effect_low", "effect_high", "onset", "n_canary"):
        np.testing.assert_array_equal(getattr(mixed.result, field), getattr(straight.result, field))
    assert mixed.clock == straight.clock


@pytest.mark.parametrize("sizes", [(1, 36), (7, 4)])
def test_the_size_of_the_blocks_changes_no_number(sizes: tuple[int, int]) -> None:
    first, second = (_final(_live(), _blocks(size=size)) for size in sizes)
    assert same_bytes(first.result, second.result)


def test_one_arm_may_come_whole_before_the_other() -> None:
    blocks = _blocks()
    straight = _final(_live(), blocks)
    by_arm = sorted(blocks, key=lambda b: b.arm)
    assert same_bytes(_final(_live(), by_arm, every=1).result, straight.result)


def test_repeated_blocks_change_nothing_but_a_note() -> None:
    blocks = _blocks()
    straight = _final(_live(), blocks)
    twice = _final(_live(), [b for block in blocks for b in (block, block)])
    np.testing.assert_array_equal(twice.result.p_value, straight.result.p_value)
    assert "repeated" in {note.code for note in twice.result.quality[0]}


@pytest.mark.parametrize("at", [0, 5, 17])
def test_a_state_taken_anywhere_goes_on_as_if_nothing_had_happened(at: int) -> None:
    blocks = _blocks(factor=1.3, past=300)
    straight = _live()
    answers = []
    for block in blocks:
        straight.add(block)
        answers.append(straight.judge())
    live = _live()
    for k, block in enumerate(blocks):
        if k == at:
            live = ta.LiveEvaluation.restore(live.state())
        live.add(block)
        judged = live.judge()
        assert judged.verdicts.tolist() == answers[k].verdicts.tolist()
        assert same_bytes(judged.result, answers[k].result)
    assert pickle.loads(pickle.dumps(live)).judge().verdict == answers[-1].verdict


def test_a_regression_fails_and_stays_failed() -> None:
    live = _live(horizon_seconds=3600.0)
    blocks = _blocks(n=60, factor=1.6)
    seen = []
    for block in blocks:
        live.add(block)
        seen.append(live.judge().verdicts[0])
    assert ta.Verdict.FAIL in seen
    first = seen.index(ta.Verdict.FAIL)
    assert set(seen[first:]) == {ta.Verdict.FAIL}
    judged = live.judge()
    assert judged.verdict == ta.Verdict.FAIL
    assert judged.explain().startswith("FAIL (")
    assert "UTC" in judged.explain(0)


def test_points_that_come_late_do_not_take_a_fail_back() -> None:
    live = _live()
    for block in _blocks(factor=1.8):
        live.add(block)
        failed = live.judge()
    assert failed.verdicts[0] == ta.Verdict.FAIL
    # Other values for the canary arrive, as healthy as the baseline.
    values, totals = _arm(36, 1)
    live.add(ta.Block("canary", T0, STEP, values, exposure=totals))
    judged = live.judge()
    assert judged.result.verdict[0] != ta.Verdict.FAIL, "the numbers are those of the points"
    assert judged.verdicts[0] == ta.Verdict.FAIL, "the verdict is kept"
    assert judged.verdict == ta.Verdict.FAIL
    again = ta.LiveEvaluation.restore(live.state()).judge()
    assert again.verdicts[0] == ta.Verdict.FAIL


def test_late_points_count_as_if_they_had_been_in_time() -> None:
    blocks = _blocks()
    late = [b for k, b in enumerate(blocks) if k % 7 != 3] + [b for k, b in enumerate(blocks) if k % 7 == 3]
    np.testing.assert_array_equal(_final(_live(), late, every=1).result.p_value, _final(_live(), blocks).result.p_value)


def test_a_canary_that_falls_silent_is_told_and_does_not_pass() -> None:
    live = _live()
    blocks = _blocks()
    for block in blocks:
        if block.arm == "baseline" or block.start < T0 + 24 * STEP:
            live.add(block)
    judged = live.judge()
    assert set(judged.reasons) == {"canary_silent"}
    assert judged.verdict == ta.Verdict.INCONCLUSIVE
    note = next(n for n in judged.result.quality[0] if n.code == "canary_silent")
    assert note.count == 12
    assert "silent" in judged.explain(0)


def test_the_columns_wait_for_the_slower_arm_unless_it_is_over() -> None:
    live = _live()
    for block in _blocks(n=24):
        if block.arm == "canary" or block.start < T0 + 12 * STEP:
            live.add(block)
    waiting = live.judge()
    assert waiting.result.n_canary[0] == 10
    final = live.judge(final=True)
    assert final.result.n_canary[0] == 22
    for block in _blocks(n=24):
        live.add(block)
    assert live.judge().result.n_baseline[0] == 22


def test_warm_up_and_horizon_cut_the_watch() -> None:
    live = _live(warm_up=300.0, horizon_seconds=900.0)
    judged = _final(live, _blocks(n=60))
    assert live.finished
    assert judged.clock == (T0 + 300.0, STEP)
    assert judged.result.n_canary[0] == 20


def test_without_a_baseline_the_past_is_the_judge() -> None:
    live = ta.LiveEvaluation([ta.MetricSpec("latency_p95")], deployed_at=T0, warm_up=0.0, horizon_seconds=1800.0)
    rng = np.random.default_rng(6)
    live.add(ta.Block("canary", T0 - 2880 * STEP, STEP, 100 * np.exp(rng.normal(size=(1, 2880)) * 0.05), phase="pre"))
    verdicts = []
    for k in range(60):
        live.add(ta.Block("canary", T0 + k * STEP, STEP, 150 * np.exp(rng.normal(size=(1, 1)) * 0.05)))
        verdicts.append(live.judge().verdict)
    assert live.judge().design == "before_after"
    assert verdicts[-1] == ta.Verdict.FAIL


def test_nothing_came_yet() -> None:
    live = _live()
    judged = live.judge()
    assert judged.verdict == ta.Verdict.INCONCLUSIVE
    assert set(judged.reasons) == {"no_data"}
    assert not live.finished
    live.add(_blocks(past=100)[0])
    assert live.judge().verdict == ta.Verdict.INCONCLUSIVE


def test_a_refused_block_leaves_the_evaluation_as_it_was() -> None:
    live = _live()
    blocks = _blocks()
    for block in blocks[:10]:
        live.add(block)
    before = live.judge()
    with pytest.raises(ta.BlockError, match=r"^step: "):
        live.add(ta.Block("canary", T0, 7.0, np.ones((3, 1))))
    assert live.judge().verdicts.tolist() == before.verdicts.tolist()


def test_a_watch_of_more_scrapes_than_memory_is_harmless() -> None:
    live = ta.LiveEvaluation([ta.MetricSpec("a")], warm_up=0.0, horizon_seconds=1e15)
    live.add(ta.Block("baseline", T0, 1.0, np.ones((1, 20))))
    live.add(ta.Block("canary", T0, 1.0, np.ones((1, 20))))
    judged = live.judge()
    assert (judged.verdict, judged.reasons) == (ta.Verdict.INCONCLUSIVE, ("constant",))


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("warm_up", {"warm_up": -1.0}),
        ("warm_up", {"warm_up": math.nan}),
        ("horizon_seconds", {"horizon_seconds": 60.0}),
        ("horizon_seconds", {"horizon_seconds": math.inf}),
        ("q", {"q": 1.0}),
        ("deployed_at", {"deployed_at": math.nan}),
        ("deployed_at", {"deployed_at": math.inf}),
    ],
)
def test_parameters_out_of_range_are_named(field: str, arguments: dict) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        _live(**arguments)


@pytest.mark.parametrize("skew", [-7.0, 7.0])
def test_skewed_clocks_give_the_same_columns_whichever_arm_comes_first(skew: float) -> None:
    found = []
    for first in ("baseline", "canary"):
        blocks = [
            replace(block, start=block.start + (skew if block.arm == "canary" else 0.0))
            for block in sorted(_blocks(), key=lambda b: (b.arm != first, b.start))
        ]
        found.append(_final(_live(warm_up=0.0), blocks).result)
    assert found[0].n_canary.tolist() == found[1].n_canary.tolist()
    np.testing.assert_array_equal(found[0].p_value, found[1].p_value)
    assert {note.code for note in found[0].quality[0]} == {"clock_skew"}


def test_totals_that_no_metric_has_take_no_room_in_the_state():
    specs = SPECS[:1]
    blocks = [
        replace(block, values=np.asarray(block.values)[:1], exposure=None, metrics=(specs[0].name,))
        for block in _blocks()
    ]
    live = ta.LiveEvaluation(specs, design="concurrent", warm_up=0.0)
    for block in blocks[:-2]:
        live.add(block)
    live.judge()
    again = ta.LiveEvaluation.restore(live.state())
    one_array = live._stream._arms["y"].nbytes
    assert len(pickle.dumps(live._stream.__dict__)) - len(pickle.dumps(live._stream)) > 1.5 * one_array
    for block in blocks[-2:]:
        live.add(block)
        again.add(block)
    assert same_bytes(again.judge().result, live.judge().result)


@pytest.mark.parametrize("onset", [None, 0, 40])
def test_live_difference_in_differences_agrees_with_the_one_at_once(onset: int | None) -> None:
    """For every kind: running totals and counts must be differenced as what they count, not as they come."""
    rng = np.random.default_rng(2)
    specs = [
        ta.MetricSpec("p95", "gauge", "up_is_worse"),
        ta.MetricSpec("hits_total", "counter", "down_is_worse"),
        ta.MetricSpec("crashes", "count", "up_is_worse"),
        ta.MetricSpec("cpu_utilization"),
    ]
    batch = ta.SeriesBatch(specs)
    live = ta.LiveEvaluation(specs, warm_up=0.0, horizon_seconds=3600.0, design="difference_in_differences")
    for arm in ("baseline", "canary"):
        total = 0.0
        for phase, first, n in (("pre", 0, 1200), ("post", 1200, 60)):
            bad = (np.arange(n) >= (n if onset is None else onset)) & (phase == "post") & (arm == "canary")
            latency = 100.0 * np.exp(rng.normal(0, 0.05, n)) * np.where(bad, 2.0, 1.0)
            hits = total + np.cumsum(rng.poisson(np.where(bad, 30.0, 100.0)))
            crashes = rng.poisson(np.where(bad, 20.0, 5.0))
            used = np.clip(rng.normal(0.5, 0.02, n) + np.where(bad, 0.4, 0.0), 0.0, 1.0)
            total = float(hits[-1])
            block = ta.Block(arm, 1e9 + 60.0 * first, 60.0, np.stack([latency, hits, crashes, used]), phase=phase)
            batch.add(block)
            live.add(block)
    wrong = ta.Verdict.PASS if onset is not None else ta.Verdict.FAIL
    for judged in (ta.analyze(batch, design="difference_in_differences"), live.judge()):
        assert not (judged.verdicts == wrong).any()
        assert (judged.verdicts != ta.Verdict.INCONCLUSIVE).sum() >= 3, judged.reasons
