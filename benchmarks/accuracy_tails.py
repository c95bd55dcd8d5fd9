"""How often a tail that got worse is found, and how often one that did not is called a fault.

Two arms with 28 past windows, once at the end of 60 points and on every scrape, beside the peers. A fault of the tail
leaves the typical value as it is; what got better, or worse by less than the margin, is no fault. Shares are per cent
of trials; the tables of :mod:`benchmarks.accuracy` hold them against their targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import tidegate_analysis as ta
from numpy.typing import NDArray
from tidegate_analysis import simulate
from tidegate_analysis.spec import Direction

from benchmarks import peers
from benchmarks.report import Table, met, percent, size_limit

Array = NDArray[np.float64]

ALPHA = 0.02
POINTS, WINDOWS = 60, 28
MARGIN = 0.10
# Structure and robust spread of the logarithm.
NOISES = {
    "iid, 5 %": ("iid", 0.05),
    "iid, 20 %": ("iid", 0.2),
    "AR .6, 10 %": ("ar.6", 0.1),
    "AR .9, 10 %": ("ar.9", 0.1),
    "t with 1.5 df, 5 %": ("t1.5", 0.05),
}


@dataclass(frozen=True)
class Change:
    """What becomes of the canary, the direction that is worse, and whether it is a fault."""

    text: str
    direction: Direction
    worse: bool
    apply: Callable[[Array], Array]


def _largest(share: float, factor: float) -> Callable[[Array], Array]:
    return lambda c: simulate.inject(c, "tail", factor - 1.0, scale="log", share=share)


def _smallest(share: float, factor: float) -> Callable[[Array], Array]:
    return lambda c: np.where(c <= np.quantile(c, share, axis=1, keepdims=True), c * factor, c)


CHANGES = (
    Change("healthy", "up_is_worse", False, lambda c: c),
    Change("healthy, either", "either", False, lambda c: c),
    Change("top 5 % x3", "up_is_worse", True, _largest(0.05, 3.0)),
    Change("top 20 % x3", "up_is_worse", True, _largest(0.2, 3.0)),
    Change("lowest 10 % / 3, down is worse", "down_is_worse", True, _smallest(0.1, 1 / 3)),
    Change("top 5 % x3, either", "either", True, _largest(0.05, 3.0)),
    Change("lowest 10 % / 3: better", "up_is_worse", False, _smallest(0.1, 1 / 3)),
    Change("top 20 % x3, down is worse: better", "down_is_worse", False, _largest(0.2, 3.0)),
    Change("top 5 % x1.03: within the margin", "up_is_worse", False, _largest(0.05, 1.03)),
)


def tails(name: str, n: int, seeds: Any) -> dict[str, dict[str, float]]:
    """Return the shares of one kind of noise: of FAIL and PASS at one look, ever and in the end, and of the peers."""
    structure, spread = NOISES[name]
    w = simulate.windows(structure, n, WINDOWS, POINTS, rng=seeds("tails", name), positive=True, spread=spread)
    usual = np.median(w.history[:, :, 0].reshape(n, -1), axis=1)
    out = {}
    for change in CHANGES:
        spec = ta.MetricSpec("p95", "gauge", change.direction, "log", MARGIN)
        canary = change.apply(w.canary)
        once = ta.compare(w.baseline, canary, spec=spec, history=w.history).verdict
        # A FAIL of a stream stays: what it says in the end tells whether it ever said so.
        stream = ta.open_stream([spec] * n, history=w.history, horizon=POINTS)
        stream.update(w.baseline, canary)
        watched = stream.result().verdict
        out[change.text] = {
            "watched": float(np.mean(watched == ta.Verdict.FAIL)),
            "watched, pass": float(np.mean(watched == ta.Verdict.PASS)),
            "once": float(np.mean(once == ta.Verdict.FAIL)),
            "once, pass": float(np.mean(once == ta.Verdict.PASS)),
            **{peer: float(np.mean(judge(w.baseline, canary, usual))) for peer, judge in peers.PEERS.items()},
        }
    return out


def table(found: dict[str, dict[str, dict[str, float]]], n: int) -> Table:
    """Return the table of tails: a row for every change and noise."""
    limit = size_limit(ALPHA, n)
    out = Table(
        f"Tails of two arms with {WINDOWS} past windows and a margin of {percent(MARGIN, 0)} %: % (n = {n})",
        ["change", "noise", "every scrape: FAIL", "target", "", "PASS", "one look: FAIL", "PASS", *peers.PEERS],
    )
    for change in CHANGES:
        for name, by_change in found.items():
            f = by_change[change.text]
            goal, at_most = (0.5, False) if change.worse else (limit, True)
            out.add(
                change.text,
                name,
                percent(f["watched"]),
                f"{'<=' if at_most else '>='} {percent(goal)}",
                met(f["watched"], goal, at_most=at_most),
                percent(f["watched, pass"], 0),
                percent(f["once"]),
                percent(f["once, pass"], 0),
                *[percent(f[peer], 0) for peer in peers.PEERS],
            )
    out.notes += [
        "Up is worse unless the row says otherwise. Peers look once, and upwards whatever the row says.",
        "The top 5 % are 3 of 60 points.",
    ]
    return out


def targets(figures: dict[str, Any]) -> list[tuple[str, dict[str, float], float, bool]]:
    """Return what was to be reached: text, values, limit, and whether they may be at most that."""
    n, found = figures["n"], figures["tails"]
    out = []
    for key, text in (("watched", "every scrape"), ("once", "one look")):
        for worse, what, goal in ((False, "no fault: FAIL", size_limit(ALPHA, n)), (True, "tail x3: found", 0.5)):
            values = {
                f"{change.text}, {name}": by_change[change.text][key]
                for name, by_change in found.items()
                for change in CHANGES
                if change.worse is worse
            }
            out.append((f"tails, {text}, history, {what}", values, goal, not worse))
    return out


def run(n: int, seeds: Any) -> tuple[dict[str, Any], Table]:
    """Return figures and the table; ``seeds(*parts)`` gives the generator of one part."""
    found = {name: tails(name, n, seeds) for name in NOISES}
    return {"tails": found, "n": n}, table(found, n)
