"""How commands reach a server: options, TLS, tokens, and errors in the words of a user."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc
from google.protobuf.message import Message

from tidegate_server.cli.exits import CouldNotLookError, RefusedError
from tidegate_server.client import OPTIONS, TidegateError
from tidegate_server.config import is_local, split_address
from tidegate_server.errors import ConfigError
from tidegate_server.tls import channel_credentials

T = TypeVar("T", bound=Callable[..., Any])

RETRIED = frozenset({grpc.StatusCode.UNAVAILABLE})
"""Codes after which the same request may be sent again: it did not reach a server that works."""

PAUSE_SECONDS = 1.0

_USAGE = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
    }
)


class Connection:
    """One server, called synchronously.

    Parameters
    ----------
    target:
        ``host:port``.
    token:
        A bearer token, or "".
    credentials:
        TLS credentials, None for plaintext.
    timeout:
        Seconds for one call, its repetitions included.
    """

    def __init__(self, target: str, token: str, credentials: grpc.ChannelCredentials | None, timeout: float) -> None:
        """Make the channel; nothing is sent yet."""
        self.target = target
        self.timeout = timeout
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self._channel = (
            grpc.insecure_channel(target, options=OPTIONS)
            if credentials is None
            else grpc.secure_channel(target, credentials, options=OPTIONS)
        )

    def stub(self, kind: Callable[[grpc.Channel], Any]) -> Any:
        """Return a stub of a service on this connection."""
        return kind(self._channel)

    def call(self, method: Any, request: Message) -> Any:
        """Call a unary method, again while the server cannot be reached, until the time is up.

        Raises
        ------
        click.UsageError
            When the server refuses what was asked for.
        CouldNotLookError
            When it cannot be reached, does not know the caller, or fails.
        """
        deadline = time.monotonic() + self.timeout
        while True:
            try:
                return method(request, timeout=max(deadline - time.monotonic(), 0.1), metadata=self._metadata)
            except grpc.RpcError as error:
                told: Any = error
                if told.code() not in RETRIED or time.monotonic() + PAUSE_SECONDS >= deadline:
                    raise self.refusal(error) from None
                time.sleep(PAUSE_SECONDS)

    def stream(self, method: Any, request: Message, timeout: float | None) -> Iterator[Any]:
        """Call a method that streams its answers; errors as `grpc.RpcError`."""
        yield from method(request, timeout=timeout, metadata=self._metadata)

    def refusal(self, error: grpc.RpcError) -> click.ClickException:
        """Return what a call's error means for a user."""
        told = TidegateError.of(error)
        if told.code in _USAGE:
            return ServerRefusedError(told)
        if told.code is grpc.StatusCode.UNAVAILABLE and not told.reason:
            return CouldNotLookError(
                f"no server answers at {self.target}; start one with tidegate serve, or say --server"
            )
        return CouldNotLookError(f"{told.code.name}: {told.message}")

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()


class ServerRefusedError(RefusedError):
    """The server refused what was asked for; its fields are told one a line."""

    def __init__(self, told: TidegateError) -> None:
        """Keep what the server told."""
        lines = [f"{one.field}: {one.description}" for one in told.violations if one.field]
        super().__init__("\n".join(lines) if lines else told.message)
        self.told = told


def connected(command: T) -> T:
    """Give a command the options of a connection, and the open connection as its first argument."""

    @functools.wraps(command)
    def run(
        *args: Any,
        server: str,
        token_file: str | None,
        token: str | None,
        tls: bool,
        tls_ca: str | None,
        tls_certificate: str | None,
        tls_key: str | None,
        insecure: bool,
        call_timeout: float,
        **rest: Any,
    ) -> Any:
        secret = _token(token, token_file)
        use_tls = tls or bool(tls_ca or tls_certificate)
        try:
            credentials = (
                channel_credentials(_path(tls_ca), _path(tls_certificate), _path(tls_key)) if use_tls else None
            )
            local = is_local(split_address(server)[0])
        except ConfigError as error:
            raise click.UsageError(str(error).replace("address:", "--server:")) from None
        if secret and not use_tls and not local and not insecure:
            raise click.UsageError(
                f"a token would travel to {server} in plain text; say --tls, or --insecure to send it all the same"
            )
        connection = Connection(server, secret, credentials, call_timeout)
        try:
            return command(connection, *args, **rest)
        finally:
            connection.close()

    options = (
        click.option(
            "--server",
            envvar="TIDEGATE_SERVER",
            default="127.0.0.1:7443",
            show_default=True,
            metavar="HOST:PORT",
            help="The server. Also TIDEGATE_SERVER.",
        ),
        click.option("--token-file", envvar="TIDEGATE_TOKEN_FILE", metavar="FILE", help="Holds a bearer token."),
        # No option that takes the token itself: it would stand in the list of processes.
        click.option("--token", envvar="TIDEGATE_TOKEN", hidden=True),
        click.option("--tls", is_flag=True, help="Encrypt, trusting the system's authorities."),
        click.option("--tls-ca", metavar="FILE", help="Encrypt, trusting this authority (PEM)."),
        click.option("--tls-certificate", metavar="FILE", help="Who we are (mTLS, PEM)."),
        click.option("--tls-key", metavar="FILE", help="The key of that certificate (PEM)."),
        click.option("--insecure", is_flag=True, help="Send a token without TLS beyond this machine."),
        click.option(
            "--call-timeout",
            type=click.FloatRange(0.1),
            default=30.0,
            show_default=True,
            metavar="SECONDS",
            help="For one call, repetitions included.",
        ),
    )
    wrapped: Any = run
    for option in reversed(options):
        wrapped = option(wrapped)
    made: T = wrapped
    return made


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None


def _token(token: str | None, file: str | None) -> str:
    if token:
        return token.strip()
    if not file:
        return ""
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--token-file: cannot read {file}: {type(error).__name__}") from None
