"""Who works on a job: one run at a time, whatever dies or freezes.

In the job's directory the file ``lease-<epoch>.json`` with the highest epoch says who took the job last.
Its holder keeps it locked until it ends, for which the kernel answers, and touches it every now and then.
So a lease is free once it was released; once nobody on its holder's machine locks it; or once it was not
touched for as long as it said that it would be, because the holder is frozen or out of reach.

The next one takes the job by making the file of the next epoch, by a link: of any number only one can. Who
was frozen finds out with `Lease.check`, before it commits anything, and leaves a line in ``audit.jsonl``.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
import signal
import socket
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Literal, Self, TextIO

from siftline.errors import IntegrityError, JobBusy, LeaseLost, storage_error
from siftline.storage.files import seal, unseal

_FORMAT = 2
_SECONDS = 60.0
_MOST_UNENDED = 10
_NAME = re.compile(r"lease-(\d{6,})\.json")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, or held it.

    Attributes
    ----------
    run : str
        What names the run to others.
    host : str
        Its machine.
    pid : int
        Its process.
    since : str
        When it took the lease, in ISO format.
    epoch : int
        How many runs have taken the lease of this job, with this one.
    """

    run: str
    host: str
    pid: int
    since: str
    epoch: int


class Lease:
    """The right of one run to work on a job, for as long as the context is open.

    Parameters
    ----------
    run : str
        What names this run to others.
    seconds : float
        After how long without a sign of life others may take the job over.
    """

    def __init__(self, run: str, seconds: float = _SECONDS) -> None:
        self._run = run
        self._seconds = seconds
        self._record: dict[str, Any] = {}
        self._directory = Path()
        self._file: TextIO | None = None
        self._epoch = 0
        self._unended: list[Holder] = []
        self._over = threading.Event()
        self._heart: threading.Thread | None = None
        self._audited = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._heart is not None:
            self._heart.join()
        if self._file is not None:
            _release(self._file, _content(self._record, released=True))
            self._file = None

    @property
    def directory(self) -> Path | None:
        """The directory of the job that was taken; None before `take`."""
        return self._directory if self._epoch else None

    @property
    def epoch(self) -> int:
        """1 for the first run that took the job, one more for each one after it; 0 before `take`."""
        return self._epoch

    @property
    def previous(self) -> Holder | None:
        """Who held the lease before and did not release it: it died, or is frozen."""
        return self._unended[-1] if self._unended else None

    def forget_previous(self) -> None:
        """Let `previous` be the one before it, which did not release the lease either; or nobody."""
        self._unended.pop()

    def take(self, directory: Path) -> None:
        """Become the one that works on a job, or fail at once.

        Parameters
        ----------
        directory : Path
            The directory of the job, named by its id; it is made.

        Raises
        ------
        JobBusy
            When another run is working on the job.
        StorageError
            When the directory cannot be written.
        """
        if self._epoch:
            raise RuntimeError("a run takes one job")
        try:
            while not self._attempt(directory):
                pass  # another run was faster: look again
        except OSError as error:
            raise storage_error(error, directory) from error

    def check(self) -> None:
        """Make sure that the job was not taken over; nothing before `take`.

        Raises
        ------
        LeaseLost
            When it was. The first time, the audit file of the job tells as well.
        StorageError
            When that cannot be found out.
        """
        try:
            lost = self._file is not None and _superseded(self._directory, self._epoch, self._file)
        except OSError as error:
            raise storage_error(error, self._directory) from error
        if lost:
            by = self._successor()
            self._audit(by)
            raise _lost(self._directory, by)

    def _attempt(self, directory: Path) -> bool:
        """Take the next epoch, if the job is free; return whether no other run was faster."""
        directory.mkdir(parents=True, exist_ok=True)
        found = _find(directory)
        if found.held(directory):
            raise _busy(directory, found)
        self._unended = found.and_those_before
        self._record = {
            "run": self._run,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": _timestamp(),
            "seconds": self._seconds,
            "unended": [asdict(one) for one in self._unended],
        }
        epoch = found.epoch + 1
        try:
            self._file = _publish(directory, epoch, _content(self._record, released=False))
        except (FileExistsError, FileNotFoundError):
            return False
        self._directory, self._epoch = directory, epoch
        self._start_heart(self._file)
        _sweep(directory, epoch)
        return True

    def _start_heart(self, file: TextIO) -> None:
        beat = (file, self._seconds / 4, self._over)
        heart = threading.Thread(target=_beat, args=beat, name="lease", daemon=True)
        heart.start()
        self._heart = heart

    def _successor(self) -> Holder | None:
        with suppress(OSError):
            found = _find(self._directory)
            return found.holder if found.epoch >= self._epoch else None
        return None

    def _audit(self, by: Holder | None) -> None:
        if self._audited:
            return
        self._audited = True
        entry = {
            "time": _timestamp(),
            "run": self._run,
            "epoch": self._epoch,
            "what": "fenced",
            "by": by and {"run": by.run, "epoch": by.epoch},
        }
        # That the lease is lost matters more than that it cannot be noted.
        with suppress(OSError), (self._directory / "audit.jsonl").open("ab", buffering=0) as file:
            file.write(json.dumps(entry).encode() + b"\n")


