"""Claims what is due, looks, stores, and goes on whatever happens to the store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import uuid
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from tidegate_server.engine.clock import ClockWatch
from tidegate_server.engine.runner import RuleRunner
from tidegate_server.errors import RequestError
from tidegate_server.gates.errors import LimitError, UnavailableError
from tidegate_server.gates.evaluation import DEFAULT_TIMING, Timing, Wake, advance, open_rules
from tidegate_server.gates.model import Evaluation, Observation
from tidegate_server.log import Log
from tidegate_server.rules.monitor import could_not_ask
from tidegate_server.store import Claim, Store, Tick

T = TypeVar("T")

log = Log("engine")

_FIRST_BACKOFF = 0.1
_LONGEST_BACKOFF = 2.0
_SHORTEST_WAIT_US = 20_000
_NUDGE_SECONDS = 1.0
_STORE_BATCH = 200


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """How the engine is.

    Parameters
    ----------
    serving:
        Whether the store answered the last time it was asked.
    problem:
        Why not, for a person; empty when it did.
    in_flight:
        Evaluations that are looked at in this moment, those that wait to be stored included.
    ticks, lost, failed:
        Looks stored, looks dropped because somebody else had the evaluation, and looks that raised an error.
    clock_jumps:
        How often the store's clock jumped.
    """

    serving: bool
    problem: str
    in_flight: int
    ticks: int
    lost: int
    failed: int
    clock_jumps: int


class Engine:
    """Runs the evaluations of one replica; `run` until `stop`.

    Args:
        store: where they are.
        runner: looks at their rules.
        timing: how patient evaluations are.
        owner: names this replica in leases; a new name for every process.
        concurrency: evaluations that are looked at at the same time.
        poll_seconds: how often the store is asked for what other replicas or processes have made due.
        cached: evaluations that are kept decoded between two looks.
        watch: notices jumps of the store's clock.
        on_health: called when `EngineHealth.serving` changes.
    """

    def __init__(
        self,
        store: Store,
        runner: RuleRunner,
        *,
        timing: Timing = DEFAULT_TIMING,
        owner: str | None = None,
        concurrency: int = 64,
        poll_seconds: float = 0.5,
        cached: int = 4096,
        watch: ClockWatch | None = None,
        on_health: Callable[[EngineHealth], None] = lambda _: None,
    ) -> None:
        """Wire the parts; nothing runs yet."""
        self._store = store
        self._work = store.work
        self._runner = runner
        self._timing = timing
        self.owner = owner or f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self._concurrency = concurrency
        self._poll_seconds = poll_seconds
        self._watch = watch or ClockWatch()
        self._on_health = on_health
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._cache: OrderedDict[str, Evaluation] = OrderedDict()
        self._cached = cached
        self._looking: dict[str, tuple[Claim, asyncio.Task[None]]] = {}
        self._room = asyncio.Event()
        self._ready: list[Tick] = []
        self._ready_event = asyncio.Event()
        self._storing: list[Tick] = []
        self._abandoned: list[Claim] = []
        self._nudged = False
        self._problem = ""
        self._ticks = self._lost = self._failed = 0

    # --- from outside

    def wake(self) -> None:
        """Says that something may be due now."""
        self._wake.set()

    def monitors_changed(self) -> None:
        """Says that states of monitors have changed: evaluations that watch them look soon."""
        self._nudged = True
        self._wake.set()

    @property
    def health(self) -> EngineHealth:
        """How the engine is."""
        return EngineHealth(
            serving=not self._problem,
            problem=self._problem,
            in_flight=len(self._looking) + len(self._ready) + len(self._storing),
            ticks=self._ticks,
            lost=self._lost,
            failed=self._failed,
            clock_jumps=self._watch.jumps_seen,
        )

    def stop(self) -> None:
        """Asks `run` to end: what is being looked at is finished and stored, nothing new is claimed."""
        self._stopping.set()
        self._wake.set()
        self._room.set()
        self._ready_event.set()

    async def run(self, *, grace_seconds: float = 10.0) -> None:
        """Works until `stop`, and then at most `grace_seconds` longer; what is left is given back.

        A store that cannot be reached is waited for; anything that is not foreseen ends the engine with the
        error.
        """
        self._store.evaluations.due = self.wake
        self._store.monitors.changed = self.monitors_changed
        log.info("engine started", owner=self.owner, concurrency=self._concurrency)
        storing = asyncio.create_task(self._store_loop(), name="engine: store")
        renewing = asyncio.create_task(self._renew_loop(), name="engine: renew leases")
        claiming = asyncio.create_task(self._claim_loop(), name="engine: claim")
        parts = {storing, renewing, claiming}
        try:
            # Claiming ends with `stop`; any other end of a part is a defect, and must be seen.
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_seconds):
                        while self._looking or self._ready or self._storing:
                            self._room.clear()
                            await self._room.wait()
        finally:
            left = [claim for claim, _ in self._looking.values()]
            left += [tick.claim for tick in (*self._ready, *self._storing)]
            tasks = [*parts, *(task for _, task in self._looking.values())]
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            self._ready, self._storing = [], []
            self._looking.clear()
            await self._give_back(left)
            log.info("engine stopped", owner=self.owner, ticks=self._ticks, lost=self._lost)
        for result in ended:
            if isinstance(result, Exception):
                raise result

    async def _give_back(self, claims: Sequence[Claim]) -> None:
        with contextlib.suppress(RequestError, TimeoutError):
            async with asyncio.timeout(2.0):
                await self._work.release(claims)

    # --- the store may be away

    async def _ask(self, what: Callable[[], Awaitable[T]]) -> T:
        """Asks the store until it answers, waiting longer and longer in between.

        Every call that is made through here may be repeated: what a lost answer left undecided is settled by
        the fence.
        """
        pause = _FIRST_BACKOFF
        while True:
            try:
                answer = await what()
            except (UnavailableError, LimitError) as error:
                self._set_problem(error.message)
                with contextlib.suppress(TimeoutError):
                    # Jittered, so that replicas do not come back all at once.
                    async with asyncio.timeout(pause * random.uniform(0.5, 1.0)):  # noqa: S311
                        await self._stopping.wait()
                if self._stopping.is_set():
                    raise
                pause = min(pause * 2, _LONGEST_BACKOFF)
            else:
                self._set_problem("")
                return answer

    def _set_problem(self, problem: str) -> None:
        changed = bool(problem) != bool(self._problem)
        self._problem = problem
        if changed:
            if problem:
                log.error("the store does not answer; evaluations wait", problem=problem)
            else:
                log.info("the store answers again")
            self._on_health(self.health)

    # --- claiming

    async def _claim_loop(self) -> None:
        nudged_at = 0.0
        while not self._stopping.is_set():
            self._wake.clear()
            if self._nudged and self._watch.monotonic() - nudged_at >= _NUDGE_SECONDS:
                self._nudged = False
                nudged_at = self._watch.monotonic()
                await self._unless_stopping(self._work.nudge)
            if self._abandoned:
                given_back, self._abandoned = self._abandoned, []
                await self._unless_stopping(lambda claims=given_back: self._work.release(claims))  # type: ignore[misc]
            room = self._concurrency - len(self._looking) - len(self._ready)
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            claims = await self._unless_stopping(lambda room=room: self._claim(room))  # type: ignore[misc]
            if claims is None:
                return
            if claims:
                await self._start(claims)
                continue
            pause = await self._pause()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(pause, _NUDGE_SECONDS if self._nudged else pause)):
                    await self._wake.wait()

    async def _unless_stopping(self, what: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await self._ask(what)
        except (UnavailableError, LimitError):
            return None  # only raised once `stop` was called

    async def _claim(self, room: int) -> Sequence[Claim]:
        asked_at = self._watch.monotonic()
        claims = await self._work.claim(self.owner, room)
        if claims:
            self._watch.observe(claims[0].now_us, asked_at)
        return claims

    async def _pause(self) -> float:
        """How long nothing will be due that this process knows of."""

        async def ask() -> tuple[int, int | None]:
            asked_at = self._watch.monotonic()
            now_us, due_us = await self._work.next_due()
            self._watch.observe(now_us, asked_at)
            return now_us, due_us

        answer = await self._unless_stopping(ask)
        if answer is None or answer[1] is None:
            return self._poll_seconds
        return min(max((answer[1] - answer[0]) / 1e6, 0.0), self._poll_seconds)

    async def _start(self, claims: Sequence[Claim]) -> None:
        """Begins to look at what was claimed; decodes only what has changed since this process last saw
        it."""
        unknown = [
            claim.evaluation_id
            for claim in claims
            if (kept := self._cache.get(claim.evaluation_id)) is None or kept.version != claim.version
        ]
        loaded: Mapping[str, Evaluation] | None = {}
        if unknown:
            loaded = await self._unless_stopping(lambda: self._work.load(unknown))
        if loaded is None:
            with contextlib.suppress(RequestError):
                await self._work.release(claims)
            return
        for claim in claims:
            evaluation = loaded.get(claim.evaluation_id) or self._cache.get(claim.evaluation_id)
            if evaluation is None or evaluation.version != claim.version:
                continue  # changed or deleted since the claim, which is void by that
            if evaluation.series_complete != claim.series_complete:
                evaluation = replace(evaluation, series_complete=claim.series_complete)
            if claim.evaluation_id in self._looking:
                # Our own lease has lapsed under a look: what it finds would be dropped anyway.
                self._drop(claim.evaluation_id)
            task = asyncio.create_task(self._look(claim, evaluation), name=f"look {claim.evaluation_id}")
            self._looking[claim.evaluation_id] = (claim, task)

    # --- looking

    async def _look(self, claim: Claim, evaluation: Evaluation) -> None:
        try:
            tick = await self._tick(claim, evaluation)
        except UnavailableError as error:
            # The store went away under the look: given back once it answers, so that nobody waits for the lease.
            self._abandoned.append(claim)
            self._set_problem(error.message)
            self._forget(claim.evaluation_id)
        except Exception as error:
            # A defect: left to its lease, and looked at again after it.
            self._failed += 1
            log.error("a look came to nothing", exception=error, evaluation=claim.evaluation_id)
            self._forget(claim.evaluation_id)
        else:
            self._ready.append(tick)
            self._ready_event.set()
        finally:
            if self._looking.get(claim.evaluation_id, (None,))[0] is claim:
                del self._looking[claim.evaluation_id]
            self._room.set()

    async def _tick(self, claim: Claim, evaluation: Evaluation) -> Tick:
        # A look that is later than another replica needs to take over: no server was there.
        unwatched_us = max(0, claim.now_us - claim.due_us - self._work.lease_us)
        own_us = self._watch.own_time(claim.now_us, claim.tick_us, claim.behind_us, unwatched_us)
        now = own_us / 1e6
        behind = max(0, claim.now_us - own_us) / 1e6
        observations: Mapping[str, Observation]
        failed = False
        try:
            observations = await self._runner.look(evaluation, now, behind)
        except UnavailableError:
            raise
        except Exception as error:
            # One evaluation that cannot be looked at must not stop the others, and must come to an end
            # itself: its rules' own policies decide once their windows are over.
            failed = True
            self._failed += 1
            log.error("a look failed", exception=error, evaluation=claim.evaluation_id)
            why = "the rules could not be looked at, the server's log says why"
            observations = {rule.name: could_not_ask(why) for rule in open_rules(evaluation)}
            self._runner.forget(claim.evaluation_id)
        changed, actions = advance(evaluation, observations, now, self._timing)
        wait_us = None
        for action in actions:
            if isinstance(action, Wake):
                wait_us = max(round((action.at - now) * 1e6), _SHORTEST_WAIT_US)
        if wait_us is not None and failed:
            wait_us = min(wait_us, round(self._timing.retry_interval * 1e6))
        return Tick(claim, changed, wait_us, behind_us=claim.now_us - own_us)

    def _forget(self, evaluation_id: str) -> None:
        self._cache.pop(evaluation_id, None)
        self._runner.forget(evaluation_id)

    # --- storing

    async def _store_loop(self) -> None:
        """Stores what is ready, everything that has gathered meanwhile in one transaction."""
        while True:
            await self._ready_event.wait()
            self._ready_event.clear()
            while self._ready:
                self._storing, self._ready = self._ready[:_STORE_BATCH], self._ready[_STORE_BATCH:]
                batch = self._storing
                stored = await self._ask(lambda batch=batch: self._work.store(batch))  # type: ignore[misc]
                for tick in batch:
                    self._after(tick, stored=tick.claim.evaluation_id in stored)
                self._storing = []
                self._room.set()

    def _after(self, tick: Tick, *, stored: bool) -> None:
        evaluation_id = tick.claim.evaluation_id
        if not stored:
            self._lost += 1
            self._forget(evaluation_id)
            return
        self._ticks += 1
        if tick.wait_us is None:
            self._forget(evaluation_id)
            evaluation = tick.evaluation
            verdict = evaluation.verdict.name if evaluation.verdict else "none"
            log.info("evaluation finished", evaluation=evaluation_id, verdict=verdict)
            return
        self._cache[evaluation_id] = tick.evaluation
        self._cache.move_to_end(evaluation_id)
        while len(self._cache) > self._cached:
            self._cache.popitem(last=False)
        if tick.wait_us <= self._poll_seconds * 1e6:
            self._wake.set()

    # --- leases

    async def _renew_loop(self) -> None:
        pause = self._work.lease_us / 3e6
        while True:
            await asyncio.sleep(pause)
            claims = [claim for claim, _ in self._looking.values()]
            claims += [tick.claim for tick in (*self._ready, *self._storing)]
            if not claims:
                continue
            try:
                held = await self._work.renew(claims)
            except (UnavailableError, LimitError) as error:
                # Leases may lapse now. Whatever is stored later is still checked against its fence.
                self._set_problem(error.message)
                continue
            for claim, _ in list(self._looking.values()):
                if claim in claims and claim.evaluation_id not in held:
                    self._drop(claim.evaluation_id)

    def _drop(self, evaluation_id: str) -> None:
        """Ends a look whose claim is lost."""
        _, task = self._looking.pop(evaluation_id)
        task.cancel()
        self._lost += 1
        self._forget(evaluation_id)
