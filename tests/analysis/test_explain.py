"""Sentences: as a person would say it, and one for every reason there is."""
# ruff: noqa: E501  (a golden sentence is one line)

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from tidegate_analysis.explain import UNKNOWN_CLOCK, between, change, duration, moment, number, sentence

Floats = NDArray[np.float64]
LOG = ta.MetricSpec("checkout p95", "gauge", "up_is_worse", "log", 0.1, unit="ms")
LINEAR = ta.MetricSpec("queue", "gauge", "up_is_worse", "linear", 3.0, unit="jobs")
RATIO = ta.MetricSpec("errors", "ratio", "up_is_worse", "linear", 0.005)
NAN = float("nan")


def result(spec: ta.MetricSpec, verdict: ta.Verdict, reason: str, **changes: object) -> ta.Result:
    """A finding with plain numbers, to be changed where a sentence is asked about."""
    base = ta.compare(np.ones((1, 5)), np.ones((1, 5)), spec=spec if spec.kind != "ratio" else LOG)
    values: dict[str, object] = {
        "verdict": np.array([verdict], dtype=np.int8),
        "reason": (reason,),
        "specs": (spec,),
        "margin": np.array([spec.margin]),
        **{
            name: np.array([value])
            for name, value in {
                "effect": 0.18,
                "effect_low": 0.12,
                "effect_high": 0.24,
                "tail_effect": 0.42,
                "baseline_level": 100.0,
                "canary_level": 118.0,
                "seconds_to_answer": NAN,
                "onset": -1,
                "history_windows": 0,
                "history_exceeding": 0,
                "n_baseline": 60,
                "n_canary": 60,
            }.items()
        },
    }
    for name, value in changes.items():
        values[name] = (value,) if name in ("method", "reason") else np.array([value])
    return replace(base, **values)


