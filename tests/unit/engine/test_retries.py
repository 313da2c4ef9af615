"""The retry policy, on an executor of scripted answers and a clock set by hand."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from siftline.config.batch import RetriesConfig
from siftline.engine import Answer, Settled, run_with_retries
from siftline.engine.base import Began
from siftline.errors import (
    Cancelled,
    ChunkTimeout,
    OutOfMemory,
    RowError,
    SiftlineError,
    SourceError,
    StorageError,
    StorageUnavailable,
    WorkerLost,
)
from siftline.progress import Incident, listening
from siftline.system.signals import Stop

Fault = Literal["ok", "io", "timeout", "kill", "memory", "source", "rows", "job"]
ERRORS: Mapping[str, SiftlineError] = {
    "io": StorageUnavailable("disk: I/O error", "look"),
    "timeout": ChunkTimeout("no result", "wait"),
    "kill": WorkerLost("the worker was lost", "more memory"),
    "memory": OutOfMemory("out of memory", "more memory"),
    "source": SourceError("not to be read", "repair"),
    "rows": RowError("too many rows", "correct"),
    "job": StorageError("disk: full", "free some"),
}
FIRM = RetriesConfig(jitter=0)


class Clock:
    """Stands for the module `time`; set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("siftline.engine.retries.time", clock)
    monkeypatch.setattr("siftline.system.signals.time", clock)
    return clock


@dataclass(frozen=True)
class Item:
    """Something to do, whole or in halves."""

    name: int
    batch_divisor: int = 1

    def __str__(self) -> str:
        return f"item {self.name}"


def split_to(floor: int) -> Callable[[Item], Item | None]:
    return lambda item: (
        replace(item, batch_divisor=2 * item.batch_divisor) if item.batch_divisor < floor else None
    )


@dataclass
class Execution:
    """One execution of an item: which one, when, what ran at the same time, and how it ended."""

    item: Item
    number: int
    began: float
    beside: set[int] = field(default_factory=set)
    ended: float = math.nan
    fault: Fault | None = None


class ScriptedExecutor:
    """One worker of several slots, on which everything takes a second and ends as the script says.

    An item that kills the worker takes with it all that runs beside it.
    """

    dashboard: str | None = None

    def __init__(
        self,
        clock: Clock,
        script: Mapping[int, Sequence[Fault]],
        slots: int = 4,
        seconds: Mapping[int, float] | None = None,
        began: Mapping[int, Began] | None = None,
    ) -> None:
        self._clock = clock
        self._began = began or {}
        self._script = script
        self._slots = slots
        self._seconds = seconds or {}
        self._running: list[Execution] = []
        self.executions: list[Execution] = []
        self.closed = False

    def counts(self) -> Counter[int]:
        return Counter(execution.item.name for execution in self.executions)

    def of(self, name: int) -> list[Execution]:
        return [execution for execution in self.executions if execution.item.name == name]

    @contextmanager
    def session(
        self, function: Any, bundle: int = 1, timeout_seconds: float | None = None
    ) -> Iterator[ScriptedExecutor]:
        self._function = function
        try:
            yield self
        finally:
            self.closed = True

    @property
    def room(self) -> int:
        return self._slots - len(self._running)

    def submit(self, items: tuple[Any, ...]) -> None:
        assert 0 < len(items) <= self.room
        for item in items:
            self._begin(item)

    def _begin(self, item: Item) -> None:
        execution = Execution(item, self.counts()[item.name], self._clock.now)
        for other in self._running:
            other.beside.add(item.name)
            execution.beside.add(other.item.name)
        self._running.append(execution)
        self.executions.append(execution)

    def _end(self, execution: Execution) -> float:
        return execution.began + self._seconds.get(execution.item.name, 1.0)

    def wait(self, seconds: float) -> list[Answer[Any, Any]]:
        assert seconds >= 0
        first = min(self._running, key=self._end, default=None)
        ends = math.inf if first is None else self._end(first)
        if first is None or self._clock.now + seconds < ends:
            self._clock.now += seconds
            return []
        self._clock.now = max(ends, self._clock.now)
        faults = self._script.get(first.item.name, [])
        fault = faults[first.number] if first.number < len(faults) else "ok"
        over = list(self._running) if fault == "kill" else [first]
        for one in over:
            self._running.remove(one)
            one.ended, one.fault = self._clock.now, fault
        error = None if fault == "ok" else ERRORS[fault]
        if error is None:
            return [Answer(first.item, self._function(first.item))]
        return [
            Answer(one.item, None, error, began=self._began.get(one.item.name, "beside others"))
            for one in over
        ]


