"""The filter language of lists.

``environment = "prod" AND (verdict = FAIL OR verdict = ERROR) AND create_time > "2026-05-01T00:00:00Z"``

Fields, their types and the operators they take are told by tables; a field that is not in the table of its
list is refused by name. The parsed form is a small tree that a store turns into SQL; `matches` is the same
meaning in Python. Texts are compared with their case.
"""

from __future__ import annotations

import datetime as dt
import enum
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from lark import Lark, Token
from lark.exceptions import UnexpectedInput, UnexpectedToken

from tidegate_server.errors import Violation
from tidegate_server.gates.errors import InvalidError
from tidegate_server.gates.model import Decision, EvaluationState, LabelKind, Verdict


class Operator(enum.Enum):
    """How a field is compared. HAS (``:``) is "contains" for text, "is one of" for tags."""

    EQ = "="
    NE = "!="
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    HAS = ":"


Value = str | float | int | bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """``field operator value``; the value has the field's type already: enums as their number, times as
    seconds.

    A text value of ``=`` and ``!=`` may hold ``*`` for any text; it is then a pattern (``wildcard`` True).
    """

    field: str
    operator: Operator
    value: Value
    wildcard: bool = False


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite."""

    item: Expression


@dataclass(frozen=True, slots=True)
class And:
    """All of them."""

    items: tuple[Expression, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Any of them."""

    items: tuple[Expression, ...]


Expression = Comparison | Not | And | Or


class FieldType(enum.Enum):
    """What values a field takes."""

    TEXT = "a text"
    BOOL = "true or false"
    TIME = 'a time such as "2026-05-01T12:00:00Z"'
    TAGS = "a tag"
    VERDICT = "PASS, FAIL, INCONCLUSIVE or ERROR"
    DECISION = "PROCEED, HALT or HOLD"
    STATE = "PENDING, RUNNING, SUCCEEDED or CANCELLED"
    LABEL = "TRUE_ALARM, FALSE_ALARM, MISSED or CORRECT_PASS"


GATE_FIELDS: Mapping[str, FieldType] = {
    "service": FieldType.TEXT,
    "environment": FieldType.TEXT,
    "identifier": FieldType.TEXT,
    "owner": FieldType.TEXT,
    "description": FieldType.TEXT,
    "enabled": FieldType.BOOL,
    "dry_run": FieldType.BOOL,
    "tags": FieldType.TAGS,
    "create_time": FieldType.TIME,
    "update_time": FieldType.TIME,
}

EVALUATION_FIELDS: Mapping[str, FieldType] = {
    "service": FieldType.TEXT,
    "environment": FieldType.TEXT,
    "identifier": FieldType.TEXT,
    "version": FieldType.TEXT,
    "commit": FieldType.TEXT,
    "actor": FieldType.TEXT,
    "state": FieldType.STATE,
    "verdict": FieldType.VERDICT,
    "decision": FieldType.DECISION,
    "dry_run": FieldType.BOOL,
    "overridden": FieldType.BOOL,
    "label": FieldType.LABEL,
    "create_time": FieldType.TIME,
    "end_time": FieldType.TIME,
}

_ENUMS: Mapping[FieldType, type[enum.IntEnum]] = {
    FieldType.VERDICT: Verdict,
    FieldType.DECISION: Decision,
    FieldType.STATE: EvaluationState,
    FieldType.LABEL: LabelKind,
}

_EQUALITY = (Operator.EQ, Operator.NE)
_OPERATORS: Mapping[FieldType, tuple[Operator, ...]] = {
    FieldType.TEXT: (*_EQUALITY, Operator.HAS),
    FieldType.BOOL: _EQUALITY,
    FieldType.TIME: (Operator.LT, Operator.LE, Operator.GT, Operator.GE),
    FieldType.TAGS: (Operator.HAS,),
    FieldType.LABEL: (Operator.HAS, *_EQUALITY),
}

MAX_FILTER_CHARACTERS = 4096
MAX_DEPTH = 32

_GRAMMAR = r"""
start: or
?or: and (_OR and)*
?and: prefixed (_AND prefixed)*
?prefixed: _NOT prefixed -> not
    | _OPEN or _CLOSE
    | WORD OPERATOR (WORD | QUOTED) -> comparison

_AND.3: /AND(?![^\s()"])/
_OR.3: /OR(?![^\s()"])/
_NOT.3: /NOT(?![^\s()"])/
_OPEN: "("
_CLOSE: ")"
OPERATOR: "!=" | "<=" | ">=" | "=" | "<" | ">" | ":"
QUOTED: /"(?:[^"\\]|\\.)*"/
WORD: /[^\s()"=<>!:]+/
%ignore /\s+/
"""


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


