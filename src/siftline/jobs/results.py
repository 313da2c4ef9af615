"""The published result, for its readers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from siftline.errors import SourceError
from siftline.jobs.findings import Findings, findings_record
from siftline.jobs.results_html import results_html
from siftline.storage.layout import OutputFiles, Version
from siftline.storage.owned import PlainName
from siftline.storage.parquet import read_ranks
from siftline.storage.records import PublishedFile, RecordFile
from siftline.types import Counts, FailedChunk, KeyFacts, ResultState, ValidationReport, ties_caution

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow.dataset as ds


class Manifest(Counts):
    """The content of ``manifest.json``: only files that it names belong to the result."""

    name: str
    job_id: str
    publication: PlainName
    flow_run_id: str | None
    published_at: str
    config: dict[str, Any]
    snapshot: dict[str, Any]
    features: tuple[str, ...]
    detector: dict[str, Any]
    versions: dict[str, str]
    complete: bool
    chunks_failed: tuple[FailedChunk, ...]
    score_minimum: float | None
    score_maximum: float | None
    validation: ValidationReport
    scores: tuple[PublishedFile, ...]
    anomaly_files: tuple[PublishedFile, ...]
    failed_files: tuple[PublishedFile, ...]
    replaces: PlainName | None
    key: KeyFacts | None = None
    asked: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def cautions(self) -> tuple[str, ...]:
        """Sentences that a reader of the result must know."""
        ties = ties_caution(self.anomaly_count, self.scored, self.asked, self.threshold)
        found = (ties, self.key.caution if self.key is not None else None)
        return tuple(one for one in found if one is not None)

    @property
    def missing(self) -> tuple[tuple[int, int], ...]:
        """First and last row of every run of rows without a result."""
        ranges: list[tuple[int, int]] = []
        for chunk in self.chunks_failed:
            start, stop = chunk.first_row, chunk.first_row + chunk.rows - 1
            if ranges and ranges[-1][1] + 1 == start:
                start = ranges.pop()[0]
            ranges.append((start, stop))
        return tuple(ranges)

    @property
    def state(self) -> ResultState:
        """State of the run that published it."""
        if not self.complete:
            return "Partial"
        return "CompletedWithRejects" if self.rows_failed else "Completed"


@dataclass(frozen=True, repr=False)
class Results:
    """A published result.

    Attributes
    ----------
    manifest : Manifest
        Counts, threshold, versions, digests.
    scores : pyarrow.dataset.Dataset
        Every row: the key columns, ``row`` (its position in the source), ``score`` (float64) and ``label``
        (int8, 1 = anomaly).
    anomalies : pyarrow.Table
        The flagged rows, highest score first: key columns, ``row``, features, carried columns, ``score``,
        ``rank`` (int64, equal scores share one), ``reasons``.
    findings : Findings or None
        Groups of anomalies, rows that other thresholds would flag, agreement with known labels; None if the
        publication has none.
    """

    path: Path
    manifest: Manifest

    @property
    def scores(self) -> ds.Dataset:
        """Every row with score and label, read lazily."""
        return self._dataset(self.manifest.scores)

    @property
    def anomalies(self) -> pa.Table:
        """The flagged rows with their reasons."""
        return self._dataset(self.manifest.anomaly_files).to_table()

    @property
    def findings(self) -> Findings | None:
        """Groups of anomalies, the curve of thresholds, and more, or None."""
        publication = self.path / OutputFiles.PUBLICATIONS / self.manifest.publication
        return findings_record(publication).read_or(None)

    @property
    def failed(self) -> pa.Table | None:
        """The rejected rows with their errors, as a table, or None; failed chunks: ``manifest.missing``."""
        files = self.manifest.failed_files
        return self._dataset(files).to_table() if files else None

    def top(self, count: int = 10) -> pa.Table:
        """Return the `count` most anomalous rows, highest score first."""
        files = (self.path / file.name for file in self.manifest.anomaly_files)
        found = pa.concat_tables(read_ranks(file, count) for file in files)
        return found.sort_by("rank").slice(0, count)

    def to_pandas(self) -> pd.DataFrame:
        """Return every row with its score and label as a data frame."""
        frame: pd.DataFrame = self.scores.to_table().to_pandas()
        return frame

    def __repr__(self) -> str:
        return f"Results({str(self.path)!r}: {self.manifest.summary})"

    def _repr_html_(self) -> str:
        title = f"{self.manifest.name}: {self.manifest.summary}"
        return results_html(title, self.findings, self.top(), self.manifest.features, self.manifest.cautions)

    def _dataset(self, files: tuple[PublishedFile, ...]) -> ds.Dataset:
        import pyarrow.dataset as ds  # slow to import, and not needed by workers

        checked = ds.ParquetFragmentScanOptions(page_checksum_verification=True)
        kind = ds.ParquetFileFormat(default_fragment_scan_options=checked)
        return ds.dataset([str(self.path / file.name) for file in files], format=kind)


def open_results(output: Path | str, verify: bool = False) -> Results:
    """Open the last publication in a directory; it stays complete while newer ones replace it.

    The files of the previous publication are kept, so that a reader has time to finish.

    Parameters
    ----------
    output : path
        The ``output.path`` of the configuration.
    verify : bool
        Check every file first, as ``siftline verify`` does. Without it, reading finds damaged pages only.

    Raises
    ------
    SourceError
        When nothing is published there.
    IntegrityError
        When the manifest is altered or of another format version; with `verify`, when a file is damaged.
    """
    path = Path(output)
    results = Results(path, read_manifest(path))
    if verify:
        from siftline.jobs.verification import check_intact

        check_intact(results)
    return results


def read_manifest(output: Path) -> Manifest:
    """Read the manifest of an output directory; see `open_results`."""
    try:
        return manifest_record(output).read()
    except FileNotFoundError:
        raise SourceError(f"{output}: no results there", "give the output.path of a finished job") from None


def manifest_record(output: Path) -> RecordFile[Manifest]:
    """Return the manifest of an output directory, as a record on disk."""
    return RecordFile(OutputFiles(output).manifest, Manifest, Version.MANIFEST)
