"""``tidegate gate``: gates as code."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

import click
from rich.table import Table
from rich.text import Text
from tidegate.v1 import gate_service_pb2 as wire
from tidegate.v1 import gate_service_pb2_grpc, gates_pb2

from tidegate_server.cli import console
from tidegate_server.cli.config_file import SERVER_ONLY, Loaded, in_file, load_gates, to_yaml
from tidegate_server.cli.connection import Connection, ServerRefusedError, connected
from tidegate_server.cli.exits import RefusedError, confirm
from tidegate_server.cli.plain import plain
from tidegate_server.gates.model import DEFAULT_IDENTIFIER, GateKey
from tidegate_server.gates.names import gate_name

_DIFF_STYLES = {"+": "green", "-": "red", "@": "cyan"}


def _stub(connection: Connection) -> Any:
    return connection.stub(gate_service_pb2_grpc.GateServiceStub)


@click.group()
def gate() -> None:
    """Stored gates: apply a file, get, list, delete."""


def gate_options(command: Any) -> Any:
    """Add the three options that name a gate."""
    command = click.option("--identifier", default=DEFAULT_IDENTIFIER, show_default=True, help="Which of its gates.")(
        command
    )
    command = click.option("--env", "environment", required=True, help="The environment.")(command)
    return click.option("--service", required=True, help="The service.")(command)


@gate.command()
@click.option("-f", "--file", "path", required=True, metavar="FILE", help="YAML with gates; - reads standard input.")
@click.option("--dry-run", is_flag=True, help="Show what would change, and change nothing.")
@click.option(
    "--prune",
    is_flag=True,
    help="Delete the other gates of the services and environments in the file. Asks first.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def apply(connection: Connection, path: str, dry_run: bool, prune: bool, yes: bool) -> None:
    """Bring the stored gates to what FILE says, and show the difference.

    Nothing is changed unless every gate of the file is right. Applying the same file twice changes nothing.
    """
    stub = _stub(connection)
    to = console.out()
    loaded = load_gates(path, gates_pb2.Gate)
    _refuse_twins(loaded)
    changes = []
    faults: list[str] = []
    for one in loaded:
        wanted = one.message
        request = wire.UpdateGateRequest(gate=wanted, allow_missing=True, validate_only=True)  # type: ignore[arg-type]
        try:
            after = connection.call(stub.UpdateGate, request).gate
        except ServerRefusedError as error:
            faults.append(in_file(error, one).message)
            continue
        before = _current(connection, stub, after)
        changes.append((one, before, after, _difference(before, after)))
    if faults:
        raise RefusedError("\n".join(faults))
    extra = _others(connection, stub, [after for _, _, after, _ in changes]) if prune else []
    for _, before, after, difference in changes:
        verb = "create" if before is None else "change" if difference else "unchanged"
        to.print(Text(f"{verb:<9} {_label(after)}", "bold" if difference else "dim"), soft_wrap=True)
        for line in difference:
            to.print(Text(f"  {line}", _DIFF_STYLES.get(line[:1], "")), soft_wrap=True)
    for other in extra:
        to.print(Text(f"delete    {_label(other)}", "bold red"), soft_wrap=True)
    if dry_run:
        return
    if extra and not yes:
        confirm(f"Delete {len(extra)} gates?")
    done = 0
    for one, before, _, difference in changes:
        # What was shown is what is changed: what somebody else did in between is not overwritten.
        if difference and before is None:
            connection.call(stub.CreateGate, wire.CreateGateRequest(gate=one.message))  # type: ignore[arg-type]
        elif difference and before is not None:
            request = wire.UpdateGateRequest(gate=one.message)  # type: ignore[arg-type]
            request.gate.etag = before.etag
            connection.call(stub.UpdateGate, request)
        done += bool(difference)
    for other in extra:
        connection.call(stub.DeleteGate, wire.DeleteGateRequest(name=other.name, etag=other.etag))
    deleted = f", {len(extra)} deleted" if extra else ""
    to.print(f"{done} applied, {len(changes) - done} unchanged{deleted}")


@gate.command()
@gate_options
@click.option("--revision", type=click.IntRange(0), default=0, help="An older revision. Default: the newest.")
@click.option("--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True)
@connected
def get(connection: Connection, service: str, environment: str, identifier: str, revision: int, output: str) -> None:
    """Print a gate as YAML that apply takes, or as JSON."""
    name = gate_name(GateKey(service, environment, identifier))
    found = connection.call(_stub(connection).GetGate, wire.GetGateRequest(name=name, revision=revision)).gate
    if output == "json":
        click.echo(json.dumps(plain(found), indent=2, allow_nan=False))
    else:
        click.echo(to_yaml(found, without=tuple(SERVER_ONLY)), nl=False)


@gate.command(name="list")
@click.option("--service", default="-", help="Of this service. Default: of any.")
@click.option("--env", "environment", default="-", help="Of this environment. Default: of any.")
@click.option("--filter", "where", default="", help='Such as: owner = "payments" AND dry_run = true')
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@connected
def list_gates(connection: Connection, service: str, environment: str, where: str, output: str) -> None:
    """List gates."""
    gates = list(_listed(connection, _stub(connection), parent(service, environment), where))
    if output == "json":
        click.echo(json.dumps([plain(one) for one in gates], indent=2, allow_nan=False))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("service", "environment", "identifier", "rules", "mode", "revision", "owner"):
        table.add_column(heading, overflow="fold")
    for one in gates:
        mode = "disabled" if not one.enabled else "dry run" if one.dry_run else "active"
        table.add_row(
            one.service,
            one.environment,
            one.identifier,
            ", ".join(rule.name for rule in one.rules),
            mode,
            str(one.revision),
            one.owner,
        )
    console.out().print(table if gates else "no gates")


@gate.command()
@gate_options
@click.option("--etag", default="", help="Only if this is still its etag.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connected
def delete(connection: Connection, service: str, environment: str, identifier: str, etag: str, yes: bool) -> None:
    """Delete a gate. Its revisions and evaluations stay readable."""
    key = GateKey(service, environment, identifier)
    if not yes:
        confirm(f"Delete gate {identifier!r} of {service} in {environment}?")
    connection.call(_stub(connection).DeleteGate, wire.DeleteGateRequest(name=gate_name(key), etag=etag))
    click.echo(f"deleted {service} {environment} {identifier}")


@gate.command()
@gate_options
@connected
def history(connection: Connection, service: str, environment: str, identifier: str) -> None:
    """List the revisions of a gate, newest first, each with its difference to the one before."""
    request = wire.ListGateRevisionsRequest(name=gate_name(GateKey(service, environment, identifier)), page_size=1000)
    found = connection.call(_stub(connection).ListGateRevisions, request).gates
    to = console.out()
    for k, one in enumerate(found):
        older = found[k + 1] if k + 1 < len(found) and found[k + 1].uid == one.uid else None
        to.print(Text(f"revision {one.revision}, {one.update_time.ToJsonString()}, {one.updated_by}", "bold"))
        for line in _difference(older, one):
            to.print(Text(f"  {line}", _DIFF_STYLES.get(line[:1], "")), soft_wrap=True)


def parent(service: str, environment: str) -> str:
    """Return the parent of lists of a service and environment, "-" for any."""
    from urllib.parse import quote

    return f"services/{quote(service, safe='')}/environments/{quote(environment, safe='')}"


def _refuse_twins(loaded: list[Loaded]) -> None:
    first: dict[tuple[str, str, str], Loaded] = {}
    for one in loaded:
        message: Any = one.message
        key = (message.service, message.environment, message.identifier or DEFAULT_IDENTIFIER)
        earlier = first.setdefault(key, one)
        if earlier is not one:
            raise RefusedError(
                f"{one.place_of('gate')}: gate {' '.join(key)} stands at {earlier.place_of('gate')} already"
            )


def _current(connection: Connection, stub: Any, wanted: gates_pb2.Gate) -> gates_pb2.Gate | None:
    import grpc

    try:
        found: gates_pb2.Gate = connection.call(stub.GetGate, wire.GetGateRequest(name=wanted.name)).gate
    except ServerRefusedError as error:
        if error.told.code is grpc.StatusCode.NOT_FOUND:
            return None
        raise
    return found


def _listed(connection: Connection, stub: Any, of: str, where: str = "") -> Iterator[gates_pb2.Gate]:
    token = ""
    while True:
        request = wire.ListGatesRequest(parent=of, filter=where, page_size=500, page_token=token)
        page = connection.call(stub.ListGates, request)
        yield from page.gates
        token = page.next_page_token
        if not token:
            return


def _others(connection: Connection, stub: Any, wanted: list[gates_pb2.Gate]) -> list[gates_pb2.Gate]:
    """Return the stored gates beside the wanted ones, of their services and environments."""
    kept = {one.name for one in wanted}
    places = sorted({(one.service, one.environment) for one in wanted})
    return [
        one
        for service, environment in places
        for one in _listed(connection, stub, parent(service, environment))
        if one.name not in kept
    ]


def _difference(before: gates_pb2.Gate | None, after: gates_pb2.Gate) -> list[str]:
    """Return the lines that differ, as a unified diff of YAML without its header."""
    old = [] if before is None else to_yaml(before, without=tuple(SERVER_ONLY)).splitlines()
    new = to_yaml(after, without=tuple(SERVER_ONLY)).splitlines()
    return [line for line in difflib.unified_diff(old, new, lineterm="", n=2) if not line.startswith(("---", "+++"))]


def _label(one: gates_pb2.Gate) -> str:
    return f"{one.service} {one.environment} {one.identifier}"
