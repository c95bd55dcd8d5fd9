"""How often a healthy change is stopped and a faulty one found: Tidegate and its peers on the same data.

``python -m benchmarks accuracy`` takes about half an hour on 2 cores, ``--quick`` about 3 minutes. Everything is
seeded; the real data is read from the folder that ``TIDEGATE_DATA`` names, and those tables are left out,
with a message, when there is none. Shares are per cent of trials. "Size" is the share of healthy trials
that end in FAIL, "power" that of faulty ones.

In the size tables the margin is next to nothing, so that every significant change is a FAIL: with a real
margin there are fewer. An effect of ``k`` standard deviations is ``k`` times the (robust) standard
deviation of the difference between the arms' means over 60 points, which a z-test that knew it would find
with probability ``Phi(k - z_alpha)``.
"""

from __future__ import annotations

import copy
import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tidegate_analysis as ta
from numpy.typing import NDArray
from scipy import special
from tidegate_analysis import simulate

from benchmarks import accuracy_levels, accuracy_tails, peers, real
from benchmarks.report import Table, met, percent, size_limit, standard_error

Array = NDArray[np.float64]
Bools = NDArray[np.bool_]

SEED = 20240607
ALPHA = 0.02
ALPHA_PASS = 0.05
POINTS = 60
WINDOWS = 28
# No series of a size table may hide behind a margin.
TINY = 1e-6
IDEAL_POWER = 0.9
EFFECT = float(special.ndtri(1 - ALPHA) + special.ndtri(IDEAL_POWER))
CURVE = (1.0, 2.0, 2.5, 3.0, EFFECT, 4.0, 5.0)
MARGIN_SD = 4.0
CHUNK = 500
# Structures whose noise, within an arm and beyond what the arms share, has an autocorrelation of at most .6.
MILD = (
    "iid",
    "ar.6",
    "ma-.5",
    "lognormal ar.6",
    "log-gaussian poisson",
    "rare counts",
    "rounded ar.6",
    "t1.5",
    "ar.6 canary sd x3",
    "shared ar.9 + iid",
    "shared ar.9 + ar.6",
    "shared diurnal + iid",
)


@dataclass(frozen=True)
class Sizes:
    """How many trials each table has."""

    fixed: int
    peers: int
    stream: int
    seasonal: int
    cuts: int
    gates: int
    counts: int


FULL = Sizes(fixed=5000, peers=1000, stream=2000, seasonal=400, cuts=600, gates=200, counts=1000)
QUICK = Sizes(fixed=600, peers=200, stream=150, seasonal=100, cuts=100, gates=20, counts=200)


# ---------------------------------------------------------------- the ground


def seed_of(*parts: object) -> np.random.Generator:
    """Return the generator of one part of the run: the same parts give the same numbers in any order."""
    words = [SEED, *(int.from_bytes(str(part).encode()[:8].ljust(8, b"\0"), "little") for part in parts)]
    words += [len(str(part)) for part in parts]
    return np.random.default_rng(words)


@dataclass(frozen=True)
class Case:
    """One dependence structure, ready to be judged: how it is judged, and the size of one standard
    deviation."""

    structure: simulate.Structure
    scale: str
    unit: float
    windows: simulate.Windows

    def spec(self, margin: float = TINY) -> ta.MetricSpec:
        """Return the spec of the metric with a margin in its own unit (a fraction on the log scale and
        for counts)."""
        kind = self.structure.kind
        if kind == "count":
            return ta.MetricSpec(name="events", kind="count", direction="up_is_worse", margin=margin)
        scale: Any = self.scale
        return ta.MetricSpec(name="metric", kind="gauge", direction="up_is_worse", scale=scale, margin=margin)

    def margin(self, k: float) -> float:
        """Return the margin that is ``k`` standard deviations wide."""
        if self.structure.kind == "count":
            return k * self.unit / self.structure.mean_count
        return float(np.expm1(k * self.unit)) if self.scale == "log" else k * self.unit

    def worse(self, k: float, rng: np.random.Generator, onset: int = 0) -> Array:
        """Return the canary with an effect of ``k`` standard deviations."""
        canary = self.windows.canary
        if self.structure.kind == "count":
            return simulate.extra_events(canary, k * self.unit, rng=rng, onset=onset)
        if self.scale == "log":
            return simulate.inject(canary, "step", float(np.expm1(k * self.unit)), scale="log", onset=onset)
        return simulate.inject(canary, "step", k * self.unit, scale="linear", onset=onset)

    @property
    def usual(self) -> Array:
        """The usual level of each series, as a dashboard shows it."""
        past = self.windows.history[:, :, 0].reshape(len(self.windows.baseline), -1)
        level = np.median(past, axis=1)
        return np.where(level > 0, level, past.mean(axis=1))


def case(name: str, n: int, rng: np.random.Generator) -> Case:
    """Draw one structure with its history, positive, so that thresholds and ratios make sense."""
    structure = simulate.STRUCTURES[name]
    drawn = simulate.windows(structure, n, WINDOWS, POINTS, rng=rng, positive=True)
    linear = structure.kind == "count" or name == "lognormal ar.6"
    past = drawn.history if linear else np.log(drawn.history)
    difference = past[:, :, 1] - past[:, :, 0]
    if name == "t1.5":
        # Its mean has no variance; the mean of the middle 80 % stands for it.
        cut = POINTS // 10
        mean = np.sort(difference, axis=-1)[..., cut : POINTS - cut].mean(axis=-1)
    else:
        mean = difference.mean(axis=-1)
    low, high = np.quantile(mean, [0.1587, 0.8413])
    return Case(structure, "linear" if linear else "log", float(high - low) / 2.0, drawn)


def by_chunks(function: Callable[[slice], Array], n: int, size: int = CHUNK) -> Array:
    """Return the results of ``function`` on slices of ``n`` rows, put together: memory stays small."""
    return np.concatenate([function(slice(k, min(k + size, n))) for k in range(0, n, size)])


def verdicts(baseline: Array, canary: Array, spec: ta.MetricSpec, history: Array | None) -> NDArray[np.int8]:
    """Return the verdict of each series at the end of the window."""

    def one(rows: slice) -> Array:
        past = None if history is None else history[rows]
        return np.asarray(ta.compare(baseline[rows], canary[rows], spec=spec, history=past).verdict)

    return np.asarray(by_chunks(one, len(baseline)), dtype=np.int8)


def share(mask: Bools) -> float:
    """Return the share of True, NaN for none."""
    return float(np.mean(mask)) if len(mask) else float("nan")


def failed(found: NDArray[np.int8]) -> float:
    """Return the share of FAIL."""
    return share(found == ta.Verdict.FAIL)


def passed(found: NDArray[np.int8]) -> float:
    """Return the share of PASS."""
    return share(found == ta.Verdict.PASS)


# ---------------------------------------------------------------- one look at the end


def fixed_horizon(name: str, sizes: Sizes) -> dict[str, Any]:
    """Return the figures of one structure judged once, after 60 points."""
    n, few = sizes.fixed, sizes.peers
    rng = seed_of("fixed", name)
    c = case(name, n, rng)
    w = c.windows
    out: dict[str, Any] = {"n": n, "n_peers": few, "unit": c.unit, "n_power": few}
    out["size history"] = failed(verdicts(w.baseline, w.canary, c.spec(), w.history))
    out["size alone"] = failed(verdicts(w.baseline, w.canary, c.spec(), None))
    worse = c.worse(EFFECT, rng)
    base, past = w.baseline[:few], w.history[:few]
    out["power history"] = failed(verdicts(base, worse[:few], c.spec(), past))
    out["power alone"] = failed(verdicts(base, worse[:few], c.spec(), None))
    if name in ("iid", "ar.6"):
        levels = {k: c.worse(k, rng)[:few] for k in CURVE}
        out["curve history"] = {k: failed(verdicts(base, v, c.spec(), past)) for k, v in levels.items()}
        out["curve alone"] = {k: failed(verdicts(base, v, c.spec(), None)) for k, v in levels.items()}
        out["curve Kayenta"] = {k: share(peers.kayenta_fails(base[:500], v[:500])) for k, v in levels.items()}
    margin = c.spec(c.margin(MARGIN_SD))
    at_margin = c.worse(MARGIN_SD, rng)
    out["false pass history"] = passed(verdicts(w.baseline, at_margin, margin, w.history))
    out["false pass alone"] = passed(verdicts(w.baseline, at_margin, margin, None))
    out["pass history"] = passed(verdicts(base, w.canary[:few], margin, past))
    out["pass alone"] = passed(verdicts(base, w.canary[:few], margin, None))
    usual = c.usual[:few]
    for peer, judge in peers.PEERS.items():
        out[f"size {peer}"] = share(judge(base, w.canary[:few], usual))
        out[f"power {peer}"] = share(judge(base, worse[:few], usual))
    return out


