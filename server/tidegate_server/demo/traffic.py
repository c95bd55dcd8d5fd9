"""The users of the demo: real requests at both versions of the shop, spread by chance as by a load balancer.

``python -m tidegate_server.demo.traffic RATE`` reads one pair of ports per line from standard input
(``baseline canary``), sends ``RATE`` requests a second over both, moves to a new pair when one comes, and
ends when its input is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys

from tidegate_server.demo.processes import lines_of_parent
from tidegate_server.demo.shop import V1

# A slow answer must not slow the users down: arrivals do not wait, but their number in flight is bounded.
MAX_IN_FLIGHT = 400
TIMEOUT_SECONDS = 5.0

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Users:
    """Open-loop traffic at a pair of ports of 127.0.0.1."""

    def __init__(self, rate: float, seed: int | None = None) -> None:
        """Plan ``rate`` requests a second in all; ``seed`` fixes their order."""
        self.rate = rate
        self.random = random.Random(seed)  # noqa: S311 - arrivals, no secret
        self.ports: tuple[int, ...] = ()
        self.idle: dict[int, list[Connection]] = {}
        self.in_flight: set[asyncio.Task[None]] = set()

    def aim(self, ports: tuple[int, ...]) -> None:
        """Send all further requests to ``ports``; connections to others are closed."""
        self.ports = ports
        for port in [old for old in self.idle if old not in ports]:
            for _, writer in self.idle.pop(port):
                writer.close()

    async def run(self) -> None:
        """Send requests for ever, with exponential gaps."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due += self.random.expovariate(self.rate)
            now = loop.time()
            if due > now:
                await asyncio.sleep(due - now)
            elif now - due > 1.0:
                due = now  # the machine stood still; a burst that makes up for it would help nobody
            if self.ports and len(self.in_flight) < MAX_IN_FLIGHT:
                task = asyncio.create_task(self.request(self.random.choice(self.ports), self.random.choice(list(V1))))
                self.in_flight.add(task)
                task.add_done_callback(self.in_flight.discard)

    async def request(self, port: int, path: str) -> None:
        """Send one request and wait for its answer; a broken connection is dropped, as a browser would."""
        with contextlib.suppress(OSError, EOFError, TimeoutError):
            async with asyncio.timeout(TIMEOUT_SECONDS):
                idle = self.idle.setdefault(port, [])
                reader, writer = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
                    head = await reader.readuntil(b"\r\n\r\n")
                    await reader.readexactly(int(head.rpartition(b"Content-Length:")[2].split(b"\r\n", 1)[0]))
                except BaseException:
                    writer.close()
                    raise
                if port in self.ports:
                    self.idle.setdefault(port, []).append((reader, writer))
                else:
                    writer.close()


async def drive(rate: float) -> None:
    """Send requests where the parent says, until it ends."""
    users = Users(rate)
    sending = asyncio.create_task(users.run())
    async for line in lines_of_parent():
        users.aim(tuple(int(port) for port in line.split()))
    sending.cancel()


def main(argv: list[str]) -> int:
    """Send as many requests a second as ``argv`` says."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -m tidegate_server.demo.traffic RATE\n")
        return 2
    asyncio.run(drive(float(argv[0])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
