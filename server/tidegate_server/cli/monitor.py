"""``tidegate monitor``: tell states, look at them, plan silences."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from google.protobuf import json_format
from rich.table import Table
from rich.text import Text
from tidegate.v1 import monitor_service_pb2 as wire
from tidegate.v1 import monitor_service_pb2_grpc, monitors_pb2, rules_pb2

from tidegate_server.cli import console
from tidegate_server.cli.config_file import parse_duration, parse_time
from tidegate_server.cli.connection import Connection, ServerRefusedError, connected
from tidegate_server.cli.exits import RefusedError
from tidegate_server.cli.plain import plain, word
from tidegate_server.cli.render import to_second
from tidegate_server.errors import Violation

STATES = ("ok", "warn", "alert", "no_data", "skipped", "unknown")
_STYLES = {"OK": "green", "WARN": "yellow", "ALERT": "bold red", "NO_DATA": "bold magenta"}
_BATCH = 500
Batch = Sequence[tuple[int, monitors_pb2.MonitorStateReport]]


def _stub(connection: Connection) -> Any:
    return connection.stub(monitor_service_pb2_grpc.MonitorServiceStub)


def _state(number: int) -> Text:
    text = word(rules_pb2.MonitorState.DESCRIPTOR, number) or "-"
    return Text(text, _STYLES.get(text, "dim"))


@click.group()
def monitor() -> None:
    """Monitors: push states, list, show, delete; downtimes."""


@monitor.command()
@click.option("--id", "monitor_id", help="The monitor's id.")
@click.option("--state", type=click.Choice(STATES, case_sensitive=False), help="Its state.")
@click.option("--name", default="", help="Its name.")
@click.option("--tag", "tags", multiple=True, metavar="KEY:VALUE", help="A tag; may be repeated.")
@click.option("--scope", "scope", multiple=True, metavar="KEY:VALUE", help="A tag of its own query.")
@click.option("--group", default="", metavar="TAG,TAG", help="Which of its groups.")
@click.option("--muted", is_flag=True, help="Its source mutes it.")
@click.option("--time", "time_", help="When the state began, ISO 8601. Default: now.")
@click.option("--valid-for", help="How long the state is believed: 10m. Default: until the next one.")
@click.option("--url", default="", help="Where a person can look at it.")
@click.option("--source", default="", help="Who tells it.")
@click.option(
    "-f", "--file", "path", metavar="FILE", help="JSON lines, one MonitorStateReport each; - reads standard input."
)
@connected
def push(
    connection: Connection,
    monitor_id: str | None,
    state: str | None,
    name: str,
    tags: tuple[str, ...],
    scope: tuple[str, ...],
    group: str,
    muted: bool,
    time_: str | None,
    valid_for: str | None,
    url: str,
    source: str,
    path: str | None,
) -> None:
    """Tell one state, or those of a file."""
    stub = _stub(connection)
    if path is not None:
        if monitor_id is not None or state is not None:
            raise click.UsageError("--file and --id contradict each other; give one of them")
        told = _push_all(connection, stub, list(_batches(path)), path, source)
    else:
        if monitor_id is None or state is None:
            raise click.UsageError("give --id and --state, or --file")
        report = monitors_pb2.MonitorStateReport(
            monitor_id=monitor_id,
            state=f"MONITOR_STATE_{state.upper()}",
            name=name,
            tags=tags,
            scope=scope,
            group=group,
            muted=muted,
            url=url,
        )
        if time_ is not None:
            moment = parse_time(time_)
            if moment is None:
                raise click.UsageError(f"--time: a time in ISO 8601 is expected, not {time_!r}")
            report.time.FromDatetime(moment)
        if valid_for is not None:
            seconds = parse_duration(valid_for)
            if seconds is None:
                raise click.UsageError(f"--valid-for: a duration such as 10m is expected, not {valid_for!r}")
            report.valid_for.FromNanoseconds(round(seconds * 1e9))
        told = connection.call(stub.PushStates, wire.PushStatesRequest(states=[report], source=source))
    taken = "1 state taken" if told.accepted == 1 else f"{told.accepted} states taken"
    click.echo(f"{taken}, {told.unchanged} without a change" if told.unchanged else taken)


def _push_all(
    connection: Connection, stub: Any, batches: Sequence[Batch], path: str, source: str
) -> wire.PushStatesResponse:
    """Push the states of a file, which was read to its end before: a line that cannot be read takes none of them.

    Raises
    ------
    RefusedError
        When the server refuses some, with their lines, and how many were taken before.
    """
    told = wire.PushStatesResponse()
    for batch in batches:
        request = wire.PushStatesRequest(states=[report for _, report in batch], source=source)
        try:
            answer = connection.call(stub.PushStates, request)
        except ServerRefusedError as error:
            lines = [_in_line(one, batch, _name(path)) for one in error.told.violations] or [error.told.message]
            if told.accepted:
                lines.append(f"{told.accepted} states before were taken")
            raise RefusedError("\n".join(lines)) from None
        told.accepted += answer.accepted
        told.unchanged += answer.unchanged
    return told


def _in_line(fault: Violation, batch: Batch, source: str) -> str:
    found = re.fullmatch(r"states\[(\d+)\]\.?(.*)", fault.field)
    if found is None:
        return f"{fault.field}: {fault.description}"
    line, _ = batch[int(found[1])]
    field = f"{found[2]}: " if found[2] else ""
    return f"{source}:{line}: {field}{fault.description}"


def _name(path: str) -> str:
    return "standard input" if path == "-" else path


def _batches(path: str) -> Iterator[Batch]:
    """Yield the states of a file in batches, each state with its line.

    Raises
    ------
    click.UsageError
        When a line cannot be read, with its number.
    """
    source = _name(path)
    batch: list[tuple[int, monitors_pb2.MonitorStateReport]] = []
    try:
        lines = sys.stdin if path == "-" else Path(path).open(encoding="utf-8")  # noqa: SIM115 - closed with the process
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            batch.append((number, _report(line, f"{source}:{number}")))
            if len(batch) == _BATCH:
                yield batch
                batch = []
    except OSError as error:
        raise click.UsageError(f"{source}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.UsageError(f"{source}: is not UTF-8") from None
    if batch:
        yield batch


def _report(line: str, place: str) -> monitors_pb2.MonitorStateReport:
    try:
        content = json.loads(line)
        if not isinstance(content, dict):
            raise ValueError('a state such as {"monitor_id": "a", "state": "ok"} is expected')
        if str(content.get("state", "")).lower() in STATES:
            content["state"] = f"MONITOR_STATE_{content['state'].upper()}"
        return json_format.ParseDict(content, monitors_pb2.MonitorStateReport())
    except (json.JSONDecodeError, json_format.ParseError, ValueError, TypeError) as error:
        raise RefusedError(f"{place}: {str(error).splitlines()[0][:200]}") from None


@monitor.command(name="list")
@click.argument("query", default="")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="At most so many.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@connected
def list_monitors(connection: Connection, query: str, limit: int, output: str) -> None:
    """List the monitors that QUERY finds, such as 'env:prod service:checkout status:alert'. Default: all."""
    found: list[monitors_pb2.Monitor] = []
    token, total = "", 0
    while len(found) < limit:
        size = min(limit - len(found), 1000)
        request = wire.ListMonitorsRequest(query=query, page_size=size, page_token=token)
        page = connection.call(_stub(connection).ListMonitors, request)
        found += page.monitors
        token, total = page.next_page_token, page.total_size
        if not token:
            break
    if output == "json":
        click.echo(json.dumps([plain(one) for one in found], indent=2, allow_nan=False))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("id", "name", "group", "state", "since", "muted", "tags"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("state", "since"))
    for one in found:
        for group in one.groups or [monitors_pb2.MonitorGroup(state=one.state)]:
            table.add_row(
                one.monitor_id,
                one.display_name,
                group.group,
                _state(group.state),
                to_second(group.since) if group.HasField("since") else "",
                "yes" if group.muted else "",
                " ".join(one.tags),
            )
    console.out().print(table if found else "no monitors")
    if total > len(found):
        console.err().print(f"{len(found)} of {total} shown; say --limit for more")


@monitor.command()
@click.argument("monitor_id", metavar="ID")
@click.option("--since", default="24h", show_default=True, help="How far back: 90m, or a time in ISO 8601.")
@click.option("--output", type=click.Choice(["text", "json"]), default="text", show_default=True)
@connected
def show(connection: Connection, monitor_id: str, since: str, output: str) -> None:
    """Show a monitor and its states over time."""
    import datetime as dt

    seconds, moment = parse_duration(since), parse_time(since)
    if seconds is not None:
        moment = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=seconds)
    if moment is None:
        raise click.UsageError(f"--since: a duration or a time in ISO 8601 is expected, not {since!r}")
    request = wire.GetMonitorRequest(name=_resource("monitors", monitor_id))
    request.start_time.FromDatetime(moment)
    found = connection.call(_stub(connection).GetMonitor, request)
    if output == "json":
        click.echo(json.dumps(plain(found), indent=2, allow_nan=False))
        return
    to = console.out()
    to.print(Text(f"{found.monitor.display_name} ({found.monitor.monitor_id})", "bold"), soft_wrap=True)
    to.print(Text(" ".join(found.monitor.tags), "dim"), soft_wrap=True)
    for timeline in found.timelines:
        if timeline.group:
            to.print(timeline.group, soft_wrap=True)
        for span in timeline.spans:
            line = Text("  ")
            line.append_text(_state(span.state))
            end = span.end_time.ToJsonString() if span.HasField("end_time") else "now"
            muted = ", muted" if span.muted else ""
            line.append(f"  {span.start_time.ToJsonString()} to {end}{muted}")
            to.print(line, soft_wrap=True)


@monitor.command()
@click.argument("monitor_id", metavar="ID")
@click.option("--group", default="", help="One group of it alone.")
@connected
def delete(connection: Connection, monitor_id: str, group: str) -> None:
    """Delete a monitor or one of its groups."""
    request = wire.DeleteMonitorRequest(name=_resource("monitors", monitor_id), group=group)
    connection.call(_stub(connection).DeleteMonitor, request)
    click.echo(f"deleted {monitor_id}{f' {group}' if group else ''}")


@monitor.group()
def downtime() -> None:
    """Planned silences: create, list, end."""


@downtime.command()
@click.argument("query")
@click.option("--reason", required=True, help="Why; it stands in the evidence of every rule that it touches.")
@click.option("--start", help="ISO 8601. Default: now.")
@click.option("--for", "length", help="How long: 2h. Default: until it is ended.")
@connected
def create(connection: Connection, query: str, reason: str, start: str | None, length: str | None) -> None:
    """Mute the monitors, or groups, that QUERY finds."""
    import datetime as dt

    request = wire.CreateDowntimeRequest(downtime=monitors_pb2.Downtime(query=query, reason=reason))
    begin = dt.datetime.now(dt.UTC)
    if start is not None:
        moment = parse_time(start)
        if moment is None:
            raise click.UsageError(f"--start: a time in ISO 8601 is expected, not {start!r}")
        begin = moment
        request.downtime.start_time.FromDatetime(begin)
    if length is not None:
        seconds = parse_duration(length)
        if seconds is None or seconds <= 0:
            raise click.UsageError(f"--for: a duration such as 2h is expected, not {length!r}")
        request.downtime.end_time.FromDatetime(begin + dt.timedelta(seconds=seconds))
    made = connection.call(_stub(connection).CreateDowntime, request).downtime
    click.echo(made.name.removeprefix("downtimes/"))


@downtime.command(name="list")
@click.option("--all", "all_", is_flag=True, help="Those too that have ended.")
@click.option("--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
@connected
def list_downtimes(connection: Connection, all_: bool, output: str) -> None:
    """List downtimes by their start."""
    found: list[monitors_pb2.Downtime] = []
    token = ""
    while True:
        request = wire.ListDowntimesRequest(page_size=1000, page_token=token, show_ended=all_)
        page = connection.call(_stub(connection).ListDowntimes, request)
        found += page.downtimes
        token = page.next_page_token
        if not token:
            break
    if output == "json":
        click.echo(json.dumps([plain(one) for one in found], indent=2, allow_nan=False))
        return
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("id", "query", "start", "end", "reason", "by"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(
            one.name.removeprefix("downtimes/"),
            one.query,
            one.start_time.ToJsonString(),
            one.end_time.ToJsonString() if one.HasField("end_time") else "",
            one.reason,
            one.created_by,
        )
    console.out().print(table if found else "no downtimes")


@downtime.command()
@click.argument("identity", metavar="ID")
@connected
def end(connection: Connection, identity: str) -> None:
    """End a downtime now."""
    name = identity if identity.startswith("downtimes/") else f"downtimes/{identity}"
    connection.call(_stub(connection).DeleteDowntime, wire.DeleteDowntimeRequest(name=name))
    click.echo(f"ended {name.removeprefix('downtimes/')}")


def _resource(collection: str, identity: str) -> str:
    from tidegate_server.gates.names import simple_name

    return simple_name(collection, identity)
