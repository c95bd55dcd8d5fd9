"""The evaluation as a pure state machine: what was observed and the time go in, the next state comes out.

An evaluation is PENDING until somebody works on it, RUNNING while rules are open, and then SUCCEEDED
(whatever its verdict) or CANCELLED. Nothing here reads a clock: ``now`` is a parameter, and it never runs
backwards within one evaluation, whatever the caller's clock does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate_server.gates.errors import PreconditionError
from tidegate_server.gates.folding import apply_policies, decide, effective_verdict, fold
from tidegate_server.gates.model import (
    Decision,
    Deployment,
    Evaluation,
    EvaluationState,
    Gate,
    Label,
    LabelKind,
    MonitorCheck,
    Observation,
    Override,
    Rule,
    RuleMode,
    RuleResult,
    Verdict,
)


@dataclass(frozen=True, slots=True)
class Timing:
    """How patient an evaluation is, in seconds.

    ``late_data``: how long after its window a rule still waits for points that were measured within it.
    ``source_patience``: how long after its window a monitor rule goes on asking a source that failed.
    ``monitor_interval``: time between two looks at monitors; pushed states are looked at sooner.
    ``retry_interval``: time between two tries of a source that failed.
    """

    late_data: float = 60.0
    source_patience: float = 30.0
    monitor_interval: float = 15.0
    retry_interval: float = 5.0


DEFAULT_TIMING = Timing()


@dataclass(frozen=True, slots=True)
class Window:
    """When a rule looks: states and points within ``[start, end]`` count; at ``deadline`` it answers in any
    case."""

    start: float
    end: float
    deadline: float


@dataclass(frozen=True, slots=True)
class Wake:
    """Look again at this time, or sooner when something arrives."""

    at: float


@dataclass(frozen=True, slots=True)
class Publish:
    """Something that watchers see has changed."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The evaluation is over: what was kept to work on it can go."""


Action = Wake | Publish | Finish


def begin(
    evaluation_id: str,
    gate: Gate,
    deployment: Deployment,
    now: float,
    *,
    created_by: str = "",
    request_id: str = "",
    ensure_key: str = "",
) -> Evaluation:
    """Return a new evaluation of a gate as it is now, PENDING."""
    return Evaluation(
        id=evaluation_id,
        gate=gate,
        deployment=deployment,
        create_time=now,
        update_time=now,
        results=tuple(RuleResult(rule=rule.name, mode=rule.mode) for rule in gate.rules),
        sentence="Not judged yet.",
        created_by=created_by,
        request_id=request_id,
        ensure_key=ensure_key,
    )


def window(evaluation: Evaluation, rule: Rule, timing: Timing = DEFAULT_TIMING) -> Window:
    """Return when a rule of an evaluation looks.

    Monitors are watched from the start of the evaluation, metrics from the deployment. An evaluation that
    begins after the horizon of a metric rule is over judges the past: it waits `late_data` for somebody to
    hand it over.
    """
    created = evaluation.create_time
    if isinstance(rule.check, MonitorCheck):
        end = created + rule.check.duration
        return Window(created, end, end + timing.source_patience)
    end = max(evaluation.deployed_at + rule.check.horizon, created)
    return Window(evaluation.deployed_at, end, end + timing.late_data)


def longest_watch(evaluation: Evaluation) -> float:
    """Return how many seconds from its start on a rule of an evaluation may watch at most."""
    ends = [window(evaluation, rule).end for rule in evaluation.gate.rules]
    return max(ends, default=evaluation.create_time) - evaluation.create_time


def with_life_time(evaluation: Evaluation, ttl: float) -> Evaluation:
    """Return a new evaluation that is the one of its key for ``ttl`` seconds."""
    return replace(evaluation, expire_time=evaluation.create_time + ttl)


def open_rules(evaluation: Evaluation) -> tuple[Rule, ...]:
    """Return the rules that are still to be looked at."""
    if evaluation.finished:
        return ()
    done = {result.rule for result in evaluation.results if result.done or result.not_awaited}
    return tuple(rule for rule in evaluation.gate.rules if rule.name not in done)


