"""The analysis workers: processes that keep the event loop free.

Each worker is an executor of one process, so that work with the same key lands in the same process and
may find there what it left (see :mod:`tidegate_server.worker`). Processes come from a fork server, which is
started before the gRPC server: it has no threads and no sockets, so a worker that died can be replaced while
the server runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

from tidegate_server.log import Log

T = TypeVar("T")

PRELOAD = ["numpy", "scipy.special", "tidegate_analysis", "tidegate_server.worker"]
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")

log = Log("pool")


class WorkerLostError(Exception):
    """The worker died, or was ended for taking too long, before it answered. What it kept is gone."""

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        """Keep whether it took too long."""
        super().__init__(message)
        self.timed_out = timed_out


class _Slot:
    """One place in the pool: its process, and the work that waits for it."""

    def __init__(self, executor: ProcessPoolExecutor, pid: int) -> None:
        self.executor = executor
        self.pid = pid
        self.waiting = 0
        # Two pieces of work at a time: one runs while the next is already on its way to the process.
        self.turns = asyncio.Semaphore(2)


class AnalysisPool:
    """A fixed number of analysis processes.

    Parameters
    ----------
    workers:
        How many, at least 1.
    timeout_seconds:
        A piece of work that takes longer ends its worker.
    """

    def __init__(self, workers: int, *, timeout_seconds: float = 120.0) -> None:
        """Keep the numbers; :meth:`start` makes the processes."""
        self.size = workers
        self.timeout_seconds = timeout_seconds
        self._slots: list[_Slot] = []
        self._closed = False

    def start(self) -> None:
        """Make the processes and warm them up. Blocks; to be called before a gRPC server exists.

        Raises
        ------
        WorkerLostError
            When a process dies while it warms up.
        """
        context = get_context("forkserver")
        context.set_forkserver_preload(PRELOAD)
        executors = [self._executor() for _ in range(self.size)]
        try:
            first = [_begin(executor) for executor in executors]
            pids = [future.result() for future in first]
        except BrokenProcessPool:
            raise WorkerLostError("an analysis process died while it started") from None
        self._slots = [_Slot(executor, pid) for executor, pid in zip(executors, pids, strict=True)]

    @property
    def pids(self) -> tuple[int, ...]:
        """The process ids of the workers."""
        return tuple(slot.pid for slot in self._slots)

    def index(self, key: str) -> int:
        """Return the worker that work with this key goes to."""
        return zlib.crc32(key.encode()) % self.size

    async def run(self, function: Callable[..., T], /, *args: Any, key: str | None = None, **kwargs: Any) -> T:
        """Run a module-level function in a worker: in that of ``key``, else in the one with least to do.

        Raises
        ------
        WorkerLostError
            When the worker died or took too long. A new one is there already.
        Exception
            Whatever the function raised.
        """
        idlest = min(self._slots, key=lambda one: one.waiting)
        slot = idlest if key is None else self._slots[self.index(key)]
        slot.waiting += 1
        try:
            await slot.turns.acquire()
            executor = slot.executor
            try:
                return await self._submit(slot, function, args, kwargs)
            except BrokenProcessPool:
                await self._replace(slot, executor)
                raise WorkerLostError("the analysis process died") from None
            except TimeoutError:
                if slot.executor is not executor:
                    raise WorkerLostError("the analysis process died") from None
                pid = slot.pid
                log.error("worker took too long", pid=pid, seconds=self.timeout_seconds)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                await self._replace(slot, executor)
                raise WorkerLostError("the analysis took too long", timed_out=True) from None
        finally:
            slot.waiting -= 1

    async def _submit(
        self, slot: _Slot, function: Callable[..., T], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> T:
        loop = asyncio.get_running_loop()

        def give_turn(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(slot.turns.release)

        try:
            work = slot.executor.submit(function, *args, **kwargs)
        except BaseException:
            slot.turns.release()
            raise
        # The turn is the work's, not the caller's: a caller may give up while the process is still busy.
        work.add_done_callback(give_turn)
        future = asyncio.wrap_future(work)
        try:
            done, _ = await asyncio.wait({future}, timeout=self.timeout_seconds)
        except asyncio.CancelledError:
            future.cancel()
            raise
        if not done:
            future.cancel()
            raise TimeoutError
        if future.cancelled():
            raise BrokenProcessPool
        return future.result()

    async def _replace(self, slot: _Slot, dead: ProcessPoolExecutor) -> None:
        """Put a fresh process in the place of a dead one, once, however many noticed."""
        if slot.executor is not dead or self._closed:
            return
        fresh = slot.executor = self._executor()
        dead.shutdown(wait=False)
        first = _begin(fresh)

        def told(_: object) -> None:
            # The process dies before it tells: whoever runs something next finds it dead, and replaces it.
            if not first.cancelled() and first.exception() is None and slot.executor is fresh:
                died, slot.pid = slot.pid, first.result()
                log.warning("worker replaced", died=died, pid=slot.pid)

        # A caller may give up meanwhile. Its cancelling must reach neither the new process nor who it is.
        first.add_done_callback(told)
        await asyncio.wait({asyncio.shield(asyncio.wrap_future(first))})

    def close(self) -> None:
        """End the processes; what is under way is given up."""
        self._closed = True
        for slot in self._slots:
            slot.executor.shutdown(wait=False, cancel_futures=True)
            with contextlib.suppress(ProcessLookupError):
                os.kill(slot.pid, signal.SIGTERM)

    @staticmethod
    def _executor() -> ProcessPoolExecutor:
        return ProcessPoolExecutor(max_workers=1, mp_context=get_context("forkserver"), initializer=_settle)


def _begin(executor: ProcessPoolExecutor) -> Future[int]:
    """Start the process of an executor, and return what will be its pid once it is warm."""
    with _environment(dict.fromkeys(_ONE_THREAD, "1")), _no_main_module():
        first = executor.submit(_warm)
    # Its ends of the pipes are for the process alone. While they are open here too, a process that is killed in the
    # middle of an answer looks as if it were still writing it, and this one waits for the rest and cannot end.
    inner: Any = executor
    inner._result_queue._writer.close()  # noqa: SLF001 - there is no other way to them
    inner._call_queue._reader.close()  # noqa: SLF001
    return first


def _settle() -> None:
    """In a worker: leave Ctrl-C to the server, which drains, and end when the server does, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    server = parent_process()
    if server is not None:
        threading.Thread(target=_end_with, args=(server,), daemon=True).start()


def _end_with(server: BaseProcess) -> None:
    # A worker holds both ends of its own queue, so it would not notice on its own.
    server.join()
    os._exit(0)


def _warm() -> int:
    """In a worker: import what the first request needs, and run it once."""
    from tidegate_server import worker

    worker.warm()
    return os.getpid()


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Set variables for the fork server that starts within, where the user has not set them."""
    added = [name for name in values if name not in os.environ]
    os.environ.update({name: values[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _no_main_module() -> Iterator[None]:
    """Keep processes that start within from importing the program's main module, which they do not need."""
    main = sys.modules["__main__"]
    kept = {name: getattr(main, name, None) for name in ("__file__", "__spec__")}
    for name in kept:
        setattr(main, name, None)
    try:
        yield
    finally:
        for name, value in kept.items():
            setattr(main, name, value)
