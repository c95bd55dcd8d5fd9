"""How long a judgement takes: whole, scrape by scrape, and from a hundred series to a hundred thousand.

One process, one thread. Best and median of several runs: the best is what the code costs, the median what
the machine makes of it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tidegate_analysis as ta
from tidegate_analysis import simulate

from benchmarks.report import Table, met

SEED = 20240303
METRICS, POINTS, WINDOWS = 500, 60, 28
JUDGEMENT_MS, UPDATE_MS = 25.0, 2.0
# Cost per series may not grow by more than this from the cheapest size to the largest.
GROWTH = 1.5


def timed(call: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Return best and median milliseconds of ``rounds`` calls, after one that is not counted."""
    call()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return 1e3 * min(seconds), 1e3 * statistics.median(seconds)


def _specs(n: int) -> list[ta.MetricSpec]:
    return [
        ta.MetricSpec(
            name=f"service-{k // 10}-latency-{k % 10}",
            kind="gauge",
            direction="up_is_worse",
            scale="log",
            margin=0.10,
            group=f"service-{k // 10}",
        )
        for k in range(n)
    ]


def judgement(rounds: int) -> tuple[Table, dict[str, Any]]:
    """Time the whole regression judgement of 500 metrics, and its parts."""
    drawn = simulate.windows("ar.6", METRICS, WINDOWS, POINTS, rng=SEED, positive=True)
    specs = _specs(METRICS)
    past = simulate.seasonal_minutes(METRICS // 10, 7, rng=SEED)
    few = specs[: METRICS // 10]
    result = ta.compare(drawn.baseline, drawn.canary, spec=specs, history=drawn.history)
    cases: list[tuple[str, Callable[[], Any], float]] = [
        (
            f"compare + judge, {METRICS} metrics, {POINTS} + {POINTS} points, {WINDOWS} past windows",
            lambda: ta.judge(ta.compare(drawn.baseline, drawn.canary, spec=specs, history=drawn.history)),
            JUDGEMENT_MS,
        ),
        (
            "compare alone",
            lambda: ta.compare(drawn.baseline, drawn.canary, spec=specs, history=drawn.history),
            float("nan"),
        ),
        ("judge alone", lambda: ta.judge(result), float("nan")),
        (
            f"compare + judge, {METRICS} metrics, no history",
            lambda: ta.judge(ta.compare(drawn.baseline, drawn.canary, spec=specs)),
            float("nan"),
        ),
        ("the sentences of all metrics", lambda: [result.explain(k) for k in range(METRICS)], float("nan")),
        (
            f"before_after + judge, {METRICS // 10} metrics, 7 days of minutes, {POINTS} after",
            lambda: ta.judge(ta.before_after(past.before, past.after, spec=few)),
            float("nan"),
        ),
    ]
    table = Table("A regression judgement, milliseconds", ["what", "best", "median", "target", ""])
    figures: dict[str, Any] = {}
    for name, call, target in cases:
        best, median = timed(call, rounds)
        asked = np.isfinite(target)
        table.add(name, best, median, f"<= {target:g}" if asked else "-", met(median, target) if asked else "-")
        figures[name] = {"best_ms": best, "median_ms": median}
    return table, figures


def streaming(rounds: int) -> tuple[Table, dict[str, Any]]:
    """Time one scrape of 500 metrics through an open stream, alone and with a look at the verdict."""
    drawn = simulate.windows("ar.6", METRICS, WINDOWS, POINTS, rng=SEED, positive=True)
    specs = _specs(METRICS)
    past = simulate.seasonal_minutes(METRICS // 10, 7, rng=SEED)
    table = Table(
        f"A scrape of {METRICS} metrics through an open stream, milliseconds over {POINTS} scrapes",
        ["stream", "update: median", "largest", "target", "", "judge: median", "state: kB", "open"],
    )
    figures: dict[str, Any] = {}
    for name, n, options in (
        ("concurrent, history, horizon", METRICS, {"history": drawn.history, "horizon": POINTS}),
        ("concurrent, history", METRICS, {"history": drawn.history}),
        ("concurrent", METRICS, {}),
        (
            f"before/after, 7 days, {METRICS // 10} metrics",
            METRICS // 10,
            {"design": "before_after", "before": past.before, "horizon": POINTS},
        ),
    ):
        updates: list[float] = []
        judges: list[float] = []
        opened = time.perf_counter()
        stream = ta.open_stream(specs[:n], **options)
        opened = 1e3 * (time.perf_counter() - opened)
        for _ in range(max(rounds // 10, 1)):
            stream = ta.open_stream(specs[:n], **options)
            for t in range(POINTS):
                if options.get("design") == "before_after":
                    baseline, canary = None, past.after[:, t : t + 1]
                else:
                    baseline, canary = drawn.baseline[:, t : t + 1], drawn.canary[:, t : t + 1]
                started = time.perf_counter()
                stream.update(baseline, canary)
                updates.append(1e3 * (time.perf_counter() - started))
                if t % 10 == 9:
                    started = time.perf_counter()
                    stream.judge()
                    judges.append(1e3 * (time.perf_counter() - started))
        update, judge = statistics.median(updates), statistics.median(judges)
        size = len(stream.state()) / 1024
        asked = n == METRICS
        table.add(
            name,
            update,
            max(updates),
            f"<= {UPDATE_MS:g}" if asked else "-",
            met(update, UPDATE_MS) if asked else "-",
            judge,
            f"{size:,.0f}",
            opened,
        )
        figures[name] = {"update_ms": update, "judge_ms": judge, "state_kb": size, "open_ms": opened}
    return table, figures


def scaling(quick: bool) -> tuple[Table, dict[str, Any]]:
    """Time ``compare`` from a hundred series to a hundred thousand."""
    sizes = (100, 1000, 10_000) if quick else (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
    table = Table(
        f"Cost per series of compare, {POINTS} + {POINTS} points, microseconds",
        ["series", "no history", f"{WINDOWS} past windows"],
    )
    figures: dict[str, Any] = {"series": [], "no history": [], "history": []}
    spec = ta.MetricSpec(name="latency", kind="gauge", direction="up_is_worse", scale="log", margin=0.10)
    base = simulate.windows("ar.6", 1000, WINDOWS, POINTS, rng=SEED, positive=True)
    for n in sizes:
        # The same thousand series again and again: what they hold does not matter to the clock.
        take = np.arange(n) % 1000
        rounds = 5 if n <= 10_000 else 2
        baseline, canary = base.baseline[take], base.canary[take]
        alone, _ = timed(lambda b=baseline, c=canary: ta.compare(b, c, spec=spec), rounds)  # type: ignore[misc]
        # 28 windows of 100,000 series are 2.7 GB: the long history stops a step earlier.
        past = float("nan")
        if n <= 30_000:
            history = base.history[take]
            past, _ = timed(
                lambda b=baseline, c=canary, h=history: ta.compare(b, c, spec=spec, history=h),  # type: ignore[misc]
                rounds,
            )
        alone_us, past_us = 1e3 * alone / n, 1e3 * past / n
        table.add(f"{n:,}", alone_us, past_us)
        figures["series"].append(n)
        figures["no history"].append(alone_us)
        figures["history"].append(past_us)
    for label in ("no history", "history"):
        cost = np.array(figures[label])
        known = np.isfinite(cost)
        ratio = float(cost[known][-1] / cost[known].min())
        figures[f"growth {label}"] = ratio
        table.notes.append(
            f"{label}: the largest size costs {ratio:.2f} times the cheapest per series; "
            f"at most {GROWTH:g} counts as constant: {met(ratio, GROWTH)}."
        )
    return table, figures


def plot(figures: dict[str, Any], path: Path) -> None:
    """Draw the cost per series over their number."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 3.6), layout="constrained")
    axes.plot(figures["series"], figures["no history"], "o-", label="no history")
    axes.plot(figures["series"], figures["history"], "s-", label=f"{WINDOWS} past windows")
    axes.set(xscale="log", xlabel="series in one call", ylabel="microseconds per series", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path)
    plt.close(figure)


def run(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run all three and draw the third."""
    rounds = 10 if quick else 30
    first, judged = judgement(rounds)
    second, streamed = streaming(rounds)
    third, scaled = scaling(quick)
    out_dir.mkdir(parents=True, exist_ok=True)
    plot(scaled, out_dir / "speed.svg")
    third.notes.append("Plot: speed.svg.")
    return {
        "seed": SEED,
        "figures": {"judgement": judged, "streaming": streamed, "scaling": scaled},
        "tables": [t.as_dict() for t in (first, second, third)],
    }
