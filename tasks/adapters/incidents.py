"""Incidents in the log of the run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from prefect import get_run_logger

from siftline.progress import Incident, Progress, listening

# Of each kind; a bad day must not drown the log.
_MOST = 20


@contextmanager
def incidents_logged() -> Iterator[None]:
    """Log the incidents within the block: retries as information, losses as warnings."""
    logger = get_run_logger()
    count: Counter[str] = Counter()

    def listen(what: Progress | Incident) -> None:
        if isinstance(what, Incident):
            count[what.kind] += 1
            if count[what.kind] <= _MOST:
                level = logging.INFO if what.kind == "retried" else logging.WARNING
                logger.log(level, "%s: %s", what.kind, what.text)

    try:
        with listening(listen):
            yield
    finally:
        for kind, number in count.items():
            if number > _MOST:
                logger.warning("%s: %d times altogether", kind, number)
