"""Execution in one forked process: what one worker does needs no cluster.

A Dask cluster costs a job more time than some ten thousand rows. The process is forked from the same server
as the workers of a local cluster, and replaced when it ends, hangs, or exceeds its memory.
"""

from __future__ import annotations

import math
import multiprocessing
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic

import psutil

from siftline.engine.attempt import attempt, lines_heard, overdue, worker_lost
from siftline.engine.base import USAGE_SECONDS, Answer, R, Session, T, name_of
from siftline.engine.in_flight import Sent
from siftline.engine.workers import START_METHOD, prepare_workers
from siftline.errors import ClusterError
from siftline.progress import LogLine, Usage, WorkerUsage, emit
from siftline.system.signals import hold_signals

# Of the memory limit, as Dask's nannies have it.
_MOST_MEMORY = 0.95
_LOOK_SECONDS = 0.1
_START_SECONDS = 60.0
_END_SECONDS = 5.0


class ForkedExecutor:
    """Runs items in a forked process, which starts in the background and is closed at the end.

    `memory` is the largest resident size of the process in bytes, None without a limit; `warm_up` runs in it
    first, for imports. Its usage is emitted unless it is no `worker`.
    """

    dashboard: str | None = None
    bounds = (1, 1)
    threads = 1

    def __init__(
        self, memory: int | None, warm_up: Callable[[], None] | None = None, worker: bool = True
    ) -> None:
        self.worker = worker
        self._memory = memory
        self._warm_up = warm_up
        self._free: list[_Process] = []
        self._closed = False
        self._until = time.monotonic() + _START_SECONDS
        prepare_workers(cluster=False)
        self._first = threading.Thread(target=self._start_first, name="siftline-fork", daemon=True)
        self._first.start()

    def started(self) -> bool:
        """Return true once a session opens at once, or raises."""
        return not self._first.is_alive() or time.monotonic() > self._until

    def scale(self, workers: int) -> int:
        """Return 1: there is one process."""
        return 1

    @contextmanager
    def session(
        self, function: Callable[[T], R], bundle: int = 1, timeout_seconds: float | None = None
    ) -> Iterator[Session[T, R]]:
        """Open a session; each has a process of its own while others are open.

        A process that does not start raises `ClusterError`.
        """
        self._first.join(max(0.0, self._until - time.monotonic()))
        if self._first.is_alive():
            raise _not_started(f"nothing after {_START_SECONDS:g} s")
        session: _ForkedSession[T, R] = _ForkedSession(self, function, bundle, timeout_seconds)
        try:
            yield session
        finally:
            session.close()

    def take(self) -> _Process:
        """Return a free process; raise ClusterError if none can be forked."""
        while self._free:
            process = self._free.pop()
            if process.alive:
                return process
            process.end()
        prepare_workers(cluster=False)  # the server that it is forked from may have ended, too
        return self._forked()

    def give_back(self, process: _Process) -> None:
        """Keep a process for the next session."""
        self._free.append(process)

    def close(self) -> None:
        """End the processes; one that still starts ends then."""
        self._closed = True
        self._first.join(_END_SECONDS)
        self._end_free()

    def _end_free(self) -> None:
        with suppress(IndexError):
            while True:
                self._free.pop().end()

    def _start_first(self) -> None:
        hold_signals()
        with suppress(ClusterError):  # the session that needs it tries again, and raises
            self._free.append(self._forked())
        if self._closed:
            self._end_free()

    def _forked(self) -> _Process:
        try:
            return _Process(self._memory, self._warm_up)
        except (OSError, EOFError) as error:
            raise _not_started(" ".join(str(error).split())) from error


def _not_started(reason: str) -> ClusterError:
    problem = f"the process for the job does not start: {reason}"
    return ClusterError(problem, "check the memory and the disk of this machine")


