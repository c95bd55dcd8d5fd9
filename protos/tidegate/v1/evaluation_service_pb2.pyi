import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidegate.v1 import deployments_pb2 as _deployments_pb2
from tidegate.v1 import findings_pb2 as _findings_pb2
from tidegate.v1 import metrics_pb2 as _metrics_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AnalysisOptions(_message.Message):
    __slots__ = ("false_discovery_rate", "warm_up", "horizon")
    FALSE_DISCOVERY_RATE_FIELD_NUMBER: _ClassVar[int]
    WARM_UP_FIELD_NUMBER: _ClassVar[int]
    HORIZON_FIELD_NUMBER: _ClassVar[int]
    false_discovery_rate: float
    warm_up: _duration_pb2.Duration
    horizon: _duration_pb2.Duration
    def __init__(self, false_discovery_rate: _Optional[float] = ..., warm_up: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., horizon: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AnalyzeRequest(_message.Message):
    __slots__ = ("metrics", "design", "blocks", "history", "options", "deployment")
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DESIGN_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    metrics: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.MetricSpec]
    design: _metrics_pb2.Design
    blocks: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.SeriesBlock]
    history: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.HistoryWindow]
    options: AnalysisOptions
    deployment: _deployments_pb2.Deployment
    def __init__(self, metrics: _Optional[_Iterable[_Union[_metrics_pb2.MetricSpec, _Mapping]]] = ..., design: _Optional[_Union[_metrics_pb2.Design, str]] = ..., blocks: _Optional[_Iterable[_Union[_metrics_pb2.SeriesBlock, _Mapping]]] = ..., history: _Optional[_Iterable[_Union[_metrics_pb2.HistoryWindow, _Mapping]]] = ..., options: _Optional[_Union[AnalysisOptions, _Mapping]] = ..., deployment: _Optional[_Union[_deployments_pb2.Deployment, _Mapping]] = ...) -> None: ...

class AnalyzeResponse(_message.Message):
    __slots__ = ("verdict", "decision", "sentence", "findings", "groups", "design")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DESIGN_FIELD_NUMBER: _ClassVar[int]
    verdict: _findings_pb2.Verdict
    decision: _findings_pb2.Decision
    sentence: str
    findings: _containers.RepeatedCompositeFieldContainer[_findings_pb2.Finding]
    groups: _containers.RepeatedCompositeFieldContainer[_findings_pb2.GroupFinding]
    design: _metrics_pb2.Design
    def __init__(self, verdict: _Optional[_Union[_findings_pb2.Verdict, str]] = ..., decision: _Optional[_Union[_findings_pb2.Decision, str]] = ..., sentence: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[_findings_pb2.Finding, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[_findings_pb2.GroupFinding, _Mapping]]] = ..., design: _Optional[_Union[_metrics_pb2.Design, str]] = ...) -> None: ...

class OpenEvaluation(_message.Message):
    __slots__ = ("resume_evaluation_id", "metrics", "design", "history", "options", "deployment")
    RESUME_EVALUATION_ID_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    DESIGN_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    resume_evaluation_id: str
    metrics: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.MetricSpec]
    design: _metrics_pb2.Design
    history: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.HistoryWindow]
    options: AnalysisOptions
    deployment: _deployments_pb2.Deployment
    def __init__(self, resume_evaluation_id: _Optional[str] = ..., metrics: _Optional[_Iterable[_Union[_metrics_pb2.MetricSpec, _Mapping]]] = ..., design: _Optional[_Union[_metrics_pb2.Design, str]] = ..., history: _Optional[_Iterable[_Union[_metrics_pb2.HistoryWindow, _Mapping]]] = ..., options: _Optional[_Union[AnalysisOptions, _Mapping]] = ..., deployment: _Optional[_Union[_deployments_pb2.Deployment, _Mapping]] = ...) -> None: ...

class RequestUpdate(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class FinishEvaluation(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StreamEvaluationRequest(_message.Message):
    __slots__ = ("open", "block", "request_update", "finish")
    OPEN_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    REQUEST_UPDATE_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    open: OpenEvaluation
    block: _metrics_pb2.SeriesBlock
    request_update: RequestUpdate
    finish: FinishEvaluation
    def __init__(self, open: _Optional[_Union[OpenEvaluation, _Mapping]] = ..., block: _Optional[_Union[_metrics_pb2.SeriesBlock, _Mapping]] = ..., request_update: _Optional[_Union[RequestUpdate, _Mapping]] = ..., finish: _Optional[_Union[FinishEvaluation, _Mapping]] = ...) -> None: ...

class EvaluationOpened(_message.Message):
    __slots__ = ("evaluation_id", "acknowledged_sequence", "resume_within")
    EVALUATION_ID_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RESUME_WITHIN_FIELD_NUMBER: _ClassVar[int]
    evaluation_id: str
    acknowledged_sequence: int
    resume_within: _duration_pb2.Duration
    def __init__(self, evaluation_id: _Optional[str] = ..., acknowledged_sequence: _Optional[int] = ..., resume_within: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Acknowledgement(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class VerdictUpdate(_message.Message):
    __slots__ = ("verdict", "decision", "sentence", "findings", "groups", "sequence", "as_of", "final")
    VERDICT_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    SENTENCE_FIELD_NUMBER: _ClassVar[int]
    FINDINGS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    AS_OF_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    verdict: _findings_pb2.Verdict
    decision: _findings_pb2.Decision
    sentence: str
    findings: _containers.RepeatedCompositeFieldContainer[_findings_pb2.Finding]
    groups: _containers.RepeatedCompositeFieldContainer[_findings_pb2.GroupFinding]
    sequence: int
    as_of: _timestamp_pb2.Timestamp
    final: bool
    def __init__(self, verdict: _Optional[_Union[_findings_pb2.Verdict, str]] = ..., decision: _Optional[_Union[_findings_pb2.Decision, str]] = ..., sentence: _Optional[str] = ..., findings: _Optional[_Iterable[_Union[_findings_pb2.Finding, _Mapping]]] = ..., groups: _Optional[_Iterable[_Union[_findings_pb2.GroupFinding, _Mapping]]] = ..., sequence: _Optional[int] = ..., as_of: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., final: bool = ...) -> None: ...

class StreamEvaluationResponse(_message.Message):
    __slots__ = ("opened", "acknowledgement", "update")
    OPENED_FIELD_NUMBER: _ClassVar[int]
    ACKNOWLEDGEMENT_FIELD_NUMBER: _ClassVar[int]
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    opened: EvaluationOpened
    acknowledgement: Acknowledgement
    update: VerdictUpdate
    def __init__(self, opened: _Optional[_Union[EvaluationOpened, _Mapping]] = ..., acknowledgement: _Optional[_Union[Acknowledgement, _Mapping]] = ..., update: _Optional[_Union[VerdictUpdate, _Mapping]] = ...) -> None: ...
