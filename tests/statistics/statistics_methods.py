"""Every way to get a result, under one form, and the table of data that all of them are given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import tidegate_analysis as ta
from numpy.typing import NDArray

Floats = NDArray[np.float64]
POINTS = 24
WINDOWS = 16
SERIES = 6

Judge = Callable[[Floats, Floats, ta.MetricSpec], ta.Result]


@dataclass(frozen=True)
class Method:
    """``judge(baseline, canary, spec)``; the past is made from the baseline of a fixed draw, the same for
    all rows.

    ``scales``: on which scales it works. ``mirrored``: swapping the arms must mirror the verdict.
    ``rows``: whether one row alone must give what it gives among others.
    """

    name: str
    judge: Judge
    kind: str = "gauge"
    scales: tuple[str, ...] = ("log", "linear")
    mirrored: bool = True


def past_windows(n: int, points: int, *, windows: int = WINDOWS) -> Floats:
    """Return (n, windows, 2, points) of usual values about 100, each row its own."""
    rows = [
        100.0 * np.exp(0.05 * np.random.default_rng([7, k]).standard_normal((windows, 2, points))) for k in range(n)
    ]
    return np.stack(rows) if rows else np.zeros((0, windows, 2, points))


def _with_history(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
    return ta.compare(x, y, spec=spec, history=past_windows(len(x), max(x.shape[1], 1)))


def _few_windows(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
    return ta.compare(x, y, spec=spec, history=past_windows(len(x), max(x.shape[1], 1), windows=3))


def _alone(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
    return ta.compare(x, y, spec=spec)


def _instances(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
    wobble = np.array([0.97, 1.0, 1.02])[:, None]
    return ta.compare(x[:, None] * wobble, y[:, None] * wobble[:2], spec=spec, borrow=False)


def _ratio(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
    return ta.compare(x, y, spec=spec, baseline_exposure=np.full_like(x, 1e4), canary_exposure=np.full_like(y, 1e4))


def long_past(x: Floats, seed: int) -> Floats:
    """Put 300 usual points before what is given."""
    rows = [100.0 * np.exp(0.05 * np.random.default_rng([seed, k]).standard_normal(300)) for k in range(len(x))]
    return np.concatenate([np.stack(rows), x], axis=1) if rows else x


def _before_after(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
    return ta.before_after(x, y, spec=spec, step_seconds=60.0)


def _before_after_long(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
    return ta.before_after(long_past(x, 8), y, spec=spec, step_seconds=60.0)


def _differences(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
    control = 90.0 + 0.0 * np.nan_to_num(x)
    wave = 1.0 + 0.02 * np.sin(np.arange(x.shape[1]))
    after = 90.0 * (1.0 + 0.02 * np.cos(np.arange(y.shape[1]))) + 0.0 * np.nan_to_num(y)
    return ta.before_after(x, y, spec=spec, step_seconds=60.0, control_before=control * wave, control_after=after)


def _stream(horizon: bool, history: bool) -> Judge:
    def judge(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
        past = past_windows(len(x), max(x.shape[1], 1)) if history else None
        stream = ta.open_stream(
            [spec] * len(x), history=past, horizon=max(x.shape[1], 1) if horizon else None, step_seconds=60.0
        )
        for start in range(0, x.shape[1], 7):
            stream.update(x[:, start : start + 7], y[:, start : start + 7])
        return stream.result()

    return judge


def _stream_before_after(x: Floats, y: Floats, spec: ta.MetricSpec) -> ta.Result:
    stream = ta.open_stream(
        [spec] * len(x),
        design="before_after",
        before=long_past(x, 8),
        horizon=max(y.shape[1], 1),
        step_seconds=60.0,
    )
    for start in range(0, y.shape[1], 7):
        stream.update(None, y[:, start : start + 7])
    return stream.result()


METHODS = (
    Method("compare", _alone),
    Method("compare, history", _with_history, mirrored=False),
    Method("compare, few windows", _few_windows, mirrored=False),
    Method("compare, instances", _instances, mirrored=False),
    Method("compare, counts", _alone, kind="count", scales=("auto",)),
    # Where a fall is worse the failures are compared, which are the rarer ones: another question, not the mirror.
    Method("compare, ratios", _ratio, kind="ratio", scales=("auto",), mirrored=False),
    Method("compare, saturation", _alone, kind="saturation", scales=("auto",)),
    Method("compare, counters", _alone, kind="counter", mirrored=False),
    Method("before/after", _before_after, mirrored=False),
    Method("before/after, long past", _before_after_long, mirrored=False),
    Method("difference in differences", _differences, mirrored=False),
    Method("stream", _stream(horizon=False, history=False)),
    Method("stream, horizon", _stream(horizon=True, history=False)),
    Method("stream, history", _stream(horizon=False, history=True), mirrored=False),
    Method("stream, history, horizon", _stream(horizon=True, history=True), mirrored=False),
    Method("stream, before/after", _stream_before_after, mirrored=False),
)


def spec_of(method: Method, scale: str = "auto", **changes: Any) -> ta.MetricSpec:
    """Return the spec of a method's metric."""
    fields_: dict[str, Any] = {"name": "metric", "kind": method.kind, "scale": scale, **changes}
    fields_.setdefault("direction", "up_is_worse")
    fields_.setdefault(
        "margin", {"ratio": 0.001, "saturation": 0.05}.get(method.kind, 10.0 if scale == "linear" else 0.1)
    )
    return ta.MetricSpec(**fields_)


