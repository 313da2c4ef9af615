"""Detection: workers score the chunks (`siftline.stages.scoring`); every receipt is committed here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from siftline.batch_plan import BatchPlan, Chunk
from siftline.engine import Adapting, Executor, Settled, run_with_retries
from siftline.errors import JobError, RowError, SiftlineError
from siftline.jobs.checkpoint import Checkpoint, CheckpointStore, missing
from siftline.progress import Incident, Progress, counted, emit
from siftline.source.reading import only_files
from siftline.stages.rejects import too_many
from siftline.stages.scoring import ChunkTask, halved, score_chunk
from siftline.stages.threshold import count_from, flagged_count
from siftline.storage.files import write_record
from siftline.storage.layout import Version
from siftline.storage.lease import Lease
from siftline.storage.owned import CHUNK, remove_own
from siftline.system.signals import stop_on_signal
from siftline.types import ChunkReceipt, DetectorRef, FailedChunk, Receipts


def detect_chunks(
    plan: BatchPlan,
    detector: DetectorRef,
    executor: Executor,
    store: CheckpointStore,
    lease: Lease | None = None,
    asked: Callable[[], bool] = lambda: False,
) -> Receipts:
    """Score the chunks without a receipt, and commit each receipt on arrival, also before an error.

    Raises
    ------
    SiftlineError
        The last error, once more rows or chunks failed than tolerated; at once if not a chunk is at fault.
    Cancelled, LeaseLost
        After a signal, or once `asked` is true; when another run has taken over the job.
    """
    detection = _Detection(plan, detector, Checkpoint(plan, store, lease))
    try:
        with stop_on_signal(asked) as stop:
            for settled in run_with_retries(
                executor,
                score_chunk,
                chunk_tasks(plan, detector, detection.todo),
                plan.config.retries,
                split=halved,
                bundle=plan.bundle,
                timeout_seconds=plan.config.chunking.timeout_seconds,
                stop=stop,
                adapting=Adapting(executor, len(detection.todo)),
            ):
                detection.take(settled)
    finally:
        detection.checkpoint.flush()
    receipts = detection.receipts()
    if lease is not None:
        lease.check()
    _tidy(plan, receipts)
    return receipts


def collect_receipts(plan: BatchPlan, detector: DetectorRef, store: CheckpointStore) -> Receipts:
    """Return the receipts of earlier runs, or raise `JobError`; chunks without one count as failed."""
    done = Checkpoint(plan, store).load(detector.model_digest)
    if not done:
        raise JobError(
            f"job {plan.job_id}: no chunk is done yet", f"resume it: siftline resume {plan.job_id}"
        )
    left = [plan.chunks[index] for index in missing(plan, done)]
    return Receipts(done.values(), 0, (_failed(chunk, "NotComputed", "not computed", 0) for chunk in left))


def chunk_tasks(plan: BatchPlan, detector: DetectorRef, chunks: Iterable[int]) -> Iterator[ChunkTask]:
    """Yield the tasks of some chunks, each with only the files that it reads."""
    for index in chunks:
        files, (chunk,) = only_files(plan.snapshot.files, [plan.chunks[index]])
        yield ChunkTask(
            chunk=chunk,
            files=files,
            key=plan.config.source.key,
            detector=detector,
            parts=str(plan.parts),
            failed=str(plan.failed),
            tolerated_rows=plan.tolerated_rows,
            batch_divisor=min(plan.batch_divisor, chunk.rows),
            share=plan.config.threshold.share,
        )


class _Detection:
    """The scored and failed chunks of a job, as detection proceeds."""

    def __init__(self, plan: BatchPlan, detector: DetectorRef, checkpoint: Checkpoint) -> None:
        self._plan = plan
        self._threshold = detector.threshold
        self.checkpoint = checkpoint
        self._done: dict[int, ChunkReceipt] = {}
        self._failed: list[FailedChunk] = []
        self._rejected = self._rows = self._reaching = self._retried = self._split = 0
        earlier = checkpoint.load(detector.model_digest)
        self.todo = missing(plan, earlier)
        for receipt in earlier.values():
            self._add(receipt)
        self._emit(rejected=sum(receipt.rows_rejected for receipt in earlier.values()))
        for receipt in earlier.values():
            self._count_rejects(receipt)

    def take(self, settled: Settled[ChunkTask, ChunkReceipt]) -> None:
        """Take a settled chunk; raise if the job has failed."""
        self._retried += settled.attempts > 1
        self._split += settled.item.batch_divisor > min(self._plan.batch_divisor, settled.item.chunk.rows)
        if settled.error is not None:
            self._fail(self._plan.chunks[settled.item.chunk.index], settled.error, settled.attempts)
            return
        receipt = settled.result()
        self.checkpoint.add(receipt)
        self._add(receipt)
        self._emit(settled.seconds, rejected=receipt.rows_rejected)
        self._count_rejects(receipt)

    def receipts(self) -> Receipts:
        return Receipts(self._done.values(), len(self.todo) - len(self._failed), self._failed)

    def _add(self, receipt: ChunkReceipt) -> None:
        self._done[receipt.chunk] = receipt
        self._rows += receipt.rows
        if self._threshold is not None:
            self._reaching += count_from(receipt.summary, self._threshold)

    def _emit(self, seconds: float | None = None, rejected: int = 0) -> None:
        expected = flagged_count(self._plan.config.threshold.share, self._rows)
        emit(
            Progress(
                "detect",
                chunks_done=len(self._done),
                chunks_total=len(self._plan.chunks),
                rows_done=self._rows,
                rows_total=self._plan.rows,
                reused=len(self._plan.chunks) - len(self.todo),
                failed=len(self._failed),
                retried=self._retried,
                split=self._split,
                rejected=self._rejected + rejected,
                chunk_seconds=seconds,
                anomalies=expected if self._threshold is None else self._reaching,
            )
        )

    def _count_rejects(self, receipt: ChunkReceipt) -> None:
        rejects = receipt.rejects
        if rejects is None:
            return
        plan = self._plan
        self._rejected += rejects.rows
        chunk = plan.chunks[receipt.chunk]
        text = f"{chunk}: {counted(rejects.rows, 'row')} set aside; {rejects.first}"
        emit(Incident("rejected", text, chunk.index))
        if self._rejected > plan.tolerated_rows:
            raise too_many(self._rejected, plan.tolerated_rows, rejects.first, plan.failed)

    def _fail(self, chunk: Chunk, error: SiftlineError, attempts: int) -> None:
        if error.fault == "job" or isinstance(error, RowError):
            raise error
        plan = self._plan
        self._failed.append(_failed(chunk, type(error).__name__, error.problem, attempts))
        record = {"chunks": [one.model_dump(mode="json") for one in self._failed]}
        write_record(plan.files.failed_chunks(plan.token), record, Version.FAILED_CHUNKS)
        what = f"{chunk} failed after {counted(attempts, 'attempt')}"
        emit(Incident("chunk failed", f"{what}: {error.problem}", chunk.index))
        self._emit()
        if len(self._failed) > plan.tolerated_chunks:
            others = len(self._failed) - 1
            raise error.about(what if not others else f"{counted(others, 'chunk')} failed, now {what}")


def _failed(chunk: Chunk, error: str, message: str, attempts: int) -> FailedChunk:
    return FailedChunk(
        chunk=chunk.index,
        first_row=chunk.first_row,
        rows=chunk.rows,
        error=error,
        message=message,
        attempts=attempts,
    )


def _tidy(plan: BatchPlan, receipts: Receipts) -> None:
    """Remove the part files of failed attempts."""
    named = {receipt.part.name for receipt in receipts.in_order}
    named |= {one.candidates.file.name for one in receipts.in_order if one.candidates is not None}
    remove_own(plan.parts, CHUNK, named)
