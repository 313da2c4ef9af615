"""Labelling consecutive chunks on a worker: rows with labels, anomalies with reasons."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from siftline.batch_plan import Chunk, SourceFile
from siftline.detectors.fitted import cached_model
from siftline.detectors.preprocess import as_text
from siftline.detectors.reasons import explain
from siftline.errors import PartDamaged
from siftline.source.reading import read_pieces, take_rows
from siftline.stages.findings.known_labels import read_labels
from siftline.stages.findings.sample import Sampled, SampleTask, draw_and_describe
from siftline.stages.findings.tally import Tally, count_labels, count_positions
from siftline.stages.keys import KeyCensus, RunKeys
from siftline.storage.files import replacing
from siftline.storage.layout import OutputFiles
from siftline.storage.parquet import (
    ROW,
    parquet_writer,
    published_file,
    read_part,
    with_labels,
    write_parquet,
)
from siftline.storage.records import PublishedFile
from siftline.types import ChunkReceipt, DetectorRef, Float64s, Ints

# Name of a file in the staged result: all flagged scores, ascending.
FLAGGED = "flagged.npy"
# Name of a directory in it: hashes of keys.
KEYS = "keys"
# Name of a directory in it: anomalies, in files sorted by rank.
FOUND = "found"
_HELD_CELLS = 1 << 22


@dataclass(frozen=True)
class LabelTask:
    """Task of labelling consecutive chunks of a source with `rows` rows.

    Known labels are in the column `label`, if any; scores from `exact_from` upwards are counted one by one.
    At most `most_keys` hashes of keys are saved. Anomalies are in row groups of `group_rows`.
    """

    name: str
    chunks: tuple[Chunk, ...]
    receipts: tuple[ChunkReceipt, ...]
    files: tuple[SourceFile, ...]
    detector: DetectorRef
    key: tuple[str, ...]
    columns: tuple[str, ...]
    threshold: float
    parts: str
    staged: str
    rows: int
    label: str | None
    exact_from: float
    most_keys: int
    group_rows: int

    def __str__(self) -> str:
        return f"labels of chunks {self.chunks[0].index}-{self.chunks[-1].index}"


@dataclass(frozen=True)
class Labelled:
    """Result of a `LabelTask`: its file of scores, its files of anomalies, and their rows."""

    scores: PublishedFile
    found: tuple[str, ...]
    anomalies: int
    tally: Tally | None
    keys: RunKeys | None


def label_or_sample(task: LabelTask | SampleTask) -> Labelled | Sampled:
    """Do either task on a worker; the sample is drawn beside the labelling."""
    return draw_and_describe(task) if isinstance(task, SampleTask) else label_chunks(task)


def label_chunks(task: LabelTask) -> Labelled:
    """Write the labels of consecutive chunks, and their anomalies with reasons, on a worker."""
    staged = Path(task.staged)
    tallies: list[Tally] = []
    census = KeyCensus(task.key, many=task.rows > task.most_keys)
    rows = 0
    anomalies = _Anomalies(task)
    with replacing(staged / OutputFiles.SCORES / task.name) as temporary:
        writer: pq.ParquetWriter | None = None
        for chunk, receipt in zip(task.chunks, task.receipts, strict=True):
            labelled = _labelled(task, receipt)
            census.add(labelled)
            scored = labelled if receipt.rejects is None else labelled.filter(pc.is_finite(labelled["score"]))
            writer = writer or parquet_writer(temporary, labelled.schema)
            writer.write_table(scored.combine_chunks())
            rows += scored.num_rows
            positions = np.flatnonzero(labelled["label"].to_numpy())
            tallies.append(_tally(task, chunk, labelled["score"].to_numpy(), positions))
            if len(positions) or anomalies.empty:
                flagged = labelled.take(pa.array(positions))
                anomalies.add(_originals(task, chunk, receipt, flagged, positions))
        if writer is not None:
            writer.close()
    anomalies.write()
    scores = published_file(staged, f"{OutputFiles.SCORES}/{task.name}", rows)
    keys = census.keys(staged / KEYS / f"{task.name}.npy", task.most_keys)
    return Labelled(scores, tuple(anomalies.files), anomalies.rows, reduce(Tally.plus, tallies), keys)


class _Anomalies:
    """Anomalies with reasons, explained, sorted by rank and written a bounded number of cells at a time."""

    def __init__(self, task: LabelTask) -> None:
        self.files: list[str] = []
        self.rows = 0
        self._task = task
        self._held: list[pa.Table] = []
        self._cells = 0

    @property
    def empty(self) -> bool:
        """True before the first table."""
        return not self._held and not self.files

    def add(self, rows: pa.Table) -> None:
        """Add flagged rows."""
        self._held.append(rows)
        self._cells += rows.num_rows * rows.num_columns
        if self._cells >= _HELD_CELLS:
            self.write()

    def write(self) -> None:
        """Write the flagged rows that are held, if any."""
        if not self._held:
            return
        rows = pa.concat_tables(self._held)
        self._held, self._cells = [], 0
        step = max(1, _HELD_CELLS // rows.num_columns)
        for start in range(0, max(1, rows.num_rows), step):
            explained = _explained(self._task, rows.slice(start, step)).sort_by("rank")
            path = Path(self._task.staged) / FOUND / f"{len(self.files)}-{self._task.name}"
            with replacing(path, durable=False) as temporary:
                write_parquet(explained, temporary, self._task.group_rows)
            self.files.append(str(path))
            self.rows += explained.num_rows


def _labelled(task: LabelTask, receipt: ChunkReceipt) -> pa.Table:
    part = read_part(Path(task.parts), receipt.part)
    labels = (part["score"].to_numpy() >= task.threshold).view(np.int8)
    return with_labels(part, receipt.first_row, pa.array(labels))


def _tally(task: LabelTask, chunk: Chunk, scores: Float64s, flagged: Ints) -> Tally:
    """Count the flagged rows of a chunk by position, and its known labels; a problem with these is kept."""
    positions = count_positions(chunk.first_row + flagged, task.rows)
    if task.label is None:
        return Tally(positions)
    try:
        labels = read_labels(task.files, chunk.pieces, task.label)
        return Tally(positions, count_labels(scores, labels, task.threshold, task.exact_from))
    except Exception as error:  # noqa: BLE001  known labels describe a result, and decide nothing
        return Tally(positions, problem=str(error))


def _originals(
    task: LabelTask, chunk: Chunk, receipt: ChunkReceipt, labelled: pa.Table, positions: Ints
) -> pa.Table:
    """Return the flagged rows of a chunk with their source columns, keys and scores."""
    kept = _kept(task, receipt)
    missing = [name for name in task.columns if name not in kept]
    if missing:
        rows = take_rows(read_pieces(task.files, chunk.pieces, missing), positions)
        kept |= {name: rows[name] for name in missing}
    own = {name: labelled[name] for name in labelled.column_names if name != "label"}
    return pa.table({name: kept[name] for name in task.columns if name not in own} | own)


def _kept(task: LabelTask, receipt: ChunkReceipt) -> dict[str, pa.ChunkedArray]:
    """Return the flagged rows' columns from the candidates, if these include all flagged rows."""
    candidates = receipt.candidates
    if candidates is None or candidates.floor > task.threshold:
        return {}
    try:
        rows = read_part(Path(task.parts), candidates.file)
    except PartDamaged:  # the source has all rows
        return {}
    flagged = rows.filter(pc.greater_equal(rows["score"], task.threshold))
    return {name: flagged[name] for name in flagged.column_names if name != "score"}


def _explained(task: LabelTask, rows: pa.Table) -> pa.Table:
    """Add rank and reasons to flagged rows, and order the columns."""
    model = cached_model(task.detector)
    flagged = np.load(Path(task.staged) / FLAGGED, mmap_mode="r", allow_pickle=False)
    scores = rows["score"].to_numpy()
    ranks = len(flagged) - np.searchsorted(flagged, scores, side="right") + 1
    key = dict.fromkeys([*task.key, ROW])
    order = [*key, *(name for name in task.columns if name not in key), "score"]
    table = rows.select(order).append_column("rank", pa.array(ranks, pa.int64()))
    texts = {one.name: as_text(rows[one.column]) for one in model.features if one.kind == "categorical"}
    return table.append_column("reasons", explain(model, model.matrix(rows), scores, texts=texts))
