"""MonitorService with real calls: states in, queries, timelines, downtimes, and everything that is refused."""

from __future__ import annotations

import time

import pytest
from tidegate.v1 import monitor_service_pb2 as wire
from tidegate.v1 import monitors_pb2, rules_pb2

from tests.api_gates.gate_calls import fresh, seconds
from tests.server.harness import refused

OK, ALERT, NO_DATA = (
    rules_pb2.MONITOR_STATE_OK,
    rules_pb2.MONITOR_STATE_ALERT,
    rules_pb2.MONITOR_STATE_NO_DATA,
)


def report(monitor_id, state=OK, *, ago=None, **more):
    made = monitors_pb2.MonitorStateReport(monitor_id=monitor_id, state=state, **more)
    if ago is not None:
        seconds(made.time, time.time() - ago)
    return made


def push(calls, *reports, source=""):
    return calls.monitors.PushStates(wire.PushStatesRequest(states=reports, source=source))


def test_states_come_back_as_a_monitor_with_its_timeline(calls):
    team = fresh("team")
    push(
        calls,
        report(team, ago=300, name="Errors", tags=[f"team:{team}"], scope=["env:prod"], url="https://m/1"),
        source="alerts",
    )
    push(calls, report(team, ALERT, ago=200), report(team, OK, ago=100))
    listed = calls.monitors.ListMonitors(wire.ListMonitorsRequest(query=f"team:{team}"))
    assert listed.total_size == 1
    found = listed.monitors[0]
    assert (found.name, found.display_name, found.url, found.source) == (
        f"monitors/{team}",
        "Errors",
        "https://m/1",
        "alerts",
    )
    assert (list(found.tags), list(found.scope)) == ([f"team:{team}"], ["env:prod"])
    told = calls.monitors.GetMonitor(wire.GetMonitorRequest(name=found.name))
    assert [span.state for span in told.timelines[0].spans] == [OK, ALERT, OK]
    alert = told.timelines[0].spans[1]
    assert alert.end_time.ToNanoseconds() - alert.start_time.ToNanoseconds() == pytest.approx(100e9, rel=0.01)
    assert not told.timelines[0].spans[-1].HasField("end_time")


def test_pushing_twice_changes_nothing(calls):
    monitor = fresh("m")
    state = report(monitor, ALERT, ago=50, tags=["a:b"])
    first = push(calls, state)
    assert (first.accepted, first.unchanged) == (1, 0)
    again = push(calls, state)
    assert (again.accepted, again.unchanged) == (1, 1)
    same = push(calls, state, state)
    assert same.accepted >= 1
    told = calls.monitors.GetMonitor(wire.GetMonitorRequest(name=f"monitors/{monitor}"))
    assert len(told.timelines[0].spans) == 1


def test_an_older_state_goes_where_it_belongs(calls):
    monitor = fresh("m")
    push(calls, report(monitor, OK, ago=300), report(monitor, OK, ago=100))
    receipt = push(calls, report(monitor, ALERT, ago=200))
    assert receipt.out_of_order == 1
    told = calls.monitors.GetMonitor(wire.GetMonitorRequest(name=f"monitors/{monitor}"))
    assert ALERT in [span.state for span in told.timelines[0].spans]
    assert told.monitor.state == OK


def test_groups_and_the_worst_of_them(calls):
    monitor = fresh("m")
    push(
        calls,
        report(monitor, OK, group="host:a,env:prod", tags=[f"id:{monitor}"]),
        report(monitor, ALERT, group="host:b", group_tags=["host:b", f"g:{monitor}"]),
    )
    listed = calls.monitors.ListMonitors(wire.ListMonitorsRequest(query=f'group:"g:{monitor}"'))
    assert [group.group for group in listed.monitors[0].groups] == ["host:b"]
    assert listed.monitors[0].state == ALERT
    listed = calls.monitors.ListMonitors(wire.ListMonitorsRequest(query=f"id:{monitor} group:env:prod"))
    assert [list(group.tags) for group in listed.monitors[0].groups] == [["host:a", "env:prod"]]
    calls.monitors.DeleteMonitor(wire.DeleteMonitorRequest(name=f"monitors/{monitor}", group="host:b"))
    told = calls.monitors.GetMonitor(wire.GetMonitorRequest(name=f"monitors/{monitor}"))
    assert [group.group for group in told.monitor.groups] == ["host:a,env:prod"]


