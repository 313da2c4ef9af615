"""The step that tells people."""

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
from siftline.notices.delivery import Delivery, NotDelivered, Patience, Say, deliver
from siftline.notices.messages import Message, Run
from siftline.storage.layout import CheckpointFiles
from tasks.adapters.resolve import waited

PATIENCE = Patience()


@task(name="notify", task_run_name="notify", cache_policy=NO_CACHE, persist_result=False)
def notify(message: Message, rules: Sequence[NotifyConfig], checkpoint: Path | None) -> list[Delivery]:
    """Log the message and send it through the configured blocks; a block that fails changes nothing else."""
    logger = get_run_logger()
    logger.log(message.level, "%s\n%s", message.subject, message.body)
    memory = CheckpointFiles(checkpoint).notified(message.facts.name) if checkpoint is not None else None
    deliveries = deliver(message, rules, _load, memory, PATIENCE)
    for delivery in deliveries:
        if delivery.error is not None:
            logger.warning("notification through %s was not delivered: %s", delivery.block, delivery.error)
        if delivery.held:
            logger.info("notification through %s was held back: there was one lately", delivery.block)
        if delivery.remark is not None:
            logger.warning("notification through %s: %s", delivery.block, delivery.remark)
    return deliveries


def this_run(name: str, interval: Interval | None = None) -> Run:
    """Return what messages say of the run of a pipeline that this is."""
    run_id = str(flow_run.id) if flow_run.id else None
    # Without a server of its own to show it, a run has no page.
    page = url_for("flow-run", obj_id=run_id) if run_id else None
    return Run(name, run_id, page, interval.label if interval else None)


def _load(name: str) -> Say:
    """Return what says something through a block; its errors tell no addresses, which may be secrets."""
    import prefect.blocks.notifications  # noqa: F401  registers Prefect's own block types

    try:
        block = waited(Block.load(name))
    except Exception as error:  # noqa: BLE001  so do the errors of a block that cannot be made of what is saved
        missing = isinstance(error.__cause__, ObjectNotFound)
        reason = "there is no such block on this server" if missing else type(error).__name__
        raise NotDelivered(f"it could not be loaded: {reason}") from None
    if not isinstance(block, NotificationBlock):
        raise NotDelivered(f"it is a {type(block).__name__}, which does not notify")

    def say(body: str, subject: str) -> None:
        with _hearing_apprise() as heard:
            try:
                with block.raise_on_failure():
                    waited(block.notify(body, subject))
            except Exception as error:  # noqa: BLE001  foreign services fail in their own ways
                raise _not_delivered(error, heard.status) from None

    return say


def _not_delivered(error: Exception, heard: int | None) -> NotDelivered:
    status = getattr(getattr(error, "response", None), "status_code", heard)
    if status is None:
        return NotDelivered(type(error).__name__, passing=True)
    return NotDelivered(f"answered with status {status}", passing=status >= 500)


class _Heard(logging.Handler):
    """The status that a service answered Apprise in this thread, which tells it in its log only."""

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
