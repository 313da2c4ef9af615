"""Who gets the signals that end a run, and how work is asked to stop."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from types import FrameType

import pytest

from siftline.system import signals as interrupts
from siftline.system.signals import GRACE_SECONDS, Stop, signals_held, stop_on_signal

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Clock:
    """A time that passes when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(interrupts, "time", clock)
    return clock


@pytest.fixture
def handled() -> Iterator[list[int]]:
    """The signals that got to the handlers that were there before."""
    got: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        got.append(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    yield got
    for number, handler in before.items():
        signal.signal(number, handler)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def test_nobody_asked_at_first() -> None:
    stop = Stop()
    assert (stop.requested, stop.overdue, stop.signal) == (False, False, None)


def test_what_runs_has_a_grace_period(clock: Clock) -> None:
    stop = Stop(grace_seconds=5)
    clock.now += 1_000
    assert not stop.overdue
    stop.request(signal.SIGTERM)
    assert (stop.requested, stop.overdue, stop.signal) == (True, False, signal.SIGTERM)
    clock.now += 4.9
    assert not stop.overdue
    clock.now += 0.1
    assert stop.overdue
    assert stop.requested


def test_a_stop_may_be_asked_for_otherwise_and_once_is_enough(clock: Clock) -> None:
    answers = iter([False, True])
    stop = Stop(grace_seconds=5, asked=lambda: next(answers))
    assert not stop.requested
    assert (stop.requested, stop.signal) == (True, None)
    clock.now += 5
    assert (stop.requested, stop.overdue) == (True, True)


def test_the_grace_period_is_ten_seconds_unless_told_otherwise(clock: Clock) -> None:
    stop = Stop()
    stop.request()
    clock.now += GRACE_SECONDS - 0.1
    assert (GRACE_SECONDS, stop.overdue, stop.signal) == (10, False, None)
    clock.now += 0.1
    assert stop.overdue


def test_without_grace_it_is_over_at_once(clock: Clock) -> None:
    stop = Stop(grace_seconds=0)
    stop.request()
    assert stop.overdue


@pytest.mark.parametrize("number", SIGNALS, ids=lambda number: number.name)
def test_a_signal_asks_for_a_stop(handled: list[int], number: signal.Signals) -> None:
    with stop_on_signal() as stop:
        signal.raise_signal(number)
        assert stop.requested
        assert stop.signal == number
    assert handled == []


@pytest.mark.parametrize("second", SIGNALS, ids=lambda number: number.name)
def test_a_second_signal_is_acted_on_as_before(handled: list[int], second: signal.Signals) -> None:
    with stop_on_signal() as stop:
        signal.raise_signal(signal.SIGINT)
        assert handled == []
        signal.raise_signal(second)
        assert handled == [second]
        assert stop.signal == signal.SIGINT


def test_after_the_work_signals_are_acted_on_as_before(handled: list[int]) -> None:
    before = handlers()
    with stop_on_signal() as stop:
        assert handlers() != before
    assert handlers() == before
    signal.raise_signal(signal.SIGTERM)
    assert handled == [signal.SIGTERM]
    assert not stop.requested


def test_an_error_leaves_the_handlers_as_they_were(handled: list[int]) -> None:
    before = handlers()
    with pytest.raises(ZeroDivisionError), stop_on_signal():
        raise ZeroDivisionError
    assert handlers() == before


def test_outside_the_main_thread_nothing_is_changed_and_nothing_asks(handled: list[int]) -> None:
    before = handlers()
    found: list[bool] = []

    def work() -> None:
        with stop_on_signal() as stop:
            found.extend([handlers() == before, stop.requested])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True, False]


def test_a_signal_that_is_held_is_acted_on_afterwards(handled: list[int]) -> None:
    with signals_held():
        signal.raise_signal(signal.SIGTERM)
        assert handled == []
    assert handled == [signal.SIGTERM]


def test_only_the_signals_that_are_named_are_held(handled: list[int]) -> None:
    with signals_held({signal.SIGINT}):
        signal.raise_signal(signal.SIGTERM)
        assert handled == [signal.SIGTERM]
        signal.raise_signal(signal.SIGINT)
        assert handled == [signal.SIGTERM]
    assert handled == [signal.SIGTERM, signal.SIGINT]
