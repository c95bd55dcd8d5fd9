import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from tidegate.v1 import monitors_pb2 as _monitors_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PushStatesRequest(_message.Message):
    __slots__ = ("states", "source")
    STATES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[_monitors_pb2.MonitorStateReport]
    source: str
    def __init__(self, states: _Optional[_Iterable[_Union[_monitors_pb2.MonitorStateReport, _Mapping]]] = ..., source: _Optional[str] = ...) -> None: ...

class PushStatesResponse(_message.Message):
    __slots__ = ("accepted", "unchanged", "out_of_order")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_ORDER_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    unchanged: int
    out_of_order: int
    def __init__(self, accepted: _Optional[int] = ..., unchanged: _Optional[int] = ..., out_of_order: _Optional[int] = ...) -> None: ...

class StreamStatesRequest(_message.Message):
    __slots__ = ("states", "source")
    STATES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    states: _containers.RepeatedCompositeFieldContainer[_monitors_pb2.MonitorStateReport]
    source: str
    def __init__(self, states: _Optional[_Iterable[_Union[_monitors_pb2.MonitorStateReport, _Mapping]]] = ..., source: _Optional[str] = ...) -> None: ...

class StreamStatesResponse(_message.Message):
    __slots__ = ("accepted", "unchanged", "out_of_order")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_ORDER_FIELD_NUMBER: _ClassVar[int]
    accepted: int
    unchanged: int
    out_of_order: int
    def __init__(self, accepted: _Optional[int] = ..., unchanged: _Optional[int] = ..., out_of_order: _Optional[int] = ...) -> None: ...

class ListMonitorsRequest(_message.Message):
    __slots__ = ("query", "page_size", "page_token")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    query: str
    page_size: int
    page_token: str
    def __init__(self, query: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListMonitorsResponse(_message.Message):
    __slots__ = ("monitors", "next_page_token", "total_size")
    MONITORS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    monitors: _containers.RepeatedCompositeFieldContainer[_monitors_pb2.Monitor]
    next_page_token: str
    total_size: int
    def __init__(self, monitors: _Optional[_Iterable[_Union[_monitors_pb2.Monitor, _Mapping]]] = ..., next_page_token: _Optional[str] = ..., total_size: _Optional[int] = ...) -> None: ...

class GetMonitorRequest(_message.Message):
    __slots__ = ("name", "start_time", "end_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class GetMonitorResponse(_message.Message):
    __slots__ = ("monitor", "timelines")
    MONITOR_FIELD_NUMBER: _ClassVar[int]
    TIMELINES_FIELD_NUMBER: _ClassVar[int]
    monitor: _monitors_pb2.Monitor
    timelines: _containers.RepeatedCompositeFieldContainer[_monitors_pb2.MonitorTimeline]
    def __init__(self, monitor: _Optional[_Union[_monitors_pb2.Monitor, _Mapping]] = ..., timelines: _Optional[_Iterable[_Union[_monitors_pb2.MonitorTimeline, _Mapping]]] = ...) -> None: ...

class DeleteMonitorRequest(_message.Message):
    __slots__ = ("name", "group")
    NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    name: str
    group: str
    def __init__(self, name: _Optional[str] = ..., group: _Optional[str] = ...) -> None: ...

class DeleteMonitorResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateDowntimeRequest(_message.Message):
    __slots__ = ("downtime",)
    DOWNTIME_FIELD_NUMBER: _ClassVar[int]
    downtime: _monitors_pb2.Downtime
    def __init__(self, downtime: _Optional[_Union[_monitors_pb2.Downtime, _Mapping]] = ...) -> None: ...

class CreateDowntimeResponse(_message.Message):
    __slots__ = ("downtime",)
    DOWNTIME_FIELD_NUMBER: _ClassVar[int]
    downtime: _monitors_pb2.Downtime
    def __init__(self, downtime: _Optional[_Union[_monitors_pb2.Downtime, _Mapping]] = ...) -> None: ...

class ListDowntimesRequest(_message.Message):
    __slots__ = ("page_size", "page_token", "show_ended")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SHOW_ENDED_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    show_ended: bool
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., show_ended: bool = ...) -> None: ...

class ListDowntimesResponse(_message.Message):
    __slots__ = ("downtimes", "next_page_token")
    DOWNTIMES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    downtimes: _containers.RepeatedCompositeFieldContainer[_monitors_pb2.Downtime]
    next_page_token: str
    def __init__(self, downtimes: _Optional[_Iterable[_Union[_monitors_pb2.Downtime, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class DeleteDowntimeRequest(_message.Message):
    __slots__ = ("name",)
    NAME_FIELD_NUMBER: _ClassVar[int]
    name: str
    def __init__(self, name: _Optional[str] = ...) -> None: ...

class DeleteDowntimeResponse(_message.Message):
    __slots__ = ("downtime",)
    DOWNTIME_FIELD_NUMBER: _ClassVar[int]
    downtime: _monitors_pb2.Downtime
    def __init__(self, downtime: _Optional[_Union[_monitors_pb2.Downtime, _Mapping]] = ...) -> None: ...
