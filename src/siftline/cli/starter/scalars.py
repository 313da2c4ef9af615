"""Unambiguous values and comments in YAML, from any text."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterable, Sequence

import yaml

from siftline.config.templates import has_template, is_malformed

_PLAIN = re.compile(r"[^\W\d](?:[\w ./-]*\w)?|[./][\w./-]*\w")
_ALSO_BOOLEAN = ("y", "n")  # in YAML 1.1, though not in PyYAML
_WIDTH = 110


def scalar(text: str) -> str:
    """Return a name as a YAML scalar, quoted where needed; a template is escaped."""
    if has_template(text) and not is_malformed(text):
        text = _as_template(text)
    return _quoted(text)


def path_scalar(text: str) -> str:
    """Return a path as a YAML scalar, with all signs of templates escaped."""
    return _quoted(_as_template(text) if has_template(text) else text)


def _as_template(text: str) -> str:
    """Return a template that renders to the text."""
    return f"{{{{ {json.dumps(text, ensure_ascii=False)} }}}}"


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _ALSO_BOOLEAN and _is_text(text):
        return text
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=float("inf"))
    return quoted.removesuffix("\n")


def flow_list(texts: Iterable[str]) -> str:
    """Return texts as a list on one line."""
    return f"[{', '.join(map(scalar, texts))}]"


def comment(text: str, indent: int, more: int = 0) -> str:
    """Wrap text as a comment, with later lines indented by `more`."""
    start = " " * indent + "# "
    lines = textwrap.wrap(text, _WIDTH, initial_indent=start, subsequent_indent=start + " " * more)
    return "".join(f"{line}\n" for line in lines)


def listed(parts: Sequence[str], most: int) -> str:
    """Return the first parts, and how many others there are."""
    others = len(parts) - most
    return "; ".join(parts[:most]) + (f"; and {others:,} others" if others > 0 else "")


def _is_text(text: str) -> bool:
    try:
        return bool(yaml.safe_load(text) == text)
    except (yaml.YAMLError, ValueError):  # a date that does not exist
        return False
