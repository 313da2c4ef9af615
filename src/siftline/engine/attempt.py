"""One attempt at an item, in the process that does the work."""

from __future__ import annotations

from collections.abc import Callable

from siftline.engine.base import R, T
from siftline.errors import OutOfMemory, SiftlineError, storage_error

MORE_MEMORY = "give workers more memory (cluster.memory_limit), or cut smaller chunks (chunking.rows)"


def attempt(function: Callable[[T], R], item: T) -> tuple[R | None, SiftlineError | None]:
    """Return the value or the known error; an unknown one, a bug, is raised."""
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
    answers = [attempt(function, item) for item in items]
    worker.log_event(topic, {"key": key, "answers": dumps(answers)})
