"""Execution in this process, one item after the other."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic

from siftline.engine.attempt import attempt
from siftline.engine.base import Answer, R, Session, T


class SerialExecutor:
    """Runs items in this process."""

    dashboard: str | None = None

    def session(
        self, function: Callable[[T], R], bundle: int = 1, timeout_seconds: float | None = None
    ) -> AbstractContextManager[Session[T, R]]:
        """Open a session that has room for one item at a time."""
        return nullcontext(_SerialSession(function))


@dataclass
class _SerialSession(Generic[T, R]):
    function: Callable[[T], R]
    items: tuple[T, ...] = ()

    @property
    def room(self) -> int:
        return 1 - len(self.items)

    def submit(self, items: tuple[T, ...]) -> None:
        self.items += items

    def wait(self, seconds: float) -> list[Answer[T, R]]:
        if not self.items:
            time.sleep(seconds)
        items, self.items = self.items, ()
        return [Answer(item, *attempt(self.function, item)) for item in items]
