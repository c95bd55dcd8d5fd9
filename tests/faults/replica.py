"""One replica in a process of its own: an engine on a shared store. Killed at any moment by the tests."""

from __future__ import annotations

import asyncio
import ctypes
import multiprocessing
import os
import random
import signal
from multiprocessing.process import BaseProcess

from tidegate_server import log
from tidegate_server.engine import Engine, Looks
from tidegate_server.engine.looks import Inline
from tidegate_server.gates.evaluation import Timing
from tidegate_server.store import Store

TIMING = Timing(monitor_interval=0.2)


class Slow(Inline):
    """Judges in this process, and takes a while over it, so that a kill often comes in the middle of a look."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def run(self, function, /, *args, key=None, **kwargs):
        await asyncio.sleep(random.uniform(0.0, self.seconds))
        return await super().run(function, *args, key=key, **kwargs)


def make_engine(store: Store, look_seconds: float = 0.0, **options) -> Engine:
    looks = Looks(store.evaluations, store.monitors, Slow(look_seconds), timing=TIMING)
    return Engine(store, looks, timing=TIMING, concurrency=16, poll_seconds=0.1, **options)


async def _run(url: str, lease_seconds: float, look_seconds: float) -> None:
    store = Store(url, lease_seconds=lease_seconds, poll_seconds=0.1, pool_size=3)
    await make_engine(store, look_seconds).run()


def main(url: str, lease_seconds: float, look_seconds: float) -> None:
    """Runs until it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # ends with the fork server, should the tests themselves be killed
    log.setup("json", "error")
    asyncio.run(_run(url, lease_seconds, look_seconds))


class Replica:
    """A replica that is started from a process with everything imported, and killed with SIGKILL."""

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["tidegate_server.engine", "tidegate_server.store", "asyncpg", "aiosqlite", "tidegate_analysis.live"]
    )

    def __init__(self, *arguments) -> None:
        self._arguments = arguments
        self._process: BaseProcess | None = None

    @property
    def pid(self) -> int:
        return self._process.pid or 0 if self._process is not None else 0

    def start(self) -> None:
        self._process = self.context.Process(target=main, args=self._arguments, daemon=True)
        self._process.start()

    def kill(self) -> None:
        if self._process is not None and self._process.pid is not None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.join(60)
            assert self._process.exitcode == -signal.SIGKILL
        self._process = None
