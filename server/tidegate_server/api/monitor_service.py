"""MonitorService: states in, timelines out."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from tidegate.v1 import monitor_service_pb2, monitor_service_pb2_grpc, monitors_pb2

from tidegate_server.api.metrics import decode_time
from tidegate_server.api.monitor_messages import (
    decode_downtime,
    decode_reports,
    encode_downtime,
    encode_monitor,
    encode_timelines,
)
from tidegate_server.api.paging import page_size, read_token, write_token
from tidegate_server.auth import methods
from tidegate_server.errors import Violation, Violations, over_limit
from tidegate_server.gates.errors import InvalidError
from tidegate_server.gates.names import parse_simple, simple_name
from tidegate_server.gates.ports import AuditRecord, MonitorRepository, PushReceipt
from tidegate_server.gates.validate import check_query
from tidegate_server.interceptors import Context
from tidegate_server.monitors.query import parse

MAX_STATES = 10_000
DEFAULT_HISTORY = 86400.0
MAX_HISTORY = 31 * 86400.0


class MonitorServicer(monitor_service_pb2_grpc.MonitorServiceServicer):
    """Takes the states of monitors and tells them again.

    Parameters
    ----------
    monitors:
        Where they are stored.
    clock:
        Wall time in seconds since the epoch.
    """

    def __init__(self, monitors: MonitorRepository, clock: Callable[[], float]) -> None:
        """Keep the parts."""
        self._monitors = monitors
        self._clock = clock

    async def PushStates(  # noqa: N802
        self, request: monitor_service_pb2.PushStatesRequest, _context: Context
    ) -> monitor_service_pb2.PushStatesResponse:
        """Take states, all of them or none."""
        receipt = await self._push(request.states, request.source)
        return monitor_service_pb2.PushStatesResponse(
            accepted=receipt.accepted, unchanged=receipt.unchanged, out_of_order=receipt.out_of_order
        )

    async def StreamStates(  # noqa: N802
        self, requests: AsyncIterator[monitor_service_pb2.StreamStatesRequest], _context: Context
    ) -> monitor_service_pb2.StreamStatesResponse:
        """Take states as they come."""
        total = monitor_service_pb2.StreamStatesResponse()
        async for request in requests:
            receipt = await self._push(request.states, request.source)
            total.accepted += receipt.accepted
            total.unchanged += receipt.unchanged
            total.out_of_order += receipt.out_of_order
        return total

    async def ListMonitors(  # noqa: N802
        self, request: monitor_service_pb2.ListMonitorsRequest, _context: Context
    ) -> monitor_service_pb2.ListMonitorsResponse:
        """List the monitors that a query finds, by id."""
        query = request.query or "*"
        wrong = check_query(query, "query")
        if wrong:
            raise InvalidError(wrong)
        bound = ("monitors", request.query)
        after = read_token(request.page_token, *bound)
        size = page_size(request.page_size)
        found = await self._monitors.search(parse(query), after=after, size=size)
        return monitor_service_pb2.ListMonitorsResponse(
            monitors=[
                encode_monitor(match.monitor, match.groups if match.monitor.groups else ()) for match in found.matches
            ],
            next_page_token=write_token(found.next_after, *bound),
            total_size=found.total,
        )

    async def GetMonitor(  # noqa: N802
        self, request: monitor_service_pb2.GetMonitorRequest, _context: Context
    ) -> monitor_service_pb2.GetMonitorResponse:
        """Return a monitor and its states over time."""
        monitor_id = parse_simple(request.name, "monitors")
        wrong = Violations()
        end = self._clock()
        if request.HasField("end_time"):
            end = decode_time(request.end_time, "end_time", wrong) or end
        start = end - DEFAULT_HISTORY
        if request.HasField("start_time"):
            start = decode_time(request.start_time, "start_time", wrong) or start
        if not wrong.found and not start < end:
            wrong.add("start_time", "must lie before end_time")
        elif end - start > MAX_HISTORY:
            wrong.add("start_time", "lies more than 31 days before end_time; ask for less")
        if wrong.found:
            raise InvalidError(wrong.found)
        monitor = await self._monitors.get(monitor_id)
        history = (await self._monitors.histories([monitor_id], start, end)).get(monitor_id)
        return monitor_service_pb2.GetMonitorResponse(
            monitor=encode_monitor(monitor),
            timelines=[] if history is None else encode_timelines(history),
        )

    async def DeleteMonitor(  # noqa: N802
        self, request: monitor_service_pb2.DeleteMonitorRequest, _context: Context
    ) -> monitor_service_pb2.DeleteMonitorResponse:
        """Delete a monitor or one of its groups."""
        monitor_id = parse_simple(request.name, "monitors")
        audit = self._audit("monitor.delete", request.name, group=request.group)
        await self._monitors.delete(monitor_id, self._clock(), audit, group=request.group or None)
        return monitor_service_pb2.DeleteMonitorResponse()

    async def CreateDowntime(  # noqa: N802
        self, request: monitor_service_pb2.CreateDowntimeRequest, _context: Context
    ) -> monitor_service_pb2.CreateDowntimeResponse:
        """Plan a silence."""
        now, wrong = self._clock(), Violations()
        downtime = decode_downtime(request.downtime, now, "downtime.", wrong)
        if wrong.found:
            raise InvalidError(wrong.found)
        downtime = replace(downtime, id=uuid.uuid4().hex, created_by=methods.caller().name, create_time=now)
        name = simple_name("downtimes", downtime.id)
        audit = self._audit("downtime.create", name, query=downtime.query, reason=downtime.reason)
        stored = await self._monitors.create_downtime(downtime, audit)
        return monitor_service_pb2.CreateDowntimeResponse(downtime=encode_downtime(stored))

    async def ListDowntimes(  # noqa: N802
        self, request: monitor_service_pb2.ListDowntimesRequest, _context: Context
    ) -> monitor_service_pb2.ListDowntimesResponse:
        """List silences by their start."""
        bound = ("downtimes", str(request.show_ended))
        after = read_token(request.page_token, *bound)
        size = page_size(request.page_size)
        now = self._clock()
        found = [
            one
            for one in await self._monitors.list_downtimes()
            if request.show_ended or one.end_time is None or one.end_time > now
        ]
        found.sort(key=lambda one: (one.start_time, one.id))
        page = [one for one in found if _place(one.start_time, one.id) > after][: size + 1]
        last = _place(page[size - 1].start_time, page[size - 1].id) if len(page) > size else ""
        return monitor_service_pb2.ListDowntimesResponse(
            downtimes=[encode_downtime(one) for one in page[:size]],
            next_page_token=write_token(last, *bound),
        )

    async def DeleteDowntime(  # noqa: N802
        self, request: monitor_service_pb2.DeleteDowntimeRequest, _context: Context
    ) -> monitor_service_pb2.DeleteDowntimeResponse:
        """End a silence now."""
        downtime_id = parse_simple(request.name, "downtimes")
        audit = self._audit("downtime.end", request.name)
        ended = await self._monitors.end_downtime(downtime_id, self._clock(), audit)
        return monitor_service_pb2.DeleteDowntimeResponse(downtime=encode_downtime(ended))

    async def _push(self, messages: Sequence[monitors_pb2.MonitorStateReport], source: str) -> PushReceipt:
        if len(messages) > MAX_STATES:
            raise over_limit("max_states", MAX_STATES, len(messages), "push them in several requests")
        if not messages:
            raise InvalidError([Violation("states", "at least one state is needed")])
        now, wrong = self._clock(), Violations()
        states = decode_reports(messages, source, now, wrong)
        if wrong.found:
            raise InvalidError(wrong.found)
        return await self._monitors.push(states, now)

    def _audit(self, action: str, resource: str, **detail: str) -> AuditRecord:
        return AuditRecord(
            time=self._clock(),
            actor=methods.caller().name,
            action=action,
            resource=resource,
            detail={name: value for name, value in detail.items() if value},
        )


def _place(time: float, name: str) -> str:
    """Return a text that sorts by time, then by name."""
    return f"{round(time * 1e6):020d}:{name}"
