"""Verification of a published result: every recorded byte, and whether counts, labels and ranks agree."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from siftline.errors import IntegrityError, SiftlineError
from siftline.jobs.findings import findings_record
from siftline.jobs.results import Manifest, Results, manifest_record, read_manifest
from siftline.storage.files import file_digest, record_text
from siftline.storage.layout import OutputFiles
from siftline.storage.owned import TEMPORARY
from siftline.storage.records import PublishedFile
from siftline.types import Float64s, Ints

_MOST = 3  # damages in an error
# Files that a manifest does not name; a report is drawn after publication, and may be drawn again.
_UNNAMED = (OutputFiles.MANIFEST, OutputFiles.FINDINGS, OutputFiles.REPORT)


def named_files(manifest: Manifest) -> tuple[PublishedFile, ...]:
    """Return the data files of a publication."""
    return (*manifest.scores, *manifest.anomaly_files, *manifest.failed_files)


def file_damages(output: Path, manifest: Manifest, digests: bool) -> Iterator[str]:
    """Yield damages of files in words; with `digests`, every byte is read."""
    for file in named_files(manifest):
        try:
            yield from _file_damage(output, file, digests)
        except OSError as error:
            yield f"{file.name}: {error.strerror or error}"
    yield from _link_damages(OutputFiles(output), manifest)


def damages(results: Results) -> list[str]:
    """Return all damages of a result in words; only anomalies take memory."""
    output, manifest = results.path, results.manifest
    found = list(file_damages(output, manifest, digests=True))
    found += _record_damages(output, manifest)
    whole = {file.name for file in named_files(manifest)} - {one.partition(": ")[0] for one in found}
    scored = _Scored(manifest.threshold)
    for file in manifest.scores:
        if file.name in whole:
            with _readable(file.name, found):
                _read_scores(output, file, scored)
    found += scored.damages
    if not found:
        found += _disagreements(manifest, scored)
        with _readable(OutputFiles.ANOMALIES, found):
            found += _anomaly_damages(results, scored)
    return found


def check_intact(results: Results) -> None:
    """Raise `IntegrityError` with the damages of a result, if it has any."""
    found = damages(results)
    if found:
        more = f", and {len(found) - _MOST:,} more" if len(found) > _MOST else ""
        problem = f"{results.path}: the result is damaged: {'; '.join(found[:_MOST])}{more}"
        raise IntegrityError(problem, "run its job again: it is published anew")


def _file_damage(output: Path, file: PublishedFile, digests: bool) -> Iterator[str]:
    path = output
    for part in file.name.split("/"):
        path /= part
        if path.is_symlink():
            yield f"{file.name}: is reached through a link, {path}"
            return
    size = path.stat().st_size
    if size != file.size:
        yield f"{file.name}: has {size:,} bytes, {file.size:,} were published"
    elif digests and file_digest(path) != file.digest:
        yield f"{file.name}: does not match its digest"


def _link_damages(files: OutputFiles, manifest: Manifest) -> Iterator[str]:
    """Compare visible names with the publication; without links there is only the manifest."""
    home = files.publications / manifest.publication
    if not files.current.is_symlink():
        return
    if files.current.readlink() != home.relative_to(files.root):
        yield f"{files.current.name}: does not lead to publication {manifest.publication}"
    for name in files.SHOWN:
        path = files.root / name
        if path.is_symlink() and str(path.readlink()) == f"{files.current.name}/{name}":
            if not path.exists() and name != files.REPORT:  # it is drawn again
                yield f"{name}: is gone"
        elif os.path.lexists(path):
            yield f"{name}: is not of the publication"
        elif (home / name).exists():
            yield f"{name}: is gone"


def _record_damages(output: Path, manifest: Manifest) -> Iterator[str]:
    """Yield damages of the records of a publication, and unknown files."""
    home = OutputFiles(output).publications / manifest.publication
    if not home.is_dir():  # the former layout
        return
    try:
        if read_manifest(home) != manifest:
            yield f"{OutputFiles.MANIFEST}: is not that of its publication"
        findings = findings_record(home)
        if findings.path.exists() and findings.read().publication != manifest.publication:
            yield f"{OutputFiles.FINDINGS}: is of another publication"
    except SiftlineError as error:
        yield error.problem
        return
    for record in (manifest_record(home), findings):
        if record.path.exists() and not _as_written(record.path):
            yield f"{record.path.name}: is not as written"
    named = {str(output / file.name) for file in named_files(manifest)}
    for path in sorted(home.rglob("*")):
        known = path.relative_to(home).as_posix() in _UNNAMED or str(path) in named
        if not (known or path.is_dir() or TEMPORARY.fullmatch(path.name)):
            yield f"{path.relative_to(output).as_posix()}: is not a file of the publication"


def _as_written(record: Path) -> bool:
    """Return True if a record has Siftline's own spelling: digests know values only."""
    text = record.read_bytes()
    return record_text(json.loads(text)).encode() == text


@contextmanager
def _readable(name: str, found: list[str]) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        found.append(f"{name}: {' '.join(str(error).split())}")


