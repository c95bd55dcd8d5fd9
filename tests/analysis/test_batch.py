"""Blocks and tables in, one clock out: duplicates, overlaps, disorder, skew, gaps, and what is refused."""

from __future__ import annotations

import io
import math
import pickle
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import tidegate_analysis as ta
from numpy.typing import NDArray
from tidegate_analysis.frames import common_step

Floats = NDArray[np.float64]
A, B = ta.MetricSpec("a"), ta.MetricSpec("b")
T0 = 1_777_639_020.0  # 2026-05-01 12:37:00 UTC


def _batch() -> ta.SeriesBatch:
    return ta.SeriesBatch([A, B])


def _rows(*columns: float) -> Floats:
    return np.array([columns, [10 * v for v in columns]], dtype=np.float64)


def _notes(batch: ta.SeriesBatch) -> dict[str, int]:
    return {note.code: note.count for note in batch.notes}


def _block(start: float, values: Floats, arm: str = "canary", **more: object) -> ta.Block:
    return ta.Block(arm, start, 60.0, values, **more)


def test_blocks_join_on_one_clock() -> None:
    batch = _batch()
    batch.add(_block(T0, _rows(1, 2)))
    batch.add(_block(T0 + 120, _rows(3)))
    assert batch.span("post") == (0, 3)
    values, exposure = batch.window("canary", "post", 0, 3)
    np.testing.assert_array_equal(values, _rows(1, 2, 3))
    assert exposure is None
    assert batch.time_of(2) == T0 + 120
    assert _notes(batch) == {}


def test_blocks_before_the_first_one_lie_at_negative_columns() -> None:
    batch = _batch()
    batch.add(_block(T0, _rows(3)))
    batch.add(_block(T0 - 120, _rows(1, 2)))
    assert batch.span("post") == (-2, 1)
    np.testing.assert_array_equal(batch.window("canary", "post", -2, 1)[0], _rows(1, 2, 3))
    assert _notes(batch) == {"out_of_order": 1}


def test_gaps_stay_missing_and_windows_may_reach_beyond() -> None:
    batch = _batch()
    batch.add(_block(T0, _rows(1)))
    batch.add(_block(T0 + 180, _rows(4)))
    values, _ = batch.window("canary", "post", -1, 6)
    assert np.isnan(values[0]).tolist() == [True, False, True, True, False, True, True]


def test_equal_repeats_are_counted_and_change_nothing() -> None:
    batch = _batch()
    for _ in range(3):
        batch.add(_block(T0, _rows(1, 2)))
    np.testing.assert_array_equal(batch.window("canary", "post", 0, 2)[0], _rows(1, 2))
    assert _notes(batch) == {"repeated": 8}


def test_of_two_values_the_later_counts() -> None:
    batch = _batch()
    batch.add(_block(T0, _rows(1, 2)))
    batch.add(_block(T0 + 60, _rows(7, 8)))
    np.testing.assert_array_equal(batch.window("canary", "post", 0, 3)[0], _rows(1, 7, 8))
    assert _notes(batch) == {"duplicates": 2}


def test_a_missing_point_does_not_erase_a_known_one() -> None:
    batch = _batch()
    batch.add(_block(T0, _rows(1, math.nan)))
    batch.add(_block(T0, _rows(math.nan, 2)))
    np.testing.assert_array_equal(batch.window("canary", "post", 0, 2)[0], _rows(1, 2))


def test_blocks_may_carry_some_metrics_in_any_order() -> None:
    batch = _batch()
    batch.add(_block(T0, np.array([[5.0], [6.0]]), metrics=("b", "a")))
    batch.add(_block(T0 + 60, np.array([[7.0]]), metrics=("b",)))
    values, _ = batch.window("canary", "post", 0, 2)
    np.testing.assert_array_equal(values, [[6.0, math.nan], [5.0, 7.0]])


