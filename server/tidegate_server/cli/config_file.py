"""Gates and rules in YAML: every fault with file, line and column, nothing unknown taken.

Fields are those of the contract, in snake_case or camelCase. Enums go by their short names in any case
(``enforce``), durations as ``15m``, ``90s``, ``1h30m`` or a number of seconds, times in ISO 8601, margins as numbers
or, as in the spec files of ``tidegate analyze``, ``10%``.
"""

from __future__ import annotations

import datetime as dt
import difflib
import math
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from tidegate_server.cli.exits import RefusedError
from tidegate_server.cli.plain import word

MAX_BYTES = 8 * 1024 * 1024
MAX_FAULTS = 20

SERVER_ONLY = frozenset({"name", "uid", "revision", "etag", "create_time", "update_time", "created_by", "updated_by"})
"""Fields of a gate that only the server sets."""

_DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?")
_SHARE = re.compile(r"(\d+(?:\.\d+)?) ?%")
_INTEGERS = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}

Place = tuple[int, int]


@dataclass
class Loaded:
    """A message read from a file, and where each of its fields stands: path to line and column, from 1."""

    message: Message
    source: str
    places: dict[str, Place] = field(default_factory=dict)

    def place_of(self, path: str) -> str:
        """Return ``file:line:column`` of a field, or of the nearest one around it."""
        while path and path not in self.places:
            path = re.sub(r"(\.[^.\[\]]*|\[[^\]]*\]|^[^.\[\]]+)$", "", path)
        line, column = self.places.get(path, (1, 1))
        return f"{self.source}:{line}:{column}"


class _Faults:
    """What is wrong in one file."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.found: list[str] = []

    def add(self, place: Place, message: str) -> None:
        self.found.append(f"{self.source}:{place[0]}:{place[1]}: {message}")

    def raise_any(self) -> None:
        if self.found:
            more = len(self.found) - MAX_FAULTS
            shown = self.found[:MAX_FAULTS] + ([f"and {more} more"] if more > 0 else [])
            raise RefusedError("\n".join(shown))


def load_gates(path: str, kind: type[Message]) -> list[Loaded]:
    """Return the gates of a file: one gate, a list, ``gates: [...]``, or several documents of these.

    Raises
    ------
    RefusedError
        With every fault and its place.
    """
    source = _name(path)
    faults = _Faults(source)
    out = []
    for document in _documents(path):
        items: Any = document
        if isinstance(document, CommentedMap) and "gates" in document:
            extra = [key for key in document if key != "gates"]
            if extra:
                faults.add(_at(document, extra[0]), f"unknown field {extra[0]!r} beside gates")
            items = document["gates"]
        if isinstance(items, CommentedMap):
            items = [items]
        if not isinstance(items, list) or not items:
            faults.add((1, 1), "a gate, a list of gates, or gates: [...] is expected")
            continue
        places = [_at(items, k) if isinstance(items, CommentedSeq) else (1, 1) for k in range(len(items))]
        for item, place in zip(items, places, strict=True):
            loaded = Loaded(kind(), source)
            _fill(loaded, loaded.message, item, "gate", place, faults)
            out.append(loaded)
    faults.raise_any()
    if not out:
        raise RefusedError(f"{source}: holds no gate")
    return out


def load_rules(path: str, kind: type[Message]) -> Loaded:
    """Return the rules of a file: a list of rules, or ``rules: [...]`` with ``dry_run`` beside it.

    Raises
    ------
    RefusedError
        With every fault and its place.
    """
    source = _name(path)
    faults = _Faults(source)
    documents = list(_documents(path))
    if len(documents) != 1:
        raise RefusedError(f"{source}: one document with rules is expected, not {len(documents)}")
    loaded = Loaded(kind(), source)
    item = documents[0]
    if isinstance(item, CommentedSeq):
        _fill_field(loaded, loaded.message, kind.DESCRIPTOR.fields_by_name["rules"], item, "rules", (1, 1), faults)
    else:
        _fill(loaded, loaded.message, item, "", (1, 1), faults)
    faults.raise_any()
    loaded.places = {f"inline_rules.{path}" if path else "inline_rules": place for path, place in loaded.places.items()}
    return loaded


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _documents(path: str) -> Iterator[Any]:
    """Yield the documents of a file that hold anything.

    Raises
    ------
    RefusedError
        When it cannot be read or is no YAML.
    """
    source = _name(path)
    try:
        data = sys.stdin.buffer.read(MAX_BYTES + 1) if path == "-" else Path(path).read_bytes()[: MAX_BYTES + 1]
        text = data.decode("utf-8")
    except OSError as error:
        raise RefusedError(f"{source}: cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise RefusedError(f"{source}:{line}: is not UTF-8") from None
    if len(data) > MAX_BYTES:
        raise RefusedError(f"{source}: is larger than {MAX_BYTES} bytes")
    reader = YAML(typ="rt")
    reader.allow_duplicate_keys = False
    try:
        for document in reader.load_all(text):
            if document is not None:
                yield document
    except MarkedYAMLError as error:
        mark = error.problem_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark is not None else ""
        problem = (error.problem or "is no YAML").splitlines()[0]
        raise RefusedError(f"{source}{place}: {problem}") from None
    except (YAMLError, ValueError, RecursionError) as error:
        raise RefusedError(f"{source}: is no YAML: {str(error).splitlines()[0][:200]}") from None


def _at(holder: Any, key: Any) -> Place:
    try:
        line, column = holder.lc.item(key) if isinstance(holder, CommentedSeq) else holder.lc.key(key)
    except (KeyError, AttributeError, TypeError):
        return (1, 1)
    return (line + 1, column + 1)


def _fill(loaded: Loaded, message: Message, item: Any, path: str, place: Place, faults: _Faults) -> None:
    """Set the fields of a message from a mapping."""
    loaded.places[path] = place
    if not isinstance(item, CommentedMap):
        faults.add(place, f"{path or 'a mapping'}: fields are expected, not {_kind(item)}")
        return
    known = _known(message.DESCRIPTOR)
    chosen: dict[str, str] = {}
    for key, value in item.items():
        at = _at(item, key)
        found = known.get(key) if isinstance(key, str) else None
        if found is None:
            faults.add(at, _unknown(key, path, known))
            continue
        own = f"{path}.{found.name}" if path else found.name
        if message.DESCRIPTOR.name == "Gate" and found.name in SERVER_ONLY:
            faults.add(at, f"{own}: is set by the server; leave it out")
            continue
        if own in loaded.places:
            faults.add(at, f"{own}: stands here twice, in snake_case and in camelCase")
            continue
        if value is None:
            faults.add(at, f"{own}: has no value; leave it out for the default")
            continue
        if found.containing_oneof is not None and not _is_optional(found):
            other = chosen.setdefault(found.containing_oneof.name, found.name)
            if other != found.name:
                faults.add(at, f"{own}: contradicts {other}; only one of them is allowed")
                continue
        loaded.places[own] = at
        _fill_field(loaded, message, found, value, own, at, faults)


def _is_optional(found: FieldDescriptor) -> bool:
    """Say whether a field's oneof is only the mark of ``optional``."""
    oneof = found.containing_oneof
    return oneof is not None and len(oneof.fields) == 1 and oneof.name.startswith("_")


