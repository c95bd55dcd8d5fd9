"""Reading the shop's ``/metrics`` pages: two pages half a second apart make one column of series."""

from __future__ import annotations

import http.client
import time
from bisect import bisect_left
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from prometheus_client.parser import text_string_to_metric_families
from tidegate_analysis.batch import Arm

from tidegate_server.demo.shop import V1

NAN = float("nan")
ARMS: tuple[Arm, Arm] = ("baseline", "canary")


@dataclass(frozen=True, slots=True)
class Metric:
    """One series of the demo: the p95 latency of an endpoint or, without a path, the shop's error ratio."""

    name: str
    path: str = ""

    @property
    def is_ratio(self) -> bool:
        """Whether its values are events of a total."""
        return not self.path


METRICS = (*(Metric(f"{path.strip('/')}_latency_p95", path) for path in V1), Metric("shop_error_ratio"))


@dataclass(frozen=True, slots=True)
class Column:
    """One scrape of both arms.

    ``values`` and ``totals`` hold one row per arm (``ARMS``) with one number per metric (``METRICS``): p95
    in ms, or errors with the requests as their total. NaN is missing; totals of latencies are NaN.
    """

    time: float
    values: tuple[tuple[float, ...], ...]
    totals: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True)
class EndpointTotals:
    """Running totals of one endpoint: requests, errors, and cumulative counts per upper bound (seconds)."""

    requests: float
    errors: float
    buckets: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class EndpointScrape:
    """What happened at one endpoint between two scrapes; ``latency_p95`` in ms, NaN without requests."""

    requests: float
    errors: float
    latency_p95: float


def fetch(port: int, timeout: float = 0.4) -> str:
    """Return the metrics page of the shop on ``port``.

    Raises
    ------
    OSError
        When it does not answer in ``timeout`` seconds, or not with 200.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        body = response.read()
    except http.client.HTTPException as error:
        raise OSError(f"no metrics page: {error!r}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise OSError(f"the metrics page answered {response.status}")
    return body.decode()


def parse(page: str) -> dict[str, EndpointTotals]:
    """Return the totals of every endpoint on a metrics page, by path."""
    requests: dict[str, float] = {}
    errors: dict[str, float] = {}
    buckets: dict[str, list[tuple[float, float]]] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            path = sample.labels.get("path", "")
            if sample.name == "http_requests_total":
                requests[path] = sample.value
            elif sample.name == "http_request_errors_total":
                errors[path] = sample.value
            elif sample.name == "http_request_duration_seconds_bucket":
                buckets.setdefault(path, []).append((float(sample.labels["le"]), sample.value))
    return {
        path: EndpointTotals(total, errors.get(path, 0.0), tuple(sorted(buckets.get(path, ()))))
        for path, total in requests.items()
    }


def between(before: EndpointTotals, after: EndpointTotals) -> EndpointScrape:
    """Return what happened from one scrape to the next; all NaN when a total fell, as after a restart."""
    requests, errors = after.requests - before.requests, after.errors - before.errors
    if requests < 0 or errors < 0:
        return EndpointScrape(NAN, NAN, NAN)
    bounds = [bound for bound, _ in after.buckets]
    counts = [new - old for (_, new), (_, old) in zip(after.buckets, before.buckets, strict=True)]
    return EndpointScrape(requests, errors, 1000.0 * quantile(0.95, bounds, counts))


def quantile(q: float, bounds: list[float], cumulative: list[float]) -> float:
    """Return the ``q`` quantile of a histogram with cumulative counts, linear within its bucket.

    The rule of Prometheus' ``histogram_quantile``: the lowest bucket begins at 0, and a quantile in the
    bucket without an upper bound is the highest bound. NaN when the histogram is empty.
    """
    if not cumulative or cumulative[-1] <= 0:
        return NAN
    rank = q * cumulative[-1]
    k = min(bisect_left(cumulative, rank), len(bounds) - 1)
    if bounds[k] == float("inf"):
        return bounds[k - 1] if k else NAN
    low_bound, low_count = (bounds[k - 1], cumulative[k - 1]) if k else (0.0, 0.0)
    inside = cumulative[k] - low_count
    return bounds[k] if inside <= 0 else low_bound + (bounds[k] - low_bound) * (rank - low_count) / inside


class Scraper:
    """Reads both arms on one clock. A context manager."""

    def __init__(self, step_seconds: float = 0.5) -> None:
        """Scrape every ``step_seconds``, beginning one step after now."""
        self.step = step_seconds
        self.ports: tuple[int, ...] = ()
        self.previous: list[dict[str, EndpointTotals] | None] = []
        self.pool = ThreadPoolExecutor(len(ARMS), "scrape")
        self.first = time.monotonic()
        # The wall clock is read once; a clock that is set while the demo runs must not bend its series.
        self.epoch = round(time.time(), 3)
        self.ticks = 0

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the threads go."""
        self.pool.shutdown(wait=False, cancel_futures=True)

    def aim(self, *ports: int) -> None:
        """Scrape these ports from now on, baseline first, and compare with what their pages say now."""
        self.ports = ports
        self.previous = self._pages()

    def now(self) -> float:
        """Return the Unix time on the scraper's clock."""
        return self.epoch + time.monotonic() - self.first

    def until_next(self) -> float:
        """Return the seconds to the next tick; negative when it is due already."""
        return self.first + (self.ticks + 1) * self.step - time.monotonic()

    def wait(self) -> Column:
        """Wait for the next tick, scrape, and return the column. A tick that was missed leaves a gap."""
        self.ticks = max(self.ticks + 1, int((time.monotonic() - self.first) / self.step))
        time.sleep(max(0.0, self.first + self.ticks * self.step - time.monotonic()))
        pages = self._pages()
        values, totals = [], []
        for before, after in zip(self.previous, pages, strict=True):
            seen = {
                path: between(before[path], after[path])
                if before is not None and after is not None and path in before and path in after
                else EndpointScrape(NAN, NAN, NAN)
                for path in V1
            }
            errors, requests = (sum(getattr(one, what) for one in seen.values()) for what in ("errors", "requests"))
            values.append(tuple(errors if m.is_ratio else seen[m.path].latency_p95 for m in METRICS))
            totals.append(tuple(requests if m.is_ratio else NAN for m in METRICS))
        self.previous = pages
        return Column(self.epoch + self.ticks * self.step, tuple(values), tuple(totals))

    def _pages(self) -> list[dict[str, EndpointTotals] | None]:
        return list(self.pool.map(_page, self.ports))


def _page(port: int) -> dict[str, EndpointTotals] | None:
    try:
        return parse(fetch(port))
    except (OSError, ValueError):
        return None  # a scrape that failed is a gap, as in any monitoring system
