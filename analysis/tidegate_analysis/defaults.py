"""What a spec leaves open, derived from the metric's name, unit and values. See docs/methods/defaults.md.

A name never changes, values do. :func:`resolve_by_name` uses name and unit alone and says what it left open;
:func:`resolve_all` and :func:`resolve` also look at values. A stream resolves once, from its history or its
first block, and keeps what it got: nothing here remembers or decides again.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate_analysis.prepare import HUGE
from tidegate_analysis.spec import Direction, Kind, MetricSpec, Scale

Array = NDArray[np.float64]

RELATIVE_MARGIN = 0.10
"""Margin on the log scale, and on the linear one as a share of the baseline's level."""
COUNT_MARGIN = 0.25
"""Margin of event counts without a total, relative: showing 10 % would need thousands of events."""
RATIO_MARGIN = 0.005
"""Margin of event ratios: half a percentage point."""
SHARE_MARGIN = 0.05
"""Margin of shares of a capacity: five percentage points."""
MOSTLY_ZERO = 0.5
"""Share of zeros from which integers of unknown name are taken for rare events."""
FALLING = 0.1
"""Share of falling steps above which a series with a counter's name is no running total any more."""

# Points that are looked at at a time.
PORTION = 1 << 17

# Families of words. The first family that a name has a word of decides, in the order of :func:`name_facts`.
_WORDS = {
    "time": """
        latency latencies duration durations delay delays lag wait waiting time elapsed rtt ttfb lcp fcp
        inp fid tti pause pauses staleness age""",
    "failure": """
        error errors err errs fail failed fails failure failures fault faults exception exceptions panic
        panics crash crashes crashed restart restarts timeout timeouts retry retries drop drops dropped
        reject rejects rejected rejections denied abort aborts aborted cancelled canceled 4xx 5xx 400 404
        429 500 502 503 504 oom oomkilled kills killed throttle throttled throttles throttling limited
        unavailable unhealthy miss misses missed lost loss invalid deadlock deadlocks conflict conflicts
        eviction evictions evicted corrupt corrupted violation violations blocked stuck overflow overflows
        refused unreachable discarded discards bad dead deadletter dlq bounce bounced bounces incident
        incidents alert alerts rollback rollbacks disconnect disconnects fallback fallbacks shed not un
        terminated terminations slow incomplete incorrect unanswered undelivered unsuccessful unsent unsynced
        unschedulable unauthorized unauthorised forbidden abandoned abandonment churn churned complaint complaints
        refund refunds fraud spam breach breaches stall stalls stalled rebuffer rebuffering jank missing retransmit
        retransmits retransmitted affected degraded""",
    "good": """
        success successes successful succeeded ok available availability healthy hit hits conversion
        conversions converted revenue orders purchases purchase signups signup checkouts payments free
        idle remaining headroom ready apdex uptime up 2xx 200 completed delivered accepted passed
        satisfied alive avail freeable usable spare users viewers players visitors subscribers customers""",
    "neutral": """
        timestamp created info build version epoch temperature limit limits quota network receive received
        transmit transmitted sent ingress egress bandwidth sessions expiry expires expiration""",
    "load": """
        cpu memory mem rss heap gc load usage used utilization utilisation saturation busy queue queued
        backlog pending unacked unacknowledged unprocessed
        inflight depth disk swap goroutines threads fds descriptors working allocated
        allocations alloc allocs bytes resident collections iowait steal context pool cost burn dirty
        inodes watermark buffer buffered cls active load1 load5 load15""",
    "traffic": """
        requests request rps qps tps throughput traffic calls queries messages events ops operations
        transactions processed published consumed records rows commit commits reads writes served invocations
        jobs tasks packets""",
    "quantile": """
        p50 p75 p90 p95 p98 p99 p999 median percentile quantile seconds milliseconds millis ms nanos
        micros""",
    "share": """
        ratio fraction utilization utilisation saturation share availability apdex""",
    "percent": "percent pct percentage",
    "rate": "rate rates",
    "time unit": """
        s ms us ns seconds second milliseconds millisecond microseconds nanoseconds minutes min""",
    "byte unit": "by bytes byte b kib mib gib kb mb gb kby mby gby",
}
_FAMILY = {family: frozenset(listed.split()) for family, listed in _WORDS.items()}
# Shares of these are told by points, not by half points.
_COARSE = frozenset({"hit", "hits", "miss", "misses", "idle", "free", "avail", "available", "freeable", "usable"})
# Families of which a negative value is an error of whoever measured.
_AMOUNTS = frozenset({"time", "failure", "load", "traffic", "quantile"})
# What is left of something, whatever that is.
_LEFT = frozenset({"remaining", "headroom"})
_LINES = frozenset({"queue", "queues", "queued", "backlog"})
# Sizes of messages and bytes per second: smaller may be an empty page, larger a heavy one.
_CARRIED = frozenset({"request", "requests", "response", "responses", "second", "sec"})
# Words whose rate is a share of all, not a number per second.
_PARTED = frozenset({"hit", "hits", "miss", "misses", "success", "error", "errors", "failure", "failures"})

