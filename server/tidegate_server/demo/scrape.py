"""Reading the shop's ``/metrics`` pages: two pages half a second apart make one column of series."""

from __future__ import annotations

import http.client
from bisect import bisect_left
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

NAN = float("nan")


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
