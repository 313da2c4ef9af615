"""Notifying: who is told what, how often. Who says it is somebody else's: the flows give Prefect's blocks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from contextvars import copy_context
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from siftline.config.batch import NotifyConfig
from siftline.config.fields import parse_duration
from siftline.config.templates import render
from siftline.notices.messages import Message
from siftline.notices.rate_limit import turn

Say = Callable[[str, str], None]
"""Says a body and a subject; raises when that cannot be delivered."""


class NotDelivered(Exception):
    """A message could not be delivered, for a reason that tells no secrets.

    Attributes
    ----------
    passing : bool
        Whether it may be, if it is tried again.
    """

    def __init__(self, reason: str, passing: bool = False) -> None:
        super().__init__(reason)
        self.passing = passing


@dataclass(frozen=True)
class Patience:
    """How long to try: the delays between the attempts, and the seconds after which nobody waits any more."""

    delays: tuple[float, ...] = (1.0, 4.0)
    seconds: float = 45.0


@dataclass(frozen=True)
class Delivery:
    """What became of telling a block: why it could not be, or that it was held back; and what to know."""

    block: str
    error: str | None = None
    held: bool = False
    remark: str | None = None


def deliver(
    message: Message,
    rules: Iterable[NotifyConfig],
    load: Callable[[str], Say],
    memory: Path | None = None,
    patience: Patience = Patience(),
) -> list[Delivery]:
    """Send a message to every block whose rule wants it, to all at once.

    A block that fails or hangs does not keep the others from being told, nor changes anything else.

    Parameters
    ----------
    message : Message
        What to say.
    rules : iterable of NotifyConfig
        Whom to tell of what, and how often.
    load : callable
        Given a block's name, what says something through it.
    memory : Path, optional
        Where it is remembered what was sent when; without it nothing is held back.
    patience : Patience
        How long to try.
    """
    wanted = [rule for rule in rules if concerns(rule, message)]
    says = [_loaded(rule.block, load) for rule in wanted]  # first: the API may be slow, and is waited for
    calls = [
        partial(_tell, message, rule, say, memory, patience.delays)
        for rule, say in zip(wanted, says, strict=True)
    ]
    late = f"no answer within {patience.seconds:g} s"
    found = _at_once(calls, patience.seconds)
    return [done or Delivery(rule.block, late) for rule, done in zip(wanted, found, strict=True)]


def concerns(rule: NotifyConfig, message: Message) -> bool:
    """Whether a rule wants a message at all."""
    anomalies = message.facts.anomalies
    enough = anomalies is None or anomalies >= rule.min_anomalies
    return enough and any(event in rule.on for event in message.events)


def _loaded(block: str, load: Callable[[str], Say]) -> Say:
    try:
        return load(block)
    except Exception as error:  # noqa: BLE001  a foreign service fails in its own ways
        reason = _reason(error)

    def say(body: str, subject: str) -> None:
        raise NotDelivered(reason)

    return say


def _tell(
    message: Message, rule: NotifyConfig, say: Say, memory: Path | None, delays: Sequence[float]
) -> Delivery:
    body, subject, remark = _written(message, rule)
    every = None if rule.at_most_every is None else parse_duration(rule.at_most_every)
    try:
        with turn(memory, f"{rule.block} {message.event}", every, datetime.now(UTC)) as taken:
            if not taken.granted:
                return Delivery(rule.block, held=True)
            _patiently(lambda: say("\n".join(filter(None, [body, taken.note])), subject), delays)
    except Exception as error:  # noqa: BLE001  a foreign service fails in its own ways; it is reported, not raised
        return Delivery(rule.block, error=_reason(error), remark=remark)
    return Delivery(rule.block, remark=remark)


def _written(message: Message, rule: NotifyConfig) -> tuple[str, str, str | None]:
    """Return body and subject: of the rule's templates, or the usual ones where those cannot be filled in."""
    known = {field.name: getattr(message.facts, field.name) for field in fields(message.facts)}
    try:
        body = message.body if rule.template is None else render(rule.template, known)
        subject = message.subject if rule.subject is None else render(rule.subject, known)
    except Exception as error:  # noqa: BLE001  a template may do anything, such as call itself for ever
        remark = f"its template could not be filled in, the usual text was sent: {error}"
        return message.body, message.subject, remark
    return body, subject, None


def _patiently(send: Callable[[], None], delays: Sequence[float]) -> None:
    """Send, and again after each of the delays, as long as that may help."""
    for delay in delays:
        try:
            return send()
        except NotDelivered as error:
            if not error.passing:
                raise
        time.sleep(delay)
    return send()


def _at_once(calls: Sequence[Callable[[], Delivery]], seconds: float) -> list[Delivery | None]:
    """Make all calls, and return what they have returned after some seconds; what hangs is left behind."""
    futures: list[Future[Delivery]] = [Future() for _ in calls]
    for call, future in zip(calls, futures, strict=True):
        run = partial(copy_context().run, _fulfil, future, call)
        threading.Thread(target=run, name="notify", daemon=True).start()
    done, _ = wait(futures, timeout=seconds)
    return [future.result() if future in done else None for future in futures]


def _fulfil(future: Future[Delivery], call: Callable[[], Delivery]) -> None:
    future.set_result(call())


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, NotDelivered) else f"{type(error).__name__}: {error}"
