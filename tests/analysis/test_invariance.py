"""What must not matter: units, memory layout, the time of the run. What must never help: more bad points."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import tidegate_analysis as ta
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from same_bytes import same_bytes

Floats = NDArray[np.float64]
Run = Callable[[Floats, Floats, Floats, ta.MetricSpec], ta.Result]
N, WINDOWS, PAST = 40, 16, 900


def _compare(x: Floats, y: Floats, past: Floats, spec: ta.MetricSpec) -> ta.Result:
    return ta.compare(x, y, spec=spec)


def _compare_with_history(x: Floats, y: Floats, past: Floats, spec: ta.MetricSpec) -> ta.Result:
    return ta.compare(x, y, spec=spec, history=past)


def _instances(x: Floats, y: Floats, past: Floats, spec: ta.MetricSpec) -> ta.Result:
    arm = np.moveaxis(past[:, :3, 0], 1, 1)
    return ta.compare(np.concatenate([arm, x[:, None]], axis=1), y[:, None], spec=spec)


def _before_after(x: Floats, y: Floats, past: Floats, spec: ta.MetricSpec) -> ta.Result:
    before = np.concatenate([past[:, :, 0].reshape(len(x), -1), x], axis=1)
    return ta.before_after(before, y, spec=spec)


def _difference_in_differences(x: Floats, y: Floats, past: Floats, spec: ta.MetricSpec) -> ta.Result:
    before, control = past[:, :, 0].reshape(len(x), -1), past[:, :, 1].reshape(len(x), -1)
    return ta.before_after(before, y, spec=spec, control_before=control, control_after=x)


def _stream(x: Floats, y: Floats, past: Floats, spec: ta.MetricSpec) -> ta.Result:
    stream = ta.open_stream([spec] * len(x), history=past, horizon=N)
    stream.update(x, y)
    return stream.result()


def _endless_stream(x: Floats, y: Floats, past: Floats, spec: ta.MetricSpec) -> ta.Result:
    stream = ta.open_stream([spec] * len(x), history=past)
    stream.update(x, y)
    return stream.result()


def _stream_without_past(x: Floats, y: Floats, past: Floats, spec: ta.MetricSpec) -> ta.Result:
    stream = ta.open_stream([spec] * len(x), horizon=N)
    stream.update(x, y)
    return stream.result()


def _before_after_stream(x: Floats, y: Floats, past: Floats, spec: ta.MetricSpec) -> ta.Result:
    before = past[:, :, 0].reshape(len(x), -1)
    stream = ta.open_stream([spec] * len(x), design="before_after", before=before, horizon=N)
    stream.update(None, y)
    return stream.result()


RUNS: dict[str, Run] = {
    "compare": _compare,
    "compare with history": _compare_with_history,
    "instances": _instances,
    "before/after": _before_after,
    "difference in differences": _difference_in_differences,
    "stream": _stream,
    "endless stream": _endless_stream,
    "stream without a past": _stream_without_past,
    "before/after stream": _before_after_stream,
}
LOG = ta.MetricSpec("m", "gauge", "up_is_worse", "log", 0.1)
LINEAR = ta.MetricSpec("m", "gauge", "up_is_worse", "linear", 10.0)


def _data(S: int, seed: int) -> tuple[Floats, Floats, Floats]:
    rng = np.random.default_rng(seed)
    x = 100.0 * np.exp(rng.normal(size=(S, N)) * 0.05)
    y = 100.0 * np.exp(rng.normal(size=(S, N)) * 0.05) * np.linspace(0.8, 1.4, S)[:, None]
    past = 100.0 * np.exp(rng.normal(size=(S, WINDOWS, 2, N)) * 0.05)
    return x, y, past


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize("unit", [1000.0, 3.7e-9])
def test_the_unit_changes_nothing_but_the_units(name: str, unit: float) -> None:
    x, y, past = _data(12, 1)
    for spec in (LOG, LINEAR):
        plain = RUNS[name](x, y, past, spec)
        scaled_spec = spec if spec.scale == "log" else spec.with_(margin=10.0 * unit)
        scaled = RUNS[name](x * unit, y * unit, past * unit, scaled_spec)
        assert np.array_equal(plain.verdict, scaled.verdict)
        assert plain.reason == scaled.reason
        assert plain.method == scaled.method
        np.testing.assert_allclose(scaled.p_value, plain.p_value, rtol=1e-6, atol=1e-15)
        factor = 1.0 if spec.scale == "log" else unit
        for field in ("effect", "effect_low", "effect_high", "minimum_detectable_effect"):
            np.testing.assert_allclose(getattr(scaled, field), getattr(plain, field) * factor, rtol=1e-6)
        np.testing.assert_allclose(scaled.canary_level, plain.canary_level * unit, rtol=1e-12)
        assert np.array_equal(plain.onset, scaled.onset)


def test_the_unit_changes_nothing_with_zeros_among_the_values() -> None:
    x, y, past = _data(12, 2)
    x[:, 3] = y[:, 7] = 0.0
    plain, scaled = (_compare(x * u, y * u, past, LOG) for u in (1.0, 1e-6))
    assert np.array_equal(plain.verdict, scaled.verdict)
    np.testing.assert_allclose(scaled.p_value, plain.p_value, rtol=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_the_same_input_gives_thesame_bytes(name: str) -> None:
    x, y, past = _data(9, 3)
    first = RUNS[name](x, y, past, LOG)
    again = RUNS[name](x.copy(), y.copy(), past.copy(), LOG)
    assert same_bytes(first, again)
    other_layout = RUNS[name](np.asfortranarray(x), np.asfortranarray(y), np.asfortranarray(past), LOG)
    assert same_bytes(first, other_layout)


@pytest.mark.parametrize("name", RUNS)
def test_nothing_is_written_to_the_input(name: str) -> None:
    x, y, past = _data(5, 4)
    y[2, 5] = np.inf
    x[1] = 0.0
    for array in (x, y, past):
        array.flags.writeable = False
    RUNS[name](x, y, past, LOG)
    RUNS[name](x, y, past, ta.MetricSpec("requests_total", "counter"))


@pytest.mark.parametrize("name", RUNS)
def test_results_survive_a_trip_between_processes(name: str) -> None:
    found = RUNS[name](*_data(4, 5), LOG)
    assert same_bytes(pickle.loads(pickle.dumps(found)), found)
    judged = ta.judge(found)
    assert pickle.loads(pickle.dumps(judged)).explain() == judged.explain()


@pytest.mark.parametrize("name", RUNS)
def test_taking_series_is_judging_them(name: str) -> None:
    x, y, past = _data(10, 6)
    found = RUNS[name](x, y, past, LOG)
    rows = [7, 2, 2]
    taken = found.take(rows)
    assert taken.verdict.tolist() == found.verdict[rows].tolist()
    assert [taken.explain(k) for k in range(3)] == [found.explain(i) for i in rows]


BAD = [np.inf, -np.inf, np.nan, -1.0, 0.0, 1e200, 1e6, 5000.0]


@pytest.mark.parametrize("name", [name for name in RUNS if name != "instances"])
@settings(max_examples=10, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    factor=st.floats(1.15, 2.0),
    places=st.lists(st.integers(0, N - 1), min_size=1, max_size=N, unique=True),
    value=st.sampled_from(BAD),
    log=st.booleans(),
)
def test_more_bad_points_of_the_canary_never_turn_fail_into_pass(
    name: str, seed: int, factor: float, places: list[int], value: float, log: bool
) -> None:
    rng = np.random.default_rng(seed)
    x = 100.0 * np.exp(rng.normal(size=(1, N)) * 0.05)
    y = 100.0 * np.exp(rng.normal(size=(1, N)) * 0.05) * factor
    past = 100.0 * np.exp(rng.normal(size=(1, WINDOWS, 2, N)) * 0.05)
    spec = LOG if log else LINEAR
    worse = y.copy()
    worse[0, places] = value
    if value in (-np.inf, 0.0, -1.0) and not log:
        # On a linear scale these are good values, not bad ones.
        worse[0, places] = np.inf
    if RUNS[name](x, y, past, spec).verdict[0] == ta.Verdict.FAIL:
        assert RUNS[name](x, worse, past, spec).verdict[0] != ta.Verdict.PASS


@pytest.mark.parametrize("name", ["compare", "compare with history", "before/after", "stream"])
@settings(max_examples=10, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    factor=st.floats(1.15, 2.0),
    places=st.lists(st.integers(0, N - 1), min_size=1, max_size=N, unique=True),
    value=st.sampled_from([np.inf, -np.inf, np.nan, 1e200]),
)
def test_bad_points_of_the_baseline_never_turn_fail_into_pass(
    name: str, seed: int, factor: float, places: list[int], value: float
) -> None:
    rng = np.random.default_rng(seed)
    x = 100.0 * np.exp(rng.normal(size=(1, N)) * 0.05)
    y = 100.0 * np.exp(rng.normal(size=(1, N)) * 0.05) * factor
    past = 100.0 * np.exp(rng.normal(size=(1, WINDOWS, 2, N)) * 0.05)
    spoilt = x.copy()
    spoilt[0, places] = value
    for spec in (LOG, LINEAR):
        if RUNS[name](x, y, past, spec).verdict[0] == ta.Verdict.FAIL:
            assert RUNS[name](spoilt, y, past, spec).verdict[0] != ta.Verdict.PASS


def test_one_absurd_point_in_the_past_does_not_hide_a_regression() -> None:
    rng = np.random.default_rng(8)
    before = 100.0 + rng.normal(size=(1, PAST)) * 5
    after = 130.0 + rng.normal(size=(1, 30)) * 5
    for value in (1e6, 1e12, 1e30, 1e60):
        for at in (10, 400, 700):
            spoilt = before.copy()
            spoilt[0, at] = value
            found = ta.before_after(spoilt, after, spec=LINEAR)
            assert found.verdict[0] == ta.Verdict.FAIL, (value, at)


def test_a_series_alone_and_among_others_gets_the_same_finding() -> None:
    x, y, past = _data(30, 9)
    for run in RUNS.values():
        if run is _instances:
            continue  # they borrow from each other
        together = run(x, y, past, LOG)
        alone = run(x[4:5], y[4:5], past[4:5], LOG)
        assert alone.verdict[0] == together.verdict[4]
        np.testing.assert_allclose(alone.p_value[0], together.p_value[4], rtol=1e-9)