# ---------------------------------------------------------------- the table of data


def _usual(seed: int, n: int = SERIES, points: int = POINTS) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(seed)
    x, y = 100.0 * np.exp(0.05 * rng.standard_normal((2, n, points)))
    return x, y


def _cases() -> dict[str, tuple[Floats, Floats]]:
    x, y = _usual(1)
    rng = np.random.default_rng(2)
    cases = {"usual": (x, y), "worse": (x, 1.5 * y), "better": (x, 0.6 * y)}
    cases["ties"] = (np.round(x, -1), np.round(y, -1))
    cases["two values"] = tuple(np.where(rng.random(x.shape) < 0.5, 1.0, 2.0) for _ in range(2))  # type: ignore[assignment]
    gaps = rng.random(x.shape)
    cases["gaps in both"] = (np.where(gaps < 0.2, np.nan, x), np.where(gaps > 0.8, np.nan, y))
    ragged_x, ragged_y = x.copy(), y.copy()
    for k in range(SERIES):
        ragged_x[k, : 3 * k] = np.nan
        ragged_y[k, POINTS - 4 * k :] = np.nan
    cases["ragged"] = (ragged_x, ragged_y)
    cases["canary missing"] = (x, np.full_like(y, np.nan))
    cases["baseline missing"] = (np.full_like(x, np.nan), y)
    cases["both missing"] = (np.full_like(x, np.nan), np.full_like(y, np.nan))
    cases["constant and equal"] = (np.full_like(x, 7.0), np.full_like(y, 7.0))
    cases["constant and different"] = (np.full_like(x, 7.0), np.full_like(y, 8.0))
    cases["one arm constant"] = (np.full_like(x, 100.0), y)
    cases["all zeros"] = (np.zeros_like(x), np.zeros_like(y))
    cases["baseline zeros"] = (np.zeros_like(x), rng.poisson(0.4, x.shape).astype(float))
    cases["mostly zeros"] = tuple(rng.poisson(0.1, x.shape).astype(float) for _ in range(2))  # type: ignore[assignment]
    spikes = y.copy()
    spikes[:, 5] = np.inf
    spikes[0, 6] = -np.inf
    cases["infinities"] = (x, spikes)
    cases["negative"] = (x - 100.0, y - 100.0)
    cases["beyond float32"] = (x * 1e40, y * 1e40)
    cases["beyond reason"] = (x * 1e300, y * 1e300)
    cases["tiny"] = (x * 1e-12, y * 1e-12)
    cases["smallest"] = (x * 1e-310, y * 1e-310)
    huge = y.copy()
    huge[:, 3] = 1e18
    cases["one huge"] = (x, huge)
    spike = y.copy()
    spike[:, 3] *= 5.0
    cases["one spike"] = (x, spike)
    for n in (0, 1, 2, 5):
        cases[f"{n} points"] = (x[:, :n], y[:, :n])
    cases["no series"] = (x[:0], y[:0])
    return cases


CASES = _cases()


def arrays_of(result: ta.Result) -> dict[str, Any]:
    """Return all fields of a result by name."""
    return {field.name: getattr(result, field.name) for field in fields(result)}


def assert_same(one: ta.Result, other: ta.Result, *, exact: bool, where: str = "") -> None:
    """Hold two results to be the same: to the last bit, or up to rounding in the numbers."""
    for name, value in arrays_of(one).items():
        second = arrays_of(other)[name]
        if isinstance(value, np.ndarray) and value.dtype.kind == "f" and not exact:
            np.testing.assert_allclose(value, second, rtol=1e-9, atol=1e-12, err_msg=f"{where}: {name}")
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, second, err_msg=f"{where}: {name}")
        else:
            assert value == second, f"{where}: {name}"
