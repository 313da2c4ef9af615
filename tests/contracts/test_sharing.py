"""Clusters of others, shared or scaled: jobs share them by their slots, and leave nothing behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import distributed
import pytest

from siftline.config.batch import RetriesConfig
from siftline.config.clusters import AddressCluster, FactoryCluster, WorkerRange
from siftline.engine import Adapting, DaskExecutor, Executor, open_executor, run_with_retries
from siftline.engine.stragglers import Pace
from siftline.errors import SourceError
from siftline.progress import Incident, listening
from tests.faults import answers, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def scheduler() -> Iterator[distributed.LocalCluster]:
    """A scheduler with two workers of one thread and 1 GiB each, in this process."""
    with distributed.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=False,
        memory_limit="1GiB",
        protocol="tcp",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield cluster


def shared(cluster: distributed.LocalCluster, memory: str = "1GiB") -> AddressCluster:
    return AddressCluster(kind="address", address=cluster.scheduler_address, memory_limit=memory)


# Several jobs


def take_a_moment(item: int) -> int:
    time.sleep(0.005)  # the work itself
    return item


class Job(threading.Thread):
    """A job of its own client on a scheduler, and the number of its items that are done."""

    def __init__(self, cluster: AddressCluster, items: int, slots: int) -> None:
        super().__init__(daemon=True)
        self._cluster, self._items, self._slots = cluster, items, slots
        self.done = 0
        self.start()

    def run(self) -> None:
        with open_executor(self._cluster, slots=self._slots) as executor:
            for _ in run_with_retries(executor, take_a_moment, range(self._items), RetriesConfig()):
                self.done += 1


@pytest.mark.parametrize(("large_slots", "small_slots"), [(1, 1), (3, 1)])
def test_a_small_job_beside_a_large_one_gets_its_share_and_ends_long_before_it(
    scheduler: distributed.LocalCluster, large_slots: int, small_slots: int
) -> None:
    large = Job(shared(scheduler), 400, large_slots)
    wait_until(lambda: large.done > 30, "the large job has begun")
    small = Job(shared(scheduler), 40, small_slots)
    wait_until(lambda: small.done > 10, "the small job has its share")
    before, left_of_small = large.done, 40 - small.done
    small.join(60)
    meanwhile = large.done - before
    assert small.done == 40
    # By their slots, roughly: it is what a busy machine lets through.
    share = left_of_small * large_slots / small_slots
    assert share / 4 <= meanwhile <= 4 * share
    assert large.done < 350
    large.join(60)
    assert large.done == 400


@pytest.mark.parametrize(("wanted", "warnings"), [("1GiB", 0), ("512MiB", 0), ("2GiB", 1)])
def test_workers_with_less_memory_than_chunks_are_sized_for_are_a_warning(
    scheduler: distributed.LocalCluster, wanted: str, warnings: int
) -> None:
    found: list[Any] = []
    cluster = shared(scheduler, wanted)
    with listening(found.append), open_executor(cluster):
        pass
    assert [(one.kind, one.text) for one in found if isinstance(one, Incident)] == [
        (
            "less memory",
            f"a worker at {cluster.address} has 1,024 MiB, and cluster.memory_limit says 2,048 MiB: "
            "set it to what the workers have",
        )
    ] * warnings


# Release


_go_on, _begun = threading.Event(), threading.Event()


def wait_for_it(item: int) -> int:
    _go_on.wait(60)
    return item


def refuse_seven(item: int) -> int:
    if item == 7:
        raise SourceError("item 7", "leave it out")
    return item


def left(cluster: distributed.LocalCluster) -> set[str]:
    """Return the clients and the tasks that a scheduler knows of."""
    known = cluster.scheduler
    return {str(key) for key in known.tasks} | {str(key) for key in known.clients if key != "fire-and-forget"}


def nothing_left(cluster: distributed.LocalCluster) -> None:
    wait_until(lambda: not left(cluster), f"nothing is left of {left(cluster)}", 20)


def test_a_job_leaves_nothing_on_a_scheduler_whether_it_succeeds_fails_or_is_given_up(
    scheduler: distributed.LocalCluster,
) -> None:
    with open_executor(shared(scheduler), warm_up=str) as executor:
        assert len(list(answers(executor, take_a_moment, range(50)))) == 50
        wait_until(lambda: len(left(scheduler)) == 1, "only the client is left")
    nothing_left(scheduler)

    def fail() -> None:
        with open_executor(shared(scheduler)) as executor:
            for settled in run_with_retries(executor, refuse_seven, range(200), RetriesConfig()):
                settled.result()

    with pytest.raises(SourceError):
        fail()
    nothing_left(scheduler)

    with open_executor(shared(scheduler)) as executor:
        given_up = run_with_retries(executor, take_a_moment, range(1000), RetriesConfig())
        next(given_up)
        given_up.close()
        wait_until(lambda: len(left(scheduler)) == 1, "only the client is left")
    nothing_left(scheduler)


KILLED = """
import sys, time
from siftline.config.batch import RetriesConfig
from siftline.config.clusters import AddressCluster
from siftline.engine import open_executor, run_with_retries

with open_executor(AddressCluster(kind="address", address=sys.argv[1], memory_limit="1GiB")) as executor:
    list(run_with_retries(executor, time.sleep, [0.05] * 10_000, RetriesConfig()))
