"""Series blocks: one flat packed run of doubles to one array, without a Python loop over points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tidegate_analysis as ta
from numpy.typing import NDArray
from tidegate.v1 import metrics_pb2

from tidegate_server.api.metrics import decode_duration, decode_enum, decode_time, encode_seconds, shorten
from tidegate_server.errors import Violations

Floats = NDArray[np.float64]

ARMS: Mapping[int, str] = {metrics_pb2.ARM_BASELINE: "baseline", metrics_pb2.ARM_CANARY: "canary"}
PHASES: Mapping[int, str] = {
    metrics_pb2.PHASE_UNSPECIFIED: "post",
    metrics_pb2.PHASE_PRE: "pre",
    metrics_pb2.PHASE_POST: "post",
}
ARM_NUMBERS = {word: number for number, word in ARMS.items()}
PHASE_NUMBERS = {word: number for number, word in sorted(PHASES.items())}

MAX_INSTANCE_BYTES = 512


@dataclass(frozen=True, slots=True)
class Declared:
    """The metrics of a request, by which the rows of its blocks are told."""

    specs: tuple[ta.MetricSpec, ...]
    plain: tuple[str, ...]
    """Every metric that is not a histogram: the rows of a block that names none."""

    @classmethod
    def of(cls, specs: Sequence[ta.MetricSpec]) -> Declared:
        """Return what a list of specs declares."""
        return cls(tuple(specs), tuple(spec.name for spec in specs if spec.kind != "histogram"))


def count_points(block: metrics_pb2.SeriesBlock) -> int:
    """Return how many numbers a block holds, in constant time."""
    return len(block.values) + len(block.exposure) + sum(len(rows.counts) for rows in block.histograms)


def decode_block(message: metrics_pb2.SeriesBlock, declared: Declared, path: str, wrong: Violations) -> ta.Block | None:
    """Return the block, or ``None`` when something was wrong, which is then noted with its path.

    Arrays are float64, values and exposure (rows, columns), histogram counts (columns, bins); NaN = missing.
    """
    before = len(wrong.found)
    arm: Any = decode_enum(ARMS, metrics_pb2.Arm, message.arm, f"{path}.arm", wrong)
    phase: Any = decode_enum(PHASES, metrics_pb2.Phase, message.phase, f"{path}.phase", wrong)
    start = step = None
    if message.HasField("start_time"):
        start = decode_time(message.start_time, f"{path}.start_time", wrong)
    else:
        wrong.add(f"{path}.start_time", "is needed: the time of the first column")
    if message.HasField("step"):
        step = decode_duration(message.step, f"{path}.step", wrong)
        if step is not None and step <= 0:
            wrong.add(f"{path}.step", f"must be above 0 s, not {step:g} s")
    else:
        wrong.add(f"{path}.step", "is needed: the time from one column to the next")
    if len(message.instance.encode()) > MAX_INSTANCE_BYTES:
        wrong.add(f"{path}.instance", f"at most {MAX_INSTANCE_BYTES} bytes are allowed")
    columns = message.columns
    if columns == 0:
        wrong.add(f"{path}.columns", "must be at least 1")
        return None
    names = tuple(message.metrics)
    only_histograms = not names and not message.values and bool(message.histograms)
    if not names and not only_histograms:
        names = declared.plain
    rows = len(names)
    values = _matrix(message.values, rows, columns, f"{path}.values", wrong)
    exposure = None
    if message.exposure:
        exposure = _matrix(message.exposure, rows, columns, f"{path}.exposure", wrong)
    histograms = _histograms(message, columns, path, wrong)
    if len(wrong.found) > before or values is None or start is None or step is None:
        return None
    return ta.Block(
        arm=arm,
        phase=phase,
        start=start,
        step=step,
        values=values,
        metrics=names,
        instance=message.instance,
        exposure=exposure,
        histograms=histograms or None,
    )


def _matrix(field: Sequence[float], rows: int, columns: int, path: str, wrong: Violations) -> Floats | None:
    if len(field) != rows * columns:
        wrong.add(
            path,
            f"{len(field)} values; {rows} metrics x {columns} columns = {rows * columns} are needed "
            "(NaN where a point is missing)",
        )
        return None
    return np.asarray(field, dtype=np.float64).reshape(rows, columns)


def _histograms(
    message: metrics_pb2.SeriesBlock, columns: int, path: str, wrong: Violations
) -> dict[str, tuple[Floats, Floats]]:
    found: dict[str, tuple[Floats, Floats]] = {}
    for index, rows in enumerate(message.histograms):
        at = f"{path}.histograms[{index}]"
        if rows.metric in found:
            wrong.add(f"{at}.metric", f"{shorten(rows.metric)!r} is in this block already")
            continue
        bounds = np.asarray(rows.upper_bounds, dtype=np.float64)
        if not np.all(np.isfinite(bounds)) or not np.all(np.diff(bounds) > 0):
            wrong.add(f"{at}.upper_bounds", "must be finite and strictly ascending")
            continue
        bins = len(bounds) + 1
        if len(rows.counts) != columns * bins:
            wrong.add(
                f"{at}.counts",
                f"{len(rows.counts)} counts; {columns} columns x {bins} bins = {columns * bins} are needed",
            )
            continue
        counts = np.asarray(rows.counts, dtype=np.float64).reshape(columns, bins)
        if np.any(counts < 0) or np.any(np.isinf(counts)):
            wrong.add(f"{at}.counts", "must be finite and not negative")
            continue
        found[rows.metric] = (bounds, counts)
    return found


def decode_history(
    windows: Sequence[metrics_pb2.HistoryWindow], declared: Declared, path: str, wrong: Violations
) -> tuple[list[tuple[ta.Block, ta.Block]] | None, float | None]:
    """Return past windows as pairs of blocks, baseline first, and their step; ``None`` without any.

    Windows may differ in length. All must have one step, and both blocks of a window one clock.
    """
    known = {spec.name for spec in declared.specs}
    pairs: list[tuple[ta.Block, ta.Block]] = []
    first_step: float | None = None
    for index, window in enumerate(windows):
        at = f"{path}[{index}]"
        baseline = _decode_past(window.baseline, "baseline", declared, known, f"{at}.baseline", wrong)
        canary = _decode_past(window.canary, "canary", declared, known, f"{at}.canary", wrong)
        if baseline is None or canary is None:
            continue
        if window.baseline.columns != window.canary.columns:
            wrong.add(
                f"{at}.canary.columns",
                f"{window.canary.columns}; must be the {window.baseline.columns} of the baseline",
            )
        if abs(baseline.start - canary.start) > baseline.step / 2:
            wrong.add(f"{at}.canary.start_time", "must be that of the baseline")
        first_step = baseline.step if first_step is None else first_step
        for arm, block in (("baseline", baseline), ("canary", canary)):
            if block.step != first_step:
                wrong.add(f"{at}.{arm}.step", f"{block.step:g} s; all windows must have one, {first_step:g} s")
        pairs.append((baseline, canary))
    return pairs or None, first_step


def _decode_past(
    message: metrics_pb2.SeriesBlock,
    arm: str,
    declared: Declared,
    known: set[str],
    path: str,
    wrong: Violations,
) -> ta.Block | None:
    block = metrics_pb2.SeriesBlock()
    block.CopyFrom(message)
    block.arm = ARM_NUMBERS[arm]  # type: ignore[assignment]
    block.phase = metrics_pb2.PHASE_POST
    decoded = decode_block(block, declared, path, wrong)
    for k, name in enumerate((decoded and decoded.metrics) or ()):
        if name not in known:
            wrong.add(f"{path}.metrics[{k}]", f"{shorten(name)!r} is not declared in metrics")
            return None
    return decoded


def encode_block(block: ta.Block, sequence: int = 0) -> metrics_pb2.SeriesBlock:
    """Return the message of a block; ``sequence`` is its position in a stream, from 1."""
    message = metrics_pb2.SeriesBlock(
        arm=ARM_NUMBERS[block.arm],  # type: ignore[arg-type]
        phase=PHASE_NUMBERS[block.phase],  # type: ignore[arg-type]
        instance=block.instance,
        metrics=block.metrics,
        columns=np.asarray(block.values).shape[1],
        sequence=sequence,
    )
    encode_seconds(message.start_time, block.start)
    encode_seconds(message.step, block.step)
    _set_doubles(message, "values", block.values)
    if block.exposure is not None:
        _set_doubles(message, "exposure", block.exposure)
    for name, (bounds, counts) in (block.histograms or {}).items():
        rows = message.histograms.add(metric=name, upper_bounds=np.asarray(bounds).tolist())
        _set_doubles(rows, "counts", counts)
    return message


def cut_block(block: ta.Block, most: int, first: int = 0) -> Iterator[tuple[int, ta.Block]]:
    """Yield a block from its column ``first`` on in pieces of about ``most`` bytes, each with its first column there.

    What is cut differently is judged the same, while a message that is too large is not taken at all.
    """
    values = np.asarray(block.values)
    exposure = None if block.exposure is None else np.asarray(block.exposure)
    histograms = {name: (bounds, np.asarray(counts)) for name, (bounds, counts) in (block.histograms or {}).items()}
    numbers = values.size + (0 if exposure is None else exposure.size)
    numbers += sum(counts.size for _, counts in histograms.values())
    columns = values.shape[1]
    width = max(1, most * columns // max(1, 8 * numbers))
    for low in range(first, columns, width):
        part = slice(low, low + width)
        yield (
            low,
            replace(
                block,
                start=block.start + low * block.step,
                values=values[:, part],
                exposure=None if exposure is None else exposure[:, part],
                histograms={name: (bounds, counts[part]) for name, (bounds, counts) in histograms.items()} or None,
            ),
        )


def _set_doubles(message: metrics_pb2.SeriesBlock | metrics_pb2.HistogramRows, field: str, values: Floats) -> None:
    """Set a packed field from an array by its wire form, the array's own bytes: no loop, one copy."""
    data = np.ascontiguousarray(values, dtype="<f8").tobytes()
    tag = message.DESCRIPTOR.fields_by_name[field].number << 3 | 2
    message.MergeFromString(_varint(tag) + _varint(len(data)) + data)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
