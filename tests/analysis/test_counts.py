"""Counts and event ratios: against slow references, closed forms, known weaknesses of judges, and their error rates."""

from __future__ import annotations

import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize, stats
from tidegate_analysis import MetricSpec, open_stream, simulate
from tidegate_analysis import compare as compare_arms
from tidegate_analysis.kernels import count_stream, counts

Array = NDArray[np.float64]
INF = math.inf


def compare(b: object, c: object, rb: object = None, rc: object = None, **kwargs: object) -> counts.CountComparison:
    """One series, given as plain lists."""

    def row(x: object) -> Array | None:
        return None if x is None else np.atleast_2d(np.asarray(x, dtype=np.float64))

    kwargs.setdefault("margin", 0.1)
    return counts.fixed_horizon_counts(
        row(b),
        row(c),
        baseline_exposure=row(rb),
        canary_exposure=row(rc),
        **kwargs,  # type: ignore[arg-type]
    )


# --- a slow reference: one series, no arrays ---


def slow_edges(points: int) -> list[int]:
    k = max(1, min(points, 7), min(points // 3, 10))
    return [(j * points) // k for j in range(k)]


def slow_pairs(b: Array, c: Array, rb: Array, rc: Array) -> list:
    rows = zip(b.tolist(), c.tolist(), rb.tolist(), rc.tolist(), strict=True)
    return [None if any(math.isnan(v) for v in x) or x[2] <= 0 or x[3] <= 0 else x for x in rows]


def slow_tail(c: float, b: float, theta: float) -> float:
    if c <= 0:
        return 1.0
    if c == int(c) and b == int(b):
        return float(stats.binom.sf(c - 1, c + b, theta))
    return float(stats.beta.cdf(theta, c, b + 1))


def slow_independent(pairs: list, phi: float, margin_up: float, margin_down: float) -> tuple[float, ...]:
    live = [p for p in pairs if p]
    if not live:
        return (1.0, 1.0, 1.0, 1.0)
    u = [p[2] / (p[2] + p[3]) for p in live]
    v = [p[3] / (p[2] + p[3]) for p in live]
    c = sum(w * p[1] for w, p in zip(u, live, strict=True)) / max(u) / phi
    b = sum(w * p[0] for w, p in zip(v, live, strict=True)) / max(v) / phi
    odds = max(v) / max(u)

    def share(delta: float) -> float:
        return odds * math.exp(delta) / (1 + odds * math.exp(delta))

    return (
        slow_tail(c, b, share(0)),
        slow_tail(b, c, 1 - share(0)),
        slow_tail(b, c, 1 - share(margin_up)),
        slow_tail(c, b, share(-margin_down)),
    )


def slow_subsets(pairs: list, margin_up: float, margin_down: float) -> tuple[float, ...]:
    edges = [*slow_edges(len(pairs)), len(pairs)]
    rise, fall = [], []
    for start, stop in itertools.pairwise(edges):
        part = [p for p in pairs[start:stop] if p]
        rise.append(sum(p[1] * p[2] / (p[2] + p[3]) for p in part))
        fall.append(sum(p[0] * p[3] / (p[2] + p[3]) for p in part))
    hits = [0, 0, 0, 0]
    chosen = list(itertools.product((0, 1), repeat=len(rise)))
    for mask in chosen:
        up = sum(r for r, m in zip(rise, mask, strict=True) if m)
        down = sum(f for f, m in zip(fall, mask, strict=True) if m)
        unknown = up == 0 and down == 0
        ratio = math.nan if unknown else (INF if down == 0 else up / down)
        for k, hit in enumerate(
            (
                ratio <= 1 + 1e-12,
                ratio >= 1 - 1e-12,
                ratio >= math.exp(margin_up) - 1e-12,
                ratio <= math.exp(-margin_down) + 1e-12,
            )
        ):
            hits[k] += unknown or hit
    return tuple(h / len(chosen) for h in hits)


def slow_blunted(pairs: list, arm: int) -> list:
    top = math.ceil(0.05 * len(pairs)) if len(pairs) > 1 else 0
    rates = sorted((p[arm] / p[arm + 2] if p else 0.0) for p in pairs)
    cap = rates[len(pairs) - 1 - top]
    out = []
    for p in pairs:
        if p and top:
            q = list(p)
            q[arm] = min(p[arm], cap * p[arm + 2])
            out.append(tuple(q))
        else:
            out.append(p)
    return out


def slow_p(b: Array, c: Array, rb: Array, rc: Array, margin: float) -> tuple[float, ...]:
    """p of at most 0, at least 0, at least the margin up, at most the margin down, without history."""
    up = down = math.log1p(margin)
    pairs = slow_pairs(b, c, rb, rc)

    def clumped(part: list) -> tuple[float, ...]:
        live = [p for p in part if p]
        if not live:
            return (1.0,) * 4
        u = [p[2] / (p[2] + p[3]) for p in live]
        v = [p[3] / (p[2] + p[3]) for p in live]
        n = sum(w * p[1] for w, p in zip(u, live, strict=True)) / max(u)
        n += sum(w * p[0] for w, p in zip(v, live, strict=True)) / max(v)
        return slow_independent(part, 12 + 0.25 * n / (2 * len(slow_edges(len(part)))), up, down)

    one = slow_independent(pairs, 1.0, up, down)
    two = slow_subsets(pairs, up, down)
    high, low = clumped(slow_blunted(pairs, 1)), clumped(slow_blunted(pairs, 0))
    three = (high[0], low[1], low[2], high[3])
    return tuple(max(x, min(y, z)) for x, y, z in zip(one, two, three, strict=True))


def cases() -> list[tuple[Array, Array, Array, Array]]:
    rng = np.random.default_rng(11)
    out = []
    for points, mean in itertools.product((1, 2, 5, 8, 13), (0.1, 1.0, 20.0)):
        for exposed in (False, True):
            b, c = rng.poisson(mean, (2, points)).astype(float)
            rb, rc = (
                (rng.integers(1, 50, points).astype(float), rng.integers(1, 900, points).astype(float))
                if exposed
                else (np.ones(points), np.ones(points))
            )
            if points > 3:
                c[rng.integers(points)] = np.nan
                rb[rng.integers(points)] = 0.0 if exposed else 1.0
            out.append((b, c, rb, rc))
    zero = np.zeros(6)
    out += [
        (zero, zero, zero + 1, zero + 1),
        (zero + 3, zero + 3, zero + 1, zero + 1),
        (zero, zero + 2, zero + 1, zero + 1),
    ]
    return out


def test_it_equals_a_slow_reference() -> None:
    for b, c, rb, rc in cases():
        want = slow_p(b, c, rb, rc, 0.3)
        up = compare(b, c, rb, rc, margin=0.3, sign=1)
        either = compare(b, c, rb, rc, margin=0.3, sign=0)
        if not math.isnan(up.effect[0]):
            assert up.p_value[0] == pytest.approx(want[0], rel=1e-9)
            assert up.pass_p_value[0] == pytest.approx(want[2], rel=1e-9)
            assert either.p_value[0] == pytest.approx(min(1.0, 2 * min(want[:2])), rel=1e-9)
            assert either.pass_p_value[0] == pytest.approx(max(want[2], want[3]), rel=1e-9)
        # A fall that is worse has its margin at log(1 - x).
        down = compare(b, c, rb, rc, margin=0.3, sign=-1)
        other = slow_p(b, c, rb, rc, 1 / 0.7 - 1)
        if not math.isnan(down.effect[0]):
            assert down.p_value[0] == pytest.approx(want[1], rel=1e-9)
            assert down.pass_p_value[0] == pytest.approx(other[3], rel=1e-9)


def test_with_a_known_dispersion_it_is_the_binomial() -> None:
    for c, b in ((0, 0), (3, 1), (40, 22), (22, 40), (7, 0)):
        got = compare([b], [c], dispersion=1.0)
        assert got.p_value[0] == pytest.approx(
            stats.binomtest(c, b + c, 0.5, alternative="greater").pvalue if b + c else 1
        )
        theta = 1.1 / 2.1
        assert got.pass_p_value[0] == pytest.approx(stats.binom.cdf(c, b + c, theta) if b + c else 1)
    # The bounds are Clopper and Pearson's, each at its own level; over a share of 0.2 the odds are 1/4.
    got = compare([22], [40], [400], [100], dispersion=1.0, alpha=0.02, alpha_pass=0.05)
    exact_low = stats.binomtest(40, 62).proportion_ci(0.96, "exact").low
    exact_high = stats.binomtest(40, 62).proportion_ci(0.90, "exact").high
    assert got.low[0] == pytest.approx(exact_low / (1 - exact_low) * 4 - 1)
    assert got.high[0] == pytest.approx(exact_high / (1 - exact_high) * 4 - 1)
    assert got.effect[0] == pytest.approx(40 / 22 * 4 - 1)
    # Twice the dispersion on twice the events says the same.
    once, twice = compare([22], [40], dispersion=1.0), compare([44], [80], dispersion=2.0)
    assert once.p_value[0] == pytest.approx(twice.p_value[0])
    assert once.n_effective[0] == pytest.approx(twice.n_effective[0])


def test_bounds_agree_with_p_values() -> None:
    """A bound excludes 0 (or the margin) exactly where its p-value says so."""
    rng = np.random.default_rng(5)
    size = 300
    b = rng.poisson(3, (size, 20)).astype(float)
    c = rng.poisson(3 * np.exp(rng.normal(0, 0.4, (size, 1))), (size, 20)).astype(float)
    for dispersion in (None, np.ones(size)):
        got = counts.fixed_horizon_counts(b, c, margin=0.3, dispersion=dispersion)
        assert np.array_equal(got.low > 0, got.p_value <= 0.02)
        assert np.array_equal(got.high < 0.3, got.pass_p_value <= 0.05)
        assert ((got.low <= got.effect) & (got.effect <= got.high)).all()
        either = counts.fixed_horizon_counts(b, c, margin=0.3, sign=0, dispersion=dispersion)
        assert np.array_equal((either.low > 0) | (either.high < 0), either.p_value <= 0.02)
    n = np.full(b.shape, 50.0)
    got = counts.fixed_horizon_counts(b, c, margin=0.02, absolute=True, baseline_exposure=n, canary_exposure=n)
    assert np.array_equal(got.low > 0, got.p_value <= 0.02)
    agree = (got.high < 0.02) == (got.pass_p_value <= 0.05)
    assert agree.all()


# --- what other judges get wrong ---


def test_sparse_errors_are_not_proof() -> None:
    got = compare(np.zeros(6), [0, 1, 2, 1, 0, 0])
    assert got.p_value[0] > 0.02
    assert got.pass_p_value[0] > 0.05


def test_errors_on_the_canary_alone_fail() -> None:
    got = compare(np.zeros(10), [0, 60, 0, 61, 62, 0, 60, 0, 64, 0])
    assert got.p_value[0] < 1e-4
    assert got.low[0] > 0.25
    assert math.isfinite(got.effect[0])


@pytest.mark.parametrize("points", [1, 10, 60])
def test_ratios_with_no_or_many_events(points: int) -> None:
    def spread(x: float) -> Array:
        return np.full(points, x / points)

    margin = {"margin": 0.005, "absolute": True}
    clean = compare(spread(0), spread(0), spread(10_000), spread(10_000), **margin)
    assert clean.pass_p_value[0] <= 0.05
    assert clean.high[0] < 0.005
    assert clean.p_value[0] == 1.0
    few = compare(spread(0), spread(0), spread(20), spread(20), **margin)
    assert few.pass_p_value[0] > 0.05
    assert few.p_value[0] > 0.02
    bad = compare(spread(0), spread(600), spread(60_000), spread(60_000), **margin)
    assert bad.p_value[0] <= 0.02
    assert bad.effect[0] == pytest.approx(0.01)
    assert bad.low[0] > 0
    # Successes of which 1 % went missing are the same finding mirrored.
    lost = compare(spread(60_000), spread(59_400), spread(60_000), spread(60_000), sign=-1, **margin)
    assert lost.p_value[0] == pytest.approx(bad.p_value[0])
    assert lost.effect[0] == pytest.approx(-0.01)
    assert (lost.low[0], lost.high[0]) == pytest.approx((-bad.high[0], -bad.low[0]))


@pytest.mark.parametrize("common", [False, True])
@pytest.mark.parametrize("sign", [-1, 0, 1])
def test_ratios_are_as_sharp_from_either_side(common: bool, sign: int) -> None:
    """Failures of requests and successes of requests say the same; so do rare conversions, where a fall is worse."""
    rng = np.random.default_rng(10)
    n = np.full((80, 20), 500.0)
    b, c = rng.binomial(500, 0.02, (80, 20)).astype(float), rng.binomial(500, 0.026, (80, 20)).astype(float)
    kwargs = {"margin": 0.01, "absolute": True, "baseline_exposure": n, "canary_exposure": n}
    one = counts.fixed_horizon_counts(b, c, sign=sign, **kwargs)
    two = counts.fixed_horizon_counts(n - b, n - c, sign=-sign, **kwargs)
    assert np.allclose(one.p_value, two.p_value)
    assert np.allclose(one.pass_p_value, two.pass_p_value)
    assert np.allclose(one.effect, -two.effect)
    assert np.allclose(one.low, -two.high)
    # Swapped arms and a swapped direction are the same question.
    other = (n - c, n - b) if common else (c, b)
    swapped = counts.fixed_horizon_counts(*other, sign=sign if common else -sign, **kwargs)
    assert np.allclose(one.p_value, swapped.p_value)
    assert np.allclose(one.pass_p_value, swapped.pass_p_value)


@pytest.mark.parametrize("events", range(5))
def test_under_five_events_nothing_is_claimed_at_even_shares(events: int) -> None:
    for sign in (1, 0):
        got = compare(np.zeros(60), [events, *([0] * 59)], sign=sign)
        assert got.p_value[0] > 0.02
        assert got.pass_p_value[0] > 0.05


@settings(max_examples=60, derandomize=True)
@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(1, 99), st.integers(1, 99)),
        min_size=1,
        max_size=14,
    ),
    st.integers(0, 13),
    st.integers(1, 400),
    st.booleans(),
    st.sampled_from([-1, 0, 1]),
)
def test_more_failures_never_help(rows: list, where: int, extra: int, exposed: bool, sign: int) -> None:
    """Whatever is added to the canary, and however clumped, the p of "not worse" falls and that of PASS rises."""
    b, c, rb, rc = (np.array(x, dtype=np.float64)[None] for x in zip(*rows, strict=True))
    more = c.copy()
    more[0, where % c.shape[1]] += extra
    both = []
    for events in (c, more):
        kwargs = {"baseline_exposure": rb, "canary_exposure": rc} if exposed else {}
        got = counts.fixed_horizon_counts(b, events, margin=0.2, sign=1, **kwargs)
        both.append(got)
        if sign == 0:
            got = counts.fixed_horizon_counts(b, events, margin=0.2, sign=0, **kwargs)
    assert both[1].p_value[0] <= both[0].p_value[0] * (1 + 1e-9)
    assert both[1].pass_p_value[0] >= both[0].pass_p_value[0] * (1 - 1e-9)
    assert both[1].low[0] >= both[0].low[0] - 1e-9
    # And more failures of the baseline never make a FAIL.
    worse = b.copy()
    worse[0, where % c.shape[1]] += extra
    kwargs = {"baseline_exposure": rb, "canary_exposure": rc} if exposed else {}
    got = counts.fixed_horizon_counts(worse, c, margin=0.2, sign=1, **kwargs)
    assert got.p_value[0] >= both[0].p_value[0] * (1 - 1e-9)


