"""Bundles of items that a session has sent to a cluster."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from siftline.engine.base import Answer, Began, R, T


@dataclass(eq=False)
class Sent(Generic[T, R]):
    """Bundle in flight: its answers, its present item's start, and its other start's key.

    `begun` is None before the first item; `slots` are those of the worker. While another start of the bundle
    goes on, answers are kept: those of the first to end count. `repeated` ones are not started again.
    """

    items: tuple[T, ...]
    future: Any = None
    begun: tuple[float, str] | None = None
    slots: int = 0
    answered: int = 0
    kept: list[Answer[T, R]] = field(default_factory=list)
    twin: str | None = None
    repeated: bool = False

    @property
    def present(self) -> T:
        """The first item without an answer."""
        return self.items[self.answered]

    @property
    def seconds(self) -> float:
        """Seconds since the present item began; 0 before."""
        return time.monotonic() - self.begun[0] if self.begun is not None else 0.0

    def failed(self, error: Exception, began: Began) -> list[Answer[T, R]]:
        """Answer the remaining items with an error; only the present one can have begun."""
        first, *others = (Answer[T, R](item, None, error) for item in self.items[self.answered :])
        return [replace(first, began=began), *(replace(other, began="not") for other in others)]

    @property
    def began(self) -> Began:
        """State of the present item on its worker: not begun, begun alone, or beside others."""
        if self.begun is None:
            return "not"
        return "alone" if self.slots == 1 else "beside others"

    @property
    def waits(self) -> bool:
        """True before its first item begins, if it was sent once."""
        return self.begun is None and self.twin is None

    @property
    def size(self) -> int:
        """Rows of the present item."""
        return getattr(self.present, "rows", 1)
