"""Texts from data, made safe to show: no control characters, no line breaks, no endless values."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

_LONGEST = 60
# Control, format (bidirectional marks among them), surrogate and private characters.
_HIDDEN = ("Cc", "Cf", "Cs", "Co")


def shown(value: object, longest: int = _LONGEST) -> str:
    """Return a value as one line of at most `longest` visible characters; it may still be markup."""
    text = value if isinstance(value, str) else str(value)
    # Only the beginning matters, and it may be all that fits in memory twice.
    line = " ".join(text[: 4 * longest].split())
    visible = "".join("�" if unicodedata.category(one) in _HIDDEN else one for one in line)
    cut = len(visible) > longest or len(text) > 4 * longest
    return f"{visible[: longest - 1]}…" if cut else visible


def reason_text(reason: Mapping[str, Any]) -> str:
    """Return a reason of the anomalies table in words."""
    how = f"typical {shown(reason['typical'])}"
    if reason["distance"] is not None:
        how += f", {reason['distance']:.1f} σ {'above' if reason['direction'] == 'high' else 'below'}"
    return f"{shown(reason['feature'])} {shown(reason['value'])} ({how})"


def cell(value: object) -> object:
    """Return a value of a carried column: numbers and times as they are, anything else as a safe text."""
    plain = (int, float, Decimal, date, time, timedelta)
    return value if value is None or isinstance(value, plain) else shown(value)
