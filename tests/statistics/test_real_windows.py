"""Error rates on real series, read from the folder that ``TIDEGATE_DATA`` names; left out where there is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tidegate_analysis as ta

from benchmarks import accuracy, real
from benchmarks.accuracy import ALPHA
from benchmarks.report import size_limit


@pytest.fixture(scope="module")
def folder() -> Path:
    path = real.folder()
    if path is None:
        pytest.skip("TIDEGATE_DATA names no folder with the real data")
    return path


def test_true_nulls_and_clean_windows_keep_their_size(folder: Path) -> None:
    pairs = real.null_windows(folder)
    verdict, _ = accuracy.judge_pairs(pairs)
    kinds = accuracy.kinds_of_null(pairs)
    exchangeable = kinds["exchangeable (two machines, true nulls)"]
    assert accuracy.failed(verdict[exchangeable]) <= size_limit(ALPHA, int(exchangeable.sum()))
    clean = kinds["labelled clean, a day of history"]
    assert accuracy.failed(verdict[clean]) <= 2 * ALPHA


def test_large_effects_are_found_between_two_machines(folder: Path) -> None:
    pairs = real.null_windows(folder)
    injected = real.injected_windows(folder, pairs)
    rows = injected.pairs.two_arms & (injected.effect == "mult_1.5")
    verdict, _ = accuracy.judge_pairs(injected.pairs.take(rows))
    assert accuracy.failed(verdict) >= 0.95


def test_deployments_cut_at_random(folder: Path) -> None:
    data = real.minutes(folder)
    week = 7 * 1440
    cuts = real.cut_points(data, 40, before=week, after=60, rng=np.random.default_rng(5))
    before = np.stack([data.values[s, m - week : m] for s, m in cuts])
    after = np.stack([data.values[s, m : m + 60] for s, m in cuts])
    spec = ta.MetricSpec(name="requests", kind="gauge", direction="up_is_worse")
    healthy = ta.before_after(before, after, spec=spec).verdict
    assert accuracy.failed(healthy) <= size_limit(2 * ALPHA, 40)
    moving = np.nanmedian(after, axis=1) > 0
    doubled = ta.before_after(before[moving], 2.0 * after[moving], spec=spec).verdict
    assert accuracy.failed(doubled) >= 0.8


def test_past_is_cut_at_the_change(folder: Path) -> None:
    """The windows a day earlier never bring points from after the change into the past."""
    pairs = real.null_windows(folder)
    seen = 0
    for rows, before in pairs.past():
        np.testing.assert_array_equal(before[:, -60:], pairs.pre[rows])
        seen += len(rows)
        assert not np.isinf(before).any()
    assert seen == len(pairs.pre)
