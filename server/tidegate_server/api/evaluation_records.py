"""EvaluationService: the methods that start, follow and remember evaluations."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

import tidegate_analysis as ta
from google.protobuf.message import Message
from tidegate.v1 import evaluation_service_pb2 as wire
from tidegate.v1 import evaluation_service_pb2_grpc, metrics_pb2

from tidegate_server.api.blocks import Declared, count_points, cut_block, decode_block, encode_block
from tidegate_server.api.evaluation_messages import BASIC, FULL, encode_evaluation, encode_rule_result
from tidegate_server.api.gate_messages import decode_deployment, decode_member, decode_rules
from tidegate_server.api.metrics import decode_duration
from tidegate_server.api.paging import page_size, read_position, read_token, write_token
from tidegate_server.auth import methods
from tidegate_server.errors import RequestError, Violation, Violations, over_limit
from tidegate_server.gates import evaluation as machine
from tidegate_server.gates.errors import AlreadyExistsError, InvalidError, NotFoundError, PreconditionError
from tidegate_server.gates.filters import EVALUATION_FIELDS, parse_filter
from tidegate_server.gates.model import (
    DEFAULT_IDENTIFIER,
    Decision,
    Deployment,
    Evaluation,
    Gate,
    GateKey,
    LabelKind,
    MonitorCheck,
    Rule,
)
from tidegate_server.gates.names import parse_gate_name, parse_parent, parse_simple, simple_name
from tidegate_server.gates.ports import (
    AuditRecord,
    EvaluationFeed,
    EvaluationRepository,
    GateRepository,
    ListQuery,
    StoredBlock,
)
from tidegate_server.gates.validate import (
    MAX_AHEAD,
    MAX_BEHIND,
    check_deployment,
    check_name,
    check_rules,
    check_text,
    check_version_needed,
)
from tidegate_server.interceptors import Context
from tidegate_server.rules import declared_metrics, rows_for

MAX_REQUEST_ID_BYTES = 128
MAX_WRITER_BYTES = 128
MAX_BLOCKS = 1000
MAX_EVIDENCE_BLOCKS = 200
EVIDENCE_BYTES = 2 * 1024 * 1024
# Larger blocks are told in pieces: clients take messages of 4 MiB unless they were told otherwise.
EVIDENCE_PIECE_BYTES = 1024 * 1024
DEFAULT_TTL = 3600.0
MAX_TTL = 7 * 86400.0
# A watcher looks by itself this often, should a change ever not be told.
WATCH_SECONDS = 30.0

_VIEWER = methods.METHODS["/tidegate.v1.EvaluationService/ListEvaluations"].role


class EvaluationRecords(evaluation_service_pb2_grpc.EvaluationServiceServicer):
    """Everything of the service but ``Analyze`` and ``StreamEvaluation``.

    Parameters
    ----------
    gates, evaluations, feed:
        Where gates and evaluations are stored, and who tells of changes.
    clock:
        Wall time in seconds since the epoch.
    max_points:
        Most points of one evaluation, over all its writes.
    """

    def __init__(
        self,
        gates: GateRepository,
        evaluations: EvaluationRepository,
        feed: EvaluationFeed,
        clock: Callable[[], float],
        *,
        max_points: int,
    ) -> None:
        """Keep the parts."""
        self._gates = gates
        self._evaluations = evaluations
        self._feed = feed
        self._clock = clock
        self._max_points = max_points

    async def StartEvaluation(  # noqa: N802
        self, request: wire.StartEvaluationRequest, _context: Context
    ) -> wire.StartEvaluationResponse:
        """Start an evaluation, or return the one of the same request id."""
        size = len(request.request_id.encode())
        if size > MAX_REQUEST_ID_BYTES:
            raise InvalidError([Violation("request_id", f"{size} bytes; at most {MAX_REQUEST_ID_BYTES} are allowed")])
        gate, deployment, refusal = await self._prepare(request)
        made = machine.begin(
            "" if request.validate_only else uuid.uuid4().hex,
            gate,
            deployment,
            self._clock(),
            created_by=methods.caller().name,
            request_id=request.request_id,
        )
        if not request.validate_only:
            made, _ = await self._begin(request, made, refusal)
        elif refusal is not None:
            raise refusal
        return wire.StartEvaluationResponse(evaluation=encode_evaluation(made, full=True))

    async def EnsureEvaluation(  # noqa: N802
        self, request: wire.EnsureEvaluationRequest, _context: Context
    ) -> wire.EnsureEvaluationResponse:
        """Return the evaluation of a key, starting it when there is none that lives."""
        wrong = Violations()
        wrong.found += check_name(request.key, "key")
        ttl: float | None = None
        if request.HasField("ttl"):
            ttl = decode_duration(request.ttl, "ttl", wrong)
            if ttl is not None and not 0 < ttl <= MAX_TTL:
                wrong.add("ttl", f"must be above 0 s and at most 7 days (604800 s), not {ttl:g} s")
        _refuse(wrong.found)
        gate, deployment, refusal = await self._prepare(request)
        made = machine.begin(
            uuid.uuid4().hex,
            gate,
            deployment,
            self._clock(),
            created_by=methods.caller().name,
            ensure_key=request.key,
        )
        longest = machine.longest_watch(made)
        if ttl is not None and ttl < longest:
            refusal = refusal or InvalidError([Violation("ttl", _too_short(ttl, longest))])
        made = machine.with_life_time(made, max(DEFAULT_TTL, 2 * longest) if ttl is None else ttl)
        found, created = await self._begin(request, made, refusal)
        if not created:
            _check_same(found, made)
        return wire.EnsureEvaluationResponse(evaluation=encode_evaluation(found, full=True), created=created)

    async def GetEvaluation(  # noqa: N802
        self, request: wire.GetEvaluationRequest, _context: Context
    ) -> wire.GetEvaluationResponse:
        """Return an evaluation."""
        found = await self._get(request.name)
        return wire.GetEvaluationResponse(evaluation=encode_evaluation(found, full=_full(request.view, FULL)))

    async def ListEvaluations(  # noqa: N802
        self, request: wire.ListEvaluationsRequest, _context: Context
    ) -> wire.ListEvaluationsResponse:
        """List evaluations that the caller may see, newest first."""
        service, environment = parse_parent(request.parent)
        where = parse_filter(request.filter, EVALUATION_FIELDS)
        full = _full(request.view, BASIC)
        bound = ("evaluations", request.parent, request.filter)
        page = await self._evaluations.list(
            ListQuery(
                page_size=page_size(request.page_size),
                cursor=read_token(request.page_token, *bound),
                service=service,
                environment=environment,
                where=where,
                scopes=methods.caller().scopes(_VIEWER),
            )
        )
        return wire.ListEvaluationsResponse(
            evaluations=[encode_evaluation(one, full=full) for one in page.items],
            next_page_token=write_token(page.next_cursor, *bound),
        )

    async def WatchEvaluation(  # noqa: N802
        self, request: wire.WatchEvaluationRequest, _context: Context
    ) -> AsyncIterator[wire.WatchEvaluationResponse]:
        """Send the evaluation whenever it changes, until it is over or decided."""
        found = await self._get(request.name)
        full = _full(request.view, FULL)
        seen = request.after_version
        if seen > found.version:
            raise InvalidError(
                [
                    Violation(
                        "after_version",
                        f"{seen} was never seen: the evaluation is at version {found.version}; leave it out",
                    )
                ]
            )
        while True:
            over = found.finished or (request.until_decided and found.standing_decision is not None)
            if over or found.version > seen:
                yield wire.WatchEvaluationResponse(evaluation=encode_evaluation(found, full=full), final=over)
            if over:
                return
            seen = max(seen, found.version)
            await self._feed.wait(found.id, found.version, WATCH_SECONDS)
            found = await self._evaluations.get(found.id)

    async def CancelEvaluation(  # noqa: N802
        self, request: wire.CancelEvaluationRequest, _context: Context
    ) -> wire.CancelEvaluationResponse:
        """Stop an evaluation."""
        before = await self._get(request.name)
        _refuse(check_text(request.reason, "reason"))
        who, reason = methods.caller().name, request.reason
        after = await self._evaluations.modify(
            before.id,
            lambda one: machine.cancel(one, who, reason, self._clock()),
            self._audit("evaluation.cancel", before, reason=reason),
        )
        return wire.CancelEvaluationResponse(evaluation=encode_evaluation(after, full=True))

    async def OverrideEvaluation(  # noqa: N802
        self, request: wire.OverrideEvaluationRequest, _context: Context
    ) -> wire.OverrideEvaluationResponse:
        """Put a person's decision beside the verdict."""
        before = await self._get(request.name)
        wrong = Violations()
        decision = decode_member(Decision, request.decision, "decision", wrong)
        wrong.found += check_text(request.reason, "reason")
        if not request.reason.strip():
            wrong.add("reason", "is needed: it is what a reader of the record will ask for")
        _refuse(wrong.found)
        who, reason = methods.caller().name, request.reason
        after = await self._evaluations.modify(
            before.id,
            lambda one: machine.override(one, decision, who, reason, self._clock()),
            self._audit("evaluation.override", before, decision=decision.name, reason=reason),
        )
        return wire.OverrideEvaluationResponse(evaluation=encode_evaluation(after, full=True))

    async def LabelEvaluation(  # noqa: N802
        self, request: wire.LabelEvaluationRequest, _context: Context
    ) -> wire.LabelEvaluationResponse:
        """Say what really happened."""
        before = await self._get(request.name)
        wrong = Violations()
        kind = decode_member(LabelKind, request.kind, "kind", wrong)
        wrong.found += check_text(request.note, "note")
        _refuse(wrong.found)
        who, note = methods.caller().name, request.note
        after = await self._evaluations.modify(
            before.id,
            lambda one: machine.label(one, kind, who, note, self._clock()),
            self._audit("evaluation.label", before, kind=kind.name),
        )
        return wire.LabelEvaluationResponse(evaluation=encode_evaluation(after, full=True))

    async def GetEvidence(  # noqa: N802
        self, request: wire.GetEvidenceRequest, _context: Context
    ) -> wire.GetEvidenceResponse:
        """Return the series behind an evaluation, page by page."""
        found = await self._get(request.name)
        rules = [rule for rule in found.gate.rules if rule.name == request.rule or not request.rule]
        if not rules:
            names = ", ".join(rule.name for rule in found.gate.rules)
            raise InvalidError([Violation("rule", f"there is no rule {request.rule[:60]!r}; rules are {names}")])
        bound = ("evidence", request.name, request.rule)
        after, column = read_position(request.page_token, *bound)
        size = page_size(request.page_size, most=MAX_EVIDENCE_BLOCKS)
        response = wire.GetEvidenceResponse()
        if not request.page_token:
            names_wanted = {rule.name for rule in rules}
            response.rule_results.extend(encode_rule_result(one) for one in found.results if one.rule in names_wanted)
        stored = await self._evaluations.blocks(found.id, after_position=after, limit=size + 1)
        following = _add_blocks(response, stored, column, size, rules[0] if request.rule else None)
        response.next_page_token = write_token(following, *bound)
        return response

    async def WriteSeries(  # noqa: N802
        self, request: wire.WriteSeriesRequest, _context: Context
    ) -> wire.WriteSeriesResponse:
        """Take points of an evaluation that runs."""
        found = await self._get(request.name)
        points = sum(count_points(block) for block in request.blocks)
        if points > self._max_points:
            raise over_limit("max_points", self._max_points, points, "write fewer points at once")
        now = self._clock()
        first = await self._evaluations.blocks(found.id, limit=1)
        blocks = _read_blocks(request, found, first[0].block.step if first else None, now)
        receipt = await self._evaluations.append_blocks(
            found.id,
            request.writer,
            blocks,
            complete=request.complete,
            now=now,
            max_points=self._max_points,
        )
        return wire.WriteSeriesResponse(acknowledged_sequence=receipt.acknowledged_sequence, blocks_taken=receipt.taken)

    # --- parts

    async def _get(self, name: str) -> Evaluation:
        """Return an evaluation that the caller may have.

        Raises
        ------
        DeniedError
            When it may not, or a caller with a scope asks for one that does not exist.
        NotFoundError
            When it does not exist.
        """
        evaluation_id = parse_simple(name, "evaluations")
        try:
            found = await self._evaluations.get(evaluation_id)
        except NotFoundError:
            hidden = methods.missing(name)
            if hidden is not None:
                raise hidden from None
            raise
        methods.require(found.deployment.service, found.deployment.environment, name)
        return found

    async def _begin(
        self,
        request: wire.StartEvaluationRequest | wire.EnsureEvaluationRequest,
        made: Evaluation,
        refusal: RequestError | None,
    ) -> tuple[Evaluation, bool]:
        """Store a new evaluation unless the request is a repetition; return it, and whether it is new.

        With a refusal only a repetition is answered: as before, whatever became of the gate since.

        Raises
        ------
        RequestError
            The refusal, when the request is none.
        """
        if refusal is None:
            audit = self._audit("evaluation.start", made, version=made.deployment.version, key=made.ensure_key)
            return await self._evaluations.create(made, _fingerprint(request), audit)
        found = await self._evaluations.earlier(made, _fingerprint(request))
        if found is None:
            raise refusal
        return found, False

    async def _prepare(
        self, request: wire.StartEvaluationRequest | wire.EnsureEvaluationRequest
    ) -> tuple[Gate, Deployment, RequestError | None]:
        """Return the gate to run, the deployment to run it for, and why a stored gate cannot be run now.

        Raises
        ------
        InvalidError
            With everything that is wrong with the request itself.
        """
        wrong = Violations()
        deployment = decode_deployment(request.deployment, "deployment.", wrong)
        source = request.WhichOneof("source")
        key = parse_gate_name(request.gate, "gate") if source == "gate" else None
        if key is not None:
            deployment = _placed(deployment, key, wrong)
        wrong.found += check_deployment(deployment, self._clock())
        if source == "inline_rules":
            gate = Gate(
                service=deployment.service,
                environment=deployment.environment,
                identifier="",
                rules=decode_rules(request.inline_rules.rules, "inline_rules.rules", wrong),
                dry_run=request.inline_rules.dry_run,
            )
            if gate.rules or not wrong.found:
                wrong.found += check_rules(gate.rules, "inline_rules.")
            _refuse([*wrong.found, *check_version_needed(deployment, gate.rules)])
            return gate, deployment, None
        _refuse(wrong.found)
        key = key or GateKey(deployment.service, deployment.environment, DEFAULT_IDENTIFIER)
        try:
            gate = await self._gates.get(key)
        except NotFoundError as missing:
            return Gate(*key, rules=(), revision=1), deployment, missing
        refusal: RequestError | None = None
        if not gate.enabled:
            refusal = PreconditionError(
                "GATE_DISABLED",
                f"gate {gate.identifier!r} of {gate.service!r} in {gate.environment!r} is not enabled",
                {"service": gate.service, "environment": gate.environment, "identifier": gate.identifier},
            )
        elif missing_version := check_version_needed(deployment, gate.rules):
            refusal = InvalidError(missing_version)
        return gate, deployment, refusal

    def _audit(self, action: str, evaluation: Evaluation, **detail: str) -> AuditRecord:
        return AuditRecord(
            time=self._clock(),
            actor=methods.caller().name,
            action=action,
            resource=simple_name("evaluations", evaluation.id),
            service=evaluation.deployment.service,
            environment=evaluation.deployment.environment,
            detail={name: value for name, value in detail.items() if value},
        )