_SPLIT = re.compile(r"[^A-Za-z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, slots=True)
class NameFacts:
    """What a name and a unit tell.

    ``direction``; ``running``: named like a running total; ``event``: counts something that goes wrong;
    ``share``: a share of a whole; ``percent``: in hundredths; ``quality``: the share of things that go well
    or wrong, so that half a point matters; ``family`` that decided.
    """

    direction: Direction
    running: bool
    event: bool
    share: bool
    percent: bool
    quality: bool
    family: str


def words(name: str) -> tuple[str, ...]:
    """Return the lower-case words of a metric's name; ``http_5xxErrors`` gives ``http, 5xx, errors``."""
    parts = [piece for chunk in _SPLIT.split(name) for piece in _CAMEL.split(chunk) if piece]
    return tuple(part.lower() for part in parts)


@lru_cache(maxsize=16384)
def name_facts(name: str, unit: str = "") -> NameFacts:
    """Return what a name and a unit tell; cached."""
    tokens = words(name)
    text = unit.strip().lower()
    found = {family for family, listed in _FAMILY.items() if listed.intersection(tokens)}
    # Crash-free, error-free: good, although the word is a bad one.
    free_of = any(a in _FAMILY["failure"] and b == "free" for a, b in itertools.pairwise(tokens))
    if _FAMILY["good"].intersection(tokens) == {"ready"} and _LINES.intersection(tokens):
        found.discard("good")  # messages that are ready wait in line
    if ("start" in tokens or "boot" in tokens) and "time" in tokens:
        family = "neutral"
    elif "uptime" in tokens or free_of or _LEFT.intersection(tokens):
        family = "good"
    elif "time" in found or text in _FAMILY["time unit"]:
        family = "time"
    elif found & {"failure", "good", "neutral"}:
        family = next(one for one in ("failure", "good", "neutral") if one in found)
    elif _FAMILY["load"].intersection(tokens) == {"bytes"} and _CARRIED.intersection(tokens):
        family = "neutral"
    elif "load" in found or text in _FAMILY["byte unit"]:
        family = "load"
    elif "traffic" in found or text.endswith(("/s", "/sec", "/min")) or text in ("rps", "qps", "tps"):
        family = "traffic"
    elif "quantile" in found:
        family = "time"
    else:
        family = "unknown"
    directions: dict[str, Direction] = {
        "time": "up_is_worse",
        "failure": "up_is_worse",
        "load": "up_is_worse",
        "good": "down_is_worse",
        "traffic": "down_is_worse",
    }
    percent = text in ("%", "percent", "pct") or "percent" in found
    rate = "rate" in found
    # Dotted names come from systems whose counts are already per interval.
    running = "." not in name and bool(tokens) and tokens[-1] in ("total", "count", "sum", "bucket")
    share = "share" in found or text in ("1", "ratio") or percent or free_of
    share = share or (rate and bool(_PARTED.intersection(tokens)))
    return NameFacts(
        direction=directions.get(family, "either"),
        running=running,
        event=family == "failure" and not share and not rate,
        share=share,
        percent=percent,
        quality=share and family in ("failure", "good") and (free_of or not _COARSE.intersection(tokens)),
        family=family,
    )


class ValueFacts(NamedTuple):
    """What values tell, arrays over series ``(S,)``.

    ``points``: finite values; ``positive``: all above 0; ``unit``: all within [0, 1]; ``hundred``: all within
    [50, 100]; ``whole``: all integers at least 0; ``zeros``: share of zeros; ``falling``: share of falling steps;
    ``fell_below``: the canary has negative values, and a baseline that is there has none; ``level``: median of the
    baseline (of the canary where there is none); ``spread``: mean distance from 0.
    """

    points: NDArray[np.int64]
    positive: NDArray[np.bool_]
    unit: NDArray[np.bool_]
    hundred: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    zeros: Array
    falling: Array
    fell_below: NDArray[np.bool_]
    level: Array
    spread: Array


def value_facts(baseline: ArrayLike, canary: ArrayLike) -> ValueFacts:
    """Return the facts of ``(S, points)`` values, both arms together; those not finite are left out.

    Raises
    ------
    ValueError
        When an arm has not the two axes (series, points), or the arms differ in series.
    """
    arms = []
    for name, value in (("baseline", baseline), ("canary", canary)):
        array = np.asarray(value, dtype=np.float64)
        if array.ndim != 2:
            raise ValueError(f"{name}: must have the two axes (series, points), not {array.ndim}")
        arms.append(array)
    first, second = arms
    if len(first) != len(second):
        raise ValueError(f"canary: has {len(second)} series, the baseline {len(first)}")
    size = max(1, PORTION // max(first.shape[1] + second.shape[1], 1))
    parts = [_value_facts(first[k : k + size], second[k : k + size]) for k in range(0, max(len(first), 1), size)]
    return parts[0] if len(parts) == 1 else ValueFacts(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _value_facts(first: Array, second: Array) -> ValueFacts:
    """Return the facts of a portion of the series, whose arrays stay in the cache."""
    arms = (first, second)
    both = np.concatenate(arms, axis=1)
    with np.errstate(invalid="ignore"):
        fine = np.abs(both) <= HUGE
    count = fine.sum(axis=1)
    some = count > 0
    filled = np.where(fine, both, np.nan)
    low, high = (
        np.where(fine, both, np.inf).min(axis=1, initial=np.inf),
        np.where(fine, both, -np.inf).max(axis=1, initial=-np.inf),
    )
    usual = fine[:, : first.shape[1]]
    never_below = usual.any(axis=1) & (np.where(usual, first, 0.0) >= 0).all(axis=1)
    zero = np.where(fine, both, 1.0) == 0
    safe = np.where(fine, both, 0.0)
    whole = (safe == np.floor(safe)).all(axis=1)
    steps = falls = np.zeros(len(both), dtype=np.int64)
    for arm in arms:
        ok = np.isfinite(arm)
        near = ok[:, 1:] & ok[:, :-1]
        move = np.where(near, arm[:, 1:], 0.0) < np.where(near, arm[:, :-1], 0.0)
        steps, falls = steps + near.sum(axis=1), falls + move.sum(axis=1)
    level = _median(first)
    level = np.where(np.isnan(level), _median(second), level)
    with np.errstate(over="ignore"):
        spread = np.nansum(np.abs(filled), axis=1) / np.maximum(count, 1)
    return ValueFacts(
        count,
        some & (low > 0),
        some & (low >= 0) & (high <= 1),
        some & (low >= 50) & (high <= 100),
        some & whole & (low >= 0),
        zero.sum(axis=1) / np.maximum(count, 1),
        falls / np.maximum(steps, 1),
        never_below & (low < 0),
        level,
        spread,
    )


def _median(values: Array) -> Array:
    """Median of the finite values of each row, NaN for none."""
    if values.shape[1] == 0:
        return np.full(len(values), np.nan)
    s = np.sort(np.where(np.isfinite(values), values, np.nan), axis=1)
    n = (~np.isnan(s)).sum(axis=1)
    rows = np.arange(len(s))
    middle = 0.5 * s[rows, np.maximum(n - 1, 0) // 2] + 0.5 * s[rows, np.minimum(n // 2, s.shape[1] - 1)]
    return np.where(n > 0, middle, np.nan)


class _Seen(NamedTuple):
    """The few facts about values that a decision rests on; hashable, so that equal cases are decided once."""

    any: bool
    exposed: bool
    positive: bool
    unit: bool
    hundred: bool
    whole: bool
    sparse: bool
    falls: bool
    fell_below: bool


_Derived = tuple[MetricSpec, tuple[str, ...], str]


@lru_cache(maxsize=65536)
def _decide(spec: MetricSpec, seen: _Seen) -> _Derived:
    """Return the spec with all set but a margin that needs the level, the fields, and where it comes from."""
    facts = name_facts(spec.name, spec.unit)
    # An availability of 99.95 is told in per cent, whether its name says so or not.
    percent = facts.percent or (facts.quality and facts.family == "good" and seen.hundred)
    changes: dict[str, object] = {}
    kind = spec.kind
    if kind == "auto":
        kind = _kind(facts, seen, spec.scale)
        changes["kind"] = kind
    if spec.direction == "auto":
        direction = facts.direction
        # Failures among all: whoever sends events and a total without a telling name means failures.
        if kind == "ratio" and facts.family in ("unknown", "traffic"):
            direction = "up_is_worse"
        changes["direction"] = direction
    scale: Scale = spec.scale
    if scale == "auto":
        if kind == "count":
            scale = "log"
        elif kind in ("ratio", "saturation", "histogram"):
            scale = "linear" if kind != "histogram" else "log"
        else:
            # What is measured in amounts is never negative: values below 0 are bad, and not a reason to take others.
            above = seen.positive or not seen.any or (seen.fell_below and facts.family in _AMOUNTS)
            scale = "log" if above and not (facts.quality and (seen.unit or percent)) else "linear"
        changes["scale"] = scale
    how = "given"
    if spec.margin is None:
        how = "fixed"
        if kind == "ratio":
            changes["margin"] = RATIO_MARGIN
        elif kind == "saturation":
            changes["margin"] = RATIO_MARGIN if facts.quality else SHARE_MARGIN
        elif kind == "count":
            changes["margin"] = COUNT_MARGIN
        elif scale == "log":
            changes["margin"] = RELATIVE_MARGIN
        elif facts.quality and percent:
            changes["margin"] = 100.0 * RATIO_MARGIN
        elif facts.quality and seen.unit:
            changes["margin"] = RATIO_MARGIN
        else:
            how = "level"
    fields = tuple(changes)
    if how == "level":
        fields += ("margin",)
    return (spec.with_(**changes) if changes else spec), fields, how


def _kind(facts: NameFacts, seen: _Seen, scale: Scale) -> Kind:
    if seen.exposed:
        return "ratio"
    if facts.running and not seen.falls:
        return "counter"
    if seen.any and seen.whole and seen.unit and facts.family == "good" and scale != "log":
        return "saturation"  # a binary series such as `up`: a share of time, not a count of events
    sparse = seen.sparse and not facts.share and facts.family not in ("load", "time")
    if seen.whole and (facts.event or sparse):
        return "count"
    if not seen.any and facts.event:
        return "count"
    if facts.share and not facts.percent and (seen.unit or not seen.any) and scale != "log":
        return "saturation"
    return "gauge"


def resolve_by_name(spec: MetricSpec) -> tuple[MetricSpec, tuple[str, ...], tuple[str, ...]]:
    """Fill in what name and unit decide alone.

    Returns
    -------
    spec, derived, open:
        The spec, the fields that were filled in, and those that need values. Direction never needs them. Kind
        needs them unless it was given: a counter's name may stand for a rate, "utilization" for per cent, an
        event's name for a mean. Scale does for gauges and counters, and so does the margin where it is a
        share of the level.
    """
    facts = name_facts(spec.name, spec.unit)
    changes: dict[str, object] = {}
    if spec.direction == "auto" and not (spec.kind == "ratio" and facts.family in ("unknown", "traffic")):
        changes["direction"] = facts.direction
    elif spec.direction == "auto":
        changes["direction"] = "up_is_worse"
    if spec.scale == "auto" and spec.kind in ("ratio", "saturation"):
        changes["scale"] = "linear"
    elif spec.scale == "auto" and spec.kind in ("count", "histogram"):
        changes["scale"] = "log"
    scale = changes.get("scale", spec.scale)
    if spec.margin is None:
        if spec.kind == "ratio":
            changes["margin"] = RATIO_MARGIN
        elif spec.kind == "saturation":
            changes["margin"] = RATIO_MARGIN if facts.quality else SHARE_MARGIN
        elif spec.kind == "count":
            changes["margin"] = COUNT_MARGIN
        elif scale == "log" and spec.kind != "auto":
            changes["margin"] = RELATIVE_MARGIN
    resolved = spec.with_(**changes) if changes else spec
    left = tuple(
        field
        for field, still in (
            ("kind", resolved.kind == "auto"),
            ("scale", resolved.scale == "auto"),
            ("margin", resolved.margin is None),
        )
        if still
    )
    return resolved, tuple(changes), left


def _open(spec: MetricSpec) -> bool:
    return "auto" in (spec.kind, spec.direction, spec.scale) or spec.margin is None


def resolve_all(
    specs: tuple[MetricSpec, ...],
    baseline: ArrayLike,
    canary: ArrayLike,
    has_exposure: bool | NDArray[np.bool_] = False,
) -> tuple[tuple[MetricSpec, ...], tuple[tuple[str, ...], ...], Array]:
    """Fill in everything that the specs leave open, for many series at once.

    Parameters
    ----------
    specs:
        One per series.
    baseline, canary:
        Values, ``(series, points)`` of each; the numbers of points may differ.
    has_exposure:
        Whether totals came with the values: one answer, or one per series.

    Returns
    -------
    resolved, derived, margin:
        Specs with no "auto" left, the fields that were filled in, and margins in the unit of the effect,
        ``(series,)``. A margin that is a share of the level (linear scale) is found here alone,
        ``spec.margin`` stays None.

    Raises
    ------
    ValueError
        When shapes do not fit.
    """
    size = len(specs)
    given = np.array([np.nan if _open(one) else float(one.margin or 0.0) for one in specs])
    if size and not np.isnan(given).any():
        return specs, ((),) * size, given
    facts = value_facts(baseline, canary)
    if len(facts.points) != size:
        raise ValueError(f"specs: {size} specs for {len(facts.points)} series")
    exposed = np.broadcast_to(np.asarray(has_exposure, dtype=bool), (size,))
    columns = (
        facts.points > 0,
        exposed,
        facts.positive,
        facts.unit,
        facts.hundred,
        facts.whole,
        facts.zeros >= MOSTLY_ZERO,
        facts.falling > FALLING,
        facts.fell_below,
    )
    rows = zip(*(column.tolist() for column in columns), strict=True)
    decided = [_decide(spec, _Seen(*row)) for spec, row in zip(specs, rows, strict=True)]
    resolved = tuple(one[0] for one in decided)
    margin = np.array([np.nan if one.margin is None else one.margin for one in resolved], dtype=np.float64)
    # A tenth of the level; around 0 of the typical distance from it. 1 where nothing ever differed from 0.
    level = RELATIVE_MARGIN * np.maximum(np.nan_to_num(np.abs(facts.level)), facts.spread)
    level = np.where(level > 0, level, 1.0)
    margin = np.where(np.isnan(margin), level, margin)
    return resolved, tuple(one[1] for one in decided), margin


def resolve(
    spec: MetricSpec, baseline_values: ArrayLike, canary_values: ArrayLike, *, has_exposure: bool = False
) -> tuple[MetricSpec, tuple[str, ...]]:
    """Fill in everything that one spec leaves open.

    Parameters
    ----------
    spec:
        What was asked for; fields that were set are never changed.
    baseline_values, canary_values:
        Values of either arm, ``(points,)``.
    has_exposure:
        Whether totals came with the values.

    Returns
    -------
    spec, derived:
        The spec with no field left open, and the names of the fields that were filled in.
    """
    (resolved,), (derived,), margin = resolve_all(
        (spec,), np.atleast_2d(baseline_values), np.atleast_2d(canary_values), has_exposure
    )
    if resolved.margin is None:
        resolved = resolved.with_(margin=float(margin[0]))
    return resolved, derived