FAIL, PASS, OPEN = ta.Verdict.FAIL, ta.Verdict.PASS, ta.Verdict.INCONCLUSIVE
# fmt: off
SENTENCES = [
    (
        result(LOG, FAIL, "regression"),
        "checkout p95 is 18 % above the baseline (+12 % to +24 %).",
    ),
    (
        result(LOG, FAIL, "regression", onset=4, history_windows=28),
        "checkout p95 is 18 % above the baseline (+12 % to +24 %), since point 5; a change this large was seen in 0 of 28 comparable windows.",
    ),
    (
        result(LOG, FAIL, "regression", effect=1.4, effect_low=0.9, effect_high=2.0),
        "checkout p95 is 2.4 times the baseline (+90 % to x3).",
    ),
    (
        result(LOG, FAIL, "regression", effect_low=NAN, effect_high=NAN),
        "checkout p95 is 18 % above the baseline.",
    ),
    (
        result(LOG, FAIL, "regression", effect_high=NAN),
        "checkout p95 is 18 % above the baseline (at least +12 %).",
    ),
    (
        result(
            LOG.with_(direction="down_is_worse"), FAIL, "regression", effect=-0.3, effect_low=-0.4, effect_high=-0.2
        ),
        "checkout p95 is 30 % below the baseline (-40 % to -20 %).",
    ),
    (
        result(LOG, FAIL, "regression", effect=-0.01, effect_low=-0.03, effect_high=0.01),
        "checkout p95 was shown to be worse than the baseline earlier in the watch; by now it changed by -1.0 % (-3.0 % to +1.0 %).",
    ),
    (
        result(LOG, FAIL, "regression", method="before-after-scan-daily.v1"),
        "checkout p95 is 18 % above its level before the deployment (+12 % to +24 %).",
    ),
    (
        result(LOG, FAIL, "regression", method="difference-in-differences-scan.v1"),
        "checkout p95 is 18 % above what the control group's change would suggest (+12 % to +24 %).",
    ),
    (
        result(LOG, FAIL, "tail_regression", effect=0.012, effect_low=-0.01, effect_high=0.03, history_windows=28),
        "checkout p95: its worst points are 42 % above those of the baseline, while its typical value changed by +1.2 % (-1.0 % to +3.0 %).",
    ),
    (
        result(LINEAR, FAIL, "regression", effect=12.5, effect_low=8.0, effect_high=17.0),
        "queue is 12.5 jobs above the baseline (+8 to +17 jobs).",
    ),
    (
        result(RATIO, FAIL, "regression", effect=0.021, effect_low=0.012, effect_high=0.031),
        "errors is 2.1 percentage points above the baseline (+1.2 to +3.1 percentage points).",
    ),
    (
        result(
            ta.MetricSpec("kills", "count", "up_is_worse", "log", 0.25),
            FAIL,
            "regression",
            effect=NAN,
            effect_low=0.8,
            effect_high=NAN,
            baseline_level=0.0,
            canary_level=0.4,
            method="counts.v1",
        ),
        "kills is at 0.4 where 0 is usual (at least +80 %).",
    ),
    (
        result(LOG, PASS, "within_margin", effect=-0.011, effect_low=-0.033, effect_high=0.004),
        "checkout p95 is not worse: it changed by -1.1 % (-3.3 % to +0.4 %), which is within the margin of 10 %.",
    ),
    (
        result(RATIO, PASS, "within_margin", effect=0.0001, effect_low=-0.001, effect_high=0.0015),
        "errors is not worse: it changed by +0.01 percentage points (-0.1 to +0.1 percentage points), which is within the margin of 0.5 percentage points.",
    ),
    (
        result(
            LOG, OPEN, "not_enough_evidence", effect=0.05, effect_low=-0.02, effect_high=0.12, seconds_to_answer=730.0
        ),
        "checkout p95: the data cannot tell yet; so far it changed by +5.0 % (-2.0 % to +12 %), the margin is 10 %; if there is no change, about 12 minutes more would show it.",
    ),
    (
        result(LOG, OPEN, "below_margin", effect=0.05, effect_low=0.03, effect_high=0.12),
        "checkout p95: there is a change, smaller than the margin; so far it changed by +5.0 % (+3.0 % to +12 %), the margin is 10 %.",
    ),
    (
        result(LOG, OPEN, "too_few_points", effect=NAN, n_canary=3),
        "checkout p95: only 3 points are there, at least 5 are needed.",
    ),
    (
        result(LOG, OPEN, "too_few_points", effect=NAN, n_canary=1),
        "checkout p95: only 1 point is there, at least 5 are needed.",
    ),
    (
        result(LOG, OPEN, "too_few_points", effect=NAN),
        "checkout p95: there are too few points to tell.",
    ),
    (
        result(LOG, OPEN, "constant", effect=0.0),
        "checkout p95: nothing moves, so there is no yardstick for a change.",
    ),
    (
        result(LOG, OPEN, "constant", effect=0.5),
        "checkout p95: nothing moves, so there is no yardstick for its change of +50 %.",
    ),
    (result(LOG, OPEN, "no_data", effect=NAN), "checkout p95: neither arm has points."),
    (result(LOG, OPEN, "no_baseline", effect=NAN), "checkout p95: the baseline has no points."),
    (result(LOG, OPEN, "no_overlap", effect=NAN), "checkout p95: baseline and canary never answered the same scrape."),
    (
        result(LOG, OPEN, "canary_silent"),
        "checkout p95: the canary is silent while the baseline speaks.",
    ),
    (
        result(LOG, OPEN, "canary_silent", method="before-after-trim.v1"),
        "checkout p95: it fell silent after the deployment.",
    ),
    (
        result(LOG, OPEN, "no_baseline", effect=NAN, method="before-after-trim.v1"),
        "checkout p95: there are no points from before the deployment.",
    ),
    (
        result(LOG, OPEN, "hold_only"),
        "checkout p95: it got worse, but this metric may only hold a rollout; so far it changed by +18 % (+12 % to +24 %), the margin is 10 %.",
    ),
]
# fmt: on


@pytest.mark.parametrize(("found", "expected"), SENTENCES, ids=[text[:60] for _, text in SENTENCES])
def test_golden_sentences(found: ta.Result, expected: str) -> None:
    assert found.explain(0) == expected