def advance(
    evaluation: Evaluation,
    observations: Mapping[str, Observation],
    now: float,
    timing: Timing = DEFAULT_TIMING,
) -> tuple[Evaluation, tuple[Action, ...]]:
    """Take what the rules saw, by rule name, and return the evaluation as it stands then, and what to do
    next.

    A rule without an observation keeps what it saw before; past its deadline it answers by its policies.
    Results that are done never change: FAIL at any moment stays FAIL. The same inputs always give the same
    answer.
    """
    if evaluation.finished:
        return evaluation, ()
    now = max(now, evaluation.update_time)
    rules = {rule.name: rule for rule in evaluation.gate.rules}
    results = tuple(
        _step(evaluation, rules[result.rule], result, observations.get(result.rule), now, timing)
        for result in evaluation.results
    )
    changed = replace(
        evaluation,
        results=results,
        state=EvaluationState.RUNNING,
        start_time=now if evaluation.start_time is None else evaluation.start_time,
    )
    if changed.verdict is None:
        changed = _judge(changed, now)
    if changed.verdict is Verdict.FAIL or all(result.done for result in results):
        changed = replace(
            changed,
            state=EvaluationState.SUCCEEDED,
            end_time=now,
            results=tuple(result if result.done else replace(result, not_awaited=True) for result in changed.results),
        )
    actions: list[Action] = []
    if changed != evaluation:
        changed = replace(changed, version=evaluation.version + 1, update_time=now)
        actions.append(Publish())
    if changed.finished:
        actions.append(Finish())
    else:
        actions.append(Wake(_next_look(changed, now, timing)))
    return changed, tuple(actions)


def _step(
    evaluation: Evaluation,
    rule: Rule,
    result: RuleResult,
    observation: Observation | None,
    now: float,
    timing: Timing,
) -> RuleResult:
    """Return the result of one rule after one look."""
    if result.done:
        return result
    before = result
    if observation is not None:
        result = replace(
            result,
            seen=observation.seen,
            source_error=observation.source_error,
            sentence=observation.sentence,
            reason=observation.reason,
            findings=observation.findings,
            groups=observation.groups,
            monitors=observation.monitors,
            as_of=observation.as_of,
        )
    over = now >= window(evaluation, rule, timing).deadline
    settled = observation is not None and (observation.settled or observation.verdict is Verdict.FAIL)
    if not (over or settled):
        # A look that saw nothing new is no change: it would only wake every watcher.
        return before if replace(result, as_of=before.as_of) == before else result
    verdict, policy, reason, sentence = apply_policies(
        observation if observation is not None else _remembered(result), rule.policies
    )
    return replace(
        result,
        verdict=verdict,
        effective_verdict=effective_verdict(verdict, rule.mode),
        done=True,
        reason=reason,
        sentence=sentence,
        policy_applied=policy,
        end_time=now,
    )


def _remembered(result: RuleResult) -> Observation:
    """Return what a rule saw last, for an answer without a new look: it never was more than inconclusive."""
    return Observation(
        verdict=Verdict.INCONCLUSIVE,
        seen=result.seen,
        settled=True,
        sentence=result.sentence,
        reason=result.reason,
        source_error=result.source_error,
    )


def _judge(evaluation: Evaluation, now: float) -> Evaluation:
    verdict = fold(evaluation.results)
    if verdict is None:
        return replace(evaluation, sentence=_progress(evaluation.results))
    decision, would_decide = decide(verdict, dry_run=evaluation.gate.dry_run)
    return replace(
        evaluation,
        verdict=verdict,
        decision=decision,
        would_decide=would_decide,
        decide_time=now,
        sentence=_conclusion(evaluation.results, verdict, would_decide),
    )


def _next_look(evaluation: Evaluation, now: float, timing: Timing) -> float:
    times = []
    for rule in open_rules(evaluation):
        span = window(evaluation, rule, timing)
        times.append(span.deadline)
        if isinstance(rule.check, MonitorCheck):
            failed = bool(evaluation.result(rule.name).source_error)
            times.append(now + (timing.retry_interval if failed else timing.monitor_interval))
            if now < span.end:
                times.append(span.end)
    return max(min(times), now)


def _progress(results: Sequence[RuleResult]) -> str:
    done = sum(result.done for result in results)
    return f"Judging: {done} of {len(results)} rules are through."


