"""What a monitor rule makes of the states of monitors over its window: a pure function, every case answered.

The window is closed: a state that holds at its start or at the moment of the look counts. A state counts
from the moment its source told, so an alert that came and went between two looks still fails.

* No monitor matched at some moment, or all that matched were muted then: FAIL. A rule that watches nothing
  says so.
* More than ``max_matches`` monitors matched at some moment: FAIL, the query is too wide.
* SKIPPED is looked through: the state before it goes on. Before any state, and for monitors that were never
  told of, the state is UNKNOWN.
* UNKNOWN or NO_DATA at the end of the window (if it is not in ``fail_on``): the rule could not see;
  `on_no_data` decides.
"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from tidegate_server.gates.model import (
    MonitorCheck,
    MonitorEvidence,
    MonitorScope,
    MonitorState,
    MutedHandling,
    Observation,
    Seen,
    StateSpan,
    Verdict,
)
from tidegate_server.monitors.model import SEVERITY, Downtime, Monitor, MonitorGroup, MonitorHistory
from tidegate_server.monitors.query import Match, parse, select

# Evidence beyond this is cut; those that failed come first.
MAX_EVIDENCE = 200
# Of one monitor or group that changes its state all the time: the first ones, the last ones, and the first failure.
MAX_SPANS = 100

_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class Look:
    """When a rule looks. ``start`` and ``end`` bound its window, ``now`` is this look; equal bounds: one
    look."""

    start: float
    end: float
    now: float
    deployed_at: float

    @property
    def until(self) -> float:
        """The last moment that this look sees."""
        return self.now if self.end <= self.start else min(max(self.now, self.start), self.end)

    @property
    def since(self) -> float:
        """The first moment that this look sees: for one look, the look itself."""
        return self.until if self.end <= self.start else self.start

    @property
    def over(self) -> bool:
        """Whether the window has passed."""
        return self.now >= self.end


@dataclass(frozen=True, slots=True)
class _Row:
    """One group of one monitor: its pieces within the window, cut where it was muted."""

    monitor: Monitor
    group: str
    pieces: tuple[StateSpan, ...]
    newly: tuple[bool, ...]
    note: str

    def alive(self, muted_too: bool) -> list[tuple[float, float]]:
        return [(p.start, _end(p)) for p in self.pieces if muted_too or not p.muted]


def matching(check: MonitorCheck, monitors: Iterable[Monitor], since: float) -> tuple[Match, ...]:
    """Return the monitors that the rule's query finds, of those that lived after ``since``.

    Raises
    ------
    QueryError
        When the query cannot be understood.
    """
    alive = (one for one in monitors if one.delete_time is None or one.delete_time > since)
    return tuple(select(parse(check.query), alive))


def judge(
    check: MonitorCheck,
    monitors: Iterable[Monitor],
    histories: Mapping[str, MonitorHistory],
    downtimes: Sequence[Downtime],
    look: Look,
) -> Observation:
    """Return what a monitor rule sees at one look.

    Parameters
    ----------
    check:
        The rule's options.
    monitors:
        All monitors, those deleted since the start of the window too.
    histories:
        Timelines by monitor id that cover the window; a monitor without one is taken as it is now.
    downtimes:
        Those that touch the window.
    look:
        When the rule looks.

    Raises
    ------
    QueryError
        When the rule's query cannot be understood.
    """
    known = [_with_past_groups(one, histories.get(one.id)) for one in monitors]
    found = matching(check, known, look.since)
    muting = _muting([match.monitor for match in found], downtimes)
    if not look.over or look.start == look.end:
        crowd = [match for match in found if _is_watched(match, muting, check.muted)]
        if len(crowd) > check.max_matches:
            # Thousands of timelines need not be read to say that there are too many of them.
            found = tuple(crowd[: max(check.max_matches + 1, MAX_EVIDENCE)])
            rows = [row for match in found for row in _rows(check, match, None, [], look)]
            return _Judgement(check, rows, look).too_many(len(crowd), look.until)
    rows = [
        row
        for match in found
        for row in _rows(check, match, histories.get(match.monitor.id), muting.get(match.monitor.id, []), look)
    ]
    return _Judgement(check, rows, look).observation()


class _Judgement:
    """The rows of one look, and the answer that follows from them."""

    def __init__(self, check: MonitorCheck, rows: Sequence[_Row], look: Look) -> None:
        self.check = check
        self.rows = rows
        self.look = look
        self.include = check.muted is MutedHandling.INCLUDE

    def observation(self) -> Observation:
        failing = [row for row in self.rows if self.failures(row)]
        evidence = self.evidence()
        if failing:
            return self.answer(Verdict.FAIL, "monitor_failing", self.tell(failing), evidence)
        query = repr(self.check.query)
        fewest, when = _extreme(self.presence(self.include), self.look, most=False)
        if fewest == 0:
            everyone, _ = _extreme(self.presence(muted_too=True), self.look, most=False)
            if everyone:
                text = f"All monitors that match {query} were muted at {_clock(when)}: nothing was watched."
                return self.answer(Verdict.FAIL, "all_muted", text, evidence)
            text = f"No monitor matched {query} at {_clock(when)}: nothing was watched."
            return self.answer(Verdict.FAIL, "no_match", text, evidence)
        most, when = _extreme(self.presence(self.include), self.look, most=True)
        if most > self.check.max_matches:
            return self.too_many(most, when)
        count = len({row.monitor.id for row in self.rows})
        unknown = [row for row in self.rows if self.unknown(row)]
        if unknown:
            first = unknown[0]
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            if first.pieces[-1].state is MonitorState.NO_DATA:
                text = f"{_name(first)}{more} {'have' if more else 'has'} no data."
            else:
                text = f"The state of {_name(first)}{more} is not known."
            return self.answer(None, "unknown_state", text, evidence, seen=Seen.NOTHING)
        one = _name(self.rows[0], group=False) if count == 1 else ""
        if not self.look.over:
            text = f"Watching {one}; it has not failed." if one else f"Watching {count} monitors; none has failed."
            return self.answer(None, "watching", text, evidence)
        muted = sum(all(piece.muted for piece in row.pieces) for row in self.rows) if not self.include else 0
        aside = f" ({muted} muted were left out)" if muted else ""
        text = f"{one} did not fail{aside}." if one else f"None of {count} monitors failed{aside}."
        return self.answer(Verdict.PASS, "all_well", text, evidence)

    def too_many(self, count: int, when: float) -> Observation:
        text = (
            f"{count} monitors matched {self.check.query!r} at {_clock(when)}, {self.check.max_matches} are"
            " allowed: the query is too wide."
        )
        return self.answer(Verdict.FAIL, "too_many_matches", text, self.evidence())

    def answer(
        self,
        verdict: Verdict | None,
        reason: str,
        sentence: str,
        evidence: tuple[MonitorEvidence, ...],
        seen: Seen = Seen.ENOUGH,
    ) -> Observation:
        return Observation(
            verdict=verdict,
            seen=seen,
            settled=self.look.over,
            sentence=sentence,
            reason=reason,
            monitors=evidence,
            as_of=self.look.until,
        )

    def counted(self, piece: StateSpan) -> bool:
        return self.include or not piece.muted

    def failures(self, row: _Row) -> list[StateSpan]:
        newly_only = self.check.scope is MonitorScope.NEWLY_FAILING
        return [
            piece
            for piece, newly in zip(row.pieces, row.newly, strict=True)
            if piece.state in self.check.fail_on and self.counted(piece) and (newly or not newly_only)
        ]

    def unknown(self, row: _Row) -> bool:
        last = row.pieces[-1]
        # Without data a rule that does not fail on it has seen nothing all the same.
        unseen = last.state is MonitorState.UNKNOWN or (
            last.state is MonitorState.NO_DATA and MonitorState.NO_DATA not in self.check.fail_on
        )
        return unseen and _end(last) > self.look.until and self.counted(last)

    def presence(self, muted_too: bool) -> list[list[tuple[float, float]]]:
        """Return for each monitor when it was there to be watched."""
        spans: dict[str, list[tuple[float, float]]] = {}
        for row in self.rows:
            spans.setdefault(row.monitor.id, []).extend(row.alive(muted_too))
        return list(spans.values())

    def evidence(self) -> tuple[MonitorEvidence, ...]:
        told = sorted(self.rows, key=lambda row: not self.failures(row))[:MAX_EVIDENCE]
        return tuple(self.evidence_of(row) for row in told)

    def evidence_of(self, row: _Row) -> MonitorEvidence:
        failures = self.failures(row)
        pieces, note = row.pieces, row.note
        if len(pieces) > MAX_SPANS:
            kept = {*range(MAX_SPANS // 2), *range(len(pieces) - MAX_SPANS // 2, len(pieces))}
            kept |= {pieces.index(failures[0])} if failures else set()
            pieces = tuple(pieces[k] for k in sorted(kept))
            left_out = f"{len(row.pieces) - len(pieces)} of {len(row.pieces)} spans are left out"
            note = f"{note}; {left_out}" if note else left_out
        return MonitorEvidence(
            monitor_id=row.monitor.id,
            name=row.monitor.name,
            group=row.group,
            timeline=_cut(pieces, self.look),
            muted=any(piece.muted for piece in row.pieces),
            failing=bool(failures),
            url=row.monitor.url,
            note=note,
        )

    def tell(self, failing: Sequence[_Row]) -> str:
        first = failing[0]
        piece = self.failures(first)[0]
        began = f"since {_clock(piece.start)}" if piece.start > 0 else "from the start"
        ended = f" until {_clock(_end(piece))}" if _end(piece) <= self.look.until else ""
        text = f"{_name(first)} was in {piece.state.name} {began}{ended}."
        if len(failing) > 1:
            text += f" {len(failing) - 1} more failed."
        return text


def _is_watched(match: Match, muting: Mapping[str, object], handling: MutedHandling) -> bool:
    """Say whether a monitor counts at this moment, whatever it went through before."""
    if match.monitor.delete_time is not None:
        return False
    if handling is MutedHandling.INCLUDE:
        return True
    return match.monitor.id not in muting and not all(group.muted for group in match.groups)


# --- timelines


def _rows(
    check: MonitorCheck,
    match: Match,
    history: MonitorHistory | None,
    downtimes: Sequence[tuple[Downtime, frozenset[str]]],
    look: Look,
) -> Iterable[_Row]:
    monitor = match.monitor
    for group in match.groups:
        spans = history.timelines.get(group.key, ()) if history is not None else ()
        spans = tuple(spans) or (_present(monitor, group),)
        if monitor.delete_time is not None:
            spans = _until(spans, monitor.delete_time)
        spans = _look_through(spans)
        newly = _newly_failing(spans, check.fail_on, look.deployed_at)
        silences = [one for one, keys in downtimes if group.key in keys]
        pieces: list[StateSpan] = []
        flags: list[bool] = []
        for span, new in zip(spans, newly, strict=True):
            if not _touches(span, look):
                continue
            parts = [part for part in _mute(span, silences) if _touches(part, look)]
            pieces += parts
            flags += [new] * len(parts)
        if pieces:
            note = "; ".join(f"downtime {one.id}: {one.reason or 'no reason given'}" for one in silences)
            yield _Row(monitor, group.key, tuple(pieces), tuple(flags), note)


def _with_past_groups(monitor: Monitor, history: MonitorHistory | None) -> Monitor:
    """Return a monitor with the groups that were deleted in the window; their tags are those of their name."""
    if history is None:
        return monitor
    present = {group.key for group in monitor.groups}
    gone = tuple(
        MonitorGroup(key, tuple(filter(None, map(str.strip, key.split(",")))))
        for key, spans in history.timelines.items()
        if key not in present and spans
    )
    return replace(monitor, groups=(*monitor.groups, *gone)) if gone else monitor


def _present(monitor: Monitor, group: MonitorGroup) -> StateSpan:
    return StateSpan(group.state, group.since or monitor.create_time, None, group.muted)


def _end(span: StateSpan) -> float:
    return _FOREVER if span.end is None else span.end


def _touches(span: StateSpan, look: Look) -> bool:
    return span.start <= look.until and _end(span) > look.since and _end(span) > span.start


def _until(spans: Sequence[StateSpan], time: float) -> tuple[StateSpan, ...]:
    return tuple(replace(one, end=min(_end(one), time)) for one in spans if one.start < time)


def _look_through(spans: Sequence[StateSpan]) -> tuple[StateSpan, ...]:
    """Return the spans with each SKIPPED one in the state before it."""
    out: list[StateSpan] = []
    for span in sorted(spans, key=attrgetter("start")):
        if span.state is MonitorState.SKIPPED:
            span = replace(span, state=out[-1].state if out else MonitorState.UNKNOWN)
        out.append(span)
    return tuple(out)


def _newly_failing(
    spans: Sequence[StateSpan], fail_on: frozenset[MonitorState], deployed_at: float
) -> tuple[bool, ...]:
    """Say for each span whether its failing began after the deployment.

    It did when the span began then and the state before it was not failing, or was less bad: a WARN of old
    that becomes an ALERT is news, an ALERT of old that becomes a WARN is not. What goes on from a new
    failure is new.
    """
    newly: list[bool] = []
    for k, span in enumerate(spans):
        if span.state not in fail_on:
            newly.append(False)
            continue
        before = spans[k - 1] if k and _end(spans[k - 1]) >= span.start else None
        fresh = span.start >= deployed_at
        if before is None or before.state not in fail_on:
            newly.append(fresh)
        else:
            newly.append(newly[-1] or (fresh and SEVERITY[span.state] > SEVERITY[before.state]))
    return tuple(newly)


def _mute(span: StateSpan, silences: Sequence[Downtime]) -> list[StateSpan]:
    """Cut a span where downtimes begin and end."""
    if span.muted or not silences:
        return [span]
    end = _end(span)
    bounds = {span.start, end}
    for one in silences:
        stop = _FOREVER if one.end_time is None else one.end_time
        bounds.update(time for time in (one.start_time, stop) if span.start < time < end)
    ordered = sorted(bounds)
    out = []
    for begin, stop in itertools.pairwise(ordered):
        muted = any(
            one.start_time <= begin and stop <= (_FOREVER if one.end_time is None else one.end_time) for one in silences
        )
        out.append(replace(span, start=begin, end=None if stop == _FOREVER else stop, muted=muted))
    return out


def _muting(
    monitors: Sequence[Monitor], downtimes: Sequence[Downtime]
) -> dict[str, list[tuple[Downtime, frozenset[str]]]]:
    """Return for each monitor the downtimes that mute it, with the keys of the groups that they mute."""
    muting: dict[str, list[tuple[Downtime, frozenset[str]]]] = {}
    for one in downtimes:
        for match in select(parse(one.query), monitors):
            keys = frozenset(group.key for group in match.groups)
            muting.setdefault(match.monitor.id, []).append((one, keys))
    return muting


def _extreme(presence: Sequence[Sequence[tuple[float, float]]], look: Look, *, most: bool) -> tuple[int, float]:
    """Return the fewest or most monitors that were there at any one moment of the window, and the first such
    moment."""
    events: dict[float, int] = {look.since: 0}
    count = 0
    for spans in presence:
        for start, end in _union(spans):
            if start <= look.since < end:
                count += 1
            elif look.since < start <= look.until:
                events[start] = events.get(start, 0) + 1
            if look.since < end <= look.until:
                events[end] = events.get(end, 0) - 1
    best = (count, look.since)
    for time in sorted(events):
        count += events[time]
        if (count > best[0]) if most else (count < best[0]):
            best = (count, time)
    return best


def _union(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Join spans that touch or overlap."""
    out: list[tuple[float, float]] = []
    for start, end in sorted(spans):
        if out and start <= out[-1][1]:
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return out


def _cut(pieces: Sequence[StateSpan], look: Look) -> tuple[StateSpan, ...]:
    """Return the pieces cut to the window; what lasts beyond it has no end."""
    return tuple(
        replace(
            piece,
            start=max(piece.start, look.since),
            end=None if _end(piece) > look.until else piece.end,
        )
        for piece in pieces
    )


def _name(row: _Row, *, group: bool = True) -> str:
    of = f" [{row.group}]" if row.group and group else ""
    return f'Monitor "{row.monitor.name or row.monitor.id}"{of}'


def _clock(time: float) -> str:
    """Return a time for a sentence, to the second, in UTC."""
    return dt.datetime.fromtimestamp(time, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
