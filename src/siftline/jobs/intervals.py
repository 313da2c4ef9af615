"""The ledger of a pipeline's intervals: none is published twice.

Every interval has a directory in the checkpoint, with its record and the lease of the run that works on it:
the input of an interval may change between two runs, which makes two jobs of one interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from siftline.config.schedules import Interval
from siftline.storage.layout import ENTRY, CheckpointFiles, Version
from siftline.storage.owned import refuse_links
from siftline.storage.records import Moment, Record, RecordFile
from siftline.types import BatchResult


class Entry(Record):
    """The outcome of an interval's last run; `result` is the last publication of any run."""

    interval: Interval
    outcome: Literal["published", "failed", "skipped"]
    run: str | None
    at: Moment
    reason: str | None = None
    result: BatchResult | None = None


class Ledger:
    """The outcomes of the intervals of a pipeline, in a checkpoint."""

    def __init__(self, checkpoint: Path | str, name: str) -> None:
        self._root = CheckpointFiles.at(checkpoint).intervals(name)
        refuse_links([self._root])

    def directory(self, interval: Interval) -> Path:
        """Return the directory of an interval, where its runs take a lease."""
        return self._root / interval.key

    def entry(self, interval: Interval) -> Entry | None:
        """Return the entry of an interval; None if it is unknown."""
        return _record(self.directory(interval)).read_or(None)

    def entries(self) -> Iterator[Entry]:
        """Return the entries of all intervals, the oldest first."""
        return filter(None, (_record(directory).read_or(None) for directory in sorted(self._root.glob("*"))))

    def published(self, interval: Interval) -> BatchResult | None:
        """Return the last publication of an interval; None without one."""
        entry = self.entry(interval)
        return entry.result if entry else None

    def write(
        self,
        interval: Interval,
        outcome: Literal["published", "failed", "skipped"],
        run: str | None,
        reason: str | None = None,
        result: BatchResult | None = None,
    ) -> None:
        """Write the outcome of an interval's run; without a result, the last one is kept."""
        refuse_links([self.directory(interval)])
        entry = Entry(
            interval=interval,
            outcome=outcome,
            run=run,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            reason=reason,
            result=result or self.published(interval),
        )
        _record(self.directory(interval)).write(entry)


def _record(directory: Path) -> RecordFile[Entry]:
    return RecordFile(directory / ENTRY, Entry, Version.INTERVAL)