def work(item: Item) -> int:
    return 10 * item.name


def run(
    executor: ScriptedExecutor, items: int | Iterable[Item], retries: RetriesConfig = FIRM, **options: Any
) -> tuple[list[Settled[Item, int]], list[Incident]]:
    """Run items 0, 1, … and return what became of them, and what was reported."""
    given = [Item(name) for name in range(items)] if isinstance(items, int) else items
    incidents: list[Any] = []
    with listening(incidents.append):
        return list(run_with_retries(executor, work, given, retries, **options)), incidents


def by_name(settled: Iterable[Settled[Item, int]]) -> dict[int, Settled[Item, int]]:
    found = {one.item.name: one for one in settled}
    assert len(found) == len(list(settled))
    return found


# What is tried again, and how often


def test_without_faults_everything_is_done_once(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {})
    settled, incidents = run(executor, 20)
    assert {name: (one.result(), one.attempts) for name, one in by_name(settled).items()} == {
        name: (10 * name, 1) for name in range(20)
    }
    assert executor.counts() == Counter(range(20))
    assert incidents == []


@pytest.mark.parametrize("fault", ["io", "timeout"])
@pytest.mark.parametrize("failures", [0, 1, 2])
def test_what_may_pass_is_tried_again_until_it_passes(clock: Clock, fault: Fault, failures: int) -> None:
    executor = ScriptedExecutor(clock, {1: [fault] * failures})
    settled, incidents = run(executor, 3)
    assert [(one.result(), one.attempts) for one in [by_name(settled)[1]]] == [(10, failures + 1)]
    assert executor.counts() == {0: 1, 1: failures + 1, 2: 1}
    assert [one.kind for one in incidents] == ["retried"] * failures


def test_after_the_last_attempt_the_error_is_final(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {1: ["io"] * 9})
    settled, incidents = run(executor, 3, RetriesConfig(attempts=4, jitter=0))
    failed = by_name(settled)[1]
    assert (failed.error, failed.value, failed.attempts) == (ERRORS["io"], None, 4)
    with pytest.raises(StorageUnavailable, match="disk: I/O error"):
        failed.result()
    assert executor.counts() == {0: 1, 1: 4, 2: 1}
    assert [one.text for one in incidents] == [
        "item 1: disk: I/O error; attempt 2 in 1.0 s",
        "item 1: disk: I/O error; attempt 3 in 2.0 s",
        "item 1: disk: I/O error; attempt 4 in 4.0 s",
    ]


def test_one_attempt_is_no_retry(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {0: ["io"]})
    settled, incidents = run(executor, 1, RetriesConfig(attempts=1))
    assert [(one.error, one.attempts) for one in settled] == [(ERRORS["io"], 1)]
    assert incidents == []


@pytest.mark.parametrize("fault", ["source", "rows", "job"])
def test_what_cannot_pass_is_not_tried_again(clock: Clock, fault: Fault) -> None:
    executor = ScriptedExecutor(clock, {1: [fault]})
    settled, incidents = run(executor, 3)
    assert (by_name(settled)[1].error, by_name(settled)[1].attempts) == (ERRORS[fault], 1)
    assert executor.counts() == Counter(range(3))
    assert incidents == []


def test_the_same_object_may_come_twice(clock: Clock) -> None:
    item = Item(3)
    settled, _ = run(ScriptedExecutor(clock, {3: ["io"]}), [item, item, item])
    assert sorted(one.attempts for one in settled) == [1, 1, 2]


# When


def waits(executor: ScriptedExecutor, name: int) -> list[float]:
    """Seconds between the end of each execution of an item and the beginning of the next."""
    ran = executor.of(name)
    return [after.began - before.ended for before, after in pairwise(ran)]


def test_delays_grow_by_the_backoff_up_to_the_longest(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {0: ["io"] * 5})
    run(executor, 1, RetriesConfig(attempts=6, delay_seconds=1, backoff=3, max_delay_seconds=10, jitter=0))
    assert waits(executor, 0) == pytest.approx([1, 3, 9, 10, 10])


