"""Limits on what runs at the same time. Health checks and reflection are never counted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from tidegate_server.errors import Code, RequestError
from tidegate_server.interceptors import Around, Context, Interceptor


@dataclass(slots=True)
class Gauge:
    """One limit and how much of it is in use."""

    limit: str
    value: int
    what: str
    used: int = 0


class AdmissionInterceptor(Interceptor):
    """Refuses calls above a limit at once, instead of letting them wait.

    Parameters
    ----------
    limits:
        Full method name to its gauge; methods may share one. A method that is not listed is not limited.
    """

    def __init__(self, limits: Mapping[str, Gauge]) -> None:
        """Keep the table."""
        self.limits = limits

    def surround(self, method: str) -> Around | None:
        """Count the calls of a limited method."""
        gauge = self.limits.get(method)
        if gauge is None:
            return None

        @contextlib.asynccontextmanager
        async def counted(_: Context) -> AsyncIterator[None]:
            if gauge.used >= gauge.value:
                raise RequestError(
                    Code.RESOURCE_EXHAUSTED,
                    "LIMIT_EXCEEDED",
                    f"the limit {gauge.limit} = {gauge.value} is reached, so many {gauge.what} run now; "
                    "try again later",
                    metadata={"limit": gauge.limit, "value": str(gauge.value)},
                    retry_seconds=1.0,
                )
            gauge.used += 1
            try:
                yield
            finally:
                gauge.used -= 1

        return counted
