"""Child processes that never outlive the demo.

Every child holds the reading end of a pipe from its parent as standard input and ends when that closes:
after Ctrl-C, after an error, and after the parent was killed. What does not end in time is killed with its
process group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from types import TracebackType
from typing import IO, Self


class ChildError(RuntimeError):
    """A child process did not start."""


class Children:
    """The processes that the demo starts; a context manager that ends all of them."""

    def __init__(self, grace_seconds: float = 3.0) -> None:
        """Give children ``grace_seconds`` to end by themselves."""
        self.grace_seconds = grace_seconds
        self.running: list[subprocess.Popen[str]] = []
        self.complaints: dict[subprocess.Popen[str], IO[str]] = {}

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every child that is still there."""
        self.end(*self.running)

    def start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """Start ``python -m module`` in a session of its own, which a terminal's Ctrl-C does not reach."""
        # A file, not a pipe: nobody reads it while the child lives, and a full pipe would stop the child.
        complaints = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and modules
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            start_new_session=True,
        )
        self.running.append(child)
        self.complaints[child] = complaints
        return child

    def first_line(self, child: subprocess.Popen[str], what: str) -> str:
        """Return the first line that ``child`` prints.

        Raises
        ------
        ChildError
            When it ends without one; the message says what it wrote instead.
        """
        line = _pipe(child.stdout).readline().strip()
        if not line:
            child.wait()
            complaints = self.complaints[child]
            complaints.seek(0)
            said = complaints.read().strip().splitlines()
            why = said[-1] if said else f"it ended with status {child.returncode}"
            raise ChildError(f"{what} did not start: {why}")
        return line

    def end(self, *children: subprocess.Popen[str]) -> None:
        """End some children: close their input, wait, then kill their group."""
        for child in children:
            with contextlib.suppress(OSError):
                _pipe(child.stdin).close()
        for child in children:
            try:
                child.wait(self.grace_seconds)
            except subprocess.TimeoutExpired:
                pass
            finally:
                # Also when it ended by itself: what it started may still be there.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            _pipe(child.stdout).close()
            if child in self.running:
                self.running.remove(child)
                self.complaints.pop(child).close()


def tell(child: subprocess.Popen[str], line: str) -> None:
    """Write one line to the input of ``child``."""
    pipe = _pipe(child.stdin)
    pipe.write(line + "\n")
    pipe.flush()


async def lines_of_parent() -> AsyncIterator[str]:
    """Yield the lines that the parent writes, until it closes the pipe or ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    try:
        while line := await reader.readline():
            yield line.decode().strip()
    finally:
        transport.close()


async def until_parent_ends() -> None:
    """Return when the parent closes the pipe or ends."""
    async for _ in lines_of_parent():
        pass


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # noqa: S101 - every child is started with all three
    return pipe
