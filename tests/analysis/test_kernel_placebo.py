"""Placebo centre and scale against ten plain lines."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from tidegate_analysis.kernels import placebo

Floats = NDArray[np.float64]


def _by_hand(row: Floats, *, centred: bool) -> tuple[float, float]:
    if len(row) < (2 if centred else 1):
        return np.nan, np.nan
    median = float(np.median(row)) if centred else 0.0
    mad = float(np.median(np.abs(row - median)))
    reach = placebo.CLIP * mad / float(stats.norm.ppf(0.75)) if mad > 0 else np.inf
    clipped = np.clip(row, median - reach, median + reach)
    if not centred:
        return 0.0, float(np.sqrt((clipped**2).mean()))
    return float(clipped.mean()), float(clipped.std(ddof=1))


def _cases() -> dict[str, Floats]:
    rng = np.random.default_rng(7)
    gaps = rng.normal(size=(10, 20))
    gaps[rng.random(gaps.shape) < 0.4] = np.nan
    gaps[0] = np.nan
    gaps[1, 1:] = np.nan
    gaps[2, 2:] = np.nan
    spoilt = rng.normal(size=(6, 28))
    spoilt[:, :2] = 50.0
    return {
        "normal": rng.normal(3.0, 2.0, (6, 28)),
        "two incidents": spoilt,
        "gaps": gaps,
        "mostly equal": np.where(rng.random((6, 21)) < 0.2, 1.0, 0.0),
        "constant": np.full((2, 9), 4.0),
        "one window": rng.normal(size=(3, 1)),
        "no window": np.zeros((3, 0)),
        "no series": np.zeros((0, 5)),
    }


CASES = _cases()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("centred", [True, False])
def test_centre_and_scale_are_the_plain_lines(name: str, centred: bool) -> None:
    past = CASES[name]
    centre, scale, k = placebo.centre_and_scale(past, centred=centred)
    for i, row in enumerate(past):
        row = row[~np.isnan(row)]
        expected = _by_hand(row, centred=centred)
        assert k[i] == len(row)
        np.testing.assert_allclose([centre[i], scale[i]], expected, rtol=1e-10, atol=1e-12)


def test_an_incident_among_the_windows_costs_little() -> None:
    past = np.random.default_rng(8).normal(size=(500, 28))
    spoilt = past.copy()
    spoilt[:, 0] = 1e6
    _, clean, _ = placebo.centre_and_scale(past)
    _, dirty, _ = placebo.centre_and_scale(spoilt)
    assert float(np.median(dirty / clean)) < 1.4


def test_exceeding_counts_windows_at_least_as_far_up() -> None:
    past = np.array([[1.0, 2.0, np.nan, 3.0], [np.nan] * 4])
    assert placebo.exceeding(np.array([2.0, 0.0]), past).tolist() == [2, 0]
    assert placebo.exceeding(np.array([np.nan, 0.0]), past).tolist() == [0, 0]


@pytest.mark.parametrize("n", range(6))
def test_median_of_sorted_is_that_of_numpy(n: int) -> None:
    row = np.random.default_rng(n).normal(size=n)
    ordered = np.concatenate([np.sort(row), np.full(6 - n, np.nan)])[None]
    found = placebo.median_of_sorted(ordered, np.array([float(n)]))[0]
    assert np.isnan(found) if n == 0 else found == np.median(row)
