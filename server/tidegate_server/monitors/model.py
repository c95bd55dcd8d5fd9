"""What a monitor is, and what is remembered of it. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate_server.gates.model import MonitorState, StateSpan


@dataclass(frozen=True, slots=True)
class MonitorGroup:
    """One group of a monitor: one combination of the tags it splits by.

    ``key`` names it within its monitor and is empty for a monitor without groups; ``since`` is when the
    state began; ``muted`` is what the source told, downtimes not counted; ``expire_time`` is when the state
    stops being believed.
    """

    key: str
    tags: tuple[str, ...] = ()
    state: MonitorState = MonitorState.UNKNOWN
    muted: bool = False
    since: float = 0.0
    expire_time: float | None = None


@dataclass(frozen=True, slots=True)
class Monitor:
    """A monitor and its groups. Tags are ``key:value`` or bare words, as written; they are compared in lower
    case."""

    id: str
    name: str
    tags: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    groups: tuple[MonitorGroup, ...] = ()
    url: str = ""
    source: str = ""
    create_time: float = 0.0
    update_time: float = 0.0
    delete_time: float | None = None

    @property
    def state(self) -> MonitorState:
        """The worst state of its groups: ALERT, NO_DATA, WARN, UNKNOWN, SKIPPED, OK."""
        if not self.groups:
            return MonitorState.UNKNOWN
        return max((group.state for group in self.groups), key=SEVERITY.__getitem__)


# How bad a state is, for "the worst of" and "got worse".
SEVERITY: Mapping[MonitorState, int] = {
    MonitorState.OK: 0,
    MonitorState.SKIPPED: 1,
    MonitorState.UNKNOWN: 2,
    MonitorState.WARN: 3,
    MonitorState.NO_DATA: 4,
    MonitorState.ALERT: 5,
}


@dataclass(frozen=True, slots=True)
class StatePush:
    """One state of one monitor or group, as a source tells it.

    ``time`` is when the state began or was seen. After ``expire_time`` it is no longer believed: unless it
    was pushed again by then, the group is in NO_DATA. None: believed until the next push.
    """

    monitor_id: str
    state: MonitorState
    time: float
    name: str = ""
    tags: tuple[str, ...] = ()
    scope: tuple[str, ...] = ()
    group: str = ""
    group_tags: tuple[str, ...] = ()
    muted: bool = False
    url: str = ""
    source: str = ""
    expire_time: float | None = None


@dataclass(frozen=True, slots=True)
class MonitorHistory:
    """The timelines of one monitor's groups: group key to spans, oldest first, without gaps while the group
    lives.

    A state that expired without a new push is a NO_DATA span from its expiry on. A deleted monitor's last
    spans end with its ``delete_time``.
    """

    monitor: Monitor
    timelines: Mapping[str, tuple[StateSpan, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Downtime:
    """A planned silence: mutes the monitors that ``query`` matches from ``start_time`` to ``end_time``.

    ``query`` is written in the tag query language; with ``group:`` filters only the groups that they select
    are muted. ``end_time`` None: until it is ended by hand.
    """

    id: str
    query: str
    start_time: float
    end_time: float | None = None
    reason: str = ""
    created_by: str = ""
    create_time: float = 0.0
