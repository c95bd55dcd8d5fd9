import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidegate.v1 import deployments_pb2 as _deployments_pb2
from tidegate.v1 import evaluations_pb2 as _evaluations_pb2
from tidegate.v1 import findings_pb2 as _findings_pb2
from tidegate.v1 import metrics_pb2 as _metrics_pb2
from tidegate.v1 import rules_pb2 as _rules_pb2
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

class InlineRules(_message.Message):
    __slots__ = ("rules", "dry_run")
    RULES_FIELD_NUMBER: _ClassVar[int]
    DRY_RUN_FIELD_NUMBER: _ClassVar[int]
    rules: _containers.RepeatedCompositeFieldContainer[_rules_pb2.Rule]
    dry_run: bool
    def __init__(self, rules: _Optional[_Iterable[_Union[_rules_pb2.Rule, _Mapping]]] = ..., dry_run: bool = ...) -> None: ...

class StartEvaluationRequest(_message.Message):
    __slots__ = ("gate", "inline_rules", "deployment", "request_id", "validate_only")
    GATE_FIELD_NUMBER: _ClassVar[int]
    INLINE_RULES_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    gate: str
    inline_rules: InlineRules
    deployment: _deployments_pb2.Deployment
    request_id: str
    validate_only: bool
    def __init__(self, gate: _Optional[str] = ..., inline_rules: _Optional[_Union[InlineRules, _Mapping]] = ..., deployment: _Optional[_Union[_deployments_pb2.Deployment, _Mapping]] = ..., request_id: _Optional[str] = ..., validate_only: bool = ...) -> None: ...

class StartEvaluationResponse(_message.Message):
    __slots__ = ("evaluation",)
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    evaluation: _evaluations_pb2.Evaluation
    def __init__(self, evaluation: _Optional[_Union[_evaluations_pb2.Evaluation, _Mapping]] = ...) -> None: ...

class EnsureEvaluationRequest(_message.Message):
    __slots__ = ("key", "ttl", "gate", "inline_rules", "deployment")
    KEY_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    GATE_FIELD_NUMBER: _ClassVar[int]
    INLINE_RULES_FIELD_NUMBER: _ClassVar[int]
    DEPLOYMENT_FIELD_NUMBER: _ClassVar[int]
    key: str
    ttl: _duration_pb2.Duration
    gate: str
    inline_rules: InlineRules
    deployment: _deployments_pb2.Deployment
    def __init__(self, key: _Optional[str] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., gate: _Optional[str] = ..., inline_rules: _Optional[_Union[InlineRules, _Mapping]] = ..., deployment: _Optional[_Union[_deployments_pb2.Deployment, _Mapping]] = ...) -> None: ...

class EnsureEvaluationResponse(_message.Message):
    __slots__ = ("evaluation", "created")
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    evaluation: _evaluations_pb2.Evaluation
    created: bool
    def __init__(self, evaluation: _Optional[_Union[_evaluations_pb2.Evaluation, _Mapping]] = ..., created: bool = ...) -> None: ...

class GetEvaluationRequest(_message.Message):
    __slots__ = ("name", "view")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    name: str
    view: _evaluations_pb2.EvaluationView
    def __init__(self, name: _Optional[str] = ..., view: _Optional[_Union[_evaluations_pb2.EvaluationView, str]] = ...) -> None: ...

class GetEvaluationResponse(_message.Message):
    __slots__ = ("evaluation",)
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    evaluation: _evaluations_pb2.Evaluation
    def __init__(self, evaluation: _Optional[_Union[_evaluations_pb2.Evaluation, _Mapping]] = ...) -> None: ...

class ListEvaluationsRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "filter", "view")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    filter: str
    view: _evaluations_pb2.EvaluationView
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., view: _Optional[_Union[_evaluations_pb2.EvaluationView, str]] = ...) -> None: ...

