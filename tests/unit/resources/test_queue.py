"""The queue for a pool: one turn at a time, in a fixed order, without starvation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.config.resources import PRIORITIES, Priority
from siftline.resources.queue import (
    LEVEL,
    Holding,
    Waiting,
    estimated_waits,
    in_order,
    share_of,
    whose_turn,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
POOL = 16
later = st.integers(0, 100_000).map(lambda seconds: timedelta(seconds=seconds))


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    sizes = draw(st.lists(st.integers(1, POOL), max_size=12))
    return [
        waiting(f"run-{number}", size, draw(st.sampled_from(PRIORITIES)), NOW - draw(later))
        for number, size in enumerate(sizes)
    ]


def waiting(
    run: str,
    slots: int = 1,
    priority: Priority = "normal",
    since: datetime = NOW,
    seconds: float | None = None,
) -> Waiting:
    return Waiting(run, slots, priority, since, until=datetime.max.replace(tzinfo=UTC), seconds=seconds)


@given(queues(), st.integers(0, POOL), later)
def test_at_most_one_has_its_turn_and_it_fits(queue: list[Waiting], free: int, when: timedelta) -> None:
    turn = whose_turn(queue, free, NOW + when)
    assert turn is None or (turn in queue and turn.slots <= free)


@given(queues())
def test_an_idle_pool_always_has_a_turn_for_a_queue(queue: list[Waiting]) -> None:
    assert (whose_turn(queue, POOL, NOW) is None) == (not queue)


@given(queues(), later)
def test_the_order_is_the_same_at_any_time_and_after_any_restart(
    queue: list[Waiting], when: timedelta
) -> None:
    assert in_order(reversed(queue), NOW + when) == in_order(queue, NOW)


@given(queues(), st.integers(1, POOL))
def test_within_a_priority_the_first_come_is_the_first_served(queue: list[Waiting], slots: int) -> None:
    queue = [replace(one, priority="normal") for one in queue]
    order = in_order([*queue, waiting("last", slots, since=NOW + timedelta(seconds=1))], NOW)
    assert [one.since for one in order] == sorted(one.since for one in order)
    assert order[-1].run == "last"


def test_a_large_run_is_not_overtaken_by_small_ones_of_its_priority() -> None:
    large, small = waiting("large", POOL), waiting("small", 1, since=NOW + timedelta(seconds=1))
    assert whose_turn([small, large], POOL - 1, NOW) is None
    assert whose_turn([small, large], POOL, NOW) == large


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_higher_priority_overtakes_those_that_wait_less_than_half_an_hour_longer(levels: int) -> None:
    low = waiting("low", priority="low", since=NOW)
    for seconds, first in ((-1, "high"), (1, "low")):
        since = NOW + levels * LEVEL + timedelta(seconds=seconds)
        high = waiting("high", priority=PRIORITIES[levels], since=since)
        assert next(one.run for one in in_order([low, high], since)) == first


@given(queues(), st.sampled_from(PRIORITIES), later)
def test_after_three_levels_of_waiting_no_newcomer_overtakes(
    queue: list[Waiting], priority: Priority, since: timedelta
) -> None:
    newcomer = waiting("newcomer", priority=priority, since=NOW + 3 * LEVEL + since + timedelta(seconds=1))
    assert in_order([newcomer, *queue], newcomer.since)[-1].run == "newcomer"


def test_a_run_that_was_not_seen_for_too_long_holds_no_place() -> None:
    dead = replace(waiting("dead", since=NOW - LEVEL), until=NOW - timedelta(seconds=1))
    assert whose_turn([dead, waiting("alive")], 1, NOW) == waiting("alive")
    assert estimated_waits([dead, waiting("alive")], [], 1, NOW) == {"alive": 0.0}


def simulated(queue: Sequence[Waiting], holding: Sequence[Holding]) -> dict[str, float]:
    """Play the queue second by second, with whose_turn."""
    begun: dict[str, float] = {}
    running = [(one.seconds or 0, one.slots) for one in holding]
    left, clock = list(queue), 0.0
    while left:
        running = [(end, slots) for end, slots in running if end > clock]
        while turn := whose_turn(left, POOL - sum(slots for _, slots in running), NOW):
            begun[turn.run] = clock
            running.append((clock + (turn.seconds or 0), turn.slots))
            left.remove(turn)
        clock += 1
    return begun


@given(queues(), st.lists(st.integers(1, 50), max_size=12), st.lists(st.integers(1, 4), max_size=3))
def test_the_estimate_is_what_happens_when_durations_are_known(
    queue: list[Waiting], seconds: list[int], held: list[int]
) -> None:
    queue = [replace(one, seconds=float(length)) for one, length in zip(queue, seconds, strict=False)]
    holding = [Holding(f"holder-{number}", slots, 7.0 * slots) for number, slots in enumerate(held)]
    assert estimated_waits(queue, holding, POOL, NOW) == simulated(queue, holding)


def test_a_wait_that_depends_on_an_unknown_end_is_unknown() -> None:
    queue = [waiting("first", POOL), waiting("second", 1, since=NOW + timedelta(seconds=1))]
    assert estimated_waits(queue, [Holding("holder", 1)], POOL, NOW) == {"first": None, "second": None}
    known = [replace(queue[0], slots=4), queue[1]]
    assert estimated_waits(known, [Holding("holder", POOL - 4)], POOL, NOW) == {"first": 0.0, "second": None}


@given(queues(), st.data())
def test_whatever_comes_and_goes_no_more_slots_are_held_than_there_are_and_all_get_their_turn(
    queue: list[Waiting], data: st.DataObject
) -> None:
    left, held = list(queue), list[int]()
    while left or held:
        free = POOL - sum(held)
        turn = whose_turn(left, free, NOW)
        if turn is not None and (not held or data.draw(st.booleans())):
            left.remove(turn)
            most = data.draw(st.integers(turn.slots, POOL))
            held.append(share_of(turn.slots, most, free, left))
            assert turn.slots <= held[-1] <= most
        else:
            held.pop(data.draw(st.integers(0, len(held) - 1)))
        assert sum(held) <= POOL
