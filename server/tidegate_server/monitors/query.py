"""The tag query language that finds monitors and their groups.

``env:prod (service:checkout OR group:"service:checkout") AND NOT team:frontend -name:test*``

* ``key:value`` is a tag of the monitor; ``tag:"key:value"`` and ``tag:word`` are the same for any tag.
* ``scope:"key:value"`` is a tag in the monitor's own query, ``group:"key:value"`` a tag of one of its
  groups: with it, only the groups that match are selected.
* ``name:text`` and bare words look into the name, ``id:`` and ``status:`` at the id and the present state.
* AND, OR and NOT in capitals; ``-`` is NOT; two terms side by side are joined by AND. NOT binds more closely
  than AND, AND more closely than OR. ``key:(a OR b)`` shares its key.
* ``*`` stands for any text and ``?`` for one character, not within quotes. Upper and lower case are the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from lark import Lark, Token
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from tidegate_server.gates.model import MonitorState
from tidegate_server.monitors.model import Monitor, MonitorGroup

MAX_QUERY_CHARACTERS = 4096
MAX_DEPTH = 32

_GRAMMAR = r"""
start: or
?or: and (_OR and)*
?and: prefixed (_AND? prefixed)*
?prefixed: (_NOT | _MINUS) prefixed -> not
    | _OPEN or _CLOSE
    | KEY value -> term
    | text -> bare
?value: text
    | _OPEN value_or _CLOSE
?value_or: value_and (_OR value_and)* -> or
?value_and: value_prefixed (_AND? value_prefixed)* -> and
?value_prefixed: (_NOT | _MINUS) value_prefixed -> not
    | text
    | _OPEN value_or _CLOSE
text: WORD | QUOTED

