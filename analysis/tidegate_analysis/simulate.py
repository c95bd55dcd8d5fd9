"""Seeded workloads with known truth: what a detector must leave alone and what it must find.

Everything is drawn with a :class:`numpy.random.Generator` that the caller gives (or a seed), works on whole
``(series, points)`` arrays and returns float64. Use it to size margins, to try a method before trusting it,
and to test one: the accuracy tables of ``benchmarks/accuracy.py`` are made of these functions and nothing
else.

>>> import numpy as np
>>> from tidegate_analysis import simulate
>>> w = simulate.windows("ar.6", n_series=2, n_windows=3, n_points=60, rng=1, positive=True)
>>> w.history.shape, w.baseline.shape, w.canary.shape
((2, 3, 2, 60), (2, 60), (2, 60))
>>> worse = simulate.inject(w.canary, "step", 0.25, scale="log", onset=30)
>>> bool(np.allclose(worse[:, 30:] / w.canary[:, 30:], 1.25))
True
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import signal, special

__all__ = [
    "STRUCTURES",
    "Arms",
    "Counted",
    "Gates",
    "Histograms",
    "Seasonal",
    "Structure",
    "Windows",
    "ar1",
    "arms",
    "counted",
    "counter",
    "extra_events",
    "gates",
    "histograms",
    "inject",
    "instances",
    "profile",
    "seasonal_minutes",
    "windows",
]

Array = NDArray[np.float64]
Rng = np.random.Generator | int
EffectKind = Literal["step", "ramp", "bursts", "tail"]
CountNoise = Literal["none", "shared_bursts", "own_gamma", "own_ar", "own_incidents"]

# Factors beyond e^20 (five hundred million) are no metric's; only the heaviest tails come near it.
_MAX_EXPONENT = 20.0
_BURN_IN = 200


def ar1(rng: Rng, n_series: int, n_points: int, rho: float) -> Array:
    """Return ``(n_series, n_points)`` of a stationary Gaussian AR(1) with unit variance.

    ``x_t = rho x_{t-1} + sqrt(1 - rho^2) e_t``, started from its stationary law (Box, Jenkins, Reinsel and
    Ljung, *Time Series Analysis*, section 3.2.3), so no burn-in is thrown away.

    Raises
    ------
    ValueError
        When ``rho`` is not between -1 and 1.
    """
    if not -1.0 < rho < 1.0:
        raise ValueError(f"rho: must lie between -1 and 1, not {rho!r}")
    generator = np.random.default_rng(rng)
    noise = generator.standard_normal((n_series, n_points))
    if rho == 0.0:
        return noise
    noise *= np.sqrt(1.0 - rho * rho)
    start = generator.standard_normal((n_series, 1))
    return np.asarray(signal.lfilter([1.0], [1.0, -rho], noise, axis=-1, zi=rho * start)[0])


def _arma(rng: np.random.Generator, n: int, p: int, ar: list[float], ma: list[float]) -> Array:
    """Return an ARMA process with innovations of unit variance, after a burn-in."""
    noise = rng.standard_normal((n, p + _BURN_IN))
    return np.asarray(signal.lfilter(ma, ar, noise, axis=-1)[:, _BURN_IN:])


Draw = Callable[[np.random.Generator, int, int], tuple[Array, Array]]


@dataclass(frozen=True, slots=True)
class Structure:
    """One way in which two healthy arms can vary.

    Attributes
    ----------
    name:
        Its key in :data:`STRUCTURES`.
    title:
        What it is, for tables.
    draw:
        ``draw(rng, n_series, n_points)`` -> baseline and canary, each ``(n_series, n_points)``, equal in law
        (up to the spread in ``"ar.6 canary sd x3"``) and unrelated to each other but for what is shared.
    kind:
        What the numbers are: ``"gauge"``, or ``"count"`` for events per point.
    positive:
        Whether the numbers are at least zero as drawn. Where not, ``positive=True`` in :func:`arms` takes
        ``level * exp(spread * x)``, which is the same structure on the log scale.
    mean_count:
        Events per point, for counts; NaN for gauges.
    """

    name: str
    title: str
    draw: Draw
    kind: Literal["gauge", "count"] = "gauge"
    positive: bool = False
    mean_count: float = float("nan")


def _independent(one: Callable[[np.random.Generator, int, int], Array]) -> Draw:
    def draw(rng: np.random.Generator, n: int, p: int) -> tuple[Array, Array]:
        return one(rng, n, p), one(rng, n, p)

    return draw


def _shared(
    common: Callable[[np.random.Generator, int, int], Array],
    own: Callable[[np.random.Generator, int, int], Array],
) -> Draw:
    def draw(rng: np.random.Generator, n: int, p: int) -> tuple[Array, Array]:
        both = 2.0 * common(rng, n, p)
        return both + own(rng, n, p), both + own(rng, n, p)

    return draw


def _wide_canary(rng: np.random.Generator, n: int, p: int) -> tuple[Array, Array]:
    return ar1(rng, n, p, 0.6), 3.0 * ar1(rng, n, p, 0.6)


def _diurnal(rng: np.random.Generator, n: int, p: int) -> Array:
    # A period of 240 points with a phase of its own per series: within one window of 60 it is a trend.
    time = np.arange(p) / 240.0
    return np.asarray(np.sin(2 * np.pi * (time + rng.random((n, 1)))))


def _log_gaussian_poisson(rng: np.random.Generator, n: int, p: int) -> Array:
    return rng.poisson(3.0 * np.exp(0.4 * ar1(rng, n, p, 0.6))).astype(np.float64)


def _white(rng: np.random.Generator, n: int, p: int) -> Array:
    return rng.standard_normal((n, p))


def _ar(rho: float) -> Callable[[np.random.Generator, int, int], Array]:
    return lambda rng, n, p: ar1(rng, n, p, rho)


_ALL = (
    Structure("iid", "iid Gauss", _independent(_white)),
    Structure("ar.6", "AR .6", _independent(_ar(0.6))),
    Structure("ar.9", "AR .9", _independent(_ar(0.9))),
    Structure("ar.97", "AR .97", _independent(_ar(0.97))),
    Structure(
        "ar.9+white",
        "AR .9 + equal white noise",
        _independent(lambda r, n, p: ar1(r, n, p, 0.9) + r.standard_normal((n, p))),
    ),
    Structure(
        "ar.95+3white",
        "AR .95 (slow) + 3x white noise",
        _independent(lambda r, n, p: ar1(r, n, p, 0.95) + 3.0 * r.standard_normal((n, p))),
    ),
    Structure(
        "ar2",
        "AR(2), oscillating with period 8",
        # Poles of modulus .8 at the angle 2 pi / 8.
        _independent(lambda r, n, p: _arma(r, n, p, [1.0, -1.6 * float(np.cos(np.pi / 4)), 0.64], [1.0])),
    ),
    Structure("ma-.5", "MA(-.5)", _independent(lambda r, n, p: _arma(r, n, p, [1.0], [1.0, -0.5]))),
    Structure(
        "lognormal ar.6",
        "lognormal, AR .6, not logged",
        _independent(lambda r, n, p: np.exp(ar1(r, n, p, 0.6))),
        positive=True,
    ),
    Structure(
        "log-gaussian poisson",
        "log-Gaussian Poisson 3, AR .6",
        _independent(_log_gaussian_poisson),
        kind="count",
        positive=True,
        mean_count=3.0 * float(np.exp(0.08)),
    ),
    Structure(
        "rare counts",
        "rare counts, Poisson .1",
        _independent(lambda r, n, p: r.poisson(0.1, (n, p)).astype(np.float64)),
        kind="count",
        positive=True,
        mean_count=0.1,
    ),
    Structure("rounded ar.6", "rounded AR .6 (5 levels)", _independent(lambda r, n, p: np.round(ar1(r, n, p, 0.6)))),
    Structure("t1.5", "iid t with 1.5 df", _independent(lambda r, n, p: r.standard_t(1.5, (n, p)))),
    Structure("ar.6 canary sd x3", "AR .6, canary sd x3", _wide_canary),
    Structure("shared ar.9 + iid", "shared AR .9 (80 %) + own iid", _shared(_ar(0.9), _white)),
    Structure("shared ar.9 + ar.6", "shared AR .9 (80 %) + own AR .6", _shared(_ar(0.9), _ar(0.6))),
    Structure("shared diurnal + iid", "shared diurnal + own iid", _shared(_diurnal, _white)),
)

STRUCTURES: Mapping[str, Structure] = MappingProxyType({one.name: one for one in _ALL})
"""The 17 dependence structures by name. Each is a null: the canary is not worse than the baseline."""


@dataclass(frozen=True, slots=True)
class Arms:
    """``baseline`` and ``canary``, each ``(series, points)``."""

    baseline: Array
    canary: Array


@dataclass(frozen=True, slots=True)
class Windows:
    """``history`` ``(series, windows, 2, points)``, arm 0 the baseline; both arms ``(series, points)``."""

    history: Array
    baseline: Array
    canary: Array


def _structure(structure: str | Structure) -> Structure:
    if isinstance(structure, Structure):
        return structure
    if structure not in STRUCTURES:
        raise ValueError(f"structure: {structure!r} is none of {', '.join(STRUCTURES)}")
    return STRUCTURES[structure]


def arms(
    structure: str | Structure,
    n_series: int,
    n_points: int,
    *,
    rng: Rng,
    positive: bool = False,
    level: float = 100.0,
    spread: float = 0.1,
) -> Arms:
    """Return two healthy arms of one dependence structure.

    Parameters
    ----------
    structure:
        A name in :data:`STRUCTURES`, or one of your own.
    n_series, n_points:
        The shape of each arm.
    rng:
        A generator or a seed.
    positive:
        Return ``level * exp(spread * x)``: the structure on the log scale, with ``spread`` close to the
        coefficient of variation. Structures that are positive as drawn stay as they are.
    level, spread:
        See ``positive``.

    Raises
    ------
    ValueError
        When the structure is unknown.
    """
    chosen = _structure(structure)
    baseline, canary = chosen.draw(np.random.default_rng(rng), n_series, n_points)
    if positive and not chosen.positive:
        baseline, canary = (
            level * np.exp(np.clip(spread * x, -_MAX_EXPONENT, _MAX_EXPONENT)) for x in (baseline, canary)
        )
    return Arms(baseline, canary)


def windows(
    structure: str | Structure,
    n_series: int,
    n_windows: int,
    n_points: int,
    *,
    rng: Rng,
    positive: bool = False,
    level: float = 100.0,
    spread: float = 0.1,
) -> Windows:
    """Return one long healthy path per series, cut into ``n_windows`` of history and the window under
    judgement.

    The windows follow each other without a gap, so slow components reach from the history into the present,
    as they do in production. Parameters as in :func:`arms`.
    """
    both = arms(
        structure,
        n_series,
        (n_windows + 1) * n_points,
        rng=rng,
        positive=positive,
        level=level,
        spread=spread,
    )
    cut = (n_series, n_windows + 1, n_points)
    stacked = np.stack([both.baseline.reshape(cut), both.canary.reshape(cut)], axis=2)
    return Windows(
        np.ascontiguousarray(stacked[:, :-1]),
        np.ascontiguousarray(stacked[:, -1, 0]),
        np.ascontiguousarray(stacked[:, -1, 1]),
    )


def profile(
    kind: EffectKind,
    values: Array,
    *,
    onset: int = 0,
    over: int = 30,
    bursts: int = 3,
    length: int = 3,
    share: float = 0.05,
    rng: Rng = 0,
) -> Array:
    """Return how much of an effect each point carries: ``(series, points)`` between 0 and 1.

    ``"step"`` is 1 from ``onset`` on; ``"ramp"`` rises from 0 at ``onset`` to 1 ``over`` points later and
    stays; ``"bursts"`` puts ``bursts`` runs of ``length`` points at random places after ``onset``;
    ``"tail"`` touches the largest ``share`` of the points after ``onset`` of each series and no other.

    Raises
    ------
    ValueError
        When the kind is unknown, or the onset lies outside the points.
    """
    n_series, n_points = values.shape
    if not 0 <= onset < n_points:
        raise ValueError(f"onset: must be a column from 0 to {n_points - 1}, not {onset!r}")
    column = np.arange(n_points)
    after = np.broadcast_to(column >= onset, values.shape)
    if kind == "step":
        return after.astype(np.float64)
    if kind == "ramp":
        one = np.clip((column - onset + 1) / max(over, 1), 0.0, 1.0)
        return np.asarray(np.where(after, one, 0.0), dtype=np.float64)
    if kind == "bursts":
        room = max(n_points - onset - length, 1)
        starts = onset + np.random.default_rng(rng).integers(0, room, (n_series, bursts))
        since = column[None, None, :] - starts[:, :, None]
        return np.asarray(((since >= 0) & (since < length)).any(axis=1), dtype=np.float64)
    if kind == "tail":
        bound = np.quantile(values[:, onset:], 1.0 - share, axis=-1, keepdims=True)
        return (after & (values > bound)).astype(np.float64)
    raise ValueError(f"kind: {kind!r} is none of step, ramp, bursts, tail")


def inject(
    values: Array,
    kind: EffectKind,
    size: float | Array,
    *,
    scale: Literal["linear", "log"] = "linear",
    onset: int = 0,
    over: int = 30,
    bursts: int = 3,
    length: int = 3,
    share: float = 0.05,
    rng: Rng = 0,
) -> Array:
    """Return a copy of ``(series, points)`` values with an effect put in.

    Parameters
    ----------
    values:
        The healthy canary.
    kind, onset, over, bursts, length, share, rng:
        The shape of the effect, see :func:`profile`. A step with a late ``onset`` is a delayed fault.
    size:
        The effect where the profile is 1, one number or one per series: on the linear scale added in the
        metric's unit; on the log scale a relative change (0.25 multiplies by 1.25).
    scale:
        ``"linear"`` or ``"log"``.

    Raises
    ------
    ValueError
        As :func:`profile`; or when a relative change of -1 or less is asked for.
    """
    carried = profile(kind, values, onset=onset, over=over, bursts=bursts, length=length, share=share, rng=rng)
    amount = np.asarray(size, dtype=np.float64)
    if amount.ndim == 1:
        amount = amount[:, None]
    if scale == "linear":
        return np.asarray(values + amount * carried)
    if (amount <= -1.0).any():
        raise ValueError(f"size: a relative change must be greater than -1, not {size!r}")
    return np.asarray(values * (1.0 + amount) ** carried)


def extra_events(values: Array, rate: float, *, rng: Rng, onset: int = 0) -> Array:
    """Return counts ``(series, points)`` with ``Poisson(rate)`` more events in every point from ``onset`` on.

    Superposition: a Poisson count of mean ``m`` becomes one of mean ``m + rate``, so the counts stay whole
    numbers.
    """
    more = np.zeros_like(values)
    more[:, onset:] = np.random.default_rng(rng).poisson(rate, values[:, onset:].shape)
    return np.asarray(values + more)


@dataclass(frozen=True, slots=True)
class Seasonal:
    """Minute data around a deployment: ``before`` ``(series, days * 1440)``, ``after`` ``(series, minutes)``.

    ``control_before`` and ``control_after`` are a concurrent group that was not deployed to: the same
    seasons and day levels, noise of its own.
    """

    before: Array
    after: Array
    control_before: Array
    control_after: Array


def seasonal_minutes(
    n_series: int,
    n_days: int,
    *,
    rng: Rng,
    minutes_after: int = 60,
    level: float = 100.0,
    amplitude: float = 0.4,
    weekend: float = 0.6,
    day_spread: float = 0.08,
    noise: float = 0.08,
    rho: float = 0.6,
) -> Seasonal:
    """Return positive minute values with a day and a week in them, and a healthy deployment at a random time.

    ``level * season(t) * day(t) * exp(noise * AR(rho))``: a daily swing of ``amplitude`` with a second
    harmonic of .15, swing times ``weekend`` on two days of seven, a level per day with log-sd
    ``day_spread`` that moves smoothly from noon to noon, and Gaussian AR(1) noise on the log scale. Each
    series has its own phase, so the deployment falls on another time of day in each.
    """
    generator = np.random.default_rng(rng)
    total = n_days * 1440 + minutes_after
    # Days since the first midnight of a week; the swing is zero at midnight, so days join without a jump.
    calendar = 7.0 * generator.random((n_series, 1)) + np.arange(total) / 1440.0
    swing = amplitude * np.where(np.floor(calendar) % 7 >= 5, weekend, 1.0)
    angle = 2 * np.pi * calendar
    season = 1.0 + swing * np.sin(angle) + 0.15 * np.sin(2 * angle)
    left = np.floor(calendar - 0.5).astype(int)
    knots = generator.normal(0.0, day_spread, (n_series, n_days + 10))
    share = calendar - 0.5 - left
    drift = np.take_along_axis(knots, left + 1, 1) * (1.0 - share) + np.take_along_axis(knots, left + 2, 1) * share
    common = np.log(season) + drift + np.log(level)
    deployed = np.exp(common + noise * ar1(generator, n_series, total, rho))
    control = np.exp(common + noise * ar1(generator, n_series, total, rho))
    cut = n_days * 1440
    return Seasonal(deployed[:, :cut], deployed[:, cut:], control[:, :cut], control[:, cut:])


def instances(
    n_series: int,
    n_baseline: int,
    n_canary: int,
    n_points: int,
    *,
    rng: Rng,
    level: float = 100.0,
    between: float = 0.1,
    within: float = 0.1,
    rho: float = 0.6,
    shared: float = 0.2,
    cold: float = 0.0,
    warm_after: int = 5,
) -> Arms:
    """Return healthy arms with their instances visible: ``(series, instances, points)`` each.

    Every instance has an offset of its own (log-sd ``between``) that it keeps, AR(1) noise of its own
    (log-sd ``within``), and a load shared by all (AR .9, log-sd ``shared``): pods differ before any change,
    so the unit that varies is the instance and not the scrape. ``cold`` raises fresh canary instances by
    that relative amount at first, fading with an e-folding time of ``warm_after`` points.
    """
    generator = np.random.default_rng(rng)
    load = shared * ar1(generator, n_series, n_points, 0.9)[:, None, :]

    def arm(count: int) -> Array:
        offset = between * generator.standard_normal((n_series, count, 1))
        noise = within * ar1(generator, n_series * count, n_points, rho).reshape(n_series, count, n_points)
        return np.asarray(level * np.exp(load + offset + noise))

    baseline, canary = arm(n_baseline), arm(n_canary)
    canary = canary * (1.0 + cold * np.exp(-np.arange(n_points) / warm_after))
    return Arms(baseline, canary)


@dataclass(frozen=True, slots=True)
class Counted:
    """Events per point of either arm, and how much was exposed (requests), each ``(series, points)``."""

    baseline: Array
    canary: Array
    baseline_exposure: Array
    canary_exposure: Array


def counted(
    n_series: int,
    n_points: int,
    *,
    rng: Rng,
    rate: float = 0.01,
    exposure: float = 500.0,
    canary_share: float = 0.5,
    factor: float = 1.0,
    noise: CountNoise = "none",
    onset: int = 0,
) -> Counted:
    """Return events among exposures: errors among requests, say.

    The exposure of a point is Poisson around ``exposure`` times a shared daily swing, split by
    ``canary_share``. Events are Poisson with ``rate`` times exposure, the canary's times ``factor`` from
    column ``onset`` on. ``noise`` is what else moves the rate: ``"shared_bursts"`` (gamma of shape .5, the
    same in both arms), ``"own_gamma"`` (each arm its own, Fano factor about 3), ``"own_ar"`` (each arm's
    log rate is AR .8 with sd .4), ``"own_incidents"`` (1 % of an arm's points have 20 times the rate).

    Raises
    ------
    ValueError
        When the noise is unknown, or the share is not between 0 and 1.
    """
    if not 0.0 < canary_share < 1.0:
        raise ValueError(f"canary_share: must lie between 0 and 1, not {canary_share!r}")
    generator = np.random.default_rng(rng)
    shape = (n_series, n_points)
    load = exposure * (1.0 + 0.3 * _diurnal(generator, n_series, n_points))
    exposed = [generator.poisson(load * share).astype(np.float64) for share in (1 - canary_share, canary_share)]
    if noise == "none":
        moved = [np.ones(shape), np.ones(shape)]
    elif noise == "shared_bursts":
        burst = generator.gamma(0.5, 2.0, shape)
        moved = [burst, burst]
    elif noise == "own_gamma":
        # A gamma-mixed Poisson of mean mu and shape k has Fano factor 1 + mu / k.
        mean = max(rate * exposure * 0.5, 1e-12)
        k = mean / 2.0
        moved = [generator.gamma(k, 1.0 / k, shape) for _ in range(2)]
    elif noise == "own_ar":
        # Divided by its mean, so that the rate stays what was asked for.
        moved = [np.exp(0.4 * ar1(generator, n_series, n_points, 0.8) - 0.08) for _ in range(2)]
    elif noise == "own_incidents":
        moved = [np.where(generator.random(shape) < 0.01, 20.0, 1.0) for _ in range(2)]
    else:
        raise ValueError(f"noise: {noise!r} is none of none, shared_bursts, own_gamma, own_ar, own_incidents")
    worse = np.where(np.arange(n_points) >= onset, factor, 1.0)
    baseline = generator.poisson(rate * exposed[0] * moved[0]).astype(np.float64)
    canary = generator.poisson(rate * exposed[1] * moved[1] * worse).astype(np.float64)
    return Counted(baseline, canary, exposed[0], exposed[1])


@dataclass(frozen=True, slots=True)
class Histograms:
    """Requests per bucket: ``upper_bounds`` ``(buckets,)`` and counts ``(series, points, buckets + 1)`` per
    arm.

    The last bucket is the one above the last bound. ``baseline_requests`` and ``canary_requests`` are
    ``(series, points)``.
    """

    upper_bounds: Array
    baseline: Array
    canary: Array

    @property
    def baseline_requests(self) -> Array:
        """Requests of the baseline per point."""
        return np.asarray(self.baseline.sum(axis=-1))

    @property
    def canary_requests(self) -> Array:
        """Requests of the canary per point."""
        return np.asarray(self.canary.sum(axis=-1))


# The default latency buckets of the Prometheus client libraries, in seconds.
PROMETHEUS_BUCKETS = np.array([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])


def histograms(
    n_series: int,
    n_points: int,
    *,
    rng: Rng,
    requests: int = 200,
    median: float = 0.12,
    sigma: float = 0.6,
    shared: float = 0.2,
    own: float = 0.05,
    rho: float = 0.6,
    factor: float = 1.0,
    onset: int = 0,
    upper_bounds: Array = PROMETHEUS_BUCKETS,
) -> Histograms:
    """Return latency histograms of both arms, one per point: lognormal requests whose median moves.

    In each point the log median moves by a shift that both arms share (sd ``shared``) and one of the arm's
    own (AR(``rho``), sd ``own``): requests of one scrape are a cluster, not a sample. The canary's
    latencies are multiplied by ``factor`` from column ``onset`` on.
    """
    generator = np.random.default_rng(rng)
    both = shared * generator.standard_normal((n_series, n_points))
    worse = np.where(np.arange(n_points) >= onset, np.log(factor), 0.0)

    def arm(shift: Array | float) -> Array:
        centre = np.log(median) + both + own * ar1(generator, n_series, n_points, rho) + shift
        below = special.ndtr((np.log(upper_bounds) - centre[..., None]) / sigma)
        edges = np.concatenate([np.zeros((*centre.shape, 1)), below, np.ones((*centre.shape, 1))], axis=-1)
        return generator.multinomial(requests, np.diff(edges, axis=-1)).astype(np.float64)

    return Histograms(np.asarray(upper_bounds, dtype=np.float64), arm(0.0), arm(worse))


def counter(increments: Array, *, rng: Rng, resets: float = 0.0) -> Array:
    """Return the running total of ``(series, points)`` increments as a counter that starts again at restarts.

    Each point is a restart with probability ``resets``: the counter then reads that point's increment
    alone, as a Prometheus counter does after its process came back.
    """
    restart = np.random.default_rng(rng).random(increments.shape) < resets
    restart[..., 0] = True
    total = np.cumsum(increments, axis=-1)
    # What had been counted just before the last restart is what the counter has lost since.
    lost = np.maximum.accumulate(np.where(restart, total - increments, 0.0), axis=-1)
    return np.asarray(total - lost)


@dataclass(frozen=True, slots=True)
class Gates:
    """Many gates of many metrics, gate-major: row ``g * n_metrics + m``.

    ``history`` ``(rows, windows, 2, points)``, ``baseline`` and ``canary`` ``(rows, points)``, all positive;
    ``structures`` and ``groups`` name the structure and the group of each metric of one gate.
    """

    history: Array
    baseline: Array
    canary: Array
    n_metrics: int
    structures: tuple[str, ...]
    groups: tuple[str, ...]

    def rows(self, gate: int) -> slice:
        """Return the rows of one gate."""
        return slice(gate * self.n_metrics, (gate + 1) * self.n_metrics)


def gates(
    n_gates: int,
    n_metrics: int,
    n_points: int,
    *,
    n_windows: int,
    rng: Rng,
    structures: tuple[str, ...] | None = None,
    group_size: int = 10,
    correlation: float = 0.3,
    spread: float = 0.1,
) -> Gates:
    """Return healthy gates whose metrics take the structures in turn and are correlated within groups.

    Metric ``m`` has structure ``m mod len(structures)`` (default: every gauge of :data:`STRUCTURES`) and
    belongs to group ``m // group_size``. The canary of every metric of a group carries the same AR .6 noise
    with ``correlation`` of the variance of a unit of ``spread``, in the history as in the present: metrics
    of one service move together.

    Raises
    ------
    ValueError
        When the correlation is not in [0, 1).
    """
    if not 0.0 <= correlation < 1.0:
        raise ValueError(f"correlation: must be at least 0 and below 1, not {correlation!r}")
    generator = np.random.default_rng(rng)
    names = structures or tuple(s.name for s in _ALL if s.kind == "gauge")
    per_metric = tuple(names[m % len(names)] for m in range(n_metrics))
    total = (n_windows + 1) * n_points
    baseline = np.empty((n_gates, n_metrics, total))
    canary = np.empty_like(baseline)
    group = np.arange(n_metrics) // group_size
    for name in dict.fromkeys(per_metric):
        chosen = np.flatnonzero([one == name for one in per_metric])
        both = arms(name, n_gates * chosen.size, total, rng=generator, positive=True, spread=spread)
        baseline[:, chosen] = both.baseline.reshape(n_gates, chosen.size, total)
        canary[:, chosen] = both.canary.reshape(n_gates, chosen.size, total)
    if correlation > 0:
        n_groups = int(group[-1]) + 1
        together = ar1(generator, n_gates * n_groups, total, 0.6).reshape(n_gates, n_groups, total)
        canary *= np.exp(spread * np.sqrt(correlation) * together[:, group])
    cut = (n_gates * n_metrics, n_windows + 1, n_points)
    stacked = np.stack([baseline.reshape(cut), canary.reshape(cut)], axis=2)
    return Gates(
        np.ascontiguousarray(stacked[:, :-1]),
        np.ascontiguousarray(stacked[:, -1, 0]),
        np.ascontiguousarray(stacked[:, -1, 1]),
        n_metrics,
        per_metric,
        tuple(f"group-{g:02d}" for g in group),
    )
