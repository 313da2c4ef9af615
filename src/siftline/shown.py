"""Texts from data, made safe for the place where they are shown; nothing here raises.

Data, names of columns and files, and the errors of others may have characters that move a cursor, forge a
line, turn the direction of text, call people or load images. Each place has one function.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from html import escape
from itertools import islice

_LONGEST = 60
_LONGEST_LINE = 2_000
# Invisible, although Python counts them as printable: fillers, joiners, selectors of variants.
_BLANK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0e\uffa0\U000e0100-\U000e01ef]"
)
# Colons and at signs too: they would turn addresses into links.
_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+.!|~&$:@-])")
# Calls of people and channels, and links whose text hides their target.
_CALLS = str.maketrans({"<": "‹", ">": "›", "@": "＠"})


def plain_text(value: object) -> str:
    """Return any value as text."""
    if isinstance(value, str):
        return value
    try:
        return str(value)
    except Exception:  # noqa: BLE001  the method of a foreign type, or an integer of too many digits
        return f"({type(value).__name__} without a text)"


def shown(value: object, longest: int = _LONGEST) -> str:
    """Return a value as one visible line of limited length; it may be markup."""
    text = plain_text(value)
    # Only the beginning matters, and it may be all that fits in memory twice.
    line = one_line(" ".join(text[: 4 * longest].split()))
    return _cut(line, longest, len(text) > 4 * longest)


def listed(names: Collection[object], most: int = 20) -> str:
    """Return names in one line; those beyond `most` are counted."""
    more = len(names) - most
    first = ", ".join(shown(name) for name in islice(names, most))
    return f"{first} and {more:,} more" if more > 0 else first


def one_line(text: str) -> str:
    """Return any text as one visible line, without forged lines and moved cursors."""
    if not text.isprintable():
        text = "".join(one if one.isprintable() else " " if one.isspace() else "�" for one in text)
    return _BLANK.sub("�", text)


def terminal_text(text: str) -> str:
    """Return lines of ours, with data in them, for a terminal."""
    return "\n".join(map(one_line, text.split("\n")))


def log_line(value: object) -> str:
    """Return a value, such as a foreign error, as one line of a log."""
    return shown(value, _LONGEST_LINE)


def html(value: object) -> str:
    """Return a value as one line of HTML text."""
    return escape(log_line(value))


def markdown(value: object) -> str:
    """Return a value as one line of Markdown text: no markup, link, image or HTML."""
    return _MARKUP.sub(r"\\\1", log_line(value))


def message_text(value: object) -> str:
    """Return a value as one line of a message, without calls and hidden links."""
    line = one_line(plain_text(value)[: _LONGEST_LINE + 1]).translate(_CALLS)
    return _cut(line.replace("](", "] ("), _LONGEST_LINE)


def _cut(line: str, longest: int, more: bool = False) -> str:
    return f"{line[: longest - 1]}…" if more or len(line) > longest else line
