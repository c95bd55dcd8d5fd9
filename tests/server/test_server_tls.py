"""TLS and mTLS with real handshakes."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
import trustme
from tidegate_server.config import Config
from tidegate_server.errors import ConfigError
from tidegate_server.tls import channel_credentials, server_credentials

from tests.server.harness import Caller, Serving, arms, refused, request


class Files:
    """An authority, a server's pair and a client's pair, as files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        self.authority = folder / "ca.pem"
        authority.cert_pem.write_to_path(self.authority)
        self.certificate, self.key = self._issue(authority, folder, "server")
        self.client_certificate, self.client_key = self._issue(authority, folder, "client")
        self.stranger, self.stranger_key = self._issue(trustme.CA(), folder, "stranger")

    @staticmethod
    def _issue(authority: trustme.CA, folder: Path, name: str) -> tuple[Path, Path]:
        issued = authority.issue_cert("127.0.0.1", "localhost")
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(certificate)
        issued.private_key_pem.write_to_path(key)
        return certificate, key


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("tls"))


def test_tls_serves_those_who_trust_it(serving: Serving, files: Files) -> None:
    with serving.server(tls_certificate=files.certificate, tls_key=files.key) as server:
        with Caller(server.target, channel_credentials(files.authority)) as caller:
            assert caller.analyze(request(*arms())).verdict
        with Caller(server.target) as caller:
            assert refused(lambda: caller.analyze(request(*arms()))).code == "UNAVAILABLE"


def test_mtls_wants_a_certificate_of_its_authority(serving: Serving, files: Files) -> None:
    settings = {"tls_certificate": files.certificate, "tls_key": files.key, "tls_client_ca": files.authority}
    with serving.server(**settings) as server:
        known = channel_credentials(files.authority, files.client_certificate, files.client_key)
        with Caller(server.target, known) as caller:
            assert caller.analyze(request(*arms())).verdict
        for credentials in (
            channel_credentials(files.authority),
            channel_credentials(files.authority, files.stranger, files.stranger_key),
        ):
            with Caller(server.target, credentials) as caller:
                assert refused(lambda c=caller: c.analyze(request(*arms()))).code == "UNAVAILABLE"


def test_files_that_cannot_be_used_are_named_without_their_content(files: Files, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"tls_certificate: cannot read .*nowhere.pem: No such file"):
        server_credentials(Config(tls_certificate=tmp_path / "nowhere.pem", tls_key=files.key))
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    with pytest.raises(ConfigError) as caught:
        server_credentials(Config(tls_certificate=files.certificate, tls_key=secret))
    assert "holds no private key" in str(caught.value)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError, match="set both"):
        channel_credentials(None, files.certificate, None)


def test_plaintext_needs_no_credentials() -> None:
    assert server_credentials(Config()) is None
    assert isinstance(channel_credentials(), grpc.ChannelCredentials)
