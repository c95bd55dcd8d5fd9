"""Settings: what is allowed, what the environment says, what is refused and how."""

from __future__ import annotations

from pathlib import Path

import pytest
from tidegate_server.config import Config, split_address
from tidegate_server.errors import ConfigError


def test_defaults_are_loopback_and_plaintext() -> None:
    config = Config()
    assert config.address == "127.0.0.1:7443"
    assert not config.tls
    assert not config.insecure


@pytest.mark.parametrize("address", ["0.0.0.0:7443", "[::]:7443", "10.0.0.7:7443", "gate.example:7443"])
def test_plaintext_beyond_loopback_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"tls_certificate and tls_key.*insecure"):
        Config(address=address)
    assert Config(address=address, insecure=True).insecure
    assert Config(address=address, tls_certificate=Path("c"), tls_key=Path("k")).tls


@pytest.mark.parametrize(
    "address", ["127.0.0.1:0", "127.8.9.1:7443", "[::1]:7443", "localhost:7443", "unix:/run/tidegate.sock"]
)
def test_plaintext_on_this_machine_is_fine(address: str) -> None:
    assert Config(address=address).address == address


@pytest.mark.parametrize("address", ["7443", "host", "::1:7443", "127.0.0.1:", "127.0.0.1:99999", "unix:", ":7443"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="address: must be host:port"):
        Config(address=address)


def test_addresses_are_split() -> None:
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("unix:/run/x") == ("unix:/run/x", None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tls_certificate": Path("c")}, "set both"),
        ({"tls_key": Path("k")}, "set both"),
        ({"tls_client_ca": Path("a")}, "need TLS"),
        ({"insecure": True, "tls_certificate": Path("c"), "tls_key": Path("k")}, "contradicts"),
        ({"workers": 0}, "workers: must be at least 1"),
        ({"max_points": 0}, "max_points: must be at least 1"),
        ({"max_message_bytes": 10}, "max_message_bytes"),
        ({"resume_within_seconds": -1.0}, "resume_within_seconds: must be at least 0"),
        ({"drain_grace_seconds": float("nan")}, "drain_grace_seconds"),
        ({"log_format": "xml"}, "log_format: 'xml' is none of auto, json, text"),
    ],
)
def test_settings_that_cannot_be_are_refused_by_name(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config(**settings)  # type: ignore[arg-type]


def test_the_environment_is_read_and_overrides_win() -> None:
    environ = {
        "TIDEGATE_ADDRESS": "127.0.0.1:9000",
        "TIDEGATE_MAX_SERIES": "7",
        "TIDEGATE_RESUME_WITHIN_SECONDS": "2.5",
        "TIDEGATE_REFLECTION": "off",
        "TIDEGATE_TLS_CERTIFICATE": "/etc/c.pem",
        "TIDEGATE_TLS_KEY": "/etc/k.pem",
        "MAX_POINTS": "1",
    }
    config = Config.from_env(environ, max_series=9, address=None)
    assert (config.address, config.max_series, config.resume_within_seconds) == ("127.0.0.1:9000", 9, 2.5)
    assert not config.reflection
    assert config.tls_certificate == Path("/etc/c.pem")
    assert config.max_points == Config().max_points


@pytest.mark.parametrize(
    ("variable", "text", "message"),
    [
        ("TIDEGATE_WORKERS", "two", "TIDEGATE_WORKERS: must be a whole number, not 'two'"),
        ("TIDEGATE_KEEPALIVE_SECONDS", "x", "TIDEGATE_KEEPALIVE_SECONDS: must be a number"),
        ("TIDEGATE_INSECURE", "perhaps", "TIDEGATE_INSECURE: must be true or false"),
    ],
)
def test_a_variable_that_cannot_be_read_is_named(variable: str, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.from_env({variable: text})


def test_an_override_that_is_no_setting_is_a_mistake_of_the_program() -> None:
    with pytest.raises(TypeError):
        Config.from_env({}, no_such_setting=1)
