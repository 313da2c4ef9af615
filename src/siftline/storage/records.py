"""Small records beside the jobs, in which the runs of a pipeline leave word to one another."""

from __future__ import annotations

import copy
import errno
import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from siftline.errors import IntegrityError, storage_error
from siftline.storage.files import read_record, write_record

FORMAT_VERSION = 1
_LOCK_SECONDS = 5.0
_POLL_SECONDS = 0.05


def read_ledger(path: Path) -> dict[str, Any]:
    """Return a record; nothing, where there is none or it is damaged."""
    try:
        return read_record(path, FORMAT_VERSION)
    except (OSError, IntegrityError):
        return {}


@contextmanager
def updating(path: Path) -> Iterator[dict[str, Any]]:
    """Give a record to change, while no other run does; it is written where it was changed.

    Raises
    ------
    StorageError
        When it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_suffix(".lock").open("w")
    except OSError as error:
        raise storage_error(error, path) from error
    with lock:
        _lock(lock)
        record = read_ledger(path)
        before = copy.deepcopy(record)
        yield record
        if record != before:
            write_record(path, record, FORMAT_VERSION)


def _lock(file: IO[str]) -> None:
    """Lock a file; but who holds it may be frozen, and a word lost is better than waiting for ever."""
    deadline = time.monotonic() + _LOCK_SECONDS
    while time.monotonic() < deadline:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                return  # a file system without locks
        else:
            return
        time.sleep(_POLL_SECONDS)
