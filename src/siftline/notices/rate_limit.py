"""Rate limit for notifications, by kind of message."""

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


class Last(Record):
    """Time of the last message of a kind, and the number held back since."""

    at: AwareDatetime
    held: int = 0


class _Memory(RootModel[dict[str, Last]]):
    """The last message of every kind."""

    root: dict[str, Last] = {}


@dataclass(frozen=True)
class Turn:
    """Permission to send a message, and the last one of its kind."""

    granted: bool
    last: Last | None = None

    @property
    def note(self) -> str:
        """Sentence on the messages held back, for this message; may be empty."""
        if self.last is None or not self.last.held:
            return ""
        return f"{self.last.held:,} more since {self.last.at:%Y-%m-%d %H:%M} UTC."


@contextmanager
def turn(memory: Path | None, kind: str, every: timedelta | None, now: datetime) -> Iterator[Turn]:
    """Grant a message if the last one of its kind was long enough ago; count it otherwise.

    It is granted as well where no memory can be written. A context left with an error takes the grant back.
    """
    if memory is None or every is None:
        yield Turn(granted=True)
        return
    taken = _take(memory, kind, every, now)
    try:
        yield taken
    except Exception:
        _give_back(memory, kind, taken)
        raise


def _take(memory: Path, kind: str, every: timedelta, now: datetime) -> Turn:
    try:
        with _record(memory).updating() as record:
            last = record.root.get(kind)
            # A clock that was set back must not hold messages back.
            if last is None or not timedelta() <= now - last.at < every:
                record.root[kind] = Last(at=now)
                return Turn(granted=True, last=last)
            record.root[kind] = Last(at=last.at, held=last.held + 1)
            return Turn(granted=False)
    except StorageError:
        return Turn(granted=True)


def _give_back(memory: Path, kind: str, taken: Turn) -> None:
    with suppress(StorageError), _record(memory).updating() as record:
        record.root.pop(kind, None)
        if taken.last is not None:
            record.root[kind] = taken.last


def _record(memory: Path) -> RecordFile[_Memory]:
    return RecordFile(memory, _Memory, Version.NOTIFIED)
