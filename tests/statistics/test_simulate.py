"""The workloads are what they say: their spread, their dependence, what is shared, and what an effect does."""

from __future__ import annotations

import numpy as np
import pytest
from tidegate_analysis import simulate

# Lag-1 autocorrelation of one arm, by arithmetic.
LAG1 = {
    "iid": 0.0,
    "ar.6": 0.6,
    "ar.9": 0.9,
    "ar.97": 0.97,
    "ar.9+white": 0.45,
    "ar.95+3white": 0.095,
    "ar2": 1.6 * np.cos(np.pi / 4) / 1.64,
    "ma-.5": -0.4,
    "rare counts": 0.0,
    "ar.6 canary sd x3": 0.6,
    "shared ar.9 + iid": 0.72,
    "shared ar.9 + ar.6": (4 * 0.9 + 0.6) / 5,
    "shared diurnal + iid": 2 * np.cos(2 * np.pi / 240) / 3,
}


def test_there_are_seventeen() -> None:
    assert len(simulate.STRUCTURES) == 17
    for name, structure in simulate.STRUCTURES.items():
        assert structure.name == name


@pytest.mark.parametrize("name", LAG1)
def test_autocorrelation(name: str) -> None:
    arms = simulate.arms(name, 200, 2400, rng=1)
    for x in (arms.baseline, arms.canary):
        c = x - x.mean()
        assert (c[:, 1:] * c[:, :-1]).mean() / (c * c).mean() == pytest.approx(LAG1[name], abs=0.03)


@pytest.mark.parametrize("name", simulate.STRUCTURES)
def test_seeded_and_equal_in_law(name: str) -> None:
    one, again = (simulate.windows(name, 30, 4, 20, rng=3, positive=True) for _ in range(2))
    np.testing.assert_array_equal(one.history, again.history)
    np.testing.assert_array_equal(one.canary, again.canary)
    assert one.history.shape == (30, 4, 2, 20)
    assert (one.history >= 0).all()
    assert np.isfinite(one.history).all()
    assert not np.array_equal(one.canary, one.baseline)
    arms = simulate.arms(name, 300, 400, rng=5)
    low, middle, high = (np.quantile(arm, [0.25, 0.5, 0.75]) for arm in (arms.baseline, arms.canary, arms.canary))
    assert middle[1] == pytest.approx(low[1], abs=0.1 * (low[2] - low[0]) + 1e-9)
    assert (high >= middle).all()


def test_what_is_shared_cancels() -> None:
    arms = simulate.arms("shared ar.9 + iid", 100, 1000, rng=2)
    assert np.corrcoef(arms.baseline.ravel(), arms.canary.ravel())[0, 1] == pytest.approx(0.8, abs=0.02)
    assert (arms.canary - arms.baseline).std() == pytest.approx(np.sqrt(2.0), rel=0.02)


def test_windows_continue_each_other() -> None:
    w = simulate.windows("ar.97", 500, 1, 30, rng=4)
    before, after = w.history[:, 0, 0, -1], w.baseline[:, 0]
    assert np.corrcoef(before, after)[0, 1] == pytest.approx(0.97, abs=0.02)


