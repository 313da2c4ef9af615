"""The ledger: what became of each interval of a pipeline, so that none is published twice.

Every interval has a directory below the checkpoint, with its record, and with the lease of the run that
works on it: the input of an interval may change between two runs, which makes two jobs of one interval.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from siftline.config.schedules import Interval
from siftline.errors import IntegrityError, storage_error
from siftline.storage.files import read_record, write_record
from siftline.types import BatchResult, Record

FORMAT_VERSION = 1


class Entry(Record):
    """What became of an interval.

    `result` is what was published for it last, whatever happened to later runs.
    """

    interval: Interval
    outcome: Literal["published", "failed", "skipped"]
    run: str | None
    at: str
    reason: str | None = None
    result: BatchResult | None = None


class Ledger:
    """What became of the intervals of a pipeline.

    Parameters
    ----------
    checkpoint : path
        The ``checkpoint.path`` of the configuration.
    name : str
        The pipeline's name.
    """

    def __init__(self, checkpoint: Path | str, name: str) -> None:
        self._root = Path(checkpoint).absolute() / "intervals" / name

    def directory(self, interval: Interval) -> Path:
        """Return the directory of an interval, of which a run takes the lease."""
        return self._root / interval.key

    def entry(self, interval: Interval) -> Entry | None:
        """Return what became of an interval; None, if that is not known."""
        return _read(self.directory(interval))

    def entries(self) -> Iterator[Entry]:
        """Yield what became of all intervals, the oldest first."""
        for directory in sorted(self._root.glob("*")):
            entry = _read(directory)
            if entry is not None:
                yield entry

    def published(self, interval: Interval) -> BatchResult | None:
        """Return what was published for an interval; None, if nothing was."""
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
        """Write what became of an interval; what was published for it before stays written.

        Raises
        ------
        StorageError
            When it cannot be written.
        """
        entry = Entry(
            interval=interval,
            outcome=outcome,
            run=run,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            reason=reason,
            result=result or self.published(interval),
        )
        path = self.directory(interval) / "entry.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, path.parent) from error
        write_record(path, entry.model_dump(mode="json"), FORMAT_VERSION)


def _read(directory: Path) -> Entry | None:
    try:
        return Entry.model_validate(read_record(directory / "entry.json", FORMAT_VERSION))
    except (FileNotFoundError, NotADirectoryError, IntegrityError, ValidationError):
        return None
