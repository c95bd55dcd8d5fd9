"""Monitor rules: the states of monitors over the window of an evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from tidegate_server.gates.evaluation import window
from tidegate_server.gates.model import Evaluation, MonitorCheck, Observation, Rule, Seen
from tidegate_server.monitors.judge import Look, judge
from tidegate_server.monitors.model import Downtime, Monitor, MonitorHistory
from tidegate_server.monitors.query import QueryError


def look_of(rule: Rule, evaluation: Evaluation, now: float, behind: float = 0.0) -> Look:
    """Return the look of a monitor rule at the evaluation's own time ``now``.

    States are told by the clock. What own time stands ``behind`` it was not watched, so the window ends later by it:
    a state that is told meanwhile counts.
    """
    span = window(evaluation, rule)
    end = span.end + behind if span.end > span.start else span.end
    # A deployment that lies ahead was told by a clock that runs ahead: what fails from now on is new.
    deployed_at = min(evaluation.deployed_at, evaluation.create_time)
    return Look(start=span.start, end=end, now=now + behind, deployed_at=deployed_at)


def look_at_monitors(
    rule: Rule,
    monitors: Iterable[Monitor],
    histories: Mapping[str, MonitorHistory],
    downtimes: Sequence[Downtime],
    look: Look,
) -> Observation:
    """Return what a monitor rule of an evaluation sees now; parameters as in
    `tidegate_server.monitors.judge.judge`.

    Raises
    ------
    TypeError
        When the rule is of another type.
    """
    check = rule.check
    if not isinstance(check, MonitorCheck):
        raise TypeError(f"rule {rule.name!r} is no monitor rule")
    try:
        return judge(check, monitors, histories, downtimes, look)
    except QueryError as error:
        # Queries are checked before they are stored; this one was stored by a version with another grammar.
        return could_not_ask(f"the query cannot be understood, {error}", settled=True)


def could_not_ask(why: str, *, settled: bool = False) -> Observation:
    """Return the observation of a rule whose source failed; ``settled`` when asking again is of no use."""
    return Observation(
        verdict=None,
        seen=Seen.NOTHING,
        settled=settled,
        sentence="",
        reason="source_error",
        source_error=why,
    )
