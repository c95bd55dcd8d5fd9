"""Every case of a monitor rule, one row each: states over time in, the rule's answer out.

Times are seconds after the start of the window; the deployment was 30 s before it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate_server.gates.folding import apply_policies
from tidegate_server.gates.model import (
    MonitorCheck,
    MonitorScope,
    MonitorState,
    MutedHandling,
    Policies,
    Seen,
    StateSpan,
    Verdict,
)
from tidegate_server.monitors.judge import MAX_EVIDENCE, MAX_SPANS, Look, judge, matching
from tidegate_server.monitors.model import Downtime, Monitor, MonitorGroup, MonitorHistory

START = 1_700_000_000.0
OK, WARN, ALERT = MonitorState.OK, MonitorState.WARN, MonitorState.ALERT
NO_DATA, SKIPPED, UNKNOWN = MonitorState.NO_DATA, MonitorState.SKIPPED, MonitorState.UNKNOWN
LONG_AGO = -86400.0


@dataclass(frozen=True)
class Watched:
    """A monitor and what its groups went through: group to a list of (state, from, muted by its source)."""

    id: str
    timelines: dict[str, list[tuple[MonitorState, float] | tuple[MonitorState, float, bool]]]
    tags: tuple[str, ...] = ("env:prod",)
    deleted: float | None = None
    told: bool = True


def was(id_: str, *states: tuple[MonitorState, float] | tuple[MonitorState, float, bool], **more) -> Watched:
    return Watched(id_, {"": list(states)}, **more)


@dataclass(frozen=True)
class Case:
    monitors: list[Watched]
    verdict: Verdict | None
    reason: str
    check: MonitorCheck = field(default_factory=lambda: MonitorCheck("env:prod", duration=600))
    downtimes: tuple[Downtime, ...] = ()
    now: float = 600.0
    failing: tuple[str, ...] = ()
    seen: Seen = Seen.ENOUGH


def silence(query: str, start: float = LONG_AGO, end: float | None = None) -> Downtime:
    return Downtime("d1", query, START + start, None if end is None else START + end, reason="maintenance")


def history_of(one: Watched) -> MonitorHistory:
    timelines = {}
    for key, states in one.timelines.items():
        spans = []
        for k, (state, since, *muted) in enumerate(states):
            end = START + states[k + 1][1] if k + 1 < len(states) else None
            spans.append(StateSpan(state, START + since, end, bool(muted and muted[0])))
        timelines[key] = tuple(spans)
    groups = tuple(
        MonitorGroup(key, tuple(key.split(",")) if key else (), spans[-1].state, spans[-1].muted, spans[-1].start)
        for key, spans in timelines.items()
        if spans
    )
    monitor = Monitor(
        one.id,
        one.id.title(),
        tags=one.tags,
        groups=groups,
        url=f"https://monitors/{one.id}",
        create_time=min((spans[0].start for spans in timelines.values() if spans), default=START + LONG_AGO),
        delete_time=None if one.deleted is None else START + one.deleted,
    )
    return MonitorHistory(monitor, timelines)


def look_at(case: Case):
    histories = {one.id: history_of(one) for one in case.monitors}
    look = Look(START, START + case.check.duration, START + case.now, deployed_at=START - 30)
    told = {one.id: histories[one.id] for one in case.monitors if one.told}
    return judge(case.check, [one.monitor for one in histories.values()], told, case.downtimes, look)


WINDOW = MonitorCheck("env:prod", duration=600)
ONCE = MonitorCheck("env:prod", duration=0)
NEW = replace(WINDOW, scope=MonitorScope.NEWLY_FAILING)
WARNS = replace(WINDOW, fail_on=frozenset({WARN, ALERT, NO_DATA}))
INCLUDE = replace(WINDOW, muted=MutedHandling.INCLUDE)
GROUPED = replace(WINDOW, query='env:prod group:"team:a"')
FINE = was("fine", (OK, LONG_AGO))
P, F = Verdict.PASS, Verdict.FAIL

CASES = {
    # what matches
    "no monitor matches": Case([was("other", (OK, LONG_AGO), tags=("env:dev",))], F, "no_match"),
    "there is no monitor at all": Case([], F, "no_match"),
    "no monitor matches at first": Case([was("late", (OK, 100))], F, "no_match"),
    "no monitor matches at the end": Case([was("gone", (OK, LONG_AGO), deleted=300)], F, "no_match"),
    "50 match": Case([was(f"m{k}", (OK, LONG_AGO)) for k in range(50)], P, "all_well"),
    "51 match": Case([was(f"m{k}", (OK, LONG_AGO)) for k in range(51)], F, "too_many_matches"),
    "51 match for a moment": Case(
        [was(f"m{k}", (OK, LONG_AGO)) for k in range(50)] + [was("m50", (OK, 100), deleted=101)],
        F,
        "too_many_matches",
    ),
    "51 of which one is muted": Case([was(f"m{k}", (OK, LONG_AGO, k == 0)) for k in range(51)], P, "all_well"),
    "more are allowed": Case(
        [was(f"m{k}", (OK, LONG_AGO)) for k in range(51)], P, "all_well", replace(WINDOW, max_matches=51)
    ),
    "many groups of one monitor are one match": Case(
        [Watched("m", {f"host:{k}": [(OK, LONG_AGO)] for k in range(80)})], P, "all_well"
    ),
    # states
    "OK all the time": Case([FINE], P, "all_well"),
    "ALERT all the time": Case([was("m", (ALERT, LONG_AGO))], F, "monitor_failing", failing=("m",)),
    "ALERT began in the window": Case([was("m", (OK, LONG_AGO), (ALERT, 300))], F, "monitor_failing", failing=("m",)),
    "ALERT came and went": Case(
        [was("m", (OK, LONG_AGO), (ALERT, 300), (OK, 301))], F, "monitor_failing", failing=("m",)
    ),
    "ALERT came and went between two looks, seen at the next": Case(
        [was("m", (OK, LONG_AGO), (ALERT, 300), (OK, 305))], F, "monitor_failing", now=320, failing=("m",)
    ),
    "ALERT ended before the window": Case([was("m", (ALERT, -500), (OK, -1))], P, "all_well"),
    "ALERT ended as the window began": Case([was("m", (ALERT, -500), (OK, 0))], P, "all_well"),
    "ALERT ended just after it began": Case([was("m", (ALERT, -500), (OK, 0.5))], F, "monitor_failing", failing=("m",)),
    "ALERT began after the window": Case([was("m", (OK, LONG_AGO), (ALERT, 601))], P, "all_well", now=700),
    "ALERT began as the window ended": Case(
        [was("m", (OK, LONG_AGO), (ALERT, 600))], F, "monitor_failing", failing=("m",)
    ),
    "NO_DATA": Case([was("m", (OK, LONG_AGO), (NO_DATA, 10))], F, "monitor_failing", failing=("m",)),
    "NO_DATA does not fail": Case(
        [was("m", (NO_DATA, LONG_AGO))],
        None,
        "unknown_state",
        replace(WINDOW, fail_on=frozenset({ALERT})),
        seen=Seen.NOTHING,
    ),
    "NO_DATA does not fail and data came back": Case(
        [was("m", (NO_DATA, LONG_AGO), (OK, 500))], P, "all_well", replace(WINDOW, fail_on=frozenset({ALERT}))
    ),
    "NO_DATA does not fail and is muted": Case(
        [was("m", (NO_DATA, LONG_AGO, True)), was("n", (OK, LONG_AGO))],
        P,
        "all_well",
        replace(WINDOW, fail_on=frozenset({ALERT})),
    ),
    "WARN passes": Case([was("m", (WARN, LONG_AGO))], P, "all_well"),
    "WARN fails where asked for": Case([was("m", (WARN, LONG_AGO))], F, "monitor_failing", WARNS, failing=("m",)),
    "SKIPPED keeps an OK": Case([was("m", (OK, LONG_AGO), (SKIPPED, 10))], P, "all_well"),
    "SKIPPED keeps an ALERT": Case([was("m", (ALERT, -50), (SKIPPED, -10))], F, "monitor_failing", failing=("m",)),
    "SKIPPED before any state": Case([was("m", (SKIPPED, LONG_AGO))], None, "unknown_state", seen=Seen.NOTHING),
    "UNKNOWN at the end": Case(
        [FINE, was("m", (OK, LONG_AGO), (UNKNOWN, 500))], None, "unknown_state", seen=Seen.NOTHING
    ),
    "UNKNOWN at first": Case([was("m", (UNKNOWN, LONG_AGO), (OK, 100))], P, "all_well"),
    "UNKNOWN fails where asked for": Case(
        [was("m", (UNKNOWN, LONG_AGO))],
        F,
        "monitor_failing",
        replace(WINDOW, fail_on=frozenset({ALERT, UNKNOWN})),
        failing=("m",),
    ),
    "never told of": Case([Watched("m", {})], None, "unknown_state", seen=Seen.NOTHING),
    "UNKNOWN beside an ALERT": Case(
        [was("a", (UNKNOWN, LONG_AGO)), was("m", (ALERT, 5))], F, "monitor_failing", failing=("m",)
    ),
    "a monitor whose history is not at hand is taken as it is": Case(
        [was("m", (OK, LONG_AGO), (ALERT, 300), told=False)], F, "monitor_failing", failing=("m",)
    ),
    # muted
    "muted by its source is left out": Case([FINE, was("m", (ALERT, LONG_AGO, True))], P, "all_well"),
    "muted counts where asked for": Case(
        [FINE, was("m", (ALERT, LONG_AGO, True))], F, "monitor_failing", INCLUDE, failing=("m",)
    ),
    "in a downtime is left out": Case(
        [FINE, was("m", (ALERT, LONG_AGO), tags=("env:prod", "team:a"))],
        P,
        "all_well",
        downtimes=(silence("team:a"),),
    ),
    "in a downtime counts where asked for": Case(
        [FINE, was("m", (ALERT, LONG_AGO), tags=("env:prod", "team:a"))],
        F,
        "monitor_failing",
        INCLUDE,
        downtimes=(silence("team:a"),),
        failing=("m",),
    ),
    "all are muted": Case([was("m", (OK, LONG_AGO, True))], F, "all_muted"),
    "all are muted for a moment": Case(
        [was("m", (OK, LONG_AGO))], F, "all_muted", downtimes=(silence("env:prod", 100, 101),)
    ),
    "all are muted and included": Case([was("m", (OK, LONG_AGO, True))], P, "all_well", INCLUDE),
    "muted one after the other": Case(
        [
            was("m", (OK, LONG_AGO), (OK, 100, True), (OK, 200)),
            was("n", (OK, LONG_AGO), (OK, 300, True), (OK, 400)),
        ],
        P,
        "all_well",
    ),
    "ALERT within its downtime": Case(
        [FINE, was("m", (OK, LONG_AGO), (ALERT, 110), (OK, 190))],
        P,
        "all_well",
        downtimes=(silence("id:m", 100, 200),),
    ),
    "ALERT lasts beyond its downtime": Case(
        [FINE, was("m", (OK, LONG_AGO), (ALERT, 110), (OK, 210))],
        F,
        "monitor_failing",
        downtimes=(silence("id:m", 100, 200),),
        failing=("m",),
    ),
    "muted after it failed": Case(
        [FINE, was("m", (OK, LONG_AGO), (ALERT, 110))],
        F,
        "monitor_failing",
        downtimes=(silence("id:m", 200),),
        failing=("m",),
    ),
    "a downtime that was over": Case(
        [was("m", (ALERT, LONG_AGO))],
        F,
        "monitor_failing",
        downtimes=(silence("id:m", -500, -1),),
        failing=("m",),
    ),
    "a downtime of one group mutes that group alone": Case(
        [Watched("m", {"team:a": [(ALERT, LONG_AGO)], "team:b": [(OK, LONG_AGO)]})],
        P,
        "all_well",
        downtimes=(silence('group:"team:a"'),),
    ),
    "a downtime of another group": Case(
        [Watched("m", {"team:a": [(ALERT, LONG_AGO)], "team:b": [(OK, LONG_AGO)]})],
        F,
        "monitor_failing",
        downtimes=(silence('group:"team:b"'),),
        failing=("m",),
    ),
    # groups
    "only the groups that the query selects": Case(
        [Watched("m", {"team:a": [(OK, LONG_AGO)], "team:b": [(ALERT, LONG_AGO)]})], P, "all_well", GROUPED
    ),
    "no group is selected": Case(
        [Watched("m", {"team:a": [(ALERT, 5)], "team:b": [(OK, LONG_AGO)]})],
        F,
        "no_match",
        replace(GROUPED, query='group:"team:c"'),
    ),
    "a selected group fails in its time": Case(
        [Watched("m", {"team:a": [(OK, LONG_AGO), (ALERT, 5), (OK, 6)], "team:b": [(OK, LONG_AGO)]})],
        F,
        "monitor_failing",
        GROUPED,
        failing=("m",),
    ),
    # newly failing
    "failing since before the deployment": Case([was("m", (ALERT, LONG_AGO))], P, "all_well", NEW),
    "failing since between deployment and window": Case(
        [was("m", (OK, LONG_AGO), (ALERT, -10))], F, "monitor_failing", NEW, failing=("m",)
    ),
    "failing since the window": Case(
        [was("m", (OK, LONG_AGO), (ALERT, 10))], F, "monitor_failing", NEW, failing=("m",)
    ),
    "recovered and failing again": Case(
        [was("m", (ALERT, LONG_AGO), (OK, 10), (ALERT, 20))], F, "monitor_failing", NEW, failing=("m",)
    ),
    "got worse since": Case(
        [was("m", (WARN, LONG_AGO), (ALERT, 20))],
        F,
        "monitor_failing",
        replace(NEW, fail_on=frozenset({WARN, ALERT})),
        failing=("m",),
    ),
    "got better since, and still fails": Case(
        [was("m", (ALERT, LONG_AGO), (WARN, 20))],
        P,
        "all_well",
        replace(NEW, fail_on=frozenset({WARN, ALERT})),
    ),
    "went on through a skipped look": Case(
        [was("m", (ALERT, LONG_AGO), (SKIPPED, 10), (ALERT, 20))], P, "all_well", NEW
    ),
    "a new failure that got better": Case(
        [was("m", (OK, LONG_AGO), (ALERT, -20), (WARN, -5))],
        F,
        "monitor_failing",
        replace(NEW, fail_on=frozenset({WARN, ALERT})),
        failing=("m",),
    ),
    "a monitor that is new and fails": Case([FINE, was("m", (ALERT, 10))], F, "monitor_failing", NEW, failing=("m",)),
    # the window
    "duration 0 sees the present OK": Case([was("m", (ALERT, -5), (OK, -1))], P, "all_well", ONCE, now=0),
    "duration 0 sees the present ALERT": Case(
        [was("m", (OK, -5), (ALERT, -1))], F, "monitor_failing", ONCE, now=0, failing=("m",)
    ),
    "duration 0 looks when it comes to look": Case([was("m", (ALERT, -5), (OK, 2))], P, "all_well", ONCE, now=3),
    "duration 0 without a match": Case([was("m", (OK, 5))], F, "no_match", ONCE, now=3),
    "duration 0 all muted": Case([was("m", (OK, LONG_AGO, True))], F, "all_muted", ONCE, now=0),
    "while the window lasts": Case([FINE], None, "watching", now=300),
    "created in the window beside another": Case([FINE, was("m", (OK, 100))], P, "all_well"),
    "created in the window and failing": Case([FINE, was("m", (ALERT, 100))], F, "monitor_failing", failing=("m",)),
    "deleted in the window beside another": Case([FINE, was("m", (OK, LONG_AGO), deleted=100)], P, "all_well"),
    "deleted after it failed": Case(
        [FINE, was("m", (OK, LONG_AGO), (ALERT, 50), deleted=100)], F, "monitor_failing", failing=("m",)
    ),
    "deleted before the window": Case([FINE, was("m", (ALERT, LONG_AGO), deleted=-1)], P, "all_well"),
    "would have failed after it was deleted": Case(
        [FINE, was("m", (OK, LONG_AGO), (ALERT, 200), deleted=100)], P, "all_well"
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_every_row(name):
    case = CASES[name]
    found = look_at(case)
    assert (found.verdict, found.reason, found.seen) == (case.verdict, case.reason, case.seen)
    assert tuple(one.monitor_id for one in found.monitors if one.failing) == case.failing
    assert found.settled is (case.now >= case.check.duration)
    assert found.sentence


def test_a_group_that_was_deleted_in_the_window_counts_while_it_lived():
    kept, gone = StateSpan(OK, START + LONG_AGO), StateSpan(ALERT, START + 10, START + 50)
    monitor = Monitor("m", "M", tags=("env:prod",), groups=(MonitorGroup("team:b", ("team:b",), OK),))
    history = MonitorHistory(monitor, {"team:b": (kept,), "team:a": (gone,)})
    look = Look(START, START + 600, START + 600, deployed_at=START)
    for query, verdict in (("env:prod", F), ('env:prod group:"team:b"', P)):
        found = judge(replace(WINDOW, query=query), [monitor], {"m": history}, [], look)
        assert found.verdict is verdict
    assert judge(WINDOW, [monitor], {"m": history}, [], look).monitors[0].group == "team:a"


def test_unknown_states_are_a_matter_of_policy():
    found = look_at(CASES["UNKNOWN at the end"])
    verdict, applied, reason, _ = apply_policies(found, Policies())
    assert (verdict, applied, reason) == (
        Verdict.INCONCLUSIVE,
        "on_no_data = INCONCLUSIVE",
        "unknown_state",
    )


def test_the_evidence_holds_the_timeline_cut_to_the_window():
    found = look_at(
        Case(
            [was("m", (OK, LONG_AGO), (ALERT, 300), (OK, 320)), FINE],
            F,
            "",
            downtimes=(silence("id:fine", 10, 20),),
        )
    )
    first, second = found.monitors
    assert (first.monitor_id, first.name, first.url, first.failing) == ("m", "M", "https://monitors/m", True)
    assert [(span.state, span.start - START, span.end and span.end - START) for span in first.timeline] == [
        (OK, 0, 300),
        (ALERT, 300, 320),
        (OK, 320, None),
    ]
    assert (second.muted, second.note) == (True, "downtime d1: maintenance")
    assert [span.muted for span in second.timeline] == [False, True, False]
    assert found.as_of == START + 600


def test_the_sentence_names_the_monitor_the_state_and_the_times():
    found = look_at(CASES["ALERT came and went"])
    assert found.sentence == ('Monitor "M" was in ALERT since 2023-11-14 22:18:20 UTC until 2023-11-14 22:18:21 UTC.')


def test_evidence_is_bounded_and_keeps_what_failed():
    monitors = [was(f"m{k}", (OK, LONG_AGO)) for k in range(500)] + [was("bad", (ALERT, LONG_AGO))]
    found = look_at(Case(monitors, F, "", replace(WINDOW, max_matches=1000)))
    assert len(found.monitors) == MAX_EVIDENCE
    assert found.monitors[0].monitor_id == "bad"


def test_ten_thousand_matches_are_refused_without_reading_their_timelines():
    monitors = [was(f"m{k}", (OK, LONG_AGO), told=False) for k in range(10_000)]
    for now in (300.0, 600.0):
        found = look_at(Case(monitors, F, "", now=now))
        assert (found.verdict, found.reason) == (Verdict.FAIL, "too_many_matches")
        assert found.sentence.startswith("10000 monitors matched 'env:prod' at ")
        assert len(found.monitors) == MAX_EVIDENCE


def test_matching_finds_what_lived_in_the_window():
    monitors = [
        history_of(was("a", (OK, LONG_AGO))).monitor,
        history_of(was("b", (OK, LONG_AGO), deleted=-1)).monitor,
    ]
    assert [match.monitor.id for match in matching(WINDOW, monitors, START)] == ["a"]


spans = st.lists(st.tuples(st.sampled_from(list(MonitorState)), st.integers(0, 600)), min_size=1, max_size=8).map(
    lambda pairs: sorted({time: state for state, time in pairs}.items())
)


@settings(max_examples=150)
@given(spans, st.lists(st.integers(0, 600), max_size=6))
def test_looks_in_between_never_change_the_answer(pairs, looks):
    states = [(OK, LONG_AGO), *((state, float(time)) for time, state in pairs)]
    case = Case([was("m", *states)], None, "")
    final = look_at(case)
    early = [look_at(replace(case, now=float(now))).verdict for now in looks]
    assert final.verdict is Verdict.FAIL or Verdict.FAIL not in early


@settings(max_examples=150)
@given(spans)
def test_an_alert_in_the_window_always_fails(pairs):
    states = [(OK, LONG_AGO), *((state, float(time)) for time, state in pairs)]
    failed = any(state in (ALERT, NO_DATA) for _, state in pairs)
    assert (look_at(Case([was("m", *states)], None, "")).verdict is Verdict.FAIL) == failed


@pytest.mark.parametrize("failed", [False, True])
def test_the_evidence_of_a_monitor_that_changes_all_the_time_is_bounded(failed):
    states = [(OK if k % 2 else WARN, k * 0.1) for k in range(4000)]
    if failed:
        states[2000] = (ALERT, 200.0)
    one = was("m", *states)
    found = look_at(Case([one], F if failed else P, ""))
    (evidence,) = found.monitors
    assert len(evidence.timeline) == MAX_SPANS + failed
    assert evidence.note == f"{4000 - MAX_SPANS - failed} of 4000 spans are left out"
    assert [one.start for one in evidence.timeline] == sorted(one.start for one in evidence.timeline)
    assert evidence.failing is failed
    assert any(span.state is ALERT for span in evidence.timeline) is failed
