"""Asks every call who makes it, before anything else is looked at."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from tidegate_server.auth.methods import METHODS, OPEN, Where, caller, check_request, enter
from tidegate_server.auth.model import ANYBODY, Principal, grants_of
from tidegate_server.auth.tokens import certificate_id, proves, split_token, usable
from tidegate_server.gates.errors import UnauthenticatedError
from tidegate_server.gates.ports import TokenRecord, TokenRepository
from tidegate_server.interceptors import Around, Context, Continuation, Details, Handler, Interceptor, Malformed

REMEMBER_SECONDS = 5.0
"""A token is read from the store at most this often: a revocation holds after this time at the latest."""

_MAX_REMEMBERED = 10_000


class Authenticator:
    """Finds out who calls.

    Parameters
    ----------
    tokens:
        The stored tokens and certificate identities.
    always:
        Whether authorisation is on whatever the store says: beyond loopback.
    clock:
        Wall time in seconds since the epoch.
    """

    def __init__(self, tokens: TokenRepository, *, always: bool, clock: Callable[[], float] = time.time) -> None:
        """Remember nothing yet."""
        self._tokens = tokens
        self._always = always
        self._clock = clock
        self._records: dict[str, tuple[float, TokenRecord | None]] = {}
        self._enabled: tuple[float, bool] | None = None

    async def identify(self, metadata: Any, peer: dict[str, list[str]]) -> Principal:
        """Return who calls: by its token, else by its certificate.

        Raises
        ------
        UnauthenticatedError
            When authorisation is on and neither proves anything. The answer never repeats what was sent.
        """
        if not await self._on():
            return ANYBODY
        header = next((str(value) for key, value in metadata or () if key == "authorization"), "")
        if header:
            return await self._by_token(header)
        for identity in peer.get("names", []):
            record = await self._find(certificate_id(identity))
            if record is not None and usable(record, self._clock()):
                return Principal(identity, grants_of(record.grants))
        raise UnauthenticatedError(
            "UNAUTHENTICATED",
            "who calls is not known; send the metadata authorization: Bearer <token>, or a client certificate"
            " whose identity was allowed",
        )

    async def _by_token(self, header: str) -> Principal:
        kind, _, token = header.partition(" ")
        parts = split_token(token.strip()) if kind.lower() == "bearer" else None
        record = None if parts is None else await self._find(parts[0])
        if parts is None or record is None or not proves(record, parts[1]):
            raise UnauthenticatedError("UNAUTHENTICATED", "the token is not known; make one with tidegate token create")
        if not usable(record, self._clock()):
            raise UnauthenticatedError(
                "UNAUTHENTICATED",
                f"the token {record.name!r} has expired or was revoked",
                {"token": record.name},
            )
        return Principal(record.name, grants_of(record.grants))

    async def _on(self) -> bool:
        if self._always:
            return True
        now = self._clock()
        if self._enabled is None or not 0 <= now - self._enabled[0] < REMEMBER_SECONDS:
            self._enabled = (now, await self._tokens.enabled())
        return self._enabled[1]

    async def _find(self, token_id: str) -> TokenRecord | None:
        now = self._clock()
        known = self._records.get(token_id)
        if known is not None and 0 <= now - known[0] < REMEMBER_SECONDS:
            return known[1]
        record = await self._tokens.find(token_id)
        if len(self._records) >= _MAX_REMEMBERED:
            self._records.clear()
        self._records[token_id] = (now, record)
        return record


class AuthInterceptor(Interceptor):
    """Refuses calls of those who may not make them; stands behind the error interceptor."""

    def __init__(self, authenticator: Authenticator) -> None:
        """Keep whom to ask."""
        self._authenticator = authenticator

    async def intercept_service(self, continuation: Continuation, handler_call_details: Details) -> Handler | None:
        """Wrap the handler: who calls first, then what the request asks for."""
        method = handler_call_details.method

        async def checked(details: Details) -> Handler | None:
            handler = await continuation(details)
            need = METHODS.get(method)
            if handler is None or need is None or isinstance(need.where, Where):
                return handler
            return _with_checked_request(handler, method)

        return await super().intercept_service(checked, handler_call_details)

    def surround(self, method: str) -> Around | None:
        """Ask who calls; anybody may ask for health and the contract."""
        if method.startswith(OPEN):
            return None

        @contextlib.asynccontextmanager
        async def guard(context: Context) -> AsyncIterator[None]:
            principal = await self._authenticator.identify(context.invocation_metadata(), _peer(context))
            enter(method, principal)
            yield

        return guard


def _with_checked_request(handler: Handler, method: str) -> Handler:
    """Wrap a handler whose one request names its scope; no streaming method does."""
    inner: Any = handler.unary_unary

    async def unary(request: Any, context: Context) -> Any:
        if not isinstance(request, Malformed):  # which says nothing of a scope, and is refused by whom it reaches
            check_request(method, caller(), request)
        return await inner(request, context)

    make: Any = grpc.unary_unary_rpc_method_handler
    made: Handler = make(unary, handler.request_deserializer, handler.response_serializer)
    return made


def _peer(context: Context) -> dict[str, list[str]]:
    """Return the identities of a verified client certificate: alternative names first, then the common
    name."""
    held = context.auth_context()
    names = [
        value.decode(errors="replace")
        for key in ("x509_subject_alternative_name", "x509_common_name")
        for value in held.get(key, ())
    ]
    return {"names": names}
