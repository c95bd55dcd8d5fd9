from google.protobuf import field_mask_pb2 as _field_mask_pb2
from tidegate.v1 import gates_pb2 as _gates_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CreateGateRequest(_message.Message):
    __slots__ = ("gate", "validate_only")
    GATE_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    gate: _gates_pb2.Gate
    validate_only: bool
    def __init__(self, gate: _Optional[_Union[_gates_pb2.Gate, _Mapping]] = ..., validate_only: bool = ...) -> None: ...

class CreateGateResponse(_message.Message):
    __slots__ = ("gate",)
    GATE_FIELD_NUMBER: _ClassVar[int]
    gate: _gates_pb2.Gate
    def __init__(self, gate: _Optional[_Union[_gates_pb2.Gate, _Mapping]] = ...) -> None: ...

class GetGateRequest(_message.Message):
    __slots__ = ("name", "revision")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    name: str
    revision: int
    def __init__(self, name: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class GetGateResponse(_message.Message):
    __slots__ = ("gate",)
    GATE_FIELD_NUMBER: _ClassVar[int]
    gate: _gates_pb2.Gate
    def __init__(self, gate: _Optional[_Union[_gates_pb2.Gate, _Mapping]] = ...) -> None: ...

class ListGatesRequest(_message.Message):
    __slots__ = ("parent", "page_size", "page_token", "filter")
    PARENT_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    parent: str
    page_size: int
    page_token: str
    filter: str
    def __init__(self, parent: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ...) -> None: ...

class ListGatesResponse(_message.Message):
    __slots__ = ("gates", "next_page_token")
    GATES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    gates: _containers.RepeatedCompositeFieldContainer[_gates_pb2.Gate]
    next_page_token: str
    def __init__(self, gates: _Optional[_Iterable[_Union[_gates_pb2.Gate, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class UpdateGateRequest(_message.Message):
    __slots__ = ("gate", "update_mask", "validate_only", "allow_missing")
    GATE_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    ALLOW_MISSING_FIELD_NUMBER: _ClassVar[int]
    gate: _gates_pb2.Gate
    update_mask: _field_mask_pb2.FieldMask
    validate_only: bool
    allow_missing: bool
    def __init__(self, gate: _Optional[_Union[_gates_pb2.Gate, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., validate_only: bool = ..., allow_missing: bool = ...) -> None: ...

class UpdateGateResponse(_message.Message):
    __slots__ = ("gate",)
    GATE_FIELD_NUMBER: _ClassVar[int]
    gate: _gates_pb2.Gate
    def __init__(self, gate: _Optional[_Union[_gates_pb2.Gate, _Mapping]] = ...) -> None: ...

class DeleteGateRequest(_message.Message):
    __slots__ = ("name", "etag", "validate_only")
    NAME_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    name: str
    etag: str
    validate_only: bool
    def __init__(self, name: _Optional[str] = ..., etag: _Optional[str] = ..., validate_only: bool = ...) -> None: ...

class DeleteGateResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListGateRevisionsRequest(_message.Message):
    __slots__ = ("name", "page_size", "page_token")
    NAME_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    name: str
    page_size: int
    page_token: str
    def __init__(self, name: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListGateRevisionsResponse(_message.Message):
    __slots__ = ("gates", "next_page_token")
    GATES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    gates: _containers.RepeatedCompositeFieldContainer[_gates_pb2.Gate]
    next_page_token: str
    def __init__(self, gates: _Optional[_Iterable[_Union[_gates_pb2.Gate, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...
