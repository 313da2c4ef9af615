"""The step that tells people."""

from __future__ import annotations

from collections.abc import Sequence

from prefect import get_run_logger, task
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.cache_policies import NO_CACHE

from siftline.config import NotifyConfig
from siftline.notify import Delivery, Message, deliver
from tasks.waiting import waited


class NotDeliveredError(Exception):
    """A notification could not be delivered; says why without telling the address."""


@task(name="notify", cache_policy=NO_CACHE, persist_result=False)
def notify(message: Message, rules: Sequence[NotifyConfig]) -> list[Delivery]:
    """Log the message and send it through the configured blocks; a block that fails changes nothing else."""
    logger = get_run_logger()
    logger.log(message.level, "%s\n%s", message.subject, message.body)
    deliveries = deliver(message, rules, _send)
    for delivery in deliveries:
        if delivery.error is not None:
            logger.warning("notification through %s was not delivered: %s", delivery.block, delivery.error)
    return deliveries


def _send(name: str, message: Message) -> None:
    import prefect.blocks.notifications  # noqa: F401  registers Prefect's own block types

    block = waited(Block.load(name))
    if not isinstance(block, NotificationBlock):
        raise TypeError(f"{name} is a {type(block).__name__}, which does not notify")
    try:
        with block.raise_on_failure():
            waited(block.notify(message.body, message.subject))
    except Exception as error:  # noqa: BLE001  foreign services fail in their own ways
        # The text of such an error tells the address, and addresses of webhooks are secrets.
        status = getattr(getattr(error, "response", None), "status_code", None)
        answer = f"answered with status {status}" if status else type(error).__name__
        raise NotDeliveredError(answer) from None
