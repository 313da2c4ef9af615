"""Numbers, times and tables for a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TextIO
from unicodedata import east_asian_width

import click
from pydantic import BaseModel

from siftline.shown import plain_text, terminal_text


def say(text: str, *, err: bool = False, file: TextIO | None = None) -> None:
    """Print lines, without anything in them that acts on a terminal."""
    click.echo(terminal_text(text), file, err=err)


def say_json(value: object) -> None:
    """Print a value as a line of ASCII JSON, with null for NaN and infinity."""
    click.echo(json.dumps(_finite(value), default=plain_text, allow_nan=False))


def _finite(value: object) -> object:
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {plain_text(name): _finite(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def amount(number: int | None) -> str:
    """Return a number with separators; empty without one."""
    return "" if number is None else f"{number:,}"


def duration(seconds: float | None) -> str:
    """Return seconds in one or two units, such as ``1 min 20 s``."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours:,} h {minutes} min"
    return f"{minutes} min {left} s" if minutes else f"{left} s"


def size(count: int | None) -> str:
    """Return bytes in a readable unit; empty without a number."""
    if count is None:
        return ""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def local_time(moment: datetime | None) -> str:
    """Return a moment in local time, to the second."""
    return "" if moment is None else f"{moment.astimezone():%Y-%m-%d %H:%M:%S}"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table, its columns as wide as their widest cell; the last one is not padded."""
    widths = [max(map(width, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell + " " * (wide - width(cell)) for cell, wide in zip(row, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def width(text: str) -> int:
    """Return the columns that a text takes on a terminal."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)
