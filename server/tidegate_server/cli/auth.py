"""``tidegate auth`` and ``tidegate token``: who may do what, kept in the server's store.

These commands open the store itself: whoever may read and write it needs no token to make the first one.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import getpass
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.table import Table

from tidegate_server.auth.model import Grant, Role
from tidegate_server.cli import console
from tidegate_server.cli.config_file import parse_duration
from tidegate_server.cli.exits import CouldNotLookError, RefusedError
from tidegate_server.config import Config
from tidegate_server.errors import Code, ConfigError, RequestError

if TYPE_CHECKING:
    from tidegate_server.store import Store

T = TypeVar("T")

ROLES = tuple(role.name.lower() for role in Role)


def _store_option(command: Any) -> Any:
    return click.option(
        "--store-url",
        metavar="URL",
        help="The server's store: a SQLite file or postgresql://... Also TIDEGATE_STORE_URL. Default: that of serve.",
    )(command)


def _grant_options(command: Any) -> Any:
    command = click.option(
        "--env", "environment", default="*", show_default=True, help="Only there; * and ? are wildcards."
    )(command)
    command = click.option("--service", default="*", show_default=True, help="Only for these; * and ? are wildcards.")(
        command
    )
    return click.option("--role", type=click.Choice(ROLES), required=True, help="What may be done.")(command)


def _with_store(store_url: str | None, work: Callable[[Store], Awaitable[T]]) -> T:
    """Open the store, do something, close it."""
    from tidegate_server.store import Store

    try:
        store = Store(Config.from_env(os.environ, store_url=store_url).store_url)
    except (ConfigError, ValueError) as error:
        raise click.UsageError(str(error)) from None

    async def run() -> T:
        try:
            await store.migrate()
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(run())
    except RequestError as error:
        asked_wrongly = error.code in (Code.INVALID_ARGUMENT, Code.NOT_FOUND, Code.ALREADY_EXISTS)
        raise (RefusedError if asked_wrongly else CouldNotLookError)(error.message) from None


def _check_grant(named: str, name: str, service: str, environment: str) -> None:
    """Refuse a name that nobody could read in the audit log, and a scope that holds nothing."""
    from tidegate_server.gates.validate import check_name

    for option, value in ((named, name), ("--service", service), ("--env", environment)):
        for one in check_name(value, option):
            raise click.UsageError(f"{one.field}: {one.description}")


def _audit(action: str, resource: str, **detail: str) -> Any:
    from tidegate_server.gates.ports import AuditRecord

    return AuditRecord(time=time.time(), actor=_who(), action=action, resource=resource, detail=detail)


def _who() -> str:
    try:
        return f"local:{getpass.getuser()}"
    except (KeyError, OSError):
        return "local"


@click.group()
def auth() -> None:
    """Authorisation: switch it on or off, allow client certificates, read the audit log."""


@auth.command()
@_store_option
def enable(store_url: str | None) -> None:
    """Ask every caller who it is. Servers beyond loopback do so always."""

    async def work(store: Store) -> int:
        records = await store.tokens.list()
        await store.tokens.set_enabled(True, _audit("auth.enable", "auth"))
        now = time.time()
        return sum(one.revoke_time is None and (one.expire_time or now + 1) > now for one in records)

    count = _with_store(store_url, work)
    click.echo("authorisation is on; running servers ask within 5 s")
    if not count:
        click.echo("nobody has a token yet: tidegate token create --name NAME --role operator", err=True)


@auth.command()
@_store_option
def disable(store_url: str | None) -> None:
    """Let everybody who reaches a server on loopback do everything."""

    async def work(store: Store) -> None:
        await store.tokens.set_enabled(False, _audit("auth.disable", "auth"))

    _with_store(store_url, work)
    click.echo("authorisation is off on loopback")


@auth.command()
@_store_option
def status(store_url: str | None) -> None:
    """Say whether authorisation is on."""

    async def work(store: Store) -> bool:
        return await store.tokens.enabled()

    on = _with_store(store_url, work)
    click.echo("authorisation is on" if on else "authorisation is off on loopback, on beyond it")


@auth.command(name="allow-certificate")
@click.argument("identity")
@_grant_options
@_store_option
def allow_certificate(identity: str, role: str, service: str, environment: str, store_url: str | None) -> None:
    """Give a role to the client certificate whose common or alternative name is IDENTITY."""
    from tidegate_server.auth.tokens import certificate_record

    _check_grant("IDENTITY", identity, service, environment)
    record = certificate_record(identity, [Grant(Role[role.upper()], service, environment)], _who(), time.time())

    async def work(store: Store) -> None:
        audit = _audit("token.create", record.name, role=role, service=service, environment=environment)
        await store.tokens.create(record, audit)

    _with_store(store_url, work)
    click.echo(f"{identity}: {role} for {service} in {environment}; id {record.id}")


@auth.command()
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@_store_option
def log(limit: int, store_url: str | None) -> None:
    """Print the audit log, newest first."""
    from tidegate_server.gates.ports import ListQuery

    async def work(store: Store) -> Any:
        return await store.audit.list(ListQuery(page_size=limit))

    for one in _with_store(store_url, work).items:
        detail = " ".join(f"{name}={value}" for name, value in one.detail.items())
        click.echo(f"{_iso(one.time)}  {one.actor}  {one.action}  {one.resource}  {detail}".rstrip())


@click.group()
def token() -> None:
    """Bearer tokens: create, list, revoke."""


@token.command()
@click.option("--name", required=True, help="Who it is for; stands in the audit log.")
@_grant_options
@click.option("--expires-in", help="How long it holds: 90d is 2160h. Default: until it is revoked.")
@_store_option
def create(name: str, role: str, service: str, environment: str, expires_in: str | None, store_url: str | None) -> None:
    """Make a token and print it. It is shown once: only its hash is kept."""
    from tidegate_server.auth.tokens import new_token

    _check_grant("--name", name, service, environment)
    ttl = None if expires_in is None else parse_duration(expires_in)
    if expires_in is not None and (ttl is None or ttl <= 0):
        raise click.UsageError(f"--expires-in: a duration such as 2160h is expected, not {expires_in!r}")
    secret, record = new_token(name, [Grant(Role[role.upper()], service, environment)], _who(), time.time(), ttl)

    async def work(store: Store) -> None:
        audit = _audit("token.create", name, id=record.id, role=role, service=service, environment=environment)
        await store.tokens.create(record, audit)

    _with_store(store_url, work)
    click.echo(secret)
    click.echo(f"{role} for {service} in {environment}; id {record.id}; it is not shown again", err=True)


@token.command(name="list")
@_store_option
def list_tokens(store_url: str | None) -> None:
    """List tokens and allowed certificates; never the tokens themselves."""

    async def work(store: Store) -> Any:
        return await store.tokens.list()

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("id", "name", "grants", "created", "by", "expires", "revoked"):
        table.add_column(heading, overflow="fold")
    records = _with_store(store_url, work)
    for one in records:
        table.add_row(
            one.id,
            one.name,
            "; ".join(f"{role} for {service} in {environment}" for role, service, environment in one.grants),
            _iso(one.create_time),
            one.created_by,
            _iso(one.expire_time),
            _iso(one.revoke_time),
        )
    console.out().print(table if records else "no tokens")


@token.command()
@click.argument("token_id", metavar="ID")
@_store_option
def revoke(token_id: str, store_url: str | None) -> None:
    """Revoke a token or an allowed certificate by its id. Running servers notice within 5 s."""

    async def work(store: Store) -> None:
        await store.tokens.revoke(token_id, time.time(), _audit("token.revoke", token_id))

    _with_store(store_url, work)
    click.echo(f"revoked {token_id}")


def _iso(moment: float | None) -> str:
    return "" if moment is None else dt.datetime.fromtimestamp(moment, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
