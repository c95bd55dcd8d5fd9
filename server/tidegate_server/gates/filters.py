"""The filter language of lists: ``environment = "prod" AND (verdict = FAIL OR verdict = ERROR) AND
create_time > ...``.

Fields, their types and the operators they take are told by tables; a field that is not in the table of its
list is refused by name. The parsed form is a small tree that a store turns into SQL; `matches` is the same
meaning in Python.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass


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
