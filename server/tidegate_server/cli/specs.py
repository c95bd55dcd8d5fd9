"""Metric specs from the command line and from spec files (YAML or JSON)."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from tidegate_analysis import MetricSpec

FIELDS = tuple(field.name for field in dataclasses.fields(MetricSpec) if field.name != "name")


def build_specs(
    names: Sequence[str],
    *,
    spec_file: str | None = None,
    margins: Iterable[str] = (),
    directions: Iterable[str] = (),
    kinds: Iterable[str] = (),
) -> tuple[MetricSpec, ...]:
    """Return one spec per metric of ``names``, in their order.

    A spec file comes first; options override it. Every option is ``VALUE`` for all metrics or
    ``METRIC=VALUE`` for one, and the one for a single metric wins.

    Raises
    ------
    click.UsageError
        When an option or the file is wrong; the message names the option or the place in the file.
    """
    fields: dict[str, dict[str, Any]] = {name: {} for name in names}
    if spec_file is not None:
        for name, given in read_spec_file(spec_file).items():
            _known(name, names, f"{spec_file}: {name}")
            fields[name].update(given)
    options = (
        ("--margin", "margin", margins, parse_margin),
        ("--direction", "direction", directions, lambda text: text.replace("-", "_")),
        ("--kind", "kind", kinds, str),
    )
    for option, field, texts, parse in options:
        pairs = [_name_and_value(text) for text in texts]
        for wanted, text in sorted(pairs, key=lambda pair: pair[0] is not None):
            if wanted is not None:
                _known(wanted, names, f"{option} {wanted}={text}")
            try:
                value = parse(text)
            except ValueError as error:
                raise click.UsageError(f"{option}: {error}") from None
            for name in names if wanted is None else (wanted,):
                fields[name][field] = value
    specs = []
    for name in names:
        try:
            specs.append(MetricSpec(name=name, **fields[name]))
        except (TypeError, ValueError) as error:
            raise click.UsageError(f"metric {name}: {error}") from None
    return tuple(specs)


def parse_margin(text: str) -> float:
    """Return the margin that ``text`` says: ``0.1`` or ``10%``."""
    number = text.strip()
    try:
        return float(number[:-1]) / 100.0 if number.endswith("%") else float(number)
    except ValueError:
        raise ValueError(f"{text!r} is not a margin; write 0.1 or 10%") from None


def read_spec_file(path: str) -> dict[str, dict[str, Any]]:
    """Return the fields given for each metric in a YAML or JSON file, by the metric's name.

    The file holds ``metrics``: a list of entries with ``name``, or a mapping from name to fields. Fields
    are those of ``MetricSpec``, in snake_case or camelCase.

    Raises
    ------
    click.UsageError
        When the file cannot be read or holds something else; the message names the place.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        # YAML 1.2 contains JSON, so one parser reads both.
        document = YAML(typ="safe", pure=True).load(io.StringIO(Path(path).read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise click.UsageError(f"--spec {path}: cannot be read: {reason}") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not YAML or JSON"
        raise click.UsageError(f"--spec {path}{place}: {problem}") from None
    if not isinstance(document, Mapping) or set(document) != {"metrics"}:
        raise click.UsageError(f"--spec {path}: must hold one key, metrics")
    metrics = document["metrics"]
    if isinstance(metrics, Mapping):
        entries = [(f"metrics.{name}", name, given) for name, given in metrics.items()]
    elif isinstance(metrics, list):
        entries = [
            (f"metrics[{k}]", entry.get("name") if isinstance(entry, Mapping) else None, entry)
            for k, entry in enumerate(metrics)
        ]
    else:
        raise click.UsageError(f"--spec {path}: metrics: must be a list, or a mapping from name to fields")
    found: dict[str, dict[str, Any]] = {}
    for place, name, given in entries:
        if not isinstance(name, str) or not name:
            raise click.UsageError(f"--spec {path}: {place}.name: must be the name of a metric")
        if name in found:
            raise click.UsageError(f"--spec {path}: {place}.name: {name!r} is there twice")
        found[name] = _fields(path, place, given if given is not None else {})
    return found


def _fields(path: str, place: str, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise click.UsageError(f"--spec {path}: {place}: must hold fields such as margin: 0.1")
    fields: dict[str, Any] = {}
    for key, value in given.items():
        name = re.sub(r"(?<=[a-z])([A-Z])", r"_\1", str(key)).lower()
        if name == "name":
            continue
        if name not in FIELDS:
            raise click.UsageError(f"--spec {path}: {place}.{key}: no such field; there are {', '.join(FIELDS)}")
        if name in ("margin", "weight", "alpha", "alpha_pass"):
            if isinstance(value, str) and name == "margin":
                try:
                    value = parse_margin(value)
                except ValueError as error:
                    raise click.UsageError(f"--spec {path}: {place}.{key}: {error}") from None
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise click.UsageError(f"--spec {path}: {place}.{key}: must be a number, not {value!r}")
            value = float(value)
        elif not isinstance(value, str):
            raise click.UsageError(f"--spec {path}: {place}.{key}: must be text, not {value!r}")
        fields[name] = value
    return fields


def _name_and_value(text: str) -> tuple[str | None, str]:
    name, separator, value = text.rpartition("=")
    return (name, value) if separator else (None, text)


def _known(name: str, names: Sequence[str], place: str) -> None:
    if name not in names:
        listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
        raise click.UsageError(f"{place}: there is no metric {name!r}; there are {listed}")
