"""The log of the run: its incidents, and the lines of its workers."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger

from siftline.progress import Incident, LogLine, Note, Report, listening
from siftline.shown import log_line

# Of each kind; a bad day must not drown the log.
_MOST = 20
_MOST_LINES = 200


@contextmanager
def run_logged() -> Iterator[None]:
    """Log incidents and workers' lines within the block: retries as information, losses as warnings."""
    logger = get_run_logger()
    count: Counter[str] = Counter()
    lines = 0

    def listen(report: Report) -> None:
        nonlocal lines
        if isinstance(report, Incident):
            count[report.kind] += 1
            if count[report.kind] <= _MOST:
                level = logging.INFO if report.kind == "retried" else logging.WARNING
                logger.log(level, "%s: %s", report.kind, log_line(report.text))
        elif isinstance(report, Note):
            logger.info("note: %s", log_line(report.text))
        elif isinstance(report, LogLine):
            lines += 1
            if lines <= _MOST_LINES:
                logger.log(report.level, "%s: %s: %s", report.item, report.logger, log_line(report.text))

    try:
        with listening(listen):
            yield
    finally:
        for kind, number in count.items():
            if number > _MOST:
                logger.warning("%s: %d times altogether", kind, number)
        if lines > _MOST_LINES:
            logger.warning("workers logged %d lines altogether", lines)
