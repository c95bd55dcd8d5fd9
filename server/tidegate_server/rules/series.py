"""Series rules: which blocks a rule gets, and one entry for both of their types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import tidegate_analysis as ta

from tidegate_server.gates.evaluation import DEFAULT_TIMING, Timing, window
from tidegate_server.gates.model import (
    Evaluation,
    Gate,
    MonitorCheck,
    Observation,
    RegressionCheck,
    Rule,
    ThresholdCheck,
)
from tidegate_server.rules import regression, threshold


def declared_metrics(gate: Gate) -> tuple[ta.MetricSpec, ...]:
    """Return the metrics that a gate's rules watch, each name once, in order of first mention."""
    found: dict[str, ta.MetricSpec] = {}
    for rule in gate.rules:
        for spec in _metrics(rule):
            found.setdefault(spec.name, spec)
    return tuple(found.values())


def _metrics(rule: Rule) -> tuple[ta.MetricSpec, ...]:
    match rule.check:
        case RegressionCheck(metrics=metrics):
            return metrics
        case ThresholdCheck(metric=metric):
            return (metric,)
        case MonitorCheck():
            return ()


def rows_for(rule: Rule, block: ta.Block) -> ta.Block | None:
    """Return the rows of a block that a rule watches, None when there are none.

    Raises
    ------
    tidegate_analysis.BlockError
        When the block does not name its rows: what "all declared metrics" means differs from rule to rule.
    """
    if block.metrics is None:
        raise ta.BlockError("metrics", "must name the rows")
    wanted = {spec.name for spec in _metrics(rule)}
    rows = [k for k, name in enumerate(block.metrics) if name in wanted]
    histograms = {name: rows_ for name, rows_ in (block.histograms or {}).items() if name in wanted}
    if not rows and not histograms:
        return None
    if len(rows) == len(block.metrics) and len(histograms) == len(block.histograms or {}):
        return block
    index = np.array(rows, dtype=np.intp)
    return replace(
        block,
        metrics=tuple(block.metrics[k] for k in rows),
        values=np.asarray(block.values)[index],
        exposure=None if block.exposure is None else np.asarray(block.exposure)[index],
        histograms=histograms or None,
    )


def look_at_series(
    rule: Rule,
    evaluation: Evaluation,
    state: bytes | None,
    blocks: Sequence[ta.Block],
    now: float,
    timing: Timing = DEFAULT_TIMING,
) -> tuple[bytes, Observation]:
    """Take new blocks and judge what there is.

    Parameters
    ----------
    rule, evaluation:
        A regression or threshold rule of the evaluation.
    state:
        What the last look returned; None at the first.
    blocks:
        All blocks that were taken since then, in order; rows of other rules are left out here.
    now, timing:
        The time, and how long late points are waited for.

    Returns
    -------
    state, observation:
        To be stored together: a state is only good with the blocks that it has seen. A block that cannot be
        used (blocks are checked before they are stored, but not against each other) makes a source error of
        the rule that stays, unless the rule fails.

    Raises
    ------
    TypeError
        When the rule is of another type.
    """
    complete = evaluation.series_complete
    over = complete or now >= window(evaluation, rule, timing).deadline
    own = [part for part in (rows_for(rule, block) for block in blocks) if part is not None]
    refused, inner = _unpack(state)
    match rule.check:
        case RegressionCheck() as check:
            inner, seen, problem = regression.look(
                check, evaluation.deployed_at, inner, own, over=over, complete=complete
            )
        case ThresholdCheck() as check:
            inner, seen, problem = threshold.look(
                check, evaluation.deployed_at, inner, own, over=over, complete=complete
            )
        case MonitorCheck():
            raise TypeError(f"rule {rule.name!r} is no series rule")
    refused = refused or problem
    if refused:
        seen = replace(seen, source_error=f"points could not be used, {refused}")
    return _pack(refused, inner), seen


def _pack(refused: str, inner: bytes) -> bytes:
    """Put the first refused block before a rule's own state: what was not used must not be forgotten."""
    text = refused.encode()[:1000]
    return len(text).to_bytes(2, "big") + text + inner


def _unpack(state: bytes | None) -> tuple[str, bytes | None]:
    if state is None:
        return "", None
    size = int.from_bytes(state[:2], "big")
    return state[2 : 2 + size].decode(errors="ignore"), state[2 + size :]
