"""A smaller run of the accuracy tables: healthy changes must not fail, faulty ones must, at every look.

Seeded, so the figures are the same everywhere; the tolerances are the targets plus three standard errors of the sample.
``make bench-accuracy`` has the full tables.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tidegate_analysis as ta
from scipy import special
from tidegate_analysis import simulate

from benchmarks import accuracy
from benchmarks.accuracy import ALPHA, ALPHA_PASS, EFFECT, MARGIN_SD, MILD, POINTS, Case
from benchmarks.report import size_limit, standard_error

NAMES = list(simulate.STRUCTURES)
N = 600
N_STREAM = 150
N_MARGIN = 400


@cache
def drawn(name: str, n: int = N) -> Case:
    return accuracy.case(name, n, accuracy.seed_of("tests", name))


@pytest.mark.parametrize("name", NAMES)
def test_one_look_with_history_keeps_its_size(name: str) -> None:
    c = drawn(name)
    found = accuracy.verdicts(c.windows.baseline, c.windows.canary, c.spec(), c.windows.history)
    assert accuracy.failed(found) <= size_limit(ALPHA, N)


# Its canary swings three times as far: without a history that says so, its worse tail is a finding and not an error.
HONEST_WITHOUT_HISTORY = [name for name in MILD if name != "ar.6 canary sd x3"]


@pytest.mark.parametrize("name", HONEST_WITHOUT_HISTORY)
def test_one_look_without_history_keeps_twice_its_size(name: str) -> None:
    c = drawn(name)
    found = accuracy.verdicts(c.windows.baseline, c.windows.canary, c.spec(), None)
    assert accuracy.failed(found) <= size_limit(2 * ALPHA, N)


@pytest.mark.parametrize("name", NAMES)
def test_pass_is_not_said_at_the_margin(name: str) -> None:
    c = drawn(name)
    spec = c.spec(c.margin(MARGIN_SD))
    worse = c.worse(MARGIN_SD, accuracy.seed_of("tests", "margin", name))
    found = accuracy.verdicts(c.windows.baseline[:N_MARGIN], worse[:N_MARGIN], spec, c.windows.history[:N_MARGIN])
    assert accuracy.passed(found) <= size_limit(ALPHA_PASS, N_MARGIN)


@pytest.mark.parametrize("k", [2.0, EFFECT, 4.0])
def test_power_is_close_to_the_ideal(k: float) -> None:
    c = drawn("iid")
    worse = c.worse(k, accuracy.seed_of("tests", "power"))
    found = accuracy.failed(accuracy.verdicts(c.windows.baseline, worse, c.spec(), c.windows.history))
    ideal = float(special.ndtr(k - special.ndtri(1 - ALPHA)))
    assert found >= ideal - 0.10 - 3 * standard_error(ideal, N)


def watched(
    c: Case, canary: np.ndarray, spec: ta.MetricSpec, n: int, *, history: bool, horizon: bool
) -> accuracy.Watched:
    return accuracy.watch(
        [spec] * n,
        c.windows.baseline[:n],
        canary[:n],
        history=c.windows.history[:n] if history else None,
        horizon=POINTS if horizon else None,
    )


@pytest.mark.parametrize("name", NAMES)
def test_looking_at_every_scrape_keeps_its_size(name: str) -> None:
    c = drawn(name)
    found = watched(c, c.windows.canary, c.spec(), N_STREAM, history=True, horizon=True)
    assert accuracy.share(found.failed) <= size_limit(ALPHA, N_STREAM)


@pytest.mark.parametrize("name", ["iid", "ar.9", "ar.9+white", "shared ar.9 + ar.6"])
def test_looking_for_ever_keeps_its_size(name: str) -> None:
    c = drawn(name)
    found = watched(c, c.windows.canary, c.spec(), N_STREAM, history=True, horizon=False)
    assert accuracy.share(found.failed) <= size_limit(ALPHA, N_STREAM)


@pytest.mark.parametrize("name", ["iid", "ar.6", "t1.5", "rare counts"])
def test_looking_at_every_scrape_without_history_keeps_twice_its_size(name: str) -> None:
    c = drawn(name)
    found = watched(c, c.windows.canary, c.spec(), N_STREAM, history=False, horizon=True)
    assert accuracy.share(found.failed) <= size_limit(2 * ALPHA, N_STREAM)


@pytest.mark.parametrize("name", ["iid", "ar.6", "ar.9"])
def test_a_watch_finds_what_is_there_and_stops_early(name: str) -> None:
    c = drawn(name)
    worse = c.worse(1.5 * EFFECT, accuracy.seed_of("tests", "stream", name))
    found = watched(c, worse, c.spec(), N_STREAM, history=True, horizon=True)
    assert accuracy.share(found.failed) >= 0.95
    assert np.nanmedian(found.first) <= 0.6 * POINTS


@pytest.mark.parametrize("name", ["iid", "ar.9", "lognormal ar.6"])
def test_a_watch_does_not_pass_at_the_margin(name: str) -> None:
    c = drawn(name)
    worse = c.worse(MARGIN_SD, accuracy.seed_of("tests", "margin", name))
    found = watched(c, worse, c.spec(c.margin(MARGIN_SD)), N_STREAM, history=True, horizon=True)
    assert accuracy.share(found.passed) <= size_limit(ALPHA_PASS, N_STREAM)


def test_deployments_into_seasons() -> None:
    data = simulate.seasonal_minutes(60, 8, rng=4)
    spec = ta.MetricSpec(name="latency", kind="gauge", direction="up_is_worse", scale="log", margin=0.05)
    tiny = spec.with_(margin=accuracy.TINY)
    assert accuracy.failed(ta.before_after(data.before, data.after, spec=tiny).verdict) <= size_limit(ALPHA, 60)
    assert accuracy.failed(ta.before_after(data.before, 1.25 * data.after, spec=spec).verdict) >= 0.9


def test_gates_of_a_hundred_metrics() -> None:
    count = 12
    gates = simulate.gates(count, 100, POINTS, n_windows=28, rng=accuracy.seed_of("tests", "gates"))
    specs = [
        ta.MetricSpec(name=f"m{k}", kind="gauge", direction="up_is_worse", scale="log", margin=0.1, group=group)
        for k, group in enumerate(gates.groups)
    ]
    halted = found = 0
    for gate in range(count):
        rows = gates.rows(gate)
        opened = ta.open_stream(specs, history=gates.history[rows], horizon=POINTS)
        halted += accuracy.gate_watch(opened, gates.baseline[rows], gates.canary[rows], 12)[0]
        worse = gates.canary[rows].copy()
        worse[0] *= 1.5
        found += 0 in accuracy.gate_watch(opened, gates.baseline[rows], worse, 12)[1]
    # At most 5 % of healthy gates halt: 4 or more of 12 would happen twice in a thousand runs.
    assert halted <= 3
    assert found >= 10
