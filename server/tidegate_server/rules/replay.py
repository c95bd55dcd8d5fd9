"""A stored evaluation judged again from its stored series: the same numbers, to the last bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tidegate_analysis as ta

from tidegate_server.gates.evaluation import DEFAULT_TIMING, Timing
from tidegate_server.gates.model import Evaluation, MonitorCheck, Observation
from tidegate_server.rules.series import look_at_series


def replay(
    evaluation: Evaluation, blocks: Sequence[ta.Block], timing: Timing = DEFAULT_TIMING
) -> Mapping[str, Observation]:
    """Return what the regression and threshold rules see when they get all blocks at once.

    A rule that failed before its last point came was judged on fewer of them; its findings are then those of the
    moment it failed, and agree with a replay of the blocks up to then.

    Parameters
    ----------
    evaluation:
        The evaluation as stored; its results are not used.
    blocks:
        Its blocks in the order in which they were taken.
    timing:
        How patient it was.
    """
    now = evaluation.end_time if evaluation.end_time is not None else evaluation.update_time
    return {
        rule.name: look_at_series(rule, evaluation, None, blocks, now, timing)[1]
        for rule in evaluation.gate.rules
        if not isinstance(rule.check, MonitorCheck)
    }