def test_a_state_that_is_no_longer_believed_is_no_data(calls):
    monitor = fresh("m")
    old = report(monitor, OK, ago=100)
    seconds(old.valid_for, 30)
    push(calls, old)
    told = calls.monitors.GetMonitor(wire.GetMonitorRequest(name=f"monitors/{monitor}"))
    assert [span.state for span in told.timelines[0].spans] == [OK, NO_DATA]


def test_states_on_a_stream(calls):
    team = fresh("team")
    requests = (
        wire.StreamStatesRequest(
            states=[report(f"{team}-{k}-{n}", tags=[f"team:{team}"]) for n in range(100)], source="bulk"
        )
        for k in range(3)
    )
    assert calls.monitors.StreamStates(requests).accepted == 300
    page = calls.monitors.ListMonitors(wire.ListMonitorsRequest(query=f"team:{team}", page_size=200))
    assert (len(page.monitors), page.total_size) == (200, 300)
    rest = calls.monitors.ListMonitors(
        wire.ListMonitorsRequest(query=f"team:{team}", page_size=200, page_token=page.next_page_token)
    )
    assert len(rest.monitors) == 100
    assert not rest.next_page_token
    assert len({one.monitor_id for one in (*page.monitors, *rest.monitors)}) == 300
    found = refused(
        lambda: calls.monitors.ListMonitors(wire.ListMonitorsRequest(query="*", page_token=page.next_page_token))
    )
    assert "page_token" in found.fields


def test_a_deleted_monitor_is_gone_from_lists(calls):
    monitor = fresh("m")
    push(calls, report(monitor, tags=[f"t:{monitor}"]))
    calls.monitors.DeleteMonitor(wire.DeleteMonitorRequest(name=f"monitors/{monitor}"))
    assert not calls.monitors.ListMonitors(wire.ListMonitorsRequest(query=f"t:{monitor}")).monitors
    for call in (
        lambda: calls.monitors.GetMonitor(wire.GetMonitorRequest(name=f"monitors/{monitor}")),
        lambda: calls.monitors.DeleteMonitor(wire.DeleteMonitorRequest(name=f"monitors/{monitor}")),
    ):
        assert refused(call).code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("changes", "field", "tells"),
    [
        ({"monitor_id": ""}, "monitor_id", "is needed"),
        ({"monitor_id": "x" * 10_000}, "monitor_id", "10000 bytes; at most 256"),
        ({"name": "x" * 10_000}, "name", "at most 256"),
        ({"state": 0}, "state", "is needed; use one of OK, WARN"),
        ({"state": 42}, "state", "42 is no value"),
        ({"tags": [""]}, "tags[0]", "is needed"),
        ({"tags": [f"t:{k}" for k in range(65)]}, "tags", "at most 64"),
        ({"group": "g" * 600}, "group", "at most 512"),
        ({"url": "javascript:alert(1)"}, "url", "https://"),
        ({"url": "https://me:s3cret@alerts/1"}, "url", "must hold no user name or password"),
        ({"ago": -3600.0}, "time", "in the future; at most 60 s"),
        ({"ago": 31 * 86400.0}, "time", "more than 30 days back"),
    ],
)
def test_states_that_are_refused(calls, changes, field, tells):
    good, bad = report("good"), report(**{"monitor_id": "m", **changes})
    found = refused(lambda: push(calls, good, bad))
    assert found.code == "INVALID_ARGUMENT"
    assert tells in found.fields[f"states[1].{field}"], found.fields


def test_nothing_of_a_refused_push_is_taken(calls):
    monitor = fresh("m")
    refused(lambda: push(calls, report(monitor), report("")))
    assert (
        refused(lambda: calls.monitors.GetMonitor(wire.GetMonitorRequest(name=f"monitors/{monitor}"))).code
        == "NOT_FOUND"
    )


def test_two_states_of_one_moment_are_refused(calls):
    now = time.time()
    one, two = report("m", OK), report("m", ALERT)
    seconds(one.time, now)
    seconds(two.time, now)
    found = refused(lambda: push(calls, one, two))
    assert "contradicts states[0]" in found.fields["states[1]"]


