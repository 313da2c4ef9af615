"""Combining: one threshold for the whole batch, labels, and the anomalies with their reasons.

The receipts' summaries are merged in chunk order; the threshold is exact. Workers
write the labels, a run of chunks at a time, into a staged result beside the published one.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np

from siftline.batch_plan import BatchPlan
from siftline.engine import Executor, run_one, run_with_retries
from siftline.errors import JobError
from siftline.progress import Incident, Progress, emit
from siftline.source.reading import only_files
from siftline.stages.findings.curve import curve_of
from siftline.stages.findings.find import Evidence, sample_task, write_findings
from siftline.stages.findings.sample import SampleTask
from siftline.stages.high_scores import highest_scores, scan_scores
from siftline.stages.keys import MOST_KEYS, key_facts
from siftline.stages.labelling import FLAGGED, FOUND, KEYS, Labelled, LabelTask, label_or_sample
from siftline.stages.merging import MergeTask, group_rows, merge_anomalies
from siftline.stages.threshold import asked_count, flagged_count, kth_largest, lowest_edge, merge
from siftline.storage.files import replacing
from siftline.storage.layout import OutputFiles
from siftline.storage.owned import refuse_links, remove_publications
from siftline.storage.parquet import published_file, read_part, write_result
from siftline.storage.records import PublishedFile
from siftline.system.signals import Stop, stop_on_signal
from siftline.types import ChunkReceipt, CombinedScores, DetectorRef, Float64s, Receipts

_CHUNKS_PER_FILE = 256
# Highest scores of which each is compared with known labels by itself.
_EXACT_LABELS = 1 << 17


def combine_results(
    plan: BatchPlan,
    detector: DetectorRef,
    receipts: Receipts,
    executor: Executor,
    rows_per_file: int = 1 << 19,
    asked: Callable[[], bool] = lambda: False,
) -> CombinedScores:
    """Find the threshold, label every row that has a score, and stage the result.

    Rows at the threshold or above are anomalies. By contamination the threshold is the k-th largest score,
    k = ceil(contamination x rows), so that at least k rows are flagged: more only where others tie with
    the k-th, because equal rows must not get different labels. A file has `rows_per_file` rows, if its chunks
    are not larger.

    Raises
    ------
    PartDamaged
        When a part file no longer matches its receipt: its chunk must be detected again.
    Cancelled
        After a signal, or once `asked` is true.
    """
    summary = merge(receipt.summary for receipt in receipts.in_order)
    if summary.non_finite == summary.rows:
        raise JobError("no row has a score", "correct detector.params or the features' values")
    threshold = detector.threshold
    if threshold is None:
        k = flagged_count(plan.config.threshold.share, summary.rows - summary.non_finite)
        threshold = kth_largest(k, summary, partial(scan_scores, plan, receipts))
    publication = f"{plan.job_id}-{plan.token}-{secrets.token_hex(4)}"
    staged = _empty_stage(plan, publication)
    floor, highest = highest_scores(plan, receipts, summary, threshold)
    _save_flagged(highest[np.searchsorted(highest, threshold) :], staged)
    # A reader that has listed the files, or opens one twice, never meets another publication's.
    name = f"part-{{:05d}}-{publication[-8:]}.parquet"
    exact_from = lowest_edge(summary, _EXACT_LABELS)
    runs = list(_runs(receipts.in_order, rows_per_file))
    tasks = [
        _label_task(plan, detector, name.format(number), run, threshold, exact_from, staged, len(runs))
        for number, run in enumerate(runs)
    ]
    evidence = Evidence(detector)
    labelled = _label(plan, executor, tasks, evidence, asked)
    stop = Stop(asked=asked)
    anomalies = _merge(plan, executor, staged, labelled, stop)
    key = key_facts(plan, receipts.in_order, [one.keys for one in labelled])
    if key is not None and key.caution is not None:
        emit(Incident("key", key.caution))
    (staged / FLAGGED).unlink()
    shutil.rmtree(staged / KEYS, ignore_errors=True)
    curve = partial(curve_of, summary, highest, floor, threshold)
    write_findings(plan, executor, staged, evidence, curve, stop)
    return CombinedScores(
        staged=str(staged),
        publication=publication,
        rows=summary.rows - summary.non_finite,
        anomalies=sum(one.anomalies for one in labelled),
        threshold=threshold,
        summary=summary,
        scores=tuple(one.scores for one in labelled),
        anomaly_files=(anomalies,),
        failed_files=_gather_rejects(plan, receipts, staged),
        key=key,
        asked=asked_count(plan.config.threshold, summary, threshold),
    )


def _label(
    plan: BatchPlan,
    executor: Executor,
    tasks: Sequence[LabelTask],
    evidence: Evidence,
    asked: Callable[[], bool],
) -> list[Labelled]:
    """Label, and meanwhile draw the sample that the anomalies are compared with."""
    labelled: list[Labelled] = []
    timeout = plan.config.chunking.timeout_seconds
    if timeout is not None:
        timeout *= max(len(task.chunks) for task in tasks)
    sample = sample_task(plan, evidence)
    items: list[LabelTask | SampleTask] = [*([sample] if sample is not None else ()), *tasks]
    with stop_on_signal(asked) as stop:
        for settled in run_with_retries(
            executor, label_or_sample, items, plan.config.retries, timeout_seconds=timeout, stop=stop
        ):
            if isinstance(settled.item, SampleTask):
                evidence.add_sample(settled)
                continue
            one = cast(Labelled, settled.result())
            evidence.add_tally(one.tally)
            labelled.append(replace(one, tally=None))
            rows = sum(one.scores.rows for one in labelled)
            emit(Progress("combine", len(labelled), len(tasks), rows, plan.rows))
    return sorted(labelled, key=lambda one: one.scores.name)


def _empty_stage(plan: BatchPlan, publication: str) -> Path:
    """Return a new directory on the output's file system, so that publishing is a rename."""
    refuse_links([plan.output.staged])
    remove_publications(plan.output.staged, plan.job_id, plan.token)
    return plan.output.staged / publication


