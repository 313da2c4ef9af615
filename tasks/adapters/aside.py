"""Work beside the result, such as messages: a failure is only logged."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from prefect import get_run_logger

from siftline.shown import log_line, plain_text

T = TypeVar("T")


def aside(what: str, call: Callable[[], T], otherwise: T) -> T:
    """Return the result of a call; on failure log `what`, and return `otherwise`."""
    try:
        return call()
    except Exception as error:  # noqa: BLE001  the result is the same without it
        reason = log_line(f"{type(error).__name__}: {plain_text(error)}")
        with suppress(Exception):  # nor does the log matter more than the result
            get_run_logger().warning("%s: %s", what, reason)
        return otherwise
