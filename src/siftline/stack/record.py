"""The record of a running stack: one file in its home, read to inspect the stack or to stop it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
from pydantic import BaseModel, Field

from siftline.errors import StackError
from siftline.stack.config import Stack
from siftline.stack.processes import Identity
from siftline.storage.layout import Version
from siftline.storage.locks import locked
from siftline.storage.records import RecordFile


class StackRecord(BaseModel):
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
        """Write it to the stack's home."""
        _file(self.stack.home).write(self)

    def delete(self) -> None:
        """Delete it, once the stack has ended."""
        _file(self.stack.home).path.unlink(missing_ok=True)


def _file(home: Path) -> RecordFile[StackRecord]:
    return RecordFile(home / "stack.json", StackRecord, Version.STACK)


def read_stack(home: Path) -> StackRecord | None:
    """Read the record of the stack in `home`; None if there is none.

    Raises
    ------
    IntegrityError
        When it is damaged.
    """
    try:
        return _file(home).read()
    except FileNotFoundError:
        return None


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Be the only process that runs a stack in `home`; the lock ends with the process.

    Raises
    ------
    StackError
        When another process runs one.
    StorageError
        When `home` cannot be written to.
    """
    with locked(home / "lock") as alone:
        if not alone:
            raise StackError(
                f"another `siftline up` is at work in {home}", "wait for it, or stop it with `siftline down`"
            )
        yield
