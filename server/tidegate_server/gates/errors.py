"""Errors of the domain and of its stores: refusals, each with one status code, that say what would be right.

Nothing else of a store's errors leaves it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from tidegate_server.errors import Code, RequestError, Violation

__all__ = [
    "AlreadyExistsError",
    "ConflictError",
    "DeniedError",
    "DomainError",
    "InvalidError",
    "LeaseLostError",
    "LimitError",
    "NotFoundError",
    "PreconditionError",
    "RequestReusedError",
    "UnauthenticatedError",
    "UnavailableError",
    "Violation",
]


class DomainError(RequestError):
    """Something cannot be done.

    Parameters
    ----------
    reason:
        Why, for programs, in UPPER_SNAKE_CASE.
    message:
        One sentence for people.
    metadata:
        The parts of the message, for programs.
    """

    CODE: ClassVar[Code] = Code.INTERNAL
    RETRY_SECONDS: ClassVar[float | None] = None

    def __init__(self, reason: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        """Keep the parts."""
        super().__init__(self.CODE, reason, message, metadata=metadata, retry_seconds=self.RETRY_SECONDS)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the parts that the class does not know."""
        return type(self), (self.reason, self.message, self.metadata)


class InvalidError(RequestError):
    """The request is wrong, whatever the state of the server. `violations` holds what is wrong."""

    def __init__(self, violations: Sequence[Violation], reason: str = "INVALID_REQUEST") -> None:
        """Keep the violations, each once; the message names the first ones."""
        violations = tuple(dict.fromkeys(violations))
        shown = [f"{one.field}: {one.description}" if one.field else one.description for one in violations]
        message = "; ".join(shown[:5])
        if len(shown) > 5:
            message += f"; and {len(shown) - 5} more"
        fields = ",".join(one.field for one in violations[:20])
        super().__init__(Code.INVALID_ARGUMENT, reason, message, metadata={"fields": fields}, violations=violations)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the parts."""
        return type(self), (self.violations, self.reason)


class NotFoundError(DomainError):
    """There is no such thing (NOT_FOUND)."""

    CODE = Code.NOT_FOUND


class AlreadyExistsError(DomainError):
    """The name is taken (ALREADY_EXISTS)."""

    CODE = Code.ALREADY_EXISTS


class RequestReusedError(AlreadyExistsError):
    """The ``request_id`` was used before with another request (ALREADY_EXISTS)."""


class ConflictError(DomainError):
    """Somebody else changed it first: a stale etag. The caller should read again (ABORTED)."""

    CODE = Code.ABORTED


class PreconditionError(DomainError):
    """Not in this state: a disabled gate, a finished evaluation (FAILED_PRECONDITION)."""

    CODE = Code.FAILED_PRECONDITION


class DeniedError(DomainError):
    """The caller may not do this (PERMISSION_DENIED)."""

    CODE = Code.PERMISSION_DENIED


class UnauthenticatedError(DomainError):
    """The caller did not say who it is, or said it wrongly (UNAUTHENTICATED)."""

    CODE = Code.UNAUTHENTICATED


class UnavailableError(DomainError):
    """The store or a source cannot be reached now; trying again may help (UNAVAILABLE)."""

    CODE = Code.UNAVAILABLE
    RETRY_SECONDS = 1.0


class LimitError(DomainError):
    """A limit of this server would be passed, or its disk is full (RESOURCE_EXHAUSTED)."""

    CODE = Code.RESOURCE_EXHAUSTED


class LeaseLostError(DomainError):
    """The work was taken over or ended by someone else; what was computed here is dropped. No caller sees
    it."""

    CODE = Code.ABORTED
