"""Reports of every executor beside its answers: the workers' lines and usage, the seconds of the work."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from siftline.config.batch import RetriesConfig
from siftline.engine import Executor, run_with_retries
from siftline.errors import SourceError, StorageUnavailable
from siftline.progress import Incident, LogLine, Report, Usage, listening
from tests.faults import answers, value_of

pytestmark = pytest.mark.e2e


@pytest.fixture
def reports() -> Iterator[list[Any]]:
    """Everything that is emitted."""
    found: list[Report] = []
    with listening(found.append):
        yield found


@dataclass(frozen=True)
class Item:
    """An item with a number, as a chunk has one."""

    number: int

    def __str__(self) -> str:
        return f"item {self.number}"


def log_twice(item: Item) -> int:
    logger = logging.getLogger("company.scorer")
    logger.warning("begin %s <&> \N{RIGHT-TO-LEFT OVERRIDE}", item.number)
    thread = threading.Thread(target=logger.error, args=("of another thread",))
    thread.start()
    thread.join()
    logger.error("end %d", item.number)
    logging.getLogger("distributed.worker").critical("a line of the machinery")
    return os.getpid()


@pytest.mark.parametrize("bundle", [1, 3])
def test_the_lines_of_a_worker_arrive_with_their_item_before_its_answer(
    executor: Executor, reports: list[Any], bundle: int
) -> None:
    items = [Item(number) for number in range(7)]
    given = []
    for answer in answers(executor, log_twice, items, bundle):
        lines = [one.text for one in reports if isinstance(one, LogLine) and one.item == str(answer.item)]
        given.append((answer.item, len(lines)))
    assert sorted(given, key=lambda one: one[0].number) == [(item, 2) for item in items]
    found = [one for one in reports if isinstance(one, LogLine)]
    for item in items:
        mine = [(one.level, one.logger, one.text) for one in found if one.item == str(item)]
        assert mine == [
            (logging.WARNING, "company.scorer", f"begin {item.number} <&> \N{RIGHT-TO-LEFT OVERRIDE}"),
            (logging.ERROR, "company.scorer", f"end {item.number}"),
        ]


def refuse_odd(item: int) -> int:
    if item % 2:
        raise SourceError(f"item {item}", "give an even one")
    return item


@pytest.mark.parametrize("bundle", [1, 4])
def test_every_answer_has_the_seconds_of_its_work_errors_too(executor: Executor, bundle: int) -> None:
    given = list(answers(executor, refuse_odd, range(10), bundle))
    assert len(given) == 10
    for one in given:
        assert one.seconds is not None
        assert one.seconds >= 0


def test_settled_items_have_the_seconds_of_their_last_attempt(executor: Executor) -> None:
    (settled,) = run_with_retries(executor, refuse_odd, [4], RetriesConfig())
    assert settled.seconds is not None


def test_the_usage_of_every_worker_is_reported_with_its_memory(
    executor: Executor, reports: list[Any]
) -> None:
    pids = {value_of(one) for one in answers(executor, pid_of, range(20))}
    usage = next(one for one in reports if isinstance(one, Usage))
    assert usage.workers
    for worker in usage.workers:
        assert worker.memory is not None
        assert worker.memory > 1 << 20
    if executor.dashboard is None:
        assert [one.address for one in usage.workers] == [f"process {pid}" for pid in pids]
    else:
        assert [one.memory_limit for one in usage.workers] == [1 << 30] * 2
        assert len({one.address for one in usage.workers}) == 2
    assert usage.dashboard == executor.dashboard


def pid_of(item: int) -> int:
    return os.getpid()


def fail_once(item: Item) -> int:
    raise StorageUnavailable(f"{item} is away", "wait")


def test_a_retry_is_reported_with_the_number_of_its_item(executor: Executor, reports: list[Any]) -> None:
    once = RetriesConfig.model_validate({"attempts": 2, "delay_seconds": 0})
    (settled,) = run_with_retries(executor, fail_once, [Item(7)], once)
    assert settled.attempts == 2
    (incident,) = [one for one in reports if isinstance(one, Incident)]
    assert (incident.kind, incident.chunk) == ("retried", 7)
    assert incident.text == "item 7: item 7 is away; attempt 2 in 0.0 s"
