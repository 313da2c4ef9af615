"""Types that stages, jobs and flows share: small, frozen, and JSON where persisted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field

from siftline.config.schedules import Interval
from siftline.errors import renamed
from siftline.progress import counted
from siftline.shown import shown
from siftline.storage.owned import PlainName
from siftline.storage.records import PublishedFile, Record, StoredFile

Float64s = npt.NDArray[np.float64]
Float32s = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Matrix = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class DetectorRef(Record):
    """A fitted detector on disk, named by the SHA-256 of its file."""

    kind: str
    path: str
    model_digest: str
    sample_rows: int
    threshold: float | None = Field(default=None, description="Lowest score of an anomaly, if known already.")
    capped: dict[str, int] = Field(
        default={}, description="Text features whose rarer values share a column, with the number of values."
    )


# Leading bits of a score, by which scores are counted.
BUCKET_BITS = 18


class ScoreSummary(Record):
    """Summary of scores; merging summaries is exact, associative and commutative.

    `buckets` and `counts` are a sparse histogram of their leading bits, see `siftline.stages.threshold`.
    """

    rows: int = 0
    non_finite: int = 0
    minimum: float | None = None
    maximum: float | None = None
    buckets: tuple[int, ...] = ()
    counts: tuple[int, ...] = ()


class Rejects(Record):
    """The rows of a chunk that cannot be scored: their file, and the error of the first."""

    file: StoredFile
    rows: int
    first: str


class KeptCandidates(Record):
    """The rows of a chunk that may be anomalies: all that score `floor` or more."""

    file: StoredFile
    floor: float


class ChunkRows(Record):
    """Number, first row and rows of a chunk."""

    chunk: int
    first_row: int
    rows: int


class ChunkReceipt(ChunkRows):
    """Proof that a chunk was scored: its part file, a summary, and its rejects.

    The part file has a row for every row of the chunk; rejects have the score NaN.
    """

    part: StoredFile
    detector: str
    summary: ScoreSummary
    rejects: Rejects | None = None
    candidates: KeptCandidates | None = None

    @property
    def rows_rejected(self) -> int:
        """Number of rejects."""
        return 0 if self.rejects is None else self.rejects.rows


class FailedChunk(ChunkRows):
    """A chunk without scores, with the cause."""

    error: str
    message: str
    attempts: int


class Receipts:
    """The receipts in chunk order, the failed chunks, and the number that this run computed."""

    def __init__(
        self, receipts: Iterable[ChunkReceipt], computed: int, failed: Iterable[FailedChunk] = ()
    ) -> None:
        self.in_order = tuple(sorted(receipts, key=lambda receipt: receipt.chunk))
        self.failed = tuple(sorted(failed, key=lambda chunk: chunk.chunk))
        self.computed = computed
        self.reused = len(self.in_order) - computed

    @property
    def rows_rejected(self) -> int:
        """Rejects of the chunks that were scored."""
        return sum(receipt.rows_rejected for receipt in self.in_order)

    @property
    def rows_failed(self) -> int:
        """Rows without a score."""
        return self.rows_rejected + sum(chunk.rows for chunk in self.failed)


class KeyFacts(Record):
    """Facts of a key in a result, over the rows of all scored chunks.

    `distinct` is None if not counted. A key that repeats has its first rows as an example.
    """

    columns: tuple[str, ...]
    unique: bool | Literal["unknown"]
    rows: int
    distinct: int | None = None
    missing: int = 0
    example: dict[str, str] | None = None
    example_rows: tuple[int, ...] = ()

    @property
    def caution(self) -> str | None:
        """A sentence for readers that want to join by the key; None if nothing is known against it."""
        name = shown(", ".join(self.columns))
        without = f"{self.missing:,} of {self.rows:,} rows have no value in it"
        if self.unique is not False:
            return f"Key {name} is incomplete: {without}." if self.missing else None
        count = "" if self.distinct is None else f"{self.distinct:,} distinct values in {self.rows:,} rows, "
        values = ", ".join(f"{one}={value}" for one, value in (self.example or {}).items())
        rows = ", ".join(map(str, self.example_rows))
        more = f"; {without}" if self.missing else ""
        return (
            f"Key {name} repeats: {count}for example {values} in rows {rows}{more}. "
            f"Results cannot be joined back by it{'' if 'row' in self.columns else ': use row'}."
        )


class CombinedScores(Record):
    """The labelled result, staged beside the published one. `rows` are those with a score."""

    staged: str
    publication: str
    rows: int
    anomalies: int
    threshold: float
    summary: ScoreSummary
    scores: tuple[PublishedFile, ...]
    anomaly_files: tuple[PublishedFile, ...]
    failed_files: tuple[PublishedFile, ...]
    key: KeyFacts | None = None
    asked: int | None = Field(default=None, description="Rows that the threshold's rule asks to flag.")

    @property
    def ties(self) -> str | None:
        """A sentence about equal scores that flag far more rows than asked for."""
        return ties_caution(self.anomalies, self.rows, self.asked, self.threshold)


def ties_caution(flagged: int, rows: int, asked: int | None, score: float) -> str | None:
    """Return a sentence about ties if they flag more than twice the rows asked for."""
    if asked is None or flagged <= 2 * asked:
        return None
    return (
        f"Ties: {flagged:,} of {rows:,} rows are flagged instead of {asked:,}, "
        f"because too many have the same score, {score:.6g}."
    )


class Check(Record):
    """One check of the audit."""

    name: str
    passed: bool
    detail: str


class ValidationReport(Record):
    """The audit of a staged result."""

    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """Failed checks, as text."""
        return tuple(f"{check.name}: {check.detail}" for check in self.checks if not check.passed)


ResultState = Literal["Completed", "CompletedWithRejects", "Partial", "AlreadyPublished"]
# Of a run, beside Prefect's states: its tag `siftline:<label>`, and its event `siftline.job.<label>`.
RunLabel = Literal[
    "rejects",
    "partial",
    "already-published",
    "already-running",
    "superseded",
    "skipped",
    "suspended",
    "recoverable",
    "for-good",
]


class Counts(Record):
    """Rows, chunks and anomalies of a result, and the score at which a row counts as an anomaly.

    In JSON the number of anomalies is `anomalies`.
    """

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    rows: int
    rows_failed: int
    chunks: int
    anomaly_count: int = Field(alias="anomalies")
    threshold: float

    @property
    def anomalies(self) -> int:
        """The former name of `anomaly_count`."""
        renamed("anomalies, the number,", "anomaly_count")
        return self.anomaly_count

    @property
    def scored(self) -> int:
        """Rows with a score."""
        return self.rows - self.rows_failed

    @property
    def rate(self) -> float:
        """Share of the scored rows that are flagged."""
        return self.anomaly_count / self.scored if self.scored else 0.0

    @property
    def summary(self) -> str:
        """Rows, anomalies and threshold, on one line."""
        found = f"{counted(self.anomaly_count, 'anomaly', 'anomalies')} among {counted(self.scored, 'row')}"
        return f"{found} ({self.rate:.2%}), score {self.threshold:.4f} or more"

    @property
    def counts(self) -> dict[str, Any]:
        """The counts by name, for another record of them."""
        return {name: getattr(self, name) for name in Counts.model_fields}


class BatchResult(Counts):
    """The result of a run."""

    name: str
    interval: Interval | None = None
    job_id: PlainName
    flow_run_id: str | None
    state: ResultState
    chunks_reused: int
    chunks_computed: int
    chunks_failed: int
    output: str
    wall_seconds: float
