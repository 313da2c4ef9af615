"""Numbers, times and values from data as text for a page."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime
from typing import Any

from markupsafe import Markup

from siftline.shown import shown

_LONGEST = 120


def isolated(value: object, longest: int = _LONGEST) -> Markup:
    """Return a value from data as HTML: escaped, and isolated in its direction."""
    return Markup("<bdi>{}</bdi>").format(shown(value, longest))


def count(value: int) -> str:
    """Return a whole number with separators."""
    return f"{value:,}"


def number(value: float | None, digits: int = 6) -> str:
    """Return a number with so many digits, or all of its whole part; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    whole = abs(value) >= 10**digits or value == int(value)
    text = f"{round(value):,}" if whole and abs(value) < 1e15 else f"{value:,.{digits}g}"
    return text.replace("-", "−")


def percent(share: float | None, digits: int | None = None) -> str:
    """Return a share in per cent, with as many digits as it needs."""
    if share is None or not math.isfinite(share):
        return "–"
    if digits is None:
        digits = 0 if share in (0, 1) else 1 if share >= 0.1 else 2 if share >= 0.01 else 3
    return f"{share:.{digits}%}".replace("%", "\u202f%")


def difference(value: int) -> str:
    """Return how many more or fewer."""
    return "the same" if value == 0 else f"{abs(value):,} {'more' if value > 0 else 'fewer'}"


def duration(seconds: float | None) -> str:
    """Return a duration in the two units that matter."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f}\u202fs"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}\u202fh {minutes}\u202fmin" if hours else f"{minutes}\u202fmin {rest}\u202fs"


def size(amount: float) -> str:
    """Return an amount of memory."""
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f}\u202f{unit}"
        amount /= 1024
    return f"{amount:.1f}\u202fGiB"


def moment(time: datetime | str) -> str:
    """Return a time to the second, with its zone."""
    time = datetime.fromisoformat(time) if isinstance(time, str) else time
    return f"{time:%Y-%m-%d %H:%M:%S} {time.tzname() or ''}".strip()


FILTERS: dict[str, Callable[..., Any]] = {
    one.__name__: one for one in (isolated, shown, count, number, percent, difference, duration, size, moment)
}