def test_more_failures_never_help_ratios() -> None:
    rng = np.random.default_rng(2)
    n = np.full((60, 12), 4000.0)
    b = rng.poisson(2, (60, 12)).astype(float)
    c = rng.poisson(2, (60, 12)).astype(float)
    kwargs = {"margin": 0.002, "absolute": True, "baseline_exposure": n, "canary_exposure": n}
    last = counts.fixed_horizon_counts(b, c, **kwargs)
    for step in range(40):
        c[np.arange(60), rng.integers(0, 12, 60)] += 1 + step
        got = counts.fixed_horizon_counts(b, c, **kwargs)
        assert (got.p_value <= last.p_value * (1 + 1e-9)).all()
        assert (got.pass_p_value >= last.pass_p_value * (1 - 1e-6)).all()
        last = got
    assert (last.p_value <= 0.02).all()


# --- symmetries ---


def test_swapping_the_arms_mirrors_the_answer() -> None:
    rng = np.random.default_rng(3)
    b, c = rng.poisson(4, (50, 24)).astype(float), rng.poisson(5, (50, 24)).astype(float)
    rb, rc = rng.integers(10, 90, (2, 50, 24)).astype(float)
    one = counts.fixed_horizon_counts(b, c, baseline_exposure=rb, canary_exposure=rc, margin=0.2, sign=0)
    two = counts.fixed_horizon_counts(c, b, baseline_exposure=rc, canary_exposure=rb, margin=0.2, sign=0)
    assert np.allclose(one.p_value, two.p_value, rtol=1e-9)
    assert np.allclose(one.pass_p_value, two.pass_p_value, rtol=1e-9)
    assert np.allclose((1 + one.low) * (1 + two.high), 1, rtol=1e-9)


