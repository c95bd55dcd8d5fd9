"""The rank kernels against what there is: ``np.sort`` of the same array, scipy over an axis, scipy in a loop.

All candidates run interleaved in one process, round after round, and the best time of each counts, so that
a busy moment of the machine hits them all alike. The yardstick is the sort: no rank test can do without
one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tidegate_analysis.kernels import ranks

from benchmarks.report import Table, met

SEED = 20240101
PAIRS, POINTS = 2000, 60
TARGET_PLAIN, TARGET_TIES = 3.0, 8.0

Array = NDArray[np.float64]


def interleaved(candidates: dict[str, Callable[[], Any]], rounds: int, burst: int = 3) -> dict[str, float]:
    """Return the best seconds of each candidate over ``rounds`` rounds in which each runs ``burst`` times.

    A burst of calls lets each candidate find its own memory warm; one call each in turn would time the
    others' traces.
    """
    best = dict.fromkeys(candidates, float("inf"))
    for _ in range(rounds):
        for name, candidate in candidates.items():
            for _ in range(burst):
                started = time.perf_counter()
                candidate()
                best[name] = min(best[name], time.perf_counter() - started)
    return best


def data(case: str, pairs: int, points: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return both arms of a case: ``plain``, ``heavy ties`` (5 distinct values), ``2 % NaN``."""
    x, y = rng.standard_normal((2, pairs, points))
    if case == "heavy ties":
        x, y = np.clip(np.round(x), -2, 2), np.clip(np.round(y), -2, 2)
    elif case == "2 % NaN":
        x[rng.random(x.shape) < 0.02] = np.nan
        y[rng.random(y.shape) < 0.02] = np.nan
    return np.asarray(x), np.asarray(y)


def _loop(x: Array, y: Array) -> None:
    for a, b in zip(x, y, strict=True):
        stats.mannwhitneyu(a, b, method="asymptotic", nan_policy="omit")


def run(out_dir: Path, quick: bool) -> dict[str, Any]:  # noqa: ARG001 - the same signature everywhere
    """Return the table of times and ratios to the sort."""
    rng = np.random.default_rng(SEED)
    rounds, loop_pairs = (10, 40) if quick else (50, 200)
    table = Table(
        f"Rank kernels, {PAIRS} pairs of {POINTS} v {POINTS}: microseconds per pair, best of {rounds}",
        [
            "data",
            "np.sort",
            "rank_sums",
            "ratio",
            "target",
            "",
            "midranks",
            "ratio",
            "scipy mannwhitneyu(axis=1)",
            "scipy loop",
            "faster than axis",
            "faster than loop",
        ],
    )
    figures: dict[str, Any] = {}
    for case in ("plain", "heavy ties", "2 % NaN"):
        x, y = data(case, PAIRS, POINTS, rng)
        both = np.concatenate([x, y], axis=1)
        few = slice(0, loop_pairs)
        times = interleaved(
            {
                "sort": partial(np.sort, both, axis=1),
                "rank_sums": partial(ranks.rank_sums, x, y),
                "midranks": partial(ranks.midranks, both),
            },
            rounds,
        )
        # With NaN scipy loops inside its axis form: fewer rows keep the run short.
        axis_rows = few if case == "2 % NaN" else slice(None)
        over_axis = partial(stats.mannwhitneyu, axis=1, method="asymptotic", nan_policy="omit")
        slow = interleaved(
            {"axis": partial(over_axis, x[axis_rows], y[axis_rows]), "loop": partial(_loop, x[few], y[few])},
            max(rounds // 10, 2),
            burst=1,
        )
        per = {name: 1e6 * seconds / PAIRS for name, seconds in times.items()}
        per["axis"] = 1e6 * slow["axis"] / (loop_pairs if case == "2 % NaN" else PAIRS)
        per["loop"] = 1e6 * slow["loop"] / loop_pairs
        ratio = per["rank_sums"] / per["sort"]
        target = TARGET_PLAIN if case == "plain" else TARGET_TIES
        table.add(
            case,
            per["sort"],
            per["rank_sums"],
            f"{ratio:.2f}",
            f"<= {target:g}",
            met(ratio, target),
            per["midranks"],
            f"{per['midranks'] / per['sort']:.2f}",
            per["axis"],
            per["loop"],
            f"{per['axis'] / per['rank_sums']:.0f}x",
            f"{per['loop'] / per['rank_sums']:.0f}x",
        )
        figures[case] = {**per, "ratio": ratio, "target": target, "met": bool(ratio <= target)}
        U = ranks.rank_sums(x, y)[0][:loop_pairs]
        reference = stats.mannwhitneyu(x[few], y[few], axis=1, method="asymptotic", nan_policy="omit").statistic
        figures[case]["largest_difference_to_scipy"] = float(np.abs(U - reference).max())
    differences = ", ".join(f"{k} {v['largest_difference_to_scipy']:.1g}" for k, v in figures.items())
    table.notes += [
        "rank_sums gives Mann and Whitney's U and the tie term; midranks ranks in column order.",
        f"scipy's loop is timed on {loop_pairs} pairs, as is its axis form with NaN (it loops inside).",
        "All candidates run in turn, round after round, in one process.",
        f"Largest difference of U to scipy: {differences}.",
    ]
    return {"seed": SEED, "figures": figures, "tables": [table.as_dict()]}
