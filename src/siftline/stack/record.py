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
    """A stack, its supervisor, and its services in the order of their start.

    The environment of each of its processes contains `mark`; it is `ready` once all have been healthy.
    """

    stack: Stack
    supervisor: Identity = Field(default_factory=lambda: Identity.of(psutil.Process()))
    mark: str = Field(default_factory=lambda: secrets.token_hex(16))
    since: datetime = Field(default_factory=lambda: datetime.now(UTC))
    services: dict[str, Identity] = {}
    ready: bool = False

    def write(self) -> None:
        """Write the record to the stack's home."""
        _file(self.stack.home).write(self)

    def delete(self) -> None:
        """Delete the record, once the stack has ended."""
        _file(self.stack.home).path.unlink(missing_ok=True)


def _file(home: Path) -> RecordFile[StackRecord]:
    return RecordFile(home / "stack.json", StackRecord, Version.STACK)


def read_stack(home: Path) -> StackRecord | None:
    """Read the record of the stack in `home`, None without one; a damaged one raises an IntegrityError."""
    try:
        return _file(home).read()
    except FileNotFoundError:
        return None


@contextmanager
def claimed(home: Path) -> Iterator[None]:
    """Be the only process that runs a stack in `home`, or raise a StackError."""
    with locked(home / "lock") as alone:
        if not alone:
            problem = f"another `siftline up` is at work in {home}"
            raise StackError(problem, "wait for it, or stop it with `siftline down`")
        yield
