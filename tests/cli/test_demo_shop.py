"""The demo's own parts: the shop, its users, the scraper, and processes that never stay behind."""

from __future__ import annotations

import csv
import functools
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tidegate_server.demo import processes, recording, scrape
from tidegate_server.demo.scrape import ARMS, METRICS, Column
from tidegate_server.demo.shop import BUCKETS, V1, V2_FAULTY, Shop, congestion


@pytest.fixture
def children() -> Iterator[processes.Children]:
    with processes.Children() as running:
        yield running


def start_shop(children: processes.Children, version: str = "v1") -> int:
    return int(children.first_line(children.start("tidegate_server.demo.shop", version), "the shop"))


def until(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has ended too."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state == "Z"


def request(port: int, text: str) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(text.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(4096)
            if not part:
                break
            answer += part
    return answer.decode()


def test_metrics_page_of_a_shop_reads_back_what_it_counted() -> None:
    shop = Shop(V1, seed=1)
    for k in range(200):
        shop.record("/cart", 0.010 + 0.0001 * k, 503 if k % 50 == 0 else 200)
    totals = scrape.parse(shop.metrics().decode())
    assert set(totals) == set(V1)
    cart = totals["/cart"]
    assert (cart.requests, cart.errors) == (200, 4)
    assert len(cart.buckets) == len(BUCKETS) + 1
    assert cart.buckets[-1] == (math.inf, 200)
    seen = scrape.between(totals["/search"], cart)
    assert (seen.requests, seen.errors) == (200, 4)
    assert seen.latency_p95 == pytest.approx(29.0, rel=0.04)


def test_quantile_follows_the_rule_of_prometheus() -> None:
    bounds = [1.0, 2.0, 4.0, math.inf]
    assert scrape.quantile(0.5, bounds, [0, 10, 20, 20]) == 2.0
    assert scrape.quantile(0.75, bounds, [0, 10, 20, 20]) == 3.0
    assert scrape.quantile(0.25, bounds, [20, 20, 20, 20]) == 0.25
    assert scrape.quantile(0.99, bounds, [0, 0, 0, 5]) == 4.0
    assert math.isnan(scrape.quantile(0.95, bounds, [0, 0, 0, 0]))
    assert math.isnan(scrape.quantile(0.95, [], []))
    assert math.isnan(scrape.quantile(0.95, [math.inf], [3]))


def test_quantile_against_numpy() -> None:
    values = np.random.default_rng(3).lognormal(-3.0, 0.3, 5000)
    bounds = [*BUCKETS, math.inf]
    cumulative = [float((values <= bound).sum()) for bound in bounds]
    for q in (0.1, 0.5, 0.95):
        assert scrape.quantile(q, bounds, cumulative) == pytest.approx(np.quantile(values, q), rel=0.02)


def test_a_restart_between_scrapes_is_a_gap() -> None:
    old, new = Shop(V1, seed=1), Shop(V1, seed=1)
    old.record("/cart", 0.01, 200)
    before, after = (scrape.parse(shop.metrics().decode())["/cart"] for shop in (old, new))
    assert math.isnan(scrape.between(before, after).requests)


def test_versions_differ_as_they_should() -> None:
    good, bad = Shop(V1, seed=5), Shop(V2_FAULTY, seed=5)
    plans = np.array([[shop.plan("/checkout") for _ in range(4000)] for shop in (good, bad)])
    medians = np.median(plans[:, :, 0], axis=1)
    assert medians[1] / medians[0] == pytest.approx(1.6, rel=0.03)
    assert (plans[0, :, 1] == 503).mean() < 0.008
    assert (plans[1, :, 1] == 503).mean() == pytest.approx(0.04, abs=0.01)
    assert all(0.9 < congestion(t) < 1.1 for t in range(100))


def test_a_running_shop_answers_and_counts(children: processes.Children) -> None:
    port = start_shop(children)
    assert request(port, "GET /cart?x=1 HTTP/1.1\r\nHost: shop\r\n\r\n").startswith(("HTTP/1.1 200", "HTTP/1.1 503"))
    assert request(port, "GET /nothing HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 404")
    assert request(port, "POST /cart HTTP/1.1\r\n\r\n").startswith("HTTP/1.1 405")
    assert request(port, "GET /" + "x" * 20_000).startswith("HTTP/1.1 431")
    assert scrape.parse(scrape.fetch(port, timeout=60))["/cart"].requests == 1


def test_users_reach_both_arms_and_move_on(children: processes.Children) -> None:
    ports = [start_shop(children) for _ in range(3)]
    users = children.start("tidegate_server.demo.traffic", "300")

    def requests(port: int) -> float:
        return sum(totals.requests for totals in scrape.parse(scrape.fetch(port, timeout=60)).values())

    processes.tell(users, f"{ports[0]} {ports[1]}")
    assert until(lambda: requests(ports[0]) > 20 and requests(ports[1]) > 20)
    assert requests(ports[2]) == 0
    processes.tell(users, f"{ports[0]} {ports[2]}")
    assert until(lambda: requests(ports[2]) > 20)


def test_scraper_makes_columns_on_one_clock_and_gaps_of_failures(
    children: processes.Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A page that is late would be a gap too.
    monkeypatch.setattr(scrape, "fetch", functools.partial(scrape.fetch, timeout=60))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        silent = closed.getsockname()[1]
        port = start_shop(children)
        with scrape.Scraper(0.05) as scraper:
            scraper.aim(port, silent)
            request(port, "GET /cart HTTP/1.1\r\n\r\n")
            columns = [scraper.wait() for _ in range(3)]
    steps = np.diff([column.time for column in columns]) / 0.05
    assert np.allclose(steps, np.round(steps), atol=1e-3)
    assert (steps > 0.5).all()
    cart = [metric.name for metric in METRICS].index("shop_error_ratio")
    assert columns[0].totals[0][cart] == 1
    assert all(math.isnan(value) for column in columns for value in column.values[1])


def test_a_recording_is_what_analyze_reads(tmp_path: Path) -> None:
    nothing = (math.nan,) * len(METRICS)
    numbers = tuple(float(k) for k in range(len(METRICS)))
    recording.write(tmp_path / "a.csv", [("pre", Column(1770000000.0, (numbers, nothing), (numbers, nothing)))])
    rows = list(csv.DictReader((tmp_path / "a.csv").open()))
    assert len(rows) == len(ARMS) * len(METRICS)
    assert rows[3] == {
        "timestamp": "2026-02-02T02:40:00.000Z",
        "metric": "shop_error_ratio",
        "arm": "baseline",
        "value": "3",
        "phase": "pre",
        "total": "3",
    }
    assert {row["value"] for row in rows if row["arm"] == "canary"} == {""}


def test_a_child_that_cannot_start_says_why(children: processes.Children) -> None:
    child = children.start("tidegate_server.demo.shop", "v9")
    with pytest.raises(processes.ChildError, match="the shop did not start: usage"):
        children.first_line(child, "the shop")


def test_children_end_by_themselves_with_the_block() -> None:
    with processes.Children(grace_seconds=60) as children:
        polite = children.start("tidegate_server.demo.shop", "v1")
        children.first_line(polite, "the shop")
    assert polite.returncode == 0


def test_children_that_refuse_to_end_are_killed() -> None:
    with processes.Children(grace_seconds=0.2) as children:
        stubborn = children.start("timeit", "-n1", "-r1", "import time; time.sleep(600)")
    assert stubborn.returncode == -signal.SIGKILL


def test_children_end_when_their_parent_is_killed() -> None:
    code = (
        "from tidegate_server.demo import processes as p\n"
        "c = p.Children(); shop = c.start('tidegate_server.demo.shop', 'v1')\n"
        "c.first_line(shop, 'shop'); users = c.start('tidegate_server.demo.traffic', '1')\n"
        "print(shop.pid, users.pid, flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(pids) == 2
        assert not any(gone(pid) for pid in pids)
        os.kill(parent.pid, signal.SIGKILL)
    assert until(lambda: all(gone(pid) for pid in pids))
