"""Before and after a deployment: the scan by plain loops, seasons, exclusions, controls, short pasts."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from scipy import stats
from tidegate_analysis.kernels import placebo, scan

Floats = NDArray[np.float64]
module = importlib.import_module("tidegate_analysis.before_after")
SPEC = ta.MetricSpec("p95", "gauge", "up_is_worse", "linear", 2.0)
DAY = 1440


def _noise(shape: tuple[int, ...], seed: int, sd: float = 1.0) -> Floats:
    return 100.0 + sd * np.random.default_rng(seed).normal(size=shape)


def _scan_by_hand(before: Floats, after: Floats) -> tuple[float, float, int]:
    """P-value, change and number of larger moments of one series at a step of 5 minutes, without a time of day."""
    plan = module.plan_for(len(after), len(before), 300.0)
    assert plan.size == 1
    spans = list(zip(plan.windows.first.tolist(), plan.windows.last.tolist(), strict=True))
    joined = np.concatenate([before, after])

    def contrasts(moment: int) -> list[float]:
        level = joined[moment - plan.back : moment].mean()
        return [float(joined[moment + a : moment + b].mean() - level) for a, b in spans]

    past = np.array([contrasts(m) for m in range(plan.back, len(before) - len(after) + 1)])
    scale = placebo.centre_and_scale(past.T, centred=False)[1]
    now = np.array(contrasts(len(before)))
    largest = (past / scale).max(axis=1)
    best = int((now / scale).argmax())
    top = float((now / scale)[best])
    p = scan.rank_p(np.array([top]), np.sort(largest)[None], np.array([len(largest)]))[0]
    return float(p), float(now[best]), int((largest >= top).sum())


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.2, 6.0])
def test_the_scan_is_the_loop_over_moments_and_windows(shift: float) -> None:
    before, after = _noise((5, 500), 1), _noise((5, 6), 2) + shift
    found = ta.before_after(before, after, spec=SPEC, step_seconds=300.0)
    for i in range(5):
        p, moved, larger = _scan_by_hand(before[i], after[i])
        asked = np.isfinite(found.tail_p_value[i])
        tail = found.tail_p_value[i] / 0.2 if asked else 1.0
        assert found.p_value[i] == pytest.approx(min(p / (0.8 if asked else 1.0), tail, 1.0), rel=1e-9)
        assert found.method[i] == "before-after-scan.v1"
        if found.verdict[i] == ta.Verdict.FAIL and found.reason[i] == "regression":
            assert found.effect[i] == pytest.approx(moved, rel=1e-9)
            assert found.history_exceeding[i] == larger
    if shift == 6.0:
        assert (found.verdict == ta.Verdict.FAIL).all()


def test_the_evidence_agrees_with_the_rank() -> None:
    # A short, sharp fault: measured by its own window, not by the spread of the whole stretch.
    rng = np.random.default_rng(3)
    before, after = 100 + rng.normal(size=(30, 7 * DAY)), 100 + rng.normal(size=(30, 60))
    after[:, 20:30] += 4.0
    found = ta.before_after(before, after, spec=SPEC)
    fails = [i for i in range(30) if found.reason[i] == "regression"]
    assert len(fails) > 25
    for i in fails:
        assert found.history_exceeding[i] <= found.p_value[i] * (found.history_windows[i] + 1)


def test_a_daily_pattern_is_no_change() -> None:
    minutes = np.arange(10 * DAY + 30)
    course = 30.0 * np.sin(2 * np.pi * minutes / DAY)
    wave = course + _noise((20, len(minutes)), 4)
    # Deployed where the curve is steepest: it rises by 3 within the half hour.
    calm = ta.before_after(wave[:, :-30], wave[:, -30:], spec=SPEC)
    assert set(calm.method) == {"before-after-scan-daily.v1"}
    assert (calm.verdict == ta.Verdict.PASS).mean() >= 0.9
    blind = ta.before_after(wave[:, -1000:-30], wave[:, -30:], spec=SPEC)
    assert (blind.verdict == ta.Verdict.PASS).mean() <= 0.1
    wave[:, -30:] += 4.0
    assert (ta.before_after(wave[:, :-30], wave[:, -30:], spec=SPEC).verdict == ta.Verdict.FAIL).mean() > 0.9


def test_incidents_of_the_past_can_be_left_out() -> None:
    before, after = _noise((10, 3 * DAY), 5), _noise((10, 30), 6) + 2.5
    touched = np.zeros(3 * DAY, dtype=bool)
    for start in (500, 1500, 2500, 3500):
        before[:, start : start + 120] += 20.0
        touched[start : start + 120] = True
    plain = ta.before_after(before, after, spec=SPEC)
    told = ta.before_after(before, after, spec=SPEC, exclude=touched)
    assert (told.p_value < plain.p_value).all()
    assert (told.history_windows < plain.history_windows).all()
    assert (told.verdict == ta.Verdict.FAIL).all()


def test_a_shock_that_the_control_group_shares_is_no_regression() -> None:
    rng = np.random.default_rng(7)
    shock = np.zeros(2 * DAY + 30)
    shock[-30:] = 15.0
    both = 100.0 + np.cumsum(rng.normal(size=(10, 2 * DAY + 30)) * 0.05, axis=1) + shock
    canary, control = both + rng.normal(size=both.shape), both + rng.normal(size=both.shape)
    alone = ta.before_after(canary[:, :-30], canary[:, -30:], spec=SPEC)
    assert (alone.verdict == ta.Verdict.FAIL).all()
    beside = {"control_before": control[:, :-30], "control_after": control[:, -30:]}
    compared = ta.before_after(canary[:, :-30], canary[:, -30:], spec=SPEC, **beside)
    assert (compared.verdict == ta.Verdict.PASS).mean() >= 0.9
    assert all(m.startswith("difference-in-differences") for m in compared.method)
    worse = ta.before_after(canary[:, :-30], canary[:, -30:] + 4.0, spec=SPEC, **beside)
    assert (worse.verdict == ta.Verdict.FAIL).all()
    assert "the control group's change" in worse.explain(0)


def test_a_short_fault_in_a_long_stretch_is_found_and_placed() -> None:
    before, after = _noise((20, 4 * DAY), 8), _noise((20, 60), 9)
    after[:, 40:50] += 6.0
    found = ta.before_after(before, after, spec=SPEC)
    assert (found.verdict == ta.Verdict.FAIL).all()
    assert np.median(found.effect) > 4.0


def test_a_lasting_fault_has_its_onset() -> None:
    before, after = _noise((20, 4 * DAY), 10), _noise((20, 60), 11)
    after[:, 25:] += 5.0
    found = ta.before_after(before, after, spec=SPEC)
    assert (np.abs(found.onset - 25) <= 2).all()


def test_a_short_past_is_told_and_judged_by_its_own_spread() -> None:
    before, after = _noise((3, 30), 12), _noise((3, 30), 13) + np.array([[0.0], [0.5], [4.0]])
    found = ta.before_after(before, after, spec=SPEC)
    assert set(found.method) == {"before-after-trim.v1"}
    assert all("no_history" in {n.code for n in notes} for notes in found.quality)
    assert found.verdict[2] == ta.Verdict.FAIL
    for i in range(3):
        assert found.effect[i] == pytest.approx(stats.trim_mean(after[i], 0.1) - stats.trim_mean(before[i], 0.1))
    assert (found.history_windows == 0).all()


def test_the_two_samples_of_a_short_past_are_welchs() -> None:
    from tidegate_analysis.kernels import dependence

    before, after = _noise((4, 30), 14), _noise((4, 20), 15) + 1.0
    found = ta.before_after(before, after, spec=SPEC)
    for i in range(4):
        ends = []
        (mean_x, mean_y), errors = (
            (float(stats.trim_mean(v[i], 0.1)) for v in (before, after)),
            [dependence.standard_errors(dependence.trimmed_influence(v[i : i + 1])[1]) for v in (before, after)],
        )
        for k in (0, 2):
            sx, fx, sy, fy = errors[0][k][0], errors[0][k + 1][0], errors[1][k][0], errors[1][k + 1][0]
            v = sx**2 + sy**2
            ends.append(stats.t.sf((mean_y - mean_x) / math.sqrt(v), v * v / (sx**4 / fx + sy**4 / fy)))
        asked = np.isfinite(found.tail_p_value[i])
        tail = found.tail_p_value[i] / 0.2 if asked else 1.0
        assert found.p_value[i] == pytest.approx(min(max(ends) / (0.8 if asked else 1.0), tail, 1.0), rel=1e-9)


def test_portions_of_series_give_what_one_portion_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = _noise((23, 900), 16), _noise((23, 30), 17) + np.linspace(0, 4, 23)[:, None]
    whole = ta.before_after(before, after, spec=SPEC)
    monkeypatch.setattr(module, "CHUNK", 5000)
    parts = ta.before_after(before, after, spec=SPEC)
    assert (parts.verdict.tolist(), parts.reason) == (whole.verdict.tolist(), whole.reason)
    np.testing.assert_array_equal(parts.history_exceeding, whole.history_exceeding)
    np.testing.assert_allclose(parts.p_value, whole.p_value, rtol=1e-12)
    np.testing.assert_allclose(parts.effect, whole.effect, rtol=1e-12)


@pytest.mark.parametrize("step", [5.0, 15.0, 60.0, 300.0, 3600.0, 7.0])
def test_any_step_is_fine(step: float) -> None:
    before, after = _noise((4, 2000), 18), _noise((4, 24), 19) + np.array([[0.0], [0.0], [6.0], [-6.0]])
    found = ta.before_after(before, after, spec=SPEC, step_seconds=step)
    assert found.verdict[2] == ta.Verdict.FAIL
    assert ta.Verdict.FAIL not in found.verdict[[0, 1, 3]]


def test_either_direction_is_asked_both_ways() -> None:
    before, after = _noise((3, 3 * DAY), 20), _noise((3, 30), 21) + np.array([[0.0], [6.0], [-6.0]])
    both = ta.before_after(before, after, spec=SPEC.with_(direction="either"))
    assert [int(v) == ta.Verdict.FAIL for v in both.verdict] == [False, True, True]
    down = ta.before_after(before, after, spec=SPEC.with_(direction="down_is_worse"))
    assert [int(v) == ta.Verdict.FAIL for v in down.verdict] == [False, False, True]
    mirrored = ta.before_after(200 - before, 200 - after, spec=SPEC.with_(direction="down_is_worse"))
    up = ta.before_after(before, after, spec=SPEC)
    assert mirrored.verdict.tolist() == up.verdict.tolist()
    np.testing.assert_allclose(mirrored.p_value, up.p_value, rtol=1e-6)


def test_counters_are_taken_apart_across_the_deployment() -> None:
    rng = np.random.default_rng(22)
    rate = rng.poisson(50.0, (2, 3 * DAY + 30)).astype(float)
    rate[1, -30:] *= 2.0
    total = np.cumsum(rate, axis=1)
    total[:, 1000:] -= total[:, 999:1000]  # a restart
    spec = ta.MetricSpec("errors_total", "counter", "up_is_worse", margin=0.2)
    found = ta.before_after(total[:, :-30], total[:, -30:], spec=spec)
    assert found.verdict.tolist() == [ta.Verdict.PASS, ta.Verdict.FAIL]
    assert found.effect[1] == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize(("errors", "verdict"), [(0.001, ta.Verdict.PASS), (0.03, ta.Verdict.FAIL)])
def test_ratios_are_compared_with_the_ratios_of_the_control_group(errors: float, verdict: ta.Verdict) -> None:
    """Not with its events: the groups' traffic differs, and moves."""
    rng = np.random.default_rng(5)
    batch = ta.SeriesBatch([ta.MetricSpec("errors", "ratio", "up_is_worse")])
    given = []
    for arm, share, requests in (("baseline", 0.001, 20000.0), ("canary", errors, 1000.0)):
        for phase, first, points, rate in (("pre", 0, 900, 0.001), ("post", 900, 60, share)):
            totals = rng.poisson(requests, (1, points)).astype(float)
            events = rng.binomial(totals.astype(int), rate).astype(float)
            given += [events, totals]
            batch.add(ta.Block(arm, 1e9 + 60.0 * first, 60.0, events, phase=phase, exposure=totals))
    judged = ta.analyze(batch, design="difference_in_differences")
    assert judged.verdict == verdict
    cx, tcx, cy, tcy, x, tx, y, ty = given
    once = {"spec": batch.specs, "control_before": cx, "control_after": cy, "before_exposure": tx, "after_exposure": ty}
    found = ta.before_after(x, y, **once, control_before_exposure=tcx, control_after_exposure=tcy)
    assert found.p_value.tolist() == judged.result.p_value.tolist()
    with pytest.raises(ValueError, match=r"^control_before_exposure: "):
        ta.before_after(x, y, **once)
