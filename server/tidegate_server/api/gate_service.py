"""GateService: gates as stored configuration."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

from tidegate.v1 import gate_service_pb2, gate_service_pb2_grpc, gates_pb2

from tidegate_server.api.gate_messages import decode_gate, encode_gate
from tidegate_server.api.paging import page_size, read_token, write_token
from tidegate_server.auth import methods
from tidegate_server.errors import Violation, Violations
from tidegate_server.gates.errors import ConflictError, InvalidError, NotFoundError
from tidegate_server.gates.filters import GATE_FIELDS, parse_filter
from tidegate_server.gates.model import Gate, GateKey
from tidegate_server.gates.names import gate_name, parse_gate_name, parse_parent
from tidegate_server.gates.ports import AuditRecord, GateRepository, ListQuery
from tidegate_server.gates.validate import check_gate
from tidegate_server.interceptors import Context

CHANGEABLE = ("rules", "dry_run", "enabled", "description", "owner", "tags")


class GateServicer(gate_service_pb2_grpc.GateServiceServicer):
    """Creates, changes, lists and deletes gates.

    Parameters
    ----------
    gates:
        Where they are stored.
    clock:
        Wall time in seconds since the epoch.
    """

    def __init__(self, gates: GateRepository, clock: Callable[[], float]) -> None:
        """Keep the parts."""
        self._gates = gates
        self._clock = clock

    async def CreateGate(  # noqa: N802
        self, request: gate_service_pb2.CreateGateRequest, _context: Context
    ) -> gate_service_pb2.CreateGateResponse:
        """Create a gate."""
        gate = self._new(_read(request.gate, CHANGEABLE))
        if request.validate_only:
            return gate_service_pb2.CreateGateResponse(gate=encode_gate(gate))
        stored = await self._gates.create(gate, self._audit("gate.create", gate.key))
        return gate_service_pb2.CreateGateResponse(gate=encode_gate(stored))

    async def GetGate(  # noqa: N802
        self, request: gate_service_pb2.GetGateRequest, _context: Context
    ) -> gate_service_pb2.GetGateResponse:
        """Return a gate."""
        key = parse_gate_name(request.name)
        gate = await self._gates.get(key, request.revision)
        return gate_service_pb2.GetGateResponse(gate=encode_gate(gate))

    async def ListGates(  # noqa: N802
        self, request: gate_service_pb2.ListGatesRequest, _context: Context
    ) -> gate_service_pb2.ListGatesResponse:
        """List gates that the caller may see."""
        service, environment = parse_parent(request.parent)
        where = parse_filter(request.filter, GATE_FIELDS)
        bound = ("gates", request.parent, request.filter)
        page = await self._gates.list(
            ListQuery(
                page_size=page_size(request.page_size),
                cursor=read_token(request.page_token, *bound),
                service=service,
                environment=environment,
                where=where,
                scopes=methods.caller().scopes(methods.METHODS["/tidegate.v1.GateService/ListGates"].role),
            )
        )
        return gate_service_pb2.ListGatesResponse(
            gates=[encode_gate(gate) for gate in page.items],
            next_page_token=write_token(page.next_cursor, *bound),
        )

    async def UpdateGate(  # noqa: N802
        self, request: gate_service_pb2.UpdateGateRequest, _context: Context
    ) -> gate_service_pb2.UpdateGateResponse:
        """Change some fields of a gate."""
        changed = _fields_to_change(request.update_mask.paths)
        wanted = _read(request.gate, changed)
        change = self._change(wanted, changed, request.gate.etag)
        try:
            if request.validate_only:
                gate = change(await self._gates.get(wanted.key))
            else:
                audit = self._audit("gate.update", wanted.key, fields=",".join(changed))
                gate = await self._gates.modify(wanted.key, change, audit)
        except NotFoundError:
            # An etag says that the gate was there: somebody has deleted it since.
            if not request.allow_missing or request.gate.etag:
                raise
            # All of a new gate is checked and stored, whatever the mask names.
            gate = self._new(_read(request.gate, CHANGEABLE))
            if not request.validate_only:
                gate = await self._gates.create(gate, self._audit("gate.create", gate.key))
        return gate_service_pb2.UpdateGateResponse(gate=encode_gate(gate))

    async def DeleteGate(  # noqa: N802
        self, request: gate_service_pb2.DeleteGateRequest, _context: Context
    ) -> gate_service_pb2.DeleteGateResponse:
        """Delete a gate."""
        key = parse_gate_name(request.name)

        def check(gate: Gate) -> None:
            _check_etag(gate, request.etag)

        if request.validate_only:
            check(await self._gates.get(key))
        else:
            await self._gates.delete(key, check, self._audit("gate.delete", key))
        return gate_service_pb2.DeleteGateResponse()

    async def ListGateRevisions(  # noqa: N802
        self, request: gate_service_pb2.ListGateRevisionsRequest, _context: Context
    ) -> gate_service_pb2.ListGateRevisionsResponse:
        """List the revisions of a gate."""
        key = parse_gate_name(request.name)
        bound = ("revisions", request.name)
        cursor = read_token(request.page_token, *bound)
        page = await self._gates.list_revisions(key, page_size(request.page_size), cursor)
        return gate_service_pb2.ListGateRevisionsResponse(
            gates=[encode_gate(gate) for gate in page.items],
            next_page_token=write_token(page.next_cursor, *bound),
        )

    def _new(self, gate: Gate) -> Gate:
        now, who = self._clock(), methods.caller().name
        return replace(
            gate,
            uid=uuid.uuid4().hex,
            revision=1,
            create_time=now,
            update_time=now,
            created_by=who,
            updated_by=who,
        )

    def _change(self, wanted: Gate, changed: Sequence[str], etag: str) -> Callable[[Gate], Gate]:
        who = methods.caller().name

        def change(gate: Gate) -> Gate:
            _check_etag(gate, etag)
            merged = replace(gate, **{name: getattr(wanted, name) for name in changed})
            if merged == gate:
                return gate
            wrong = check_gate(merged, "gate.")
            if wrong:
                raise InvalidError(wrong)
            now = max(self._clock(), gate.update_time)
            return replace(merged, revision=gate.revision + 1, update_time=now, updated_by=who)

        return change

    def _audit(self, action: str, key: GateKey, **detail: str) -> AuditRecord:
        return AuditRecord(
            time=self._clock(),
            actor=methods.caller().name,
            action=action,
            resource=gate_name(key),
            service=key.service,
            environment=key.environment,
            detail=detail,
        )


def _read(message: gates_pb2.Gate, changed: Sequence[str]) -> Gate:
    """Return the gate of a request.

    Raises
    ------
    InvalidError
        With everything that is wrong with it, as far as it is to be changed.
    """
    wrong = Violations()
    gate = decode_gate(message, "gate.", wrong)
    found = list(wrong.found)
    # Rules that could not be read at all are told already; "too few" would only confuse.
    found += [one for one in check_gate(gate, "gate.") if one.field != "gate.rules" or not found]
    named = ("gate.name", "gate.service", "gate.environment", "gate.identifier")
    found = [
        one
        for one in found
        if one.field in named or one.field.removeprefix("gate.").split(".")[0].split("[")[0] in changed
    ]
    if found:
        raise InvalidError(found)
    return gate


def _fields_to_change(paths: Sequence[str]) -> tuple[str, ...]:
    """Return the fields that a mask names.

    Raises
    ------
    InvalidError
        For a field that cannot be changed, or that there is none of.
    """
    if not paths or "*" in paths:
        return CHANGEABLE
    wrong = [
        Violation(
            f"update_mask.paths[{k}]",
            f"{path[:60]!r} cannot be changed; fields that can are {', '.join(CHANGEABLE)}",
        )
        for k, path in enumerate(paths)
        if path not in CHANGEABLE
    ]
    if wrong:
        raise InvalidError(wrong)
    return tuple(name for name in CHANGEABLE if name in paths)


def _check_etag(gate: Gate, etag: str) -> None:
    if etag and etag != gate.etag:
        raise ConflictError(
            "ETAG_MISMATCH",
            f"the gate was changed by {gate.updated_by or 'somebody'} (revision {gate.revision}); read again",
            {"revision": str(gate.revision), "etag": gate.etag},
        )
