"""Metric specs, designs and options: wire to domain and back."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tidegate_analysis as ta
from tidegate.v1 import deployments_pb2, evaluation_service_pb2, findings_pb2, metrics_pb2
from tidegate_analysis.spec import Design

from tidegate_server.errors import Violations

MAX_NAME_BYTES = 512
MAX_DEPLOYMENT_NAME_BYTES = 256

KINDS: Mapping[int, str] = {
    metrics_pb2.METRIC_KIND_UNSPECIFIED: "auto",
    metrics_pb2.METRIC_KIND_GAUGE: "gauge",
    metrics_pb2.METRIC_KIND_COUNTER: "counter",
    metrics_pb2.METRIC_KIND_RATIO: "ratio",
    metrics_pb2.METRIC_KIND_HISTOGRAM: "histogram",
    metrics_pb2.METRIC_KIND_COUNT: "count",
    metrics_pb2.METRIC_KIND_SATURATION: "saturation",
}
DIRECTIONS: Mapping[int, str] = {
    metrics_pb2.DIRECTION_UNSPECIFIED: "auto",
    metrics_pb2.DIRECTION_UP_IS_WORSE: "up_is_worse",
    metrics_pb2.DIRECTION_DOWN_IS_WORSE: "down_is_worse",
    metrics_pb2.DIRECTION_EITHER: "either",
}
SCALES: Mapping[int, str] = {
    metrics_pb2.SCALE_UNSPECIFIED: "auto",
    metrics_pb2.SCALE_LOG: "log",
    metrics_pb2.SCALE_LINEAR: "linear",
}
CRITICALITIES: Mapping[int, str] = {
    metrics_pb2.CRITICALITY_UNSPECIFIED: "normal",
    metrics_pb2.CRITICALITY_NORMAL: "normal",
    metrics_pb2.CRITICALITY_CRITICAL: "critical",
    metrics_pb2.CRITICALITY_HOLD_ONLY: "hold_only",
}
DESIGNS: Mapping[int, str] = {
    metrics_pb2.DESIGN_UNSPECIFIED: "auto",
    metrics_pb2.DESIGN_CONCURRENT: "concurrent",
    metrics_pb2.DESIGN_BEFORE_AFTER: "before_after",
    metrics_pb2.DESIGN_DIFFERENCE_IN_DIFFERENCES: "difference_in_differences",
}
DECISIONS: Mapping[ta.Verdict, findings_pb2.Decision] = {
    ta.Verdict.PASS: findings_pb2.DECISION_PROCEED,
    ta.Verdict.FAIL: findings_pb2.DECISION_HALT,
    ta.Verdict.INCONCLUSIVE: findings_pb2.DECISION_HOLD,
    ta.Verdict.ERROR: findings_pb2.DECISION_HOLD,
}


def _wire_numbers(table: Mapping[int, str]) -> dict[str, int]:
    """Turn a table round; where two numbers mean the same, the one that says it wins."""
    return {word: number for number, word in sorted(table.items())}


KIND_NUMBERS = _wire_numbers(KINDS)
DIRECTION_NUMBERS = _wire_numbers(DIRECTIONS)
SCALE_NUMBERS = _wire_numbers(SCALES)
CRITICALITY_NUMBERS = _wire_numbers(CRITICALITIES)
DESIGN_NUMBERS = _wire_numbers(DESIGNS)

_ENUM_FIELDS = (
    ("kind", KINDS, metrics_pb2.MetricKind),
    ("direction", DIRECTIONS, metrics_pb2.Direction),
    ("scale", SCALES, metrics_pb2.Scale),
    ("criticality", CRITICALITIES, metrics_pb2.Criticality),
)
_OPTIONAL_NUMBERS = ("margin", "weight", "alpha", "alpha_pass")


@dataclass(frozen=True, slots=True)
class Options:
    """``AnalysisOptions`` and what hangs together with them, in seconds; ``None`` where the default holds."""

    false_discovery_rate: float
    warm_up: float | None
    horizon: float | None
    deployed_at: float | None


def decode_enum(table: Mapping[int, str], names: Any, value: int, path: str, wrong: Violations) -> str | None:
    """Return the domain's word for an enum number; an unknown number is noted."""
    word = table.get(value)
    if word is None:
        what = "is needed" if value == 0 else f"{value} is no value of this enum"
        wrong.add(path, f"{what}; use one of {', '.join(names.Name(number) for number in table)}")
    return word


def decode_specs(metrics: Sequence[metrics_pb2.MetricSpec], path: str, wrong: Violations) -> list[ta.MetricSpec]:
    """Return one domain spec per message; what is wrong is noted with its path, and the spec left out."""
    if not metrics:
        wrong.add(path, "at least one metric is needed")
    specs: list[ta.MetricSpec] = []
    places: dict[str, int] = {}
    for index, message in enumerate(metrics):
        at = f"{path}[{index}]"
        name = message.name
        earlier = places.setdefault(name, index)
        if earlier != index:
            wrong.add(f"{at}.name", f"{shorten(name)!r} is declared already at {path}[{earlier}]")
            continue
        spec = _decode_spec(message, at, wrong)
        if spec is not None:
            specs.append(spec)
    return specs


