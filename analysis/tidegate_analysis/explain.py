"""The sentence: what was found, in words that need no statistics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tidegate_analysis.spec import Verdict

if TYPE_CHECKING:
    from tidegate_analysis.result import Result

_WHY = {
    "not_enough_evidence": "the data cannot tell yet",
    "below_margin": "there is a change, smaller than the margin so far",
    "too_few_points": "there are too few points ({pairs}) to tell",
    "no_overlap": "baseline and canary have no scrape in common",
    "no_baseline": "the baseline has no points",
    "no_data": "neither arm has points",
    "canary_silent": "the canary is silent while the baseline speaks",
    "bad_values": "some of its values are infinite, absurd or negative where only positive ones make sense",
    "constant": "nothing moves, so there is no yardstick for a change",
    "tail_in_doubt": "the typical value is fine, but the worst points may not be",
    "not_significant_among_many": "the change does not stand out among the {n} metrics judged together",
    "hold_only": "it got worse, and this metric only holds a rollout",
}


def number(value: float, unit: str = "") -> str:
    """Write a number with three significant digits, and its unit."""
    if not math.isfinite(value):
        return "unknown"
    text = f"{value:.3g}"
    if "e" in text and 1e-4 <= abs(value) < 1e7:
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6f}".rstrip("0").rstrip(".")
    return f"{text} {unit}".rstrip()


def change(value: float, log: bool, unit: str = "", *, signed: bool = False) -> str:
    """Write a change: "18 %" on the log scale, "3.2 ms" on the linear one; "x2.4" from a doubling on."""
    if not math.isfinite(value):
        return "unknown"
    if not log:
        return f"{value:+.3g} {unit}".rstrip() if signed else number(abs(value), unit)
    if value >= 1.0:
        return f"x{1.0 + value:.3g}"
    percent = 100.0 * value
    digits = 0 if abs(percent) >= 9.95 else 1
    return f"{percent:+.{digits}f} %" if signed else f"{abs(percent):.{digits}f} %"


def sentence(
    result: Result, i: int, *, verdict: int | None = None, reason: str | None = None, among: int = 0
) -> str:
    """Return the sentence on series ``i``; ``verdict`` and ``reason`` replace its own."""
    spec = result.specs[i]
    log = spec.scale == "log"
    v = int(result.verdict[i]) if verdict is None else verdict
    why = result.reason[i] if reason is None else reason
    effect, low, high = (float(a[i]) for a in (result.effect, result.effect_low, result.effect_high))
    margin = change(float(result.margin[i]), log, spec.unit)
    span = f"({change(low, log, spec.unit, signed=True)} to {change(high, log, spec.unit, signed=True)})"
    history = _history(result, i)
    if v == Verdict.FAIL and why == "tail_regression":
        tail = change(float(result.tail_effect[i]), log, spec.unit, signed=True)
        return f"{spec.name}: its worst points are {tail} against the baseline's, while its typical value changed by {change(effect, log, spec.unit, signed=True)}{history}."
    if v == Verdict.FAIL:
        where = "above" if effect > 0 else "below"
        since = f", since point {int(result.onset[i]) + 1}" if result.onset[i] >= 0 else ""
        return f"{spec.name} is {change(effect, log, spec.unit)} {where} the baseline {span}{since}{history}."
    if v == Verdict.PASS:
        return f"{spec.name} is not worse than the baseline by the margin of {margin}: it changed by {change(effect, log, spec.unit, signed=True)} {span}."
    text = _WHY.get(why, why.replace("_", " ")).format(
        pairs=min(int(result.n_baseline[i]), int(result.n_canary[i])), n=among or len(result)
    )
    if math.isfinite(effect) and why in (
        "not_enough_evidence",
        "below_margin",
        "not_significant_among_many",
        "tail_in_doubt",
        "hold_only",
    ):
        text += f"; so far it changed by {change(effect, log, spec.unit, signed=True)} {span}, the margin is {margin}"
        seconds = float(result.seconds_to_answer[i])
        if why == "not_enough_evidence" and math.isfinite(seconds):
            text += f"; if nothing changed, about {duration(seconds)} more would show it"
    return f"{spec.name}: {text}."


def duration(seconds: float) -> str:
    """Write a duration in the unit a person would use."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 86400:.1f} days"


def _history(result: Result, i: int) -> str:
    windows = int(result.history_windows[i])
    if windows == 0:
        return ""
    return f"; a change this large was seen in {int(result.history_exceeding[i])} of {windows} comparable windows"
