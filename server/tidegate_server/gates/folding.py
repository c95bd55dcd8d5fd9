"""How rules fold into a verdict, and a verdict into a decision. The semantics of the product, in one
place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidegate_server.gates.model import (
    Decision,
    Observation,
    OutcomePolicy,
    Policies,
    RuleMode,
    RuleResult,
    Seen,
    Verdict,
)

_DECISIONS = {
    Verdict.PASS: Decision.PROCEED,
    Verdict.FAIL: Decision.HALT,
    Verdict.INCONCLUSIVE: Decision.HOLD,
    Verdict.ERROR: Decision.HOLD,
}

_POLICY_VERDICTS = {
    OutcomePolicy.INCONCLUSIVE: Verdict.INCONCLUSIVE,
    OutcomePolicy.PASS: Verdict.PASS,
    OutcomePolicy.FAIL: Verdict.FAIL,
    OutcomePolicy.ERROR: Verdict.ERROR,
}


def effective_verdict(verdict: Verdict | None, mode: RuleMode) -> Verdict | None:
    """Return what a rule's verdict counts as: nothing for a dry run, at most INCONCLUSIVE for a hold-only
    rule."""
    if mode is RuleMode.DRY_RUN:
        return None
    if mode is RuleMode.HOLD_ONLY and verdict is Verdict.FAIL:
        return Verdict.INCONCLUSIVE
    return verdict


def fold_verdicts(verdicts: Iterable[Verdict]) -> Verdict:
    """Return the worst of what counts: FAIL, then ERROR, then INCONCLUSIVE, then PASS.

    Nothing at all is INCONCLUSIVE: a gate that looked at nothing has not shown anything.
    """
    seen = set(verdicts)
    for worst in (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE):
        if worst in seen:
            return worst
    return Verdict.PASS if seen else Verdict.INCONCLUSIVE


def fold(results: Sequence[RuleResult]) -> Verdict | None:
    """Return the verdict of a gate, or None while it is open.

    FAIL is known with the first rule whose effective verdict it is; every other verdict needs all rules that
    count to be done. Dry-run rules are neither counted nor awaited.
    """
    counting = [result for result in results if result.mode is not RuleMode.DRY_RUN]
    done = [result.effective_verdict for result in counting if result.done]
    verdicts = [verdict for verdict in done if verdict is not None]
    if Verdict.FAIL in verdicts:
        return Verdict.FAIL
    if len(done) < len(counting):
        return None
    return fold_verdicts(verdicts)


def decide(verdict: Verdict, *, dry_run: bool) -> tuple[Decision, Decision | None]:
    """Return the decision of a gate, and what a dry-run gate would have decided (None for others)."""
    decision = _DECISIONS[verdict]
    return (Decision.PROCEED, decision) if dry_run else (decision, None)


def apply_policies(observation: Observation | None, policies: Policies) -> tuple[Verdict, str, str, str]:
    """Return the final verdict of a rule: what it saw, or what its policies say about what it could not see.

    Returns
    -------
    verdict, policy, reason, sentence:
        ``policy`` is the policy that fired, as it stands in the evidence (``"on_no_data = INCONCLUSIVE"``),
        or "".
    """
    if observation is not None and observation.verdict is Verdict.FAIL:
        return Verdict.FAIL, "", observation.reason, observation.sentence
    if observation is not None and observation.source_error:
        sentence = f"Could not ask: {observation.source_error}."
        return _fired("on_source_error", policies.on_source_error, "source_error", sentence)
    if observation is None or observation.seen is Seen.NOTHING:
        sentence = observation.sentence if observation is not None else ""
        reason = observation.reason if observation is not None else ""
        return _fired("on_no_data", policies.on_no_data, reason or "no_data", sentence or "Nothing was seen.")
    if observation.verdict is None or (
        observation.verdict is Verdict.INCONCLUSIVE and observation.seen is Seen.TOO_LITTLE
    ):
        return _fired(
            "on_insufficient_data",
            policies.on_insufficient_data,
            observation.reason or "insufficient_data",
            observation.sentence or "What was seen is too little to tell.",
        )
    return observation.verdict, "", observation.reason, observation.sentence


def _fired(name: str, policy: OutcomePolicy, reason: str, sentence: str) -> tuple[Verdict, str, str, str]:
    applied = f"{name} = {policy.name}"
    return _POLICY_VERDICTS[policy], applied, reason, f"{sentence} The rule's policy decides: {applied}."
