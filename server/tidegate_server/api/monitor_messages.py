"""Monitors, states and downtimes: wire to domain and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

from tidegate.v1 import monitors_pb2

from tidegate_server.api.evaluation_messages import encode_span
from tidegate_server.api.gate_messages import decode_member
from tidegate_server.api.metrics import decode_duration, decode_time, encode_seconds
from tidegate_server.errors import Violations
from tidegate_server.gates.model import MonitorState
from tidegate_server.gates.names import simple_name
from tidegate_server.gates.validate import check_name, check_query, check_text, check_url
from tidegate_server.monitors.model import Downtime, Monitor, MonitorGroup, MonitorHistory, StatePush

MAX_AHEAD = 60.0
MAX_BEHIND = 30 * 86400.0
MAX_TAGS = 64
MAX_GROUP_BYTES = 512
MAX_URL_BYTES = 2048
MAX_DOWNTIME_AHEAD = 366 * 86400.0


def decode_reports(
    messages: Sequence[monitors_pb2.MonitorStateReport], source: str, now: float, wrong: Violations
) -> list[StatePush]:
    """Return the states of a request; what is wrong is noted with its path."""
    wrong.found += check_name(source, "source", required=False)
    told: dict[tuple[str, str, float], tuple[int, StatePush]] = {}
    out: list[StatePush] = []
    for k, message in enumerate(messages):
        push = _decode_report(message, source, now, f"states[{k}]", wrong)
        key = (push.monitor_id, push.group, push.time)
        earlier = told.setdefault(key, (k, push))
        if earlier[0] == k:
            out.append(push)
        elif earlier[1] != push:
            wrong.add(
                f"states[{k}]",
                f"contradicts states[{earlier[0]}]: same monitor, group and time; send one of them",
            )
    return out


def _decode_report(
    message: monitors_pb2.MonitorStateReport, source: str, now: float, at: str, wrong: Violations
) -> StatePush:
    wrong.found += check_name(message.monitor_id, f"{at}.monitor_id")
    wrong.found += check_name(message.name, f"{at}.name", required=False)
    state = decode_member(MonitorState, message.state, f"{at}.state", wrong)
    time = now
    if message.HasField("time"):
        time = decode_time(message.time, f"{at}.time", wrong) or now
        if time > now + MAX_AHEAD:
            wrong.add(f"{at}.time", f"lies {time - now:.0f} s in the future; at most {MAX_AHEAD:.0f} s are taken")
        elif time < now - MAX_BEHIND:
            wrong.add(f"{at}.time", "lies more than 30 days back")
    for name in ("tags", "scope", "group_tags"):
        tags = getattr(message, name)
        if len(tags) > MAX_TAGS:
            wrong.add(f"{at}.{name}", f"{len(tags)} tags; at most {MAX_TAGS} are allowed")
        for k, tag in enumerate(tags[:MAX_TAGS]):
            wrong.found += check_name(tag, f"{at}.{name}[{k}]")
    if len(message.group.encode()) > MAX_GROUP_BYTES:
        wrong.add(f"{at}.group", f"at most {MAX_GROUP_BYTES} bytes are allowed")
    elif message.group:
        wrong.found += check_text(message.group, f"{at}.group")
    if len(message.url.encode()) > MAX_URL_BYTES:
        wrong.add(f"{at}.url", f"at most {MAX_URL_BYTES} bytes are allowed")
    elif message.url:
        wrong.found += check_url(message.url, f"{at}.url")
    expire = None
    if message.HasField("valid_for"):
        seconds = decode_duration(message.valid_for, f"{at}.valid_for", wrong)
        if seconds is not None and not 0 < seconds <= MAX_BEHIND:
            wrong.add(f"{at}.valid_for", f"must be above 0 s and at most 30 days, not {seconds:g} s")
        elif seconds is not None:
            expire = time + seconds
    groups = tuple(message.group_tags) or tuple(tag for tag in (one.strip() for one in message.group.split(",")) if tag)
    return StatePush(
        monitor_id=message.monitor_id,
        state=state,
        time=time,
        name=message.name,
        tags=tuple(message.tags),
        scope=tuple(message.scope),
        group=message.group,
        group_tags=groups,
        muted=message.muted,
        url=message.url,
        source=source,
        expire_time=expire,
    )


def encode_monitor(monitor: Monitor, groups: Iterable[MonitorGroup] | None = None) -> monitors_pb2.Monitor:
    """Return the message of a monitor, with all of its groups or some of them."""
    message = monitors_pb2.Monitor(
        name=simple_name("monitors", monitor.id),
        monitor_id=monitor.id,
        display_name=monitor.name,
        tags=monitor.tags,
        scope=monitor.scope,
        state=cast("Any", int(monitor.state)),
        url=monitor.url,
        source=monitor.source,
    )
    for group in monitor.groups if groups is None else groups:
        added = message.groups.add(
            group=group.key,
            tags=group.tags,
            state=cast("Any", int(group.state)),
            muted=group.muted,
        )
        encode_seconds(added.since, group.since)
        if group.expire_time is not None:
            encode_seconds(added.expire_time, group.expire_time)
    encode_seconds(message.create_time, monitor.create_time)
    encode_seconds(message.update_time, monitor.update_time)
    if monitor.delete_time is not None:
        encode_seconds(message.delete_time, monitor.delete_time)
    return message


def encode_timelines(history: MonitorHistory) -> list[monitors_pb2.MonitorTimeline]:
    """Return the messages of a monitor's timelines, by group."""
    return [
        monitors_pb2.MonitorTimeline(group=key, spans=[encode_span(span) for span in spans])
        for key, spans in sorted(history.timelines.items())
    ]


def decode_downtime(message: monitors_pb2.Downtime, now: float, path: str, wrong: Violations) -> Downtime:
    """Return the silence that a request describes; ``path`` ends in ".". Its id, maker and time are not
    set."""
    start, end = now, None
    if message.HasField("start_time"):
        start = decode_time(message.start_time, f"{path}start_time", wrong) or now
        if start < now - MAX_AHEAD:
            wrong.add(f"{path}start_time", "lies in the past; what was seen then cannot be silenced any more")
        elif start > now + MAX_DOWNTIME_AHEAD:
            wrong.add(f"{path}start_time", "lies more than 366 days ahead")
    if message.HasField("end_time"):
        end = decode_time(message.end_time, f"{path}end_time", wrong)
        if end is not None and end <= start:
            wrong.add(f"{path}end_time", "must lie after start_time")
    wrong.found += check_query(message.query, f"{path}query")
    wrong.found += check_text(message.reason, f"{path}reason")
    if not message.reason.strip():
        wrong.add(f"{path}reason", "is needed: it stands in the evidence of every rule that the silence touches")
    return Downtime(id="", query=message.query, start_time=start, end_time=end, reason=message.reason)


def encode_downtime(downtime: Downtime) -> monitors_pb2.Downtime:
    """Return the message of a silence."""
    message = monitors_pb2.Downtime(
        name=simple_name("downtimes", downtime.id),
        query=downtime.query,
        reason=downtime.reason,
        created_by=downtime.created_by,
    )
    encode_seconds(message.start_time, downtime.start_time)
    encode_seconds(message.create_time, downtime.create_time)
    if downtime.end_time is not None:
        encode_seconds(message.end_time, downtime.end_time)
    return message
