import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidegate.v1 import findings_pb2 as _findings_pb2
from tidegate.v1 import metrics_pb2 as _metrics_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RuleMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RULE_MODE_UNSPECIFIED: _ClassVar[RuleMode]
    RULE_MODE_ENFORCE: _ClassVar[RuleMode]
    RULE_MODE_HOLD_ONLY: _ClassVar[RuleMode]
    RULE_MODE_DRY_RUN: _ClassVar[RuleMode]

class OutcomePolicy(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_POLICY_UNSPECIFIED: _ClassVar[OutcomePolicy]
    OUTCOME_POLICY_INCONCLUSIVE: _ClassVar[OutcomePolicy]
    OUTCOME_POLICY_PASS: _ClassVar[OutcomePolicy]
    OUTCOME_POLICY_FAIL: _ClassVar[OutcomePolicy]
    OUTCOME_POLICY_ERROR: _ClassVar[OutcomePolicy]

class MonitorState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MONITOR_STATE_UNSPECIFIED: _ClassVar[MonitorState]
    MONITOR_STATE_OK: _ClassVar[MonitorState]
    MONITOR_STATE_WARN: _ClassVar[MonitorState]
    MONITOR_STATE_ALERT: _ClassVar[MonitorState]
    MONITOR_STATE_NO_DATA: _ClassVar[MonitorState]
    MONITOR_STATE_SKIPPED: _ClassVar[MonitorState]
    MONITOR_STATE_UNKNOWN: _ClassVar[MonitorState]

class MonitorScope(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MONITOR_SCOPE_UNSPECIFIED: _ClassVar[MonitorScope]
    MONITOR_SCOPE_ANY: _ClassVar[MonitorScope]
    MONITOR_SCOPE_NEWLY_FAILING: _ClassVar[MonitorScope]

class MutedHandling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MUTED_HANDLING_UNSPECIFIED: _ClassVar[MutedHandling]
    MUTED_HANDLING_EXCLUDE: _ClassVar[MutedHandling]
    MUTED_HANDLING_INCLUDE: _ClassVar[MutedHandling]

class Comparator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    COMPARATOR_UNSPECIFIED: _ClassVar[Comparator]
    COMPARATOR_BELOW: _ClassVar[Comparator]
    COMPARATOR_ABOVE: _ClassVar[Comparator]
RULE_MODE_UNSPECIFIED: RuleMode
RULE_MODE_ENFORCE: RuleMode
RULE_MODE_HOLD_ONLY: RuleMode
RULE_MODE_DRY_RUN: RuleMode
OUTCOME_POLICY_UNSPECIFIED: OutcomePolicy
OUTCOME_POLICY_INCONCLUSIVE: OutcomePolicy
OUTCOME_POLICY_PASS: OutcomePolicy
OUTCOME_POLICY_FAIL: OutcomePolicy
OUTCOME_POLICY_ERROR: OutcomePolicy
MONITOR_STATE_UNSPECIFIED: MonitorState
MONITOR_STATE_OK: MonitorState
MONITOR_STATE_WARN: MonitorState
MONITOR_STATE_ALERT: MonitorState
MONITOR_STATE_NO_DATA: MonitorState
MONITOR_STATE_SKIPPED: MonitorState
MONITOR_STATE_UNKNOWN: MonitorState
MONITOR_SCOPE_UNSPECIFIED: MonitorScope
MONITOR_SCOPE_ANY: MonitorScope
MONITOR_SCOPE_NEWLY_FAILING: MonitorScope
MUTED_HANDLING_UNSPECIFIED: MutedHandling
MUTED_HANDLING_EXCLUDE: MutedHandling
MUTED_HANDLING_INCLUDE: MutedHandling
COMPARATOR_UNSPECIFIED: Comparator
COMPARATOR_BELOW: Comparator
COMPARATOR_ABOVE: Comparator

class Rule(_message.Message):
    __slots__ = ("name", "mode", "on_no_data", "on_insufficient_data", "on_source_error", "regression", "monitor", "threshold")
    NAME_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    ON_NO_DATA_FIELD_NUMBER: _ClassVar[int]
    ON_INSUFFICIENT_DATA_FIELD_NUMBER: _ClassVar[int]
    ON_SOURCE_ERROR_FIELD_NUMBER: _ClassVar[int]
    REGRESSION_FIELD_NUMBER: _ClassVar[int]
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    name: str
    mode: RuleMode
    on_no_data: OutcomePolicy
    on_insufficient_data: OutcomePolicy
    on_source_error: OutcomePolicy
    regression: RegressionRule
    monitor: MonitorRule
    threshold: ThresholdRule
    def __init__(self, name: _Optional[str] = ..., mode: _Optional[_Union[RuleMode, str]] = ..., on_no_data: _Optional[_Union[OutcomePolicy, str]] = ..., on_insufficient_data: _Optional[_Union[OutcomePolicy, str]] = ..., on_source_error: _Optional[_Union[OutcomePolicy, str]] = ..., regression: _Optional[_Union[RegressionRule, _Mapping]] = ..., monitor: _Optional[_Union[MonitorRule, _Mapping]] = ..., threshold: _Optional[_Union[ThresholdRule, _Mapping]] = ...) -> None: ...

class RegressionRule(_message.Message):
    __slots__ = ("metrics", "design", "false_discovery_rate", "warm_up", "horizon")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DESIGN_FIELD_NUMBER: _ClassVar[int]
    FALSE_DISCOVERY_RATE_FIELD_NUMBER: _ClassVar[int]
    WARM_UP_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.MetricSpec]
    design: _metrics_pb2.Design
    false_discovery_rate: float
    warm_up: _duration_pb2.Duration
    horizon: _duration_pb2.Duration
    def __init__(self, metrics: _Optional[_Iterable[_Union[_metrics_pb2.MetricSpec, _Mapping]]] = ..., design: _Optional[_Union[_metrics_pb2.Design, str]] = ..., false_discovery_rate: _Optional[float] = ..., warm_up: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., horizon: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class MonitorRule(_message.Message):
    __slots__ = ("query", "duration", "fail_on", "scope", "muted", "max_matches")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    FAIL_ON_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MUTED_FIELD_NUMBER: _ClassVar[int]
    MAX_MATCHES_FIELD_NUMBER: _ClassVar[int]
    query: str
    duration: _duration_pb2.Duration
    fail_on: _containers.RepeatedScalarFieldContainer[MonitorState]
    scope: MonitorScope
    muted: MutedHandling
    max_matches: int
    def __init__(self, query: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., fail_on: _Optional[_Iterable[_Union[MonitorState, str]]] = ..., scope: _Optional[_Union[MonitorScope, str]] = ..., muted: _Optional[_Union[MutedHandling, str]] = ..., max_matches: _Optional[int] = ...) -> None: ...

class ThresholdRule(_message.Message):
    __slots__ = ("metric", "comparator", "bound", "warm_up", "horizon")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    COMPARATOR_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    WARM_UP_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    metric: _metrics_pb2.MetricSpec
    comparator: Comparator
    bound: float
    warm_up: _duration_pb2.Duration
    horizon: _duration_pb2.Duration
    def __init__(self, metric: _Optional[_Union[_metrics_pb2.MetricSpec, _Mapping]] = ..., comparator: _Optional[_Union[Comparator, str]] = ..., bound: _Optional[float] = ..., warm_up: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., horizon: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class MonitorStateSpan(_message.Message):
    __slots__ = ("state", "start_time", "end_time", "muted")
    STATE_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    MUTED_FIELD_NUMBER: _ClassVar[int]
    state: MonitorState
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    muted: bool
    def __init__(self, state: _Optional[_Union[MonitorState, str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., muted: bool = ...) -> None: ...

class MonitorEvidence(_message.Message):
    __slots__ = ("monitor_id", "name", "group", "timeline", "muted", "failing", "url", "note")
    MONITOR_ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    TIMELINE_FIELD_NUMBER: _ClassVar[int]
    MUTED_FIELD_NUMBER: _ClassVar[int]
    FAILING_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    monitor_id: str
    name: str
    group: str
    timeline: _containers.RepeatedCompositeFieldContainer[MonitorStateSpan]
    muted: bool
    failing: bool
    url: str
    note: str
    def __init__(self, monitor_id: _Optional[str] = ..., name: _Optional[str] = ..., group: _Optional[str] = ..., timeline: _Optional[_Iterable[_Union[MonitorStateSpan, _Mapping]]] = ..., muted: bool = ..., failing: bool = ..., url: _Optional[str] = ..., note: _Optional[str] = ...) -> None: ...

class RuleResult(_message.Message):
    __slots__ = ("rule", "mode", "verdict", "effective_verdict", "sentence", "reason", "findings", "groups", "monitors", "policy_applied", "not_awaited", "done", "end_time", "as_of")
    RULE_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_VERDICT_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    MONITORS_FIELD_NUMBER: _ClassVar[int]
    POLICY_APPLIED_FIELD_NUMBER: _ClassVar[int]
    NOT_AWAITED_FIELD_NUMBER: _ClassVar[int]
    DONE_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    rule: str
    mode: RuleMode
    verdict: _findings_pb2.Verdict
    effective_verdict: _findings_pb2.Verdict
    sentence: str
    reason: str
    findings: _containers.RepeatedCompositeFieldContainer[_findings_pb2.Finding]
    groups: _containers.RepeatedCompositeFieldContainer[_findings_pb2.GroupFinding]
    monitors: _containers.RepeatedCompositeFieldContainer[MonitorEvidence]
    policy_applied: str
    not_awaited: bool
    done: bool
    end_time: _timestamp_pb2.Timestamp
    as_of: _timestamp_pb2.Timestamp
    def __init__(self, rule: _Optional[str] = ..., mode: _Optional[_Union[RuleMode, str]] = ..., verdict: _Optional[_Union[_findings_pb2.Verdict, str]] = ..., effective_verdict: _Optional[_Union[_findings_pb2.Verdict, str]] = ..., sentence: _Optional[str] = ..., reason: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[_findings_pb2.Finding, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[_findings_pb2.GroupFinding, _Mapping]]] = ..., monitors: _Optional[_Iterable[_Union[MonitorEvidence, _Mapping]]] = ..., policy_applied: _Optional[str] = ..., not_awaited: bool = ..., done: bool = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
