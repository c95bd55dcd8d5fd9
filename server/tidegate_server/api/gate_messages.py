"""Gates, rules and deployments: wire to domain and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from tidegate.v1 import deployments_pb2, gates_pb2, rules_pb2

from tidegate_server.api.metrics import (
    DESIGN_NUMBERS,
    decode_design,
    decode_duration,
    decode_specs,
    decode_time,
    encode_seconds,
    encode_spec,
)
from tidegate_server.errors import Violations
from tidegate_server.gates.model import (
    DEFAULT_IDENTIFIER,
    Check,
    Comparator,
    Deployment,
    Gate,
    MonitorCheck,
    MonitorScope,
    MonitorState,
    MutedHandling,
    OutcomePolicy,
    Policies,
    RegressionCheck,
    Rule,
    RuleMode,
    ThresholdCheck,
)
from tidegate_server.gates.names import gate_name, split_gate_name

_POLICIES = ("on_no_data", "on_insufficient_data", "on_source_error")


def decode_member(kind: Any, value: int, path: str, wrong: Violations, *, default: Any = None) -> Any:
    """Return the member of a domain enum for a wire number; 0 is the default, without one it is refused."""
    if value == 0 and default is not None:
        return default
    try:
        return kind(value)
    except ValueError:
        what = "is needed" if value == 0 else f"{value} is no value of this enum"
        wrong.add(path, f"{what}; use one of {', '.join(one.name for one in kind)}")
        return default or next(iter(kind))


def _seconds(message: Any, field: str, default: float, path: str, wrong: Violations) -> float:
    if not message.HasField(field):
        return default
    found = decode_duration(getattr(message, field), f"{path}.{field}", wrong)
    return default if found is None else found


def decode_rules(messages: Sequence[rules_pb2.Rule], path: str, wrong: Violations) -> tuple[Rule, ...]:
    """Return the rules of a request; what is wrong is noted with its path, and a rule without a check left
    out."""
    rules = []
    for k, message in enumerate(messages):
        at = f"{path}[{k}]"
        check = _decode_check(message, at, wrong)
        mode = decode_member(RuleMode, message.mode, f"{at}.mode", wrong, default=RuleMode.ENFORCE)
        policies = Policies(
            **{
                name: decode_member(
                    OutcomePolicy,
                    getattr(message, name),
                    f"{at}.{name}",
                    wrong,
                    default=OutcomePolicy.INCONCLUSIVE,
                )
                for name in _POLICIES
            }
        )
        if check is not None:
            rules.append(Rule(message.name, check, mode, policies))
    return tuple(rules)


def _decode_check(message: rules_pb2.Rule, at: str, wrong: Violations) -> Check | None:
    match message.WhichOneof("check"):
        case "regression":
            return _decode_regression(message.regression, f"{at}.regression", wrong)
        case "monitor":
            return _decode_monitor(message.monitor, f"{at}.monitor", wrong)
        case "threshold":
            return _decode_threshold(message.threshold, f"{at}.threshold", wrong)
    wrong.add(at, "one of regression, monitor or threshold is needed")
    return None


def _decode_regression(message: rules_pb2.RegressionRule, at: str, wrong: Violations) -> RegressionCheck:
    return RegressionCheck(
        metrics=tuple(decode_specs(message.metrics, f"{at}.metrics", wrong)),
        design=cast("Any", decode_design(message.design, f"{at}.design", wrong)),
        false_discovery_rate=(message.false_discovery_rate if message.HasField("false_discovery_rate") else 0.05),
        warm_up=_seconds(message, "warm_up", 60.0, at, wrong),
        horizon=_seconds(message, "horizon", 900.0, at, wrong),
    )


def _decode_monitor(message: rules_pb2.MonitorRule, at: str, wrong: Violations) -> MonitorCheck:
    fail_on = frozenset(
        decode_member(MonitorState, state, f"{at}.fail_on[{k}]", wrong) for k, state in enumerate(message.fail_on)
    )
    return MonitorCheck(
        query=message.query,
        duration=_seconds(message, "duration", 0.0, at, wrong),
        fail_on=fail_on or frozenset({MonitorState.ALERT, MonitorState.NO_DATA}),
        scope=decode_member(MonitorScope, message.scope, f"{at}.scope", wrong, default=MonitorScope.ANY),
        muted=decode_member(MutedHandling, message.muted, f"{at}.muted", wrong, default=MutedHandling.EXCLUDE),
        max_matches=message.max_matches if message.HasField("max_matches") else 50,
    )


def _decode_threshold(message: rules_pb2.ThresholdRule, at: str, wrong: Violations) -> ThresholdCheck | None:
    specs = decode_specs([message.metric], f"{at}.metric", wrong) if message.HasField("metric") else []
    if not message.HasField("metric"):
        wrong.add(f"{at}.metric", "is needed")
    comparator = decode_member(Comparator, message.comparator, f"{at}.comparator", wrong)
    warm_up = _seconds(message, "warm_up", 60.0, at, wrong)
    horizon = _seconds(message, "horizon", 900.0, at, wrong)
    if not specs:
        return None
    return ThresholdCheck(specs[0], comparator, message.bound, warm_up, horizon)


def encode_rule(rule: Rule) -> rules_pb2.Rule:
    """Return the message of a rule, every default filled in."""
    message = rules_pb2.Rule(
        name=rule.name,
        mode=cast("Any", int(rule.mode)),
        **{name: int(getattr(rule.policies, name)) for name in _POLICIES},  # type: ignore[arg-type]
    )
    match rule.check:
        case RegressionCheck() as check:
            regression = message.regression
            regression.metrics.extend(encode_spec(spec) for spec in check.metrics)
            regression.design = cast("Any", DESIGN_NUMBERS[check.design])
            regression.false_discovery_rate = check.false_discovery_rate
            encode_seconds(regression.warm_up, check.warm_up)
            encode_seconds(regression.horizon, check.horizon)
        case MonitorCheck() as check:
            monitor = message.monitor
            monitor.query = check.query
            monitor.duration.SetInParent()
            encode_seconds(monitor.duration, check.duration)
            monitor.fail_on.extend(cast("Any", sorted(int(state) for state in check.fail_on)))
            monitor.scope = cast("Any", int(check.scope))
            monitor.muted = cast("Any", int(check.muted))
            monitor.max_matches = check.max_matches
        case ThresholdCheck() as check:
            threshold = message.threshold
            threshold.metric.CopyFrom(encode_spec(check.metric))
            threshold.comparator = cast("Any", int(check.comparator))
            threshold.bound = check.bound
            encode_seconds(threshold.warm_up, check.warm_up)
            encode_seconds(threshold.horizon, check.horizon)
    return message


def decode_gate(message: gates_pb2.Gate, path: str, wrong: Violations) -> Gate:
    """Return the gate that a request describes; what only the server sets is not read. ``path`` ends in
    "."."""
    service, environment = message.service, message.environment
    identifier = message.identifier or DEFAULT_IDENTIFIER
    if message.name:
        key = split_gate_name(message.name)
        told = (service or None, environment or None, message.identifier or None)
        if key is None:
            wrong.add(f"{path}name", "write services/{service}/environments/{environment}/gates/{identifier}")
        elif any(own is not None and own != part for own, part in zip(told, key, strict=True)):
            wrong.add(f"{path}name", "contradicts service, environment or identifier; give one of both")
        else:
            service, environment, identifier = key
    return Gate(
        service=service,
        environment=environment,
        identifier=identifier,
        rules=decode_rules(message.rules, f"{path}rules", wrong),
        dry_run=message.dry_run,
        enabled=message.enabled if message.HasField("enabled") else True,
        description=message.description,
        owner=message.owner,
        tags=tuple(message.tags),
    )


def encode_gate(gate: Gate, *, rules: bool = True) -> gates_pb2.Gate:
    """Return the message of a gate; the rules of an evaluation's gate may be left out."""
    message = gates_pb2.Gate(
        service=gate.service,
        environment=gate.environment,
        identifier=gate.identifier,
        dry_run=gate.dry_run,
        enabled=gate.enabled,
        description=gate.description,
        owner=gate.owner,
        tags=gate.tags,
        uid=gate.uid,
        revision=gate.revision,
        etag=gate.etag,
        created_by=gate.created_by,
        updated_by=gate.updated_by,
    )
    if gate.identifier:
        message.name = gate_name(gate.key)
    if rules:
        message.rules.extend(encode_rule(rule) for rule in gate.rules)
    if gate.revision:
        encode_seconds(message.create_time, gate.create_time)
        encode_seconds(message.update_time, gate.update_time)
    return message


