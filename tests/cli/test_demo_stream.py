"""What the demo's stream meets before its first scrape."""

from __future__ import annotations

import numpy as np
import pytest
import tidegate_analysis as ta


@pytest.mark.parametrize("before", [0, 5, 40])
def test_ratios_may_be_asked_about_before_any_point_came(before: int) -> None:
    specs = [
        ta.MetricSpec("latency", kind="gauge", scale="log", margin=0.1),
        ta.MetricSpec("errors", kind="ratio", margin=0.02),
    ]
    live = ta.LiveEvaluation(specs, design="concurrent", warm_up=1.0, horizon_seconds=5.0, deployed_at=1000.01)
    for arm in ("baseline", "canary"):
        if before:
            live.add(
                ta.Block(
                    arm=arm,  # type: ignore[arg-type]
                    phase="pre",
                    start=1000.0 - 0.5 * before,
                    step=0.5,
                    values=np.array([[80.0] * before, [1.0] * before]),
                    exposure=np.array([[np.nan] * before, [50.0] * before]),
                )
            )
        assert live.judge().verdict == ta.Verdict.INCONCLUSIVE
