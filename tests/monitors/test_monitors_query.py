"""The tag query language: meaning, errors at their column, and speed on many monitors."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate_server.gates.model import MonitorState
from tidegate_server.monitors.model import Monitor, MonitorGroup
from tidegate_server.monitors.query import QueryError, parse, select

CHECKOUT = Monitor(
    "m1",
    "Checkout errors",
    tags=("env:prod", "service:checkout", "team:payments", "use_deployment_gates"),
    scope=("service:checkout", "region:eu-1"),
    groups=(
        MonitorGroup("host:a", ("host:a", "team:frontend"), MonitorState.OK),
        MonitorGroup("host:b", ("host:b", "service:cart"), MonitorState.ALERT),
    ),
)
CART = Monitor("m-2", "Cart latency p95", tags=("env:Staging", "service:cart"), groups=(MonitorGroup("", ()),))
BARE = Monitor("m3", "Nothing known", tags=())
ALL = (CHECKOUT, CART, BARE)


def found(query: str) -> dict[str, list[str]]:
    return {match.monitor.id: [group.key for group in match.groups] for match in select(parse(query), ALL)}


BOTH = ["host:a", "host:b"]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("env:prod", {"m1": BOTH}),
        ("ENV:Prod", {"m1": BOTH}),
        ("env:staging", {"m-2": [""]}),
        ('tag:"env:prod"', {"m1": BOTH}),
        ("tag:env:prod", {"m1": BOTH}),
        ('tag:"use_deployment_gates"', {"m1": BOTH}),
        ("use_deployment_gates", {}),
        ("env:*", {"m1": BOTH, "m-2": [""]}),
        ("env:?rod", {"m1": BOTH}),
        ('env:"*"', {}),
        ("en*:prod", {"m1": BOTH}),
        ("*", {"m1": BOTH, "m-2": [""], "m3": [""]}),
        ("env:prod service:checkout", {"m1": BOTH}),
        ("env:prod service:cart", {}),
        ("env:prod AND service:checkout", {"m1": BOTH}),
        ("env:prod OR env:staging", {"m1": BOTH, "m-2": [""]}),
        ("NOT env:prod", {"m-2": [""], "m3": [""]}),
        ("-env:prod", {"m-2": [""], "m3": [""]}),
        ("-env:prod -env:staging", {"m3": [""]}),
        ("NOT NOT env:prod", {"m1": BOTH}),
        ("env:staging OR env:prod team:payments", {"m1": BOTH, "m-2": [""]}),
        ("(env:staging OR env:prod) team:payments", {"m1": BOTH}),
        ("NOT env:prod AND service:cart", {"m-2": [""]}),
        ("env:(prod OR staging)", {"m1": BOTH, "m-2": [""]}),
        ("env:(prod staging)", {}),
        ("env:(* -prod)", {"m-2": [""]}),
        ('service:checkout AND (NOT group:("team:frontend"))', {"m1": ["host:b"]}),
        ('group:"service:cart"', {"m1": ["host:b"]}),
        ("group:host:?", {"m1": BOTH}),
        ("-group:host:a", {"m1": ["host:b"], "m-2": [""], "m3": [""]}),
        ('service:cart OR group:"service:cart" OR scope:"service:cart"', {"m1": ["host:b"], "m-2": [""]}),
        ('scope:"region:eu-1"', {"m1": BOTH}),
        ("scope:region:*", {"m1": BOTH}),
        ("name:checkout", {"m1": BOTH}),
        ("name:*p95", {"m-2": [""]}),
        ("name:p9*", {}),
        ("checkout", {"m1": BOTH}),
        ('"Cart latency"', {"m-2": [""]}),
        ("cart p95", {"m-2": [""]}),
        ("id:m1", {"m1": BOTH}),
        ("id:m*", {"m1": BOTH, "m-2": [""], "m3": [""]}),
        ("id:m-2", {"m-2": [""]}),
        ("status:alert", {"m1": ["host:b"]}),
        ('status:"no data"', {}),
        ("status:(ok OR unknown)", {"m1": ["host:a"], "m-2": [""], "m3": [""]}),
        ("state:or OR env:prod", {"m1": BOTH}),
        ("env:OR", {}),
    ],
)
def test_meaning(query, expected):
    assert found(query) == expected


@pytest.mark.parametrize(
    ("query", "column", "tells"),
    [
        ("", 1, "the query is empty"),
        ("   ", 1, "the query is empty"),
        ("env:", 5, "the query ends, but a word"),
        ("env:prod AND", 13, "the query ends, but key:value"),
        ("(env:prod", 10, ") is expected"),
        ("env:prod)", 9, "')' stands where"),
        ("env:prod service:", 18, "the query ends"),
        ("env:prod and a:b", 10, "write AND in capitals"),
        ("env:(a or b)", 8, "write OR in capitals"),
        ("not env:prod", 1, "write NOT in capitals"),
        ("OR env:prod", 1, "OR stands where"),
        ("env:prod AND OR a:b", 14, "OR stands where"),
        ('service:"checkout', 9, 'the closing " is missing'),
        ("env:prod chekout~2", 17, "~ has a meaning in other query languages"),
        ("()", 2, "')' stands where"),
        ("env:prod : a", 10, "':' stands where"),
        ("status:broken", 8, "is no state; states are ok, warn, alert"),
        ("env:prod muted:false", 10, "muted cannot be asked for here"),
        ('tag:""', 5, "the text is empty"),
        ("(" * 33 + "a" + ")" * 33, 33, "nested more than 32 deep"),
        ("NOT " * 600 + "a", 1, "nested more than 32 deep"),
        ("a" * 5000, 4097, "at most 4096"),
    ],
)
def test_errors_point_at_the_column(query, column, tells):
    with pytest.raises(QueryError) as refused:
        parse(query)
    assert refused.value.column == column
    assert tells in refused.value.message
    assert str(refused.value).startswith(f"column {column}: ")


@settings(max_examples=300)
@given(st.text(alphabet='ab:()"-*? ANDORT~\\', max_size=40))
def test_any_text_is_understood_or_refused(text):
    column = 1
    try:
        select(parse(text), ALL)
    except QueryError as error:
        column = error.column
    assert 1 <= column <= len(text) + 1


def test_ten_thousand_monitors_on_one_query_are_fast():
    monitors = [
        Monitor(
            f"m{k}",
            f"Monitor {k}",
            tags=(f"env:{'prod' if k % 2 else 'dev'}", f"service:s{k % 200}", f"team:t{k % 20}"),
            scope=(f"service:s{k % 200}",),
            groups=tuple(MonitorGroup(f"h{g}", (f"host:h{g}",)) for g in range(3)),
        )
        for k in range(10_000)
    ]
    query = parse('env:prod (service:s7 OR group:"host:h1" OR scope:"service:s9") AND NOT team:t1*')
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        matches = select(query, monitors)
        best = min(best, time.process_time() - began)
    assert len(matches) == sum(1 for k in range(10_000) if k % 2 and not f"t{k % 20}".startswith("t1"))
    # Measured at 40 ms on one slow core; a bound that only a wrong order of growth would pass.
    assert best < 2.0
