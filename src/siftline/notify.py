"""Notifying: what is said about a run. Who says it is somebody else's: the flows give Prefect's blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from siftline.config import Event, NotifyConfig
from siftline.types import BatchResult


@dataclass(frozen=True)
class Message:
    """What is said."""

    event: Event
    subject: str
    body: str


@dataclass(frozen=True)
class Delivery:
    """What became of saying it to one block."""

    block: str
    error: str | None = None


def completed_message(name: str, result: BatchResult) -> Message:
    """Say what a finished run came to."""
    share = result.anomalies / result.rows if result.rows else 0.0
    body = (
        f"{result.anomalies:,} anomalies among {result.rows:,} rows ({share:.3%}), "
        f"score {result.threshold:.6g} or more.\n"
        f"Chunks: {result.chunks_computed} computed, {result.chunks_reused} reused.\n"
        f"Results: {result.output}\nJob: {result.job_id}"
    )
    return Message("completed", f"Siftline: {name} completed", body)


def failed_message(name: str, error: BaseException) -> Message:
    """Say why a run failed."""
    return Message("failed", f"Siftline: {name} failed", f"{type(error).__name__}: {error}")


def deliver(
    message: Message, rules: Iterable[NotifyConfig], send: Callable[[str, Message], None]
) -> list[Delivery]:
    """Send a message to every block whose rule names its event.

    A block that fails does not keep the others from being told, nor changes anything else.

    Parameters
    ----------
    message : Message
        What to say.
    rules : iterable of NotifyConfig
        Whom to tell of what.
    send : callable
        Given the block's name and the message; raises when it cannot be delivered.
    """
    deliveries = []
    for rule in rules:
        if message.event not in rule.on:
            continue
        try:
            send(rule.block, message)
        except Exception as error:  # noqa: BLE001  a foreign service fails in its own ways; it is reported, not raised
            deliveries.append(Delivery(rule.block, f"{type(error).__name__}: {error}"))
        else:
            deliveries.append(Delivery(rule.block))
    return deliveries