def _known(descriptor: Any) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for one in descriptor.fields:
        names[one.name] = one
        names[one.json_name] = one
    return names


def _unknown(key: Any, path: str, known: dict[str, Any]) -> str:
    near = difflib.get_close_matches(str(key), known, n=1)
    fields = sorted({one.name for one in known.values()} - SERVER_ONLY)
    hint = f"did you mean {near[0]!r}?" if near else f"fields are {', '.join(fields)}"
    where = f" in {path}" if path else ""
    return f"unknown field {str(key)[:60]!r}{where}; {hint}"


def _fill_field(
    loaded: Loaded, message: Message, found: Any, value: Any, path: str, place: Place, faults: _Faults
) -> None:
    if found.is_repeated and found.message_type is not None and found.message_type.GetOptions().map_entry:
        if not isinstance(value, CommentedMap):
            faults.add(place, f"{path}: names with values are expected, not {_kind(value)}")
            return
        for key, item in value.items():
            getattr(message, found.name)[str(key)] = str(item)
        return
    if not found.is_repeated:
        _set(loaded, message, found, value, path, place, faults)
        return
    if not isinstance(value, CommentedSeq):
        faults.add(place, f"{path}: a list is expected, not {_kind(value)}")
        return
    for k, item in enumerate(value):
        own, at = f"{path}[{k}]", _at(value, k)
        loaded.places[own] = at
        if found.message_type is not None:
            _fill(loaded, getattr(message, found.name).add(), item, own, at, faults)
        else:
            converted = _scalar(found, item, own, at, faults)
            if converted is not None:
                getattr(message, found.name).append(converted)


def _set(loaded: Loaded, message: Message, found: Any, value: Any, path: str, place: Place, faults: _Faults) -> None:
    kind = found.message_type.full_name if found.message_type is not None else ""
    if kind == "google.protobuf.Duration":
        seconds = parse_duration(value)
        if seconds is None:
            faults.add(place, f"{path}: a duration such as 90s, 15m or 1h30m is expected, not {_shown(value)}")
        else:
            getattr(message, found.name).FromNanoseconds(round(seconds * 1e9))
    elif kind == "google.protobuf.Timestamp":
        time = parse_time(value)
        if time is None:
            faults.add(place, f'{path}: a time such as "2026-05-01T12:00:00Z" is expected, not {_shown(value)}')
        else:
            getattr(message, found.name).FromDatetime(time)
    elif found.message_type is not None:
        getattr(message, found.name).SetInParent()
        _fill(loaded, getattr(message, found.name), value, path, place, faults)
    else:
        converted = _scalar(found, value, path, place, faults)
        if converted is not None:
            setattr(message, found.name, converted)


