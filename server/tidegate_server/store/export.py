"""An evaluation with its evidence as Parquet files, and back: for notebooks, other tools, and archives.

`evaluation.parquet` holds one row: the evaluation as JSON, and what one filters by. `series.parquet` holds one row per
point, `histograms.parquet` one per bin, `findings.parquet` one per rule and metric, `monitors.parquet` one per stretch
of a monitor's state, `blocks.parquet` how the points came. `read` gives back the evaluation and its blocks exactly, so
that they can be judged again. NaN is a missing point, null means that there is no such number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tidegate_analysis.batch import Block

from tidegate_server.gates.model import Evaluation
from tidegate_server.gates.ports import StoredBlock
from tidegate_server.store.codec import from_text, to_text

if TYPE_CHECKING:
    import pyarrow as pa

Floats = NDArray[np.float64]

_FORMAT = "1"


@dataclass(frozen=True, slots=True)
class Archive:
    """What `read` returns."""

    evaluation: Evaluation
    blocks: tuple[StoredBlock, ...]


def _arrow() -> tuple[Any, Any]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise ModuleNotFoundError("Parquet needs pyarrow: pip install 'tidegate[parquet]'") from None
    return pa, parquet


def write(folder: Path, evaluation: Evaluation, blocks: Sequence[StoredBlock]) -> list[Path]:
    """Writes an evaluation and its series into a folder, which is made; returns the files.

    Raises:
        ModuleNotFoundError: if pyarrow is missing.
        OSError: if the folder cannot be written.
    """
    pa, parquet = _arrow()
    folder.mkdir(parents=True, exist_ok=True)
    tables = {
        "evaluation": _evaluation_table(pa, evaluation),
        "blocks": _blocks_table(pa, evaluation, blocks),
        "series": _series_table(pa, evaluation, blocks),
        "histograms": _histogram_table(pa, blocks),
        "findings": _findings_table(pa, evaluation),
        "monitors": _monitors_table(pa, evaluation),
    }
    files = []
    for name, table in tables.items():
        file = folder / f"{name}.parquet"
        parquet.write_table(table.replace_schema_metadata({"tidegate.format": _FORMAT}), file)
        files.append(file)
    return files


def _names(evaluation: Evaluation, block: Block) -> tuple[str, ...]:
    if block.metrics is None:
        raise ValueError(f"evaluation {evaluation.id} has a series block that does not name its rows")
    return block.metrics


def _evaluation_table(pa: Any, evaluation: Evaluation) -> pa.Table:
    deployment = evaluation.deployment
    row = {
        "id": evaluation.id,
        "service": deployment.service,
        "environment": deployment.environment,
        "identifier": evaluation.gate.identifier,
        "version": deployment.version,
        "state": evaluation.state.name,
        "verdict": evaluation.verdict.name if evaluation.verdict else None,
        "decision": evaluation.decision.name if evaluation.decision else None,
        "sentence": evaluation.sentence,
        "create_time": evaluation.create_time,
        "end_time": evaluation.end_time,
        "json": to_text(evaluation),
    }
    return pa.Table.from_pylist([row])


def _blocks_table(pa: Any, evaluation: Evaluation, blocks: Sequence[StoredBlock]) -> pa.Table:
    rows = [
        {
            "block": stored.position,
            "writer": stored.writer,
            "sequence": stored.sequence,
            "received_time": stored.received_time,
            "arm": stored.block.arm,
            "phase": stored.block.phase,
            "instance": stored.block.instance,
            "start": stored.block.start,
            "step": stored.block.step,
            "columns": int(np.shape(stored.block.values)[1]),
            "metrics": list(_names(evaluation, stored.block)),
            "exposure": stored.block.exposure is not None,
            "histograms": list(stored.block.histograms or {}),
        }
        for stored in blocks
    ]
    schema = pa.schema(
        [
            ("block", pa.int64()),
            ("writer", pa.string()),
            ("sequence", pa.int64()),
            ("received_time", pa.float64()),
            ("arm", pa.string()),
            ("phase", pa.string()),
            ("instance", pa.string()),
            ("start", pa.float64()),
            ("step", pa.float64()),
            ("columns", pa.int64()),
            ("metrics", pa.list_(pa.string())),
            ("exposure", pa.bool_()),
            ("histograms", pa.list_(pa.string())),
        ]
    )
    return pa.Table.from_pylist(rows, schema)


def _series_table(pa: Any, evaluation: Evaluation, blocks: Sequence[StoredBlock]) -> pa.Table:
    schema = pa.schema(
        [
            ("timestamp", pa.float64()),
            ("metric", pa.string()),
            ("arm", pa.string()),
            ("phase", pa.string()),
            ("instance", pa.string()),
            ("value", pa.float64()),
            ("total", pa.float64()),
            ("block", pa.int64()),
        ]
    )
    parts = []
    for stored in blocks:
        block = stored.block
        values = np.asarray(block.values, dtype=np.float64)
        rows, columns = values.shape
        size = rows * columns
        total = pa.nulls(size, pa.float64())
        if block.exposure is not None:
            total = pa.array(np.asarray(block.exposure, dtype=np.float64).ravel(), from_pandas=False)
        arrays = [
            np.tile(block.start + np.arange(columns) * block.step, rows),
            pa.array([name for name in _names(evaluation, block) for _ in range(columns)], pa.string()),
            pa.array([block.arm] * size, pa.string()),
            pa.array([block.phase] * size, pa.string()),
            pa.array([block.instance] * size, pa.string()),
            # A missing point stays NaN, to the last bit; it does not become null.
            pa.array(values.ravel(), from_pandas=False),
            total,
            np.full(size, stored.position, dtype=np.int64),
        ]
        parts.append(pa.table(arrays, schema=schema))
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _histogram_table(pa: Any, blocks: Sequence[StoredBlock]) -> pa.Table:
    schema = pa.schema(
        [
            ("timestamp", pa.float64()),
            ("metric", pa.string()),
            ("upper_bound", pa.float64()),
            ("count", pa.float64()),
            ("block", pa.int64()),
        ]
    )
    parts = []
    for stored in blocks:
        for name, (bounds, counts) in (stored.block.histograms or {}).items():
            counted = np.asarray(counts, dtype=np.float64)
            columns, bins = counted.shape
            arrays = [
                np.repeat(stored.block.start + np.arange(columns) * stored.block.step, bins),
                pa.array([name] * counted.size, pa.string()),
                np.tile(np.append(np.asarray(bounds, dtype=np.float64), np.inf), columns),
                pa.array(counted.ravel(), from_pandas=False),
                np.full(counted.size, stored.position, dtype=np.int64),
            ]
            parts.append(pa.table(arrays, schema=schema))
    return pa.concat_tables(parts) if parts else schema.empty_table()


def _findings_table(pa: Any, evaluation: Evaluation) -> pa.Table:
    simple = ("effect", "effect_low", "effect_high", "p_value", "adjusted_p_value", "log_e_value", "n_effective")
    levels = ("baseline_level", "canary_level", "minimum_detectable_effect", "time_to_answer")
    counts = ("baseline_points", "canary_points", "history_windows", "history_exceeding")
    texts = ("metric", "sentence", "reason", "method")
    schema = pa.schema(
        [
            ("rule", pa.string()),
            ("verdict", pa.string()),
            *((name, pa.string()) for name in texts),
            *((name, pa.float64()) for name in (*simple, *levels)),
            *((name, pa.int64()) for name in counts),
            ("onset_time", pa.float64()),
        ]
    )
    rows = [
        {
            "rule": result.rule,
            "verdict": finding.verdict.name,
            **{name: getattr(finding, name) for name in (*texts, *simple, *levels, *counts)},
            "onset_time": finding.onset.time if finding.onset else None,
        }
        for result in evaluation.results
        for finding in result.findings
    ]
    return pa.Table.from_pylist(rows, schema)


def _monitors_table(pa: Any, evaluation: Evaluation) -> pa.Table:
    schema = pa.schema(
        [
            ("rule", pa.string()),
            ("monitor_id", pa.string()),
            ("name", pa.string()),
            ("group", pa.string()),
            ("failing", pa.bool_()),
            ("state", pa.string()),
            ("start", pa.float64()),
            ("end", pa.float64()),
            ("muted", pa.bool_()),
        ]
    )
    rows = [
        {
            "rule": result.rule,
            "monitor_id": monitor.monitor_id,
            "name": monitor.name,
            "group": monitor.group,
            "failing": monitor.failing,
            "state": span.state.name,
            "start": span.start,
            "end": span.end,
            "muted": span.muted,
        }
        for result in evaluation.results
        for monitor in result.monitors
        for span in monitor.timeline
    ]
    return pa.Table.from_pylist(rows, schema)


def read(folder: Path) -> Archive:
    """The evaluation and the blocks that `write` wrote, every number to the last bit.

    Raises:
        ModuleNotFoundError: if pyarrow is missing.
        OSError: if a file is missing.
        ValueError: if the folder holds something else.
    """
    _, parquet = _arrow()
    table = parquet.read_table(folder / "evaluation.parquet")
    if (table.schema.metadata or {}).get(b"tidegate.format") != _FORMAT.encode():
        raise ValueError(f"{folder}: not an evaluation that this version of Tidegate has exported")
    evaluation = from_text(table.column("json")[0].as_py(), Evaluation)
    series = _by_block(parquet.read_table(folder / "series.parquet"), "value", "total")
    bins = _by_block(parquet.read_table(folder / "histograms.parquet"), "count", "upper_bound")
    blocks = []
    for header in parquet.read_table(folder / "blocks.parquet").to_pylist():
        position, columns = header["block"], header["columns"]
        names = tuple(header["metrics"])
        values, totals = series.get(position, (np.empty(0), np.empty(0)))
        shape = (len(names), columns)
        block = Block(
            arm=header["arm"],
            phase=header["phase"],
            start=header["start"],
            step=header["step"],
            instance=header["instance"],
            metrics=names,
            values=values.reshape(shape),
            exposure=totals.reshape(shape) if header["exposure"] else None,
            histograms=_read_histograms(header["histograms"], columns, *bins.get(position, (None, None))),
        )
        stored = StoredBlock(position, header["writer"], header["sequence"], block, header["received_time"])
        blocks.append(stored)
    return Archive(evaluation, tuple(blocks))


def _by_block(table: pa.Table, *names: str) -> dict[int, tuple[Floats, Floats]]:
    """Two columns, cut where one block ends and the next begins; rows are in the order they were written in."""
    positions = table.column("block").to_numpy()
    columns = [table.column(name).to_numpy(zero_copy_only=False).astype(np.float64) for name in names]
    starts = np.flatnonzero(np.diff(positions, prepend=-1))
    ends = np.append(starts[1:], positions.size)[: starts.size]
    return {
        int(positions[start]): (columns[0][start:end], columns[1][start:end])
        for start, end in zip(starts, ends, strict=True)
    }


def _read_histograms(
    names: Sequence[str], columns: int, counts: Floats | None, bounds: Floats | None
) -> dict[str, tuple[Floats, Floats]] | None:
    """Histograms of one block: each metric's bins end with the one that has no upper bound."""
    if not names or counts is None or bounds is None:
        return None
    found = {}
    at = 0
    for name in names:
        width = int(np.argmax(np.isinf(bounds[at:]))) + 1
        size = width * columns
        found[name] = (bounds[at : at + width - 1], counts[at : at + size].reshape(columns, width))
        at += size
    return found
