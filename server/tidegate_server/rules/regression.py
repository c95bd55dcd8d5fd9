"""Regression rules: the canary's metrics against the baseline, judged by the analysis as points come."""

from __future__ import annotations

from collections.abc import Sequence

import tidegate_analysis as ta
from tidegate_analysis.batch import Arm

from tidegate_server.gates.model import Observation, RegressionCheck, Seen, Verdict
from tidegate_server.rules.coverage import to_the_end
from tidegate_server.rules.findings import findings_of, groups_of, seen_of


def look(
    check: RegressionCheck,
    deployed_at: float,
    state: bytes | None,
    blocks: Sequence[ta.Block],
    *,
    over: bool,
    complete: bool,
) -> tuple[bytes, Observation, str]:
    """Take new blocks and judge what there is.

    Parameters
    ----------
    check:
        The rule's options.
    deployed_at:
        Epoch seconds of the deployment.
    state:
        What the last look returned; None at the first.
    blocks:
        What came since then, rows of this rule's metrics alone.
    over:
        Whether nothing that comes later counts: all points are there, or the window has passed. PASS needs
        it: a regression may begin late, so an early PASS is only told as progress.
    complete:
        Whether the writers said that all points are there. Else PASS needs points to the end of the horizon.

    Returns
    -------
    state, observation, refused:
        The state is to be stored together with the observation; ``refused`` says what was wrong with the
        first block that could not be used, or is empty.
    """
    if state is None:
        live = ta.LiveEvaluation(
            check.metrics,
            design=check.design,
            q=check.false_discovery_rate,
            deployed_at=deployed_at,
            warm_up=check.warm_up,
            horizon_seconds=check.horizon,
        )
    else:
        live = ta.LiveEvaluation.restore(state)
    refused = ""
    for block in blocks:
        try:
            live.add(block)
        except ta.BlockError as error:
            refused = refused or str(error)
    judgement = live.judge(final=over)
    seen = observe(judgement, deployed_at, over=over)
    if over and not complete:
        arms: tuple[Arm, ...] = ("canary",) if judgement.design == "before_after" else ("baseline", "canary")
        start, end = deployed_at + check.warm_up, deployed_at + check.horizon
        seen = to_the_end(seen, live.batch, arms, start=start, end=end)
    return live.state(), seen, refused


def _sentence(judgement: ta.Judgement) -> str:
    """Return the judgement's sentence without its verdict, which a rule's result tells beside it."""
    told = judgement.explain()
    head, colon, rest = told.partition(": ")
    if not colon or not head.startswith(judgement.verdict.name):
        return told
    among = head.removeprefix(judgement.verdict.name).strip(" ()")
    return f"{among}: {rest}" if among else rest


def observe(judgement: ta.Judgement, deployed_at: float, *, over: bool) -> Observation:
    """Return a judgement as an observation."""
    verdict = Verdict(judgement.verdict)
    seen = seen_of(judgement)
    if seen is Seen.NOTHING:
        return Observation(
            verdict=None,
            seen=seen,
            settled=over,
            sentence="No point was seen in either arm.",
            reason="no_data",
            findings=findings_of(judgement, deployed_at),
            groups=groups_of(judgement),
        )
    if verdict is Verdict.FAIL:
        reason = "regression"
    elif verdict is Verdict.PASS:
        reason = "within_margin"
    else:
        reason = next(
            (one for one, own in zip(judgement.reasons, judgement.verdicts.tolist(), strict=True) if own == verdict),
            "not_enough_evidence",
        )
    return Observation(
        verdict=verdict,
        seen=seen,
        settled=over,
        sentence=_sentence(judgement),
        reason=reason,
        findings=findings_of(judgement, deployed_at),
        groups=groups_of(judgement),
    )
