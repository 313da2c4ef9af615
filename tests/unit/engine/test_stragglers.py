"""Stragglers: items that take far longer than their peers, by their size."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from siftline.engine.stragglers import Pace


def pace(*items: tuple[float, int]) -> Pace:
    found = Pace(least_seconds=5.0, times=4.0, peers=3)
    for seconds, size in items:
        found.finished(seconds, size)
    return found


def test_nothing_is_a_straggler_before_there_are_peers() -> None:
    assert not pace((1.0, 100), (1.0, 100)).is_straggler(1e9, 100)


def test_an_item_is_a_straggler_after_several_times_what_its_rows_take() -> None:
    known = pace((2.0, 100), (2.0, 100), (20.0, 1_000))
    assert not known.is_straggler(8.0, 100)
    assert known.is_straggler(8.1, 100)
    assert not known.is_straggler(80.0, 1_000)
    assert known.is_straggler(80.1, 1_000)


def test_short_items_are_never_stragglers() -> None:
    known = pace(*[(0.001, 10)] * 10)
    assert not known.is_straggler(4.9, 10)
    assert known.is_straggler(5.0, 10)


def test_items_without_rows_have_a_pace() -> None:
    assert pace(*[(1.0, 0)] * 3).is_straggler(5.0, 0)


@given(st.lists(st.floats(0.1, 1000), min_size=3, max_size=300), st.integers(1, 10**6), st.floats(0, 1e6))
def test_at_least_half_of_the_finished_items_would_not_have_been_stragglers(
    seconds: list[float], size: int, factor: float
) -> None:
    known = Pace(least_seconds=0.0)
    for one in seconds:
        known.finished(one * size, size)
    recent = seconds[-200:]
    assert 2 * sum(known.is_straggler(one * size, size) for one in recent) <= len(recent)
