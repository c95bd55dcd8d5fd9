"""Gates and their revisions, tokens and the audit log."""

from __future__ import annotations

from dataclasses import replace

import pytest
from store_factories import AUDIT, T0, gate
from tidegate_server.errors import RequestError
from tidegate_server.gates.errors import AlreadyExistsError, ConflictError, NotFoundError
from tidegate_server.gates.filters import And, Comparison, Not, Operator, Or
from tidegate_server.gates.model import GateKey
from tidegate_server.gates.ports import AuditRecord, ListQuery, TokenRecord


def _raised(change):
    return lambda one: replace(one, revision=one.revision + 1, **change)


def test_a_gate_comes_back_as_it_was(run):
    made = gate(tags=("a", "b:c"), owner="team", description="\u4f60\u597d", enabled=False, dry_run=True)
    assert run(run.store.gates.create(made, AUDIT)) is made
    assert run(run.store.gates.get(made.key)) == made
    assert run(run.store.gates.get(made.key, 1)) == made


def test_a_key_is_taken_once(run):
    run(run.store.gates.create(gate(), AUDIT))
    with pytest.raises(AlreadyExistsError, match="already a gate 'default' of service 'checkout'"):
        run(run.store.gates.create(gate(), AUDIT))


def test_revisions_stay_even_when_the_gate_goes(run):
    gates = run.store.gates
    first = gate(description="one")
    run(gates.create(first, AUDIT))
    second = run(gates.modify(first.key, _raised({"description": "two"}), AUDIT))
    assert run(gates.get(first.key)) == second
    assert run(gates.get(first.key, 1)) == first
    run(gates.delete(first.key, lambda _: None, AUDIT))
    with pytest.raises(NotFoundError, match="no gate service 'checkout'"):
        run(gates.get(first.key))
    assert run(gates.get(first.key, 2)) == second
    again = gate(description="three")
    run(gates.create(again, AUDIT))
    assert run(gates.get(first.key, 1)) == again
    seen = run(gates.list_revisions(first.key, 2))
    assert [one.description for one in seen.items] == ["three", "two"]
    rest = run(gates.list_revisions(first.key, 2, seen.next_cursor))
    assert [one.description for one in rest.items] == ["one"]
    assert rest.next_cursor == ""


def test_no_change_writes_nothing_and_a_refused_change_neither(run):
    gates = run.store.gates
    made = gate()
    run(gates.create(made, AUDIT))
    before = len(run(run.store.audit.list(ListQuery(1000))).items)
    run(gates.modify(made.key, lambda one: one, AUDIT))

    def refuse(_):
        raise ConflictError("ETAG_MISMATCH", "stale")

    with pytest.raises(ConflictError):
        run(gates.modify(made.key, refuse, AUDIT))
    with pytest.raises(ConflictError):
        run(gates.delete(made.key, refuse, AUDIT))
    with pytest.raises(ConflictError, match="keeps its service"):
        run(gates.modify(made.key, lambda one: replace(one, service="other", revision=2), AUDIT))
    assert run(gates.get(made.key)) == made
    assert len(run(gates.list_revisions(made.key, 10)).items) == 1
    assert len(run(run.store.audit.list(ListQuery(1000))).items) == before


def test_what_is_not_there_is_not_found(run):
    gates, key = run.store.gates, GateKey("a", "b")
    for call in (
        gates.get(key),
        gates.get(key, 3),
        gates.modify(key, lambda one: one, AUDIT),
        gates.delete(key, lambda _: None, AUDIT),
        gates.list_revisions(key, 5),
    ):
        with pytest.raises(NotFoundError):
            run(call)


NAMES = ["A", "B", "a", "a%", "a_b", "a*", "a[b]", "b\\", "Z", "\u00e4"]


def _list(run, **query):
    found, cursor = [], ""
    while True:
        page = run(run.store.gates.list(ListQuery(3, cursor, **query)))
        assert len(page.items) <= 3
        found += [one.service for one in page.items]
        cursor = page.next_cursor
        if not cursor:
            return found


def _text(operator, value, field="service", **more):
    return Comparison(field, operator, value, **more)


FILTERS = [
    (None, sorted(NAMES)),
    (_text(Operator.EQ, "a"), ["a"]),
    (_text(Operator.EQ, "a*", wildcard=True), ["a", "a%", "a*", "a[b]", "a_b"]),
    (_text(Operator.EQ, "a*"), ["a*"]),
    (_text(Operator.EQ, "a%*", wildcard=True), ["a%"]),
    (_text(Operator.EQ, "a[*", wildcard=True), ["a[b]"]),
    (_text(Operator.EQ, "*\\", wildcard=True), ["b\\"]),
    (_text(Operator.NE, "*a*", wildcard=True), ["A", "B", "Z", "b\\", "\u00e4"]),
    (_text(Operator.HAS, "_"), ["a_b"]),
    (_text(Operator.HAS, "%"), ["a%"]),
    (_text(Operator.GE, "b"), ["b\\", "\u00e4"]),
    (Not(_text(Operator.HAS, "a")), ["A", "B", "Z", "b\\", "\u00e4"]),
    (And((_text(Operator.HAS, "a"), _text(Operator.HAS, "b"))), ["a[b]", "a_b"]),
    (Or((_text(Operator.EQ, "Z"), _text(Operator.EQ, "A"))), ["A", "Z"]),
    (_text(Operator.HAS, "tag-a", "tags"), ["a"]),
    (_text(Operator.HAS, "tag", "tags"), []),
    (Comparison("enabled", Operator.EQ, value=False), ["B"]),
    (Comparison("update_time", Operator.GT, T0 + 1), ["Z"]),
    (Comparison("create_time", Operator.LE, T0), sorted(NAMES)),
]


