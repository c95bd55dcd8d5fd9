import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidegate.v1 import deployments_pb2 as _deployments_pb2
from tidegate.v1 import findings_pb2 as _findings_pb2
from tidegate.v1 import gates_pb2 as _gates_pb2
from tidegate.v1 import rules_pb2 as _rules_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EvaluationState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVALUATION_STATE_UNSPECIFIED: _ClassVar[EvaluationState]
    EVALUATION_STATE_PENDING: _ClassVar[EvaluationState]
    EVALUATION_STATE_RUNNING: _ClassVar[EvaluationState]
    EVALUATION_STATE_SUCCEEDED: _ClassVar[EvaluationState]
    EVALUATION_STATE_CANCELLED: _ClassVar[EvaluationState]

class LabelKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LABEL_KIND_UNSPECIFIED: _ClassVar[LabelKind]
    LABEL_KIND_TRUE_ALARM: _ClassVar[LabelKind]
    LABEL_KIND_FALSE_ALARM: _ClassVar[LabelKind]
    LABEL_KIND_MISSED: _ClassVar[LabelKind]
    LABEL_KIND_CORRECT_PASS: _ClassVar[LabelKind]

class EvaluationView(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVALUATION_VIEW_UNSPECIFIED: _ClassVar[EvaluationView]
    EVALUATION_VIEW_BASIC: _ClassVar[EvaluationView]
    EVALUATION_VIEW_FULL: _ClassVar[EvaluationView]
EVALUATION_STATE_UNSPECIFIED: EvaluationState
EVALUATION_STATE_PENDING: EvaluationState
EVALUATION_STATE_RUNNING: EvaluationState
EVALUATION_STATE_SUCCEEDED: EvaluationState
EVALUATION_STATE_CANCELLED: EvaluationState
LABEL_KIND_UNSPECIFIED: LabelKind
LABEL_KIND_TRUE_ALARM: LabelKind
LABEL_KIND_FALSE_ALARM: LabelKind
LABEL_KIND_MISSED: LabelKind
LABEL_KIND_CORRECT_PASS: LabelKind
EVALUATION_VIEW_UNSPECIFIED: EvaluationView
EVALUATION_VIEW_BASIC: EvaluationView
EVALUATION_VIEW_FULL: EvaluationView

class Override(_message.Message):
    __slots__ = ("decision", "reason", "actor", "time")
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    decision: _findings_pb2.Decision
    reason: str
    actor: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, decision: _Optional[_Union[_findings_pb2.Decision, str]] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Label(_message.Message):
    __slots__ = ("kind", "note", "actor", "time")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    kind: LabelKind
    note: str
    actor: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, kind: _Optional[_Union[LabelKind, str]] = ..., note: _Optional[str] = ..., actor: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("name", "version", "state", "verdict", "decision", "computed_decision", "would_decide", "sentence", "deployment", "gate", "rule_results", "create_time", "start_time", "decide_time", "end_time", "update_time", "created_by", "override", "labels", "ensure_key", "expire_time", "cancelled_by", "cancel_reason", "series_complete")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    COMPUTED_DECISION_FIELD_NUMBER: _ClassVar[int]
    WOULD_DECIDE_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    RULE_RESULTS_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    DECIDE_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATED_BY_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ENSURE_KEY_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_BY_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REASON_FIELD_NUMBER: _ClassVar[int]
    SERIES_COMPLETE_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    state: EvaluationState
    verdict: _findings_pb2.Verdict
    decision: _findings_pb2.Decision
    computed_decision: _findings_pb2.Decision
    would_decide: _findings_pb2.Decision
    sentence: str
    deployment: _deployments_pb2.Deployment
    gate: _gates_pb2.Gate
    rule_results: _containers.RepeatedCompositeFieldContainer[_rules_pb2.RuleResult]
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    decide_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    created_by: str
    override: Override
    labels: _containers.RepeatedCompositeFieldContainer[Label]
    ensure_key: str
    expire_time: _timestamp_pb2.Timestamp
    cancelled_by: str
    cancel_reason: str
    series_complete: bool
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ..., state: _Optional[_Union[EvaluationState, str]] = ..., verdict: _Optional[_Union[_findings_pb2.Verdict, str]] = ..., decision: _Optional[_Union[_findings_pb2.Decision, str]] = ..., computed_decision: _Optional[_Union[_findings_pb2.Decision, str]] = ..., would_decide: _Optional[_Union[_findings_pb2.Decision, str]] = ..., sentence: _Optional[str] = ..., deployment: _Optional[_Union[_deployments_pb2.Deployment, _Mapping]] = ..., gate: _Optional[_Union[_gates_pb2.Gate, _Mapping]] = ..., rule_results: _Optional[_Iterable[_Union[_rules_pb2.RuleResult, _Mapping]]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., decide_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., created_by: _Optional[str] = ..., override: _Optional[_Union[Override, _Mapping]] = ..., labels: _Optional[_Iterable[_Union[Label, _Mapping]]] = ..., ensure_key: _Optional[str] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., cancelled_by: _Optional[str] = ..., cancel_reason: _Optional[str] = ..., series_complete: bool = ...) -> None: ...