def test_units_of_exposure_and_neighbours_do_not_matter() -> None:
    rng = np.random.default_rng(4)
    size = 300
    b, c = rng.poisson(2, (2, size, 20)).astype(float)
    rb, rc = rng.integers(10, 90, (2, size, 20)).astype(float)
    base = counts.fixed_horizon_counts(b, c, baseline_exposure=rb, canary_exposure=rc, margin=0.2)
    scaled = counts.fixed_horizon_counts(b, c, baseline_exposure=rb * 1e6, canary_exposure=rc * 1e6, margin=0.2)
    assert np.allclose(base.p_value, scaled.p_value, rtol=1e-9)
    alone = counts.fixed_horizon_counts(
        b[140:141], c[140:141], baseline_exposure=rb[140:141], canary_exposure=rc[140:141], margin=0.2
    )
    for field, row in zip(base, alone, strict=True):
        assert field[140] == row[0]


def test_an_arm_that_ramps_up_during_an_incident_is_not_blamed() -> None:
    """Rates and shares that move together: pooled rates differ by 28 %, scrape by scrape nothing does."""
    share = np.linspace(0.05, 0.5, 40)
    rate = np.linspace(0.01, 0.05, 40)
    rb, rc = 10_000 * (1 - share), 10_000 * share
    got = compare(np.round(rb * rate), np.round(rc * rate), rb, rc)
    pooled = (rc * rate).sum() / rc.sum() / ((rb * rate).sum() / rb.sum())
    assert pooled > 1.25
    assert abs(got.effect[0]) < 0.01
    assert got.p_value[0] > 0.2


