"""Notifying: what is said about a run. Who says it is somebody else's: the flows give Prefect's blocks."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from siftline.config import Event, NotifyConfig
from siftline.types import BatchResult

_LEVELS: dict[Event, int] = {
    "completed": logging.INFO,
    "rejects": logging.WARNING,
    "recovering": logging.WARNING,
    "failed": logging.ERROR,
}


@dataclass(frozen=True)
class Message:
    """What is said, and the cause: of one cause people are told once for a job."""

    event: Event
    subject: str
    body: str
    cause: str = ""

    @property
    def level(self) -> int:
        """How severe it is, as a level of `logging`."""
        return _LEVELS[self.event]


@dataclass(frozen=True)
class Delivery:
    """What became of saying it to one block."""

    block: str
    error: str | None = None


def completed_message(name: str, result: BatchResult) -> Message:
    """Say what a finished run came to."""
    scored = result.rows - result.rows_failed
    share = result.anomalies / scored if scored else 0.0
    body = (
        f"{result.anomalies:,} anomalies among {scored:,} rows ({share:.3%}), "
        f"score {result.threshold:.6g} or more.\n"
        f"Chunks: {result.chunks_computed} computed, {result.chunks_reused} reused.\n"
        f"Results: {result.output}\nJob: {result.job_id}"
    )
    if not result.rows_failed:
        return Message("completed", f"Siftline: {name} completed", body)
    rejects = f"{result.rows_failed:,} of {result.rows:,} rows could not be scored"
    if result.chunks_failed:
        chunks = "1 chunk" if result.chunks_failed == 1 else f"{result.chunks_failed:,} chunks"
        rejects += f", among them {chunks} as a whole"
    where = "They are told with the results: `failed`, and `chunks_failed` in the manifest."
    return Message(
        "rejects", f"Siftline: {name} completed with rejects", f"{rejects}. {where}\n{body}", rejects
    )


def failed_message(name: str, error: BaseException, job: Path | None, for_good: bool) -> Message:
    """Say why a run failed, what is kept, and how to go on."""
    subject = f"Siftline: {name} failed{' for good' if for_good else ''}"
    body = f"{type(error).__name__}: {error}"
    if job is not None:
        body += (
            f"\nKept: the chunks of job {job.name} that are done, and the result that was published before."
        )
        body += f"\nTo go on: {resume_command(job)}"
    return Message("failed", subject, body, _cause(error))


def recovering_message(name: str, job: Path, number: int, most: int, left: int) -> Message:
    """Say that a job that failed is taken up again."""
    body = f"Recovery {number} of {most} of job {job.name} has begun; {left:,} chunks are left."
    return Message("recovering", f"Siftline: {name} is taken up again", body)


def resume_command(job: Path) -> str:
    """Return the command that goes on with a job, given its directory."""
    return f"siftline resume {job.name} --checkpoint {job.parent.parent}"


def _cause(error: BaseException) -> str:
    """What failed, without numbers and random names: another chunk is not another cause."""
    return re.sub(r"[0-9a-f]{8,}|\d+", "#", f"{type(error).__name__}: {error}")


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