"""


def test_a_job_that_is_killed_leaves_nothing_on_a_scheduler(
    scheduler: distributed.LocalCluster, tmp_path: Path
) -> None:
    program = tmp_path / "job.py"
    program.write_text(KILLED)
    process = subprocess.Popen([sys.executable, program, scheduler.scheduler_address])
    try:
        wait_until(lambda: len(left(scheduler)) > 10, "the job is at work")
    finally:
        process.kill()
        process.wait(60)
    nothing_left(scheduler)


# A cluster of a class of one's own


IN_PROCESS = {
    "n_workers": 0,
    "threads_per_worker": 1,
    "processes": False,
    "dashboard_address": "127.0.0.1:0",
}


@pytest.fixture
def elastic() -> Iterator[Executor]:
    """One to three workers of a factory, in this process."""
    config = FactoryCluster(
        kind="factory",
        factory="distributed.LocalCluster",
        kwargs=IN_PROCESS,
        workers=WorkerRange(minimum=1, maximum=3),
    )
    with open_executor(config) as executor:
        yield executor


def workers(executor: Executor) -> int:
    return len(cast(DaskExecutor, executor).client.nthreads())


def processing(executor: Executor) -> list[int]:
    found = cast(DaskExecutor, executor).client.processing()
    return sorted(len(tasks) for tasks in found.values())


def test_scaling_down_closes_idle_workers_and_no_chunk_in_flight_with_them(elastic: Executor) -> None:
    assert (elastic.bounds, elastic.threads, workers(elastic)) == ((1, 3), 1, 1)
    assert elastic.scale(3) == 3
    wait_until(lambda: workers(elastic) == 3, "three workers are up")
    _go_on.clear()
    with elastic.session(wait_for_it) as session:
        session.submit((1, 2))
        wait_until(lambda: processing(elastic) == [0, 1, 1], "two workers are busy")

        assert elastic.scale(1) == 2
        wait_until(lambda: workers(elastic) == 2, "the idle one is gone")
        assert processing(elastic) == [1, 1]
        assert elastic.scale(1) == 2

        _go_on.set()
        found: list[int] = []
        while len(found) < 2:
            found += [answer.item for answer in session.wait(1.0)]
        assert sorted(found) == [1, 2]
        wait_until(lambda: elastic.scale(1) == 1, "the others are idle at last")
        wait_until(lambda: workers(elastic) == 1, "one is left")


def test_a_factory_scales_with_the_work_between_its_bounds(
    elastic: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.engine.adaptation.COOLDOWN_SECONDS", 0.0)
    _go_on.clear()
    found: list[Any] = []

    def react(report: Any) -> None:
        found.append(report)
        if isinstance(report, Incident) and "up to 3 workers" in report.text:
            _go_on.set()

    with listening(react):
        adapting = Adapting(elastic, 60, seconds=0.01)
        settling = run_with_retries(elastic, wait_for_it, range(60), RetriesConfig(), adapting=adapting)
        assert sorted(one.result() for one in settling) == list(range(60))
    texts = [one.text for one in found if isinstance(one, Incident)]
    assert texts[:2] == [
        "scaled up to 2 workers: 60 chunks left for 1 worker",
        "scaled up to 3 workers: 60 chunks left for 2 workers",
    ]


def wait_on_one(item: int) -> int:
    """Wait forever on the first worker that has item 7."""
    if item == 7 and not _begun.is_set():
        _begun.set()
        _go_on.wait(60)
    return item


def test_a_straggler_on_the_last_worker_gets_another_worker(
    elastic: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.engine.adaptation.COOLDOWN_SECONDS", 0.0)
    monkeypatch.setattr("siftline.engine.dask_session.Pace", partial(Pace, least_seconds=0.3))
    monkeypatch.setattr("siftline.engine.adaptation.BUSY_CHUNKS", 1e9)  # no worker for the backlog
    _go_on.clear()
    _begun.clear()
    found: list[Any] = []
    with listening(found.append):
        adapting = Adapting(elastic, 10, seconds=0.01)
        settling = run_with_retries(elastic, wait_on_one, range(10), RetriesConfig(), adapting=adapting)
        assert sorted(one.result() for one in settling) == list(range(10))
    assert not _go_on.is_set(), "the first start has not come to its end"
    _go_on.set()
    texts = [one.text.partition(":")[0] for one in found if isinstance(one, Incident)]
    assert texts[0] == "scaled up to 2 workers"
    assert texts.count("7") == 1


def test_the_window_follows_the_slots_the_threads_and_what_adapting_asks_for(
    elastic: Executor,
) -> None:
    with elastic.session(wait_for_it) as session:
        assert session.room == 32
        session.narrow(4, 0)
        assert session.room == 4
        session.narrow(8, 1)
        assert session.room == 1
        elastic.scale(3)
        wait_until(lambda: session.room == 3, "each worker has a chunk")
        session.narrow(2, 0)
        assert session.room == 6
        session.narrow(1, 0)
        assert session.room == 3
    client = cast(DaskExecutor, elastic).client
    with DaskExecutor(lambda: client, slots=2).session(wait_for_it) as session:
        assert session.room == 16
        session.narrow(1, 0)
        assert session.room == 2
