"""The service of the demo: three endpoints with latencies of their own and a ``/metrics`` page.

``python -m tidegate_server.demo.shop v1`` runs one version of it on a free port of 127.0.0.1, prints the
port, and ends when its standard input is closed. Latencies are slept, not computed, so that a busy machine
disturbs them little.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from tidegate_server.demo.processes import until_parent_ends


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint: log-normal latency around ``median`` seconds, and a share of failing requests."""

    median: float
    sigma: float
    error_ratio: float


V1: dict[str, Endpoint] = {
    "/checkout": Endpoint(median=0.120, sigma=0.22, error_ratio=0.002),
    "/search": Endpoint(median=0.080, sigma=0.22, error_ratio=0.002),
    "/cart": Endpoint(median=0.060, sigma=0.22, error_ratio=0.002),
}

# The harmless v2 differs a little, as releases do, but by far less than any margin.
V2_HARMLESS: dict[str, Endpoint] = V1 | {"/search": replace(V1["/search"], median=0.0792)}

# The faulty v2 is 60 % slower on one endpoint and fails 4 % of all requests.
V2_FAULTY: dict[str, Endpoint] = {path: replace(endpoint, error_ratio=0.04) for path, endpoint in V1.items()}
V2_FAULTY["/checkout"] = replace(V2_FAULTY["/checkout"], median=V1["/checkout"].median * 1.6)

VERSIONS = {"v1": V1, "v2-harmless": V2_HARMLESS, "v2-faulty": V2_FAULTY}

# Bounds 8 % apart, from 5 ms to 1.2 s: a quantile read from them is exact to a few per cent.
BUCKETS = tuple(round(0.005 * 1.08**k, 6) for k in range(72))

_REASONS = {
    200: "OK",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_MAX_HEAD = 16_384


def congestion(now: float) -> float:
    """Return how much slower every version is at the Unix time ``now``: weather that all of them share."""
    return 1.0 + 0.08 * math.sin(now * 2.0 * math.pi / 19.0)


class Shop:
    """One running version: its behaviour and its metrics."""

    def __init__(self, endpoints: dict[str, Endpoint], seed: int | None = None) -> None:
        """Make the metrics of ``endpoints``; ``seed`` fixes latencies and errors."""
        self.endpoints = endpoints
        self.random = random.Random(seed)  # noqa: S311 - simulated latencies, no secret
        self.registry = CollectorRegistry()
        requests = Counter("http_requests", "Requests answered.", ["path"], registry=self.registry)
        errors = Counter("http_request_errors", "Requests answered with a 5xx.", ["path"], registry=self.registry)
        seconds = Histogram(
            "http_request_duration_seconds",
            "Time to answer.",
            ["path"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.requests = {path: requests.labels(path) for path in endpoints}
        self.errors = {path: errors.labels(path) for path in endpoints}
        self.seconds = {path: seconds.labels(path) for path in endpoints}

    def plan(self, path: str) -> tuple[float, int]:
        """Return how long the next request of ``path`` takes, in seconds, and its status."""
        endpoint = self.endpoints[path]
        latency = endpoint.median * math.exp(endpoint.sigma * self.random.gauss(0.0, 1.0)) * congestion(time.time())
        return latency, 503 if self.random.random() < endpoint.error_ratio else 200

    def record(self, path: str, seconds: float, status: int) -> None:
        """Count one answered request."""
        self.requests[path].inc()
        self.seconds[path].observe(seconds)
        if status >= 500:
            self.errors[path].inc()

    def metrics(self) -> bytes:
        """Return the metrics page in the Prometheus text format."""
        return generate_latest(self.registry)


class HttpConnection(asyncio.Protocol):
    """One keep-alive HTTP/1.1 connection. Knows GET without a body, which is all that the demo sends."""

    def __init__(self, shop: Shop) -> None:
        """Answer from ``shop``."""
        self.shop = shop
        self.buffer = b""
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP server makes nothing else
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason changes nothing
        """Forget the transport; answers still on their way are dropped."""
        self.transport = None

    def data_received(self, data: bytes) -> None:
        """Take requests out of the stream, one per blank line."""
        self.buffer += data
        while b"\r\n\r\n" in self.buffer:
            head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
            self.request(head.split(b"\r\n", 1)[0].decode("latin-1"))
        if len(self.buffer) > _MAX_HEAD:
            self.answer(431, b"request head too large\n", close=True)

    def request(self, line: str) -> None:
        """Answer one request, after its latency."""
        method, _, rest = line.partition(" ")
        path = rest.split(" ", 1)[0].partition("?")[0]
        if method != "GET":
            self.answer(405, b"only GET\n", close=True)
        elif path == "/metrics":
            self.answer(200, self.shop.metrics())
        elif path not in self.shop.endpoints:
            self.answer(404, b"not found\n")
        else:
            latency, status = self.shop.plan(path)
            loop = asyncio.get_running_loop()
            loop.call_later(latency, self.finish, path, loop.time(), status)

    def finish(self, path: str, started: float, status: int) -> None:
        """Answer a request of the shop and count it."""
        self.shop.record(path, asyncio.get_running_loop().time() - started, status)
        self.answer(status, b"ok\n" if status == 200 else b"sorry\n")

    def answer(self, status: int, body: bytes, *, close: bool = False) -> None:
        """Write one answer."""
        if self.transport is None:
            return
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\nContent-Length: {len(body)}\r\n"
        self.transport.write(head.encode() + (b"Connection: close\r\n" if close else b"") + b"\r\n" + body)
        if close:
            self.transport.close()


async def serve(shop: Shop) -> None:
    """Serve ``shop`` on a free port of 127.0.0.1, print the port, and end with the parent."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: HttpConnection(shop), "127.0.0.1", 0, backlog=512)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await until_parent_ends()
    server.close()


def main(argv: list[str]) -> int:
    """Run the version named in ``argv``."""
    if len(argv) != 1 or argv[0] not in VERSIONS:
        sys.stderr.write(f"usage: python -m tidegate_server.demo.shop {{{','.join(VERSIONS)}}}\n")
        return 2
    asyncio.run(serve(Shop(VERSIONS[argv[0]])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
