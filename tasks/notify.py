"""The notify step."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from prefect import get_run_logger, task
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.utilities.urls import url_for

from siftline.config.batch import NotifyConfig
from siftline.config.schedules import Interval
from siftline.notices.delivery import Delivery, NotDelivered, Send, deliver
from siftline.notices.messages import Message, RunInfo
from siftline.progress import NOT_NOTIFIED, Incident, emit
from siftline.shown import log_line
from siftline.storage.layout import CheckpointFiles
from siftline.tasks.adapters.labels import tag_task
from siftline.tasks.adapters.resolve import resolve
from siftline.tasks.adapters.retrying import RETRIES


@task(
    name="notify",
    task_run_name="notify",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def notify(message: Message, rules: Sequence[NotifyConfig], checkpoint: Path | None) -> list[Delivery]:
    """Log a message and send it through the configured blocks; failures are logged only."""
    tag_task("notification")
    logger = get_run_logger()
    logger.log(message.level, "%s\n%s", message.subject, message.body)
    memory = CheckpointFiles(checkpoint).notified(message.variables.name) if checkpoint is not None else None
    deliveries = deliver(message, rules, _load, memory)
    for one in deliveries:
        if one.error is not None:
            emit(Incident(NOT_NOTIFIED, f"notification through {one.block} was not delivered: {one.error}"))
        if one.held:
            logger.info("notification through %s was held back by at_most_every", one.block)
        if one.remark is not None:
            logger.warning("notification through %s: %s", one.block, log_line(one.remark))
    return deliveries


def this_run(name: str, interval: Interval | None = None) -> RunInfo:
    """Return the identity of the present run."""
    run_id = str(flow_run.id) if flow_run.id else None
    # None without a Prefect server that has a UI.
    page = url_for("flow-run", obj_id=run_id) if run_id else None
    return RunInfo(name, run_id, page, interval.label if interval else None)


def _load(name: str) -> Send:
    """Return the send function of a block; its errors contain no addresses, which may be secret."""
    import prefect.blocks.notifications  # noqa: F401  registers Prefect's own block types

    try:
        block = resolve(Block.load(name))
    except Exception as error:  # noqa: BLE001  a saved block may fail to load in any way
        missing = isinstance(error.__cause__, ObjectNotFound)
        reason = "no such block on this server" if missing else type(error).__name__
        raise NotDelivered(f"it could not be loaded: {reason}") from None
    if not isinstance(block, NotificationBlock):
        raise NotDelivered(f"it is a {type(block).__name__}, which does not notify")

    def send(body: str, subject: str) -> None:
        with _hearing_apprise() as heard:
            try:
                with block.raise_on_failure():
                    resolve(block.notify(body, subject))
            except Exception as error:  # noqa: BLE001  a foreign service may raise anything
                raise _not_delivered(error, heard.status) from None

    return send


def _not_delivered(error: Exception, heard: int | None) -> NotDelivered:
    status = getattr(getattr(error, "response", None), "status_code", heard)
    if status is None:
        return NotDelivered(type(error).__name__, passing=True)
    return NotDelivered(f"answered with status {status}", passing=status >= 500)


class _Heard(logging.Handler):
    """Status of a service's answer to Apprise in this thread, which only its log contains."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.status: int | None = None
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        found = re.search(r"\berror=(\d{3})\b", record.getMessage())
        if found is not None and record.thread == self._thread:
            self.status = int(found[1])


@contextmanager
def _hearing_apprise() -> Iterator[_Heard]:
    logger, heard = logging.getLogger("apprise"), _Heard()
    logger.addHandler(heard)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)
