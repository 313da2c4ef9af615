"""Leases: one run at a time works on a job, even if runs die or freeze; see `siftline.storage.lease_file`.

With `Lease.check`, before it commits anything, a run that was frozen notices that another run took over.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Self, TextIO

from siftline.errors import JobBusy, LeaseLost, storage_error
from siftline.storage.layout import AUDIT
from siftline.storage.lease_file import Holder, LeaseFile, LeaseRecord, find_lease
from siftline.storage.locks import open_own
from siftline.storage.owned import refuse_links
from siftline.system.signals import signals_deferred

# A worker may start a run again while its process before is about to end.
_OWN_END_SECONDS = 20.0
_POLL_SECONDS = 0.1


class Lease:
    """The right of a run to work on a job, while the context is open.

    Other runs may take over the job after `seconds` without a heartbeat.

    Attributes
    ----------
    again : bool
        Whether this run was the last holder before, too: it failed or was suspended, and goes on.
    """

    def __init__(self, run: str, seconds: float = 60.0) -> None:
        self._run = run
        self._seconds = seconds
        self._patient_until = time.monotonic() + _OWN_END_SECONDS
        self._taken: _Taken | None = None
        self.again = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._taken is not None:
            self._taken.release()

    @property
    def directory(self) -> Path | None:
        """The job's directory; None before `take`."""
        return self._taken.file.directory if self._taken else None

    @property
    def epoch(self) -> int:
        """Number of the run, from 1 for the first that took the job; 0 before `take`."""
        return self._taken.file.epoch if self._taken else 0

    @property
    def previous(self) -> Holder | None:
        """The last holder that died or froze without releasing the lease."""
        return self._taken.unended[-1] if self._taken and self._taken.unended else None

    def forget_previous(self) -> None:
        """Let `previous` be the one before it, or None."""
        if self._taken is not None:
            self._taken.unended.pop()

    def take(self, directory: Path) -> None:
        """Take the job of a directory, which is created, or fail at once.

        Raises
        ------
        JobBusy
            When another run is working on the job.
        StorageError
            When the directory cannot be written, or is a link.
        """
        if self._taken is not None:
            raise RuntimeError("a run takes one job")
        refuse_links([directory, directory.parent])
        try:
            with signals_deferred():  # a stop in between would leave a lease that is never released
                while (taken := self._attempt(directory)) is None:
                    pass  # another run was faster, or a process of this one is about to end
                self._taken = taken
            taken.file.remove_older()
        except OSError as error:
            raise storage_error(error, directory) from error

    def check(self) -> None:
        """Raise `LeaseLost` if another run took over the job, and the first time add to its audit file."""
        if self._taken is not None:
            self._taken.check()

    def _attempt(self, directory: Path) -> _Taken | None:
        """Take the next epoch if the job is free; None if another run was faster."""
        directory.mkdir(parents=True, exist_ok=True)
        found = find_lease(directory)
        if found.held():
            by = found.holder
            if by.run == self._run and by.pid != os.getpid() and time.monotonic() < self._patient_until:
                time.sleep(_POLL_SECONDS)
                return None
            raise JobBusy(
                f"job {directory.name}: run {by.run} is working on it "
                f"(process {by.pid} on {by.host}, since {by.since})",
                "wait for it, or cancel that run; "
                f"if it died, its lease ends within {found.record.seconds:g} s",
            )
        record = LeaseRecord(
            run=self._run,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=_timestamp(),
            seconds=self._seconds,
            unended=found.unended,
        )
        try:
            taken = _Taken(found.file.next, record)
        except (FileExistsError, FileNotFoundError):
            return None
        last = found.known_holder
        self.again = last is not None and last.run == self._run
        return taken


class _Taken:
    """A lease of this process: its open, locked file, and the thread that touches it."""

    def __init__(self, file: LeaseFile, record: LeaseRecord) -> None:
        self.file = file
        self.unended = list(record.unended)
        self._record = record
        self._opened: TextIO = file.publish(record)
        self._audited = False
        self._over = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._heart.start()

    def check(self) -> None:
        directory = self.file.directory
        try:
            if self._over.is_set() or not self.file.superseded(self._opened):
                return
        except OSError as error:
            raise storage_error(error, directory) from error
        by = self._successor()
        self._audit(by)
        job = f"job {directory.name}"
        if by is None:
            remedy = "run it again, unless another run is working on the job"
            raise LeaseLost(f"{job}: the lease of this run is gone", remedy)
        raise LeaseLost(f"{job}: run {by.run} has taken it over", "nothing to do: that run goes on")

    def release(self) -> None:
        if self._over.is_set():
            return
        self._over.set()
        self._heart.join()
        with suppress(OSError):  # without this, it counts as a holder that died
            self._opened.seek(0)
            self._opened.write(self._record.model_copy(update={"released": True}).text())
            self._opened.flush()
        with suppress(OSError):
            self._opened.close()

    def _beat(self) -> None:
        """Touch the file by its descriptor, so that a removed one stays removed."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the other threads
        while not self._over.wait(self._record.seconds / 4):
            with suppress(OSError):  # it may pass
                os.utime(self._opened.fileno())

    def _successor(self) -> Holder | None:
        with suppress(OSError):
            found = find_lease(self.file.directory)
            return found.known_holder if found.file.epoch >= self.file.epoch else None
        return None

    def _audit(self, by: Holder | None) -> None:
        if self._audited:
            return
        self._audited = True
        entry = {
            "time": _timestamp(),
            "run": self._record.run,
            "epoch": self.file.epoch,
            "what": "fenced",
            "by": by and {"run": by.run, "epoch": by.epoch},
        }
        # The lost lease matters more than its line.
        with suppress(OSError), open(self.file.directory / AUDIT, "ab", 0, opener=open_own) as file:
            file.write(json.dumps(entry).encode() + b"\n")


def last_holder(directory: Path) -> tuple[Holder | None, Literal["held", "released", "lost"]]:
    """Return the run that took the job in a directory last, if any, and the state of its lease."""
    try:
        found = find_lease(directory)
        held = found.held()
    except OSError as error:
        raise storage_error(error, directory) from error
    if held:
        return found.holder, "held"
    return found.known_holder, "released" if found.record.released or not found.file.epoch else "lost"


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
