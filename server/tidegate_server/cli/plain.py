"""Messages of the contract as plain JSON: the words of the project, null for what is unknown.

Enums lose their prefix (``VERDICT_PASS`` becomes ``"PASS"``), an enum that was not set is null, durations
are seconds, times ISO 8601 in UTC, and every field is there, so that a program need not guess.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp


def plain(message: Message) -> dict[str, Any]:
    """Return ``message`` as a dictionary that ``json.dumps`` takes, fields in the order of the contract."""
    return {field.name: _field(message, field) for field in message.DESCRIPTOR.fields}


def word(enum: Any, number: int) -> str | None:
    """Return the word for an enum's number without the enum's prefix; None for the unspecified one."""
    value = enum.values_by_number.get(number)
    if value is None or number == 0:
        return None
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(value.name).removeprefix(prefix)


def seconds(duration: Duration) -> float:
    """Return a duration in seconds."""
    return float(duration.seconds + duration.nanos / 1e9)


def _field(message: Message, field: Any) -> Any:
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = _converter(field.message_type.fields_by_name["value"])
        return {str(key): entry(value[key]) for key in sorted(value)}
    one = _converter(field)
    if field.is_repeated:
        return [one(item) for item in value]
    if field.has_presence and not message.HasField(field.name):
        return None
    return one(value)


def _converter(field: Any) -> Callable[[Any], Any]:
    if field.type == FieldDescriptor.TYPE_ENUM:
        return lambda number: word(field.enum_type, number)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return _message
    if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
        # JSON has no NaN and no infinity.
        return lambda number: number if math.isfinite(number) else None
    return lambda value: value


def _message(message: Message) -> Any:
    if isinstance(message, Timestamp):
        return message.ToJsonString()
    if isinstance(message, Duration):
        return seconds(message)
    return plain(message)
