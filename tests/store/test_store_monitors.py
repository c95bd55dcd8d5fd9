"""Monitors: states over time, however they came in; downtimes; deletion and retention."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from store_factories import AUDIT
from tidegate_server.gates.errors import AlreadyExistsError, NotFoundError
from tidegate_server.gates.model import MonitorState, StateSpan
from tidegate_server.gates.ports import PushReceipt
from tidegate_server.monitors.model import Downtime, Monitor, MonitorGroup, StatePush
from tidegate_server.store import sweep

OK, WARN, ALERT, NO_DATA = MonitorState.OK, MonitorState.WARN, MonitorState.ALERT, MonitorState.NO_DATA
NOW = 5000.0


def _push(run, *states, now=NOW):
    return run(run.store.monitors.push(states, now))


def _state(state, time, **changes):
    return replace(StatePush("m", state, time), **changes)


def _timeline(run, start=0.0, end=1e9, monitor="m", group=""):
    return run(run.store.monitors.histories([monitor], start, end))[monitor].timelines[group]


def test_a_push_makes_a_monitor_and_later_ones_fill_it_in(run):
    _push(
        run,
        StatePush("m", OK, 10, "Disk", ("env:prod",), ("host",), "host:a", ("host:a",), False, "http://x"),
    )
    _push(run, StatePush("m", ALERT, 20, group="host:b", group_tags=("host:b",), source="am"), now=NOW + 1)
    expected = Monitor(
        "m",
        "Disk",
        ("env:prod",),
        ("host",),
        (
            MonitorGroup("host:a", ("host:a",), OK, False, 10.0),
            MonitorGroup("host:b", ("host:b",), ALERT, False, 20.0),
        ),
        "http://x",
        "am",
        create_time=NOW,
        update_time=NOW + 1,
    )
    assert run(run.store.monitors.get("m")) == expected
    assert run(run.store.monitors.list()) == [expected]


def test_nothing_pushed_is_nothing_taken(run):
    assert _push(run) == PushReceipt(0, 0, 0)
    assert run(run.store.monitors.list()) == []
    assert run(run.store.monitors.histories(["m"], 0, 1)) == {}
    with pytest.raises(NotFoundError, match="no monitor 'm'"):
        run(run.store.monitors.get("m"))


def test_a_state_lasts_until_the_next_one(run):
    assert _push(run, _state(OK, 10), _state(OK, 20), _state(ALERT, 30), _state(OK, 40)).unchanged == 1
    assert _timeline(run) == (StateSpan(OK, 10, 30), StateSpan(ALERT, 30, 40), StateSpan(OK, 40))
    assert _push(run, _state(OK, 40)) == PushReceipt(1, 1, 0)


def test_a_change_of_mute_is_a_change(run):
    _push(run, _state(ALERT, 10), _state(ALERT, 20, muted=True))
    assert _timeline(run) == (StateSpan(ALERT, 10, 20), StateSpan(ALERT, 20, None, muted=True))


def test_two_states_of_one_moment_are_both_kept(run):
    _push(run, _state(ALERT, 10), _state(OK, 10))
    spans = _timeline(run)
    assert [span.state for span in spans] == [ALERT, OK]
    assert spans[0].end == spans[1].start == pytest.approx(10.000001)


def test_a_state_that_expires_is_no_data_until_it_is_told_again(run):
    _push(run, _state(OK, 0, expire_time=60.0))
    assert _timeline(run, end=50) == (StateSpan(OK, 0),)
    assert _timeline(run) == (StateSpan(OK, 0, 60), StateSpan(NO_DATA, 60))
    _push(run, _state(OK, 50, expire_time=110.0))
    assert _timeline(run, end=100) == (StateSpan(OK, 0),)
    _push(run, _state(OK, 200, expire_time=260.0))
    assert _timeline(run, end=210) == (
        StateSpan(OK, 0, 110),
        StateSpan(NO_DATA, 110, 200),
        StateSpan(OK, 200),
    )
    _push(run, _state(OK, 210))
    assert _timeline(run)[-1] == StateSpan(OK, 200)
    assert run(run.store.monitors.get("m")).groups[0].expire_time is None


def test_a_late_state_is_put_where_it_belongs(run):
    _push(run, _state(OK, 10), _state(OK, 100))
    assert _push(run, _state(ALERT, 50)) == PushReceipt(1, 0, 1)
    assert _timeline(run) == (StateSpan(OK, 10, 50), StateSpan(ALERT, 50, 100), StateSpan(OK, 100))
    _push(run, _state(WARN, 5))
    assert _timeline(run)[0] == StateSpan(WARN, 5, 10)
    _push(run, _state(WARN, 70))
    _push(run, _state(OK, 60))
    assert [(span.state, span.start) for span in _timeline(run)] == [
        (WARN, 5),
        (OK, 10),
        (ALERT, 50),
        (OK, 60),
        (WARN, 70),
        (OK, 100),
    ]


def test_the_order_of_arrival_does_not_hide_a_state(run):
    pushes = [_state(OK, 10), _state(ALERT, 20), _state(OK, 30), _state(WARN, 40)]
    wanted = (StateSpan(OK, 10, 20), StateSpan(ALERT, 20, 30), StateSpan(OK, 30, 40), StateSpan(WARN, 40))
    for k, order in enumerate(itertools.permutations(pushes)):
        name = f"m{k}"
        own = [replace(push, monitor_id=name) for push in order]
        if k % 2:
            _push(run, *own)
        else:
            for push in own:
                _push(run, push)
        assert _timeline(run, monitor=name) == wanted, order


def test_random_pushes_agree_with_a_plain_reading(run):
    """At the moment of every push the timeline shows it, and never a state that nobody told."""
    rng = np.random.default_rng(7)
    for k in range(12):
        times = np.sort(rng.choice(200, size=12, replace=False)).astype(float)
        states = rng.choice([1, 2, 3], size=12)
        order = rng.permutation(12)
        name = f"r{k}"
        own = [StatePush(name, MonitorState(int(states[j])), float(times[j])) for j in order]
        for batch in np.array_split(np.array(own, dtype=object), 3):
            _push(run, *batch)
        spans = _timeline(run, monitor=name)
        assert all(one.end == other.start for one, other in itertools.pairwise(spans))
        told = dict(zip(times, states, strict=True))
        for time, state in told.items():
            (at,) = [span for span in spans if span.start <= time < (span.end or np.inf)]
            assert at.state == state
        assert {span.start for span in spans} <= set(times)


def test_a_window_gets_what_overlaps_it_and_one_before(run):
    _push(run, _state(OK, 10), _state(ALERT, 20), _state(OK, 30), _state(WARN, 40))
    whole = _timeline(run)
    for start, end, first, last in [
        (35, 45, 1, 4),
        (30, 30, 0, 3),
        (0, 5, 0, 0),
        (0, 25, 0, 2),
        (100, 200, 2, 4),
    ]:
        # One more than needed is read, in case that a late state has split the one before.
        assert _timeline(run, start, end) in (whole[first:last], whole[max(first - 1, 0) : last]), (start, end)


def test_many_monitors_are_read_in_one_go(run):
    states = [StatePush(f"m{k:05}", ALERT if k % 2 else OK, 10.0, tags=(f"k:{k}",)) for k in range(1500)]
    assert _push(run, *states) == PushReceipt(1500, 0, 0)
    assert _push(run, *states) == PushReceipt(1500, 1500, 0)
    assert len(run(run.store.monitors.list())) == 1500
    histories = run(run.store.monitors.histories([state.monitor_id for state in states], 0, 100))
    assert histories["m00003"].timelines[""] == (StateSpan(ALERT, 10),)
    assert len(histories) == 1500


def test_a_deleted_monitor_ends_and_may_come_back(run):
    monitors = run.store.monitors
    _push(run, _state(ALERT, 10))
    run(monitors.delete("m", 100.0, AUDIT))
    for call in (monitors.get("m"), monitors.delete("m", 101.0, AUDIT)):
        with pytest.raises(NotFoundError):
            run(call)
    assert run(monitors.list()) == []
    (gone,) = run(monitors.list(alive_after=50.0))
    assert gone.delete_time == 100.0
    assert run(monitors.list(alive_after=150.0)) == []
    assert _timeline(run) == (StateSpan(ALERT, 10, 100),)
    _push(run, _state(ALERT, 200))
    assert run(monitors.get("m")).delete_time is None
    assert _timeline(run) == (StateSpan(ALERT, 10, 100), StateSpan(NO_DATA, 100, 200), StateSpan(ALERT, 200))


def test_old_states_go_but_the_newest_stays(run):
    day = 86_400.0
    _push(run, _state(OK, 0), _state(ALERT, 10), _state(OK, 20 * day), replace(_state(OK, 5), monitor_id="n"))
    run(run.store.monitors.create_downtime(Downtime("old", "x", 0, 10), AUDIT))
    run(run.store.monitors.create_downtime(Downtime("open", "x", 0), AUDIT))
    run(run.store.monitors.delete("n", day, AUDIT))
    assert run(sweep(run.store, 40 * day)) == 3
    assert _timeline(run) == (StateSpan(ALERT, 10, 20 * day), StateSpan(OK, 20 * day))
    assert [one.id for one in run(run.store.monitors.list_downtimes())] == ["open"]
    assert run(sweep(run.store, 400 * day)) == 1
    assert _timeline(run) == (StateSpan(OK, 20 * day),)


def test_downtimes_are_made_ended_and_found(run):
    monitors = run.store.monitors
    one = Downtime("d1", "service:x", 100.0, 200.0, "planned", "ann", 50.0)
    two = Downtime("d2", "service:y", 150.0)
    for made in (two, one):
        assert run(monitors.create_downtime(made, AUDIT)) == made
    with pytest.raises(AlreadyExistsError, match="'d1'"):
        run(monitors.create_downtime(one, AUDIT))
    assert run(monitors.list_downtimes()) == [one, two]
    for window, found in [((0, 99), []), ((0, 100), [one]), ((200, 300), [one, two]), ((201, 300), [two])]:
        assert run(monitors.list_downtimes(overlapping=window)) == found
    assert run(monitors.end_downtime("d2", 160.0, AUDIT)).end_time == 160.0
    assert run(monitors.end_downtime("d2", 170.0, AUDIT)).end_time == 160.0
    run(monitors.end_downtime("d1", 90.0, AUDIT))
    assert [one.id for one in run(monitors.list_downtimes())] == ["d2"]
    with pytest.raises(NotFoundError, match="no downtime 'd1'"):
        run(monitors.end_downtime("d1", 90.0, AUDIT))


def test_a_deleted_group_ends_and_the_others_go_on(run):
    monitors = run.store.monitors
    _push(run, _state(ALERT, 10, group="a"), _state(OK, 10, group="b"))
    run(monitors.delete("m", 100.0, AUDIT, group="a"))
    assert [group.key for group in run(monitors.get("m")).groups] == ["b"]
    assert _timeline(run, group="a") == (StateSpan(ALERT, 10, 100),)
    assert _timeline(run, group="b") == (StateSpan(OK, 10),)
    with pytest.raises(NotFoundError, match="no monitor 'm' with a group 'a'"):
        run(monitors.delete("m", 101.0, AUDIT, group="a"))
    _push(run, _state(WARN, 150, group="b"))
    assert [group.key for group in run(monitors.get("m")).groups] == ["b"]
    _push(run, _state(OK, 200, group="a"))
    assert [group.key for group in run(monitors.get("m")).groups] == ["a", "b"]
    assert _timeline(run, group="a") == (
        StateSpan(ALERT, 10, 100),
        StateSpan(NO_DATA, 100, 200),
        StateSpan(OK, 200),
    )