@given(
    delay=st.floats(0, 100),
    backoff=st.floats(1, 10),
    jitter=st.floats(0, 1),
    longest=st.floats(0, 1000),
    failures=st.integers(1, 200),
)
def test_a_delay_is_within_its_jitter_and_never_longer_than_the_longest(
    delay: float, backoff: float, jitter: float, longest: float, failures: int
) -> None:
    retries = RetriesConfig(
        attempts=failures + 1,
        delay_seconds=delay,
        backoff=backoff,
        jitter=jitter,
        max_delay_seconds=longest,
    )
    clock = Clock()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("siftline.engine.retries.time", clock)
        executor = ScriptedExecutor(clock, {0: ["io"] * failures})
        settled, _ = run(executor, 1, retries, poll_seconds=math.inf)
    assert settled[0].attempts == failures + 1
    for number, wait in enumerate(waits(executor, 0)):
        plain = min(longest, delay * backoff ** min(number, 64))
        assert plain * (1 - jitter) - 1e-6 <= wait <= min(longest, plain * (1 + jitter)) + 1e-6


def test_jitter_spreads_what_failed_together(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {name: ["io"] for name in range(50)}, slots=50)
    run(executor, 50, RetriesConfig(delay_seconds=10, jitter=0.5))
    found = sorted(waits(executor, name)[0] for name in range(50))
    assert 5 <= found[0] < 8
    assert 12 < found[-1] <= 15
    assert len(set(found)) == 50


def test_a_delay_blocks_nobody(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {0: ["io"]}, slots=2)
    settled, _ = run(executor, 20, RetriesConfig(delay_seconds=60, jitter=0))
    assert [one.item.name for one in settled] == [*range(1, 20), 0]
    # Twenty seconds of work on two slots: neither stood still meanwhile.
    assert max(one.ended for one in executor.executions if one.item.name) <= 1000 + 11
    assert waits(executor, 0) == pytest.approx([60])


def test_what_is_due_comes_before_what_is_new(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {0: ["io"]}, slots=1)
    settled, _ = run(executor, 10, RetriesConfig(delay_seconds=3, jitter=0))
    assert [one.item.name for one in settled] == [1, 2, 3, 0, 4, 5, 6, 7, 8, 9]


# Suspects


def alone(execution: Execution) -> bool:
    return not execution.beside


def test_after_a_worker_died_its_items_are_tried_one_at_a_time(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {1: ["kill"]}, seconds={0: 5.0, 2: 5.0, 3: 5.0})
    settled, incidents = run(executor, 12)
    assert {one.item.name: one.attempts for one in settled} == executor.counts()
    assert executor.counts() == Counter([*range(12), 0, 1, 2, 3])
    again = executor.executions[4:8]
    assert sorted(execution.item.name for execution in again) == [0, 1, 2, 3]
    assert all(alone(execution) for execution in again)
    assert [one.kind for one in incidents] == ["worker lost"] * 4
    assert "item 1: the worker was lost; it is tried alone" in [one.text for one in incidents]


def test_the_culprit_is_found_and_harms_nobody(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {1: ["kill"] * 9}, seconds={0: 5.0, 2: 5.0, 3: 5.0})
    settled, incidents = run(executor, 12)
    found = by_name(settled)
    assert [name for name, one in found.items() if one.error is not None] == [1]
    assert isinstance(found[1].error, OutOfMemory)
    assert found[1].error.problem == "the worker died while this chunk ran alone"
    assert found[1].error.remedy == ERRORS["kill"].remedy
    # Once with the others, then alone as long as there are attempts.
    assert found[1].attempts == 3
    assert executor.counts() == Counter([*range(12), 0, 1, 1, 2, 3])
    assert [alone(execution) for execution in executor.of(1)] == [False, True, True]
    kinds = Counter(one.text.partition("; ")[2] for one in incidents)
    assert kinds == {"it is tried alone": 4, "attempt 3": 1}


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
def test_a_suspect_is_tried_alone_and_each_start_counts(clock: Clock, attempts: int) -> None:
    executor = ScriptedExecutor(clock, {1: ["kill"] * 9}, seconds={0: 5.0, 2: 5.0, 3: 5.0})
    settled, _ = run(executor, 12, RetriesConfig(attempts=attempts, jitter=0), split=split_to(64))
    # One more where the only attempt was beside others: any of them may be innocent.
    assert executor.counts()[1] == by_name(settled)[1].attempts == max(attempts, 2)


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
def test_an_item_that_was_alone_on_its_worker_is_started_as_often_as_there_are_attempts(
    clock: Clock, attempts: int
) -> None:
    executor = ScriptedExecutor(clock, {1: ["kill"] * 9}, began={1: "alone"})
    settled, _ = run(executor, 12, RetriesConfig(attempts=attempts, jitter=0), split=split_to(64))
    assert executor.counts()[1] == by_name(settled)[1].attempts == attempts


