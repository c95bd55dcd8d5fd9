"""The filter language of lists, as SQL. Nothing a caller writes becomes SQL text: values are always
parameters."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from tidegate_server.gates.errors import InvalidError, Violation
from tidegate_server.gates.filters import And, Comparison, Expression, Not, Operator, Or
from tidegate_server.store.codec import micros

MAX_INTEGER = 2**63 - 1
"""The largest number that a column takes."""

Field = Callable[[Comparison], sa.ColumnElement[bool]]

_COMPARE: Mapping[Operator, Callable[[Any, Any], sa.ColumnElement[bool]]] = {
    Operator.EQ: lambda left, right: left == right,
    Operator.NE: lambda left, right: left != right,
    Operator.LT: lambda left, right: left < right,
    Operator.LE: lambda left, right: left <= right,
    Operator.GT: lambda left, right: left > right,
    Operator.GE: lambda left, right: left >= right,
}


class _Match(sa.sql.functions.FunctionElement[bool]):
    """Column, GLOB pattern, LIKE pattern: each dialect takes the one that minds case there."""

    inherit_cache = True
    type = sa.Boolean()


@compiles(_Match, "sqlite")
def _match_sqlite(element: _Match, compiler: Any, **options: Any) -> str:
    column, glob, _ = element.clauses
    return f"{compiler.process(column, **options)} GLOB {compiler.process(glob, **options)}"


@compiles(_Match, "postgresql")
def _match_postgresql(element: _Match, compiler: Any, **options: Any) -> str:
    column, _, like = element.clauses
    return f"{compiler.process(column, **options)} LIKE {compiler.process(like, **options)} ESCAPE '\\'"


class _Contains(sa.sql.functions.FunctionElement[bool]):
    """Column, text: LIKE would ignore case on SQLite."""

    inherit_cache = True
    type = sa.Boolean()


@compiles(_Contains)
def _contains(element: _Contains, compiler: Any, **options: Any) -> str:
    column, text = element.clauses
    name = "instr" if compiler.dialect.name == "sqlite" else "strpos"
    return f"{name}({compiler.process(column, **options)}, {compiler.process(text, **options)}) > 0"


def matches_pattern(column: sa.ColumnElement[str], pattern: str, *, question: bool) -> sa.ColumnElement[bool]:
    """Whether the whole text matches `*` (any text) and, if `question`, `?` (one character). Case counts."""
    wild = {"*": "%", "?": "_"} if question else {"*": "%"}
    like = "".join(wild.get(char) or ("\\" + char if char in "%_\\" else char) for char in pattern)
    glob = "".join(f"[{char}]" if char == "[" or (char == "?" and not question) else char for char in pattern)
    return _Match(column, sa.literal(glob), sa.literal(like))


def contains(column: sa.ColumnElement[str], text: str) -> sa.ColumnElement[bool]:
    """Whether the text occurs in the column. Case counts."""
    return _Contains(column, sa.literal(text))


def text_field(column: sa.ColumnElement[str]) -> Field:
    """A text: `:` is "contains"."""

    def build(comparison: Comparison) -> sa.ColumnElement[bool]:
        value = str(comparison.value)
        if comparison.operator is Operator.HAS:
            return contains(column, value)
        if comparison.wildcard:
            match = matches_pattern(column, value, question=False)
            return sa.not_(match) if comparison.operator is Operator.NE else match
        return _COMPARE[comparison.operator](column, value)

    return build


def plain_field(column: sa.ColumnElement[Any]) -> Field:
    """A number, an enum or a truth value."""
    return lambda comparison: _COMPARE[_exact(comparison)](column, comparison.value)


def time_field(column: sa.ColumnElement[Any]) -> Field:
    """A time; an absent one is never before, after or at anything."""

    def build(comparison: Comparison) -> sa.ColumnElement[bool]:
        found = _COMPARE[_exact(comparison)](column, micros(float(comparison.value)))
        return sa.and_(column.is_not(None), found)

    return build


def member_field(column: sa.ColumnElement[str], separator: str) -> Field:
    """One of several, kept as a text with `separator` before, between and after them."""

    def build(comparison: Comparison) -> sa.ColumnElement[bool]:
        value = comparison.value
        needle = f"{separator}{int(value) if isinstance(value, int) else value}{separator}"
        found = contains(column, needle)
        return sa.not_(found) if comparison.operator is Operator.NE else found

    return build


def _exact(comparison: Comparison) -> Operator:
    return Operator.EQ if comparison.operator is Operator.HAS else comparison.operator


def to_sql(expression: Expression, fields: Mapping[str, Field]) -> sa.ColumnElement[bool]:
    """The WHERE of a parsed filter.

    Raises:
        InvalidError: for a field that this list does not have.
    """
    match expression:
        case Comparison(field=name):
            if name not in fields:
                known = ", ".join(sorted(fields))
                raise InvalidError([Violation("filter", f"unknown field {name!r}; known are {known}")])
            return fields[name](expression)
        case Not(item=item):
            return sa.not_(to_sql(item, fields))
        case And(items=items):
            return sa.and_(sa.true(), *(to_sql(item, fields) for item in items))
        case Or(items=items):
            return sa.or_(sa.false(), *(to_sql(item, fields) for item in items))


def in_scopes(
    scopes: Sequence[tuple[str, str]] | None,
    service: sa.ColumnElement[str],
    environment: sa.ColumnElement[str],
) -> sa.ColumnElement[bool]:
    """Whether any of the (service pattern, environment pattern) pairs matches; None is everything."""
    if scopes is None:
        return sa.true()
    return sa.or_(
        sa.false(),
        *(
            sa.and_(
                sa.true() if one == "*" else matches_pattern(service, one, question=True),
                sa.true() if other == "*" else matches_pattern(environment, other, question=True),
            )
            for one, other in scopes
        ),
    )


def write_cursor(*key: str | int) -> str:
    """An opaque text of the last item's place."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode()


def read_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """The place that `write_cursor` wrote.

    Raises:
        InvalidError: for a text that is no cursor of this list.
    """
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor.encode()))
    except (ValueError, binascii.Error, UnicodeError):
        key = None
    fits = isinstance(key, list) and [type(part) for part in key] == list(kinds)
    if not fits or any(isinstance(part, int) and abs(part) > MAX_INTEGER for part in key):
        raise InvalidError([Violation("page_token", "not a token of this list; start again without one")])
    return tuple(key)