@pytest.mark.parametrize("skew", [1.0, 5.0, 29.0, -5.0, -29.0])
def test_skewed_clocks_are_moved_to_the_nearest_scrape_and_told(skew: float) -> None:
    batch = _batch()
    batch.add(_block(T0, _rows(1, 2, 3), "baseline"))
    batch.add(_block(T0 + skew, _rows(4, 5, 6)))
    np.testing.assert_array_equal(batch.window("canary", "post", 0, 3)[0], _rows(4, 5, 6))
    assert _notes(batch) == {"clock_skew": 1}
    assert f"{abs(skew):.3g} s" in batch.notes[0].message


def test_the_largest_skew_is_told() -> None:
    batch = _batch()
    batch.add(_block(T0, _rows(1)))
    for k, skew in enumerate((3.0, 20.0, 7.0), 1):
        batch.add(_block(T0 + 60 * k + skew, _rows(1)))
    assert "20 s" in batch.notes[0].message
    assert batch.notes[0].count == 3


def test_rounding_of_the_clock_is_no_skew() -> None:
    batch = _batch()
    batch.add(ta.Block("canary", T0, 0.1, _rows(1)))
    batch.add(ta.Block("canary", T0 + 0.1 * 1001, 0.1, _rows(2)))
    assert batch.span("post") == (0, 1002)
    assert _notes(batch) == {}


def test_instances_lie_side_by_side_sorted() -> None:
    batch = _batch()
    for name, value in (("pod-b", 2.0), ("pod-a", 1.0)):
        batch.add(_block(T0, _rows(value, value), instance=name))
    assert batch.instances("canary", "post") == ("pod-a", "pod-b")
    values, _ = batch.window("canary", "post", 0, 2)
    assert values.shape == (2, 2, 2)
    np.testing.assert_array_equal(values[0], [[1.0, 1.0], [2.0, 2.0]])


def test_exposures_travel_with_their_points() -> None:
    batch = ta.SeriesBatch([ta.MetricSpec("errors", "ratio"), B])
    batch.add(_block(T0, np.ones((2, 2)), exposure=np.full((2, 2), 50.0)))
    batch.add(_block(T0 + 120, np.ones((2, 1))))
    _, exposure = batch.window("canary", "post", 0, 3)
    assert exposure is not None
    np.testing.assert_array_equal(exposure[0], [50.0, 50.0, math.nan])


def test_bins_of_instances_add_up_and_repeats_do_not() -> None:
    batch = ta.SeriesBatch([ta.MetricSpec("latency", "histogram")])
    bounds = np.array([0.1, 0.5])
    for instance in ("a", "b", "a"):
        batch.add(
            _block(
                T0, np.zeros((0, 0)), instance=instance, histograms={"latency": (bounds, np.array([[1.0, 2.0, 3.0]]))}
            )
        )
    np.testing.assert_array_equal(
        batch.histogram_window("latency", "canary", "post", 0, 2), [[2.0, 4.0, 6.0], [math.nan] * 3]
    )
    assert batch.bounds("latency") is not None


def test_a_batch_survives_a_trip_between_processes() -> None:
    batch = _batch()
    batch.add(_block(T0, _rows(1, 2)))
    again = pickle.loads(pickle.dumps(batch))
    again.add(_block(T0 + 120, _rows(3)))
    np.testing.assert_array_equal(again.window("canary", "post", 0, 3)[0], _rows(1, 2, 3))


