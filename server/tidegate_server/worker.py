"""What runs inside an analysis process: decode, judge, encode.

Whole messages come in and go out as bytes, so that the event loop spends no time on single metrics. A
process keeps the live evaluations it was last asked about; it may lose them at any time, and then answers
``known=False`` so that the server sends what it takes to build them again.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tidegate_analysis as ta
from numpy.typing import NDArray
from tidegate.v1 import evaluation_service_pb2, metrics_pb2

from tidegate_server.api import blocks as wire_blocks
from tidegate_server.api import findings as wire_findings
from tidegate_server.api import metrics as wire_metrics
from tidegate_server.errors import RequestError, Violation, Violations, invalid

GAPS_PER_POINT = 4
"""Points and gaps together may take so many times the room of ``max_points``."""

KEPT = 512
"""Live evaluations that one process keeps."""

STREAM_WARM_UP_SECONDS = 60.0
STREAM_HORIZON_SECONDS = 900.0

MATERIAL_SHARE_OF_MARGIN = 0.25
MATERIAL_LOG_P = math.log(10.0)


@dataclass(frozen=True, slots=True)
class Analyzed:
    """An answer of ``Analyze``, serialised, and the seconds that the analysis itself took."""

    response: bytes
    analysis_seconds: float


@dataclass(frozen=True, slots=True)
class Saved:
    """A live evaluation at some time: the analysis' own state, and what its blocks span."""

    live: bytes
    span: tuple[float, float]
    arms: frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Rebuild:
    """What an evaluation is made of: its opening, and what was saved of it with the blocks taken since."""

    opening: bytes
    saved: Saved | None = None
    blocks: Sequence[bytes] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a live evaluation: take blocks, then judge.

    ``at`` is the last sequence number taken before; a process whose copy stands elsewhere needs ``rebuild``.
    ``everything`` asks for all findings, not only those that changed; ``save`` for the state afterwards.
    """

    evaluation_id: str
    at: int
    blocks: Sequence[tuple[int, bytes]]
    as_of: float | None
    max_points: int
    everything: bool = False
    final: bool = False
    save: bool = False
    rebuild: Rebuild | None = None


@dataclass(frozen=True, slots=True)
class Stepped:
    """What came of a step. ``taken`` blocks were taken; ``refusal`` says why the next one was not."""

    known: bool
    taken: int = 0
    refusal: RequestError | None = None
    update: bytes | None = None
    saved: Saved | None = None
    as_of: float | None = None
    analysis_seconds: float = 0.0


@dataclass(slots=True)
class _Told:
    """The numbers of the last update, arrays over metrics."""

    verdict: int
    groups: tuple[int, ...]
    verdicts: NDArray[np.int8]
    reasons: tuple[str, ...]
    numbers: NDArray[np.float64]
    """Effect and its bounds over the margin, shape (3, metrics)."""
    log_p: NDArray[np.float64]


@dataclass(slots=True)
class _Live:
    """One evaluation in this process."""

    live: ta.LiveEvaluation
    declared: wire_blocks.Declared
    deployed_at: float | None
    extent: _Extent
    at: int = 0
    failing: int = 0
    told: _Told | None = None


class _Extent:
    """The rectangle that blocks span on their clock, gaps included: a few far-off points make it huge."""

    def __init__(self, metrics: int, max_points: int, saved: Saved | None = None) -> None:
        self.metrics = metrics
        self.limit = GAPS_PER_POINT * max_points
        self.low, self.high = saved.span if saved else (math.inf, -math.inf)
        self.arms = set(saved.arms) if saved else set()

    def add(self, block: ta.Block, columns: int) -> str | None:
        """Take a block; when the rectangle becomes too large, leave it and say why."""
        low, high = min(self.low, block.start), max(self.high, block.start + columns * block.step)
        arms = self.arms | {(block.arm, block.instance)}
        width = (high - low) / block.step
        if width * len(arms) * self.metrics > self.limit:
            return (
                f"so {len(arms) * self.metrics} series span {width:.3g} columns of {block.step:g} s, "
                f"gaps included; at most {self.limit:.3g} points may fit in. Check times and step"
            )
        self.low, self.high, self.arms = low, high, arms
        return None


_kept: OrderedDict[str, _Live] = OrderedDict()


def warm() -> None:
    """Judge something small once, so that no request pays for imports."""
    values = np.abs(np.sin(np.arange(64.0))).reshape(2, 32) + 1.0
    metrics = [metrics_pb2.MetricSpec(name=name, kind=metrics_pb2.METRIC_KIND_GAUGE) for name in "ab"]
    request = evaluation_service_pb2.AnalyzeRequest(metrics=metrics)
    for block in (ta.Block("baseline", 0.0, 1.0, values), ta.Block("canary", 0.0, 1.0, values + 0.01)):
        request.blocks.append(wire_blocks.encode_block(block))
    analyze(request.SerializeToString(), max_points=10_000)
    opening = evaluation_service_pb2.OpenEvaluation(metrics=metrics)
    blocks = [block.SerializeToString() for block in request.blocks]
    step(
        Step(
            "warm",
            0,
            [(1, blocks[0]), (2, blocks[1])],
            None,
            10_000,
            rebuild=Rebuild(opening.SerializeToString()),
        )
    )
    _kept.clear()


def analyze(payload: bytes, max_points: int) -> Analyzed:
    """Carry out a serialised ``AnalyzeRequest``.

    Raises
    ------
    RequestError
        When the request is not as it should be, with the path of every field at fault.
    """
    request = evaluation_service_pb2.AnalyzeRequest.FromString(payload)
    wrong = Violations()
    declared = wire_blocks.Declared.of(wire_metrics.decode_specs(request.metrics, "metrics", wrong))
    design = wire_metrics.decode_design(request.design, "design", wrong)
    options = wire_metrics.decode_options(request.options, request.deployment, "", wrong)
    if not request.blocks:
        wrong.add("blocks", "at least one block is needed")
    wrong.raise_any()
    history, history_step = wire_blocks.decode_history(request.history, declared, "history", wrong)
    batch = ta.SeriesBatch(declared.specs)
    extent = _Extent(len(declared.specs), max_points)
    for index, message in enumerate(request.blocks):
        block = wire_blocks.decode_block(message, declared, f"blocks[{index}]", wrong)
        if block is None:
            continue
        _check_step(block, history_step, f"blocks[{index}]", wrong)
        too_far = extent.add(block, message.columns)
        if too_far:
            wrong.add(f"blocks[{index}].start_time", too_far)
            continue
        try:
            batch.add(block)
        except ta.BlockError as error:
            wrong.add(_path(f"blocks[{index}]", error.field), error.message)
    wrong.raise_any()
    started = time.perf_counter()
    try:
        judgement = ta.analyze(
            batch,
            design=design,
            history=history,
            q=options.false_discovery_rate,
            deployed_at=options.deployed_at,
            warm_up=options.warm_up or 0.0,
        )
    except ta.BlockError as error:
        wrong.add(_path("", error.field), error.message)
    except ValueError as error:
        wrong.add(*_argument(str(error), ""))
    wrong.raise_any()
    seconds = time.perf_counter() - started
    response = wire_findings.encode_response(judgement, deployed_at=options.deployed_at)
    return Analyzed(response.SerializeToString(), seconds)


def open_evaluation(evaluation_id: str, opening: bytes, max_points: int) -> None:
    """Check a serialised ``OpenEvaluation`` and keep the evaluation.

    Raises
    ------
    RequestError
        When it is not as it should be; paths begin with ``open.``.
    """
    _keep(evaluation_id, _build(Rebuild(opening), max_points))


def forget(evaluation_id: str) -> None:
    """Let go of an evaluation."""
    _kept.pop(evaluation_id, None)


def step(request: Step) -> Stepped:
    """Take blocks, judge, and tell what changed.

    After a refusal, as after any failure, this process lets the evaluation go: what the server holds counts.
    """
    entry = _kept.pop(request.evaluation_id, None)
    if entry is None or entry.at != request.at:
        if request.rebuild is None:
            return Stepped(known=False)
        entry = _build(request.rebuild, request.max_points)
        entry.at = request.at
    taken, refusal, as_of = 0, None, request.as_of
    for sequence, payload in request.blocks:
        try:
            newest = _take(entry, payload)
        except RequestError as error:
            refusal = error
            break
        entry.at = sequence
        as_of = newest if as_of is None else max(as_of, newest)
        taken += 1
    if refusal is not None and not taken:
        return Stepped(known=True, refusal=refusal)
    started = time.perf_counter()
    try:
        judgement = entry.live.judge(final=request.final)
    except ValueError as error:
        return Stepped(known=True, refusal=invalid([Violation(*_argument(str(error), "open."))]))
    seconds = time.perf_counter() - started
    told = _told(judgement)
    rows = None if request.everything or request.final else _changed(entry.told, told)
    update = None
    if rows is None or len(rows) or entry.told is None or _above_changed(entry.told, told):
        entry.told = told if rows is None else _merge(entry.told, told, rows)
        update = wire_findings.encode_update(
            judgement,
            rows=rows,
            sequence=entry.at,
            as_of=as_of,
            deployed_at=entry.deployed_at,
            final=request.final,
        ).SerializeToString()
    failing = int((judgement.verdicts == ta.Verdict.FAIL).sum())
    saved = None
    # A FAIL that was told stays even if late points would take it back, so it must outlive this process.
    if request.save or failing > entry.failing:
        extent = entry.extent
        entry.failing = failing
        saved = Saved(entry.live.state(), (extent.low, extent.high), frozenset(extent.arms))
    if refusal is None and not request.final:
        _keep(request.evaluation_id, entry)
    return Stepped(True, taken, refusal, update, saved, as_of, seconds)


def _keep(evaluation_id: str, entry: _Live) -> None:
    _kept[evaluation_id] = entry
    while len(_kept) > KEPT:
        _kept.popitem(last=False)


def _build(rebuild: Rebuild, max_points: int) -> _Live:
    message = evaluation_service_pb2.OpenEvaluation.FromString(rebuild.opening)
    wrong = Violations()
    declared = wire_blocks.Declared.of(wire_metrics.decode_specs(message.metrics, "open.metrics", wrong))
    design = wire_metrics.decode_design(message.design, "open.design", wrong)
    options = wire_metrics.decode_options(message.options, message.deployment, "open.", wrong)
    wrong.raise_any()
    history, _ = wire_blocks.decode_history(message.history, declared, "open.history", wrong)
    wrong.raise_any()
    extent = _Extent(len(declared.specs), max_points, rebuild.saved)
    if rebuild.saved is not None:
        live = ta.LiveEvaluation.restore(rebuild.saved.live)
    else:
        try:
            live = ta.LiveEvaluation(
                declared.specs,
                design="concurrent" if design == "auto" else design,
                q=options.false_discovery_rate,
                deployed_at=options.deployed_at,
                warm_up=STREAM_WARM_UP_SECONDS if options.warm_up is None else options.warm_up,
                horizon_seconds=STREAM_HORIZON_SECONDS if options.horizon is None else options.horizon,
                history=history,
            )
        except ValueError as error:
            wrong.add(*_argument(str(error), "open."))
            wrong.raise_any()
    entry = _Live(live, declared, options.deployed_at, extent)
    for payload in rebuild.blocks:
        _take(entry, payload)
    return entry


def _take(entry: _Live, payload: bytes) -> float:
    """Add a serialised block; return the time of its newest column."""
    wrong = Violations()
    message = metrics_pb2.SeriesBlock.FromString(payload)
    block = wire_blocks.decode_block(message, entry.declared, "block", wrong)
    wrong.raise_any()
    too_far = block and entry.extent.add(block, message.columns)
    if block is None or too_far:
        raise invalid([Violation("block.start_time", str(too_far))])
    try:
        entry.live.add(block)
    except ta.BlockError as error:
        wrong.add(_path("block", error.field), error.message)
        wrong.raise_any()
    return block.start + (message.columns - 1) * block.step


def _check_step(block: ta.Block, history_step: float | None, path: str, wrong: Violations) -> None:
    if history_step is not None and block.step != history_step:
        wrong.add(f"{path}.step", f"{block.step:g} s; the windows in history have {history_step:g} s")


def _path(base: str, field_name: str) -> str:
    return ".".join(part for part in (base, field_name) if part)


_ARGUMENTS = {
    "history": "history",
    "deployed_at": "deployment.start_time",
    "warm_up": "options.warm_up",
    "q": "options.false_discovery_rate",
    "horizon_seconds": "options.horizon",
    "design": "design",
    "specs": "metrics",
    "spec": "metrics",
}


def _argument(message: str, prefix: str) -> tuple[str, str]:
    """Return field path and text of an analysis error of the form "argument: what would be right"."""
    argument, colon, text = message.partition(": ")
    if colon and argument in _ARGUMENTS:
        return prefix + _ARGUMENTS[argument], text
    return prefix.rstrip(".") or "blocks", message


def _told(judgement: ta.Judgement) -> _Told:
    result = judgement.result
    margin = np.where(np.isfinite(result.margin) & (result.margin > 0), result.margin, 1.0)
    numbers = np.stack([result.effect, result.effect_low, result.effect_high]) / margin
    with np.errstate(divide="ignore", invalid="ignore"):
        log_p = np.log(np.maximum(judgement.adjusted_p_value, 1e-300))
    return _Told(
        int(judgement.verdict),
        tuple(int(group.verdict) for group in judgement.groups),
        judgement.verdicts,
        judgement.reasons,
        numbers,
        log_p,
    )


def _above_changed(old: _Told, new: _Told) -> bool:
    return old.verdict != new.verdict or old.groups != new.groups


def _changed(old: _Told | None, new: _Told) -> list[int] | None:
    """Return the metrics that a reader would want to hear of again; ``None`` = all.

    A finding changed when its verdict or its reason did, when its effect or a bound of it moved by more than
    a quarter of the margin (or came to be known), or when its corrected p-value moved by more than a factor
    of ten.
    """
    if old is None:
        return None
    with np.errstate(invalid="ignore"):
        moved = (np.abs(new.numbers - old.numbers) > MATERIAL_SHARE_OF_MARGIN).any(axis=0)
        moved |= np.abs(new.log_p - old.log_p) > MATERIAL_LOG_P
    moved |= (np.isfinite(new.numbers) != np.isfinite(old.numbers)).any(axis=0)
    moved |= np.isfinite(new.log_p) != np.isfinite(old.log_p)
    moved |= new.verdicts != old.verdicts
    moved |= np.array(new.reasons) != np.array(old.reasons)
    rows: list[int] = np.flatnonzero(moved).tolist()
    return rows


def _merge(old: _Told | None, new: _Told, rows: list[int]) -> _Told:
    """Return what the client knows now: the new numbers of ``rows``, the old ones of the others."""
    if old is None:
        return new
    numbers, log_p = old.numbers.copy(), old.log_p.copy()
    numbers[:, rows] = new.numbers[:, rows]
    log_p[rows] = new.log_p[rows]
    return _Told(new.verdict, new.groups, new.verdicts, new.reasons, numbers, log_p)
