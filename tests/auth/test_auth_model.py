"""Roles, scopes, tokens and identities by themselves."""

from __future__ import annotations

import asyncio
import hashlib

import pytest
from tidegate_server.auth.interceptor import REMEMBER_SECONDS, Authenticator
from tidegate_server.auth.methods import caller, enter, require
from tidegate_server.auth.model import ANYBODY, Grant, Principal, Role, grants_of
from tidegate_server.auth.tokens import (
    certificate_record,
    hash_secret,
    new_token,
    proves,
    split_token,
    usable,
)
from tidegate_server.gates.errors import DeniedError, UnauthenticatedError


@pytest.mark.parametrize(
    ("grant", "service", "environment", "covered"),
    [
        (Grant(Role.VIEWER), "shop", "prod", True),
        (Grant(Role.VIEWER, "shop", "prod"), "shop", "prod", True),
        (Grant(Role.VIEWER, "shop", "prod"), "shop", "dev", False),
        (Grant(Role.VIEWER, "shop*", "prod"), "shop-api", "prod", True),
        (Grant(Role.VIEWER, "shop*", "prod"), "eshop", "prod", False),
        (Grant(Role.VIEWER, "sh?p", "*"), "ship", "x", True),
        (Grant(Role.VIEWER, "a.b", "*"), "axb", "x", False),
        (Grant(Role.VIEWER, "", "*"), "shop", "prod", False),
        (Grant(Role.VIEWER, "Shop", "*"), "shop", "prod", False),
    ],
)
def test_scopes(grant, service, environment, covered):
    assert grant.covers(service, environment) is covered


def test_each_role_may_do_what_those_before_it_may():
    for have in Role:
        who = Principal("x", (Grant(have),))
        for need in Role:
            assert who.may(need, "a", "b") is (have >= need)


def test_a_role_in_one_scope_is_none_in_another():
    who = Principal("x", (Grant(Role.OPERATOR, "a", "*"), Grant(Role.VIEWER, "b", "*")))
    assert who.may(Role.OPERATOR, "a", "p")
    assert who.may(Role.VIEWER, "b", "p")
    assert not who.may(Role.OPERATOR, "b", "p")
    assert who.scopes(Role.VIEWER) == (("a", "*"), ("b", "*"))
    assert who.scopes(Role.OPERATOR) == (("a", "*"),)
    assert ANYBODY.scopes(Role.OPERATOR) is None


def test_roles_that_are_not_known_grant_nothing():
    assert grants_of([("superuser", "*", "*"), ("viewer", "a", "*")]) == (Grant(Role.VIEWER, "a", "*"),)


def test_a_token_is_256_random_bits_and_only_its_hash_is_kept():
    token, record = new_token("ci", [Grant(Role.DEPLOYER, "shop", "prod")], "ann", 100.0, ttl=50)
    token_id, secret = split_token(token)
    assert token_id == record.id
    assert len(secret) == 43
    assert record.secret_hash == hashlib.sha256(secret.encode()).hexdigest() == hash_secret(secret)
    assert secret not in repr(record)
    assert record.grants == (("deployer", "shop", "prod"),)
    assert proves(record, secret)
    assert not proves(record, secret[:-1] + ("a" if secret[-1] != "a" else "b"))
    assert [usable(record, now) for now in (149.9, 150.0)] == [True, False]
    assert new_token("ci", [], "ann", 0.0)[0] != token


@pytest.mark.parametrize("token", ["", "tg_", "tg_abc_def", "x" * 70, "tg_0123456789ABCDEF_" + "a" * 43])
def test_other_texts_are_no_tokens(token):
    assert split_token(token) is None


def test_a_certificate_has_no_secret_that_a_token_could_prove():
    record = certificate_record("spiffe://ci", [Grant(Role.VIEWER)], "ann", 0.0)
    assert not proves(record, "")
    assert record.id.startswith("cert:")


def test_methods_that_are_not_in_the_table_are_refused():
    with pytest.raises(DeniedError, match="no method of this server"):
        enter("/tidegate.v1.GateService/DropEverything", ANYBODY)


def test_a_handler_that_is_reached_without_asking_who_calls_does_nothing():
    assert caller().scopes(Role.VIEWER) == ()
    with pytest.raises(DeniedError):
        require("shop", "prod", "evaluations/1")


class Tokens:
    """Tokens in memory, which count how often they are asked for."""

    def __init__(self, *records, on=True):
        self.records = {one.id: one for one in records}
        self.on = on
        self.asked = 0

    async def enabled(self):
        self.asked += 1
        return self.on

    async def find(self, token_id):
        self.asked += 1
        return self.records.get(token_id)


def identify(authenticator, token="", names=()):
    metadata = (("authorization", token),) if token else ()
    return asyncio.run(authenticator.identify(metadata, {"names": list(names)}))


def test_nobody_is_asked_while_it_is_off_and_everybody_when_always():
    tokens = Tokens(on=False)
    assert identify(Authenticator(tokens, always=False, clock=lambda: 0.0)) is ANYBODY
    with pytest.raises(UnauthenticatedError):
        identify(Authenticator(tokens, always=True, clock=lambda: 0.0))


def test_certificates_by_their_names():
    record = certificate_record("spiffe://ci", [Grant(Role.DEPLOYER)], "ann", 0.0)
    asker = Authenticator(Tokens(record), always=True, clock=lambda: 1.0)
    assert identify(asker, names=["other", "spiffe://ci"]).name == "spiffe://ci"
    with pytest.raises(UnauthenticatedError):
        identify(asker, names=["other"])


def test_a_bad_token_is_not_saved_by_a_good_certificate():
    record = certificate_record("ci", [Grant(Role.DEPLOYER)], "ann", 0.0)
    asker = Authenticator(Tokens(record), always=True, clock=lambda: 1.0)
    with pytest.raises(UnauthenticatedError, match="token is not known"):
        identify(asker, token="Bearer nonsense", names=["ci"])


def test_tokens_are_remembered_for_a_while_and_no_longer():
    token, record = new_token("ci", [Grant(Role.VIEWER)], "ann", 0.0)
    tokens, now = Tokens(record), [0.0]
    asker = Authenticator(tokens, always=True, clock=lambda: now[0])
    for _ in range(3):
        assert identify(asker, f"Bearer {token}").name == "ci"
    assert tokens.asked == 1
    tokens.records.clear()
    now[0] = REMEMBER_SECONDS
    with pytest.raises(UnauthenticatedError):
        identify(asker, f"Bearer {token}")


@pytest.mark.parametrize("header", ["bearer {}", "Bearer {}", "BEARER  {}"])
def test_the_scheme_may_be_written_in_any_case(header):
    token, record = new_token("ci", [Grant(Role.VIEWER)], "ann", 0.0)
    asker = Authenticator(Tokens(record), always=True, clock=lambda: 0.0)
    assert identify(asker, header.format(token)).name == "ci"
