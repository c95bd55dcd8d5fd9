"""What must hold of every stream: the sizes of the blocks, and being saved and restored, change nothing."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import tidegate_analysis as ta
from statistics_methods import CASES, Floats, assert_same, long_past, past_windows

POINTS = 24


def _open(kind: str, x: Floats) -> ta.Stream:
    specs = [ta.MetricSpec(name=f"m{k}", kind="gauge", direction="up_is_worse", margin=0.1) for k in range(len(x))]
    past = past_windows(len(x), POINTS)
    if kind == "history, horizon":
        return ta.open_stream(specs, history=past, horizon=POINTS)
    if kind == "history":
        return ta.open_stream(specs, history=past)
    if kind == "horizon":
        return ta.open_stream(specs, horizon=POINTS)
    if kind == "nothing":
        return ta.open_stream(specs)
    if kind == "counts":
        counted = [spec.with_(kind="count") for spec in specs]
        return ta.open_stream(counted, history=np.round(past), horizon=POINTS)
    return ta.open_stream(specs, design="before_after", before=long_past(x, 8), horizon=POINTS)


KINDS = ("history, horizon", "history", "horizon", "nothing", "counts", "before/after")
DATA = ("usual", "worse", "gaps in both", "ties", "mostly zeros", "canary missing")


def _feed(stream: ta.Stream, kind: str, x: Floats, y: Floats, low: int, high: int) -> None:
    if kind == "counts":
        x, y = np.round(np.abs(x)), np.round(np.abs(y))
    stream.update(None if kind == "before/after" else x[:, low:high], y[:, low:high])


@pytest.mark.parametrize("case", DATA)
@pytest.mark.parametrize("kind", KINDS)
def test_the_sizes_of_the_blocks_do_not_matter(kind: str, case: str) -> None:
    x, y = CASES[case]
    results, states = [], []
    for size in (1, 5, POINTS):
        stream = _open(kind, x)
        for start in range(0, POINTS, size):
            _feed(stream, kind, x, y, start, start + size)
        results.append(stream.result())
        states.append(stream.state())
    assert_same(results[0], results[1], exact=True)
    assert_same(results[0], results[2], exact=True)
    assert states[0] == states[1] == states[2]


@pytest.mark.parametrize("case", DATA)
@pytest.mark.parametrize("kind", KINDS)
def test_saved_and_restored_it_goes_on_as_if_nothing_had_happened(kind: str, case: str) -> None:
    x, y = CASES[case]
    whole = _open(kind, x)
    broken = _open(kind, x)
    for start in range(0, POINTS, 6):
        _feed(whole, kind, x, y, start, start + 6)
        _feed(broken, kind, x, y, start, start + 6)
        broken = ta.restore_stream(broken.state())
        assert_same(whole.result(), broken.result(), exact=True)
        assert whole.state() == broken.state()
    copied = pickle.loads(pickle.dumps(whole))
    assert_same(copied.result(), whole.result(), exact=True)


@pytest.mark.parametrize("kind", KINDS)
def test_looking_changes_nothing(kind: str) -> None:
    x, y = CASES["worse"]
    looked, not_looked = _open(kind, x), _open(kind, x)
    for start in range(0, POINTS, 4):
        for stream in (looked, not_looked):
            _feed(stream, kind, x, y, start, start + 4)
        looked.result()
    assert_same(looked.result(), not_looked.result(), exact=True)


@pytest.mark.parametrize("kind", KINDS)
def test_fail_stays_fail_when_the_fault_heals(kind: str) -> None:
    rng = np.random.default_rng(4)
    x, y = 100.0 * np.exp(0.05 * rng.standard_normal((2, 3, POINTS)))
    y[:, :18] *= 4.0
    stream = _open(kind, x)
    failed = False
    for t in range(POINTS):
        _feed(stream, kind, x, y, t, t + 1)
        verdict = stream.judge().verdict
        assert not (failed and verdict != ta.Verdict.FAIL)
        failed |= verdict == ta.Verdict.FAIL
    assert failed


WRONG: tuple[tuple[Callable[[ta.Stream], object], str], ...] = (
    (lambda s: s.update(np.zeros((2, 3)), np.zeros((3, 3))), "baseline_block"),
    (lambda s: s.update(np.zeros((3, 2)), np.zeros((3, 3))), "canary_block|baseline_block"),
    (lambda s: s.restore(b"nothing"), "state"),
)


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_blocks_are_named(call: Callable[[ta.Stream], object], message: str) -> None:
    stream = _open("nothing", CASES["usual"][0][:3])
    with pytest.raises(ValueError, match=message):
        call(stream)