def parse_filter(text: str, fields: Mapping[str, FieldType]) -> Expression | None:
    """Return a filter's meaning; None for an empty one.

    Raises
    ------
    InvalidError
        With the field ``filter``: an unknown field by its name, a value or operator that does not fit, or
        the column from which on it cannot be understood.
    """
    if not text.strip():
        return None
    if len(text) > MAX_FILTER_CHARACTERS:
        raise _invalid(f"has {len(text)} characters; at most {MAX_FILTER_CHARACTERS} are taken")
    depth = 0
    for mark in re.findall(r'"(?:[^"\\]|\\.)*"|[()]|(?:NOT\s+){32}', text):
        depth += {"(": 1, ")": -1}.get(mark, MAX_DEPTH + 1 if mark.startswith("NOT") else 0)
        if depth > MAX_DEPTH:
            raise _invalid(f"is nested more than {MAX_DEPTH} deep")
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        ended = isinstance(error, UnexpectedToken) and error.token.type == "$END"
        column = len(text) + 1 if ended else int(error.column)
        raise _invalid(
            f"column {column}: cannot be understood; write for example"
            ' verdict = FAIL AND create_time > "2026-05-01T00:00:00Z", with AND, OR, NOT and parentheses'
        ) from None
    return _build(tree.children[0], fields)


def _invalid(message: str) -> InvalidError:
    return InvalidError([Violation("filter", message)], "INVALID_FILTER")


def _build(item: Any, fields: Mapping[str, FieldType]) -> Expression:
    match item.data:
        case "and":
            return And(tuple(_build(child, fields) for child in item.children))
        case "or":
            return Or(tuple(_build(child, fields) for child in item.children))
        case "not":
            return Not(_build(item.children[0], fields))
    name, sign, value = item.children
    return _comparison(name, sign, value, fields)


def _comparison(name: Token, sign: Token, value: Token, fields: Mapping[str, FieldType]) -> Comparison:
    kind = fields.get(str(name))
    at = f"column {name.column}:"
    if kind is None:
        raise _invalid(f"{at} there is no field {str(name)[:60]!r}; fields are {', '.join(sorted(fields))}")
    operator_ = Operator(str(sign))
    allowed = _OPERATORS.get(kind, _EQUALITY)
    if operator_ not in allowed:
        raise _invalid(f"{at} {name} takes {' '.join(one.value for one in allowed)}, not {sign}")
    quoted = value.type == "QUOTED"
    if not quoted and str(value).startswith("'"):
        raise _invalid(f'column {value.column}: texts stand in double quotes: {name} {sign} "..."')
    text = re.sub(r"\\(.)", r"\1", str(value)[1:-1]) if quoted else str(value)
    if kind is FieldType.TEXT:
        wildcard = "*" in text and operator_ is not Operator.HAS
        return Comparison(str(name), operator_, text, wildcard)
    if kind is FieldType.TAGS:
        return Comparison(str(name), operator_, text)
    converted = _convert(kind, text)
    if converted is None:
        raise _invalid(f"column {value.column}: {name} is compared with {kind.value}, not {text[:60]!r}")
    return Comparison(str(name), operator_, converted)


def _convert(kind: FieldType, text: str) -> Value | None:
    if kind is FieldType.BOOL:
        return {"true": True, "false": False}.get(text.lower())
    if kind is FieldType.TIME:
        try:
            time = dt.datetime.fromisoformat(text)
        except ValueError:
            return None
        return (time if time.tzinfo else time.replace(tzinfo=dt.UTC)).timestamp()
    members = _ENUMS[kind].__members__
    return int(members[text.upper()]) if text.upper() in members else None


_COMPARE: Mapping[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQ: operator.eq,
    Operator.NE: operator.ne,
    Operator.LT: operator.lt,
    Operator.LE: operator.le,
    Operator.GT: operator.gt,
    Operator.GE: operator.ge,
}


def matches(expression: Expression | None, value_of: Callable[[str], Any]) -> bool:
    """Say whether an item matches; ``value_of`` returns its value of a field, None where it has none.

    Enums are compared by number; fields that hold several values (tags, labels) are given as collections.
    """
    match expression:
        case None:
            return True
        case And(items=items):
            return all(matches(one, value_of) for one in items)
        case Or(items=items):
            return any(matches(one, value_of) for one in items)
        case Not(item=item):
            return not matches(item, value_of)
    value = value_of(expression.field)
    wanted = expression.value
    if isinstance(value, tuple | list | set | frozenset):
        return (wanted in value) is not (expression.operator is Operator.NE)
    if isinstance(wanted, str):
        if expression.operator is Operator.HAS:
            return wanted in (value or "")
        if expression.wildcard:
            pattern = ".*".join(re.escape(part) for part in wanted.split("*"))
            found = re.fullmatch(pattern, value or "", re.DOTALL) is not None
            return found is (expression.operator is Operator.EQ)
        return _COMPARE[expression.operator](value or "", wanted)
    if value is None:
        return expression.operator is Operator.NE
    return _COMPARE[expression.operator](value, wanted)