def _decode_spec(message: metrics_pb2.MetricSpec, at: str, wrong: Violations) -> ta.MetricSpec | None:
    before = len(wrong.found)
    if not message.name:
        wrong.add(f"{at}.name", "a name is needed")
    for field in ("name", "group", "unit"):
        size = len(getattr(message, field).encode())
        if size > MAX_NAME_BYTES:
            wrong.add(f"{at}.{field}", f"{size} bytes; at most {MAX_NAME_BYTES} are allowed")
    fields: dict[str, Any] = {"name": message.name, "group": message.group, "unit": message.unit}
    for field, table, names in _ENUM_FIELDS:
        fields[field] = decode_enum(table, names, getattr(message, field), f"{at}.{field}", wrong)
    for field in _OPTIONAL_NUMBERS:
        if message.HasField(field):
            fields[field] = getattr(message, field)
    if len(wrong.found) > before:
        return None
    try:
        return ta.MetricSpec(**fields)
    except ValueError as error:
        field, _, text = str(error).partition(": ")
        known = field in metrics_pb2.MetricSpec.DESCRIPTOR.fields_by_name
        wrong.add(f"{at}.{field}" if known else at, text if known else str(error))
        return None


def encode_spec(spec: ta.MetricSpec) -> metrics_pb2.MetricSpec:
    """Return the message of a spec, every field that has a value set."""
    return metrics_pb2.MetricSpec(
        name=spec.name,
        kind=KIND_NUMBERS[spec.kind],  # type: ignore[arg-type]
        direction=DIRECTION_NUMBERS[spec.direction],  # type: ignore[arg-type]
        scale=SCALE_NUMBERS[spec.scale],  # type: ignore[arg-type]
        margin=spec.margin,
        criticality=CRITICALITY_NUMBERS[spec.criticality],  # type: ignore[arg-type]
        group=spec.group,
        weight=spec.weight,
        alpha=spec.alpha,
        alpha_pass=spec.alpha_pass,
        unit=spec.unit,
    )


def decode_design(value: int, path: str, wrong: Violations) -> Design:
    """Return the domain's word for a design; an unknown number is noted."""
    word: Any = decode_enum(DESIGNS, metrics_pb2.Design, value, path, wrong)
    return word or "auto"


def decode_options(
    options: evaluation_service_pb2.AnalysisOptions,
    deployment: deployments_pb2.Deployment,
    path: str,
    wrong: Violations,
) -> Options:
    """Return the options of a request and the time of its deployment; ``path`` ends in "." or is empty."""
    rate = options.false_discovery_rate if options.HasField("false_discovery_rate") else 0.05
    if not 0.0 < rate < 0.5:
        wrong.add(f"{path}options.false_discovery_rate", f"must lie between 0 and 0.5, not {rate!r}")
    warm_up = horizon = deployed_at = None
    if options.HasField("warm_up"):
        warm_up = decode_duration(options.warm_up, f"{path}options.warm_up", wrong)
        if warm_up is not None and warm_up < 0:
            wrong.add(f"{path}options.warm_up", f"must be at least 0 s, not {warm_up:g} s")
    if options.HasField("horizon"):
        horizon = decode_duration(options.horizon, f"{path}options.horizon", wrong)
        if horizon is not None and horizon <= 0:
            wrong.add(f"{path}options.horizon", f"must be above 0 s, not {horizon:g} s")
    if deployment.HasField("start_time"):
        deployed_at = decode_time(deployment.start_time, f"{path}deployment.start_time", wrong)
    for field in ("service", "environment"):
        size = len(getattr(deployment, field).encode())
        if size > MAX_DEPLOYMENT_NAME_BYTES:
            wrong.add(f"{path}deployment.{field}", f"{size} bytes; at most {MAX_DEPLOYMENT_NAME_BYTES} are allowed")
    return Options(rate, warm_up, horizon, deployed_at)


def decode_duration(message: Any, path: str, wrong: Violations) -> float | None:
    """Return seconds; a duration out of its range is noted."""
    seconds, nanos = message.seconds, message.nanos
    if abs(seconds) > 315_576_000_000 or abs(nanos) > 999_999_999 or (seconds * nanos < 0):
        wrong.add(path, f"is no duration: seconds = {seconds}, nanos = {nanos}")
        return None
    return float(seconds + nanos * 1e-9)


def decode_time(message: Any, path: str, wrong: Violations) -> float | None:
    """Return seconds since the epoch; a time out of its range is noted."""
    seconds, nanos = message.seconds, message.nanos
    if not (-62_135_596_800 <= seconds <= 253_402_300_799 and 0 <= nanos <= 999_999_999):
        wrong.add(path, f"is no time: seconds = {seconds}, nanos = {nanos}")
        return None
    return float(seconds + nanos * 1e-9)


def encode_seconds(message: Any, seconds: float) -> None:
    """Set a Timestamp or Duration to seconds, rounded to the microsecond; a Duration keeps one sign."""
    micros = round(seconds * 1e6)
    if message.DESCRIPTOR.name == "Timestamp":
        whole, rest = divmod(micros, 1_000_000)
    else:
        whole, rest = int(math.fmod(micros, 1e18) / 1_000_000), int(math.fmod(micros, 1_000_000))
    message.seconds, message.nanos = whole, rest * 1000


def shorten(text: str, size: int = 60) -> str:
    """Return a text short enough for a message."""
    return text if len(text) <= size else text[: size - 1] + "…"
