"""Changes to a Prefect server: listed before they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Change:
    """Something to create, update or remove.

    Attributes
    ----------
    sign : str
        ``+``, ``~`` or ``-``.
    what : str
        Its kind and name.
    make : callable
        Makes the change.
    """

    sign: Literal["+", "~", "-"]
    what: str
    make: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.sign} {self.what}"