def fixed_tables(found: dict[str, dict[str, Any]]) -> list[Table]:
    """Return the tables of size, power and false PASS at one look."""
    first = next(iter(found.values()))
    n, few = first["n"], first["n_peers"]
    limit = size_limit(ALPHA, n)
    names = list(peers.PEERS)
    size = Table(
        f"One look after 60 points, healthy: % FAIL (alpha {100 * ALPHA:g} %, n = {n}; peers n = {few})",
        [
            "structure",
            f"with {WINDOWS} past windows",
            f"<= {percent(limit, 2)}",
            "no history",
            "target",
            "",
            *names,
        ],
    )
    power = Table(
        f"One look, an effect that the ideal z-test finds in {100 * IDEAL_POWER:g} %: % found (n = {few})",
        ["structure", f"with {WINDOWS} past windows", "no history", *names],
    )
    safe = Table(
        f"One look, margin of {MARGIN_SD:g} standard deviations: % PASS (n = {n}; at no effect n = {few})",
        [
            "structure",
            "true effect = margin, with history",
            f"<= {percent(size_limit(ALPHA_PASS, n), 2)}",
            "the same, no history",
            "",
            "no effect, with history",
            "no effect, no history",
        ],
    )
    for name, f in found.items():
        title = simulate.STRUCTURES[name].title
        alone = f["size alone"]
        mild = name in MILD
        size.add(
            title,
            percent(f["size history"]),
            met(f["size history"], limit),
            percent(alone),
            f"<= {percent(2 * ALPHA, 0)}" if mild else "none",
            met(alone, 2 * ALPHA) if mild else "-",
            *[percent(f[f"size {p}"]) for p in names],
        )
        power.add(
            title,
            percent(f["power history"], 0),
            percent(f["power alone"], 0),
            *[percent(f[f"power {p}"], 0) for p in names],
        )
        bound = size_limit(ALPHA_PASS, n)
        safe.add(
            title,
            percent(f["false pass history"]),
            met(f["false pass history"], bound),
            percent(f["false pass alone"]),
            met(f["false pass alone"], bound) if mild else "-",
            percent(f["pass history"], 0),
            percent(f["pass alone"], 0),
        )
    ours, theirs = (percent(standard_error(ALPHA, k), 2) for k in (n, few))
    size.notes += [
        f"Standard error of a size of 2 %: {ours} points, for the peers {theirs}.",
        "Without history the target is set up to an autocorrelation of .6.",
        "Kayenta: direction increase, its defaults, one-sided level 1 % by design.",
        "Bounds of Argo and Flagger lie 25 % above the usual level.",
    ]
    power.notes.append("A test that is wrong under the null has no power to speak of: read it beside the table above.")
    safe.notes.append("Without history the target is set up to an autocorrelation of .6; no peer has such a PASS.")
    tables = [size, power, safe]
    curve = Table(
        f"Power over the effect, one look: % found (n = {few}; Kayenta 500)",
        [
            "effect, sd",
            "ideal z",
            *[f"{s}: {m}" for s in ("iid", "AR .6") for m in ("history", "no history", "Kayenta")],
            "iid, history within 10 of ideal",
        ],
    )
    for k in CURVE if "iid" in found and "ar.6" in found else ():
        ideal = float(special.ndtr(k - special.ndtri(1 - ALPHA)))
        got = found["iid"]["curve history"][k]
        cells = [
            percent(found[s][f"curve {m}"][k], 0) for s in ("iid", "ar.6") for m in ("history", "alone", "Kayenta")
        ]
        curve.add(f"{k:.2f}", percent(ideal, 0), *cells, met(got, ideal - 0.10, at_most=False))
    if curve.rows:
        tables.append(curve)
    return tables


# ---------------------------------------------------------------- before and after, with seasons


def seasonal(part: int, sizes: Sizes) -> dict[str, Bools]:
    """Return, per method and effect, which of a portion of seasonal minute series failed."""
    rng = seed_of("seasonal", part)
    n = min(100, sizes.seasonal)
    data = simulate.seasonal_minutes(n, 28, rng=rng)
    spec = ta.MetricSpec(name="requests_latency", kind="gauge", direction="up_is_worse", scale="log", margin=TINY)
    real_margin = spec.with_(margin=0.10)
    out: dict[str, Bools] = {}
    pre = data.before[:, -POINTS:]
    usual = np.median(data.before[:, -1440:], axis=1)
    day, week = data.before[:, -1440 : -1440 + POINTS], data.before[:, -7 * 1440 : -7 * 1440 + POINTS]
    for effect in (0.0, 0.05, 0.10, 0.20):
        after = data.after * (1.0 + effect)

        def keep(method: str, fails: Bools, effect: float = effect) -> None:
            out[f"{method}|{effect}"] = np.asarray(fails)

        keep("before/after", ta.before_after(data.before, after, spec=spec).verdict == ta.Verdict.FAIL)
        keep(
            "before/after, margin 10 %",
            ta.before_after(data.before, after, spec=real_margin).verdict == ta.Verdict.FAIL,
        )
        keep(
            "before/after, margin 10 %, PASS",
            ta.before_after(data.before, after, spec=real_margin).verdict == ta.Verdict.PASS,
        )
        did = ta.before_after(
            data.before,
            after,
            spec=spec,
            control_before=data.control_before,
            control_after=data.control_after,
        )
        keep("difference in differences", did.verdict == ta.Verdict.FAIL)
        short = ta.before_after(pre, after, spec=spec)
        keep("before/after, only the hour before", short.verdict == ta.Verdict.FAIL)
        for peer, judge in peers.PEERS.items():
            keep(f"{peer} v the hour before", judge(pre, after, usual))
        keep("Mann-Whitney .02 v yesterday", peers.mann_whitney_p(day, after) <= ALPHA)
        keep("Mann-Whitney .02 v last week", peers.mann_whitney_p(week, after) <= ALPHA)
    return out


def seasonal_table(found: dict[str, Bools]) -> Table:
    """Return size and power over seasonal minute data."""
    effects = (0.0, 0.05, 0.10, 0.20)
    methods = list(dict.fromkeys(key.split("|")[0] for key in found))
    n = len(found[f"{methods[0]}|0.0"])
    limit = size_limit(ALPHA, n)
    table = Table(
        f"Deployments in seasonal minute data, 28 days of past, one look after 60 minutes: % FAIL (n = {n})",
        ["method", "healthy", f"<= {percent(limit, 2)}", *[f"+{100 * e:.0f} %" for e in effects[1:]]],
    )
    for method in methods:
        shares = [share(found[f"{method}|{e}"]) for e in effects]
        ours = method in ("before/after", "before/after, margin 10 %", "difference in differences")
        table.add(
            method,
            percent(shares[0]),
            met(shares[0], limit) if ours else "-",
            *[percent(s, 0) for s in shares[1:]],
        )
    table.notes += [
        "Daily swing of 40 %, quieter weekends, levels of days, AR .6 noise of 8 %.",
        "The line with PASS shows % PASS.",
    ]
    return table


# ---------------------------------------------------------------- real windows and series


def judge_pairs(pairs: real.WindowPairs, *, with_day: bool = True) -> tuple[NDArray[np.int8], Array]:
    """Return Tidegate's verdict and p-value of each real pair, with the margin it takes by itself.

    Two machines are compared as arms; before and after with what is known of the past, with or without
    the day before.
    """
    n = len(pairs.pre)
    verdict = np.zeros(n, dtype=np.int8)
    p = np.full(n, np.nan)
    specs = [
        ta.MetricSpec(name=str(kind), kind="gauge", direction="down_is_worse" if down else "up_is_worse")
        for kind, down in zip(pairs.kind, pairs.down, strict=True)
    ]

    def put(rows: NDArray[np.intp], result: ta.Result) -> None:
        verdict[rows], p[rows] = result.verdict, result.p_value

    arms = np.flatnonzero(pairs.two_arms)
    if arms.size:
        put(arms, ta.compare(pairs.pre[arms], pairs.post[arms], spec=[specs[k] for k in arms]))
    for inside, before in pairs.past():
        for step in np.unique(pairs.step[inside]):
            chosen = ~pairs.two_arms[inside] & (pairs.step[inside] == step)
            rows = inside[chosen]
            if rows.size:
                past = before[chosen] if with_day else before[chosen][:, -POINTS:]
                chosen_specs = [specs[k] for k in rows]
                put(rows, ta.before_after(past, pairs.post[rows], spec=chosen_specs, step_seconds=float(step)))
    return verdict, p


def judge_pairs_by_peers(pairs: real.WindowPairs) -> dict[str, Bools]:
    """Return what each peer says of each real pair."""
    usual = np.median(pairs.pre, axis=1)
    pre, post = (peers.reflect(v, usual, pairs.down) for v in (pairs.pre, pairs.post))
    return {name: judge(pre, post, usual) for name, judge in peers.PEERS.items()}


