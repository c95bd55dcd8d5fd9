"""An evaluation's own time follows the store's clock, not its jumps."""

from __future__ import annotations

import pytest
from tidegate_server.engine import ClockWatch

S = 1_000_000


class Hands:
    """A store's clock and a monotonic one that a test moves."""

    def __init__(self) -> None:
        self.monotonic = 100.0
        self.store_us = 1_700_000_000 * S
        self.watch = ClockWatch(monotonic=lambda: self.monotonic)
        self.read()

    def read(self, slow: float = 0.0, early: bool = True) -> int:
        """Reads the store's clock with an answer that takes `slow` seconds; `early`: read at its beginning."""
        asked_at = self.monotonic
        if early:
            now = self.store_us
            self.run(slow)
        else:
            self.run(slow)
            now = self.store_us
        self.watch.observe(now, asked_at)
        return now

    def run(self, seconds: float) -> None:
        self.monotonic += seconds
        self.store_us += round(seconds * S)


def test_without_jumps_own_time_is_the_store_time():
    hands = Hands()
    tick = hands.read()
    hands.run(30)
    now = hands.read()
    assert hands.watch.own_time(now, tick, 0) == now
    assert hands.watch.own_time(now, tick, 7 * S) == now - 7 * S
    assert hands.watch.own_time(now, None, 0) == now


@pytest.mark.parametrize("jump", [6.0, 3600.0])
def test_what_the_clock_skips_does_not_pass(jump):
    hands = Hands()
    tick = hands.read()
    hands.run(10)
    hands.store_us += round(jump * S)
    hands.run(10)
    now = hands.read()
    assert hands.watch.jumps_seen == 1
    assert hands.watch.own_time(now, tick, 0) == tick + 20 * S
    behind = now - hands.watch.own_time(now, tick, 0)
    hands.run(5)
    later = hands.read()
    assert hands.watch.own_time(later, now, behind) == tick + 25 * S, "a jump is taken off once"


def test_when_the_clock_goes_back_own_time_does_not():
    hands = Hands()
    tick = hands.read()
    hands.run(10)
    hands.store_us -= 3600 * S
    now = hands.read()
    own = hands.watch.own_time(now, tick, 0)
    assert own == tick
    hands.run(5)
    later = hands.read()
    assert hands.watch.own_time(later, now, now - own) == tick + 5 * S
    assert hands.watch.jumps_seen == 1


def test_what_was_skipped_before_the_clock_went_back_may_be_lived_through():
    hands = Hands()
    hands.run(3600)
    hands.store_us += 600 * S
    hands.read()
    hands.run(1)
    hands.store_us -= 4000 * S
    tick = hands.read()
    assert hands.watch.jumps_seen == 2
    for passed in (5, 10):
        hands.run(5)
        assert hands.watch.own_time(hands.read(), tick, 0) == tick + passed * S
    hands.run(7200)
    assert hands.watch.own_time(hands.read(), tick, 0) == tick + 7210 * S


def test_two_jumps_add_up_and_cancel_nothing():
    hands = Hands()
    tick = hands.read()
    for _ in range(2):
        hands.store_us += 60 * S
        hands.run(1)
        now = hands.read()
    assert hands.watch.own_time(now, tick, 0) == tick + 2 * S


@pytest.mark.parametrize("early", [True, False])
def test_a_slow_answer_is_no_jump(early):
    hands = Hands()
    for slow in (0.0, 20.0, 0.0, 20.0, 0.1):
        hands.read(slow, early=early)
        hands.run(1)
    assert hands.watch.jumps_seen == 0


def test_a_small_step_is_followed():
    hands = Hands()
    tick = hands.read()
    hands.store_us += 2 * S
    hands.run(1)
    now = hands.read()
    assert hands.watch.jumps_seen == 0
    assert hands.watch.own_time(now, tick, 0) == now


def test_time_in_which_nobody_looked_does_not_pass():
    hands = Hands()
    tick = hands.read()
    hands.run(100)
    now = hands.read()
    assert hands.watch.own_time(now, tick, 0, 70 * S) == tick + 30 * S
    assert hands.watch.own_time(now, None, 0, 70 * S) == now - 70 * S


def test_a_look_that_is_late_because_the_clock_jumped_is_counted_once():
    hands = Hands()
    tick = hands.read()
    hands.run(20)
    hands.store_us += 3600 * S
    now = hands.read()
    assert hands.watch.own_time(now, tick, 0, 3590 * S) == tick + 20 * S