def decode_deployment(message: deployments_pb2.Deployment, path: str, wrong: Violations) -> Deployment:
    """Return what is deployed. ``path`` ends in "."."""
    start = None
    if message.HasField("start_time"):
        start = decode_time(message.start_time, f"{path}start_time", wrong)
    return Deployment(
        service=message.service,
        environment=message.environment,
        version=message.version,
        previous_version=message.previous_version,
        start_time=start,
        canary_selector=dict(message.canary_selector),
        baseline_selector=dict(message.baseline_selector),
        commit=message.commit,
        actor=message.actor,
        links=dict(message.links),
    )


def encode_deployment(deployment: Deployment) -> deployments_pb2.Deployment:
    """Return the message of a deployment."""
    message = deployments_pb2.Deployment(
        service=deployment.service,
        environment=deployment.environment,
        version=deployment.version,
        previous_version=deployment.previous_version,
        canary_selector=_plain(deployment.canary_selector),
        baseline_selector=_plain(deployment.baseline_selector),
        commit=deployment.commit,
        actor=deployment.actor,
        links=_plain(deployment.links),
    )
    if deployment.start_time is not None:
        encode_seconds(message.start_time, deployment.start_time)
    return message


def _plain(entries: Mapping[str, str]) -> dict[str, str]:
    return dict(entries)
