"""The gate's verdict over many metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate_analysis.explain import sentence
from tidegate_analysis.kernels import multiplicity
from tidegate_analysis.kernels.shared import as_floats, as_number
from tidegate_analysis.result import Result
from tidegate_analysis.spec import Design, Verdict

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
# What of several verdicts counts, the worst first; PASS where there is none of these.
SEVERITY = (Verdict.FAIL, Verdict.ERROR, Verdict.INCONCLUSIVE)


@dataclass(frozen=True, slots=True)
class GroupOutcome:
    """The outcome of one group: verdict, p-value corrected over the groups, members, and those that fail."""

    name: str
    verdict: Verdict
    adjusted_p_value: float
    members: tuple[int, ...]
    failing: tuple[int, ...]


@dataclass(frozen=True)
class Judgement:
    """The verdict over all series of a result.

    Attributes
    ----------
    verdict:
        FAIL when any metric fails, else INCONCLUSIVE when any is, else PASS; INCONCLUSIVE when there is none.
    verdicts, reasons:
        Per series, after correction.
    adjusted_p_value:
        Per series; NaN where nothing could be asked.
    groups:
        In the order of first mention.
    result:
        The findings before correction.
    q:
        The false-discovery rate.
    design:
        The design the findings rest on.
    clock:
        Epoch seconds of the first column after the deployment, and the step in seconds; NaN when not known.
    """

    verdict: Verdict
    verdicts: NDArray[np.int8]
    reasons: tuple[str, ...]
    adjusted_p_value: Floats
    groups: tuple[GroupOutcome, ...]
    result: Result
    q: float
    design: Design = "auto"
    clock: tuple[float, float] = (float("nan"), float("nan"))

    def explain(self, i: int | None = None) -> str:
        """Return the sentence of the gate, or of series ``i`` under its final verdict."""
        if i is not None:
            i = range(len(self.verdicts))[i]
            return sentence(
                self.result,
                i,
                verdict=int(self.verdicts[i]),
                reason=self.reasons[i],
                among=len(self.verdicts),
                clock=self.clock,
            )
        n = len(self.verdicts)
        if n == 0:
            return "Nothing was judged."
        if self.verdict == Verdict.PASS:
            return f"PASS: {self.explain(0)}" if n == 1 else f"PASS: all {n} metrics are within their margins."
        wanted = self.verdict
        rows = np.flatnonzero(self.verdicts == wanted)
        order = rows[np.argsort(self.result.p_value[rows], kind="stable")]
        first = self.explain(int(order[0]))
        rest = f" ({len(order)} of {n} metrics)" if n > 1 else ""
        return f"{wanted.name}{rest}: {first}"

    def to_frame(self) -> pd.DataFrame:
        """Return the frame of the findings with the final verdicts, adjusted p-values and sentences."""
        frame = self.result.to_frame()
        frame["verdict"] = [Verdict(int(v)).name for v in self.verdicts]
        frame["reason"] = list(self.reasons)
        frame.insert(3, "adjusted_p_value", self.adjusted_p_value)
        frame["explanation"] = [self.explain(i) for i in range(len(self.verdicts))]
        return frame


def judge(
    result: Result,
    *,
    groups: Sequence[str] | None = None,
    critical: Sequence[bool] | None = None,
    q: float = 0.05,
    design: Design = "auto",
    clock: tuple[float, float] = (float("nan"), float("nan")),
    log_e: ArrayLike | None = None,
) -> Judgement:
    """Judge many metrics together.

    Critical metrics form a tier of their own: Holm's correction at each metric's own alpha, so the chance of
    any false FAIL among them is bounded. All others: Simes within groups, Benjamini-Hochberg over groups and
    inside the groups that stand out, at the false-discovery rate ``q``. When nothing is wrong, ``q`` also
    bounds the chance that the gate fails, however many metrics it watches. A FAIL needs the metric's own test
    as well. PASS needs every metric to pass; each is tested at its own ``alpha_pass``, which needs no
    correction (intersection-union test, Berger 1982).

    Parameters
    ----------
    result:
        Findings, from :func:`tidegate_analysis.compare` and its kin.
    groups:
        One name per series; default: the specs' groups.
    critical:
        One flag per series; default: the specs' criticality.
    q:
        In (0, 0.5).
    log_e:
        Log e-values of the findings at one common moment, NaN = none: where given, all that is not critical is
        corrected by e-BH (Wang and Ramdas 2022) instead, which holds under any dependence. They must be the values
        as of now: the largest so far, which a stream tells as its evidence, is no e-value.

    Raises
    ------
    ValueError
        When a sequence has another length than there are series, or q is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import tidegate_analysis as ta
    >>> rng = np.random.default_rng(3)
    >>> baseline, canary = rng.lognormal(4.0, 0.05, (2, 100, 60))
    >>> canary[17] *= 1.3
    >>> specs = [ta.MetricSpec(f"route_{k}_p95") for k in range(100)]
    >>> judged = ta.judge(ta.compare(baseline, canary, spec=specs), q=0.05)
    >>> judged.verdict.name, np.flatnonzero(judged.verdicts == ta.Verdict.FAIL).tolist()
    ('FAIL', [17])
    """
    n = len(result)
    if not 0.0 < as_number(q) < 0.5:
        raise ValueError(f"q: must lie between 0 and 0.5, not {q!r}")
    names = [s.group for s in result.specs] if groups is None else list(groups)
    if len(names) != n:
        raise ValueError(f"groups: {len(names)} names for {n} series")
    if log_e is not None:
        log_e = as_floats("log_e", log_e)
        if log_e.shape != (n,):
            raise ValueError(f"log_e: {log_e.size} values for {n} series")
    if critical is None:
        is_critical = np.array([s.criticality == "critical" for s in result.specs], dtype=bool)
    else:
        is_critical = np.asarray(critical, dtype=bool)
        if is_critical.shape != (n,):
            raise ValueError(f"critical: {is_critical.size} flags for {n} series")
    hold_only = np.array([s.criticality == "hold_only" for s in result.specs], dtype=bool)
    order = {name: k for k, name in enumerate(dict.fromkeys(names))}
    member = np.array([order[name] for name in names], dtype=np.int64)
    asked = np.isfinite(result.effect) | (result.verdict != Verdict.INCONCLUSIVE)
    p = np.where(asked, result.p_value, np.nan)
    adjusted = np.full(n, np.nan)
    significant = np.zeros(n, dtype=bool)
    alpha = np.array([s.alpha for s in result.specs])
    if is_critical.any():
        adjusted[is_critical] = multiplicity.holm(p[is_critical])
        significant[is_critical] = np.nan_to_num(adjusted[is_critical], nan=2.0) <= alpha[is_critical]
    crowd = ~is_critical
    group_p = np.full(len(order), np.nan)
    if crowd.any():
        present, local = np.unique(member[crowd], return_inverse=True)
        if log_e is None:
            adjusted[crowd], by_group, significant[crowd] = multiplicity.grouped(p[crowd], local.astype(np.int64), q)
            group_p[present] = by_group
        else:
            adjusted[crowd] = multiplicity.e_adjusted(np.where(asked, log_e, np.nan)[crowd])
            significant[crowd] = np.nan_to_num(adjusted[crowd], nan=2.0) <= q
            # Groups are not asked: a group stands out as far as its clearest member does.
            group_p[present] = np.inf
            np.fmin.at(group_p, member[crowd], adjusted[crowd])
            group_p[np.isinf(group_p)] = np.nan
    verdicts = result.verdict.copy()
    reasons = list(result.reason)
    for i in np.flatnonzero((verdicts == Verdict.FAIL) & ~significant).tolist():
        verdicts[i], reasons[i] = Verdict.INCONCLUSIVE, "not_significant_among_many"
    for i in np.flatnonzero((verdicts == Verdict.FAIL) & hold_only & crowd).tolist():
        verdicts[i], reasons[i] = Verdict.INCONCLUSIVE, "hold_only"
    outcomes = _outcomes(tuple(order), member, verdicts, group_p)
    return Judgement(fold(verdicts), verdicts, tuple(reasons), adjusted, outcomes, result, q, design, clock)


def _outcomes(
    names: tuple[str, ...], member: NDArray[np.int64], verdicts: NDArray[np.int8], group_p: Floats
) -> tuple[GroupOutcome, ...]:
    """Return the groups' outcomes; ``member`` is the number of each series' group."""
    by_group = np.argsort(member, kind="stable")
    ends = np.cumsum(np.bincount(member, minlength=len(names))).tolist()
    failing = verdicts[by_group] == Verdict.FAIL
    worst = np.full(len(names), int(Verdict.PASS), dtype=np.int8)
    for code in reversed(SEVERITY):
        worst[member[verdicts == code]] = code
    rows, fails = by_group.tolist(), by_group[failing].tolist()
    fail_ends = np.cumsum(np.bincount(member[by_group[failing]], minlength=len(names))).tolist()
    return tuple(
        GroupOutcome(name, Verdict(code), p, tuple(rows[a:b]), tuple(fails[c:d]))
        for name, code, p, a, b, c, d in zip(
            names, worst.tolist(), group_p.tolist(), [0, *ends], ends, [0, *fail_ends], fail_ends, strict=False
        )
    )


def fold(verdicts: NDArray[np.int8]) -> Verdict:
    """Fold verdicts into one: FAIL, else ERROR, else INCONCLUSIVE, else PASS; INCONCLUSIVE for none."""
    for worst in SEVERITY:
        if bool((verdicts == worst).any()):
            return worst
    return Verdict.PASS if len(verdicts) else Verdict.INCONCLUSIVE