def _refuse(found: Sequence[Violation]) -> None:
    if found:
        raise InvalidError(found)


def _too_short(ttl: float, longest: float) -> str:
    return (
        f"{ttl:g} s is shorter than the {longest:g} s that the rules may watch: another evaluation would begin before"
        " this one has its answer"
    )


def _full(view: int, default: int) -> bool:
    if view not in (0, BASIC, FULL):
        raise InvalidError([Violation("view", f"{view} is no value of this enum; use BASIC or FULL")])
    return (view or default) == FULL


def _placed(deployment: Deployment, key: GateKey, wrong: Violations) -> Deployment:
    """Return the deployment with service and environment of its gate, which it may repeat but not
    contradict."""
    for name in ("service", "environment"):
        told, own = getattr(deployment, name), getattr(key, name)
        if told and told != own:
            wrong.add(
                f"deployment.{name}", f"{told[:60]!r} is not the gate's {own!r}; leave it out, or name a gate of it"
            )
    return Deployment(
        service=key.service,
        environment=key.environment,
        version=deployment.version,
        previous_version=deployment.previous_version,
        start_time=deployment.start_time,
        canary_selector=deployment.canary_selector,
        baseline_selector=deployment.baseline_selector,
        commit=deployment.commit,
        actor=deployment.actor,
        links=deployment.links,
    )


