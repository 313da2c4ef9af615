"""Changes to what a Prefect server has: told before they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Change:
    """Something to create, to bring up to date or to remove.

    Attributes
    ----------
    sign : str
        ``+``, ``~`` or ``-``.
    what : str
        It, in words.
    make : callable
        Makes the change.
    """

    sign: Literal["+", "~", "-"]
    what: str
    make: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.sign} {self.what}"
