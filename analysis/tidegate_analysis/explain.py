"""The sentence: what was found, in words that need no statistics."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tidegate_analysis.contrast import MIN_POINTS
from tidegate_analysis.spec import MetricSpec, QualityNote, Verdict

if TYPE_CHECKING:
    from tidegate_analysis.result import Result

# A clock before this is not a date but a count of seconds.
FIRST_DATE = 365 * 86400.0
# Nor after this, as when milliseconds were given for seconds.
LAST_DATE = 4102444800.0
# A wait longer than this is no advice.
LONGEST_WAIT = 365 * 86400.0
UNKNOWN_CLOCK = (math.nan, math.nan)

_WHY = {
    "not_enough_evidence": "the data cannot tell yet",
    "below_margin": "there is a change, smaller than the margin",
    "no_overlap": "baseline and canary never answered the same scrape",
    "no_baseline": "the baseline has no points",
    "no_data": "neither arm has points",
    "canary_silent": "the canary is silent while the baseline speaks",
    "baseline_silent": "the baseline is silent while the canary speaks",
    "bad_values": "some of its values are infinite, absurd, or negative where only positive ones make sense",
    "constant": "nothing moves, so there is no yardstick for a change",
    "stale": "the canary's last values are all the same, as if its source had hung",
    "tail_in_doubt": "the typical value is fine, but the worst points may not be",
    "stretch_in_doubt": "the whole is fine, but some scrapes in a row are not",
    "instance_in_doubt": "the canary is fine as a whole, but one of its instances is not",
    "late_in_doubt": "it is fine over the whole watch, but not over the last third of it",
    "not_significant_among_many": "it does not stand out among the {n} metrics judged together",
    "too_few_events": "it looks worse, but there are too few events to fail it",
    "hold_only": "it got worse, but this metric may only hold a rollout",
}
# With one arm there is nobody to be silent beside.
_WHY_ALONE = {
    "no_overlap": "there are no points on one side of the deployment",
    "no_baseline": "there are no points from before the deployment",
    "no_data": "there are no points",
    "canary_silent": "it fell silent after the deployment",
}
_TELLS_CHANGE = (
    "not_enough_evidence",
    "below_margin",
    "not_significant_among_many",
    "tail_in_doubt",
    "stretch_in_doubt",
    "late_in_doubt",
    "instance_in_doubt",
    "hold_only",
    "bad_values",
    "too_few_events",
)
# From here on a change on the log scale is told as a multiple.
DOUBLE = 0.995
# "At least -100 %" says nothing.
NOTHING = -0.9995


def number(value: float, unit: str = "") -> str:
    """Write a number with three significant digits, and its unit."""
    if not math.isfinite(value):
        return "unknown"
    value += 0.0  # no "-0"
    text = f"{value:.3g}"
    if "e" in text and 1e-4 <= abs(value) < 1e7:
        text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.6f}".rstrip("0").rstrip(".")
    return f"{text} {unit}".rstrip()


def _signed(text: str) -> str:
    return text if text.startswith("-") or text.strip("0.") == "" else f"+{text}"


def _percent(value: float) -> str:
    """Write 0.18 as "18", 0.0123 as "1.2" and 0.00012 as "0.012"."""
    percent = 100.0 * value
    size = abs(percent)
    text = f"{percent:,.0f}" if size >= 9.95 else f"{percent:.1f}" if size >= 0.095 else f"{percent:.2g}"
    return "0" if size < 1e-6 or text.strip("-0.") == "" else text


def in_points(spec: MetricSpec) -> bool:
    """Whether changes of this metric are differences of shares, told in percentage points."""
    return spec.scale == "linear" and spec.kind in ("ratio", "saturation") and spec.unit in ("", "1", "ratio")


def change(value: float, spec: MetricSpec, *, signed: bool = False, unit: bool = True) -> str:
    """Write a change in the unit a person would use.

    "18 %" on the log scale and "x2.4" from a doubling on, "0.5 percentage points" for shares, "3.2 ms" on the
    linear scale; ``signed`` puts the direction before it, without it the size alone is written.
    """
    if not math.isfinite(value):
        return "unknown"
    if spec.scale == "log" and value >= DOUBLE:
        return f"x{1.0 + value:.3g}"
    shown = value if signed else abs(value)
    if spec.scale == "log":
        text, name = _percent(shown), "%"
    elif in_points(spec):
        text, name = _percent(shown), "percentage points"
    else:
        text, name = number(shown), spec.unit
    text = _signed(text) if signed else text
    return f"{text} {name}".rstrip() if unit else text


def between(low: float, high: float, spec: MetricSpec) -> str:
    """Write what is known of a change: " (+12 % to +24 %)", one bound alone, or nothing."""
    if spec.scale == "log" and low < NOTHING:
        low = -math.inf
    if math.isfinite(low) and math.isfinite(high):
        plain = spec.scale != "log"
        return f" ({change(low, spec, signed=True, unit=not plain)} to {change(high, spec, signed=True)})"
    if math.isfinite(low):
        return f" (at least {change(low, spec, signed=True)})"
    if math.isfinite(high):
        return f" (at most {change(high, spec, signed=True)})"
    return ""


def _reference(method: str) -> str:
    """Name what the metric was compared with."""
    if method.startswith("before-after"):
        return "its level before the deployment"
    if method.startswith("difference-in-differences"):
        return "what the control group's change would suggest"
    return "the baseline"


def sentence(
    result: Result,
    i: int,
    *,
    verdict: int | None = None,
    reason: str | None = None,
    among: int = 0,
    clock: tuple[float, float] = UNKNOWN_CLOCK,
) -> str:
    """Return the sentence on series ``i``.

    Parameters
    ----------
    verdict, reason:
        Replace the series' own, after a correction for many.
    among:
        How many series were judged together.
    clock:
        Epoch seconds of column 0 and the step; without it the onset is told as a point.
    """
    spec, method = result.specs[i], result.method[i]
    v = int(result.verdict[i]) if verdict is None else verdict
    why = result.reason[i] if reason is None else reason
    if method.startswith("threshold"):
        from tidegate_analysis.thresholds import threshold_sentence

        return threshold_sentence(result, i, verdict=v, reason=why, among=among)
    effect = float(result.effect[i])
    margin_value = float(result.margin[i])
    margin = change(margin_value, spec)
    span = between(float(result.effect_low[i]), float(result.effect_high[i]), spec)
    moved = f"it changed by {change(effect, spec, signed=True)}{span}" if math.isfinite(effect) else ""
    if v == Verdict.FAIL:
        # The windows counted the typical value's change, which is not what a failing tail rests on.
        history = "" if why == "tail_regression" else _history(result, i)
        return f"{_failing(result, i, why, span, clock)}{history}."
    if v == Verdict.PASS:
        return f"{spec.name} is not worse: {moved}, which is within the margin of {margin}."
    if why == "too_few_points":
        points = min(int(result.n_baseline[i]), int(result.n_canary[i]))
        what = "point is" if points == 1 else "points are"
        few = f"only {points} {what} there, at least {MIN_POINTS} are needed" if points < MIN_POINTS else ""
        return f"{spec.name}: {few or 'there are too few points to tell'}."
    alone = method.startswith(("before-after", "difference-in-differences"))
    text = (_WHY_ALONE.get(why) if alone else None) or _WHY.get(why, why.replace("_", " "))
    n = among or len(result)
    text = text.format(n=n) if n > 1 or "{n}" not in text else "it does not stand out from chance"
    stretch = next((note.message for note in result.quality[i] if note.code == "stretch"), "")
    if stretch and why in ("stretch_in_doubt", "not_enough_evidence"):
        text = f"{'the whole is fine' if why == 'stretch_in_doubt' else text}, but {stretch}"
    if why == "constant" and math.isfinite(effect) and effect != 0.0:
        text = f"nothing moves, so there is no yardstick for its change of {change(effect, spec, signed=True)}"
    if moved and why in _TELLS_CHANGE:
        text += f"; so far {moved}" + (f", the margin is {margin}" if math.isfinite(margin_value) else "")
        seconds = float(result.seconds_to_answer[i])
        if why == "not_enough_evidence" and seconds <= LONGEST_WAIT:
            text += f"; if there is no change, about {duration(seconds)} more would show it"
    return f"{spec.name}: {text}."


def _failing(result: Result, i: int, why: str, span: str, clock: tuple[float, float]) -> str:
    spec = result.specs[i]
    effect = float(result.effect[i])
    reference = _reference(result.method[i])
    moved = change(effect, spec, signed=True)
    if why == "tail_regression":
        worst = f"its worst points are {_apart(float(result.tail_effect[i]), spec, 'those of ' + reference)}"
        return f"{spec.name}: {worst}, while its typical value changed by {moved}{span}"
    worse = -effect if spec.direction == "down_is_worse" else abs(effect) if spec.direction == "either" else effect
    if math.isnan(effect):
        # No ratio to a baseline without any events.
        levels = (number(float(a[i]), spec.unit) for a in (result.canary_level, result.baseline_level))
        return f"{spec.name} is at {' where '.join(levels)} is usual{span}"
    if worse <= 0:
        now = f"; by now it changed by {moved}{span}" if math.isfinite(effect) else ""
        return f"{spec.name} was shown to be worse than {reference} earlier in the watch{now}"
    onset = int(result.onset[i])
    since = f", since {moment(onset, clock)}" if onset >= 0 else ""
    return f"{spec.name} is {_apart(effect, spec, reference)}{span}{since}"


def _apart(effect: float, spec: MetricSpec, reference: str) -> str:
    if spec.scale == "log" and effect >= DOUBLE:
        return f"{1.0 + effect:.3g} times {reference}"
    return f"{change(effect, spec)} {'above' if effect > 0 else 'below'} {reference}"


def stretch_note(spec: MetricSpec, first: int, length: int, effect: float) -> QualityNote:
    """Return the note on scrapes in a row that stand out: from which on (0-based), how many, and how far off.

    Of histograms, whose scrapes are told as superiorities, only that they do.
    """
    off = "" if spec.kind == "histogram" else f" by {change(effect, spec, signed=True)}"
    return QualityNote("stretch", length, f"{length} scrapes in a row stand out, from point {first + 1} on{off}")


def moment(column: int, clock: tuple[float, float]) -> str:
    """Write when a column was: "12:41 UTC", or "point 5" when no clock is known."""
    start, step = clock
    last = start + column * step
    if not (math.isfinite(last) and start >= FIRST_DATE and last <= LAST_DATE):
        return f"point {column + 1}"
    at = datetime.fromtimestamp(start + column * step, tz=UTC)
    if step >= 3600:
        return f"{at:%Y-%m-%d %H:%M} UTC"  # such a watch lasts for days
    return f"{at:%H:%M} UTC" if step >= 60 else f"{at:%H:%M:%S} UTC"


def duration(seconds: float) -> str:
    """Write a duration in the unit a person would use."""
    if seconds < 90:
        return "1 second" if seconds < 1.5 else f"{seconds:.0f} seconds"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    if seconds < 36 * 3600:
        return f"{seconds / 3600:.1f} hours"
    if seconds < 2 * 365 * 86400:
        return f"{seconds / 86400:.1f} days"
    return f"{seconds / (365.25 * 86400):,.0f} years"


def _history(result: Result, i: int) -> str:
    windows = int(result.history_windows[i])
    if windows == 0:
        return ""
    seen = int(result.history_exceeding[i])
    plural = "" if windows == 1 else "s"
    return f"; a change this large was seen in {seen} of {windows} comparable window{plural}"
