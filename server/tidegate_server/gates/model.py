"""What a gate, a rule, a deployment and an evaluation are: frozen dataclasses without behaviour.

Times are seconds since the epoch as ``float``, durations are seconds. The numbers of the enums are those of
the wire contract (``protos/tidegate/v1``).
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate_analysis.spec import Design, MetricSpec, QualityNote, Verdict

__all__ = [
    "Actor",
    "Check",
    "Comparator",
    "Decision",
    "Deployment",
    "Evaluation",
    "EvaluationState",
    "Finding",
    "Gate",
    "GateKey",
    "GroupFinding",
    "Label",
    "LabelKind",
    "MetricSpec",
    "MonitorCheck",
    "MonitorEvidence",
    "MonitorScope",
    "MonitorState",
    "MutedHandling",
    "Observation",
    "Onset",
    "OutcomePolicy",
    "Override",
    "Policies",
    "QualityNote",
    "RegressionCheck",
    "Rule",
    "RuleMode",
    "RuleResult",
    "Seen",
    "StateSpan",
    "ThresholdCheck",
    "Verdict",
]

DEFAULT_IDENTIFIER = "default"


class Decision(enum.IntEnum):
    """What the orchestrator should do."""

    PROCEED = 1
    HALT = 2
    HOLD = 3


class RuleMode(enum.IntEnum):
    """How a rule counts: fully, as a hold at most, or not at all."""

    ENFORCE = 1
    HOLD_ONLY = 2
    DRY_RUN = 3


class OutcomePolicy(enum.IntEnum):
    """What a rule answers when it could not see what it needed."""

    INCONCLUSIVE = 1
    PASS = 2
    FAIL = 3
    ERROR = 4


class MonitorState(enum.IntEnum):
    """State of a monitor or of one of its groups."""

    OK = 1
    WARN = 2
    ALERT = 3
    NO_DATA = 4
    SKIPPED = 5
    UNKNOWN = 6


class MonitorScope(enum.IntEnum):
    """Which failing states count: any in the window, or only those that began after the deployment."""

    ANY = 1
    NEWLY_FAILING = 2


class MutedHandling(enum.IntEnum):
    """What is done with muted monitors and groups."""

    EXCLUDE = 1
    INCLUDE = 2


class Comparator(enum.IntEnum):
    """Which side of a bound is allowed."""

    BELOW = 1
    ABOVE = 2


class EvaluationState(enum.IntEnum):
    """Where an evaluation is. SUCCEEDED means that it ran to its end, whatever its verdict."""

    PENDING = 1
    RUNNING = 2
    SUCCEEDED = 3
    CANCELLED = 4


class LabelKind(enum.IntEnum):
    """What really happened, told afterwards."""

    TRUE_ALARM = 1
    FALSE_ALARM = 2
    MISSED = 3
    CORRECT_PASS = 4


class Seen(enum.IntEnum):
    """How much a rule has seen of what it needs."""

    NOTHING = 1
    TOO_LITTLE = 2
    ENOUGH = 3


# --- rules and gates


@dataclass(frozen=True, slots=True)
class Policies:
    """What a rule answers when it saw nothing, too little, or could not ask."""

    on_no_data: OutcomePolicy = OutcomePolicy.INCONCLUSIVE
    on_insufficient_data: OutcomePolicy = OutcomePolicy.INCONCLUSIVE
    on_source_error: OutcomePolicy = OutcomePolicy.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class RegressionCheck:
    """Metrics must not be worse than on the baseline. ``warm_up`` and ``horizon`` in seconds after the
    deployment."""

    metrics: tuple[MetricSpec, ...]
    design: Design = "auto"
    false_discovery_rate: float = 0.05
    warm_up: float = 60.0
    horizon: float = 900.0


@dataclass(frozen=True, slots=True)
class MonitorCheck:
    """Monitors must not fail. ``duration`` in seconds from the start of the evaluation; 0 is one look."""

    query: str
    duration: float = 0.0
    fail_on: frozenset[MonitorState] = frozenset({MonitorState.ALERT, MonitorState.NO_DATA})
    scope: MonitorScope = MonitorScope.ANY
    muted: MutedHandling = MutedHandling.EXCLUDE
    max_matches: int = 50


@dataclass(frozen=True, slots=True)
class ThresholdCheck:
    """The level of a metric must stay on one side of ``bound`` (in the metric's unit)."""

    metric: MetricSpec
    comparator: Comparator
    bound: float
    warm_up: float = 60.0
    horizon: float = 900.0


Check = RegressionCheck | MonitorCheck | ThresholdCheck


@dataclass(frozen=True, slots=True)
class Rule:
    """One check of a gate."""

    name: str
    check: Check
    mode: RuleMode = RuleMode.ENFORCE
    policies: Policies = Policies()


class GateKey(NamedTuple):
    """What names a gate."""

    service: str
    environment: str
    identifier: str = DEFAULT_IDENTIFIER


@dataclass(frozen=True, slots=True)
class Gate:
    """A named checkpoint of a service in an environment.

    ``revision`` counts from 1 with every change; 0 is a gate that is not stored: the rules of one evaluation
    that were given inline. ``uid`` is new whenever a gate of the same key is created again.
    """

    service: str
    environment: str
    identifier: str = DEFAULT_IDENTIFIER
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False
    enabled: bool = True
    description: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    uid: str = ""
    revision: int = 0
    create_time: float = 0.0
    update_time: float = 0.0
    created_by: str = ""
    updated_by: str = ""

    @property
    def key(self) -> GateKey:
        """What names this gate."""
        return GateKey(self.service, self.environment, self.identifier)

    @property
    def etag(self) -> str:
        """Changes with every revision; empty for a gate that is not stored."""
        if not self.revision:
            return ""
        return hashlib.sha256(f"{self.uid}:{self.revision}".encode()).hexdigest()[:16]


# --- what is deployed


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is being rolled out. ``start_time`` None: unknown, the start of the evaluation is taken."""

    service: str
    environment: str
    version: str = ""
    previous_version: str = ""
    start_time: float | None = None
    canary_selector: Mapping[str, str] = field(default_factory=dict)
    baseline_selector: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    actor: str = ""
    links: Mapping[str, str] = field(default_factory=dict)


# --- what was seen


@dataclass(frozen=True, slots=True)
class Onset:
    """When a change began, with the earliest and latest time of its 90 % confidence set."""

    time: float
    earliest: float
    latest: float
    after_deployment: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What was seen of one metric. Units and meaning as in ``findings.proto``; None where nothing could be
    estimated."""

    metric: str
    verdict: Verdict
    sentence: str
    reason: str
    spec: MetricSpec
    effect: float | None = None
    effect_low: float | None = None
    effect_high: float | None = None
    p_value: float | None = None
    adjusted_p_value: float | None = None
    log_e_value: float | None = None
    n_effective: float | None = None
    baseline_points: int = 0
    canary_points: int = 0
    baseline_level: float | None = None
    canary_level: float | None = None
    method: str = ""
    history_windows: int = 0
    history_exceeding: int = 0
    minimum_detectable_effect: float | None = None
    time_to_answer: float | None = None
    onset: Onset | None = None
    quality: tuple[QualityNote, ...] = ()
    derived_fields: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GroupFinding:
    """The outcome of one group of metrics."""

    group: str
    verdict: Verdict
    adjusted_p_value: float | None
    metrics: int
    failing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StateSpan:
    """A stretch of time in one state: ``[start, end)``; end None while it lasts. ``muted`` as the source
    told."""

    state: MonitorState
    start: float
    end: float | None = None
    muted: bool = False


@dataclass(frozen=True, slots=True)
class MonitorEvidence:
    """What was seen of one monitor or group that a rule's query matched; the timeline is cut to the
    window."""

    monitor_id: str
    name: str
    group: str
    timeline: tuple[StateSpan, ...]
    muted: bool
    failing: bool
    url: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a rule saw at one look.

    Parameters
    ----------
    verdict:
        What follows from what was seen, before any policy; None while nothing can be said.
    seen:
        How much was seen of what the rule needs. ``TOO_LITTLE`` lets `on_insufficient_data` decide at the
        end.
    settled:
        True when nothing that comes later can change the answer: all points are there, or the window is over.
    source_error:
        Why the source could not be asked; empty when it could.
    """

    verdict: Verdict | None
    seen: Seen
    settled: bool
    sentence: str
    reason: str
    source_error: str = ""
    findings: tuple[Finding, ...] = ()
    groups: tuple[GroupFinding, ...] = ()
    monitors: tuple[MonitorEvidence, ...] = ()
    as_of: float | None = None


@dataclass(frozen=True, slots=True)
class RuleResult:
    """The outcome of one rule, so far (``done`` False) or for good.

    ``verdict`` is what the rule found, its policies applied, whatever its mode; ``effective_verdict`` what
    counts towards the gate, None for a dry run and while there is no verdict.
    """

    rule: str
    mode: RuleMode
    verdict: Verdict | None = None
    effective_verdict: Verdict | None = None
    done: bool = False
    sentence: str = ""
    reason: str = ""
    findings: tuple[Finding, ...] = ()
    groups: tuple[GroupFinding, ...] = ()
    monitors: tuple[MonitorEvidence, ...] = ()
    policy_applied: str = ""
    not_awaited: bool = False
    seen: Seen = Seen.NOTHING
    source_error: str = ""
    as_of: float | None = None
    end_time: float | None = None


# --- evaluations


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something: the name of a token, the identity of a certificate, or ``anonymous``."""

    name: str
    kind: str = "token"


@dataclass(frozen=True, slots=True)
class Override:
    """A person's decision in place of the computed one. The verdict stays as it was."""

    decision: Decision
    reason: str
    actor: str
    time: float


@dataclass(frozen=True, slots=True)
class Label:
    """What really happened, told by a person afterwards."""

    kind: LabelKind
    actor: str
    time: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run of a gate, or of rules given inline, for one deployment.

    Parameters
    ----------
    gate:
        The gate as it was when the evaluation began; it never changes with the stored one. Revision 0:
        inline rules.
    version:
        Grows by 1 with every change; watchers resume after the version they saw.
    verdict, decision:
        None until known. The decision is known as soon as every rule that counts is through, which may be
        before the state is SUCCEEDED: dry-run rules are still watched.
    would_decide:
        What a dry-run gate would have decided; None for others.
    ensure_key, expire_time:
        Key and life time of an evaluation that was made by EnsureEvaluation; "" and None otherwise.
    series_complete:
        Whether the writers of series have said that no more points will come.
    """

    id: str
    gate: Gate
    deployment: Deployment
    create_time: float
    state: EvaluationState = EvaluationState.PENDING
    version: int = 1
    verdict: Verdict | None = None
    decision: Decision | None = None
    would_decide: Decision | None = None
    sentence: str = ""
    results: tuple[RuleResult, ...] = ()
    start_time: float | None = None
    update_time: float = 0.0
    decide_time: float | None = None
    end_time: float | None = None
    created_by: str = ""
    request_id: str = ""
    ensure_key: str = ""
    expire_time: float | None = None
    series_complete: bool = False
    override: Override | None = None
    labels: tuple[Label, ...] = ()
    cancelled_by: str = ""
    cancel_reason: str = ""

    @property
    def deployed_at(self) -> float:
        """When the deployment began: as told, else when the evaluation was made."""
        return self.create_time if self.deployment.start_time is None else self.deployment.start_time

    @property
    def standing_decision(self) -> Decision | None:
        """What the orchestrator should do now: the override if there is one, else what was computed.

        A cancelled evaluation holds, whatever was said of it before.
        """
        if self.override is None or self.state is EvaluationState.CANCELLED:
            return self.decision
        return self.override.decision

    @property
    def finished(self) -> bool:
        """Whether nothing but overrides and labels can change any more."""
        return self.state in (EvaluationState.SUCCEEDED, EvaluationState.CANCELLED)

    def result(self, rule: str) -> RuleResult:
        """Return the result of one rule.

        Raises
        ------
        KeyError
            When the evaluation has no such rule.
        """
        for result in self.results:
            if result.rule == rule:
                return result
        raise KeyError(rule)
