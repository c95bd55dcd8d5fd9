"""Where a change began, against a loop over every column."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from tidegate_analysis.kernels import changepoint, dependence

Floats = NDArray[np.float64]


def _onset_by_loop(row: Floats, level: float) -> tuple[int, int, int]:
    """Give each column the gain of a shift that begins there; take the best and all that nearly match."""
    there = [t for t in range(len(row)) if not math.isnan(row[t])]
    if len(there) < 4:
        return -1, -1, -1
    values = sorted(row[t] - level for t in there)
    cut = int(0.05 * len(values))
    low, high = values[cut], values[len(values) - cut - 1]
    z = {t: min(max(row[t] - level, low), high) for t in there}
    last = len(row) - 2
    gains = []
    for k in range(len(row)):
        after = [z[t] for t in there if t >= k]
        gains.append(sum(after) ** 2 / max(len(after), 1) if k < last else 0.0)
    best = max(range(len(row)), key=lambda k: (gains[k], -k))
    after = [z[t] for t in there if t >= best]
    mean = sum(after) / max(len(after), 1)
    residual = np.array([z[t] - (mean if t >= best else 0.0) for t in there])
    variance = float((residual**2).sum()) / max(len(there) - 1, 1)
    rho = float(np.nan_to_num(dependence.lag1(residual[None])[0]))
    n = len(there)
    vif = max(1.0, 1.0 + 2.0 * sum((1.0 - k / n) * rho**k for k in range(1, n)))
    near = [k for k in range(last) if max(gains) - gains[k] <= 2 * 3.8 * variance * vif]
    return best, min([best, *near]), max([best, *near])


def _cases() -> dict[str, tuple[Floats, Floats]]:
    rng = np.random.default_rng(9)
    step = rng.normal(size=(8, 60))
    step[:, 25:] += 3.0
    gaps = step.copy()
    gaps[rng.random(gaps.shape) < 0.3] = np.nan
    gaps[0] = np.nan
    gaps[1, 3:] = np.nan
    spiky = rng.standard_t(1.5, size=(8, 60))
    spiky[:, 40:] += 5.0
    return {
        "step": (step, np.zeros(8)),
        "other level": (step + 10.0, np.full(8, 10.0)),
        "gaps": (gaps, np.zeros(8)),
        "heavy tails": (spiky, np.zeros(8)),
        "nothing happens": (rng.normal(size=(8, 30)), np.zeros(8)),
        "constant": (np.full((2, 12), 1.0), np.zeros(2)),
        "ties": (rng.integers(0, 2, (6, 15)).astype(float), np.full(6, 0.5)),
        "five points": (rng.normal(size=(6, 5)), np.zeros(6)),
        "three points": (rng.normal(size=(2, 3)), np.zeros(2)),
        "no points": (np.zeros((2, 0)), np.zeros(2)),
        "no series": (np.zeros((0, 9)), np.zeros(0)),
    }


CASES = _cases()


@pytest.mark.parametrize("name", CASES)
def test_onset_is_the_loop(name: str) -> None:
    d, level = CASES[name]
    best, earliest, latest = changepoint.onset(d, level)
    for i in range(len(d)):
        assert (best[i], earliest[i], latest[i]) == _onset_by_loop(d[i], level[i])


def test_a_clear_step_is_found_within_its_set() -> None:
    rng = np.random.default_rng(10)
    d = rng.normal(size=(400, 90))
    d[:, 40:] += 1.5
    best, earliest, latest = changepoint.onset(d, np.zeros(400))
    assert np.mean(np.abs(best - 40) <= 3) > 0.85
    assert np.mean((earliest <= 40) & (latest >= 40)) > 0.88
    assert (earliest <= best).all()
    assert (best <= latest).all()


def test_an_opposite_step_is_found_at_the_same_place() -> None:
    d, level = CASES["step"]
    for up, down in zip(changepoint.onset(d, level), changepoint.onset(-d, level), strict=True):
        assert np.array_equal(up, down)


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25])
def test_winsorising_clips_at_order_statistics(share: float) -> None:
    x = np.random.default_rng(11).normal(size=(5, 33))
    x[0, 4:9] = np.nan
    found = changepoint.winsorise(x, share)
    for i in range(5):
        s = np.sort(x[i][~np.isnan(x[i])])
        k = int(share * len(s))
        np.testing.assert_array_equal(found[i], np.clip(x[i], s[k], s[len(s) - k - 1]))
