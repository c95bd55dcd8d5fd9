"""Counters: increases, resets and gaps, against a loop over points."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate_analysis import simulate
from tidegate_analysis.kernels.counters import counter_quality, increases

NAN = math.nan


def slow(totals: list[float]) -> tuple[list[float], int, int, int]:
    """Increases, resets, gaps and bad samples of one counter."""
    out, resets, gaps, bad = [], 0, 0, 0
    last, before = NAN, NAN  # the last sample seen, and the sample of the column before
    for value in totals:
        if math.isinf(value) or value < 0:
            bad += 1
            value = NAN
        step = NAN
        if not math.isnan(value):
            if value < last:
                resets += 1
            if not math.isnan(before):
                step = value if value < before else value - before
            elif not math.isnan(last):
                gaps += 1
            last = value
        out.append(step)
        before = value
    return out, resets, gaps, bad


SAMPLES = st.one_of(st.integers(0, 50).map(float), st.sampled_from([NAN, -1.0, math.inf, 1e12]))


@settings(max_examples=300, derandomize=True)
@given(st.lists(SAMPLES, max_size=14))
def test_they_equal_a_loop(totals: list[float]) -> None:
    want, resets, gaps, bad = slow(totals)
    got = increases(totals)
    assert np.array_equal(got, np.array(want, dtype=float), equal_nan=True)
    told = counter_quality(totals)
    assert (int(told.resets), int(told.gaps), int(told.bad)) == (resets, gaps, bad)


def test_any_leading_axes() -> None:
    totals = np.random.default_rng(0).integers(0, 9, (3, 2, 4, 7)).astype(float)
    got = increases(totals)
    assert got.shape == totals.shape
    assert np.array_equal(got[2, 1, 3], increases(totals[2, 1, 3]), equal_nan=True)
    told = counter_quality(totals)
    assert told.resets.shape == (3, 2, 4)
    assert told.resets[2, 1, 3] == counter_quality(totals[2, 1, 3]).resets


def test_a_simulated_counter_gives_its_increments_back() -> None:
    steps = np.random.default_rng(1).poisson(5.0, (20, 40)).astype(float) + 1.0
    totals = simulate.counter(steps, rng=2, resets=0.1)
    got = increases(totals)
    assert np.isnan(got[:, 0]).all()
    # A reset is only seen as a drop: after a small total a larger one looks like growth.
    hidden = np.abs(got[:, 1:] - steps[:, 1:]) > 1e-9
    assert hidden.mean() < 0.02
    assert (got[:, 1:][hidden] < steps[:, 1:][hidden]).all()


def test_the_input_is_left_alone_and_the_first_sample_after_a_gap_is_missing() -> None:
    totals = np.array([5.0, 8.0, NAN, 20.0, 21.0])
    kept = totals.copy()
    got = increases(totals)
    assert np.array_equal(totals, kept, equal_nan=True)
    assert np.array_equal(got, [NAN, 3.0, NAN, NAN, 1.0], equal_nan=True)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0), (3, 1), (0, 5)])
def test_short_and_empty(shape: tuple[int, ...]) -> None:
    totals = np.ones(shape)
    assert np.isnan(increases(totals)).all()
    told = counter_quality(totals)
    assert told.resets.shape == shape[:-1]
    assert (told.resets == 0).all()


@pytest.mark.parametrize("bad", [3.0, "abc", [["a"]]])
def test_what_is_no_array_of_numbers_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"^totals: "):
        increases(bad)  # type: ignore[arg-type]