def test_a_known_clock_tells_the_time_of_day() -> None:
    found = result(LOG, FAIL, "regression", onset=4)
    # 2026-05-01 12:37:00 UTC.
    assert "since 12:41 UTC" in sentence(found, 0, clock=(1777639020.0, 60.0))
    assert "since 12:37:40 UTC" in sentence(found, 0, clock=(1777639020.0, 10.0))
    assert "since point 5" in sentence(found, 0, clock=UNKNOWN_CLOCK)
    assert "since point 5" in sentence(found, 0, clock=(0.0, 60.0))


def test_the_judgement_knows_its_clock_and_how_many_were_judged() -> None:
    found = result(LOG, FAIL, "regression", onset=4)
    judged = ta.judge(replace(found, p_value=np.array([1e-9])), clock=(1777639020.0, 60.0))
    assert judged.explain() == f"FAIL: {judged.explain(0)}"
    assert "since 12:41 UTC" in judged.explain(0)
    weak = ta.judge(replace(found, p_value=np.array([0.5])))
    assert weak.explain(0).startswith("checkout p95: it does not stand out from chance; so far")


def test_an_index_out_of_range_is_an_error_and_a_negative_one_counts_back() -> None:
    found = result(LOG, FAIL, "regression")
    assert found.explain(-1) == found.explain(0)
    with pytest.raises(IndexError):
        found.explain(1)
    with pytest.raises(IndexError):
        ta.judge(found).explain(5)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (1.0, "1"), (-3.14159, "-3.14"), (1234.5, "1,234"), (123456.0, "123,456"), (1e9, "1e+09"),
        (0.00012345, "0.000123"), (1e-9, "1e-09"), (NAN, "unknown"),
    ],
)  # fmt: skip
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text
    assert number(value, "ms") == (text if text == "unknown" else f"{text} ms")


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.18, "+18 %", "18 %"), (-0.18, "-18 %", "18 %"), (0.0123, "+1.2 %", "1.2 %"), (0.00012, "+0.012 %", "0.012 %"),
        (0.0, "0 %", "0 %"), (-1e-18, "0 %", "0 %"), (0.999, "x2", "x2"), (1.4, "x2.4", "x2.4"), (-0.95, "-95 %", "95 %"),
        (299.0, "x300", "x300"),
    ],
)  # fmt: skip
def test_changes_on_the_log_scale(value: float, signed: str, text: str) -> None:
    assert change(value, LOG, signed=True) == signed
    assert change(value, LOG) == text


def test_changes_on_the_linear_scale_have_the_unit_once() -> None:
    assert change(-2.5, LINEAR, signed=True) == "-2.5 jobs"
    assert change(-2.5, LINEAR) == "2.5 jobs"
    assert between(-1.0, 2.0, LINEAR) == " (-1 to +2 jobs)"
    assert between(0.0, 2.0, LINEAR.with_(unit="")) == " (0 to +2)"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 second"), (45, "45 seconds"), (600, "10 minutes"), (7200, "2.0 hours"), (4 * 86400, "4.0 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_moments() -> None:
    assert moment(0, (1777639020.0, 60.0)) == "12:37 UTC"
    assert moment(0, UNKNOWN_CLOCK) == "point 1"


# Every reason, reached by data.


def _noise(shape: tuple[int, ...], seed: int) -> Floats:
    return 100.0 * np.exp(np.random.default_rng(seed).normal(size=shape) * 0.05)


