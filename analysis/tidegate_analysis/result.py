"""What an analysis answers: one frozen object of arrays over series."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tidegate_analysis.spec import MetricSpec, QualityNote, Verdict

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Verdicts = NDArray[np.int8]


@dataclass(frozen=True)
class Result:
    """Findings of many series, one entry of every array per series.

    Effects are relative on the log scale (0.18 = 18 % up) and in the metric's own unit on the linear one. NaN
    = unknown.

    Attributes
    ----------
    specs:
        The specs as they were used, every default filled in.
    derived:
        Names of each spec's fields that were derived.
    verdict:
        int8, of :class:`~tidegate_analysis.Verdict`; before any correction for looking at many series.
    p_value:
        One-sided (two-sided for ``direction="either"``) probability of evidence this strong without a
        regression.
    log_e_value:
        Natural logarithm of the e-value, for methods that hold at every look.
    effect, effect_low, effect_high:
        The change and its confidence bounds. The bound towards "no change" on the worse side is at ``1 -
        alpha``, the other at ``1 - alpha_pass``: FAIL needs the one beyond 0, PASS the other within the
        margin.
    margin:
        The margin in the unit of ``effect``.
    n_effective:
        Points the pairs are worth once autocorrelation is taken off.
    n_baseline, n_canary:
        Points that were used.
    baseline_level, canary_level:
        Typical levels, in the metric's unit.
    minimum_detectable_effect:
        The smallest change that would have been found 9 times in 10, in the unit of ``effect``.
    seconds_to_answer:
        More time needed for PASS if there is no effect; NaN when it never comes, is not needed or the step is
        unknown.
    method:
        Versioned method ids.
    reason:
        Why the verdict is what it is, in snake case.
    history_windows, history_exceeding:
        Comparable past windows, and how many of them showed a change at least this large.
    onset, onset_low, onset_high:
        0-based column at which the change began and its 90 % set; -1 = none.
    quality:
        Notes on the data of each series.
    tail_p_value, tail_effect:
        The same question asked of the worst points alone, and how far the tail moved; NaN = not asked.
    """

    specs: tuple[MetricSpec, ...]
    derived: tuple[tuple[str, ...], ...]
    verdict: Verdicts
    p_value: Floats
    log_e_value: Floats
    effect: Floats
    effect_low: Floats
    effect_high: Floats
    margin: Floats
    n_effective: Floats
    n_baseline: Ints
    n_canary: Ints
    baseline_level: Floats
    canary_level: Floats
    minimum_detectable_effect: Floats
    seconds_to_answer: Floats
    method: tuple[str, ...]
    reason: tuple[str, ...]
    history_windows: Ints
    history_exceeding: Ints
    onset: Ints
    onset_low: Ints
    onset_high: Ints
    quality: tuple[tuple[QualityNote, ...], ...]
    tail_p_value: Floats
    tail_effect: Floats

    def __len__(self) -> int:
        """Return the number of series."""
        return len(self.verdict)

    def explain(self, i: int) -> str:
        """Return one sentence on series ``i`` that needs no statistics.

        Raises
        ------
        IndexError
            When there is no such series.
        """
        from tidegate_analysis.explain import sentence

        return sentence(self, range(len(self))[i])

    def to_frame(self) -> pd.DataFrame:
        """Return a DataFrame with one row per series and the sentence as its last column."""
        import pandas as pd

        columns: dict[str, Any] = {"metric": [s.name for s in self.specs]}
        columns["verdict"] = [Verdict(int(v)).name for v in self.verdict]
        for field in fields(self):
            if field.name not in ("specs", "derived", "verdict", "quality"):
                columns[field.name] = getattr(self, field.name)
        columns["quality"] = [", ".join(note.code for note in notes) for notes in self.quality]
        columns["explanation"] = [self.explain(i) for i in range(len(self))]
        return pd.DataFrame(columns)

    def take(self, rows: Ints | list[int]) -> Result:
        """Return the findings of some series, in the given order."""
        index = np.asarray(rows, dtype=np.int64)
        changes: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            changes[field.name] = (
                value[index] if isinstance(value, np.ndarray) else tuple(value[i] for i in index.tolist())
            )
        return replace(self, **changes)


def concatenate(parts: list[Result], rows: list[Ints]) -> Result:
    """Join findings of disjoint sets of series; ``rows[k]`` says where the series of ``parts[k]`` belong.

    Raises
    ------
    ValueError
        When the rows are not a permutation of 0..n-1.
    """
    index = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int64)
    if not np.array_equal(np.sort(index), np.arange(len(index))):
        raise ValueError("rows: must cover every series once")
    back = np.argsort(index)
    values: dict[str, Any] = {}
    for field in fields(Result):
        pieces = [getattr(part, field.name) for part in parts]
        if isinstance(pieces[0], np.ndarray):
            values[field.name] = np.concatenate(pieces)[back]
        else:
            flat = [item for piece in pieces for item in piece]
            values[field.name] = tuple(flat[i] for i in back.tolist())
    return Result(**values)
