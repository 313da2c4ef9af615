"""What is already done: receipts, kept by a `CheckpointStore`, believed only with their part file.

The store itself is somebody else's: the flows give Prefect's result persistence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from siftline.errors import IntegrityError
from siftline.files import file_digest, seal, unseal
from siftline.types import BatchPlan, ChunkReceipt

FORMAT_VERSION = 1


class CheckpointStore(Protocol):
    """Keeps records by key."""

    def load(self, key: str) -> Any | None:
        """Return the record of a key; None when there is none, or it is unreadable or torn."""

    def commit(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record, replacing the one of the same key.

        Raises
        ------
        CheckpointError
            When it could not be kept.
        """


class Checkpoint:
    """The receipts of one job, committed in groups of ``plan.commit_every`` consecutive chunks."""

    def __init__(self, plan: BatchPlan, store: CheckpointStore) -> None:
        self._plan = plan
        self._store = store
        self._committed: dict[int, list[ChunkReceipt]] = {}
        self._pending: dict[int, list[ChunkReceipt]] = {}

    def load(self, detector: str) -> dict[int, ChunkReceipt]:
        """Return the receipts that can be relied on, by chunk.

        A receipt counts when it is intact, of this detector, of the planned rows, and its part file has
        the recorded size and digest.
        """
        for group in range(-(-len(self._plan.chunks) // self._plan.commit_every)):
            receipts = [one for one in self._read(group) if self._believed(one, detector)]
            if receipts:
                self._committed[group] = receipts
        return {one.chunk: one for receipts in self._committed.values() for one in receipts}

    def add(self, receipt: ChunkReceipt) -> None:
        """Take a receipt, and commit its group once that is complete."""
        group = receipt.chunk // self._plan.commit_every
        pending = self._pending.setdefault(group, [])
        pending.append(receipt)
        if len(pending) + len(self._committed.get(group, ())) >= self._size(group):
            self._commit(group)

    def flush(self) -> None:
        """Commit whatever is pending."""
        for group in sorted(self._pending):
            self._commit(group)

    def _size(self, group: int) -> int:
        every = self._plan.commit_every
        return min(every, len(self._plan.chunks) - group * every)

    def _commit(self, group: int) -> None:
        receipts = self._committed.get(group, []) + self._pending[group]
        record = {"receipts": [receipt.model_dump(mode="json") for receipt in receipts]}
        self._store.commit(self._key(group), seal(record, FORMAT_VERSION))
        del self._pending[group]
        if len(receipts) < self._size(group):
            self._committed[group] = receipts

    def _key(self, group: int) -> str:
        return f"{self._plan.token}/{group:07d}.json"

    def _read(self, group: int) -> Iterator[ChunkReceipt]:
        key = self._key(group)
        record = self._store.load(key)
        if record is None:
            return
        try:
            body = unseal(record, FORMAT_VERSION, key)
            yield from [ChunkReceipt.model_validate(receipt) for receipt in body["receipts"]]
        except (IntegrityError, ValidationError):
            # A torn or altered record is a miss: its chunks are computed again.
            return

    def _believed(self, receipt: ChunkReceipt, detector: str) -> bool:
        plan = self._plan
        if not 0 <= receipt.chunk < len(plan.chunks) or receipt.detector != detector:
            return False
        chunk = plan.chunks[receipt.chunk]
        planned = (chunk.first_row, chunk.rows)
        return planned == (receipt.first_row, receipt.rows) and is_intact(plan.parts / receipt.part, receipt)


def is_intact(part: Path, receipt: ChunkReceipt) -> bool:
    """Whether a part file has the size and digest that its receipt recorded."""
    try:
        return part.stat().st_size == receipt.size and file_digest(part) == receipt.part_digest
    except OSError:
        return False


def missing(plan: BatchPlan, done: Iterable[int]) -> list[int]:
    """Return the chunks that are not done, in order."""
    have = set(done)
    return [index for index in range(len(plan.chunks)) if index not in have]