def _check_same(found: Evaluation, wanted: Evaluation) -> None:
    """Refuse the evaluation of a key for another version or other rules: its PASS would be of something else.

    Times, links and the like may differ between two polls. A stored gate may have been changed in between; the
    evaluation keeps the rules that it began with.

    Raises
    ------
    AlreadyExistsError
        When the key belongs to something else.
    """
    one, other = found.deployment, wanted.deployment
    inline = not (found.gate.revision and wanted.gate.revision)
    if one.version != other.version:
        what = f"of version {one.version!r}, not {other.version!r}"
    elif found.gate.identifier != wanted.gate.identifier or (inline and found.gate.rules != wanted.gate.rules):
        what = "with other rules"
    else:
        return
    raise AlreadyExistsError(
        "KEY_REUSED",
        f"key {found.ensure_key!r} belongs to evaluation {found.id} {what}; take a key that names the rollout and step",
        {"key": found.ensure_key, "evaluation_id": found.id},
    )


def _fingerprint(request: wire.StartEvaluationRequest | wire.EnsureEvaluationRequest) -> str:
    """Return a hash that is the same for the same request, its request id aside."""
    copy: Message = type(request)()
    copy.CopyFrom(request)
    if isinstance(copy, wire.StartEvaluationRequest):
        copy.ClearField("request_id")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()


