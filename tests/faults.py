"""Faults, scripted: by chunk and attempt, in files, in processes; and waiting for what they lead to."""

from __future__ import annotations

import errno
import itertools
import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast, get_args

import numpy as np
import psutil
import pytest

from siftline.engine import Answer, Executor, Session
from siftline.errors import SourceError
from siftline.storage.lease import last_holder
from siftline.storage.lease_file import Holder
from siftline.types import ChunkReceipt

T = TypeVar("T")
R = TypeVar("R")

_POLL_SECONDS = 0.05


def holder(directory: Path) -> Holder | None:
    """Return the run that works on the job in a directory, or None."""
    last, state = last_holder(directory)
    return last if state == "held" else None


def wait_until(condition: Callable[[], T], what: str, seconds: float = 60.0) -> T:
    """Wait for another process: poll until the condition holds, and return what it gave."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"still not after {seconds:g} s: {what}")
        time.sleep(_POLL_SECONDS)


def truncate(path: Path) -> None:
    """Tear a file: its second half was never written."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_bit(path: Path) -> None:
    """Alter one bit in the middle of a file, without a change of its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@contextmanager
def nothing_left_behind(seconds: float = 20.0) -> Iterator[None]:
    """Check that every process that was started within is gone in the end."""
    before = set(_children())
    yield

    def started() -> set[psutil.Process]:
        return {child for child in _children() if child not in before}

    try:
        wait_until(lambda: not started(), "the processes that the test started are gone", seconds)
    except AssertionError:
        raise AssertionError(f"left behind: {[_told(child) for child in started()]}") from None


def _children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if _counts(child)]


def _counts(process: psutil.Process) -> bool:
    """Python's own resource tracker stays until the end of its process; zombies are gone."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE and "resource_tracker" not in _told(process)
    except psutil.NoSuchProcess:
        return False


def _told(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def forge_pickle(receipt: Path, marker: Path) -> None:
    """Make of a record in Prefect's format one that says it is a pickle, and runs code when believed."""
    # Dask workers import this module, and have no use for Prefect.
    from prefect.serializers import PickleSerializer

    record = json.loads(receipt.read_bytes())
    record["metadata"]["serializer"] = PickleSerializer().model_dump(mode="json")
    record["result"] = PickleSerializer().dumps(_Payload(marker)).decode()
    receipt.write_text(json.dumps(record))


class _Payload:
    """Leaves a marker behind when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self._marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return (Path.touch, (self._marker,))


@contextmanager
def small_disk(path: Path, kilobytes: int) -> Iterator[Path]:
    """Mount a file system of some kilobytes, where that is allowed."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


# io: an I/O error, which may pass. memory: MemoryError. bug: an error that nobody knows. source: the input
# cannot be read. kill: SIGKILL to the worker. hog: memory is taken until the worker is killed for it.
# hang: never comes to an end. freeze: the worker is frozen before it can say that it has begun. stop: the
# work is done, and the worker frozen before it can say so. tear: half of the part file is lost after the
# receipt was made. fill: the disk becomes full. gate: waits until it is opened. again: as the one before,
# from then on.
Fault = (
    Literal["io", "memory", "bug", "source", "kill", "hog", "hang", "freeze", "stop", "tear", "fill"]
    | Literal["gate", "again", "none"]
)
FILLER = "filler"
_HOG_BYTES = 1 << 25
_HOG_LIMIT = 1 << 32


def name_of(task: object) -> str:
    """What a task is called in a script: ``chunk 7``, ``labels of chunks 0-39``."""
    return str(task).partition(" (")[0]


@dataclass(frozen=True)
class Script:
    """The faults of every task, invocation by invocation, where all processes see them and count.

    Whoever is invoked appends a byte to the task's own file, which says how many there have been, and a line
    to the journal, which says in which order.
    """

    directory: Path

    @classmethod
    def write(cls, directory: Path, faults: Mapping[str, Sequence[Fault]]) -> Script:
        """Make a script of the faults of the first invocation, the second, and so on; then there are none."""
        kinds = {kind for kinds in get_args(Fault) for kind in get_args(kinds)}
        unknown = {fault for one in faults.values() for fault in one} - kinds
        assert not unknown, unknown
        directory.mkdir(parents=True)
        (directory / "script.json").write_text(json.dumps({name: list(one) for name, one in faults.items()}))
        return cls(directory)

    def begin(self, name: str) -> Fault:
        """Count an invocation, and return its fault."""
        number = _append(self.directory / f"{name}.count", b".")
        self.note(f"begin {name}")
        faults = json.loads((self.directory / "script.json").read_bytes()).get(name, [])
        if faults and faults[-1] == "again":
            faults = faults[:-1] + faults[-2:-1] * number
        fault: Fault = faults[number - 1] if number <= len(faults) else "none"
        return fault

    def note(self, line: str) -> None:
        """Add a line to the journal."""
        _append(self.directory / "journal", f"{line}\n".encode())

    def journal(self) -> list[str]:
        """What has happened so far, in order."""
        path = self.directory / "journal"
        return path.read_text().splitlines() if path.exists() else []

    def executions(self) -> Counter[str]:
        """How often every task was invoked."""
        return Counter({path.stem: path.stat().st_size for path in self.directory.glob("*.count")})

    def open_gate(self) -> None:
        """Let those go on that wait."""
        (self.directory / "gate").touch()

    def wait_at_gate(self) -> None:
        wait_until((self.directory / "gate").exists, "the gate is opened", seconds=300)


def _append(path: Path, content: bytes) -> int:
    """Append to a file, whoever else does, and return where its own content ends."""
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, content)
        return os.lseek(file, 0, os.SEEK_CUR)
    finally:
        os.close(file)


