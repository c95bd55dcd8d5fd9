"""The real rules: series are judged in the process pool, monitors from their stored timelines."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from tidegate_server.gates.evaluation import DEFAULT_TIMING, Timing, open_rules, window
from tidegate_server.gates.model import Evaluation, MonitorCheck, Observation, Rule
from tidegate_server.gates.ports import EvaluationRepository, MonitorRepository
from tidegate_server.monitors.judge import matching
from tidegate_server.monitors.model import Monitor
from tidegate_server.monitors.query import QueryError
from tidegate_server.rules import look_at_monitors, look_of
from tidegate_server.rules.together import judge_series

T = TypeVar("T")

# Blocks that go to a worker in one call: a backlog is fed in pieces.
_BLOCKS = 500


class Pool(Protocol):
    """Where work is done that would hold up the event loop."""

    async def run(self, function: Callable[..., T], /, *args: Any, key: str | None = None, **kwargs: Any) -> T:
        """Runs a module-level function elsewhere; the same key goes to the same place."""
        ...


class Inline:
    """Runs the work where it is: for tests and small tools."""

    async def run(
        self,
        function: Callable[..., T],
        /,
        *args: Any,
        key: str | None = None,  # noqa: ARG002 - there is one place only
        **kwargs: Any,
    ) -> T:
        """Runs it at once."""
        return function(*args, **kwargs)


@dataclass(slots=True)
class _Kept:
    """What is kept of an evaluation between two looks; all of it can be computed again from the stored
    blocks."""

    position: int = 0
    complete: bool = False
    states: dict[str, bytes] = field(default_factory=dict)
    looked: set[str] = field(default_factory=set)

    @property
    def size(self) -> int:
        return sum(map(len, self.states.values()))


class Looks:
    """Implements `RuleRunner`.

    Args:
        evaluations: where series are read.
        monitors: where states are read.
        pool: where series are judged.
        timing: how patient evaluations are.
        kept_bytes: how much of the rules' state is kept between looks, over all evaluations; the rest is
            computed again from the stored blocks.
    """

    def __init__(
        self,
        evaluations: EvaluationRepository,
        monitors: MonitorRepository,
        pool: Pool,
        *,
        timing: Timing = DEFAULT_TIMING,
        kept_bytes: int = 2 * 1024**3,
    ) -> None:
        """Wire the parts."""
        self._evaluations = evaluations
        self._monitors = monitors
        self._pool = pool
        self._timing = timing
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._kept_bytes = kept_bytes
        self._size = 0
        self._list = _Shared(monitors)

    async def look(self, evaluation: Evaluation, now: float, behind: float = 0.0) -> Mapping[str, Observation]:
        """See `RuleRunner.look`."""
        rules = open_rules(evaluation)
        series = [rule for rule in rules if not isinstance(rule.check, MonitorCheck)]
        monitors = [rule for rule in rules if isinstance(rule.check, MonitorCheck)]
        seen: dict[str, Observation] = {}
        if series:
            seen |= await self._look_at_series(evaluation, series, now)
        for rule in monitors:
            seen[rule.name] = await self._look_at_monitors(evaluation, rule, now, behind)
        return seen

    def forget(self, evaluation_id: str) -> None:
        """See `RuleRunner.forget`."""
        kept = self._kept.pop(evaluation_id, None)
        if kept is not None:
            self._size -= kept.size

    # --- series

    async def _look_at_series(
        self, evaluation: Evaluation, rules: Sequence[Rule], now: float
    ) -> dict[str, Observation]:
        kept = self._take(evaluation.id)
        seen: dict[str, Observation] = {}
        # What a worker needs, and no more: results may hold a thousand findings.
        slim = replace(evaluation, results=())
        while True:
            stored = await self._evaluations.blocks(evaluation.id, after_position=kept.position, limit=_BLOCKS)
            more = len(stored) == _BLOCKS
            ending = evaluation.series_complete and not kept.complete and not more
            wanted = [
                rule
                for rule in rules
                if stored
                or ending
                or rule.name not in kept.looked
                or now >= window(evaluation, rule, self._timing).deadline
            ]
            if wanted:
                states = [(rule, kept.states.get(rule.name)) for rule in wanted]
                # Points that are still to come are no reason to take part of them for all.
                part = replace(slim, series_complete=slim.series_complete and not more)
                answers = await self._pool.run(
                    judge_series,
                    part,
                    states,
                    [one.block for one in stored],
                    now,
                    self._timing,
                    key=evaluation.id,
                )
                for rule, (state, observation) in zip(wanted, answers, strict=True):
                    kept.states[rule.name] = state
                    kept.looked.add(rule.name)
                    seen[rule.name] = observation
            if stored:
                kept.position = stored[-1].position
            if not more:
                break
        kept.complete = evaluation.series_complete
        self._put(evaluation.id, kept)
        return seen

    def _take(self, evaluation_id: str) -> _Kept:
        """Takes what is kept out, so that a look that fails halfway leaves nothing half done behind."""
        kept = self._kept.pop(evaluation_id, None)
        if kept is None:
            return _Kept()
        self._size -= kept.size
        return kept

    def _put(self, evaluation_id: str, kept: _Kept) -> None:
        self._kept[evaluation_id] = kept
        self._size += kept.size
        while self._size > self._kept_bytes and len(self._kept) > 1:
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.size

    # --- monitors

    async def _look_at_monitors(self, evaluation: Evaluation, rule: Rule, now: float, behind: float) -> Observation:
        check = rule.check
        if not isinstance(check, MonitorCheck):
            raise TypeError(f"rule {rule.name!r} is no monitor rule")
        look = look_of(rule, evaluation, now, behind)
        # Deleted monitors stay on the list for as long as a window may reach back.
        monitors = await self._list.get(look.start - 1.0)
        try:
            matched = [match.monitor.id for match in matching(check, monitors, look.since)]
        except QueryError:
            matched = []  # told by the rule below
        histories = await self._monitors.histories(matched, look.since, look.until)
        downtimes = await self._monitors.list_downtimes(overlapping=(look.since, look.until))
        return look_at_monitors(rule, monitors, histories, downtimes, look)


class _Shared:
    """One read of the list of monitors for all looks that wait for it.

    A look gets a list that was read after it asked, never an older one: a monitor that was pushed just before
    an evaluation began must not be missed, that would fail the rule.
    """

    def __init__(self, repository: MonitorRepository) -> None:
        self._repository = repository
        self._waiting: list[tuple[asyncio.Future[Sequence[Monitor]], float]] = []
        self._reader: asyncio.Task[None] | None = None

    async def get(self, alive_after: float) -> Sequence[Monitor]:
        """All monitors, those deleted after `alive_after` too, and maybe others that were deleted."""
        future: asyncio.Future[Sequence[Monitor]] = asyncio.get_running_loop().create_future()
        self._waiting.append((future, alive_after))
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read(), name="read monitors")
        return await future

    async def _read(self) -> None:
        while self._waiting:
            served, self._waiting = self._waiting, []
            try:
                found = await self._repository.list(alive_after=min(after for _, after in served))
            except Exception as error:  # every look that waits is told
                for future, _ in served:
                    if not future.done():
                        future.set_exception(error)
            else:
                for future, _ in served:
                    if not future.done():
                        future.set_result(found)
