"""Bad input: every kind of it through every entrance ends in an error that names the argument, or in an honest finding.

Warnings of numpy are errors here. NaN is allowed in a result only where docs/methods/verdicts.md allows it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray

Floats = NDArray[np.float64]
N, PAST = 40, 600


@pytest.fixture(autouse=True)
def _warnings_are_errors():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def _noise(n: int, seed: int) -> Floats:
    return 100.0 * np.exp(np.random.default_rng(seed).normal(size=n) * 0.05)


def _with(values: Floats, at: int, value: float) -> Floats:
    out = values.copy()
    out[at] = value
    return out


Maker = Callable[[int, int], Floats]
SERIES: dict[str, Maker] = {
    "healthy": _noise,
    "constant": lambda n, _: np.full(n, 0.1 + 0.2),
    "all zeros": lambda n, _: np.zeros(n),
    "all missing": lambda n, _: np.full(n, np.nan),
    "one point": lambda n, seed: np.where(np.arange(n) == n - 1, _noise(n, seed), np.nan),
    "four points": lambda n, seed: np.where(np.arange(n) >= n - 4, _noise(n, seed), np.nan),
    "one infinity": lambda n, seed: _with(_noise(n, seed), n // 2, np.inf),
    "minus infinity": lambda n, seed: _with(_noise(n, seed), n // 2, -np.inf),
    "all infinite": lambda n, _: np.full(n, np.inf),
    "beyond float32": lambda n, seed: _noise(n, seed) * 1e60,
    "one absurd point": lambda n, seed: _with(_noise(n, seed), n // 2, 1e200),
    "largest floats": lambda n, seed: np.where(np.random.default_rng(seed).random(n) < 0.5, 1.7e308, -1.7e308),
    "one huge point": lambda n, seed: _with(_noise(n, seed), n // 2, 1e120),
    "subnormal": lambda n, seed: _noise(n, seed) * 1e-310,
    "tiny": lambda n, seed: _noise(n, seed) * 1e-200,
    "negative": lambda n, seed: -_noise(n, seed),
    "some negative": lambda n, seed: _noise(n, seed) - 100.0,
    "mostly zero": lambda n, seed: np.where(np.random.default_rng(seed).random(n) < 0.05, 3.0, 0.0),
    "two values": lambda n, seed: np.random.default_rng(seed).integers(1, 3, n).astype(float),
    "every other missing": lambda n, seed: np.where(np.arange(n) % 2, _noise(n, seed), np.nan),
}
SPECS = {
    "auto": ta.MetricSpec("m"),
    "log": ta.MetricSpec("m", "gauge", "up_is_worse", "log", 0.1),
    "linear": ta.MetricSpec("m", "gauge", "up_is_worse", "linear", 5.0),
    "down": ta.MetricSpec("m", "gauge", "down_is_worse", "log", 0.1),
    "either": ta.MetricSpec("m", "gauge", "either", "linear", 5.0),
    "counter": ta.MetricSpec("m", "counter", "up_is_worse"),
    "count": ta.MetricSpec("m", "count", "up_is_worse"),
    "saturation": ta.MetricSpec("m", "saturation", "up_is_worse"),
}


def check(result: ta.Result) -> None:
    """Assert that nothing in a result is silent."""
    for i in range(len(result)):
        assert result.verdict[i] in (1, 2, 3)
        assert result.reason[i], "no reason"
        assert result.method[i].rpartition(".v")[2].isdigit()
        assert 0.0 <= result.p_value[i] <= 1.0
        assert np.isfinite(result.n_effective[i])
        assert not np.isinf([result.effect[i], result.effect_low[i], result.effect_high[i]]).any()
        decided = result.verdict[i] != ta.Verdict.INCONCLUSIVE
        if decided:
            assert np.isfinite(result.margin[i])
            # Events where the baseline had none have no ratio.
            assert np.isfinite(result.effect[i]) or result.method[i].startswith("count")
            # What PASS rests on is shown: the bound on the worse side. Bets have no other.
            wrong = result.effect_low[i] if result.specs[i].direction == "down_is_worse" else result.effect_high[i]
            assert result.verdict[i] == ta.Verdict.FAIL or np.isfinite(wrong)
        text = result.explain(i)
        assert text.endswith(".")
        assert "nan" not in text.lower().replace("nanosecond", "")
        assert "unknown" not in text
        assert "inf " not in text
    judged = ta.judge(result)
    assert judged.explain()
    assert len(judged.to_frame()) == len(result)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("windows", [0, 15])
def test_compare_survives_every_pair_of_series(spec: str, windows: int) -> None:
    names = list(SERIES)
    x = np.stack([SERIES[a](N, 1) for a in names for _ in names])
    y = np.stack([SERIES[b](N, 2) for _ in names for b in names])
    history = None
    if windows:
        past = [np.stack([SERIES[a](N, 10 + k) for a in names for _ in names]) for k in range(windows)]
        calm = [np.stack([_noise(N, 100 + k)] * len(x)) for k in range(windows)]
        history = np.stack([np.stack(pair, axis=1) for pair in zip(past, calm, strict=True)], axis=1)
    check(ta.compare(x, y, spec=SPECS[spec], history=history, step_seconds=60.0))


@pytest.mark.parametrize("spec", ["auto", "log", "linear", "count"])
def test_instances_survive_every_series(spec: str) -> None:
    names = list(SERIES)
    x = np.stack([np.stack([SERIES[a](N, 1), _noise(N, 3), _noise(N, 4)]) for a in names])
    y = np.stack([np.stack([_noise(N, 5), SERIES[a](N, 2)]) for a in names])
    check(ta.compare(x, y, spec=SPECS[spec]))
    check(ta.compare(y, x, spec=SPECS[spec], borrow=False))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("past", [0, 60, PAST])
def test_before_after_survives_every_pair_of_series(spec: str, past: int) -> None:
    names = list(SERIES)
    x = np.stack([SERIES[a](past, 1) if past else np.zeros(0) for a in names for _ in names])
    y = np.stack([SERIES[b](N, 2) for _ in names for b in names])
    check(ta.before_after(x, y, spec=SPECS[spec]))


@pytest.mark.parametrize("spec", SPECS)
def test_before_after_by_time_of_day_survives_every_series(spec: str) -> None:
    names, day = list(SERIES), 24
    x = np.stack([SERIES[a](6 * day, 1) for a in names] + [_noise(6 * day, 1)] * len(names))
    y = np.stack([_noise(4, 2)] * len(names) + [SERIES[a](4, 2) for a in names])
    check(ta.before_after(x, y, spec=SPECS[spec], step_seconds=3600.0))


@pytest.mark.parametrize("spec", ["auto", "log", "linear"])
def test_difference_in_differences_survives_every_series(spec: str) -> None:
    names = list(SERIES)
    x, y = (np.stack([SERIES[a](n, 1) for a in names]) for n in (PAST, N))
    cx, cy = (np.stack([_noise(n, 7)] * len(names)) for n in (PAST, N))
    check(ta.before_after(x, y, spec=SPECS[spec], control_before=cx, control_after=cy))
    check(ta.before_after(cx, cy, spec=SPECS[spec], control_before=x, control_after=y))


@pytest.mark.parametrize("spec", ["auto", "log", "linear", "either"])
@pytest.mark.parametrize("horizon", [None, N])
@pytest.mark.parametrize("windows", [0, 20])
def test_streams_survive_every_series(spec: str, horizon: int | None, windows: int) -> None:
    names = list(SERIES)
    x = np.stack([SERIES[a](N, 1) for a in names] + [_noise(N, 1)] * len(names))
    y = np.stack([_noise(N, 2)] * len(names) + [SERIES[a](N, 2) for a in names])
    history = None
    if windows:
        past = np.stack([np.stack([SERIES[a](N, 10 + k) for a in [*names, *names]]) for k in range(windows)], axis=1)
        history = np.stack(
            [past, np.stack([np.stack([_noise(N, 50 + k)] * len(x)) for k in range(windows)], axis=1)], axis=2
        )
    stream = ta.open_stream([SPECS[spec].with_(name=f"m{k}") for k in range(len(x))], history=history, horizon=horizon)
    check(stream.result())
    for low in range(0, N, 10):
        stream.update(x[:, low : low + 10], y[:, low : low + 10])
        check(stream.result())
    check(stream.judge().result)


@pytest.mark.parametrize("spec", ["auto", "log", "linear", "either"])
@pytest.mark.parametrize("past", [5, PAST])
def test_before_after_streams_survive_every_series(spec: str, past: int) -> None:
    names = list(SERIES)
    x = np.stack([SERIES[a](past, 1) for a in names] + [_noise(past, 1)] * len(names))
    y = np.stack([_noise(N, 2)] * len(names) + [SERIES[a](N, 2) for a in names])
    stream = ta.open_stream(
        [SPECS[spec].with_(name=f"m{k}") for k in range(len(x))], design="before_after", before=x, horizon=N
    )
    for low in range(0, N, 20):
        stream.update(None, y[:, low : low + 20])
        check(stream.result())


@pytest.mark.parametrize("name", SERIES)
def test_analyze_survives_every_series_on_either_side(name: str) -> None:
    for arm, design in (("baseline", "concurrent"), ("canary", "concurrent"), ("canary", "before_after")):
        batch = ta.SeriesBatch([ta.MetricSpec("a"), ta.MetricSpec("b")])
        other = "canary" if arm == "baseline" else "baseline"
        batch.add(ta.Block(arm, 1e9, 60.0, np.stack([SERIES[name](N, 1), _noise(N, 2)])))
        batch.add(ta.Block(other, 1e9, 60.0, np.stack([_noise(N, 3), _noise(N, 4)])))
        batch.add(ta.Block("canary", 1e9 - 60.0 * PAST, 60.0, np.stack([_noise(PAST, 5)] * 2), phase="pre"))
        judged = ta.analyze(batch, design=design)
        check(judged.result)
        assert judged.design == design


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("spec", SPECS)
def test_short_arms_are_inconclusive_and_say_why(n: int, spec: str) -> None:
    x, y = np.stack([_noise(n, 1)] * 2), np.stack([_noise(n, 2)] * 2) * 10
    found = ta.compare(x, y, spec=SPECS[spec])
    check(found)
    if n < 5 and spec != "count":
        assert (found.verdict == ta.Verdict.INCONCLUSIVE).all()
        assert set(found.reason) <= {"no_data", "too_few_points"}
    check(ta.before_after(np.stack([_noise(PAST, 3)] * 2), y, spec=SPECS[spec]))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("constant", "constant"),
        ("all zeros", "constant"),
        ("all missing", "no_data"),
        ("one point", "too_few_points"),
        ("four points", "too_few_points"),
    ],
)
def test_series_that_tell_nothing_say_so(name: str, reason: str) -> None:
    x = SERIES[name](N, 1)[None]
    found = ta.compare(x, x.copy(), spec=SPECS["linear"])
    assert (found.verdict[0], found.reason[0]) == (ta.Verdict.INCONCLUSIVE, reason)


@pytest.mark.parametrize("name", ["one infinity", "minus infinity", "one absurd point", "all infinite"])
def test_a_canary_with_bad_values_never_passes(name: str) -> None:
    for spec in ("log", "linear", "either"):
        x, y = _noise(N, 1)[None], SERIES[name](N, 2)[None]
        found = ta.compare(x, y, spec=SPECS[spec].with_(margin=90.0))
        assert found.verdict[0] != ta.Verdict.PASS
        notes = {note.code: note.count for note in found.quality[0]}
        assert notes["bad_values"] == (N if name == "all infinite" else 1)


def test_negative_values_on_a_log_scale_never_pass_and_are_counted() -> None:
    y = _noise(N, 2)
    y[3:5] *= -1
    found = ta.compare(_noise(N, 1)[None], y[None], spec=SPECS["log"].with_(margin=5.0))
    assert (found.verdict[0], found.reason[0]) == (ta.Verdict.INCONCLUSIVE, "bad_values")
    assert {note.code: note.count for note in found.quality[0]}["bad_values"] == 2


def test_a_history_of_another_length_is_named() -> None:
    with pytest.raises(ValueError, match=r"^history: windows of 20 points for arms of 40"):
        ta.compare(np.ones((1, N)), np.ones((1, N)), spec=SPECS["log"], history=np.ones((1, 8, 2, 20)))


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("name", {"name": ""}),
        ("kind", {"kind": "guage"}),
        ("direction", {"direction": "up"}),
        ("scale", {"scale": "sqrt"}),
        ("criticality", {"criticality": "very"}),
        ("margin", {"margin": 0.0}),
        ("margin", {"margin": -1.0}),
        ("margin", {"margin": float("inf")}),
        ("margin", {"margin": float("nan")}),
        ("alpha", {"alpha": 0.0}),
        ("alpha", {"alpha": 0.5}),
        ("alpha", {"alpha": float("nan")}),
        ("alpha_pass", {"alpha_pass": 1.0}),
        ("weight", {"weight": -1.0}),
        ("weight", {"weight": float("nan")}),
        ("scale", {"kind": "ratio", "scale": "log"}),
        ("scale", {"kind": "saturation", "scale": "log"}),
    ],
)
def test_contradictory_specs_are_refused_by_name(field: str, arguments: dict) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        ta.MetricSpec(**{"name": "m", **arguments})


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("before", {"before": np.zeros(5)}),
        ("after", {"after": np.zeros((3, 5))}),
        ("after", {"after": [["x"] * 5] * 2}),
        ("step_seconds", {"step_seconds": None}),
        ("step_seconds", {"step_seconds": -60.0}),
        ("control_after", {"control_before": np.zeros((2, 50))}),
        ("control_before", {"control_before": np.zeros((2, 49)), "control_after": np.zeros((2, 5))}),
        ("control_after", {"control_before": np.zeros((2, 50)), "control_after": np.zeros((1, 5))}),
        ("exclude", {"exclude": np.zeros(49, dtype=bool)}),
        ("spec", {"spec": [SPECS["log"]]}),
        ("spec", {"spec": ta.MetricSpec("m", "histogram")}),
    ],
)
def test_before_after_names_what_does_not_fit(field: str, arguments: dict) -> None:
    given = {"before": np.ones((2, 50)), "after": np.ones((2, 5)), "spec": SPECS["log"], **arguments}
    with pytest.raises(ValueError, match=f"^{field}: "):
        ta.before_after(given.pop("before"), given.pop("after"), **given)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("specs", {"specs": []}),
        ("specs", {"specs": [ta.MetricSpec("m", "histogram")]}),
        ("design", {"design": "sideways"}),
        ("horizon", {"horizon": 0}),
        ("q", {"q": 0.7}),
        ("step_seconds", {"step_seconds": 0.0}),
        ("history", {"history": np.ones((2, 5, 2, 10))}),
        ("history", {"history": np.ones((1, 5, 2, 10)), "horizon": 20}),
        ("before", {"before": np.ones((1, 10))}),
        ("before", {"design": "before_after", "horizon": 10}),
        ("before", {"design": "before_after", "horizon": 10, "before": np.ones((2, 10))}),
        ("horizon", {"design": "before_after", "before": np.ones((1, 10))}),
        (
            "history",
            {"design": "before_after", "before": np.ones((1, 10)), "horizon": 5, "history": np.ones((1, 1, 2, 5))},
        ),
    ],
)
def test_open_stream_names_what_does_not_fit(field: str, arguments: dict) -> None:
    given = {"specs": [SPECS["log"]], **arguments}
    with pytest.raises(ValueError, match=f"^{field}: "):
        ta.open_stream(given.pop("specs"), **given)


@pytest.mark.parametrize(
    ("field", "blocks"),
    [
        ("canary_block", (np.ones((1, 3)), np.ones((2, 3)))),
        ("canary_block", (np.ones((1, 3)), np.ones(3))),
        ("baseline_block", (np.ones((1, 2)), np.ones((1, 3)))),
        ("baseline_block", (None, np.ones((1, 3)))),
    ],
)
def test_update_names_what_does_not_fit_and_takes_nothing(field: str, blocks: tuple) -> None:
    stream = ta.open_stream([SPECS["log"]], horizon=10)
    before = stream.state()
    with pytest.raises(ValueError, match=f"^{field}: "):
        stream.update(*blocks)
    assert stream.state() == before


@pytest.mark.parametrize("state", [b"", b"nonsense", b"PK\x03\x04broken", np.zeros(3).tobytes()])
def test_a_broken_state_is_refused(state: bytes) -> None:
    with pytest.raises(ValueError, match=r"^state: "):
        ta.restore_stream(state)


ODD_NUMBERS = {
    "complex": np.ones((2, N), dtype=complex),
    "datetimes": np.zeros((2, N), dtype="M8[s]"),
    "durations": np.ones((2, N), dtype="m8[s]"),
    "records": np.zeros((2, N), dtype=[("a", "f8")]),
    "words": [["a"] * N] * 2,
    "integers beyond floats": [[10**400] * N] * 2,
    "ragged rows": [[1.0], [1.0, 2.0]],
}


@pytest.mark.parametrize("how", ODD_NUMBERS)
def test_what_are_no_real_numbers_is_refused_by_name(how: str) -> None:
    x, odd = np.ones((2, N)), ODD_NUMBERS[how]
    stream = ta.open_stream([SPECS["log"]] * 2, horizon=N)
    for name, call in {
        "canary": lambda: ta.compare(x, odd, spec=SPECS["log"]),
        "history": lambda: ta.compare(x, x, spec=SPECS["log"], history=odd),
        "after": lambda: ta.before_after(x, odd, spec=SPECS["log"]),
        "values": lambda: ta.threshold(odd, spec=SPECS["log"], bound=1.0),
        "bound": lambda: ta.threshold(x, spec=SPECS["log"], bound=odd),
        "canary_block": lambda: stream.update(x, odd),
        "baseline": lambda: ta.compare_histograms(odd, x[..., None], [1.0], spec=SPECS["auto"]),
        "upper_bounds": lambda: ta.compare_histograms(x, x, odd, spec=SPECS["auto"]),
        "baseline ": lambda: ta.traffic_split(odd, x, 0.5),
        "log_e": lambda: ta.judge(ta.compare(x, x, spec=SPECS["log"]), log_e=odd),
    }.items():
        with pytest.raises(ValueError, match=f"^{name.strip()}: "):
            call()


@pytest.mark.parametrize("kind", [object, "f4", np.longdouble, list, np.asfortranarray])
def test_numbers_in_another_form_are_the_same_numbers(kind: object) -> None:
    x, y = (np.round(np.stack([_noise(N, k), _noise(N, k + 1)])) for k in (1, 3))
    y[1] *= 1.5
    other = kind(y) if callable(kind) and kind in (list, np.asfortranarray) else y.astype(kind)  # type: ignore[call-overload]
    plain, found = (ta.compare(x, values, spec=SPECS["log"]) for values in (y, other))
    assert found.p_value.tolist() == plain.p_value.tolist()


def test_masked_values_are_missing_whatever_lies_under_the_mask() -> None:
    x, y = _noise(N, 1)[None], _noise(N, 2)[None]
    masked = np.ma.array(np.where(np.arange(N) < 8, 1e9, y), mask=np.arange(N) < 8)
    found = ta.compare(x, masked, spec=SPECS["log"])
    assert found.p_value[0] == ta.compare(x, np.where(np.arange(N) < 8, np.nan, y), spec=SPECS["log"]).p_value[0]
    assert found.n_canary[0] == N - 8


@pytest.mark.parametrize("value", ["a", None, [1.0, 2.0], np.array([0.1, 0.2]), 1j, 10**400])
def test_arguments_that_are_no_number_are_named(value: object) -> None:
    x = np.ones((1, N))
    found = ta.compare(x, x, spec=SPECS["log"])
    for name, call in {
        "alpha": lambda: ta.MetricSpec("m", alpha=value),
        "weight": lambda: ta.MetricSpec("m", weight=value),
        "margin": lambda: ta.MetricSpec("m", margin="wide" if value is None else value),
        "unit": lambda: ta.MetricSpec("m", unit=3 if isinstance(value, str) else value),
        "group": lambda: ta.MetricSpec("m", group=3 if isinstance(value, str) else value),
        "step_seconds": lambda: ta.before_after(x, x, spec=SPECS["log"], step_seconds=value),
        "q": lambda: ta.judge(found, q=value),
        "expected_share": lambda: ta.traffic_split(x, x, value),
        "horizon": lambda: ta.open_stream([SPECS["log"]], horizon=2.5 if value is None else value),
        "horizon ": lambda: ta.lint(SPECS["log"], horizon=value),
    }.items():
        with pytest.raises(ValueError, match=f"^{name.strip()}: "):
            call()


@pytest.mark.parametrize("specs", [None, 5, "m", ["m"], [None]])
def test_what_is_no_spec_is_named(specs: object) -> None:
    with pytest.raises(ValueError, match=r"^specs(\[0\])?: "):
        ta.open_stream(specs)
    with pytest.raises(ValueError, match=r"^spec(\[0\])?: "):
        ta.compare(np.ones((1, N)), np.ones((1, N)), spec=specs)


def test_a_horizon_of_numpy_is_kept_in_the_state() -> None:
    stream = ta.open_stream([SPECS["log"]], horizon=np.int64(20))
    assert ta.restore_stream(stream.state()).horizon == 20


@pytest.mark.parametrize("bound", [1e308, np.inf, np.nan])
def test_a_threshold_without_bound_is_named(bound: float) -> None:
    with pytest.raises(ValueError, match=r"^bound: "):
        ta.threshold(_noise(N, 1)[None], spec=SPECS["log"], bound=bound)


def test_bins_that_overflow_are_named() -> None:
    counts, spec = np.ones((1, N, 4)), ta.MetricSpec("h", "histogram", "up_is_worse")
    with pytest.raises(ValueError, match=r"^baseline: holds a count beyond"):
        ta.compare_histograms(counts * 1e200, counts, [0.1, 1.0, 10.0], spec=spec)
    with pytest.raises(ValueError, match=r"^upper_bounds: "):
        ta.compare_histograms(counts, counts, [1e-300, 1.0, 1e300], spec=spec)


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("q", {"q": 0.0}),
        ("q", {"q": float("nan")}),
        ("groups", {"groups": ["a"]}),
        ("critical", {"critical": [True]}),
    ],
)
def test_judge_names_what_does_not_fit(field: str, arguments: dict) -> None:
    found = ta.compare(np.ones((2, 9)), np.ones((2, 9)), spec=SPECS["log"])
    with pytest.raises(ValueError, match=f"^{field}: "):
        ta.judge(found, **arguments)
