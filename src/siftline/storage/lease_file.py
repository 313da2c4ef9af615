"""Lease files: creating the next one, finding the newest, and checking if it is held.

The file ``lease-<epoch>.json`` with the highest epoch names the last run that took a directory. That run
keeps the file locked until it ends, which the kernel guarantees, and touches it at intervals. A lease is free
once it is released; once no process on its holder's machine locks it; or once it was not touched for the time
in it, because the holder is frozen or unreachable. The next run links the next file: only one can.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import socket
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, TextIO

from pydantic import Field

from siftline.errors import IntegrityError
from siftline.storage.files import open_regular, seal, unseal
from siftline.storage.layout import Version, lease_path
from siftline.storage.locks import try_lock
from siftline.storage.records import Moment, Record

_UNKNOWN = "unknown"
_MOST_UNENDED = 10
_MOST_SECONDS = 86_400.0
_NAME = re.compile(r"lease-(\d{6,})\.json")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True)
class Holder:
    """A present or former holder of a lease; its epoch is its number among them."""

    run: str
    host: str
    pid: int
    since: Moment
    epoch: int

    @property
    def began(self) -> datetime | None:
        """Start of its run; None if it is unknown."""
        return None if self.since == _UNKNOWN else datetime.fromisoformat(self.since)


class LeaseRecord(Record):
    """The content of a lease file; `unended` are earlier holders that did not release the lease."""

    run: str = _UNKNOWN
    host: str = _UNKNOWN
    pid: int = 0
    since: Moment = _UNKNOWN
    seconds: float = Field(default=60.0, gt=0, le=_MOST_SECONDS)
    unended: tuple[Holder, ...] = ()
    released: bool = False

    def text(self) -> str:
        """Return the record as text, of the same length once released: a release is one write in place."""
        return json.dumps(seal(self.model_dump(mode="json"), Version.LEASE)) + " " * self.released + "\n"

    def holder(self, epoch: int) -> Holder:
        """Return the holder, with the epoch of its lease."""
        return Holder(self.run, self.host, self.pid, self.since, epoch)


# Held for its default time: a torn lease must not stop others for ever.
_UNREADABLE = LeaseRecord()


@dataclass(frozen=True)
class LeaseFile:
    """The lease file of one epoch of a directory; epoch 0 has none."""

    directory: Path
    epoch: int

    @property
    def path(self) -> Path:
        """Its path."""
        return lease_path(self.directory, self.epoch)

    @property
    def next(self) -> LeaseFile:
        """The file of the next epoch."""
        return LeaseFile(self.directory, self.epoch + 1)

    def publish(self, record: LeaseRecord) -> TextIO:
        """Create the file complete and locked; FileExistsError or FileNotFoundError: another was faster."""
        temporary = self.directory / f".lease.{secrets.token_hex(4)}.tmp"
        file = temporary.open("x", encoding="utf-8")
        try:
            try_lock(file)  # without locks, the heartbeat has to do
            file.write(record.text())
            file.flush()
            os.fsync(file.fileno())
            self._link(temporary)
            # The epoch may be past, its file removed meanwhile. Files are removed from the oldest on: if the
            # listing misses a newer one amid its removal, the own one is gone.
            if max(_epochs(self.directory), default=0) > self.epoch or self.superseded(file):
                raise FileExistsError(errno.EEXIST, "another run was faster")
        except BaseException:
            file.close()
            raise
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        return file

    def _link(self, temporary: Path) -> None:
        try:
            os.link(temporary, self.path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self.path.touch(exist_ok=False)  # only one run can
            os.replace(temporary, self.path)

    def superseded(self, file: TextIO) -> bool:
        """Return True if the next epoch exists, or `file` is not the one at the path any more."""
        try:
            same = os.path.samestat(self.path.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return True
        return not same or self.next.path.exists()

    def remove_older(self) -> None:
        """Remove older leases, the oldest first, and files of killed runs; live runs look again."""
        with suppress(OSError):
            for epoch in sorted(_epochs(self.directory)):
                if epoch < self.epoch:
                    lease_path(self.directory, epoch).unlink(missing_ok=True)
            for temporary in self.directory.glob(".lease.*.tmp"):
                temporary.unlink(missing_ok=True)


@dataclass(frozen=True)
class FoundLease:
    """The newest lease of a directory."""

    file: LeaseFile
    record: LeaseRecord = _UNREADABLE
    touched: float = 0.0
    free: bool = False  # for certain

    @property
    def holder(self) -> Holder:
        """Its holder, ``unknown`` if the file cannot be read."""
        return self.record.holder(self.file.epoch)

    @property
    def known_holder(self) -> Holder | None:
        """Its holder, None if the file cannot be read."""
        return None if self.record is _UNREADABLE else self.holder

    @property
    def unended(self) -> tuple[Holder, ...]:
        """The latest holders since the last release."""
        if self.record.released or self.record is _UNREADABLE:
            return ()
        return (*self.record.unended, self.holder)[-_MOST_UNENDED:]

    def held(self) -> bool:
        """Return True while its holder must be assumed alive."""
        return not self.free and _now(self.file.directory) - self.touched <= self.record.seconds


def find_lease(directory: Path) -> FoundLease:
    """Find the newest lease of a directory; of epoch 0 if there is none."""
    newest = LeaseFile(directory, 0)
    try:
        newest = LeaseFile(directory, max(_epochs(directory), default=0))
        with open(newest.path, "rb", opener=open_regular) as file:
            # Before reading: once the lock is gone nothing is written. Shared: readers exclude no reader.
            unlocked = try_lock(file, shared=True) is True
            record, touched = _read(file), os.fstat(file.fileno()).st_mtime
    except IntegrityError:  # not a file, and so no lease
        return FoundLease(newest, free=True)
    except FileNotFoundError:  # none yet, or removed since: creating the next one decides
        return FoundLease(newest, free=True)
    # Some shared file systems lock within each machine only: there the heartbeat of others has to do.
    free = record.released or (unlocked and record.host == socket.gethostname())
    return FoundLease(newest, record, touched, free)


def _read(file: IO[bytes]) -> LeaseRecord:
    try:
        return LeaseRecord.model_validate(unseal(json.loads(file.read()), Version.LEASE, file.name))
    except (OSError, ValueError, IntegrityError):
        return _UNREADABLE


def _now(directory: Path) -> float:
    """Return the time by the file system's clock."""
    with suppress(OSError), tempfile.TemporaryFile(dir=directory) as file:
        return os.fstat(file.fileno()).st_mtime
    return time.time()


def _epochs(directory: Path) -> list[int]:
    matches = (_NAME.fullmatch(path.name) for path in directory.iterdir())
    return [int(match[1]) for match in matches if match]
