import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MetricKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    METRIC_KIND_UNSPECIFIED: _ClassVar[MetricKind]
    METRIC_KIND_GAUGE: _ClassVar[MetricKind]
    METRIC_KIND_COUNTER: _ClassVar[MetricKind]
    METRIC_KIND_RATIO: _ClassVar[MetricKind]
    METRIC_KIND_HISTOGRAM: _ClassVar[MetricKind]
    METRIC_KIND_COUNT: _ClassVar[MetricKind]
    METRIC_KIND_SATURATION: _ClassVar[MetricKind]

class Direction(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DIRECTION_UNSPECIFIED: _ClassVar[Direction]
    DIRECTION_UP_IS_WORSE: _ClassVar[Direction]
    DIRECTION_DOWN_IS_WORSE: _ClassVar[Direction]
    DIRECTION_EITHER: _ClassVar[Direction]

class Scale(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCALE_UNSPECIFIED: _ClassVar[Scale]
    SCALE_LOG: _ClassVar[Scale]
    SCALE_LINEAR: _ClassVar[Scale]

class Criticality(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CRITICALITY_UNSPECIFIED: _ClassVar[Criticality]
    CRITICALITY_NORMAL: _ClassVar[Criticality]
    CRITICALITY_CRITICAL: _ClassVar[Criticality]
    CRITICALITY_HOLD_ONLY: _ClassVar[Criticality]

class Design(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    DESIGN_UNSPECIFIED: _ClassVar[Design]
    DESIGN_CONCURRENT: _ClassVar[Design]
    DESIGN_BEFORE_AFTER: _ClassVar[Design]
    DESIGN_DIFFERENCE_IN_DIFFERENCES: _ClassVar[Design]

class Arm(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ARM_UNSPECIFIED: _ClassVar[Arm]
    ARM_BASELINE: _ClassVar[Arm]
    ARM_CANARY: _ClassVar[Arm]

class Phase(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PHASE_UNSPECIFIED: _ClassVar[Phase]
    PHASE_PRE: _ClassVar[Phase]
    PHASE_POST: _ClassVar[Phase]
METRIC_KIND_UNSPECIFIED: MetricKind
METRIC_KIND_GAUGE: MetricKind
METRIC_KIND_COUNTER: MetricKind
METRIC_KIND_RATIO: MetricKind
METRIC_KIND_HISTOGRAM: MetricKind
METRIC_KIND_COUNT: MetricKind
METRIC_KIND_SATURATION: MetricKind
DIRECTION_UNSPECIFIED: Direction
DIRECTION_UP_IS_WORSE: Direction
DIRECTION_DOWN_IS_WORSE: Direction
DIRECTION_EITHER: Direction
SCALE_UNSPECIFIED: Scale
SCALE_LOG: Scale
SCALE_LINEAR: Scale
CRITICALITY_UNSPECIFIED: Criticality
CRITICALITY_NORMAL: Criticality
CRITICALITY_CRITICAL: Criticality
CRITICALITY_HOLD_ONLY: Criticality
DESIGN_UNSPECIFIED: Design
DESIGN_CONCURRENT: Design
DESIGN_BEFORE_AFTER: Design
DESIGN_DIFFERENCE_IN_DIFFERENCES: Design
ARM_UNSPECIFIED: Arm
ARM_BASELINE: Arm
ARM_CANARY: Arm
PHASE_UNSPECIFIED: Phase
PHASE_PRE: Phase
PHASE_POST: Phase

class MetricSpec(_message.Message):
    __slots__ = ("name", "kind", "direction", "scale", "margin", "criticality", "group", "weight", "alpha", "alpha_pass", "unit")
    NAME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    CRITICALITY_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    ALPHA_PASS_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    name: str
    kind: MetricKind
    direction: Direction
    scale: Scale
    margin: float
    criticality: Criticality
    group: str
    weight: float
    alpha: float
    alpha_pass: float
    unit: str
    def __init__(self, name: _Optional[str] = ..., kind: _Optional[_Union[MetricKind, str]] = ..., direction: _Optional[_Union[Direction, str]] = ..., scale: _Optional[_Union[Scale, str]] = ..., margin: _Optional[float] = ..., criticality: _Optional[_Union[Criticality, str]] = ..., group: _Optional[str] = ..., weight: _Optional[float] = ..., alpha: _Optional[float] = ..., alpha_pass: _Optional[float] = ..., unit: _Optional[str] = ...) -> None: ...

class HistogramRows(_message.Message):
    __slots__ = ("metric", "upper_bounds", "counts")
    METRIC_FIELD_NUMBER: _ClassVar[int]
    UPPER_BOUNDS_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    metric: str
    upper_bounds: _containers.RepeatedScalarFieldContainer[float]
    counts: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, metric: _Optional[str] = ..., upper_bounds: _Optional[_Iterable[float]] = ..., counts: _Optional[_Iterable[float]] = ...) -> None: ...

class SeriesBlock(_message.Message):
    __slots__ = ("arm", "phase", "instance", "metrics", "start_time", "step", "columns", "values", "exposure", "histograms", "sequence")
    ARM_FIELD_NUMBER: _ClassVar[int]
    PHASE_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_FIELD_NUMBER: _ClassVar[int]
    VALUES_FIELD_NUMBER: _ClassVar[int]
    EXPOSURE_FIELD_NUMBER: _ClassVar[int]
    HISTOGRAMS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    arm: Arm
    phase: Phase
    instance: str
    metrics: _containers.RepeatedScalarFieldContainer[str]
    start_time: _timestamp_pb2.Timestamp
    step: _duration_pb2.Duration
    columns: int
    values: _containers.RepeatedScalarFieldContainer[float]
    exposure: _containers.RepeatedScalarFieldContainer[float]
    histograms: _containers.RepeatedCompositeFieldContainer[HistogramRows]
    sequence: int
    def __init__(self, arm: _Optional[_Union[Arm, str]] = ..., phase: _Optional[_Union[Phase, str]] = ..., instance: _Optional[str] = ..., metrics: _Optional[_Iterable[str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., step: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., columns: _Optional[int] = ..., values: _Optional[_Iterable[float]] = ..., exposure: _Optional[_Iterable[float]] = ..., histograms: _Optional[_Iterable[_Union[HistogramRows, _Mapping]]] = ..., sequence: _Optional[int] = ...) -> None: ...

class HistoryWindow(_message.Message):
    __slots__ = ("baseline", "canary")
    BASELINE_FIELD_NUMBER: _ClassVar[int]
    CANARY_FIELD_NUMBER: _ClassVar[int]
    baseline: SeriesBlock
    canary: SeriesBlock
    def __init__(self, baseline: _Optional[_Union[SeriesBlock, _Mapping]] = ..., canary: _Optional[_Union[SeriesBlock, _Mapping]] = ...) -> None: ...
