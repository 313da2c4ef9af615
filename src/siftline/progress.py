"""Progress and incidents of a job: stages emit them, listeners show them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

Stage = Literal["plan", "fit", "detect", "combine", "validate", "publish"]


@dataclass(frozen=True)
class Progress:
    """Progress of a stage.

    Attributes
    ----------
    reused : int
        Chunks among those done that an earlier run had committed.
    anomalies : int or None
        Anomalies so far; by contamination, as many as the rows so far will make.
    """

    stage: Stage
    chunks_done: int = 0
    chunks_total: int = 0
    rows_done: int = 0
    rows_total: int = 0
    reused: int = 0
    anomalies: int | None = None


@dataclass(frozen=True)
class Incident:
    """Something that went wrong and was dealt with.

    `kind` is ``retried``, ``split``, ``worker lost``, ``recomputed``, ``rejected``, ``chunk failed`` or
    ``slower``; `text` says what, where, and what is done about it.
    """

    kind: str
    text: str


Listener = Callable[[Progress | Incident], None]
_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("siftline_listeners", default=())


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Pass everything emitted within this context to `listener`."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def emit(what: Progress | Incident) -> None:
    """Pass progress or an incident to every listener."""
    for listener in _listeners.get():
        listener(what)
