"""Checks of a batch before anything starts: impossible jobs, and finished ones."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from siftline.config.batch import BatchConfig
from siftline.config.loading import resolve_config
from siftline.errors import SiftlineError, UnknownJob
from siftline.jobs.plans import read_plan
from siftline.jobs.record import read_job
from siftline.jobs.results import manifest_record
from siftline.source.csv.staging import csv_stamp, staged_copy
from siftline.stages.inspection import Inspection, inspect_batch
from siftline.stages.plan import identify_job
from siftline.stages.publish import published_already
from siftline.storage.layout import CheckpointFiles
from siftline.storage.lease import last_holder
from siftline.types import BatchResult


def check_batch(batch: BatchConfig) -> tuple[BatchConfig, Inspection] | None:
    """Return the resolved batch and its inspection, or raise the error of its run.

    None for faults that may pass: its retries may get over them. None, too, for an error whose notification
    is wanted: it is shown, and the run sends it.
    """
    try:
        resolved = resolve_config(batch, datetime.now(UTC))
        return resolved, inspect_batch(resolved)
    except SiftlineError as error:
        if error.fault == "transient":
            return None
        if not any("failed" in rule.on for rule in batch.notify):
            raise
        click.echo(f"siftline: {error}\nnotifications of it are sent now", err=True)
        return None


def published_result(batch: BatchConfig, found: Inspection) -> BatchResult | None:
    """Return the published result of a checked batch, unless something is left to do."""
    manifest = manifest_record(Path(batch.output.path)).read_or(None)
    if manifest is None or not _quickly_identified(batch, found):
        return None
    job = CheckpointFiles.at(batch.checkpoint.path).job(identify_job(batch, found)[0]).directory
    try:
        plan = replace(read_plan(job), config=batch)
    except UnknownJob:
        return None
    published = published_already(plan)
    # A record of another outcome, and a lease that is held or was lost, are a run's business.
    if published is None or read_job(job).outcome != "published" or last_holder(job)[1] != "released":
        return None
    return BatchResult(
        name=published.name,
        job_id=plan.job_id,
        flow_run_id=None,
        state="AlreadyPublished",
        **published.counts,
        chunks_reused=published.chunks - len(published.chunks_failed),
        chunks_computed=0,
        chunks_failed=len(published.chunks_failed),
        output=batch.output.path,
        wall_seconds=0.0,
    )


def _quickly_identified(batch: BatchConfig, found: Inspection) -> bool:
    """Return True if metadata, of Parquet or staged CSV, are enough for the job's id."""
    if batch.source.verify == "content":
        return False
    staged = CheckpointFiles.at(batch.checkpoint.path).staged
    return all(staged_copy(file, found.schema, staged, csv_stamp(file.path)) for file in found.csv)
