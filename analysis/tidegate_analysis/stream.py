"""The same judgement fed scrape by scrape, valid at every look."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tidegate_analysis.assemble import Described
from tidegate_analysis.before_after import stretch
from tidegate_analysis.compare import check_history, check_step, describe
from tidegate_analysis.counted import count_levels
from tidegate_analysis.decide import Policy, policy_of, to_effect
from tidegate_analysis.defaults import resolve_all
from tidegate_analysis.judgement import Judgement, judge
from tidegate_analysis.kernels import changepoint
from tidegate_analysis.kernels.counters import increases
from tidegate_analysis.kernels.shared import as_number
from tidegate_analysis.prepare import as_points, to_scale
from tidegate_analysis.rates import as_levels, increments, ratios, told_rows
from tidegate_analysis.result import Result, concatenate
from tidegate_analysis.room import widened
from tidegate_analysis.spec import Design, MetricSpec, Verdict
from tidegate_analysis.tail import CENTRE_WEIGHT, MIN_WINDOWS, TAIL_WEIGHT
from tidegate_analysis.watches import FIRST_LOOK, Seen
from tidegate_analysis.watches.counting import CountWatch
from tidegate_analysis.watches.pairs import PairWatch
from tidegate_analysis.watches.scanning import ScanWatch
from tidegate_analysis.watches.tails import TailSeen, TailWatch, not_asked

Floats = NDArray[np.float64]
STATE_VERSION = 3
LONGEST = 1 << 53
_TOTALS = ("ex", "ey")


def open_stream(
    specs: MetricSpec | Sequence[MetricSpec],
    *,
    design: Design = "concurrent",
    history: ArrayLike | None = None,
    before: ArrayLike | None = None,
    step_seconds: float = 60.0,
    horizon: int | None = None,
    q: float = 0.05,
    history_exposure: ArrayLike | None = None,
    before_exposure: ArrayLike | None = None,
    tail: bool = True,
) -> Stream:
    """Open a stream of scrapes that can be judged at any moment.

    Parameters
    ----------
    specs:
        One per series.
    design:
        ``"concurrent"``: the arms are compared scrape by scrape. ``"before_after"``: the canary against ``before``.
    history:
        Concurrent: past pairs of windows, (series, windows, 2, points). With a horizon they must be at least as long.
    before:
        Before/after: the past, (series, points), up to the deployment.
    step_seconds:
        Time between scrapes.
    horizon:
        Scrapes after which the watch ends. Fixing it makes the watch stronger; points beyond it are not taken.
        ``None`` watches for ever.
    q:
        False-discovery rate of :meth:`Stream.judge`.
    history_exposure, before_exposure:
        Totals that the events of kind ratio belong to, in the shapes of ``history`` and ``before``.
    tail:
        Whether the worst points of two arms are asked beside the typical value.

    Raises
    ------
    ValueError
        When an argument is out of range or does not fit; the message names it.

    Examples
    --------
    >>> import numpy as np
    >>> import tidegate_analysis as ta
    >>> rng = np.random.default_rng(7)
    >>> spec = ta.MetricSpec(name="search_latency_p95", kind="gauge", direction="up_is_worse", margin=0.10)
    >>> stream = ta.open_stream(spec, horizon=60, step_seconds=15)
    >>> for _ in range(30):
    ...     stream.update(rng.lognormal(3.0, 0.1, (1, 1)), rng.lognormal(3.4, 0.1, (1, 1)))
    >>> stream.judge().verdict.name
    'FAIL'
    """
    if not isinstance(specs, MetricSpec | Iterable):
        raise ValueError(f"specs: must be a MetricSpec or a sequence of them, not {type(specs).__name__}")
    chosen = (specs,) if isinstance(specs, MetricSpec) else tuple(specs)
    if not chosen:
        raise ValueError("specs: at least one is needed")
    for k, one in enumerate(chosen):
        if not isinstance(one, MetricSpec):
            raise ValueError(f"specs[{k}]: must be a MetricSpec, not {type(one).__name__}")
    if horizon is not None:
        if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or not 1 <= horizon <= LONGEST:
            raise ValueError(f"horizon: must be a whole number of scrapes from 1 to {LONGEST}, not {horizon!r}")
        horizon = int(horizon)
    if not 0.0 < as_number(q) < 0.5:
        raise ValueError(f"q: must lie between 0 and 0.5, not {q!r}")
    if any(s.kind == "histogram" for s in chosen):
        raise ValueError("specs: histograms are streamed as series of superiority; see compare_histograms")
    stream = Stream()
    stream.design, stream.horizon, stream.step, stream.q = design, horizon, check_step(step_seconds), q
    stream.tail = tail
    if design == "concurrent":
        if before is not None:
            raise ValueError("before: belongs to design before_after; give history")
        stream.learn_pairs(chosen, history, history_exposure)
    elif design == "before_after":
        if history is not None:
            raise ValueError("history: belongs to design concurrent; give before")
        if before is None:
            raise ValueError("before: is needed for design before_after")
        if horizon is None:
            raise ValueError("horizon: is needed for design before_after")
        stream.learn_scan(chosen, before, before_exposure, horizon)
    else:
        raise ValueError(f"design: {design!r} cannot be streamed; concurrent or before_after")
    return stream


def restore_stream(state: bytes) -> Stream:
    """Return the stream that :meth:`Stream.state` described.

    Raises
    ------
    ValueError
        When the bytes are no such state.
    """
    return Stream().restore(state)


class Stream:
    """A running comparison; made by :func:`open_stream`.

    The state after some scrapes does not depend on the sizes of the blocks in which they came.

    Attributes
    ----------
    specs, derived:
        The specs as they are used, and the fields of each that were derived.
    design, horizon, step, q:
        As given to :func:`open_stream`.
    """

    def __init__(self) -> None:
        """Make an empty stream, to be opened or restored."""
        self.specs: tuple[MetricSpec, ...] = ()
        self.derived: tuple[tuple[str, ...], ...] = ()
        self.design: Design = "concurrent"
        self.horizon: int | None = None
        self.step = 60.0
        self.q = 0.05
        self.tail = True
        self._arms: dict[str, Floats] = {}
        self._room: dict[str, Floats] = {}
        self._found: Result | None = None
        self._judged: Judgement | None = None
        self._pairs: PairWatch | None = None
        self._tail: TailWatch | None = None
        self._scan: ScanWatch | None = None
        self._counts: list[CountWatch] = []

    # What is learnt before the first scrape.

    def learn_pairs(self, specs: tuple[MetricSpec, ...], history: ArrayLike | None, exposure: ArrayLike | None) -> None:
        """Learn from past windows of both arms."""
        S = len(specs)
        if history is None:
            past = np.zeros((S, 0, 2, self.horizon or 0))
        else:
            past = as_points("history", history, (4,))
            past = check_history(past, S, self.horizon or past.shape[3])
        totals = None
        if exposure is not None and history is not None:
            totals = as_points("history_exposure", exposure, (4,))[..., : past.shape[3]]
            if totals.shape != past.shape:
                raise ValueError(f"history_exposure: shape {totals.shape} does not fit the history's {past.shape}")
        known = past.transpose(2, 0, 1, 3).reshape(2, S, -1)
        self.specs, self.derived, margin = resolve_all(specs, known[0], known[1], told_rows(totals, S))
        self._prepare(margin)
        counter = self._counters
        if counter.any():
            past = past.copy()
            past[counter] = increases(past[counter])
        kinds = np.array([s.kind for s in self.specs])
        for absolute, kind in ((True, "ratio"), (False, "count")):
            rows = np.flatnonzero(kinds == kind)
            if len(rows):
                self._counts.append(CountWatch.learn(absolute, rows, self._policy, past, totals))
        self._pairs = PairWatch.learn(self._policy, self.horizon, past)
        if self.tail and self.horizon is not None and past.shape[1] >= MIN_WINDOWS:
            self._tail = TailWatch.learn(self._policy, self.horizon, past)

    def learn_scan(
        self, specs: tuple[MetricSpec, ...], before: ArrayLike, exposure: ArrayLike | None, horizon: int
    ) -> None:
        """Learn from the past before the deployment."""
        past = as_points("before", before)
        if len(past) != len(specs):
            raise ValueError(f"before: {len(past)} series for {len(specs)} specs")
        totals = None if exposure is None else as_points("before_exposure", exposure)
        if totals is not None and totals.shape != past.shape:
            raise ValueError(f"before_exposure: shape {totals.shape} does not fit before's {past.shape}")
        past = ratios(past, totals)
        self.specs, self.derived, margin = resolve_all(specs, past, past, told_rows(totals, len(specs)))
        (past,) = increments(self.specs, (past,))
        self.specs, self.derived, margin, rare = as_levels(self.specs, self.derived, margin, past)
        self._prepare(margin)
        self._scan = ScanWatch.learn(self._policy, horizon, self.step, past, rare)

    def _prepare(self, margin: Floats) -> None:
        S = len(self.specs)
        self._arms = {name: np.zeros((S, 0)) for name in ("x", "y", "ex", "ey")}
        self._arms |= {"last_x": np.full(S, np.nan), "last_y": np.full(S, np.nan), "margin": margin}
        self._derive()

    def _derive(self) -> None:
        """Derive what follows from the specs alone."""
        self._policy: Policy = policy_of(self.specs, self._arms["margin"])
        self._counters = np.array([s.kind == "counter" for s in self.specs], dtype=bool)

    # What grows with the scrapes.

    @property
    def scrapes(self) -> int:
        """How many scrapes were taken."""
        return int(self._arms["y"].shape[1])

    @property
    def finished(self) -> bool:
        """Whether the horizon is reached."""
        return self.horizon is not None and self.scrapes >= self.horizon

    def update(
        self,
        baseline_block: ArrayLike | None,
        canary_block: ArrayLike,
        *,
        baseline_exposure: ArrayLike | None = None,
        canary_exposure: ArrayLike | None = None,
    ) -> None:
        """Take scrapes: (series, n) columns of both arms, NaN = missing; no baseline for design before_after.

        Scrapes beyond the horizon are not taken.

        Parameters
        ----------
        baseline_exposure, canary_exposure:
            Totals that the events of kind ratio belong to, in the shape of the block.

        Raises
        ------
        ValueError
            When shapes do not fit; nothing is then taken.
        """
        y = as_points("canary_block", canary_block)
        if np.shape(canary_block)[-1] == 0:
            return
        if len(y) != len(self.specs):
            raise ValueError(f"canary_block: {len(y)} series, the stream has {len(self.specs)}")
        if self.design == "concurrent" and baseline_block is None:
            raise ValueError("baseline_block: is needed for design concurrent")
        if self.design == "before_after" and baseline_block is not None:
            raise ValueError("baseline_block: must be None for design before_after")
        x, ex, ey = (
            np.full(y.shape, np.nan) if given is None else as_points(name, given)
            for name, given in (
                ("baseline_block", baseline_block),
                ("baseline_exposure", baseline_exposure),
                ("canary_exposure", canary_exposure),
            )
        )
        for name, block in (("baseline_block", x), ("baseline_exposure", ex), ("canary_exposure", ey)):
            if block.shape != y.shape:
                raise ValueError(f"{name}: shape {block.shape} does not fit the canary's {y.shape}")
        if any(w.absolute for w in self._counts) and (baseline_exposure is None or canary_exposure is None):
            raise ValueError("baseline_exposure: kind 'ratio' needs the totals of both arms")
        if self.design == "before_after":
            y = ratios(y, None if canary_exposure is None else ey)
        room = y.shape[1] if self.horizon is None else min(y.shape[1], self.horizon - self.scrapes)
        if room <= 0:
            return
        new = {
            "x": self._apart("last_x", x[:, :room]),
            "y": self._apart("last_y", y[:, :room]),
            "ex": ex[:, :room],
            "ey": ey[:, :room],
        }
        taken = self.scrapes
        for name, block in new.items():
            self._arms[name] = widened(self._room, name, self._arms[name], 0, room)
            self._arms[name][:, taken:] = block
        self._found = self._judged = None
        for t in range(taken + 1, taken + room + 1):
            self._step(t)

    def _apart(self, name: str, block: Floats) -> Floats:
        """Turn totals of counters into increases, going on from the last scrape that was taken."""
        counter = self._counters
        if not counter.any():
            return block
        joined = np.concatenate([self._arms[name][counter, None], block[counter]], axis=1)
        self._arms[name] = np.where(counter, block[:, -1], np.nan)
        out = block.copy()
        out[counter] = increases(joined)[:, 1:]
        return out

    def _step(self, t: int) -> None:
        """Show the first ``t`` scrapes to the watches, which look at the newest."""
        arms = self._arms
        x, y = arms["x"][:, :t], arms["y"][:, :t]
        if self._scan is not None:
            self._scan.step(self._policy, y)
        if self._pairs is not None:
            self._pairs.step(self._policy, x, y)
        if self._tail is not None:
            self._tail.step(self._policy, x, y)
        for watch in self._counts:
            watch.step(self._policy, *(arms[name][:, t - 1 : t] for name in ("x", "y", "ex", "ey")))

    # What is answered.

    def prospect(self) -> tuple[Floats, Floats, Floats]:
        """What the past says of the change measured at the horizon: its spread, degrees of freedom, and the margins.

        Shape (series,), on the scale of the change; NaN where the past cannot tell.
        """
        margin = self._arms["margin"]
        if self._scan is not None:
            spread, df = self._scan.prospect()
        elif self._pairs is not None:
            spread, df = self._pairs.prospect()
        else:
            spread, df = np.full(len(margin), np.nan), np.ones(len(margin))
        counted = np.zeros(len(margin), dtype=bool)
        for watch in self._counts:
            counted[watch.rows] = True
        return np.where(counted, np.nan, spread), df, margin

    def result(self) -> Result:
        """Findings as of now, valid at whatever moment they are asked for.

        FAIL is reached when the running evidence beyond the margin crosses its boundary, and stays. PASS is as of now.
        Until the next scrape the same object is returned: leave its arrays as they are.
        """
        if self._found is None:
            self._found = self._result()
        return self._found

    def _result(self) -> Result:
        x, y = self._arms["x"], self._arms["y"]
        tail = not_asked(len(y)) if self._tail is None else self._tail.seen(self._policy, x, y)
        share = np.where(tail.asked, CENTRE_WEIGHT, 1.0)
        if self._scan is not None:
            described = self._stretch(self._scan)
            out = self._answer(self._scan.seen(self._policy, y), tail, share, described, self._scan)
        elif self._pairs is not None:
            described = self._beside(self._pairs)
            out = self._answer(self._pairs.seen(self._policy, x, y, share), tail, share, described, self._pairs)
        else:
            raise ValueError("stream: was neither opened nor restored")
        return self._with_counts(out)

    def _levels(self) -> tuple[MetricSpec, ...]:
        """Specs of what is kept: counters came in as totals and were taken apart on arrival."""
        return tuple(s.with_(kind="gauge") if s.kind == "counter" else s for s in self.specs)

    def _beside(self, watch: PairWatch) -> Described:
        """Levels, presence and quality of both arms so far, by the fixed comparison; its verdict is not used."""
        arms = {name: as_points(name, values) for name, values in self._arms.items() if name in ("x", "y", "ex", "ey")}
        x, y, policy, specs = arms["x"], arms["y"], self._policy, self._levels()
        if any(s.margin is None for s in specs):
            # A margin that is a share of the level is found anew from the points so far.
            policy = policy_of(specs, resolve_all(specs, x, y)[2])
        found = describe(x, y, specs, self.derived, policy, self.step, watch.level(), tail=self.tail)
        out = replace(found.result, specs=self.specs, margin=self._arms["margin"])
        if not self._counts:
            return found._replace(result=out)
        rows = np.concatenate([w.rows for w in self._counts])
        ratio = np.repeat([w.absolute for w in self._counts], [len(w.rows) for w in self._counts])
        ex, ey = (arms["ex"][rows], arms["ey"][rows]) if ratio.any() else (None, None)
        base, canary = out.baseline_level.copy(), out.canary_level.copy()
        base[rows], canary[rows] = count_levels(x[rows], y[rows], ex, ey, ratio)
        return found._replace(result=replace(out, baseline_level=base, canary_level=canary))

    def _stretch(self, watch: ScanWatch) -> Described:
        arms = (watch.learnt["recent"], as_points("canary", self._arms["y"]))
        out = stretch(*arms, self._levels(), self.derived, self._arms["margin"], self.step, watch.scanning)
        return out._replace(result=replace(out.result, specs=self.specs))

    def _answer(
        self, seen: Seen, tail: TailSeen, share: Floats, beside: Described, watch: PairWatch | ScanWatch
    ) -> Result:
        policy, described = self._policy, beside.result
        centre_fail = seen.p_beyond <= policy.alpha * share
        tail_fail = tail.asked & (tail.p_beyond <= policy.alpha * TAIL_WEIGHT)
        fail = centre_fail | tail_fail
        tail_p = np.where(tail.asked, np.minimum(tail.p_value / TAIL_WEIGHT, 1.0), 1.0)
        p = np.minimum(np.minimum(seen.p_value / share, 1.0), tail_p)
        with np.errstate(invalid="ignore"):
            below, above = seen.high < policy.worse, seen.low > -policy.worse
            both = (seen.high < policy.worse) & (seen.low > -policy.better)
        inside = np.where(policy.sign > 0, below, np.where(policy.sign < 0, above, both))
        doubts = np.where((beside.doubts == "") & tail.in_doubt, "tail_in_doubt", beside.doubts)
        passed = inside & ~fail & (seen.scrapes >= FIRST_LOOK)
        held = passed & (doubts != "")
        passed &= ~held
        verdict = np.where(fail, Verdict.FAIL, np.where(passed, Verdict.PASS, Verdict.INCONCLUSIVE)).astype(np.int8)
        reason = np.select(
            [centre_fail, tail_fail, passed, held],
            ["regression", "tail_regression", "within_margin", doubts],
            _waiting(described.reason),
        )
        known = np.isfinite(seen.estimate)
        out = replace(
            described,
            verdict=verdict,
            reason=tuple(reason.tolist()),
            p_value=np.clip(p, 1e-300, 1.0),
            log_e_value=seen.log_e,
            effect=np.where(known, to_effect(seen.estimate, policy.log), described.effect),
            effect_low=to_effect(seen.low, policy.log),
            effect_high=to_effect(seen.high, policy.log),
            method=tuple(seen.method),
            history_windows=seen.windows,
            history_exceeding=seen.exceeding,
        )
        if not fail.any():
            return out
        onset = changepoint.onset(self._change(fail), watch.level()[fail])
        places = [np.full(len(fail), -1, dtype=np.int64) for _ in range(3)]
        for place, found in zip(places, onset, strict=True):
            place[fail] = found
        return replace(out, onset=places[0], onset_low=places[1], onset_high=places[2])

    def _change(self, rows: NDArray[np.bool_]) -> Floats:
        """What changed, on its scale: the arms' difference, or the points after the deployment."""
        log, y = self._policy.log[rows], self._arms["y"][rows]
        if self._scan is not None:
            return to_scale((self._scan.learnt["recent"][rows], y), log).parts[1]
        gx, gy = to_scale((self._arms["x"][rows], y), log).parts
        return gy - gx

    def _with_counts(self, result: Result) -> Result:
        """Replace the findings of counted series by what their e-values say."""
        if not self._counts:
            return result
        a = self._arms
        arms = (a["x"], a["y"], a["ex"], a["ey"])
        parts, places = [], []
        for watch in self._counts:
            rows = watch.rows
            own = result.take(rows)
            parts.append(watch.result(own.specs, own.derived, self.step, arms, own))
            places.append(rows)
        rest = np.setdiff1d(np.arange(len(self.specs)), np.concatenate(places))
        if len(rest):
            parts.append(result.take(rest))
            places.append(rest)
        return concatenate(parts, places)

    def judge(self, multiplicity: Literal["grouped", "e_bh"] = "grouped") -> Judgement:
        """Return the gate's verdict as of now.

        Parameters
        ----------
        multiplicity:
            ``"grouped"``: Simes within groups and Benjamini-Hochberg over them, on p-values valid at every look; a
            FAIL stays, since its evidence only grows. ``"e_bh"``: e-BH on the e-values at this scrape, which holds
            under any dependence; a FAIL may be taken back at a later scrape.

        Raises
        ------
        ValueError
            With ``"e_bh"`` when a series has no e-value: with a horizon only counts have.
        """
        if multiplicity == "e_bh":
            return judge(self.result(), q=self.q, design=self.design, log_e=self.log_e_now())
        if multiplicity != "grouped":
            raise ValueError(f"multiplicity: {multiplicity!r} is none of grouped, e_bh")
        if self._judged is None or self._judged.q != self.q:
            self._judged = judge(self.result(), q=self.q, design=self.design)
        return self._judged

    def log_e_now(self) -> Floats:
        """Log e-values against "not worse" as of the newest scrape, (series,).

        Raises
        ------
        ValueError
            When a series has none: a horizon gives p-values alone, but to counts and event ratios.
        """
        out = np.full(len(self.specs), np.nan)
        if self._pairs is not None:
            out = self._pairs.log_e_now(self._policy, self._arms["x"], self._arms["y"])
        for watch in self._counts:
            out[watch.rows] = watch.log_e_now(self._policy)
        without = np.flatnonzero(np.isnan(out))
        if len(without):
            name = self.specs[int(without[0])].name
            raise ValueError(
                f"multiplicity: e_bh needs e-values, and {name!r} has none; open the stream for design concurrent "
                "without a horizon"
            )
        return out

    # What outlives a process.

    def __getstate__(self) -> dict[str, Any]:
        """Pickle without spare room, what can be computed again, and totals that no metric has (half of the points)."""
        arms = {name: None if name in _TOTALS and np.isnan(v).all() else v for name, v in self._arms.items()}
        return {**self.__dict__, "_arms": arms, "_room": {}, "_found": None, "_judged": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put the missing totals back."""
        self.__dict__.update(state)
        self._arms = {
            name: np.full(state["_arms"]["y"].shape, np.nan) if v is None else v for name, v in state["_arms"].items()
        }

    def state(self) -> bytes:
        """Everything there is, as bytes; equal streams give equal bytes."""
        watches = self._watches()
        config = {
            "version": STATE_VERSION,
            "specs": [asdict(s) for s in self.specs],
            "derived": self.derived,
            "design": self.design,
            "horizon": self.horizon,
            "step": self.step,
            "q": self.q,
            "tail": self.tail,
            "watches": sorted(watches),
        }
        arrays = {f"arms/{k}": np.ascontiguousarray(v) for k, v in self._arms.items()}
        for name, watch in watches.items():
            arrays |= {f"{name}/learnt/{k}": v for k, v in watch.learnt.items()}
            arrays |= {f"{name}/run/{k}": v for k, v in watch.run.items()}
        text = np.frombuffer(json.dumps(config, sort_keys=True).encode(), dtype=np.uint8)
        out = io.BytesIO()
        # Names with a slash cannot be keywords' look-alikes, and sorted they give the same bytes for the same stream.
        np.savez(out, config=text, **dict(sorted(arrays.items())))  # type: ignore[arg-type]
        return out.getvalue()

    def _watches(self) -> dict[str, PairWatch | TailWatch | ScanWatch | CountWatch]:
        found: dict[str, PairWatch | TailWatch | ScanWatch | CountWatch] = {}
        if self._pairs is not None:
            found["pairs"] = self._pairs
        if self._tail is not None:
            found["tail"] = self._tail
        if self._scan is not None:
            found["scan"] = self._scan
        return found | {f"counts-{'ratio' if w.absolute else 'count'}": w for w in self._counts}

    def restore(self, state: bytes) -> Stream:
        """Become the stream that ``state`` describes, and return it.

        Raises
        ------
        ValueError
            When the bytes are no such state.
        """
        try:
            with np.load(io.BytesIO(state), allow_pickle=False) as stored:
                config = json.loads(stored["config"].tobytes().decode())
                arrays = {name: stored[name] for name in stored.files if name != "config"}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(f"state: is no saved stream ({type(error).__name__})") from None
        if config.get("version") != STATE_VERSION:
            raise ValueError(f"state: version {config.get('version')} is not {STATE_VERSION}")
        self.specs = tuple(MetricSpec(**s) for s in config["specs"])
        self.derived = tuple(tuple(d) for d in config["derived"])
        for field in ("design", "horizon", "step", "q", "tail"):
            setattr(self, field, config[field])
        self._arms = _under("arms/", arrays)
        self._room, self._found, self._judged = {}, None, None
        self._pairs = self._tail = self._scan = None
        self._counts = []
        self._derive()
        for name in config["watches"]:
            learnt, run = _under(f"{name}/learnt/", arrays), _under(f"{name}/run/", arrays)
            if name == "pairs":
                self._pairs = PairWatch(self.horizon, learnt, run)
            elif name == "tail":
                self._tail = TailWatch(learnt, run)
            elif name == "scan":
                self._scan = ScanWatch(self.horizon or 1, learnt, run)
            else:
                self._counts.append(CountWatch(name.endswith("ratio"), learnt, run))
        self._counts.sort(key=lambda w: not w.absolute)
        return self


def _under(prefix: str, arrays: dict[str, Floats]) -> dict[str, Floats]:
    return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}


def _waiting(reasons: tuple[str, ...]) -> list[str]:
    """Reasons for no answer yet; those of the fixed comparison's own verdicts do not apply."""
    told = ("regression", "within_margin", "tail_regression")
    return ["not_enough_evidence" if r in told else r for r in reasons]
