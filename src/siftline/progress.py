"""Progress, incidents, usage and logs of a job: stages and workers emit them, listeners show them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from siftline.shown import log_line

_log = logging.getLogger(__name__)

Stage = Literal["plan", "fit", "detect", "combine", "validate", "publish", "notify"]


# Kinds of incidents.
NOT_NOTIFIED = "not notified"
NOT_CLOSED = "not closed"


@dataclass(frozen=True)
class Progress:
    """Progress of a stage.

    Attributes
    ----------
    reused : int
        Chunks among those done that an earlier run had committed.
    failed, retried, split : int
        Chunks without a result, with several attempts, and scored in smaller batches.
    rejected : int
        Rows set aside.
    anomalies : int or None
        Anomalies so far; by contamination, as many as the rows so far will make.
    chunk_seconds : float or None
        Seconds that a worker took for the chunk behind this report.
    """

    stage: Stage
    chunks_done: int = 0
    chunks_total: int = 0
    rows_done: int = 0
    rows_total: int = 0
    reused: int = 0
    failed: int = 0
    retried: int = 0
    split: int = 0
    rejected: int = 0
    anomalies: int | None = None
    chunk_seconds: float | None = None


@dataclass(frozen=True)
class Incident:
    """Something that went wrong and was dealt with.

    `kind` is ``retried``, ``split``, ``worker lost``, ``recomputed``, ``rejected``, ``chunk failed``,
    ``slower``, ``less memory``, ``adapted``, ``repeated``, ``damaged``, ``key``, ``findings``,
    ``steps left out``, ``not notified`` or ``not closed``; `text` says what, where, and what is done; `chunk`
    is the number of its chunk, if any.
    """

    kind: str
    text: str
    chunk: int | None = None


@dataclass(frozen=True)
class Note:
    """Something about the input or the result that the user should know."""

    text: str


@dataclass(frozen=True)
class WorkerUsage:
    """Usage of a worker: CPU in per cent of one core, memory in bytes."""

    address: str
    cpu: float | None = None
    memory: int | None = None
    memory_limit: int | None = None
    spilled: int | None = None


@dataclass(frozen=True)
class Usage:
    """Usage of all workers at a moment, and the address of the cluster's dashboard."""

    workers: tuple[WorkerUsage, ...]
    dashboard: str | None = None


@dataclass(frozen=True)
class LogLine:
    """A line that a worker logged, at a level of `logging`, while it had `item`."""

    level: int
    logger: str
    text: str
    item: str


@dataclass(frozen=True)
class IntervalProgress:
    """State of an interval of a backfill, and the number of ended ones."""

    interval: str
    state: str
    ended: int
    total: int


@dataclass(frozen=True)
class Queued:
    """A run waits for slots of a pool: its place, from 1, and the estimated seconds, if known."""

    pool: str
    slots: int
    place: int
    seconds: float | None


Report = Progress | Incident | Note | Usage | LogLine | IntervalProgress | Queued


def counted(number: int, what: str, several: str | None = None) -> str:
    """Return a number and its noun."""
    return f"{number:,} {what if number == 1 else several or f'{what}s'}"


Listener = Callable[[Report], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("siftline_listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Pass everything emitted within this context to `listener`."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def emit(report: Report) -> None:
    """Pass a report to every listener; one that fails has no consequences for the work."""
    for listener in _listeners.get():
        try:
            listener(report)
        except Exception as error:  # noqa: BLE001  whatever a terminal, a disk or an API raises
            _warn_once(f"{type(error).__name__}: {error}")


@lru_cache(maxsize=100)
def _warn_once(problem: str) -> None:
    _log.warning("progress is not shown everywhere: %s", log_line(problem))