def kinds_of_null(pairs: real.WindowPairs) -> dict[str, Bools]:
    """Return the kinds of rows that have a target or tell something of their own."""
    clean = pairs.quality == "labelled_clean"
    return {
        "exchangeable (two machines, true nulls)": pairs.quality == "exchangeable",
        "labelled clean, a day of history": clean & pairs.has_day,
        "of these: the day apart (steps of 1 and 5 minutes)": clean & pairs.has_day & pairs.day_apart,
        "of these: the day overlaps (hourly)": clean & pairs.has_day & ~pairs.day_apart,
        "labelled clean, no history": clean & ~pairs.has_day,
    }


def real_window_tables(path: Path, limit_rows: int | None) -> tuple[list[Table], dict[str, float]]:
    """Return the tables over real pairs of windows, healthy and one row per effect, and the shares of FAIL."""
    figures: dict[str, float] = {}
    null = real.null_windows(path)
    injected = real.injected_windows(path, null)
    if limit_rows is not None:
        rng = seed_of("real rows")
        null = null.take(np.sort(rng.choice(len(null.pre), min(limit_rows, len(null.pre)), replace=False)))
        rows = np.sort(rng.choice(len(injected.effect), min(2 * limit_rows, len(injected.effect)), replace=False))
        injected = real.Injected(injected.pairs.take(rows), injected.effect[rows])
    verdict, p = judge_pairs(null)
    alone, _ = judge_pairs(null, with_day=False)
    others = judge_pairs_by_peers(null)
    healthy = Table(
        "Real pairs of windows, healthy: % FAIL",
        ["pairs", "n", "Tidegate", "target", "", "p <= .02", "PASS", "without the day before", *others],
    )
    for name, mask in kinds_of_null(null).items():
        n = int(mask.sum())
        if n == 0:
            continue
        size = figures[f"healthy|{name}"] = failed(verdict[mask])
        figures[f"n|{name}"] = n
        if name.startswith("exchangeable"):
            target = size_limit(ALPHA, n)
        elif name == "labelled clean, a day of history":
            target = 2 * ALPHA
        else:
            target = float("nan")
        healthy.add(
            name,
            n,
            percent(size),
            "-" if np.isnan(target) else f"<= {percent(target)}",
            "-" if np.isnan(target) else met(size, target),
            percent(share(p[mask] <= ALPHA)),
            percent(passed(verdict[mask]), 0),
            percent(failed(alone[mask])),
            *[percent(share(fails[mask])) for fails in others.values()],
        )
    healthy.notes += [
        "Margin and scale are those Tidegate takes by itself (10 % on the log scale); alpha 2 %, one-sided.",
        "'Labelled clean' means that experts marked nothing there, not that nothing happened.",
        "With hourly points the day before overlaps the change; only what lies before the change is given.",
    ]
    out = [healthy]
    verdict, _ = judge_pairs(injected.pairs)
    others = judge_pairs_by_peers(injected.pairs)
    kinds = kinds_of_null(injected.pairs)
    for title, name in (
        ("exchangeable pairs", "exchangeable (two machines, true nulls)"),
        ("labelled-clean pairs with a day of history", "labelled clean, a day of history"),
        ("labelled-clean pairs without", "labelled clean, no history"),
    ):
        table = Table(f"Real pairs with an effect put in, {title}: % found", ["effect", "n", "Tidegate", *others])
        for effect in dict.fromkeys(injected.effect):
            mask = kinds[name] & (injected.effect == effect)
            if mask.any():
                figures[f"{effect}|{name}"] = failed(verdict[mask])
                table.add(
                    effect,
                    int(mask.sum()),
                    percent(failed(verdict[mask]), 0),
                    *[percent(share(fails[mask]), 0) for fails in others.values()],
                )
        table.notes += [
            "Shifts in robust standard deviations of the points before; bursts are 3 runs of 3 points.",
            "Tail effects touch the top 5 % of the points, 3 of 60.",
            "A share as large as the healthy one is luck.",
        ]
        out.append(table)
    return out, figures


# name, kind of effect, size: a relative change (log) or in robust sd of the hour before (sd)
CUT_EFFECTS: tuple[tuple[str, simulate.EffectKind, float, str, dict[str, Any]], ...] = (
    ("healthy", "step", 0.0, "log", {}),
    ("x1.1", "step", 0.10, "log", {}),
    ("x1.25", "step", 0.25, "log", {}),
    ("x1.5", "step", 0.50, "log", {}),
    ("x2", "step", 1.00, "log", {}),
    ("shift of 1 sd", "step", 1.0, "sd", {}),
    ("shift of 2 sd", "step", 2.0, "sd", {}),
    ("ramp to x1.5 over 30 minutes", "ramp", 0.50, "log", {"over": 30}),
    ("x1.5 from minute 20 on", "step", 0.50, "log", {"onset": 20}),
    ("x1.5 for 10 minutes, then well again", "bursts", 0.50, "log", {"bursts": 1, "length": 10}),
    ("3 bursts of 3 minutes x3", "bursts", 2.0, "log", {"bursts": 3, "length": 3}),
    ("top 5 % of the points x3", "tail", 2.0, "log", {"share": 0.05}),
    ("top 20 % of the points x3", "tail", 2.0, "log", {"share": 0.20}),
)


def real_cut(path: str, index: int, sizes: Sizes) -> dict[str, Any]:
    """Return what is said of one effect put into deployments that are cut at random from real metrics."""
    data = real.minutes(Path(path))
    week = 7 * 1440
    cuts = real.cut_points(data, sizes.cuts, before=week, after=POINTS, rng=seed_of("cuts"))
    before = np.stack([data.values[s, m - week : m] for s, m in cuts])
    known = np.where(np.stack([data.labelled[s, m - week : m] for s, m in cuts]), np.nan, before)
    after = np.stack([data.values[s, m : m + POINTS] for s, m in cuts])
    pre = before[:, -POINTS:]
    usual = np.nanmedian(before[:, -1440:], axis=1)
    spec = ta.MetricSpec(name="requests", kind="gauge", direction="up_is_worse")
    name, kind, size, scale, extra = CUT_EFFECTS[index]
    if scale == "sd":
        spread = 1.4826 * np.nanmedian(np.abs(pre - np.nanmedian(pre, axis=1, keepdims=True)), axis=1)
        worse = simulate.inject(after, kind, size * spread, scale="linear", **extra)
    else:
        worse = simulate.inject(after, kind, size, scale="log", rng=seed_of("bursts", name), **extra)
    # What an effect leaves as it was is not faulty: a metric that is 0 all the time, times 1.5.
    changed = np.ones(len(cuts), dtype=bool) if name == "healthy" else (worse != after).any(axis=1)

    def judged(past: Array) -> NDArray[np.int8]:
        def one(rows: slice) -> Array:
            return np.asarray(ta.before_after(past[rows], worse[rows], spec=spec, step_seconds=60.0).verdict)

        return np.asarray(by_chunks(one, len(cuts), 50)[changed], dtype=np.int8)

    found = judged(before)
    return {
        "n": int(changed.sum()),
        "fail": failed(found),
        "pass": passed(found),
        "fail, incidents left out": failed(judged(known)),
        **{peer: share(judge(pre, worse, usual)[changed]) for peer, judge in peers.PEERS.items()},
    }


def real_cut_table(rows: list[dict[str, Any]]) -> Table:
    """Return the table of deployments cut at random from real metrics."""
    table = Table(
        "Deployments cut at random from 11 real one-minute metrics, one look: % FAIL",
        ["effect", "n", "Tidegate", "target", "", "past incidents left out", "PASS", *peers.PEERS],
    )
    for (name, kind, _, _, _), f in zip(CUT_EFFECTS, rows, strict=True):
        target, word = "-", "-"
        if name == "healthy":
            target, word = f"<= {percent(2 * ALPHA)}", met(f["fail"], 2 * ALPHA)
        elif kind == "tail":
            target, word = ">= 50", met(f["fail"], 0.5, at_most=False)
        others = [percent(f[peer], 0) for peer in peers.PEERS]
        left_out = percent(f["fail, incidents left out"])
        table.add(name, f["n"], percent(f["fail"]), target, word, left_out, percent(f["pass"], 0), *others)
    table.notes += [
        "60 minutes after 7 days of past, incidents and all. Peers compare with the hour before.",
        "Past incidents left out: what experts marked in those 7 days is given as missing.",
        "Cuts from 11 series overlap and are not independent trials.",
    ]
    return table


# ---------------------------------------------------------------- looked at on every scrape


