"""What a metric is and how it is judged: small immutable specs, validated where they are made."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from tidegate_analysis.kernels.shared import as_number

Kind = Literal["auto", "gauge", "counter", "ratio", "histogram", "count", "saturation"]
Direction = Literal["auto", "up_is_worse", "down_is_worse", "either"]
Scale = Literal["auto", "log", "linear"]
Criticality = Literal["normal", "critical", "hold_only"]
Design = Literal["auto", "concurrent", "before_after", "difference_in_differences"]
# Looked up once: thousands of specs are made per judgement.
_WORDS = (
    ("kind", get_args(Kind)),
    ("direction", get_args(Direction)),
    ("scale", get_args(Scale)),
    ("criticality", get_args(Criticality)),
)


class Verdict(enum.IntEnum):
    """The answer for a metric or a gate; the numbers are those of the wire contract.

    ``PASS``: shown not to be worse than the margin. ``FAIL``: shown to be worse. ``INCONCLUSIVE``: looked,
    cannot tell yet. ``ERROR``: could not look; the analysis itself never answers it.
    """

    PASS = 1
    FAIL = 2
    INCONCLUSIVE = 3
    ERROR = 4


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """How one metric is judged.

    Parameters
    ----------
    name:
        The metric's name.
    kind:
        What its numbers are; ``"auto"`` derives it from name, unit and values
        (:mod:`tidegate_analysis.defaults`).
    direction:
        Which change is a regression; ``"auto"`` derives it from the name.
    scale:
        ``"log"`` measures ratios and needs positive values, ``"linear"`` differences; ``"auto"`` takes log
        for positive gauges.
    margin:
        The change that matters: a fraction on the log scale (0.10 is ten per cent), the metric's own unit on
        the linear one. Greater than 0. ``None`` takes the default of the kind.
    criticality:
        ``"critical"`` judges it in a tier of its own, ``"hold_only"`` lets its regression hold and never
        fail.
    group:
        The group it is judged in.
    weight:
        Its share in rankings, never in the verdict.
    alpha:
        One-sided error rate of a false FAIL.
    alpha_pass:
        One-sided error rate of a false PASS at the margin.
    unit:
        The unit, for sentences and defaults.

    Raises
    ------
    ValueError
        When a field is out of its range; the message names the field and what would be right.
    """

    name: str
    kind: Kind = "auto"
    direction: Direction = "auto"
    scale: Scale = "auto"
    margin: float | None = None
    criticality: Criticality = "normal"
    group: str = ""
    weight: float = 1.0
    alpha: float = 0.02
    alpha_pass: float = 0.05
    unit: str = ""

    def __post_init__(self) -> None:
        """Check every field."""
        if not isinstance(self.name, str) or not self.name:
            raise ValueError("name: must be a non-empty string")
        for field, allowed in _WORDS:
            value = getattr(self, field)
            if value not in allowed:
                raise ValueError(f"{field}: {value!r} is none of {', '.join(allowed)}")
        for field in ("group", "unit"):
            if not isinstance(getattr(self, field), str):
                raise ValueError(f"{field}: must be a string, not {getattr(self, field)!r}")
        if self.margin is not None and not 0.0 < as_number(self.margin) < math.inf:
            raise ValueError(f"margin: must be a finite number above 0, not {self.margin!r}")
        for field in ("alpha", "alpha_pass"):
            value = getattr(self, field)
            if not 0.0 < as_number(value) < 0.5:
                raise ValueError(f"{field}: must lie between 0 and 0.5, not {value!r}")
        if not 0.0 <= as_number(self.weight) < math.inf:
            raise ValueError(f"weight: must be a finite number of at least 0, not {self.weight!r}")
        if self.scale == "log" and self.kind in ("ratio", "saturation"):
            raise ValueError(f"scale: a {self.kind} is judged on its own scale; log contradicts kind={self.kind!r}")

    def with_(self, **changes: Any) -> MetricSpec:
        """Return a copy with some fields changed, validated again."""
        return replace(self, **changes)


def specs_for(spec: MetricSpec | Sequence[MetricSpec], n_series: int) -> tuple[MetricSpec, ...]:
    """Return one spec per series.

    Raises
    ------
    ValueError
        When a sequence has another length than there are series.
    """
    if isinstance(spec, MetricSpec):
        return (spec,) * n_series
    if not isinstance(spec, Iterable):
        raise ValueError(f"spec: must be a MetricSpec or a sequence of them, not {type(spec).__name__}")
    specs = tuple(spec)
    if len(specs) != n_series:
        raise ValueError(f"spec: {len(specs)} specs for {n_series} series; give one, or one per series")
    for k, one in enumerate(specs):
        if not isinstance(one, MetricSpec):
            raise ValueError(f"spec[{k}]: must be a MetricSpec, not {type(one).__name__}")
    return specs


@dataclass(frozen=True, slots=True)
class QualityNote:
    """Something about the data that a reader of the verdict should know.

    ``code`` is machine-readable, ``count`` how many points or scrapes it concerns, ``message`` is for a
    person.
    """

    code: str
    count: int
    message: str


def merge_notes(*notes: Iterable[QualityNote]) -> tuple[QualityNote, ...]:
    """Return all notes, one per code: the first message stays, counts are added."""
    merged: dict[str, QualityNote] = {}
    for group in notes:
        for note in group:
            old = merged.get(note.code)
            merged[note.code] = note if old is None else QualityNote(note.code, old.count + note.count, old.message)
    return tuple(merged.values())