def _read_blocks(
    request: wire.WriteSeriesRequest, evaluation: Evaluation, step: float | None, now: float
) -> list[tuple[int, ta.Block]]:
    """Return the blocks of a request with their sequence numbers.

    Raises
    ------
    InvalidError
        With everything that is wrong with them.
    """
    wrong = Violations()
    specs = declared_metrics(evaluation.gate)
    if not specs:
        wrong.add("name", "this evaluation has no rule on metrics; its monitors are told to MonitorService")
    if not request.blocks and not request.complete:
        wrong.add("blocks", "at least one block is needed, or complete")
    if len(request.blocks) > MAX_BLOCKS:
        wrong.add("blocks", f"{len(request.blocks)} blocks; at most {MAX_BLOCKS} at once")
    if len(request.writer.encode()) > MAX_WRITER_BYTES:
        wrong.add("writer", f"at most {MAX_WRITER_BYTES} bytes are allowed")
    _refuse(wrong.found)
    series_rules = sum(not isinstance(rule.check, MonitorCheck) for rule in evaluation.gate.rules)
    declared = Declared.of(specs)
    batch = ta.SeriesBatch(specs)
    blocks: list[tuple[int, ta.Block]] = []
    for k, message in enumerate(request.blocks):
        at = f"blocks[{k}]"
        if not message.metrics and not message.histograms and series_rules > 1:
            wrong.add(f"{at}.metrics", "is needed: more than one rule has metrics, so the rows must be named")
            continue
        block = decode_block(message, declared, at, wrong)
        if block is None:
            continue
        newest = block.start + block.step * (message.columns - 1)
        if newest > now + MAX_AHEAD:
            wrong.add(f"{at}.start_time", f"the last point lies {newest - now:.0f} s in the future")
        elif evaluation.deployed_at - block.start > MAX_BEHIND:
            # One block with a wrong clock would keep every rule of the evaluation from looking at the others.
            days = (evaluation.deployed_at - block.start) / 86400
            wrong.add(f"{at}.start_time", f"lies {days:.0f} days before the deployment; at most 30 days are taken")
        elif step is not None and abs(block.step - step) > 1e-6 * step:
            wrong.add(f"{at}.step", f"{block.step:g} s; the points of this evaluation have {step:g} s")
        try:
            batch.add(block)
        except ta.BlockError as error:
            wrong.add(f"{at}.{error.field}", error.message)
        blocks.append((message.sequence, block))
    _check_sequences(request.blocks, wrong)
    _refuse(wrong.found)
    return blocks