def test_lists_page_in_order_and_filter_with_case(run):
    for name in NAMES:
        extra = {"B": {"enabled": False}, "Z": {"update_time": T0 + 2}}.get(name, {})
        run(run.store.gates.create(gate(name, tags=(f"tag-{name}", "other"), **extra), AUDIT))
    for where, expected in FILTERS:
        assert _list(run, where=where) == expected, where


SCOPES = [
    (None, 4),
    ((), 0),
    ((("*", "*"),), 4),
    ((("a?", "*"),), 2),
    ((("a*", "prod"),), 1),
    ((("a1", "prod"), ("b", "*")), 2),
    ((("A1", "*"),), 0),
    ((("%", "*"), ("_1", "*")), 0),
]


def test_scopes_limit_a_list(run):
    for key in (("a1", "prod"), ("a2", "dev"), ("b", "dev"), ("abc", "dev")):
        run(run.store.gates.create(gate(*key), AUDIT))
    for scopes, expected in SCOPES:
        assert len(_list(run, scopes=scopes)) == expected, scopes
        assert len(_list(run, scopes=scopes, environment="none")) == 0


def test_a_cursor_of_another_list_is_refused(run):
    for cursor in ("x", "!!", "WzFd", "WyJhIl0=", "bnVsbA=="):
        with pytest.raises(RequestError, match="page_token"):
            run(run.store.gates.list(ListQuery(3, cursor)))


def test_an_unknown_filter_field_is_named(run):
    with pytest.raises(RequestError, match="unknown field 'nope'"):
        run(run.store.gates.list(ListQuery(3, where=_text(Operator.EQ, "x", "nope"))))


def test_a_nul_is_kept_or_refused_but_never_a_traceback(run):
    made = gate("a\0b")
    if run.store.database.is_sqlite:
        run(run.store.gates.create(made, AUDIT))
        assert run(run.store.gates.get(made.key)) == made
    else:
        with pytest.raises(RequestError, match="plain UTF-8"):
            run(run.store.gates.create(made, AUDIT))


def test_audit_records_come_back_newest_first(run):
    records = [AuditRecord(T0 + k, f"actor{k}", "do", "x", "svc", "env", {"k": str(k)}) for k in range(5)]
    for record in records:
        run(run.store.audit.append(record))
    page = run(run.store.audit.list(ListQuery(2, service="svc")))
    assert list(page.items) == records[:2:-1]
    rest = run(run.store.audit.list(ListQuery(10, page.next_cursor, service="svc")))
    assert list(rest.items)[:3] == records[2::-1]
    where = Comparison("actor", Operator.EQ, "actor3")
    assert records[3] in run(run.store.audit.list(ListQuery(50, where=where))).items
    assert run(run.store.audit.list(ListQuery(10, scopes=(("other", "*"),)))).items == ()


def _token(name, **changes):
    grants = (("deployer", "checkout", "*"),)
    return replace(TokenRecord(f"id-{name}", name, "hash", grants, T0, "ann"), **changes)


def test_tokens_are_found_revoked_and_listed(run):
    tokens = run.store.tokens
    run(tokens.create(_token("ci"), AUDIT))
    run(tokens.create(_token("old", create_time=T0 - 1, expire_time=T0), AUDIT))
    assert run(tokens.find("id-ci")) == _token("ci")
    assert run(tokens.find("nope")) is None
    with pytest.raises(AlreadyExistsError, match="named 'ci'"):
        run(tokens.create(_token("ci", id="id-2"), AUDIT))
    run(tokens.revoke("id-ci", T0 + 5, AUDIT))
    run(tokens.revoke("id-ci", T0 + 9, AUDIT))
    assert run(tokens.find("id-ci")).revoke_time == T0 + 5
    run(tokens.create(_token("ci", id="id-2"), AUDIT))
    assert [token.id for token in run(tokens.list())] == ["id-old", "id-2", "id-ci"]
    with pytest.raises(NotFoundError):
        run(tokens.revoke("nope", T0, AUDIT))


def test_authorisation_is_switched_and_stays(run, open_store):
    assert run(run.store.tokens.enabled()) is False
    run(run.store.tokens.set_enabled(True, AUDIT))
    other = open_store()
    assert other(other.store.tokens.enabled()) is True
    run(run.store.tokens.set_enabled(False, AUDIT))
    assert other(other.store.tokens.enabled()) is False
