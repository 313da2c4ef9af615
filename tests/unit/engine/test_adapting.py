"""Adapting a job: samples, decisions and their reports, on a scripted executor and clock."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.config.batch import RetriesConfig
from siftline.engine import Adapting, Answer, run_with_retries
from siftline.engine.adaptation import COOLDOWN_SECONDS
from siftline.progress import WorkerUsage, listening

FULL, CALM, EMPTY = 0.9, 0.6, 0.1


@dataclass
class Cluster:
    """An executor and its session: workers that have a share of their memory in use, and do all at once."""

    bounds: tuple[int, int] = (1, 1)
    threads: int = 1
    most: int = 99
    memory: list[float] = field(default_factory=lambda: [CALM])
    asked: list[int] = field(default_factory=list)
    narrowed: list[tuple[int, int]] = field(default_factory=list)
    dashboard: str | None = None
    room: int = 3
    late: int = 0
    done: Callable[[], None] = lambda: None

    def scale(self, workers: int) -> int:
        self.asked.append(workers)
        workers = min(workers, self.most)
        self.memory = [self.memory[0]] * workers
        return workers

    def usage(self) -> tuple[WorkerUsage, ...]:
        return tuple(WorkerUsage(f"w{n}", 1.0, int(1000 * m), 1000) for n, m in enumerate(self.memory))

    def narrow(self, window: int, busy: int) -> None:
        self.narrowed.append((window, busy))

    @contextmanager
    def session(self, function: Any, bundle: int = 1, timeout_seconds: float | None = None) -> Iterator[Any]:
        self._function, self._items = function, list[Any]()
        yield self

    def submit(self, items: tuple[Any, ...]) -> None:
        self._items += items

    def wait(self, seconds: float) -> list[Answer[Any, Any]]:
        items, self._items = self._items, []
        self.done()
        return [Answer(item, self._function(item), None, 0.1) for item in items]


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def look(adapting: Adapting, cluster: Any, clock: Clock, times: int = 1) -> list[str]:
    """Look after each cooldown; return the texts of what is reported."""
    found: list[Any] = []
    with listening(found.append):
        for _ in range(times):
            clock.now += COOLDOWN_SECONDS
            adapting.look(cluster)
    assert {one.kind for one in found} <= {"adapted"}
    return [one.text for one in found]


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_workers_follow_the_work_and_every_decision_is_reported_with_its_cause(clock: Clock) -> None:
    cluster = Cluster(bounds=(1, 3))
    adapting = Adapting(cluster, 40, clock=clock)
    assert look(adapting, cluster, clock, times=4) == [
        "scaled up to 2 workers: 40 chunks left for 1 worker",
        "scaled up to 3 workers: 40 chunks left for 2 workers",
    ]
    adapting.left = 1
    assert look(adapting, cluster, clock, times=2) == [
        "scaled down to 1 worker: 1 chunk left, fewer than 3 workers can use"
    ]
    assert cluster.asked == [2, 3, 1]


def test_a_pool_without_free_slots_is_asked_again_and_nothing_is_reported(clock: Clock) -> None:
    cluster = Cluster(bounds=(1, 9), most=1)
    adapting = Adapting(cluster, 1000, clock=clock)
    assert look(adapting, cluster, clock, times=3) == []
    assert cluster.asked == [2, 2, 2]
    cluster.most = 2
    assert len(look(adapting, cluster, clock)) == 1


def test_a_pool_may_give_fewer_workers_than_wanted(clock: Clock) -> None:
    cluster = Cluster(bounds=(4, 16), most=5, memory=[CALM] * 4)
    (text,) = look(Adapting(cluster, 1000, clock=clock), cluster, clock)
    assert text.startswith("scaled up to 5 workers: ")
    assert cluster.asked == [8]


def test_a_full_worker_narrows_the_session_and_an_empty_one_widens_it(clock: Clock) -> None:
    cluster = Cluster(threads=2, memory=[EMPTY, FULL])
    adapting = Adapting(cluster, 9, clock=clock)
    texts = look(adapting, cluster, clock, times=11)
    assert [text.partition(": ")[0] for text in texts[:4]] == [
        "4 chunks in flight for each slot",
        "2 chunks in flight for each slot",
        "1 chunk in flight for each slot",
        "batches of 1/2 of the usual size",
    ]
    assert texts[-1].startswith("1 chunk at once for each worker: the fullest worker uses 90%")
    assert (adapting.halvings, cluster.narrowed[-1]) == (6, (1, 1))
    cluster.memory = [EMPTY]
    assert look(adapting, cluster, clock)[0].startswith("all chunks at once for each worker: ")
    look(adapting, cluster, clock, times=20)
    assert (adapting.halvings, cluster.narrowed[-1]) == (0, (8, 0))


def test_usage_that_is_unknown_is_no_pressure(clock: Clock) -> None:
    cluster = Cluster(memory=[])
    assert look(Adapting(cluster, 9, clock=clock), cluster, clock, times=3) == []


def test_samples_are_at_least_a_second_apart(clock: Clock) -> None:
    cluster = Cluster(bounds=(1, 9))
    adapting = Adapting(cluster, 1000, clock=clock)
    clock.now += 0.9
    adapting.look(cluster)
    assert cluster.asked == []
    clock.now += 0.1
    adapting.look(cluster)
    assert cluster.asked == [2]


@dataclass(frozen=True)
class Item:
    """An item of some rows, scored in batches."""

    number: int
    batch_divisor: int = 1


def halved(item: Item) -> Item | None:
    return replace(item, batch_divisor=2 * item.batch_divisor) if item.batch_divisor < 8 else None


def score(item: Item) -> bytes:
    """Score 16 rows of an item, batch by batch."""
    rows = 16 // item.batch_divisor
    batches = range(item.batch_divisor)
    return b"".join(bytes(range(rows * batch, rows * (batch + 1))) for batch in batches) + bytes(
        [item.number]
    )


def digest(memories: Sequence[float]) -> tuple[str, list[int]]:
    """Return the digest of all results, and the divisors, under the memory of each moment."""
    clock, left = Clock(), iter(memories)
    cluster = Cluster(bounds=(1, 3))

    def pass_time() -> None:
        clock.now += COOLDOWN_SECONDS
        cluster.memory = [next(left, CALM)] * len(cluster.memory)

    cluster.done = pass_time
    items = [Item(number) for number in range(60)]
    adapting = Adapting(cluster, len(items), clock=clock)
    settling = run_with_retries(cluster, score, items, RetriesConfig(), split=halved, adapting=adapting)
    settled = sorted(settling, key=lambda one: one.item.number)
    assert [one.item.number for one in settled] == list(range(60))
    assert adapting.left == 0
    results = b"".join(one.result() for one in settled)
    return hashlib.sha256(results).hexdigest(), [one.item.batch_divisor for one in settled]


@given(st.lists(st.sampled_from([FULL, CALM, EMPTY]), max_size=20))
def test_results_are_the_same_for_any_decisions(memories: list[float]) -> None:
    assert digest(memories)[0] == digest([])[0]


def test_batches_of_new_items_are_halved_while_memory_is_short() -> None:
    divisors = digest([FULL] * 8)[1]
    assert divisors[0] == 1
    assert max(divisors) == 8, "as often as an item can be split"


def test_items_without_an_answer_count_as_left_until_they_are_settled() -> None:
    cluster, seen = Cluster(), list[int]()
    adapting = Adapting(cluster, 6)
    for _ in run_with_retries(cluster, score, map(Item, range(6)), RetriesConfig(), adapting=adapting):
        seen.append(adapting.left)
    assert seen == [5, 4, 3, 2, 1, 0]
