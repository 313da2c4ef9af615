"""The rules that adapt a running job: order of the measures, bounds, hysteresis and cooldown."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.engine.adaptation import (
    COOLDOWN_SECONDS,
    HIGH_MEMORY,
    LOW_MEMORY,
    Decision,
    Load,
    Settings,
    adapt,
)

WIDEST = 8
CALM = (LOW_MEMORY + HIGH_MEMORY) / 2


def load(memory: float = CALM, seconds: float = 0.0, **values: Any) -> Load:
    given = {"workers": 1, "threads": 2, "left": 1, "free": 0, **values}
    return Load(seconds=seconds, memory=memory, **given)


def decisions(loads: list[Load], settings: Settings, minimum: int = 1, maximum: int = 1) -> list[Decision]:
    """Return the decisions for some samples, each of which follows a cooldown."""
    found = []
    for number, one in enumerate(loads):
        sample = replace(one, seconds=number * COOLDOWN_SECONDS)
        decision = adapt(sample, settings, WIDEST, minimum, maximum)
        if decision is not None:
            found.append(decision)
            settings = decision.settings
    return found


def test_short_memory_narrows_the_window_then_the_batches_then_the_threads() -> None:
    found = decisions([load(memory=0.9, threads=3)] * 20, Settings(window=WIDEST, workers=1))
    assert [one.kind for one in found] == ["window"] * 3 + ["batches"] * 6 + ["threads"] * 2
    last = found[-1].settings
    assert (last.window, last.halvings, last.busy) == (1, 6, 1)
    assert found[0].cause == "the fullest worker uses 90% of its memory, more than 80%"


def test_plenty_of_memory_takes_the_measures_back_the_last_one_first() -> None:
    narrow = Settings(window=1, workers=1, halvings=2, busy=1)
    found = decisions([load(memory=0.1, threads=3)] * 20, narrow)
    assert [one.kind for one in found] == ["threads"] * 2 + ["batches"] * 2 + ["window"] * 3
    assert replace(found[-1].settings, changed=0) == Settings(window=WIDEST, workers=1, changed=0)


@pytest.mark.parametrize("memory", [LOW_MEMORY, CALM, HIGH_MEMORY])
def test_between_the_limits_nothing_changes(memory: float) -> None:
    narrow = Settings(window=2, workers=1, halvings=2, busy=1)
    assert adapt(load(memory=memory), narrow, WIDEST, 1, 1) is None


def test_workers_double_while_the_backlog_keeps_them_busy() -> None:
    loads = [load(workers=workers, threads=1, left=100, free=20) for workers in (1, 2, 4, 8)]
    found = decisions(loads, Settings(window=WIDEST, workers=1), 1, 6)
    assert [(one.kind, one.settings.workers) for one in found] == [("scale up", n) for n in (2, 4, 6)]
    assert found[0].cause == "100 chunks left for 1 worker"


def test_workers_are_as_many_as_the_backlog_justifies_and_the_pool_has() -> None:
    few = load(threads=1, left=11, workers=1, free=20)  # 11 chunks keep two busy
    assert [one.settings.workers for one in decisions([few], Settings(8, 1), 1, 6)] == [2]
    assert decisions([replace(few, workers=2)], Settings(8, 2), 1, 6) == []
    assert decisions([replace(few, left=100, free=0)], Settings(8, 1), 1, 6) == []


def test_no_more_workers_are_asked_for_before_those_wanted_have_come() -> None:
    assert adapt(load(workers=1, left=1000, free=9), Settings(8, workers=2), WIDEST, 1, 9) is None


def test_a_drained_tail_leaves_as_many_workers_as_it_can_use() -> None:
    tail = [load(workers=4, threads=2, left=left) for left in (9, 8, 7, 5, 2, 1, 0)]
    found = decisions(tail, Settings(window=WIDEST, workers=4), 1, 4)
    assert [(one.kind, one.settings.workers) for one in found] == [("scale down", n) for n in (3, 1)]


def test_a_straggler_without_an_idle_worker_gets_one_more() -> None:
    late = load(workers=1, threads=1, left=1, late=1, free=9)
    (decision,) = decisions([late], Settings(window=WIDEST, workers=1), 1, 3)
    assert (decision.kind, decision.settings.workers) == ("scale up", 2)
    assert decision.cause == "1 chunk in flight for far longer than others"
    # It stays until it has taken the straggler up.
    assert decisions([replace(late, workers=2)], Settings(WIDEST, workers=2), 1, 2) == []
    assert decisions([replace(late, workers=1)], Settings(WIDEST, workers=2), 1, 3) == []


def test_memory_comes_before_workers() -> None:
    decision = adapt(load(memory=0.95, left=1000, free=9), Settings(8, 1), WIDEST, 1, 9)
    assert decision is not None
    assert decision.kind == "window"


shares = st.floats(0, 1.2)
ranges = st.tuples(st.integers(1, 20), st.integers(1, 20)).map(sorted)


@st.composite
def states(draw: st.DrawFn) -> tuple[Load, Settings, int, int]:
    minimum, maximum = draw(ranges)
    threads = draw(st.integers(1, 8))
    settings = Settings(
        window=draw(st.integers(1, WIDEST)),
        workers=draw(st.integers(minimum, maximum)),
        halvings=draw(st.integers(0, 6)),
        busy=draw(st.integers(0, threads - 1)),
        changed=draw(st.sampled_from([-math.inf, 0.0, 96.0, 99.0, 100.0])),
    )
    sample = Load(
        100.0,
        draw(shares),
        draw(st.integers(0, 20)),
        threads,
        draw(st.integers(0, 10_000)),
        draw(st.integers(0, 20)),
        draw(st.integers(0, 2)),
    )
    return sample, settings, minimum, maximum


@given(states())
def test_a_decision_changes_one_setting_and_stays_within_the_bounds(
    state: tuple[Load, Settings, int, int],
) -> None:
    sample, before, minimum, maximum = state
    decision = adapt(sample, before, WIDEST, minimum, maximum)
    if decision is None:
        return
    after = decision.settings
    assert sample.seconds - before.changed >= COOLDOWN_SECONDS
    assert after.changed == sample.seconds
    names = ("window", "halvings", "busy", "workers")
    assert sum(getattr(before, name) != getattr(after, name) for name in names) == 1
    assert 1 <= after.window <= WIDEST
    assert 0 <= after.halvings <= 6
    assert 0 <= after.busy < sample.threads or sample.threads == 1
    assert minimum <= after.workers <= maximum
    assert after.workers <= before.workers + sample.free
    assert decision.cause


@given(states())
def test_what_relieves_memory_and_what_takes_it_back_exclude_each_other(
    state: tuple[Load, Settings, int, int],
) -> None:
    sample, before, minimum, maximum = state
    decision = adapt(sample, before, WIDEST, minimum, maximum)
    if decision is None or decision.kind.startswith("scale"):
        return
    after = decision.settings
    tighter = (after.window, -after.halvings, after.busy or 99) < (
        before.window,
        -before.halvings,
        before.busy or 99,
    )
    assert tighter == (sample.memory > HIGH_MEMORY)
    assert tighter or sample.memory < LOW_MEMORY


@given(st.lists(st.tuples(shares, st.integers(0, 500)), max_size=60), ranges)
def test_two_changes_are_never_closer_than_the_cooldown(
    samples: list[tuple[float, int]], bounds: list[int]
) -> None:
    minimum, maximum = bounds
    settings, times = Settings(WIDEST, minimum), []
    for second, (memory, left) in enumerate(samples):
        sample = load(memory, float(second), workers=settings.workers, left=left, free=maximum)
        decision = adapt(sample, settings, WIDEST, minimum, maximum)
        if decision is not None:
            settings = decision.settings
            times.append(second)
    assert all(after - before >= COOLDOWN_SECONDS for before, after in pairwise(times))
