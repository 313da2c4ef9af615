"""Notifications of a run: its result, its failure or its recovery; each cause once for a job."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

from prefect import get_run_logger

from siftline.config.batch import BatchConfig
from siftline.config.schedules import Interval
from siftline.config.templates import has_template
from siftline.errors import StorageError
from siftline.jobs.history import previous_rates
from siftline.jobs.record import read_job, write_job
from siftline.notices.messages import Message, completed_message, failed_message
from siftline.notices.top_rows import cautions_of, groups_of, top_of
from siftline.storage.layout import CheckpointFiles, JobFiles, OutputFiles
from siftline.tasks.adapters.aside import aside
from siftline.tasks.notify import notify, this_run
from siftline.tasks.publish_results import report_page
from siftline.types import BatchResult


def announce_result(config: BatchConfig, result: BatchResult, job: Path | None, recovered: bool) -> None:
    """Notify of a published result; a failure to do so is only logged."""
    announce = partial(_announce_result, config, result, job, recovered)
    aside("the result could not be announced", announce, None)


def _announce_result(config: BatchConfig, result: BatchResult, job: Path | None, recovered: bool) -> None:
    checkpoint = _checkpoint(config, job)
    history = CheckpointFiles(checkpoint).history(config.name) if checkpoint is not None else None
    report = OutputFiles(Path(result.output)).report
    run = replace(
        this_run(config.name, result.interval),
        report_url=aside("the report's page is not known", lambda: report_page(config.name), None)
        if config.notify
        else None,
        report_path=str(report) if report.exists() else None,
    )
    message = completed_message(
        run,
        result,
        aside("the usual rate is unknown", lambda: previous_rates(history, result.job_id), ())
        if history is not None
        else (),
        aside("the message lacks the top rows", lambda: top_of(result, count=3), ()),
        recovered,
        aside("the message lacks the groups", lambda: groups_of(result, count=3), ()),
        aside("the message lacks cautions", lambda: cautions_of(result), ()),
    )
    notify(message, config.notify, checkpoint)


def announce_failure(
    config: BatchConfig, error: BaseException, job: Path | None, interval: Interval | None, for_good: bool
) -> None:
    """Notify of a failure; a failure to do so is only logged."""
    announce = partial(_announce_failure, config, error, job, interval, for_good)
    aside("the failure could not be announced", announce, None)


def _announce_failure(
    config: BatchConfig, error: BaseException, job: Path | None, interval: Interval | None, for_good: bool
) -> None:
    announce_once(failed_message(this_run(config.name, interval), error, job, for_good), config, job)


def announce_once(message: Message, config: BatchConfig, job: Path | None) -> None:
    """Notify of each cause once for a job, however many runs fail for it."""
    if job is not None:
        record, cause = read_job(job), f"{message.event}: {message.cause}"
        if cause in record.told:
            return
        try:
            write_job(job, record.model_copy(update={"told": (*record.told, cause)}))
        except StorageError as error:
            get_run_logger().warning("the notification could not be recorded with the job: %s", error)
    notify(message, config.notify, _checkpoint(config, job))


def _checkpoint(config: BatchConfig, job: Path | None) -> Path | None:
    """Return the checkpoint's directory; None while its path is a template."""
    if job is not None:
        return JobFiles(job).checkpoint.root
    return None if has_template(config.checkpoint.path) else Path(config.checkpoint.path).absolute()
