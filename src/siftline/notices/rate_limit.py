"""Rate limit for notifications, per block and event."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import AwareDatetime, RootModel

from siftline.errors import StorageError
from siftline.storage.layout import Version
from siftline.storage.records import Record, RecordFile


class LastSent(Record):
    """Time of the last message of a kind, and how many were held back since."""

    at: AwareDatetime
    held: int = 0


class _Memory(RootModel[dict[str, LastSent]]):
    root: dict[str, LastSent] = {}


@dataclass(frozen=True)
class Permit:
    """Decision about a message, and the last one before it."""

    granted: bool
    last: LastSent | None = None

    @property
    def note(self) -> str:
        """Sentence about the messages held back since the last one, or an empty text."""
        if self.last is None or not self.last.held:
            return ""
        return f"{self.last.held:,} more since {self.last.at:%Y-%m-%d %H:%M} UTC."


@contextmanager
def rate_limited(memory: Path | None, kind: str, every: timedelta | None, now: datetime) -> Iterator[Permit]:
    """Permit a message if the last one of its kind is old enough, and count it otherwise.

    An exception in the context withdraws the permit. Without a readable memory every message is permitted.
    """
    if memory is None or every is None:
        yield Permit(granted=True)
        return
    permit = _ask(memory, kind, every, now)
    try:
        yield permit
    except Exception:
        _withdraw(memory, kind, permit)
        raise


def _ask(memory: Path, kind: str, every: timedelta, now: datetime) -> Permit:
    try:
        with _record(memory).updating() as record:
            last = record.root.get(kind)
            # A clock that was set back must not hold messages back.
            if last is None or not timedelta() <= now - last.at < every:
                record.root[kind] = LastSent(at=now)
                return Permit(granted=True, last=last)
            record.root[kind] = LastSent(at=last.at, held=last.held + 1)
            return Permit(granted=False)
    except StorageError:
        return Permit(granted=True)


def _withdraw(memory: Path, kind: str, permit: Permit) -> None:
    with suppress(StorageError), _record(memory).updating() as record:
        record.root.pop(kind, None)
        if permit.last is not None:
            record.root[kind] = permit.last


def _record(memory: Path) -> RecordFile[_Memory]:
    return RecordFile(memory, _Memory, Version.NOTIFIED)