class _Scored:
    """Content of the files of scores: counts, extremes, and the flagged rows."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._flagged: list[tuple[Ints | None, Float64s]] = []
        self._last = -1
        self.damages: list[str] = []
        self.rows = 0
        self.minimum, self.maximum = np.inf, -np.inf

    def add(self, name: str, rows: Ints | None, scores: Float64s, labels: Ints) -> None:
        flagged = scores >= self._threshold
        if not np.isfinite(scores).all():
            self.damages.append(f"{name}: has a score that is not finite")
        if (labels != flagged).any():
            wrong = int(np.flatnonzero(labels != flagged)[0])
            self.damages.append(f"{name}: label {labels[wrong]} at score {float(scores[wrong])!r}")
        if rows is not None and len(rows):
            if rows[0] <= self._last or (np.diff(rows) <= 0).any():
                self.damages.append(f"{name}: is not in the order of the source")
            self._last = int(rows[-1])
        self.rows += len(scores)
        self.minimum = min(self.minimum, scores.min(initial=np.inf))
        self.maximum = max(self.maximum, scores.max(initial=-np.inf))
        self._flagged.append((rows[flagged] if rows is not None else None, scores[flagged]))

    @property
    def flagged_rows(self) -> Ints | None:
        rows = [rows for rows, _ in self._flagged if rows is not None]
        return np.concatenate(rows) if rows and len(rows) == len(self._flagged) else None

    @property
    def flagged_scores(self) -> Float64s:
        return np.concatenate([np.empty(0), *(scores for _, scores in self._flagged)])


def _read_scores(output: Path, file: PublishedFile, scored: _Scored) -> None:
    before = scored.rows
    with pq.ParquetFile(output / file.name, page_checksum_verification=True) as parquet:
        columns = [name for name in ("row", "score", "label") if name in parquet.schema_arrow.names]
        for batch in parquet.iter_batches(columns=columns, use_threads=False):
            scored.add(
                file.name, _positions(batch), batch["score"].to_numpy(), batch["label"].to_numpy().astype(int)
            )
    if scored.rows - before != file.rows:
        scored.damages.append(f"{file.name}: has {scored.rows - before:,} rows, {file.rows:,} were published")


def _positions(table: pa.Table | pa.RecordBatch) -> Ints | None:
    """Return the positions in the source; None for earlier versions, or a key `row`."""
    if "row" not in table.schema.names or table.schema.field("row").type != pa.int64():
        return None
    column = table["row"]
    return None if column.null_count else np.asarray(column)


def _disagreements(manifest: Manifest, scored: _Scored) -> Iterator[str]:
    """Compare the counts and scores of the manifest with the files."""
    failed = sum(file.rows for file in manifest.failed_files)
    chunks = sum(chunk.rows for chunk in manifest.chunks_failed)
    facts: dict[str, tuple[Any, Any]] = {
        "rows": (manifest.scored, scored.rows),
        "rows_failed": (manifest.rows_failed, failed + chunks),
        "anomalies": (manifest.anomaly_count, len(scored.flagged_scores)),
        "score_minimum": (manifest.score_minimum, float(scored.minimum)),
        "score_maximum": (manifest.score_maximum, float(scored.maximum)),
    }
    rule = manifest.config.get("threshold", {})
    if rule.get("score") is None and rule.get("quantile") is None:  # then it is the score of a row
        facts["threshold"] = (manifest.threshold, float(scored.flagged_scores.min(initial=np.inf)))
    for name, (stated, there) in facts.items():
        if stated != there:
            yield f"{OutputFiles.MANIFEST}: {name} is {stated!r}, the files have {there!r}"


def _anomaly_damages(results: Results, scored: _Scored) -> Iterator[str]:
    """Compare the anomalies with the flagged rows: their scores, ranks and order."""
    own_key = "row" in results.manifest.config.get("source", {}).get("key", ())
    scores, ranks, rows = _read_anomalies(results, None if own_key else scored.flagged_rows)
    ordered = np.sort(scored.flagged_scores)
    if not np.array_equal(np.sort(scores), ordered):
        yield f"{OutputFiles.ANOMALIES}: its scores are not those of the flagged rows"
        return
    if (ranks != len(ordered) - np.searchsorted(ordered, scores, side="right") + 1).any():
        yield f"{OutputFiles.ANOMALIES}: a rank does not follow from the scores"
    flagged = scored.flagged_rows
    if rows is not None and flagged is not None:
        places = np.argsort(rows, kind="stable")
        same = np.array_equal(rows[places], flagged)
        if not (same and np.array_equal(scores[places], scored.flagged_scores)):
            yield f"{OutputFiles.ANOMALIES}: its rows are not the flagged ones"
        elif (np.diff(ranks) < 0).any() and (np.diff(rows) <= 0).any():
            yield f"{OutputFiles.ANOMALIES}: is neither in the order of ranks nor of the source"


def _read_anomalies(results: Results, flagged: Ints | None) -> tuple[Float64s, Ints, Ints | None]:
    names = ["score", "rank", *(["row"] if flagged is not None else [])]
    files = [results.path / file.name for file in results.manifest.anomaly_files]
    tables = []
    for path in files:
        with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
            tables.append(parquet.read(columns=names, use_threads=False))
    table = pa.concat_tables(tables)
    return (
        table["score"].to_numpy(),
        table["rank"].to_numpy(),
        table["row"].to_numpy() if "row" in names else None,
    )
