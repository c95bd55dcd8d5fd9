"""Histograms of two arms: at once, from a batch, and as they stream."""

from __future__ import annotations

import numpy as np
import pytest
import tidegate_analysis as ta

BOUNDS = np.array([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
SPEC = ta.MetricSpec("request_duration", kind="histogram", direction="up_is_worse", margin=0.1, unit="s")


def counts(rng: np.random.Generator, shape: tuple[int, ...], slower: float = 1.0, own: float = 0.0) -> np.ndarray:
    """Bins of 100 lognormal requests a scrape; ``own`` is a scrape's own standard deviation of the log."""
    requests = 0.08 * slower * np.exp(0.7 * rng.standard_normal((*shape, 100)) + own * rng.standard_normal((*shape, 1)))
    place = np.searchsorted(BOUNDS, requests)
    return (place[..., None] == np.arange(BOUNDS.size + 1)).sum(axis=-2).astype(float)


def test_a_slow_down_fails_with_its_size_and_none_passes() -> None:
    rng = np.random.default_rng(1)
    x = counts(rng, (60, 40))
    same = ta.compare_histograms(x, counts(rng, (60, 40)), BOUNDS, spec=SPEC)
    assert (same.verdict == ta.Verdict.PASS).mean() > 0.9
    assert not (same.verdict == ta.Verdict.FAIL).any()
    slow = ta.compare_histograms(x, counts(rng, (60, 40), 1.4), BOUNDS, spec=SPEC)
    assert (slow.verdict == ta.Verdict.FAIL).all()
    assert abs(float(np.median(slow.effect)) - 0.4) < 0.08
    assert np.allclose(slow.margin, 0.1)
    assert "above the baseline" in slow.explain(0)


def test_requests_that_share_a_slow_scrape_count_once() -> None:
    """With noise of the scrapes' own, pooled requests would call most healthy canaries slower."""
    rng = np.random.default_rng(2)
    found = ta.compare_histograms(counts(rng, (300, 40), own=0.2), counts(rng, (300, 40), own=0.2), BOUNDS, spec=SPEC)
    assert (found.p_value <= 0.02).mean() <= 0.02 + 3 * np.sqrt(0.02 * 0.98 / 300)


def test_history_stands_alone_from_seven_windows() -> None:
    rng = np.random.default_rng(3)
    history = counts(rng, (20, 14, 2, 30), own=0.1)
    found = ta.compare_histograms(
        counts(rng, (20, 30), own=0.1), counts(rng, (20, 30), 1.5, own=0.1), BOUNDS, spec=SPEC, history=history
    )
    assert set(found.method) == {"histogram-placebo.v1"}
    assert (found.verdict == ta.Verdict.FAIL).all()
    assert (found.history_windows == 14).all()


def test_a_fall_is_worse_mirrors_the_margins() -> None:
    rng = np.random.default_rng(4)
    spec = SPEC.with_(direction="down_is_worse")
    found = ta.compare_histograms(counts(rng, (30, 40)), counts(rng, (30, 40), 0.6), BOUNDS, spec=spec)
    assert (found.verdict == ta.Verdict.FAIL).all()
    assert (found.effect < -0.3).all()


def with_tail(rng: np.random.Generator, table: np.ndarray, share: float, bin_: int = -1) -> np.ndarray:
    """Put a share of the requests into one bin."""
    kept = rng.binomial(table.astype(int), 1.0 - share).astype(float)
    kept[..., bin_] += table.sum(axis=-1) - kept.sum(axis=-1)
    return kept


@pytest.mark.parametrize("windows", [0, 20])
@pytest.mark.parametrize("share", [0.02, 0.05])
def test_a_few_requests_in_the_last_bin_never_pass(share: float, windows: int) -> None:
    rng = np.random.default_rng(31)
    x, y = counts(rng, (30, 60)), with_tail(rng, counts(rng, (30, 60)), share)
    history = None
    if windows:
        history = np.stack([counts(rng, (30, windows, 60)), counts(rng, (30, windows, 60))], axis=2)
    found = ta.compare_histograms(x, y, BOUNDS, spec=SPEC, history=history)
    assert not (found.verdict == ta.Verdict.PASS).any()
    told = [i for i in range(30) if found.reason[i] == "tail_regression"]
    assert len(told) > 15
    assert found.tail_effect[told].min() > 0.1
    assert "its worst points are " in found.explain(told[0])


def test_the_tail_of_healthy_histograms_stays_quiet() -> None:
    rng = np.random.default_rng(32)
    for spec in (SPEC, SPEC.with_(direction="down_is_worse"), SPEC.with_(direction="either")):
        found = ta.compare_histograms(counts(rng, (200, 60)), counts(rng, (200, 60)), BOUNDS, spec=spec)
        assert (found.verdict == ta.Verdict.FAIL).mean() <= 0.03
        assert np.nanmean(found.tail_p_value <= 0.05) <= 0.09
        assert np.nanmax(np.abs(found.tail_effect)) < 0.2


def test_the_tail_is_the_lower_one_where_a_fall_is_worse() -> None:
    rng = np.random.default_rng(33)
    x, y = counts(rng, (20, 60)), with_tail(rng, counts(rng, (20, 60)), 0.05, 0)
    down = ta.compare_histograms(x, y, BOUNDS, spec=SPEC.with_(direction="down_is_worse"))
    assert not (down.verdict == ta.Verdict.PASS).any()
    assert (down.tail_effect < -0.1).all()
    assert (ta.compare_histograms(x, y, BOUNDS, spec=SPEC).verdict == ta.Verdict.PASS).mean() > 0.8


def test_a_live_histogram_with_a_tail_does_not_pass() -> None:
    rng = np.random.default_rng(34)
    live = ta.LiveEvaluation([SPEC], warm_up=0.0, horizon_seconds=300.0)
    for arm, share in (("baseline", 0.0), ("canary", 0.03)):
        for phase, first in (("pre", 0), ("post", 60)):
            table = with_tail(rng, counts(rng, (60,)), share if phase == "post" else 0.0)
            live.add(
                ta.Block(
                    arm, 1e9 + 5.0 * first, 5.0, np.zeros((0, 60)), phase=phase, histograms={SPEC.name: (BOUNDS, table)}
                )
            )
    judged = live.judge()
    assert judged.reasons == ("tail_in_doubt",)


def blocks(rng: np.random.Generator, slower: float) -> list[ta.Block]:
    out = []
    for arm, factor in (("baseline", 1.0), ("canary", slower)):
        for phase, first, n in (("pre", 0, 60), ("post", 60, 60)):
            table = counts(rng, (n,), factor if phase == "post" else 1.0)
            values = rng.lognormal(0.0, 0.05, (1, n))
            out.append(
                ta.Block(arm, 1e9 + 5.0 * first, 5.0, values, phase=phase, histograms={SPEC.name: (BOUNDS, table)})
            )
    return out


@pytest.mark.parametrize(("slower", "verdict"), [(1.0, ta.Verdict.PASS), (1.5, ta.Verdict.FAIL)])
def test_a_histogram_beside_a_gauge_at_once_and_live(slower: float, verdict: ta.Verdict) -> None:
    specs = [SPEC, ta.MetricSpec("cpu_seconds", kind="gauge", direction="up_is_worse")]
    rng = np.random.default_rng(12)
    given = blocks(rng, slower)
    batch = ta.SeriesBatch(specs)
    live = ta.LiveEvaluation(specs, warm_up=0.0, horizon_seconds=300.0)
    for block in given:
        batch.add(block)
        live.add(block)
        live.judge()
    once = ta.analyze(batch)
    assert once.verdicts.tolist() == [verdict, ta.Verdict.PASS]
    judged = live.judge()
    assert judged.verdicts[0] == verdict
    assert judged.result.method[0] == "histogram-superiority-sequential.v1"
    if verdict == ta.Verdict.FAIL:
        assert abs(judged.result.effect[0] - 0.5) < 0.2


def test_live_histograms_do_not_depend_on_when_they_were_asked_for() -> None:
    given = blocks(np.random.default_rng(13), 1.2)
    answers = []
    for ask in (True, False):
        live = ta.LiveEvaluation([SPEC, ta.MetricSpec("cpu_seconds")], warm_up=0.0, horizon_seconds=300.0)
        for block in given:
            live.add(block)
            if ask:
                live.judge()
        answers.append(live.judge().result)
    np.testing.assert_array_equal(answers[0].p_value, answers[1].p_value)
    np.testing.assert_array_equal(answers[0].effect, answers[1].effect)


@pytest.mark.parametrize(
    ("baseline", "canary", "bounds", "named"),
    [
        (np.ones((1, 4, 12)), np.ones((1, 4, 12)), BOUNDS[::-1], "upper_bounds"),
        (np.ones((1, 4, 11)), np.ones((1, 4, 12)), BOUNDS, "baseline"),
        (-np.ones((1, 4, 12)), np.ones((1, 4, 12)), BOUNDS, "baseline"),
        (np.ones((1, 4, 12)), np.ones((1, 5, 12)), BOUNDS, "canary"),
    ],
)
def test_bad_histograms_are_named(baseline: np.ndarray, canary: np.ndarray, bounds: np.ndarray, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}:"):
        ta.compare_histograms(baseline, canary, bounds, spec=SPEC)
