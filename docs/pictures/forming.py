"""Draw how a verdict forms, from the recorded rollouts: make pictures, or forming.py FILE."""

import csv
import math
import sys
from datetime import datetime
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import numpy as np
import tidegate_analysis as ta
from matplotlib import pyplot as plt

DATA = Path(__file__).resolve().parents[2] / "benchmarks" / "data" / "demo"
METRIC, MARGIN, STEP, HORIZON = "checkout_latency_p95", 0.15, 0.5, 25.0
ARMS = {"baseline": "#4878a8", "canary": "#d1792b"}
VERDICTS = {"PASS": "#2a8a3e", "FAIL": "#c0392b", "INCONCLUSIVE": "#999999"}


def series(name: str) -> tuple[float, dict[tuple[str, str], list[float]]]:
    """The first second after the deployment, and the metric's values by phase and arm, scrape by scrape."""
    with (DATA / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["metric"] == METRIC]
    times = [datetime.fromisoformat(row["timestamp"]).timestamp() for row in rows]
    deployed = min(time for time, row in zip(times, rows, strict=True) if row["phase"] == "post")
    found: dict[tuple[str, str], dict[int, float]] = {}
    for time, row in zip(times, rows, strict=True):
        values = found.setdefault((row["phase"], row["arm"]), {})
        values[round((time - deployed) / STEP)] = float(row["value"] or "nan")
    return deployed, {
        key: [values.get(k, math.nan) for k in range(min(values), max(values) + 1)] for key, values in found.items()
    }


def looks(name: str) -> list[tuple[float, float, float, float, str]]:
    """Second, change and its bounds, and verdict at every scrape after the deployment, as a stream is judged."""
    deployed, values = series(name)
    spec = ta.MetricSpec(METRIC, kind="gauge", scale="log", direction="up_is_worse", margin=MARGIN, unit="ms")
    live = ta.LiveEvaluation(
        [spec], design="concurrent", warm_up=1.0, horizon_seconds=HORIZON, deployed_at=deployed - STEP / 2
    )
    for arm in ARMS:
        past = np.array([values["pre", arm]])
        live.add(ta.Block(arm, deployed - STEP * past.shape[1], STEP, past, phase="pre"))
    found = []
    for k in range(round(HORIZON / STEP)):
        for arm in ARMS:
            live.add(ta.Block(arm, deployed + k * STEP, STEP, np.array([[values["post", arm][k]]])))
        result = live.judge().result
        effects = (result.effect[0], result.effect_low[0], result.effect_high[0])
        found.append((k * STEP, *map(float, effects), ta.Verdict(int(result.verdict[0])).name))
    return found


def draw(path: Path) -> None:
    """Write the picture."""
    plt.rcParams |= {"svg.hashsalt": "tidegate", "svg.fonttype": "none", "font.size": 9}
    figure, axes = plt.subplots(2, 2, figsize=(9, 4.6), sharex=True, sharey="row", layout="constrained")
    for column, (name, title) in enumerate((("healthy", "a harmless v2"), ("faulty", "a v2 with a slow checkout"))):
        _, values = series(name)
        top, bottom = axes[:, column]
        top.set_title(title, loc="left", fontweight="bold")
        for arm, colour in ARMS.items():
            before = values["pre", arm][-16:]
            shown = before + values["post", arm][: round(HORIZON / STEP)]
            top.plot((np.arange(len(shown)) - len(before)) * STEP, shown, color=colour, label=arm, linewidth=1.3)
        seen = [look for look in looks(name) if math.isfinite(look[2]) and math.isfinite(look[3])]
        seconds, change, low, high = (np.array([look[k] for look in seen], dtype=float) for k in range(4))
        bottom.fill_between(seconds, 100 * low, 100 * high, color="#cccccc", linewidth=0, label="interval")
        bottom.plot(seconds, 100 * change, color="#333333", linewidth=1.3, label="change")
        bottom.axhline(100 * MARGIN, color="#333333", linewidth=1, linestyle="--", label="margin")
        first = next(look for look in seen if look[4] in ("PASS", "FAIL"))
        for axis in (top, bottom):
            axis.axvline(0, color="#bbbbbb", linewidth=1, zorder=0)
            axis.axvline(first[0], color=VERDICTS[first[4]], linewidth=1.5)
            axis.spines[["top", "right"]].set_visible(False)
        bottom.annotate(
            f"{first[4]} after {first[0]:g} s",
            (first[0], 88),
            xytext=(4, 0),
            textcoords="offset points",
            color=VERDICTS[first[4]],
            fontweight="bold",
        )
        bottom.set_xlabel("seconds after the deployment")
    axes[0, 0].set_ylabel("checkout p95, ms")
    axes[1, 0].set_ylabel("canary against baseline, %")
    axes[1, 0].set_ylim(-60, 100)
    axes[0, 0].legend(frameon=False, loc="upper left", ncols=2)
    axes[1, 0].legend(frameon=False, loc="lower right", ncols=3)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".svg"))
