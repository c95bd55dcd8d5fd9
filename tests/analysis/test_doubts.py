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
