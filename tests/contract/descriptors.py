"""The contract as it is: every file, message, enum and service under protos/tidegate."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).with_name("golden.json")

_TYPES = {
    number: name.removeprefix("TYPE_").lower()
    for name, number in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def files() -> list[FileDescriptor]:
    """Return every file of the contract; new ones are found by themselves."""
    found = []
    for path in sorted((ROOT / "protos").glob("tidegate/**/*_pb2.py")):
        name = ".".join(path.relative_to(ROOT / "protos").with_suffix("").parts)
        found.append(importlib.import_module(name).DESCRIPTOR)
    return found


def messages() -> list[Descriptor]:
    """Return every message, nested ones included, map entries left out."""

    def below(message: Descriptor) -> Iterator[Descriptor]:
        if not message.GetOptions().map_entry:
            yield message
        for nested in message.nested_types:
            yield from below(nested)

    return [m for file in files() for top in file.message_types_by_name.values() for m in below(top)]


def enums() -> list[EnumDescriptor]:
    """Return every enum."""
    top = [enum for file in files() for enum in file.enum_types_by_name.values()]
    return top + [enum for message in messages() for enum in message.enum_types]


def snapshot() -> dict[str, dict[str, str]]:
    """Return what must not change: numbers, types and labels of fields, numbers of enum values, methods."""
    shape: dict[str, dict[str, str]] = {}
    for message in messages():
        shape[message.full_name] = {str(field.number): _field(field) for field in message.fields}
    for enum in enums():
        shape[enum.full_name] = {str(value.number): value.name for value in enum.values}
    for file in files():
        for service in file.services_by_name.values():
            shape[service.full_name] = {m.name: _method(m) for m in service.methods}
    return dict(sorted(shape.items()))


def _field(field: FieldDescriptor) -> str:
    kind = _TYPES[field.type]
    if field.message_type is not None:
        kind = field.message_type.full_name
    elif field.enum_type is not None:
        kind = field.enum_type.full_name
    words = ["repeated"] if field.is_repeated else ["optional"] if field.has_presence else []
    oneof = field.containing_oneof
    if oneof is not None and not oneof.name.startswith("_"):
        words = [f"oneof {oneof.name}"]
    return " ".join([*words, kind, field.name])


def _method(method: Any) -> str:
    asked = "stream " if method.client_streaming else ""
    answered = "stream " if method.server_streaming else ""
    return f"{asked}{method.input_type.full_name} -> {answered}{method.output_type.full_name}"


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(snapshot(), indent=1) + "\n")