def _save_flagged(flagged: Float64s, staged: Path) -> None:
    """Save the flagged scores in ascending order, from which workers derive a row's rank."""
    with replacing(staged / FLAGGED, durable=False) as temporary, temporary.open("wb") as file:
        np.save(file, flagged, allow_pickle=False)


def _label_task(
    plan: BatchPlan,
    ref: DetectorRef,
    name: str,
    run: list[ChunkReceipt],
    threshold: float,
    exact_from: float,
    staged: Path,
    runs: int,
) -> LabelTask:
    source = plan.config.source
    carried = {*source.key, *plan.config.output.columns, *(feature.column for feature in plan.features)}
    files, chunks = only_files(plan.snapshot.files, [plan.chunks[receipt.chunk] for receipt in run])
    return LabelTask(
        name=name,
        chunks=chunks,
        receipts=tuple(run),
        files=files,
        detector=ref,
        key=source.key,
        columns=tuple(name for name in plan.snapshot.columns if name in carried),
        threshold=threshold,
        parts=str(plan.parts),
        staged=str(staged),
        rows=plan.rows,
        label=source.label,
        exact_from=exact_from,
        most_keys=MOST_KEYS if plan.rows <= MOST_KEYS else MOST_KEYS // runs,
        group_rows=group_rows(len(carried), runs),
    )


def _runs(receipts: Iterable[ChunkReceipt], rows_per_file: int) -> Iterator[list[ChunkReceipt]]:
    """Yield runs of consecutive chunks, one for each output file."""
    run: list[ChunkReceipt] = []
    rows = 0
    for receipt in receipts:
        if run and (rows + receipt.rows > rows_per_file or len(run) == _CHUNKS_PER_FILE):
            yield run
            run, rows = [], 0
        run.append(receipt)
        rows += receipt.rows
    if run:
        yield run


def _merge(
    plan: BatchPlan, executor: Executor, staged: Path, labelled: list[Labelled], stop: Stop
) -> PublishedFile:
    """Merge the anomalies of all workers by rank on one, those of equal rank in source order."""
    found = tuple(path for one in labelled for path in one.found)
    rows = sum(one.anomalies for one in labelled)
    task = MergeTask(found, str(staged), rows)
    file = run_one(executor, merge_anomalies, task, plan.config.retries, stop=stop)
    shutil.rmtree(staged / FOUND)
    return file


def _gather_rejects(plan: BatchPlan, receipts: Receipts, staged: Path) -> tuple[PublishedFile, ...]:
    """Join the rejects of all chunks, if any, in source order."""
    files = [receipt.rejects.file for receipt in receipts.in_order if receipt.rejects is not None]
    tables = (read_part(plan.failed, file) for file in files)
    if not files:
        return ()
    write_result(tables, staged / OutputFiles.FAILED)
    return (published_file(staged, OutputFiles.FAILED, receipts.rows_rejected),)
