"""Logs: one line per event, for machines or for people."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from tidegate_server import log as logs


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger(logs.ROOT)
    kept = root.handlers[:], root.level, root.propagate
    yield
    root.handlers[:], root.level, root.propagate = kept


def written(log_format: Any, **fields: Any) -> str:
    stream = io.StringIO()
    logs.setup(log_format, "info", stream)
    logs.Log("part").info("something happened", **fields)
    return stream.getvalue()


def test_json_is_one_object_a_line() -> None:
    text = written("json", name='a b\n"c"', seconds=0.25)
    assert text.count("\n") == 1
    line = json.loads(text)
    assert line["level"] == "info"
    assert line["part"] == "part"
    assert line["event"] == "something happened"
    assert line["name"] == 'a b\n"c"'
    assert line["time"].endswith("Z")


def test_text_is_key_value_and_stays_on_one_line() -> None:
    text = written("text", name='a b\n"c"', plain="x", seconds=0.25)
    assert text.count("\n") == 1
    assert text.endswith('INFO    part something happened name="a b\\n\\"c\\"" plain=x seconds=0.25\n')


def test_auto_is_json_when_nobody_watches() -> None:
    assert json.loads(written("auto"))["event"] == "something happened"


def test_a_traceback_goes_to_the_log_as_one_field() -> None:
    stream = io.StringIO()
    logs.setup("json", "info", stream)
    try:
        raise RuntimeError("inner")
    except RuntimeError as error:
        logs.Log("part").error("failed", exception=error, incident="7")
    line = json.loads(stream.getvalue())
    assert "RuntimeError: inner" in line["traceback"]
    assert line["incident"] == "7"


def test_levels_hold() -> None:
    stream = io.StringIO()
    logs.setup("json", "warning", stream)
    logs.Log("part").info("not this")
    logs.Log("part").warning("this")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["this"]