def holder(directory: Path) -> Holder | None:
    """Return who works on the job in a directory, or None where nobody does.

    Raises
    ------
    StorageError
        When the directory cannot be read.
    """
    last, state = last_holder(directory)
    return last if state == "held" else None


def last_holder(directory: Path) -> tuple[Holder | None, Literal["held", "released", "lost"]]:
    """Return who took the job in a directory last, and what became of the lease; None where nobody ever did.

    Raises
    ------
    StorageError
        When the directory cannot be read.
    """
    try:
        found = _find(directory)
        held = found.held(directory)
    except OSError as error:
        raise storage_error(error, directory) from error
    if held:
        return found.named, "held"
    return found.holder, "released" if found.released or not found.epoch else "lost"


@dataclass(frozen=True)
class _Found:
    """The newest lease of a job, as it was found; epoch 0 where there is none."""

    epoch: int
    holder: Holder | None = None  # None where it cannot be read
    unended: tuple[Holder, ...] = ()  # those before it that did not release it, if it didn't either
    seconds: float = _SECONDS
    touched: float = 0.0
    released: bool = False
    free: bool = False  # for certain

    @property
    def and_those_before(self) -> list[Holder]:
        """Who held it since the last one that released it; the last ones, if they are many."""
        if self.released or self.holder is None:
            return []
        return [*self.unended, self.holder][-_MOST_UNENDED:]

    @property
    def named(self) -> Holder:
        return self.holder or Holder("unknown", "unknown", 0, "unknown", self.epoch)

    def held(self, directory: Path) -> bool:
        return not self.free and _now(directory) - self.touched <= self.seconds


def _find(directory: Path) -> _Found:
    epoch = 0
    try:
        epoch = max(_epochs(directory), default=0)
        with _path(directory, epoch).open("rb") as file:
            unlocked = _unlocked(file)  # before reading: after the lock is gone nothing is written
            return _found(epoch, _read(file), os.fstat(file.fileno()).st_mtime, unlocked)
    except FileNotFoundError:  # none yet, or swept away since: making the next one tells
        return _Found(epoch, free=True)


def _found(epoch: int, record: dict[str, Any] | None, touched: float, unlocked: bool) -> _Found:
    if record is None:
        return _Found(epoch, touched=touched)
    # Some shared file systems lock within each machine only: there the heartbeat of others has to do.
    here = record["host"] == socket.gethostname()
    return _Found(
        epoch,
        Holder(record["run"], record["host"], record["pid"], record["since"], epoch),
        tuple(Holder(**one) for one in record["unended"]),
        record["seconds"],
        touched,
        record["released"],
        free=record["released"] or (here and unlocked),
    )


