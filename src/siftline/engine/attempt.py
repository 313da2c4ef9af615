"""One attempt at an item, in the process that does the work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

from siftline.engine.base import R, T, name_of
from siftline.errors import ChunkTimeout, OutOfMemory, SiftlineError, WorkerLost, storage_error
from siftline.progress import LogLine

MORE_MEMORY = "give workers more memory (cluster.memory_limit), or cut smaller chunks (chunking.rows)"
# Of a bundle; more would drown the log of the run.
_MOST_LINES = 20
_LONGEST_LINE = 2_000
# Logs of those who carry ours.
_FOREIGN = ("prefect", "distributed")
# A thread of a worker has a connection to the scheduler, so that its events keep their order.
_of_thread = threading.local()


def worker_lost() -> WorkerLost:
    """Return the error of an item whose worker is gone."""
    return WorkerLost("the worker was lost while it had this chunk", MORE_MEMORY)


def overdue(seconds: float) -> ChunkTimeout:
    """Return the error of an item without an answer after its time."""
    return ChunkTimeout(
        f"no result after {seconds:g} s; the worker was restarted",
        "raise chunking.timeout_seconds, or cut smaller chunks (chunking.rows)",
    )


def attempt(function: Callable[[T], R], item: T) -> tuple[R | None, SiftlineError | None, float]:
    """Return the value or the known error, and the seconds; an unknown error, a bug, is raised."""
    began = time.perf_counter()
    value, error = _attempt(function, item)
    return value, error, time.perf_counter() - began


def _attempt(function: Callable[[T], R], item: T) -> tuple[R | None, SiftlineError | None]:
    # As a value, because Dask would print the traceback of a raised error on the worker.
    try:
        return function(item), None
    except SiftlineError as error:
        return None, error
    except MemoryError as error:
        return None, OutOfMemory(f"out of memory {error}".strip(), MORE_MEMORY)
    except OSError as error:
        return None, storage_error(error, error.filename or function.__name__)


@dataclass(frozen=True)
class Bundle(Generic[T]):
    """Items that travel together; a short text in Dask's messages and pages, whatever they hold."""

    items: tuple[T, ...]

    def __repr__(self) -> str:
        return f"Bundle of {len(self.items)}"


@dataclass(frozen=True)
class AttemptAll(Generic[T, R]):
    """Attempts a bundle on a Dask worker; `topic` gets each item's start and answer as events.

    Answers travel as events: a result on the worker is lost with it, and a frozen worker blocks the fetch.
    """

    function: Callable[[T], R]
    topic: str

    def __repr__(self) -> str:
        return self.function.__name__

    def __call__(self, bundle: Bundle[T]) -> None:
        """Attempt each item after the event that it begins."""
        from distributed import get_worker
        from distributed.protocol.pickle import dumps

        worker = get_worker()
        about = {"key": worker.get_current_task(), "worker": worker.address}
        begins = about | {"begins": worker.state.nthreads}

        def send(line: LogLine) -> None:
            _tell_scheduler(worker, self.topic, about | {"line": dumps(line)})

        answer: dict[str, bytes] = {}
        with lines_heard(send) as begin:
            for item in bundle.items:
                _tell_scheduler(worker, self.topic, begins | answer)
                begin(name_of(item, self.function))
                answer = {"answer": dumps(attempt(self.function, item))}
        _tell_scheduler(worker, self.topic, about | answer)


def _tell_scheduler(worker: Any, topic: str, message: dict[str, Any]) -> None:
    """Send an event at once and in order, even if this process is killed next.

    Dask would collect events for some milliseconds.
    """
    from distributed.utils import sync

    async def write(comm: Any) -> Any:
        if comm is None:
            comm = await worker.rpc.connect(worker.scheduler.address)
        await comm.write({"op": "log_event", "topic": topic, "msg": message, "reply": False})
        return comm

    try:
        _of_thread.comm = sync(worker.loop, write, getattr(_of_thread, "comm", None))
    except (OSError, TimeoutError):
        _of_thread.comm = None
        worker.log_event(topic, message)  # it is sent when there is a connection again


@contextmanager
def lines_heard(take: Callable[[LogLine], None]) -> Iterator[Callable[[object], None]]:
    """Pass what this thread logs to `take`; yield a function that sets the item it is about."""
    listener = _Listener(take)
    logging.getLogger().addHandler(listener)
    try:
        yield listener.begin
    finally:
        logging.getLogger().removeHandler(listener)


class _Listener(logging.Handler):
    def __init__(self, take: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._take = take
        self._thread = threading.get_ident()
        self._item: object = ""
        self._left = _MOST_LINES

    def begin(self, item: object) -> None:
        self._item = item

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread != self._thread or record.name.partition(".")[0] in _FOREIGN or not self._left:
            return
        self._left -= 1
        try:
            text = record.getMessage()[:_LONGEST_LINE]
        except Exception:  # noqa: BLE001  arguments that do not fit, or refuse to become text
            text = record.msg[:_LONGEST_LINE] if isinstance(record.msg, str) else type(record.msg).__name__
        self._take(LogLine(record.levelno, record.name, text, str(self._item)))
