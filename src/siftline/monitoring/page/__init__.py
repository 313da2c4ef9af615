"""The page: one self-contained document, and the policies that let a browser run nothing else."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from siftline.monitoring.security import NOTHING

# A report is a document of its own: it sees neither the page nor its API.
REPORT_POLICY = (
    f"{NOTHING}; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; font-src data:; "
    "sandbox allow-scripts"
)


def _asset(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = _asset("page.css"), _asset("page.js")
PAGE = _asset("page.html").replace("{style}", _STYLE).replace("{script}", _SCRIPT)
PAGE_POLICY = (
    f"{NOTHING}; script-src {_hash(_SCRIPT)}; style-src {_hash(_STYLE)}; connect-src 'self'; img-src data:"
)
