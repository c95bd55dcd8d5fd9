"""What a store may raise: refusals, each with one status code. Nothing else of its errors leaves a store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from tidegate_server.errors import Code, RequestError


class StoreError(RequestError):
    """Base of everything a store raises on purpose. The message may be shown to a caller.

    Parameters
    ----------
    message:
        One sentence for people.
    reason:
        Why, for programs; the class has a default.
    metadata:
        Facts for programs.
    """

    CODE: ClassVar[Code] = Code.INTERNAL
    REASON: ClassVar[str] = "STORE_ERROR"
    RETRY_SECONDS: ClassVar[float | None] = None

    def __init__(self, message: str, reason: str = "", metadata: Mapping[str, str] | None = None) -> None:
        """Keep the parts."""
        super().__init__(
            self.CODE, reason or self.REASON, message, metadata=metadata, retry_seconds=self.RETRY_SECONDS
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by the parts that the class does not know."""
        return type(self), (self.message, self.reason, self.metadata)


class StoreUnavailableError(StoreError):
    """The store cannot be reached or did not answer in time; try again later (UNAVAILABLE)."""

    CODE = Code.UNAVAILABLE
    REASON = "STORE_UNAVAILABLE"
    RETRY_SECONDS = 1.0


class StoreFullError(StoreError):
    """The store has no room left; nothing was written (RESOURCE_EXHAUSTED)."""

    CODE = Code.RESOURCE_EXHAUSTED
    REASON = "STORE_FULL"


class NotFoundError(StoreError):
    """There is no such thing (NOT_FOUND)."""

    CODE = Code.NOT_FOUND
    REASON = "NOT_FOUND"


class AlreadyExistsError(StoreError):
    """The name is taken (ALREADY_EXISTS)."""

    CODE = Code.ALREADY_EXISTS
    REASON = "ALREADY_EXISTS"


class ConflictError(StoreError):
    """Changed since the caller read it: a stale etag or revision (ABORTED)."""

    CODE = Code.ABORTED
    REASON = "CONFLICT"


class PreconditionError(StoreError):
    """Not in the state that it is in: a finished evaluation, a disabled gate (FAILED_PRECONDITION)."""

    CODE = Code.FAILED_PRECONDITION
    REASON = "FAILED_PRECONDITION"


class RequestReusedError(StoreError):
    """The `request_id` was used before with another body (ALREADY_EXISTS)."""

    CODE = Code.ALREADY_EXISTS
    REASON = "REQUEST_ID_REUSED"


class LeaseLostError(StoreError):
    """The work was taken over or ended by someone else; what was computed here is dropped. No caller sees it."""

    CODE = Code.ABORTED
    REASON = "LEASE_LOST"
