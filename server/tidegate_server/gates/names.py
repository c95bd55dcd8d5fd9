"""Resource names: ``services/{service}/environments/{environment}/gates/{identifier}`` and their kin.

Each part is percent-encoded where it holds a slash or another character that a path does not take as it is.
"""

from __future__ import annotations

from urllib.parse import quote, unquote

from tidegate_server.errors import Violation
from tidegate_server.gates.errors import InvalidError
from tidegate_server.gates.model import GateKey

ANY = "-"

MAX_CHARACTERS = 3000
"""Of a resource name: three parts of 256 bytes, every one of them percent-encoded, and the words between."""


def gate_name(key: GateKey) -> str:
    """Return the resource name of a gate."""
    service, environment, identifier = (quote(part, safe="") for part in key)
    return f"services/{service}/environments/{environment}/gates/{identifier}"


def split_gate_name(name: str) -> GateKey | None:
    """Return the key of a gate's resource name, None when it is none."""
    match name[: MAX_CHARACTERS + 1].split("/"):
        case ["services", service, "environments", environment, "gates", identifier] if len(name) <= MAX_CHARACTERS:
            key = GateKey(unquote(service), unquote(environment), unquote(identifier))
            return key if all(key) and ANY not in key[:2] else None
    return None


def parse_gate_name(name: str, path: str = "name") -> GateKey:
    """Return the key of a gate's resource name.

    Raises
    ------
    InvalidError
        When it is none.
    """
    key = split_gate_name(name)
    if key is None:
        raise InvalidError(
            [
                Violation(
                    path,
                    f"{name[:80]!r} is no name of a gate; write"
                    " services/{service}/environments/{environment}/gates/{identifier}, slashes as %2F",
                )
            ]
        )
    return key


def parse_parent(parent: str, path: str = "parent") -> tuple[str | None, str | None]:
    """Return service and environment of a list's parent, None for any of them ("-").

    Raises
    ------
    InvalidError
        When it is no parent.
    """
    if not parent:
        return None, None
    match parent.split("/"):
        case ["services", service, "environments", environment] if service and environment:
            return (
                None if service == ANY else unquote(service),
                None if environment == ANY else unquote(environment),
            )
    raise InvalidError(
        [
            Violation(
                path,
                f"{parent[:80]!r} is no parent; write services/{{service}}/environments/{{environment}},"
                ' with "-" for any',
            )
        ]
    )


def parse_simple(name: str, collection: str, path: str = "name") -> str:
    """Return the id of a name such as ``evaluations/{id}``.

    Raises
    ------
    InvalidError
        When it is no name of that collection.
    """
    head, slash, rest = name.partition("/")
    if head != collection or not slash or not rest or "/" in rest or len(name) > MAX_CHARACTERS:
        raise InvalidError([Violation(path, f"{name[:80]!r} is no name; write {collection}/{{id}}")])
    return unquote(rest)


def simple_name(collection: str, identifier: str) -> str:
    """Return a name such as ``evaluations/{id}``."""
    return f"{collection}/{quote(identifier, safe='')}"