# --- error rates ---


@pytest.mark.parametrize(
    ("noise", "rate"),
    list(itertools.product(("none", "shared_bursts", "own_gamma", "own_incidents"), (0.0005, 0.1))),
)
def test_false_alarms_without_history(noise: simulate.CountNoise, rate: float) -> None:
    size = 400
    s = simulate.counted(size, 60, rng=17, rate=rate, noise=noise)
    got = counts.fixed_horizon_counts(
        s.baseline, s.canary, baseline_exposure=s.baseline_exposure, canary_exposure=s.canary_exposure, margin=0.25
    )
    assert (got.p_value <= 0.02).mean() <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / size)
    s = simulate.counted(size, 60, rng=18, rate=rate, noise=noise, factor=1.25)
    got = counts.fixed_horizon_counts(
        s.baseline, s.canary, baseline_exposure=s.baseline_exposure, canary_exposure=s.canary_exposure, margin=0.25
    )
    assert (got.pass_p_value <= 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / size)


@pytest.mark.parametrize("noise", ["own_gamma", "own_ar", "own_incidents"])
@pytest.mark.parametrize("rate", [0.002, 0.2])
def test_false_alarms_with_history(noise: simulate.CountNoise, rate: float) -> None:
    size, windows = 200, 20
    past = simulate.counted(size * windows, 60, rng=1, rate=rate, noise=noise)

    def shaped(first: Array, second: Array) -> Array:
        return np.stack([first.reshape(size, windows, 60), second.reshape(size, windows, 60)], axis=2)

    phi, used = counts.history_dispersion(
        shaped(past.baseline, past.canary), shaped(past.baseline_exposure, past.canary_exposure)
    )
    assert (used > 15).all()
    rejected = {}
    for factor in (1.0, 2.0):
        s = simulate.counted(size, 60, rng=2, rate=rate, noise=noise, factor=factor)
        got = counts.fixed_horizon_counts(
            s.baseline,
            s.canary,
            baseline_exposure=s.baseline_exposure,
            canary_exposure=s.canary_exposure,
            margin=0.25,
            dispersion=phi,
        )
        rejected[factor] = (got.p_value <= 0.02).mean()
    assert rejected[1.0] <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / size)
    assert rejected[2.0] > 5 * max(rejected[1.0], 0.02)


