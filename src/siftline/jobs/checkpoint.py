"""Receipts of finished chunks, kept by a `CheckpointStore` and valid only with their part file.

The flows provide a store on Prefect's result persistence.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import Any, Protocol

from pydantic import ValidationError

from siftline.batch_plan import BatchPlan
from siftline.engine import attempt_again
from siftline.errors import IntegrityError
from siftline.progress import Incident, emit
from siftline.storage.files import seal, unseal
from siftline.storage.layout import Version
from siftline.storage.lease import Lease
from siftline.storage.parquet import is_intact
from siftline.types import BUCKET_BITS, ChunkReceipt

_PLACES = ("", "-partial", "-partial2")


class CheckpointStore(Protocol):
    """Keeps records by key."""

    def load(self, key: str) -> Any | None:
        """Return the record of a key, empty if torn, None if missing.

        On failure it raises CheckpointError.
        """

    def commit(self, key: str, record: dict[str, Any]) -> None:
        """Keep a record, replacing the one of the same key; raise CheckpointError on failure."""


class Checkpoint:
    """The receipts of one job, committed in groups of ``plan.commit_every`` consecutive chunks.

    A record with valid receipts is never overwritten, because a write may fail half way: a group has places
    for its complete record and for two partial ones, and the newest goes to a free place. The lease is
    checked before every commit: a replaced run commits nothing.
    """

    def __init__(self, plan: BatchPlan, store: CheckpointStore, lease: Lease | None = None) -> None:
        self._plan = plan
        self._store = store
        self._lease = lease
        self._committed: dict[int, list[ChunkReceipt]] = {}
        self._pending: dict[int, list[ChunkReceipt]] = {}
        self._places: dict[int, set[str]] = {}

    def load(self, detector: str) -> dict[int, ChunkReceipt]:
        """Return the valid receipts, by chunk.

        A receipt is valid if it is intact, of this detector and the planned rows, and its files have the
        recorded size and digest.
        """
        for group in self._groups():
            if believed := self._reliable(group, detector):
                self._committed[group] = believed
        return {one.chunk: one for receipts in self._committed.values() for one in receipts}

    def committed(self) -> int:
        """Count the chunks that have a receipt, without checking their files."""
        return sum(len(self._saved(group)) for group in self._groups())

    def add(self, receipt: ChunkReceipt) -> None:
        """Add a receipt, and commit its group once that is complete."""
        group = self._group(receipt)
        pending = self._pending.setdefault(group, [])
        pending.append(receipt)
        if len(pending) + len(self._committed.get(group, ())) >= self._size(group):
            self._commit(group)

    def flush(self) -> None:
        """Commit all pending receipts."""
        for group in sorted(self._pending):
            self._commit(group)

    def _groups(self) -> range:
        return range(-(-len(self._plan.chunks) // self._plan.commit_every))

    def _group(self, receipt: ChunkReceipt) -> int:
        return receipt.chunk // self._plan.commit_every

    def _saved(self, group: int) -> set[int]:
        records = (self._read(self._key(group, place)) for place in _PLACES)
        return {one.chunk for record in records for one in record if self._group(one) == group}

    def _reliable(self, group: int, detector: str) -> list[ChunkReceipt]:
        found: dict[int, ChunkReceipt] = {}
        kept: dict[str, dict[int, ChunkReceipt]] = {}
        for place in _PLACES:
            if len(found) < self._size(group):
                own = [one for one in self._read(self._key(group, place)) if self._group(one) == group]
                kept[place] = {one.chunk: one for one in own if self._believed(one, detector)}
                found |= kept[place]
        # A place whose receipts are also in another one is free again.
        covered: set[int] = set()
        for place in sorted(kept, key=lambda place: -len(kept[place])):
            if not covered.issuperset(kept[place]):
                covered |= kept[place].keys()
                self._places.setdefault(group, set()).add(place)
        return list(found.values())

    def _size(self, group: int) -> int:
        every = self._plan.commit_every
        return min(every, len(self._plan.chunks) - group * every)

    def _commit(self, group: int) -> None:
        receipts = self._committed.get(group, []) + self._pending[group]
        complete = len(receipts) == self._size(group)
        record = {"receipts": [receipt.model_dump(mode="json") for receipt in receipts]}
        if self._lease is not None:
            self._lease.check()
        place = self._place(group, complete)
        key = self._key(group, place)
        sealed = seal(record, Version.RECEIPTS)
        attempt_again("receipt", lambda: self._store.commit(key, sealed), self._plan.config.retries)
        self._places[group] = {place}
        del self._pending[group]
        if not complete:
            self._committed[group] = receipts

    def _place(self, group: int, complete: bool) -> str:
        taken = self._places.get(group, set())
        free = [place for place in _PLACES if place not in taken and (complete or place)]
        return free[0] if free else _PLACES[-1]

    def _key(self, group: int, place: str) -> str:
        return f"{self._plan.token}/{group:07d}{place}.json"

    def _read(self, key: str) -> list[ChunkReceipt]:
        record = attempt_again("receipt", lambda: self._store.load(key), self._plan.config.retries)
        if record is None:
            return []
        try:
            body = unseal(record, Version.RECEIPTS, key)
            return [ChunkReceipt.model_validate(receipt) for receipt in body["receipts"]]
        except (IntegrityError, ValidationError) as error:
            emit(Incident("recomputed", f"receipt {key} is torn or altered ({type(error).__name__})"))
            return []

    def _believed(self, receipt: ChunkReceipt, detector: str) -> bool:
        plan = self._plan
        if not 0 <= receipt.chunk < len(plan.chunks) or receipt.detector != detector:
            return False
        chunk = plan.chunks[receipt.chunk]
        if (chunk.first_row, chunk.rows) != (receipt.first_row, receipt.rows) or not _adds_up(receipt):
            return False
        rejects = receipt.rejects is None or is_intact(plan.failed, receipt.rejects.file)
        if rejects and is_intact(plan.parts, receipt.part):
            return True
        text = f"{chunk}: its file {receipt.part.name} does not match its receipt"
        emit(Incident("recomputed", text, chunk.index))
        return False


def _adds_up(receipt: ChunkReceipt) -> bool:
    """Return True if a receipt's summary counts the rows of its chunk once."""
    summary = receipt.summary
    counts, buckets = summary.counts, summary.buckets
    return (
        summary.rows == receipt.rows == summary.non_finite + sum(counts)
        and len(counts) == len(buckets)
        and all(0 < count <= receipt.rows for count in counts)
        and all(low < high for low, high in pairwise(buckets))
        and all(0 <= bucket < 1 << BUCKET_BITS for bucket in buckets)
        and (summary.minimum is None) == (summary.maximum is None) == (not counts)
    )


def missing(plan: BatchPlan, done: Iterable[int]) -> list[int]:
    """Return the remaining chunks, in order."""
    have = set(done)
    return [index for index in range(len(plan.chunks)) if index not in have]
