"""Client certificates as identities, with real handshakes."""

from __future__ import annotations

import time

import grpc
import pytest
import trustme
from tidegate.v1 import gate_service_pb2 as wire
from tidegate.v1 import gate_service_pb2_grpc
from tidegate_server.auth.model import Grant, Role
from tidegate_server.auth.tokens import certificate_record, new_token
from tidegate_server.gates.ports import AuditRecord

from tests.api_gates.gate_calls import gate_of
from tests.server.harness import PATIENCE, refused

AUDIT = AuditRecord(time=0.0, actor="test", action="test", resource="test")


@pytest.fixture(scope="module")
def secured(serving, tmp_path_factory):
    """A server that wants certificates, and a maker of stubs for those who show one."""
    folder, authority = tmp_path_factory.mktemp("mtls"), trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    own = authority.issue_cert("127.0.0.1")
    own.cert_chain_pems[0].write_to_path(folder / "server.pem")
    own.private_key_pem.write_to_path(folder / "server.key")
    settings = {
        "tls_certificate": folder / "server.pem",
        "tls_key": folder / "server.key",
        "tls_client_ca": folder / "ca.pem",
    }
    with serving.server(**settings) as server:
        store = server.durable.store

        async def prepare() -> str:
            grant = [Grant(Role.OPERATOR, "shop", "prod")]
            await store.tokens.create(certificate_record("ci.example.com", grant, "test", time.time()), AUDIT)
            token, record = new_token("reader", [Grant(Role.VIEWER)], "test", time.time())
            await store.tokens.create(record, AUDIT)
            await store.tokens.set_enabled(True, AUDIT)
            return token

        token = serving.run(prepare())
        channels = []

        def stub(name: str):
            shown = authority.issue_cert(name)
            credentials = grpc.ssl_channel_credentials(
                authority.cert_pem.bytes(),
                shown.private_key_pem.bytes(),
                b"".join(one.bytes() for one in shown.cert_chain_pems),
            )
            channels.append(grpc.secure_channel(server.target, credentials))
            return gate_service_pb2_grpc.GateServiceStub(channels[-1])

        yield stub, token
        for channel in channels:
            channel.close()


def create(stub, service, **more):
    request = wire.CreateGateRequest(gate=gate_of(service), validate_only=True)
    return stub.CreateGate(request, timeout=PATIENCE, **more)


def test_an_allowed_identity_has_its_role_in_its_scope(secured):
    stub, _ = secured
    known = stub("ci.example.com")
    assert create(known, "shop").gate.created_by == "ci.example.com"
    assert refused(lambda: create(known, "search")).code == "PERMISSION_DENIED"


def test_a_certificate_of_the_authority_alone_is_nobody(secured):
    stub, _ = secured
    found = refused(lambda: create(stub("other.example.com"), "shop"))
    assert (found.code, found.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


def test_a_token_counts_before_the_certificate(secured):
    stub, token = secured
    metadata = (("authorization", f"Bearer {token}"),)
    found = refused(lambda: create(stub("ci.example.com"), "shop", metadata=metadata))
    assert found.code == "PERMISSION_DENIED"
    assert "reader" in found.message
