"""Streams: the state depends on the points alone, survives a restart at every scrape, and a FAIL stays."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from same_bytes import same_bytes
from scipy import stats

Floats = NDArray[np.float64]
N = 30
GAUGE = ta.MetricSpec("m", "gauge", "up_is_worse", "log", 0.1)
SPECS = (
    GAUGE,
    GAUGE.with_(direction="down_is_worse"),
    GAUGE.with_(direction="either", scale="linear", margin=10.0),
    GAUGE,
    GAUGE.with_(name="silent"),
    GAUGE.with_(name="gaps"),
)


def _noise(shape: tuple[int, ...], seed: int) -> Floats:
    return 100.0 * np.exp(np.random.default_rng(seed).normal(size=shape) * 0.05)


def _gauges() -> tuple[Floats, Floats]:
    x, y = _noise((6, N), 1), _noise((6, N), 2)
    y[3] *= 1.5
    y[1, N // 2 :] *= 0.6
    y[4, 12:] = np.nan
    x[5, ::5], y[5, ::7] = np.nan, 0.0
    return x, y


def _history(windows: int, points: int = N) -> Floats:
    return _noise((6, windows, 2, points), 3)


def _counts(seed: int) -> Floats:
    return np.random.default_rng(seed).poisson(4.0, (2, N)).astype(float)


class Case:
    """A stream to open, and the columns to feed it."""

    def __init__(self, open_: Callable[[], ta.Stream], x: Floats | None, y: Floats, **exposure: Floats) -> None:
        self.open, self.x, self.y, self.exposure = open_, x, y, exposure

    def feed(self, stream: ta.Stream, low: int, high: int) -> None:
        part = {name: totals[:, low:high] for name, totals in self.exposure.items()}
        stream.update(None if self.x is None else self.x[:, low:high], self.y[:, low:high], **part)


X, Y = _gauges()
CASES = {
    "horizon and past": Case(lambda: ta.open_stream(SPECS, history=_history(16), horizon=N), X, Y),
    "horizon and few windows": Case(lambda: ta.open_stream(SPECS, history=_history(4), horizon=N), X, Y),
    "horizon alone": Case(lambda: ta.open_stream(SPECS, horizon=N), X, Y),
    "endless, betting": Case(lambda: ta.open_stream(SPECS, history=_history(16)), X, Y),
    "endless alone": Case(lambda: ta.open_stream(SPECS), X, Y),
    "before/after": Case(
        lambda: ta.open_stream(SPECS, design="before_after", before=_noise((6, 900), 4), horizon=N), None, Y
    ),
    "before/after by the time of day": Case(
        lambda: ta.open_stream(
            SPECS, design="before_after", before=_noise((6, 6 * 144), 4), horizon=N, step_seconds=600.0
        ),
        None,
        Y,
    ),
    "before/after, short past": Case(
        lambda: ta.open_stream(SPECS, design="before_after", before=_noise((6, 20), 4), horizon=N), None, Y
    ),
    "counters": Case(
        lambda: ta.open_stream([ta.MetricSpec("bytes_total", "counter", "up_is_worse")] * 6, horizon=N),
        np.cumsum(_noise((6, N), 1), axis=1),
        np.cumsum(_noise((6, N), 2), axis=1),
    ),
    "counts": Case(
        lambda: ta.open_stream([ta.MetricSpec("kills", "count", "up_is_worse")] * 2, horizon=N),
        _counts(5),
        3 * _counts(6),
    ),
    "ratios": Case(
        lambda: ta.open_stream([ta.MetricSpec("errors", "ratio", "up_is_worse")] * 2, horizon=N),
        _counts(5),
        _counts(6) * 3,
        baseline_exposure=np.full((2, N), 200.0),
        canary_exposure=np.full((2, N), 100.0),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("sizes", [(1,), (3, 1, 7)])
def test_the_state_does_not_depend_on_the_blocks(name: str, sizes: tuple[int, ...]) -> None:
    case = CASES[name]
    whole = case.open()
    case.feed(whole, 0, N)
    parts = case.open()
    low = k = 0
    while low < N:
        high = min(low + sizes[k % len(sizes)], N)
        case.feed(parts, low, high)
        low, k = high, k + 1
    assert parts.state() == whole.state()
    assert same_bytes(parts.result(), whole.result())


@pytest.mark.parametrize("name", CASES)
def test_asking_in_between_changes_nothing(name: str) -> None:
    case = CASES[name]
    quiet, asked = case.open(), case.open()
    for t in range(N):
        case.feed(quiet, t, t + 1)
        case.feed(asked, t, t + 1)
        if t % 4 == 0:
            asked.judge()
    assert asked.state() == quiet.state()


@pytest.mark.parametrize("name", CASES)
def test_a_stream_can_be_stopped_and_restored_at_every_scrape(name: str) -> None:
    case = CASES[name]
    straight = case.open()
    case.feed(straight, 0, N)
    stopped = ta.restore_stream(case.open().state())
    for t in range(N):
        case.feed(stopped, t, t + 1)
        stopped = ta.restore_stream(stopped.state())
        assert stopped.scrapes == t + 1
    assert stopped.state() == straight.state()
    assert same_bytes(stopped.result(), straight.result())


@pytest.mark.parametrize("name", CASES)
def test_fail_latches_and_evidence_only_grows(name: str) -> None:
    case = CASES[name]
    stream = case.open()
    failed = np.zeros(len(stream.specs), dtype=bool)
    p = np.ones(len(stream.specs))
    for t in range(N):
        case.feed(stream, t, t + 1)
        found = stream.result()
        fails = found.verdict == ta.Verdict.FAIL
        assert (fails | ~failed).all()
        failed |= fails
        assert (found.p_value <= p + 1e-12).all()
        p = found.p_value


def test_the_regressions_are_found_and_the_others_are_not() -> None:
    for name in ("horizon and past", "horizon alone", "endless, betting", "before/after"):
        case = CASES[name]
        stream = case.open()
        case.feed(stream, 0, N)
        verdicts = stream.result().verdict
        assert verdicts[3] == ta.Verdict.FAIL, name
        assert verdicts[0] != ta.Verdict.FAIL, name
        assert verdicts[4] != ta.Verdict.PASS, name


def test_points_beyond_the_horizon_are_not_taken() -> None:
    case = CASES["horizon alone"]
    stream = case.open()
    case.feed(stream, 0, N)
    assert stream.finished
    state = stream.state()
    stream.update(X[:, :5] * 9, Y[:, :5])
    assert stream.state() == state
    late = case.open()
    late.update(np.concatenate([X, X], axis=1), np.concatenate([Y, Y * 9], axis=1))
    assert late.state() == state


def test_an_empty_block_changes_nothing() -> None:
    for name in ("horizon alone", "before/after"):
        case = CASES[name]
        stream = case.open()
        state = stream.state()
        case.feed(stream, 0, 0)
        assert stream.state() == state


def test_before_any_scrape_there_is_nothing_to_say() -> None:
    for name, case in CASES.items():
        found = case.open().result()
        assert (found.verdict == ta.Verdict.INCONCLUSIVE).all(), name
        assert (found.p_value == 1.0).all(), name


def test_the_watch_over_a_past_is_a_running_maximum_by_the_reflection_principle() -> None:
    # One series by plain lines: docs/methods/sequential.md.
    history = _noise((1, 12, 2, N), 7)
    x, y = _noise((1, N), 8), _noise((1, N), 9) * 1.05
    stream = ta.open_stream(GAUGE, history=history, horizon=N)
    windows = np.log(history[0, :, 1] / history[0, :, 0])
    means = np.array([stats.trim_mean(w, 0.1) for w in windows])
    centre = _clipped(means).mean()
    spread = 1.482602218505602 * np.median(np.abs(windows - centre))
    reach = 3.5 * spread + math.log(1.1)
    sums = np.clip(windows - centre, -reach, reach).sum(axis=1)
    sd = math.sqrt((_clipped(sums, 0.0) ** 2).mean()) * math.sqrt(1 + 1 / 12)
    total, top = 0.0, 0.0
    for t in range(N):
        stream.update(x[:, t : t + 1], y[:, t : t + 1])
        total += float(np.clip(math.log(y[0, t] / x[0, t]) - centre, -reach, reach))
        if t >= 2:
            top = max(top, total / sd)
        expected = min(2 * stats.t.sf(top, 11), 1.0)
        assert stream.result().p_value[0] == pytest.approx(expected, rel=1e-9)
    half = stats.t.isf(0.01, 11) * sd / N
    assert stream.result().effect_low[0] == pytest.approx(math.expm1(total / N - half), rel=1e-9)


def _clipped(values: Floats, median: float | None = None) -> Floats:
    from tidegate_analysis.kernels.placebo import CLIP

    middle = float(np.median(values)) if median is None else median
    reach = CLIP * 1.482602218505602 * float(np.median(np.abs(values - middle)))
    return np.clip(values, middle - reach, middle + reach)


def test_looking_all_the_time_costs_no_more_than_alpha() -> None:
    # One watch a series: 600 healthy ones, each with its own past, looked at on every scrape.
    rng = np.random.default_rng(10)
    S = 600
    history, x, y = (rng.lognormal(0.0, 0.1, shape) for shape in ((S, 14, 2, N), (S, N), (S, N)))
    stream = ta.open_stream([GAUGE.with_(margin=0.001)] * S, history=history, horizon=N)
    stream.update(x, y)
    fails = (stream.result().verdict == ta.Verdict.FAIL).mean()
    assert fails <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / S)


def test_bets_that_a_harmless_canary_wins_say_pass() -> None:
    rng = np.random.default_rng(11)
    S, n = 40, 90
    history = rng.lognormal(0.0, 0.05, (S, 16, 2, 60))
    stream = ta.open_stream([GAUGE] * S, history=history)
    stream.update(*rng.lognormal(0.0, 0.05, (2, S, n)))
    found = stream.result()
    assert (found.verdict == ta.Verdict.PASS).mean() > 0.9
    assert set(found.method) == {"signed-rank-betting.v1"}
    assert np.isfinite(found.log_e_value).all()


def test_judge_uses_the_rate_it_was_opened_with() -> None:
    stream = ta.open_stream(SPECS, horizon=N, q=0.01)
    stream.update(X, Y)
    judged = stream.judge()
    assert judged.q == 0.01
    assert judged.design == "concurrent"
    assert judged.verdict == ta.Verdict.FAIL


def test_a_silent_canary_is_told_and_never_passes() -> None:
    for name in ("horizon and past", "horizon alone", "endless, betting", "before/after"):
        case = CASES[name]
        stream = case.open()
        case.feed(stream, 0, N)
        found = stream.result()
        assert found.verdict[4] == ta.Verdict.INCONCLUSIVE, name
        assert found.reason[4] == "canary_silent", name


@pytest.mark.parametrize("horizon", [None, N])
def test_arms_that_never_move_have_no_yardstick(horizon: int | None) -> None:
    for level in (0.1 + 0.2, 7.0):
        stream = ta.open_stream([GAUGE, GAUGE.with_(scale="linear", margin=1.0)], horizon=horizon)
        stream.update(np.full((2, N), 3.0), np.full((2, N), level))
        found = stream.result()
        assert set(found.reason) == {"constant"}
        assert (found.verdict == ta.Verdict.INCONCLUSIVE).all()


def test_an_answer_is_kept_until_the_next_scrape_and_no_longer() -> None:
    stream = ta.open_stream(SPECS, horizon=N)
    stream.update(X[:, :10], Y[:, :10])
    first, judged = stream.result(), stream.judge()
    assert stream.result() is first
    assert stream.judge() is judged
    stream.q = 0.1
    assert stream.judge().q == 0.1
    stream.update(X[:, 10:11], Y[:, 10:11])
    assert stream.result() is not first
    fresh = ta.open_stream(SPECS, horizon=N)
    fresh.update(X[:, :11], Y[:, :11])
    assert same_bytes(stream.result(), fresh.result())


def test_only_a_fail_has_an_onset() -> None:
    # Without a horizon evidence comes later than in the one look that describes the arms.
    stream = ta.open_stream(SPECS)
    for t in range(N):
        stream.update(X[:, t : t + 1], Y[:, t : t + 1])
        found = stream.result()
        assert ((found.onset >= 0) <= (found.verdict == ta.Verdict.FAIL)).all()


def test_a_copy_goes_on_by_itself() -> None:
    stream = ta.open_stream(SPECS, history=_history(28))
    stream.update(X[:, :20], Y[:, :20])
    other = copy.deepcopy(stream)
    stream.update(Y[:, 20:25], X[:, 20:25])
    other.update(X[:, 20:25], Y[:, 20:25])
    whole = ta.open_stream(SPECS, history=_history(28))
    whole.update(X[:, :25], Y[:, :25])
    assert other.state() == whole.state() != stream.state()