def _conclusion(results: Sequence[RuleResult], verdict: Verdict, would_decide: Decision | None) -> str:
    counting = [result for result in results if result.mode is not RuleMode.DRY_RUN]
    causes = [result for result in counting if result.done and result.effective_verdict is verdict]
    if not counting:
        text = "No rule counts: all of them are dry runs."
    elif verdict is Verdict.PASS:
        text = "The rule passed." if len(causes) == 1 else f"All {len(causes)} rules passed."
        by_policy = [result.rule for result in causes if result.policy_applied]
        if by_policy:
            text += f" By policy, not by what was seen: {', '.join(by_policy)}."
    else:
        words = {
            Verdict.FAIL: "failed",
            Verdict.INCONCLUSIVE: "cannot tell",
            Verdict.ERROR: "could not look",
        }
        first = causes[0]
        held = first.mode is RuleMode.HOLD_ONLY and first.verdict is Verdict.FAIL
        what = "failed, which only holds" if held else words[verdict]
        text = f'Rule "{first.rule}" {what}: {first.sentence}'
        if len(causes) > 1:
            text += f" {len(causes) - 1} more {'rule did' if len(causes) == 2 else 'rules did'} not pass either."
    if would_decide is not None:
        text += f" Dry run: it would have decided {would_decide.name}."
    return text


# --- what people do to an evaluation


def cancel(evaluation: Evaluation, actor: str, reason: str, now: float) -> Evaluation:
    """Return the evaluation cancelled; one that is cancelled already is returned as it is.

    A cancelled evaluation has no verdict; what it decided before, if anything, is dropped and it holds.

    Raises
    ------
    PreconditionError
        When it has come to its end.
    """
    if evaluation.state is EvaluationState.CANCELLED:
        return evaluation
    if evaluation.finished:
        raise PreconditionError(
            "EVALUATION_FINISHED",
            f"evaluation {evaluation.id} has ended; only one that is PENDING or RUNNING can be cancelled",
            {"evaluation_id": evaluation.id, "state": evaluation.state.name},
        )
    now = max(now, evaluation.update_time)
    return replace(
        evaluation,
        state=EvaluationState.CANCELLED,
        version=evaluation.version + 1,
        verdict=None,
        decision=Decision.HOLD,
        would_decide=None,
        sentence="Cancelled before it had an answer.",
        results=tuple(result if result.done else replace(result, not_awaited=True) for result in evaluation.results),
        update_time=now,
        end_time=now,
        cancelled_by=actor,
        cancel_reason=reason,
    )


def override(evaluation: Evaluation, decision: Decision, actor: str, reason: str, now: float) -> Evaluation:
    """Return the evaluation with a person's decision beside the verdict. A later override replaces an
    earlier one.

    Raises
    ------
    PreconditionError
        When the evaluation was cancelled: nobody waits for it.
    """
    if evaluation.state is EvaluationState.CANCELLED:
        raise PreconditionError(
            "EVALUATION_CANCELLED",
            f"evaluation {evaluation.id} was cancelled; start a new one",
            {"evaluation_id": evaluation.id},
        )
    now = max(now, evaluation.update_time)
    return replace(
        evaluation,
        override=Override(decision=decision, reason=reason, actor=actor, time=now),
        version=evaluation.version + 1,
        update_time=now,
    )


def label(evaluation: Evaluation, kind: LabelKind, actor: str, note: str, now: float) -> Evaluation:
    """Return the evaluation with a label; the same actor's earlier label is replaced.

    Raises
    ------
    PreconditionError
        When it has not come to its end.
    """
    if evaluation.state is not EvaluationState.SUCCEEDED:
        raise PreconditionError(
            "EVALUATION_NOT_FINISHED",
            f"evaluation {evaluation.id} is {evaluation.state.name}; labels are for those that SUCCEEDED",
            {"evaluation_id": evaluation.id, "state": evaluation.state.name},
        )
    now = max(now, evaluation.update_time)
    others = tuple(one for one in evaluation.labels if one.actor != actor)
    return replace(
        evaluation,
        labels=(*others, Label(kind=kind, actor=actor, time=now, note=note)),
        version=evaluation.version + 1,
        update_time=now,
    )