def _scalar(found: Any, value: Any, path: str, place: Place, faults: _Faults) -> Any:
    kind = found.type
    if kind == FieldDescriptor.TYPE_ENUM:
        words = {word(found.enum_type, one.number): one.number for one in found.enum_type.values if one.number}
        number = words.get(str(value).upper().replace("-", "_").replace(" ", "_"))
        if number is None and isinstance(value, str):
            number = found.enum_type.values_by_name[value].number if value in found.enum_type.values_by_name else None
        if number is None:
            names = ", ".join(str(one) for one in words)
            faults.add(place, f"{path}: {_shown(value)} is none of {names}")
        return number
    if kind == FieldDescriptor.TYPE_BOOL and isinstance(value, bool):
        return value
    if kind == FieldDescriptor.TYPE_STRING and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if kind == FieldDescriptor.TYPE_DOUBLE and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind == FieldDescriptor.TYPE_DOUBLE and found.name == "margin" and isinstance(value, str):
        share = _SHARE.fullmatch(value.strip())
        if share is not None:
            return float(share[1]) / 100.0
    if kind in _INTEGERS and isinstance(value, int) and not isinstance(value, bool):
        low, high = _INTEGERS[kind]
        if low <= value <= high:
            return int(value)
        faults.add(place, f"{path}: must be {low} to {high}, not {value}")
        return None
    wanted = {
        FieldDescriptor.TYPE_BOOL: "true or false",
        FieldDescriptor.TYPE_STRING: "a text",
        FieldDescriptor.TYPE_DOUBLE: "a number",
    }.get(kind, "a whole number")
    faults.add(place, f"{path}: {wanted} is expected, not {_shown(value)}")
    return None


def parse_duration(value: Any) -> float | None:
    """Return seconds of ``1h30m``, ``90s`` or a number; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if math.isfinite(value) and abs(value) < 3e11 else None
    text = str(value).strip()
    negative = text.startswith("-")
    found = _DURATION.fullmatch(text.removeprefix("-"))
    if found is None or not any(found.groups()):
        return None
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    total = 3600 * hours + 60 * minutes + seconds
    return -total if negative else total


def parse_time(value: Any) -> dt.datetime | None:
    """Return a time of ISO 8601, in UTC unless it says otherwise; None for anything else."""
    if isinstance(value, str):
        try:
            value = dt.datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, dt.datetime):
        return None
    return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)


def _kind(value: Any) -> str:
    if isinstance(value, CommentedMap):
        return "fields"
    if isinstance(value, CommentedSeq):
        return "a list"
    return _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, CommentedMap | CommentedSeq):
        return _kind(value)
    text = repr(str(value)) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"


def in_file(error: RefusedError, loaded: Loaded) -> RefusedError:
    """Return a server's refusal with the places of its fields in the file."""
    told = getattr(error, "told", None)
    if told is None or not told.violations:
        return error
    return RefusedError(
        "\n".join(f"{loaded.place_of(one.field)}: {one.field}: {one.description}" for one in told.violations)
    )


def to_yaml(message: Message, *, without: Sequence[str] = ()) -> str:
    """Return a message as YAML that the same loader reads: what is set, in the order of the contract."""
    import io

    buffer = io.StringIO()
    writer = YAML(typ="rt")
    writer.default_flow_style = False
    writer.width = 110
    writer.indent(mapping=2, sequence=4, offset=2)
    writer.dump(_plain(message, without), buffer)
    return buffer.getvalue()


def _plain(message: Message, without: Sequence[str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for found, value in message.ListFields():
        if found.name in without:
            continue
        if found.is_repeated and found.message_type is not None and found.message_type.GetOptions().map_entry:
            out[found.name] = dict(sorted(value.items()))
        elif found.is_repeated:
            out[found.name] = [_plain_value(found, item) for item in value]
        else:
            out[found.name] = _plain_value(found, value)
    return out


def _plain_value(found: Any, value: Any) -> Any:
    if found.type == FieldDescriptor.TYPE_ENUM:
        return word(found.enum_type, value)
    if found.message_type is None:
        return value
    if found.message_type.full_name == "google.protobuf.Duration":
        seconds = value.ToNanoseconds() / 1e9
        return f"{seconds:.9g}s"
    if found.message_type.full_name == "google.protobuf.Timestamp":
        return value.ToJsonString()
    return _plain(value, ())
