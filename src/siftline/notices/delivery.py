"""Delivery of notifications: rules, retries and timeouts. The flows provide Prefect's blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from siftline.config.batch import NotifyConfig
from siftline.config.fields import parse_duration
from siftline.config.templates import render
from siftline.notices.messages import Message
from siftline.notices.rate_limit import rate_limited

Send = Callable[[str, str], None]
"""Sends a body and a subject, or raises."""


class NotDelivered(Exception):
    """A message was not delivered, without secrets in the reason; `passing` if a retry may succeed."""

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


@dataclass(frozen=True)
class Delivery:
    """Result of one notification: delivered, held back, or failed with an error."""

    block: str
    error: str | None = None
    held: bool = False
    remark: str | None = None


def deliver(
    message: Message,
    rules: Iterable[NotifyConfig],
    load: Callable[[str], Send],
    memory: Path | None = None,
    delays: Sequence[float] = (1.0, 4.0),
    timeout: float = 45.0,
) -> list[Delivery]:
    """Send a message to every block whose rule wants it, in parallel; return failures, raise none.

    Parameters
    ----------
    load : callable
        Returns the send function of a block, given its name.
    memory : Path, optional
        Record of the sent messages; without it there is no rate limit.
    delays : sequence of float
        Seconds between attempts.
    timeout : float
        Seconds after which unfinished sending is abandoned.
    """
    wanted = [rule for rule in rules if concerns(rule, message)]
    senders = [_load(rule.block, load) for rule in wanted]  # outside the timeout: the API may be slow
    calls = [
        partial(_notify, message, rule, send, memory, delays)
        for rule, send in zip(wanted, senders, strict=True)
    ]
    late = f"no answer within {timeout:g} s"
    found = _in_parallel(calls, timeout)
    return [done or Delivery(rule.block, late) for rule, done in zip(wanted, found, strict=True)]


def concerns(rule: NotifyConfig, message: Message) -> bool:
    """Return True if a rule wants a message."""
    anomalies = message.variables.anomalies
    enough = anomalies is None or anomalies >= rule.min_anomalies
    return enough and any(event in rule.on for event in message.events)


def _load(block: str, load: Callable[[str], Send]) -> Send:
    try:
        return load(block)
    except Exception as error:  # noqa: BLE001  a foreign service may raise anything
        reason = _reason(error)

    def fail(body: str, subject: str) -> None:
        raise NotDelivered(reason)

    return fail


def _notify(
    message: Message, rule: NotifyConfig, send: Send, memory: Path | None, delays: Sequence[float]
) -> Delivery:
    body, subject, remark = _text(message, rule)
    every = None if rule.at_most_every is None else parse_duration(rule.at_most_every)
    try:
        with rate_limited(memory, f"{rule.block} {message.event}", every, datetime.now(UTC)) as permit:
            if not permit.granted:
                return Delivery(rule.block, held=True)
            _retry(lambda: send("\n".join(filter(None, [body, permit.note])), subject), delays)
    except Exception as error:  # noqa: BLE001  a foreign service may raise anything
        return Delivery(rule.block, error=_reason(error), remark=remark)
    return Delivery(rule.block, remark=remark)


def _text(message: Message, rule: NotifyConfig) -> tuple[str, str, str | None]:
    """Return body and subject from the rule's templates, or the default text and why."""
    known = vars(message.variables)
    try:
        body = message.body if rule.template is None else render(rule.template, known)
        subject = message.subject if rule.subject is None else render(rule.subject, known)
    except Exception as error:  # noqa: BLE001  a template may do anything, such as recurse without end
        return message.body, message.subject, f"its template failed, the default text was sent: {error}"
    return body, subject, None


def _retry(send: Callable[[], None], delays: Sequence[float]) -> None:
    """Send, and again after each of the delays while that may help."""
    for delay in delays:
        try:
            return send()
        except NotDelivered as error:
            if not error.passing:
                raise
        time.sleep(delay)
    return send()


def _in_parallel(calls: Sequence[Callable[[], Delivery]], timeout: float) -> list[Delivery | None]:
    """Make all calls in threads; those that miss the timeout give None and are abandoned."""
    futures: list[Future[Delivery]] = [Future() for _ in calls]
    for call, future in zip(calls, futures, strict=True):
        run = partial(copy_context().run, _fulfil, future, call)
        threading.Thread(target=run, name="notify", daemon=True).start()
    done, _ = wait(futures, timeout=timeout)
    return [future.result() if future in done else None for future in futures]


def _fulfil(future: Future[Delivery], call: Callable[[], Delivery]) -> None:
    future.set_result(call())


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, NotDelivered) else f"{type(error).__name__}: {error}"
