"""Refusals: what a caller is told when a request cannot be carried out.

Nothing here knows of gRPC, so that the analysis workers can refuse too; :mod:`tidegate_server.interceptors`
turns a refusal into a ``google.rpc.Status``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DOMAIN = "tidegate"
"""The ``domain`` of every ``google.rpc.ErrorInfo`` of this service."""

MAX_VIOLATIONS = 20
"""At most this many fields are named in one refusal."""


class Code(enum.StrEnum):
    """The status codes in use, by their gRPC names."""

    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    ABORTED = "ABORTED"
    UNAVAILABLE = "UNAVAILABLE"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    INTERNAL = "INTERNAL"


class StartupError(Exception):
    """The server cannot start; the message says why and what would be right."""


class ConfigError(StartupError):
    """A setting contradicts another or is out of its range."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One field that is not as it should be: its path in the request, and what would be right."""

    field: str
    description: str


class RequestError(Exception):
    """A request that cannot be carried out.

    Parameters
    ----------
    code:
        The status code.
    reason:
        Why, for programs: ``UPPER_SNAKE``, stable.
    message:
        Why, for people: one sentence, with what would be right.
    metadata:
        Facts for programs, as strings.
    violations:
        The fields at fault.
    retry_seconds:
        When trying again makes sense, else ``None``.
    """

    def __init__(
        self,
        code: Code,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_seconds: float | None = None,
    ) -> None:
        """Keep the parts; nothing is checked."""
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations[:MAX_VIOLATIONS])
        self.retry_seconds = retry_seconds

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with every part, for the way back from a worker."""
        parts = (self.code, self.reason, self.message, self.metadata, self.violations, self.retry_seconds)
        return _rebuild, parts


def _rebuild(
    code: Code,
    reason: str,
    message: str,
    metadata: dict[str, str],
    violations: tuple[Violation, ...],
    retry_seconds: float | None,
) -> RequestError:
    return RequestError(code, reason, message, metadata=metadata, violations=violations, retry_seconds=retry_seconds)


def invalid(violations: Sequence[Violation], *, reason: str = "INVALID_REQUEST") -> RequestError:
    """Return the refusal of a request with fields that are not as they should be."""
    first = violations[0]
    message = f"{first.field}: {first.description}"
    if len(violations) > 1:
        message += f" (and {len(violations) - 1} more)"
    return RequestError(Code.INVALID_ARGUMENT, reason, message, violations=violations)


def over_limit(limit: str, allowed: float, got: float | None, advice: str) -> RequestError:
    """Return the refusal of something above a limit: its name, its value, what came, and what to do."""
    seen = "" if got is None else f"{got:.12g} is over "
    metadata = {"limit": limit, "value": f"{allowed:.12g}"}
    if got is not None:
        metadata["got"] = f"{got:.12g}"
    message = f"{seen}the limit {limit} = {allowed:.12g}; {advice}"
    return RequestError(Code.RESOURCE_EXHAUSTED, "LIMIT_EXCEEDED", message, metadata=metadata)


class Violations:
    """Collects what is wrong with one request, so that a caller learns of all of it at once."""

    def __init__(self) -> None:
        """Start with nothing wrong."""
        self.found: list[Violation] = []

    def add(self, field: str, description: str) -> None:
        """Note one field."""
        self.found.append(Violation(field, description))

    def raise_any(self) -> None:
        """Raise a refusal when something was noted.

        Raises
        ------
        RequestError
            INVALID_ARGUMENT with every field that was noted.
        """
        if self.found:
            raise invalid(self.found)
