"""Structured logs: one event a line, JSON for machines or key=value for people.

Only what code passes by name is logged: no request bodies, no call metadata, so no token ends up in a log.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from typing import Any, TextIO

from tidegate_server.config import LogFormat, LogLevel

ROOT = "tidegate"
_FIELDS = "tidegate_fields"


class Log:
    """Events of one part of the server."""

    def __init__(self, part: str) -> None:
        """Log under ``tidegate.<part>``."""
        self._logger = logging.getLogger(f"{ROOT}.{part}")

    def debug(self, event: str, **fields: Any) -> None:
        """Log what only a developer wants to know."""
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Log what happened."""
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Log what an operator should look at some day."""
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, *, exception: BaseException | None = None, **fields: Any) -> None:
        """Log what an operator should look at now; a traceback goes to the log and nowhere else."""
        self._write(logging.ERROR, event, fields, exception)

    def _write(self, level: int, event: str, fields: dict[str, Any], exception: BaseException | None = None) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, exc_info=exception, extra={_FIELDS: fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ``time``, ``level``, ``part``, ``event`` and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "part": record.name.removeprefix(f"{ROOT}."),
            "event": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """``12:41:07.123 INFO server listening address=127.0.0.1:7443``."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        part = record.name.removeprefix(f"{ROOT}.")
        head = f"{_time(record)[11:23]} {record.levelname:<7} {part} {record.getMessage()}"
        fields = "".join(f" {key}={_plain(value)}" for key, value in getattr(record, _FIELDS, {}).items())
        tail = f"\n{self.formatException(record.exc_info)}" if record.exc_info else ""
        return head + fields + tail


def _time(record: logging.LogRecord) -> str:
    moment = dt.datetime.fromtimestamp(record.created, tz=dt.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if text and not any(c.isspace() or c in '"=' for c in text) else json.dumps(text)


def setup(log_format: LogFormat, level: LogLevel, stream: TextIO | None = None) -> None:
    """Send the events of this process to ``stream`` (default: standard error) instead of wherever."""
    stream = stream if stream is not None else sys.stderr
    as_text = log_format == "text" or (log_format == "auto" and stream.isatty())
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextFormatter() if as_text else JsonFormatter())
    root = logging.getLogger(ROOT)
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
