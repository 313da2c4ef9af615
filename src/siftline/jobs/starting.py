"""Runs that are starting in a process of this machine, and have no job yet."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import AwareDatetime, PositiveInt

from siftline.errors import StorageError
from siftline.storage.layout import CheckpointFiles, Version
from siftline.storage.records import Record, RecordFile


class Starting(Record):
    """A process that is about to run a batch."""

    name: str
    host: str
    pid: PositiveInt
    at: AwareDatetime


@contextmanager
def starting(checkpoint: Path | str, name: str) -> Iterator[None]:
    """Record within the block that this process starts a run; a failure to do so has no consequences."""
    here = Starting(name=name, host=socket.gethostname(), pid=os.getpid(), at=datetime.now(UTC))
    files = CheckpointFiles.at(checkpoint)
    record = _record(files.starting / f"{name}-{here.pid}.json")
    ours = [files.starting] if files.root.exists() else [files.starting, files.root]
    with suppress(StorageError):
        record.write(here, durable=False)
    try:
        yield
    finally:
        with suppress(OSError):  # directories that are not empty stay
            record.path.unlink(missing_ok=True)
            for directory in ours:
                directory.rmdir()


def find_starting(checkpoint: Path | str, name: str) -> Starting | None:
    """Return the last process that starts a run of that name, if it lives on this machine."""
    paths = CheckpointFiles.at(checkpoint).starting.glob("*.json")
    found = (_record(path).read_or(None) for path in paths)
    here = [one for one in found if one is not None and one.name == name and _lives(one)]
    return max(here, key=lambda one: one.at, default=None)


def _lives(one: Starting) -> bool:
    """Return true if that process runs here; one that began later has only its number."""
    if one.host != socket.gethostname():
        return False
    try:
        process = psutil.Process(one.pid)
        began = datetime.fromtimestamp(process.create_time(), UTC)
        return process.status() != psutil.STATUS_ZOMBIE and began <= one.at
    except psutil.NoSuchProcess:
        return False


def _record(path: Path) -> RecordFile[Starting]:
    return RecordFile(path, Starting, Version.STARTING)