_AND.3: /AND(?![^\s()"])/
_OR.3: /OR(?![^\s()"])/
_NOT.3: /NOT(?![^\s()"])/
_MINUS: "-"
_OPEN: "("
_CLOSE: ")"
KEY.2: /[^\s()":*?~-][^\s()":*?~]*:/
QUOTED: /"(?:[^"\\]|\\.)*"/
WORD: /[^\s()":~-][^\s()"~]*/
%ignore /\s+/
"""

_EXPECTED = {
    "KEY": "key:value",
    "WORD": "a word",
    "QUOTED": 'a "quoted text"',
    "_OPEN": "(",
    "_CLOSE": ")",
    "_AND": "AND",
    "_OR": "OR",
    "_NOT": "NOT",
    "_MINUS": "-",
    "$END": "the end",
}

_STATES = {
    "ok": MonitorState.OK,
    "warn": MonitorState.WARN,
    "alert": MonitorState.ALERT,
    "no_data": MonitorState.NO_DATA,
    "no data": MonitorState.NO_DATA,
    "skipped": MonitorState.SKIPPED,
    "unknown": MonitorState.UNKNOWN,
}

_FIELDS = frozenset({"tag", "scope", "group", "name", "id", "status"})


class QueryError(ValueError):
    """A query that cannot be understood. ``column`` counts characters from 1."""

    def __init__(self, message: str, column: int) -> None:
        """Keep the column apart from the message."""
        super().__init__(f"column {column}: {message}")
        self.column = column
        self.message = message


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text to compare with: as it stands, or with wildcards. In lower case."""

    text: str
    wildcard: bool


@dataclass(frozen=True, slots=True)
class Term:
    """One comparison; ``field`` is tag, scope, group, name, id or status."""

    field: str
    pattern: Pattern


@dataclass(frozen=True, slots=True)
class NotNode:
    """The opposite."""

    item: Node


@dataclass(frozen=True, slots=True)
class AndNode:
    """All of them."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class OrNode:
    """Any of them."""

    items: tuple[Node, ...]


Node = Term | NotNode | AndNode | OrNode


@dataclass(frozen=True, slots=True)
class Query:
    """A query that was understood. ``fields`` are those that it looks at."""

    text: str
    root: Node
    fields: frozenset[str]

    @property
    def by_group(self) -> bool:
        """Whether groups of a monitor may differ in their answer."""
        return bool(self.fields & {"group", "status"})


@dataclass(frozen=True, slots=True)
class Match:
    """A monitor that a query found, and those of its groups that it selects."""

    monitor: Monitor
    groups: tuple[MonitorGroup, ...]


@cache
def _parser() -> Lark:
    return Lark(_GRAMMAR, parser="lalr", maybe_placeholders=False)


@lru_cache(maxsize=1024)
def parse(text: str) -> Query:
    """Return a query's meaning.

    Raises
    ------
    QueryError
        When it cannot be understood: the column, what stands there, and what was expected.
    """
    if not text.strip():
        raise QueryError("the query is empty; write for example env:prod service:checkout, or * for all", 1)
    if len(text) > MAX_QUERY_CHARACTERS:
        raise QueryError(
            f"the query has {len(text)} characters, at most {MAX_QUERY_CHARACTERS} are taken",
            MAX_QUERY_CHARACTERS + 1,
        )
    _check_depth(text)
    try:
        tree = _parser().parse(text)
    except UnexpectedInput as error:
        raise _explain(error, text) from None
    fields: set[str] = set()
    root = _build(tree.children[0], fields)
    return Query(text=text, root=root, fields=frozenset(fields))


def _check_depth(text: str) -> None:
    depth = 0
    for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[()]|(?:NOT\s+|-\s*){33}', text):
        mark = found.group()
        if mark == "(":
            depth += 1
        elif mark == ")":
            depth -= 1
        if depth > MAX_DEPTH or mark[0] in "N-":
            raise QueryError(f"nested more than {MAX_DEPTH} deep; write it flatter", found.start() + 1)


def _explain(error: UnexpectedInput, text: str) -> QueryError:
    if isinstance(error, UnexpectedEOF) or (isinstance(error, UnexpectedToken) and error.token.type == "$END"):
        accepted = error.expected if isinstance(error, UnexpectedEOF) else error.accepts or error.expected
        return QueryError(f"the query ends, but {_alternatives(accepted)} is expected", len(text) + 1)
    column = int(error.column)
    if isinstance(error, UnexpectedToken):
        accepted = error.accepts or error.expected
        return QueryError(f"{str(error.token)!r} stands where {_alternatives(accepted)} is expected", column)
    found = text[column - 1] if column <= len(text) else ""
    if found == '"':
        return QueryError('the closing " is missing', column)
    if found == "~":
        return QueryError("~ has a meaning in other query languages and none here; quote the text", column)
    allowed = error.allowed if isinstance(error, UnexpectedCharacters) else set()
    return QueryError(f"{found!r} stands where {_alternatives(allowed or set())} is expected", column)


def _alternatives(names: Iterable[str]) -> str:
    words = [shown for name, shown in _EXPECTED.items() if name in set(names)]
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else (words[0] if words else "something else")


def _build(item: Any, fields: set[str]) -> Node:
    """Return the node of a parsed tree outside of a value."""
    match item.data:
        case "or" | "and":
            return _join(item.data, tuple(_build(child, fields) for child in item.children))
        case "not":
            return NotNode(_build(item.children[0], fields))
        case "bare":
            return _bare(item.children[0], fields)
    key, value = item.children
    return _value(str(key)[:-1].lower(), key, value, fields)


def _join(kind: str, items: tuple[Node, ...]) -> Node:
    if len(items) == 1:
        return items[0]
    return OrNode(items) if kind == "or" else AndNode(items)


def _text(item: Any, *, alone: bool) -> tuple[Token, str, bool]:
    """Return the token, its text in lower case, and whether it was quoted; ``alone`` without a key before
    it."""
    token: Token = item.children[0]
    if token.type == "QUOTED":
        return token, re.sub(r"\\(.)", r"\1", str(token)[1:-1]).lower(), True
    word = str(token)
    if alone and word in ("AND", "OR", "NOT"):
        raise QueryError(f"{word} stands where a term is expected", int(token.column or 1))
    if alone and word in ("and", "or", "not"):
        raise QueryError(f"write {word.upper()} in capitals, or quote the word", int(token.column or 1))
    return token, word.lower(), False


def _pattern(text: str, quoted: bool) -> Pattern:
    return Pattern(text, not quoted and ("*" in text or "?" in text))


def _bare(item: Any, fields: set[str]) -> Node:
    _, text, quoted = _text(item, alone=True)
    # A word whose key has a wildcard (en*:prod) is not a KEY, but it is a tag all the same.
    field = "tag" if ":" in text and not quoted else "name"
    fields.add(field)
    return Term(field, _pattern(text, quoted))


def _value(key: str, at: Token, item: Any, fields: set[str], *, alone: bool = False) -> Node:
    match item.data:
        case "or" | "and":
            return _join(item.data, tuple(_value(key, at, child, fields, alone=True) for child in item.children))
        case "not":
            return NotNode(_value(key, at, item.children[0], fields, alone=True))
    token, text, quoted = _text(item, alone=alone)
    if key == "muted":
        raise QueryError(
            "muted cannot be asked for here; what is done with muted ones is set beside the query",
            int(at.column or 1),
        )
    if not text:
        raise QueryError("the text is empty", int(token.column or 1))
    if key == "status":
        if text not in _STATES:
            raise QueryError(
                f"{text!r} is no state; states are ok, warn, alert, no_data, skipped, unknown",
                int(token.column or 1),
            )
        text, quoted = _STATES[text].name.lower(), True
    field = key if key in _FIELDS else "tag"
    fields.add(field)
    return Term(field, _pattern(text if key in _FIELDS else f"{key}:{text}", quoted))


# --- evaluation


@lru_cache(maxsize=65536)
def _lowered(tags: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(str.lower, tags))


class _Subject:
    """A monitor, and one of its groups, in the form that terms look at."""

    __slots__ = ("group", "id", "name", "scope", "status", "tag")

    def __init__(self, monitor: Monitor) -> None:
        self.tag = _lowered(monitor.tags)
        self.scope = _lowered(monitor.scope)
        self.name = monitor.name.lower()
        self.id = monitor.id.lower()
        self.group: frozenset[str] = frozenset()
        self.status = ""


Predicate = Callable[[_Subject], bool]


def _compile(node: Node) -> Predicate:
    match node:
        case Term(field, pattern):
            return _compile_term(field, pattern)
        case NotNode(item):
            inner = _compile(item)
            return lambda subject: not inner(subject)
        case AndNode(items):
            parts = [_compile(one) for one in items]
            return lambda subject: all(part(subject) for part in parts)
        case OrNode(items):
            parts = [_compile(one) for one in items]
            return lambda subject: any(part(subject) for part in parts)


def _compile_term(field: str, pattern: Pattern) -> Predicate:
    text = pattern.text
    if field in ("tag", "scope", "group"):
        tags = _getter(field)
        if not pattern.wildcard:
            return lambda subject: text in tags(subject)
        found = _matcher(text)
        return lambda subject: any(map(found, tags(subject)))
    if field == "status":
        return lambda subject: subject.status == text
    if field == "id":
        same = _matcher(text) if pattern.wildcard else text.__eq__
        return lambda subject: bool(same(subject.id))
    if pattern.wildcard:
        named = _matcher(text)
        return lambda subject: named(subject.name)
    return lambda subject: text in subject.name


def _getter(field: str) -> Callable[[_Subject], frozenset[str]]:
    if field == "tag":
        return lambda subject: subject.tag
    if field == "scope":
        return lambda subject: subject.scope
    return lambda subject: subject.group


def _matcher(text: str) -> Callable[[str], bool]:
    parts = (".*" if one == "*" else "." if one == "?" else re.escape(one) for one in text)
    expression = re.compile("".join(parts), re.DOTALL)
    return lambda candidate: expression.fullmatch(candidate) is not None


_NO_GROUP = (MonitorGroup(key=""),)


def select(query: Query, monitors: Iterable[Monitor]) -> list[Match]:
    """Return the monitors that a query finds, in the order given, each with the groups that it selects.

    A monitor whose state was never told counts as one group without a name in state UNKNOWN.
    """
    predicate = _compile(query.root)
    by_group = query.by_group
    found: list[Match] = []
    for monitor in monitors:
        subject = _Subject(monitor)
        groups: Sequence[MonitorGroup] = monitor.groups or _NO_GROUP
        if not by_group:
            if predicate(subject):
                found.append(Match(monitor, tuple(groups)))
            continue
        selected = []
        for group in groups:
            subject.group = _lowered(group.tags)
            subject.status = group.state.name.lower()
            if predicate(subject):
                selected.append(group)
        if selected:
            found.append(Match(monitor, tuple(selected)))
    return found