def test_effects() -> None:
    x = np.full((3, 40), 10.0)
    step = simulate.inject(x, "step", 2.0, onset=15)
    assert (step[:, :15] == 10.0).all()
    assert (step[:, 15:] == 12.0).all()
    ramp = simulate.inject(x, "ramp", 0.5, scale="log", onset=10, over=10)
    assert (np.diff(ramp[0, 9:20]) > 0).all()
    np.testing.assert_allclose(ramp[:, 20:], 15.0)
    bursts = simulate.inject(x, "bursts", 1.0, scale="log", bursts=2, length=3, rng=1)
    assert set(np.unique(bursts)) == {10.0, 20.0}
    assert ((bursts == 20.0).sum(axis=1) >= 3).all()
    rng = np.random.default_rng(1)
    y = rng.random((5, 40))
    tail = simulate.inject(y, "tail", 2.0, scale="log", share=0.05)
    changed = tail != y
    assert (changed.sum(axis=1) == 2).all()
    np.testing.assert_allclose(tail[changed], 3.0 * y[changed])
    per_series = simulate.inject(x, "step", np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal(per_series[:, 0], [11.0, 12.0, 13.0])
    assert (x == 10.0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: simulate.arms("ar.5", 1, 1, rng=0), "structure: 'ar.5' is none of"),
        (lambda: simulate.ar1(0, 1, 1, 1.0), "rho: must lie between"),
        (lambda: simulate.profile("step", np.zeros((1, 5)), onset=5), "onset: must be a column from 0 to 4"),
        (lambda: simulate.profile("blip", np.zeros((1, 5))), "kind: 'blip' is none of"),  # type: ignore[arg-type]
        (lambda: simulate.inject(np.ones((1, 5)), "step", -1.0, scale="log"), "size: a relative change"),
        (lambda: simulate.counted(1, 5, rng=0, noise="pink"), "noise: 'pink' is none of"),  # type: ignore[arg-type]
        (lambda: simulate.counted(1, 5, rng=0, canary_share=1.0), "canary_share: must lie"),
        (lambda: simulate.gates(1, 5, 5, n_windows=1, rng=0, correlation=1.0), "correlation: must be"),
    ],
)
def test_wrong_arguments_are_named(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_counts_follow_their_exposure() -> None:
    c = simulate.counted(200, 120, rng=6, rate=0.02, exposure=1000.0, canary_share=0.25, factor=2.0)
    assert c.canary_exposure.sum() / c.baseline_exposure.sum() == pytest.approx(1 / 3, rel=0.02)
    assert c.baseline.sum() / c.baseline_exposure.sum() == pytest.approx(0.02, rel=0.02)
    assert c.canary.sum() / c.canary_exposure.sum() == pytest.approx(0.04, rel=0.02)
    own = simulate.counted(200, 120, rng=6, rate=0.02, exposure=500.0, noise="own_gamma")
    assert own.baseline.var() / own.baseline.mean() > 2.0


def test_extra_events_are_whole_and_late() -> None:
    x = np.zeros((50, 40))
    more = simulate.extra_events(x, 0.5, rng=1, onset=20)
    assert (more[:, :20] == 0).all()
    assert (more == np.round(more)).all()
    assert more[:, 20:].mean() == pytest.approx(0.5, abs=0.1)


def test_histograms_hold_every_request() -> None:
    h = simulate.histograms(4, 30, rng=1, requests=150, factor=2.0, onset=10)
    assert h.baseline.shape == (4, 30, len(h.upper_bounds) + 1)
    assert (h.baseline_requests == 150).all()
    assert (h.canary_requests == 150).all()
    slow = h.upper_bounds.searchsorted(0.12) + 1
    before, after = h.canary[:, :10, slow:].mean(), h.canary[:, 10:, slow:].mean()
    assert after > 1.5 * before


def test_counters_start_again() -> None:
    increments = np.ones((2, 200))
    total = simulate.counter(increments, rng=1, resets=0.05)
    drops = np.diff(total, axis=1) < 0
    assert drops.any()
    assert (total[:, 1:][drops] == 1.0).all()
    np.testing.assert_array_equal(simulate.counter(increments, rng=1), np.cumsum(increments, axis=1))


def test_seasons_repeat_by_the_day_and_join_without_a_jump() -> None:
    s = simulate.seasonal_minutes(40, 7, rng=2, noise=0.01, day_spread=0.02)
    assert s.before.shape == (40, 7 * 1440)
    assert s.after.shape == (40, 60)
    log = np.log(s.before)
    day = np.corrcoef(log[:, 1440:].ravel(), log[:, :-1440].ravel())[0, 1]
    half = np.corrcoef(log[:, 720:].ravel(), log[:, :-720].ravel())[0, 1]
    assert day > 0.8
    assert half < 0
    joint = np.log(s.after[:, :10].mean(axis=1) / s.before[:, -10:].mean(axis=1))
    assert np.abs(joint).max() < 0.12
    assert np.corrcoef(np.log(s.control_after).ravel(), np.log(s.after).ravel())[0, 1] > 0.9


def test_instances_keep_their_offsets() -> None:
    arms = simulate.instances(100, 4, 2, 200, rng=3, between=0.2, within=0.05, cold=1.0, warm_after=5)
    assert arms.baseline.shape == (100, 4, 200)
    assert arms.canary.shape == (100, 2, 200)
    level = np.log(arms.baseline).mean(axis=2)
    assert (level - level.mean(axis=1, keepdims=True)).std(ddof=0) == pytest.approx(0.2 * np.sqrt(3 / 4), rel=0.1)
    assert arms.canary[:, :, :2].mean() > 1.5 * arms.canary[:, :, 50:].mean()


def test_gates_are_correlated_within_groups() -> None:
    g = simulate.gates(40, 20, 60, n_windows=2, rng=4, structures=("iid",), group_size=10, correlation=0.5)
    assert g.history.shape == (800, 2, 2, 60)
    assert g.groups[0] == g.groups[9] != g.groups[10]
    d = np.log(g.canary / g.baseline).mean(axis=1).reshape(40, 20)
    inside = np.corrcoef(d[:, 0], d[:, 1])[0, 1]
    across = np.corrcoef(d[:, 0], d[:, 15])[0, 1]
    assert inside > across
    assert g.rows(3) == slice(60, 80)
