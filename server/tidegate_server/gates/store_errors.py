"""What a store may raise. The API maps each to one status code; nothing else of a store's errors leaves it."""

from __future__ import annotations


class StoreError(Exception):
    """Base of everything a store raises on purpose. The message may be shown to a caller."""


class StoreUnavailableError(StoreError):
    """The store cannot be reached or did not answer in time; try again later (UNAVAILABLE)."""


class StoreFullError(StoreError):
    """The store has no room left; nothing was written (RESOURCE_EXHAUSTED)."""


class NotFoundError(StoreError):
    """There is no such thing (NOT_FOUND)."""


class AlreadyExistsError(StoreError):
    """The name is taken (ALREADY_EXISTS)."""


class ConflictError(StoreError):
    """It changed since the caller read it: a stale etag or revision (ABORTED)."""


class RequestReusedError(StoreError):
    """The `request_id` was used before with another body (ALREADY_EXISTS)."""


class LeaseLostError(StoreError):
    """The work was taken over or ended by someone else; what was computed here is dropped. Never shown to a caller."""
