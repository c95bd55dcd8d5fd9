"""How often a level is called wrong: absolute thresholds, and saturation near its ceiling.

Beside what people write by hand: the last value, or the mean of the window, against the bound. Shares are per cent of
trials; the tables of :mod:`benchmarks.accuracy` hold them against their targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import tidegate_analysis as ta
from numpy.typing import NDArray
from scipy import signal, stats

from benchmarks.report import Table, met, percent, size_limit

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

ALPHA, ALPHA_PASS = 0.02, 0.05
POINTS, WINDOWS = 60, 28
FIRST_LOOK = 10
BOUND, SPREAD = 300.0, 30.0
# Autocorrelation, and the standard deviation of the logarithm (0: normal noise of SPREAD).
NOISES: dict[str, tuple[float, float]] = {
    "iid": (0.0, 0.0),
    "AR .6": (0.6, 0.0),
    "AR .9": (0.9, 0.0),
    "lognormal, sd .5": (0.0, 0.5),
    "lognormal, sd .5, AR .6": (0.6, 0.5),
}
# Where the level lies: below the bound by one standard deviation of the points, at it, and half of one beyond.
PLACES = {"inside by 1 sd": -1.0, "at the bound": 0.0, "beyond by .5 sd": 0.5}
# Noises for which a window of 60 points can keep its promise; the tables say why not for the others.
MILD = ("iid", "AR .6", "lognormal, sd .5")
SATURATED, SATURATED_SD, SATURATED_MARGIN = 0.90, 0.03, 0.05
SATURATIONS = {"iid": 0.0, "AR .6": 0.6}


def autoregressive(shape: tuple[int, ...], rho: float, rng: np.random.Generator) -> Array:
    """Return standard normal noise whose neighbours along the last axis correlate by ``rho``."""
    start = rng.normal(size=(*shape[:-1], 1))
    steps = np.sqrt(1.0 - rho * rho) * rng.normal(size=shape)
    out, _ = signal.lfilter([1.0], [1.0, -rho], steps, axis=-1, zi=rho * start)
    return np.asarray(out)


def level_and_spread(log_sd: float) -> tuple[float, float]:
    """Return the level (10 % trimmed mean) and standard deviation of noise with median 1, or of standard normal noise.

    ``E[X; a < X < b]`` of a lognormal is ``exp(s^2 / 2) (Phi(z_b - s) - Phi(z_a - s))``.
    """
    if not log_sd:
        return 0.0, 1.0
    low, high = stats.norm.ppf([0.1, 0.9]) - log_sd
    mean = np.exp(log_sd**2 / 2)
    level = mean * (stats.norm.cdf(high) - stats.norm.cdf(low)) / 0.8
    return float(level), float(mean * np.sqrt(np.expm1(log_sd**2)))


def levels_at(name: str, place: float, n: int, rng: np.random.Generator, points: int = POINTS) -> Array:
    """Return series whose true level lies ``place`` standard deviations above the bound, (n, points)."""
    rho, log_sd = NOISES[name]
    z = autoregressive((n, points), rho, rng)
    level, spread = level_and_spread(log_sd)
    noise = np.exp(log_sd * z) if log_sd else z
    return BOUND + SPREAD * ((noise - level) / spread + place)


@dataclass(frozen=True)
class Asked:
    """Verdicts of one look, whether a FAIL or a PASS ever came at one of many looks, and what the peers said."""

    once: NDArray[np.int8]
    ever_failed: Bools
    ever_passed: Bools
    peers: dict[str, Bools]


def ask(values: Array, looked: int) -> Asked:
    """Ask whether levels stay below the bound: once at the end, and at every scrape for the first ``looked`` series."""
    spec = ta.MetricSpec("p95", "gauge", "up_is_worse", margin=0.1)
    once = ta.threshold(values, spec=spec, bound=BOUND).verdict
    few = values[:looked]
    failed, passed = np.zeros(len(few), dtype=bool), np.zeros(len(few), dtype=bool)
    for t in range(FIRST_LOOK, values.shape[1] + 1):
        verdict = ta.threshold(few[:, :t], spec=spec, bound=BOUND, anytime=True).verdict
        failed |= verdict == ta.Verdict.FAIL
        passed |= verdict == ta.Verdict.PASS
    running = np.cumsum(few, axis=1) / np.arange(1, values.shape[1] + 1)
    peers = {
        "last > bound, once": values[:, -1] > BOUND,
        "mean > bound, once": values.mean(axis=1) > BOUND,
        "last > bound, every scrape": (few > BOUND).any(axis=1),
        "mean > bound, every scrape": (running[:, FIRST_LOOK - 1 :] > BOUND).any(axis=1),
    }
    return Asked(once, failed, passed, peers)


def thresholds(name: str, n: int, looked: int, rng: np.random.Generator) -> dict[str, float]:
    """Return the shares of one kind of noise: of FAIL, PASS and the peers' alarms, by place of the level."""
    out: dict[str, float] = {}
    for place, shift in PLACES.items():
        found = ask(levels_at(name, shift, n, rng), looked)
        out[f"fail|{place}"] = float(np.mean(found.once == ta.Verdict.FAIL))
        out[f"pass|{place}"] = float(np.mean(found.once == ta.Verdict.PASS))
        out[f"ever fail|{place}"] = float(found.ever_failed.mean())
        out[f"ever pass|{place}"] = float(found.ever_passed.mean())
        out |= {f"{peer}|{place}": float(fails.mean()) for peer, fails in found.peers.items()}
    return out


