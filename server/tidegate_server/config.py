"""Settings: one frozen object, the only place that reads the environment."""

from __future__ import annotations

import dataclasses
import ipaddress
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from tidegate_server.errors import ConfigError

LogFormat = Literal["auto", "json", "text"]
LogLevel = Literal["debug", "info", "warning", "error"]

PREFIX = "TIDEGATE_"
"""Every environment variable is this and the setting's name in capitals: ``TIDEGATE_MAX_SERIES``."""

_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"0", "false", "no", "off", ""})


def default_workers() -> int:
    """Return the number of analysis workers when none is set: one per core, at most 8."""
    return max(1, min(8, os.cpu_count() or 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """How one server runs.

    Parameters
    ----------
    address:
        ``host:port`` to listen on; port 0 takes a free one. Also ``unix:/path``.
    tls_certificate, tls_key:
        PEM files of the server's certificate chain and key; both or none.
    tls_client_ca:
        PEM file of the authority whose certificates clients must show (mTLS).
    insecure:
        Allows plaintext beyond loopback.
    workers:
        Analysis processes.
    analysis_timeout_seconds:
        A worker that takes longer for one piece of work is ended and replaced.
    max_message_bytes:
        Largest message taken from a client.
    max_series:
        Series (metrics times arms times instances) of a request or an evaluation.
    max_points:
        Points of a request or an evaluation, over all its series and all its writes.
    max_open_streams:
        ``StreamEvaluation`` calls at the same time.
    max_concurrent_analyses:
        ``Analyze`` calls at the same time, those that wait for a worker included.
    resume_within_seconds:
        How long an evaluation whose stream broke is kept.
    max_kept_evaluations:
        How many such evaluations are kept; the one that waits longest goes first.
    max_held_bytes:
        Memory for the blocks and states of all evaluations together.
    drain_pause_seconds:
        From "not serving" in the health check to refusing calls, so that balancers look away in time.
    drain_grace_seconds:
        How long open calls may then go on.
    keepalive_seconds:
        How often a quiet connection is probed; one that does not answer within 10 s is closed.
    reflection:
        Serve gRPC reflection.
    store_url:
        Where gates, evaluations and monitors are kept: a SQLite file, or ``postgresql://user@host/database``, which
        several servers may share. A server is given ``tidegate/tidegate.db`` in the user's state folder when none is
        set; one that is made in a program keeps them in a temporary file that goes with it.
    lease_seconds:
        How long an evaluation waits for a server that died while it worked on it, before another one takes over.
    max_looks:
        Evaluations that are looked at at the same time.
    retention_days:
        How long evaluations that are over are kept. Labelled ones are kept for good.
    state_retention_days:
        How long states of monitors are kept.
    log_format:
        ``json``, ``text`` (``key=value``), or ``auto``: text on a terminal, JSON otherwise.
    log_level:
        Least severity that is logged.

    Raises
    ------
    ConfigError
        When a setting is out of its range or contradicts another; the message names it.
    """

    address: str = "127.0.0.1:7443"
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    insecure: bool = False
    workers: int = dataclasses.field(default_factory=default_workers)
    analysis_timeout_seconds: float = 120.0
    max_message_bytes: int = 16 * 1024 * 1024
    max_series: int = 20_000
    max_points: int = 5_000_000
    max_open_streams: int = 256
    max_concurrent_analyses: int = 32
    resume_within_seconds: float = 120.0
    max_kept_evaluations: int = 64
    max_held_bytes: int = 1024 * 1024 * 1024
    drain_pause_seconds: float = 1.0
    drain_grace_seconds: float = 20.0
    keepalive_seconds: float = 30.0
    reflection: bool = True
    store_url: str = ""
    lease_seconds: float = 15.0
    max_looks: int = 64
    retention_days: float = 90.0
    state_retention_days: float = 30.0
    log_format: LogFormat = "auto"
    log_level: LogLevel = "info"

    def __post_init__(self) -> None:
        """Check every setting, and those that hang together."""
        self._at_least(1, "workers", "max_series", "max_points", "max_open_streams", "max_concurrent_analyses")
        self._at_least(0, "max_kept_evaluations", "resume_within_seconds")
        self._at_least(0, "drain_pause_seconds", "drain_grace_seconds")
        self._at_least(1, "analysis_timeout_seconds", "keepalive_seconds")
        self._at_least(1, "lease_seconds", "max_looks", "retention_days", "state_retention_days")
        self._at_least(64 * 1024, "max_message_bytes", "max_held_bytes")
        for name, allowed in (("log_format", get_args(LogFormat)), ("log_level", get_args(LogLevel))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name}: {getattr(self, name)!r} is none of {', '.join(allowed)}")
        host, _ = split_address(self.address)
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ConfigError("tls_certificate and tls_key: set both, or none of them")
        if self.tls_client_ca is not None and self.tls_certificate is None:
            raise ConfigError("tls_client_ca: client certificates need TLS; set tls_certificate and tls_key too")
        if self.insecure and self.tls_certificate is not None:
            raise ConfigError("insecure: contradicts tls_certificate; leave one of them out")
        if not self.tls and not self.insecure and not is_local(host):
            raise ConfigError(
                f"address: {self.address} can be reached from other machines and there is no TLS; set "
                "tls_certificate and tls_key, listen on 127.0.0.1, or say insecure to serve plaintext "
                "all the same"
            )

    def _at_least(self, least: float, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise ConfigError(f"{name}: must be at least {least:g}, not {value!r}")

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.tls_certificate is not None

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: Any) -> Config:
        """Read settings from ``TIDEGATE_*`` variables; overrides that are not ``None`` win.

        Raises
        ------
        ConfigError
            When a variable cannot be read, or as the class says.
        TypeError
            When an override is no setting.
        """
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):
            variable = PREFIX + field.name.upper()
            if variable in environ:
                values[field.name] = _read(variable, environ[variable], str(field.type))
        values.update({name: value for name, value in overrides.items() if value is not None})
        if not values.get("store_url"):
            values["store_url"] = str(_state_folder(environ) / "tidegate.db")
        return cls(**values)


def _state_folder(environ: Mapping[str, str]) -> Path:
    """Return where a user's programs keep their state; the current folder for a user without a home."""
    if environ.get("XDG_STATE_HOME"):
        return Path(environ["XDG_STATE_HOME"]) / "tidegate"
    if environ.get("HOME"):
        return Path(environ["HOME"]) / ".local" / "state" / "tidegate"
    return Path()


def _read(variable: str, text: str, kind: str) -> Any:
    try:
        if kind == "bool":
            if text.lower() not in _YES | _NO:
                raise ValueError
            return text.lower() in _YES
        if kind == "int":
            return int(text)
        if kind == "float":
            return float(text)
    except ValueError:
        what = {"bool": "true or false", "int": "a whole number", "float": "a number"}[kind]
        raise ConfigError(f"{variable}: must be {what}, not {text!r}") from None
    if kind.startswith("Path"):
        return Path(text) if text else None
    return text


def split_address(address: str) -> tuple[str, int | None]:
    """Return host and port of ``host:port``, ``[v6]:port`` or ``unix:/path`` (port ``None``).

    Raises
    ------
    ConfigError
        When it is none of these.
    """
    if address.startswith("unix:") and len(address) > len("unix:"):
        return address, None
    host, colon, port = address.rpartition(":")
    if colon and host and port.isdecimal() and int(port) < 65536 and (":" not in host or host.startswith("[")):
        return host.strip("[]"), int(port)
    raise ConfigError(f"address: must be host:port, [IPv6]:port or unix:/path, not {address!r}")


def is_local(host: str) -> bool:
    """Return whether only this machine can reach ``host``."""
    if host.startswith("unix:") or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
