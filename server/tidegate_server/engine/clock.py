"""Time that neither a wall clock nor a standstill can spoil.

Three clocks are in use. Leases and due times are compared on the store's clock (see `store.work`). Timers
within this process run on the monotonic clock. An evaluation's own time, which decides when its windows are
over, follows the store's clock but not its jumps: an hour that the clock skips was not watched, so it must
not pass for watched. Nor does it follow while no server works: nobody could tell a state then.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from tidegate_server.log import Log

log = Log("engine")

_KEPT_JUMPS = 100


@dataclass(frozen=True, slots=True)
class _Jump:
    before_us: int
    size_us: int


class ClockWatch:
    """Notices forward jumps of the store's clock, by the monotonic clock of this process.

    Backward jumps need no notice: an evaluation's own time stands still until the clock has passed its last
    tick's reading or has been read anew, see `own_time`.

    Args:
        monotonic: the monotonic clock in seconds, replaced in tests.
        tolerance_seconds: smaller jumps are followed, they are the work of time services.
    """

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic, tolerance_seconds: float = 5.0) -> None:
        """Begin with the first reading."""
        self.monotonic = monotonic
        self._tolerance_us = round(tolerance_seconds * 1e6)
        self._last: tuple[int, float, float] | None = None
        self._jumps: deque[_Jump] = deque(maxlen=_KEPT_JUMPS)
        self.jumps_seen = 0

    def observe(self, now_us: int, asked_at: float) -> None:
        """Takes a reading of the store's clock that was asked for at `asked_at` on the monotonic clock.

        The store read its clock somewhere between then and now. A jump is counted only if no reading in
        between explains it, so a slow answer is never taken for one.
        """
        answered_at = self.monotonic()
        if self._last is not None:
            last_us, last_asked_at, last_answered_at = self._last
            gap_us = (now_us - last_us) - round((answered_at - last_asked_at) * 1e6)
            back_us = (last_us - now_us) + round((asked_at - last_answered_at) * 1e6)
            if gap_us > self._tolerance_us:
                self._jumps.append(_Jump(last_us, gap_us))
                self.jumps_seen += 1
                log.warning("the store's clock jumped forward; evaluations do not follow", seconds=gap_us / 1e6)
            elif back_us > self._tolerance_us:
                self.jumps_seen += 1
                # What was jumped over ahead of here lies ahead again, and may be lived through this time. Kept,
                # it would be taken off every later tick, and no evaluation would ever come to its end.
                kept = [jump for jump in self._jumps if jump.before_us < now_us]
                self._jumps = deque(kept, maxlen=_KEPT_JUMPS)
                log.warning("the store's clock jumped back; evaluations go on", seconds=back_us / 1e6)
        self._last = (now_us, asked_at, answered_at)

    def skipped_us(self, since_us: int) -> int:
        """How much the store's clock has jumped over since it read `since_us`."""
        return sum(jump.size_us for jump in self._jumps if since_us <= jump.before_us)

    def own_time(self, now_us: int, tick_us: int | None, behind_us: int, unwatched_us: int = 0) -> int:
        """An evaluation's own time at the reading `now_us`, in microseconds.

        Args:
            now_us: the store's clock.
            tick_us: its reading at the last tick; None before the first.
            behind_us: how far the evaluation's own time stood behind it then.
            unwatched_us: for how long nobody looked though a look was due.
        """
        if tick_us is None:
            return now_us - unwatched_us
        # A look is also late by what the clock skipped: the two are one.
        elapsed = max(0, now_us - tick_us - max(self.skipped_us(tick_us), unwatched_us))
        return tick_us - behind_us + elapsed
