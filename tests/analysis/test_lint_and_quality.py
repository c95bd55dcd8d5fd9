"""What is said before a rollout, and what is wrong with the data itself."""

from __future__ import annotations

import numpy as np
import pytest
import tidegate_analysis as ta
from tidegate_analysis.quality import stale, traffic_split

SPEC = ta.MetricSpec("checkout_latency", kind="gauge", direction="up_is_worse", scale="log", margin=0.1)


def arms(rng: np.random.Generator, sd: float, *shape: int) -> np.ndarray:
    return 100.0 * np.exp(sd * rng.standard_normal(shape))


def test_lint_tells_the_quiet_metric_from_the_noisy_one() -> None:
    rng = np.random.default_rng(1)
    history = np.stack([arms(rng, 0.02, 28, 2, 60), arms(rng, 0.4, 28, 2, 60)])
    prospect = ta.lint([SPEC, SPEC], history=history, horizon=60, step_seconds=15)
    assert prospect.can_pass.tolist() == [True, False]
    assert prospect.seconds_to_pass[0] < 900 < prospect.seconds_to_pass[1]
    assert "can never pass a margin of 10 % within 15 minutes" in prospect.explain(1)
    assert prospect.to_frame()["can_pass"].tolist() == [True, False]


def test_lint_keeps_its_word() -> None:
    """Where it says PASS is likely, streams pass 8 times in 10 at least; where it does not, few do."""
    rng = np.random.default_rng(2)
    S, T = 150, 40
    for sd, likely in ((0.08, True), (0.6, False)):
        history = arms(rng, sd, S, 28, 2, T)
        prospect = ta.lint([SPEC] * S, history=history, horizon=T)
        assert prospect.can_pass.mean() > 0.95 if likely else prospect.can_pass.mean() == 0.0
        stream = ta.open_stream([SPEC] * S, history=history, horizon=T)
        stream.update(arms(rng, sd, S, T), arms(rng, sd, S, T))
        passed = (stream.result().verdict == ta.Verdict.PASS).mean()
        assert passed > 0.8 if likely else passed < 0.25


def test_lint_before_after_and_without_a_past() -> None:
    rng = np.random.default_rng(3)
    past = np.stack([arms(rng, 0.02, 2000), arms(rng, 0.5, 2000)])
    prospect = ta.lint([SPEC, SPEC], design="before_after", before=past, horizon=30)
    assert prospect.can_pass.tolist() == [True, False]
    unknown = ta.lint(SPEC, horizon=30)
    assert not unknown.can_pass[0]
    assert "too little past" in unknown.explain(0)


def test_a_hung_exporter_is_stale_and_a_steady_metric_is_not() -> None:
    rng = np.random.default_rng(4)
    moving = rng.standard_normal((4, 40))
    moving[1, 30:] = moving[1, 30]
    moving[2] = 5.0
    moving[3] = np.repeat(rng.standard_normal(8), 5)
    assert stale(moving).tolist() == [0, 10, 0, 0]
    assert stale(moving[:, :10]).tolist() == [0, 0, 0, 0]


def test_a_stale_canary_never_passes() -> None:
    rng = np.random.default_rng(5)
    x, y = arms(rng, 0.02, 1, 60), arms(rng, 0.02, 1, 60)
    assert ta.compare(x, y, spec=SPEC).verdict[0] == ta.Verdict.PASS
    y[0, 50:] = y[0, 50]
    result = ta.compare(x, y, spec=SPEC)
    assert result.verdict[0] == ta.Verdict.INCONCLUSIVE
    assert result.reason == ("stale",)
    assert [n.code for n in result.quality[0]] == ["stale"]


def test_traffic_split_finds_the_arm_that_is_fed_wrongly() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.poisson(900, (400, 60)).astype(float), rng.poisson(100, (400, 60)).astype(float)
    y[200:] *= 1.3
    found = traffic_split(x, y, 0.1)
    assert found.off[:200].sum() <= 2
    assert found.off[200:].all()
    np.testing.assert_allclose(found.share[:200], 0.1, atol=0.01)
    # A scrape that is missing in one arm counts in neither.
    x[0, :30] = np.nan
    assert abs(traffic_split(x, y, 0.1).share[0] - 0.1) < 0.01


def test_traffic_split_is_not_fooled_by_a_share_that_wanders() -> None:
    rng = np.random.default_rng(7)
    drift = 0.1 * np.exp(0.3 * rng.standard_normal((300, 12)).repeat(5, axis=1))
    total = rng.poisson(1000, (300, 60))
    y = rng.binomial(total, drift).astype(float)
    expected = float(0.1 * np.exp(0.3**2 / 2))
    found = traffic_split(total - y, y, expected)
    assert found.off.mean() < 0.05


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((np.ones((1, 3)), np.ones((1, 4)), 0.5), "canary"),
        ((np.ones((1, 3)), np.ones((1, 3)), 1.5), "expected_share"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[np.ndarray, np.ndarray, float], named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named}:"):
        traffic_split(*arguments)
