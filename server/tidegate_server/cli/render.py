"""Findings and verdicts for people: tables and lines, made from the messages of the contract."""

from __future__ import annotations

import math
from collections.abc import Iterable

from google.protobuf.timestamp_pb2 import Timestamp
from rich.table import Table
from rich.text import Text
from tidegate.v1 import findings_pb2, metrics_pb2

from tidegate_server.cli.exits import Exit
from tidegate_server.cli.plain import seconds, word

STYLES = {"PASS": "green", "FAIL": "bold red", "INCONCLUSIVE": "yellow", "ERROR": "bold magenta"}
_UNKNOWN = "-"


def verdict_word(verdict: int) -> str:
    """Return PASS, FAIL, INCONCLUSIVE or ERROR; ``-`` for a verdict that is not there yet."""
    return word(findings_pb2.Verdict.DESCRIPTOR, verdict) or _UNKNOWN


def decision_word(decision: int) -> str:
    """Return PROCEED, HALT or HOLD; ``-`` for a decision that is not there yet."""
    return word(findings_pb2.Decision.DESCRIPTOR, decision) or _UNKNOWN


def styled_verdict(verdict: int) -> Text:
    """Return the verdict's word in its colour."""
    text = verdict_word(verdict)
    return Text(text, style=STYLES.get(text, "dim"))


def to_second(time: Timestamp) -> str:
    """Return a time for a table: ISO 8601 in UTC, to the second."""
    return time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ")


def exit_code(verdict: int, decision: int) -> Exit:
    """Return the exit code that tells a script what to do; a dry run proceeds whatever its verdict."""
    if verdict == findings_pb2.VERDICT_ERROR and decision == findings_pb2.DECISION_HOLD:
        return Exit.COULD_NOT_LOOK
    codes = {"PROCEED": Exit.PROCEED, "HALT": Exit.HALT, "HOLD": Exit.HOLD}
    return codes.get(decision_word(decision), Exit.COULD_NOT_LOOK)


def findings_table(findings: Iterable[findings_pb2.Finding], title: str | None = None) -> Table:
    """Return one row per finding: both levels, the change with its interval, the margin, the verdict."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.header_style = "bold"
    table.add_column("metric", overflow="fold")
    for heading in ("baseline", "canary", "change", "interval", "margin"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for finding in findings:
        low, high = _optional(finding, "effect_low"), _optional(finding, "effect_high")
        unknown = low is None and high is None
        interval = _UNKNOWN if unknown else f"{change(finding, low)} to {change(finding, high)}"
        table.add_row(
            finding.metric,
            level(finding, _optional(finding, "baseline_level")),
            level(finding, _optional(finding, "canary_level")),
            change(finding, _optional(finding, "effect")),
            interval,
            change(finding, _optional(finding.spec, "margin"), signed=False),
            styled_verdict(finding.verdict),
        )
    return table


def change(finding: findings_pb2.Finding, value: float | None, *, signed: bool = True) -> str:
    """Return a change in the finding's own terms: per cent, percentage points, or the metric's unit."""
    if value is None or math.isnan(value):
        return _UNKNOWN
    if math.isinf(value):
        return "-inf" if value < 0 else "inf"
    sign = "+" if signed else ""
    if finding.spec.scale == metrics_pb2.SCALE_LOG:
        return f"{100.0 * value:{sign}.3g} %" if abs(value) < 10 else f"{100.0 * value:{sign}.0f} %"
    if _is_share(finding):
        return f"{100.0 * value:{sign}.2f} pp"
    return f"{value:{sign}.3g}{_unit(finding)}"


def level(finding: findings_pb2.Finding, value: float | None) -> str:
    """Return a level in the metric's unit; shares as per cent."""
    if value is None or not math.isfinite(value):
        return _UNKNOWN
    if _is_share(finding):
        return f"{100.0 * value:.2f} %"
    return f"{value:.4g}{_unit(finding)}"


def onset(finding: findings_pb2.Finding) -> str:
    """Return how long after the deployment a change began; empty when that is not known."""
    if not finding.onset.HasField("after_deployment"):
        return ""
    return f"{finding.metric} began to differ {seconds(finding.onset.after_deployment):.3g} s after the deployment"


def _is_share(finding: findings_pb2.Finding) -> bool:
    return finding.spec.kind in (metrics_pb2.METRIC_KIND_RATIO, metrics_pb2.METRIC_KIND_SATURATION)


def _unit(finding: findings_pb2.Finding) -> str:
    unit = finding.spec.unit
    return f" {unit}" if unit and unit != "1" else ""


def _optional(message: findings_pb2.Finding | metrics_pb2.MetricSpec, field: str) -> float | None:
    return float(getattr(message, field)) if message.HasField(field) else None
