"""A search tells what the query itself tells of all monitors, page by page, and decodes the page alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_factories import AUDIT
from tidegate_server.gates.model import MonitorState
from tidegate_server.monitors.model import StatePush
from tidegate_server.monitors.query import parse, select
from tidegate_server.store import monitors as store_monitors

OK, WARN, ALERT, UNKNOWN = MonitorState.OK, MonitorState.WARN, MonitorState.ALERT, MonitorState.UNKNOWN
NOW = 5000.0

STATES = (
    StatePush("a1", OK, 10, "Checkout errors", ("env:prod", "service:checkout", "canary"), ("region:eu-1",)),
    StatePush("a2", ALERT, 10, "Disk of the store", ("Env:Prod", "team:payments")),
    StatePush("B3", OK, 10, "cart", ("env:staging",), group="host:a", group_tags=("host:a",)),
    StatePush("B3", ALERT, 10, group="host:b", group_tags=("host:b", "az:1")),
    StatePush("c4", WARN, 10, 'say "hello" \\ 100%', ('quote:"x"', "under_score")),
    StatePush("d5", UNKNOWN, 10, "Größe", ("straße:ÄÖ", "env:prod")),
    # Its sign of a Kelvin is lower-cased to a plain k, which no database does.
    StatePush("e6", OK, 10, "temperature in \u212a", ("unit:\u212a",)),
    StatePush("f7", ALERT, 10, "was deleted", ("env:prod",)),
    StatePush("g8", ALERT, 10, "its group was deleted", ("env:prod",), group="gone", group_tags=("host:gone",)),
    StatePush("h9", OK, 10, "Zeta", ("env:prod", "url:http://x/y?z=1")),
)

QUERIES = (
    "*",
    "name:*",
    "tag:*",
    "id:*",
    "env:prod",
    "ENV:PROD service:checkout",
    "env:prod OR env:staging",
    "env:prod -team:payments",
    "NOT env:prod",
    "NOT status:alert",
    "status:alert",
    "status:unknown",
    "status:ok OR status:warn",
    "status:alert env:prod",
    "status:alert OR name:zeta",
    "group:host:b",
    'group:"host:gone"',
    "NOT group:host:a",
    "group:host:* status:alert",
    "id:b3",
    "id:a?",
    "id:nope",
    "scope:region:eu-1",
    "scope:region:*",
    "checkout",
    "CHECKOUT tag:canary",
    "tag:canary",
    "en*:pro?",
    'name:"say \\"hello\\""',
    'quote:"\\"x\\""',
    'name:"\\\\ 100%"',
    "tag:under?score",
    "tag:under%score",
    "größe",
    "straße:äö",
    "unit:k",
    "temperature",
    "url:http*",
    "name:*e*r*",
    "service:(checkout OR cart)",
    "env:(prod AND NOT staging)",
    "x:y",
)


@pytest.fixture
def filled(run):
    run(run.store.monitors.push(STATES, NOW))
    run(run.store.monitors.delete("f7", NOW, AUDIT))
    run(run.store.monitors.delete("g8", NOW, AUDIT, group="gone"))
    return run


@pytest.mark.parametrize("query", QUERIES)
def test_a_search_finds_what_the_query_finds(filled, query):
    meant = sorted(select(parse(query), filled(filled.store.monitors.list())), key=lambda match: match.monitor.id)
    for size in (1, 2, 100):
        found, after = [], ""
        while True:
            page = filled(filled.store.monitors.search(parse(query), after=after, size=size))
            assert page.total == len(meant)
            assert len(page.matches) <= size
            found += page.matches
            after = page.next_after
            if not after:
                break
        assert found == meant


def test_the_queries_of_these_tests_find_and_leave_out(filled):
    everything = filled(filled.store.monitors.list())
    counts = {query: len(select(parse(query), everything)) for query in QUERIES}
    assert {query for query, count in counts.items() if count == 0} == {
        "id:nope",
        "x:y",
        "tag:under%score",
        'group:"host:gone"',
    }


def test_only_the_page_is_decoded(run, monkeypatch):
    many = [replace(STATES[0], monitor_id=f"m{k:03}", tags=(f"n:{k % 2}",)) for k in range(300)]
    run(run.store.monitors.push(many, NOW))
    decoded = []
    plain = store_monitors.from_text
    monkeypatch.setattr(store_monitors, "from_text", lambda text, kind: decoded.append(text) or plain(text, kind))
    for query, total in (("*", 300), ("n:1", 150), ("NOT n:1", 150), ("status:ok", 300)):
        decoded.clear()
        page = run(run.store.monitors.search(parse(query), after="m100", size=7))
        assert (page.total, len(page.matches)) == (total, 7)
        assert page.matches[0].monitor.id > "m100"
        assert len(decoded) == 7