@dataclass(frozen=True)
class Scripted(Generic[T, R]):
    """A function of the workers' with the faults of a script. Picklable."""

    function: Callable[[T], R]
    script: Script

    @property
    def __name__(self) -> str:
        return self.function.__name__

    def __call__(self, task: T) -> R:
        name = name_of(task)
        fault = self.script.begin(name)
        _before(fault, task, self.script)
        value = self.function(task)
        _after(fault, task, value)
        self.script.note(f"end {name}")
        return value


def _before(fault: Fault, task: Any, script: Script) -> None:
    """Everything that may go wrong before the work is done."""
    if fault == "io":
        raise OSError(errno.EIO, os.strerror(errno.EIO), "scripted")
    if fault == "memory":
        raise MemoryError("scripted")
    if fault == "bug":
        raise ZeroDivisionError("scripted")
    if fault == "source":
        raise SourceError("scripted: not to be read", "repair the file")
    if fault in ("kill", "freeze"):
        os.kill(os.getpid(), signal.SIGKILL if fault == "kill" else signal.SIGSTOP)
    if fault == "hog":
        _hog()
    if fault == "hang":
        wait_until((script.directory / "never").exists, "what never comes", seconds=3600)
    if fault == "gate":
        script.wait_at_gate()
    if fault == "fill":
        fill_disk(Path(task.parts))


def _after(fault: Fault, task: Any, value: object) -> None:
    """Everything that may go wrong when it is done."""
    if fault == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if fault == "tear":
        assert isinstance(value, ChunkReceipt)
        truncate(Path(task.parts) / value.part.name)


def _hog() -> None:
    """Take memory until the nanny has seen it; what comes to an end is not the machine's."""
    held = [np.ones(_HOG_BYTES, np.uint8) for _ in range(_HOG_LIMIT // _HOG_BYTES)]
    wait_until(lambda: not held, "the worker is killed for its memory", seconds=60)


def fill_disk(directory: Path) -> None:
    """Take all space that is left on the file system of a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / FILLER).open("ab", buffering=0) as file:
        size = 1 << 16
        while size:
            try:
                file.write(bytes(size))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2


class FaultyExecutor:
    """An executor whose work has the faults of a script."""

    def __init__(self, executor: Executor, script: Script) -> None:
        self._executor = executor
        self._script = script
        self.dashboard = executor.dashboard
        self.bounds, self.threads = executor.bounds, executor.threads

    def scale(self, workers: int) -> int:
        return self._executor.scale(workers)

    def session(
        self, function: Callable[[T], R], bundle: int = 1, timeout_seconds: float | None = None
    ) -> AbstractContextManager[Session[T, R]]:
        return self._executor.session(Scripted(function, self._script), bundle, timeout_seconds)


def answers(
    executor: Executor,
    function: Callable[[T], R],
    items: Iterable[T],
    bundle: int = 1,
    timeout_seconds: float | None = None,
) -> Iterator[Answer[T, R]]:
    """Attempt every item once, as there is room; give the answers as they come."""
    left, running = iter(items), 0
    with executor.session(function, bundle, timeout_seconds) as session:
        while True:
            batch = tuple(itertools.islice(left, session.room))
            if batch:
                session.submit(batch)
            running += len(batch)
            if not running:
                return
            for answer in session.wait(1.0):
                running -= 1
                yield answer


def value_of(answer: Answer[T, R]) -> R:
    """Return the value of an answer, or raise its error."""
    if answer.error is not None:
        raise answer.error
    return cast(R, answer.value)