class _Process:
    """A forked process, and the connection to it."""

    def __init__(self, memory: int | None, warm_up: Callable[[], None] | None) -> None:
        context: Any = multiprocessing.get_context(START_METHOD)  # not typed
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(theirs, warm_up), name="siftline-worker", daemon=True
        )
        self._process.start()
        theirs.close()
        self._memory = memory
        self._known = psutil.Process(self._process.pid)

    @property
    def alive(self) -> bool:
        """True until it ends."""
        return bool(self._process.is_alive())

    def send(self, function: Callable[[T], R], items: tuple[T, ...]) -> None:
        """Send items without a wait for a process that may be frozen."""
        message = ForkingPickler.dumps((function, items))

        def send() -> None:
            with suppress(OSError):  # it has ended, which its reader sees
                self.connection.send_bytes(message)

        threading.Thread(target=send, name="siftline-send", daemon=True).start()

    def usage(self) -> tuple[WorkerUsage, ...]:
        """Return CPU and memory; nothing once it has ended."""
        with suppress(psutil.Error):
            cpu, memory = self._known.cpu_percent(), self._known.memory_info().rss
            return (WorkerUsage(f"process {self._known.pid}", cpu, memory, self._memory),)
        return ()

    def exceeds_memory(self) -> bool:
        """Return true if it has nearly all the memory that it may have."""
        with suppress(psutil.Error):
            return self._memory is not None and self._known.memory_info().rss > _MOST_MEMORY * self._memory
        return False

    def end(self) -> None:
        """Kill it, and wait for its end."""
        self._process.kill()
        self._process.join(_END_SECONDS)
        self.connection.close()  # now that nothing is sent any more


def _serve(connection: Connection, warm_up: Callable[[], None] | None) -> None:
    """Answer items until the connection ends."""
    hold_signals()
    if warm_up is not None:
        warm_up()
    with suppress(EOFError, OSError):
        while True:
            function, items = connection.recv()
            with lines_heard(connection.send) as begin:
                for item in items:
                    begin(name_of(item, function))
                    connection.send(_answer(function, item))


def _answer(function: Callable[[Any], Any], item: Any) -> tuple[Any, Exception | None, float | None]:
    try:
        return attempt(function, item)
    except Exception as error:  # noqa: BLE001  a bug, which the coordinator raises
        return None, _portable(error), None


def _portable(error: Exception) -> Exception:
    """Return an error, or its text if it cannot travel."""
    try:
        ForkingPickler.loads(ForkingPickler.dumps(error))
    except Exception:  # noqa: BLE001  whatever a foreign class raises
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _ForkedSession(Generic[T, R]):
    def __init__(
        self, executor: ForkedExecutor, function: Callable[[T], R], bundle: int, timeout: float | None
    ) -> None:
        self._executor = executor
        self._function = function
        self._bundle = bundle
        self._timeout = timeout or math.inf
        self._process: _Process | None = None
        self._items: deque[T] = deque()
        self._began = math.inf
        self._next_look = self._next_usage = -math.inf

    @property
    def room(self) -> int:
        return 0 if self._items else self._bundle

    @property
    def late(self) -> int:
        return 0

    def narrow(self, window: int, busy: int) -> None:
        """Do nothing: there is one item at a time."""

    def usage(self) -> tuple[WorkerUsage, ...]:
        return self._process.usage() if self._process is not None else ()

    def submit(self, items: tuple[T, ...]) -> None:
        self._process = self._process or self._executor.take()
        self._items.extend(items)
        self._began = time.monotonic()
        self._process.send(self._function, items)

    def wait(self, seconds: float) -> list[Answer[T, R]]:
        process = self._process
        if not self._items or process is None:
            time.sleep(seconds)
            return []
        answers: list[Answer[T, R]] = []
        deadline = time.monotonic() + seconds
        try:
            while not answers and (left := deadline - time.monotonic()) > 0:
                self._look(process)
                if process.connection.poll(min(left, _LOOK_SECONDS)):
                    answers += self._received(process)
                elif time.monotonic() - self._began > self._timeout:
                    return self._failed(overdue(self._timeout))
        except (EOFError, OSError):
            return answers + self._failed(worker_lost())
        return answers

    def close(self) -> None:
        """Give the process back, or end one that is at work."""
        process, self._process = self._process, None
        if process is not None and self._items:
            process.end()
        elif process is not None:
            self._executor.give_back(process)

    def _received(self, process: _Process) -> list[Answer[T, R]]:
        message = process.connection.recv()
        if isinstance(message, LogLine):
            emit(message)
            return []
        self._began = time.monotonic()
        return [Answer(self._items.popleft(), *message)]

    def _look(self, process: _Process) -> None:
        """Bound the memory of the process, and report its usage now and then."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + _LOOK_SECONDS
            if process.exceeds_memory():
                raise EOFError
        if self._executor.worker and now >= self._next_usage:
            self._next_usage = now + USAGE_SECONDS
            emit(Usage(process.usage()))

    def _failed(self, error: Exception) -> list[Answer[T, R]]:
        """End the process; only the first item can have begun."""
        if self._process is not None:
            self._process.end()
        self._process = None
        left: Sent[T, R] = Sent(tuple(self._items))
        self._items.clear()
        return left.failed(error, "alone")
