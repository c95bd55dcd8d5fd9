"""Ranks against scipy, row by row."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from tidegate_analysis.kernels.ranks import midranks, rank_sums, superiority

Floats = NDArray[np.float64]
RNG = np.random.default_rng(1)


def _ragged(values: Floats, seed: int) -> Floats:
    out = values.copy()
    rng = np.random.default_rng(seed)
    out[rng.random(out.shape) < 0.2] = np.nan
    out[0] = np.nan
    out[1, 1:] = np.nan
    out[2, 2:] = np.nan
    return out


CASES: dict[str, tuple[Floats, Floats]] = {
    "continuous": (RNG.normal(size=(20, 17)), RNG.normal(size=(20, 23))),
    "heavy ties": (
        RNG.integers(0, 4, (20, 17)).astype(float),
        RNG.integers(0, 4, (20, 23)).astype(float),
    ),
    "constant": (np.full((3, 5), 7.0), np.full((3, 6), 7.0)),
    "signs and zeros": (RNG.choice([-1.0, -0.0, 0.0, 1.0], (20, 9)), RNG.choice([-0.0, 0.0, 2.0], (20, 8))),
    "infinities": (RNG.choice([-np.inf, -1.0, np.inf], (20, 9)), RNG.choice([-np.inf, 0.0, np.inf], (20, 8))),
    "extremes": (
        RNG.choice([1e308, -1e308, 2e-308, 1e-300], (20, 9)),
        RNG.choice([1e308, -1e308, 2e-308, 0.0], (20, 9)),
    ),
    "ragged": (_ragged(RNG.normal(size=(20, 17)), 2), _ragged(RNG.normal(size=(20, 23)), 3)),
    "ragged ties": (
        _ragged(RNG.integers(0, 3, (20, 17)).astype(float), 4),
        _ragged(RNG.integers(0, 3, (20, 23)).astype(float), 5),
    ),
    "ragged infinities": (
        _ragged(RNG.choice([-np.inf, 1.0, np.inf], (20, 17)), 6),
        _ragged(RNG.choice([-np.inf, 1.0, np.inf], (20, 23)), 7),
    ),
    "one point each": (RNG.normal(size=(4, 1)), RNG.normal(size=(4, 1))),
    "two points each": (RNG.integers(0, 2, (8, 2)).astype(float), RNG.integers(0, 2, (8, 2)).astype(float)),
    "an empty arm": (np.zeros((3, 0)), RNG.normal(size=(3, 4))),
    "nothing": (np.zeros((3, 0)), np.zeros((3, 0))),
    "no series": (np.zeros((0, 4)), np.zeros((0, 5))),
    "a full block and a rest": (RNG.normal(size=(300, 100)).round(2), RNG.normal(size=(300, 100)).round(2)),
}


def _tie_term(pooled: Floats) -> float:
    _, sizes = np.unique(pooled, return_counts=True)
    return float((sizes.astype(float) ** 3 - sizes).sum())


@pytest.mark.parametrize("name", CASES)
def test_rank_sums_are_those_of_scipy(name: str) -> None:
    x, y = CASES[name]
    U, tie = rank_sums(x, y)
    assert U.shape == tie.shape == (len(x),)
    for i in range(len(x)):
        a, b = x[i][~np.isnan(x[i])], y[i][~np.isnan(y[i])]
        assert tie[i] == _tie_term(np.concatenate([a, b]))
        expected = stats.mannwhitneyu(a, b, method="asymptotic").statistic if len(a) and len(b) else 0.0
        assert U[i] == expected


@pytest.mark.parametrize("name", [name for name in CASES if name != "a full block and a rest"])
def test_superiority_is_the_share_of_pairs(name: str) -> None:
    x, y = CASES[name]
    theta = superiority(x, y)
    for i in range(len(x)):
        a, b = x[i][~np.isnan(x[i])], y[i][~np.isnan(y[i])]
        if not (len(a) and len(b)):
            assert np.isnan(theta[i])
            continue
        wins = sum(float(v > u) + 0.5 * float(v == u) for u in a for v in b)
        assert theta[i] == pytest.approx(wins / (len(a) * len(b)), abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_midranks_are_those_of_scipy(name: str) -> None:
    for z in CASES[name]:
        ranks, tie = midranks(z)
        assert ranks.shape == z.shape
        for i in range(len(z)):
            there = ~np.isnan(z[i])
            assert np.array_equal(np.isnan(ranks[i]), ~there)
            assert np.array_equal(ranks[i][there], stats.rankdata(z[i][there]))
            assert tie[i] == _tie_term(z[i][there])


def test_sums_stay_exact_for_very_long_rows() -> None:
    rng = np.random.default_rng(9)
    x, y = rng.normal(size=(1, 60_000)), rng.normal(size=(1, 50_000)).round(3)
    U, _ = rank_sums(x, y)
    order = np.sort(y[0])
    # Pairs counted by bisection, in integers.
    below = np.searchsorted(order, x[0], side="left").astype(object).sum()
    equal = (np.searchsorted(order, x[0], side="right") - np.searchsorted(order, x[0], side="left")).sum()
    assert U[0] == below + 0.5 * equal


def test_values_apart_by_their_last_bits_still_differ_at_2_to_minus_50() -> None:
    x = np.array([[1.0, 1.0 + 2.0**-49]])
    assert rank_sums(x, np.array([[1.0]]))[0][0] == 1.5


def test_the_smallest_subnormal_numbers_count_as_zero() -> None:
    assert rank_sums(np.array([[5e-324]]), np.array([[0.0]]))[0][0] == 0.5


@pytest.mark.parametrize(
    ("x", "y", "names"),
    [
        (np.zeros(3), np.zeros((1, 3)), "x"),
        (np.zeros((1, 3)), np.zeros((1, 3, 1)), "y"),
        (np.zeros((2, 3)), np.zeros((1, 3)), "y"),
    ],
)
def test_a_wrong_shape_is_named(x: Floats, y: Floats, names: str) -> None:
    with pytest.raises(ValueError, match=f"^{names}: "):
        rank_sums(x, y)