def _unlocked(file: IO[bytes]) -> bool:
    """Whether nobody holds the file's lock; not where that cannot be told."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: those who look don't see one another
    except OSError:
        return False
    return True


def _read(file: IO[bytes]) -> dict[str, Any] | None:
    try:
        return unseal(json.loads(file.read()), _FORMAT, file.name)
    except (OSError, ValueError, IntegrityError):  # a torn file must not stop anybody for ever
        return None


def _now(directory: Path) -> float:
    """Return the time by the clock of the file system, which touched files are compared with."""
    with suppress(OSError), tempfile.TemporaryFile(dir=directory) as file:
        return os.fstat(file.fileno()).st_mtime
    return time.time()


def _publish(directory: Path, epoch: int, content: str) -> TextIO:
    """Make a lease file, which is complete and locked from the first moment that others see it.

    Raises
    ------
    FileExistsError, FileNotFoundError
        When another run was faster.
    """
    temporary = directory / f".lease.{secrets.token_hex(4)}.tmp"
    file = temporary.open("x", encoding="utf-8")
    try:
        with suppress(OSError):  # without locks, the heartbeat has to do
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        _link(temporary, _path(directory, epoch))
        _refuse_if_late(directory, epoch, file)
    except BaseException:
        file.close()
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return file


def _link(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        path.touch(exist_ok=False)  # decides who; an empty lease is held for a while, like a torn one
        os.replace(temporary, path)


def _refuse_if_late(directory: Path, epoch: int, file: TextIO) -> None:
    """Raise if the epoch is a past one, whose file was swept away since this run looked.

    Files are swept from the oldest on. So when the listing misses a newer one, because that is being swept
    just then, the own one is gone already.
    """
    if max(_epochs(directory), default=0) > epoch or _superseded(directory, epoch, file):
        raise FileExistsError(errno.EEXIST, "another run was faster")


def _superseded(directory: Path, epoch: int, file: TextIO) -> bool:
    """Whether the next epoch is there, or the file that was taken is not there any more."""
    try:
        mine = os.path.samestat(_path(directory, epoch).stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return True
    return not mine or _path(directory, epoch + 1).exists()


def _sweep(directory: Path, epoch: int) -> None:
    """Remove older leases, the oldest first, and what killed runs left; others who lose theirs look again."""
    with suppress(OSError):
        for older in sorted(found for found in _epochs(directory) if found < epoch):
            _path(directory, older).unlink(missing_ok=True)
        for temporary in directory.glob(".lease.*.tmp"):
            temporary.unlink(missing_ok=True)


def _beat(file: TextIO, interval: float, over: threading.Event) -> None:
    """Touch a lease by its descriptor, so that one that was swept away stays so."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are for the other threads
    while not over.wait(interval):
        with suppress(OSError):  # it may pass
            os.utime(file.fileno())


def _release(file: TextIO, content: str) -> None:
    with suppress(OSError):  # then it is one that ended without a release
        file.seek(0)
        file.write(content)
        file.flush()
    with suppress(OSError):
        file.close()


def _content(record: dict[str, Any], released: bool) -> str:
    """Return a lease as text, of the same length either way: a release is one write in place."""
    return json.dumps(seal({**record, "released": released}, _FORMAT)) + " " * released + "\n"


def _epochs(directory: Path) -> list[int]:
    matches = (_NAME.fullmatch(path.name) for path in directory.iterdir())
    return [int(match[1]) for match in matches if match]


def _path(directory: Path, epoch: int) -> Path:
    return directory / f"lease-{epoch:06d}.json"


def _timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _busy(directory: Path, found: _Found) -> JobBusy:
    by = found.named
    return JobBusy(
        f"job {directory.name}: run {by.run} is working on it "
        f"(process {by.pid} on {by.host}, since {by.since})",
        f"wait for it, or cancel that run; if it died, its lease ends within {found.seconds:g} s",
    )


def _lost(directory: Path, by: Holder | None) -> LeaseLost:
    if by is None:
        return LeaseLost(
            f"job {directory.name}: the lease of this run is gone",
            "run it again, unless another run is working on the job",
        )
    return LeaseLost(
        f"job {directory.name}: run {by.run} has taken it over", "nothing to do: that run goes on"
    )
