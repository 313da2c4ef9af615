"""Runs that are starting in a process of this machine, and have no job yet."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import AwareDatetime

from siftline.errors import StorageError
from siftline.storage.layout import CheckpointFiles, Version
from siftline.storage.records import Record, RecordFile


class Starting(Record):
    """A process that is about to run a batch."""

    name: str
    host: str
    pid: int
    at: AwareDatetime


@contextmanager
def starting(checkpoint: Path | str, name: str) -> Iterator[None]:
    """Record within the block that this process starts a run; a failure to do so has no consequences."""
    here = Starting(name=name, host=socket.gethostname(), pid=os.getpid(), at=datetime.now(UTC))
    record = _record(CheckpointFiles.at(checkpoint).starting / f"{name}-{here.pid}.json")
    with suppress(StorageError):
        record.write(here, durable=False)
    try:
        yield
    finally:
        with suppress(OSError):  # directories that are not empty stay
            record.path.unlink(missing_ok=True)
            record.path.parent.rmdir()
            record.path.parent.parent.rmdir()


def find_starting(checkpoint: Path | str, name: str) -> Starting | None:
    """Return the last process that starts a run of that name, if it lives on this machine."""
    paths = CheckpointFiles.at(checkpoint).starting.glob(f"{name}-*.json")
    found = [one for one in (_record(path).read_or(None) for path in paths) if one is not None]
    lives = [one for one in found if one.host == socket.gethostname() and psutil.pid_exists(one.pid)]
    return max((one for one in lives if one.name == name), key=lambda one: one.at, default=None)


def _record(path: Path) -> RecordFile[Starting]:
    return RecordFile(path, Starting, Version.STARTING)