def test_an_item_that_its_lost_worker_had_not_begun_is_no_suspect_and_the_start_no_attempt(
    clock: Clock,
) -> None:
    began: Mapping[int, Began] = {0: "not", 1: "alone", 2: "not", 3: "not"}
    executor = ScriptedExecutor(clock, {1: ["kill"]}, seconds={0: 5.0, 2: 5.0, 3: 5.0}, began=began)
    settled, incidents = run(executor, 12, RetriesConfig(attempts=2, jitter=0))
    assert {name: one.attempts for name, one in by_name(settled).items()} == {
        name: 2 if name == 1 else 1 for name in range(12)
    }
    assert [one.text for one in incidents] == ["item 1: the worker was lost; it is tried alone"]


@pytest.mark.parametrize("fault", ["kill", "timeout"])
def test_an_item_that_no_worker_begins_has_failed_in_the_end(clock: Clock, fault: Fault) -> None:
    executor = ScriptedExecutor(clock, {1: [fault] * 99}, slots=1, began={1: "not"})
    settled, _ = run(executor, 3)
    failed = by_name(settled)[1]
    assert (failed.error, failed.attempts) == (ERRORS[fault], 0)
    assert executor.counts()[1] == 6


def test_a_suspect_that_may_be_split_is(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {1: ["kill"] * 3})
    settled, incidents = run(executor, 4, RetriesConfig(attempts=4, jitter=0), split=split_to(4))
    assert by_name(settled)[1].result() == 10
    assert by_name(settled)[1].item == Item(1, batch_divisor=4)
    assert [execution.item.batch_divisor for execution in executor.of(1)] == [1, 1, 2, 4]
    assert [one.kind for one in incidents if "item 1" in one.text] == ["worker lost", "split", "split"]


@pytest.mark.parametrize("fault", ["io", "timeout"])
def test_a_suspect_is_alone_after_a_delay_too(clock: Clock, fault: Fault) -> None:
    # The last of the suspects, so that new items run when its delay is over.
    executor = ScriptedExecutor(clock, {3: ["kill", fault, "kill"]}, seconds=dict.fromkeys(range(3), 5.0))
    settled, _ = run(executor, 30, RetriesConfig(attempts=4, jitter=0))
    assert by_name(settled)[3].result() == 30
    assert [alone(execution) for execution in executor.of(3)] == [False, True, True, True]
    assert executor.counts() == Counter([*range(30), 0, 1, 2, 3, 3, 3])


def test_two_culprits_at_once_are_both_found(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {1: ["kill"] * 9, 2: ["kill"] * 9})
    settled, _ = run(executor, 40)
    assert sorted(one.item.name for one in settled if one.error is not None) == [1, 2]
    assert sorted(executor.counts().values())[:-2] == sorted([1] * 36 + [2] * 2)


# Halves


def test_what_lacks_memory_is_halved_and_not_delayed(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {1: ["memory"] * 3}, slots=1)
    settled, incidents = run(executor, 3, split=split_to(64))
    one = by_name(settled)[1]
    assert (one.result(), one.item, one.attempts) == (10, Item(1, batch_divisor=8), 4)
    assert [one.kind for one in incidents] == ["split"] * 3
    assert incidents[0].text == "item 1: out of memory; it is done in halves"
    assert waits(executor, 1) == [0, 0, 0]


def test_halves_have_the_memory_to_themselves(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {1: ["memory"]}, seconds={0: 3.0})
    run(executor, 12, split=split_to(2))
    assert [alone(execution) for execution in executor.of(1)] == [False, True]


def test_at_the_floor_it_has_failed(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {1: ["memory"] * 9})
    settled, _ = run(executor, 3, split=split_to(4))
    one = by_name(settled)[1]
    assert (one.error, one.item.batch_divisor, one.attempts) == (ERRORS["memory"], 4, 3)
    assert executor.counts() == {0: 1, 1: 3, 2: 1}


def test_what_cannot_be_split_has_failed_at_once(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {1: ["memory"]})
    settled, _ = run(executor, 3)
    assert (by_name(settled)[1].error, by_name(settled)[1].attempts) == (ERRORS["memory"], 1)


# Stop


def stopped(executor: ScriptedExecutor, stop: Stop, after: int, items: int = 20) -> list[Settled[Item, int]]:
    """Request a stop after some results; run to the end and return all results."""
    settled: list[Settled[Item, int]] = []

    def see_through() -> None:
        for one in run_with_retries(executor, work, map(Item, range(items)), FIRM, stop=stop):
            settled.append(one)
            if len(settled) == after:
                stop.request(15)

    with pytest.raises(Cancelled) as caught:
        see_through()
    assert str(caught.value) == "stopped on request; run the same command again: finished chunks are kept"
    assert executor.closed
    return settled


