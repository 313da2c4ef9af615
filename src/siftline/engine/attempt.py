"""One attempt at an item, in the process that does the work."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from siftline.engine.base import R, T
from siftline.errors import OutOfMemory, SiftlineError, storage_error
from siftline.progress import LogLine

MORE_MEMORY = "give workers more memory (cluster.memory_limit), or cut smaller chunks (chunking.rows)"
# Of a bundle; more would drown the log of the run.
_MOST_LINES = 20
_LONGEST_LINE = 2_000
# Logs of those who carry ours.
_FOREIGN = ("prefect", "distributed")


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


def attempt_all(items: tuple[T, ...], function: Callable[[T], R], topic: str) -> None:
    """Attempt a bundle on a Dask worker, and send the answers at once.

    They travel as an event: a result on the worker is lost with it, and a frozen worker blocks the fetch.
    """
    from distributed import get_worker
    from distributed.protocol.pickle import dumps

    worker = get_worker()
    key = worker.get_current_task()
    worker.log_event(topic, {"key": key, "worker": worker.address})

    def send(line: LogLine) -> None:
        worker.log_event(topic, {"key": key, "line": dumps(line)})

    with lines_heard(send) as begin:
        answers = []
        for item in items:
            begin(item)
            answers.append(attempt(function, item))
    worker.log_event(topic, {"key": key, "answers": dumps(answers)})


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
