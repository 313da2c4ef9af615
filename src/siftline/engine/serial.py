"""Execution in this process, one item after the other."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Generic

import psutil

from siftline.engine.attempt import attempt, lines_heard
from siftline.engine.base import USAGE_SECONDS, Answer, R, Session, T, name_of
from siftline.progress import Usage, WorkerUsage, emit


class SerialExecutor:
    """Runs items in this process."""

    dashboard: str | None = None
    bounds = (1, 1)
    threads = 1

    def scale(self, workers: int) -> int:
        """Return 1: there is one process."""
        return 1

    def session(
        self, function: Callable[[T], R], bundle: int = 1, timeout_seconds: float | None = None
    ) -> AbstractContextManager[Session[T, R]]:
        """Open a session that has room for one item at a time."""
        return nullcontext(_SerialSession(function))


@dataclass
class _SerialSession(Generic[T, R]):
    function: Callable[[T], R]
    items: tuple[T, ...] = ()
    _process: psutil.Process = field(default_factory=psutil.Process)
    _next_usage: float = -math.inf

    @property
    def room(self) -> int:
        return 1 - len(self.items)

    def submit(self, items: tuple[T, ...]) -> None:
        self.items += items

    def usage(self) -> tuple[WorkerUsage, ...]:
        return ()

    @property
    def late(self) -> int:
        return 0

    def narrow(self, window: int, busy: int) -> None:
        """Do nothing: there is one item in flight."""

    def wait(self, seconds: float) -> list[Answer[T, R]]:
        if not self.items:
            time.sleep(seconds)
        items, self.items = self.items, ()
        answers = []
        with lines_heard(emit) as begin:
            for item in items:
                begin(name_of(item, self.function))
                answers.append(Answer(item, *attempt(self.function, item)))
        self._report_usage()
        return answers

    def _report_usage(self) -> None:
        now = time.monotonic()
        if now >= self._next_usage:
            self._next_usage = now + USAGE_SECONDS
            cpu, memory = self._process.cpu_percent(), self._process.memory_info().rss
            emit(Usage((WorkerUsage(f"process {self._process.pid}", cpu, memory),)))
