"""Prefect in the process of a command: quiet, and left in time."""

from __future__ import annotations

import os

from siftline.system.addresses import ask_loopback_directly
from siftline.system.prefect_api import NO_TELEMETRY, check_address, check_api, check_proxies

# Prefect itself would try for a quarter of an hour when its API is gone, and hold up the end of the process.
_LEAVING_SECONDS = 15.0
left_in_time = True


def prepare_prefect(verbose: bool = False) -> None:
    """Set Prefect's environment, before Prefect is imported; the user's own settings stay."""
    url = _given_address()
    if url is not None:
        check_address(url)
    ask_loopback_directly(url)
    check_proxies()
    settings = {
        # A silent API is given up below two minutes: Prefect's own values make six.
        "PREFECT_API_REQUEST_TIMEOUT": "15",
        "PREFECT_CLIENT_MAX_RETRIES": "4",
        **NO_TELEMETRY,
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    }
    if not verbose:
        # The server has the whole log; the terminal gets an error in one line.
        settings["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "CRITICAL"
        settings["PREFECT_INTERNAL_LOGGING_LEVEL"] = "CRITICAL"
    for name, value in settings.items():
        os.environ.setdefault(name, value)


def reach_given_api() -> None:
    """Check that a given API answers, without Prefect's slow import."""
    url = _given_address()
    if url is not None:
        check_api(url)


def _given_address() -> str | None:
    return os.environ.get("PREFECT_API_URL") or None


def leave_prefect(seconds: float = _LEAVING_SECONDS) -> None:
    """Let Prefect send what is left to send, for a while; `left_in_time` has the outcome."""
    from siftline.flows.server import news_sent

    global left_in_time
    left_in_time = False  # an interrupt, too, is the end of it
    left_in_time = news_sent(seconds)
