"""What happens around every call: a log line, and an error that speaks.

Interceptors wrap handlers of all four kinds with one asynchronous context manager, see :func:`around`. Their
order is set in :mod:`tidegate_server.app`.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]
from grpc_status import rpc_status

from tidegate_server.errors import DOMAIN, Code, RequestError
from tidegate_server.log import Log

Details = grpc.HandlerCallDetails
if TYPE_CHECKING:
    Handler = grpc.RpcMethodHandler[Any, Any]
    Context = grpc.aio.ServicerContext[Any, Any]
else:  # generic in their type stubs only
    Handler, Context = grpc.RpcMethodHandler, grpc.aio.ServicerContext
Continuation = Callable[[Details], Awaitable[Handler | None]]
Around = Callable[[Context], AbstractAsyncContextManager[None]]

QUIET = ("/grpc.health.v1.Health/", "/grpc.reflection.")
"""Methods that are logged at the lowest level only: they are called every few seconds."""

log = Log("call")


def _kind(handler: Handler) -> str:
    asked = "stream" if handler.request_streaming else "unary"
    answered = "stream" if handler.response_streaming else "unary"
    return f"{asked}_{answered}"


def _remake(handler: Handler, behaviour: Any, deserialize: Any) -> Handler:
    make = getattr(grpc, f"{_kind(handler)}_rpc_method_handler")
    made: Handler = make(behaviour, deserialize, handler.response_serializer)
    return made


def around(handler: Handler, surround: Around) -> Handler:
    """Return the handler with ``async with surround(context)`` about each call.

    Works for asynchronous handlers of all kinds; a streaming one may be a coroutine or an async generator.
    """
    inner = getattr(handler, _kind(handler))
    wrapped: Any
    if inspect.isasyncgenfunction(inner):

        async def wrapped(request: Any, context: Context) -> Any:
            async with surround(context), contextlib.aclosing(inner(request, context)) as responses:
                async for response in responses:
                    yield response

    else:

        async def wrapped(request: Any, context: Context) -> Any:
            async with surround(context):
                return await inner(request, context)

    return _remake(handler, wrapped, handler.request_deserializer)


def _with_readable_requests(handler: Handler) -> Handler:
    """Return the handler with messages that cannot be read refused, instead of an INTERNAL error by gRPC."""
    inner = getattr(handler, _kind(handler))
    admit: Callable[[Any], Any] = _readable if handler.request_streaming else _refuse_malformed
    wrapped: Any
    if inspect.isasyncgenfunction(inner):

        async def wrapped(request: Any, context: Context) -> Any:
            async with contextlib.aclosing(inner(admit(request), context)) as responses:
                async for response in responses:
                    yield response

    else:

        async def wrapped(request: Any, context: Context) -> Any:
            return await inner(admit(request), context)

    return _remake(handler, wrapped, _lenient(handler.request_deserializer))


class Interceptor(grpc.aio.ServerInterceptor):
    """Base of the interceptors: puts something around every call of a method."""

    async def intercept_service(self, continuation: Continuation, handler_call_details: Details) -> Handler | None:
        """Wrap the handler, where there is one."""
        handler = await continuation(handler_call_details)
        surround = self.surround(handler_call_details.method)
        if handler is None or surround is None:
            return handler
        return around(handler, surround)

    def surround(self, method: str) -> Around | None:
        """Return what goes around a call of the method, ``None`` for nothing."""
        raise NotImplementedError


class Malformed:
    """Stands for a message that could not be read."""


def _lenient(deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    if deserialize is None:
        return None

    def read(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError:
            return Malformed()

    return read


def _refuse_malformed(message: Any) -> Any:
    if isinstance(message, Malformed):
        raise RequestError(
            Code.INVALID_ARGUMENT,
            "MALFORMED_MESSAGE",
            "the message cannot be read: it is no valid protobuf of this method, or a string is not UTF-8",
        )
    return message


async def _readable(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for message in requests:
        yield _refuse_malformed(message)


class ErrorInterceptor(Interceptor):
    """Turns refusals into rich statuses, and anything unforeseen into INTERNAL with a number for the log."""

    def surround(self, method: str) -> Around:
        """Guard every method."""

        @contextlib.asynccontextmanager
        async def guard(context: Context) -> AsyncIterator[None]:
            try:
                try:
                    yield
                except RequestError as error:
                    await abort(context, error)
                except (asyncio.CancelledError, grpc.aio.AbortError, grpc.aio.InternalError):
                    raise
                except Exception as error:
                    incident = uuid.uuid4().hex[:12]
                    log.error("unforeseen error", method=method, incident=incident, exception=error)
                    message = f"an error that was not foreseen; the server's log tells more under incident={incident}"
                    await abort(
                        context,
                        RequestError(Code.INTERNAL, "INTERNAL", message, metadata={"incident": incident}),
                    )
            except grpc.aio.InternalError:
                # gRPC could not send an answer or a refusal: the client left while it was on its way.
                raise asyncio.CancelledError from None

        return guard


class ReadableInterceptor(grpc.aio.ServerInterceptor):
    """Refuses messages that cannot be read: the client's fault, INVALID_ARGUMENT where gRPC would say INTERNAL.

    Stands next to the handlers, so that who may not call learns that and nothing else.
    """

    async def intercept_service(self, continuation: Continuation, handler_call_details: Details) -> Handler | None:
        """Wrap the handler and its deserializer."""
        handler = await continuation(handler_call_details)
        return handler if handler is None else _with_readable_requests(handler)


class ActiveCalls(Interceptor):
    """Counts open calls, health checks and reflection apart, so that a drain knows when it is through."""

    def __init__(self) -> None:
        """Start with none."""
        self.count = 0
        self.idle = asyncio.Event()
        self.idle.set()

    def surround(self, method: str) -> Around | None:
        """Count every method that does work."""
        if method.startswith(QUIET):
            return None

        @contextlib.asynccontextmanager
        async def counted(_: Context) -> AsyncIterator[None]:
            self.count += 1
            self.idle.clear()
            try:
                yield
            finally:
                self.count -= 1
                if not self.count:
                    self.idle.set()

        return counted


class LogInterceptor(Interceptor):
    """Writes one line per call: method, peer, status, seconds."""

    def surround(self, method: str) -> Around:
        """Time every method."""
        write = log.debug if method.startswith(QUIET) else log.info

        @contextlib.asynccontextmanager
        async def timed(context: Context) -> AsyncIterator[None]:
            started = time.perf_counter()
            # Asked for now: a stream whose client has left may end after its call is gone, and gRPC crashes then.
            peer = context.peer()
            outcome = None
            try:
                yield
            except asyncio.CancelledError:
                outcome = "CANCELLED"
                raise
            finally:
                seconds = time.perf_counter() - started
                outcome = outcome or _status_name(context)
                write("done", method=method, peer=peer, status=outcome, seconds=round(seconds, 6))

        return timed


def _status_name(context: Context) -> str:
    code: Any = context.code()
    if isinstance(code, grpc.StatusCode):
        return code.name
    return code_pb2.Code.Name(code) if code else "OK"


async def abort(context: Context, error: RequestError) -> None:
    """End a call with a refusal as ``google.rpc.Status``.

    Raises
    ------
    grpc.aio.AbortError
        Always, as gRPC wants it.
    """
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)


MAX_STATUS_BYTES = 5000
"""What a refusal tells of fields, and of facts, at most: gRPC drops a status of more than 16 kB altogether."""


def _cut(text: str, size: int) -> str:
    """Return a text of at most ``size`` bytes of UTF-8."""
    data = text.encode(errors="replace")
    return text if len(data) <= size else data[: size - 3].decode(errors="ignore") + "…"


def to_status(error: RequestError) -> status_pb2.Status:
    """Return the status of a refusal: ErrorInfo always, BadRequest and RetryInfo where they apply."""
    facts = {_cut(key, 64): _cut(value, 256) for key, value in list(error.metadata.items())[:16]}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts)]
    if error.violations:
        bad, size = error_details_pb2.BadRequest(), 0
        for one in error.violations:
            field, description = _cut(one.field, 200), _cut(one.description, 500)
            size += len(field.encode()) + len(description.encode())
            if size > MAX_STATUS_BYTES:
                break
            bad.field_violations.add(field=field, description=description)
        details.append(bad)
    if error.retry_seconds is not None:
        delay = Duration()
        delay.FromMilliseconds(round(error.retry_seconds * 1000))
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code.value), message=_cut(error.message, 1000))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
