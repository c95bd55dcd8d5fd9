"""What is wrong with a gate, a rule or a deployment: all of it at once, each with the path of its field.

Paths are those of the wire contract (``rules[1].monitor.query``), which are also those of a YAML file.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from tidegate_server.errors import Violation
from tidegate_server.gates.model import (
    Deployment,
    Gate,
    MonitorCheck,
    MonitorState,
    RegressionCheck,
    Rule,
    RuleMode,
    ThresholdCheck,
)
from tidegate_server.monitors.query import QueryError, parse

MAX_NAME_BYTES = 256
MAX_TEXT_BYTES = 4096
MAX_RULES = 100
MAX_METRICS = 1000
# Of all rules together: their findings come in one message, and clients take 4 MiB unless they were told otherwise.
MAX_ALL_METRICS = 5000
MAX_TAGS = 32
MAX_LINKS = 32
MAX_WINDOW = 7200.0
MAX_MATCHES = 10_000
# How far a clock may run ahead of ours.
MAX_AHEAD = 300.0
MAX_BEHIND = 30 * 86400.0


def check_name(value: str, path: str, *, required: bool = True) -> list[Violation]:
    """Check a name: there, at most 256 bytes, no control characters, no blanks around it."""
    if not value:
        return [Violation(path, "is needed")] if required else []
    size = len(value.encode(errors="replace"))
    if size > MAX_NAME_BYTES:
        return [Violation(path, f"{size} bytes; at most {MAX_NAME_BYTES} are allowed")]
    if any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in value):
        return [Violation(path, "must hold no control characters")]
    if value != value.strip():
        return [Violation(path, "must not begin or end with a blank")]
    return []


def check_key(value: str, path: str) -> list[Violation]:
    """Check a name that others are told from by: as `check_name`, and nothing that cannot be seen in it."""
    found = check_name(value, path)
    if not found and any(unicodedata.category(char) == "Cf" for char in value):
        found.append(Violation(path, f"must hold no invisible characters, not {ascii(value)[:80]}"))
    return found


def check_text(value: str, path: str) -> list[Violation]:
    """Check a longer text: at most 4096 bytes, no NUL."""
    size = len(value.encode(errors="replace"))
    if size > MAX_TEXT_BYTES:
        return [Violation(path, f"{size} bytes; at most {MAX_TEXT_BYTES} are allowed")]
    return [Violation(path, "must hold no NUL")] if "\0" in value else []


def check_url(url: str, path: str) -> list[Violation]:
    """Check a link for people: it is kept and shown to everybody who may look, so it holds no password."""
    if not url.startswith(("https://", "http://")):
        return [Violation(path, "must begin with https:// or http://")]
    try:
        parts = urlsplit(url)
    except ValueError:
        return [Violation(path, "is no URL")]
    if parts.username is not None or parts.password is not None:
        return [Violation(path, "must hold no user name or password: it is shown to everybody who may look")]
    return []


def check_gate(gate: Gate, path: str = "") -> list[Violation]:
    """Return everything that is wrong with a gate. ``path`` ends in "." or is empty."""
    found = [
        *check_key(gate.service, f"{path}service"),
        *check_key(gate.environment, f"{path}environment"),
        *check_key(gate.identifier, f"{path}identifier"),
    ]
    found += [
        Violation(f"{path}{name}", 'the name "-" stands for any; choose another')
        for name in ("service", "environment")
        if getattr(gate, name) == "-"
    ]
    found += check_name(gate.owner, f"{path}owner", required=False)
    found += check_text(gate.description, f"{path}description")
    if len(gate.tags) > MAX_TAGS:
        found.append(Violation(f"{path}tags", f"{len(gate.tags)} tags; at most {MAX_TAGS} are allowed"))
    for k, tag in enumerate(gate.tags):
        found += check_name(tag, f"{path}tags[{k}]")
        if tag in gate.tags[:k]:
            found.append(Violation(f"{path}tags[{k}]", f"{tag!r} is there already"))
    return found + check_rules(gate.rules, path)


def check_rules(rules: tuple[Rule, ...], path: str = "") -> list[Violation]:
    """Return everything that is wrong with the rules of a gate or of an evaluation."""
    at = f"{path}rules"
    if not rules:
        return [Violation(at, "at least one rule is needed")]
    if len(rules) > MAX_RULES:
        return [Violation(at, f"{len(rules)} rules; at most {MAX_RULES} are allowed")]
    found: list[Violation] = []
    first: dict[str, int] = {}
    for k, rule in enumerate(rules):
        found += check_name(rule.name, f"{at}[{k}].name")
        earlier = first.setdefault(rule.name, k)
        if earlier != k and rule.name:
            found.append(
                Violation(
                    f"{at}[{k}].name",
                    f"{rule.name[:60]!r} is the name of {at}[{earlier}] already; names differ",
                )
            )
        found += check_rule(rule, f"{at}[{k}]")
    metrics = sum(len(rule.check.metrics) for rule in rules if isinstance(rule.check, RegressionCheck))
    if metrics > MAX_ALL_METRICS:
        found.append(Violation(at, f"{metrics} metrics over all rules; at most {MAX_ALL_METRICS} are allowed"))
    if all(rule.mode is RuleMode.DRY_RUN for rule in rules):
        found.append(Violation(at, "every rule is a dry run, so nothing would count; set dry_run on the gate instead"))
    return found


def check_rule(rule: Rule, path: str) -> list[Violation]:
    """Return everything that is wrong with the check of one rule."""
    match rule.check:
        case RegressionCheck() as check:
            return _check_regression(check, f"{path}.regression")
        case MonitorCheck() as check:
            return _check_monitor(check, f"{path}.monitor")
        case ThresholdCheck() as check:
            return _check_threshold(check, f"{path}.threshold")


def _check_regression(check: RegressionCheck, path: str) -> list[Violation]:
    found = _check_times(check.warm_up, check.horizon, path)
    if not check.metrics:
        found.append(Violation(f"{path}.metrics", "at least one metric is needed"))
    if len(check.metrics) > MAX_METRICS:
        found.append(Violation(f"{path}.metrics", f"{len(check.metrics)} metrics; at most {MAX_METRICS} are allowed"))
    names: dict[str, int] = {}
    for k, spec in enumerate(check.metrics):
        earlier = names.setdefault(spec.name, k)
        if earlier != k:
            found.append(
                Violation(f"{path}.metrics[{k}].name", f"{spec.name[:60]!r} is declared at metrics[{earlier}]")
            )
    if not 0 < check.false_discovery_rate < 0.5:
        found.append(
            Violation(
                f"{path}.false_discovery_rate",
                f"must lie between 0 and 0.5, not {check.false_discovery_rate!r}",
            )
        )
    return found


def _check_monitor(check: MonitorCheck, path: str) -> list[Violation]:
    found: list[Violation] = []
    if not 0 <= check.duration <= MAX_WINDOW:
        found.append(Violation(f"{path}.duration", f"must be 0 s to 7200 s, not {check.duration:g} s"))
    found += check_query(check.query, f"{path}.query", by_state=False)
    never = {MonitorState.OK, MonitorState.SKIPPED} & check.fail_on
    if never:
        names = ", ".join(sorted(state.name for state in never))
        found.append(Violation(f"{path}.fail_on", f"{names} cannot fail a rule; use WARN, ALERT, NO_DATA or UNKNOWN"))
    if MonitorState.WARN in check.fail_on and MonitorState.ALERT not in check.fail_on:
        found.append(Violation(f"{path}.fail_on", "WARN fails and ALERT, which is worse, would pass; add ALERT"))
    if not check.fail_on:
        found.append(Violation(f"{path}.fail_on", "at least one state is needed"))
    if not 1 <= check.max_matches <= MAX_MATCHES:
        found.append(Violation(f"{path}.max_matches", f"must be 1 to {MAX_MATCHES}, not {check.max_matches}"))
    return found


def check_query(query: str, path: str, *, by_state: bool = True) -> list[Violation]:
    """Check a monitor query; with ``by_state`` False it may not select by the states that it is to judge."""
    try:
        parsed = parse(query)
    except QueryError as error:
        return [Violation(path, str(error))]
    if not by_state and "status" in parsed.fields:
        return [Violation(path, "status: would hide the states that the rule judges; leave it out")]
    return []


def _check_threshold(check: ThresholdCheck, path: str) -> list[Violation]:
    found = _check_times(check.warm_up, check.horizon, path)
    if not math.isfinite(check.bound):
        found.append(Violation(f"{path}.bound", f"must be a finite number, not {check.bound!r}"))
    if check.metric.kind == "histogram":
        found.append(Violation(f"{path}.metric.kind", "a histogram has no single level; give one of its quantiles"))
    return found


def _check_times(warm_up: float, horizon: float, path: str) -> list[Violation]:
    if not 0 < horizon <= MAX_WINDOW:
        return [Violation(f"{path}.horizon", f"must be above 0 s and at most 7200 s, not {horizon:g} s")]
    if not 0 <= warm_up < horizon:
        return [Violation(f"{path}.warm_up", f"must be 0 s to below the horizon of {horizon:g} s, not {warm_up:g} s")]
    return []


def check_deployment(deployment: Deployment, now: float, path: str = "deployment.") -> list[Violation]:
    """Return everything that is wrong with a deployment."""
    found = [
        *check_key(deployment.service, f"{path}service"),
        *check_key(deployment.environment, f"{path}environment"),
    ]
    for name in ("version", "previous_version", "commit", "actor"):
        found += check_name(getattr(deployment, name), f"{path}{name}", required=False)
    start = deployment.start_time
    if start is not None and start > now + MAX_AHEAD:
        found.append(
            Violation(f"{path}start_time", f"lies {start - now:.0f} s in the future; at most {MAX_AHEAD:.0f} s")
        )
    if start is not None and start < now - MAX_BEHIND:
        found.append(Violation(f"{path}start_time", "lies more than 30 days back"))
    for name in ("canary_selector", "baseline_selector"):
        found += _check_map(getattr(deployment, name), f"{path}{name}")
    found += _check_map(deployment.links, f"{path}links")
    for name, url in deployment.links.items():
        found += check_url(url, f"{path}links[{name[:60]!r}]")
    return found


def _check_map(entries: Mapping[str, str], path: str) -> list[Violation]:
    if len(entries) > MAX_LINKS:
        return [Violation(path, f"{len(entries)} entries; at most {MAX_LINKS} are allowed")]
    found: list[Violation] = []
    for key, value in entries.items():
        found += check_name(key, f"{path} key {key[:60]!r}")
        found += check_text(value, f"{path}[{key[:60]!r}]")
    return found


def check_version_needed(deployment: Deployment, rules: Iterable[Rule]) -> list[Violation]:
    """Check that the version is told where a rule compares versions."""
    if deployment.version:
        return []
    for rule in rules:
        if isinstance(rule.check, RegressionCheck):
            return [
                Violation(
                    "deployment.version",
                    f"is needed: rule {rule.name!r} compares the new version with the one it replaces",
                )
            ]
    return []
