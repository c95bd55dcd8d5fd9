"""Before a rollout: can this watch ever answer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate_analysis.decide import POWER, policy_of, to_effect
from tidegate_analysis.explain import change, duration
from tidegate_analysis.kernels import sequential
from tidegate_analysis.spec import Design, MetricSpec
from tidegate_analysis.stream import open_stream

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Prospect:
    """What a watch of each series can reach, arrays over series.

    Attributes
    ----------
    specs:
        The specs as they would be used.
    can_pass:
        Whether PASS is likely (9 times in 10) at the horizon when nothing changes; false where the past cannot tell.
    seconds_to_pass:
        Time at which it becomes likely; NaN where the past cannot tell.
    minimum_detectable_effect:
        The change that would be found 9 times in 10 by the horizon, in the unit of the effect; NaN where unknown.
    margin:
        The margin in the unit of the effect.
    horizon_seconds:
        How long the watch lasts.
    """

    specs: tuple[MetricSpec, ...]
    can_pass: NDArray[np.bool_]
    seconds_to_pass: Floats
    minimum_detectable_effect: Floats
    margin: Floats
    horizon_seconds: float

    def explain(self, i: int) -> str:
        """Return one sentence on series ``i``."""
        spec = self.specs[range(len(self.specs))[i]]
        margin = change(float(self.margin[i]), spec)
        effect = float(self.minimum_detectable_effect[i])
        watch = duration(self.horizon_seconds)
        if not np.isfinite(effect):
            return f"{spec.name}: there is too little past to say what {watch} can show."
        seen = change(effect, spec)
        if self.can_pass[i]:
            return f"{spec.name} can pass within {watch}; a change of {seen} would be found."
        needed = duration(float(self.seconds_to_pass[i]))
        return (
            f"{spec.name} can never pass a margin of {margin} within {watch}: that takes about {needed}. "
            f"Widen the margin, watch longer, or make it hold-only."
        )

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame with one row per series."""
        import pandas as pd

        return pd.DataFrame(
            {
                "metric": [s.name for s in self.specs],
                "can_pass": self.can_pass,
                "seconds_to_pass": self.seconds_to_pass,
                "minimum_detectable_effect": self.minimum_detectable_effect,
                "margin": self.margin,
                "explanation": [self.explain(i) for i in range(len(self.specs))],
            }
        )


def lint(
    specs: MetricSpec | Sequence[MetricSpec],
    *,
    horizon: int,
    step_seconds: float = 60.0,
    design: Design = "concurrent",
    history: ArrayLike | None = None,
    before: ArrayLike | None = None,
) -> Prospect:
    """Say before a rollout which metrics can pass by the horizon, and what each watch could find.

    The past tells how much each metric moves by itself; a standard error that shrinks with the square root of the
    scrapes tells the rest. Series of counts are told by their own e-values as they come and are unknown here.

    Parameters
    ----------
    specs, horizon, step_seconds, design, history, before:
        As for :func:`~tidegate_analysis.open_stream`.

    Raises
    ------
    ValueError
        As :func:`~tidegate_analysis.open_stream`.
    """
    if horizon is None:
        raise ValueError("horizon: is needed to say what can be shown by it")
    stream = open_stream(
        specs, design=design, history=history, before=before, step_seconds=step_seconds, horizon=horizon
    )
    spread, df, margin = stream.prospect()
    policy = policy_of(stream.specs, margin)
    fail_level = np.where(policy.sign == 0, policy.alpha / 2.0, policy.alpha)
    pass_level = np.where(policy.sign == 0, policy.alpha / 2.0, policy.alpha_pass)
    power = sequential.boundary(np.full(len(df), 2.0 * (1.0 - POWER)), df)
    to_pass = (sequential.boundary(pass_level, df) + power) * spread
    found = (sequential.boundary(fail_level, df) + power) * spread
    narrow = np.where(policy.sign == 0, np.minimum(policy.worse, policy.better), policy.worse)
    seconds = horizon * step_seconds
    with np.errstate(invalid="ignore", divide="ignore"):
        needed = seconds * (to_pass / narrow) ** 2
        return Prospect(stream.specs, to_pass <= narrow, needed, to_effect(found, policy.log), policy.margin, seconds)
