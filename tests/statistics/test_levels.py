"""Levels against bounds and saturation near its ceiling keep their error rates; small, seeded runs of the benchmark."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks import accuracy_levels as levels
from benchmarks.report import size_limit

N, LOOKED = 800, 200


@pytest.mark.parametrize("name", levels.MILD)
def test_thresholds_keep_their_rates_at_the_bound_and_decide_beside_it(name: str) -> None:
    found = levels.thresholds(name, N, LOOKED, np.random.default_rng([7, len(name)]))
    for prefix, n in (("", N), ("ever ", LOOKED)):
        assert found[f"{prefix}fail|at the bound"] <= size_limit(levels.ALPHA, n)
        assert found[f"{prefix}pass|at the bound"] <= size_limit(levels.ALPHA_PASS, n)
        # A whole standard deviation of the points inside, and half of one beyond, are told apart.
        assert found[f"{prefix}fail|inside by 1 sd"] <= 0.005
        assert found[f"{prefix}pass|beyond by .5 sd"] <= 0.01
    assert found["pass|inside by 1 sd"] >= 0.9
    assert found["last > bound, every scrape|inside by 1 sd"] >= 0.9


@pytest.mark.parametrize("name", levels.SATURATIONS)
def test_saturation_near_its_ceiling_keeps_its_rates_and_finds_five_points(name: str) -> None:
    found = levels.saturation(name, N, np.random.default_rng([8, len(name)]))
    for label in ("history", "alone"):
        assert found[f"size|{label}"] <= size_limit(levels.ALPHA, N)
        assert found[f"false pass|{label}"] <= size_limit(levels.ALPHA_PASS, N)
        assert found[f"power|{label}"] >= 0.9
        assert found[f"pass|{label}"] >= 0.9


@pytest.mark.parametrize("log_sd", [0.0, 0.5])
def test_the_level_that_is_meant_is_the_trimmed_mean_of_much_noise(log_sd: float) -> None:
    z = np.random.default_rng(9).normal(size=400_000)
    x = np.exp(log_sd * z) if log_sd else z
    level, spread = levels.level_and_spread(log_sd)
    assert abs(level - stats.trim_mean(x, 0.1)) < 0.01
    assert abs(spread - x.std()) < 0.01


def test_noise_has_the_autocorrelation_it_says() -> None:
    x = levels.autoregressive((2000, 60), 0.6, np.random.default_rng(10))
    assert abs(x.std() - 1.0) < 0.02
    assert abs((x[:, 1:] * x[:, :-1]).mean() - 0.6) < 0.02
