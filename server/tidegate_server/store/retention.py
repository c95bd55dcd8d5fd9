"""What is deleted by age, in bounded pieces so that nothing else waits long for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tidegate_server.store import Store

_DAY = 86_400.0
# Series are deleted with their evaluations: a hundred evaluations may be tens of thousands of blocks.
_BATCH = 100


@dataclass(frozen=True, slots=True)
class Retention:
    """How long things are kept, in seconds.

    Labelled evaluations are kept for good, detectors are tuned on them; so are gates, their revisions, and
    the audit log.
    """

    evaluations: float = 90 * _DAY
    monitor_states: float = 30 * _DAY

    def __post_init__(self) -> None:
        """Checks that no running evaluation can lose what it looks at."""
        for name in ("evaluations", "monitor_states"):
            if not getattr(self, name) >= _DAY:
                raise ValueError(f"{name}: must be at least one day ({_DAY:.0f} s), not {getattr(self, name)!r}")


async def sweep(store: Store, now: float, retention: Retention = Retention(), *, batches: int = 1000) -> int:
    """Deletes what is older than `retention` allows at `now` (seconds since 1970); returns how much.

    Each batch is a transaction of its own. After `batches` of them the rest is left to the next sweep.

    Raises:
        UnavailableError: if the store cannot be reached; what was deleted before stays deleted.
    """
    total = 0
    parts: list[tuple[Callable[[float, int], Awaitable[int]], float]] = [
        (store.evaluations.delete_before, retention.evaluations),
        (store.monitors.delete_before, retention.monitor_states),
    ]
    for delete, age in parts:
        for _ in range(batches):
            gone = await delete(now - age, _BATCH)
            total += gone
            if gone == 0:
                break
    return total
