"""The token of the page: needed by all clients of `siftline serve` on an address that is not loopback."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from siftline.errors import storage_error
from siftline.stack.config import Stack
from siftline.system.addresses import is_loopback

TOKEN_VARIABLE = "SIFTLINE_SERVE_TOKEN"  # noqa: S105


def token_file(stack: Stack) -> Path:
    """Return the file of a stack's token."""
    return stack.home / "monitor-token"


def page_token(stack: Stack) -> str | None:
    """Return the token of a stack's page, made once; None on the loopback, or if the environment has one.

    It is in a file for its user alone, and never in arguments or logs.
    """
    if is_loopback(stack.host) or TOKEN_VARIABLE in os.environ:
        return None
    file = token_file(stack)
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
                new.write(f"{secrets.token_urlsafe(24)}\n")
        return file.read_text().strip()
    except OSError as error:
        raise storage_error(error, file) from error