@pytest.mark.parametrize("level", [0.0, 0.0004, 0.01, 0.2])
def test_false_pass_at_the_absolute_margin(level: float) -> None:
    size = 1500
    rng = np.random.default_rng(8)
    for requests in (100, 3000):
        n = np.full((size, 12), float(requests // 12))
        b, c = rng.binomial(n.astype(int), level), rng.binomial(n.astype(int), level + 0.01)
        got = counts.fixed_horizon_counts(
            b, c, baseline_exposure=n, canary_exposure=n, margin=0.01, absolute=True, dispersion=np.ones(size)
        )
        assert (got.pass_p_value <= 0.05).mean() <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / size)
        no_history = counts.fixed_horizon_counts(
            b, c, baseline_exposure=n, canary_exposure=n, margin=0.01, absolute=True
        )
        assert (no_history.pass_p_value >= got.pass_p_value * (1 - 1e-9)).all()


def test_bounds_of_rates_are_those_of_the_gamma() -> None:
    for x, z in itertools.product((0.0, 1.0, 4.0, 30.0, 1000.0), (1.645, 2.054, 3.09)):
        exact = stats.gamma.ppf(stats.norm.cdf(z), x + 1)
        assert counts._byar_upper(np.array(x), np.array(z)) == pytest.approx(exact, rel=0.03)
        if x:
            exact = stats.gamma.ppf(stats.norm.sf(z), x)
            assert counts._byar_lower(np.array(x), np.array(z)) == pytest.approx(exact, rel=0.03, abs=0.06)


def test_an_absolute_p_value_is_the_level_at_which_the_bound_meets_the_margin() -> None:
    got = compare([30], [33], [4000], [4100], margin=0.004, absolute=True, dispersion=1.0)

    def gap(level: float) -> float:
        at = compare([30], [33], [4000], [4100], margin=0.004, absolute=True, dispersion=1.0, alpha_pass=level)
        return float(at.high[0] - 0.004)

    assert got.pass_p_value[0] == pytest.approx(optimize.brentq(gap, 1e-6, 0.49), rel=1e-4)


# --- history ---


def test_dispersion_of_the_past() -> None:
    rng = np.random.default_rng(6)
    past = rng.poisson(3.0, (4, 9, 2, 30)).astype(float)
    phi, used = counts.history_dispersion(past)
    assert used.tolist() == [9] * 4
    for i in range(4):
        worst = 1.0
        for edges in (slow_edges(30), [0]):
            values = []
            for window in past[i]:
                for start, stop in itertools.pairwise([*edges, 30]):
                    b, c = window[0, start:stop].sum(), window[1, start:stop].sum()
                    if b + c:
                        values.append((c - b) ** 2 / (b + c))
            wider = (stats.t.ppf(0.98, len(values)) / stats.norm.ppf(0.98)) ** 2
            worst = max(worst, wider * float(np.mean(values)))
        assert phi[i] == pytest.approx(worst)
    # Too little to learn from.
    phi, used = counts.history_dispersion(past[:, :4])
    assert np.isnan(phi).all()
    silent = past.copy()
    silent[:, 3:] = 0
    phi, used = counts.history_dispersion(silent)
    assert used.tolist() == [3] * 4
    assert np.isnan(phi).all()
    assert np.isnan(counts.history_dispersion(past[:, :0])[0]).all()


def test_the_past_of_a_ratio_is_looked_at_from_its_rarer_side() -> None:
    """Clumped failures are not hidden by the many successes they are counted as the rest of."""
    rng = np.random.default_rng(15)
    lost = 6.0 * rng.poisson(1.0, (20, 12, 2, 30))
    total = np.full(lost.shape, 1000.0)
    failures, _ = counts.history_dispersion(lost, total, bounded=True)
    successes, _ = counts.history_dispersion(total - lost, total, bounded=True)
    assert np.allclose(failures, successes)
    assert (failures > 3).all()
    assert (counts.history_dispersion(total - lost, total)[0] == 1).all()


def test_routing_by_the_past() -> None:
    got = counts.fixed_horizon_counts(
        np.ones((3, 5)), np.ones((3, 5)), margin=0.1, dispersion=np.array([1.0, 7.0, np.nan])
    )
    assert got.route.tolist() == [False, True, False]


def test_the_usual_odds_of_a_small_canary() -> None:
    """One pod beside nine, no totals: the past says what its share is."""
    rng = np.random.default_rng(9)
    size = 300
    past = np.stack([rng.poisson(9.0, (size, 20, 30)), rng.poisson(1.0, (size, 20, 30))], axis=2).astype(float)
    odds = counts.usual_odds(past)
    assert np.allclose(odds, 1 / 9, rtol=0.25)
    phi, _ = counts.history_dispersion(past, odds=odds)
    assert (phi < 2.5).all()
    assert (counts.history_dispersion(past)[0] > 50).all()
    for factor, expected in ((1.0, 0.02 + 3 * math.sqrt(0.02 * 0.98 / size)), (3.0, 1.0)):
        b, c = rng.poisson(9.0, (size, 30)), rng.poisson(factor, (size, 30))
        ones = np.ones((size, 30))
        got = counts.fixed_horizon_counts(
            b, c, baseline_exposure=ones, canary_exposure=ones * odds[:, None], margin=0.25, dispersion=phi
        )
        rate = (got.p_value <= 0.02).mean()
        assert rate <= expected
        if factor > 1:
            assert rate > 0.95


def test_a_small_canary_is_judged_against_its_usual_share() -> None:
    """Through compare and through a stream, without totals: only the past knows that the canary is one of ten."""
    rng = np.random.default_rng(16)
    past = np.stack([rng.poisson(9.0, (2, 20, 40)), rng.poisson(1.0, (2, 20, 40))], axis=2).astype(float)
    b = rng.poisson(9.0, (2, 40)).astype(float)
    c = np.stack([rng.poisson(1.0, 40), rng.poisson(4.0, 40)]).astype(float)
    spec = MetricSpec("crashes", kind="count")
    once = compare_arms(b, c, spec=spec, history=past)
    watched = open_stream([spec] * 2, history=past)
    watched.update(b, c)
    for got in (once, watched.result()):
        assert [int(v) == 2 for v in got.verdict] == [False, True]
        assert abs(got.effect[0]) < 0.5
        assert got.effect[1] > 2
        assert "usual_share" in {note.code for note in got.quality[0]}
    assert once.canary_level == pytest.approx(c.mean(axis=1))


# --- bad input ---


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("baseline_events", ([-1.0], [1.0])),
        ("canary_events", ([1.0], [INF])),
        ("canary_events", ([1.0], [1.0, 2.0])),
        ("baseline_exposure", ([1.0], [1.0], [-3.0], [3.0])),
        ("canary_exposure", ([1.0], [1.0], [3.0], [INF])),
        ("canary_exposure", ([1.0], [1.0], [3.0], None)),
        ("baseline_exposure", ([1.0], [1.0], None, [3.0])),
    ],
)
def test_wrong_counts_are_named(name: str, arguments: tuple) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: "):
        compare(*arguments)


