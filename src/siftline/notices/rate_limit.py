"""How often people are told: of each kind of message when the last one went, and how many were held back."""

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
    """When the last message of a kind went, and how many were held back since."""

    at: AwareDatetime
    held: int = 0


class _Memory(RootModel[dict[str, Last]]):
    """The last message of every kind."""

    root: dict[str, Last] = {}


@dataclass(frozen=True)
class Turn:
    """Whether a message may go, and what was before it."""

    granted: bool
    last: Last | None = None

    @property
    def note(self) -> str:
        """What the message says of those that were held back."""
        if self.last is None or not self.last.held:
            return ""
        return f"{self.last.held:,} more since {self.last.at:%Y-%m-%d %H:%M} UTC."


@contextmanager
def turn(memory: Path | None, kind: str, every: timedelta | None, now: datetime) -> Iterator[Turn]:
    """Let a message go if the last one of its kind was long enough ago, and count it otherwise.

    Where nothing can be remembered, it may go. One that cannot be delivered, so that the context is left
    with an error, was none.
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