HISTOGRAM = {"h": (np.array([1.0, 2.0]), np.ones((1, 3)))}
REFUSED = {
    "no such arm": ("arm", {"arm": "control"}),
    "no such phase": ("phase", {"phase": "during"}),
    "step of zero": ("step", {"step": 0.0}),
    "negative step": ("step", {"step": -60.0}),
    "step not a number": ("step", {"step": math.nan}),
    "another step": ("step", {"step": 30.0}),
    "time not finite": ("start_time", {"start": math.inf}),
    "time in milliseconds": ("start_time", {"start": T0 * 1000}),
    "time zero": ("start_time", {"start": 0.0}),
    "time beyond all clocks": ("start_time", {"start": 1e300}),
    "text": ("values", {"values": [["x"], ["y"]]}),
    "one dimension": ("values", {"values": np.zeros(3)}),
    "three dimensions": ("values", {"values": np.zeros((2, 1, 1))}),
    "too few rows": ("values", {"values": np.zeros((1, 3))}),
    "no columns": ("columns", {"values": np.zeros((2, 0))}),
    "unknown metric": (r"metrics\[1\]", {"metrics": ("a", "c")}),
    "metric twice": ("metrics", {"metrics": ("a", "a")}),
    "names for other rows": ("metrics", {"metrics": ("a",)}),
    "exposure of another shape": ("exposure", {"exposure": np.zeros((2, 2))}),
    "exposure of text": ("exposure", {"exposure": [["x"], ["y"]]}),
    "bins of an unknown metric": (r"histograms\[0\].metric", {"histograms": {"z": HISTOGRAM["h"]}}),
    "bins of a gauge": (r"histograms\[0\].metric", {"histograms": {"a": HISTOGRAM["h"]}}),
    "bounds not ascending": (
        r"histograms\[0\].upper_bounds",
        {"histograms": {"h": (np.array([2.0, 1.0]), np.ones((1, 3)))}},
    ),
    "bound missing": (r"histograms\[0\].upper_bounds", {"histograms": {"h": (np.array([math.nan]), np.ones((1, 2)))}}),
    "other bounds": (r"histograms\[0\].upper_bounds", {"histograms": {"h": (np.array([1.0, 3.0]), np.ones((1, 3)))}}),
    "bins missing": (r"histograms\[0\].counts", {"histograms": {"h": (np.array([1.0, 2.0]), np.ones((1, 2)))}}),
    "negative bins": (r"histograms\[0\].counts", {"histograms": {"h": (np.array([1.0, 2.0]), -np.ones((1, 3)))}}),
    "bins of text": (r"histograms\[0\]", {"histograms": {"h": (["x"], np.ones((1, 2)))}}),
    "more bins than columns": ("histograms", {"histograms": {"h": (np.array([1.0, 2.0]), np.ones((2, 3)))}}),
    "values of a histogram": (r"metrics\[0\]", {"metrics": ("h", "a")}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_block_names_its_field_and_leaves_no_trace(name: str) -> None:
    field, changes = REFUSED[name]
    batch = ta.SeriesBatch([A, B, ta.MetricSpec("h", "histogram")])
    batch.add(_block(T0, np.ones((2, 1)), histograms=HISTOGRAM))
    before = pickle.dumps(batch)
    given = {"arm": "canary", "start": T0 + 60, "step": 60.0, "values": np.ones((2, 1)), **changes}
    with pytest.raises(ta.BlockError, match=f"^{field}: ") as caught:
        batch.add(ta.Block(**given))
    assert pickle.dumps(batch) == before
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.field, again.message) == (caught.value.field, caught.value.message)
    assert isinstance(caught.value, ValueError)


def test_a_first_block_that_is_refused_does_not_set_the_clock() -> None:
    batch = ta.SeriesBatch([A, ta.MetricSpec("h", "histogram")])
    with pytest.raises(ta.BlockError):
        batch.add(ta.Block("canary", T0, 7.0, np.ones((3, 1)), histograms=HISTOGRAM))
    with pytest.raises(ta.BlockError, match=r"^start_time: "):
        batch.add(ta.Block("canary", math.nan, 7.0, np.ones((1, 1))))
    assert math.isnan(batch.step)
    assert batch.bounds("h") is None
    assert batch.span("post") is None


def test_points_too_many_metrics_apart_are_refused() -> None:
    batch = ta.SeriesBatch([ta.MetricSpec(f"m{k}") for k in range(1000)])
    batch.add(ta.Block("canary", T0, 1.0, np.ones((1000, 1)), phase="pre"))
    # Two days of seconds of 1,000 metrics: more than a machine should be asked to hold.
    with pytest.raises(ta.BlockError, match=r"^start_time: the points would span"):
        batch.add(ta.Block("canary", T0 + 2 * 86400, 1.0, np.ones((1000, 1))))


@pytest.mark.parametrize(("field", "specs"), [("metrics", []), (r"metrics\[1\].name", [A, A])])
def test_a_batch_needs_metrics_with_names_of_their_own(field: str, specs: list[ta.MetricSpec]) -> None:
    with pytest.raises(ta.BlockError, match=f"^{field}: "):
        ta.SeriesBatch(specs)


# Tables.

CSV = """timestamp,metric,arm,value,phase,instance
2026-05-01T12:39:00Z,a,canary,3,post,
2026-05-01T12:37:00Z,a,canary,1,post,
2026-05-01T12:38:00+00:00,a,canary,2,post,
2026-05-01T14:37:00+02:00,a,baseline,10,post,
2026-05-01T12:38:00Z,a,baseline,20,post,
2026-05-01T12:38:00Z,a,baseline,21,post,
2026-05-01T12:39:00Z,b,Baseline,,post,
2026-05-01T12:36:00Z,b,baseline,5,pre,
"""


def test_a_table_may_be_unsorted_with_zones_repeats_and_blanks() -> None:
    batch = _batch()
    batch.add_frame(pd.read_csv(io.StringIO(CSV)))
    assert batch.step == 60.0
    low, high = batch.span("post") or (0, 0)
    assert batch.time_of(low) == T0
    np.testing.assert_array_equal(batch.window("canary", "post", low, high)[0][0], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(batch.window("baseline", "post", low, high)[0][0], [10.0, 21.0, math.nan])
    np.testing.assert_array_equal(batch.window("baseline", "pre", low - 1, low)[0], [[math.nan], [5.0]])
    assert _notes(batch) == {"duplicates": 1, "out_of_order": 1} or _notes(batch) == {"duplicates": 1}


def test_rows_in_any_order_give_the_same_batch() -> None:
    frame = pd.read_csv(io.StringIO(CSV)).drop_duplicates(["timestamp", "metric", "arm"])
    first, second = _batch(), _batch()
    first.add_frame(frame)
    second.add_frame(frame.sample(frac=1.0, random_state=3))
    for arm in ("baseline", "canary"):
        for phase in ("pre", "post"):
            np.testing.assert_array_equal(first.window(arm, phase, -2, 5)[0], second.window(arm, phase, -2, 5)[0])


@pytest.mark.parametrize("kind", ["text", "numbers", "datetimes", "naive datetimes"])
def test_times_may_be_text_numbers_or_datetimes(kind: str) -> None:
    seconds = T0 + 60.0 * np.arange(3)
    times: object = {
        "text": pd.Series(pd.to_datetime(seconds, unit="s", utc=True)).map(lambda t: t.isoformat()),
        "numbers": seconds,
        "datetimes": pd.to_datetime(seconds, unit="s", utc=True),
        "naive datetimes": pd.to_datetime(seconds, unit="s"),
    }[kind]
    batch = ta.SeriesBatch([A])
    batch.add_frame(pd.DataFrame({"timestamp": times, "metric": "a", "arm": "canary", "value": [1.0, 2.0, 3.0]}))
    assert batch.time_of(0) == T0
    np.testing.assert_array_equal(batch.window("canary", "post", 0, 3)[0], [[1.0, 2.0, 3.0]])


def test_points_before_the_deployment_are_its_past() -> None:
    seconds = T0 + 60.0 * np.arange(4)
    frame = pd.DataFrame({"timestamp": seconds, "metric": "a", "arm": "canary", "value": [1.0, 2.0, 3.0, 4.0]})
    batch = ta.SeriesBatch([A])
    batch.add_frame(frame, deployed_at=T0 + 100)
    low, high = batch.span("pre") or (0, 0)
    np.testing.assert_array_equal(batch.window("canary", "pre", low, high)[0], [[1.0, 2.0]])
    low, high = batch.span("post") or (0, 0)
    np.testing.assert_array_equal(batch.window("canary", "post", low, high)[0], [[3.0, 4.0]])


def test_totals_become_exposures() -> None:
    frame = pd.DataFrame(
        {"timestamp": [T0, T0 + 60], "metric": "a", "arm": "canary", "value": [1, 2], "total": [100, math.nan]}
    )
    batch = ta.SeriesBatch([A])
    batch.add_frame(frame)
    _, exposure = batch.window("canary", "post", 0, 2)
    np.testing.assert_array_equal(exposure, [[100.0, math.nan]])


def _frame(**changes: object) -> pd.DataFrame:
    return pd.DataFrame({"timestamp": [T0, T0 + 60], "metric": "a", "arm": "canary", "value": [1.0, 2.0], **changes})


@pytest.mark.parametrize(
    ("field", "frame"),
    [
        ("timestamp", _frame().drop(columns="timestamp")),
        ("arm", _frame().drop(columns="arm")),
        ("timestamp", _frame().iloc[:0]),
        ("timestamp", _frame(timestamp=["noon", "later"])),
        ("timestamp", _frame(timestamp=[T0, math.nan])),
        ("timestamp", _frame(timestamp=[T0, math.inf])),
        ("metric", _frame(metric="z")),
        ("arm", _frame(arm=["canary", "control"])),
        ("phase", _frame(phase="during")),
        ("value", _frame(value=["1", "fast"])),
        ("total", _frame(total=["1", "many"])),
    ],
)
def test_a_table_that_cannot_be_read_names_the_column(field: str, frame: pd.DataFrame) -> None:
    batch = ta.SeriesBatch([A])
    with pytest.raises(ta.BlockError, match=f"^{field}: "):
        batch.add_frame(frame)
    assert batch.span("post") is None


def test_a_bad_cell_is_named_by_its_row() -> None:
    with pytest.raises(ta.BlockError, match="row 1 has 'fast'"):
        ta.SeriesBatch([A]).add_frame(_frame(value=["1", "fast"]))


@pytest.mark.parametrize("step", [1.0, 15.0, 60.0, 300.0])
def test_the_step_is_found_under_jitter_gaps_and_between_two_arms(step: float) -> None:
    rng = np.random.default_rng(4)
    grid = step * np.arange(200)
    one = grid + rng.uniform(-0.02, 0.02, 200) * step
    two = one + 0.4 * step
    gappy = np.delete(one, rng.integers(0, 200, 40))
    assert common_step(gappy) == pytest.approx(step, rel=0.01)
    series = np.concatenate([np.zeros(len(gappy), dtype=np.int64), np.ones(200, dtype=np.int64)])
    assert common_step(np.concatenate([gappy, two]), series) == pytest.approx(step, rel=0.01)


def test_a_single_time_has_a_step_of_a_minute() -> None:
    assert common_step(np.array([T0, T0])) == 60.0


def test_two_arms_scraped_apart_from_each_other_join() -> None:
    seconds = 60.0 * np.arange(30)
    rng = np.random.default_rng(6)
    frame = pd.concat(
        pd.DataFrame({"timestamp": T0 + skew + seconds, "metric": "a", "arm": arm, "value": rng.lognormal(3, 0.05, 30)})
        for arm, skew in (("baseline", 0.0), ("canary", 17.0))
    )
    batch = ta.SeriesBatch([A])
    batch.add_frame(frame)
    assert batch.step == 60.0
    judged = ta.analyze(batch)
    assert judged.result.n_baseline[0] == judged.result.n_canary[0] == 30
    assert judged.verdict == ta.Verdict.PASS


# From blocks to a verdict.


def _noise(n: int, seed: int) -> Floats:
    return 100.0 * np.exp(np.random.default_rng(seed).normal(size=(2, n)) * 0.05)


def test_analyze_is_compare_on_the_assembled_arrays() -> None:
    x, y = _noise(40, 1), _noise(40, 2)
    y[1] *= 1.4
    batch = _batch()
    batch.add(_block(T0, x, "baseline"))
    for low in range(30, -1, -10):
        batch.add(_block(T0 + 60 * low, y[:, low : low + 10]))
    judged = ta.analyze(batch)
    expected = ta.judge(ta.compare(x, y, spec=[A, B], step_seconds=60.0))
    assert judged.verdicts.tolist() == expected.verdicts.tolist() == [ta.Verdict.PASS, ta.Verdict.FAIL]
    np.testing.assert_array_equal(judged.result.p_value, expected.result.p_value)
    assert judged.design == "concurrent"
    assert judged.clock == (T0, 60.0)
    assert "since 12:37 UTC" in judged.explain(1)
    assert {note.code for note in judged.result.quality[0]} == {"out_of_order"}


def test_analyze_leaves_out_the_warm_up() -> None:
    x, y = _noise(40, 1), _noise(40, 2)
    y[:, :5] *= 10.0
    batch = _batch()
    batch.add(_block(T0, x, "baseline"))
    batch.add(_block(T0, y))
    cold = ta.analyze(batch, warm_up=300.0)
    assert cold.verdict == ta.Verdict.PASS
    assert cold.clock == (T0 + 300.0, 60.0)
    later = ta.analyze(batch, deployed_at=T0 + 60.0, warm_up=240.0)
    np.testing.assert_array_equal(later.result.p_value, cold.result.p_value)


def test_analyze_cuts_the_past_of_both_arms_into_windows() -> None:
    batch = _batch()
    for arm, seed in (("baseline", 1), ("canary", 2)):
        batch.add(_block(T0, _noise(20, seed), arm))
        batch.add(_block(T0 - 400 * 60, _noise(400, seed + 10), arm, phase="pre"))
    judged = ta.analyze(batch)
    assert judged.result.history_windows.tolist() == [20, 20]
    assert set(judged.result.method) == {"paired-placebo.v1"}


def test_analyze_chooses_before_after_when_there_is_no_baseline() -> None:
    batch = _batch()
    batch.add(_block(T0, _noise(20, 1)))
    batch.add(_block(T0 - 900 * 60, _noise(900, 2), phase="pre"))
    judged = ta.analyze(batch)
    assert judged.design == "before_after"
    expected = ta.before_after(_noise(900, 2), _noise(20, 1), spec=[A, B], step_seconds=60.0)
    np.testing.assert_array_equal(judged.result.p_value, expected.p_value)
    both = _batch()
    for arm in ("baseline", "canary"):
        both.add(_block(T0, _noise(20, 1), arm))
        both.add(_block(T0 - 900 * 60, _noise(900, 2), arm, phase="pre"))
    did = ta.analyze(both, design="difference_in_differences")
    assert all(m.startswith("difference-in-differences") for m in did.result.method)


def test_analyze_of_an_empty_batch_says_there_is_nothing() -> None:
    judged = ta.analyze(_batch())
    assert judged.verdict == ta.Verdict.INCONCLUSIVE
    assert set(judged.reasons) == {"no_data"}


@pytest.mark.parametrize(
    ("field", "arguments"), [("warm_up", {"warm_up": -1.0}), ("warm_up", {"warm_up": math.nan}), ("q", {"q": 0.9})]
)
def test_analyze_names_what_does_not_fit(field: str, arguments: dict) -> None:
    batch = _batch()
    batch.add(_block(T0, _noise(20, 1)))
    with pytest.raises(ValueError, match=f"^{field}: "):
        ta.analyze(batch, **arguments)


def test_room_grows_by_doubling_and_what_is_new_is_missing() -> None:
    batch = _batch()
    width = len(batch.specs)
    held = []
    for k in range(200):
        batch.add(_block(T0 + 60 * k, np.full((width, 1), float(k))))
        held.append(batch._tracks["canary", "post", ""].values.base)
    moves = sum(a is not b for a, b in pairwise(held))
    assert moves <= 10, "points were copied again and again"
    batch.add(_block(T0 + 60 * 205, np.full((width, 1), 205.0)))
    values, _ = batch.window("canary", "post", 0, 206)
    np.testing.assert_array_equal(values[0, :200], np.arange(200.0))
    assert np.isnan(values[:, 200:205]).all()
    other = pickle.loads(pickle.dumps(batch))
    np.testing.assert_array_equal(other.window("canary", "post", 0, 206)[0], values)
