"""TLS: what the server shows, and what it asks of clients."""

from __future__ import annotations

from pathlib import Path

import grpc

from tidegate_server.config import Config
from tidegate_server.errors import ConfigError


def server_credentials(config: Config) -> grpc.ServerCredentials | None:
    """Return the server's credentials, ``None`` for plaintext.

    With ``tls_client_ca`` a client without a certificate of that authority cannot connect at all.

    Raises
    ------
    ConfigError
        When a file cannot be read or is no PEM; the message names setting and file, never content.
    """
    if config.tls_certificate is None or config.tls_key is None:
        return None
    certificate = _pem("tls_certificate", config.tls_certificate, b"CERTIFICATE-----")
    key = _pem("tls_key", config.tls_key, b"PRIVATE KEY-----")
    authority = None
    if config.tls_client_ca is not None:
        authority = _pem("tls_client_ca", config.tls_client_ca, b"CERTIFICATE-----")
    return grpc.ssl_server_credentials(
        [(key, certificate)], root_certificates=authority, require_client_auth=authority is not None
    )


def channel_credentials(
    authority: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> grpc.ChannelCredentials:
    """Return a client's credentials: whom it trusts (default: the system's list), what it shows (mTLS).

    Raises
    ------
    ConfigError
        When a file cannot be read or is no PEM, or only one of certificate and key is given.
    """
    if (certificate is None) != (key is None):
        raise ConfigError("tls_certificate and tls_key: set both, or none of them")
    return grpc.ssl_channel_credentials(
        root_certificates=_pem("tls_ca", authority, b"CERTIFICATE-----") if authority else None,
        private_key=_pem("tls_key", key, b"PRIVATE KEY-----") if key else None,
        certificate_chain=_pem("tls_certificate", certificate, b"CERTIFICATE-----") if certificate else None,
    )


def _pem(setting: str, path: Path, marker: bytes) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path}: {error.strerror}") from None
    if marker not in content:
        kind = "certificate" if b"CERT" in marker else "private key"
        raise ConfigError(f"{setting}: {path} holds no {kind} in PEM form")
    return content
