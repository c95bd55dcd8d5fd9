"""Domain objects to JSON text and back, and series blocks to compressed bytes and back, exact to the last
bit.

A field that has its default is left out, so that a field with a default may be added to a dataclass without a
migration. Members of a union are told apart by `"type"`. Numbers are written as Python's `repr` does, which
reads back to the same float; NaN stays NaN.
"""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Iterable
from typing import Any, TypeVar

import cattrs
import numpy as np
from cattrs.preconf.json import make_converter
from cattrs.strategies import configure_tagged_union
from numpy.typing import NDArray
from tidegate_analysis.batch import Block

from tidegate_server.gates.model import Check, Evaluation, MonitorCheck, RegressionCheck, ThresholdCheck

T = TypeVar("T")

_CHECKS = {RegressionCheck: "regression", MonitorCheck: "monitor", ThresholdCheck: "threshold"}
# Fast, and on shuffled floats hardly larger than the best level.
_LEVEL = 1


@functools.cache
def _converter() -> cattrs.Converter:
    converter = make_converter(omit_if_default=True, detailed_validation=False)
    configure_tagged_union(Check, converter, tag_name="type", tag_generator=_CHECKS.__getitem__)
    return converter


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _structure(value: Any, kind: type[T]) -> T:
    try:
        made: T = _converter().structure(value, kind)
    except (cattrs.BaseValidationError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"stored {kind.__name__} cannot be read: {error!r}") from error
    return made


def to_text(value: Any) -> str:
    """JSON text of a domain object."""
    return _dump(_converter().unstructure(value))


def from_text(text: str, kind: type[T]) -> T:
    """The domain object that `to_text` wrote.

    Raises:
        ValueError: if the text is not a `kind`.
    """
    return _structure(json.loads(text), kind)


def write_texts(texts: Iterable[str]) -> str:
    """JSON text of several texts."""
    return _dump(list(texts))


def read_texts(text: str) -> tuple[str, ...]:
    """The texts that `write_texts` wrote."""
    return tuple(json.loads(text))


def micros(seconds: float) -> int:
    """Seconds since 1970 as whole microseconds."""
    return round(seconds * 1e6)


def optional_micros(seconds: float | None) -> int | None:
    """The same for a time that may be absent."""
    return None if seconds is None else micros(seconds)


def seconds(microseconds: int) -> float:
    """Microseconds since 1970 as seconds."""
    return microseconds / 1e6


def pack(arrays: Iterable[NDArray[np.float64]]) -> bytes:
    """Compressed bytes of float64 arrays, end to end.

    The bytes of all numbers are put in planes first (all first bytes, all second bytes, ...): exponents and
    leading digits of a series resemble each other, so they compress, and nothing is rounded.
    """
    flat = [np.ascontiguousarray(array, dtype="<f8").ravel() for array in arrays]
    joined = np.concatenate(flat) if flat else np.empty(0, dtype="<f8")
    planes = np.ascontiguousarray(joined.view(np.uint8).reshape(-1, 8).T)
    return zlib.compress(planes.tobytes(), _LEVEL)


def unpack(data: bytes, shapes: Iterable[tuple[int, ...]]) -> list[NDArray[np.float64]]:
    """The arrays that `pack` wrote, given their shapes.

    Raises:
        ValueError: if the bytes are damaged or do not have these shapes.
    """
    try:
        raw = zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(f"a stored series block is damaged: {error}") from error
    flat = np.ascontiguousarray(np.frombuffer(raw, dtype=np.uint8).reshape(8, -1).T).view("<f8").ravel()
    shapes = list(shapes)
    sizes = [int(np.prod(shape)) for shape in shapes]
    if sum(sizes) != flat.size:
        raise ValueError(f"a stored series block is damaged: {flat.size} numbers, {sum(sizes)} expected")
    pieces = np.split(flat, np.cumsum(sizes)[:-1]) if sizes else []
    return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def same_numbers(one: bytes, other: bytes) -> bool:
    """Whether two results of `pack` hold the same numbers, however they were compressed."""
    return one == other or zlib.decompress(one) == zlib.decompress(other)


def encode_block(block: Block) -> tuple[str, bytes]:
    """A series block as a header (JSON) and its numbers (compressed)."""
    values = np.asarray(block.values, dtype=np.float64)
    arrays = [values]
    header: dict[str, Any] = {
        "arm": block.arm,
        "phase": block.phase,
        "start": float(block.start),
        "step": float(block.step),
        "instance": block.instance,
        "metrics": None if block.metrics is None else list(block.metrics),
        "values": list(values.shape),
    }
    if block.exposure is not None:
        arrays.append(np.asarray(block.exposure, dtype=np.float64))
        header["exposure"] = list(arrays[-1].shape)
    if block.histograms:
        header["histograms"] = []
        for name, (bounds, counts) in block.histograms.items():
            pair = [np.asarray(bounds, dtype=np.float64), np.asarray(counts, dtype=np.float64)]
            arrays += pair
            header["histograms"].append([name, list(pair[0].shape), list(pair[1].shape)])
    return json.dumps(header, separators=(",", ":")), pack(arrays)


def count_points(block: Block) -> int:
    """How many numbers a block has: values, exposure and counts of histograms, missing ones too."""
    counts = [np.size(pair[1]) for pair in (block.histograms or {}).values()]
    return int(np.size(block.values) + (0 if block.exposure is None else np.size(block.exposure)) + sum(counts))


def decode_block(header_text: str, data: bytes) -> Block:
    """The block that `encode_block` wrote.

    Raises:
        ValueError: if the bytes are damaged.
    """
    header = json.loads(header_text)
    shapes = [tuple(header["values"])]
    if "exposure" in header:
        shapes.append(tuple(header["exposure"]))
    histograms = header.get("histograms", [])
    for _, bounds_shape, counts_shape in histograms:
        shapes += [tuple(bounds_shape), tuple(counts_shape)]
    arrays = iter(unpack(data, shapes))
    return Block(
        arm=header["arm"],
        phase=header["phase"],
        start=header["start"],
        step=header["step"],
        values=next(arrays),
        metrics=None if header["metrics"] is None else tuple(header["metrics"]),
        instance=header["instance"],
        exposure=next(arrays) if "exposure" in header else None,
        histograms={name: (next(arrays), next(arrays)) for name, _, _ in histograms} or None,
    )


def encode_evaluation(evaluation: Evaluation, *, gate: bool = True) -> tuple[str, str, str]:
    """An evaluation as three texts: its gate (empty if not asked for), itself, and the results of its rules.

    The gate never changes and is written once; `series_complete` is kept in a column of its own.
    """
    whole = _converter().unstructure(evaluation)
    gate_part = whole.pop("gate")
    results = whole.pop("results", [])
    whole.pop("series_complete", None)
    return _dump(gate_part) if gate else "", _dump(whole), _dump(results)


def decode_evaluation(gate: str, body: str, results: str, *, series_complete: bool) -> Evaluation:
    """The evaluation that `encode_evaluation` wrote.

    Raises:
        ValueError: if a text cannot be read.
    """
    whole = json.loads(body)
    whole |= {"gate": json.loads(gate), "results": json.loads(results), "series_complete": series_complete}
    return _structure(whole, Evaluation)
