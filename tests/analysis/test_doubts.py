"""What must never hide behind a PASS: what a mean does not see, and what the numbers of a stream do not tell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Run = Callable[[Floats, Floats], ta.Result]
S, N, WINDOWS = 20, 60, 20
SPEC = ta.MetricSpec("latency", "gauge", "up_is_worse", "log", 0.1)
SPECS = [SPEC.with_(name=f"latency_{k}") for k in range(S)]


def _noise(*shape: int, seed: int, sd: float = 0.05) -> Floats:
    return 100.0 * np.exp(np.random.default_rng(seed).normal(size=shape) * sd)


PAST = _noise(S, WINDOWS, 2, N, seed=1)


def _stream(history: Floats | None, horizon: int | None) -> Run:
    def run(x: Floats, y: Floats) -> ta.Result:
        stream = ta.open_stream(SPECS, history=history, horizon=horizon)
        stream.update(x, y)
        return stream.result()

    return run


def _short_past(x: Floats, y: Floats) -> ta.Result:
    return ta.before_after(x, y, spec=SPEC)


def _short_past_stream(x: Floats, y: Floats) -> ta.Result:
    stream = ta.open_stream(SPECS, design="before_after", before=x, horizon=N)
    stream.update(None, y)
    return stream.result()


RUNS: dict[str, Run] = {
    "compare": lambda x, y: ta.compare(x, y, spec=SPEC),
    "compare, 10 windows": lambda x, y: ta.compare(x, y, spec=SPEC, history=PAST[:, :10]),
    "compare, 20 windows": lambda x, y: ta.compare(x, y, spec=SPEC, history=PAST),
    "stream": _stream(None, N),
    "stream, windows": _stream(PAST, N),
    "endless stream": _stream(None, None),
    "endless stream, windows": _stream(PAST, None),
    "before/after, short past": _short_past,
    "before/after stream, short past": _short_past_stream,
}


def _worse(y: Floats, columns: slice, factor: float) -> Floats:
    out = y.copy()
    out[:, columns] *= factor
    return out


FAULTS: dict[str, Callable[[Floats], Floats]] = {
    "last third": lambda y: _worse(y, slice(40, None), 1.5),
    "last sixth": lambda y: _worse(y, slice(50, None), 1.5),
    "last tenth": lambda y: _worse(y, slice(54, None), 2.0),
    "last three": lambda y: _worse(y, slice(57, None), 10.0),
    "every twelfth": lambda y: _worse(y, slice(None, None, 12), 20.0),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", RUNS)
def test_a_fault_of_a_few_points_never_hides_in_a_pass(name: str, fault: str) -> None:
    found = RUNS[name](_noise(S, N, seed=2), FAULTS[fault](_noise(S, N, seed=3)))
    assert not (found.verdict == ta.Verdict.PASS).any()


@pytest.mark.parametrize("name", RUNS)
def test_healthy_series_still_pass(name: str) -> None:
    found = RUNS[name](_noise(S, N, seed=2), _noise(S, N, seed=3))
    assert (found.verdict == ta.Verdict.PASS).sum() >= S - 1


def test_a_fault_on_the_better_side_is_no_doubt() -> None:
    x, y = _noise(S, N, seed=2), _worse(_noise(S, N, seed=3), slice(40, None), 0.7)
    for direction, healthy in (("up_is_worse", True), ("down_is_worse", False), ("either", False)):
        found = ta.compare(x, y, spec=SPEC.with_(direction=direction), history=PAST)
        assert (found.verdict == ta.Verdict.PASS).all() == healthy


def test_the_reason_says_that_it_is_the_last_third() -> None:
    # Over the whole watch the change is 6 % and well known by the past; over the last third it is 18 %.
    x, y = _noise(S, N, seed=2, sd=0.01), _worse(_noise(S, N, seed=3, sd=0.01), slice(40, None), 1.18)
    found = ta.compare(x, y, spec=SPEC, history=_noise(S, 10, 2, N, seed=4, sd=0.02))
    i = found.reason.index("late_in_doubt")
    assert "but not over the last third of it; so far it changed by +" in found.explain(i)


@pytest.mark.parametrize("history", [None, PAST], ids=["alone", "windows"])
@pytest.mark.parametrize("horizon", [N, None])
def test_what_forbids_a_pass_in_a_comparison_forbids_it_in_a_stream(
    history: Floats | None, horizon: int | None
) -> None:
    """Whatever the fixed comparison itself would have said: its own verdict is not what is asked."""
    # So noisy that the comparison alone cannot say "within the margin", as the stream by its bets or its past can.
    x, y = _noise(S, N, seed=5, sd=0.15), _noise(S, N, seed=6, sd=0.15)
    specs = [one.with_(margin=0.05) for one in SPECS]
    past = None if history is None else _noise(S, WINDOWS, 2, N, seed=7, sd=0.05)
    frozen, silent, absurd = y.copy(), y.copy(), y.copy()
    frozen[:, 25:] = 100.0
    silent[:, -3:] = np.nan
    absurd[:, 7] = -1.0
    for bad in (frozen, silent, absurd):
        stream = ta.open_stream(specs, history=past, horizon=horizon)
        stream.update(x, bad)
        assert not (stream.result().verdict == ta.Verdict.PASS).any()


@pytest.mark.parametrize("windows", [8, 13, WINDOWS])
def test_arms_that_always_differ_have_not_changed(windows: int) -> None:
    """The tail, too, is measured from the usual distance of the arms."""
    past = PAST[:, :windows].copy()
    past[:, :, 1] *= 1.3
    x, y = _noise(S, N, seed=2), 1.3 * _noise(S, N, seed=3)
    for found in (ta.compare(x, y, spec=SPEC, history=past), _stream(past, N)(x, y), _stream(past, None)(x, y)):
        assert (found.verdict == ta.Verdict.PASS).sum() >= S - 2
        assert not (found.verdict == ta.Verdict.FAIL).any()


def _long_past(x: Floats, y: Floats) -> ta.Result:
    return ta.before_after(_noise(S, 2000, seed=9), y, spec=SPEC)


def _long_past_stream(x: Floats, y: Floats) -> ta.Result:
    stream = ta.open_stream(SPECS, design="before_after", before=_noise(S, 2000, seed=9), horizon=N)
    stream.update(None, y)
    return stream.result()


EVERY = {**RUNS, "before/after": _long_past, "before/after stream": _long_past_stream}


def _gone(y: Floats, columns: slice) -> Floats:
    out = y.copy()
    out[:, columns] = np.nan
    return out


NOTHING_TO_KNOW: dict[str, Callable[[Floats], Floats]] = {
    "every other scrape missing": lambda y: _gone(y, slice(None, None, 2)),
    "half an hour missing": lambda y: _gone(y, slice(10, 40)),
    "the end missing": lambda y: _gone(y, slice(57, None)),
    "frozen half-way": lambda y: np.where(np.arange(N) < 20, y, 100.0),
    "frozen from the first scrape on": lambda y: np.full_like(y, 100.0),
    "nothing but zeros": lambda y: np.zeros_like(y),
}


@pytest.mark.parametrize("how", NOTHING_TO_KNOW)
@pytest.mark.parametrize("name", EVERY)
def test_silence_and_a_frozen_source_never_pass(name: str, how: str) -> None:
    found = EVERY[name](_noise(S, N, seed=2), NOTHING_TO_KNOW[how](_noise(S, N, seed=3)))
    assert not (found.verdict == ta.Verdict.PASS).any()


def test_a_metric_that_rests_at_zero_is_not_frozen() -> None:
    x = np.abs(np.random.default_rng(2).normal(0.01, 0.01, (S, N)))
    spec = ta.MetricSpec("backlog", "gauge", "up_is_worse", "linear", 0.1)
    assert (ta.compare(x, np.zeros((S, N)), spec=spec).verdict == ta.Verdict.PASS).all()


@pytest.mark.parametrize("name", [n for n in EVERY if "before/after" in n])
def test_a_wider_spread_after_the_deployment_does_not_pass(name: str) -> None:
    wide = 100.0 * (_noise(S, N, seed=3) / 100.0) ** 10
    assert not (EVERY[name](_noise(S, N, seed=2), wide).verdict == ta.Verdict.PASS).any()


# Errors of requests: what comes late, what comes as the traffic goes, and no traffic at all.

ERRORS = ta.MetricSpec("errors", "ratio", "up_is_worse")


def _requests(errors: Floats, of: Floats, seed: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    totals = rng.poisson(np.broadcast_to(of, (S, N))).astype(np.float64)
    return rng.binomial(totals.astype(int), np.broadcast_to(errors, (S, N))).astype(np.float64), totals


def _ratio_runs(y: Floats, ey: Floats) -> dict[str, ta.Result]:
    x, ex = _requests(np.full(N, 0.001), np.full(N, 1000.0), 20)
    pairs = [[_requests(np.full(N, 0.001), np.full(N, 1000.0), 30 + 2 * k + a) for k in range(WINDOWS)] for a in (0, 1)]
    past, told = (np.stack([np.stack([p[i] for p in arm], axis=1) for arm in pairs], axis=2) for i in (0, 1))
    given = {"baseline_exposure": ex, "canary_exposure": ey}
    out = {
        "compare": ta.compare(x, y, spec=ERRORS, **given),
        "compare, windows": ta.compare(x, y, spec=ERRORS, **given, history=past, history_exposure=told),
    }
    before, of = (a[:, :, 0].reshape(S, -1) for a in (past, told))
    out["before/after"] = ta.before_after(before, y, spec=ERRORS, before_exposure=of, after_exposure=ey)
    specs = [ERRORS.with_(name=f"errors_{k}") for k in range(S)]
    for name, history in (("stream", None), ("stream, windows", past)):
        stream = ta.open_stream(specs, history=history, history_exposure=None if history is None else told, horizon=N)
        stream.update(x, y, **given)
        out[name] = stream.result()
    return out


LATE = np.arange(N) >= 54
SECOND_HALF = np.arange(N) >= 30
RATIOS: dict[str, tuple[Floats, Floats]] = {
    "errors in the last tenth": (np.where(LATE, 0.03, 0.001), np.full(N, 1000.0)),
    "errors as the traffic goes": (np.where(SECOND_HALF, 0.5, 0.001), np.where(SECOND_HALF, 2.0, 1000.0)),
    "no traffic any more": (np.full(N, 0.001), np.where(SECOND_HALF, 0.0, 1000.0)),
}


@pytest.mark.parametrize("fault", RATIOS)
def test_errors_that_come_late_or_without_traffic_never_pass(fault: str) -> None:
    for name, found in _ratio_runs(*_requests(*RATIOS[fault], 21)).items():
        assert not (found.verdict == ta.Verdict.PASS).any(), name


def test_healthy_errors_still_pass() -> None:
    for name, found in _ratio_runs(*_requests(np.full(N, 0.001), np.full(N, 1000.0), 21)).items():
        assert (found.verdict == ta.Verdict.PASS).all(), name


@pytest.mark.parametrize(("events", "total"), [(-1.0, 1000.0), (50.0, 0.0), (1.0, -5.0), (np.inf, 1000.0)])
def test_impossible_counts_never_pass(events: float, total: float) -> None:
    y, ey = _requests(np.full(N, 0.001), np.full(N, 1000.0), 21)
    y[:, 5:8], ey[:, 5:8] = events, total
    for name, found in _ratio_runs(y, ey).items():
        assert not (found.verdict == ta.Verdict.PASS).any(), name


def test_a_ratio_far_above_one_gives_no_warning() -> None:
    _y, ey = _requests(np.full(N, 0.001), np.full(N, 1000.0), 21)
    for name, found in _ratio_runs(2.0 * ey, ey).items():
        assert (found.verdict == ta.Verdict.FAIL).all(), name


# Instances: what hits one of many, and most of them gone.


def _pods(n: int, seed: int) -> Floats:
    return _noise(S, n, 1, seed=seed, sd=0.03) * _noise(S, n, N, seed=seed + 1) / 100.0


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_one_bad_instance_of_many_does_not_pass(factor: float) -> None:
    x, y = _pods(8, 40), _pods(12, 42)
    healthy = ta.compare(x, y, spec=SPEC)
    assert (healthy.verdict == ta.Verdict.PASS).sum() >= S - 1
    y[:, 4] *= factor
    found = ta.compare(x, y, spec=SPEC)
    assert not (found.verdict == ta.Verdict.PASS).any()
    better = ta.compare(x, y, spec=SPEC.with_(direction="down_is_worse"))
    assert (better.verdict == ta.Verdict.PASS).sum() >= S - 1


def test_one_instance_that_leaves_is_no_silence_and_most_of_them_are() -> None:
    x, y = _pods(4, 44), _pods(4, 46)
    y[:, 0, 30:] = np.nan
    assert (ta.compare(x, y, spec=SPEC).verdict == ta.Verdict.PASS).sum() >= S - 1
    y[:, :3, 30:] = np.nan
    found = ta.compare(x, y, spec=SPEC)
    assert set(found.reason) == {"canary_silent"}


# A baseline that is bad or gone where it says what is usual.


@pytest.mark.parametrize("name", [n for n in RUNS if "before/after" not in n])
def test_a_baseline_that_is_gone_when_the_fault_begins_gives_no_pass(name: str) -> None:
    x, y = _noise(S, N, seed=2), _worse(_noise(S, N, seed=3), slice(50, None), 2.0)
    found = RUNS[name](_gone(x, slice(50, None)), y)
    assert not (found.verdict == ta.Verdict.PASS).any()


@pytest.mark.parametrize("value", [np.inf, 1e200])
def test_bad_values_of_the_last_hour_are_not_lost_in_a_long_past(value: float) -> None:
    before, after = _noise(S, 2000, seed=9, sd=0.15), 1.6 * _noise(S, N, seed=3, sd=0.15)
    spoilt = before.copy()
    spoilt[:, -50::2] = spoilt[:, -25:] = value
    assert (ta.before_after(before, after, spec=SPEC).verdict == ta.Verdict.FAIL).all()
    assert not (ta.before_after(spoilt, after, spec=SPEC).verdict == ta.Verdict.PASS).any()


@pytest.mark.parametrize("value", [np.inf, 1e200])
def test_bad_values_of_the_control_group_never_make_a_pass(value: float) -> None:
    before, after = _noise(S, 800, seed=9, sd=0.15), 1.8 * _noise(S, N, seed=3, sd=0.15)
    control, beside = _noise(S, 800, seed=10, sd=0.15), _noise(S, N, seed=11, sd=0.15)
    spoilt = np.where(np.random.default_rng(12).random((S, N)) < 0.95, value, beside)
    found = ta.before_after(before, after, spec=SPEC, control_before=control, control_after=spoilt)
    assert not (found.verdict == ta.Verdict.PASS).any()


@pytest.mark.parametrize("seed", [1, 3, 7])
def test_a_fail_of_a_stream_by_a_few_points_tells_its_change(seed: int) -> None:
    rng = np.random.default_rng(seed)
    before = 100.0 * np.exp(rng.normal(0, 0.05, (S, 640)))
    y = 300.0 * np.exp(rng.normal(0, 0.05, (S, 40)))
    y[rng.random((S, 40)) < 0.95] = np.nan
    stream = ta.open_stream(SPECS, design="before_after", before=before, horizon=40)
    stream.update(None, y)
    found = stream.result()
    failed = found.verdict == ta.Verdict.FAIL
    assert failed.any()
    assert np.isfinite(found.effect[failed]).all()