def threshold_tables(found: dict[str, dict[str, float]], n: int, looked: int) -> list[Table]:
    """Return the tables of thresholds at one look and at every scrape."""
    tables = []
    for title, prefix, rows, peers in (
        (f"A level against a bound, one look after {POINTS} points", "", n, "once"),
        (f"A level against a bound, looked at on every one of {POINTS} scrapes", "ever ", looked, "every scrape"),
    ):
        limit, pass_limit = size_limit(ALPHA, rows), size_limit(ALPHA_PASS, rows)
        inside, at, beyond = PLACES
        table = Table(
            f"{title}: % (n = {rows})",
            [
                "noise",
                f"FAIL {inside}",
                f"FAIL {at}",
                f"<= {percent(limit, 2)}",
                f"PASS {at}",
                f"<= {percent(pass_limit, 2)}",
                f"PASS {beyond}",
                f"FAIL {beyond}",
                f"PASS {inside}",
                *[f"{rule} > bound: {place}" for rule in ("last", "mean") for place in PLACES],
            ],
        )
        for name, f in found.items():
            fail, passed = f[f"{prefix}fail|{at}"], f[f"{prefix}pass|{at}"]
            table.add(
                name,
                percent(f[f"{prefix}fail|{inside}"]),
                percent(fail),
                met(fail, limit),
                percent(passed),
                met(passed, pass_limit),
                percent(f[f"{prefix}pass|{beyond}"]),
                percent(f[f"{prefix}fail|{beyond}"], 0),
                percent(f[f"{prefix}pass|{inside}"], 0),
                *[percent(f[f"{rule} > bound, {peers}|{place}"], 0) for rule in ("last", "mean") for place in PLACES],
            )
        tables.append(table)
    tables[0].notes += [
        "The level is the 10 % trimmed mean. A skewed metric has it below its mean: there a plain mean alarms.",
        "At an autocorrelation of .9 the 60 points are worth 3; how few cannot be told from within the window.",
    ]
    return tables


