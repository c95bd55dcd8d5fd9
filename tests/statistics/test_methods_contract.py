"""One table of data, every method: what must hold of an analysis whatever it is given."""

from __future__ import annotations

import pickle
import re
import warnings

import numpy as np
import pytest
import tidegate_analysis as ta
from statistics_methods import CASES, METHODS, Floats, Method, assert_same, long_past, past_windows, spec_of

GRID = [
    pytest.param(method, case, id=f"{method.name} | {case}")
    for method in METHODS
    for case in CASES
    if not (case == "no series" and method.name.startswith("stream"))  # a stream of nothing is refused
]


def judged(method: Method, x: Floats, y: Floats, scale: str | None = None) -> ta.Result:
    """Judge with every warning an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return method.judge(x, y, spec_of(method, scale or method.scales[-1]))


@pytest.mark.parametrize(("method", "case"), GRID)
def test_a_result_is_whole_and_says_why(method: Method, case: str) -> None:
    x, y = CASES[case]
    for scale in method.scales:
        result = judged(method, x, y, scale)
        n = len(x)
        assert len(result) == n
        assert set(result.verdict.tolist()) <= {ta.Verdict.PASS, ta.Verdict.FAIL, ta.Verdict.INCONCLUSIVE}
        assert ((result.p_value >= 0) & (result.p_value <= 1)).all()
        decided = result.verdict != ta.Verdict.INCONCLUSIVE
        assert not np.isinf(result.effect[decided]).any()
        low, high = result.effect_low, result.effect_high
        known = np.isfinite(low) & np.isfinite(high) & np.isfinite(result.effect)
        assert (low[known] <= result.effect[known]).all()
        assert (result.effect[known] <= high[known]).all()
        for k in range(n):
            assert re.fullmatch(r"[a-z0-9-]+\.v\d+", result.method[k])
            assert re.fullmatch(r"[a-z_]+", result.reason[k])
            sentence = result.explain(k)
            assert sentence.endswith(".")
            assert "nan" not in sentence.lower().split()
            assert "inf" not in sentence.lower().split()
        assert len(result.to_frame()) == n


@pytest.mark.parametrize(("method", "case"), [one for one in GRID if "no series" not in one.values])
def test_rows_do_not_see_each_other(method: Method, case: str) -> None:
    x, y = CASES[case]
    whole = judged(method, x, y)
    # The past of row k is drawn with k, so the first row alone is the first row of all.
    assert_same(whole.take([0]), judged(method, x[:1], y[:1]), exact=False, where="first row")
    # And other rows behind it change nothing.
    half = judged(method, x[:3], y[:3])
    assert_same(whole.take([0, 1, 2]), half, exact=False, where="first three rows")


@pytest.mark.parametrize(("method", "case"), GRID)
def test_the_same_input_gives_the_same_bytes(method: Method, case: str) -> None:
    x, y = CASES[case]
    first, second = judged(method, x, y), judged(method, x.copy(), y.copy())
    assert_same(first, second, exact=True)
    assert_same(pickle.loads(pickle.dumps(first)), first, exact=True)


@pytest.mark.parametrize(("method", "case"), GRID)
def test_the_input_is_left_alone(method: Method, case: str) -> None:
    x, y = CASES[case]
    before = x.tobytes(), y.tobytes()
    judged(method, x, y)
    assert (x.tobytes(), y.tobytes()) == before


NOTHING_TO_SAY = ("canary missing", "baseline missing", "both missing", "0 points", "1 points", "2 points")


def needs_a_baseline(method: Method) -> bool:
    """Not if there is a past of the canary to judge by."""
    return "long past" not in method.name and method.name != "stream, before/after"


@pytest.mark.parametrize(
    ("method", "case"),
    [
        pytest.param(method, case, id=f"{method.name} | {case}")
        for method in METHODS
        for case in NOTHING_TO_SAY
        if case != "baseline missing" or needs_a_baseline(method)
    ],
)
def test_where_nothing_can_be_said_nothing_passes(method: Method, case: str) -> None:
    x, y = CASES[case]
    result = judged(method, x, y)
    assert (result.verdict != ta.Verdict.PASS).all(), result.reason
    if case in ("0 points", "1 points", "both missing", "2 points"):
        assert (result.verdict == ta.Verdict.INCONCLUSIVE).all(), result.reason


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_a_large_change_is_found_and_its_opposite_is_not(method: Method) -> None:
    rng = np.random.default_rng(3)
    x, y = 100.0 * np.exp(0.05 * rng.standard_normal((2, 6, 60)))
    if method.kind == "saturation":
        x, y = x / 400.0, y / 400.0
    if method.kind == "counter":
        worse, better, x = np.cumsum(3.0 * y, axis=1), np.cumsum(y / 3.0, axis=1), np.cumsum(x, axis=1)
    else:
        worse, better = 3.0 * y, y / 3.0
    if method.kind in ("ratio", "count"):
        x, worse, better = np.round(x), np.round(worse), np.round(better)
    for scale in method.scales:
        assert (judged(method, x, worse, scale).verdict == ta.Verdict.FAIL).all()
        assert (judged(method, x, better, scale).verdict != ta.Verdict.FAIL).all()


# Silence and absurd values are not here: only the canary's hold a PASS back.
SWAPPED = ("usual", "worse", "better", "ties", "two values", "gaps in both", "mostly zeros", "one spike")


@pytest.mark.parametrize("case", SWAPPED)
@pytest.mark.parametrize("method", [m for m in METHODS if m.mirrored], ids=lambda m: m.name)
def test_swapping_the_arms_mirrors_the_verdict(method: Method, case: str) -> None:
    x, y = CASES[case]
    if method.kind == "saturation":
        x, y = x / 1000.0, y / 1000.0
    for scale in method.scales:
        margin = spec_of(method, scale).margin
        assert margin is not None
        relative = scale == "log" or method.kind == "count"
        up = spec_of(method, scale, direction="up_is_worse", margin=margin)
        # On a relative scale 10 % more and 1/1.1 less are the two directions of one change.
        down = up.with_(direction="down_is_worse", margin=margin / (1.0 + margin) if relative else margin)
        one, other = method.judge(x, y, up), method.judge(y, x, down)
        np.testing.assert_array_equal(one.verdict, other.verdict)
        np.testing.assert_allclose(one.p_value, other.p_value, rtol=1e-6, atol=1e-12)
        one_change = np.log1p(one.effect) if relative else one.effect
        other_change = np.log1p(other.effect) if relative else other.effect
        np.testing.assert_allclose(one_change, -other_change, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", SWAPPED)
def test_a_ratio_of_failures_mirrors_the_ratio_of_successes(case: str) -> None:
    x, y = (np.round(np.nan_to_num(arm, nan=100.0)) for arm in CASES[case])
    total = np.full_like(x, 1e4)
    spec = ta.MetricSpec(name="errors", kind="ratio", direction="up_is_worse", margin=0.001)
    totals = {"baseline_exposure": total, "canary_exposure": total}
    failures = ta.compare(x, y, spec=spec, **totals)
    successes = ta.compare(total - x, total - y, spec=spec.with_(direction="down_is_worse"), **totals)
    np.testing.assert_array_equal(failures.verdict, successes.verdict)
    np.testing.assert_allclose(failures.p_value, successes.p_value, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(failures.effect, -successes.effect, rtol=1e-6, atol=1e-12)


UNITS = ("usual", "worse", "better", "ties", "two values", "gaps in both", "ragged", "one arm constant")


@pytest.mark.parametrize("factor", [1e-6, 1e6])
@pytest.mark.parametrize("case", UNITS)
@pytest.mark.parametrize("scale", ["log", "linear"])
def test_a_change_of_unit_changes_nothing(case: str, scale: str, factor: float) -> None:
    x, y = CASES[case]
    margin = 0.1 if scale == "log" else 10.0
    other_margin = margin if scale == "log" else margin * factor
    before = long_past(x, 5)
    past = past_windows(len(x), x.shape[1])

    def all_of(f: float, m: float) -> list[ta.Result]:
        spec = ta.MetricSpec(name="metric", kind="gauge", direction="up_is_worse", scale=scale, margin=m)  # type: ignore[arg-type]
        stream = ta.open_stream([spec] * len(x), history=past * f)
        stream.update(x * f, y * f)
        return [
            ta.compare(x * f, y * f, spec=spec),
            ta.compare(x * f, y * f, spec=spec, history=past * f),
            ta.before_after(before * f, y * f, spec=spec),
            stream.result(),
        ]

    for one, other in zip(all_of(1.0, margin), all_of(factor, other_margin), strict=True):
        np.testing.assert_array_equal(one.verdict, other.verdict)
        assert one.reason == other.reason
        np.testing.assert_allclose(one.p_value, other.p_value, rtol=1e-5, atol=1e-9)
        unit = 1.0 if scale == "log" else factor
        np.testing.assert_allclose(one.effect * unit, other.effect, rtol=1e-5, atol=1e-9 * unit)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_more_bad_points_never_turn_fail_into_pass(method: Method) -> None:
    rng = np.random.default_rng(11)
    x, y = 100.0 * np.exp(0.05 * rng.standard_normal((2, 1, 48)))
    if method.kind == "saturation":
        x, y = x / 400.0, y / 400.0
    if method.kind in ("ratio", "count"):
        x, y = np.round(x), np.round(y)
    order = rng.permutation(48)
    spec = spec_of(method, method.scales[0])
    seen_fail = False
    for bad in range(0, 49, 4):
        worse = y.copy()
        worse[:, order[:bad]] *= 2.0
        base = x
        if method.kind == "counter":
            base, worse = np.cumsum(x, axis=1), np.cumsum(worse, axis=1)
        verdict = int(method.judge(base, worse, spec).verdict[0])
        assert not (seen_fail and verdict == ta.Verdict.PASS), f"{bad} bad points pass, fewer failed"
        seen_fail |= verdict == ta.Verdict.FAIL
    assert seen_fail


def test_a_stream_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="specs: at least one"):
        ta.open_stream([])
