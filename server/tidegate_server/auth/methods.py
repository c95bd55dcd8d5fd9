"""What every method needs: a role, and where. The one table; a method that is not in it is refused.

A request is checked before it is validated. Where the scope stands in the request it is checked here; where
it only is known once the thing is read (an evaluation by its id), the handler asks `require`.
"""

from __future__ import annotations

import contextvars
import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate_server.auth.model import NOBODY, Principal, Role
from tidegate_server.gates.errors import DeniedError
from tidegate_server.gates.names import split_gate_name

Scope = tuple[str, str]
ScopesOf = Callable[[Any], Iterable[Scope]]


class Where(enum.Enum):
    """Where a role is needed when the request does not name it: in any scope, in all, or told by the
    handler."""

    SOMEWHERE = "somewhere"
    EVERYWHERE = "everywhere"
    LATER = "later"


@dataclass(frozen=True, slots=True)
class Need:
    """The role a method needs, and where: a `Where`, or a function from the request to its scopes."""

    role: Role
    where: Where | ScopesOf


def _named(request: Any) -> Iterable[Scope]:
    key = split_gate_name(request.name)
    return [] if key is None else [key[:2]]


def _of_gate(request: Any) -> Iterable[Scope]:
    gate = request.gate
    key = split_gate_name(gate.name)
    scopes = [] if key is None else [key[:2]]
    if gate.service or gate.environment:
        scopes.append((gate.service, gate.environment))
    return scopes


def _of_deployment(request: Any) -> Iterable[Scope]:
    key = split_gate_name(request.gate)
    scopes = [] if key is None else [key[:2]]
    if request.deployment.service or request.deployment.environment:
        scopes.append((request.deployment.service, request.deployment.environment))
    return scopes


_GATES = "/tidegate.v1.GateService/"
_EVALUATIONS = "/tidegate.v1.EvaluationService/"
_MONITORS = "/tidegate.v1.MonitorService/"

METHODS: Mapping[str, Need] = {
    _GATES + "CreateGate": Need(Role.OPERATOR, _of_gate),
    _GATES + "UpdateGate": Need(Role.OPERATOR, _of_gate),
    _GATES + "DeleteGate": Need(Role.OPERATOR, _named),
    _GATES + "GetGate": Need(Role.VIEWER, _named),
    _GATES + "ListGateRevisions": Need(Role.VIEWER, _named),
    _GATES + "ListGates": Need(Role.VIEWER, Where.SOMEWHERE),
    _EVALUATIONS + "Analyze": Need(Role.DEPLOYER, Where.SOMEWHERE),
    _EVALUATIONS + "StreamEvaluation": Need(Role.DEPLOYER, Where.SOMEWHERE),
    _EVALUATIONS + "StartEvaluation": Need(Role.DEPLOYER, _of_deployment),
    _EVALUATIONS + "EnsureEvaluation": Need(Role.DEPLOYER, _of_deployment),
    _EVALUATIONS + "WriteSeries": Need(Role.DEPLOYER, Where.LATER),
    _EVALUATIONS + "CancelEvaluation": Need(Role.DEPLOYER, Where.LATER),
    _EVALUATIONS + "LabelEvaluation": Need(Role.DEPLOYER, Where.LATER),
    _EVALUATIONS + "OverrideEvaluation": Need(Role.OPERATOR, Where.LATER),
    _EVALUATIONS + "GetEvaluation": Need(Role.VIEWER, Where.LATER),
    _EVALUATIONS + "WatchEvaluation": Need(Role.VIEWER, Where.LATER),
    _EVALUATIONS + "GetEvidence": Need(Role.VIEWER, Where.LATER),
    _EVALUATIONS + "ListEvaluations": Need(Role.VIEWER, Where.SOMEWHERE),
    # Monitors belong to no service: whoever tells a state or a silence moves the gates of all of them.
    _MONITORS + "PushStates": Need(Role.OPERATOR, Where.EVERYWHERE),
    _MONITORS + "StreamStates": Need(Role.OPERATOR, Where.EVERYWHERE),
    _MONITORS + "DeleteMonitor": Need(Role.OPERATOR, Where.EVERYWHERE),
    _MONITORS + "CreateDowntime": Need(Role.OPERATOR, Where.EVERYWHERE),
    _MONITORS + "DeleteDowntime": Need(Role.OPERATOR, Where.EVERYWHERE),
    _MONITORS + "ListMonitors": Need(Role.VIEWER, Where.SOMEWHERE),
    _MONITORS + "GetMonitor": Need(Role.VIEWER, Where.SOMEWHERE),
    _MONITORS + "ListDowntimes": Need(Role.VIEWER, Where.SOMEWHERE),
}

OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
"""Services that anybody may call: balancers ask for health, and the contract is public."""

_caller: contextvars.ContextVar[Principal] = contextvars.ContextVar("tidegate_caller", default=NOBODY)
_need: contextvars.ContextVar[Role] = contextvars.ContextVar("tidegate_role", default=Role.OPERATOR)


def caller() -> Principal:
    """Return who makes the present call."""
    return _caller.get()


def enter(method: str, principal: Principal) -> None:
    """Set who makes the present call, and refuse what it may nowhere do. For the interceptor.

    Raises
    ------
    DeniedError
        When the principal may not call this method, whatever it asks for.
    """
    need = METHODS.get(method)
    if need is None:
        raise DeniedError("METHOD_NOT_ALLOWED", f"nobody may call {method}: it is no method of this server")
    allowed = (
        principal.may_everywhere(need.role) if need.where is Where.EVERYWHERE else principal.may_somewhere(need.role)
    )
    if not allowed:
        where = " for every service and environment" if need.where is Where.EVERYWHERE else ""
        raise _denied(principal, need.role, where)
    _caller.set(principal)
    _need.set(need.role)


def check_request(method: str, principal: Principal, request: Any) -> None:
    """Refuse a request whose scope is not the principal's.

    A request that names no scope where it should is let through to validation, which refuses it.

    Raises
    ------
    DeniedError
        When it is not.
    """
    need = METHODS[method]
    if isinstance(need.where, Where):
        return
    for service, environment in need.where(request):
        if not principal.may(need.role, service, environment):
            raise _denied(principal, need.role, f" for {service[:80]!r} in {environment[:80]!r}")


def require(service: str, environment: str, what: str) -> None:
    """Refuse the present call when its caller has not the role that the method needs in this scope.

    The answer is the one of `missing`, so that it does not tell what exists beyond the caller's scope.

    Raises
    ------
    DeniedError
        When it has not.
    """
    if not _caller.get().may(_need.get(), service, environment):
        raise _hidden(what)


def missing(what: str) -> DeniedError | None:
    """Return what to say of a thing that is not there; None when the caller sees everything and may be told
    so."""
    return None if _caller.get().may_everywhere(_need.get()) else _hidden(what)


def _hidden(what: str) -> DeniedError:
    principal, role = _caller.get(), _need.get()
    return DeniedError(
        "PERMISSION_DENIED",
        f"{principal.name} has no role {role.name.lower()} for {what}, or it does not exist",
        {"principal": principal.name, "role": role.name.lower()},
    )


def _denied(principal: Principal, role: Role, where: str) -> DeniedError:
    return DeniedError(
        "PERMISSION_DENIED",
        f"{principal.name} needs the role {role.name.lower()}{where}",
        {"principal": principal.name, "role": role.name.lower()},
    )
