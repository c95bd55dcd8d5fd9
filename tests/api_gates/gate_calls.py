"""Stubs, names and small messages for the tests of gates, evaluations and monitors."""

from __future__ import annotations

import itertools
import time
from typing import Any

import grpc
import numpy as np
import tidegate_analysis as ta
from tidegate.v1 import (
    deployments_pb2,
    evaluation_service_pb2_grpc,
    evaluations_pb2,
    gate_service_pb2_grpc,
    gates_pb2,
    metrics_pb2,
    monitor_service_pb2_grpc,
    rules_pb2,
)
from tidegate_server.api.blocks import encode_block

PATIENCE = 60.0
STEP = 10.0
_numbers = itertools.count(1)


class Calls:
    """All services of one server; every call with the same token and patience."""

    def __init__(self, target: str, token: str = "") -> None:
        self.channel = grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])
        self.metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.gates: Any = _Stub(gate_service_pb2_grpc.GateServiceStub(self.channel), self.metadata)
        self.evaluations: Any = _Stub(evaluation_service_pb2_grpc.EvaluationServiceStub(self.channel), self.metadata)
        self.monitors: Any = _Stub(monitor_service_pb2_grpc.MonitorServiceStub(self.channel), self.metadata)

    def close(self) -> None:
        self.channel.close()


class _Stub:
    def __init__(self, stub: Any, metadata: Any) -> None:
        self._stub, self._metadata = stub, metadata

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)
        return lambda request: method(request, timeout=PATIENCE, metadata=self._metadata)


def fresh(word: str = "shop") -> str:
    """A name that no other test has."""
    return f"{word}-{next(_numbers)}"


def seconds(message: Any, value: float) -> Any:
    """Set a Duration or Timestamp."""
    message.FromNanoseconds(round(value * 1e9))
    return message


def monitor_rule(query: str, *, name: str = "alerts", duration: float = 0.0, **more: Any) -> rules_pb2.Rule:
    rule = rules_pb2.Rule(name=name, monitor=rules_pb2.MonitorRule(query=query), **more)
    seconds(rule.monitor.duration, duration)
    return rule


def regression_rule(*metrics: str, name: str = "latency", horizon: float = 900.0, **more: Any) -> rules_pb2.Rule:
    rule = rules_pb2.Rule(name=name, **more)
    for metric in metrics or ("p95",):
        rule.regression.metrics.add(name=metric, kind=metrics_pb2.METRIC_KIND_GAUGE)
    seconds(rule.regression.horizon, horizon)
    rule.regression.warm_up.SetInParent()
    return rule


def gate_of(service: str, *rules: rules_pb2.Rule, environment: str = "prod", **more: Any) -> gates_pb2.Gate:
    return gates_pb2.Gate(
        service=service, environment=environment, rules=rules or [monitor_rule(f"service:{service}")], **more
    )


def name_of(service: str, environment: str = "prod", identifier: str = "default") -> str:
    return f"services/{service}/environments/{environment}/gates/{identifier}"


def deployment_of(
    service: str, *, environment: str = "prod", version: str = "2", ago: float = 0.0
) -> deployments_pb2.Deployment:
    made = deployments_pb2.Deployment(service=service, environment=environment, version=version)
    if ago:
        seconds(made.start_time, time.time() - ago)
    return made


def arms(
    start: float, *, factor: float = 1.0, columns: int = 60, metrics=("p95",), seed: int = 1
) -> list[metrics_pb2.SeriesBlock]:
    """A block of each arm around 100, the canary's level ``factor`` times as high."""
    random = np.random.default_rng(seed)
    out = []
    for arm, level in (("baseline", 100.0), ("canary", 100.0 * factor)):
        values = level * np.exp(0.03 * random.standard_normal((len(metrics), columns)))
        out.append(encode_block(ta.Block(arm, start, STEP, values, metrics=tuple(metrics))))
    return out


DONE = evaluations_pb2.EVALUATION_STATE_SUCCEEDED