def _reached() -> dict[str, ta.Judgement]:
    x, y = _noise((1, 60), 1), _noise((1, 60), 2)
    gappy = x.copy()
    gappy[0, ::2] = np.nan
    other = y.copy()
    other[0, 1::2] = np.nan
    quiet = y.copy()
    quiet[0, -5:] = np.nan
    infinite = y.copy()
    infinite[0, 5] = np.inf
    tail = y.copy()
    tail[0, ::7] *= 2.5
    doubt = y.copy()
    doubt[0, 3] *= 1.5
    short = y.copy()
    short[0, -5:] *= 1.5
    pods = _noise((1, 14, 60), 7)
    late = y.copy()
    late[0, 40:] *= 1.18
    history = _noise((1, 28, 2, 60), 3)
    nothing = np.full((1, 60), np.nan)
    shifted = np.where(np.arange(200) == 7, 1.14, 1.0)[:, None]
    many = ta.compare(_noise((200, 12), 5), _noise((200, 12), 15) * shifted, spec=LOG)
    few = np.zeros((1, 60))
    few[0, [5, 20, 40]] = 1.0
    count = ta.MetricSpec("kills", "count", "up_is_worse", alpha=0.4)

    def one(baseline: Floats, canary: Floats, spec: ta.MetricSpec = LOG, **more: object) -> ta.Judgement:
        return ta.judge(ta.compare(baseline, canary, spec=spec, **more))

    return {
        "regression": one(x, y * 1.3),
        "within_margin": one(x, y),
        "tail_regression": one(x, tail, history=history),
        "stretch_in_doubt": one(x, short),
        "tail_in_doubt": one(x, doubt, LOG.with_(margin=0.06), history=history),
        "late_in_doubt": one(x, late, history=history[:, :10]),
        "instance_in_doubt": one(pods[:, :6], pods[:, 6:] * np.where(np.arange(8) == 2, 1.6, 1.0)[:, None]),
        "not_enough_evidence": one(x[:, :8], y[:, :8], LOG.with_(margin=0.01)),
        "below_margin": one(x, y * 1.06, LOG.with_(margin=0.07)),
        "too_few_points": one(x[:, :3], y[:, :3]),
        "too_few_events": one(np.zeros((1, 60)), few, count),
        "no_overlap": one(gappy, other),
        "no_baseline": one(nothing, y),
        "no_data": one(nothing, nothing),
        "canary_silent": one(x, quiet),
        "bad_values": one(x, infinite),
        "baseline_silent": one(quiet, x),
        "constant": one(np.ones((1, 60)), np.ones((1, 60))),
        "hold_only": one(x, y * 1.3, LOG.with_(criticality="hold_only")),
        "not_significant_among_many": ta.judge(many),
    }


REACHED = _reached()


@pytest.mark.parametrize("reason", REACHED)
def test_every_reason_is_reached_and_has_its_sentence(reason: str) -> None:
    judged = REACHED[reason]
    rows = [i for i, r in enumerate(judged.reasons) if r == reason]
    assert rows, judged.reasons[:3]
    text = judged.explain(rows[0])
    assert text.endswith(".")
    assert "_" not in text, "the code itself is no sentence"
    assert "unknown" not in text
    expected = {"regression": FAIL, "tail_regression": FAIL, "within_margin": PASS}.get(reason, OPEN)
    assert judged.verdicts[rows[0]] == expected


def test_no_reason_of_the_code_is_missing_here() -> None:
    root = Path(ta.__file__).parent
    source = "".join((root / name).read_text() for name in ("assemble.py", "decide.py", "judgement.py", "counted.py"))
    told = set(re.findall(r'"([a-z]+(?:_[a-z]+)+|constant|regression)"', source))
    codes = told & set(re.findall(r'"([a-z]+(?:_[a-z]+)+|constant)":', (root / "explain.py").read_text()))
    assert codes <= set(REACHED), codes - set(REACHED)
    assert len(codes) >= 12


def test_no_sentence_is_absurd() -> None:
    assert number(-0.0, "ms") == "0 ms"
    assert duration(1e9) == "32 years"
    assert moment(3, (1.7e9, 3600.0)) == "2023-11-15 01:13 UTC"
    assert moment(3, (1.7e12, 60_000.0)) == "point 4", "milliseconds"
    x, y = _noise((1, 60), 1), _noise((1, 60), 2)
    once = ta.compare(x, y * 1.3, spec=LOG, history=_noise((1, 1, 2, 60), 3))
    assert once.explain(0).endswith("in 0 of 1 comparable window.")
    never = ta.compare(x, y, spec=LOG.with_(margin=1e-6), step_seconds=60.0)
    assert never.seconds_to_answer[0] > 1e9
    assert "would show it" not in never.explain(0)


def test_times_in_milliseconds_give_a_sentence() -> None:
    batch = ta.SeriesBatch([LOG])
    for arm, factor in (("baseline", 1.0), ("canary", 1.5)):
        batch.add(ta.Block(arm, 1.7e12, 60_000.0, factor * _noise((1, 40), len(arm))))
    judged = ta.analyze(batch)
    assert judged.verdict == FAIL
    assert "since point 1." in judged.explain()
