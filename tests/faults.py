"""Faults, scripted: torn, altered and forged files, killed processes; and waiting for what they lead to."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import psutil
from prefect.serializers import PickleSerializer

T = TypeVar("T")

_POLL_SECONDS = 0.05


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