def saturation(name: str, n: int, rng: np.random.Generator) -> dict[str, float]:
    """Return the shares of one kind of noise around 0.9 of a capacity: size, power of +.05, PASS at the margin."""
    rho = SATURATIONS[name]
    noise = SATURATED_SD * autoregressive((n, WINDOWS + 1, 2, POINTS), rho, rng)
    used = np.clip(SATURATED + noise, 0.0, 1.0)
    history, baseline, canary = used[:, :-1], used[:, -1, 0], used[:, -1, 1]
    worse = np.clip(SATURATED + SATURATED_MARGIN + noise[:, -1, 1], 0.0, 1.0)
    spec = ta.MetricSpec("cpu_utilization", "saturation", "up_is_worse", margin=1e-6)
    real = spec.with_(margin=SATURATED_MARGIN)
    out: dict[str, float] = {}
    for label, past in (("history", history), ("alone", None)):

        def share(arm: Array, asked: ta.MetricSpec, verdict: ta.Verdict, past: Array | None = past) -> float:
            found = ta.compare(baseline, arm, spec=asked, history=past).verdict
            return float(np.mean(found == verdict))

        out[f"size|{label}"] = share(canary, spec, ta.Verdict.FAIL)
        out[f"power|{label}"] = share(worse, spec, ta.Verdict.FAIL)
        out[f"false pass|{label}"] = share(worse, real, ta.Verdict.PASS)
        out[f"pass|{label}"] = share(canary, real, ta.Verdict.PASS)
    bound = SATURATED + SATURATED_MARGIN / 2
    for state, arm in (("healthy", canary), ("worse", worse)):
        out[f"last > bound|{state}"] = float(np.mean(arm[:, -1] > bound))
        out[f"mean > bound|{state}"] = float(np.mean(arm.mean(axis=1) > bound))
    return out


def saturation_table(found: dict[str, dict[str, float]], n: int) -> Table:
    """Return the table of saturation near its ceiling."""
    limit, pass_limit = size_limit(ALPHA, n), size_limit(ALPHA_PASS, n)
    table = Table(
        f"Saturation around {SATURATED:g}, sd {SATURATED_SD:g}, one look after {POINTS} points: % (n = {n})",
        [
            "noise",
            "past",
            "healthy: FAIL",
            f"<= {percent(limit, 2)}",
            "+.05: FAIL",
            "+.05 = margin: PASS",
            f"<= {percent(pass_limit, 2)}",
            "healthy: PASS",
            "last > .925: healthy / +.05",
            "mean > .925: healthy / +.05",
        ],
    )
    for name, f in found.items():
        peers = [
            " / ".join(percent(f[f"{rule} > bound|{state}"], 0) for state in ("healthy", "worse"))
            for rule in ("last", "mean")
        ]
        for label, past in (("history", f"{WINDOWS} windows"), ("alone", "none")):
            size, false_pass = f[f"size|{label}"], f[f"false pass|{label}"]
            table.add(
                name,
                past,
                percent(size),
                met(size, limit),
                percent(f[f"power|{label}"], 0),
                percent(false_pass),
                met(false_pass, pass_limit),
                percent(f[f"pass|{label}"], 0),
                *peers,
            )
    table.notes.append("The bound of the peers lies half way to the change, which nobody knows beforehand.")
    return table


def targets(figures: dict[str, Any], n: int, looked: int) -> list[tuple[str, dict[str, float], float]]:
    """Return what was to be reached: text, worst-of values, and limit."""
    at = "at the bound"
    found, full = figures["thresholds"], figures["saturation"]
    rows = [
        ("levels, one look, at the bound: false FAIL", "fail", ALPHA, n),
        ("levels, one look, at the bound: false PASS", "pass", ALPHA_PASS, n),
        ("levels, every scrape, at the bound: ever false FAIL", "ever fail", ALPHA, looked),
        ("levels, every scrape, at the bound: ever false PASS", "ever pass", ALPHA_PASS, looked),
    ]
    out = [
        (text, {name: f[f"{key}|{at}"] for name, f in found.items()}, size_limit(rate, rows_))
        for text, key, rate, rows_ in rows
    ]
    for text, key, rate in (
        ("saturation near .9: false FAIL", "size", ALPHA),
        ("saturation near .9: PASS where the effect is the margin", "false pass", ALPHA_PASS),
    ):
        shares = {f"{name}, {label}": f[f"{key}|{label}"] for name, f in full.items() for label in ("history", "alone")}
        out.append((text, shares, size_limit(rate, n)))
    return out


def run(n: int, looked: int, seeds: Any) -> tuple[dict[str, Any], list[Table]]:
    """Return figures and tables; ``seeds(*parts)`` gives the generator of one part."""
    levels = {name: thresholds(name, n, looked, seeds("thresholds", name)) for name in NOISES}
    full = {name: saturation(name, n, seeds("saturation", name)) for name in SATURATIONS}
    figures = {"thresholds": levels, "saturation": full, "n": n, "n looked": looked}
    return figures, [*threshold_tables(levels, n, looked), saturation_table(full, n)]