def _check_sequences(blocks: Sequence[metrics_pb2.SeriesBlock], wrong: Violations) -> None:
    for k in range(1, len(blocks)):
        before, number = blocks[k - 1].sequence, blocks[k].sequence
        if number != (before + 1 if before else 0):
            right = f"{before + 1}, after {before}" if before else "0 like the one before, or all numbered"
            wrong.add(f"blocks[{k}].sequence", f"{number}; must be {right}")


def _add_blocks(
    response: wire.GetEvidenceResponse, stored: Sequence[StoredBlock], column: int, size: int, rule: Rule | None
) -> str:
    """Add blocks until the page is full, the first of them from a column on; return where the next page begins, ""
    when there is nothing left.

    ``stored`` holds one block more than fits on a page, if there are so many.
    """
    told = 0
    for one in stored[:size]:
        block = one.block if rule is None else rows_for(rule, one.block)
        for at, piece in cut_block(block, EVIDENCE_PIECE_BYTES, column) if block is not None else ():
            if told >= EVIDENCE_BYTES or len(response.blocks) >= size:
                return f"{one.position - 1}:{at}"
            message = encode_block(piece, one.position)
            told += message.ByteSize()
            response.blocks.append(message)
        column = 0
    return f"{stored[size - 1].position}:0" if len(stored) > size else ""