@pytest.mark.parametrize(
    ("name", "kwargs"),
    [
        ("margin", {"margin": 0.0}),
        ("margin", {"margin": math.nan}),
        ("margin", {"margin": [0.1, 0.2]}),
        ("sign", {"sign": [1, 1]}),
        ("baseline_exposure", {"absolute": True}),
    ],
)
def test_wrong_questions_are_named(name: str, kwargs: dict) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: "):
        compare([1.0], [1.0], **kwargs)
    if name != "baseline_exposure":
        kwargs = {"margin": 0.1, **kwargs}
        with pytest.raises(ValueError, match=rf"^{name}: "):
            count_stream.count_design(n_series=1, **kwargs)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"^baseline_events: .*two axes"):
        counts.fixed_horizon_counts(np.zeros(3), np.zeros(3), margin=0.1)
    with pytest.raises(ValueError, match=r"^history: "):
        counts.history_dispersion(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"^history_exposure: "):
        counts.history_dispersion(np.zeros((2, 3, 2, 4)), np.zeros((2, 3, 2, 5)))


def test_missing_and_impossible_scrapes_are_counted() -> None:
    nan = math.nan
    got = compare([1, nan, 2, 3, 4], [1, 2, nan, 3, 9], [9, 9, 9, 0, 9], [9, 9, 9, 9, 5], margin=0.1, absolute=True)
    assert got.missing.tolist() == [2]
    # 9 failures of 5 requests: the total is raised, the failures stay; so with the 3 failures of no requests.
    assert got.raised.tolist() == [2]
    assert got.canary_events.tolist() == [13.0]
    nothing = compare([nan, nan], [1, 2])
    assert math.isnan(nothing.effect[0])
    assert nothing.p_value.tolist() == nothing.pass_p_value.tolist() == [1.0]
    empty = counts.fixed_horizon_counts(np.zeros((2, 0)), np.zeros((2, 0)), margin=0.1)
    assert np.isnan(empty.effect).all()
    none = counts.fixed_horizon_counts(np.zeros((0, 4)), np.zeros((0, 4)), margin=0.1)
    assert none.p_value.shape == (0,)


@pytest.mark.parametrize("huge", [1e9, 1e15])
def test_huge_counts(huge: float) -> None:
    got = compare([huge] * 5, [huge * 1.5] * 5)
    assert got.effect[0] == pytest.approx(0.5)
    assert np.isfinite([got.low[0], got.high[0], got.p_value[0]]).all()


# --- traffic split ---


def test_split_of_traffic_against_savvi() -> None:
    """Log odds of savvi 0.3.1 (``savvi.multinomial.Multinomial``) for counts (baseline, canary), prior strength k."""
    table = [
        (2.0, 0.5, (30, 14), 1.223999837079191),
        (2.0, 0.25, (13, 10), 0.16988951076313624),
        (2.0, 0.5, (0, 5), 1.6739764335716711),
        (1.0, 0.5, (15, 49), 7.202687499607526),
        (4.0, 0.1, (120, 31), 4.903392478227005),
    ]
    for k, share, (b, c), want in table:
        assert counts.split_log_e(c, b, share, strength=k) == pytest.approx(want, rel=1e-12)
    with pytest.raises(ValueError, match="share"):
        counts.split_log_e(1, 1, 0.0)
    with pytest.raises(ValueError, match="canary"):
        counts.split_log_e(-1, 1, 0.5)


# --- streams ---


def stream(design: count_stream.CountDesign, *arms: Array) -> count_stream.CountState:
    return count_stream.update(design, count_stream.start(design), *arms)


