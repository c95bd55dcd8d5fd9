"""All series rules of one evaluation at one look: one trip to a worker instead of one for each."""

from __future__ import annotations

from collections.abc import Sequence

import tidegate_analysis as ta

from tidegate_server.gates.evaluation import Timing
from tidegate_server.gates.model import Evaluation, Observation, Rule
from tidegate_server.rules.series import look_at_series


def judge_series(
    evaluation: Evaluation,
    rules: Sequence[tuple[Rule, bytes | None]],
    blocks: Sequence[ta.Block],
    now: float,
    timing: Timing,
) -> list[tuple[bytes, Observation]]:
    """Return the new state and the observation of each rule, given its state before and the blocks since."""
    return [look_at_series(rule, evaluation, state, blocks, now, timing) for rule, state in rules]
