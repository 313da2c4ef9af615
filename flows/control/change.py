"""Changes to a Prefect server: listed before they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Change:
    """A creation, an update or a removal; `what` is the kind and name, and `make` makes the change."""

    sign: Literal["+", "~", "-"]
    what: str
    make: Callable[[], object]

    def __str__(self) -> str:
        return f"{self.sign} {self.what}"