def slow_log_e(b: Array, c: Array, rb: Array, rc: Array, log_margin: float, phi: float) -> dict[str, float]:
    """The mixed conditional likelihood, term by term."""
    grid, weight = count_stream.GRID.tolist(), np.exp(count_stream.LOG_WEIGHT).tolist()

    def log_likelihood(d: float) -> float:
        total = 0.0
        for x, y, m, n in zip(b, c, rb, rc, strict=True):
            if not math.isnan(x + y):
                null = n / (n + m)
                share = null * math.exp(d) / (1 - null + null * math.exp(d))
                total += y * math.log(share / null) + x * math.log((1 - share) / (1 - null))
        return total / phi

    def mix(points: list[tuple[float, float]], at: float) -> float:
        norm = sum(w for _, w in points)
        return math.log(sum(w / norm * math.exp(log_likelihood(d) - log_likelihood(at)) for d, w in points))

    pairs = list(zip(grid, weight, strict=True))
    return {
        "above": mix([p for p in pairs if p[0] > 0], 0.0),
        "below": mix([p for p in pairs if p[0] < 0], 0.0),
        "beyond_up": mix([p for p in pairs if p[0] > log_margin], log_margin),
        "short_up": mix([p for p in pairs if p[0] < log_margin], log_margin),
        "beyond_down": mix([p for p in pairs if p[0] < -log_margin], -log_margin),
        "short_down": mix([p for p in pairs if p[0] > -log_margin], -log_margin),
    }


@pytest.mark.parametrize("exposed", [False, True])
def test_the_stream_equals_a_slow_reference(exposed: bool) -> None:
    rng = np.random.default_rng(12)
    size, points = 6, 11
    b, c = rng.poisson(1.5, (2, size, points)).astype(float)
    c[2, 4] = np.nan
    rb, rc = rng.integers(1, 90, (2, size, points)).astype(float) if exposed else np.ones((2, size, points))
    design = count_stream.count_design(0.25, n_series=size, sign=0)
    state = stream(design, b, c, *((rb, rc) if exposed else ()))
    for phi in (1.0, 3.0):
        got = count_stream.log_e_values(design, state, dispersion=phi)
        for i in range(size):
            for name, want in slow_log_e(b[i], c[i], rb[i], rc[i], math.log(1.25), phi).items():
                assert getattr(got, name)[i] == pytest.approx(want, abs=1e-9), name


def test_the_grid_mixture_is_near_the_beta_binomial() -> None:
    """Two priors on the same likelihood: the e-values agree up to the prior's weight."""
    rng = np.random.default_rng(1)
    c, b = rng.poisson(60, (200, 1)), rng.poisson(45, (200, 1))
    design = count_stream.count_design(0.1, n_series=200)
    got = count_stream.log_e_values(design, stream(design, b, c), dispersion=1.0).differs
    want = counts.split_log_e(c[:, 0], b[:, 0], 0.5, strength=8.0)
    assert np.abs(got - want).max() < 1.5


def test_every_bet_on_a_difference_is_fair_at_its_margin() -> None:
    """E exp(l - m A) is exactly 1 for Poisson arms whose rates differ by m, whatever their level; at most 1 for
    binomial ones, and on the null's side of m. By summing over all outcomes."""
    n_b, n_c, m = 40.0, 25.0, 0.03
    for level in (0.0, 0.01, 0.3):
        for extra, exact in ((0.0, True), (0.02, False)):
            top = 140
            outcomes = np.array(list(itertools.product(range(top), repeat=2)), dtype=float)
            rise, fall = outcomes[:, 1:], outcomes[:, :1]
            size = len(outcomes)
            design = count_stream.count_design(m, n_series=size, absolute=True)
            # More events than exposure are possible for a Poisson arm: bypass the raising of totals.
            data = counts.CountData(
                fall, rise, np.full((size, 1), n_b), np.full((size, 1), n_c), *np.zeros((2, size), dtype=np.int64)
            )
            _, v, w = counts.weights(data)
            start = count_stream.start(design)
            start = start._replace(likelihood=start.likelihood[:size], burden=start.burden[:size])
            like, burden = count_stream._likelihood(design, start, data, v, w)
            bets = np.exp(like[:, : len(count_stream.GRID)] - m * burden)
            up = count_stream.GRID > 0
            # Null "the difference is at most m" for bets on more: lower the canary by extra; and mirrored.
            for side, sign in ((up, -1.0), (~up, 1.0)):
                rate = level + m + sign * extra
                if rate < 0:
                    continue
                weight = stats.poisson.pmf(rise[:, 0], n_c * rate) * stats.poisson.pmf(fall[:, 0], n_b * level)
                mean = weight @ bets[:, side]
                near = np.abs(count_stream.GRID[side]) < 1.0  # further out the sum would need more terms
                assert (mean <= 1 + 1e-9).all()
                if exact:
                    assert mean[near] == pytest.approx(1.0, abs=1e-6)
                weight = stats.binom.pmf(rise[:, 0], int(n_c), rate) * stats.binom.pmf(fall[:, 0], int(n_b), level)
                assert (weight @ bets[:, side] <= 1 + 1e-9).all()


