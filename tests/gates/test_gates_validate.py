"""Everything that can be wrong with a gate or a deployment is told at once, with its field."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tidegate_server.gates.errors import InvalidError
from tidegate_server.gates.model import (
    Comparator,
    Deployment,
    Gate,
    GateKey,
    MetricSpec,
    MonitorCheck,
    MonitorState,
    RegressionCheck,
    Rule,
    RuleMode,
    ThresholdCheck,
)
from tidegate_server.gates.names import (
    gate_name,
    parse_gate_name,
    parse_parent,
    parse_simple,
    simple_name,
    split_gate_name,
)
from tidegate_server.gates.validate import check_deployment, check_gate, check_version_needed

NOW = 1_700_000_000.0
METRIC = MetricSpec("p95")
GOOD = Gate(
    "shop",
    "prod",
    rules=(
        Rule("latency", RegressionCheck((METRIC,))),
        Rule("alerts", MonitorCheck("env:prod service:shop")),
        Rule("level", ThresholdCheck(METRIC, Comparator.BELOW, 250.0)),
    ),
    owner="payments",
    tags=("team:payments",),
)


def with_rule(check, mode: RuleMode = RuleMode.ENFORCE) -> Gate:
    return replace(GOOD, rules=(GOOD.rules[0], Rule("odd", check, mode)))


def test_a_good_gate_has_nothing_wrong():
    assert check_gate(GOOD) == []


NAN = float("nan")
CASES = [
    (replace(GOOD, service=""), "service", "is needed"),
    (replace(GOOD, service="-"), "service", "stands for any"),
    (replace(GOOD, environment="-"), "environment", "stands for any"),
    (replace(GOOD, environment="pro\u200bd"), "environment", "no invisible characters, not 'pro\\u200bd'"),
    (replace(GOOD, service=" shop"), "service", "begin or end with a blank"),
    (replace(GOOD, environment="a\nb"), "environment", "control characters"),
    (replace(GOOD, identifier=""), "identifier", "is needed"),
    (replace(GOOD, service="x" * 10_000), "service", "10000 bytes; at most 256"),
    (replace(GOOD, description="x" * 5000), "description", "at most 4096"),
    (replace(GOOD, tags=("a", "a")), "tags[1]", "there already"),
    (replace(GOOD, tags=tuple(map(str, range(40)))), "tags", "at most 32"),
    (replace(GOOD, rules=()), "rules", "at least one rule"),
    (replace(GOOD, rules=GOOD.rules * 40), "rules", "at most 100"),
    (replace(GOOD, rules=GOOD.rules[:1] * 2), "rules[1].name", "is the name of rules[0] already"),
    (replace(GOOD, rules=(replace(GOOD.rules[0], name=""),)), "rules[0].name", "is needed"),
    (replace(GOOD, rules=(replace(GOOD.rules[0], name="n" * 10_000),)), "rules[0].name", "at most 256"),
    (
        replace(GOOD, rules=(replace(GOOD.rules[0], mode=RuleMode.DRY_RUN),)),
        "rules",
        "every rule is a dry run",
    ),
    (with_rule(RegressionCheck(())), "rules[1].regression.metrics", "at least one metric"),
    (with_rule(RegressionCheck((METRIC, METRIC))), "rules[1].regression.metrics[1].name", "is declared"),
    (with_rule(RegressionCheck((METRIC,), horizon=0)), "rules[1].regression.horizon", "above 0 s"),
    (with_rule(RegressionCheck((METRIC,), horizon=7201)), "rules[1].regression.horizon", "at most 7200 s"),
    (with_rule(RegressionCheck((METRIC,), horizon=NAN)), "rules[1].regression.horizon", "not nan s"),
    (with_rule(RegressionCheck((METRIC,), warm_up=900)), "rules[1].regression.warm_up", "below the horizon"),
    (with_rule(RegressionCheck((METRIC,), warm_up=-1)), "rules[1].regression.warm_up", "not -1 s"),
    (
        with_rule(RegressionCheck((METRIC,), false_discovery_rate=0.7)),
        "rules[1].regression.false_discovery_rate",
        "between 0 and 0.5",
    ),
    (with_rule(MonitorCheck("")), "rules[1].monitor.query", "column 1: the query is empty"),
    (with_rule(MonitorCheck("env:prod AND")), "rules[1].monitor.query", "column 13: the query ends"),
    (with_rule(MonitorCheck("status:ok")), "rules[1].monitor.query", "would hide the states"),
    (with_rule(MonitorCheck("a", duration=-1)), "rules[1].monitor.duration", "0 s to 7200 s, not -1 s"),
    (with_rule(MonitorCheck("a", duration=7201)), "rules[1].monitor.duration", "not 7201 s"),
    (
        with_rule(MonitorCheck("a", fail_on=frozenset({MonitorState.WARN, MonitorState.NO_DATA}))),
        "rules[1].monitor.fail_on",
        "ALERT, which is worse, would pass; add ALERT",
    ),
    (with_rule(MonitorCheck("a", fail_on=frozenset())), "rules[1].monitor.fail_on", "at least one state"),
    (
        with_rule(MonitorCheck("a", fail_on=frozenset({MonitorState.OK}))),
        "rules[1].monitor.fail_on",
        "OK cannot fail",
    ),
    (with_rule(MonitorCheck("a", max_matches=0)), "rules[1].monitor.max_matches", "1 to 10000"),
    (
        with_rule(ThresholdCheck(METRIC, Comparator.BELOW, NAN)),
        "rules[1].threshold.bound",
        "must be a finite number",
    ),
    (
        with_rule(ThresholdCheck(MetricSpec("h", kind="histogram"), Comparator.BELOW, 1.0)),
        "rules[1].threshold.metric.kind",
        "no single level",
    ),
]


@pytest.mark.parametrize(
    ("gate", "field", "tells"), CASES, ids=[f"{field}-{k}" for k, (_, field, _) in enumerate(CASES)]
)
def test_each_fault_is_told_with_its_field(gate, field, tells):
    found = [one for one in check_gate(gate) if one.field == field]
    assert found, check_gate(gate)
    assert tells in found[0].description


def test_the_metrics_of_all_rules_are_bounded():
    """Their findings come in one message."""
    many = RegressionCheck(tuple(MetricSpec(f"m{k}") for k in range(1000)))
    rules = tuple(Rule(f"r{k}", many) for k in range(5))
    assert check_gate(replace(GOOD, rules=rules)) == []
    one_more = Rule("more", RegressionCheck((MetricSpec("m"),)))
    assert [(one.field, one.description) for one in check_gate(replace(GOOD, rules=(*rules, one_more)))] == [
        ("rules", "5001 metrics over all rules; at most 5000 are allowed")
    ]


def test_all_faults_are_told_at_once():
    bad = replace(GOOD, service="", owner="x" * 300, rules=(Rule("", MonitorCheck("(")),))
    fields = [one.field for one in check_gate(bad, "gate.")]
    assert fields == ["gate.service", "gate.owner", "gate.rules[0].name", "gate.rules[0].monitor.query"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"service": ""}, "deployment.service"),
        ({"environment": ""}, "deployment.environment"),
        ({"version": "v" * 10_000}, "deployment.version"),
        ({"start_time": NOW + 301}, "deployment.start_time"),
        ({"start_time": NOW - 31 * 86400}, "deployment.start_time"),
        ({"links": {"run": "javascript:alert(1)"}}, "deployment.links['run']"),
        ({"links": {"run": "https://ci-token:s3cret@git/1"}}, "deployment.links['run']"),
        ({"links": {"run": "https://[::1"}}, "deployment.links['run']"),
        ({"links": {str(k): "https://a" for k in range(40)}}, "deployment.links"),
        ({"canary_selector": {"a": "x" * 5000}}, "deployment.canary_selector['a']"),
    ],
)
def test_deployments(change, field):
    good = Deployment("shop", "prod", version="2", start_time=NOW, links={"run": "https://ci/1"})
    assert check_deployment(good, NOW) == []
    assert [one.field for one in check_deployment(replace(good, **change), NOW)] == [field]


def test_a_version_is_needed_where_versions_are_compared():
    nameless = Deployment("shop", "prod")
    assert [one.field for one in check_version_needed(nameless, GOOD.rules)] == ["deployment.version"]
    assert check_version_needed(nameless, GOOD.rules[1:]) == []
    assert check_version_needed(replace(nameless, version="2"), GOOD.rules) == []


@pytest.mark.parametrize(
    "key",
    [
        GateKey("shop", "prod"),
        GateKey("team/shop", "eu-1/prod", "pre deploy"),
        GateKey("läden", "%2F", "50%"),
    ],
)
def test_names_go_there_and_back(key):
    assert parse_gate_name(gate_name(key)) == key
    assert gate_name(key).count("/") == 5


@pytest.mark.parametrize(
    "name",
    [
        "",
        "shop",
        "services/a/environments/b",
        "services//environments/b/gates/c",
        "services/-/environments/b/gates/c",
        "gates/a/b/c/d/e",
    ],
)
def test_other_names_are_refused(name):
    assert split_gate_name(name) is None
    with pytest.raises(InvalidError, match="is no name of a gate"):
        parse_gate_name(name)


def test_parents():
    assert parse_parent("") == (None, None)
    assert parse_parent("services/-/environments/-") == (None, None)
    assert parse_parent("services/a%2Fb/environments/-") == ("a/b", None)
    with pytest.raises(InvalidError, match="is no parent"):
        parse_parent("services/a")


def test_simple_names():
    assert parse_simple(simple_name("monitors", "a/b c"), "monitors") == "a/b c"
    for name in ("", "monitors", "monitors/", "evaluations/1/2", "evaluation/1"):
        with pytest.raises(InvalidError):
            parse_simple(name, "evaluations" if name.startswith("eval") else "monitors")