def test_how_long_a_state_is_believed_is_bounded(calls):
    bad = report("m")
    seconds(bad.valid_for, 31 * 86400)
    assert "30 days" in refused(lambda: push(calls, bad)).fields["states[0].valid_for"]


def test_pushes_are_bounded(calls):
    assert "at least one" in refused(lambda: push(calls)).fields["states"]
    found = refused(lambda: push(calls, *[report("m")] * 10_001))
    assert (found.code, found.reason) == ("RESOURCE_EXHAUSTED", "LIMIT_EXCEEDED")


@pytest.mark.parametrize(
    ("query", "tells"),
    [
        ("env:prod AND", "column 13"),
        ("a:(b", "column 5"),
        ("and", "write AND in capitals"),
        ("x" * 5000, "at most 4096"),
    ],
)
def test_queries_that_are_refused(calls, query, tells):
    found = refused(lambda: calls.monitors.ListMonitors(wire.ListMonitorsRequest(query=query)))
    assert tells in found.fields["query"]
    downtime = monitors_pb2.Downtime(query=query, reason="x")
    found = refused(lambda: calls.monitors.CreateDowntime(wire.CreateDowntimeRequest(downtime=downtime)))
    assert tells in found.fields["downtime.query"]


def test_windows_that_are_refused(calls):
    monitor = fresh("m")
    push(calls, report(monitor))
    request = wire.GetMonitorRequest(name=f"monitors/{monitor}")
    seconds(request.start_time, time.time() - 40 * 86400)
    assert "31 days" in refused(lambda: calls.monitors.GetMonitor(request)).fields["start_time"]
    seconds(request.start_time, time.time() + 60)
    assert "before end_time" in refused(lambda: calls.monitors.GetMonitor(request)).fields["start_time"]


def downtime(calls, query, *, start=None, end=None, reason="deploy"):
    made = monitors_pb2.Downtime(query=query, reason=reason)
    if start is not None:
        seconds(made.start_time, time.time() + start)
    if end is not None:
        seconds(made.end_time, time.time() + end)
    return calls.monitors.CreateDowntime(wire.CreateDowntimeRequest(downtime=made)).downtime


def test_the_life_of_a_downtime(calls):
    made = downtime(calls, f"team:{fresh()}", end=3600)
    assert made.created_by == "anonymous"
    names = [one.name for one in calls.monitors.ListDowntimes(wire.ListDowntimesRequest(page_size=1000)).downtimes]
    assert made.name in names
    ended = calls.monitors.DeleteDowntime(wire.DeleteDowntimeRequest(name=made.name)).downtime
    assert ended.end_time.ToNanoseconds() < made.end_time.ToNanoseconds()
    listed = calls.monitors.ListDowntimes(wire.ListDowntimesRequest(page_size=1000)).downtimes
    assert made.name not in [one.name for one in listed]
    everything = calls.monitors.ListDowntimes(wire.ListDowntimesRequest(page_size=1000, show_ended=True))
    assert made.name in [one.name for one in everything.downtimes]
    gone = wire.DeleteDowntimeRequest(name="downtimes/nothing")
    assert refused(lambda: calls.monitors.DeleteDowntime(gone)).code == "NOT_FOUND"


def test_downtimes_come_in_pages(calls):
    for _ in range(3):
        downtime(calls, f"team:{fresh()}", end=3600)
    seen, token = [], ""
    while True:
        page = calls.monitors.ListDowntimes(wire.ListDowntimesRequest(page_size=2, page_token=token))
        seen += [one.name for one in page.downtimes]
        token = page.next_page_token
        if not token:
            break
    assert len(seen) == len(set(seen)) >= 3


@pytest.mark.parametrize(
    ("options", "field", "tells"),
    [
        ({"start": -3600.0}, "start_time", "lies in the past"),
        ({"start": 400 * 86400.0}, "start_time", "366 days"),
        ({"start": 100.0, "end": 50.0}, "end_time", "after start_time"),
        ({"reason": "  "}, "reason", "is needed"),
    ],
)
def test_downtimes_that_are_refused(calls, options, field, tells):
    found = refused(lambda: downtime(calls, "team:x", **options))
    assert tells in found.fields[f"downtime.{field}"]
