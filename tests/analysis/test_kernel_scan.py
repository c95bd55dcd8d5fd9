"""The scan against loops over blocks, windows and moments."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from tidegate_analysis.kernels import placebo, scan

Floats = NDArray[np.float64]


def _gappy(shape: tuple[int, ...], seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    x[rng.random(shape) < 0.2] = np.nan
    x[0, 10:25] = np.nan
    return x


@pytest.mark.parametrize(("blocks", "lengths"), [(12, (1, 2, 4, 6, 12)), (7, (5,)), (1, ()), (3, (5, 10))])
def test_every_window_lies_within_the_stretch_and_the_whole_is_among_them(
    blocks: int, lengths: tuple[int, ...]
) -> None:
    plan = scan.layout(blocks, lengths)
    spans = list(zip(plan.first.tolist(), plan.last.tolist(), strict=True))
    assert len(set(spans)) == len(spans)
    assert (0, blocks) in spans
    assert all(0 <= a < b <= blocks for a, b in spans)
    assert {b - a for a, b in spans} == {min(h, blocks) for h in lengths} | {blocks}
    # The newest window of every length is looked at.
    assert {b - a for a, b in spans if b == blocks} == {b - a for a, b in spans}
    assert plan.last.tolist() == sorted(plan.last.tolist())


@pytest.mark.parametrize("size", [1, 2, 5, 7])
def test_block_means_are_trimmed_means_counted_from_the_right(size: int) -> None:
    x = _gappy((4, 53), 1)
    found = scan.block_means(x, size)
    n = 53 // size
    assert found.shape == (4, n)
    for i in range(4):
        for b in range(n):
            part = x[i, 53 - (n - b) * size : 53 - (n - b - 1) * size]
            there = part[~np.isnan(part)]
            if 2 * len(there) < size:
                assert np.isnan(found[i, b])
            else:
                assert found[i, b] == pytest.approx(stats.trim_mean(there, 0.2), abs=1e-12)


def test_window_means_are_means_of_half_or_more() -> None:
    blocks = _gappy((4, 40), 2)
    rng = np.random.default_rng(3)
    first = rng.integers(0, 39, 60)
    last = first + 1 + rng.integers(0, 40 - first)
    found = scan.window_means(blocks, first, last)
    for i in range(4):
        for j, (a, b) in enumerate(zip(first, last, strict=True)):
            there = blocks[i, a:b][~np.isnan(blocks[i, a:b])]
            if 2 * len(there) < b - a:
                assert np.isnan(found[i, j])
            else:
                assert found[i, j] == pytest.approx(there.mean(), abs=1e-12)


def _contrast_by_hand(blocks: Floats, moment: int, a: int, b: int, back: int) -> float:
    after, before = blocks[moment + a : moment + b], blocks[moment - back : moment]
    if 2 * (~np.isnan(after)).sum() < len(after) or 2 * (~np.isnan(before)).sum() < len(before):
        return np.nan
    return float(np.nanmean(after) - np.nanmean(before))


def test_contrasts_are_window_minus_level_at_every_moment() -> None:
    blocks = _gappy((3, 60), 4)
    plan = scan.layout(6, (1, 3))
    moments = np.arange(8, 55)
    found = scan.contrasts_at(blocks, moments, plan, 8)
    for i in range(3):
        for k, moment in enumerate(moments.tolist()):
            for j, (a, b) in enumerate(zip(plan.first, plan.last, strict=True)):
                expected = _contrast_by_hand(blocks[i], moment, a, b, 8)
                np.testing.assert_allclose(found[i, k, j], expected, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 3])
def test_the_yardstick_is_the_same_scan_at_every_moment_of_the_past(stride: int) -> None:
    blocks = _gappy((3, 80), 5)
    plan, back = scan.layout(6, (2,)), 5
    exclude = np.zeros(80, dtype=bool)
    exclude[40:43] = True
    stick = scan.calibrate(blocks, plan, back, 0, exclude, stride=stride)
    moments = [
        m
        for m in range(back, 80 - 6 + 1)
        if (80 - m) % stride == 0 and (80 - m) >= 6 and not exclude[m - back : m + 6].any()
    ]
    for i in range(3):
        c = np.array(
            [
                [_contrast_by_hand(blocks[i], m, a, b, back) for a, b in zip(plan.first, plan.last, strict=True)]
                for m in moments
            ]
        )
        _, scale, _ = placebo.centre_and_scale(c.T, centred=False)
        np.testing.assert_allclose(stick.scale[i], scale, rtol=1e-9)
        z = c / scale
        for found, sign in ((stick.largest_up[i], 1.0), (stick.largest_down[i], -1.0)):
            expected = np.sort([np.nanmax(sign * row) for row in z if not np.isnan(row).all()])
            np.testing.assert_allclose(found[: len(expected)], expected, rtol=1e-8)
            assert np.isnan(found[len(expected) :]).all()
            assert stick.moments[i] == len(expected)
    assert stick.days == 0
    assert (stick.centre == 0).all()


def test_a_daily_pattern_is_centred_away() -> None:
    rng = np.random.default_rng(6)
    per_day, days = 48, 14
    daily = 10.0 * np.sin(2 * np.pi * np.arange(per_day * days) / per_day)
    blocks = daily + rng.normal(size=(3, per_day * days))
    plan, back = scan.layout(4, (1, 2)), 4
    flat = scan.calibrate(blocks, plan, back, 0)
    stick = scan.calibrate(blocks, plan, back, per_day)
    assert stick.days >= days - 1
    moment = per_day * days
    wanted = daily[:4].mean() - daily[moment - 4 :].mean()
    j = int(np.flatnonzero((plan.first == 0) & (plan.last == 4))[0])
    # A mean of 14 days of contrasts of 4 + 4 blocks of unit noise.
    assert np.abs(stick.centre[:, j] - wanted).max() < 4 * np.sqrt(0.5 / days)
    assert (stick.scale < 0.6 * flat.scale).all()


def test_three_days_are_too_few_for_a_time_of_day() -> None:
    blocks = np.random.default_rng(7).normal(size=(2, 3 * 24))
    assert scan.calibrate(blocks, scan.layout(2, (1,)), 2, 24).days == 0


def test_a_past_shorter_than_the_scan_has_no_moments() -> None:
    stick = scan.calibrate(np.zeros((2, 5)), scan.layout(4, (1,)), 3, 0)
    assert stick.moments.tolist() == [0, 0]
    assert np.isnan(stick.scale).all()


def test_the_p_value_is_the_rank_among_the_past() -> None:
    past = np.sort(np.random.default_rng(8).normal(size=(1, 400)), axis=1)
    for value in (-3.0, 0.0, 1.0, float(past[0, -2])):
        expected = (1 + (past[0] >= value).sum()) / 401
        assert scan.rank_p(np.array([value]), past, np.array([400]))[0] == pytest.approx(expected)


def test_beyond_the_past_the_p_value_falls_on_between_the_second_and_eighth_power() -> None:
    past = np.sort(np.random.default_rng(9).normal(size=(1, 400)), axis=1)
    top = past[0, -1]
    before = 1 / 401
    for factor in (1.01, 2.0, 5.0):
        p = scan.rank_p(np.array([top * factor]), past, np.array([400]))[0]
        assert max(1e-9, before * factor**-8.0) <= p * (1 + 1e-9)
        assert p <= before * factor**-2.0 * (1 + 1e-9)
        before_p, before = p, 1 / 401
        assert before_p < 1 / 401
    assert scan.rank_p(np.array([np.inf]), past, np.array([400]))[0] == 1e-9


def test_nothing_known_is_no_evidence() -> None:
    past = np.sort(np.random.default_rng(10).normal(size=(2, 60)), axis=1)
    assert scan.rank_p(np.array([np.nan, np.nan]), past, np.array([60, 60])).tolist() == [1.0, 1.0]
    assert scan.rank_p(np.array([3.0]), np.zeros((1, 0)), np.array([0])).tolist() == [1.0]


def test_ranks_of_dependent_moments_are_right_once_forty_do_not_overlap() -> None:
    rng = np.random.default_rng(11)
    length, runs = 15, 6000
    total = np.cumsum(rng.normal(size=(runs, 41 * length)), axis=1)
    path = total[:, length:] - total[:, :-length]
    p = scan.rank_p(path[:, -1], np.sort(path[:, :-1], axis=1), np.full(runs, path.shape[1] - 1))
    # The ends of a past are favoured a little: 0.023 for 0.02.
    for alpha, told in ((0.02, 0.023), (0.05, 0.054), (0.2, 0.21)):
        assert (p <= alpha).mean() <= told + 3 * np.sqrt(told / runs)
