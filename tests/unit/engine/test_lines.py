"""Lines that a worker logs while it has an item: of its thread, few, and harmless whatever they hold."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

import pytest

from siftline.engine.attempt import lines_heard
from siftline.progress import LogLine

LOGGER = logging.getLogger("company.scorer")


@pytest.fixture
def heard() -> Iterator[list[LogLine]]:
    lines: list[LogLine] = []
    with lines_heard(lines.append) as begin:
        begin("chunk 7 (rows 0-9)")
        yield lines


class Hostile:
    """Refuses to become text."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def test_a_line_has_its_level_its_logger_and_the_item_of_then() -> None:
    lines: list[LogLine] = []
    with lines_heard(lines.append) as begin:
        begin("chunk 1")
        LOGGER.warning("first %d", 1)
        begin("chunk 2")
        LOGGER.error("second")
    LOGGER.error("afterwards")
    assert lines == [
        LogLine(logging.WARNING, "company.scorer", "first 1", "chunk 1"),
        LogLine(logging.ERROR, "company.scorer", "second", "chunk 2"),
    ]


def test_what_other_threads_log_is_theirs(heard: list[LogLine]) -> None:
    thread = threading.Thread(target=lambda: LOGGER.warning("elsewhere"))
    thread.start()
    thread.join()
    LOGGER.warning("here")
    assert [line.text for line in heard] == ["here"]


@pytest.mark.parametrize("name", ["prefect", "prefect.engine", "distributed", "distributed.worker"])
def test_the_lines_of_those_who_carry_them_are_left_out(heard: list[LogLine], name: str) -> None:
    logging.getLogger(name).error("a line of the machinery")
    assert heard == []


def test_lines_are_few_and_short(heard: list[LogLine]) -> None:
    for _ in range(50):
        LOGGER.warning("x" * 10_000)
    assert len(heard) == 20
    assert {len(line.text) for line in heard} == {2_000}


@pytest.mark.parametrize(
    ("log", "text"),
    [
        (lambda: LOGGER.warning("%d of them", "many"), "%d of them"),
        (lambda: LOGGER.warning("%s %s", *(1,)), "%s %s"),
        (lambda: LOGGER.warning("a value: %s", Hostile()), "a value: %s"),
        (lambda: LOGGER.warning("a value: %r", Hostile()), "a value: %r"),
        (lambda: LOGGER.warning(Hostile()), "Hostile"),
        (lambda: LOGGER.warning(17), "17"),
        (lambda: LOGGER.warning("\ud800 \x1b[31m \0"), "\ud800 \x1b[31m \0"),
    ],
)
def test_no_argument_stops_the_work(
    heard: list[LogLine], log: Callable[[], None], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The others that hear it print what they cannot show.
    monkeypatch.setattr(logging, "raiseExceptions", False)
    monkeypatch.setattr(logging.getLogger("company"), "propagate", True)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [one for one in root.handlers if "Listener" in type(one).__name__])
    log()
    assert [line.text for line in heard] == [text]


def test_two_threads_hear_their_own_lines_at_the_same_time() -> None:
    found: dict[int, list[str]] = {}
    barrier = threading.Barrier(2)

    def work(number: int) -> None:
        lines: list[LogLine] = []
        with lines_heard(lines.append) as begin:
            begin(number)
            barrier.wait(10)
            LOGGER.warning("of %d", number)
            barrier.wait(10)
        found[number] = [f"{line.item}: {line.text}" for line in lines]

    threads = [threading.Thread(target=work, args=(number,)) for number in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {1: ["1: of 1"], 2: ["2: of 2"]}
