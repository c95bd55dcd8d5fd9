"""The contract: it lints, every field speaks, nothing that was there changed, all messages round-trip."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.descriptors import GOLDEN, ROOT, messages, snapshot

REFRESH = "run: .venv/bin/python -m tests.contract.descriptors"


def buf(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    program = Path(sys.executable).with_name("buf")
    return subprocess.run([program, *arguments], cwd=ROOT, capture_output=True, check=False, timeout=60)


def test_buf_lint_has_nothing_to_say() -> None:
    done = buf("lint")
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (0, "", "")


def test_every_part_has_a_comment() -> None:
    done = buf("build", "-o", "-#format=binpb")
    assert done.returncode == 0, done.stderr.decode()
    image = descriptor_pb2.FileDescriptorSet.FromString(done.stdout)
    silent = []
    seen = 0
    for file in image.file:
        if not file.package.startswith("tidegate."):
            continue
        comments = {tuple(at.path): at.leading_comments for at in file.source_code_info.location}
        for path, name in parts(file):
            seen += 1
            if not comments.get(path, "").strip():
                silent.append(f"{file.name}: {name}")
    assert seen > 200
    assert silent == []


def parts(file: descriptor_pb2.FileDescriptorProto) -> list[tuple[tuple[int, ...], str]]:
    """Return the source path and name of every message, field, enum, value, service and method."""
    found: list[tuple[tuple[int, ...], str]] = []

    def enum_parts(enum: descriptor_pb2.EnumDescriptorProto, path: tuple[int, ...]) -> None:
        found.append((path, enum.name))
        found.extend(((*path, 2, k), f"{enum.name}.{value.name}") for k, value in enumerate(enum.value))

    def message_parts(message: descriptor_pb2.DescriptorProto, path: tuple[int, ...]) -> None:
        if message.options.map_entry:
            return
        found.append((path, message.name))
        found.extend(((*path, 2, k), f"{message.name}.{field.name}") for k, field in enumerate(message.field))
        for k, nested in enumerate(message.nested_type):
            message_parts(nested, (*path, 3, k))
        for k, enum in enumerate(message.enum_type):
            enum_parts(enum, (*path, 4, k))

    for k, message in enumerate(file.message_type):
        message_parts(message, (4, k))
    for k, enum in enumerate(file.enum_type):
        enum_parts(enum, (5, k))
    for k, service in enumerate(file.service):
        found.append(((6, k), service.name))
        found.extend(((6, k, 2, m), f"{service.name}.{one.name}") for m, one in enumerate(service.method))
    return found


def test_nothing_that_was_there_has_changed() -> None:
    now = snapshot()
    broken = [
        f"{owner} {number}: was {was!r}, is {now.get(owner, {}).get(number, 'gone')!r}"
        for owner, fields in json.loads(GOLDEN.read_text()).items()
        for number, was in fields.items()
        if now.get(owner, {}).get(number) != was
    ]
    assert broken == [], "clients in the field would break"


def test_what_is_new_is_in_the_golden_file() -> None:
    golden = json.loads(GOLDEN.read_text())
    new = [
        f"{owner}.{number} {what}"
        for owner, fields in snapshot().items()
        for number, what in fields.items()
        if number not in golden.get(owner, {})
    ]
    assert new == [], REFRESH


def value_of(field: FieldDescriptor, depth: int) -> Any:
    """Return a value that is not the default, another for every field number."""
    number = field.number
    if field.message_type is not None:
        return filled(field.message_type, depth + 1)
    if field.enum_type is not None:
        return field.enum_type.values[-1].number
    kind = field.cpp_type
    if kind in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return number + 0.5
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return True
    if kind == FieldDescriptor.CPPTYPE_STRING:
        return bytes([number, 0, 255]) if field.type == FieldDescriptor.TYPE_BYTES else f"ä-{field.name}"
    return 7 + number


def filled(descriptor: Descriptor, depth: int = 0, choice: int = 0) -> Message:
    """Return a message with every field set; of a oneof the ``choice``-th."""
    message = message_factory.GetMessageClass(descriptor)()
    if descriptor.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        message.seconds, message.nanos = 1_700_000_000 + depth, 123_000_000  # type: ignore[attr-defined]
        return message
    if descriptor.full_name == "google.protobuf.FieldMask":
        message.paths.extend(["one", "two"])  # type: ignore[attr-defined]
        return message
    if depth > 4:
        return message
    for field in descriptor.fields:
        oneof = field.containing_oneof
        if oneof is not None and len(oneof.fields) > 1 and oneof.fields[choice % len(oneof.fields)] is not field:
            continue
        set_field(message, field, value_of_map(field, depth) if is_map(field) else value_of(field, depth))
    return message


def is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def value_of_map(field: FieldDescriptor, depth: int) -> dict[Any, Any]:
    entry = field.message_type.fields_by_name
    return {value_of(entry["key"], depth): value_of(entry["value"], depth)}


def set_field(message: Message, field: FieldDescriptor, value: Any) -> None:
    target = getattr(message, field.name)
    if is_map(field):
        for key, item in value.items():
            if isinstance(item, Message):
                target[key].CopyFrom(item)
            else:
                target[key] = item
    elif field.is_repeated:
        target.extend([value, value])
    elif field.message_type is not None:
        target.CopyFrom(value)
        target.SetInParent()
    else:
        setattr(message, field.name, value)


def check_round_trip(message: Message) -> None:
    kind = type(message)
    assert kind.FromString(message.SerializeToString()) == message
    assert json_format.Parse(json_format.MessageToJson(message), kind()) == message
    by_name = json_format.MessageToJson(message, preserving_proto_field_name=True)
    assert json_format.Parse(by_name, kind()) == message


@pytest.mark.parametrize("descriptor", messages(), ids=lambda d: d.full_name)
def test_every_field_of_every_message_round_trips(descriptor: Descriptor) -> None:
    choices = max([len(oneof.fields) for oneof in descriptor.oneofs], default=1)
    seen: set[str] = set()
    for choice in range(choices):
        message = filled(descriptor, choice=choice)
        seen |= {field.name for field, _ in message.ListFields()}
        check_round_trip(message)
    assert seen == {field.name for field in descriptor.fields}


@functools.cache
def strategy_of(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[Message]:
    """Return a strategy of messages with any subset of their fields set."""
    kind = message_factory.GetMessageClass(descriptor)
    if descriptor.full_name == "google.protobuf.Timestamp":
        return st.builds(kind, seconds=st.integers(0, 253_402_300_799), nanos=st.integers(0, 999_999_999))
    if descriptor.full_name == "google.protobuf.Duration":
        return st.builds(kind, seconds=st.integers(0, 315_576_000_000), nanos=st.integers(0, 999_999_999))
    fields = {
        field.name: st.none() | field_strategy(field, depth)
        for field in descriptor.fields
        if depth < 3 or field.message_type is None
    }

    def build(values: dict[str, Any]) -> Message:
        message = kind()
        for name, value in values.items():
            if value is None:
                continue
            field = descriptor.fields_by_name[name]
            target = getattr(message, name)
            if is_map(field):
                target.update(value)
            elif field.is_repeated:
                target.extend(value)
            elif field.message_type is not None:
                target.CopyFrom(value)
            else:
                setattr(message, name, value)
        return message

    return st.fixed_dictionaries(fields).map(build)


def field_strategy(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    one: st.SearchStrategy[Any]
    if is_map(field):
        entry = field.message_type.fields_by_name
        return st.dictionaries(field_strategy(entry["key"], depth), field_strategy(entry["value"], depth), max_size=2)
    if field.message_type is not None:
        one = strategy_of(field.message_type, depth + 1)
    elif field.enum_type is not None:
        one = st.sampled_from([value.number for value in field.enum_type.values])
    elif field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        one = st.floats(allow_nan=False)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        one = st.booleans()
    elif field.type == FieldDescriptor.TYPE_BYTES:
        one = st.binary(max_size=8)
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        one = st.text(max_size=8)
    else:
        bits = 32 if "32" in str(field.cpp_type) or field.cpp_type == FieldDescriptor.CPPTYPE_UINT32 else 64
        signed = field.cpp_type in (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64)
        bits = 31 if field.cpp_type == FieldDescriptor.CPPTYPE_INT32 else bits
        one = st.integers(0, 2 ** (bits - (1 if signed and bits == 64 else 0)) - 1)
    return st.lists(one, max_size=2) if field.is_repeated else one


BY_NAME = {descriptor.name: descriptor for descriptor in messages()}


@pytest.mark.parametrize(
    "name",
    ["AnalyzeRequest", "AnalyzeResponse", "StreamEvaluationRequest", "StreamEvaluationResponse", "Rule"],
)
def test_any_message_round_trips(name: str) -> None:
    @settings(max_examples=25)
    @given(strategy_of(BY_NAME[name]))
    def check(message: Message) -> None:
        check_round_trip(message)

    check()