class ListEvaluationsResponse(_message.Message):
    __slots__ = ("evaluations", "next_page_token")
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    evaluations: _containers.RepeatedCompositeFieldContainer[_evaluations_pb2.Evaluation]
    next_page_token: str
    def __init__(self, evaluations: _Optional[_Iterable[_Union[_evaluations_pb2.Evaluation, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchEvaluationRequest(_message.Message):
    __slots__ = ("name", "after_version", "until_decided", "view")
    NAME_FIELD_NUMBER: _ClassVar[int]
    AFTER_VERSION_FIELD_NUMBER: _ClassVar[int]
    UNTIL_DECIDED_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    name: str
    after_version: int
    until_decided: bool
    view: _evaluations_pb2.EvaluationView
    def __init__(self, name: _Optional[str] = ..., after_version: _Optional[int] = ..., until_decided: bool = ..., view: _Optional[_Union[_evaluations_pb2.EvaluationView, str]] = ...) -> None: ...

class WatchEvaluationResponse(_message.Message):
    __slots__ = ("evaluation", "final")
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    FINAL_FIELD_NUMBER: _ClassVar[int]
    evaluation: _evaluations_pb2.Evaluation
    final: bool
    def __init__(self, evaluation: _Optional[_Union[_evaluations_pb2.Evaluation, _Mapping]] = ..., final: bool = ...) -> None: ...

class CancelEvaluationRequest(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelEvaluationResponse(_message.Message):
    __slots__ = ("evaluation",)
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    evaluation: _evaluations_pb2.Evaluation
    def __init__(self, evaluation: _Optional[_Union[_evaluations_pb2.Evaluation, _Mapping]] = ...) -> None: ...

class OverrideEvaluationRequest(_message.Message):
    __slots__ = ("name", "decision", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DECISION_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    decision: _findings_pb2.Decision
    reason: str
    def __init__(self, name: _Optional[str] = ..., decision: _Optional[_Union[_findings_pb2.Decision, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class OverrideEvaluationResponse(_message.Message):
    __slots__ = ("evaluation",)
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    evaluation: _evaluations_pb2.Evaluation
    def __init__(self, evaluation: _Optional[_Union[_evaluations_pb2.Evaluation, _Mapping]] = ...) -> None: ...

class LabelEvaluationRequest(_message.Message):
    __slots__ = ("name", "kind", "note")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: _evaluations_pb2.LabelKind
    note: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[_evaluations_pb2.LabelKind, str]] = ..., note: _Optional[str] = ...) -> None: ...

class LabelEvaluationResponse(_message.Message):
    __slots__ = ("evaluation",)
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    evaluation: _evaluations_pb2.Evaluation
    def __init__(self, evaluation: _Optional[_Union[_evaluations_pb2.Evaluation, _Mapping]] = ...) -> None: ...

class GetEvidenceRequest(_message.Message):
    __slots__ = ("name", "rule", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    RULE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    rule: str
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., rule: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class GetEvidenceResponse(_message.Message):
    __slots__ = ("rule_results", "blocks", "next_page_token")
    RULE_RESULTS_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    rule_results: _containers.RepeatedCompositeFieldContainer[_rules_pb2.RuleResult]
    blocks: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.SeriesBlock]
    next_page_token: str
    def __init__(self, rule_results: _Optional[_Iterable[_Union[_rules_pb2.RuleResult, _Mapping]]] = ..., blocks: _Optional[_Iterable[_Union[_metrics_pb2.SeriesBlock, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WriteSeriesRequest(_message.Message):
    __slots__ = ("name", "writer", "blocks", "complete")
    NAME_FIELD_NUMBER: _ClassVar[int]
    WRITER_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    name: str
    writer: str
    blocks: _containers.RepeatedCompositeFieldContainer[_metrics_pb2.SeriesBlock]
    complete: bool
    def __init__(self, name: _Optional[str] = ..., writer: _Optional[str] = ..., blocks: _Optional[_Iterable[_Union[_metrics_pb2.SeriesBlock, _Mapping]]] = ..., complete: bool = ...) -> None: ...

class WriteSeriesResponse(_message.Message):
    __slots__ = ("acknowledged_sequence", "blocks_taken")
    ACKNOWLEDGED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_TAKEN_FIELD_NUMBER: _ClassVar[int]
    acknowledged_sequence: int
    blocks_taken: int
    def __init__(self, acknowledged_sequence: _Optional[int] = ..., blocks_taken: _Optional[int] = ...) -> None: ...
