"""Checks of a batch before anything is started: impossible jobs, and those that are done already."""

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


def check_batch(batch: BatchConfig) -> None:
    """Raise the error with which a run of a batch would end at once.

    Faults that may pass are left to the retries of the run. If notifications of failures are wanted, the
    error is shown, and the run sends them.
    """
    try:
        inspect_batch(resolve_config(batch, datetime.now(UTC)))
    except SiftlineError as error:
        if error.fault == "transient":
            return
        if not any("failed" in rule.on for rule in batch.notify):
            raise
        click.echo(f"siftline: {error}\nnotifications of it are sent now", err=True)


def published_result(batch: BatchConfig) -> BatchResult | None:
    """Return the result of a checked batch, if it is published, and its last run left nothing to do."""
    batch = resolve_config(batch, datetime.now(UTC))
    manifest = manifest_record(Path(batch.output.path)).read_or(None)
    if manifest is None or not _quickly_identified(batch):
        return None
    job = CheckpointFiles.at(batch.checkpoint.path).job(identify_job(batch)[0]).directory
    try:
        plan = replace(read_plan(job), config=batch)
    except UnknownJob:
        return None
    published = published_already(plan)
    # A record of another outcome, and a lease that is held, are a run's business.
    if published is None or read_job(job).outcome != "published" or last_holder(job)[1] == "held":
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


def _quickly_identified(batch: BatchConfig) -> bool:
    """Return True if only metadata must be read for the job's id: of Parquet, or of staged CSV."""
    if batch.source.verify == "content":
        return False
    found: Inspection = inspect_batch(batch)
    staged = CheckpointFiles.at(batch.checkpoint.path).staged
    return all(staged_copy(file, found.schema, staged, csv_stamp(file.path)) for file in found.csv)