def test_a_stop_begins_nothing_more_and_waits_for_what_runs(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {})
    names = by_name(stopped(executor, Stop(), after=5))
    # The fifth was the first of the second four; its place is not taken again.
    assert sorted(names) == list(range(8))
    assert executor.counts() == Counter(range(8))


def test_what_runs_longer_than_the_grace_period_is_given_up(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {}, seconds={3: 100.0, 5: 9.0})
    names = by_name(stopped(executor, Stop(grace_seconds=10), after=3))
    assert sorted(names) == [0, 1, 2, 4, 5]
    asked, grace, poll = 1001.0, 10.0, 0.5
    assert asked + grace <= clock.now <= asked + grace + poll


def test_what_ends_within_the_grace_period_counts(clock: Clock) -> None:
    executor = ScriptedExecutor(clock, {}, seconds={3: 9.0})
    names = by_name(stopped(executor, Stop(grace_seconds=10), after=3))
    assert sorted(names) == [0, 1, 2, 3, 4, 5]
    assert clock.now == 1009.0


@pytest.mark.parametrize("fault", ["io", "timeout", "kill", "memory"])
def test_what_a_stop_leaves_without_another_attempt_has_not_failed(clock: Clock, fault: Fault) -> None:
    executor = ScriptedExecutor(clock, {1: [fault] * 9}, seconds={1: 2.0, 2: 2.0, 3: 2.0})
    names = by_name(stopped(executor, Stop(), after=1))
    assert 1 not in names
    assert executor.counts() == Counter(range(4))


@pytest.mark.parametrize("fault", ["source", "rows", "job"])
def test_what_would_not_be_tried_again_has_failed_stop_or_not(clock: Clock, fault: Fault) -> None:
    executor = ScriptedExecutor(clock, {1: [fault]}, seconds={1: 2.0})
    found = by_name(stopped(executor, Stop(), after=1))
    assert found[1].error is ERRORS[fault]


def test_a_stop_before_the_beginning_begins_nothing(clock: Clock) -> None:
    executor, stop = ScriptedExecutor(clock, {}), Stop()
    stop.request()
    with pytest.raises(Cancelled):
        run(executor, 5, stop=stop)
    assert executor.executions == []


def test_a_stop_ends_a_long_delay(clock: Clock) -> None:
    executor, stop = ScriptedExecutor(clock, {0: ["io"]}), Stop()
    settling = run_with_retries(
        executor, work, map(Item, range(2)), RetriesConfig(delay_seconds=60, jitter=0), stop=stop
    )
    assert next(settling).item.name == 1
    stop.request()
    with pytest.raises(Cancelled):
        next(settling)
    assert clock.now < 1010


# Whatever happens

FAULTS = st.lists(st.sampled_from(["ok", "io", "timeout", "kill", "memory", "source"]), max_size=6)


@given(
    items=st.integers(0, 25),
    script=st.dictionaries(st.integers(0, 24), FAULTS, max_size=8),
    slots=st.integers(1, 6),
    seed=st.integers(0, 1000),
    attempts=st.integers(1, 4),
    floor=st.sampled_from([1, 2, 8]),
)
def test_nothing_is_lost_nothing_done_twice_and_nobody_blamed_for_another(
    items: int, script: dict[int, list[Fault]], slots: int, seed: int, attempts: int, floor: int
) -> None:
    clock, chance = Clock(), random.Random(seed)
    seconds = {name: chance.choice([0.5, 1.0, 3.0]) for name in range(items)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("siftline.engine.retries.time", clock)
        executor = ScriptedExecutor(clock, script, slots, seconds)
        settled, _ = run(executor, items, RetriesConfig(attempts=attempts), split=split_to(floor))

    found = by_name(settled)
    assert sorted(found) == list(range(items))
    for name, one in found.items():
        ran = executor.of(name)
        faulty = [fault for fault in script.get(name, []) if fault != "ok"]
        assert (one.value, one.error is None) in [(10 * name, True), (None, False)]
        assert one.attempts == len(ran)
        # Who has no fault of his own does not fail, whoever died beside him.
        assert faulty or one.error is None
        assert all(after.began >= before.ended for before, after in pairwise(ran))
        # Once suspected, always alone.
        suspected = [execution.fault in ("kill", "memory") for execution in ran]
        assert all(alone(after) for number, after in enumerate(ran) if any(suspected[:number]))
    # Every execution beyond the first is owed to a fault that came to pass, one's own or a neighbour's.
    owed = sum(one.fault != "ok" for one in executor.executions)
    assert len(executor.executions) <= items + owed
