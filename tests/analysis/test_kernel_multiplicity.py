"""Corrections for many questions against statsmodels and hand-written loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.stats.multitest import multipletests
from tidegate_analysis.kernels import multiplicity

Floats = NDArray[np.float64]


def _tables() -> dict[str, Floats]:
    rng = np.random.default_rng(6)
    p = rng.random((8, 12)) ** 3
    gaps = p.copy()
    gaps[rng.random(p.shape) < 0.3] = np.nan
    gaps[0] = np.nan
    gaps[1, 1:] = np.nan
    return {
        "plain": p,
        "ties": p.round(1),
        "gaps": gaps,
        "zeros and ones": rng.choice([0.0, 1e-300, 1.0], (10, 5)),
        "one": rng.random((5, 1)),
        "no tests": np.zeros((3, 0)),
    }


TABLES = _tables()


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("function", "method"),
    [(multiplicity.benjamini_hochberg, "fdr_bh"), (multiplicity.holm, "holm")],
)
def test_adjusted_p_values_are_those_of_statsmodels(
    name: str, function, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gc.collect", lambda *_: 0)  # statsmodels collects garbage at every call of Holm
    p = TABLES[name]
    found = function(p)
    assert found.shape == p.shape
    for i, row in enumerate(p):
        there = ~np.isnan(row)
        assert np.array_equal(np.isnan(found[i]), ~there)
        if there.any():
            expected = multipletests(row[there], method=method)[1]
            np.testing.assert_allclose(found[i][there], expected, rtol=1e-12, atol=0)


def test_one_row_and_many_rows_agree() -> None:
    p = TABLES["gaps"]
    for function in (multiplicity.benjamini_hochberg, multiplicity.holm, multiplicity.simes):
        np.testing.assert_array_equal(function(p)[3], function(p[3]))


@pytest.mark.parametrize("name", TABLES)
def test_simes_is_the_loop(name: str) -> None:
    found = multiplicity.simes(TABLES[name])
    for value, row in zip(found, TABLES[name], strict=True):
        s = sorted(row[~np.isnan(row)])
        if not s:
            assert np.isnan(value)
            continue
        assert value == pytest.approx(min(len(s) * p / (i + 1) for i, p in enumerate(s)), rel=1e-12)


def test_simes_of_equal_p_values_is_that_value() -> None:
    assert multiplicity.simes(np.full(50, 0.03)) == pytest.approx(0.03)


def _grouped_by_hand(p: Floats, group: NDArray[np.int64], q: float) -> tuple[set[int], set[int]]:
    """Select groups by Benjamini-Hochberg on their Simes p-values, then tests inside at a smaller level."""
    members = {g: [i for i in np.flatnonzero(group == g).tolist() if not np.isnan(p[i])] for g in set(group.tolist())}
    asked = {g: m for g, m in members.items() if m}
    combined = {}
    for g, m in asked.items():
        s = sorted(p[i] for i in m)
        combined[g] = min(1.0, min(len(s) * v / (k + 1) for k, v in enumerate(s)))
    order = sorted(asked, key=lambda g: combined[g])
    passing = [k + 1 for k, g in enumerate(order) if combined[g] <= q * (k + 1) / len(order)]
    selected = set(order[: max(passing, default=0)])
    rejected = set()
    for g in selected:
        m = sorted(asked[g], key=lambda i: p[i])
        level = q * len(selected) / len(asked)
        inside = [k + 1 for k, i in enumerate(m) if p[i] <= level * (k + 1) / len(m)]
        rejected |= set(m[: max(inside, default=0)])
    return selected, rejected


@pytest.mark.parametrize("seed", range(40))
def test_grouped_rejects_what_the_two_steps_by_hand_reject(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 40))
    group = rng.integers(0, rng.integers(1, 8), n)
    group = np.unique(group, return_inverse=True)[1].astype(np.int64)
    p = rng.random(n) ** rng.integers(1, 8)
    p[rng.random(n) < 0.15] = np.nan
    adjusted, by_group, rejected = multiplicity.grouped(p, group, 0.05)
    selected, expected = _grouped_by_hand(p, group, 0.05)
    assert set(np.flatnonzero(rejected).tolist()) == expected
    with np.errstate(invalid="ignore"):
        assert set(np.flatnonzero(by_group <= 0.05).tolist()) == selected
        assert np.array_equal(rejected, adjusted <= 0.05)
    assert np.array_equal(np.isnan(adjusted), np.isnan(p))


def test_one_group_is_plain_benjamini_hochberg() -> None:
    p = TABLES["plain"][0]
    adjusted, by_group, _ = multiplicity.grouped(p, np.zeros(len(p), dtype=np.int64), 0.05)
    np.testing.assert_allclose(adjusted, multiplicity.benjamini_hochberg(p))
    assert by_group[0] == multiplicity.simes(p)


def test_no_tests_at_all() -> None:
    adjusted, by_group, rejected = multiplicity.grouped(np.zeros(0), np.zeros(0, dtype=np.int64), 0.05)
    assert len(adjusted) == len(by_group) == len(rejected) == 0


@pytest.mark.parametrize("seed", range(20))
def test_e_benjamini_hochberg_is_the_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    log_e = rng.normal(1.5, 2.5, (4, 11))
    log_e[rng.random(log_e.shape) < 0.2] = np.nan
    log_e[0] = np.nan
    found = multiplicity.e_benjamini_hochberg(log_e, 0.1)
    for i, row in enumerate(log_e):
        there = np.flatnonzero(~np.isnan(row))
        order = sorted(there.tolist(), key=lambda j: -row[j])
        m = len(order)
        enough = [k for k in range(1, m + 1) if k * math.exp(row[order[k - 1]]) / m >= 1 / 0.1]
        assert set(np.flatnonzero(found[i]).tolist()) == set(order[: max(enough, default=0)])


def test_benjamini_hochberg_bounds_the_chance_of_any_false_alarm() -> None:
    p = np.random.default_rng(8).random((20_000, 100))
    any_false = (multiplicity.benjamini_hochberg(p) <= 0.05).any(axis=1).mean()
    assert abs(any_false - 0.05) <= 3 * math.sqrt(0.05 * 0.95 / 20_000)
