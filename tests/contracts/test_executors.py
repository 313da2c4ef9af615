"""One body of tests for every executor."""

from __future__ import annotations

import errno
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import distributed
import httpx
import pytest

from siftline.config.batch import RetriesConfig
from siftline.config.clusters import AddressCluster, FactoryCluster, LocalCluster
from siftline.engine import DaskExecutor, Executor, SerialExecutor, open_executor, run_with_retries
from siftline.errors import (
    ClusterError,
    OutOfMemory,
    SourceError,
    StorageError,
    StorageUnavailable,
    WorkerLost,
)
from tests.faults import answers, value_of, wait_until
from tests.support import counting

pytestmark = pytest.mark.e2e
# The most that two workers of one thread are given ahead.
WINDOW = 32


def double(item: int) -> int:
    return 2 * item


def refuse_odd(item: int) -> int:
    if item % 2:
        raise SourceError(f"item {item}", "give an even one")
    return item


def fail_unexpectedly(item: int) -> int:
    return 1 // item


def fail_by_number(item: int) -> int:
    errors = [
        MemoryError("no room"),
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file"),
        OSError(errno.EIO, os.strerror(errno.EIO), "a file"),
        OSError("odd"),
    ]
    if item < len(errors):
        raise errors[item]
    return item


def touch(path: str) -> int:
    Path(path).touch()
    return os.getpid()


def touch_slowly(path: str) -> None:
    time.sleep(0.2)
    Path(path).touch()


def die(item: int) -> None:
    os._exit(item)


@pytest.mark.parametrize("bundle", [1, 7, 1000])
def test_every_item_has_one_answer(executor: Executor, bundle: int) -> None:
    given = list(answers(executor, double, range(100), bundle))
    assert sorted((one.item, value_of(one)) for one in given) == [(i, 2 * i) for i in range(100)]


def test_no_items_give_no_answers(executor: Executor) -> None:
    assert list(answers(executor, double, [])) == []


def test_equal_items_are_all_run(executor: Executor) -> None:
    assert [value_of(one) for one in answers(executor, double, [7] * 5)] == [14] * 5


@pytest.mark.parametrize("bundle", [1, 4])
def test_an_error_is_the_answer_to_its_item_only(executor: Executor, bundle: int) -> None:
    given = {one.item: one for one in answers(executor, refuse_odd, range(10), bundle)}
    assert {item for item, one in given.items() if one.error is None} == {0, 2, 4, 6, 8}
    with pytest.raises(SourceError) as caught:
        value_of(given[3])
    assert (caught.value.problem, caught.value.remedy) == ("item 3", "give an even one")


def test_an_unknown_exception_comes_through_as_it_is(executor: Executor) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_with_retries(executor, fail_unexpectedly, [0], RetriesConfig()))


