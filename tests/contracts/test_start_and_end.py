"""Clusters that come up in part, or stop answering: the work ends, and leaves no process behind."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import forkserver
from typing import Any, cast

import psutil
import pytest
from distributed import LocalCluster as DaskLocalCluster

from siftline.config.batch import RetriesConfig
from siftline.config.clusters import AddressCluster, LocalCluster
from siftline.engine import DaskExecutor, Executor, open_executor, prepare_workers, run_with_retries
from siftline.errors import Cancelled, ClusterError
from siftline.progress import NOT_CLOSED, Incident, Report, listening
from siftline.system.signals import Stop
from tests.faults import nothing_left_behind, wait_until

pytestmark = pytest.mark.e2e


def double(item: int) -> int:
    return 2 * item


def take_long(item: int) -> None:
    time.sleep(60)  # until it is killed


def client_of(executor: Executor) -> Any:
    return cast(DaskExecutor, executor).client


def forks() -> list[psutil.Process]:
    """The processes that are forked for workers, the oldest first."""
    pid = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
    return sorted(psutil.Process(pid).children(), key=lambda process: process.create_time())


@contextmanager
def first_worker_frozen() -> Iterator[threading.Event]:
    """Freeze the first worker process as soon as it is there; yield an event that says so."""
    prepare_workers()
    frozen = threading.Event()
    before = set(forks())

    def freeze() -> None:
        new = wait_until(
            lambda: [process for process in forks() if process not in before], "a worker is there"
        )
        new[0].suspend()
        frozen.set()

    thread = threading.Thread(target=freeze)
    thread.start()
    yield frozen
    thread.join()


@pytest.mark.soak
def test_a_worker_that_does_not_come_up_is_done_without_and_ended() -> None:
    with (
        first_worker_frozen(),
        nothing_left_behind(),
        open_executor(LocalCluster(workers=2, memory_limit="1GiB")) as executor,
    ):
        settled = list(run_with_retries(executor, double, range(20), RetriesConfig()))
        assert len(client_of(executor).nthreads()) == 1
    assert sorted(one.result() for one in settled) == [2 * number for number in range(20)]


def test_workers_that_lack_the_memory_to_start_are_an_error_that_says_so() -> None:
    prepare_workers()
    error: Exception | None = None
    with nothing_left_behind(), open_executor(LocalCluster(workers=2, memory_limit="40MiB")) as executor:
        try:
            (settled,) = run_with_retries(executor, take_long, [1], RetriesConfig())
            error = settled.error
        except ClusterError as caught:
            error = caught
    # They may come up for a moment, and begin.
    assert "cluster.memory_limit" in str(error)


def test_a_cluster_that_does_not_close_in_order_is_named_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def not_closed(cluster: Any, timeout: float) -> None:
        end(cluster, timeout=timeout)
        raise RuntimeError("scripted")

    end = DaskLocalCluster.close
    monkeypatch.setattr(DaskLocalCluster, "close", not_closed)
    said: list[Report] = []
    with nothing_left_behind(), listening(said.append), open_executor(LocalCluster(workers=1)) as executor:
        (settled,) = run_with_retries(executor, double, [1], RetriesConfig())
    assert settled.result() == 2
    assert [report for report in said if isinstance(report, Incident)] == [
        Incident(NOT_CLOSED, "the Dask cluster did not close in order: scripted")
    ]


def test_a_process_that_does_not_start_is_an_error_and_ends_when_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("siftline.engine.forked._START_SECONDS", 0.2)
    monkeypatch.setattr("siftline.engine.forked._END_SECONDS", 0.2)
    prepare_workers()
    server = psutil.Process(forkserver._forkserver._forkserver_pid)  # type: ignore[attr-defined]
    with nothing_left_behind():
        server.suspend()
        try:
            with (
                open_executor(LocalCluster(), forked=True) as executor,
                pytest.raises(ClusterError, match="does not start: nothing after"),
            ):
                list(run_with_retries(executor, double, [1], RetriesConfig()))
        finally:
            server.resume()


def test_a_stop_while_a_cluster_starts_is_heeded() -> None:
    cluster = LocalCluster(workers=1, memory_limit="1GiB")
    with first_worker_frozen() as frozen, open_executor(cluster) as executor:
        stop = Stop(asked=frozen.is_set)
        with pytest.raises(Cancelled):
            list(run_with_retries(executor, double, [1], RetriesConfig(), stop=stop))
        assert not cast(DaskExecutor, executor).started()


@pytest.fixture
def pair() -> Iterator[Executor]:
    """Two workers that have been at work."""
    with open_executor(LocalCluster(workers=2, memory_limit="1GiB")) as executor:
        list(run_with_retries(executor, double, range(20), RetriesConfig()))
        wait_until(lambda: len(client_of(executor).nthreads()) == 2, "both workers are up")
        yield executor


def test_a_worker_that_is_frozen_before_it_begins_is_noticed_after_the_time_limit(pair: Executor) -> None:
    frozen = next(iter(client_of(pair).run(os.getpid).values()))
    os.kill(frozen, signal.SIGSTOP)
    settled = list(run_with_retries(pair, double, range(40), RetriesConfig(attempts=1), timeout_seconds=2))
    assert sorted(one.result() for one in settled) == [2 * number for number in range(40)]
    assert {one.attempts for one in settled} == {1}
    wait_until(lambda: not psutil.pid_exists(frozen), "the frozen worker is gone")


def test_all_workers_may_be_frozen_before_they_begin(pair: Executor) -> None:
    for worker in client_of(pair).run(os.getpid).values():
        os.kill(worker, signal.SIGSTOP)
    settled = list(run_with_retries(pair, double, range(10), RetriesConfig(attempts=1), timeout_seconds=2))
    assert {one.attempts for one in settled} == {1}


SCHEDULER = """
import sys
from distributed import LocalCluster
with LocalCluster(n_workers=1, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0") as cluster:
    print(cluster.scheduler_address, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def scheduler() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A scheduler with a worker in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", SCHEDULER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_frozen_scheduler_is_an_error_instead_of_a_wait_for_ever(
    scheduler: tuple[subprocess.Popen[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("siftline.engine.dask_workers._ANSWER_SECONDS", 0.5)
    process, address = scheduler
    with open_executor(AddressCluster(kind="address", address=address)) as executor:
        settling = run_with_retries(executor, double, itertools.count(), RetriesConfig())
        next(settling)
        process.send_signal(signal.SIGSTOP)
        with pytest.raises(ClusterError, match="the Dask scheduler does not answer"):
            list(settling)
