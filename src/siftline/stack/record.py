"""What is known of a stack that runs: one file in its home, for whoever comes to look at it or to end it."""

from __future__ import annotations

import fcntl
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import BaseModel, Field

from siftline.errors import StackError, storage_error
from siftline.stack.config import Stack
from siftline.stack.processes import Identity
from siftline.storage.files import read_record, write_record

_VERSION = 1


def _path(home: Path) -> Path:
    return home / "stack.json"


class Record(BaseModel):
    """A stack and its processes.

    Attributes
    ----------
    stack : Stack
        As it was asked for.
    supervisor : Identity
        The ``siftline up`` that watches it.
    mark : str
        In the environment of every process of it.
    since : datetime
        When it was started.
    services : dict of str to Identity
        The services in the order in which they were started.
    ready : bool
        Whether all of them have been healthy.
    """

    stack: Stack
    supervisor: Identity = Field(default_factory=lambda: Identity.of(psutil.Process()))
    mark: str = Field(default_factory=lambda: secrets.token_hex(16))
    since: datetime = Field(default_factory=lambda: datetime.now(UTC))
    services: dict[str, Identity] = {}
    ready: bool = False

    def write(self) -> None:
        """Write it down."""
        write_record(_path(self.stack.home), self.model_dump(mode="json"), _VERSION)

    def delete(self) -> None:
        """Delete it: nothing is left of the stack."""
        _path(self.stack.home).unlink(missing_ok=True)


def read_stack(home: Path) -> Record | None:
    """Read what is known of the stack in `home`; None if there is none.

    Raises
    ------
    IntegrityError
        When the file is not whole.
    """
    try:
        return Record.model_validate(read_record(_path(home), _VERSION))
    except FileNotFoundError:
        return None


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Be the only one that runs a stack in `home`; the system lets go of it with the process.

    Raises
    ------
    StackError
        When another process is.
    StorageError
        When `home` cannot be written to.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "lock").open("w")
    except OSError as error:
        raise storage_error(error, home) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            problem = f"another `siftline up` is at work in {home}"
            raise StackError(problem, "wait for it, or stop it with `siftline down`") from error
        yield
