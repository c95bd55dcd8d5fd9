"""The filter language of lists."""

from __future__ import annotations

import pytest
from tidegate_server.gates.errors import InvalidError
from tidegate_server.gates.filters import (
    EVALUATION_FIELDS,
    GATE_FIELDS,
    And,
    Comparison,
    Not,
    Operator,
    Or,
    matches,
    parse_filter,
)
from tidegate_server.gates.model import LabelKind, Verdict

ITEM = {
    "service": "checkout",
    "environment": "prod",
    "version": "v1.2",
    "verdict": Verdict.FAIL,
    "decision": None,
    "dry_run": False,
    "label": (int(LabelKind.FALSE_ALARM),),
    "create_time": 1_777_593_600.0,
    "end_time": None,
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("   ", True),
        ("service = checkout", True),
        ('service = "checkout"', True),
        ("service = Checkout", False),
        ("service != checkout", False),
        ("service = check*", True),
        ("service = *out", True),
        ("service != check*", False),
        ('service = "check.ut"', False),
        ("service : ecko", True),
        ("verdict = FAIL", True),
        ("verdict = fail", True),
        ("verdict != FAIL", False),
        ("decision = HALT", False),
        ("decision != HALT", True),
        ("dry_run = false", True),
        ("label : FALSE_ALARM", True),
        ("label = FALSE_ALARM", True),
        ("label != FALSE_ALARM", False),
        ("label : MISSED", False),
        ('create_time >= "2026-05-01T00:00:00Z"', True),
        ('create_time > "2026-05-01T00:00:00+00:00"', False),
        ('create_time < "2026-05-01T02:30:00+02:00"', True),
        ("create_time > 2026-04-30", True),
        ('end_time < "2026-05-01"', False),
        ("verdict = FAIL AND service = checkout", True),
        ("verdict = PASS OR service = checkout", True),
        ("verdict = PASS OR verdict = FAIL AND service = other", False),
        ("(verdict = PASS OR verdict = FAIL) AND service = checkout", True),
        ("NOT verdict = PASS", True),
        ("NOT (verdict = FAIL AND dry_run = false)", False),
    ],
)
def test_meaning(text, expected):
    assert matches(parse_filter(text, EVALUATION_FIELDS), ITEM.get) is expected


def test_tags_of_gates():
    parsed = parse_filter('tags : "team:payments"', GATE_FIELDS)
    assert matches(parsed, {"tags": ("team:payments", "tier:1")}.get)
    assert not matches(parsed, {"tags": ("team:pay",)}.get)


def test_the_tree():
    assert parse_filter("service = a AND NOT (version = b* OR dry_run = true)", EVALUATION_FIELDS) == And(
        (
            Comparison("service", Operator.EQ, "a"),
            Not(Or((Comparison("version", Operator.EQ, "b*", True), Comparison("dry_run", Operator.EQ, True)))),
        )
    )


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ("servce = checkout", "there is no field 'servce'; fields are actor,"),
        ("owner = x", "there is no field 'owner'"),
        ("verdict = MAYBE", "verdict is compared with PASS, FAIL, INCONCLUSIVE or ERROR, not 'MAYBE'"),
        ("dry_run = perhaps", "true or false"),
        ("create_time > yesterday", "a time such as"),
        ("create_time = 2026-05-01", "create_time takes < <= > >=, not ="),
        ("create_time > 2026-05-01T00:00:00Z", 'create_time > "2026-05-01T00:00:00Z"'),
        ("service = 'a'", 'column 11: texts stand in double quotes: service = "..."'),
        ("service < a", "service takes = != :, not <"),
        ("service = ", "column 11: cannot be understood"),
        ("service checkout", "column 9: cannot be understood"),
        ("service = a service = b", "column 13: cannot be understood"),
        ("(service = a", "column 13: cannot be understood"),
        ("service = a)", "column 12: cannot be understood"),
        ('service = "a', "column 11: cannot be understood"),
        ("(" * 33 + "service = a" + ")" * 33, "nested more than 32 deep"),
        ("NOT " * 5000 + "service = a", "characters"),
        ("NOT " * 500 + "service = a", "nested more than 32 deep"),
        ("service = " + "a" * 5000, "at most 4096"),
    ],
)
def test_what_is_wrong_is_told(text, tells):
    with pytest.raises(InvalidError) as refused:
        parse_filter(text, EVALUATION_FIELDS)
    assert refused.value.violations[0].field == "filter"
    assert tells in refused.value.message
