"""Notes on CSV files: what was detected, and what is to be suspected."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from siftline.config.batch import SourceConfig
from siftline.source.csv.dialect import Dialect
from siftline.source.csv.numbers import NUMBER, all_match, grouped, unmarked_numbers


def detected_note(path: Path, dialect: Dialect, source: SourceConfig) -> list[str]:
    """Say what was detected, if anything."""
    found = dialect.detected(source.csv)
    said = ", ".join(f"{name} {value!r}" for name, value in found.items())
    return [f"{path}: read with {said} (detected; source.csv changes it)"] if said else []


def header_note(path: Path, rows: list[list[str]], dialect: Dialect) -> list[str]:
    """Suspect a header of numbers to be a row."""
    names = [name.strip() for name in dialect.names]
    if not dialect.header or not rows or not all(names):
        return []
    if not all_match(unmarked_numbers(pa.array(names), dialect.decimal, dialect.thousands), NUMBER):
        return []
    return [
        f"{path}: its header looks like a row ({', '.join(names[:3])}); "
        "if it has none, set source.csv.header to false"
    ]


def mark_note(name: str, column: pa.Array, dialect: Dialect) -> str | None:
    """Say that numbers have a mark that may be a decimal comma or separate thousands."""
    values = [one for one in column.slice(0, 1000).to_pylist() if one.strip()]
    other = "," if dialect.decimal == "." else "."
    if dialect.thousands is not None or not values or not grouped(values, other, dialect.decimal):
        return None
    example = next(one for one in values if other in one)
    return (
        f"column {name} is text: {example!r} may be a decimal fraction or have separated thousands; "
        "set source.csv.decimal or source.csv.thousands"
    )


def line_break_note(path: Path, breaks: int, dialect: Dialect) -> str:
    """Return the sentence about line breaks within quotes, which a stray quote makes of rows."""
    lines = "1 line break lies" if breaks == 1 else f"{breaks:,} line breaks lie"
    return (
        f"{path}: {lines} within quotes ({dialect.quote}); if the text has none, a stray quote has joined "
        "rows: correct it, or set source.csv.quote"
    )