@dataclass(frozen=True)
class Watched:
    """What a watch of many series ended in: ever FAIL, ever PASS, and the scrape of the first FAIL (NaN:
    never)."""

    failed: Bools
    passed: Bools
    first: Array


def watch(specs: list[ta.MetricSpec], baseline: Array, canary: Array, **options: Any) -> Watched:
    """Feed a stream scrape by scrape, and look at every one."""
    stream = ta.open_stream(specs, **options)
    n, points = canary.shape
    ever_failed, ever_passed = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    first = np.full(n, np.nan)
    for t in range(points):
        stream.update(baseline[:, t : t + 1], canary[:, t : t + 1])
        verdict = stream.result().verdict
        fails = np.asarray(verdict == ta.Verdict.FAIL)
        first[fails & ~ever_failed] = t + 1
        ever_failed |= fails
        ever_passed |= np.asarray(verdict == ta.Verdict.PASS)
    return Watched(ever_failed, ever_passed, first)


# name, with history, with a fixed horizon
STREAMS = (
    ("history, horizon", True, True),
    ("history, no horizon", True, False),
    ("no history, horizon", False, True),
    ("no history, no horizon", False, False),
)


def every_scrape(name: str, sizes: Sizes) -> dict[str, Any]:
    """Return the figures of one structure looked at on every one of 60 scrapes."""
    n = sizes.stream
    n_margin, n_power = min(max(2 * n // 3, 200), n), min(max(n // 4, 100), n)
    rng = seed_of("stream", name)
    c = case(name, n, rng)
    w = c.windows
    worse, at_margin = c.worse(EFFECT, rng), c.worse(MARGIN_SD, rng)
    out: dict[str, Any] = {"n": n, "n_margin": n_margin, "n_power": n_power, "n_peers": min(500, n)}
    for label, with_history, with_horizon in STREAMS:

        def look(
            canary: Array, spec: ta.MetricSpec, rows: int, past: bool = with_history, end: bool = with_horizon
        ) -> Watched:
            options: dict[str, Any] = {"history": w.history[:rows] if past else None}
            options["horizon"] = POINTS if end else None
            return watch([spec] * rows, w.baseline[:rows], canary[:rows], **options)

        out[f"size {label}"] = share(look(w.canary, c.spec(), n).failed)
        found = look(worse, c.spec(), n_power)
        out[f"power {label}"] = share(found.failed)
        out[f"stop {label}"] = float(np.nanmedian(np.where(found.failed, found.first, POINTS)))
        out[f"false pass {label}"] = share(look(at_margin, c.spec(c.margin(MARGIN_SD)), n_margin).passed)
    few = out["n_peers"]
    for peer, judge in peers.PEERS.items():
        usual = c.usual[:few]

        def fails(
            b: Array, k: Array, rows: NDArray[np.intp], judge: peers.Judge = judge, level: Array = usual
        ) -> Bools:
            return judge(b, k, level[rows])

        looks = np.arange(peers.LOOKS[peer], POINTS + 1, peers.LOOKS[peer])
        out[f"size {peer}"] = share(peers.any_look(fails, w.baseline[:few], w.canary[:few], looks))
    return out


def stream_tables(found: dict[str, dict[str, Any]]) -> list[Table]:
    """Return the tables of size and power when every scrape is looked at."""
    first = next(iter(found.values()))
    n, n_margin = first["n"], first["n_margin"]
    limit, pass_limit = size_limit(ALPHA, n), size_limit(ALPHA_PASS, n_margin)
    labels = [label for label, _, _ in STREAMS]
    size = Table(
        f"Looked at on every one of 60 scrapes, healthy: % ever FAIL (n = {n}; peers n = {first['n_peers']})",
        [
            "structure",
            labels[0],
            f"<= {percent(limit, 2)}",
            labels[1],
            f"<= {percent(limit, 2)} ",
            labels[2],
            f"<= {percent(2 * ALPHA, 0)}",
            labels[3],
            f"<= {percent(2 * ALPHA, 0)} ",
            *peers.PEERS,
        ],
    )
    power = Table(
        "Looked at on every one of 60 scrapes: % found, median scrape of the stop, % ever PASS at the margin",
        [
            "structure",
            *[f"{label}: found" for label in labels],
            *[f"{label}: stop" for label in labels],
            *[f"{label}: false PASS" for label in labels],
            f"false PASS with history <= {percent(pass_limit, 2)}",
        ],
    )
    for name, f in found.items():
        title = simulate.STRUCTURES[name].title
        mild = name in MILD
        cells: list[Any] = []
        for label, with_history, _ in STREAMS:
            got = f[f"size {label}"]
            cells += [
                percent(got),
                met(got, limit) if with_history else (met(got, 2 * ALPHA) if mild else "-"),
            ]
        size.add(title, *cells, *[percent(f[f"size {p}"]) for p in peers.PEERS])
        worst = max(f[f"false pass {label}"] for label, with_history, _ in STREAMS if with_history)
        power.add(
            title,
            *[percent(f[f"power {label}"], 0) for label in labels],
            *[f"{f[f'stop {label}']:.0f}" for label in labels],
            *[percent(f[f"false pass {label}"]) for label in labels],
            met(worst, pass_limit),
        )
    size.notes += [
        "Kayenta, Mann-Whitney, Welch and the ratio of means look every 5 scrapes, the bounds at each.",
        "Without history the target is set up to an autocorrelation of .6.",
    ]
    power.notes += [
        f"Found and stop: an effect of {EFFECT:.2f} standard deviations (n = {first['n_power']}).",
        f"False PASS: the true effect is the margin of {MARGIN_SD:g} standard deviations (n = {n_margin}).",
    ]
    return [size, power]


# ---------------------------------------------------------------- gates of 100 metrics

GATE_METRICS = 100
GATE_FACTOR = 1.5
# Streams without a horizon have e-values: the two ways in which many of them can be corrected.
WITHOUT_END: tuple[tuple[str, Literal["grouped", "e_bh"]], ...] = (
    ("Tidegate without a horizon", "grouped"),
    ("Tidegate without a horizon, e-BH", "e_bh"),
)


def gate_watch(
    stream: ta.Stream,
    baseline: Array | None,
    canary: Array,
    looks: int,
    multiplicity: Literal["grouped", "e_bh"] = "grouped",
) -> tuple[bool, list[int]]:
    """Watch one gate from a stream just opened; return whether it was ever halted, and by which metrics."""
    stream = copy.deepcopy(stream)
    points = canary.shape[1]
    seen = 0
    for look in range(1, looks + 1):
        upto = look * points // looks
        if upto == seen:
            continue
        stream.update(None if baseline is None else baseline[:, seen:upto], canary[:, seen:upto])
        seen = upto
        judgement = stream.judge(multiplicity)
        if judgement.verdict == ta.Verdict.FAIL:
            return True, np.flatnonzero(judgement.verdicts == ta.Verdict.FAIL).tolist()
    return False, []


def kayenta_gate(baseline: Array, canary: Array, looks: Iterable[int]) -> tuple[bool, bool]:
    """Return whether Kayenta ends a run: its score at most 75 at any look, and any metric High at any look.

    All metrics in one group; the second is what a critical flag on every metric does.
    """
    by_score = by_any = False
    for n in looks:
        high = peers.kayenta_fails(baseline[:, :n], canary[:, :n])
        by_any |= bool(high.any())
        by_score |= 100.0 * (1.0 - float(high.mean())) <= 75.0
    return by_score, by_any


def peers_of_gate(baseline: Array, canary: Array, usual: Array) -> dict[str, bool]:
    """Return which peers end a gate of two arms side by side, each at the looks that it takes."""
    score, any_high = kayenta_gate(baseline, canary, (20, 40, 60))
    stops = range(5, POINTS + 1, 5)
    return {
        "Kayenta, 3 looks, score at most 75": score,
        "Kayenta, 3 looks, any metric High": any_high,
        "Mann-Whitney .02, one look, any metric": bool((peers.mann_whitney_p(baseline, canary) <= ALPHA).any()),
        "Argo mean > 1.1x, every 5 scrapes": any(
            peers.argo_ratio_fails(baseline[:, :n], canary[:, :n]).any() for n in stops
        ),
        "Flagger 5 checks": bool(peers.flagger_fails(canary, 1.25 * usual).any()),
    }


def true_spreads(drawn: simulate.Gates) -> Array:
    """Return the standard deviation of each metric's difference of mean logs, from every window of its structure."""
    past = np.log(drawn.history)
    change = (past[:, :, 1] - past[:, :, 0]).mean(axis=-1).reshape(-1, drawn.n_metrics, past.shape[1])
    names = np.array(drawn.structures)
    return np.array([change[:, names == name].std() for name in drawn.structures])


def simulated_gates(part: int, count: int, horizon: int | None) -> dict[str, list[bool]]:
    """Return what a portion of simulated gates ended in: healthy, and with one metric times 1.5."""
    rng = seed_of("gates", part)
    drawn = simulate.gates(count, GATE_METRICS, POINTS, n_windows=WINDOWS, rng=rng)
    specs = [
        ta.MetricSpec(name=f"metric-{k}", kind="gauge", direction="up_is_worse", scale="log", margin=0.10, group=group)
        for k, group in enumerate(drawn.groups)
    ]
    out: dict[str, list[bool]] = {}
    spread = true_spreads(drawn)
    strict = float(special.ndtri(1.0 - 0.05 / GATE_METRICS))

    def keep(key: str, value: Any) -> None:
        out.setdefault(key, []).append(bool(value))

    for gate in range(count):
        rows = drawn.rows(gate)
        base, canary, past = drawn.baseline[rows], drawn.canary[rows], drawn.history[rows]
        bad = int(rng.integers(GATE_METRICS))
        structure = simulate.STRUCTURES[drawn.structures[bad]].title
        worse = canary.copy()
        worse[bad] *= GATE_FACTOR
        usual = np.median(past[:, :, 0].reshape(GATE_METRICS, -1), axis=1)
        opened = ta.open_stream(specs, history=past, horizon=horizon, step_seconds=30.0)
        endless = ta.open_stream(specs, history=past, step_seconds=30.0)
        for state, arm in (("healthy", canary), ("faulty", worse)):
            halted, which = gate_watch(opened, base, arm, POINTS)
            keep(f"Tidegate, every scrape|{state}", halted)
            keep(f"Tidegate, every scrape, the right metric|{state}", bad in which)
            if state == "faulty" and bad not in which:
                keep(f"missed|{structure}", True)
            for label, way in WITHOUT_END:
                halted, which = gate_watch(endless, base, arm, POINTS, way)
                keep(f"{label}|{state}", halted)
                keep(f"{label}, the right metric|{state}", bad in which)
            once = ta.judge(ta.compare(base, arm, spec=specs, history=past))
            keep(f"Tidegate, one look|{state}", once.verdict == ta.Verdict.FAIL)
            keep(f"Tidegate, one look, the right metric|{state}", once.verdicts[bad] == ta.Verdict.FAIL)
            ideal = (np.log(arm) - np.log(base)).mean(axis=1) / spread > strict
            keep(f"The mean over its true spread, one look, 5 % / {GATE_METRICS}|{state}", ideal.any())
            keep(f"The mean over its true spread, one look, 5 % / {GATE_METRICS}, the right metric|{state}", ideal[bad])
            alone = ta.judge(ta.compare(base, arm, spec=specs))
            keep(f"Tidegate, one look, no history|{state}", alone.verdict == ta.Verdict.FAIL)
            for name, halted in peers_of_gate(base, arm, usual).items():
                keep(f"{name}|{state}", halted)
    return out


def real_gates(path: str, part: int, count: int) -> dict[str, list[bool]]:
    """Return what gates of 100 real metrics ended in over 30 minutes, with a week of past."""
    rng = seed_of("real gates", part)
    data = real.minutes(Path(path))
    week, watch_minutes = 7 * 1440, 30
    out: dict[str, list[bool]] = {}

    def keep(key: str, value: Any) -> None:
        out.setdefault(key, []).append(bool(value))

    for _ in range(count):
        cuts = real.cut_points(data, GATE_METRICS, before=week, after=watch_minutes, rng=rng)
        before = np.stack([data.values[s, m - week : m] for s, m in cuts])
        known = np.where(np.stack([data.labelled[s, m - week : m] for s, m in cuts]), np.nan, before)
        after = np.stack([data.values[s, m : m + watch_minutes] for s, m in cuts])
        specs = [
            ta.MetricSpec(
                name=f"{data.names[s].split('.')[0]}-{k}",
                kind="gauge",
                direction="up_is_worse",
                group=str(data.names[s]).split("/")[0],
            )
            for k, (s, _) in enumerate(cuts)
        ]
        alive = np.flatnonzero(np.nanmedian(after, axis=1) > 0)
        bad = int(rng.choice(alive))
        worse = after.copy()
        worse[bad] *= GATE_FACTOR
        pre = before[:, -POINTS:]
        usual = np.nanmedian(before[:, -1440:], axis=1)
        opened = {
            label: ta.open_stream(specs, design="before_after", before=past, horizon=watch_minutes)
            for past, label in ((before, "every scrape"), (known, "every scrape, past incidents left out"))
        }
        for state, arm in (("healthy", after), ("faulty", worse)):
            for label, stream in opened.items():
                halted, which = gate_watch(stream, None, arm, 60)
                keep(f"Tidegate, {label}|{state}", halted)
                keep(f"Tidegate, {label}, the right metric|{state}", bad in which)
            once = ta.judge(ta.before_after(before, arm, spec=specs, step_seconds=60.0))
            keep(f"Tidegate, one look|{state}", once.verdict == ta.Verdict.FAIL)
            keep(f"Tidegate, one look, the right metric|{state}", once.verdicts[bad] == ta.Verdict.FAIL)
            high = peers.kayenta_fails(pre, arm)
            keep(f"Kayenta, one look, score at most 75|{state}", 100.0 * (1.0 - high.mean()) <= 75.0)
            keep(f"Kayenta, one look, any metric High|{state}", high.any())
            keep(
                f"Mann-Whitney .02, one look, any metric|{state}",
                (peers.mann_whitney_p(pre, arm) <= ALPHA).any(),
            )
            keep(f"Argo mean > 1.1x, one look|{state}", peers.argo_ratio_fails(pre, arm).any())
            keep(f"Flagger 5 checks|{state}", peers.flagger_fails(arm, 1.25 * usual).any())
    return out


def paired_gates(path: str, part: int, count: int) -> dict[str, list[bool]]:
    """Return what gates of 100 real metrics of two machines side by side ended in over 60 scrapes, without any past."""
    rng = seed_of("paired gates", part)
    pairs = real.null_windows(Path(path))
    # One machine may not move at all: a constant has no change that is larger than its noise.
    moves = (np.ptp(pairs.pre, axis=1) > 0) & (np.ptp(pairs.post, axis=1) > 0)
    rows = np.flatnonzero((pairs.quality == "exchangeable") & pairs.two_arms & moves)
    out: dict[str, list[bool]] = {}

    def keep(key: str, value: Any) -> None:
        out.setdefault(key, []).append(bool(value))

    for _ in range(count):
        chosen = pairs.take(rng.choice(rows, GATE_METRICS, replace=False))
        specs = [
            ta.MetricSpec(
                name=f"{kind}-{k}",
                kind="gauge",
                direction="down_is_worse" if down else "up_is_worse",
                group=str(source),
            )
            for k, (kind, source, down) in enumerate(zip(chosen.kind, chosen.source, chosen.down, strict=True))
        ]
        # Either machine may be the canary.
        turned = (rng.random(GATE_METRICS) < 0.5)[:, None]
        base, canary = np.where(turned, chosen.post, chosen.pre), np.where(turned, chosen.pre, chosen.post)
        bad = int(rng.integers(GATE_METRICS))
        worse = canary.copy()
        worse[bad] = worse[bad] / GATE_FACTOR if chosen.down[bad] else worse[bad] * GATE_FACTOR
        usual = np.median(base, axis=1)
        for state, arm in (("healthy", canary), ("faulty", worse)):
            for label, horizon in (("horizon", POINTS), ("no horizon", None)):
                opened = ta.open_stream(specs, horizon=horizon, step_seconds=60.0)
                halted, which = gate_watch(opened, base, arm, POINTS)
                keep(f"Tidegate, every scrape, {label}|{state}", halted)
                keep(f"Tidegate, every scrape, {label}, the right metric|{state}", bad in which)
                if state == "faulty" and horizon and bad not in which:
                    keep(f"missed|{chosen.source[bad]} {chosen.kind[bad]}", True)
            once = ta.judge(ta.compare(base, arm, spec=specs))
            keep(f"Tidegate, one look|{state}", once.verdict == ta.Verdict.FAIL)
            keep(f"Tidegate, one look, the right metric|{state}", once.verdicts[bad] == ta.Verdict.FAIL)
            up, old = (peers.reflect(v, usual, chosen.down) for v in (arm, base))
            for name, halted in peers_of_gate(old, up, usual).items():
                keep(f"{name}|{state}", halted)
    return out


def gate_table(title: str, found: dict[str, list[bool]], *, healthy_limit: float, power_target: float) -> Table:
    """Return the table of gates: healthy ones halted, faulty ones found."""
    names = dict.fromkeys(key.split("|")[0] for key in found if not key.startswith("missed|"))
    methods = [name for name in names if not name.endswith("the right metric")]
    n = len(next(iter(found.values())))
    table = Table(
        f"{title} (n = {n} gates each)",
        [
            "method",
            "healthy gates halted, %",
            "target",
            "",
            "one metric x1.5 found, %",
            "target ",
            " ",
            "the right metric named, %",
        ],
    )
    limit = healthy_limit if healthy_limit <= 0.02 else size_limit(healthy_limit, n)
    for method in methods:
        healthy, faulty = (share(np.array(found[f"{method}|{state}"])) for state in ("healthy", "faulty"))
        named = found.get(f"{method}, the right metric|faulty")
        judged = method.startswith("Tidegate, every scrape")
        table.add(
            method,
            percent(healthy),
            f"<= {percent(limit)}" if judged else "-",
            met(healthy, limit) if judged else "-",
            percent(faulty),
            f">= {percent(power_target, 0)}" if judged else "-",
            met(faulty, power_target, at_most=False) if judged else "-",
            "-" if named is None else percent(share(np.array(named))),
        )
    missed = {key.split("|")[1]: len(value) for key, value in found.items() if key.startswith("missed|")}
    if missed:
        told = ", ".join(f"{name} {count}" for name, count in sorted(missed.items(), key=lambda kv: -kv[1]))
        table.notes.append(f"Where the faulty metric was not named, its noise was: {told}.")
    return table


def merged(portions: list[dict[str, list[bool]]]) -> dict[str, list[bool]]:
    """Return the portions put together."""
    keys = dict.fromkeys(key for portion in portions for key in portion)
    return {key: [one for portion in portions for one in portion.get(key, [])] for key in keys}


# ---------------------------------------------------------------- events, and instances

COUNT_NOISES: tuple[tuple[str, str, float], ...] = (
    ("Poisson, shared daily swing", "none", 0.01),
    ("shared bursts", "shared_bursts", 0.10),
    ("own gamma noise, Fano factor 3", "own_gamma", 0.02),
    ("own AR .8 log rate, sd .4, few events", "own_ar", 0.01),
    ("own AR .8 log rate, sd .4, many events", "own_ar", 0.10),
    ("own incidents, 1 % of the points x20", "own_incidents", 0.10),
    ("rare events, one in 10 scrapes", "none", 0.0004),
)


def counted_cases(index: int, sizes: Sizes) -> dict[str, Any]:
    """Return what is said of error ratios under one kind of noise: with 28 past windows and without."""
    title, noise, rate = COUNT_NOISES[index]
    rng = seed_of("counts", index)
    n = sizes.counts
    total = (WINDOWS + 1) * POINTS
    kind: Any = noise
    out: dict[str, Any] = {"n": n, "title": title}
    spec = ta.MetricSpec(name="errors", kind="count", direction="up_is_worse", margin=TINY)
    for factor in (1.0, 1.3, 2.0):
        d = simulate.counted(
            n, total, rng=rng, rate=rate, noise=kind, factor=factor, onset=total - POINTS, exposure=500.0
        )
        cut = (n, WINDOWS + 1, POINTS)
        events = np.stack([d.baseline.reshape(cut), d.canary.reshape(cut)], axis=2)
        exposed = np.stack([d.baseline_exposure.reshape(cut), d.canary_exposure.reshape(cut)], axis=2)
        base, canary = events[:, -1, 0], events[:, -1, 1]
        options: dict[str, Any] = {
            "spec": spec,
            "baseline_exposure": exposed[:, -1, 0],
            "canary_exposure": exposed[:, -1, 1],
        }
        past: dict[str, Any] = {"history": events[:, :-1], "history_exposure": exposed[:, :-1]}
        out[f"history|{factor}"] = failed(ta.compare(base, canary, **options, **past).verdict)
        out[f"alone|{factor}"] = failed(ta.compare(base, canary, **options).verdict)
        out[f"Kayenta|{factor}"] = share(peers.kayenta_fails(base[:300], canary[:300]))
        out[f"Mann-Whitney .02|{factor}"] = share(peers.mann_whitney_p(base, canary) <= ALPHA)
        out[f"two proportions .02|{factor}"] = share(
            peers.two_proportions_p(base, canary, exposed[:, -1, 0], exposed[:, -1, 1]) <= ALPHA
        )
    return out


def counted_table(found: list[dict[str, Any]]) -> Table:
    """Return the table of events among requests."""
    n = found[0]["n"]
    limit = size_limit(ALPHA, n)
    others = ("Kayenta", "Mann-Whitney .02", "two proportions .02")
    table = Table(
        f"Errors among requests, one look after 60 points: % FAIL healthy / x1.3 / x2 (n = {n}; Kayenta 300)",
        ["noise", f"{WINDOWS} past windows", f"healthy <= {percent(limit, 2)}", "no history", *others],
    )
    for f in found:

        def cells(who: str, f: dict[str, Any] = f) -> str:
            return " / ".join(percent(f[f"{who}|{k}"], 1 if k == 1.0 else 0) for k in (1.0, 1.3, 2.0))

        word = met(f["history|1.0"], limit)
        table.add(f["title"], cells("history"), word, cells("alone"), *[cells(o) for o in others])
    table.notes.append("500 requests a scrape and arm pair with a daily swing; own noise is noise of one arm alone.")
    return table


def instance_cases(index: int, sizes: Sizes) -> dict[str, Any]:
    """Return what is said of arms whose instances are seen, for one number of instances."""
    n_base, n_canary = ((2, 1), (3, 1), (4, 2), (8, 2))[index]
    rng = seed_of("instances", index)
    n = sizes.counts
    spec = ta.MetricSpec(name="cpu", kind="gauge", direction="up_is_worse", scale="log", margin=TINY)
    out: dict[str, Any] = {"n": n, "title": f"{n_base} baseline, {n_canary} canary"}
    for factor in (1.0, 1.25, 1.5):
        d = simulate.instances(n, n_base, n_canary, 30, rng=rng, between=0.1, within=0.1)
        canary = d.canary * factor
        seen = ta.compare(d.baseline, canary, spec=spec)
        pooled = ta.compare(d.baseline.mean(axis=1), canary.mean(axis=1), spec=spec)
        flat_x, flat_y = d.baseline.reshape(n, -1), canary.reshape(n, -1)
        out[f"seen|{factor}"] = failed(seen.verdict)
        out[f"averaged|{factor}"] = failed(pooled.verdict)
        out[f"Kayenta|{factor}"] = share(peers.kayenta_fails(flat_x[:200], flat_y[:200]))
        out[f"Mann-Whitney .02|{factor}"] = share(peers.mann_whitney_p(flat_x, flat_y) <= ALPHA)
        out[f"Argo mean > 1.1x|{factor}"] = share(peers.argo_ratio_fails(flat_x, flat_y))
    return out


def instance_table(found: list[dict[str, Any]]) -> Table:
    """Return the table of arms with visible instances."""
    n = found[0]["n"]
    limit = size_limit(ALPHA, n)
    others = ("averaged", "Kayenta", "Mann-Whitney .02", "Argo mean > 1.1x")
    table = Table(
        f"Instances that differ by 10 % before any change, 30 scrapes: % FAIL healthy / x1.25 / x1.5 (n = {n})",
        ["instances", "instances seen", f"healthy <= {percent(limit, 2)}", *others],
    )
    for f in found:

        def cells(who: str, f: dict[str, Any] = f) -> str:
            return " / ".join(percent(f[f"{who}|{k}"], 1 if k == 1.0 else 0) for k in (1.0, 1.25, 1.5))

        table.add(f["title"], cells("seen"), met(f["seen|1.0"], limit), *[cells(o) for o in others])
    table.notes.append("Averaged: the same judged on the arms' means, where the instances cannot be seen.")
    return table


# ---------------------------------------------------------------- latency histograms

HISTOGRAM_NOISES: tuple[tuple[str, int, float, float], ...] = (
    ("independent requests, 200 a scrape", 200, 0.0, 0.0),
    ("shared shift sd .3, 1000 a scrape", 1000, 0.3, 0.0),
    ("shared .3 + own sd .05 AR .6, 1000 a scrape", 1000, 0.3, 0.05),
    ("own sd .2 AR .6, 20 a scrape", 20, 0.0, 0.2),
    ("own sd .2 AR .6, 1000 a scrape", 1000, 0.0, 0.2),
)


def histogram_cases(index: int, sizes: Sizes) -> dict[str, Any]:
    """Return what is said of latency histograms under one kind of noise."""
    title, requests, shared, own = HISTOGRAM_NOISES[index]
    rng = seed_of("histograms", index)
    n = max(sizes.counts // 4, 50)
    total = (WINDOWS + 1) * POINTS
    spec = ta.MetricSpec(name="latency", kind="histogram", direction="up_is_worse", margin=TINY)
    out: dict[str, Any] = {"n": n, "title": title}
    for factor in (1.0, 1.05, 1.2):
        d = simulate.histograms(
            n,
            total,
            rng=rng,
            requests=requests,
            shared=shared,
            own=own,
            factor=factor,
            onset=total - POINTS,
        )
        cut = (n, WINDOWS + 1, POINTS, -1)
        arms = np.stack([d.baseline.reshape(cut), d.canary.reshape(cut)], axis=2)
        base, canary = arms[:, -1, 0], arms[:, -1, 1]
        past = arms[:, :-1]
        found = ta.compare_histograms(base, canary, d.upper_bounds, spec=spec, history=past)
        alone = ta.compare_histograms(base, canary, d.upper_bounds, spec=spec)
        out[f"history|{factor}"], out[f"alone|{factor}"] = failed(found.verdict), failed(alone.verdict)
        pooled_base, pooled_canary = base.sum(axis=1), canary.sum(axis=1)
        p = peers.binned_mann_whitney_p(pooled_base, pooled_canary)
        out[f"pooled Mann-Whitney .02|{factor}"] = share(p <= ALPHA)
        p95 = [peers.bucket_quantile(v, d.upper_bounds, 0.95) for v in (pooled_base, pooled_canary)]
        out[f"p95 > 1.1x|{factor}"] = share(p95[1] > 1.1 * p95[0])
    return out


def histogram_table(found: list[dict[str, Any]]) -> Table:
    """Return the table of latency histograms."""
    n = found[0]["n"]
    limit = size_limit(ALPHA, n)
    others = ("pooled Mann-Whitney .02", "p95 > 1.1x")
    table = Table(
        f"Latency histograms in the usual 12 buckets, 60 scrapes: % FAIL healthy / x1.05 / x1.2 (n = {n})",
        [
            "noise of the log median",
            f"{WINDOWS} past windows",
            f"healthy <= {percent(limit, 2)}",
            "no history",
            *others,
        ],
    )
    for f in found:

        def cells(who: str, f: dict[str, Any] = f) -> str:
            return " / ".join(percent(f[f"{who}|{k}"], 1 if k == 1.0 else 0) for k in (1.0, 1.05, 1.2))

        word = met(f["history|1.0"], limit)
        table.add(f["title"], cells("history"), word, cells("alone"), *[cells(o) for o in others])
    return table


# ---------------------------------------------------------------- what was to be reached


# What is known of targets that are not reached; printed only when they are not.
REASONS = {
    "one look, no history": (
        "In 'AR .6, canary sd x3' the canary's worse tail is three times as far out. Without a history that "
        "shows it has always been so, the tail test calls that a regression."
    ),
    "real windows, top 5 %": (
        "Three of 60 points are touched, and there is no past. In one healthy pair of eight the three "
        "largest of all 120 points lie in the canary, so no test that knows only these points can call that "
        "a fault at 2 %. With a week of past the same effect is found (see the cuts)."
    ),
    "real gates of 100: one metric x1.5": (
        "5 of the 11 series (ingress) have moments in their week of past that look worse than x1.5, which "
        "holds p at .005 to .008 whatever comes; one swings too far by itself and one is constant. Found "
        "alone at 2 %, they are not found among 100, where p must fall below about .0005. Leaving known "
        "incidents out of the past finds more, and in these gates it also halted more healthy ones."
    ),
    "iid with history: power": (
        "A fifth of alpha belongs to the tail, the spread comes from 28 windows and not from knowledge, and the mean "
        "is trimmed: together about 10 points where power rises steepest. The trials' own noise is 1.5 points."
    ),
    "simulated gates of 100: one metric x1.5": (
        "The faulty metric may be any, also one whose noise is 30 % or drifts by 10 % in an hour. A test that "
        "knows the true spread of every metric's mean, which nobody does, is in the table of the gates: what it "
        "does not find among 100 at 5 % cannot be found from the means."
    ),
    "paired gates of 100: one metric x1.5": (
        "There is no past, so each spread comes from the 60 scrapes alone and has 6 degrees of freedom: among "
        "100 metrics p must fall to about .0005, which takes a change of 6 standard errors. The table tells "
        "which machines' noise hid it."
    ),
    "tails, ": (
        "Noise with 1.5 degrees of freedom throws its own worst points further out than three times: three tripled "
        "ones among 60 are nothing unusual there, in either arm."
    ),
    "levels,": (
        "At an autocorrelation of .9 the 60 points are worth 3, and no window can tell from within how few. A "
        "skewed metric with an autocorrelation of .6 has its high values in spells: a window that misses them "
        "looks low and calm at once, which a symmetric interval takes for a PASS a little too often."
    ),
    "real metrics, a week of past: false FAIL": (
        "Eleven series with events of their own that nobody marked; the cuts overlap, so the share is uncertain."
    ),
    "real gates of 100: healthy halted": (
        "Few gates, all cut from 11 series: the table gives their number. It is not shown to be reached."
    ),
}


def targets_table(figures: dict[str, Any]) -> Table:
    """Return the targets in one table: the worst value of each and whether it is met."""
    table = Table("What was to be reached", ["target", "limit", "worst", "where", ""])

    def line(text: str, values: dict[str, float], limit: float, *, at_most: bool = True) -> None:
        if not values:
            table.add(text, f"{'<=' if at_most else '>='} {percent(limit)}", "-", "no data", "-")
            return
        where = max(values, key=lambda k: values[k] if at_most else -values[k])
        worst = values[where]
        missed = sum(v > limit if at_most else v < limit for v in values.values())
        place = simulate.STRUCTURES[where].title if where in simulate.STRUCTURES else where
        more = f" ({missed} of {len(values)} miss)" if missed else ""
        word = met(worst, limit, at_most=at_most)
        table.add(text, f"{'<=' if at_most else '>='} {percent(limit)}", percent(worst), place + more, word)
        reason = next((why for start, why in REASONS.items() if text.startswith(start)), None)
        if word != "met" and reason:
            table.notes.append(f"NOT MET, {text}: {reason}")

    fixed, stream = figures["fixed"], figures["every scrape"]
    n, n_stream = (next(iter(f.values()))["n"] for f in (fixed, stream))
    mild = [name for name in fixed if name in MILD]
    alone = 2 * ALPHA
    line("one look, history: false FAIL", {k: f["size history"] for k, f in fixed.items()}, size_limit(ALPHA, n))
    for label, past, _ in STREAMS:
        if past:
            sizes = {k: f[f"size {label}"] for k, f in stream.items()}
            line(f"every scrape, {label}: ever false FAIL", sizes, size_limit(ALPHA, n_stream))
    line("one look, no history, up to AR .6: false FAIL", {k: fixed[k]["size alone"] for k in mild}, alone)
    for label, past, _ in STREAMS:
        if not past:
            sizes = {k: stream[k][f"size {label}"] for k in mild}
            line(f"every scrape, {label}, up to AR .6: ever false FAIL", sizes, alone)
    safe = {k: f["false pass history"] for k, f in fixed.items()}
    line("one look, history: PASS where the effect is the margin", safe, size_limit(ALPHA_PASS, n))
    n_margin = next(iter(stream.values()))["n_margin"]
    for label, past, _ in STREAMS:
        if past:
            safe = {k: f[f"false pass {label}"] for k, f in stream.items()}
            line(f"every scrape, {label}: ever PASS at the margin", safe, size_limit(ALPHA_PASS, n_margin))
    curve = fixed["iid"]["curve history"]
    gap = {f"{k:.2f} sd": float(special.ndtr(k - special.ndtri(1 - ALPHA))) - got for k, got in curve.items()}
    line("iid with history: power below the ideal z-test", gap, 0.10)
    windows = figures.get("real windows", {})
    names = {"exchangeable (two machines, true nulls)": 0.0, "labelled clean, a day of history": alone}
    for name, limit in names.items():
        key = f"healthy|{name}"
        bound = limit or size_limit(ALPHA, int(windows.get(f"n|{name}", 1)))
        line(f"real windows, {name}: false FAIL", {name: windows[key]} if key in windows else {}, bound)
    tripled = {k.split("|")[1]: v for k, v in windows.items() if k.startswith("tail_top5pct_x3|")}
    line("real windows, top 5 % of 60 points x3: found", tripled, 0.5, at_most=False)
    cuts = figures.get("real cuts", {})
    healthy = {k: f["fail"] for k, f in cuts.items() if k == "healthy"}
    line("real metrics, a week of past: false FAIL", healthy, alone)
    tails = {k: f["fail"] for k, f in cuts.items() if k.startswith("top")}
    line("real metrics, a week of past, tail x3: found", tails, 0.5, at_most=False)
    for key, text in (("counts", "errors among requests"), ("histograms", "latency histograms")):
        rows = figures[key]
        line(
            f"{text}, history: false FAIL",
            {f["title"]: f["history|1.0"] for f in rows},
            size_limit(ALPHA, rows[0]["n"]),
        )
    rows = figures["instances"]
    line("instances seen: false FAIL", {f["title"]: f["seen|1.0"] for f in rows}, size_limit(ALPHA, rows[0]["n"]))
    levels = figures["levels"]
    for text, values, limit in accuracy_levels.targets(levels, levels["n"], levels["n looked"]):
        line(text, values, limit)
    for text, values, limit, at_most in accuracy_tails.targets(figures["tails"]):
        line(text, values, limit, at_most=at_most)
    side_by_side = "Tidegate, every scrape, horizon"
    for what, limit, key in (
        ("simulated gates", size_limit(0.05, FULL.gates), "Tidegate, every scrape"),
        ("real gates", 0.02, "Tidegate, every scrape"),
        ("paired gates", 0.02, side_by_side),
    ):
        shares = figures.get(what, {})
        healthy = {k: v for k, v in shares.items() if k == f"{key}|healthy"}
        faulty = {k: v for k, v in shares.items() if k == f"{key}|faulty"}
        line(f"{what} of {GATE_METRICS}: healthy halted", healthy, limit)
        line(f"{what} of {GATE_METRICS}: one metric x1.5 found", faulty, 0.95, at_most=False)
    return table


def plot_sizes(figures: dict[str, Any], path: Path) -> None:
    """Draw the share of healthy changes that are stopped, by structure, for Tidegate and the peers."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    fixed = figures["fixed"]
    names = list(fixed)
    who = {
        "Tidegate, history": "size history",
        "Tidegate, no history": "size alone",
        "Kayenta": "size Kayenta",
        "Mann-Whitney .02": "size Mann-Whitney .02",
        "Argo mean > 1.1x": "size Argo mean > 1.1x",
        "Flagger 5 checks": "size Flagger 5 checks",
    }
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    rows = np.arange(len(names))[::-1]
    for (label, key), marker in zip(who.items(), "osv^Dx", strict=True):
        axes.plot([100 * fixed[k][key] for k in names], rows, marker, label=label, alpha=0.8)
    axes.axvline(100 * ALPHA, color="grey", lw=1, ls="--")
    axes.set_xscale("symlog", linthresh=2.0)
    axes.set_xticks([0, 1, 2, 5, 10, 20, 50, 100], ["0", "1", "2", "5", "10", "20", "50", "100"])
    axes.set_yticks(rows, [simulate.STRUCTURES[k].title for k in names])
    axes.set_xlabel("healthy changes stopped at one look after 60 points, %")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    figure.savefig(path)
    plt.close(figure)


def plot_power(figures: dict[str, Any], path: Path) -> None:
    """Draw the power over the effect, for independent and for autocorrelated noise."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), sharey=True, layout="constrained")
    grid = np.linspace(0, 5, 101)
    for axis, name in zip(axes, ("iid", "ar.6"), strict=True):
        axis.plot(grid, 100 * special.ndtr(grid - special.ndtri(1 - ALPHA)), "k--", lw=1, label="ideal z-test")
        found = figures["fixed"][name]
        for label, key, size in (
            ("Tidegate, history", "curve history", "size history"),
            ("Tidegate, no history", "curve alone", "size alone"),
            ("Kayenta", "curve Kayenta", "size Kayenta"),
        ):
            effects = [0.0, *found[key]]
            axis.plot(effects, [100 * found[size], *[100 * v for v in found[key].values()]], "o-", ms=4, label=label)
        axis.set(xlabel="effect, standard deviations of the difference", title=simulate.STRUCTURES[name].title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("stopped, %")
    axes[1].legend()
    figure.savefig(path)
    plt.close(figure)


# ---------------------------------------------------------------- the run


def _spread(function: Callable[..., Any], jobs: list[tuple[Any, ...]], workers: int) -> list[Any]:
    """Return ``function(*job)`` for every job, on several processes, in the order of the jobs."""
    if workers <= 1:
        return [function(*job) for job in jobs]
    with ProcessPoolExecutor(max_workers=workers, mp_context=get_context("spawn")) as pool:
        return list(pool.map(function, *zip(*jobs, strict=True)))


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)


def _tell(what: str, started: float) -> None:
    print(f"   {time.perf_counter() - started:6.1f} s  {what}", file=sys.stderr, flush=True)


def run(out_dir: Path, quick: bool) -> dict[str, Any]:
    """Run all tables; see the module's text."""
    started = time.perf_counter()
    sizes = QUICK if quick else FULL
    workers = _cores()
    tables: list[Table] = []
    figures: dict[str, Any] = {}
    names = list(simulate.STRUCTURES)

    results = _spread(fixed_horizon, [(name, sizes) for name in names], workers)
    figures["fixed"] = dict(zip(names, results, strict=True))
    tables += fixed_tables(figures["fixed"])
    _tell("one look", started)

    results = _spread(every_scrape, [(name, sizes) for name in names], workers)
    figures["every scrape"] = dict(zip(names, results, strict=True))
    tables += stream_tables(figures["every scrape"])
    _tell("every scrape", started)

    portions = _spread(seasonal, [(k, sizes) for k in range(max(sizes.seasonal // 100, 1))], workers)
    tables.append(seasonal_table({key: np.concatenate([p[key] for p in portions]) for key in portions[0]}))
    _tell("seasons", started)

    counted = _spread(counted_cases, [(k, sizes) for k in range(len(COUNT_NOISES))], workers)
    tables.append(counted_table(counted))
    seen = _spread(instance_cases, [(k, sizes) for k in range(4)], workers)
    tables.append(instance_table(seen))
    bins = _spread(histogram_cases, [(k, sizes) for k in range(len(HISTOGRAM_NOISES))], workers)
    tables.append(histogram_table(bins))
    figures["counts"], figures["instances"], figures["histograms"] = counted, seen, bins
    _tell("events, instances, histograms", started)

    figures["levels"], more = accuracy_levels.run(sizes.fixed, sizes.stream, seed_of)
    tables += more
    _tell("levels", started)
    figures["tails"], tail_table = accuracy_tails.run(max(sizes.stream // 2, 100), seed_of)
    tables.append(tail_table)
    _tell("tails", started)

    jobs = [(part, 10, POINTS) for part in range(max(sizes.gates // 10, 1))]
    found = merged(_spread(simulated_gates, jobs, workers))
    tables.append(
        gate_table(
            f"Gates of {GATE_METRICS} simulated metrics, {WINDOWS} past windows, 30 minutes with 60 looks",
            found,
            healthy_limit=0.05,
            power_target=0.95,
        )
    )
    figures["simulated gates"] = {k: share(np.array(v)) for k, v in found.items() if not k.startswith("missed")}
    _tell("simulated gates", started)

    folder = real.folder()
    if folder is None:
        print("   TIDEGATE_DATA names no folder with the real data: those tables are left out", file=sys.stderr)
    else:
        windows, figures["real windows"] = real_window_tables(folder, 400 if quick else None)
        rows = _spread(real_cut, [(str(folder), k, sizes) for k in range(len(CUT_EFFECTS))], workers)
        figures["real cuts"] = {effect[0]: row for effect, row in zip(CUT_EFFECTS, rows, strict=True)}
        tables += [*windows, real_cut_table(rows)]
        _tell("real data", started)
        portions = _spread(real_gates, [(str(folder), k, 5) for k in range(max(sizes.gates // 10, 1))], workers)
        found = merged(portions)
        title = f"Gates of {GATE_METRICS} real one-minute metrics, a week of past, 30 minutes with 60 looks"
        tables.append(gate_table(title, found, healthy_limit=0.02, power_target=0.95))
        tables[-1].notes.append("A point a minute: every second look has nothing new. 11 series stand behind the cuts.")
        figures["real gates"] = {key: share(np.array(value)) for key, value in found.items()}
        _tell("real gates", started)
        portions = _spread(paired_gates, [(str(folder), k, 10) for k in range(max(sizes.gates // 10, 1))], workers)
        found = merged(portions)
        title = f"Gates of {GATE_METRICS} real metrics of two machines side by side, no past, {POINTS} looks"
        tables.append(gate_table(title, found, healthy_limit=0.02, power_target=0.95))
        tables[-1].notes.append("The exchangeable pairs, true nulls; a machine that does not move is left out.")
        figures["paired gates"] = {k: share(np.array(v)) for k, v in found.items() if not k.startswith("missed")}
        _tell("real gates of two machines", started)
    tables.insert(0, targets_table(figures))
    out_dir.mkdir(parents=True, exist_ok=True)
    plot_sizes(figures, out_dir / "accuracy-size.svg")
    plot_power(figures, out_dir / "accuracy-power.svg")
    tables[0].notes.append("Plots: accuracy-size.svg, accuracy-power.svg.")
    return {"seed": SEED, "figures": figures, "tables": [table.as_dict() for table in tables]}
