import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidegate.v1 import metrics_pb2 as _metrics_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Verdict(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERDICT_UNSPECIFIED: _ClassVar[Verdict]
    VERDICT_PASS: _ClassVar[Verdict]
    VERDICT_FAIL: _ClassVar[Verdict]
    VERDICT_INCONCLUSIVE: _ClassVar[Verdict]
    VERDICT_ERROR: _ClassVar[Verdict]

class Decision(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DECISION_UNSPECIFIED: _ClassVar[Decision]
    DECISION_PROCEED: _ClassVar[Decision]
    DECISION_HALT: _ClassVar[Decision]
    DECISION_HOLD: _ClassVar[Decision]
VERDICT_UNSPECIFIED: Verdict
VERDICT_PASS: Verdict
VERDICT_FAIL: Verdict
VERDICT_INCONCLUSIVE: Verdict
VERDICT_ERROR: Verdict
DECISION_UNSPECIFIED: Decision
DECISION_PROCEED: Decision
DECISION_HALT: Decision
DECISION_HOLD: Decision

class QualityNote(_message.Message):
    __slots__ = ("code", "count", "message")
    CODE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    code: str
    count: int
    message: str
    def __init__(self, code: _Optional[str] = ..., count: _Optional[int] = ..., message: _Optional[str] = ...) -> None: ...

class Onset(_message.Message):
    __slots__ = ("time", "earliest", "latest", "after_deployment")
    TIME_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_FIELD_NUMBER: _ClassVar[int]
    LATEST_FIELD_NUMBER: _ClassVar[int]
    AFTER_DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    time: _timestamp_pb2.Timestamp
    earliest: _timestamp_pb2.Timestamp
    latest: _timestamp_pb2.Timestamp
    after_deployment: _duration_pb2.Duration
    def __init__(self, time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., earliest: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., latest: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., after_deployment: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Finding(_message.Message):
    __slots__ = ("metric", "verdict", "sentence", "reason", "effect", "effect_low", "effect_high", "p_value", "adjusted_p_value", "log_e_value", "n_effective", "baseline_points", "canary_points", "baseline_level", "canary_level", "method", "history_windows", "history_exceeding", "minimum_detectable_effect", "time_to_answer", "onset", "quality", "spec", "derived_fields")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EFFECT_FIELD_NUMBER: _ClassVar[int]
    EFFECT_LOW_FIELD_NUMBER: _ClassVar[int]
    EFFECT_HIGH_FIELD_NUMBER: _ClassVar[int]
    P_VALUE_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    LOG_E_VALUE_FIELD_NUMBER: _ClassVar[int]
    N_EFFECTIVE_FIELD_NUMBER: _ClassVar[int]
    BASELINE_POINTS_FIELD_NUMBER: _ClassVar[int]
    CANARY_POINTS_FIELD_NUMBER: _ClassVar[int]
    BASELINE_LEVEL_FIELD_NUMBER: _ClassVar[int]
    CANARY_LEVEL_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    HISTORY_WINDOWS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_EXCEEDING_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_DETECTABLE_EFFECT_FIELD_NUMBER: _ClassVar[int]
    TIME_TO_ANSWER_FIELD_NUMBER: _ClassVar[int]
    ONSET_FIELD_NUMBER: _ClassVar[int]
    QUALITY_FIELD_NUMBER: _ClassVar[int]
    SPEC_FIELD_NUMBER: _ClassVar[int]
    DERIVED_FIELDS_FIELD_NUMBER: _ClassVar[int]
    metric: str
    verdict: Verdict
    sentence: str
    reason: str
    effect: float
    effect_low: float
    effect_high: float
    p_value: float
    adjusted_p_value: float
    log_e_value: float
    n_effective: float
    baseline_points: int
    canary_points: int
    baseline_level: float
    canary_level: float
    method: str
    history_windows: int
    history_exceeding: int
    minimum_detectable_effect: float
    time_to_answer: _duration_pb2.Duration
    onset: Onset
    quality: _containers.RepeatedCompositeFieldContainer[QualityNote]
    spec: _metrics_pb2.MetricSpec
    derived_fields: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, metric: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., sentence: _Optional[str] = ..., reason: _Optional[str] = ..., effect: _Optional[float] = ..., effect_low: _Optional[float] = ..., effect_high: _Optional[float] = ..., p_value: _Optional[float] = ..., adjusted_p_value: _Optional[float] = ..., log_e_value: _Optional[float] = ..., n_effective: _Optional[float] = ..., baseline_points: _Optional[int] = ..., canary_points: _Optional[int] = ..., baseline_level: _Optional[float] = ..., canary_level: _Optional[float] = ..., method: _Optional[str] = ..., history_windows: _Optional[int] = ..., history_exceeding: _Optional[int] = ..., minimum_detectable_effect: _Optional[float] = ..., time_to_answer: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., onset: _Optional[_Union[Onset, _Mapping]] = ..., quality: _Optional[_Iterable[_Union[QualityNote, _Mapping]]] = ..., spec: _Optional[_Union[_metrics_pb2.MetricSpec, _Mapping]] = ..., derived_fields: _Optional[_Iterable[str]] = ...) -> None: ...

class GroupFinding(_message.Message):
    __slots__ = ("group", "verdict", "adjusted_p_value", "metrics", "failing")
    GROUP_FIELD_NUMBER: _ClassVar[int]
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    ADJUSTED_P_VALUE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    FAILING_FIELD_NUMBER: _ClassVar[int]
    group: str
    verdict: Verdict
    adjusted_p_value: float
    metrics: int
    failing: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, group: _Optional[str] = ..., verdict: _Optional[_Union[Verdict, str]] = ..., adjusted_p_value: _Optional[float] = ..., metrics: _Optional[int] = ..., failing: _Optional[_Iterable[str]] = ...) -> None: ...
