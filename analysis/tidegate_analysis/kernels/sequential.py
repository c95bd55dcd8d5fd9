"""Looking at every scrape without paying for it with false alarms.

Two kinds of promises. With a horizon fixed beforehand: the standardised sum of a watch behaves as a Brownian
motion on [0, 1], and ``P(max_t B(t) >= b) = 2 P(B(1) >= b)`` by the reflection principle, which is the
O'Brien-Fleming boundary (O'Brien and Fleming 1979) looked at continuously, and an upper bound for any number
of looks. When the standard error has k degrees of freedom, averaging over it gives the same with Student's t:
``2 P(t_k >= b)``. Without a horizon: betting and mixtures, valid for ever by Ville's inequality.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from tidegate_analysis.kernels.shared import same_for_all

Floats = NDArray[np.float64]
BETS = np.array([0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 0.95])
RANK_WINDOW = 240


def reflection_p(largest: Floats, df: Floats) -> Floats:
    """P-value of a running maximum: ``2 P(t_df >= largest)``, 1 where that is not positive; inf = normal."""
    one_sided = np.where(
        np.isfinite(df), special.stdtr(np.where(np.isfinite(df), df, 1.0), -largest), special.ndtr(-largest)
    )
    return np.asarray(np.where(largest > 0, np.minimum(2.0 * one_sided, 1.0), 1.0))


def boundary(alpha: Floats, df: Floats) -> Floats:
    """Height that a watch reaches with probability ``alpha``: the upper ``alpha / 2`` quantile of t."""
    # Series mostly share both; the inverse is what costs.
    if same_for_all(alpha, df):
        return np.full(alpha.shape, boundary(alpha[:1], df[:1])[0])
    finite = np.isfinite(df)
    return np.asarray(
        np.where(finite, -special.stdtrit(np.where(finite, df, 1.0), alpha / 2.0), -special.ndtri(alpha / 2.0))
    )


def normal_mixture_log_e(z: Floats, n: Floats, tuned_for: float = 60.0) -> Floats:
    """One-sided normal mixture as an e-value in terms of a z statistic over n points.

    ``log M = log(4 r / (v + r)) / 2 + S^2 / (2 (v + r)) + log Phi(S / sqrt(v + r))`` with ``S = z sqrt(n)``,
    ``v = n`` (Howard, Ramdas, McAuliffe and Sekhon 2021, one-sided normal mixture); ``tuned_for`` is the n at
    which it is tightest at an error rate of 0.02.
    """
    gain = np.log(1.0 / (2 * 0.02))
    r = tuned_for / (2.0 * gain + np.log(1.0 + 2.0 * gain))
    s = z * np.sqrt(n)
    return np.asarray(0.5 * np.log(4.0 * r / (n + r)) + s * s / (2.0 * (n + r)) + special.log_ndtr(s / np.sqrt(n + r)))


def normal_mixture_bound(alpha: Floats, n: Floats) -> Floats:
    """Z statistic at which :func:`normal_mixture_log_e` reaches ``1 / alpha`` after n points, by bisection."""
    if same_for_all(alpha, n):
        return np.full(len(n), normal_mixture_bound(alpha[:1], n[:1])[0])
    low, high = np.zeros(len(n)), np.full(len(n), 60.0)
    goal = np.log(1.0 / alpha)
    safe = np.maximum(n, 1.0)
    for _ in range(50):
        middle = 0.5 * (low + high)
        reached = normal_mixture_log_e(middle, safe) >= goal
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    return high


def yule_walker(past: Floats, order: int, ridge: float = 1e-3) -> Floats:
    """Autoregressive coefficients of each row by Yule-Walker, winsorised at 1 and 99 %. Shapes (series,
    points), (series, order).

    Sample autocovariances about the row's mean (Brockwell and Davis 1991, sec. 8.1), a small ridge on the
    diagonal. Missing points count as the mean.
    """
    low, high = np.nanquantile(past, [0.01, 0.99], axis=1)
    x = np.clip(past, low[:, None], high[:, None])
    x = x - np.nanmean(x, axis=1, keepdims=True)
    x = np.where(np.isnan(x), 0.0, x)
    n = x.shape[1]
    g = np.stack([(x[:, k:] * x[:, : n - k]).sum(axis=1) / n for k in range(order + 1)], axis=1)
    g = np.where(g[:, :1] > 0, g / np.where(g[:, :1] > 0, g[:, :1], 1.0), 0.0)
    lag = np.arange(order)
    matrix = g[:, np.abs(lag[:, None] - lag[None, :])] + ridge * np.eye(order)
    constant = g[:, 0] <= 0
    matrix[constant] = np.eye(order)
    return np.asarray(np.linalg.solve(matrix, g[:, 1:, None])[..., 0])


def signed_rank(e: Floats, magnitudes: Floats, seen: Floats) -> Floats:
    """Return ``h_t = sign(e_t) g_t``, ``g_t`` the rank of ``|e_t|`` among the magnitudes before it, in (0, 1).

    It has mean 0 given the past when baseline and canary are exchangeable (sequential ranks: Reynolds 1975). 0 for a
    missing point.

    Parameters
    ----------
    e:
        Shape (series,), innovations.
    magnitudes:
        Shape (series, at most :data:`RANK_WINDOW`), magnitudes seen before, NaN = none.
    seen:
        Shape (series,), how many of them there are.
    """
    with np.errstate(invalid="ignore"):
        # No more than 240 of them: a byte holds their number, and adds up faster than a word.
        below = (magnitudes <= np.abs(e)[:, None]).view(np.uint8).sum(axis=1, dtype=np.uint8)
    g = (1.0 + below) / (seen + 2.0)
    return np.where(np.isnan(e), 0.0, np.sign(e) * g)


def bet_step(log_wealth: Floats, h: Floats) -> Floats:
    """One scrape of signed-rank betting: returns the new log wealth of each bet.

    Each ``prod(1 + lambda h_t)`` is a fair game while :func:`signed_rank` has mean 0, and so is their mean (Shekhar
    and Ramdas 2023). A missing point, ``h_t = 0``, is no bet.

    Parameters
    ----------
    log_wealth:
        Shape (series, bets): bets on "larger" with :data:`BETS`, to be called with ``-h`` for "smaller".
    h:
        Shape (series,), signed ranks.
    """
    return np.asarray(log_wealth + np.log1p(BETS * h[:, None]))


def log_mean_wealth(log_wealth: Floats) -> Floats:
    """Log e-value of equal shares in every bet. Shape (series,)."""
    top = log_wealth.max(axis=1, keepdims=True)
    return np.asarray(top[:, 0] + np.log(np.exp(log_wealth - top).mean(axis=1)))