@pytest.mark.parametrize("absolute", [False, True])
def test_a_stream_does_not_see_how_it_was_cut(absolute: bool) -> None:
    rng = np.random.default_rng(13)
    size, points = 20, 37
    arms = [rng.poisson(2.0, (size, points)).astype(float) for _ in range(2)]
    arms += [rng.integers(20, 90, (size, points)).astype(float) for _ in range(2)]
    arms[1][3, 5] = np.nan
    design = count_stream.count_design(0.02, n_series=size, absolute=absolute, sign=rng.integers(-1, 2, size))
    whole = stream(design, *arms)
    pieces = count_stream.start(design)
    at = 0
    for width in (1, 0, 6, 2, 11, 4, 13):
        pieces = count_stream.update(design, pieces, *(x[:, at : at + width] for x in arms))
        pieces = pickle.loads(pickle.dumps(pieces))
        at += width
    assert at == points
    for one, two in zip(whole, pieces, strict=True):
        assert np.array_equal(one, two)


def test_a_stream_judges_each_series_alone() -> None:
    rng = np.random.default_rng(14)
    b, c = rng.poisson(2.0, (2, 30, 25)).astype(float)
    full = count_stream.count_design(0.2, n_series=30)
    part = count_stream.count_design(0.2, n_series=1)
    all_of = count_stream.evidence(full, stream(full, b, c))
    one = count_stream.evidence(part, stream(part, b[7:8], c[7:8]))
    for whole, single in zip(all_of, one, strict=True):
        assert whole[7] == single[0]


def test_a_stream_with_and_without_events() -> None:
    zero, n = np.zeros((1, 60)), np.full((1, 60), 170.0)
    design = count_stream.count_design(0.005, n_series=1, absolute=True)
    clean = count_stream.evidence(design, stream(design, zero, zero, n, n))
    assert clean.log_e_pass[0] > math.log(20)
    assert clean.log_e_fail[0] <= 1e-9
    assert clean.high[0] < 0.005
    few = count_stream.evidence(design, stream(design, zero, zero, n * 0 + 0.3, n * 0 + 0.3))
    assert few.log_e_pass[0] < math.log(20)
    bad = count_stream.evidence(design, stream(design, zero, zero + 10, n * 6, n * 6))
    assert bad.log_e_fail[0] > math.log(50)
    assert 0 < bad.low[0] < 0.01 < bad.high[0]
    # Rare successes where a fall is worse are as well seen as rare failures.
    rare = count_stream.count_design(0.005, n_series=1, absolute=True, sign=-1)
    fewer = count_stream.evidence(rare, stream(rare, zero + 20, zero + 5, n * 6, n * 6))
    assert fewer.log_e_fail[0] > math.log(50)
    # Successes of which some went missing: the mirror.
    mirror = count_stream.count_design(0.005, n_series=1, absolute=True, sign=-1)
    lost = count_stream.evidence(mirror, stream(mirror, n * 6, n * 6 - 10, n * 6, n * 6))
    assert lost.log_e_fail[0] == pytest.approx(bad.log_e_fail[0])
    assert (lost.low[0], lost.high[0]) == pytest.approx((-bad.high[0], -bad.low[0]))
    nothing = count_stream.evidence(design, count_stream.start(design))
    assert math.isnan(nothing.effect[0])
    assert nothing.log_e_fail[0] == pytest.approx(0.0)


def test_a_stream_refuses_what_does_not_fit() -> None:
    design = count_stream.count_design(0.005, n_series=2, absolute=True)
    with pytest.raises(ValueError, match="baseline_exposure"):
        stream(design, np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(ValueError, match="3 series"):
        stream(design, *np.ones((4, 3, 2)))


@pytest.mark.parametrize("noise", ["none", "own_gamma", "own_incidents"])
def test_a_stream_is_valid_at_every_look(noise: simulate.CountNoise) -> None:
    size, points = 250, 60
    ever_fail = np.zeros(size, dtype=bool)
    left = np.zeros(size, dtype=bool)
    s = simulate.counted(size, points, rng=21, rate=0.02, noise=noise)
    design = count_stream.count_design(0.25, n_series=size)
    state = count_stream.start(design)
    for t in range(0, points, 2):
        cut = slice(t, t + 2)
        state = count_stream.update(
            design,
            state,
            s.baseline[:, cut],
            s.canary[:, cut],
            s.baseline_exposure[:, cut],
            s.canary_exposure[:, cut],
        )
        now = count_stream.evidence(design, state)
        ever_fail |= now.log_e_fail >= math.log(50)
        left |= (now.low > 0) | (now.high < 0)
    assert ever_fail.mean() <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / size)
    if noise == "none":
        assert left.mean() <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / size)


def test_a_confidence_sequence_holds_the_ratio_it_was_fed() -> None:
    """Also when it is narrower than the grid's steps."""
    for per, ratio in itertools.product((3.0, 300.0, 1e5), (0.5, 1.0, 1.3)):
        design = count_stream.count_design(0.1, n_series=1)
        state = stream(design, np.full((1, 60), per), np.full((1, 60), round(per * ratio)))
        got = count_stream.evidence(design, state, dispersion=1.0)
        truth = round(per * ratio) / per - 1
        assert got.low[0] <= truth <= got.high[0]
        assert got.effect[0] == pytest.approx(truth)
        width = math.log1p(got.high[0]) - math.log1p(got.low[0])
        ideal = 2 * math.sqrt(2 * math.log(50) * (1 / per + 1 / (per * ratio)) / 60)
        # Never wider than the steps of the grid around it, however many the events.
        assert 0.8 * ideal < width < max(2.5 * ideal, 0.2)
