"""Paths as users give them: local ones, with ``~`` and ``file:`` URLs filled in."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from siftline.system.addresses import without_password

_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(/(?!/).*)", re.IGNORECASE | re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\w+|\{\w+\})(?:/|\Z)")
_URL = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.:-]*):/")


def local_path(text: str) -> str:
    """Fill in the home directory of a path; raise ValueError if it is not local."""
    if not text.strip():
        raise ValueError("is blank; give a path")
    if "\0" in text:
        raise ValueError("contains a NUL character; remove it")
    url = _FILE_URL.fullmatch(text)
    if url is not None:
        return local_path(unquote(url[1]))
    if _URL.match(text):
        remedy = "copy the data to a local or mounted directory"
        raise ValueError(f"{without_password(text)!r} is not a local path; {remedy}")
    if _VARIABLE.match(text):
        raise ValueError(f"{text!r} begins with a variable, which is not filled in; write its value")
    if not text.startswith("~"):
        return text
    try:
        return str(Path(text).expanduser())
    except RuntimeError:
        first = text.partition("/")[0]
        raise ValueError(f"no home directory is known for {first}; write ./{first} for a name") from None
