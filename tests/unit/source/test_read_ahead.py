"""Reading ahead: order, overlap, bounds, errors, the end."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Iterator

import pytest

from siftline.source.read_ahead import read_ahead

_PATIENCE_SECONDS = 60.0


def test_items_come_in_their_order() -> None:
    assert list(read_ahead(iter(range(1, 100)))) == list(range(1, 100))
    assert list(read_ahead(iter(()))) == []


def test_the_next_item_is_taken_while_the_one_before_is_in_use() -> None:
    second_is_taken = threading.Event()

    def items() -> Iterator[str]:
        yield "first"
        second_is_taken.set()
        yield "second"

    taken = read_ahead(items())

    assert next(taken) == "first"
    assert second_is_taken.wait(_PATIENCE_SECONDS)
    assert list(taken) == ["second"]


def test_no_more_than_one_item_is_held_besides_the_one_in_use() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(1, 50):
            made.append(number)
            yield number

    for used in read_ahead(items()):
        assert made[-1] <= used + 1


def test_an_error_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise OSError("the disk is gone")

    taken = read_ahead(items())

    assert [next(taken), next(taken)] == [1, 2]
    with pytest.raises(OSError, match="the disk is gone"):
        next(taken)


def test_an_error_keeps_nothing_of_the_attempt_alive() -> None:
    class Held:
        pass

    held = Held()
    alive = weakref.ref(held)

    def items() -> Iterator[int]:
        yield 1
        raise MemoryError

    def work(batch: Held) -> None:
        for _ in read_ahead(items()):
            assert batch is not None

    gc.disable()
    try:
        with pytest.raises(MemoryError) as caught:
            work(held)
        del held, caught
        assert alive() is None
    finally:
        gc.enable()


def test_closing_ends_the_thread_and_lets_go_of_the_items() -> None:
    let_go = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(1, 100)
        finally:
            let_go.set()

    taken = read_ahead(items())
    next(taken)
    taken.close()

    assert let_go.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("siftline-ahead")]