class Odd(Exception):
    """An error that cannot be read back where it was not raised."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one + other)


def fail_oddly(item: int) -> int:
    raise Odd("an odd ", "error")


def test_an_error_that_cannot_travel_comes_through_as_its_text(forked: Executor) -> None:
    with pytest.raises(RuntimeError, match="Odd: an odd error"):
        list(run_with_retries(forked, fail_oddly, [0], RetriesConfig()))


def grow(item: int) -> int:
    return len(bytearray(item))


def hold(item: int) -> None:
    held = bytearray(item)
    held[::4096] = b"1" * len(held[::4096])
    time.sleep(60)  # until it is killed


def test_a_process_beyond_its_memory_is_replaced(forked: Executor) -> None:
    first, second = (
        next(answers(forked, function, [1_100 << 20 if function is hold else 1])) for function in (hold, grow)
    )
    assert isinstance(first.error, WorkerLost)
    assert "cluster.memory_limit" in str(first.error)
    assert value_of(second) == 1


@pytest.mark.parametrize("bundle", [1, 4])
@pytest.mark.parametrize(
    ("item", "kind", "text"),
    [
        (0, OutOfMemory, "out of memory no room; give workers more memory (cluster.memory_limit), or cut "),
        (1, StorageError, "a file: No space left on device; free some space and run "),
        (2, StorageUnavailable, "a file: Input/output error; check the path and the disk, then run again: "),
        (3, StorageUnavailable, "fail_by_number: odd; check the path and the disk, then run again: "),
    ],
)
def test_errors_of_the_machine_are_the_answer_to_their_item_only(
    executor: Executor, item: int, kind: type[Exception], text: str, bundle: int
) -> None:
    given = {one.item: one for one in answers(executor, fail_by_number, [item, 9], bundle)}
    assert type(given[item].error) is kind
    assert str(given[item].error).startswith(text)
    assert value_of(given[9]) == 9


@pytest.mark.parametrize("bundle", [1, 4])
def test_items_may_be_submitted_after_a_pause_and_after_an_answer(executor: Executor, bundle: int) -> None:
    with executor.session(double, bundle) as session:
        assert session.wait(0.0) == []
        for number in range(5):
            assert session.wait(0.001) == []
            session.submit((number,))
            (answer,) = wait_until(lambda: session.wait(1.0), "the item is answered")
            assert (answer.item, value_of(answer)) == (number, 2 * number)


@pytest.mark.parametrize("bundle", [1, 4])
def test_a_full_session_has_room_again_after_its_answers(executor: Executor, bundle: int) -> None:
    with executor.session(double, bundle) as session:
        empty = session.room
        assert 1 <= empty <= WINDOW * bundle
        session.submit(tuple(range(empty)))
        assert session.room == 0
        answered: list[int] = []
        while len(answered) < empty:
            coming = wait_until(lambda: session.wait(1.0), "items are answered")
            answered += [one.item for one in coming]
        assert sorted(answered) == list(range(empty))
        assert session.room == empty


def test_items_are_taken_only_as_there_is_room(executor: Executor) -> None:
    with counting(range(500)) as (items, taken):
        settling = run_with_retries(executor, double, items, RetriesConfig())
        assert taken == []
        for received, _ in enumerate(settling, start=1):
            assert len(taken) <= received + WINDOW
    assert received == 500


def test_an_error_of_the_items_themselves_comes_through(executor: Executor) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise RuntimeError("no more items")

    with pytest.raises(RuntimeError, match="no more items"):
        list(run_with_retries(executor, double, broken(), RetriesConfig()))


def test_closing_early_gives_up_what_has_not_started(executor: Executor, tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}") for number in range(40)]
    settling = run_with_retries(executor, touch_slowly, paths, RetriesConfig())
    next(settling)
    settling.close()
    assert [value_of(one) for one in answers(executor, double, [1])] == [2]
    assert 1 <= len(list(tmp_path.iterdir())) < 20


def test_a_second_session_may_open_before_the_first_is_closed(executor: Executor) -> None:
    first = answers(executor, double, range(50))
    next(first)
    assert sorted(value_of(one) for one in answers(executor, refuse_odd, [2, 4])) == [2, 4]
    assert len(list(first)) == 49


def test_the_work_is_done_where_the_executor_says(dask_executor: Executor, tmp_path: Path) -> None:
    here = {value_of(one) for one in answers(SerialExecutor(), touch, [str(tmp_path / "a")])}
    there = {value_of(one) for one in answers(dask_executor, touch, [str(tmp_path / "b")])}
    assert here == {os.getpid()}
    assert os.getpid() not in there
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_dask_has_a_dashboard_and_serial_has_none() -> None:
    cluster = LocalCluster(workers=1, memory_limit="1GiB")
    with open_executor(cluster, dashboard_after_seconds=0.1) as executor:
        page = str(executor.dashboard)
        wait_until(lambda: httpx.get(page).is_success, "the dashboard is there")
        assert "Dask" in httpx.get(page).text
    assert SerialExecutor().dashboard is None


def test_work_that_kills_its_worker_is_a_lost_worker() -> None:
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        (answer,) = answers(DaskExecutor(lambda: client), die, [1])
    assert type(answer.error) is WorkerLost
    assert str(answer.error) == (
        "the worker was lost while it had this chunk; "
        "give workers more memory (cluster.memory_limit), or cut smaller chunks (chunking.rows)"
    )


def test_an_address_that_nobody_answers_is_known_within_seconds() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{bound.getsockname()[1]}"
        config = AddressCluster(kind="address", address=address, timeout_seconds=1)
        with pytest.raises(ClusterError) as caught, open_executor(config):
            pass
    assert str(caught.value).startswith(f"cluster.address {address}: no scheduler answers there (")
    assert str(caught.value).endswith("); start one with `dask scheduler`, or correct the address")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("no_such_module.Cluster", "No module named 'no_such_module'; install it, or correct the path"),
        (
            "pathlib.NoSuchClass",
            "module 'pathlib' has no attribute 'NoSuchClass'; install it, or correct the path",
        ),
        ("pathlib.Path", "not a Dask cluster class; give one, such as dask_jobqueue.SLURMCluster"),
    ],
)
def test_a_factory_that_is_none_is_a_cluster_error(factory: str, text: str) -> None:
    config = FactoryCluster(kind="factory", factory=factory)
    with pytest.raises(ClusterError) as caught, open_executor(config) as executor:
        list(answers(executor, double, [1]))
    assert str(caught.value) == f"cluster.factory {factory}: {text}"


class Refusing(distributed.LocalCluster):
    """A cluster that cannot be started."""

    def __init__(self, **kwargs: object) -> None:
        raise ValueError(f"no account given, only {sorted(kwargs)}")

    def __del__(self) -> None:
        pass


def test_a_factory_that_fails_is_a_cluster_error() -> None:
    name = f"{__name__}.Refusing"
    config = FactoryCluster(kind="factory", factory=name, kwargs={"queue": "short"})
    with pytest.raises(ClusterError) as caught, open_executor(config) as executor:
        list(answers(executor, double, [1]))
    assert str(caught.value) == (
        f"cluster.factory {name}: ValueError: no account given, only ['queue']; correct cluster.kwargs"
    )


class Queued(distributed.LocalCluster):
    """A cluster whose workers never come."""

    closed = threading.Event()

    def __init__(self, **kwargs: object) -> None:
        super().__init__(n_workers=0, processes=False, dashboard_address="127.0.0.1:0")

    def scale(self, *args: object, **kwargs: object) -> None:
        pass

    def close(self, timeout: float | None = None) -> None:
        super().close(timeout)
        self.closed.set()


def test_a_cluster_that_is_still_waited_for_is_closed_when_nobody_wants_it_any_more() -> None:
    config = FactoryCluster(kind="factory", factory=f"{__name__}.Queued", timeout_seconds=3600)

    def open_and_close() -> None:
        with open_executor(config):
            pass

    thread = threading.Thread(target=open_and_close, daemon=True)
    thread.start()

    assert Queued.closed.wait(60)
    thread.join(60)
    assert not thread.is_alive()


def test_a_local_cluster_that_does_not_start_is_a_cluster_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: object, **kwargs: object) -> None:
        raise RuntimeError("Cluster failed to start: no space") from OSError(28, "No space left on device")

    monkeypatch.setattr("distributed.LocalCluster", start)
    with pytest.raises(ClusterError) as caught, open_executor(LocalCluster(workers=1)) as executor:
        list(answers(executor, double, [1]))
    assert str(caught.value) == (
        "the local Dask cluster does not start: [Errno 28] No space left on device; "
        "check the memory and the disk of this machine"
    )


_may_go_on = threading.Event()


def wait_for_it(item: int) -> int:
    _may_go_on.wait(60)
    return item


def test_workers_that_come_later_get_work_as_well() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(200):
            taken.append(number)
            yield number

    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=8, processes=False, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        found: list[int] = []
        coming = answers(DaskExecutor(lambda: client), wait_for_it, items())
        thread = threading.Thread(target=lambda: found.extend(map(value_of, coming)), daemon=True)
        thread.start()
        wait_until(lambda: len(taken) == 64, "eight for each of eight slots are taken")
        cluster.scale(2)
        wait_until(lambda: len(taken) == 128, "and for each of sixteen, when there are so many")
        _may_go_on.set()
        thread.join(60)
    assert sorted(found) == list(range(200))


# In a process of its own: this one has imported Dask with Dask's own settings.
LEVELS = """
import logging
from siftline.config.batch import RetriesConfig
from siftline.config.clusters import LocalCluster
from siftline.engine import open_executor, prepare_workers, run_with_retries

def level_of(logger):
    return logging.getLogger(logger).getEffectiveLevel()

if __name__ == "__main__":
    loggers = ["distributed.worker", "distributed.worker.state_machine", "distributed.core"]
    prepare_workers()
    with open_executor(LocalCluster(workers=1)) as executor:
        settled = list(run_with_retries(executor, level_of, loggers, RetriesConfig()))
    print([one.result() for one in settled])
"""


@pytest.mark.slow
def test_workers_do_not_log_lost_connections(tmp_path: Path) -> None:
    program = tmp_path / "levels.py"
    program.write_text(LEVELS)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True)
    assert done.stdout == f"{[logging.CRITICAL] * 3}\n", done.stderr
