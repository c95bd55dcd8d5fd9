"""Run the benchmarks: ``python -m benchmarks [names] [--quick]``.

Every benchmark is a module here with ``run(out_dir, quick) -> dict``. Its result is written as JSON and as
Markdown tables into benchmarks/results (a quick run into benchmarks/results/quick), and the tables are
printed.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
import traceback
from pathlib import Path

# One thread for the linear algebra: the figures are per core. Must be set before numpy is imported.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

NAMES = ("kernels", "speed", "accuracy", "serving", "evaluations")
RESULTS = Path(__file__).resolve().parent / "results"


def _cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def main(arguments: list[str] | None = None) -> int:
    """Run what was asked for; 0 when all of it ran, 1 when something broke, 2 on a wrong name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=f"any of {', '.join(NAMES)}; default all")
    parser.add_argument("--quick", action="store_true", help="smaller samples, for a first look")
    parser.add_argument("--out", type=Path, default=None, help="folder for the results")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(f"no benchmark named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    out = options.out or (RESULTS / "quick" if options.quick else RESULTS)

    from benchmarks import report

    broken = []
    for name in options.names or NAMES:
        started, used = time.perf_counter(), _cpu_seconds()
        print(f"-- {name}", file=sys.stderr, flush=True)
        try:
            result = importlib.import_module(f"benchmarks.{name}").run(out, options.quick)
        except Exception:
            traceback.print_exc()
            broken.append(name)
            continue
        result["seconds"] = round(time.perf_counter() - started, 1)
        result["cpu_seconds"] = round(_cpu_seconds() - used, 1)
        result["quick"] = options.quick
        print(report.write(out, name, result), flush=True)
        spent = f"{result['seconds']} s, {result['cpu_seconds']} s of processor"
        print(f"-- {name}: {spent}, written to {out}", file=sys.stderr, flush=True)
    if broken:
        print(f"broken: {', '.join(broken)}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
